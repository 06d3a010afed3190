//! The encrypted mode: CKKS ciphertexts and the evaluation keys, no secret key.

use std::sync::Arc;

use polyveil_ckks::{
    Ciphertext, CkksError, EncodedWeights, Encoder, EvaluationKeys, Evaluator, GiantStep, IntegerPlaintext,
    Parameters, RotatedProduct, par,
};

use crate::backend::{Backend, GiantSum, WeightedRotations, Weights};

/// Runs on ciphertexts.
pub struct Encrypted {
    evaluator: Evaluator,
    encoder: Encoder,
}

impl Encrypted {
    /// A backend with the keys of one data owner.
    ///
    /// # Errors
    /// Where the keys were made with other parameters.
    pub fn new(parameters: &Parameters, keys: Arc<EvaluationKeys>) -> Result<Self, CkksError> {
        Ok(Self { evaluator: Evaluator::with_keys(parameters, keys)?, encoder: Encoder::new(parameters) })
    }

    fn encode(&self, period: &[f64], level: usize, scale: f64) -> Result<EncodedWeights, CkksError> {
        let slots = self.evaluator.params().slots();
        if period.len() == slots {
            return Ok(EncodedWeights::Full(self.encoder.encode(period, level, scale)?));
        }
        let periodic = self.encoder.encode_periodic(period, level, scale)?;
        // Blocks shorter than a vector register gain nothing over one weight a value.
        if slots / period.len() < SHORT_BLOCK {
            return Ok(EncodedWeights::Full(periodic.to_full(self.evaluator.params())?));
        }
        Ok(EncodedWeights::Periodic(periodic))
    }
}

impl Encrypted {
    /// The weights of all products, in order.
    fn integers<'g, 'a: 'g>(
        &self,
        giants: impl Iterator<Item = &'g GiantSum<'a>>,
    ) -> Result<Vec<IntegerPlaintext>, CkksError> {
        let products: Vec<_> = giants.flat_map(|giant| &giant.products).collect();
        par::try_map(products, |(_, weights)| {
            let weights = weights();
            self.encoder.encode_integer(&weights.period, weights.scale)
        })
    }

    fn transform(
        &self,
        request: &WeightedRotations<'_, Ciphertext>,
        outputs: &[Vec<GiantSum<'_>>],
    ) -> Result<Vec<Option<Ciphertext>>, CkksError> {
        let weights = self.integers(outputs.iter().flatten())?;
        let mut weights = weights.iter();
        let mut giant = |giant: &GiantSum<'_>| GiantStep {
            rotation: giant.rotation,
            products: giant
                .products
                .iter()
                .zip(&mut weights)
                .map(|((baby, _), weights)| {
                    let (input, rotation) = request.babies[*baby];
                    RotatedProduct { input, rotation, weights }
                })
                .collect(),
        };
        let steps: Vec<Vec<GiantStep<'_>>> = outputs
            .iter()
            .filter(|output| !output.is_empty())
            .map(|output| output.iter().map(&mut giant).collect())
            .collect();
        let inputs: Vec<&Ciphertext> = request.inputs.iter().collect();
        let mut results =
            self.evaluator.linear_transform(&inputs, &steps, request.rescale.is_some())?.into_iter();
        outputs
            .iter()
            .map(|output| match (output.is_empty(), request.rescale) {
                (true, _) => Ok(None),
                (false, None) => Ok(results.next()),
                (false, Some(scale)) => {
                    results.next().map(|mut x| declare(&mut x, scale).map(|()| x)).transpose()
                }
            })
            .collect()
    }
}

/// Numbers in weight vectors that are encoded together where sums are double hoisted: bounds memory. Every batch rotates the
/// inputs once more.
const BATCH: usize = 16 << 20;
/// As many where nothing is rotated: another batch then costs little.
const STILL_BATCH: usize = 2 << 20;

/// How many outputs, of so many numbers each, are done together, at least one.
fn batch(outputs: impl Iterator<Item = usize>, most: usize) -> usize {
    let mut numbers = 0;
    let fits = |own: &usize| {
        numbers += own;
        numbers <= most
    };
    outputs.take_while(fits).count().max(1)
}

/// Shortest block of equal weights that is multiplied as a block.
const SHORT_BLOCK: usize = 16;
/// How many weight plaintexts are encoded before they are used: bounds memory, keeps the
/// multiply-accumulate long.
const CHUNK: usize = 16;

impl Backend for Encrypted {
    type Cipher = Ciphertext;

    fn drop_to(&self, x: &Self::Cipher, level: usize) -> Result<Self::Cipher, CkksError> {
        let mut x = x.clone();
        self.evaluator.drop_to_level(&mut x, level)?;
        Ok(x)
    }

    fn rotate_many(&self, x: &Self::Cipher, rotations: &[usize]) -> Result<Vec<Self::Cipher>, CkksError> {
        self.evaluator.rotate_hoisted(x, rotations)
    }

