//! Why a network could not be planned.

/// A graph node that cannot run on ciphertexts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unplannable {
    /// Node name.
    pub node: String,
    /// What it computes.
    pub op: String,
    /// What to use instead.
    pub advice: String,
}

/// Errors of planning.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The caller asked to stop.
    #[error("planning was stopped")]
    Cancelled,
    /// The graph is malformed.
    #[error("the network graph is not sound: {0}")]
    Graph(#[from] polyveil_net::ShapeError),
    /// Operators that no ciphertext operation computes, all of them.
    #[error("{} of the network cannot run on ciphertexts:{}", count(.0.len()), list(.0))]
    Unplannable(Vec<Unplannable>),
    /// The network needs more levels than any allowed parameter set has.
    #[error(
        "the network needs {needed} levels at {bits} bits each, {total} bits with the base prime and the special primes; the largest ring allowed (N = 2^{max_log_n}) has {limit} bits at 128-bit security (deepest path ends in `{layer}`). Use fewer activations or layers"
    )]
    TooDeep {
        /// Levels on the deepest path.
        needed: usize,
        /// Least bits of a level.
        bits: u32,
        /// Bits that the moduli would need.
        total: u32,
        /// Largest ring tried.
        max_log_n: u32,
        /// Bits allowed at that ring.
        limit: u32,
        /// The layer that ends the deepest path.
        layer: String,
    },
    /// No parameter set reached the precision asked for.
    #[error(
        "no parameter set up to N = 2^{max_log_n} reaches a relative error of {wanted:e}: the best predicted is {best:e}, most of it from layer `{layer}`. Allow a larger error, or bring the activation ranges down"
    )]
    Imprecise {
        /// Largest ring tried.
        max_log_n: u32,
        /// Error asked for, relative to the output range.
        wanted: f64,
        /// Best predicted.
        best: f64,
        /// Layer that contributes most.
        layer: String,
    },
    /// A calibration image does not fit the network or is not finite.
    #[error("calibration input {index}: {reason}")]
    Calibration {
        /// Which one.
        index: usize,
        /// Expected and found.
        reason: String,
    },
    /// Values grow beyond what the arithmetic can hold.
    #[error(
        "values at layer `{layer}` reach {found:e} on the calibration inputs; at most {limit:e} can be held at that level. Retrain with range control (`polyveil convert`)"
    )]
    Overflow {
        /// The layer.
        layer: String,
        /// Largest magnitude seen.
        found: f64,
        /// Largest magnitude allowed.
        limit: f64,
    },
    /// The network is larger than the planner handles.
    #[error("layer `{layer}`: {what} is {found}, at most {limit} can be planned")]
    TooLarge {
        /// The layer.
        layer: String,
        /// Which size.
        what: &'static str,
        /// Its value.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// The evaluation keys take more bytes than they may.
    #[error(
        "the evaluation keys take at least {least} bytes in the plans found, at most {limit} are allowed"
    )]
    Keys {
        /// Bytes allowed.
        limit: u64,
        /// Fewest bytes of any plan found.
        least: u64,
    },
    /// As many images do not go together.
    #[error("a batch of {found} images; from 1 to {limit} go together")]
    Batch {
        /// Images asked for.
        found: usize,
        /// Most that are possible.
        limit: usize,
    },
    /// Parameters could not be made.
    #[error("no parameters at N = 2^{log_n}: {source}")]
    Parameters {
        /// Ring.
        log_n: u32,
        /// Why.
        source: polyveil_ckks::ParameterError,
    },
    /// A plan read from a file contradicts itself.
    #[error("the plan is not sound at {place}: {reason}")]
    Unsound {
        /// Step or field.
        place: String,
        /// What is wrong.
        reason: String,
    },
}

fn count(n: usize) -> String {
    format!("{n} {}", if n == 1 { "node" } else { "nodes" })
}

fn list(nodes: &[Unplannable]) -> String {
    nodes.iter().map(|n| format!("\n  {} ({}): {}", n.node, n.op, n.advice)).collect()
}
