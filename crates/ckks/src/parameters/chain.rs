//! The modulus chain: which primes each level has.
//!
//! In a *nested* chain level ℓ has the primes q_0 … q_ℓ, and a rescale divides by the last one. Then every level costs a limb,
//! however few bits it has. In general a level may have any subset of the primes: levels of 28 bits share primes of 50, and a
//! rescale divides by what the lower level lacks and multiplies by what it has more, so that the modulus shrinks by the wanted factor
//! (Samardzic, Sanchez: BitPacker, ASPLOS 2024; Cheon et al.: Grafting, eprint 2024/1014). A switching key is
//! made for all primes that its own and lower levels have, and serves each of these levels with the limbs that it needs.

use super::literal::{ParameterError, ParametersLiteral, SharedChain};
use std::collections::BTreeSet;

/// Most levels.
const MAX_LEVELS: usize = 80;
/// Least ratio of the moduli of neighbouring levels: dropping one takes the nearest integer to it, which must be as good as exact.
const LEAST_STEP: f64 = (1u64 << 20) as f64;

impl ParametersLiteral {
    /// The highest level.
    #[must_use]
    pub fn max_level(&self) -> usize {
        self.shared.as_ref().map_or(self.q.len(), |shared| shared.levels.len()).saturating_sub(1)
    }

    /// Indices into `q` of the primes of a level (of the highest one, if it does not exist), ascending.
    #[must_use]
    pub fn primes(&self, level: usize) -> Vec<usize> {
        match self.shared_level(level) {
            Some(primes) => primes.iter().map(|&i| usize::from(i)).collect(),
            None => (0..self.q.len().min(level + 1)).collect(),
        }
    }

    fn shared_level(&self, level: usize) -> Option<&Vec<u8>> {
        let levels = &self.shared.as_ref()?.levels;
        levels.get(level).or(levels.last())
    }

    /// The digit of key switching that a prime is part of.
    #[must_use]
    pub fn digit_of(&self, prime: usize) -> usize {
        match &self.shared {
            Some(shared) => {
                shared.digits.partition_point(|&first| usize::from(first) <= prime).saturating_sub(1)
            }
            None => prime / self.digit_size,
        }
    }

    /// How many primes a level has.
    #[must_use]
    pub fn limbs(&self, level: usize) -> usize {
        self.shared_level(level).map_or(self.q.len().min(level + 1), Vec::len)
    }

    /// Whether a level has all primes of another, so that a ciphertext gets there by forgetting limbs.
    #[must_use]
    pub fn contains(&self, level: usize, other: usize) -> bool {
        let own = self.primes(level);
        self.primes(other).iter().all(|i| own.contains(i))
    }

    /// Indices of the primes that this level or a lower one has: those of a switching key.
    #[must_use]
    pub fn key_primes(&self, level: usize) -> Vec<usize> {
        let Some(shared) = &self.shared else { return self.primes(level) };
        let levels = shared.levels.iter().take(level + 1);
        let all: BTreeSet<usize> = levels.flatten().map(|&i| usize::from(i)).collect();
        all.into_iter().collect()
    }

    /// Digits of key switching at a level.
    #[must_use]
    pub fn digits(&self, level: usize) -> usize {
        self.primes(level).last().map_or(0, |&last| self.digit_of(last) + 1)
    }

    /// Digits of a switching key: the most that this level or a lower one has.
    #[must_use]
    pub fn key_digits(&self, level: usize) -> usize {
        self.key_primes(level).last().map_or(0, |&last| self.digit_of(last) + 1)
    }

    /// log2 of the modulus of a level.
    #[must_use]
    pub fn log_q(&self, level: usize) -> f64 {
        self.primes(level).into_iter().map(|i| (self.q[i] as f64).log2()).sum()
    }

    /// What a rescale from `level` divides the scale by: the modulus over that of the level below, 1 at level 0.
    #[must_use]
    pub fn step(&self, level: usize) -> f64 {
        if level == 0 {
            return 1.0;
        }
        let (own, next) = (self.primes(level), self.primes(level - 1));
        let product = |of: &[usize], less: &[usize]| {
            of.iter().filter(|i| !less.contains(i)).map(|&i| self.q[i] as f64).product::<f64>()
        };
        product(&own, &next) / product(&next, &own)
    }

    /// log2 of the largest digit of any level.
    pub(super) fn log_digit(&self) -> f64 {
        let of_level = |level: usize| {
            let primes = self.primes(level);
            let digits = primes.chunk_by(|&a, &b| self.digit_of(a) == self.digit_of(b));
            digits
                .map(|digit| digit.iter().map(|&i| (self.q[i] as f64).log2()).sum::<f64>())
                .fold(0.0, f64::max)
        };
        (0..=self.max_level()).map(of_level).fold(0.0, f64::max)
    }

    /// Whether levels name primes that exist, in order, without a digit between others that has none, and each level has a
    /// modulus larger than the one below by as much as a level is worth.
    pub(super) fn check_shared(&self) -> Result<(), ParameterError> {
        let Some(SharedChain { levels, digits }) = &self.shared else { return Ok(()) };
        if levels.is_empty() || levels.len() > MAX_LEVELS {
            return Err(ParameterError::Levels { found: levels.len(), max: MAX_LEVELS });
        }
        if digits.first() != Some(&0) || !digits.windows(2).all(|pair| pair[0] < pair[1]) {
            return Err(ParameterError::Digits);
        }
        for (level, primes) in levels.iter().enumerate() {
            let refuse = |reason| Err(ParameterError::Level { level, reason });
            let digit = |i: &u8| self.digit_of(usize::from(*i));
            if primes.is_empty() {
                return refuse("has no prime");
            }
            if primes.iter().any(|&i| usize::from(i) >= self.q.len()) {
                return refuse("names a prime that does not exist");
            }
            if !primes.windows(2).all(|pair| pair[0] < pair[1]) {
                return refuse("does not name its primes in ascending order");
            }
            if digit(&primes[0]) > 0 || primes.windows(2).any(|pair| digit(&pair[1]) > digit(&pair[0]) + 1) {
                return refuse("has a digit without primes below one with primes");
            }
            // Not a comparison with "less": what is not a number is no step either.
            if level > 0 && !(LEAST_STEP..f64::INFINITY).contains(&self.step(level)) {
                return refuse(
                    "is not larger than the one below by 20 bits, or by more than a number can say",
                );
            }
        }
        Ok(())
    }
}
