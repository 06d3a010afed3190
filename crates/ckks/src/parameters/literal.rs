//! What a user writes, and why it may be refused.

use super::checked::Parameters;
use polyveil_math::{MathError, Modulus, RingKind, ntt_primes};

const MIN_LOG_N: u32 = 4;
const MAX_LOG_N: u32 = 17;
const MAX_P: usize = 20;

/// Unchecked parameters; [`crate::Parameters::new`] checks them.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(from = "Record", into = "Record")]
pub struct ParametersLiteral {
    /// The ring.
    pub ring: RingKind,
    /// log2 of the degree N.
    pub log_n: u32,
    /// The ciphertext primes.
    pub q: Vec<u64>,
    /// The special primes of key switching.
    pub p: Vec<u64>,
    /// How many consecutive primes of `q` make one digit of key switching, in a nested chain.
    pub digit_size: usize,
    /// How levels share primes. Without it the chain is nested: level ℓ has the first ℓ + 1 primes.
    pub shared: Option<SharedChain>,
}

/// Levels that share primes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedChain {
    /// The primes of each level, level 0 first, as ascending indices into `q`.
    pub levels: Vec<Vec<u8>>,
    /// The first prime of each digit of key switching, ascending from 0.
    pub digits: Vec<u8>,
}

/// What is written. The tag says whether a shared chain follows, so that nested ones, which is what old files have, keep their bytes.
#[derive(serde::Serialize, serde::Deserialize)]
enum Record {
    ConjugateInvariant(Nested),
    Standard(Nested),
    ConjugateInvariantShared(Nested, SharedChain),
    StandardShared(Nested, SharedChain),
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Nested {
    log_n: u32,
    q: Vec<u64>,
    p: Vec<u64>,
    digit_size: usize,
}

impl From<Record> for ParametersLiteral {
    fn from(record: Record) -> Self {
        use RingKind::{ConjugateInvariant, Standard};
        let (ring, nested, shared) = match record {
            Record::ConjugateInvariant(nested) => (ConjugateInvariant, nested, None),
            Record::Standard(nested) => (Standard, nested, None),
            Record::ConjugateInvariantShared(nested, shared) => (ConjugateInvariant, nested, Some(shared)),
            Record::StandardShared(nested, shared) => (Standard, nested, Some(shared)),
        };
        let Nested { log_n, q, p, digit_size } = nested;
        Self { ring, log_n, q, p, digit_size, shared }
    }
}

impl From<ParametersLiteral> for Record {
    fn from(literal: ParametersLiteral) -> Self {
        let ParametersLiteral { ring, log_n, q, p, digit_size, shared } = literal;
        let nested = Nested { log_n, q, p, digit_size };
        match (ring, shared) {
            (RingKind::ConjugateInvariant, None) => Self::ConjugateInvariant(nested),
            (RingKind::Standard, None) => Self::Standard(nested),
            (RingKind::ConjugateInvariant, Some(shared)) => Self::ConjugateInvariantShared(nested, shared),
            (RingKind::Standard, Some(shared)) => Self::StandardShared(nested, shared),
        }
    }
}

impl ParametersLiteral {
    /// Picks primes of the given sizes, each the nearest to 2^bits that is still free; special primes come first, so that
    /// they are the ones nearest to their size.
    ///
    /// # Errors
    /// [`ParameterError::Math`] if there are not enough primes of a size.
    pub fn generate(
        ring: RingKind,
        log_n: u32,
        q_bits: &[u32],
        p_bits: &[u32],
        digit_size: usize,
    ) -> Result<Self, ParameterError> {
        let mut taken = Vec::new();
        let mut pick = |sizes: &[u32]| -> Result<Vec<u64>, ParameterError> {
            let mut primes = Vec::with_capacity(sizes.len());
            for &bits in sizes {
                let prime = ntt_primes(bits, log_n, 1, &taken)?;
                taken.extend_from_slice(&prime);
                primes.extend(prime);
            }
            Ok(primes)
        };
        let p = pick(p_bits)?;
        let q = pick(q_bits)?;
        Ok(Self { ring, log_n, q, p, digit_size, shared: None })
    }

