//! Products of ciphertexts. (c_0, c_1)·(d_0, d_1) = (c_0·d_0, c_0·d_1 + c_1·d_0, c_1·d_1); relinearisation turns the
//! quadratic part into two by one key switch. Sums of products should be relinearised once, after the sum.

use super::keyswitch::{Added, Switch};
use super::{Evaluator, reaches, two_parts};
use crate::ciphertext::Ciphertext;
use crate::error::CkksError;
use crate::keys::EvaluationKeys;
use crate::par;
use arrayvec::ArrayVec;
use polyveil_math::simd::{self, Term, Weights};

impl Evaluator {
    /// a · b, relinearised. Not rescaled.
    ///
    /// # Errors
    /// As [`Evaluator::mul_lazy`] and [`Evaluator::relinearize`].
    pub fn mul(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext, CkksError> {
        self.relinearize(&self.mul_lazy(a, b)?)
    }

    /// a², relinearised. Not rescaled.
    ///
    /// # Errors
    /// As [`Evaluator::mul`].
    pub fn square(&self, a: &Ciphertext) -> Result<Ciphertext, CkksError> {
        self.relinearize(&self.square_lazy(a)?)
    }

    /// a · b with its quadratic part: three parts.
    ///
    /// # Errors
    /// [`CkksError::LevelMismatch`], [`CkksError::KeyMismatch`], [`CkksError::Parts`], [`CkksError::ScaleOverflow`].
    pub fn mul_lazy(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext, CkksError> {
        self.check_pair(a, b)?;
        two_parts(a)?;
        two_parts(b)?;
        let (level, scale) = (a.level(), a.scale * b.scale);
        self.check_product_scale(scale, level)?;
        let product = |i: usize, j: usize| {
            self.new_poly(level, |l, out, modulus| {
                simd::mul(out, a.parts[i].limb(l), b.parts[j].limb(l), modulus)
            })
        };
        let cross = self.new_poly(level, |l, out, modulus| {
            let term = |i: usize, j: usize| Term {
                values: a.parts[i].limb(l),
                weights: Weights::Full(b.parts[j].limb(l)),
            };
            simd::dot(out, &[term(0, 1), term(1, 0)], modulus);
        });
        Ok(Ciphertext {
            key_id: a.key_id,
            level,
            scale,
            parts: ArrayVec::from([product(0, 0), cross, product(1, 1)]),
        })
    }

    /// a² with its quadratic part: three parts, one product fewer than [`Evaluator::mul_lazy`].
    ///
    /// # Errors
    /// As [`Evaluator::mul_lazy`].
    pub fn square_lazy(&self, a: &Ciphertext) -> Result<Ciphertext, CkksError> {
        self.check(a)?;
        two_parts(a)?;
        let (level, scale) = (a.level(), a.scale * a.scale);
        self.check_product_scale(scale, level)?;
        let product = |i: usize, j: usize| {
            self.new_poly(level, |l, out, modulus| {
                simd::mul(out, a.parts[i].limb(l), a.parts[j].limb(l), modulus);
                if i != j {
                    out.iter_mut().for_each(|x| *x = modulus.add(*x, *x));
                }
            })
        };
        Ok(Ciphertext {
            key_id: a.key_id,
            level,
            scale,
            parts: ArrayVec::from([product(0, 0), product(0, 1), product(1, 1)]),
        })
    }

    /// Removes the quadratic part; a ciphertext of two parts comes back as it is.
    ///
    /// # Errors
    /// [`CkksError::MissingRelinKey`], [`CkksError::LevelTooLow`], [`CkksError::KeyMismatch`].
    pub fn relinearize(&self, a: &Ciphertext) -> Result<Ciphertext, CkksError> {
        self.switch_quadratic(a, false)
    }

    /// [`Evaluator::relinearize`] and [`Evaluator::rescale`] in one division, for the price of the first: one level down,
    /// rounded once.
    ///
    /// # Errors
    /// As both.
    pub fn relinearize_rescale(&self, a: &Ciphertext) -> Result<Ciphertext, CkksError> {
        self.switch_quadratic(a, true)
    }

    fn switch_quadratic(&self, a: &Ciphertext, rescale: bool) -> Result<Ciphertext, CkksError> {
        self.check(a)?;
        let [c0, c1, c2] = a.parts.as_slice() else {
            return if rescale { self.rescale(a) } else { Ok(a.clone()) };
        };
        let scale = if rescale { self.rescaled(a.scale, a.level())? } else { a.scale };
        let key = self.keys().map(EvaluationKeys::relin).transpose()?.flatten();
        let key = key.ok_or(CkksError::MissingRelinKey)?;
        reaches("the relinearisation key", key.level(), a.level())?;
        let products = self.switch(
            c2,
            a.level,
            &Switch { key, permutation: None, add: [Added::Lifted(c0), Added::Lifted(c1)] },
            None,
        );
        let parts = par::both(|part| self.mod_down(&products, 0, part, rescale));
        Ok(Ciphertext {
            key_id: a.key_id,
            level: a.level - usize::from(rescale),
            scale,
            parts: parts.into_iter().collect(),
        })
    }
}
