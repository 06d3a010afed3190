//! Choice of ring degree, primes and digits.

use polyveil_ckks::{Parameters, ParametersLiteral, RingKind, Security};

use crate::PlanError;

/// Most bits of a prime that the kernels take.
const MAX_PRIME_BITS: u32 = 50;

/// Sizes of a candidate, before primes are searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub log_n: u32,
    pub levels: usize,
    pub scale_bits: u32,
    pub base_bits: u32,
    pub special_bits: u32,
    pub specials: usize,
    pub digit_size: usize,
}

impl Sizes {
    /// The digit size of least work whose moduli stay within `limit` bits; none where none does.
    pub fn cheapest(log_n: u32, levels: usize, scale_bits: u32, base_bits: u32, limit: u32) -> Option<Self> {
        let chain = base_bits + levels as u32 * scale_bits;
        (1..=levels + 1)
            .map(|digit_size| {
                // The special primes must outweigh the largest digit.
                let digit = base_bits + (digit_size as u32 - 1) * scale_bits;
                let specials = (digit + 1).div_ceil(MAX_PRIME_BITS) as usize;
                let special_bits = ((digit + 1).div_ceil(specials as u32)).min(MAX_PRIME_BITS);
                Self { log_n, levels, scale_bits, base_bits, special_bits, specials, digit_size }
            })
            .filter(|s| chain + s.specials as u32 * s.special_bits < limit)
            .min_by(|a, b| a.switch_work().total_cmp(&b.switch_work()))
    }

    /// Work of one key switch in transformed limbs, for comparing digit sizes.
    fn switch_work(&self) -> f64 {
        let (limbs, specials) = ((self.levels + 1) as f64, self.specials as f64);
        let digits = (self.levels + 1).div_ceil(self.digit_size) as f64;
        (digits + 2.0) * (limbs + specials)
    }

    /// Searches the primes.
    pub fn literal(&self) -> Result<ParametersLiteral, PlanError> {
        let mut q_bits = vec![self.base_bits];
        q_bits.extend(std::iter::repeat_n(self.scale_bits, self.levels));
        let p_bits = vec![self.special_bits; self.specials];
        ParametersLiteral::generate(
            RingKind::ConjugateInvariant,
            self.log_n,
            &q_bits,
            &p_bits,
            self.digit_size,
        )
        .map_err(|source| PlanError::Parameters { log_n: self.log_n, source })
    }
}

/// Bits that all moduli of the ring may have at 128-bit security; 0 for a ring outside the table.
pub(crate) fn table_limit(log_n: u32) -> u32 {
    Security::max_log_qp(log_n).unwrap_or(0)
}

/// Least bits of a level prime: primes must be 1 modulo 4N, and some ten bits beyond leave enough.
pub(crate) fn least_scale_bits(log_n: u32) -> u32 {
    26.max(log_n + 12)
}

/// A checked candidate.
pub(crate) struct Moduli {
    pub parameters: Parameters,
    pub scale_bits: u32,
}

impl Moduli {
    /// The nominal scale.
    pub fn scale(&self) -> f64 {
        f64::from(self.scale_bits).exp2()
    }

    /// Product of the primes up to `level`.
    pub fn modulus(&self, level: usize) -> f64 {
        self.parameters.log_q(level).exp2()
    }

    /// The prime that a rescale from `level` divides by.
    pub fn prime(&self, level: usize) -> f64 {
        self.parameters.q().get(level).map_or(1.0, |&q| q as f64)
    }
}
