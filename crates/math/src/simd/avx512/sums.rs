//! Sums of products and base conversion.

use super::super::{CONVERT_GROUP, Sources, Target, Term, Weights, scalar};
use super::{Barrett, Factor, Mod, load, spread, store};
use crate::modulus::Modulus;
use std::arch::x86_64::*;

/// Values whose accumulators fit the registers of one sum of products.
const BLOCK: usize = 64;
/// Vectors of a group of a conversion.
const GROUP_VECTORS: usize = CONVERT_GROUP / 8;
/// Terms between two reductions; the accumulators would hold 4096.
const GROUP: usize = 64;

/// A term in blocks, so that the loop over terms only indexes.
#[derive(Clone, Copy)]
struct Chunked<'a> {
    values: &'a [[u64; BLOCK]],
    weights: ChunkedWeights<'a>,
}

#[derive(Clone, Copy)]
enum ChunkedWeights<'a> {
    Full(&'a [[u64; BLOCK]]),
    /// One weight for 2^shift blocks.
    Spread(&'a [u64], u32),
    /// One weight for so many values, fewer than a block.
    Short(&'a [u64], usize),
}

impl<'a> Chunked<'a> {
    fn new(term: &Term<'a>, n: usize) -> Self {
        let weights = match term.weights {
            Weights::Full(weights) => ChunkedWeights::Full(weights.as_chunks().0),
            Weights::Blocks(weights) if n / weights.len() >= BLOCK => {
                ChunkedWeights::Spread(weights, (n / weights.len() / BLOCK).ilog2())
            }
            Weights::Blocks(weights) => ChunkedWeights::Short(weights, n / weights.len()),
        };
        Self { values: term.values.as_chunks().0, weights }
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn dot(out: &mut [u64], terms: &[Term<'_>], modulus: &Modulus) {
    let n = out.len();
    if n < BLOCK {
        return scalar::dot(out, terms, modulus);
    }
    let b = Barrett::new(modulus);
    let (blocks, _) = out.as_chunks_mut::<BLOCK>();
    if terms.is_empty() {
        blocks.as_flattened_mut().fill(0);
    }
    let empty = Chunked { values: &[], weights: ChunkedWeights::Full(&[]) };
    for (group, terms) in terms.chunks(GROUP).enumerate() {
        let mut chunked = [empty; GROUP];
        for (c, term) in chunked.iter_mut().zip(terms) {
            *c = Chunked::new(term, n);
        }
        let chunked = &chunked[..terms.len()];
        let short = Barrett::fits(terms.len() + 1, modulus.bits());
        for (index, out) in blocks.iter_mut().enumerate() {
            let (lanes, _) = out.as_chunks_mut::<8>();
            let mut low = [b.m.zero; BLOCK / 8];
            let mut high = [b.m.zero; BLOCK / 8];
            if group > 0 {
                for (l, o) in low.iter_mut().zip(&*lanes) {
                    *l = load(o);
                }
            }
            for term in chunked {
                let (values, _) = term.values[index].as_chunks::<8>();
                match term.weights {
                    ChunkedWeights::Spread(weights, shift) => {
                        let w = spread(weights[index >> shift]);
                        for ((l, h), x) in low.iter_mut().zip(&mut high).zip(values) {
                            let x = load(x);
                            *l = _mm512_madd52lo_epu64(*l, x, w);
                            *h = _mm512_madd52hi_epu64(*h, x, w);
                        }
                    }
                    ChunkedWeights::Full(weights) => {
                        let (weights, _) = weights[index].as_chunks::<8>();
                        for (((l, h), x), w) in low.iter_mut().zip(&mut high).zip(values).zip(weights) {
                            let (x, w) = (load(x), load(w));
                            *l = _mm512_madd52lo_epu64(*l, x, w);
                            *h = _mm512_madd52hi_epu64(*h, x, w);
                        }
                    }
                    ChunkedWeights::Short(weights, size) if size >= 8 => {
                        let weights = &weights[index * BLOCK / size..];
                        for (v, ((l, h), x)) in low.iter_mut().zip(&mut high).zip(values).enumerate() {
                            let (x, w) = (load(x), spread(weights[v * 8 / size]));
                            *l = _mm512_madd52lo_epu64(*l, x, w);
                            *h = _mm512_madd52hi_epu64(*h, x, w);
                        }
                    }
                    ChunkedWeights::Short(weights, size) => {
                        let mut full = [0; BLOCK];
                        for (chunk, &w) in full.chunks_exact_mut(size).zip(&weights[index * BLOCK / size..]) {
                            chunk.fill(w);
                        }
                        let (weights, _) = full.as_chunks::<8>();
                        for (((l, h), x), w) in low.iter_mut().zip(&mut high).zip(values).zip(weights) {
                            let (x, w) = (load(x), load(w));
                            *l = _mm512_madd52lo_epu64(*l, x, w);
                            *h = _mm512_madd52hi_epu64(*h, x, w);
                        }
                    }
                }
            }
            for ((o, l), h) in lanes.iter_mut().zip(low).zip(high) {
                store(o, if short { b.reduce_short_sum(l, h) } else { b.reduce_sum(l, h) });
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn convert_prepare(out: &mut [u64], sources: &Sources<'_>) {
    let Sources { limbs, factors, moduli, .. } = *sources;
    if !sources.whole(out) {
        return scalar::convert_prepare(out, sources);
    }
    for (index, out) in sources.groups(out) {
        let mut sums = [_mm512_set1_pd(0.5); GROUP_VECTORS];
        let (scaled, overflow) = out.split_at_mut(factors.len() * CONVERT_GROUP);
        let (scaled, _) = scaled.as_chunks_mut::<8>().0.as_chunks_mut::<GROUP_VECTORS>();
        for (((limb, scaled), &factor), modulus) in limbs.iter().zip(scaled).zip(factors).zip(moduli) {
            let (m, w) = (Mod::new(modulus), Factor::of(factor));
            let inverse = _mm512_set1_pd(1.0 / modulus.value() as f64);
            let limb = &limb.as_chunks::<8>().0.as_chunks::<GROUP_VECTORS>().0[index];
            for ((x, o), sum) in limb.iter().zip(scaled).zip(&mut sums) {
                let scaled = m.reduce2(m.mul_lazy(load(x), w));
                store(o, scaled);
                // Product and sum are rounded apart, as in the scalar twin.
                *sum = _mm512_add_pd(*sum, _mm512_mul_pd(_mm512_cvtepu64_pd(scaled), inverse));
            }
        }
        for (o, sum) in overflow.as_chunks_mut().0.iter_mut().zip(sums) {
            store(o, _mm512_cvttpd_epu64(sum));
        }
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn convert_combine(out: &mut [u64], prepared: &[u64], target: &Target<'_>) {
    combine([out], prepared, [target]);
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn convert_combine_two(outs: [&mut [u64]; 2], prepared: &[u64], targets: [&Target<'_>; 2]) {
    combine(outs, prepared, targets);
}

/// `T` targets with the same number of sources, of the same size.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn combine<const T: usize>(outs: [&mut [u64]; T], prepared: &[u64], targets: [&Target<'_>; T]) {
    if !outs.iter().all(|out| out.len().is_multiple_of(CONVERT_GROUP)) {
        for (out, target) in outs.into_iter().zip(targets) {
            scalar::convert_combine(out, prepared, target);
        }
        return;
    }
    let mut b = [Barrett::new(targets[0].modulus); T];
    for t in 1..T {
        b[t] = Barrett::new(targets[t].modulus);
    }
    let count = targets[0].hats.len() + 1;
    let short = targets.iter().all(|target| Barrett::fits(count, target.source_bits));
    let (sources, _) = prepared.as_chunks::<8>().0.as_chunks::<GROUP_VECTORS>();
    for (index, sources) in sources.chunks_exact(count).enumerate() {
        let mut low = [[b[0].m.zero; GROUP_VECTORS]; T];
        let mut high = [[b[0].m.zero; GROUP_VECTORS]; T];
        for (k, source) in sources.iter().enumerate() {
            for t in 0..T {
                let w = spread(targets[t].hats.get(k).copied().unwrap_or(targets[t].correction));
                for v in 0..GROUP_VECTORS {
                    let x = load(&source[v]);
                    low[t][v] = _mm512_madd52lo_epu64(low[t][v], x, w);
                    high[t][v] = _mm512_madd52hi_epu64(high[t][v], x, w);
                }
            }
        }
        for t in 0..T {
            let out = outs[t][index * CONVERT_GROUP..][..CONVERT_GROUP].as_chunks_mut().0;
            for v in 0..GROUP_VECTORS {
                let (low, high) = (low[t][v], high[t][v]);
                store(
                    &mut out[v],
                    if short { b[t].reduce_short_sum(low, high) } else { b[t].reduce_sum(low, high) },
                );
            }
        }
    }
}
