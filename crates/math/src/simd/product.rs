//! The inner loop of a key switch: permuted digits times both halves of a key.

use super::{Backend, Term, Weights, scalar};
use crate::modulus::Modulus;

/// Terms that need no allocation; a chain of 31 primes has no more, however they are split.
const FEW: usize = 32;

/// Values of a polynomial that stand together where several are packed.
pub const PACKED_GROUP: usize = 8;

/// Bytes that kernels may read behind the last value of a limb.
pub const PACKED_PADDING: usize = 64;

/// A limb of several polynomials, packed: group after group of eight values, and in each group row after row. Eight values of `bits`
/// bits take `bits` bytes, value j from bit j·`bits` on, lowest first.
#[derive(Debug, Clone, Copy)]
pub struct PackedLimb<'a> {
    /// All groups, and at least [`PACKED_PADDING`] bytes behind them.
    pub bytes: &'a [u8],
    /// Number of polynomials.
    pub rows: usize,
    /// Bits of a value, 1 to 56.
    pub bits: usize,
}

impl PackedLimb<'_> {
    /// The values of one row from `start` on, a multiple of 8.
    pub fn unpack(&self, row: usize, start: usize, out: &mut [u64]) {
        let mask = (1 << self.bits) - 1;
        let mut place = (start / PACKED_GROUP * self.rows + row) * self.bits;
        for out in out.chunks_mut(PACKED_GROUP) {
            for (j, x) in out.iter_mut().enumerate() {
                let (byte, shift) = (place + j * self.bits / 8, j * self.bits % 8);
                let mut word = [0; 8];
                word.copy_from_slice(&self.bytes[byte..byte + 8]);
                *x = (u64::from_le_bytes(word) >> shift) & mask;
            }
            place += self.rows * self.bits;
        }
    }
}

/// Packs one of `rows` polynomials; see [`PackedLimb`]. Values have `bits` bits.
pub fn pack(out: &mut [u8], values: &[u64], bits: usize, (rows, row): (usize, usize)) {
    match super::backend() {
        #[cfg(target_arch = "x86_64")]
        Backend::Avx512(token) => token.pack(out, values, bits, (rows, row)),
        _ => scalar::pack(out, values, bits, (rows, row)),
    }
}

/// Σ σ(digit_d) · key_d for both halves of a key, plus something added.
#[derive(Debug, Clone, Copy)]
pub struct KeyProduct<'a> {
    /// The digits, whole limbs.
    pub digits: &'a [&'a [u64]],
    /// Whole limbs of both halves of the key, a row each digit; there may be more rows than digits.
    pub keys: [PackedLimb<'a>; 2],
    /// A whole limb to be added to each half, and its factor.
    pub add: [Option<(&'a [u64], u64)>; 2],
    /// σ for digits and what is added, as [`super::permute`] takes it.
    pub permutation: Option<(&'a [u32], &'a [[u64; 8]; 8])>,
    /// Whether it is added to what is there, residues, instead of replacing it.
    pub onto: bool,
}

impl KeyProduct<'_> {
    /// The scalar twin: from one permutation and one sum of products a half; `scratch` holds twice as many ranges as there are digits, and
    /// two more.
    pub(super) fn by_parts(
        &self,
        out: [&mut [u64]; 2],
        start: usize,
        scratch: &mut [u64],
        modulus: &Modulus,
    ) {
        let len = out[0].len();
        let (scratch, unpacked) = scratch.split_at_mut((self.digits.len() + 2) * len);
        let sources = || self.digits.iter().copied().map(Some).chain(self.add.map(|add| add.map(|(x, _)| x)));
        if let Some((blocks, orders)) = self.permutation {
            for (source, out) in sources().zip(scratch.chunks_exact_mut(len)) {
                if let Some(source) = source {
                    scalar::permute(out, source, &blocks[start / 8..], orders);
                }
            }
        }
        let permuted = |index: usize, source| match self.permutation {
            Some(_) => &scratch[index * len..(index + 1) * len],
            None => &<&[u64]>::clone(source)[start..start + len],
        };
        let empty = Term { values: &[], weights: Weights::Full(&[]) };
        for (half, (out, keys)) in out.into_iter().zip(self.keys).enumerate() {
            let before = if self.onto { out.to_vec() } else { Vec::new() };
            for (row, out) in unpacked.chunks_exact_mut(len).enumerate().take(self.digits.len()) {
                keys.unpack(row, start, out);
            }
            let digits = self.digits.iter().zip(unpacked.chunks_exact(len)).enumerate();
            let digits = digits
                .map(|(d, (digit, key))| Term { values: permuted(d, digit), weights: Weights::Full(key) });
            let add = self.add[half].as_ref().map(|(source, factor)| Term {
                values: permuted(self.digits.len() + half, source),
                weights: Weights::Blocks(std::slice::from_ref(factor)),
            });
            let mut terms = [empty; FEW];
            let all = digits.chain(add);
            let count = all.clone().count();
            if count > FEW {
                let terms: Vec<Term<'_>> = all.collect();
                scalar::dot(out, &terms, modulus);
            } else {
                for (term, value) in terms.iter_mut().zip(all) {
                    *term = value;
                }
                scalar::dot(out, &terms[..count], modulus);
            }
            if self.onto {
                scalar::add_assign(out, &before, modulus);
            }
        }
    }
}

/// The values from `start` on of both halves of a product; as many of each, a multiple of 8, as is `start`. `scratch` holds twice as many halves as there are digits, and two more.
pub fn key_product(
    out: [&mut [u64]; 2],
    product: &KeyProduct<'_>,
    start: usize,
    scratch: &mut [u64],
    modulus: &Modulus,
) {
    debug_assert!(product.permutation.is_none_or(|(_, orders)| super::keeps_halves(orders)));
    match super::backend() {
        #[cfg(target_arch = "x86_64")]
        Backend::Avx2(token) => token.key_product(out, product, start, modulus),
        #[cfg(target_arch = "x86_64")]
        Backend::Avx512(token) => token.key_product(out, product, start, modulus),
        Backend::Scalar => product.by_parts(out, start, scratch, modulus),
    }
}
