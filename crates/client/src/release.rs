//! What decrypted values undergo before anybody else may see them.
//!
//! CKKS decryption is approximate, and its error depends on the secret key. Whoever sees ciphertexts together with many
//! unrounded decryptions can compute the key (Li, Micciancio, *On the Security of Homomorphic Encryption on Approximate
//! Numbers*, Eurocrypt 2021). Two answers, both applied to slot values:
//!
//! * **Rounding** to the precision that the plan declares. Free. Where the error is well below the rounding unit,
//!   almost all values hide it entirely; one that happens to lie at a rounding boundary does not. A mitigation, no proof.
//! * **Noise flooding**: Gaussian noise that drowns the error, then rounding. For k values, errors of at most t each, τ
//!   results and κ bits of statistical security the standard deviation is σ = √(12·τ) · 2^(κ/2) · √k·t (Li, Micciancio, Schultz,
//!   Sorrell, *Securing Approximate Homomorphic Encryption Using Differential Privacy*, Crypto 2022: √k·t bounds the
//!   Euclidean norm of the errors). Two inputs whose exact results agree then give released results of a divergence
//!   (Kullback, Leibler) of at most τ · k·(2t)² / (2σ²) = 2^−κ / 6 altogether.
//!
//! Cost of flooding: time, two random words a value; precision, log2(σ/t) = κ/2 + 1.8 + log2(τ·k)/2 bits. With κ = 20, 100 results and
//! ten scores that is 17 of the bits that a result has. The guarantee is as good as t: a plan predicts it as 4.5
//! standard deviations, from calibration images and the noise formulas, which is no worst case.

use crate::error::ClientError;
use crate::random::Randomness;
use polyveil_math::SeedStream;
use zeroize::Zeroizing;

const MAX_PRECISION: i32 = 64;
/// Noise made from 53-bit uniform numbers is some 2^−50 away from Gaussian.
const MAX_SECURITY: u32 = 48;

/// How much noise is to drown how much error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Flooding {
    /// Bits κ of statistical security, 1 to 48.
    pub security_bits: u32,
    /// Largest error t of a value before flooding.
    pub error: f64,
    /// Values k of one result that will be shared.
    pub values: usize,
    /// Results τ under one secret key that will be shared, those of the past included.
    pub results: u64,
}

/// What is done to values before they are shared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Release {
    bits: i32,
    noise_std: f64,
}

impl Release {
    /// Rounding to multiples of 2^−bits.
    ///
    /// # Errors
    /// [`ClientError::BadPrecision`] outside −64 to 64 bits.
    pub fn rounded(bits: i32) -> Result<Self, ClientError> {
        if !(-MAX_PRECISION..=MAX_PRECISION).contains(&bits) {
            return Err(ClientError::BadPrecision { found: bits });
        }
        Ok(Self { bits, noise_std: 0.0 })
    }

    /// Flooding, then rounding to the largest power of two that is no larger than the noise's standard deviation.
    ///
    /// # Errors
    /// [`ClientError::BadFlooding`] for figures out of range, or noise that leaves nothing of values up to 2^64.
    pub fn flooded(flooding: &Flooding) -> Result<Self, ClientError> {
        let refuse = |reason: &'static str| ClientError::BadFlooding { reason };
        let Flooding { security_bits, error, values, results } = *flooding;
        if !(1..=MAX_SECURITY).contains(&security_bits) {
            return Err(refuse("statistical security must be 1 to 48 bits"));
        }
        if !(error.is_finite() && error > 0.0) {
            return Err(refuse("the error to drown must be finite and positive"));
        }
        if values == 0 || results == 0 {
            return Err(refuse("at least one value of one result must be shared"));
        }
        let norm = (values as f64).sqrt() * error;
        let noise_std = (12.0 * results as f64).sqrt() * (f64::from(security_bits) / 2.0).exp2() * norm;
        let bits = (-noise_std.log2()).ceil();
        if bits.abs() > f64::from(MAX_PRECISION) {
            return Err(refuse("the noise must lie between 2^-64 and 2^64"));
        }
        Ok(Self { bits: bits as i32, noise_std })
    }

    /// Values become multiples of 2^−bits.
    #[must_use]
    pub const fn bits(&self) -> i32 {
        self.bits
    }

    /// Standard deviation of the noise; 0 without flooding.
    #[must_use]
    pub const fn noise_std(&self) -> f64 {
        self.noise_std
    }

