//! The encrypted mode: CKKS ciphertexts and the evaluation keys, no secret key.

use std::sync::Arc;

use polyveil_ckks::{Ciphertext, CkksError, EncodedWeights, Encoder, EvaluationKeys, Evaluator, Parameters};

use crate::backend::{Backend, Weights};

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
        let mask = self.encoder.encode(mask, x.level(), scale)?;
        self.evaluator.mul_plain(x, &mask)
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
        let plain = self.encoder.encode(slots, x.level(), x.scale())?;
        let mut x = x.clone();
        self.evaluator.add_plain(&mut x, &plain)?;
        Ok(x)
    }

    fn square(&self, x: &Self::Cipher, scale: f64) -> Result<Self::Cipher, CkksError> {
        let squared = self.evaluator.square(x)?;
        self.rescale(&squared, scale)
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
