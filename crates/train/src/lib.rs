//! Data sets, training, conversion of ReLU networks to HE-friendly ones, metrics.
//!
//! ```text
//! DataSet ──► train_teacher ──► ReLU teacher ──► convert ──► HE-friendly student (frozen Graph)
//!    │                                                            │
//!    └───────────────────────────► evaluate ◄─────────────────────┘
//! ```
//!
//! Everything here works on any [`polyveil_net::Graph`]: the nodes of the graph are interpreted by
//! a tensor engine with automatic differentiation, and the trained parameters are written back to
//! the same graph. The engine (Burn) is an implementation detail; none of its types is public.
//!
//! The conversion follows Baruch, Drucker, Greenberg and Moshkowich, *A methodology for training
//! homomorphic encryption friendly neural networks* (arXiv 2111.03362): average pools, trainable
//! quadratic activations that replace ReLU smoothly, and distillation from the ReLU network; with
//! range control so that activations do not escape.
//!
//! A run is a function of its configuration, its data and its first graph: the same seed gives the
//! same network, also across an interruption ([`RunControl::checkpoint_dir`]).
//!
//! What this crate does not do: encrypt, plan, or read model files.
#![forbid(unsafe_code)]

#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod checkpoint;
mod config;
mod control;
mod convert;
pub mod data;
mod engine;
#[cfg(test)]
mod engine_laws;
mod error;
mod history;
mod init;
pub mod metadata;
pub mod metrics;
mod optim;
mod random;
mod run;
mod schedule;
pub mod statistics;
mod teacher;

pub use config::{
    Ablation, ActivationConfig, ActivationForm, Augmentation, BatchNormPolicy, ConvertConfig, Distillation,
    Granularity, GuardConfig, InitialWeights, Keep, Method, NormaliseConfig, OptimiserConfig, RangeControl,
    Reconstruction, SettingsError, StartCoefficients, TrainConfig, Transition, TransitionKind, merge,
    overlay,
};
pub use control::{Phase, Progress, RunControl};
pub use convert::{ConvertOutcome, attempt_conversion, convert, input_ranges, replace_max_pools};
pub use data::{DataError, DataOptions, DataSet, Geometry, Preprocessing, Split};
pub use error::TrainError;
pub use history::{ActivationRecord, EpochRecord, Event, History, Refusal, Timing, Verdict};
pub use init::initialise;
pub use metadata::{RangeRecord, Ranges, Within};
pub use metrics::{
    ClassMetrics, Evaluation, Metrics, evaluate, evaluate_by_source, evaluate_indices, logits,
};
pub use teacher::{TrainOutcome, train_teacher};
