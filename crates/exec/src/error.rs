//! Why a plan could not be run.

use polyveil_ckks::CkksError;
use polyveil_plan::PlanError;

/// Errors of running a plan.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The plan contradicts itself.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// An operation on ciphertexts was refused.
    #[error("layer `{layer}`: {source}")]
    Ckks {
        /// The layer being computed.
        layer: String,
        /// What was refused.
        source: CkksError,
    },
    /// The input does not fit the plan.
    #[error("the plan reads {expected} {what}, found {found}")]
    Input {
        /// Which property.
        what: &'static str,
        /// What the plan needs.
        expected: String,
        /// What was given.
        found: String,
    },
    /// The evaluation keys lack one that the plan uses.
    #[error(
        "the evaluation keys lack {key} at level {level}: make them with `polyveil keygen` from this plan's client half"
    )]
    MissingKey {
        /// Which key.
        key: String,
        /// At which level the plan uses it.
        level: usize,
    },
    /// The caller asked to stop.
    #[error("cancelled at layer `{layer}`")]
    Cancelled {
        /// The layer that was not begun.
        layer: String,
    },
}
