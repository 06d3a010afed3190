//! Linear transforms that rotate nothing: sums of products of ciphertexts with weights, many sums of the same ciphertexts.
//!
//! A ciphertext is read from memory once for many sums: tile by tile, all ciphertexts' tiles stay in a cache while every sum takes
//! what it needs of them. Weights are encoded on the way. Without that, each sum would stream all its ciphertexts through memory,
//! which takes several times as long as the products.

use super::Evaluator;
use super::keyswitch::with_tiles;
use super::sums::Lists;
use super::transform::{Sum, Turn};
use crate::ciphertext::Ciphertext;
use crate::par;
use polyveil_math::simd::{self, LOG_UNIT, Tiles};
use polyveil_math::{Ntt, Poly};

/// Words of all tiles, and bounds of one.
const TILE_WORDS: usize = 64 << 10;
const TILE: (usize, usize) = (128, 4096);
/// How many tiles before its use one is asked for.
const AHEAD: usize = 2;
/// Words of encoded weights, and of sums before they are rescaled, that are in memory together.
const WEIGHT_WORDS: usize = 4 << 20;
const SUM_WORDS: usize = 96 << 20;
/// So many sums at least that share the memory for weights, or each is done by itself.
const HEAVY: usize = 4;
/// Parts of a limb that are worked on by themselves, so that threads have alike shares of few limbs.
pub(super) const SHARES: usize = 4;

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
        let limbs = self.params.limbs(level);
        let mut results = Vec::with_capacity(sums.len());
        let mut rest = sums;
        while !rest.is_empty() {
            // Weights that fill the memory for them by themselves, one limb of them, are used at once instead.
            let heavy = |sum: &&&Sum<'_>| HEAVY * sum.weights() > WEIGHT_WORDS;
            let all_heavy = rest.first().is_some_and(|first| heavy(&first));
            let (mut weights, mut words) = (0, 0);
            let fits = |sum: &&&Sum<'_>| {
                weights += sum.weights();
                words += 2 * n * limbs;
                heavy(sum) == all_heavy && (all_heavy || weights <= WEIGHT_WORDS) && words <= SUM_WORDS
            };
            let (round, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
            let mut polys: Vec<Poly<Ntt>> =
                (0..2 * round.len()).map(|_| Poly::unspecified(n, limbs)).collect();
            if all_heavy {
                self.heavy_sums(inputs, turns, round, &mut polys);
            } else {
                self.light_sums(inputs, turns, round, &mut polys);
            }
            if rescale {
                polys = par::map(polys.len(), |k| self.rescale_poly(&polys[k], level));
            }
            let mut polys = polys.into_iter();
            results.extend(std::iter::from_fn(|| Some([polys.next()?, polys.next()?])));
            rest = later;
        }
        results
    }

    /// Sums whose weights are many: a limb of a sum at a time, a few weights at a time.
    fn heavy_sums(
        &self,
        inputs: &[&Ciphertext],
        turns: &[Turn<'_>],
        sums: &[&Sum<'_>],
        polys: &mut [Poly<Ntt>],
    ) {
        let level = inputs.first().map_or(0, |x| x.level());
        let mut tasks = Vec::with_capacity(sums.len() * self.params.limbs(level));
        for (sum, pair) in sums.iter().zip(polys.chunks_exact_mut(2)) {
            let [first, second] = pair else { continue };
            let limbs = first.limbs_mut().iter_mut().zip(second.limbs_mut());
            tasks.extend(limbs.enumerate().map(|(i, (first, second))| (i, *sum, [&mut first[..], second])));
        }
        // Limb after limb, so that inputs come from an outer cache.
        tasks.sort_by_key(|task| task.0);
        par::for_each(tasks.into_iter(), |(i, sum, out)| {
            let of = |part: usize| turns.iter().map(|t| inputs[t.input].parts[part].limb(i)).collect();
            self.heavy_sum(sum, &[of(0), of(1)], (i, level), out);
        });
    }

    /// Sums whose weights are few: those of some limbs are encoded, as many as there is memory for, then every tile of these limbs of
    /// the inputs is read once for all sums.
    fn light_sums(
        &self,
        inputs: &[&Ciphertext],
        turns: &[Turn<'_>],
        sums: &[&Sum<'_>],
        polys: &mut [Poly<Ntt>],
    ) {
        let (n, level) = (self.params.degree(), inputs.first().map_or(0, |x| x.level()));
        let lists = Lists::new(sums, n);
        let limbs = self.params.limbs(level);
        let words: usize = sums.iter().map(|sum| sum.weights()).sum();
        let together = (WEIGHT_WORDS / words.max(1)).clamp(1, limbs);
        let mut shares = shares(polys, n).into_iter().peekable();
        for first in (0..limbs).step_by(together) {
            let count = together.min(limbs - first);
            let weights = par::map(count, |k| {
                let products = sums.iter().map(|sum| &sum.products[..]);
                self.encode_limb(products, &lists.products, (first + k, level), par::few(count))
            });
            let these: Vec<Share<'_>> =
                std::iter::from_fn(|| shares.next_if(|share| share.limb < first + count)).collect();
            par::for_each(these.into_iter(), |share| {
                let weights = &weights[share.limb - first];
                self.fill_share(inputs, turns, &lists, weights, share);
            });
        }
    }

    fn fill_share(
        &self,
        inputs: &[&Ciphertext],
        turns: &[Turn<'_>],
        lists: &Lists,
        weights: &[u64],
        share: Share<'_>,
    ) {
        let Share { limb, start: first, mut out } = share;
        let length = out.first().map_or(0, |out| out.len());
        let tile = (TILE_WORDS / turns.len().max(1)).next_power_of_two().clamp(TILE.0, TILE.1);
        let tile = tile.min(length.max(1));
        let run = tile + simd::tile_block(turns.len());
        let modulus = self.params.table(limb, inputs.first().map_or(0, |x| x.level())).modulus();
        // Looked up once, not for every tile.
        let sources = [0, 1].map(|part| {
            let of = |turn: &Turn<'_>| &inputs[turn.input].parts[part].limb(limb)[first..first + length];
            turns.iter().map(of).collect::<Vec<_>>()
        });
        with_tiles(turns.len() * run, |tiles| {
            // One part after the other: of tiles half as many, twice as long.
            for (part, start) in
                (0..2).flat_map(|part| (0..length).step_by(tile).map(move |start| (part, start)))
            {
                // Every tile is on a page of its own, too short for the processor to run ahead in it.
                let source = |k: usize| &sources[part][k][start..start + tile];
                for (k, run) in tiles.chunks_exact_mut(run).enumerate() {
                    if k + AHEAD < turns.len() {
                        simd::prefetch(source(k + AHEAD));
                    }
                    run[..tile].copy_from_slice(source(k));
                }
                let values: Vec<&[u64]> = tiles.chunks_exact(run).map(|run| &run[..tile]).collect();
                let outs = out.chunks_exact_mut(2).map(|out| &mut out[part][start..start + tile]);
                let tiles = Tiles { values: &values, weights, start: first + start };
                simd::tile_sums(&mut lists.sums_into(outs), tiles, modulus);
            }
        });
    }
}

/// All limbs of the polynomials, in shares of whole units of the kernel.
fn shares(polys: &mut [Poly<Ntt>], n: usize) -> Vec<Share<'_>> {
    let length = (n / SHARES).max(1 << LOG_UNIT).min(n);
    let mut shares: Vec<Share<'_>> = Vec::new();
    for poly in polys {
        let limbs = poly.limbs_mut().iter_mut();
        for (k, out) in limbs.flat_map(|limb| limb.chunks_exact_mut(length)).enumerate() {
            if shares.len() <= k {
                let (limb, start) = (k * length / n, k * length % n);
                shares.push(Share { limb, start, out: Vec::new() });
            }
            shares[k].out.push(out);
        }
    }
    shares
}
