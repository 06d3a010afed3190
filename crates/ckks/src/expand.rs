//! Uniform polynomials from seeds. Ciphertext prime i is stream i, special prime j is stream 2^31 + j; the digit of a key stands
//! in the upper half. A seed serves one ciphertext or one key only.

use crate::par;
use crate::parameters::Parameters;
use polyveil_math::{Ntt, Poly, SeedStream};

const SPECIAL: u64 = 1 << 31;

/// The uniform polynomial of a ciphertext at a level; public values only.
///
/// A level above the highest one is taken as the highest.
#[must_use]
pub fn uniform_q(params: &Parameters, seed: &[u8; 32], level: usize) -> Poly<Ntt> {
    uniform_primes(params, seed, params.primes(level))
}

/// The uniform polynomial of a public key, modulo these of the ciphertext primes.
///
/// # Panics
/// For a prime that does not exist.
#[must_use]
pub fn uniform_primes(params: &Parameters, seed: &[u8; 32], primes: &[usize]) -> Poly<Ntt> {
    let mut poly = Poly::unspecified(params.degree(), primes.len());
    par::for_each_limb(poly.limbs_mut(), |i, limb| {
        uniform_limb(params, seed, (0, primes[i]), limb);
    });
    poly
}

/// The uniform polynomial of one digit of a switching key of a level.
#[must_use]
pub fn uniform_extended(params: &Parameters, seed: &[u8; 32], digit: usize, level: usize) -> Poly<Ntt> {
    let mut poly = unspecified_extended(params, level);
    par::for_each_limb(poly.limbs_mut(), |i, limb| {
        uniform_limb(params, seed, (digit, params.key_index(i, level)), limb);
    });
    poly
}

/// [`uniform_extended`] on this thread alone. While other threads wait for the result this one must not look for other work, which
/// may need that very result.
pub(crate) fn uniform_extended_alone(
    params: &Parameters,
    seed: &[u8; 32],
    digit: usize,
    level: usize,
) -> Poly<Ntt> {
    let mut poly = unspecified_extended(params, level);
    for (i, limb) in poly.limbs_mut().iter_mut().enumerate() {
        uniform_limb(params, seed, (digit, params.key_index(i, level)), limb);
    }
    poly
}

fn unspecified_extended(params: &Parameters, level: usize) -> Poly<Ntt> {
    Poly::unspecified(params.degree(), params.key_moduli(level).len())
}

/// Modulo one of all primes.
fn uniform_limb(params: &Parameters, seed: &[u8; 32], (digit, prime): (usize, usize), out: &mut [u64]) {
    let q = params.q().len();
    let stream = if prime < q { prime as u64 } else { SPECIAL + (prime - q) as u64 };
    let modulus = params.tables()[prime].modulus();
    SeedStream::new(seed, ((digit as u64) << 32) | stream).uniform(modulus, out);
}
