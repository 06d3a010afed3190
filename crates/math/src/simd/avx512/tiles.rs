//! Many sums of products of the same values.

use super::super::{LOG_UNIT, TileProducts, TileSum, Tiles, scalar, tile_block};
use super::{Barrett, Lane, V, load, spread, store};
use crate::modulus::Modulus;
use std::arch::x86_64::*;

/// Vectors of accumulators of either half: so many hide the latency of the products.
const VECTORS: usize = 8;
/// Values of a unit of weights.
const UNIT: usize = 1 << LOG_UNIT;
const _: () = assert!(UNIT == 8 * VECTORS);
/// Products between two reductions; the accumulators hold 4096.
const GROUP: usize = 4000;

/// All sums take their products of one block before the next begins. Blocks are as long as lets the values of all runs stay in
/// the first-level cache.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn tile_sums(sums: &mut [TileSum<'_>], tiles: Tiles<'_>, modulus: &Modulus) {
    let len = sums.first().map_or(0, |sum| sum.out.len());
    if len < UNIT {
        return scalar::tile_sums(sums, tiles, modulus);
    }
    let kernel = Kernel { tiles, b: Barrett::new(modulus) };
    let shared = sums.iter().flat_map(|sum| sum.products).all(|products| products.log_block >= LOG_UNIT);
    let alike = alike(sums);
    // Sums that are formed together are reduced at their end only.
    let short = sums.iter().all(|sum| count(sum) < GROUP);
    if !shared {
        kernel.mixed(sums);
    } else if short && 2 * alike.len() <= sums.len() {
        kernel.together(sums, &alike);
    } else {
        match tile_block(tiles.values.len()) {
            16 => kernel.shared::<2, 4>(sums),
            32 => kernel.shared::<4, 2>(sums),
            _ => kernel.shared::<8, 1>(sums),
        }
    }
}

/// Most sums that are formed together.
const TOGETHER: usize = 4;
/// Vectors of a block of theirs.
const NARROW: usize = VECTORS / TOGETHER;

/// How many neighbouring sums each time have products of the same runs, at most [`TOGETHER`].
fn alike(sums: &[TileSum<'_>]) -> Vec<usize> {
    let equal = |a: &TileProducts, b: &TileProducts| a.log_block == b.log_block && a.values == b.values;
    let same = |a: &TileSum<'_>, b: &TileSum<'_>| {
        a.products.len() == b.products.len() && a.products.iter().zip(b.products).all(|(a, b)| equal(a, b))
    };
    let size = |some: &[TileSum<'_>]| {
        let whole = some.len() / TOGETHER;
        let rest = some.len() % TOGETHER;
        std::iter::repeat_n(TOGETHER, whole).chain((rest > 0).then_some(rest))
    };
    sums.chunk_by(same).flat_map(size).collect()
}

/// What all sums read, and the constants of their modulus.
#[derive(Clone, Copy)]
struct Kernel<'a> {
    tiles: Tiles<'a>,
    b: Barrett,
}

