//! What can go wrong in this crate.

/// Errors of the arithmetic layer; each names what was found and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MathError {
    /// The number cannot serve as a modulus.
    #[error("modulus {value} must be an odd prime of {min_bits} to {max_bits} bits")]
    BadModulus {
        /// The number that was given.
        value: u64,
        /// The smallest allowed size in bits.
        min_bits: u32,
        /// The largest allowed size in bits.
        max_bits: u32,
    },
    /// The prime does not admit the transform.
    #[error("prime {value} is not 1 modulo {step}, as a transform of degree {degree} needs")]
    NotTransformFriendly {
        /// The prime.
        value: u64,
        /// 4N.
        step: u64,
        /// N.
        degree: usize,
    },
    /// The degree is no power of two or out of range.
    #[error("degree must be a power of two from 2^{min} to 2^{max}; found log2 = {found}")]
    BadDegree {
        /// Smallest log2 of the degree.
        min: u32,
        /// Largest log2 of the degree.
        max: u32,
        /// log2 of the degree that was given.
        found: u32,
    },
    /// Not enough primes of that size exist.
    #[error("only {found} of {wanted} primes of about {bits} bits exist that are 1 modulo {step}")]
    TooFewPrimes {
        /// How many were asked for.
        wanted: usize,
        /// How many were found.
        found: usize,
        /// Their size in bits.
        bits: u32,
        /// 4N.
        step: u64,
    },
    /// A buffer has the wrong length.
    #[error("expected {expected} values, found {found}")]
    Length {
        /// The length that was needed.
        expected: usize,
        /// The length that was given.
        found: usize,
    },
    /// A residue is not smaller than its modulus.
    #[error("residue {value} at index {index} of limb {limb} is not below its modulus {modulus}")]
    Residue {
        /// The residue.
        value: u64,
        /// Its index within the limb.
        index: usize,
        /// The limb.
        limb: usize,
        /// The modulus of that limb.
        modulus: u64,
    },
}
