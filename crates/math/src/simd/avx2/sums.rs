//! Sums of products and base conversion.
//!
//! **Accumulators.** The high one starts at C = 2^(52+k), where doubles have the unit 2^k. While it stays below 2C, adding
//! x·w to it with one fused multiply-add rounds the sum to a multiple of 2^k; what it grew by, h, is exact, and so is
//! l = x·w − h, an integer of at most 2^(k−1), which is added to the low one: four operations a term.
//!
//! **How many terms.** With x < 2^a, w < 2^b and at most 2^t terms, t = ⌊(105 − a − b)/2⌋ (or 12 if that is less) and
//! k = 54 − t: the sum is below 2^(t+a+b) ≤ 2^(51+k), so the high one stays below 2C, and the low one is at most
//! 2^t·2^(k−1) = 2^53, an exact integer. That is 4 terms of 50 bits and 128 of 45.
//!
//! **Their end.** With H = high − C, e = round(fl(H·fl(1/q))) is off by at most 1/2 + |H/q|·2^−52, so |H − e·q| ≤ q/2 + 2^(k−1),
//! which is below 2^52 as k ≤ 52. The low one is brought to q/2 + 3 the same way, the sum of both is below 2^53, and is
//! reduced to q/2 + 1. That remainder starts the next low one, and counts as a term there: it is below
//! 2^(k−1) = 2^(53−t), since 2·t ≤ 105 − a − b with b ≤ a, or t = 12 and q < 2^41.
//!
//! **Balanced values**, |x| ≤ 2^(a−1), make sums smaller by a bit, of either sign. The high accumulator then starts at
//! C = 1.5·2^(52+k) and has the same unit as long as the sum stays within 2^(51+k): t = ⌊(106 − a − b)/2⌋, so 8 terms of 50
//! bits. Where |H| ≤ 2^(51+k) all of the above holds for either sign; a residue, below 2^a ≤ 2^(53−t), may start the low one.

use super::super::{CONVERT_GROUP, Sources, Target, Term, Weights, scalar};
use super::{Lane, Mod, V, WORD, double, load, spread, store};
use crate::modulus::Modulus;
use std::arch::x86_64::*;

/// Vectors of one sum of products whose accumulators stay in registers.
const VECTORS: usize = 4;
/// The same in values.
const BLOCK: usize = 4 * VECTORS;
/// Vectors of a group of a conversion.
const GROUP_VECTORS: usize = CONVERT_GROUP / 4;
/// Most terms between reductions, as power of two.
const MAX_LOG_TERMS: u32 = 12;

