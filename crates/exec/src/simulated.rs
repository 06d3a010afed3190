//! The simulated mode: slots in the clear plus the noise that the engine's formulas predict.
//!
//! Every operation that adds noise on ciphertexts (fresh encryption, key switching, rounding of
//! encodings, rescaling) adds noise of the same standard deviation here, so that a whole test
//! split can be scored in seconds with errors like the encrypted ones. Values that a modulus does not hold wrap around as they do
//! there (in the standard ring without what that adds to imaginary parts).

use polyveil_ckks::{CkksError, Parameters, noise};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::backend::{Backend, Weights};
use crate::plain::{accumulate, rotated};

/// Simulates one run.
pub struct Simulated {
    parameters: Parameters,
    seed: u64,
}

/// Slots with the bookkeeping of a ciphertext.
#[derive(Clone, Debug)]
pub struct SimulatedCipher {
    /// Values with noise.
    pub slots: Vec<f64>,
    /// Level.
    pub level: usize,
    /// Scale.
    pub scale: f64,
}

impl Simulated {
    /// A simulation under `parameters`; the same seed and input give the same noise, whatever the threads do.
    #[must_use]
    pub fn new(parameters: &Parameters, seed: u64) -> Self {
        Self { parameters: parameters.clone(), seed }
    }

    /// What encrypting `slots` under the secret key yields.
    #[must_use]
    pub fn encrypt(&self, slots: &[f64], level: usize, scale: f64) -> SimulatedCipher {
        let mut slots = slots.to_vec();
        self.disturb(
            &mut slots,
            noise::fresh_symmetric(&self.parameters, scale)
                .hypot(noise::encode_rounding(&self.parameters, scale)),
        );
        SimulatedCipher { slots, level, scale }
    }

    /// Brings coefficients beyond half of the modulus in from the other side. Linear operations may do so later, squares and results not.
    fn wrap(&self, slots: Vec<f64>, level: usize, scale: f64) -> Result<Vec<f64>, CkksError> {
        let modulus = (self.parameters.log_q(level) - scale.log2()).exp2();
        // A coefficient is a mean of slots with weights of at most two.
        if slots.iter().all(|v| v.abs() < modulus / 4.0) {
            return Ok(slots);
        }
        let mut coefficients = self.parameters.embedding().encode(&slots)?;
        coefficients.iter_mut().for_each(|c| *c -= modulus * (*c / modulus).round());
        Ok(self.parameters.embedding().decode(&coefficients)?)
    }

    /// Adds noise of that standard deviation: a centred binomial of 64 flips, whose excess kurtosis is −1/32.
    fn disturb(&self, slots: &mut [f64], deviation: f64) {
        let mut rng = ChaCha12Rng::seed_from_u64(self.seed);
        rng.set_stream(fingerprint(slots, deviation));
        // 64 coin flips have variance 16 and, unlike sines and logarithms, cost nothing beside the generator.
        let unit = deviation / 4.0;
        for value in slots {
            *value += unit * (f64::from(rng.next_u64().count_ones()) - 32.0);
        }
    }
}

/// A number that differs between the noise vectors of a run: taken from the values themselves, so that
/// it does not depend on the order in which threads work (FNV-1a over some slots).
fn fingerprint(slots: &[f64], deviation: f64) -> u64 {
    let step = (slots.len() / 64).max(1);
    let sampled = slots.iter().step_by(step).chain([&deviation]);
    sampled.fold(0xcbf2_9ce4_8422_2325, |hash, v| (hash ^ v.to_bits()).wrapping_mul(0x0100_0000_01b3))
}

impl Backend for Simulated {
    type Cipher = SimulatedCipher;

    fn drop_to(&self, x: &Self::Cipher, level: usize) -> Result<Self::Cipher, CkksError> {
        let mut slots = x.slots.clone();
        let deviation = noise::drop(&self.parameters, x.level, level, x.scale);
        if deviation > 0.0 {
            self.disturb(&mut slots, deviation);
        }
        Ok(SimulatedCipher { slots, level, scale: x.scale })
    }

