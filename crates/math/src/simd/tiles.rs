//! Many sums of products of the same values, run by run: the inner loop of linear layers.
//!
//! Sums name their values and weights by number and place, so that one list of them serves every run of a polynomial, both parts
//! of a ciphertext and every limb. A sum takes one weight of each of its products before it goes on to the next values, so
//! weights lie in that order: vectors stored one after the other would ask for a cache line a product, all in few sets.

use super::{Term, Weights};

/// Values that all sums take before the next ones: log2.
pub const LOG_UNIT: u32 = 6;

/// Values of a run that are summed before the next ones where there are so many runs. Runs should lie a multiple of the first-level
/// cache's size of one way and so many words apart, or they want the same few lines.
#[must_use]
pub const fn tile_block(runs: usize) -> usize {
    match runs {
        0..=64 => 64,
        65..=128 => 32,
        _ => 16,
    }
}

/// Products of a sum whose weights are shared by as many neighbours.
///
/// Where v is the number of products and u that of weights that one of them has in a unit (2^[`LOG_UNIT`] values, or all
/// where there are fewer; at least 1), weights are stored as rows of v·u: those of the first product, of the second and so on.
/// Units whose weights are the same share a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TileProducts {
    /// Neighbours that share a weight, as power of two.
    pub log_block: u32,
    /// Where the weights begin among all weights.
    pub weights: usize,
    /// Which of the runs of values each product takes.
    pub values: Vec<u32>,
}

impl TileProducts {
    /// Length of a row, and the number of the one that serves position `at` of polynomials of at least `unit` values.
    pub(super) fn row(&self, at: usize, log_unit: u32) -> (usize, usize) {
        let each = 1 << log_unit.saturating_sub(self.log_block);
        (self.values.len() * each, at >> self.log_block.max(log_unit))
    }

    /// Stores weight vectors, as long as each other, one after the other in `vectors`, as those of the products from number
    /// `first` on; `weights` are all of these products'.
    pub fn set(&self, weights: &mut [u64], vectors: &[u64], len: usize, first: usize) {
        debug_assert_eq!(weights.len(), self.values.len() * len);
        let unit = (1 << LOG_UNIT.saturating_sub(self.log_block)).min(len);
        let row = self.values.len() * unit;
        let count = vectors.len() / len;
        for (r, row) in weights.chunks_exact_mut(row).enumerate() {
            let own = &mut row[first * unit..(first + count) * unit];
            if unit == 1 {
                for (v, own) in own.iter_mut().enumerate() {
                    *own = vectors[v * len + r];
                }
                continue;
            }
            for (v, own) in own.chunks_exact_mut(unit).enumerate() {
                own.copy_from_slice(&vectors[v * len + r * unit..][..unit]);
            }
        }
    }
}

/// What many sums read: their runs start at position `start` of polynomials, a multiple of the length that they all have.
#[derive(Debug, Clone, Copy)]
pub struct Tiles<'a> {
    /// `values[k]` begins with the values of run k.
    pub values: &'a [&'a [u64]],
    /// All weights.
    pub weights: &'a [u64],
    /// Where the runs start.
    pub start: usize,
}

/// A run of one sum.
#[derive(Debug)]
pub struct TileSum<'a> {
    /// Where it goes; the length is a power of two.
    pub out: &'a mut [u64],
    /// What is summed.
    pub products: &'a [TileProducts],
    /// Whether it is added to what `out` holds, residues, instead of replacing it.
    pub add: bool,
}

/// Every sum by sums of terms, one after the other.
pub(super) fn by_terms(
    sums: &mut [TileSum<'_>],
    Tiles { values, weights, start }: Tiles<'_>,
    dot: impl Fn(&mut [u64], &[Term<'_>]),
) {
    for sum in sums {
        let len = sum.out.len();
        let before = if sum.add { sum.out.to_vec() } else { Vec::new() };
        let log_unit = len.ilog2().min(LOG_UNIT);
        // One vector a product, whole blocks of the run.
        let mut vectors = Vec::new();
        for products in sum.products {
            for k in 0..products.values.len() {
                let mut vector = Vec::with_capacity((len >> products.log_block).max(1));
                for at in (start..start + len).step_by(1 << products.log_block.max(log_unit)) {
                    let (row, index) = products.row(at, log_unit);
                    let each = row / products.values.len();
                    let first = products.weights + index * row + k * each;
                    vector.extend_from_slice(&weights[first..first + each]);
                }
                vectors.push((products.values[k], vector));
            }
        }
        let mut terms: Vec<Term<'_>> = vectors
            .iter()
            .map(|(run, weights)| {
                let full = weights.len() == len;
                let weights = if full { Weights::Full(weights) } else { Weights::Blocks(weights) };
                Term { values: &values[*run as usize][..len], weights }
            })
            .collect();
        if sum.add {
            terms.push(Term { values: &before, weights: Weights::Blocks(&[1]) });
        }
        dot(sum.out, &terms);
    }
}