    fn weighted_sum(&self, products: &[(&Self::Cipher, Weights)]) -> Result<Self::Cipher, CkksError> {
        let mut total: Option<Ciphertext> = None;
        for chunk in products.chunks(CHUNK) {
            let encoded: Vec<EncodedWeights> = chunk
                .iter()
                .map(|(x, w)| self.encode(&w.period, x.level(), w.scale))
                .collect::<Result<_, _>>()?;
            let terms: Vec<(&Ciphertext, &EncodedWeights)> =
                chunk.iter().map(|(x, _)| *x).zip(&encoded).collect();
            let part = self.evaluator.linear_combination(&terms)?;
            match &mut total {
                Some(total) => self.evaluator.add_assign(total, &part)?,
                empty => *empty = Some(part),
            }
        }
        total.ok_or(CkksError::NoTerms)
    }

    fn weighted_sums(
        &self,
        inputs: &[Self::Cipher],
        sums: &[&GiantSum<'_>],
    ) -> Result<Vec<Self::Cipher>, CkksError> {
        let inputs: Vec<&Ciphertext> = inputs.iter().collect();
        let mut results = Vec::with_capacity(sums.len());
        let mut rest = sums;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(batch(rest.iter().map(|giant| giant.numbers), STILL_BATCH));
            let weights = self.integers(now.iter().copied())?;
            let mut weights = weights.iter();
            let still = |giant: &&GiantSum<'_>| {
                let products = giant.products.iter().zip(&mut weights);
                let product = |((input, _), weights): (&(usize, _), _)| RotatedProduct {
                    input: *input,
                    rotation: 0,
                    weights,
                };
                vec![GiantStep { rotation: 0, products: products.map(product).collect() }]
            };
            let steps: Vec<Vec<GiantStep<'_>>> = now.iter().map(still).collect();
            results.extend(self.evaluator.linear_transform(&inputs, &steps, false)?);
            rest = later;
        }
        Ok(results)
    }

    fn weighted_rotations(
        &self,
        request: &WeightedRotations<'_, Self::Cipher>,
    ) -> Result<Vec<Option<Self::Cipher>>, CkksError> {
        if !request.double_hoisted {
            return crate::linear::step_by_step(self, request);
        }
        let mut results = Vec::with_capacity(request.outputs.len());
        let mut rest = request.outputs;
        while !rest.is_empty() {
            let numbers = |output: &Vec<GiantSum<'_>>| output.iter().map(|giant| giant.numbers).sum();
            let (batch, later) = rest.split_at(batch(rest.iter().map(numbers), BATCH));
            results.extend(self.transform(request, batch)?);
            rest = later;
        }
        Ok(results)
    }

    fn sum(&self, terms: &[&Self::Cipher]) -> Result<Self::Cipher, CkksError> {
        let (first, rest) = terms.split_first().ok_or(CkksError::NoTerms)?;
        let mut total = (*first).clone();
        for x in rest {
            self.evaluator.add_assign(&mut total, x)?;
        }
        Ok(total)
    }

    fn add_assign(&self, x: &mut Self::Cipher, y: &Self::Cipher) -> Result<(), CkksError> {
        self.evaluator.add_assign(x, y)
    }

    fn mask(&self, x: &Self::Cipher, mask: &[f64], scale: f64) -> Result<Self::Cipher, CkksError> {
        match self.encode(mask, x.level(), scale)? {
            EncodedWeights::Full(mask) => self.evaluator.mul_plain(x, &mask),
            EncodedWeights::Periodic(mask) => self.evaluator.mul_periodic(x, &mask),
        }
    }

    fn rescale(&self, x: &Self::Cipher, scale: f64) -> Result<Self::Cipher, CkksError> {
        let mut x = self.evaluator.rescale(x)?;
        declare(&mut x, scale)?;
        Ok(x)
    }

    fn constant(&self, mut x: Self::Cipher, factor: f64, scale: f64) -> Result<Self::Cipher, CkksError> {
        let by_factor = x.scale() / factor;
        x.set_scale(by_factor)?;
        declare(&mut x, scale)?;
        Ok(x)
    }

    fn add_slots(&self, x: &Self::Cipher, slots: &[f64]) -> Result<Self::Cipher, CkksError> {
        let mut x = x.clone();
        match self.encode(slots, x.level(), x.scale())? {
            EncodedWeights::Full(slots) => self.evaluator.add_plain(&mut x, &slots)?,
            EncodedWeights::Periodic(slots) => self.evaluator.add_periodic(&mut x, &slots)?,
        }
        Ok(x)
    }

    fn square(&self, x: &Self::Cipher, scale: f64) -> Result<Self::Cipher, CkksError> {
        let mut x = self.evaluator.relinearize_rescale(&self.evaluator.square_lazy(x)?)?;
        declare(&mut x, scale)?;
        Ok(x)
    }
}

/// Replaces a computed scale by the plan's, which it must equal up to rounding of the bookkeeping.
fn declare(x: &mut Ciphertext, scale: f64) -> Result<(), CkksError> {
    let found = x.scale();
    if (found / scale - 1.0).abs() > 1e-9 {
        return Err(CkksError::ScaleMismatch { left: found, right: scale });
    }
    x.set_scale(scale)
}
