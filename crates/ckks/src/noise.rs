//! Noise: one formula per operation, as standard deviation of the error of a *decoded real slot value*.
//!
//! Slot values of an element with independent coefficients of standard deviation τ have complex energy E·τ² with E = 2N
//! in the conjugate-invariant ring (all of it real) and E = N in the standard ring (half of it real). Products are
//! slot-wise, so energies multiply: a product of the error (σ) with the ternary secret (variance 2/3) has energy
//! E²·σ²·2/3. These are averages over keys and randomness; the tests of `polyveil-client` hold errors measured over many
//! keys to between 0.9 and 1.1 times them. They do not bound the largest slot: an error times the secret is, in each slot, a
//! product of two Gaussian numbers, whose tail is longer than that of one. Among 2^15 slots the largest such error is
//! about ten standard deviations.
//!
//! | operation | contributions |
//! |---|---|
//! | encode; encrypt | [`encode_rounding`], [`encode_periodic_rounding`]; [`fresh_symmetric`], [`fresh_public`] |
//! | sum; product with a plaintext; of ciphertexts | [`root_of_squares`]; [`plain_product`]; [`multiply`], [`square`] |
//! | rotation, relinearisation | [`key_switch`] = [`key_product`] and one division by P |
//! | rescale; drop to a lower level | [`rescale`]; [`drop`] |
//! | relinearisation and rescale in one | [`key_product`] and [`rescale`]: one division by P·q |
//! | sum of k weighted rotations, rescaled | √k times ([`plain_product`] and [`key_product`] times the weights), [`rescale`] |

use crate::parameters::Parameters;
use polyveil_math::{ERROR_STD, RingKind};

const TERNARY_VARIANCE: f64 = 2.0 / 3.0;
const ROUNDING_VARIANCE: f64 = 1.0 / 12.0;

/// Fresh encryption under the secret key: e.
#[must_use]
pub fn fresh_symmetric(params: &Parameters, scale: f64) -> f64 {
    slot_std(params, energy(params) * ERROR_STD * ERROR_STD, scale)
}

/// Fresh encryption under the public key: e_0 + u·e + e_1·s.
#[must_use]
pub fn fresh_public(params: &Parameters, scale: f64) -> f64 {
    let error = energy(params) * ERROR_STD * ERROR_STD;
    let ternary = energy(params) * TERNARY_VARIANCE;
    slot_std(params, error * (1.0 + 2.0 * ternary), scale)
}

/// Rounding of a full-size encoding of real values. They make coefficients symmetric, and their roundings with them, so
/// the error is real in both rings.
#[must_use]
pub fn encode_rounding(params: &Parameters, scale: f64) -> f64 {
    (energy(params) * ROUNDING_VARIANCE).sqrt() / scale
}

/// Rounding of an encoding of real values of that period.
#[must_use]
pub fn encode_periodic_rounding(params: &Parameters, period: usize, scale: f64) -> f64 {
    let share = period as f64 / params.slots() as f64;
    (energy(params) * share * ROUNDING_VARIANCE).sqrt() / scale
}

/// Product of a ciphertext (values of root mean square `rms`, noise `noise`) with a plaintext (`weight_rms`,
/// `weight_noise` from its rounding). A sum of k such products has √k times this.
#[must_use]
pub fn plain_product(noise: f64, rms: f64, weight_noise: f64, weight_rms: f64) -> f64 {
    multiply(noise, rms, weight_noise, weight_rms)
}

/// Product of two independent ciphertexts, before relinearisation.
#[must_use]
pub fn multiply(left_noise: f64, left_rms: f64, right_noise: f64, right_rms: f64) -> f64 {
    root_of_squares(&[left_noise * right_rms, right_noise * left_rms, left_noise * right_noise])
}

/// Square of a ciphertext, before relinearisation: 2·x·e + e².
#[must_use]
pub fn square(noise: f64, rms: f64) -> f64 {
    root_of_squares(&[2.0 * noise * rms, 3f64.sqrt() * noise * noise])
}

/// What relinearisation or a rotation at a level adds: [`key_product`] and the rounding of the division by P.
#[must_use]
pub fn key_switch(params: &Parameters, level: usize, scale: f64) -> f64 {
    root_of_squares(&[key_product(params, level, scale), rescale(params, scale)])
}

/// What the product with a switching key adds before the special primes are divided out: Σ_d digit_d·e_d / P. Where results
/// are summed modulo Q·P, or the division rescales as well, this is all that a single key switch adds.
#[must_use]
pub fn key_product(params: &Parameters, level: usize, scale: f64) -> f64 {
    let energy = energy(params);
    let digits: f64 = (0..params.digits(level))
        .map(|d| {
            let log_digit: f64 = {
                let moduli = &params.moduli(level)[params.digit_range(d, level)];
                moduli.iter().map(|m| (m.value() as f64).log2()).sum()
            };
            (2.0 * (log_digit - params.log_p())).exp2() * ROUNDING_VARIANCE
        })
        .sum();
    slot_std(params, digits * energy * energy * ERROR_STD * ERROR_STD, scale)
}

/// What a rescale adds; `scale` is the one *after* it.
#[must_use]
pub fn rescale(params: &Parameters, scale: f64) -> f64 {
    slot_std(params, division(params), scale)
}

/// What dropping from a level to a lower one adds: nothing where the lower one has no prime that the higher lacks, else a rescale.
#[must_use]
pub fn drop(params: &Parameters, from: usize, to: usize, scale: f64) -> f64 {
    if params.literal().contains(from, to) { 0.0 } else { rescale(params, scale) }
}

/// Independent contributions together.
#[must_use]
pub fn root_of_squares(contributions: &[f64]) -> f64 {
    contributions.iter().map(|c| c * c).sum::<f64>().sqrt()
}

/// Energy of r_0 + r_1·s with both roundings uniform.
fn division(params: &Parameters) -> f64 {
    let energy = energy(params);
    ROUNDING_VARIANCE * energy * (1.0 + energy * TERNARY_VARIANCE)
}

fn energy(params: &Parameters) -> f64 {
    match params.ring() {
        RingKind::ConjugateInvariant => 2.0 * params.degree() as f64,
        RingKind::Standard => params.degree() as f64,
    }
}

fn slot_std(params: &Parameters, energy: f64, scale: f64) -> f64 {
    let real_share = match params.ring() {
        RingKind::ConjugateInvariant => 1.0,
        RingKind::Standard => 0.5,
    };
    (energy * real_share).sqrt() / scale
}