impl Kernel<'_> {
    /// Sums whose weights serve at least a unit each: blocks of `WIDE` vectors, `TIMES` products at a time.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn shared<const WIDE: usize, const TIMES: usize>(self, sums: &mut [TileSum<'_>]) {
        self.one_by_one::<WIDE>(sums, |acc, runs, weights, _, block| {
            add_shared::<WIDE, TIMES>(acc, runs, self.tiles.values, weights, block);
        });
    }

    /// Sums with weights of any kind.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn mixed(self, sums: &mut [TileSum<'_>]) {
        self.one_by_one::<VECTORS>(sums, |acc, runs, weights, log_block, block| {
            acc.add_mixed(runs, self.tiles.values, weights, log_block, block);
        });
    }

    /// One sum after the other in blocks of `WIDE` vectors; `add(sums, runs, weights, log_block, block)` adds some products.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn one_by_one<const WIDE: usize>(
        self,
        sums: &mut [TileSum<'_>],
        add: impl Fn(&mut Sums<WIDE>, &[u32], &[u64], u32, usize),
    ) {
        let blocks = sums.first().map_or(0, |sum| sum.out.len()) / (8 * WIDE);
        for block in 0..blocks {
            let at = self.tiles.start + block * 8 * WIDE;
            for sum in &mut *sums {
                let count = count(sum);
                let out = &mut sum.out.as_chunks_mut::<8>().0.as_chunks_mut::<WIDE>().0[block];
                let mut acc = Sums::new(self.b, out, sum.add);
                let mut room = GROUP;
                for products in sum.products {
                    let (row, index) = products.row(at, LOG_UNIT);
                    let each = row / products.values.len().max(1);
                    let mut weights = &self.tiles.weights[products.weights + index * row..][..row];
                    let mut runs = &products.values[..];
                    while !runs.is_empty() {
                        if room == 0 {
                            acc.reduce(self.b);
                            room = GROUP;
                        }
                        let (now, later) = runs.split_at(runs.len().min(room));
                        let (own, rest) = weights.split_at(each * now.len());
                        add(&mut acc, now, own, products.log_block, block);
                        (room, runs, weights) = (room - now.len(), later, rest);
                    }
                }
                acc.finish(self.b, out, count);
            }
        }
    }

    /// The same for sums of which `alike` have products of the same runs: their values are loaded once for all.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn together(self, sums: &mut [TileSum<'_>], alike: &[usize]) {
        let blocks = sums.first().map_or(0, |sum| sum.out.len()) / (8 * NARROW);
        for block in 0..blocks {
            let mut rest = &mut *sums;
            for &size in alike {
                let (some, later) = rest.split_at_mut(size);
                rest = later;
                match size {
                    1 => self.few::<1>(some, block),
                    2 => self.few::<2>(some, block),
                    3 => self.few::<3>(some, block),
                    _ => self.few::<4>(some, block),
                }
            }
        }
    }

    /// A block of `SUMS` sums with products of the same runs.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn few<const SUMS: usize>(self, sums: &mut [TileSum<'_>], block: usize) {
        let Some(sums) = sums.first_chunk_mut::<SUMS>() else { return };
        let (b, at) = (self.b, self.tiles.start + block * 8 * NARROW);
        let mut acc = [Sums::<NARROW>::zero(b); SUMS];
        let mut count = 0;
        for (list, products) in sums[0].products.iter().enumerate() {
            let runs = &products.values[..];
            // As all have the same lengths of weights, so are their rows.
            let (len, index) = products.row(at, LOG_UNIT);
            let mut rows: [&[u64]; SUMS] = [&[]; SUMS];
            for (row, sum) in rows.iter_mut().zip(&*sums) {
                *row = &self.tiles.weights[sum.products[list].weights + index * len..][..runs.len()];
            }
            count += runs.len();
            if let ([acc], [row]) = (&mut acc[..], &rows[..]) {
                add_shared::<NARROW, TOGETHER>(acc, runs, self.tiles.values, row, block);
            } else {
                add_alike(&mut acc, runs, self.tiles.values, &rows, block);
            }
        }
        for (acc, sum) in acc.iter_mut().zip(sums) {
            let out = &mut sum.out.as_chunks_mut::<8>().0.as_chunks_mut::<NARROW>().0[block];
            if sum.add {
                for (l, o) in acc.low.iter_mut().zip(&*out) {
                    *l = _mm512_add_epi64(*l, load(o));
                }
            }
            acc.finish(b, out, count);
        }
    }
}

/// The products of a block of some sums. A function of its own, as nothing but the accumulators may take registers.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn add_alike<const SUMS: usize>(
    sums: &mut [Sums<NARROW>; SUMS],
    runs: &[u32],
    values: &[&[u64]],
    rows: &[&[u64]; SUMS],
    block: usize,
) {
    let mut acc = *sums;
    for (k, &run) in runs.iter().enumerate() {
        let x = &values[run as usize].as_chunks::<8>().0.as_chunks::<NARROW>().0[block];
        let x = [load(&x[0]), load(&x[1])];
        for (acc, row) in acc.iter_mut().zip(rows) {
            let w = spread(row[k]);
            acc.one(0, x[0], w);
            acc.one(1, x[1], w);
        }
    }
    *sums = acc;
}

/// The products of a block of one sum, every `TIMES`-th with accumulators of its own; apart for the same reason.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn add_shared<const WIDE: usize, const TIMES: usize>(
    sums: &mut Sums<WIDE>,
    runs: &[u32],
    values: &[&[u64]],
    weights: &[u64],
    block: usize,
) {
    let zero = _mm512_setzero_si512();
    let mut acc = [Sums { low: [zero; WIDE], high: [zero; WIDE] }; TIMES];
    acc[0] = *sums;
    let of = |run: u32| &values[run as usize].as_chunks::<8>().0.as_chunks::<WIDE>().0[block];
    let ((many, rest), (weights, more)) = (runs.as_chunks::<TIMES>(), weights.as_chunks::<TIMES>());
    for (runs, weights) in many.iter().zip(weights) {
        for (u, acc) in acc.iter_mut().enumerate() {
            let w = spread(weights[u]);
            for (v, x) in of(runs[u]).iter().enumerate() {
                acc.one(v, load(x), w);
            }
        }
    }
    for (&run, &w) in rest.iter().zip(more) {
        for (v, x) in of(run).iter().enumerate() {
            acc[0].one(v, load(x), spread(w));
        }
    }
    let mut total = acc[0];
    for other in &acc[1..] {
        for v in 0..WIDE {
            total.low[v] = _mm512_add_epi64(total.low[v], other.low[v]);
            total.high[v] = _mm512_add_epi64(total.high[v], other.high[v]);
        }
    }
    *sums = total;
}

