//! Rescaling: c' = (c − [c]_{q_ℓ}) / q_ℓ with the centred residue, one level down; the scale is divided by the true q_ℓ.
//! Cost a part: one inverse and ℓ forward transforms.

use super::Evaluator;
use crate::ciphertext::Ciphertext;
use crate::error::CkksError;
use crate::par;
use crate::parameters::Parameters;
use polyveil_math::{Ntt, Poly};

impl Evaluator {
    /// Divides by the last prime.
    ///
    /// # Errors
    /// [`CkksError::LevelExhausted`] at level 0, [`CkksError::BadScale`] if the scale is below the prime.
    pub fn rescale(&self, a: &Ciphertext) -> Result<Ciphertext, CkksError> {
        self.check(a)?;
        let scale = self.rescaled(a.scale, a.level())?;
        let divide = |part: usize| self.rescale_poly(&a.parts[part]);
        let parts = par::both(divide).into_iter().chain((2..a.parts.len()).map(divide));
        Ok(Ciphertext { key_id: a.key_id, scale, parts: parts.collect() })
    }

    /// One part, which has a prime to be divided by.
    pub(super) fn rescale_poly(&self, part: &Poly<Ntt>) -> Poly<Ntt> {
        let level = part.limbs() - 1;
        let (division, table) = (self.params.rescale(level), &self.params.tables(level)[level]);
        self.divide(division, |_| (part.limb(level), table), |i| part.limb(i))
    }

    /// The scale after a rescale at a level.
    pub(super) fn rescaled(&self, scale: f64, level: usize) -> Result<f64, CkksError> {
        if level == 0 {
            return Err(CkksError::LevelExhausted { from: 0, to: "-1".to_owned() });
        }
        let scale = scale / self.params.q()[level] as f64;
        Parameters::check_scale(scale)?;
        Ok(scale)
    }

    /// Forgets limbs above a level; free, exact, same scale.
    ///
    /// # Errors
    /// [`CkksError::LevelExhausted`] if the ciphertext is already below that level.
    pub fn drop_to_level(&self, a: &mut Ciphertext, level: usize) -> Result<(), CkksError> {
        self.check(a)?;
        if level > a.level() {
            return Err(CkksError::LevelExhausted { from: a.level(), to: level.to_string() });
        }
        for part in &mut a.parts {
            part.truncate(level + 1);
        }
        Ok(())
    }
}
