//! Baby steps and giant steps over a set of rotations (Halevi, Shoup 2014; hoisting as in Bossuat et
//! al., Eurocrypt 2021).
//!
//! A rotation `r` is split as `giant + baby`: baby rotations of the inputs are shared by all outputs
//! and hoisted (one decomposition each), giant rotations act on sums only. One step size `m` splits
//! a whole step: `baby = r mod m`, rotations counted from the middle so that −3 is a short way back.
//!
//! Where slots are blocks of channels at positions of a grid, the multiple of the block comes off first: inputs are rotated to the few
//! positions that a window reads, and baby and giant steps move channels only. That needs few keys for many rotations.

use std::collections::BTreeSet;

use crate::diagonals::Diagonals;

/// A baby step: which term, which ciphertext of it, its rotation to other positions, its rotation within positions.
pub type Baby = (usize, usize, usize, usize);

/// A giant step: which output ciphertext, which rotation.
pub type Giant = (usize, usize);

/// How the rotations of a linear step are split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(from = "u64", into = "u64")]
pub struct Split {
    /// Babies are residues modulo this; 0 means that every rotation is a baby step.
    pub step: usize,
    /// Multiples of this are taken off first, by rotating the inputs; 0 means that nothing is.
    pub block: usize,
}

/// In files: the block above 32 bits of step.
impl From<u64> for Split {
    fn from(both: u64) -> Self {
        Self { step: (both & 0xffff_ffff) as usize, block: (both >> 32) as usize }
    }
}

impl From<Split> for u64 {
    fn from(split: Split) -> Self {
        (split.block as Self) << 32 | split.step as Self
    }
}

/// A rotation in three parts, which add up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Of the input, before all.
    pub position: usize,
    /// Of the input, hoisted.
    pub baby: usize,
    /// Of the sum.
    pub giant: usize,
}

impl Split {
    /// The parts of rotation `r` of vectors of `slots` slots.
    #[must_use]
    pub fn apply(self, r: usize, slots: usize) -> Parts {
        // Counted from the middle: r in [−slots/2, slots/2).
        let signed = if r >= slots / 2 { r as i64 - slots as i64 } else { r as i64 };
        let rest = if self.block == 0 { signed } else { signed.rem_euclid(self.block as i64) };
        let baby = if self.step == 0 { rest } else { rest.rem_euclid(self.step as i64) };
        let wrapped = |r: i64| r.rem_euclid(slots as i64) as usize;
        Parts { position: wrapped(signed - rest), baby: wrapped(baby), giant: wrapped(rest - baby) }
    }

    /// The splits worth trying: by powers of two and the given `strides`, and within blocks of `block` slots between positions.
    pub(crate) fn candidates(slots: usize, strides: &[usize], block: usize) -> Vec<Self> {
        let powers = (0..=slots.trailing_zeros()).map(|k| 1usize << k);
        let whole: BTreeSet<usize> = powers
            .clone()
            .chain(strides.iter().copied())
            .filter(|&s| s >= 1 && s <= slots)
            .chain([0])
            .collect();
        let within = powers.filter(|&step| block > 1 && step <= block);
        whole
            .into_iter()
            .map(|step| Self { step, block: 0 })
            .chain(within.map(|step| Self { step, block }))
            .collect()
    }

    /// The distinct baby steps and giant steps of a split.
    #[must_use]
    pub fn counts(self, diagonals: &Diagonals, slots: usize) -> (BTreeSet<Baby>, BTreeSet<Giant>) {
        let (mut babies, mut giants) = (BTreeSet::new(), BTreeSet::new());
        for (output, list) in diagonals.outputs.iter().enumerate() {
            for d in list {
                let parts = self.apply(d.rotation, slots);
                babies.insert((d.term, d.ciphertext, parts.position, parts.baby));
                giants.insert((output, parts.giant));
            }
        }
        (babies, giants)
    }
}

/// The distinct rotations of a step: of inputs, and of outputs with how many outputs have the same ones.
pub(crate) struct Rotations {
    inputs: BTreeSet<(usize, usize, usize)>,
    outputs: Vec<(usize, Vec<usize>)>,
}

/// How much of what a split makes of a step's rotations.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Rotations of inputs to other positions, and the inputs of which there are any.
    pub positions: f64,
    pub position_sources: f64,
    /// Hoisted rotations, and what they are rotations of.
    pub babies: f64,
    pub baby_sources: f64,
    /// Rotations of sums, and all sums.
    pub giants: f64,
    pub sums: f64,
    /// Output ciphertexts.
    pub outputs: f64,
    /// The distinct ones, each of which wants a key.
    pub rotations: BTreeSet<usize>,
}

impl Rotations {
    pub fn of(diagonals: &Diagonals) -> Self {
        let mut inputs = BTreeSet::new();
        let mut outputs: std::collections::BTreeMap<Vec<usize>, usize> = std::collections::BTreeMap::new();
        for list in &diagonals.outputs {
            let mut own: Vec<usize> = list.iter().map(|d| d.rotation).collect();
            own.sort_unstable();
            own.dedup();
            *outputs.entry(own).or_default() += 1;
            inputs.extend(list.iter().map(|d| (d.term, d.ciphertext, d.rotation)));
        }
        Self { inputs, outputs: outputs.into_iter().map(|(list, count)| (count, list)).collect() }
    }

    pub fn counts(&self, split: Split, slots: usize) -> Counts {
        let mut counts = Counts::default();
        let (mut babies, mut positions) = (BTreeSet::new(), BTreeSet::new());
        for &(term, ciphertext, rotation) in &self.inputs {
            let parts = split.apply(rotation, slots);
            babies.insert((term, ciphertext, parts.position, parts.baby));
            positions.insert((term, ciphertext, parts.position));
            counts.rotations.extend([parts.position, parts.baby, parts.giant]);
        }
        counts.rotations.remove(&0);
        for (outputs, list) in &self.outputs {
            let distinct: BTreeSet<usize> = list.iter().map(|&r| split.apply(r, slots).giant).collect();
            counts.giants += *outputs as f64 * distinct.iter().filter(|&&g| g != 0).count() as f64;
            counts.sums += *outputs as f64 * distinct.len() as f64;
            counts.outputs += *outputs as f64;
        }
        let moved: BTreeSet<_> = positions.iter().filter(|p| p.2 != 0).map(|p| (p.0, p.1)).collect();
        let turned: BTreeSet<_> = babies.iter().filter(|b| b.3 != 0).map(|b| (b.0, b.1, b.2)).collect();
        counts.positions = positions.iter().filter(|p| p.2 != 0).count() as f64;
        counts.position_sources = moved.len() as f64;
        counts.babies = babies.iter().filter(|b| b.3 != 0).count() as f64;
        counts.baby_sources = turned.len() as f64;
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_adds_up() {
        for (step, block) in
            [(0, 0), (1, 0), (3, 0), (16, 0), (30 * 16, 0), (256, 0), (4, 16), (16, 16), (0, 16)]
        {
            let split = Split { step, block };
            assert_eq!(Split::from(u64::from(split)), split);
            for r in 0..1024 {
                let Parts { position, baby, giant } = split.apply(r, 1024);
                assert_eq!((position + baby + giant) % 1024, r);
                assert!(step == 0 || baby < step);
                assert!(block == 0 || (position % block == 0 && giant + baby < block));
            }
        }
    }
}
