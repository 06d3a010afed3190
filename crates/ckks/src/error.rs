//! What an encoding or an evaluation refuses, with both sides of each mismatch.

use crate::keys::KeyId;
use crate::parameters::ParameterError;
use polyveil_math::MathError;

/// Errors of encoding, evaluation and checked construction.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CkksError {
    /// The parameters were refused.
    #[error(transparent)]
    Parameters(#[from] ParameterError),
    /// A buffer was refused.
    #[error(transparent)]
    Math(#[from] MathError),
    /// The level does not exist.
    #[error("level {found} does not exist: these parameters have levels 0 to {max}")]
    NoSuchLevel {
        /// The level asked for.
        found: usize,
        /// The highest level.
        max: usize,
    },
    /// Two operands are at different levels.
    #[error("levels differ: {left} and {right}")]
    LevelMismatch {
        /// Level of the left operand.
        left: usize,
        /// Level of the right operand.
        right: usize,
    },
    /// A plaintext or a key reaches less high than the ciphertext.
    #[error("{what} reaches level {available}, the ciphertext is at level {needed}")]
    LevelTooLow {
        /// What is too short.
        what: &'static str,
        /// Its level.
        available: usize,
        /// The ciphertext's level.
        needed: usize,
    },
    /// No level is left to rescale or drop to.
    #[error("cannot go from level {from} to level {to}")]
    LevelExhausted {
        /// The current level.
        from: usize,
        /// The level asked for, as text because it may be negative.
        to: String,
    },
    /// Two scales that must agree do not.
    #[error("scales differ: 2^{:.6} and 2^{:.6}", left.log2(), right.log2())]
    ScaleMismatch {
        /// Scale of the left operand.
        left: f64,
        /// Scale of the right operand.
        right: f64,
    },
    /// The scale cannot be used.
    #[error("scale {scale:e} must be finite and at least 1")]
    BadScale {
        /// The scale.
        scale: f64,
    },
    /// The scale of a product does not fit the modulus.
    #[error("scale 2^{log_scale:.1} does not fit the modulus of level {level}, 2^{log_q:.1}")]
    ScaleOverflow {
        /// log2 of the scale.
        log_scale: f64,
        /// The level.
        level: usize,
        /// log2 of the modulus there.
        log_q: f64,
    },
    /// A value to encode is not finite.
    #[error("value {value} at slot {slot} is not finite")]
    NotFinite {
        /// The value.
        value: f64,
        /// Its slot.
        slot: usize,
    },
    /// An encoded value does not fit the modulus.
    #[error("value {value:e} (largest slot) at scale 2^{:.1} needs a coefficient of {coefficient:e}; level {level} holds up to {limit:e}", scale.log2())]
    EncodeOverflow {
        /// The slot value of largest magnitude.
        value: f64,
        /// The scale.
        scale: f64,
        /// The largest scaled coefficient.
        coefficient: f64,
        /// The level.
        level: usize,
        /// Half the modulus of that level.
        limit: f64,
    },
    /// Too many values, or a period that is no power of two.
    #[error("{found} slot values: expected {expected}")]
    SlotCount {
        /// How many were given.
        found: usize,
        /// What is allowed.
        expected: String,
    },
    /// Two things belong to different secret keys.
    #[error("made under different keys: {left} and {right}")]
    KeyMismatch {
        /// Key of the left operand.
        left: KeyId,
        /// Key of the right operand.
        right: KeyId,
    },
    /// Something was made with other parameters.
    #[error("made with other parameters: fingerprint {left} and {right}")]
    ParameterMismatch {
        /// First eight bytes of the left fingerprint, hexadecimal.
        left: String,
        /// First eight bytes of the right fingerprint, hexadecimal.
        right: String,
    },
    /// A rotation key is not there.
    #[error("no key for rotation {rotation}; there are keys for {available} rotations")]
    MissingRotationKey {
        /// The rotation.
        rotation: usize,
        /// How many rotation keys there are.
        available: usize,
    },
    /// A key could not be read from where it is kept.
    #[error("{key} could not be loaded: {reason}")]
    KeyNotLoaded {
        /// The key.
        key: String,
        /// Why.
        reason: String,
    },
    /// The relinearisation key is not there.
    #[error("no relinearisation key")]
    MissingRelinKey,
    /// The ciphertext has a quadratic part where none is allowed, or none where one is needed.
    #[error("ciphertext has {found} parts, {expected} are needed")]
    Parts {
        /// How many parts it has.
        found: usize,
        /// How many the operation needs.
        expected: usize,
    },
    /// A sum of products without terms.
    #[error("a linear combination needs at least one term")]
    NoTerms,
    /// A rotation that is out of range or listed twice in a key specification.
    #[error("rotation {rotation} {reason}")]
    BadRotation {
        /// The rotation.
        rotation: usize,
        /// Why it is refused.
        reason: &'static str,
    },
}
