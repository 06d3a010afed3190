//! RNS-CKKS: checked parameters, encoding, ciphertexts, evaluation keys, the evaluator and its noise formulas.
//!
//! This crate is what a server links. It has **no secret key type and cannot decrypt**; those live in `polyveil-client`.
//!
//! ```text
//! ParametersLiteral ──checked──► Parameters ──► Encoder ──► Plaintext / PeriodicPlaintext
//!                                    │                             │
//!                                    └────► Evaluator ◄── Ciphertext, EvaluationKeys
//! ```
//!
//! * A *level* is the number of rescales that are left. Which primes its modulus has is the parameters' choice; level 0 has the
//!   fewest.
//! * A *scale* is the exact factor between slot values and encoded integers, kept as `f64`; rescaling divides it by
//!   exactly what the modulus loses.
//! * All polynomials are kept as transform values; see `polyveil_math::ring` for the two rings and their slot order.
//! * Every operation checks levels, scales, key identity and key presence, and its errors carry both sides.
//!
//! References: Cheon, Kim, Kim, Song (Asiacrypt 2017) and Cheon, Han, Kim, Kim, Song (SAC 2018) for (RNS-)CKKS; Kim, Song
//! (ICISC 2018) for the conjugate-invariant ring; Han, Ki (CT-RSA 2020) for hybrid key switching; Bossuat, Mouchet,
//! Troncoso-Pastoriza, Hubaux (Eurocrypt 2021) for hoisting.
//!
//! What it does not promise: results of an honest-but-curious server only, no proof of correct evaluation, no hiding of
//! the weights from whoever runs them.
#![forbid(unsafe_code)]

mod ciphertext;
mod encoder;
mod error;
mod evaluator;
mod expand;
mod keys;
pub mod noise;
pub mod par;
mod parameters;
mod plaintext;
mod precision;

pub use ciphertext::{Ciphertext, SeededCiphertext};
pub use encoder::Encoder;
pub use error::CkksError;
pub use evaluator::{Evaluator, GiantStep, RotatedProduct, transform_is_heavy, transform_round};
pub use expand::{uniform_extended, uniform_primes, uniform_q};
pub use keys::{EvaluationKeys, KeyId, KeySource, KeySpec, SwitchingKey};
pub use parameters::{
    Budget, ParameterError, Parameters, ParametersLiteral, SECURITY_TABLE, Security, SecurityRow, SharedChain,
};
pub use plaintext::{EncodedWeights, IntegerPlaintext, PeriodicPlaintext, Plaintext};
pub use polyveil_math::{Modulus, Ntt, Poly, RingKind};
pub use precision::PrecisionStats;
