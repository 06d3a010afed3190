//! Sums of products as the kernel takes them: which products each sum has, and their weights, encoded a limb at a time and stored in
//! the order of their use.

use super::Evaluator;
use super::keyswitch::with_vectors;
use super::transform::Sum;
use crate::par;
use crate::plaintext::IntegerPlaintext;
use polyveil_math::buffer::{self, Buffer};
use polyveil_math::simd::{self, TileProducts, TileSum, Tiles};
use std::collections::BTreeMap;

/// Products whose weights are encoded and used before the next ones', where a sum has very many.
const GROUP: usize = 4;
/// Vectors of weights whose blocks are shorter lie by themselves.
const LEAST_LOG_BLOCK: u32 = 3;
/// Vectors of weights that are encoded before they are put where the kernel wants them.
const TOGETHER: usize = 8;

/// A product of a sum.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    /// Which rotated input.
    pub(super) turn: usize,
    pub(super) weights: &'a IntegerPlaintext,
    /// Words of its weights in a limb as they are stored: as many as they are, or more, where each is repeated.
    stored: usize,
}

impl<'a> Product<'a> {
    pub(super) fn new(turn: usize, weights: &'a IntegerPlaintext) -> Self {
        Self { turn, weights, stored: weights.coefficients().len() }
    }
}

/// Has weights that happen to be fewer stored like those of most products, and sorts: sums of the same rotated inputs are formed
/// together only if their weights serve equally many neighbours.
pub(super) fn store_alike<'p, 'a: 'p>(sums: impl Iterator<Item = &'p mut [Product<'a>]>, n: usize) {
    let sums: Vec<_> = sums.collect();
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    sums.iter().flat_map(|products| &**products).for_each(|p| *counts.entry(p.stored).or_default() += 1);
    let all: usize = counts.values().sum();
    // More than half of all, so that storing no more than doubles.
    let most = counts.into_iter().find(|&(_, count)| 2 * count > all).map_or(0, |(len, _)| len);
    let least = if most <= n >> LEAST_LOG_BLOCK { most } else { 0 };
    for products in sums {
        products.iter_mut().for_each(|product| product.stored = product.stored.max(least));
        products.sort_by_key(|product| (product.stored, product.turn));
    }
}

/// The products of many sums, as the kernel takes them.
#[derive(Default)]
pub(super) struct Lists {
    /// One a sum; their weights lie one after the other.
    pub(super) products: Vec<Vec<TileProducts>>,
    /// The place of each sum in an order in which those with products of the same rotated inputs are neighbours: the kernel loads
    /// these once for several sums.
    places: Vec<usize>,
}

