//! Linear transforms with baby steps and giant steps (Halevi, Shoup, Crypto 2018) and double hoisting (Bossuat et al.,
//! Eurocrypt 2021, section 5).
//!
//! output = Σ_g rotate(Σ_b rotate(input_b, r_b) ⊙ w_b, r_g). The inner sums are formed modulo Q·P, limb by limb and tile by
//! tile, so rotated inputs are never in memory as a whole and never divided by P; the outer sum is formed modulo Q·P too.
//! Weights are encoded on the way, one limb at a time, so that they take one integer a coefficient.
//!
//! Transforms, with k special primes and d digits at ℓ + 1 limbs: ℓ + 1 + d·(ℓ + 1 + k) − (ℓ + 1) an input that is rotated,
//! as many and ℓ + 1 + k a giant step, 2·(ℓ + 1 + k) an output, however many baby steps there are. Where nothing is rotated at all
//! (`still.rs`) sums stay modulo Q.

use super::keyswitch::{Added, Digits, Products, Switch, with_tiles, with_vectors};
use super::still::is_still;
use super::{Evaluator, same_scale, two_parts};
use crate::ciphertext::Ciphertext;
use crate::error::CkksError;
use crate::keys::SwitchingKey;
use crate::par;
use crate::plaintext::IntegerPlaintext;
use polyveil_math::buffer::{self, Buffer};
use polyveil_math::simd::{self, TileProducts, TileSum};
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
/// Products of such a group.
const GROUP: usize = 4;
/// Vectors of weights whose blocks are shorter lie by themselves.
const LEAST_LOG_BLOCK: u32 = 3;
/// Vectors of weights that are encoded before they are put where the kernel wants them.
const TOGETHER: usize = 8;
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

