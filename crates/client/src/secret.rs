//! The secret key.

use crate::error::ClientError;
use crate::random::Randomness;
use polyveil_ckks::{KeyId, Parameters};
use polyveil_math::SeedStream;
use zeroize::Zeroizing;

/// A uniform ternary secret: zeroed on drop, neither printable, comparable nor cloneable.
pub struct SecretKey {
    params: Parameters,
    key_id: KeyId,
    coefficients: Zeroizing<Vec<i8>>,
    /// Transform values modulo all ciphertext primes, then all special primes.
    transformed: Zeroizing<Vec<u64>>,
}

impl SecretKey {
    /// A new key from the operating system's randomness.
    ///
    /// # Errors
    /// [`ClientError::Randomness`].
    pub fn generate(params: &Parameters) -> Result<Self, ClientError> {
        Self::generate_with(params, &mut Randomness::system())
    }

    /// A key that anybody with the seed can make again: **for tests only**.
    ///
    /// # Errors
    /// None with a test seed; the signature is that of [`SecretKey::generate`].
    pub fn from_seed_for_tests(params: &Parameters, seed: [u8; 32]) -> Result<Self, ClientError> {
        Self::generate_with(params, &mut Randomness::from_seed_for_tests(seed))
    }

    /// The public random name of this key; it says nothing of the secret.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Its parameters.
    #[must_use]
    pub const fn params(&self) -> &Parameters {
        &self.params
    }

    /// 16 bytes of key id, then the coefficients −1, 0, 1 as 0, 1, 2 in two bits each, four a byte, lowest bits first.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(Self::byte_len(&self.params)));
        bytes.extend_from_slice(&self.key_id.0);
        for four in self.coefficients.chunks(4) {
            bytes.push(four.iter().rev().fold(0, |byte, &c| (byte << 2) | (c + 1) as u8));
        }
        bytes
    }

    /// Length of [`SecretKey::to_bytes`].
    #[must_use]
    pub fn byte_len(params: &Parameters) -> usize {
        16 + params.degree() / 4
    }

    /// Reads [`SecretKey::to_bytes`].
    ///
    /// # Errors
    /// [`ClientError::BadSecretKey`] for a wrong length or the unused code 3.
    pub fn from_bytes(params: &Parameters, bytes: &[u8]) -> Result<Self, ClientError> {
        let expected = Self::byte_len(params);
        let Some((id, packed)) = bytes.split_first_chunk::<16>().filter(|_| bytes.len() == expected) else {
            let found = bytes.len();
            return Err(ClientError::BadSecretKey(format!("expected {expected} bytes, found {found}")));
        };
        let mut coefficients = Zeroizing::new(Vec::with_capacity(params.degree()));
        for byte in packed {
            coefficients.extend((0..4).map(|i| ((byte >> (2 * i)) & 3) as i8 - 1));
        }
        if coefficients.contains(&2) {
            return Err(ClientError::BadSecretKey("a coefficient is not −1, 0 or 1".to_owned()));
        }
        Ok(Self::build(params, KeyId(*id), coefficients))
    }

    /// Its transform modulo one of all primes.
    pub(crate) fn transformed(&self, prime: usize) -> &[u64] {
        let n = self.params.degree();
        &self.transformed[prime * n..(prime + 1) * n]
    }

    fn generate_with(params: &Parameters, randomness: &mut Randomness) -> Result<Self, ClientError> {
        let mut key_id = [0; 16];
        randomness.fill(&mut key_id)?;
        let mut coefficients = Zeroizing::new(vec![0; params.degree()]);
        SeedStream::new(&*randomness.seed()?, 0).ternary(&mut coefficients);
        Ok(Self::build(params, KeyId(key_id), coefficients))
    }

    fn build(params: &Parameters, key_id: KeyId, coefficients: Zeroizing<Vec<i8>>) -> Self {
        let n = params.degree();
        let tables = params.tables();
        let mut transformed = Zeroizing::new(vec![0; n * tables.len()]);
        for (limb, table) in transformed.chunks_exact_mut(n).zip(tables) {
            for (x, &c) in limb.iter_mut().zip(coefficients.iter()) {
                *x = table.modulus().reduce_signed(i64::from(c));
            }
            table.forward(limb);
        }
        Self { params: params.clone(), key_id, coefficients, transformed }
    }
}
