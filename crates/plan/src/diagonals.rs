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
//!
//! Several images lie in blocks of slots that are all alike, so one block is lowered and its weights hold for all. Within a block
//! nothing goes round: a rotation to the left leads out at the end, into the next image. So the ways `t − s` and `t − s` plus a
//! period are two, and of them the one that stays inside is taken (`Lowering::way`).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicI64, Ordering};

use rayon::prelude::*;

use crate::layout::{ANY, Digit, Layout, Place, SlotMap, ZERO, is_element};
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

    /// Numbers in all weight vectors.
    #[must_use]
    pub fn numbers(&self) -> usize {
        self.outputs.iter().flatten().map(|d| d.weights.len()).sum()
    }

    /// What each slot of the outputs holds: the elements of `layout`, zeros where every summand is
    /// zero, anything else elsewhere.
    #[must_use]
    pub fn slot_map(&self, layout: &Layout, sources: &[Source<'_>]) -> SlotMap {
        let mut map = layout.slot_map(ZERO);
        let present: Vec<Present> = sources.iter().map(|s| Present::of(s.map)).collect();
        self.outputs.par_iter().zip(&mut map.ciphertexts).for_each(|(diagonals, slots)| {
            let n = slots.len();
            let mut touched: Vec<u8> = slots.iter().map(|&slot| u8::from(is_element(slot))).collect();
            for d in diagonals {
                let weights: Vec<u8> = d.weights.iter().map(|&w| u8::from(w != 0.0)).collect();
                let reads = &present[d.term].0[d.ciphertext][d.rotation % n..][..n];
                for (t, reads) in touched.chunks_mut(weights.len()).zip(reads.chunks(weights.len())) {
                    for ((t, &w), &read) in t.iter_mut().zip(&weights).zip(reads) {
                        *t |= w & read;
                    }
                }
            }
            for &fold in &self.folds {
                touched = (0..n).map(|s| touched[s] | touched[(s + fold) % n]).collect();
            }
            for (slot, touched) in slots.iter_mut().zip(touched) {
                if touched != 0 && !is_element(*slot) {
                    *slot = ANY;
                }
            }
        });
        map
    }
}

/// Most numbers in the weight vectors of a plan.
pub const MAX_NUMBERS: usize = 1 << 29;

/// Marks a weight that nothing depends on.
const FREE: f32 = f32::NAN;

/// Output and input channels whose weights are entered together.
const OUTPUTS_AT_ONCE: usize = 32;
const INPUTS_AT_ONCE: usize = 64;

/// `0..n` in ranges of at most `size`.
fn blocks(n: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n).step_by(size).map(move |start| start..(start + size).min(n))
}

