//! Rescaling: c' = (c − [c]_{q_ℓ}) / q_ℓ with the centred residue, one level down; the scale is divided by the true q_ℓ.
//! Cost a part: one inverse and ℓ forward transforms.

use super::Evaluator;
use crate::ciphertext::Ciphertext;
use crate::error::CkksError;
use polyveil_math::{buffer, simd};

impl Evaluator {
    /// Divides by the last prime.
    ///
    /// # Errors
    /// [`CkksError::LevelExhausted`] at level 0, [`CkksError::BadScale`] if the scale is below the prime.
    pub fn rescale(&self, a: &Ciphertext) -> Result<Ciphertext, CkksError> {
        self.check(a)?;
        let level = a.level();
        if level == 0 {
            return Err(CkksError::LevelExhausted { from: 0, to: "-1".to_owned() });
        }
        let scale = a.scale / self.params.q()[level] as f64;
        crate::Parameters::check_scale(scale)?;
        let tables = self.params.tables(level);
        let (converter, inverses) = self.params.rescale(level);
        let parts = a.parts.iter().map(|part| {
            let mut last = buffer::take(self.params.degree());
            last.copy_from_slice(part.limb(level));
            tables[level].inverse(&mut last);
            let prepared = converter.prepare(last);
            self.new_poly(level - 1, |i, out, modulus| {
                converter.combine(&prepared, i, out);
                tables[i].forward(out);
                simd::sub_from_scale(out, part.limb(i), inverses[i], modulus);
            })
        });
        Ok(Ciphertext { key_id: a.key_id, scale, parts: parts.collect() })
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
