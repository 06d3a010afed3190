//! Decryption.

use crate::error::ClientError;
use crate::secret::SecretKey;
use polyveil_ckks::{Ciphertext, CkksError, Encoder, Plaintext};
use polyveil_math::simd;

const MAX_PRECISION: i32 = 64;

/// c_0 + c_1·s (+ c_2·s²): the exact plaintext *with its noise*. Noise depends on the key, so do not let this, or what it
/// decodes to, leave the data owner; see [`decrypt_to_precision`].
///
/// # Errors
/// [`ClientError::WrongKey`], or [`ClientError::Ckks`] for a ciphertext of other parameters.
pub fn decrypt(sk: &SecretKey, ciphertext: &Ciphertext) -> Result<Plaintext, ClientError> {
    if ciphertext.key_id() != sk.key_id() {
        return Err(ClientError::WrongKey { expected: sk.key_id(), found: ciphertext.key_id() });
    }
    let (params, level) = (sk.params(), ciphertext.level());
    params.check_level(level)?;
    let (expected, found) = (params.degree(), ciphertext.parts()[0].degree());
    if expected != found {
        return Err(polyveil_math::MathError::Length { expected, found }.into());
    }
    let Some((last, rest)) = ciphertext.parts().split_last() else {
        return Err(CkksError::Parts { found: 0, expected: 2 }.into());
    };
    // Horner's rule in s.
    let mut message = last.clone();
    for part in rest.iter().rev() {
        for (i, modulus) in params.moduli(level).iter().enumerate() {
            let limb = message.limb_mut(i);
            simd::mul_assign(limb, sk.extended_limb(i, level), modulus);
            simd::add_assign(limb, part.limb(i), modulus);
        }
    }
    Ok(Plaintext::from_poly(ciphertext.scale(), message))
}

/// Decrypts, decodes and rounds every slot to a multiple of 2^−bits: what may be shared, if `bits` is the precision that
/// the plan declares, below which the noise lies (Li, Micciancio, Eurocrypt 2021).
///
/// # Errors
/// As [`decrypt`]; [`ClientError::BadPrecision`] outside −64 to 64 bits.
pub fn decrypt_to_precision(
    sk: &SecretKey,
    ciphertext: &Ciphertext,
    bits: i32,
) -> Result<Vec<f64>, ClientError> {
    if !(-MAX_PRECISION..=MAX_PRECISION).contains(&bits) {
        return Err(ClientError::BadPrecision { found: bits });
    }
    let unit = f64::from(bits).exp2();
    let values = Encoder::new(sk.params()).decode(&decrypt(sk, ciphertext)?)?;
    // Adding 0.0 turns a negative zero, which would tell a sign below the precision, into zero.
    Ok(values.into_iter().map(|v| (v * unit).round() / unit + 0.0).collect())
}
