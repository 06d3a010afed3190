//! Linear transforms with baby steps and giant steps (Halevi, Shoup, Crypto 2018) and double hoisting (Bossuat et al.,
//! Eurocrypt 2021, section 5).
//!
//! output = Σ_g rotate(Σ_b rotate(input_b, r_b) ⊙ w_b, r_g). The inner sums are formed modulo Q·P, limb by limb and tile by
//! tile, so rotated inputs are never in memory as a whole and never divided by P; the outer sum is formed modulo Q·P too.
//! Weights are encoded on the way, one limb at a time, so that they take one integer a coefficient.
//!
//! Transforms, with k special primes and d digits at l limbs: l + d·(l + k) − l an input that is rotated,
//! as many and l + k a giant step, 2·(l + k) an output, however many baby steps there are. Where nothing is rotated at all
//! (`still.rs`) sums stay modulo Q.

use super::keyswitch::{Added, Digits, Products, Switch, extended_limbs, with_tiles};
use super::still::{SHARES, is_still};
use super::sums::{Lists, Product, store_alike};
use super::{Evaluator, same_scale, two_parts};
use crate::ciphertext::Ciphertext;
use crate::error::CkksError;
use crate::keys::SwitchingKey;
use crate::par;
use crate::plaintext::IntegerPlaintext;
use polyveil_math::buffer::{self, Buffer};
use polyveil_math::simd::{self, Tiles};
use polyveil_math::{GaloisPermutation, Ntt, Poly};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Words of one limb's encoded weights, a thread, and of all inner sums that may be in memory together: outputs beyond them
/// make another round, which extends the digits again.
const WEIGHT_WORDS: usize = 16 << 20;
const SUM_WORDS: usize = 192 << 20;
/// Words of all rotated tiles of one part: every sum reads them again, so they should stay in the second-level cache.
const TILE_WORDS: usize = 64 << 10;
/// Weights of more words than this, of one limb, are encoded a group of products at a time, once the rotated inputs are
/// there as a whole: they would come back from memory for every tile. That needs room for at most so many words a thread.
const HEAVY_WORDS: usize = 4 << 20;
const ROTATED_WORDS: usize = 16 << 20;
/// Bounds of a tile: the multiply-accumulate kernel's block, and what keeps the digits' tiles in the second-level cache.
/// Long tiles matter, as keys are streamed from memory.
const TILE: (usize, usize) = (64, 4096);

/// `rotate(inputs[input], rotation) ⊙ weights`.
#[derive(Debug, Clone, Copy)]
pub struct RotatedProduct<'a> {
    /// Which input.
    pub input: usize,
    /// Rotation to the left.
    pub rotation: usize,
    /// One period of weights.
    pub weights: &'a IntegerPlaintext,
}

/// A sum of products, to be rotated.
#[derive(Debug, Clone)]
pub struct GiantStep<'a> {
    /// Rotation of the sum to the left.
    pub rotation: usize,
    /// The products.
    pub products: Vec<RotatedProduct<'a>>,
}

/// A distinct rotation of an input.
pub(super) struct Turn<'a> {
    pub(super) input: usize,
    /// `None` for rotation 0.
    pub(super) switch: Option<(&'a SwitchingKey, Cow<'a, GaloisPermutation>)>,
}

/// A giant step with its products, those with the fewest stored weights first, then by turn.
pub(super) struct Sum<'a> {
    pub(super) rotation: Option<(usize, &'a SwitchingKey)>,
    pub(super) products: Vec<Product<'a>>,
}

/// How many of the leading outputs of a transform are summed in one round, at least one: each has so many giant steps and so
/// many weights, and a sum takes `sum_words`. Every round rotates the inputs once more.
#[must_use]
pub fn transform_round(outputs: impl IntoIterator<Item = (usize, usize)>, sum_words: usize) -> usize {
    let (mut sums, mut weights) = (0, 0);
    let fits = |&(giants, numbers): &(usize, usize)| {
        sums += giants * sum_words;
        weights += numbers;
        sums <= SUM_WORDS && weights <= WEIGHT_WORDS
    };
    outputs.into_iter().take_while(fits).count().max(1)
}

