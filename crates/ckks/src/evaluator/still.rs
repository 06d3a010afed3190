//! Linear transforms that rotate nothing: sums of products of ciphertexts with weights, many sums of the same ciphertexts.
//!
//! A ciphertext is read from memory once for many sums: tile by tile, all ciphertexts' tiles stay in a cache while every sum takes
//! what it needs of them. Weights are encoded on the way. Without that, each sum would stream all its ciphertexts through memory,
//! which takes several times as long as the products.

use super::Evaluator;
use super::keyswitch::with_tiles;
use super::transform::{Sum, Turn, terms};
use crate::ciphertext::Ciphertext;
use crate::par;
use polyveil_math::buffer::Buffer;
use polyveil_math::{Ntt, Poly, simd};

/// Words of all tiles, and bounds of one.
const TILE_WORDS: usize = 64 << 10;
const TILE: (usize, usize) = (128, 4096);
/// Words of encoded weights, and of sums before they are rescaled, that are in memory together.
const WEIGHT_WORDS: usize = 4 << 20;
const SUM_WORDS: usize = 32 << 20;
/// Parts of a limb that are worked on by themselves, so that threads have alike shares of few limbs.
const SHARES: usize = 4;

/// Whether every output is a single sum and nothing is rotated.
pub(super) fn is_still(turns: &[Turn<'_>], plan: &[Vec<Sum<'_>>]) -> bool {
    turns.iter().all(|t| t.switch.is_none())
        && plan.iter().all(|output| matches!(output.as_slice(), [Sum { rotation: None, .. }]))
}

/// Part of one limb of both parts of every sum.
struct Share<'a> {
    limb: usize,
    start: usize,
    out: Vec<&'a mut [u64]>,
}

impl Evaluator {
    /// Both parts of every sum, rescaled where asked for. Products: two a term and limb; transforms: the weights' own.
    pub(super) fn still_sums(
        &self,
        inputs: &[&Ciphertext],
        turns: &[Turn<'_>],
        sums: &[&Sum<'_>],
        rescale: bool,
    ) -> Vec<[Poly<Ntt>; 2]> {
        let (n, level) = (self.params.degree(), inputs.first().map_or(0, |x| x.level()));
        let mut results = Vec::with_capacity(sums.len());
        let mut rest = sums;
        while !rest.is_empty() {
            let (mut weights, mut words) = (0, 0);
            let fits = |sum: &&&Sum<'_>| {
                weights += sum.weights() * (level + 1);
                words += 2 * n * (level + 1);
                weights <= WEIGHT_WORDS && words <= SUM_WORDS
            };
            let (round, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
            let weights = par::map(level + 1, |i| {
                self.encode_limb(round.iter().flat_map(|sum| &sum.products), i, level)
            });
            let mut polys: Vec<Poly<Ntt>> =
                (0..2 * round.len()).map(|_| Poly::unspecified(n, level + 1)).collect();
            par::for_each(shares(&mut polys, n), |share| {
                self.fill_share(inputs, turns, round, &weights[share.limb], share);
            });
            if rescale {
                polys = par::map(polys.len(), |k| self.rescale_poly(&polys[k]));
            }
            let mut polys = polys.into_iter();
            results.extend(std::iter::from_fn(|| Some([polys.next()?, polys.next()?])));
            rest = later;
        }
        results
    }

    fn fill_share(
        &self,
        inputs: &[&Ciphertext],
        turns: &[Turn<'_>],
        sums: &[&Sum<'_>],
        weights: &Buffer,
        share: Share<'_>,
    ) {
        let Share { limb, start: first, mut out } = share;
        let n = self.params.degree();
        let length = out.first().map_or(0, |out| out.len());
        let tile = (TILE_WORDS / turns.len().max(1)).next_power_of_two().clamp(TILE.0, TILE.1);
        let tile = tile.min(length.max(1));
        let modulus = self.params.extended_table(limb, inputs.first().map_or(0, |x| x.level())).modulus();
        with_tiles(turns.len() * tile, |tiles| {
            // One part after the other: of tiles half as many, twice as long.
            for (part, start) in
                (0..2).flat_map(|part| (0..length).step_by(tile).map(move |start| (part, start)))
            {
                for (turn, tile) in turns.iter().zip(tiles.chunks_exact_mut(tile)) {
                    let values = inputs[turn.input].parts[part].limb(limb);
                    tile.copy_from_slice(&values[first + start..][..tile.len()]);
                }
                let mut rest = &weights[..];
                for (sum, out) in sums.iter().zip(out.chunks_exact_mut(2)) {
                    let (own, later) = rest.split_at(sum.weights());
                    rest = later;
                    let terms = terms(&sum.products, own, tiles, |turn| turn, (n, first + start, tile));
                    simd::dot(&mut out[part][start..start + tile], &terms, modulus);
                }
            }
        });
    }
}

/// All limbs of the polynomials, in shares.
fn shares(polys: &mut [Poly<Ntt>], n: usize) -> Vec<Share<'_>> {
    let length = (n / SHARES).max(1);
    let mut shares: Vec<Share<'_>> = Vec::new();
    for poly in polys {
        for (k, out) in poly.raw_mut().chunks_exact_mut(length).enumerate() {
            if shares.len() <= k {
                let (limb, start) = (k * length / n, k * length % n);
                shares.push(Share { limb, start, out: Vec::new() });
            }
            shares[k].out.push(out);
        }
    }
    shares
}
