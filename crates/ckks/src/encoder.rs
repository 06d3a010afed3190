//! Slot values ↔ plaintexts.

use crate::error::CkksError;
use crate::par;
use crate::parameters::Parameters;
use crate::plaintext::{IntegerPlaintext, PeriodicPlaintext, Plaintext, check_period};
use polyveil_math::buffer::{self, Buffer};
use polyveil_math::embedding::Complex;
use polyveil_math::simd::wide::{Loop, wide};
use polyveil_math::{Ntt, Poly, simd};

/// 2^53: up to here every integer is an `f64`.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Encodes and decodes; a cheap handle on the parameters.
#[derive(Debug, Clone)]
pub struct Encoder {
    params: Parameters,
}

impl Encoder {
    /// For these parameters.
    #[must_use]
    pub fn new(params: &Parameters) -> Self {
        Self { params: params.clone() }
    }

    /// Real values, slot 0 first; slots that are not given are 0. One embedding, a transform a limb.
    ///
    /// # Errors
    /// [`CkksError::SlotCount`] for too many values, [`CkksError::NotFinite`], [`CkksError::EncodeOverflow`] if a scaled
    /// coefficient does not fit the modulus, [`CkksError::NoSuchLevel`], [`CkksError::BadScale`].
    pub fn encode(&self, values: &[f64], level: usize, scale: f64) -> Result<Plaintext, CkksError> {
        self.check(values.len(), values.iter().copied(), level, scale)?;
        let mut coefficients = if values.len() == self.params.slots() {
            self.params.embedding().encode(values)?
        } else {
            let mut padded = values.to_vec();
            padded.resize(self.params.slots(), 0.0);
            self.params.embedding().encode(&padded)?
        };
        let largest = values.iter().fold(0f64, |m, v| m.max(v.abs()));
        let poly = self.quantise(&mut coefficients, largest, level, scale)?.poly();
        Ok(Plaintext::from_poly(level, scale, poly))
    }

    /// Complex values of the standard ring; in the conjugate-invariant ring imaginary parts are dropped.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    pub fn encode_complex(
        &self,
        values: &[Complex],
        level: usize,
        scale: f64,
    ) -> Result<Plaintext, CkksError> {
        self.check(
            values.len(),
            values.iter().map(|z| if z.im.is_finite() { z.re } else { z.im }),
            level,
            scale,
        )?;
        let mut padded = values.to_vec();
        padded.resize(self.params.slots(), Complex::default());
        let mut coefficients = self.params.embedding().encode_complex(&padded)?;
        let largest = values.iter().fold(0f64, |m, z| m.max(z.re.hypot(z.im)));
        let poly = self.quantise(&mut coefficients, largest, level, scale)?.poly();
        Ok(Plaintext::from_poly(level, scale, poly))
    }

    /// Values that repeat with their number, a power of two: slot j gets `values[j mod C]`. All work is of size C.
    ///
    /// # Errors
    /// [`CkksError::SlotCount`] for a bad period, and as [`Encoder::encode`].
    pub fn encode_periodic(
        &self,
        values: &[f64],
        level: usize,
        scale: f64,
    ) -> Result<PeriodicPlaintext, CkksError> {
        check_period(&self.params, values.len())?;
        self.check(values.len(), values.iter().copied(), level, scale)?;
        let mut coefficients = self.params.embedding().encode(values)?;
        let largest = values.iter().fold(0f64, |m, v| m.max(v.abs()));
        let blocks = coefficients.len();
        let data = self.quantise(&mut coefficients, largest, level, scale)?.buffer();
        Ok(PeriodicPlaintext::new_unchecked((values.len(), blocks), level, scale, data))
    }

    /// Values that repeat with their number, a power of two, without residues: one embedding, no transform.
    ///
    /// # Errors
    /// As [`Encoder::encode_periodic`]; [`CkksError::EncodeOverflow`] already where a scaled coefficient leaves 2^53, beyond
    /// which not every integer is an `f64`.
    pub fn encode_integer(&self, values: &[f64], scale: f64) -> Result<IntegerPlaintext, CkksError> {
        check_period(&self.params, values.len())?;
        self.check(values.len(), values.iter().copied(), 0, scale)?;
        let mut coefficients = self.params.embedding().encode(values)?;
        let coefficient = wide(Rounding { values: &mut coefficients, scale });
        if coefficient > EXACT || !coefficient.is_finite() {
            let largest = values.iter().fold(0f64, |m, v| m.max(v.abs()));
            let level = self.params.max_level();
            return Err(CkksError::EncodeOverflow {
                value: largest,
                scale,
                coefficient,
                level,
                limit: EXACT,
            });
        }
        Ok(IntegerPlaintext::new_unchecked(scale, wide(Integers(&coefficients))))
    }

    /// The same value in every slot.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    pub fn encode_constant(
        &self,
        value: f64,
        level: usize,
        scale: f64,
    ) -> Result<PeriodicPlaintext, CkksError> {
        self.encode_periodic(&[value], level, scale)
    }

    /// Slot values; of the standard ring the real parts. an inverse transform a limb, exact reconstruction, one embedding.
    ///
    /// # Errors
    /// [`CkksError::Math`] if the plaintext belongs to another degree.
    pub fn decode(&self, plaintext: &Plaintext) -> Result<Vec<f64>, CkksError> {
        Ok(self.params.embedding().decode(&self.coefficients(plaintext)?)?)
    }

    /// Complex slot values.
    ///
    /// # Errors
    /// As [`Encoder::decode`].
    pub fn decode_complex(&self, plaintext: &Plaintext) -> Result<Vec<Complex>, CkksError> {
        Ok(self.params.embedding().decode_complex(&self.coefficients(plaintext)?)?)
    }

    /// Centred coefficients divided by the scale.
    fn coefficients(&self, plaintext: &Plaintext) -> Result<Vec<f64>, CkksError> {
        let level = plaintext.level();
        self.params.check_level(level)?;
        let n = self.params.degree();
        let mut poly = plaintext.poly().clone();
        if poly.words() != n * self.params.limbs(level) {
            let expected = n * self.params.limbs(level);
            return Err(polyveil_math::MathError::Length { expected, found: poly.words() }.into());
        }
        par::for_each_limb(poly.limbs_mut(), |i, limb| self.params.table(i, level).inverse(limb));
        let mut values = self.params.reconstructor(level).to_f64(&poly.to_words(), n)?;
        let factor = 1.0 / plaintext.scale();
        values.iter_mut().for_each(|v| *v *= factor);
        Ok(values)
    }

    fn check(
        &self,
        count: usize,
        values: impl Iterator<Item = f64>,
        level: usize,
        scale: f64,
    ) -> Result<(), CkksError> {
        self.params.check_level(level)?;
        Parameters::check_scale(scale)?;
        let slots = self.params.slots();
        if count > slots {
            return Err(CkksError::SlotCount { found: count, expected: format!("at most {slots}") });
        }
        for (slot, value) in values.enumerate() {
            if !value.is_finite() {
                return Err(CkksError::NotFinite { value, slot });
            }
        }
        Ok(())
    }

    /// Scales and rounds the coefficients of the ring or of a subring in place.
    fn quantise<'a>(
        &'a self,
        coefficients: &'a mut [f64],
        largest: f64,
        level: usize,
        scale: f64,
    ) -> Result<Rounded<'a>, CkksError> {
        let coefficient = wide(Rounding { values: coefficients, scale });
        let rounded = &*coefficients;
        let limit_log = self.params.log_q(level) - 1.0;
        // NaN cannot pass: what overflowed is not finite.
        if coefficient.log2() >= limit_log || !coefficient.is_finite() {
            let limit = limit_log.exp2();
            return Err(CkksError::EncodeOverflow { value: largest, scale, coefficient, level, limit });
        }
        // Below 2^53 every rounded coefficient is an exact integer of 64 bits, and the fast kernel serves.
        let small: Option<Vec<i64>> = (coefficient <= EXACT).then(|| wide(Integers(rounded)));
        Ok(Rounded { params: &self.params, level, rounded, small })
    }
}

