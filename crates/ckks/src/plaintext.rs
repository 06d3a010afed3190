//! Encoded values.

use crate::error::CkksError;
use crate::parameters::Parameters;
use polyveil_math::buffer::Buffer;
use polyveil_math::{Ntt, Poly};

/// Encoded slot values: N residues a limb, in transform order.
#[derive(Debug, Clone, PartialEq)]
pub struct Plaintext {
    level: usize,
    scale: f64,
    poly: Poly<Ntt>,
}

impl Plaintext {
    /// From raw parts, as a file gives them.
    ///
    /// # Errors
    /// [`CkksError::NoSuchLevel`], [`CkksError::BadScale`], or [`CkksError::Math`] for wrong sizes and residues.
    pub fn from_parts(
        params: &Parameters,
        level: usize,
        scale: f64,
        data: Vec<u64>,
    ) -> Result<Self, CkksError> {
        params.check_level(level)?;
        Parameters::check_scale(scale)?;
        Ok(Self { level, scale, poly: Poly::from_untrusted(params.degree(), &data, params.moduli(level))? })
    }

    /// From a polynomial whose residues are known to be reduced.
    #[must_use]
    pub const fn from_poly(level: usize, scale: f64, poly: Poly<Ntt>) -> Self {
        Self { level, scale, poly }
    }

    /// Its level.
    #[must_use]
    pub const fn level(&self) -> usize {
        self.level
    }

    /// Its scale.
    #[must_use]
    pub const fn scale(&self) -> f64 {
        self.scale
    }

    /// Its polynomial.
    #[must_use]
    pub const fn poly(&self) -> &Poly<Ntt> {
        &self.poly
    }

    /// Its polynomial, to be changed; for the code that wipes it.
    #[must_use]
    pub const fn poly_mut(&mut self) -> &mut Poly<Ntt> {
        &mut self.poly
    }
}

/// Encoded slot values of period C, a power of two: such an element lies in the subring of X^(N/C), and its transform is
/// constant on consecutive blocks, so C residues a limb are enough (2·C in the standard ring).
#[derive(Debug, Clone, PartialEq)]
pub struct PeriodicPlaintext {
    period: usize,
    blocks: usize,
    level: usize,
    scale: f64,
    values: Buffer,
}

impl PeriodicPlaintext {
    /// From raw parts, as a file gives them.
    ///
    /// # Errors
    /// [`CkksError::SlotCount`] for a bad period, and as [`Plaintext::from_parts`].
    pub fn from_parts(
        params: &Parameters,
        period: usize,
        level: usize,
        scale: f64,
        values: Vec<u64>,
    ) -> Result<Self, CkksError> {
        params.check_level(level)?;
        Parameters::check_scale(scale)?;
        check_period(params, period)?;
        let blocks = params.ring().degree_for_slots(period);
        Poly::<Ntt>::from_untrusted(blocks, &values, params.moduli(level))?;
        Ok(Self::new_unchecked((period, blocks), level, scale, values.into()))
    }

    pub(crate) const fn new_unchecked(
        (period, blocks): (usize, usize),
        level: usize,
        scale: f64,
        values: Buffer,
    ) -> Self {
        Self { period, blocks, level, scale, values }
    }

    /// The period C.
    #[must_use]
    pub const fn period(&self) -> usize {
        self.period
    }

    /// Number of blocks a limb.
    #[must_use]
    pub const fn blocks(&self) -> usize {
        self.blocks
    }

    /// Its level.
    #[must_use]
    pub const fn level(&self) -> usize {
        self.level
    }

    /// Its scale.
    #[must_use]
    pub const fn scale(&self) -> f64 {
        self.scale
    }

    /// The block values of one limb.
    #[must_use]
    pub fn limb(&self, index: usize) -> &[u64] {
        &self.values[index * self.blocks..(index + 1) * self.blocks]
    }

    /// All block values, limb after limb.
    #[must_use]
    pub fn raw(&self) -> &[u64] {
        &self.values
    }

    /// The same plaintext at full size.
    ///
    /// # Errors
    /// [`CkksError::Math`] if it belongs to a larger ring.
    pub fn to_full(&self, params: &Parameters) -> Result<Plaintext, CkksError> {
        let block = params.degree() / self.blocks;
        let data: Vec<u64> = self.values.iter().flat_map(|&v| std::iter::repeat_n(v, block)).collect();
        Ok(Plaintext {
            level: self.level,
            scale: self.scale,
            poly: Poly::from_words(params.degree(), &data)?,
        })
    }
}

/// Encoded slot values of a period before any prime is chosen: rounded coefficients of the subring's element, one a block of
/// [`PeriodicPlaintext`]. Its residues are made where they are needed, one limb at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct IntegerPlaintext {
    scale: f64,
    coefficients: Vec<i64>,
}

impl IntegerPlaintext {
    pub(crate) const fn new_unchecked(scale: f64, coefficients: Vec<i64>) -> Self {
        Self { scale, coefficients }
    }

    /// Its scale.
    #[must_use]
    pub const fn scale(&self) -> f64 {
        self.scale
    }

    /// Its coefficients, a power of two of them.
    #[must_use]
    pub fn coefficients(&self) -> &[i64] {
        &self.coefficients
    }
}

/// Weights in whichever form is smaller.
#[derive(Debug, Clone, PartialEq)]
pub enum EncodedWeights {
    /// One value per slot.
    Full(Plaintext),
    /// A period's worth of values.
    Periodic(PeriodicPlaintext),
}

impl EncodedWeights {
    /// Its level.
    #[must_use]
    pub fn level(&self) -> usize {
        match self {
            Self::Full(p) => p.level(),
            Self::Periodic(p) => p.level(),
        }
    }

    /// Its scale.
    #[must_use]
    pub const fn scale(&self) -> f64 {
        match self {
            Self::Full(p) => p.scale(),
            Self::Periodic(p) => p.scale(),
        }
    }

    /// Bytes of its residues in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        8 * match self {
            Self::Full(p) => p.poly().words(),
            Self::Periodic(p) => p.raw().len(),
        }
    }
}

pub(crate) fn check_period(params: &Parameters, period: usize) -> Result<(), CkksError> {
    if period.is_power_of_two() && period <= params.slots() {
        return Ok(());
    }
    let expected = format!("a power of two up to {}", params.slots());
    Err(CkksError::SlotCount { found: period, expected })
}