/// Whether a round with so many rotations of inputs and words of weights keeps whole rotated limbs, on every thread, and encodes a
/// group of weights at a time, instead of keeping all encoded weights of a limb and rotating tile by tile.
#[must_use]
pub fn transform_is_heavy(turns: usize, weights: usize, degree: usize) -> bool {
    weights > HEAVY_WORDS && 2 * turns * degree <= ROTATED_WORDS
}

impl Evaluator {
    /// One ciphertext per output. All inputs share level and key and have two parts; the products of an output share one
    /// scale, which the output has. With `rescale` the output is divided by the last prime on the way, one level down.
    /// All keys are checked before any work starts.
    ///
    /// # Errors
    /// [`CkksError::NoTerms`] for an output without products or a product without input, and those of
    /// [`Evaluator::rotate`], [`Evaluator::linear_combination`] and [`Evaluator::rescale`].
    pub fn linear_transform(
        &self,
        inputs: &[&Ciphertext],
        outputs: &[Vec<GiantStep<'_>>],
        rescale: bool,
    ) -> Result<Vec<Ciphertext>, CkksError> {
        let first = *inputs.first().ok_or(CkksError::NoTerms)?;
        for input in inputs {
            self.check_pair(first, input)?;
            two_parts(input)?;
        }
        let scales = outputs
            .iter()
            .map(|output| self.output_scale(inputs, output, rescale))
            .collect::<Result<Vec<f64>, _>>()?;
        let (turns, plan) = self.turns(outputs, first.level())?;
        let finish = |(parts, scale): ([Poly<Ntt>; 2], f64)| Ciphertext {
            key_id: first.key_id,
            scale,
            parts: parts.into_iter().collect(),
            level: first.level - usize::from(rescale),
        };
        if is_still(&turns, &plan) {
            let sums: Vec<&Sum<'_>> = plan.iter().flatten().collect();
            let results = self.still_sums(inputs, &turns, &sums, rescale);
            return Ok(results.into_iter().zip(scales).map(finish).collect());
        }
        let rotating: Vec<usize> =
            (0..inputs.len()).filter(|&i| turns.iter().any(|t| t.input == i && t.switch.is_some())).collect();
        let digits =
            par::map(rotating.len(), |i| self.prepare_digits(&inputs[rotating[i]].parts[1], first.level));
        let digits: BTreeMap<usize, Digits> = rotating.into_iter().zip(digits).collect();

        let mut results = Vec::with_capacity(outputs.len());
        let mut rest = plan.as_slice();
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(self.batch(rest, first.level()));
            let sums: Vec<&Sum<'_>> = batch.iter().flatten().collect();
            let inner = self.inner_sums(inputs, &digits, &turns, &sums);
            let starts: Vec<usize> = batch
                .iter()
                .scan(0, |next, output| {
                    *next += output.len();
                    Some(*next - output.len())
                })
                .collect();
            results.extend(par::map(batch.len(), |o| self.outer_sum(&inner, starts[o], &batch[o], rescale)));
            rest = later;
        }
        Ok(results.into_iter().zip(scales).map(finish).collect())
    }

