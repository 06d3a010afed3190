//! What can go wrong on the data owner's side.

use polyveil_ckks::{CkksError, KeyId};
use polyveil_math::MathError;

/// Errors of key handling, encryption and decryption.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness: {0}")]
    Randomness(String),
    /// The ciphertext was made under another key.
    #[error("the ciphertext belongs to key {found}, this is key {expected}")]
    WrongKey {
        /// This key.
        expected: KeyId,
        /// The ciphertext's key.
        found: KeyId,
    },
    /// The bytes are no secret key for these parameters.
    #[error("secret key bytes refused: {0}")]
    BadSecretKey(String),
    /// The caller stopped key generation.
    #[error("stopped after {done} of {total} keys")]
    Cancelled {
        /// Keys that were finished, and are now discarded.
        done: usize,
        /// Keys that were asked for.
        total: usize,
    },
    /// A precision that does not make sense.
    #[error("precision of {found} bits; −64 to 64 are allowed")]
    BadPrecision {
        /// What was asked for.
        found: i32,
    },
    /// Noise flooding that does not make sense.
    #[error("noise flooding refused: {reason}")]
    BadFlooding {
        /// Why.
        reason: &'static str,
    },
    /// A decrypted value is larger than is believed: values wrapped around a modulus on the way, or the input is unlike all that the
    /// plan was made with.
    #[error("values of up to {found:.0e} came out, where {range:.1e} is the most that is believed")]
    OutOfRange {
        /// The largest magnitude, as the next power of two, which tells nothing of the noise.
        found: f64,
        /// The largest that is believed.
        range: f64,
    },
    /// The engine refused.
    #[error(transparent)]
    Ckks(#[from] CkksError),
    /// The arithmetic refused.
    #[error(transparent)]
    Math(#[from] MathError),
}