/// Products of a sum.
fn count(sum: &TileSum<'_>) -> usize {
    sum.products.iter().map(|products| products.values.len()).sum()
}

/// Both halves of the sums of a block.
#[derive(Clone, Copy)]
struct Sums<const WIDE: usize> {
    low: [V; WIDE],
    high: [V; WIDE],
}

impl<const WIDE: usize> Sums<WIDE> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn zero(b: Barrett) -> Self {
        Self { low: [b.m.zero; WIDE], high: [b.m.zero; WIDE] }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn new(b: Barrett, out: &[Lane; WIDE], add: bool) -> Self {
        let mut sums = Self::zero(b);
        if add {
            for (l, o) in sums.low.iter_mut().zip(out) {
                *l = load(o);
            }
        }
        sums
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn reduce(&mut self, b: Barrett) {
        for (l, h) in self.low.iter_mut().zip(&mut self.high) {
            (*l, *h) = (b.reduce_sum(*l, *h), b.m.zero);
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn finish(&self, b: Barrett, out: &mut [Lane; WIDE], count: usize) {
        let short = Barrett::fits(count + 1, b.bits);
        for ((o, &l), &h) in out.iter_mut().zip(&self.low).zip(&self.high) {
            store(o, if short { b.reduce_short_sum(l, h) } else { b.reduce_sum(l, h) });
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn one(&mut self, v: usize, x: V, w: V) {
        self.low[v] = _mm512_madd52lo_epu64(self.low[v], x, w);
        self.high[v] = _mm512_madd52hi_epu64(self.high[v], x, w);
    }
}

impl Sums<VECTORS> {
    /// Adds products of block `block` of runs of values; apart for the same reason as [`add_alike`].
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn add_mixed(&mut self, runs: &[u32], values: &[&[u64]], weights: &[u64], log_block: u32, block: usize) {
        let mut acc = *self;
        let of = |run: u32| values[run as usize].as_chunks::<UNIT>().0[block].as_chunks::<8>().0;
        match log_block {
            LOG_UNIT.. => {
                for (&run, &w) in runs.iter().zip(weights) {
                    let (values, w) = (of(run), spread(w));
                    for (v, x) in values.iter().enumerate() {
                        acc.one(v, load(x), w);
                    }
                }
            }
            3..LOG_UNIT => {
                for (&run, weights) in runs.iter().zip(weights.chunks_exact(UNIT >> log_block)) {
                    let values = of(run);
                    for v in 0..VECTORS {
                        acc.one(v, load(&values[v]), spread(weights[(8 * v) >> log_block]));
                    }
                }
            }
            2 => acc.repeated::<2>(runs, values, weights, block),
            1 => acc.repeated::<1>(runs, values, weights, block),
            0 => {
                for (&run, weights) in runs.iter().zip(weights.as_chunks::<8>().0.as_chunks::<VECTORS>().0) {
                    let values = of(run);
                    for v in 0..VECTORS {
                        acc.one(v, load(&values[v]), load(&weights[v]));
                    }
                }
            }
        }
        *self = acc;
    }

    /// Products with weights of which each serves `2^LOG` values, less than a vector of them.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn repeated<const LOG: usize>(&mut self, runs: &[u32], values: &[&[u64]], weights: &[u64], block: usize) {
        let orders: [V; 4] =
            std::array::from_fn(|v| load(&std::array::from_fn(|lane| ((8 * v + lane) >> LOG) as u64 % 8)));
        for (&run, weights) in runs.iter().zip(weights.chunks_exact(UNIT >> LOG)) {
            let values = values[run as usize].as_chunks::<UNIT>().0[block].as_chunks::<8>().0;
            let weights = weights.as_chunks::<8>().0;
            for v in 0..VECTORS {
                let own = _mm512_permutexvar_epi64(orders[v % (1 << LOG)], load(&weights[v >> LOG]));
                self.one(v, load(&values[v]), own);
            }
        }
    }
}