    /// Adds the noise, if any, and rounds. The time depends on the noise.
    ///
    /// # Errors
    /// [`ClientError::Randomness`]; the values are then as they were, not to be shared.
    pub fn apply(&self, values: &mut [f64], randomness: &mut Randomness) -> Result<(), ClientError> {
        if self.noise_std > 0.0 {
            let mut stream = SeedStream::new(&*randomness.seed()?, 0);
            for value in values.iter_mut() {
                *value += self.noise_std * gaussian(&mut stream);
            }
        }
        let unit = f64::from(self.bits).exp2();
        // Adding 0.0 turns a negative zero, which would tell a sign below the precision, into zero.
        values.iter_mut().for_each(|v| *v = (*v * unit).round() / unit + 0.0);
        Ok(())
    }
}

/// A Gaussian number of standard deviation 1, by Box and Muller (1958); none beyond 8.6.
fn gaussian(stream: &mut SeedStream) -> f64 {
    let mut bytes = Zeroizing::new([0u8; 16]);
    stream.bytes(&mut *bytes);
    let word = |at: usize| bytes[at..at + 8].iter().fold(0u64, |word, &b| (word << 8) | u64::from(b));
    // Uniform in (0, 1], as the logarithm needs.
    let uniform = |word: u64| ((word >> 11) + 1) as f64 * (-53f64).exp2();
    (-2.0 * uniform(word(0)).ln()).sqrt() * (std::f64::consts::TAU * uniform(word(8))).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOODING: Flooding = Flooding { security_bits: 10, error: 1e-4, values: 4, results: 3 };

    #[test]
    fn flooding_has_its_standard_deviation_and_no_bias() {
        let release = Release::flooded(&FLOODING).unwrap();
        let expected = 36f64.sqrt() * 32.0 * 2e-4;
        assert!((release.noise_std() / expected - 1.0).abs() < 1e-12);
        // 0.0384 lies between 2^−5 and 2^−4.
        assert_eq!(release.bits(), 5);
        let mut values = vec![3.25; 1 << 16];
        release.apply(&mut values, &mut Randomness::from_seed_for_tests([3; 32])).unwrap();
        assert!(values.iter().all(|v| (v * 32.0).fract() == 0.0), "not rounded");
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        // Rounding adds a twelfth of its unit squared.
        let predicted = expected.powi(2) + (1f64 / 32.0).powi(2) / 12.0;
        assert!((mean - 3.25).abs() < 5.0 * (predicted / n).sqrt(), "{mean}");
        assert!((variance / predicted - 1.0).abs() < 0.03, "{variance} {predicted}");
        // Fourth moment of a Gaussian: three times the variance squared.
        let fourth = values.iter().map(|v| (v - mean).powi(4)).sum::<f64>() / n;
        assert!((fourth / (3.0 * variance * variance) - 1.0).abs() < 0.06, "{fourth}");
    }

    #[test]
    fn noise_differs_from_call_to_call() {
        let release = Release::flooded(&FLOODING).unwrap();
        let draw = || {
            let mut values = vec![0.0; 64];
            release.apply(&mut values, &mut Randomness::system()).unwrap();
            values
        };
        assert_ne!(draw(), draw());
    }

    #[test]
    fn rounding_leaves_no_sign_of_zero() {
        let mut values = [0.3, -0.1, 1.26, -7.9];
        Release::rounded(1).unwrap().apply(&mut values, &mut Randomness::system()).unwrap();
        assert_eq!(values, [0.5, 0.0, 1.5, -8.0]);
        assert!(values[1].is_sign_positive());
        assert!(matches!(Release::rounded(65), Err(ClientError::BadPrecision { found: 65 })));
    }

    #[test]
    fn figures_out_of_range_are_refused() {
        let bad = [
            Flooding { security_bits: 0, ..FLOODING },
            Flooding { security_bits: 49, ..FLOODING },
            Flooding { error: 0.0, ..FLOODING },
            Flooding { error: f64::NAN, ..FLOODING },
            Flooding { error: f64::MAX, ..FLOODING },
            Flooding { error: 1e-300, ..FLOODING },
            Flooding { values: 0, ..FLOODING },
            Flooding { results: 0, ..FLOODING },
        ];
        for flooding in bad {
            let error = Release::flooded(&flooding).unwrap_err();
            assert!(matches!(error, ClientError::BadFlooding { .. }), "{flooding:?}");
        }
    }
}
