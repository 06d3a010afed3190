//! Slots ↔ real coefficients: the transform tree of [`crate::ntt`] over the complex numbers, ψ = e^(2πi/4N).
//!
//! Conjugate-invariant ring: the folded element is b_0 = a_0, b_i = a_i − i·a_{N−i}, so a_i is just the real part of b_i.
//! Standard ring: the slots fill one half of the values, their conjugates the other. Cost: one complex transform of N
//! points; rounding error about 2^−52 · log2 N of the largest value. As with the modular tables, the first C entries are
//! the tables of degree C.

mod transform;

use crate::error::MathError;
use crate::ntt::{MAX_LOG_N, MIN_LOG_N};
use crate::ring::RingKind;
use crate::simd::wide::wide;
use std::f64::consts::TAU;
use transform::{Forward, Inverse, Roots};

/// A complex number.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Complex {
    /// Real part.
    pub re: f64,
    /// Imaginary part.
    pub im: f64,
}

/// Roots of unity and slot order of one ring.
#[derive(Debug, Clone)]
pub struct Embedding {
    kind: RingKind,
    log_n: u32,
    re: Vec<f64>,
    im: Vec<f64>,
    /// Transform index of each slot. Those of degree C are the first ones without their low log2(N/C) bits.
    order: Vec<u32>,
}

impl Embedding {
    /// Tables for degree 2^`log_n`, at most 20·N bytes.
    ///
    /// # Errors
    /// [`MathError::BadDegree`].
    pub fn new(kind: RingKind, log_n: u32) -> Result<Self, MathError> {
        if !(MIN_LOG_N..=MAX_LOG_N).contains(&log_n) {
            return Err(MathError::BadDegree { min: MIN_LOG_N, max: MAX_LOG_N, found: log_n });
        }
        let n = 1usize << log_n;
        let (mut re, mut im) = (vec![0.0; n], vec![0.0; n]);
        for log_m in 0..log_n {
            let m = 1usize << log_m;
            for j in 0..m {
                let exponent = kind.node_exponent(n, log_m, j);
                let (sin, cos) = (TAU * exponent as f64 / (4 * n) as f64).sin_cos();
                re[m + j] = cos;
                im[m + j] = sin;
            }
        }
        Ok(Self { kind, log_n, re, im, order: kind.slot_indices(log_n) })
    }

    /// Number of slots.
    #[must_use]
    pub const fn slots(&self) -> usize {
        self.kind.slots(1 << self.log_n)
    }

    /// Real slot values → coefficients, not yet scaled or rounded. Fewer slots (a power of two) give the coefficients of
    /// the subring whose elements have slot vectors of that period.
    ///
    /// # Errors
    /// [`MathError::Length`] if the length is no power of two or above the number of slots.
    pub fn encode(&self, slots: &[f64]) -> Result<Vec<f64>, MathError> {
        self.encode_with(slots.len(), |j| Complex { re: slots[j], im: 0.0 })
    }

    /// Complex slot values → coefficients. In the conjugate-invariant ring imaginary parts are ignored.
    ///
    /// # Errors
    /// [`MathError::Length`] as for [`Embedding::encode`].
    pub fn encode_complex(&self, slots: &[Complex]) -> Result<Vec<f64>, MathError> {
        self.encode_with(slots.len(), |j| slots[j])
    }

    /// Coefficients (N, or fewer for a subring) → real parts of the slots.
    ///
    /// # Errors
    /// [`MathError::Length`] if the length is no power of two or out of range.
    pub fn decode(&self, coefficients: &[f64]) -> Result<Vec<f64>, MathError> {
        let (re, _) = self.evaluate(coefficients)?;
        Ok(self.indices(re.len()).map(|p| re[p]).collect())
    }

    /// Coefficients → complex slots.
    ///
    /// # Errors
    /// [`MathError::Length`] as for [`Embedding::decode`].
    pub fn decode_complex(&self, coefficients: &[f64]) -> Result<Vec<Complex>, MathError> {
        let (re, im) = self.evaluate(coefficients)?;
        Ok(self.indices(re.len()).map(|p| Complex { re: re[p], im: im[p] }).collect())
    }

    /// Real and imaginary parts in the order of the transform.
    fn evaluate(&self, coefficients: &[f64]) -> Result<(Vec<f64>, Vec<f64>), MathError> {
        let n = coefficients.len();
        self.check(n)?;
        let mut re = coefficients.to_vec();
        let mut im = vec![0.0; n];
        if self.kind == RingKind::ConjugateInvariant {
            for i in 1..n {
                im[i] = -coefficients[n - i];
            }
        }
        self.forward(&mut re, &mut im);
        Ok((re, im))
    }

