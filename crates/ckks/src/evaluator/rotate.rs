//! Rotations: slot j of the result is slot j + r of the input.
//!
//! A rotation key switches from s to σ^−1(s), so that the automorphism σ is applied to the *result*: one decomposition
//! then serves any number of rotations without permuting its digits (hoisting), and sums can be permuted before the
//! special primes are divided out (double hoisting).

use super::{Evaluator, reaches, two_parts};
use crate::ciphertext::Ciphertext;
use crate::error::CkksError;
use crate::keys::SwitchingKey;
use crate::par;
use polyveil_math::{GaloisPermutation, Ntt, Poly, simd};

impl Evaluator {
    /// Rotates by r to the left; r is taken modulo the number of slots, and 0 costs a copy.
    ///
    /// # Errors
    /// [`CkksError::MissingRotationKey`], [`CkksError::LevelTooLow`], [`CkksError::Parts`], [`CkksError::KeyMismatch`].
    pub fn rotate(&self, a: &Ciphertext, r: usize) -> Result<Ciphertext, CkksError> {
        let mut rotated = self.rotate_hoisted(a, &[r])?;
        rotated.pop().ok_or(CkksError::NoTerms)
    }

    /// Several rotations of one ciphertext, in the order asked for; its decomposition is shared. All keys are checked
    /// before any work starts.
    ///
    /// # Errors
    /// As [`Evaluator::rotate`].
    pub fn rotate_hoisted(&self, a: &Ciphertext, rotations: &[usize]) -> Result<Vec<Ciphertext>, CkksError> {
        self.check(a)?;
        two_parts(a)?;
        let keys: Vec<Option<(usize, &SwitchingKey)>> =
            rotations.iter().map(|&r| self.rotation_key(r, a.level())).collect::<Result<_, _>>()?;
        let decomposed = keys.iter().any(Option::is_some).then(|| self.decompose(&a.parts[1]));
        let rotate = |key: &Option<(usize, &SwitchingKey)>| match (key, &decomposed) {
            (Some((r, key)), Some(decomposed)) => {
                let [mut u0, u1] = self.mod_down(self.key_product(decomposed, key));
                self.each_limb(&mut u0, |i, limb, modulus| {
                    simd::add_assign(limb, a.parts[0].limb(i), modulus)
                });
                let permutation = GaloisPermutation::rotation(self.params.ring(), self.params.log_n(), *r);
                let parts = vec![self.permute(&u0, &permutation), self.permute(&u1, &permutation)];
                Ciphertext { key_id: a.key_id, scale: a.scale, parts }
            }
            _ => a.clone(),
        };
        Ok(par::map(keys.len(), |i| rotate(&keys[i])))
    }

    /// The key of a rotation, `None` for rotation 0.
    pub(super) fn rotation_key(
        &self,
        r: usize,
        level: usize,
    ) -> Result<Option<(usize, &SwitchingKey)>, CkksError> {
        let rotation = r % self.params.slots();
        if rotation == 0 {
            return Ok(None);
        }
        let available = self.keys().map_or(0, |keys| keys.rotations().len());
        let key = self.keys().and_then(|keys| keys.rotations().get(&rotation));
        let key = key.ok_or(CkksError::MissingRotationKey { rotation, available })?;
        reaches("the rotation key", key.level(), level)?;
        Ok(Some((rotation, key)))
    }

    fn permute(&self, poly: &Poly<Ntt>, permutation: &GaloisPermutation) -> Poly<Ntt> {
        let mut out = Poly::zero(self.params.degree(), poly.limbs());
        par::for_each_chunk(out.raw_mut(), self.params.degree(), |i, limb| {
            permutation.apply(poly.limb(i), limb)
        });
        out
    }
}
