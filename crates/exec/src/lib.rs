//! Runs a plan: plain, simulated, or on ciphertexts.
//!
//! One interpreter ([`Program::run`]) walks the plan's steps and asks a [`Backend`] for a dozen
//! operations; the three modes are three backends:
//!
//! | backend | a ciphertext is | what it is for |
//! |---|---|---|
//! | [`Plain`] | slots | what the plan means, exact |
//! | [`Simulated`] | slots plus modelled noise | accuracy of a whole test split before any key exists |
//! | [`Encrypted`] | a CKKS ciphertext | the run on the server |
//!
//! This crate cannot decrypt: it does not depend on `polyveil-client`.
#![forbid(unsafe_code)]

mod backend;
mod costs;
mod encrypted;
mod error;
mod linear;
mod modes;
mod plain;
mod program;
mod simulated;

pub use backend::{Backend, GiantSum, WeightedRotations, Weights};
pub use costs::measure_unit_costs;
pub use encrypted::Encrypted;
pub use error::ExecError;
pub use modes::check_keys;
pub use plain::Plain;
pub use program::{Control, LayerTime, Output, Program};
pub use simulated::{Simulated, SimulatedCipher};