    fn encode_with(&self, slots: usize, value: impl Fn(usize) -> Complex) -> Result<Vec<f64>, MathError> {
        let n = self.kind.degree_for_slots(slots);
        self.check(n)?;
        let (mut re, mut im) = (vec![0.0; n], vec![0.0; n]);
        for (j, p) in self.indices(n).enumerate() {
            let z = value(j);
            re[p] = z.re;
            match self.kind {
                RingKind::ConjugateInvariant => {}
                RingKind::Standard => {
                    // The root of index p is ζ^e with e = 1 + 2·brv(p); its conjugate ζ^(2N−e) has all bits flipped.
                    im[p] = z.im;
                    re[n - 1 - p] = z.re;
                    im[n - 1 - p] = -z.im;
                }
            }
        }
        self.inverse(&mut re, &mut im);
        Ok(re)
    }

    fn check(&self, n: usize) -> Result<(), MathError> {
        let least = self.kind.degree_for_slots(1);
        if n.is_power_of_two() && (least..=1 << self.log_n).contains(&n) {
            Ok(())
        } else {
            Err(MathError::Length { expected: 1 << self.log_n, found: n })
        }
    }

    /// Transform index of each slot at degree `n`.
    fn indices(&self, n: usize) -> impl Iterator<Item = usize> {
        let shift = self.log_n - n.trailing_zeros();
        self.order[..self.kind.slots(n)].iter().map(move |&p| (p >> shift) as usize)
    }

    fn forward(&self, re: &mut [f64], im: &mut [f64]) {
        wide(Forward { roots: self.roots(), re, im });
    }

    /// [`Embedding::forward`] backwards; only the real parts are scaled.
    fn inverse(&self, re: &mut [f64], im: &mut [f64]) {
        wide(Inverse { roots: self.roots(), re, im });
    }

    fn roots(&self) -> Roots<'_> {
        Roots { re: &self.re, im: &self.im }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [RingKind; 2] = [RingKind::ConjugateInvariant, RingKind::Standard];

    fn values(count: usize, seed: u64) -> Vec<f64> {
        let mut state = seed;
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as f64 / (1u64 << 30) as f64 - 1.0
            })
            .collect()
    }

    #[test]
    fn decode_is_evaluation_at_powers_of_five() {
        for kind in KINDS {
            let embedding = Embedding::new(kind, 5).unwrap();
            let coefficients = values(32, 1);
            let slots = embedding.decode_complex(&coefficients).unwrap();
            let mut exponent = 1usize;
            for z in slots {
                let angle = match kind {
                    RingKind::ConjugateInvariant => TAU * exponent as f64 / 128.0,
                    RingKind::Standard => TAU * exponent as f64 / 64.0,
                };
                let (mut re, mut im) = (coefficients[0], 0.0);
                for (i, a) in coefficients.iter().enumerate().skip(1) {
                    let (sin, cos) = (angle * i as f64).sin_cos();
                    match kind {
                        RingKind::ConjugateInvariant => re += 2.0 * a * cos,
                        RingKind::Standard => {
                            re += a * cos;
                            im += a * sin;
                        }
                    }
                }
                assert!((z.re - re).abs() < 1e-12 && (z.im - im).abs() < 1e-12);
                exponent = exponent * 5 % 128;
            }
        }
    }

    #[test]
    fn decode_undoes_encode() {
        for kind in KINDS {
            for log_n in [1, 2, 5, 10, 13] {
                let embedding = Embedding::new(kind, log_n).unwrap();
                let slots = values(embedding.slots(), 5);
                let back = embedding.decode(&embedding.encode(&slots).unwrap()).unwrap();
                for (x, y) in slots.iter().zip(&back) {
                    assert!((x - y).abs() < 1e-13 * f64::from(log_n + 1));
                }
            }
        }
        let embedding = Embedding::new(RingKind::Standard, 6).unwrap();
        let slots: Vec<Complex> =
            values(32, 8).into_iter().zip(values(32, 9)).map(|(re, im)| Complex { re, im }).collect();
        let back = embedding.decode_complex(&embedding.encode_complex(&slots).unwrap()).unwrap();
        for (x, y) in slots.iter().zip(&back) {
            assert!((x.re - y.re).abs() < 1e-13 && (x.im - y.im).abs() < 1e-13);
        }
    }

    #[test]
    fn periodic_slots_live_in_the_subring() {
        for kind in KINDS {
            let embedding = Embedding::new(kind, 7).unwrap();
            for log_c in 0..=5 {
                let c = 1usize << log_c;
                let period = values(c, 11);
                let full: Vec<f64> = (0..embedding.slots()).map(|j| period[j % c]).collect();
                let wide = embedding.encode(&full).unwrap();
                let narrow = embedding.encode(&period).unwrap();
                let step = wide.len() / narrow.len();
                for (i, a) in wide.iter().enumerate() {
                    let expected = if i % step == 0 { narrow[i / step] } else { 0.0 };
                    assert!((a - expected).abs() < 1e-13);
                }
            }
        }
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let embedding = Embedding::new(RingKind::ConjugateInvariant, 4).unwrap();
        assert!(embedding.encode(&[0.0; 3]).is_err());
        assert!(embedding.encode(&[]).is_err());
        assert!(embedding.encode(&[0.0; 32]).is_err());
        assert!(embedding.decode(&[0.0; 5]).is_err());
        assert!(Embedding::new(RingKind::Standard, 0).is_err());
    }
}