/// Lowers the sum of `sources` into `layout`.
///
/// Output positions whose taps lie alike are taken together, so that a convolution costs as much as its weights times
/// the few ways in which windows meet borders and phases, not as much as the image.
/// `zeroed` makes the weights of all slots zero that hold no output, instead of any number with which the vectors repeat.
/// None where the vectors would take more than so many numbers: a plan from a file, whose layouts and weights need not go
/// together, could otherwise ask for any amount of memory.
#[must_use]
pub fn lower_within(
    sources: &[Source<'_>],
    layout: &Layout,
    zeroed: bool,
    numbers: usize,
) -> Option<Diagonals> {
    let block = layout.block();
    let round = block == layout.slots;
    let out_period = if round { layout.period() } else { fold_width(sources, layout) };
    let in_period = sources.iter().map(|s| s.layout.period()).max().unwrap_or(block);
    let folding = out_period < in_period;
    // Partial sums lie at most so far out.
    let reach = sources.iter().map(|s| s.layout.span() - 1).max().unwrap_or(0);
    let span = match folding && !round {
        true => (reach + out_period).next_power_of_two().min(block),
        false => in_period,
    };
    let folds = std::iter::successors(Some(span / 2), |f| Some(f / 2))
        .take_while(|&f| folding && f >= out_period)
        .collect();
    // Every vector of this step repeats with this period by construction.
    let ring = match (folding, round) {
        (true, _) => span,
        (false, true) => in_period.max(out_period),
        (false, false) => block,
    };
    let step = Lowering {
        sources,
        layout,
        folding,
        round,
        zeroed,
        ring,
        out_period,
        full: sources.iter().map(|s| Present::of(s.map)).collect(),
        left: AtomicI64::new(i64::try_from(numbers).unwrap_or(i64::MAX)),
    };
    let least = if folding { ring } else { step.likely_period() };
    let out_map = layout.slot_map(ANY);
    let outputs = (0..layout.ciphertexts)
        .into_par_iter()
        .map(|ct| step.output(ct, &out_map.ciphertexts[ct], least))
        .collect::<Option<_>>()?;
    Some(Diagonals { outputs, folds })
}

/// The slots modulo which sums may be folded where an image has a block of its own: those that a vector takes, if inputs are
/// mixed; else nothing is folded.
fn fold_width(sources: &[Source<'_>], layout: &Layout) -> usize {
    let mixing = sources.iter().any(|s| s.op.groups == 1 && s.op.input.iter().product::<usize>() > 1);
    match layout.axes.each_ref().map(Vec::as_slice) {
        [[Digit { size, place: Place::Slot(1) }, ..], [], []] if mixing => {
            size.next_power_of_two().min(layout.block())
        }
        _ => layout.block(),
    }
}

/// Which slots of a value's ciphertexts may hold something: 1, else 0. Twice over, so that rotations are slices.
struct Present(Vec<Vec<u8>>);

impl Present {
    fn of(map: &SlotMap) -> Self {
        let double = |slots: &Vec<u32>| slots.iter().chain(slots).map(|&s| u8::from(s != ZERO)).collect();
        Self(map.ciphertexts.iter().map(double).collect())
    }
}

/// A step being lowered.
struct Lowering<'a> {
    sources: &'a [Source<'a>],
    layout: &'a Layout,
    folding: bool,
    /// Whether a rotation goes round within an image's block: it is alone.
    round: bool,
    /// Whether weights are zero where there is no output.
    zeroed: bool,
    /// Slots of one vector: the step's common period.
    ring: usize,
    out_period: usize,
    full: Vec<Present>,
    /// How many more numbers the vectors may take.
    left: AtomicI64,
}

/// Positions of one axis whose taps lie alike.
struct Class {
    /// The first of them, and how many there are.
    first: usize,
    count: usize,
    /// What the first adds to ciphertext number and slot of the output.
    ct: usize,
    slot: usize,
    /// Of every tap inside the input: index in the kernel, ciphertext number and slot that it adds.
    taps: Vec<(usize, usize, usize)>,
}

/// A product of one input slot: the rotation, its number among those of the step, and where its weight stands.
struct Way {
    rotation: usize,
    index: usize,
    place: usize,
}

/// What tells the positions of an axis apart: the output's ciphertext and slot in the period, and where the taps lie.
type Signature = (usize, usize, Vec<(usize, usize, i64)>, Option<usize>);

