//! Ciphertexts.

use crate::error::CkksError;
use crate::expand::uniform_q;
use crate::keys::KeyId;
use crate::parameters::Parameters;
use arrayvec::ArrayVec;
use polyveil_math::{Ntt, Poly};

/// An encryption of slot values: c_0 + c_1·s (+ c_2·s² before relinearisation), in transform order.
#[derive(Debug, Clone, PartialEq)]
pub struct Ciphertext {
    pub(crate) key_id: KeyId,
    pub(crate) level: usize,
    pub(crate) scale: f64,
    /// Two or three parts with the same number of limbs.
    pub(crate) parts: ArrayVec<Poly<Ntt>, 3>,
}

impl Ciphertext {
    /// From raw parts, as a file gives them: two or three polynomials of N residues a limb.
    ///
    /// # Errors
    /// [`CkksError::NoSuchLevel`], [`CkksError::BadScale`], [`CkksError::Parts`], or [`CkksError::Math`] for wrong sizes
    /// and residues.
    pub fn from_parts(
        params: &Parameters,
        key_id: KeyId,
        level: usize,
        scale: f64,
        parts: Vec<Vec<u64>>,
    ) -> Result<Self, CkksError> {
        params.check_level(level)?;
        Parameters::check_scale(scale)?;
        if !(2..=3).contains(&parts.len()) {
            return Err(CkksError::Parts { found: parts.len(), expected: 2 });
        }
        let check = |data: Vec<u64>| Poly::from_untrusted(params.degree(), &data, params.moduli(level));
        Ok(Self { key_id, level, scale, parts: parts.into_iter().map(check).collect::<Result<_, _>>()? })
    }

    /// From polynomials whose residues are known to be reduced; for the code that encrypts.
    ///
    /// # Errors
    /// [`CkksError::LevelMismatch`] if the parts differ in length.
    pub fn from_polys(
        key_id: KeyId,
        level: usize,
        scale: f64,
        c0: Poly<Ntt>,
        c1: Poly<Ntt>,
    ) -> Result<Self, CkksError> {
        if c0.limbs() != c1.limbs() || c0.limbs() == 0 {
            return Err(CkksError::LevelMismatch {
                left: c0.limbs().saturating_sub(1),
                right: c1.limbs().saturating_sub(1),
            });
        }
        Ok(Self { key_id, level, scale, parts: [c0, c1].into_iter().collect() })
    }

    /// The secret key that it belongs to.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Its level.
    #[must_use]
    pub const fn level(&self) -> usize {
        self.level
    }

    /// Its scale.
    #[must_use]
    pub const fn scale(&self) -> f64 {
        self.scale
    }

    /// Its polynomials c_0, c_1 and, before relinearisation, c_2.
    #[must_use]
    pub fn parts(&self) -> &[Poly<Ntt>] {
        &self.parts
    }

    /// Bytes of its residues in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|p| 8 * p.words()).sum()
    }

    /// Declares another scale, which multiplies all values by the ratio of old and new; exact and free.
    ///
    /// # Errors
    /// [`CkksError::BadScale`].
    pub fn set_scale(&mut self, scale: f64) -> Result<(), CkksError> {
        Parameters::check_scale(scale)?;
        self.scale = scale;
        Ok(())
    }
}

/// A fresh encryption under the secret key: c_0 and the seed of c_1, half the size.
#[derive(Debug, Clone, PartialEq)]
pub struct SeededCiphertext {
    key_id: KeyId,
    level: usize,
    scale: f64,
    c0: Poly<Ntt>,
    seed: [u8; 32],
}

impl SeededCiphertext {
    /// From raw parts, as a file gives them.
    ///
    /// # Errors
    /// As [`Ciphertext::from_parts`].
    pub fn from_parts(
        params: &Parameters,
        key_id: KeyId,
        level: usize,
        scale: f64,
        c0: Vec<u64>,
        seed: [u8; 32],
    ) -> Result<Self, CkksError> {
        params.check_level(level)?;
        Parameters::check_scale(scale)?;
        let c0 = Poly::from_untrusted(params.degree(), &c0, params.moduli(level))?;
        Ok(Self { key_id, level, scale, c0, seed })
    }

    /// From a polynomial whose residues are known to be reduced; for the code that encrypts.
    #[must_use]
    pub const fn from_poly(key_id: KeyId, level: usize, scale: f64, c0: Poly<Ntt>, seed: [u8; 32]) -> Self {
        Self { key_id, level, scale, c0, seed }
    }

    /// The full ciphertext; as many limbs of ChaCha20 output as the level has.
    ///
    /// # Errors
    /// [`CkksError::NoSuchLevel`] or [`CkksError::Math`] if it belongs to other parameters.
    pub fn expand(&self, params: &Parameters) -> Result<Ciphertext, CkksError> {
        params.check_level(self.level())?;
        if self.c0.degree() != params.degree() {
            let (expected, found) = (params.degree(), self.c0.degree());
            return Err(polyveil_math::MathError::Length { expected, found }.into());
        }
        let c1 = uniform_q(params, &self.seed, self.level());
        Ciphertext::from_polys(self.key_id, self.level, self.scale, self.c0.clone(), c1)
    }

    /// The secret key that it belongs to.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Its level.
    #[must_use]
    pub const fn level(&self) -> usize {
        self.level
    }

    /// Its scale.
    #[must_use]
    pub const fn scale(&self) -> f64 {
        self.scale
    }

    /// c_0.
    #[must_use]
    pub const fn c0(&self) -> &Poly<Ntt> {
        &self.c0
    }

    /// The seed of c_1.
    #[must_use]
    pub const fn seed(&self) -> &[u8; 32] {
        &self.seed
    }
}