#[target_feature(enable = "avx2,fma")]
pub(super) fn dot(out: &mut [u64], terms: &[Term<'_>], modulus: &Modulus) {
    let n = out.len();
    if n < BLOCK {
        return scalar::dot(out, terms, modulus);
    }
    let limits = Limits::new(modulus.bits(), modulus);
    let (blocks, _) = out.as_chunks_mut::<BLOCK>();
    for (index, out) in blocks.iter_mut().enumerate() {
        let start = index * BLOCK;
        let mut sums = Sums::<VECTORS>::new(limits);
        for term in terms {
            let (values, _) = term.values[start..start + BLOCK].as_chunks::<4>();
            match term.weights {
                Weights::Full(weights) => {
                    let (weights, _) = weights[start..start + BLOCK].as_chunks::<4>();
                    sums.add(limits, values, |i| double(load(&weights[i])));
                }
                Weights::Blocks(weights) => {
                    let size = n / weights.len();
                    if size >= BLOCK {
                        let w = spread(weights[start / size]);
                        sums.add(limits, values, |_| w);
                    } else {
                        let mut expanded = [0; BLOCK];
                        for (chunk, &w) in expanded.chunks_exact_mut(size).zip(&weights[start / size..]) {
                            chunk.fill(w);
                        }
                        let (expanded, _) = expanded.as_chunks::<4>();
                        sums.add(limits, values, |i| double(load(&expanded[i])));
                    }
                }
            }
        }
        sums.finish(limits, out.as_chunks_mut().0);
    }
}

/// Leaves doubles: balanced residues, and the overflow less one for each residue that lost its modulus.
#[target_feature(enable = "avx2,fma")]
pub(super) fn convert_prepare(out: &mut [u64], sources: &Sources<'_>) {
    let Sources { limbs, factors, moduli, .. } = *sources;
    if !sources.whole(out) {
        return scalar::convert_prepare(out, sources);
    }
    let one = _mm256_set1_pd(1.0);
    for (index, out) in sources.groups(out) {
        let mut sums = [_mm256_set1_pd(0.5); GROUP_VECTORS];
        let mut less = [_mm256_setzero_pd(); GROUP_VECTORS];
        let (scaled, overflow) = out.as_chunks_mut::<4>().0.split_at_mut(factors.len() * GROUP_VECTORS);
        let sources = limbs.iter().zip(scaled.chunks_exact_mut(GROUP_VECTORS));
        for (((limb, scaled), &factor), modulus) in sources.zip(factors).zip(moduli) {
            let m = Mod::new(modulus);
            let w = m.spread(factor.value);
            let limb = limb[index * CONVERT_GROUP..][..CONVERT_GROUP].as_chunks().0;
            for (((x, o), sum), less) in limb.iter().zip(scaled).zip(&mut sums).zip(&mut less) {
                let residue = m.residue(m.mul(double(load(x)), w));
                // Product and sum are rounded apart, as in the scalar twin.
                *sum = _mm256_add_pd(*sum, _mm256_mul_pd(residue, m.inverse));
                let large = _mm256_cmp_pd::<_CMP_GT_OQ>(residue, m.half);
                *less = _mm256_add_pd(*less, _mm256_and_pd(large, one));
                let balanced = _mm256_sub_pd(residue, _mm256_and_pd(large, m.q));
                store(o, _mm256_castpd_si256(balanced));
            }
        }
        for ((o, sum), less) in overflow.iter_mut().zip(sums).zip(less) {
            let whole = _mm256_round_pd::<{ _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC }>(sum);
            store(o, _mm256_castpd_si256(_mm256_sub_pd(whole, less)));
        }
    }
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn convert_combine(out: &mut [u64], prepared: &[u64], target: &Target<'_>) {
    combine::<1, VECTORS>([out], prepared, [target]);
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn convert_combine_two(outs: [&mut [u64]; 2], prepared: &[u64], targets: [&Target<'_>; 2]) {
    combine::<2, { VECTORS / 2 }>(outs, prepared, targets);
}

/// `T` targets with the same sources, `K` vectors at a time: so many accumulators fit the registers. Overflows are at most the
/// number of sources in magnitude, so they are a term like others.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn combine<const T: usize, const K: usize>(
    outs: [&mut [u64]; T],
    prepared: &[u64],
    targets: [&Target<'_>; T],
) {
    if !outs.iter().all(|out| out.len().is_multiple_of(CONVERT_GROUP)) {
        for (out, target) in outs.into_iter().zip(targets) {
            scalar::convert_combine(out, prepared, target);
        }
        return;
    }
    let limits = targets.map(|target| {
        let bits = target.source_bits.max(target.modulus.bits());
        Limits::with(106 - bits - target.modulus.bits(), 1.5, target.modulus)
    });
    let outs = outs.map(|out| out.as_chunks_mut::<4>().0.as_chunks_mut::<GROUP_VECTORS>().0);
    let (sources, _) = prepared.as_chunks::<4>().0.as_chunks::<GROUP_VECTORS>();
    let count = targets[0].hats.len() + 1;
    for (index, sources) in sources.chunks_exact(count).enumerate() {
        for part in 0..GROUP_VECTORS / K {
            let mut sums = limits.map(|limits| Sums::<K>::new(limits));
            for (k, source) in sources.iter().enumerate() {
                let source = &source.as_chunks::<K>().0[part];
                for t in 0..T {
                    sums[t].make_room(limits[t]);
                    sums[t].room -= 1;
                    let w = spread(targets[t].hats.get(k).copied().unwrap_or(targets[t].correction));
                    for (v, x) in source.iter().enumerate() {
                        sums[t].one(v, _mm256_castsi256_pd(load(x)), w);
                    }
                }
            }
            for t in 0..T {
                sums[t].finish(limits[t], &mut outs[t][index][K * part..K * (part + 1)]);
            }
        }
    }
}

/// What the sums of one modulus have in common.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) m: Mod,
    /// C.
    start: V,
    /// 2^t.
    pub(super) terms: usize,
}

/// Accumulators of one block.
#[derive(Clone, Copy)]
pub(super) struct Sums<const K: usize> {
    pub(super) high: [V; K],
    pub(super) low: [V; K],
    /// Terms that may still be added before the next reduction.
    pub(super) room: usize,
}

impl Limits {
    /// For residues below 2^`bits` and weights below the modulus, which has at most as many bits.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn new(bits: u32, modulus: &Modulus) -> Self {
        Self::with(105 - bits - modulus.bits(), 1.0, modulus)
    }

    /// For values of at most half of the modulus and weights below it.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn balanced(modulus: &Modulus) -> Self {
        Self::with(106 - 2 * modulus.bits(), 1.5, modulus)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn with(twice: u32, start: f64, modulus: &Modulus) -> Self {
        let log_terms = (twice / 2).min(MAX_LOG_TERMS);
        let unit = (1u64 << (54 - log_terms)) as f64;
        Self { m: Mod::new(modulus), start: _mm256_set1_pd(start * WORD * unit), terms: 1 << log_terms }
    }

    /// Remainder of both accumulators, at most q/2 + 1 in magnitude.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn reduce(self, high: V, low: V) -> V {
        let [high, low] = [_mm256_sub_pd(high, self.start), low].map(|x| {
            let estimate = _mm256_mul_pd(x, self.m.inverse);
            let estimate = _mm256_round_pd::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(estimate);
            _mm256_fnmadd_pd(estimate, self.m.q, x)
        });
        self.m.reduce(_mm256_add_pd(high, low))
    }
}

impl<const K: usize> Sums<K> {
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn new(limits: Limits) -> Self {
        Self { high: [limits.start; K], low: [_mm256_setzero_pd(); K], room: limits.terms }
    }

    /// Starts with residues.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn with(limits: Limits, residues: &[Lane; K]) -> Self {
        let mut sums = Self::new(limits);
        for (low, x) in sums.low.iter_mut().zip(residues) {
            *low = double(load(x));
        }
        sums.room -= 1;
        sums
    }

    /// One term, its weights by vector.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn add(&mut self, limits: Limits, values: &[Lane], weights: impl Fn(usize) -> V) {
        self.make_room(limits);
        self.room -= 1;
        for (i, x) in values.iter().enumerate().take(K) {
            self.one(i, double(load(x)), weights(i));
        }
    }

    /// Reduces if there is room for no term.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn make_room(&mut self, limits: Limits) {
        if self.room == 0 {
            for (high, low) in self.high.iter_mut().zip(&mut self.low) {
                (*high, *low) = (limits.start, limits.reduce(*high, *low));
            }
            self.room = limits.terms - 1;
        }
    }

    /// A vector of a term, for which there is room.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn one(&mut self, i: usize, x: V, w: V) {
        let sum = _mm256_fmadd_pd(x, w, self.high[i]);
        let grown = _mm256_sub_pd(sum, self.high[i]);
        self.low[i] = _mm256_add_pd(self.low[i], _mm256_fmsub_pd(x, w, grown));
        self.high[i] = sum;
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn finish(self, limits: Limits, out: &mut [Lane]) {
        for ((o, high), low) in out.iter_mut().zip(self.high).zip(self.low) {
            store(o, limits.m.word(limits.reduce(high, low)));
        }
    }
}
