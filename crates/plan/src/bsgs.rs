//! Baby steps and giant steps over a set of rotations (Halevi, Shoup 2014; hoisting as in Bossuat et
//! al., Eurocrypt 2021).
//!
//! A rotation `r` is split as `giant + baby`: baby rotations of the inputs are shared by all outputs
//! and hoisted (one decomposition each), giant rotations act on sums only. One step size `m` splits
//! a whole step: `baby = r mod m`, rotations counted from the middle so that −3 is a short way back.

use std::collections::BTreeSet;

use crate::diagonals::Diagonals;

/// A baby step: which term, which ciphertext of it, which rotation.
pub type Baby = (usize, usize, usize);

/// A giant step: which output ciphertext, which rotation.
pub type Giant = (usize, usize);

/// How the rotations of a linear step are split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Split {
    /// Babies are residues modulo this; 0 means that every rotation is a baby step.
    pub step: usize,
}

/// Relative costs of the two kinds of rotation and of a key.
#[derive(Clone, Copy, Debug)]
pub struct RotationCosts {
    /// One hoisted rotation of one ciphertext.
    pub baby: f64,
    /// One full rotation.
    pub giant: f64,
    /// One more rotation key (generation, memory, transfer).
    pub key: f64,
}

impl Default for RotationCosts {
    fn default() -> Self {
        Self { baby: 0.6, giant: 1.0, key: 0.5 }
    }
}

impl Split {
    /// `(giant, baby)` of rotation `r` of vectors of `slots` slots; `giant + baby ≡ r (mod slots)`.
    #[must_use]
    pub fn apply(self, r: usize, slots: usize) -> (usize, usize) {
        if self.step == 0 {
            return (0, r);
        }
        // Counted from the middle: r in [−slots/2, slots/2).
        let signed = if r >= slots / 2 { r as i64 - slots as i64 } else { r as i64 };
        let baby = signed.rem_euclid(self.step as i64);
        let giant = (signed - baby).rem_euclid(slots as i64);
        (giant as usize, baby as usize)
    }

    /// The cheapest split of `diagonals` among powers of two and the given `strides`.
    #[must_use]
    pub fn cheapest(diagonals: &Diagonals, slots: usize, strides: &[usize], costs: RotationCosts) -> Self {
        let powers = (0..=slots.trailing_zeros()).map(|k| 1usize << k);
        let candidates: BTreeSet<usize> =
            powers.chain(strides.iter().copied()).filter(|&s| s >= 1 && s <= slots).chain([0]).collect();
        let cost = |step: usize| {
            let split = Self { step };
            let (babies, giants) = split.counts(diagonals, slots);
            let keys: BTreeSet<usize> =
                babies.iter().map(|b| b.2).chain(giants.iter().map(|g| g.1)).filter(|&r| r != 0).collect();
            let babies = babies.iter().filter(|b| b.2 != 0).count() as f64;
            let giants = giants.iter().filter(|g| g.1 != 0).count() as f64;
            babies * costs.baby + giants * costs.giant + keys.len() as f64 * costs.key
        };
        let step = candidates
            .into_iter()
            .map(|step| (cost(step), step))
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .map_or(0, |(_, step)| step);
        Self { step }
    }

    /// The distinct `(term, ciphertext, baby)` and `(output, giant)` of a split.
    #[must_use]
    pub fn counts(self, diagonals: &Diagonals, slots: usize) -> (BTreeSet<Baby>, BTreeSet<Giant>) {
        let (mut babies, mut giants) = (BTreeSet::new(), BTreeSet::new());
        for (output, list) in diagonals.outputs.iter().enumerate() {
            for d in list {
                let (giant, baby) = self.apply(d.rotation, slots);
                babies.insert((d.term, d.ciphertext, baby));
                giants.insert((output, giant));
            }
        }
        (babies, giants)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_adds_up() {
        for step in [0, 1, 2, 3, 16, 30 * 16, 256] {
            for r in 0..1024 {
                let (giant, baby) = Split { step }.apply(r, 1024);
                assert_eq!((giant + baby) % 1024, r);
                assert!(step == 0 || baby < step);
            }
        }
    }
}