    fn output_scale(
        &self,
        inputs: &[&Ciphertext],
        output: &[GiantStep<'_>],
        rescale: bool,
    ) -> Result<f64, CkksError> {
        let mut scale = None;
        for product in output.iter().flat_map(|giant| &giant.products) {
            let input = inputs.get(product.input).ok_or(CkksError::NoTerms)?;
            let expected = self.params.degree();
            if product.weights.coefficients().len() > expected {
                let found = product.weights.coefficients().len();
                return Err(polyveil_math::MathError::Length { expected, found }.into());
            }
            let found = input.scale * product.weights.scale();
            same_scale(*scale.get_or_insert(found), found)?;
            self.check_product_scale(found, input.level())?;
        }
        let scale = scale.ok_or(CkksError::NoTerms)?;
        if output.iter().any(|giant| giant.products.is_empty()) {
            return Err(CkksError::NoTerms);
        }
        if rescale { self.rescaled(scale, inputs[0].level()) } else { Ok(scale) }
    }

    /// The distinct rotations of inputs, and the giant steps in terms of them.
    fn turns<'a>(
        &'a self,
        outputs: &[Vec<GiantStep<'a>>],
        level: usize,
    ) -> Result<(Vec<Turn<'a>>, Vec<Vec<Sum<'a>>>), CkksError> {
        let slots = self.params.slots();
        let mut turns = Vec::new();
        let mut index: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        let mut plan = Vec::with_capacity(outputs.len());
        for output in outputs {
            let mut sums = Vec::with_capacity(output.len());
            for giant in output {
                let mut products = Vec::with_capacity(giant.products.len());
                for product in &giant.products {
                    let place = (product.input, product.rotation % slots);
                    let turn = match index.get(&place) {
                        Some(&turn) => turn,
                        None => {
                            let key = self.rotation_key(place.1, level)?;
                            let switch = key.map(|(rotation, key)| (key, self.permutation(rotation)));
                            turns.push(Turn { input: place.0, switch });
                            index.insert(place, turns.len() - 1);
                            turns.len() - 1
                        }
                    };
                    products.push(Product::new(turn, product.weights));
                }
                sums.push(Sum { rotation: self.rotation_key(giant.rotation, level)?, products });
            }
            plan.push(sums);
        }
        store_alike(plan.iter_mut().flatten().map(|sum| &mut sum.products[..]), self.params.degree());
        Ok((turns, plan))
    }

    /// How many of the outputs are done together: at least one, as many as memory is meant for.
    fn batch(&self, outputs: &[Vec<Sum<'_>>], level: usize) -> usize {
        let sum_words = 2 * extended_limbs(&self.params, level) * self.params.degree();
        let size = |output: &Vec<Sum<'_>>| (output.len(), output.iter().map(Sum::weights).sum());
        transform_round(outputs.iter().map(size), sum_words)
    }

    fn inner_sums(
        &self,
        inputs: &[&Ciphertext],
        digits: &BTreeMap<usize, Digits>,
        turns: &[Turn<'_>],
        sums: &[&Sum<'_>],
    ) -> Products {
        let (params, level) = (&self.params, inputs[0].level());
        let n = params.degree();
        let count = params.digits(level) * n;
        let polys: Vec<(&Poly<Ntt>, &Digits)> =
            digits.iter().map(|(&i, digits)| (&inputs[i].parts[1], digits)).collect();
        let place: BTreeMap<usize, usize> = digits.keys().enumerate().map(|(k, &input)| (input, k)).collect();
        let heavy = transform_is_heavy(turns.len(), sums.iter().map(|sum| sum.weights()).sum(), n);
        let tile = match heavy {
            true => n,
            false => tile_words(turns.len()).min(n),
        };
        // Neighbouring runs of one part lie a little more than a power of two apart, or they would all want the same few lines of
        // the first-level cache.
        let (run, scratch) =
            (2 * tile + simd::tile_block(turns.len()), 2 * (params.digits(level) + 1) * tile);
        let lists = if heavy { Lists::default() } else { Lists::new(sums, n) };
        // Few limbs do not divide evenly among threads: each is divided as well.
        let few = par::few(extended_limbs(params, level));
        let length = if few { (n / SHARES).max(tile) } else { n };
        let mut products = Products::unspecified(params, level, sums.len());
        self.with_digits(&polys, &mut products, |i, digits, out| {
            let modulus = params.table(i, level).modulus();
            let rotate = |start: usize, scratch: &mut [u64], rotated: &mut [u64]| {
                for (turn, out) in turns.iter().zip(rotated.chunks_exact_mut(run)) {
                    let (first, second) = out[..2 * tile].split_at_mut(tile);
                    let (input, out) = (inputs[turn.input], [first, second]);
                    let Some((key, permutation)) = &turn.switch else {
                        self.lift(input, (i, level), start, out);
                        continue;
                    };
                    let add = [Added::Lifted(&input.parts[0]), Added::Nothing];
                    let switch = Switch { key, permutation: Some(permutation), add };
                    let digits = &digits[place[&turn.input] * count..][..count];
                    self.multiply(&switch, (i, level), (digits, start..start + tile), scratch, out, false);
                }
            };
            if heavy {
                let mut memory = buffer::take(scratch + turns.len() * run);
                let (scratch, rotated) = memory.split_at_mut(scratch);
                rotate(0, scratch, rotated);
                let values = [0, 1].map(|part| parts(rotated, run, part, tile));
                for (sum, out) in sums.iter().zip(out.chunks_exact_mut(2)) {
                    let [first, second] = out else { continue };
                    self.heavy_sum(sum, &values, (i, level), [first, second]);
                }
                return;
            }
            let products = sums.iter().map(|sum| &sum.products[..]);
            let weights = self.encode_limb(products, &lists.products, (i, level), few);
            let share = |(first, mut outs): (usize, Vec<[&mut [u64]; 2]>)| {
                with_tiles(scratch + turns.len() * run, |memory| {
                    let (scratch, rotated) = memory.split_at_mut(scratch);
                    for start in (0..length).step_by(tile) {
                        rotate(first + start, scratch, rotated);
                        for part in 0..2 {
                            let values = parts(rotated, run, part, tile);
                            let outs = outs.iter_mut().map(|out| &mut out[part][start..start + tile]);
                            let tiles = Tiles { values: &values, weights: &weights, start: first + start };
                            simd::tile_sums(&mut lists.sums_into(outs), tiles, modulus);
                        }
                    }
                });
            };
            let shares = (0..).step_by(length).zip(shares(out, n, length));
            par::for_each(shares.collect::<Vec<_>>().into_iter(), share);
        });
        products
    }

    /// The values from `start` on of both parts of limb i, times P: rotation by 0.
    fn lift(&self, input: &Ciphertext, (i, level): (usize, usize), start: usize, out: [&mut [u64]; 2]) {
        if i >= self.params.limbs(level) {
            return out.into_iter().for_each(|out| out.fill(0));
        }
        let modulus = self.params.table(i, level).modulus();
        for (part, out) in input.parts.iter().zip(out) {
            let values = &part.limb(i)[start..start + out.len()];
            let p = self.params.p_residues()[self.params.extended_index(i, level)];
            simd::mul_blocks(out, values, &[p], modulus);
        }
    }

    /// Σ rotate(sum, giant), divided by P.
    fn outer_sum(&self, inner: &Products, start: usize, sums: &[Sum<'_>], rescale: bool) -> [Poly<Ntt>; 2] {
        if let [Sum { rotation: None, .. }] = sums {
            return par::both(|part| self.mod_down(inner, start, part, rescale));
        }
        let turning: Vec<_> =
            (start..).zip(sums).filter_map(|(index, sum)| Some((index, sum.rotation?))).collect();
        let switch = |total: Option<Products>, k: usize| {
            let (index, (rotation, key)) = turning[k];
            let add = [Added::Waiting(inner, index, 0), Added::Nothing];
            let permutation = self.permutation(rotation);
            let switch = Switch { key, permutation: Some(&permutation), add };
            self.switch(&self.mod_down(inner, index, 1, false), inner.level(), &switch, total)
        };
        let total = par::fold(turning.len(), switch, |mut total, other| {
            self.add_products(&mut total, &other, 0);
            total
        });
        let still = (start..).zip(sums).filter(|(_, sum)| sum.rotation.is_none()).map(|(index, _)| index);
        let mut total = total.unwrap_or_else(|| Products::zero(&self.params, inner.level(), 1));
        still.for_each(|index| self.add_products(&mut total, inner, index));
        par::both(|part| self.mod_down(&total, 0, part, rescale))
    }
}

/// Words of a tile of one part of a rotated input, of which there are so many.
fn tile_words(turns: usize) -> usize {
    let most = TILE_WORDS / turns.max(1);
    (most + 1).next_power_of_two().div_ceil(2).clamp(TILE.0, TILE.1)
}

impl Sum<'_> {
    /// Words of its encoded weights, one limb; stored they may take up to twice as many.
    pub(super) fn weights(&self) -> usize {
        self.products.iter().map(|product| product.weights.coefficients().len()).sum()
    }
}

/// Both parts of all outputs of a limb, `length` values after `length` values.
fn shares(outs: &mut [Buffer], n: usize, length: usize) -> Vec<Vec<[&mut [u64]; 2]>> {
    let mut shares: Vec<Vec<[&mut [u64]; 2]>> = (0..n / length).map(|_| Vec::new()).collect();
    for out in outs.chunks_exact_mut(2) {
        let [first, second] = out else { continue };
        let halves = first.chunks_exact_mut(length).zip(second.chunks_exact_mut(length));
        for (share, (first, second)) in shares.iter_mut().zip(halves) {
            share.push([first, second]);
        }
    }
    shares
}

/// One part of each run: its first or second `tile` values.
fn parts(runs: &[u64], run: usize, part: usize, tile: usize) -> Vec<&[u64]> {
    runs.chunks_exact(run).map(|run| &run[part * tile..][..tile]).collect()
}
