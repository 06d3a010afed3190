//! From a network to a plan, and what a plan will cost.

use polyveil_exec::{Program, measure_unit_costs};
use polyveil_net::{Graph, Tensor};
use polyveil_plan::{
    CompileOptions, Compiled, Diagonals, Estimate, PlanError, ServerPlan, Stage, UnitCosts, Work,
};

use crate::error::{CliError, Exit};
use crate::pipeline::client;
use crate::session::Session;

/// Images that show the planner the range of every value.
pub const CALIBRATION_IMAGES: usize = 64;

/// Plans `graph`; `calibration` are inputs as in use, `tolerance` the largest error of a score over the
/// largest score, `batch` the images that are run together.
pub fn compile(
    graph: &Graph,
    calibration: Vec<Tensor>,
    tolerance: f64,
    batch: usize,
    session: &Session,
) -> Result<Compiled, CliError> {
    watched(graph, &CompileOptions { calibration, tolerance, batch }, session)
}

/// Plans, and shows what it is at.
fn watched(graph: &Graph, options: &CompileOptions, session: &Session) -> Result<Compiled, CliError> {
    let display = session.activity("compile");
    let watch = |stage: Stage| {
        display.set(0, &stage.to_string());
        session.check_cancel().is_ok()
    };
    match polyveil_plan::compile_watched(graph, options, &watch) {
        Err(PlanError::Cancelled) => {
            Err(session.check_cancel().err().unwrap_or_else(|| refused(PlanError::Cancelled)))
        }
        other => other.map_err(refused),
    }
}

/// As [`compile`], for several images at a time; refuses a batch that needs more memory than there is, and says which one does not.
pub fn compile_batch(
    graph: &Graph,
    calibration: Vec<Tensor>,
    tolerance: f64,
    batch: usize,
    session: &Session,
) -> Result<Compiled, CliError> {
    let mut options = CompileOptions { calibration, tolerance, batch };
    let compiled = watched(graph, &options, session)?;
    if batch == 1 {
        return Ok(compiled);
    }
    let memory = |plan: &ServerPlan| {
        let lowered = plan.lowered().map_err(refused)?;
        let lowered: Vec<_> = lowered.iter().map(Option::as_ref).collect();
        let needed = estimate_with(plan, &lowered, &NOTHING)?.server_memory_bytes;
        session.require_memory(&format!("a batch of {batch} images"), needed)
    };
    let Err(mut error) = memory(&compiled.server) else { return Ok(compiled) };
    if error.exit != Exit::Memory {
        return Err(error);
    }
    options.batch = batch.next_power_of_two();
    while options.batch > 1 {
        options.batch /= 2;
        let smaller = watched(graph, &options, session)?;
        if memory(&smaller.server).is_ok() {
            error.message += &format!("; the largest batch that fits is {}", options.batch);
            return Err(
                error.help(format!("use `--batch {}` or less, or raise `--max-memory`", options.batch))
            );
        }
    }
    error.message += "; not even a single image fits";
    Err(error)
}

/// What `--batch` takes.
pub fn parse_batch(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(batch) if batch >= 1 => Ok(batch),
        _ => Err(format!("\"{text}\" is no number of images from 1 on")),
    }
}

/// Predicts time, memory and sizes, with unit costs measured on this machine.
pub fn estimate(program: &Program) -> Result<Estimate, CliError> {
    let plan = program.plan();
    let unit = measure_unit_costs(plan.parameters.log_n).map_err(|e| CliError::new(Exit::Parameters, e))?;
    estimate_with(plan, &program.lowered(), &unit)
}

/// Predicts memory and sizes; measures nothing, so the seconds mean nothing.
pub fn sizes(program: &Program) -> Result<Estimate, CliError> {
    estimate_with(program.plan(), &program.lowered(), &NOTHING)
}

/// Operations that take no time.
const NOTHING: UnitCosts = UnitCosts {
    ntt_ns: 0.0,
    mac_full_ns: 0.0,
    mac_periodic_ns: 0.0,
    key_mac_ns: 0.0,
    convert_ns: 0.0,
    embed_ns: 0.0,
    speedup: 1.0,
};

fn estimate_with(
    plan: &ServerPlan,
    lowered: &[Option<&Diagonals>],
    unit: &UnitCosts,
) -> Result<Estimate, CliError> {
    let work = Work::count(plan, lowered);
    let mut estimate = polyveil_plan::estimate(plan, &work, unit);
    // Keys are made, written and dropped one at a time.
    let parameters = plan.parameters().map_err(refused)?;
    estimate.client_memory_bytes = client::memory_bytes(&parameters, &plan.keys);
    Ok(estimate)
}

/// A failure of the planner in the words of the command line.
pub fn refused(error: PlanError) -> CliError {
    let convert = "`polyveil convert MODEL --data DATA --out STUDENT.onnx` trains an HE-friendly network";
    match &error {
        PlanError::Graph(_) => CliError::new(Exit::Model, error),
        PlanError::Unplannable(nodes) => {
            let help = if nodes.iter().any(|n| n.advice.contains("convert")) {
                convert
            } else {
                "see the list above"
            };
            CliError::new(Exit::Model, &error).help(help)
        }
        PlanError::Calibration { .. } => CliError::new(Exit::Data, error),
        PlanError::Batch { limit, .. } => {
            CliError::new(Exit::Parameters, &error).help(format!("use `--batch {limit}` or less"))
        }
        PlanError::Unsound { .. } => CliError::new(Exit::File, error),
        PlanError::Cancelled => CliError::new(Exit::Interrupted, error),
        _ => CliError::new(Exit::Parameters, error),
    }
}