    /// Everything but security: degree, number of primes, distinct primes of at most 50 bits, digit size against special
    /// primes. No table is built, so a hostile literal costs nothing.
    ///
    /// # Errors
    /// [`ParameterError`] names what is wrong and the limit.
    pub fn check(&self) -> Result<(), ParameterError> {
        if !(MIN_LOG_N..=MAX_LOG_N).contains(&self.log_n) {
            return Err(ParameterError::Degree { found: self.log_n, min: MIN_LOG_N, max: MAX_LOG_N });
        }
        for (what, primes, max) in [("ciphertext", &self.q, Parameters::MAX_Q), ("special", &self.p, MAX_P)] {
            if primes.is_empty() || primes.len() > max {
                return Err(ParameterError::PrimeCount { what, found: primes.len(), max });
            }
        }
        if self.digit_size == 0 || self.digit_size > self.q.len() {
            return Err(ParameterError::DigitSize { found: self.digit_size, max: self.q.len() });
        }
        let all: Vec<u64> = self.q.iter().chain(&self.p).copied().collect();
        for (i, &prime) in all.iter().enumerate() {
            Modulus::new(prime)?;
            if all[..i].contains(&prime) {
                return Err(ParameterError::Repeated { prime });
            }
        }
        self.check_shared()?;
        let log_digit = self.log_digit();
        let log_p = self.p.iter().map(|&p| (p as f64).log2()).sum::<f64>();
        // Primes are picked on both sides of a power of two, so equal sizes may differ by a fraction of a bit.
        if log_p < log_digit - 0.5 {
            return Err(ParameterError::SpecialTooSmall { log_p, log_digit });
        }
        Ok(())
    }

    /// log2 of Q·P.
    #[must_use]
    pub fn log_qp(&self) -> f64 {
        self.q.iter().chain(&self.p).map(|&prime| (prime as f64).log2()).sum()
    }
}

/// Why parameters were refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParameterError {
    /// A prime or the degree was refused.
    #[error(transparent)]
    Math(#[from] MathError),
    /// The degree is out of range.
    #[error("log2 of the degree is {found}; {min} to {max} are allowed")]
    Degree {
        /// What was given.
        found: u32,
        /// The least.
        min: u32,
        /// The most.
        max: u32,
    },
    /// Too many or too few primes.
    #[error("{found} {what} primes; 1 to {max} are allowed")]
    PrimeCount {
        /// Ciphertext or special primes.
        what: &'static str,
        /// How many were given.
        found: usize,
        /// The most.
        max: usize,
    },
    /// A prime occurs twice.
    #[error("prime {prime} occurs twice")]
    Repeated {
        /// The prime.
        prime: u64,
    },
    /// Too many levels, or none.
    #[error("{found} levels that share primes; 1 to {max} are allowed")]
    Levels {
        /// How many were given.
        found: usize,
        /// The most.
        max: usize,
    },
    /// Digits are not in order.
    #[error("the digits of a modulus chain do not begin with prime 0, in ascending order")]
    Digits,
    /// A level is not what the chain needs.
    #[error("level {level} of the modulus chain {reason}")]
    Level {
        /// Which one.
        level: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The digit size is out of range.
    #[error("digit size {found}; 1 to {max} are allowed")]
    DigitSize {
        /// What was given.
        found: usize,
        /// The most: the number of ciphertext primes.
        max: usize,
    },
    /// The special primes are too small for the digits, so key switching would drown the message.
    #[error(
        "special primes have {log_p:.1} bits together, the largest digit has {log_digit:.1}; they must be no smaller"
    )]
    SpecialTooSmall {
        /// log2 of P.
        log_p: f64,
        /// log2 of the largest digit.
        log_digit: f64,
    },
    /// The set is outside the security table.
    #[error("log2(QP) = {log_qp:.1} at degree 2^{log_n} is below 128 bits of security: the limit is {limit} ({table})",
        limit = limit.map_or_else(|| "not tabulated".to_owned(), |l| l.to_string()))]
    Insecure {
        /// log2 of the degree.
        log_n: u32,
        /// log2 of Q·P.
        log_qp: f64,
        /// The limit, if the degree is in the table.
        limit: Option<u32>,
        /// The table.
        table: &'static str,
    },
}