impl Lists {
    pub(super) fn new(sums: &[&Sum<'_>], n: usize) -> Self {
        let mut next = 0;
        let products: Vec<_> = sums.iter().map(|sum| list_products(&sum.products, n, &mut next)).collect();
        let mut order: Vec<usize> = (0..sums.len()).collect();
        let turns = |sum: usize| sums[sum].products.iter().map(|product| (product.stored, product.turn));
        order.sort_by(|&a, &b| turns(a).cmp(turns(b)));
        let mut places = vec![0; sums.len()];
        for (place, sum) in order.into_iter().enumerate() {
            places[sum] = place;
        }
        Self { products, places }
    }

    /// Sums into `outs`, of which there is one a sum.
    pub(super) fn sums_into<'t>(&'t self, outs: impl Iterator<Item = &'t mut [u64]>) -> Vec<TileSum<'t>> {
        let mut sums: Vec<(usize, TileSum<'t>)> = outs
            .zip(&self.products)
            .zip(&self.places)
            .map(|((out, products), &place)| (place, TileSum { out, products, add: false }))
            .collect();
        sums.sort_unstable_by_key(|sum| sum.0);
        sums.into_iter().map(|sum| sum.1).collect()
    }
}

/// Products in order of the length of their stored weights, which lie one after the other from `next` on.
fn list_products(products: &[Product<'_>], n: usize, next: &mut usize) -> Vec<TileProducts> {
    let mut lists = Vec::new();
    for alike in products.chunk_by(|a, b| a.stored == b.stored) {
        let each = alike[0].stored;
        let log_block = (n / each).ilog2();
        // Vectors of which much is read at a time may lie by themselves.
        let together = if log_block < LEAST_LOG_BLOCK { 1 } else { alike.len() };
        for some in alike.chunks(together) {
            let values = some.iter().map(|product| product.turn as u32).collect();
            lists.push(TileProducts { log_block, weights: *next, values });
            *next += some.len() * each;
        }
    }
    lists
}

impl Evaluator {
    /// Both parts of a sum at one limb, a few weights encoded at a time, so that they are used while they are in the second-level
    /// cache. `values` are whole limbs of each part, one a turn.
    pub(super) fn heavy_sum(
        &self,
        sum: &Sum<'_>,
        values: &[Vec<&[u64]>; 2],
        (i, level): (usize, usize),
        mut out: [&mut [u64]; 2],
    ) {
        let modulus = self.params.table(i, level).modulus();
        for (index, group) in sum.products.chunks(GROUP).enumerate() {
            let lists = [list_products(group, self.params.degree(), &mut 0)];
            let weights = self.encode_limb([group].into_iter(), &lists, (i, level), false);
            for (values, out) in values.iter().zip(&mut out) {
                let sum = TileSum { out, products: &lists[0], add: index > 0 };
                simd::tile_sums(&mut [sum], Tiles { values, weights: &weights, start: 0 }, modulus);
            }
        }
    }

    /// The weights of the products of some sums modulo extended prime i, transformed, as `lists` say; `within` asks for all threads.
    pub(super) fn encode_limb<'p, 'a: 'p>(
        &self,
        sums: impl Iterator<Item = &'p [Product<'a>]>,
        lists: &[Vec<TileProducts>],
        (i, level): (usize, usize),
        within: bool,
    ) -> Buffer {
        let table = self.params.table(i, level);
        let encode = |product: &Product<'_>, out: &mut [u64]| {
            let coefficients = product.weights.coefficients();
            let own = &mut out[..coefficients.len()];
            simd::reduce_signed(own, coefficients, table.modulus());
            table.forward(own);
            repeat(out, coefficients.len());
        };
        let len = |list: &TileProducts| self.params.degree() >> list.log_block;
        let mut data = buffer::take(lists.iter().flatten().map(|list| list.values.len() * len(list)).sum());
        let mut rest = &mut data[..];
        let mut tasks = Vec::with_capacity(lists.iter().map(Vec::len).sum());
        for (mut products, lists) in sums.zip(lists) {
            for list in lists {
                let (own, later) = products.split_at(list.values.len());
                let (weights, more) = std::mem::take(&mut rest).split_at_mut(own.len() * len(list));
                (products, rest) = (later, more);
                tasks.push((list, own, weights));
            }
        }
        let encode_list = |(list, own, weights): (&TileProducts, &[Product<'_>], &mut [u64])| {
            let len = len(list);
            if let [only] = own {
                return encode(only, weights);
            }
            with_vectors(TOGETHER * len, |vectors| {
                for (first, some) in (0..).step_by(TOGETHER).zip(own.chunks(TOGETHER)) {
                    let vectors = &mut vectors[..some.len() * len];
                    for (product, vector) in some.iter().zip(vectors.chunks_exact_mut(len)) {
                        encode(product, vector);
                    }
                    list.set(weights, vectors, len, first);
                }
            });
        };
        if within {
            par::for_each(tasks.into_iter(), encode_list);
        } else {
            tasks.into_iter().for_each(encode_list);
        }
        data
    }
}

/// Stores each of the first `count` values, a power of two, as often as fills `values`.
fn repeat(values: &mut [u64], count: usize) {
    let times = values.len() / count;
    if times > 1 {
        // From the last one on, so that none is overwritten before it is read.
        for k in (0..count).rev() {
            let value = values[k];
            values[k * times..(k + 1) * times].fill(value);
        }
    }
}
