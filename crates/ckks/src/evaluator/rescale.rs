//! Rescaling: a division to the modulus of the level below, which divides the scale by exactly as much
//! ([`Parameters::step`]). Cost a part: an inverse transform for each prime that the lower level lacks (one in a nested chain), a
//! forward transform for each that it has.

use super::Evaluator;
use crate::ciphertext::Ciphertext;
use crate::error::CkksError;
use crate::par;
use crate::parameters::Parameters;
use polyveil_math::{Ntt, Poly, simd};

/// Most bits that are dropped at once where that takes a division.
const FARTHEST: f64 = 1000.0;

impl Evaluator {
    /// Goes one level down.
    ///
    /// # Errors
    /// [`CkksError::LevelExhausted`] at level 0, [`CkksError::BadScale`] if the scale is less than what it is divided by.
    pub fn rescale(&self, a: &Ciphertext) -> Result<Ciphertext, CkksError> {
        self.check(a)?;
        let scale = self.rescaled(a.scale, a.level())?;
        let divide = |part: usize| self.rescale_poly(&a.parts[part], a.level);
        let parts = par::both(divide).into_iter().chain((2..a.parts.len()).map(divide));
        Ok(Ciphertext { key_id: a.key_id, level: a.level - 1, scale, parts: parts.collect() })
    }

    /// One part at a level; as it is at level 0.
    pub(super) fn rescale_poly(&self, part: &Poly<Ntt>, level: usize) -> Poly<Ntt> {
        let division = self.params.rescale(level, false);
        division.map_or_else(|| part.clone(), |division| self.divide(division, level, |i| part.limb(i)))
    }

    /// The scale after a rescale at a level.
    pub(super) fn rescaled(&self, scale: f64, level: usize) -> Result<f64, CkksError> {
        if level == 0 {
            return Err(CkksError::LevelExhausted { from: 0, to: "-1".to_owned() });
        }
        let scale = scale / self.params.step(level);
        Parameters::check_scale(scale)?;
        Ok(scale)
    }

    /// Goes down to a level without dividing the values. Where that level has no prime that the ciphertext lacks (always, in a nested
    /// chain) limbs are forgotten: free, exact, same scale. Else the values are multiplied by the nearest integer to the ratio of the
    /// moduli and rescaled, with the noise of that, for the price of one rescale.
    ///
    /// # Errors
    /// [`CkksError::LevelExhausted`] if the ciphertext is already below that level.
    pub fn drop_to_level(&self, a: &mut Ciphertext, level: usize) -> Result<(), CkksError> {
        self.check(a)?;
        if level > a.level {
            return Err(CkksError::LevelExhausted { from: a.level, to: level.to_string() });
        }
        while a.level > level {
            // Not so far at once that the ratio of the moduli leaves the floating-point numbers.
            let near = |&next: &usize| {
                self.params.literal().contains(a.level, next)
                    || self.params.log_q(a.level) - self.params.log_q(next) < FARTHEST
            };
            let next = (level..a.level).find(near).unwrap_or(a.level - 1);
            self.drop_once(a, next);
        }
        Ok(())
    }

    fn drop_once(&self, a: &mut Ciphertext, level: usize) {
        let (own, wanted) = (self.params.primes(a.level), self.params.primes(level));
        let kept: Option<Vec<usize>> =
            wanted.iter().map(|prime| own.iter().position(|p| p == prime)).collect();
        if let Some(kept) = kept {
            a.parts.iter_mut().for_each(|part| keep(part, &kept));
        } else {
            // The nearest integer: off by half of one in 2^20 at most, which a level has at least.
            let ratio = (level + 1..=a.level).map(|level| self.params.step(level)).product::<f64>().round();
            let division = self.params.descent(a.level, level);
            for part in &mut a.parts {
                self.each_limb(part, a.level, |_, limb, modulus| {
                    simd::scale_assign(limb, modulus.shoup(modulus.reduce_f64(ratio)), modulus);
                });
                *part = self.divide(&division, a.level, |i| part.limb(i));
            }
        }
        a.level = level;
    }
}

/// Keeps those limbs, ascending.
fn keep(part: &mut Poly<Ntt>, limbs: &[usize]) {
    for (to, &from) in limbs.iter().enumerate().filter(|(to, from)| to < from) {
        part.limbs_mut().swap(to, from);
    }
    part.truncate(limbs.len());
}
