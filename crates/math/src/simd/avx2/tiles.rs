//! Many sums of products of the same values: [`super::sums`] says how a sum is formed.
//!
//! Where sums have more products than there are runs, a block of all runs is turned into balanced doubles once, in a buffer where
//! they stand side by side, and then serves all sums: two multiply-adds and two additions a vector and product, and a load.

use super::super::{LOG_UNIT, TileProducts, TileSum, Tiles, tiles::by_terms};
use super::sums::{Limits, Sums, dot};
use super::{Lane, V, double, load, spread, store};
use crate::buffer;
use crate::modulus::Modulus;
use std::arch::x86_64::*;

/// Vectors of a block: their accumulators fill half of the registers, and hide the latency of the products.
const VECTORS: usize = 4;
/// The same in values.
const BLOCK: usize = 4 * VECTORS;
/// A block of a run.
type Block = [Lane; VECTORS];

#[target_feature(enable = "avx2,fma")]
pub(super) fn tile_sums(sums: &mut [TileSum<'_>], tiles: Tiles<'_>, modulus: &Modulus) {
    let len = sums.first().map_or(0, |sum| sum.out.len());
    if len < 1 << LOG_UNIT {
        return by_terms(sums, tiles, |out, terms| dot(out, terms, modulus));
    }
    let limits = Limits::balanced(modulus);
    let products: usize =
        sums.iter().flat_map(|sum| sum.products).map(|products| products.values.len()).sum();
    if products <= tiles.values.len() {
        for block in 0..len / BLOCK {
            block_sums(sums, &tiles, Runs::<false> { ready: &[], values: tiles.values, block, limits });
        }
        return;
    }
    let mut buffer = buffer::take(tiles.values.len() * BLOCK);
    let ready = buffer.as_chunks_mut::<4>().0.as_chunks_mut::<VECTORS>().0;
    for block in 0..len / BLOCK {
        let own = Runs::<false> { ready: &[], values: tiles.values, block, limits };
        for (run, out) in ready.iter_mut().enumerate() {
            let values = own.of(run as u32);
            for (x, o) in values.iter().zip(out) {
                store(o, _mm256_castpd_si256(own.lanes(x)));
            }
        }
        block_sums(sums, &tiles, Runs::<true> { ready, values: &[], block, limits });
    }
}

/// A block of every run: `READY` as balanced doubles, or as it is.
#[derive(Clone, Copy)]
struct Runs<'a, const READY: bool> {
    ready: &'a [Block],
    values: &'a [&'a [u64]],
    block: usize,
    limits: Limits,
}

impl<'a, const READY: bool> Runs<'a, READY> {
    #[inline]
    fn of(&self, run: u32) -> &'a Block {
        if READY {
            &self.ready[run as usize]
        } else {
            &self.values[run as usize].as_chunks::<4>().0.as_chunks().0[self.block]
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn lanes(&self, x: &Lane) -> V {
        if READY { _mm256_castsi256_pd(load(x)) } else { self.limits.m.balanced(double(load(x))) }
    }
}

/// A block of every sum.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn block_sums<const READY: bool>(sums: &mut [TileSum<'_>], tiles: &Tiles<'_>, runs: Runs<'_, READY>) {
    for sum in sums {
        let out: &mut Block = &mut sum.out.as_chunks_mut::<4>().0.as_chunks_mut().0[runs.block];
        let mut acc = if sum.add { Sums::with(runs.limits, out) } else { Sums::new(runs.limits) };
        for products in sum.products {
            add_all(&mut acc, products, &runs, tiles.weights, tiles.start + runs.block * BLOCK);
        }
        acc.finish(runs.limits, out);
    }
}

/// Adds all products of a list, as many at a time as there is room for.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_all<const READY: bool>(
    acc: &mut Sums<VECTORS>,
    products: &TileProducts,
    runs: &Runs<'_, READY>,
    weights: &[u64],
    at: usize,
) {
    let (row, index) = products.row(at, LOG_UNIT);
    let mut weights = &weights[products.weights + index * row..][..row];
    let mut values = &products.values[..];
    let log_each = LOG_UNIT.saturating_sub(products.log_block);
    // Where in a unit the block lies.
    let first = (at % (1 << LOG_UNIT)) >> products.log_block.min(LOG_UNIT);
    while !values.is_empty() {
        acc.make_room(runs.limits);
        let (now, later) = values.split_at(values.len().min(acc.room));
        let (own, rest) = weights.split_at(now.len() << log_each);
        (values, weights) = (later, rest);
        acc.room -= now.len();
        match log_each {
            0 => add::<0, READY>(acc, now, runs, own, first),
            1 => add::<1, READY>(acc, now, runs, own, first),
            2 => add::<2, READY>(acc, now, runs, own, first),
            3 => add::<3, READY>(acc, now, runs, own, first),
            4 => add::<4, READY>(acc, now, runs, own, first),
            5 => add::<5, READY>(acc, now, runs, own, first),
            _ => add::<LOG_UNIT, READY>(acc, now, runs, own, first),
        }
    }
}

/// Products with 2^`LOG_EACH` weights a unit. A function of its own, as nothing but the accumulators may take registers.
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
fn add<const LOG_EACH: u32, const READY: bool>(
    acc: &mut Sums<VECTORS>,
    values: &[u32],
    runs: &Runs<'_, READY>,
    weights: &[u64],
    first: usize,
) {
    let mut sums = *acc;
    for (&run, unit) in values.iter().zip(weights.chunks_exact(1 << LOG_EACH)) {
        let weights = block_weights::<LOG_EACH>(unit, first % (1 << LOG_EACH));
        for (v, (x, w)) in runs.of(run).iter().zip(weights).enumerate() {
            sums.one(v, runs.lanes(x), w);
        }
    }
    *acc = sums;
}

/// The weights of each vector of a block, from those of a unit, of which number `first` is the block's first.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn block_weights<const LOG_EACH: u32>(unit: &[u64], first: usize) -> [V; VECTORS] {
    match LOG_EACH {
        // One for all.
        0..=2 => [spread(unit[first]); VECTORS],
        // One for each vector or two.
        3 | 4 => {
            let own = &unit[first..first + (1 << (LOG_EACH - 2))];
            [0, 1, 2, 3].map(|v| spread(own[v >> (4 - LOG_EACH)]))
        }
        // One for every two values.
        5 => {
            let [low, high] = &unit[first..].as_chunks::<4>().0.as_chunks().0[0];
            let (low, high) = (double(load(low)), double(load(high)));
            [
                _mm256_permute4x64_pd::<0b01_01_00_00>(low),
                _mm256_permute4x64_pd::<0b11_11_10_10>(low),
                _mm256_permute4x64_pd::<0b01_01_00_00>(high),
                _mm256_permute4x64_pd::<0b11_11_10_10>(high),
            ]
        }
        // One for each value.
        _ => {
            let own: &Block = &unit[first..].as_chunks::<4>().0.as_chunks().0[0];
            own.each_ref().map(|w| double(load(w)))
        }
    }
}
