//! Hybrid key switching (Han, Ki 2020) in its three steps, each usable alone:
//!
//! 1. [`Evaluator::decompose`]: split into digits and extend each to all primes (ModUp). ℓ + 1 inverse and about
//!    digits × (limbs + special limbs) forward transforms.
//! 2. [`Evaluator::key_product`]: inner product with a key, modulo Q·P. No transform.
//! 3. [`Evaluator::mod_down`]: divide by P with rounding. Per part one inverse transform a special prime and ℓ + 1 forward.

use super::Evaluator;
use crate::keys::SwitchingKey;
use crate::par;
use polyveil_math::simd::{self, Term, Weights};
use polyveil_math::{Ntt, Poly};

/// A polynomial split into digits, each extended to all primes of its level and the special primes.
#[derive(Debug, Clone)]
pub struct Decomposed {
    level: usize,
    digits: Vec<Poly<Ntt>>,
}

/// Two polynomials modulo Q·P: limbs 0 … ℓ, then the special ones. Sums of them need one [`Evaluator::mod_down`] only.
#[derive(Debug, Clone)]
pub struct ExtendedCiphertext {
    level: usize,
    parts: [Poly<Ntt>; 2],
}

impl Evaluator {
    /// Step 1.
    pub fn decompose(&self, poly: &Poly<Ntt>) -> Decomposed {
        let params = &self.params;
        let (n, level) = (params.degree(), poly.limbs() - 1);
        let mut coefficients = poly.raw().to_vec();
        par::for_each_chunk(&mut coefficients, n, |i, limb| params.tables(level)[i].inverse(limb));
        let extended = level + 1 + params.p().len();
        let digits = par::map(params.digits(level), |d| {
            let own = params.digit_range(d, level);
            let converter = params.digit_converter(d, level);
            let prepared = converter.prepare(coefficients[own.start * n..own.end * n].to_vec());
            let mut digit = Poly::zero(n, extended);
            par::for_each_chunk(digit.raw_mut(), n, |i, limb| {
                if own.contains(&i) {
                    limb.copy_from_slice(poly.limb(i));
                } else {
                    converter.combine(&prepared, params.extended_index(i, level), limb);
                    params.extended_table(i, level).forward(limb);
                }
            });
            digit
        });
        Decomposed { level, digits }
    }

    /// Step 2; the key must reach the level, which callers check.
    pub(super) fn key_product(&self, decomposed: &Decomposed, key: &SwitchingKey) -> ExtendedCiphertext {
        let params = &self.params;
        let level = decomposed.level;
        let part = |key_digits: &[Poly<Ntt>]| {
            let mut out = Poly::zero(params.degree(), level + 1 + params.p().len());
            par::for_each_chunk(out.raw_mut(), params.degree(), |i, limb| {
                // The key's special limbs follow its own, higher level.
                let key_limb = if i <= level { i } else { i - level + key.level() };
                let terms: Vec<Term<'_>> = decomposed
                    .digits
                    .iter()
                    .zip(key_digits)
                    .map(|(x, k)| Term { values: x.limb(i), weights: Weights::Full(k.limb(key_limb)) })
                    .collect();
                simd::dot(limb, &terms, params.extended_table(i, level).modulus());
            });
            out
        };
        ExtendedCiphertext { level, parts: [part(key.b()), part(key.a(params))] }
    }

    /// Step 3.
    pub(super) fn mod_down(&self, extended: ExtendedCiphertext) -> [Poly<Ntt>; 2] {
        let params = &self.params;
        let (n, level) = (params.degree(), extended.level);
        let (converter, inverses) = params.mod_down();
        extended.parts.map(|part| {
            let mut special = part.raw()[(level + 1) * n..].to_vec();
            par::for_each_chunk(&mut special, n, |j, limb| params.special_tables()[j].inverse(limb));
            let prepared = converter.prepare(special);
            self.new_poly(level, |i, out, modulus| {
                converter.combine(&prepared, i, out);
                params.tables(level)[i].forward(out);
                simd::sub_from_scale(out, part.limb(i), inverses[i], modulus);
            })
        })
    }
}
