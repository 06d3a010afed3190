//! The inner loop of a key switch.

use super::super::{KeyProduct, PackedLimb, scalar};
use super::{Barrett, Lane, V, load, prefetch, spread, store};
use crate::modulus::Modulus;
use std::arch::x86_64::*;

/// How many vectors before its use a permuted one is asked for.
const AHEAD: usize = 24;

/// How many bytes before their use those of a key are asked for.
const KEY_AHEAD: usize = 2048;

/// Takes residues of `bits` bits apart: which byte each byte of the words comes from, how far these are shifted then, and which bits
/// are theirs.
#[derive(Clone, Copy)]
struct Unpack {
    order: V,
    shift: V,
    mask: V,
}

impl Unpack {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma,avx512vbmi")]
    fn new(bits: usize) -> Self {
        let order: Lane = std::array::from_fn(|j| {
            u64::from_le_bytes(std::array::from_fn(|k| ((j * bits / 8 + k) % 64) as u8))
        });
        let shift: Lane = std::array::from_fn(|j| (j * bits % 8) as u64);
        Self { order: load(&order), shift: load(&shift), mask: spread((1 << bits) - 1) }
    }

    /// The residues from a byte on.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma,avx512vbmi")]
    fn at(self, limb: &PackedLimb<'_>, byte: usize) -> V {
        let bytes: &[u8; 64] = &limb.bytes[byte..byte + 64].as_chunks().0[0];
        // SAFETY: sixty-four bytes are borrowed; the instruction needs no alignment.
        let words = unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) };
        let own = _mm512_srlv_epi64(_mm512_permutexvar_epi8(self.order, words), self.shift);
        _mm512_and_si512(own, self.mask)
    }
}

/// Digits are permuted as they are loaded, and each loaded digit serves both halves of the key.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma,avx512vbmi")]
pub(super) fn key_product(out: [&mut [u64]; 2], product: &KeyProduct<'_>, start: usize, modulus: &Modulus) {
    let b = Barrett::new(modulus);
    let short = Barrett::fits(product.digits.len() + 2, modulus.bits());
    let [first, second] = out.map(|half| half.as_chunks_mut::<8>().0);
    let in_order = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
    let [key0, key1] = product.keys;
    let (rows, bits) = (key0.rows, key0.bits);
    let unpack = Unpack::new(bits);
    for (v, (first, second)) in first.iter_mut().zip(second).enumerate() {
        let (source, ahead, order) = match product.permutation {
            Some((blocks, orders)) => {
                let entry = blocks[start / 8 + v] as usize;
                let ahead = blocks[(start / 8 + v + AHEAD).min(blocks.len() - 1)] as usize;
                (entry / 8, ahead / 8, load(&orders[entry % 8]))
            }
            None => (start / 8 + v, start / 8 + v, in_order),
        };
        let fetch = |limb: &[u64]| _mm512_permutexvar_epi64(order, load(&lanes(limb)[source]));
        let mut low = if product.onto { [load(first), load(second)] } else { [b.m.zero; 2] };
        let mut high = [b.m.zero; 2];
        let mut byte = (start / 8 + v) * rows * bits;
        for digit in product.digits {
            let x = fetch(digit);
            prefetch(&lanes(digit)[ahead], 0);
            prefetch(&key0.bytes[byte], KEY_AHEAD);
            prefetch(&key1.bytes[byte], KEY_AHEAD);
            let (k0, k1) = (unpack.at(&key0, byte), unpack.at(&key1, byte));
            byte += bits;
            low[0] = _mm512_madd52lo_epu64(low[0], x, k0);
            high[0] = _mm512_madd52hi_epu64(high[0], x, k0);
            low[1] = _mm512_madd52lo_epu64(low[1], x, k1);
            high[1] = _mm512_madd52hi_epu64(high[1], x, k1);
        }
        for (half, add) in product.add.iter().enumerate() {
            if let Some((limb, factor)) = add {
                prefetch(&lanes(limb)[ahead], 0);
                let (x, w) = (fetch(limb), spread(*factor));
                low[half] = _mm512_madd52lo_epu64(low[half], x, w);
                high[half] = _mm512_madd52hi_epu64(high[half], x, w);
            }
        }
        for (half, out) in [first, second].into_iter().enumerate() {
            let (low, high) = (low[half], high[half]);
            store(out, if short { b.reduce_short_sum(low, high) } else { b.reduce_sum(low, high) });
        }
    }
}

/// See [`scalar::pack`]. Values at even places have no byte in common, nor have those at odd places.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma,avx512vbmi")]
pub(super) fn pack(out: &mut [u8], values: &[u64], bits: usize, (rows, row): (usize, usize)) {
    if !(8..=56).contains(&bits) {
        return scalar::pack(out, values, bits, (rows, row));
    }
    let halves = [0, 1].map(|parity| {
        let (mut order, mut used) = ([0; 64], 0);
        for j in (parity..8).step_by(2) {
            let (first, end) = (j * bits / 8, ((j + 1) * bits).div_ceil(8));
            for (k, source) in order[first..end].iter_mut().enumerate() {
                *source = (8 * j + k) as u8;
                used |= 1u64 << (first + k);
            }
        }
        let words: Lane = std::array::from_fn(|w| u64::from_le_bytes(order.as_chunks().0[w]));
        (load(&words), used)
    });
    let shift: Lane = std::array::from_fn(|j| (j * bits % 8) as u64);
    let shift = load(&shift);
    for (values, group) in values.as_chunks().0.iter().zip(out.chunks_exact_mut(rows * bits)) {
        let shifted = _mm512_sllv_epi64(load(values), shift);
        let [even, odd] = halves.map(|(order, used)| _mm512_maskz_permutexvar_epi8(used, order, shifted));
        let mut words = [0; 8];
        store(&mut words, _mm512_or_si512(even, odd));
        group[row * bits..(row + 1) * bits].copy_from_slice(&bytemuck::cast_slice(&words)[..bits]);
    }
}

fn lanes(limb: &[u64]) -> &[Lane] {
    limb.as_chunks().0
}