/// A giant step with its products as (turn, weights), those with the fewest weights first.
pub(super) struct Sum<'a> {
    pub(super) rotation: Option<(usize, &'a SwitchingKey)>,
    pub(super) products: Vec<(usize, &'a IntegerPlaintext)>,
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
        };
        if is_still(&turns, &plan) {
            let sums: Vec<&Sum<'_>> = plan.iter().flatten().collect();
            let results = self.still_sums(inputs, &turns, &sums, rescale);
            return Ok(results.into_iter().zip(scales).map(finish).collect());
        }
        let rotating: Vec<usize> =
            (0..inputs.len()).filter(|&i| turns.iter().any(|t| t.input == i && t.switch.is_some())).collect();
        let digits = par::map(rotating.len(), |i| self.prepare_digits(&inputs[rotating[i]].parts[1]));
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
                    products.push((turn, product.weights));
                }
                products.sort_by_key(|(_, weights)| weights.coefficients().len());
                sums.push(Sum { rotation: self.rotation_key(giant.rotation, level)?, products });
            }
            plan.push(sums);
        }
        Ok((turns, plan))
    }

    /// How many of the outputs are done together: at least one, as many as memory is meant for.
    fn batch(&self, outputs: &[Vec<Sum<'_>>], level: usize) -> usize {
        let sum_words = 2 * (level + 1 + self.params.p().len()) * self.params.degree();
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
        self.with_digits(&polys, level, sums.len(), |i, digits, out| {
            let modulus = params.extended_table(i, level).modulus();
            let rotate = |start: usize, scratch: &mut [u64], rotated: &mut [u64]| {
                for (turn, out) in turns.iter().zip(rotated.chunks_exact_mut(run)) {
                    let (input, out) = (inputs[turn.input], &mut out[..2 * tile]);
                    let Some((key, permutation)) = &turn.switch else {
                        self.lift(input, (i, level), start, out);
                        continue;
                    };
                    let add = [Added::Lifted(&input.parts[0]), Added::Nothing];
                    let switch = Switch { key, permutation: Some(permutation), add };
                    let digits = &digits[place[&turn.input] * count..][..count];
                    self.multiply(&switch, (i, level), digits, start..start + tile, scratch, out);
                }
            };
            if heavy {
                let mut memory = buffer::take(scratch + turns.len() * run);
                let (scratch, rotated) = memory.split_at_mut(scratch);
                rotate(0, scratch, rotated);
                let values = [0, 1].map(|part| parts(rotated, run, part, tile));
                for (sum, out) in sums.iter().zip(out.chunks_exact_mut(2 * n)) {
                    let (first, second) = out.split_at_mut(n);
                    self.heavy_sum(sum, &values, (i, level), [first, second]);
                }
                return;
            }
            let weights =
                self.encode_limb(sums.iter().map(|sum| &sum.products[..]), &lists.products, (i, level));
            with_tiles(scratch + turns.len() * run, |memory| {
                let (scratch, rotated) = memory.split_at_mut(scratch);
                for start in (0..n).step_by(tile) {
                    rotate(start, scratch, rotated);
                    for part in 0..2 {
                        let values = parts(rotated, run, part, tile);
                        let outs =
                            out.chunks_exact_mut(2 * n).map(|out| &mut out[part * n + start..][..tile]);
                        simd::tile_sums(&mut lists.sums_into(outs), &values, &weights, start, modulus);
                    }
                }
            });
        })
    }

    /// Both parts of a sum at one limb, a few weights encoded at a time, so that they are used while they are in the second-level
    /// cache. `values` are whole limbs of each part, one a turn.
    pub(super) fn heavy_sum(
        &self,
        sum: &Sum<'_>,
        values: &[Vec<&[u64]>; 2],
        (i, level): (usize, usize),
        mut out: [&mut [u64]; 2],
    ) {
        let modulus = self.params.extended_table(i, level).modulus();
        for (index, group) in sum.products.chunks(GROUP).enumerate() {
            let lists = [list_products(group, self.params.degree(), &mut 0)];
            let weights = self.encode_limb([group].into_iter(), &lists, (i, level));
            for (values, out) in values.iter().zip(&mut out) {
                let sum = TileSum { out, products: &lists[0], add: index > 0 };
                simd::tile_sums(&mut [sum], values, &weights, 0, modulus);
            }
        }
    }

    /// The values from `start` on of both parts of limb i, times P: rotation by 0.
    fn lift(&self, input: &Ciphertext, (i, level): (usize, usize), start: usize, out: &mut [u64]) {
        if i > level {
            return out.fill(0);
        }
        let modulus = self.params.extended_table(i, level).modulus();
        let tile = out.len() / 2;
        for (part, out) in input.parts.iter().zip(out.chunks_exact_mut(tile)) {
            let values = &part.limb(i)[start..start + tile];
            simd::mul_blocks(out, values, &self.params.p_residues()[i..=i], modulus);
        }
    }

    /// The weights of the products of some sums modulo extended prime i, transformed, as `lists` say.
    pub(super) fn encode_limb<'p, 'a: 'p>(
        &self,
        sums: impl Iterator<Item = &'p [(usize, &'a IntegerPlaintext)]>,
        lists: &[Vec<TileProducts>],
        (i, level): (usize, usize),
    ) -> Buffer {
        let table = self.params.extended_table(i, level);
        let encode = |weights: &IntegerPlaintext, out: &mut [u64]| {
            simd::reduce_signed(out, weights.coefficients(), table.modulus());
            table.forward(out);
        };
        let words = |list: &TileProducts| list.values.len() * (self.params.degree() >> list.log_block);
        let mut data = buffer::take(lists.iter().flatten().map(words).sum());
        let mut rest = &mut data[..];
        for (mut products, lists) in sums.zip(lists) {
            for list in lists {
                let len = self.params.degree() >> list.log_block;
                let (own, later) = products.split_at(list.values.len());
                let (weights, more) = rest.split_at_mut(own.len() * len);
                (products, rest) = (later, more);
                if let [(_, only)] = own {
                    encode(only, weights);
                    continue;
                }
                with_vectors(TOGETHER * len, |vectors| {
                    for (first, some) in (0..).step_by(TOGETHER).zip(own.chunks(TOGETHER)) {
                        let vectors = &mut vectors[..some.len() * len];
                        for ((_, product), vector) in some.iter().zip(vectors.chunks_exact_mut(len)) {
                            encode(product, vector);
                        }
                        list.set(weights, vectors, len, first);
                    }
                });
            }
        }
        data
    }

    /// Σ rotate(sum, giant), divided by P.
    fn outer_sum(&self, inner: &Products, start: usize, sums: &[Sum<'_>], rescale: bool) -> [Poly<Ntt>; 2] {
        if let [Sum { rotation: None, .. }] = sums {
            return par::both(|part| self.mod_down(inner, start, part, rescale));
        }
        let mut total = None;
        for (index, sum) in (start..).zip(sums) {
            let Some((rotation, key)) = sum.rotation else {
                continue;
            };
            let add = [Added::Waiting(inner, index, 0), Added::Nothing];
            let permutation = self.permutation(rotation);
            let switch = Switch { key, permutation: Some(&permutation), add };
            let product = self.switch(&self.mod_down(inner, index, 1, false), &switch);
            match &mut total {
                None => total = Some(product),
                Some(total) => self.add_products(total, &product, 0),
            }
        }
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
    /// Words of its encoded weights, one limb.
    pub(super) fn weights(&self) -> usize {
        self.products.iter().map(|(_, weights)| weights.coefficients().len()).sum()
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
        let turns = |sum: usize| {
            sums[sum].products.iter().map(|&(turn, weights)| (weights.coefficients().len(), turn))
        };
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

/// Products in order of the length of their weights, which lie one after the other from `next` on.
fn list_products(products: &[(usize, &IntegerPlaintext)], n: usize, next: &mut usize) -> Vec<TileProducts> {
    let len = |product: &(usize, &IntegerPlaintext)| product.1.coefficients().len();
    let mut lists = Vec::new();
    for alike in products.chunk_by(|a, b| len(a) == len(b)) {
        let each = len(&alike[0]);
        let log_block = (n / each).ilog2();
        // Vectors of which much is read at a time may lie by themselves.
        let together = if log_block < LEAST_LOG_BLOCK { 1 } else { alike.len() };
        for some in alike.chunks(together) {
            let values = some.iter().map(|&(turn, _)| turn as u32).collect();
            lists.push(TileProducts { log_block, weights: *next, values });
            *next += some.len() * each;
        }
    }
    lists
}

/// One part of each run: its first or second `tile` values.
fn parts(runs: &[u64], run: usize, part: usize, tile: usize) -> Vec<&[u64]> {
    runs.chunks_exact(run).map(|run| &run[part * tile..][..tile]).collect()
}