/// Rounded coefficients of the ring or of a subring, at a level.
struct Rounded<'a> {
    params: &'a Parameters,
    level: usize,
    rounded: &'a [f64],
    small: Option<Vec<i64>>,
}

impl Rounded<'_> {
    /// Their residues, transformed, as a polynomial.
    fn poly(&self) -> Poly<Ntt> {
        let mut poly = Poly::unspecified(self.rounded.len(), self.params.limbs(self.level));
        par::for_each_limb(poly.limbs_mut(), |i, limb| self.write(i, limb));
        poly
    }

    /// The same limb after limb.
    fn buffer(&self) -> Buffer {
        let n = self.rounded.len();
        let mut data = buffer::take(n * self.params.limbs(self.level));
        par::for_each_chunk(&mut data, n, |i, limb| self.write(i, limb));
        data
    }

    fn write(&self, i: usize, limb: &mut [u64]) {
        let table = self.params.table(i, self.level);
        let modulus = table.modulus();
        if let Some(small) = &self.small {
            simd::reduce_signed(limb, small, modulus);
        } else {
            for (x, &c) in limb.iter_mut().zip(self.rounded) {
                *x = modulus.reduce_f64(c);
            }
        }
        table.forward(limb);
    }
}

/// Values times a scale, rounded in place; yields the largest magnitude, or what is not finite if one of them is not.
struct Rounding<'a> {
    values: &'a mut [f64],
    scale: f64,
}

impl Loop for Rounding<'_> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        // The larger of a number and NaN is the number, hence the second sum: zero, or NaN.
        let (mut largest, mut nothing) = ([0f64; 8], [0f64; 8]);
        for chunk in self.values.chunks_mut(8) {
            for ((x, largest), nothing) in chunk.iter_mut().zip(&mut largest).zip(&mut nothing) {
                *x = (*x * self.scale).round_ties_even();
                *largest = largest.max(x.abs());
                *nothing += *x * 0.0;
            }
        }
        largest.into_iter().fold(0f64, f64::max) + nothing.into_iter().sum::<f64>()
    }
}

/// Integers of at most 2^53.
struct Integers<'a>(&'a [f64]);

impl Loop for Integers<'_> {
    type Output = Vec<i64>;

    #[inline(always)]
    fn run(self) -> Vec<i64> {
        let mut integers = vec![0; self.0.len()];
        for (i, &x) in integers.iter_mut().zip(self.0) {
            *i = x as i64;
        }
        integers
    }
}
