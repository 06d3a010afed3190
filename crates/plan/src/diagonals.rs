//! One lowering for every linear operator: from layouts to {rotation → weight vector}.
//!
//! For each output element and each tap the rotation is *slot of the input − slot of the output*;
//! the weight goes to the output's slot in that rotation's vector. Slots that hold no valid output,
//! or that would read a slot known to be zero, are *don't care*: they are filled so that each vector
//! becomes periodic with the least period (Kim, Song 2018, sparse subrings: a periodic vector
//! encodes to a polynomial that is constant on blocks of the transform). A slot that must not
//! contribute (a border tap that would read another element) keeps an explicit zero.
//!
//! Where the output repeats with a shorter period than the input (fully connected layers), partial
//! sums are left at slots congruent modulo that period and folded by rotations afterwards (the
//! hybrid method of Juvekar, Vaikuntanathan, Chandrakasan 2018, section 4).

use std::collections::HashMap;

use rayon::prelude::*;

use crate::layout::{ANY, Layout, SlotMap, ZERO, is_element};
use crate::linop::ConvOp;

/// An input of a linear step: its operator, its layout and what its slots hold.
pub struct Source<'a> {
    /// The operator applied to it.
    pub op: &'a ConvOp,
    /// First output channel that the operator contributes to.
    pub offset: usize,
    /// Where its elements are.
    pub layout: &'a Layout,
    /// What its slots hold.
    pub map: &'a SlotMap,
}

/// A weight vector over slots, stored as one period: its length is a power of two.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagonal {
    /// Which input.
    pub term: usize,
    /// Which ciphertext of that input.
    pub ciphertext: usize,
    /// Left rotation of that ciphertext.
    pub rotation: usize,
    /// One period of the weights; slot `s` has weight `weights[s % weights.len()]`.
    pub weights: Vec<f32>,
}

/// A linear step as rotations and weight vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagonals {
    /// The summands of each output ciphertext.
    pub outputs: Vec<Vec<Diagonal>>,
    /// Rotations that fold the partial sums, in order: `x ← x + rotate(x, f)`.
    pub folds: Vec<usize>,
}

impl Diagonals {
    /// The single weight of all vectors, where there is one: then no product is needed and the
    /// factor joins the scale.
    #[must_use]
    pub fn constant(&self) -> Option<f32> {
        if self.outputs.iter().any(Vec::is_empty) {
            // An output that nothing reaches needs a product by zero.
            return None;
        }
        let mut all = self.outputs.iter().flatten();
        let first = all.next()?;
        let value = *first.weights.first()?;
        let uniform = |d: &Diagonal| d.weights.len() == 1 && d.weights.first() == Some(&value);
        (value != 0.0 && uniform(first) && all.all(uniform)).then_some(value)
    }

    /// Number of rotated products.
    #[must_use]
    pub fn products(&self) -> usize {
        self.outputs.iter().map(Vec::len).sum()
    }

