//! The server's step: running a plan on ciphertexts. Nothing here can decrypt.

use std::sync::Arc;

use polyveil_ckks::{Ciphertext, CkksError, EvaluationKeys, Parameters, SeededCiphertext};
use polyveil_exec::{Control, ExecError, LayerTime, Output, Program};
use polyveil_plan::ServerPlan;

use crate::error::{CliError, Exit};
use crate::pipeline::planning;
use crate::progress::Progress;
use crate::session::Session;

/// The server's side of one plan.
pub struct Server {
    program: Program,
    parameters: Parameters,
}

impl Server {
    /// Checks a plan and prepares it for running.
    pub fn new(plan: ServerPlan) -> Result<Self, CliError> {
        let parameters = plan.parameters().map_err(planning::refused)?;
        let program = Program::load(plan).map_err(refused)?;
        Ok(Self { program, parameters })
    }

    /// The plan's server half.
    pub fn plan(&self) -> &ServerPlan {
        self.program.plan()
    }

    /// The program, for the plain and the simulated mode.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The plan's parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Runs one encrypted batch. `done` batches went before; `display` counts steps of all batches; `entered` is called with each step
    /// when it starts.
    pub fn run(
        &self,
        keys: &Arc<EvaluationKeys>,
        batch: &[SeededCiphertext],
        done: usize,
        display: &Progress,
        entered: &(dyn Fn(usize) + Sync),
        session: &Session,
    ) -> Result<Output<Ciphertext>, CliError> {
        let expand =
            |c: &SeededCiphertext| c.expand(&self.parameters).map_err(|e| CliError::new(Exit::Mismatch, e));
        let inputs = batch.iter().map(expand).collect::<Result<_, _>>()?;
        let what = if self.plan().batch() > 1 { "batch" } else { "image" };
        let progress = |step: usize, steps: usize, name: &str| {
            entered(step);
            display.set((done * steps + step) as u64, &format!("{what} {}, {name}", done + 1));
        };
        let control = Control { progress: &progress, cancel: session.cancel() };
        self.program.run_encrypted(&self.parameters, Arc::clone(keys), inputs, &control).map_err(refused)
    }

    /// Units of a progress display over so many batches.
    pub fn progress_total(&self, batches: usize) -> u64 {
        (batches * self.plan().steps.len()) as u64
    }
}

/// Mean seconds by layer over several runs.
pub fn mean_times(traces: &[Vec<LayerTime>]) -> Vec<(String, f64)> {
    let Some(first) = traces.first() else { return Vec::new() };
    let mean = |index: usize| {
        traces.iter().filter_map(|t| t.get(index)).map(|t| t.seconds).sum::<f64>() / traces.len() as f64
    };
    first.iter().enumerate().map(|(index, layer)| (layer.name.clone(), mean(index))).collect()
}

/// A failure of the interpreter in the words of the command line.
pub fn refused(error: ExecError) -> CliError {
    match error {
        ExecError::Plan(error) => planning::refused(error),
        ExecError::Cancelled { .. } => CliError::new(Exit::Interrupted, error),
        ExecError::Input { .. } | ExecError::MissingKey { .. } => CliError::new(Exit::Mismatch, error),
        ExecError::Ckks { source: CkksError::KeyNotLoaded { .. }, .. } => CliError::new(Exit::File, error),
        ExecError::Ckks { source: CkksError::KeyMismatch { .. }, .. } => CliError::new(Exit::Mismatch, error),
        ExecError::Ckks { source: CkksError::ScaleMismatch { .. }, .. } => {
            CliError::new(Exit::Mismatch, error)
        }
        ExecError::Ckks { .. } => CliError::new(Exit::Internal, error),
    }
}
