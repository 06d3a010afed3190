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
        let products = self.switch(&a.parts[1], a.level, &switch, None);
        Ok(self.switched(a, &products, 0))
    }

    /// Several rotations of one ciphertext, in the order asked for; its decomposition is shared. All keys are checked
    /// before any work starts.
    ///
    /// # Errors
    /// As [`Evaluator::rotate`].
    pub fn rotate_hoisted(&self, a: &Ciphertext, rotations: &[usize]) -> Result<Vec<Ciphertext>, CkksError> {
        if let [r] = rotations {
            // A single one needs no digits later, so they need not be kept.
            return Ok(vec![self.rotate(a, *r)?]);
        }
        self.check(a)?;
        two_parts(a)?;
        let keys: Vec<Option<(usize, &SwitchingKey)>> =
            rotations.iter().map(|&r| self.rotation_key(r, a.level())).collect::<Result<_, _>>()?;
        let digits = keys
            .iter()
            .any(Option::is_some)
            .then(|| self.extend(&a.parts[1], a.level, &self.prepare_digits(&a.parts[1], a.level)));
        let turn = |key: Option<(usize, &SwitchingKey)>| {
            let (Some((rotation, key)), Some(digits)) = (key, &digits) else {
                return a.clone();
            };
            let permutation = self.permutation(rotation);
            let add = [Added::Lifted(&a.parts[0]), Added::Nothing];
            let switch = Switch { key, permutation: Some(&permutation), add };
            self.switched(a, &self.switch_extended(digits, &switch), 0)
        };
        Ok(par::map(keys.len(), |k| turn(keys[k])))
    }

    fn switched(&self, a: &Ciphertext, products: &Products, output: usize) -> Ciphertext {
        let parts = par::both(|part| self.mod_down(products, output, part, false));
        Ciphertext { key_id: a.key_id, level: a.level, scale: a.scale, parts: parts.into_iter().collect() }
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
