//! Sums and products with plaintexts. Scales: sums need equal ones (relative 1e-9), products multiply them.

use super::{Evaluator, reaches, same_scale, two_parts};
use crate::ciphertext::Ciphertext;
use crate::error::CkksError;
use crate::par;
use crate::plaintext::{EncodedWeights, PeriodicPlaintext, Plaintext};
use polyveil_math::simd::{self, Term, Weights};
use polyveil_math::{Modulus, Ntt, Poly};

impl Evaluator {
    /// a + b; the operands may have two or three parts.
    ///
    /// # Errors
    /// [`CkksError::LevelMismatch`], [`CkksError::ScaleMismatch`], [`CkksError::KeyMismatch`].
    pub fn add(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext, CkksError> {
        let mut sum = a.clone();
        self.add_assign(&mut sum, b)?;
        Ok(sum)
    }

    /// a += b.
    ///
    /// # Errors
    /// As [`Evaluator::add`].
    pub fn add_assign(&self, a: &mut Ciphertext, b: &Ciphertext) -> Result<(), CkksError> {
        self.combine(a, b, simd::add_assign)
    }

    /// a − b.
    ///
    /// # Errors
    /// As [`Evaluator::add`].
    pub fn sub(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext, CkksError> {
        let mut difference = a.clone();
        self.sub_assign(&mut difference, b)?;
        Ok(difference)
    }

    /// a −= b.
    ///
    /// # Errors
    /// As [`Evaluator::add`].
    pub fn sub_assign(&self, a: &mut Ciphertext, b: &Ciphertext) -> Result<(), CkksError> {
        self.combine(a, b, simd::sub_assign)
    }

    /// −a.
    ///
    /// # Errors
    /// [`CkksError::KeyMismatch`], or [`CkksError::NoSuchLevel`] for a foreign ciphertext.
    pub fn neg(&self, a: &Ciphertext) -> Result<Ciphertext, CkksError> {
        self.check(a)?;
        let mut out = a.clone();
        for part in &mut out.parts {
            self.each_limb(part, a.level, |_, limb, modulus| simd::neg_assign(limb, modulus));
        }
        Ok(out)
    }

    /// a += values of a plaintext of the same scale and at least the same level.
    ///
    /// # Errors
    /// [`CkksError::LevelTooLow`], [`CkksError::LevelMismatch`] for a higher level that lacks one of the primes,
    /// [`CkksError::ScaleMismatch`], [`CkksError::KeyMismatch`].
    pub fn add_plain(&self, a: &mut Ciphertext, plain: &Plaintext) -> Result<(), CkksError> {
        self.check(a)?;
        let limbs = self.check_plain(a, plain.level(), plain.poly().degree())?;
        same_scale(a.scale, plain.scale())?;
        self.each_limb(&mut a.parts[0], a.level, |i, limb, modulus| {
            simd::add_assign(limb, plain.poly().limb(limbs[i]), modulus)
        });
        Ok(())
    }

    /// a += values of a periodic plaintext.
    ///
    /// # Errors
    /// As [`Evaluator::add_plain`].
    pub fn add_periodic(&self, a: &mut Ciphertext, plain: &PeriodicPlaintext) -> Result<(), CkksError> {
        self.check(a)?;
        let limbs = self.check_plain(a, plain.level(), self.params.degree())?;
        same_scale(a.scale, plain.scale())?;
        let block = self.params.degree() / plain.blocks();
        self.each_limb(&mut a.parts[0], a.level, |i, limb, modulus| {
            for (values, &w) in limb.chunks_exact_mut(block).zip(plain.limb(limbs[i])) {
                values.iter_mut().for_each(|x| *x = modulus.add(*x, w));
            }
        });
        Ok(())
    }

    /// a · plaintext. Cost: 2·N products a limb; no level until the rescale.
    ///
    /// # Errors
    /// [`CkksError::LevelTooLow`], [`CkksError::LevelMismatch`] for a higher level that lacks one of the primes,
    /// [`CkksError::ScaleOverflow`], [`CkksError::KeyMismatch`].
    pub fn mul_plain(&self, a: &Ciphertext, plain: &Plaintext) -> Result<Ciphertext, CkksError> {
        self.check(a)?;
        let limbs = self.check_plain(a, plain.level(), plain.poly().degree())?;
        let scale = a.scale * plain.scale();
        self.check_product_scale(scale, a.level())?;
        let parts = a.parts.iter().map(|part| {
            self.new_poly(a.level(), |i, out, modulus| {
                simd::mul(out, part.limb(i), plain.poly().limb(limbs[i]), modulus)
            })
        });
        Ok(Ciphertext { key_id: a.key_id, level: a.level, scale, parts: parts.collect() })
    }

    /// a · periodic plaintext: as [`Evaluator::mul_plain`], but the weights of a limb are C numbers instead of N.
    ///
    /// # Errors
    /// As [`Evaluator::mul_plain`].
    pub fn mul_periodic(&self, a: &Ciphertext, plain: &PeriodicPlaintext) -> Result<Ciphertext, CkksError> {
        self.check(a)?;
        let limbs = self.check_plain(a, plain.level(), self.params.degree())?;
        let scale = a.scale * plain.scale();
        self.check_product_scale(scale, a.level())?;
        let parts = a.parts.iter().map(|part| {
            self.new_poly(a.level(), |i, out, modulus| {
                simd::mul_blocks(out, part.limb(i), plain.limb(limbs[i]), modulus)
            })
        });
        Ok(Ciphertext { key_id: a.key_id, level: a.level, scale, parts: parts.collect() })
    }

    /// Σ ciphertext · weights with one reduction at the end. All ciphertexts share level and key and have two parts; all
    /// products have the same scale.
    ///
    /// # Errors
    /// [`CkksError::NoTerms`], [`CkksError::LevelMismatch`], [`CkksError::LevelTooLow`], [`CkksError::ScaleMismatch`],
    /// [`CkksError::ScaleOverflow`], [`CkksError::KeyMismatch`], [`CkksError::Parts`].
    pub fn linear_combination(
        &self,
        terms: &[(&Ciphertext, &EncodedWeights)],
    ) -> Result<Ciphertext, CkksError> {
        let (first, weights) = terms.first().ok_or(CkksError::NoTerms)?;
        let scale = first.scale * weights.scale();
        let level = first.level();
        self.check_product_scale(scale, level)?;
        let mut limbs = Vec::with_capacity(terms.len());
        for (ct, weights) in terms {
            self.check_pair(first, ct)?;
            two_parts(ct)?;
            same_scale(scale, ct.scale * weights.scale())?;
            let degree = match weights {
                EncodedWeights::Full(plain) => plain.poly().degree(),
                EncodedWeights::Periodic(_) => self.params.degree(),
            };
            limbs.push(self.check_plain(ct, weights.level(), degree)?);
        }
        let part = |index: usize| {
            self.new_poly(level, |i, out, modulus| {
                let terms: Vec<Term<'_>> = terms
                    .iter()
                    .zip(&limbs)
                    .map(|((ct, weights), limbs)| Term {
                        values: ct.parts[index].limb(i),
                        weights: match weights {
                            EncodedWeights::Full(plain) => Weights::Full(plain.poly().limb(limbs[i])),
                            EncodedWeights::Periodic(plain) => Weights::Blocks(plain.limb(limbs[i])),
                        },
                    })
                    .collect();
                simd::dot(out, &terms, modulus);
            })
        };
        Ok(Ciphertext { key_id: first.key_id, level, scale, parts: [part(0), part(1)].into_iter().collect() })
    }

    /// A polynomial written limb by limb.
    pub(super) fn new_poly(
        &self,
        level: usize,
        write: impl Fn(usize, &mut [u64], &Modulus) + Sync + Send,
    ) -> Poly<Ntt> {
        let mut poly = Poly::unspecified(self.params.degree(), self.params.limbs(level));
        self.each_limb(&mut poly, level, write);
        poly
    }

    /// Changes a polynomial of a level limb by limb.
    pub(super) fn each_limb(
        &self,
        poly: &mut Poly<Ntt>,
        level: usize,
        change: impl Fn(usize, &mut [u64], &Modulus) + Sync + Send,
    ) {
        let moduli = self.params.moduli(level);
        par::for_each_limb(poly.limbs_mut(), |i, limb| change(i, limb, &moduli[i]));
    }

    fn combine(
        &self,
        a: &mut Ciphertext,
        b: &Ciphertext,
        op: impl Fn(&mut [u64], &[u64], &Modulus) + Sync + Send,
    ) -> Result<(), CkksError> {
        self.check_pair(a, b)?;
        same_scale(a.scale, b.scale)?;
        while a.parts.len() < b.parts.len() {
            a.parts.push(Poly::zero(self.params.degree(), self.params.limbs(a.level)));
        }
        for (part, other) in a.parts.iter_mut().zip(&b.parts) {
            self.each_limb(part, a.level, |i, limb, modulus| op(limb, other.limb(i), modulus));
        }
        Ok(())
    }

    /// Checks a plaintext of a level, which must have the primes of the ciphertext; the limb of each.
    fn check_plain(&self, a: &Ciphertext, level: usize, degree: usize) -> Result<Vec<usize>, CkksError> {
        reaches("the plaintext", level, a.level())?;
        if degree != self.params.degree() {
            let expected = self.params.degree();
            return Err(polyveil_math::MathError::Length { expected, found: degree }.into());
        }
        let primes = self.params.primes(level);
        let limbs: Option<Vec<usize>> =
            self.params.primes(a.level()).iter().map(|p| primes.binary_search(p).ok()).collect();
        limbs.ok_or(CkksError::LevelMismatch { left: a.level(), right: level })
    }
}
