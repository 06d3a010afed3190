//! Uniform polynomials from seeds. Limb i of the modulus chain is stream i, special limb j is stream 2^31 + j; the digit
//! of a key stands in the upper half. A seed serves one ciphertext or one key only.

use crate::par;
use crate::parameters::Parameters;
use polyveil_math::{Ntt, Poly, SeedStream};

const SPECIAL: u64 = 1 << 31;

/// The uniform polynomial of a ciphertext or public key at a level; public values only.
///
/// A level above the highest one is taken as the highest.
#[must_use]
pub fn uniform_q(params: &Parameters, seed: &[u8; 32], level: usize) -> Poly<Ntt> {
    let tables = params.tables(level);
    let mut poly = Poly::unspecified(params.degree(), tables.len());
    par::for_each_chunk(poly.raw_mut(), params.degree(), |i, limb| {
        SeedStream::new(seed, i as u64).uniform(tables[i].modulus(), limb);
    });
    poly
}

/// The uniform polynomial of one digit of a switching key: limbs 0 … level, then the special ones.
#[must_use]
pub fn uniform_extended(params: &Parameters, seed: &[u8; 32], digit: usize, level: usize) -> Poly<Ntt> {
    let mut poly = unspecified_extended(params, level);
    par::for_each_chunk(poly.raw_mut(), params.degree(), |i, limb| {
        uniform_limb(params, seed, (digit, i), level, limb);
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
    for (i, limb) in poly.raw_mut().chunks_exact_mut(params.degree()).enumerate() {
        uniform_limb(params, seed, (digit, i), level, limb);
    }
    poly
}

fn unspecified_extended(params: &Parameters, level: usize) -> Poly<Ntt> {
    Poly::unspecified(params.degree(), level.min(params.max_level()) + 1 + params.p().len())
}

fn uniform_limb(
    params: &Parameters,
    seed: &[u8; 32],
    (digit, i): (usize, usize),
    level: usize,
    out: &mut [u64],
) {
    let level = level.min(params.max_level());
    let stream = if i <= level { i as u64 } else { SPECIAL + (i - level - 1) as u64 };
    let modulus = params.extended_table(i, level).modulus();
    SeedStream::new(seed, ((digit as u64) << 32) | stream).uniform(modulus, out);
}
