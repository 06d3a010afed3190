//! Rotations: slot j of the result is slot j + r of the input.
//!
//! A rotation key switches from σ(s) to s. The automorphism σ is applied to the extended digits, which one decomposition
//! makes for any number of rotations (hoisting).

use super::keyswitch::{Added, Products, Switch};
use super::{Evaluator, reaches, two_parts};
use crate::ciphertext::Ciphertext;
use crate::error::CkksError;
use crate::keys::SwitchingKey;
use crate::par;
use polyveil_math::GaloisPermutation;
use std::borrow::Cow;

/// Bytes of products modulo Q·P that may be in memory together while rotations share a decomposition.
const HOISTED_BYTES: usize = 96 << 20;
/// Rotations that share a decomposition: beyond this it costs next to nothing.
const HOISTED_BATCH: (usize, usize) = (2, 16);

impl Evaluator {
    /// Rotates by r to the left; r is taken modulo the number of slots, and 0 costs a copy.
    ///
    /// # Errors
    /// [`CkksError::MissingRotationKey`], [`CkksError::LevelTooLow`], [`CkksError::Parts`], [`CkksError::KeyMismatch`].
    pub fn rotate(&self, a: &Ciphertext, r: usize) -> Result<Ciphertext, CkksError> {
        self.check(a)?;
        two_parts(a)?;
        let Some((rotation, key)) = self.rotation_key(r, a.level())? else {
            return Ok(a.clone());
        };
        let permutation = self.permutation(rotation);
        let switch = Switch {
            key,
            permutation: Some(&permutation),
            add: [Added::Lifted(&a.parts[0]), Added::Nothing],
        };
        let products = self.switch(&a.parts[1], &[switch]);
        Ok(self.switched(a, &products, 0))
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
        let present: Vec<(usize, &SwitchingKey)> = keys.iter().flatten().copied().collect();
        let batches =
            present.chunks(self.hoisted_batch(a.level())).flat_map(|batch| self.rotate_batch(a, batch));
        let mut rotated = batches.collect::<Vec<_>>().into_iter();
        // Rotations by 0 have no key and stand between the others.
        Ok(keys.iter().map(|key| key.and_then(|_| rotated.next()).unwrap_or_else(|| a.clone())).collect())
    }

    fn hoisted_batch(&self, level: usize) -> usize {
        let bytes = 2 * (level + 1 + self.params.p().len()) * self.params.degree() * 8;
        (HOISTED_BYTES / bytes).clamp(HOISTED_BATCH.0, HOISTED_BATCH.1)
    }

    fn rotate_batch(&self, a: &Ciphertext, batch: &[(usize, &SwitchingKey)]) -> Vec<Ciphertext> {
        let permutations: Vec<_> = batch.iter().map(|&(rotation, _)| self.permutation(rotation)).collect();
        let switches: Vec<Switch<'_>> = batch
            .iter()
            .zip(&permutations)
            .map(|(&(_, key), p)| Switch {
                key,
                permutation: Some(p),
                add: [Added::Lifted(&a.parts[0]), Added::Nothing],
            })
            .collect();
        let products = self.switch(&a.parts[1], &switches);
        par::map(batch.len(), |k| self.switched(a, &products, k))
    }

    fn switched(&self, a: &Ciphertext, products: &Products, output: usize) -> Ciphertext {
        let part = |part| self.mod_down(products, output, part, false);
        Ciphertext { key_id: a.key_id, scale: a.scale, parts: [part(0), part(1)].into_iter().collect() }
    }

    pub(super) fn permutation(&self, rotation: usize) -> Cow<'_, GaloisPermutation> {
        let make = || GaloisPermutation::rotation(self.params.ring(), self.params.log_n(), rotation);
        let cached = self.permutations.get(&rotation).map(|cell| cell.get_or_init(make));
        cached.map_or_else(|| Cow::Owned(make()), Cow::Borrowed)
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
        let key = self.keys().map(|keys| keys.rotation(rotation)).transpose()?.flatten();
        let key = key.ok_or(CkksError::MissingRotationKey { rotation, available })?;
        reaches("the rotation key", key.level(), level)?;
        Ok(Some((rotation, key)))
    }
}