    /// What each slot of the outputs holds: the elements of `layout`, zeros where every summand is
    /// zero, anything else elsewhere.
    #[must_use]
    pub fn slot_map(&self, layout: &Layout, sources: &[Source<'_>]) -> SlotMap {
        let mut map = layout.slot_map(ZERO);
        for (diagonals, slots) in self.outputs.iter().zip(&mut map.ciphertexts) {
            let n = slots.len();
            let mut touched = vec![false; n];
            for d in diagonals {
                let input = &sources[d.term].map.ciphertexts[d.ciphertext];
                for (s, t) in touched.iter_mut().enumerate() {
                    *t |= d.weights[s % d.weights.len()] != 0.0 && input[(s + d.rotation) % n] != ZERO;
                }
            }
            for &fold in &self.folds {
                touched = (0..n).map(|s| touched[s] || touched[(s + fold) % n]).collect();
            }
            for (slot, touched) in slots.iter_mut().zip(touched) {
                if touched && !is_element(*slot) {
                    *slot = ANY;
                }
            }
        }
        map
    }
}

/// Marks a weight that nothing depends on.
const FREE: f32 = f32::NAN;

/// Lowers the sum of `sources` into `layout`.
#[must_use]
pub fn lower(sources: &[Source<'_>], layout: &Layout) -> Diagonals {
    let slots = layout.slots;
    let out_period = layout.period();
    let in_period = sources.iter().map(|s| s.layout.period()).max().unwrap_or(slots);
    let folding = out_period < in_period;
    let folds = std::iter::successors(Some(in_period / 2), |f| Some(f / 2))
        .take_while(|&f| folding && f >= out_period)
        .collect();

    let out_map = layout.slot_map(ANY);
    let outputs = (0..layout.ciphertexts)
        .into_par_iter()
        .map(|ct| {
            // Every vector of this step repeats with this period by construction.
            let ring = if folding { in_period } else { in_period.max(out_period) };
            let base = if folding { out_period } else { ring };
            let mut table = Table { slots: ring, vectors: Vec::new(), index: HashMap::new() };
            for (slot, &element) in out_map.ciphertexts[ct][..base].iter().enumerate() {
                if is_element(element) {
                    table.place(sources, layout, slot, element as usize, folding, out_period);
                }
            }
            table.finish(sources, &out_map.ciphertexts[ct], if folding { out_period } else { slots })
        })
        .collect();
    Diagonals { outputs, folds }
}

struct Table {
    /// Slots of one vector: the step's common period.
    slots: usize,
    vectors: Vec<((usize, usize, usize), Vec<f32>)>,
    index: HashMap<(usize, usize, usize), usize>,
}

impl Table {
    /// Enters every tap of one output element.
    fn place(
        &mut self,
        sources: &[Source<'_>],
        layout: &Layout,
        slot: usize,
        element: usize,
        folding: bool,
        out_period: usize,
    ) {
        let [_, rows, columns] = layout.shape;
        let (c, y, x) = (element / (rows * columns), element / columns % rows, element % columns);
        for (term, source) in sources.iter().enumerate() {
            let channels = source.op.output[0];
            if c < source.offset || c >= source.offset + channels {
                continue;
            }
            let period = source.layout.period();
            source.op.for_each_tap(c - source.offset, y, x, |i, iy, ix, weight| {
                if weight == 0.0 {
                    return;
                }
                let (ct, base) = source.layout.position(i, iy, ix);
                let from = source.layout.copy_near(base, slot);
                // Rotations by a multiple of the input's period do nothing.
                // An input that repeats faster than the output leaves nothing to fold.
                let partial = folding && period >= out_period;
                let modulus = if partial { out_period } else { period };
                let rotation = (from + layout.slots - slot) % modulus;
                let at =
                    if partial { (from + self.slots * 2 - rotation) % self.slots } else { slot % self.slots };
                let size = self.slots;
                let k = *self.index.entry((term, ct, rotation)).or_insert_with(|| {
                    self.vectors.push(((term, ct, rotation), vec![FREE; size]));
                    self.vectors.len() - 1
                });
                let entry = &mut self.vectors[k].1[at];
                *entry = if entry.is_nan() { weight } else { *entry + weight };
            });
        }
    }

    /// Fixes the slots that matter to zero, the others to whatever makes the period least.
    fn finish(mut self, sources: &[Source<'_>], out_slots: &[u32], out_period: usize) -> Vec<Diagonal> {
        self.vectors.sort_by_key(|(key, _)| *key);
        self.vectors
            .into_iter()
            .map(|((term, ciphertext, rotation), mut weights)| {
                let input = &sources[term].map.ciphertexts[ciphertext];
                let n = input.len();
                for (s, w) in weights.iter_mut().enumerate() {
                    if !w.is_nan() {
                        continue;
                    }
                    let matters = is_element(out_slots[s % out_period]);
                    let reads_zero = input[(s + rotation) % n] == ZERO;
                    if matters && !reads_zero {
                        *w = 0.0;
                    }
                }
                Diagonal { term, ciphertext, rotation, weights: least_period(&weights) }
            })
            .collect()
    }
}

/// One period of the shortest power-of-two-periodic vector that agrees with `weights` wherever that
/// is not free; slots that stay free become zero.
fn least_period(weights: &[f32]) -> Vec<f32> {
    let mut best = weights.to_vec();
    // A vector with period P has period 2P, so halve until two halves disagree.
    while best.len() > 1 {
        let half = best.len() / 2;
        let (low, high) = best.split_at(half);
        let agree = low.iter().zip(high).all(|(a, b)| a.is_nan() || b.is_nan() || a == b);
        if !agree {
            break;
        }
        best = low.iter().zip(high).map(|(&a, &b)| if a.is_nan() { b } else { a }).collect();
    }
    best.into_iter().map(|w| if w.is_nan() { 0.0 } else { w }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_period_uses_free_slots_and_respects_fixed_ones() {
        let f = FREE;
        assert_eq!(least_period(&[1.0, f, f, 2.0, 1.0, 2.0, f, f]), vec![1.0, 2.0]);
        assert_eq!(least_period(&[f, f, 3.0, f]), vec![3.0]);
        assert_eq!(least_period(&[1.0, 2.0, 0.0, 2.0]), vec![1.0, 2.0, 0.0, 2.0]);
        assert_eq!(least_period(&[f, f]), vec![0.0]);
    }
}