impl Lowering<'_> {
    /// The period that weights have where nothing but the position in the image differs: the stride of the coarsest columns.
    fn likely_period(&self) -> usize {
        let stride = self.layout.axes[2]
            .iter()
            .chain(&self.layout.axes[1])
            .filter_map(|d| match d.place {
                Place::Slot(stride) if d.size > 2 => Some(1usize << stride.trailing_zeros()),
                _ => None,
            })
            .max();
        stride.unwrap_or(self.ring).min(self.ring)
    }

    fn output(&self, ct: usize, out_slots: &[u32], least: usize) -> Option<Vec<Diagonal>> {
        let fixed = |s: usize| self.zeroed || is_element(out_slots[s % self.wrap()]);
        let valid: Vec<u8> = (0..self.ring).map(|s| u8::from(fixed(s))).collect();
        let mut done = Vec::new();
        let clashing = self.at_period(ct, least, None, &valid, &mut done)?;
        let numbers = done.iter().map(|d| d.weights.len()).sum::<usize>() + clashing.len() * self.ring;
        if self.left.fetch_sub(numbers as i64, Ordering::Relaxed) < numbers as i64 {
            return None;
        }
        if !clashing.is_empty() {
            self.at_period(ct, self.ring, Some(&clashing), &valid, &mut done)?;
        }
        done.sort_by_key(|d| (d.term, d.ciphertext, d.rotation));
        Some(done)
    }

    /// Slots after which the output's validity repeats.
    fn wrap(&self) -> usize {
        if self.folding { self.out_period } else { self.layout.block() }
    }

    /// Adds to `done` the vectors that have period `period`, among `wanted` ones where given; the others come back. None where
    /// they take more numbers than are left.
    fn at_period(
        &self,
        ct: usize,
        period: usize,
        wanted: Option<&BTreeSet<Key>>,
        valid: &[u8],
        done: &mut Vec<Diagonal>,
    ) -> Option<BTreeSet<Key>> {
        // Clashing vectors have taken their part already.
        let left = usize::try_from(self.left.load(Ordering::Relaxed)).unwrap_or(0);
        let numbers = if wanted.is_some() { usize::MAX } else { left };
        let mut table = Table {
            size: period,
            most: numbers / period,
            ways: if self.round { self.layout.block() } else { 2 * self.layout.block() },
            keys: Vec::new(),
            clashes: Vec::new(),
            entries: Vec::new(),
            index: Vec::new(),
        };
        for term in 0..self.sources.len() {
            self.enter(ct, term, period, wanted, &mut table)?;
        }
        let mut clashing = BTreeSet::new();
        let mut settled = Vec::with_capacity(period);
        let vectors = table.entries.chunks_exact(period).zip(table.clashes);
        for (key, (entries, clash)) in table.keys.into_iter().zip(vectors) {
            if clash || !self.settle(key, entries, valid, &mut settled) {
                clashing.insert(key);
                continue;
            }
            let (term, ciphertext, rotation) = key;
            least_period(&mut settled);
            done.push(Diagonal { term, ciphertext, rotation, weights: settled.clone() });
        }
        Some(clashing)
    }

    /// Enters every tap of one term into the table; none where it is full.
    fn enter(
        &self,
        ct: usize,
        term: usize,
        period: usize,
        wanted: Option<&BTreeSet<Key>>,
        table: &mut Table,
    ) -> Option<()> {
        let source = &self.sources[term];
        let op = source.op;
        let (block, in_period) = (self.layout.block(), source.layout.period());
        let classes = [1, 2].map(|axis| self.classes(op, source.layout, axis, period));
        let channels = |layout: &Layout, n: usize| -> Vec<(usize, usize)> {
            (0..n).map(|c| layout.along(0, c)).collect()
        };
        let ins = channels(source.layout, op.input[0]);
        let per_group = op.group_inputs();
        let [kh, kw] = op.kernel;
        let base = if self.folding { self.out_period } else { self.ring };
        let copies: Vec<usize> = self.layout.copies(0).into_iter().filter(|&s| s < base).collect();
        let places: Vec<(usize, usize)> =
            (0..op.output[0]).map(|c| self.layout.along(0, source.offset + c)).collect();
        let channels_out = op.output[0] / op.groups;
        // Every input channel of an output has a vector of its own, and so has every shift between the two: in blocks, few
        // vectors are written to at a time, and again while they are in the caches.
        for (range, outputs) in blocks(op.output[0], OUTPUTS_AT_ONCE).zip(places.chunks(OUTPUTS_AT_ONCE)) {
            for inputs in blocks(per_group, INPUTS_AT_ONCE) {
                for (row, column) in
                    classes[0].iter().flat_map(|row| classes[1].iter().map(move |c| (row, c)))
                {
                    let scale = op
                        .position_scale
                        .as_ref()
                        .map_or(1.0, |s| s[row.first * op.output[2] + column.first]);
                    let count = row.count * column.count;
                    let taps = row.taps.iter().flat_map(|y| column.taps.iter().map(move |x| (y, x)));
                    for (&(ky, y_ct, y_slot), &(kx, x_ct, x_slot)) in taps {
                        for (c, &(c_ct, c_slot)) in range.clone().zip(outputs) {
                            if c_ct + row.ct + column.ct != ct {
                                continue;
                            }
                            let first = c / channels_out * per_group;
                            for copy in &copies {
                                let slot = wrap(c_slot + row.slot + column.slot + copy, block);
                                let shift = source.layout.copy_shift(slot);
                                for i in inputs.clone() {
                                    let weight = op.weight[((c * per_group + i) * kh + ky) * kw + kx] * scale;
                                    if weight == 0.0 {
                                        continue;
                                    }
                                    let (i_ct, i_slot) = ins[first + i];
                                    let at = wrap(i_slot + y_slot + x_slot, block);
                                    let way = self.way((at, shift, in_period), slot);
                                    let key = (term, i_ct + y_ct + x_ct, way.rotation);
                                    if wanted.is_none_or(|w| w.contains(&key)) {
                                        table.add(
                                            key,
                                            (way.index, wrap(way.place, period)),
                                            weight,
                                            count,
                                        )?;
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
        Some(())
    }

    /// How what lies at `at`, its first copy, comes to output slot `slot`; its copy there is `shift` further on, and the input
    /// repeats with `in_period`.
    fn way(&self, (at, shift, in_period): (usize, usize, usize), slot: usize) -> Way {
        let block = self.layout.block();
        if self.round {
            // Rotations by a multiple of the input's period do nothing.
            // An input that repeats faster than the output leaves nothing to fold.
            let partial = self.folding && in_period >= self.out_period;
            let modulus = if partial { self.out_period } else { in_period };
            let from = wrap(at + shift, block);
            let rotation = wrap(from + block - slot, modulus);
            let place = if partial { from + self.ring * 2 - rotation } else { slot };
            return Way { rotation, index: rotation, place };
        }
        // The first slot from `start` on that is congruent to `to`, or the last before, where that is beyond `end`.
        let next = |to: usize, period: usize, start: usize, end: usize| {
            let found = start + wrap(to + period - wrap(start, period), period);
            if found < end { found } else { found - period }
        };
        let (from, place) = if self.folding {
            (at, next(slot, self.out_period, at, self.ring))
        } else if in_period < block {
            (next(at, in_period, slot, block), slot)
        } else {
            (wrap(at + shift, block), slot)
        };
        let index = from + block - place;
        Way { rotation: wrap(index + self.layout.slots - block, self.layout.slots), index, place }
    }

    /// The positions of an axis (1: rows, 2: columns), in classes; with folding every slot is its own.
    fn classes(&self, op: &ConvOp, from: &Layout, axis: usize, period: usize) -> Vec<Class> {
        let mut classes: Vec<Class> = Vec::new();
        let mut index: BTreeMap<Signature, usize> = BTreeMap::new();
        for position in 0..op.output[axis] {
            let (ct, slot) = self.layout.along(axis, position);
            let start = position * op.stride[axis - 1];
            let taps: Vec<(usize, usize, usize)> = (0..op.kernel[axis - 1])
                .filter_map(|k| {
                    let at = (start + k * op.dilation[axis - 1]).checked_sub(op.pads[axis - 1])?;
                    let (ct, slot) = (at < op.input[axis]).then(|| from.along(axis, at))?;
                    Some((k, ct, slot))
                })
                .collect();
            let relative = taps.iter().map(|&(k, ct, at)| (k, ct, at as i64 - slot as i64)).collect();
            let own = (op.position_scale.is_some() || self.folding).then_some(position);
            let class = *index.entry((ct, slot % period, relative, own)).or_insert_with(|| {
                classes.push(Class { first: position, count: 0, ct, slot, taps });
                classes.len() - 1
            });
            classes[class].count += 1;
        }
        classes
    }

    /// How many slots have a fixed weight and would read something, by place in the period.
    fn matter(&self, (term, ciphertext, rotation): Key, period: usize, valid: &[u8]) -> Vec<u32> {
        let n = self.layout.block();
        let present = &self.full[term].0[ciphertext];
        // Rows of many periods, so that there is something to add at once, and few enough for a byte to count them.
        let width = period.max(valid.len().min(1024)).max(valid.len() / 128);
        let mut counts = vec![0u8; width];
        for (start, valid) in (0..).step_by(width).zip(valid.chunks(width)) {
            let start = (start + rotation) % n;
            let reads = &present[start..start + valid.len()];
            for ((count, &valid), &reads) in counts.iter_mut().zip(valid).zip(reads) {
                *count += valid & reads;
            }
        }
        let mut matter = vec![0u32; period];
        for counts in counts.chunks(period) {
            for (matter, &count) in matter.iter_mut().zip(counts) {
                *matter += u32::from(count);
            }
        }
        matter
    }

    /// Fixes the slots that matter to their weight or zero, the others stay free; false where slots of one place in the period
    /// would need different weights.
    fn settle(&self, key: Key, entries: &[(f32, u32)], valid: &[u8], settled: &mut Vec<f32>) -> bool {
        let matter = self.matter(key, entries.len(), valid);
        settled.clear();
        settled.extend(entries.iter().zip(&matter).map(|(&(weight, entered), &matter)| match entered {
            0 if matter > 0 => 0.0,
            0 => FREE,
            _ => weight,
        }));
        entries.iter().zip(&matter).all(|(&(_, entered), &matter)| entered == 0 || entered >= matter)
    }
}

/// `value` modulo a power of two, as the slots of a ciphertext, a block and every period are.
fn wrap(value: usize, size: usize) -> usize {
    debug_assert!(size.is_power_of_two(), "{size}");
    value & (size - 1)
}

/// Term, input ciphertext, rotation.
type Key = (usize, usize, usize);

/// Weight vectors in the making: one period each.
struct Table {
    /// Length of a vector.
    size: usize,
    /// Vectors at most.
    most: usize,
    /// Rotations that there may be.
    ways: usize,
    keys: Vec<Key>,
    /// Whether two slots of one place want different weights.
    clashes: Vec<bool>,
    /// Vector after vector, of each place its weight, and how many slots have had it. In one piece, which the system gets back as
    /// a whole: vectors by themselves left it in pieces that it did not.
    entries: Vec<(f32, u32)>,
    /// By term and ciphertext: the vector of every rotation, from 1 on, 0 for none.
    index: Vec<Vec<Vec<u32>>>,
}

impl Table {
    /// None where there is no room for another vector.
    fn add(&mut self, key: Key, (way, place): (usize, usize), weight: f32, count: usize) -> Option<()> {
        let (term, ciphertext, _) = key;
        if self.index.len() <= term {
            self.index.resize(term + 1, Vec::new());
        }
        let of_term = &mut self.index[term];
        if of_term.len() <= ciphertext {
            of_term.resize(ciphertext + 1, Vec::new());
        }
        let index = &mut of_term[ciphertext];
        if index.is_empty() {
            index.resize(self.ways, 0);
        }
        let at = &mut index[way];
        if *at == 0 {
            if self.keys.len() >= self.most {
                return None;
            }
            self.keys.push(key);
            self.clashes.push(false);
            self.entries.resize(self.keys.len() * self.size, (FREE, 0));
            *at = self.keys.len() as u32;
        }
        let vector = *at as usize - 1;
        let (known, entered) = &mut self.entries[vector * self.size + place];
        if known.is_nan() {
            *known = weight;
        } else if *known != weight {
            self.clashes[vector] = true;
        }
        *entered += count as u32;
        Some(())
    }
}

/// Leaves one period of the shortest power-of-two-periodic vector that agrees with `weights` wherever that
/// is not free; slots that stay free become zero.
fn least_period(weights: &mut Vec<f32>) {
    // A vector with period P has period 2P, so halve until two halves disagree.
    while weights.len() > 1 {
        let half = weights.len() / 2;
        let (low, high) = weights.split_at_mut(half);
        let agree = low.iter().zip(&*high).all(|(a, b)| a.is_nan() || b.is_nan() || a == b);
        if !agree {
            break;
        }
        low.iter_mut().zip(high).filter(|(a, _)| a.is_nan()).for_each(|(a, b)| *a = *b);
        weights.truncate(half);
    }
    weights.iter_mut().filter(|w| w.is_nan()).for_each(|w| *w = 0.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_period_uses_free_slots_and_respects_fixed_ones() {
        let f = FREE;
        let least = |weights: &[f32]| {
            let mut weights = weights.to_vec();
            least_period(&mut weights);
            weights
        };
        assert_eq!(least(&[1.0, f, f, 2.0, 1.0, 2.0, f, f]), vec![1.0, 2.0]);
        assert_eq!(least(&[f, f, 3.0, f]), vec![3.0]);
        assert_eq!(least(&[1.0, 2.0, 0.0, 2.0]), vec![1.0, 2.0, 0.0, 2.0]);
        assert_eq!(least(&[f, f]), vec![0.0]);
    }
}