    fn rotate_many(&self, x: &Self::Cipher, rotations: &[usize]) -> Result<Vec<Self::Cipher>, CkksError> {
        let deviation = noise::key_switch(&self.parameters, x.level, x.scale);
        Ok(rotations
            .iter()
            .map(|&r| {
                let mut slots = rotated(&x.slots, r);
                if r != 0 {
                    self.disturb(&mut slots, deviation);
                }
                SimulatedCipher { slots, ..*x }
            })
            .collect())
    }

    fn weighted_sum(&self, products: &[(&Self::Cipher, Weights)]) -> Result<Self::Cipher, CkksError> {
        let (first, weights) = products.first().ok_or(CkksError::NoTerms)?;
        let mut slots = vec![0.0; first.slots.len()];
        // Rounding of each encoded weight vector meets the values it multiplies.
        let mut squares = 0.0;
        for (x, w) in products {
            accumulate(&mut slots, &x.slots, &w.period);
            let rounding = noise::encode_periodic_rounding(&self.parameters, w.period.len(), w.scale);
            let energy = x.slots.iter().map(|v| v * v).sum::<f64>() / x.slots.len() as f64;
            squares += rounding * rounding * energy;
        }
        self.disturb(&mut slots, squares.sqrt());
        Ok(SimulatedCipher { slots, level: first.level, scale: first.scale * weights.scale })
    }

    fn sum(&self, terms: &[&Self::Cipher]) -> Result<Self::Cipher, CkksError> {
        let (first, rest) = terms.split_first().ok_or(CkksError::NoTerms)?;
        let mut total = (*first).clone();
        for x in rest {
            accumulate(&mut total.slots, &x.slots, &[1.0]);
        }
        Ok(total)
    }

    fn add_assign(&self, x: &mut Self::Cipher, y: &Self::Cipher) -> Result<(), CkksError> {
        accumulate(&mut x.slots, &y.slots, &[1.0]);
        Ok(())
    }

    fn mask(&self, x: &Self::Cipher, mask: &[f64], scale: f64) -> Result<Self::Cipher, CkksError> {
        let mut mask: Vec<f64> = mask.iter().copied().cycle().take(x.slots.len()).collect();
        self.disturb(&mut mask, noise::encode_rounding(&self.parameters, scale));
        let slots = x.slots.iter().zip(&mask).map(|(v, m)| v * m).collect();
        Ok(SimulatedCipher { slots, level: x.level, scale: x.scale * scale })
    }

    fn rescale(&self, x: &Self::Cipher, scale: f64) -> Result<Self::Cipher, CkksError> {
        let level = x.level.checked_sub(1).ok_or(CkksError::LevelExhausted { from: 0, to: "-1".into() })?;
        let mut slots = x.slots.clone();
        self.disturb(&mut slots, noise::rescale(&self.parameters, scale));
        Ok(SimulatedCipher { slots: self.wrap(slots, level, scale)?, level, scale })
    }

    fn constant(&self, mut x: Self::Cipher, factor: f64, scale: f64) -> Result<Self::Cipher, CkksError> {
        x.slots.iter_mut().for_each(|v| *v *= factor);
        x.scale = scale;
        Ok(x)
    }

    fn add_slots(&self, x: &Self::Cipher, slots: &[f64]) -> Result<Self::Cipher, CkksError> {
        let mut x = x.clone();
        x.slots.iter_mut().zip(slots.iter().cycle()).for_each(|(v, b)| *v += b);
        self.disturb(&mut x.slots, noise::encode_rounding(&self.parameters, x.scale));
        x.slots = self.wrap(x.slots, x.level, x.scale)?;
        Ok(x)
    }

    fn square(&self, x: &Self::Cipher, scale: f64) -> Result<Self::Cipher, CkksError> {
        let mut slots = self.wrap(x.slots.clone(), x.level, x.scale)?;
        slots.iter_mut().for_each(|v| *v *= *v);
        self.disturb(&mut slots, noise::key_switch(&self.parameters, x.level, x.scale * x.scale));
        self.rescale(&SimulatedCipher { slots, level: x.level, scale: x.scale * x.scale }, scale)
    }
}
