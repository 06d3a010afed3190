//! Runs graphs forward and backward on this machine's processors.
//!
//! The graph stays the one owner of all parameters; gradients come back as plain vectors, so that optimiser,
//! clipping, checkpoints and roll-back are plain code on plain data. A step is cut into parts that run side by
//! side, and a part into passes whose values stay in the caches. Every operator has its gradient written out
//! beside it; products of matrices are kernels of `polyveil-math`.
//!
//! Why not a tensor library on the processor: interpreting the same graph with one (Burn 0.22, `flex`) took several
//! times as long, as every operator there allocates, and walks its operands once more for each small step. On a
//! GPU that library is the way: the features `cuda`, `wgpu` and `tch` put its devices in place of the native engine
//! (`burn`), without other change.

mod activation;
#[cfg(feature = "burn")]
mod burn;
mod conv;
mod features;
mod frame;
mod infer;
pub(crate) mod logistic;
mod norm;
mod observe;
mod options;
mod parameters;
mod pass;
mod pool;
mod refit;
mod ridge;
mod step;
mod value;
mod wide;

/// Parameters that one thread takes at a time in passes over all of them, which memory bounds.
pub(crate) const PIECE: usize = 1 << 16;

#[cfg(feature = "burn")]
pub(crate) use burn::{gradient_step, infer, infer_observed};
pub(crate) use features::{Features, Pair};
pub(crate) use infer::Scores;
#[cfg(not(feature = "burn"))]
pub(crate) use infer::{infer, infer_observed};
pub(crate) use observe::{ChannelStats, LayerStats, first_non_finite};
pub(crate) use options::ForwardOptions;
pub(crate) use parameters::{Group, ParameterId, parameter, parameter_mut, parameters};
pub(crate) use refit::refit;
#[cfg(not(feature = "burn"))]
pub(crate) use step::gradient_step;
pub(crate) use step::{Batch, Soft, StepOutput, Terms, soft_targets};
pub(crate) use value::{Buffer, Value};
