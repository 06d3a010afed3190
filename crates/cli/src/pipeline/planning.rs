//! From a network to a plan, and what a plan will cost.

use polyveil_exec::{Program, measure_unit_costs};
use polyveil_net::{Graph, Tensor};
use polyveil_plan::{CompileOptions, Compiled, Estimate, PlanError, ServerPlan, UnitCosts, Work};

use crate::error::{CliError, Exit};
use crate::pipeline::client;

/// Images that show the planner the range of every value.
pub const CALIBRATION_IMAGES: usize = 64;

/// Plans `graph`; `calibration` are inputs as in use, `tolerance` the largest error of a score over the
/// largest score.
pub fn compile(graph: &Graph, calibration: Vec<Tensor>, tolerance: f64) -> Result<Compiled, CliError> {
    polyveil_plan::compile(graph, &CompileOptions { calibration, tolerance }).map_err(refused)
}

/// Predicts time, memory and sizes, with unit costs measured on this machine.
pub fn estimate(plan: &ServerPlan) -> Result<Estimate, CliError> {
    let unit = measure_unit_costs(plan.parameters.log_n).map_err(|e| CliError::new(Exit::Parameters, e))?;
    estimate_with(plan, &unit)
}

/// Predicts memory and sizes; measures nothing, so the seconds mean nothing.
pub fn sizes(plan: &ServerPlan) -> Result<Estimate, CliError> {
    let nothing = UnitCosts {
        ntt_ns: 0.0,
        mac_full_ns: 0.0,
        mac_periodic_ns: 0.0,
        key_mac_ns: 0.0,
        convert_ns: 0.0,
        embed_ns: 0.0,
        speedup: 1.0,
    };
    estimate_with(plan, &nothing)
}

fn estimate_with(plan: &ServerPlan, unit: &UnitCosts) -> Result<Estimate, CliError> {
    let program = Program::load(plan).map_err(super::server::refused)?;
    let work = Work::count(plan, &program.lowered());
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
        PlanError::Unsound { .. } => CliError::new(Exit::File, error),
        _ => CliError::new(Exit::Parameters, error),
    }
}
