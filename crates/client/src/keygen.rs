//! Evaluation keys.

use crate::encrypt::transform_small;
use crate::error::ClientError;
use crate::random::Randomness;
use crate::secret::SecretKey;
use polyveil_ckks::par;
use polyveil_ckks::{EvaluationKeys, KeySpec, Parameters, SwitchingKey, uniform_extended};
use polyveil_math::{GaloisPermutation, Ntt, Poly, SeedStream, simd};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use zeroize::Zeroizing;

/// Told after each key how many of how many are done; [`ControlFlow::Break`] stops.
pub type Progress<'a> = dyn FnMut(usize, usize) -> ControlFlow<()> + 'a;

/// Makes the keys of a specification, the digits of each on several threads.
///
/// # Errors
/// [`ClientError::Ckks`] for a bad specification (before any work), [`ClientError::Cancelled`],
/// [`ClientError::Randomness`].
pub fn generate_evaluation_keys(
    sk: &SecretKey,
    spec: &KeySpec,
    progress: &mut Progress<'_>,
) -> Result<EvaluationKeys, ClientError> {
    generate_evaluation_keys_with(sk, spec, progress, &mut Randomness::system())
}

/// [`generate_evaluation_keys`] with a given source of randomness.
///
/// # Errors
/// As [`generate_evaluation_keys`].
pub fn generate_evaluation_keys_with(
    sk: &SecretKey,
    spec: &KeySpec,
    progress: &mut Progress<'_>,
    randomness: &mut Randomness,
) -> Result<EvaluationKeys, ClientError> {
    let params = sk.params();
    spec.check(params)?;
    let total = spec.count();
    let mut done = 0;
    let mut report = || {
        done += 1;
        match progress(done, total) {
            ControlFlow::Break(()) if done < total => Err(ClientError::Cancelled { done, total }),
            _ => Ok(()),
        }
    };
    let mut relin = None;
    if let Some(level) = spec.relin_level {
        relin = Some(switching_key(sk, &Switch::FromSquare, level, randomness)?);
        report()?;
    }
    let mut rotations = BTreeMap::new();
    for &(rotation, level) in &spec.rotations {
        let permutation = GaloisPermutation::rotation(params.ring(), params.log_n(), rotation);
        rotations.insert(rotation, switching_key(sk, &Switch::FromImage(permutation), level, randomness)?);
        report()?;
    }
    Ok(EvaluationKeys::from_parts(params, sk.key_id(), relin, rotations)?)
}

/// What a key switches.
#[expect(clippy::large_enum_variant, reason = "one value at a time, never stored")]
enum Switch {
    /// From s² to s.
    FromSquare,
    /// From the image of s to s.
    FromImage(GaloisPermutation),
}

fn switching_key(
    sk: &SecretKey,
    switch: &Switch,
    level: usize,
    randomness: &mut Randomness,
) -> Result<SwitchingKey, ClientError> {
    let mut seed = [0; 32];
    randomness.fill(&mut seed)?;
    let error_seed = randomness.seed()?;
    let params = sk.params();
    let digits =
        par::map(params.key_digits(level), |digit| key_digit(sk, switch, level, digit, &seed, &error_seed));
    Ok(SwitchingKey::from_polys(params, level, seed, digits)?)
}

/// b = −a·s + e + P·g·s' of one digit, s' what the key switches from.
fn key_digit(
    sk: &SecretKey,
    switch: &Switch,
    level: usize,
    digit: usize,
    seed: &[u8; 32],
    error_seed: &[u8; 32],
) -> Poly<Ntt> {
    let params: &Parameters = sk.params();
    let n = params.degree();
    let mut small = Zeroizing::new(vec![0i8; n]);
    SeedStream::new(error_seed, digit as u64).error(&mut small);
    let mut out = uniform_extended(params, seed, digit, level);
    let mut scratch = Zeroizing::new(vec![0u64; n]);
    for (i, limb) in out.limbs_mut().iter_mut().enumerate() {
        let prime = params.key_index(i, level);
        let table = &params.tables()[prime];
        let modulus = table.modulus();
        let secret = sk.transformed(prime);
        simd::mul_assign(limb, secret, modulus);
        simd::neg_assign(limb, modulus);
        simd::add_assign(limb, &transform_small([table], &small), modulus);
        if prime < params.q().len() && params.literal().digit_of(prime) == digit {
            match switch {
                Switch::FromSquare => simd::mul(&mut scratch, secret, secret, modulus),
                Switch::FromImage(permutation) => permutation.apply(secret, &mut scratch),
            }
            simd::scale_assign(&mut scratch, modulus.shoup(params.p_residues()[prime]), modulus);
            simd::add_assign(limb, &scratch, modulus);
        }
    }
    out
}
