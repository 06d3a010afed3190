//! Choice of ring degree, primes and digits.

use polyveil_ckks::{Parameters, ParametersLiteral, RingKind, Security, SharedChain, noise};

use crate::PlanError;
use crate::chain::Chain;

/// Most bits of a prime that the kernels take.
pub(crate) const MAX_PRIME_BITS: u32 = 50;

/// Most special primes of chains that share primes.
pub(crate) const MAX_SPECIALS: u32 = 20;

/// Sizes of a candidate, before primes are searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub log_n: u32,
    /// Ciphertext primes.
    pub chain: Chain,
    pub special_bits: u32,
    pub specials: usize,
    pub digits: Digits,
}

/// How primes make digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Digits {
    /// So many primes each, in a nested chain.
    Alike(usize),
    /// The first prime of each.
    From(Vec<u8>),
}

impl Sizes {
    /// The digit size of least work whose moduli stay within `limit` bits; none where none does.
    pub fn cheapest(log_n: u32, q_bits: &[u32], limit: u32) -> Option<Self> {
        Self::all(log_n, q_bits, limit).into_iter().min_by(|a, b| a.switch_work().total_cmp(&b.switch_work()))
    }

    /// One size for each number of digits of a nested chain, as far as the moduli stay within `limit` bits.
    pub fn all(log_n: u32, q_bits: &[u32], limit: u32) -> Vec<Self> {
        let (primes, chain) = (q_bits.len(), Chain::nested(q_bits));
        let mut sizes: Vec<usize> = (1..=primes).map(|digits| primes.div_ceil(digits)).collect();
        sizes.dedup();
        let sized = |size: usize| {
            let largest = q_bits.chunks(size).map(|digit| digit.iter().sum()).max().unwrap_or(0);
            Self::new(log_n, &chain, Digits::Alike(size), largest)
        };
        sizes.into_iter().map(sized).filter(|s| s.fits(limit)).collect()
    }

    /// As [`Sizes::all`], of levels that share primes; none where no such chain fits.
    pub fn shared(log_n: u32, q_bits: &[u32], limit: u32) -> Vec<Self> {
        let sized = |chain: &Chain, specials: u32| {
            let (digits, largest) = chain.digits(specials * MAX_PRIME_BITS - 1)?;
            Some(Self::new(log_n, chain, Digits::From(digits), largest))
        };
        let mut all: Vec<Self> = Vec::new();
        for chain in Chain::shared(q_bits, least_scale_bits(log_n), limit) {
            all.extend((1..=MAX_SPECIALS).filter_map(|specials| sized(&chain, specials)));
        }
        all.retain(|sizes| sizes.fits(limit));
        // More special primes may change nothing.
        all.dedup_by(|a, b| a.chain == b.chain && a.digits == b.digits);
        all
    }

    /// The special primes must outweigh the largest digit.
    fn new(log_n: u32, chain: &Chain, digits: Digits, largest: u32) -> Self {
        let specials = (largest + 1).div_ceil(MAX_PRIME_BITS);
        let special_bits = (largest + 1).div_ceil(specials);
        Self { log_n, chain: chain.clone(), special_bits, specials: specials as usize, digits }
    }

    fn fits(&self, limit: u32) -> bool {
        self.chain.bits.iter().sum::<u32>() + self.specials as u32 * self.special_bits < limit
    }

    /// Digits of the whole chain.
    pub fn digits(&self) -> usize {
        match &self.digits {
            Digits::Alike(size) => self.chain.bits.len().div_ceil(*size),
            Digits::From(first) => first.len(),
        }
    }

    /// As [`Sizes::cheapest`] with so many levels of one size.
    pub fn uniform(log_n: u32, levels: usize, bits: u32, base_bits: u32, limit: u32) -> Option<Self> {
        let mut q_bits = vec![base_bits];
        q_bits.resize(levels + 1, bits);
        Self::cheapest(log_n, &q_bits, limit)
    }

    /// Work of one key switch in transformed limbs, for comparing digit sizes.
    fn switch_work(&self) -> f64 {
        let (limbs, specials) = (self.chain.bits.len() as f64, self.specials as f64);
        let digits = self.digits() as f64;
        (digits + 2.0) * (limbs + specials)
    }

    /// Searches the primes.
    pub fn literal(&self) -> Result<ParametersLiteral, PlanError> {
        let p_bits = vec![self.special_bits; self.specials];
        let literal = ParametersLiteral::generate(
            RingKind::ConjugateInvariant,
            self.log_n,
            &self.chain.bits,
            &p_bits,
            if let Digits::Alike(size) = self.digits { size } else { 1 },
        );
        let shared = match &self.digits {
            Digits::Alike(_) => None,
            Digits::From(digits) => {
                Some(SharedChain { levels: self.chain.levels.clone(), digits: digits.clone() })
            }
        };
        literal
            .map(|literal| ParametersLiteral { shared, ..literal })
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

/// A checked candidate with the noise of its operations.
#[derive(Clone, Debug)]
pub(crate) struct Moduli {
    pub parameters: Parameters,
    primes: Vec<f64>,
    /// log2 of the product of the primes up to each level.
    log_q: Vec<f64>,
    /// Of a key switch at each level, at scale 1. All noise is inversely proportional to the scale.
    switch: Vec<f64>,
}

impl Moduli {
    /// Of parameters as they are.
    pub fn new(parameters: Parameters) -> Self {
        let steps = (0..=parameters.max_level()).map(|level| match level {
            0 => parameters.log_q(0).exp2(),
            _ => parameters.step(level),
        });
        let primes: Vec<f64> = steps.collect();
        let switch = (0..primes.len()).map(|level| noise::key_switch(&parameters, level, 1.0)).collect();
        let mut moduli = Self { parameters, primes: Vec::new(), log_q: Vec::new(), switch };
        moduli.set_primes(primes);
        moduli
    }

    /// Pretends that the primes have these sizes: the noise of operations, which hardly depends on them, stays.
    pub fn set_bits(&mut self, bits: &[u32]) {
        self.set_primes(bits.iter().map(|&b| f64::from(b).exp2()).collect());
    }

    fn set_primes(&mut self, primes: Vec<f64>) {
        let mut sum = 0.0;
        let add = |q: &f64| {
            sum += q.log2();
            sum
        };
        self.log_q = primes.iter().map(add).collect();
        self.primes = primes;
    }

    /// Product of the primes up to `level`.
    pub fn modulus(&self, level: usize) -> f64 {
        self.log_q.get(level).or(self.log_q.last()).map_or(1.0, |log| log.exp2())
    }

    /// The prime that a rescale from `level` divides by.
    pub fn prime(&self, level: usize) -> f64 {
        self.primes.get(level).copied().unwrap_or(1.0)
    }

    /// Noise of a key switch at `level`.
    pub fn key_switch(&self, level: usize, scale: f64) -> f64 {
        self.switch.get(level).copied().unwrap_or(0.0) / scale
    }
}
