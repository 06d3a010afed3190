//! From a network to a plan for encrypted inference.
//!
//! A plan is data: values with layout, level, scale and range, and two kinds of step between them
//! (linear, square). [`compile`] makes both halves, the server's (weights, no pre-processing) and the
//! data owner's (layouts and pre-processing, no weights). Nothing here touches a key or a ciphertext.
//!
//! ```text
//! Graph ─ canonical ─► linear + square ─ arrange ─► layouts ─ diagonals, bsgs ─► rotations
//!       ─ draft ─► depths, ranges ─ moduli, scales, predict ─► parameters ─► ServerPlan + ClientPlan
//! ```
//!
//! It does not train, and it does not approximate: a ReLU or max-pool is refused with a pointer to
//! conversion.
#![forbid(unsafe_code)]

mod affine;
mod allocate;
mod arrange;
mod batch;
mod bsgs;
pub mod calibrate;
mod canonical;
mod chain;
mod compile;
mod cost;
mod diagonals;
mod draft;
mod error;
mod layout;
mod linop;
mod merge;
mod moduli;
mod plan;
mod predict;
mod scales;
mod schedule;
mod search;
mod sensitivity;
mod splits;
mod sweep;
mod watch;

pub use bsgs::{Baby, Parts, Split};
pub use canonical::{Ir, IrId, IrKind, IrNode, IrTerm, canonicalise};
pub use compile::{CompileOptions, compile, compile_insecure_for_tests, compile_watched};
pub use cost::{
    Estimate, LayerEstimate, StepWork, UnitCosts, Work, double_hoisting_pays, estimate, key_weight, log_qp,
};
pub use diagonals::{Diagonal, Diagonals, MAX_NUMBERS, Source, lower_within};
pub use error::{PlanError, Unplannable};
pub use layout::{ANY, Digit, Layout, Place, SlotMap, ZERO, is_element};
pub use linop::ConvOp;
pub use plan::{
    ClientPlan, Compiled, LinearStep, PlanId, Precision, ServerPlan, Step, StepKind, Term, Unused, Value,
    ValueId, Weighting,
};
pub use schedule::{Giant, OutputSchedule, Product, Schedule};
pub use watch::Stage;
