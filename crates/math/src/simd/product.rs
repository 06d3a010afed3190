//! The inner loop of a key switch: permuted digits times both halves of a key.

use super::{Backend, Term, Weights, dispatch, scalar};
use crate::modulus::Modulus;

/// Terms that need no allocation; a chain of 31 primes has no more, however they are split.
const FEW: usize = 32;

/// Σ σ(digit_d) · key_d for both halves of a key, plus something added.
#[derive(Debug, Clone, Copy)]
pub struct KeyProduct<'a> {
    /// The digits, whole limbs.
    pub digits: &'a [&'a [u64]],
    /// The same values of both halves of the key as are written, a digit each.
    pub keys: [&'a [&'a [u64]]; 2],
    /// A whole limb to be added to each half, and its factor.
    pub add: [Option<(&'a [u64], u64)>; 2],
    /// σ for digits and what is added, as [`super::permute`] takes it.
    pub permutation: Option<(&'a [u32], &'a [[u64; 8]; 8])>,
}

impl KeyProduct<'_> {
    /// From one permutation and one sum of products a half; `scratch` holds two ranges more than there are digits.
    pub(super) fn by_parts(
        &self,
        backend: Backend,
        out: &mut [u64],
        start: usize,
        scratch: &mut [u64],
        modulus: &Modulus,
    ) {
        let len = out.len() / 2;
        let sources = || self.digits.iter().copied().map(Some).chain(self.add.map(|add| add.map(|(x, _)| x)));
        if let Some((blocks, orders)) = self.permutation {
            for (source, out) in sources().zip(scratch.chunks_exact_mut(len)) {
                if let Some(source) = source {
                    dispatch!(backend => permute(out, source, &blocks[start / 8..], orders));
                }
            }
        }
        let permuted = |index: usize, source| match self.permutation {
            Some(_) => &scratch[index * len..(index + 1) * len],
            None => &<&[u64]>::clone(source)[start..start + len],
        };
        let empty = Term { values: &[], weights: Weights::Full(&[]) };
        let mut terms = [empty; FEW];
        for (half, (out, keys)) in out.chunks_exact_mut(len).zip(self.keys).enumerate() {
            let digits = self.digits.iter().zip(keys).enumerate();
            let digits = digits
                .map(|(d, (digit, key))| Term { values: permuted(d, digit), weights: Weights::Full(key) });
            let add = self.add[half].as_ref().map(|(source, factor)| Term {
                values: permuted(self.digits.len() + half, source),
                weights: Weights::Blocks(std::slice::from_ref(factor)),
            });
            let all = digits.chain(add);
            let count = all.clone().count();
            if count > FEW {
                let terms: Vec<Term<'_>> = all.collect();
                dispatch!(backend => dot(out, &terms, modulus));
                continue;
            }
            for (term, value) in terms.iter_mut().zip(all) {
                *term = value;
            }
            dispatch!(backend => dot(out, &terms[..count], modulus));
        }
    }
}

/// The values from `start` on of both halves of a product, one half after the other in `out`; a multiple of 8 values, as is
/// `start`. `scratch` holds two halves more than there are digits.
pub fn key_product(
    out: &mut [u64],
    product: &KeyProduct<'_>,
    start: usize,
    scratch: &mut [u64],
    modulus: &Modulus,
) {
    match super::backend() {
        #[cfg(target_arch = "x86_64")]
        Backend::Avx512(token) => token.key_product(out, product, start, modulus),
        backend => product.by_parts(backend, out, start, scratch, modulus),
    }
}
