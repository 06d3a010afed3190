//! Hybrid key switching (Han, Ki 2020), shared by relinearisation and rotations.
//!
//! 1. `Evaluator::key_products`: the polynomial is split into digits, each extended to all primes (ModUp) and multiplied
//!    with the keys, modulo Q·P. It goes limb by limb, so that the extended digits of one limb stay in the cache and serve
//!    *all* keys (hoisting); they are never all in memory. Cost: ℓ + 1 inverse and digits × (limbs + special limbs) −
//!    (ℓ + 1) forward transforms, once for any number of keys.
//! 2. `Evaluator::mod_down`: divides by P with rounding. Cost a part: one inverse transform a special prime, ℓ + 1
//!    forward ones.
//!
//! Sums of results of the first step need the second one once only: that is double hoisting.

use super::Evaluator;
use crate::keys::SwitchingKey;
use crate::par;
use polyveil_math::simd::{self, Term, Weights};
use polyveil_math::{GaloisPermutation, Ntt, Poly, Prepared, buffer};
use std::cell::RefCell;

/// For each of several keys two polynomials modulo Q·P: limbs 0 … ℓ, then the special ones.
pub(super) struct KeyProducts {
    level: usize,
    degree: usize,
    keys: usize,
    /// Limb after limb the two parts of every key, so that limbs can be spread over threads.
    data: Vec<u64>,
}

impl Drop for KeyProducts {
    fn drop(&mut self) {
        buffer::give(std::mem::take(&mut self.data));
    }
}

impl KeyProducts {
    fn limb(&self, key: usize, part: usize, index: usize) -> &[u64] {
        let position = (index * self.keys + key) * 2 + part;
        &self.data[position * self.degree..][..self.degree]
    }
}

thread_local! {
    /// Working limbs of this thread; they hold public values only.
    static LIMBS: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

impl Evaluator {
    /// Step 1; every key must reach the level, which callers check.
    pub(super) fn key_products(&self, poly: &Poly<Ntt>, keys: &[&SwitchingKey]) -> KeyProducts {
        let params = &self.params;
        let (n, level) = (params.degree(), poly.limbs() - 1);
        let prepared = self.prepare_digits(poly);
        let keys: Vec<_> = keys.iter().map(|key| (key.level(), [key.b(), key.a(params)])).collect();
        let mut data = buffer::take((level + 1 + params.p().len()) * keys.len() * 2 * n);
        par::for_each_chunk(&mut data, keys.len() * 2 * n, |i, chunk| {
            let table = params.extended_table(i, level);
            with_limbs(prepared.len() * n, |digits| {
                for (d, digit) in digits.chunks_exact_mut(n).enumerate() {
                    if params.digit_range(d, level).contains(&i) {
                        digit.copy_from_slice(poly.limb(i));
                    } else {
                        let converter = params.digit_converter(d, level);
                        converter.combine(&prepared[d], params.extended_index(i, level), digit);
                        table.forward(digit);
                    }
                }
                let halves = keys.iter().flat_map(|(key_level, halves)| halves.map(|half| (key_level, half)));
                for ((key_level, half), out) in halves.zip(chunk.chunks_exact_mut(n)) {
                    // The key's special limbs follow its own, higher level.
                    let key_limb = if i <= level { i } else { i - level + key_level };
                    let terms: Vec<Term<'_>> = digits
                        .chunks_exact(n)
                        .zip(half)
                        .map(|(values, half)| Term { values, weights: Weights::Full(half.limb(key_limb)) })
                        .collect();
                    simd::dot(out, &terms, table.modulus());
                }
            });
        });
        KeyProducts { level, degree: n, keys: keys.len(), data }
    }

    /// Step 2 for one part of one key's product: divides by P, adds a polynomial, applies an automorphism.
    pub(super) fn mod_down(
        &self,
        products: &KeyProducts,
        (key, part): (usize, usize),
        add: Option<&Poly<Ntt>>,
        permutation: Option<&GaloisPermutation>,
    ) -> Poly<Ntt> {
        let params = &self.params;
        let (n, level) = (products.degree, products.level);
        let (converter, inverses) = params.mod_down();
        let mut special = buffer::take(params.p().len() * n);
        par::for_each_chunk(&mut special, n, |j, limb| {
            limb.copy_from_slice(products.limb(key, part, level + 1 + j));
            params.special_tables()[j].inverse(limb);
        });
        let prepared = converter.prepare(special);
        self.new_poly(level, |i, out, modulus| {
            let finish = |limb: &mut [u64]| {
                converter.combine(&prepared, i, limb);
                params.tables(level)[i].forward(limb);
                simd::sub_from_scale(limb, products.limb(key, part, i), inverses[i], modulus);
                if let Some(poly) = add {
                    simd::add_assign(limb, poly.limb(i), modulus);
                }
            };
            match permutation {
                None => finish(out),
                Some(permutation) => with_limbs(n, |limb| {
                    finish(limb);
                    permutation.apply(limb, out);
                }),
            }
        })
    }

    /// Coefficients of each digit, ready to be extended.
    fn prepare_digits(&self, poly: &Poly<Ntt>) -> Vec<Prepared> {
        let params = &self.params;
        let (n, level) = (params.degree(), poly.limbs() - 1);
        par::map(params.digits(level), |d| {
            let own = params.digit_range(d, level);
            let mut limbs = buffer::take(own.len() * n);
            par::for_each_chunk(&mut limbs, n, |i, limb| {
                limb.copy_from_slice(poly.limb(own.start + i));
                params.tables(level)[own.start + i].inverse(limb);
            });
            params.digit_converter(d, level).prepare(limbs)
        })
    }
}

/// Runs `f` on this thread's working limbs, `len` values with unspecified contents.
fn with_limbs<T>(len: usize, f: impl FnOnce(&mut [u64]) -> T) -> T {
    // The buffer is taken out while in use: should the thread run another such task meanwhile, that one gets its own.
    let mut buffer = LIMBS.take();
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    let result = f(&mut buffer[..len]);
    LIMBS.set(buffer);
    result
}
