//! Decryption. Nothing here goes through `polyveil_math::buffer`, whose buffers are handed on with their contents.

use crate::error::ClientError;
use crate::random::Randomness;
use crate::release::Release;
use crate::secret::SecretKey;
use polyveil_ckks::par;
use polyveil_ckks::{Ciphertext, CkksError, Parameters, Plaintext};
use polyveil_math::embedding::Complex;
use polyveil_math::{Poly, simd};
use std::ops::Deref;
use zeroize::{Zeroize, Zeroizing};

/// A decrypted plaintext *with its noise*: zeroed on drop, not printable, not cloneable. It can be used like a
/// [`Plaintext`]; what is copied out of it that way is no longer looked after.
pub struct Decrypted {
    params: Parameters,
    plaintext: Plaintext,
}

impl Decrypted {
    /// Slot values; of the standard ring the real parts. an inverse transform a limb, exact reconstruction, one embedding.
    ///
    /// # Errors
    /// [`ClientError::Math`], which checked ciphertexts do not meet.
    pub fn decode(&self) -> Result<Vec<f64>, ClientError> {
        Ok(self.params.embedding().decode(&self.coefficients()?)?)
    }

    /// Complex slot values.
    ///
    /// # Errors
    /// As [`Decrypted::decode`].
    pub fn decode_complex(&self) -> Result<Vec<Complex>, ClientError> {
        Ok(self.params.embedding().decode_complex(&self.coefficients()?)?)
    }

    fn coefficients(&self) -> Result<Zeroizing<Vec<f64>>, ClientError> {
        let mut limbs = Zeroizing::new(self.plaintext.poly().to_words());
        let level = self.plaintext.level();
        par::for_each_chunk(&mut limbs, self.params.degree(), |i, limb| {
            self.params.table(i, level).inverse(limb);
        });
        coefficients(&self.params, &limbs, level, self.plaintext.scale())
    }
}

impl Deref for Decrypted {
    type Target = Plaintext;

    fn deref(&self) -> &Plaintext {
        &self.plaintext
    }
}

impl Drop for Decrypted {
    fn drop(&mut self) {
        // Before the polynomial gives its buffer to others.
        self.plaintext.poly_mut().limbs_mut().iter_mut().for_each(|limb| limb[..].zeroize());
    }
}

/// c_0 + c_1·s (+ c_2·s²): the exact plaintext *with its noise*. Noise depends on the key, so do not let this, or what it
/// decodes to, leave the data owner; see [`decrypt_to_precision`] and [`decrypt_for_release`].
///
/// # Errors
/// [`ClientError::WrongKey`], or [`ClientError::Ckks`] for a ciphertext of other parameters.
pub fn decrypt(sk: &SecretKey, ciphertext: &Ciphertext) -> Result<Decrypted, ClientError> {
    let message = message(sk, ciphertext, |_, _| ())?;
    let poly = Poly::from_words(sk.params().degree(), &message)?;
    let plaintext = Plaintext::from_poly(ciphertext.level(), ciphertext.scale(), poly);
    Ok(Decrypted { params: sk.params().clone(), plaintext })
}

/// All slot values *with their noise*, for the data owner's own eyes: what [`decrypt`] and [`Decrypted::decode`] give, in one
/// pass over each limb.
///
/// # Errors
/// As [`decrypt`].
pub fn decrypt_values(sk: &SecretKey, ciphertext: &Ciphertext) -> Result<Vec<f64>, ClientError> {
    let (params, level) = (sk.params(), ciphertext.level());
    let message = message(sk, ciphertext, |i, limb| params.table(i, level).inverse(limb))?;
    Ok(params.embedding().decode(&coefficients(params, &message, level, ciphertext.scale())?)?)
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
    decrypt_for_release(sk, ciphertext, &Release::rounded(bits)?, f64::INFINITY)
}

/// Decrypts, decodes and does to every slot what the release asks for.
///
/// `range` is the largest magnitude with which slots are believed. A value that wraps around its modulus is off by the modulus in a
/// coefficient, which is as much in *every* slot, and more after every layer that squares; so results with such an error in an early
/// layer are told by it. Infinite: not looked at.
///
/// # Errors
/// As [`decrypt`]; [`ClientError::OutOfRange`] for a larger slot; [`ClientError::Randomness`] where noise is added.
pub fn decrypt_for_release(
    sk: &SecretKey,
    ciphertext: &Ciphertext,
    release: &Release,
    range: f64,
) -> Result<Vec<f64>, ClientError> {
    let mut values = decrypt_values(sk, ciphertext)?;
    let largest = values.iter().fold(0.0f64, |most, v| most.max(v.abs()));
    // Before noise is added, which is no value that was computed.
    if largest > range {
        values.zeroize();
        return Err(ClientError::OutOfRange { found: largest.log2().ceil().exp2(), range });
    }
    release.apply(&mut values, &mut Randomness::system()).inspect_err(|_| values.zeroize())?;
    Ok(values)
}

/// Limbs of the message, each passed to `finish` while it is in the cache.
fn message(
    sk: &SecretKey,
    ciphertext: &Ciphertext,
    finish: impl Fn(usize, &mut [u64]) + Sync + Send,
) -> Result<Zeroizing<Vec<u64>>, ClientError> {
    if ciphertext.key_id() != sk.key_id() {
        return Err(ClientError::WrongKey { expected: sk.key_id(), found: ciphertext.key_id() });
    }
    let (params, level) = (sk.params(), ciphertext.level());
    params.check_level(level)?;
    let (n, limbs) = (params.degree(), params.limbs(level));
    for part in ciphertext.parts() {
        if part.degree() != n || part.limbs() != limbs {
            let (expected, found) = (n * limbs, part.words());
            return Err(polyveil_math::MathError::Length { expected, found }.into());
        }
    }
    let Some((last, rest)) = ciphertext.parts().split_last() else {
        return Err(CkksError::Parts { found: 0, expected: 2 }.into());
    };
    let mut message = Zeroizing::new(vec![0; n * limbs]);
    par::for_each_chunk(&mut message, n, |i, limb| {
        let modulus = &params.moduli(level)[i];
        limb.copy_from_slice(last.limb(i));
        // Horner's rule in s.
        for part in rest.iter().rev() {
            simd::mul_assign(limb, sk.transformed(params.primes(level)[i]), modulus);
            simd::add_assign(limb, part.limb(i), modulus);
        }
        finish(i, limb);
    });
    Ok(message)
}

/// Centred coefficients divided by the scale.
fn coefficients(
    params: &Parameters,
    limbs: &[u64],
    level: usize,
    scale: f64,
) -> Result<Zeroizing<Vec<f64>>, ClientError> {
    let mut values = Zeroizing::new(params.reconstructor(level).to_f64(limbs, params.degree())?);
    let factor = 1.0 / scale;
    values.iter_mut().for_each(|v| *v *= factor);
    Ok(values)
}
