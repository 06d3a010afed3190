//! Encryption under the secret key (half-size ciphertexts, the better choice) and under a public key.

use crate::error::ClientError;
use crate::random::Randomness;
use crate::secret::SecretKey;
use polyveil_ckks::{
    Ciphertext, CkksError, Encoder, KeyId, Parameters, Plaintext, SeededCiphertext, uniform_primes, uniform_q,
};
use polyveil_math::{Modulus, Ntt, NttTable, Poly, SeedStream, simd};
use zeroize::{Zeroize, Zeroizing};

/// A public key: b = −a·s + e modulo all ciphertext primes, a from a seed.
#[derive(Debug, Clone, PartialEq)]
pub struct PublicKey {
    fingerprint: [u8; 32],
    key_id: KeyId,
    seed: [u8; 32],
    b: Poly<Ntt>,
}

impl PublicKey {
    /// From raw parts, as a file gives them.
    ///
    /// # Errors
    /// [`ClientError::Math`] for wrong sizes and residues.
    pub fn from_parts(
        params: &Parameters,
        key_id: KeyId,
        seed: [u8; 32],
        b: Vec<u64>,
    ) -> Result<Self, ClientError> {
        let moduli: Vec<Modulus> = params.tables()[..params.q().len()].iter().map(|t| *t.modulus()).collect();
        let b = Poly::from_untrusted(params.degree(), &b, &moduli)?;
        Ok(Self { fingerprint: params.fingerprint(), key_id, seed, b })
    }

    /// The secret key that it belongs to.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The seed of a.
    #[must_use]
    pub const fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// b.
    #[must_use]
    pub const fn b(&self) -> &Poly<Ntt> {
        &self.b
    }
}

/// Encrypts under the secret key: c_0 = −a·s + e + m and the seed of a.
///
/// # Errors
/// [`ClientError::Randomness`], [`ClientError::Ckks`] for a plaintext of other parameters.
pub fn encrypt_symmetric(sk: &SecretKey, plaintext: &Plaintext) -> Result<SeededCiphertext, ClientError> {
    encrypt_symmetric_with(sk, plaintext, &mut Randomness::system())
}

/// [`encrypt_symmetric`] with a given source of randomness.
///
/// # Errors
/// As [`encrypt_symmetric`].
pub fn encrypt_symmetric_with(
    sk: &SecretKey,
    plaintext: &Plaintext,
    randomness: &mut Randomness,
) -> Result<SeededCiphertext, ClientError> {
    check_plaintext(sk.params(), plaintext)?;
    let mut seed = [0; 32];
    randomness.fill(&mut seed)?;
    let mut c0 = encrypt_zero(sk, &seed, sk.params().primes(plaintext.level()), randomness)?;
    add_plaintext(&mut c0, plaintext, sk.params());
    Ok(SeededCiphertext::from_poly(sk.key_id(), plaintext.level(), plaintext.scale(), c0, seed))
}

/// Encodes real slot values and encrypts them under the secret key; the plaintext in between is zeroed.
///
/// # Errors
/// As [`encrypt_symmetric`], and [`ClientError::Ckks`] for values that cannot be encoded.
pub fn encrypt_values(
    sk: &SecretKey,
    values: &[f64],
    level: usize,
    scale: f64,
) -> Result<SeededCiphertext, ClientError> {
    let mut plaintext = Encoder::new(sk.params()).encode(values, level, scale)?;
    let encrypted = encrypt_symmetric(sk, &plaintext);
    // Before the polynomial gives its buffer to others.
    plaintext.poly_mut().limbs_mut().iter_mut().for_each(|limb| limb[..].zeroize());
    encrypted
}

/// Makes a public key.
///
/// # Errors
/// [`ClientError::Randomness`].
pub fn generate_public_key(sk: &SecretKey) -> Result<PublicKey, ClientError> {
    generate_public_key_with(sk, &mut Randomness::system())
}

/// [`generate_public_key`] with a given source of randomness.
///
/// # Errors
/// As [`generate_public_key`].
pub fn generate_public_key_with(
    sk: &SecretKey,
    randomness: &mut Randomness,
) -> Result<PublicKey, ClientError> {
    let mut seed = [0; 32];
    randomness.fill(&mut seed)?;
    let primes: Vec<usize> = (0..sk.params().q().len()).collect();
    let b = encrypt_zero(sk, &seed, &primes, randomness)?;
    Ok(PublicKey { fingerprint: sk.params().fingerprint(), key_id: sk.key_id(), seed, b })
}

