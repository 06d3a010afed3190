//! What the planner is at, for whoever waits for it.

use crate::PlanError;

/// What planning is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Ranges of values, from calibration inputs.
    Ranges {
        /// Inputs done.
        done: usize,
        /// Of how many.
        of: usize,
    },
    /// What errors inside the network do to its scores.
    Sensitivity,
    /// One way to lay the network out.
    Layout {
        /// log2 of the ring's degree.
        log_n: u32,
        /// Which way, from 1.
        number: usize,
        /// Of how many of this kind.
        of: usize,
    },
    /// Moduli for one layout.
    Moduli {
        /// log2 of the ring's degree.
        log_n: u32,
    },
    /// The keys of all plans so far exceed their limit: another search, in which keys count more.
    Keys {
        /// Fewest bytes of any plan so far.
        least: u64,
        /// Bytes allowed.
        limit: u64,
    },
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ranges { done, of } => write!(f, "ranges of calibration inputs, {done} of {of}"),
            Self::Sensitivity => f.write_str("how errors reach the scores"),
            Self::Layout { log_n, number, of } => write!(f, "layouts for N = 2^{log_n}, {number} of {of}"),
            Self::Moduli { log_n } => write!(f, "moduli for N = 2^{log_n}"),
            Self::Keys { least, limit } => {
                write!(f, "keys of {least} bytes where {limit} are allowed, planning anew")
            }
        }
    }
}

/// Hears of every stage; answers whether to go on.
pub(crate) struct Watch<'a>(pub &'a (dyn Fn(Stage) -> bool + Sync));

impl Watch<'_> {
    /// # Errors
    /// [`PlanError::Cancelled`] where the answer is no.
    pub fn enter(&self, stage: Stage) -> Result<(), PlanError> {
        if (self.0)(stage) { Ok(()) } else { Err(PlanError::Cancelled) }
    }
}
