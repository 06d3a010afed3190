//! The inner loop of a key switch.

use super::super::{KeyProduct, PackedLimb, scalar};
use super::{Barrett, Lane, V, load, prefetch, spread, store};
use crate::modulus::Modulus;
use std::arch::x86_64::*;

/// How many vectors before its use a permuted one is asked for.
const AHEAD: usize = 24;

/// How many bytes before their use those of a key are asked for.
const KEY_AHEAD: usize = 2048;

/// Takes residues of `width` bytes apart: which byte each byte of the words comes from, and which of them are not zero.
#[derive(Clone, Copy)]
struct Unpack {
    order: V,
    bytes: __mmask64,
}

impl Unpack {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma,avx512vbmi")]
    fn new(width: usize) -> Self {
        let order: Lane = std::array::from_fn(|j| {
            u64::from_le_bytes(std::array::from_fn(|k| if k < width { (j * width + k) as u8 } else { 0 }))
        });
        Self { order: load(&order), bytes: 0x0101_0101_0101_0101 * ((1 << width) - 1) }
    }

    /// The residues from a word on.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma,avx512vbmi")]
    fn at(self, limb: &PackedLimb<'_>, word: usize) -> V {
        let words = &limb.words[word..word + 8].as_chunks().0[0];
        _mm512_maskz_permutexvar_epi8(self.bytes, self.order, load(words))
    }
}

/// Digits are permuted as they are loaded, and each loaded digit serves both halves of the key.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma,avx512vbmi")]
pub(super) fn key_product(out: &mut [u64], product: &KeyProduct<'_>, start: usize, modulus: &Modulus) {
    let b = Barrett::new(modulus);
    let short = Barrett::fits(product.digits.len() + 1, modulus.bits());
    let (first, second) = out.split_at_mut(out.len() / 2);
    let (first, second) = (first.as_chunks_mut::<8>().0, second.as_chunks_mut::<8>().0);
    let in_order = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
    let [key0, key1] = product.keys;
    let (rows, width) = (key0.rows, key0.width);
    let unpack = Unpack::new(width);
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
        let mut low = [b.m.zero; 2];
        let mut high = [b.m.zero; 2];
        let mut word = (start / 8 + v) * rows * width;
        for digit in product.digits {
            let x = fetch(digit);
            prefetch(&lanes(digit)[ahead], 0);
            prefetch(&key0.words[word], KEY_AHEAD);
            prefetch(&key1.words[word], KEY_AHEAD);
            let (k0, k1) = (unpack.at(&key0, word), unpack.at(&key1, word));
            word += width;
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

/// See [`scalar::pack`].
#[target_feature(enable = "avx512f,avx512dq,avx512ifma,avx512vbmi")]
pub(super) fn pack(out: &mut [u64], values: &[u64], width: usize, (rows, row): (usize, usize)) {
    if !(1..8).contains(&width) {
        return scalar::pack(out, values, width, (rows, row));
    }
    // Byte i of the packed words is byte i % width of value i / width; what lies behind them is not used.
    let byte = |i: usize| (i / width * 8 + i % width) as u8;
    let order: Lane = std::array::from_fn(|w| u64::from_le_bytes(std::array::from_fn(|k| byte(8 * w + k))));
    let order = load(&order);
    for (values, group) in values.as_chunks().0.iter().zip(out.chunks_exact_mut(rows * width)) {
        let mut words = [0; 8];
        store(&mut words, _mm512_permutexvar_epi8(order, load(values)));
        group[row * width..(row + 1) * width].copy_from_slice(&words[..width]);
    }
}

fn lanes(limb: &[u64]) -> &[Lane] {
    limb.as_chunks().0
}