/// Encrypts under a public key: (u·b + e_0 + m, u·a + e_1), u ternary.
///
/// # Errors
/// [`ClientError::Randomness`], [`ClientError::Ckks`] for a key or plaintext of other parameters.
pub fn encrypt_public(
    params: &Parameters,
    pk: &PublicKey,
    plaintext: &Plaintext,
) -> Result<Ciphertext, ClientError> {
    encrypt_public_with(params, pk, plaintext, &mut Randomness::system())
}

/// [`encrypt_public`] with a given source of randomness.
///
/// # Errors
/// As [`encrypt_public`].
pub fn encrypt_public_with(
    params: &Parameters,
    pk: &PublicKey,
    plaintext: &Plaintext,
    randomness: &mut Randomness,
) -> Result<Ciphertext, ClientError> {
    params.check_fingerprint(&pk.fingerprint)?;
    check_plaintext(params, plaintext)?;
    let (n, level) = (params.degree(), plaintext.level());
    let mut small = Zeroizing::new(vec![0i8; n]);
    SeedStream::new(&*randomness.seed()?, 0).ternary(&mut small);
    let tables = || params.primes(level).iter().map(|&prime| &params.tables()[prime]);
    let u = transform_small(tables(), &small);
    // `primes` are the limbs of `half` that the level has.
    let mut masked = |half: &Poly<Ntt>, primes: &[usize]| -> Result<Poly<Ntt>, ClientError> {
        SeedStream::new(&*randomness.seed()?, 0).error(&mut small);
        let error = transform_small(tables(), &small);
        let mut out = Poly::unspecified(n, primes.len());
        for (i, (modulus, &prime)) in params.moduli(level).iter().zip(primes).enumerate() {
            let limb = out.limb_mut(i);
            limb.copy_from_slice(half.limb(prime));
            simd::mul_assign(limb, &u[i * n..(i + 1) * n], modulus);
            simd::add_assign(limb, &error[i * n..(i + 1) * n], modulus);
        }
        Ok(out)
    };
    let mut c0 = masked(&pk.b, params.primes(level))?;
    let own: Vec<usize> = (0..params.limbs(level)).collect();
    let c1 = masked(&uniform_q(params, &pk.seed, level), &own)?;
    add_plaintext(&mut c0, plaintext, params);
    Ok(Ciphertext::from_polys(pk.key_id, level, plaintext.scale(), c0, c1)?)
}

/// Transform values of small secret coefficients modulo each prime of the tables.
pub(crate) fn transform_small<'a>(
    tables: impl IntoIterator<Item = &'a NttTable>,
    small: &[i8],
) -> Zeroizing<Vec<u64>> {
    let tables: Vec<&NttTable> = tables.into_iter().collect();
    let n = small.len();
    let wide: Zeroizing<Vec<i64>> = Zeroizing::new(small.iter().map(|&c| i64::from(c)).collect());
    let mut out = Zeroizing::new(vec![0; n * tables.len()]);
    for (limb, table) in out.chunks_exact_mut(n).zip(tables) {
        simd::reduce_signed(limb, &wide, table.modulus());
        table.forward(limb);
    }
    out
}

/// −a·s + e modulo these ciphertext primes, with a from the (public) seed.
fn encrypt_zero(
    sk: &SecretKey,
    seed: &[u8; 32],
    primes: &[usize],
    randomness: &mut Randomness,
) -> Result<Poly<Ntt>, ClientError> {
    let params = sk.params();
    let n = params.degree();
    let mut small = Zeroizing::new(vec![0i8; n]);
    SeedStream::new(&*randomness.seed()?, 0).error(&mut small);
    let tables: Vec<&NttTable> = primes.iter().map(|&prime| &params.tables()[prime]).collect();
    let error = transform_small(tables.iter().copied(), &small);
    let mut out = uniform_primes(params, seed, primes);
    for (i, (table, &prime)) in tables.iter().zip(primes).enumerate() {
        let modulus = table.modulus();
        let limb = out.limb_mut(i);
        simd::mul_assign(limb, sk.transformed(prime), modulus);
        simd::neg_assign(limb, modulus);
        simd::add_assign(limb, &error[i * n..(i + 1) * n], modulus);
    }
    Ok(out)
}

fn add_plaintext(c0: &mut Poly<Ntt>, plaintext: &Plaintext, params: &Parameters) {
    for (i, modulus) in params.moduli(plaintext.level()).iter().enumerate() {
        simd::add_assign(c0.limb_mut(i), plaintext.poly().limb(i), modulus);
    }
}

fn check_plaintext(params: &Parameters, plaintext: &Plaintext) -> Result<(), CkksError> {
    params.check_level(plaintext.level())?;
    let (expected, found) = (params.degree(), plaintext.poly().degree());
    if expected == found { Ok(()) } else { Err(polyveil_math::MathError::Length { expected, found }.into()) }
}
