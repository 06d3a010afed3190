//! From a network to a plan, and what a plan will cost.

use clap::Args;
use polyveil_exec::{Program, measure_unit_costs};
use polyveil_net::{Graph, Tensor};
use polyveil_plan::{
    CompileOptions, Compiled, Diagonals, Estimate, PlanError, ServerPlan, Stage, UnitCosts, Work,
};

use crate::args::parse_bytes;
use crate::error::{CliError, Exit};
use crate::pipeline::client;
use crate::session::Session;

/// Images that show the planner the range of every value.
pub const CALIBRATION_IMAGES: usize = 64;

/// What a plan is made for, on the command line.
#[derive(Debug, Args)]
#[command(next_help_heading = "Plan")]
pub struct PlanArgs {
    /// Largest error of a score allowed, relative to the largest score.
    #[arg(long, default_value_t = 1e-3, value_parser = parse_tolerance)]
    pub tolerance: f64,
    /// Images that share ciphertexts and are run together: more take more memory, and less time each.
    #[arg(long, value_name = "N", default_value = "1", value_parser = parse_batch)]
    pub batch: usize,
    /// Most that all evaluation keys may take in their file: fewer keys take more time; takes K, M, G, T (powers of 1024)
    /// [default: no limit].
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub max_keys: Option<u64>,
}

impl PlanArgs {
    /// For the planner; `calibration` are inputs as in use.
    pub fn options(&self, calibration: Vec<Tensor>) -> CompileOptions {
        let &Self { tolerance, batch, max_keys: max_key_bytes } = self;
        CompileOptions { calibration, tolerance, batch, max_key_bytes }
    }

    /// As arguments of another process.
    pub fn to_args(&self) -> Vec<String> {
        let &Self { tolerance, batch, max_keys } = self;
        let keys = max_keys.map(|bytes| format!("--max-keys={bytes}"));
        [format!("--tolerance={tolerance}"), format!("--batch={batch}")].into_iter().chain(keys).collect()
    }
}

/// Plans `graph`, and shows what it is at.
pub fn compile(graph: &Graph, options: &CompileOptions, session: &Session) -> Result<Compiled, CliError> {
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
    mut options: CompileOptions,
    session: &Session,
) -> Result<Compiled, CliError> {
    let batch = options.batch;
    let compiled = compile(graph, &options, session)?;
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
        let smaller = compile(graph, &options, session)?;
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

/// A tolerance between 1e-12 and 1.
fn parse_tolerance(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| format!("\"{text}\" is not a number"))?;
    if (1e-12..=1.0).contains(&value) {
        return Ok(value);
    }
    Err(format!("{text} is not between 1e-12 and 1"))
}

/// What `--batch` takes.
fn parse_batch(text: &str) -> Result<usize, String> {
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
        PlanError::Keys { least, .. } => {
            CliError::new(Exit::Parameters, &error).help(format!("use `--max-keys {least}` or more"))
        }
        PlanError::Unsound { .. } => CliError::new(Exit::File, error),
        PlanError::Cancelled => CliError::new(Exit::Interrupted, error),
        _ => CliError::new(Exit::Parameters, error),
    }
}
