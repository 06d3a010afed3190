//! The inner loop of a key switch.

use super::super::{KeyProduct, PackedLimb};
use super::sums::{Limits, Sums};
use super::{Lane, V, double, load, spread};
use crate::modulus::Modulus;
use std::arch::x86_64::*;

/// How many blocks of eight values before its use a permuted one is asked for.
const AHEAD: usize = 24;

/// Takes residues of `bits` bits apart, four at a time, two from each half of a vector: which byte each byte of the words comes
/// from, how far these are shifted then, and which bits are theirs.
#[derive(Clone, Copy)]
struct Unpack {
    /// Bytes at which the pairs begin.
    pairs: [usize; 4],
    order: [__m256i; 2],
    shift: [__m256i; 2],
    mask: __m256i,
}

impl Unpack {
    /// For at most 56 bits: the word of the second value of a pair begins at most 7 bytes behind that of the first, so sixteen
    /// bytes hold both.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn new(bits: usize) -> Self {
        let byte = |j: usize| j * bits / 8;
        let order = |four: usize| {
            let words: Lane = std::array::from_fn(|j| {
                let j = 4 * four + j;
                let first = byte(j) - byte(j & !1);
                u64::from_le_bytes(std::array::from_fn(|k| (first + k) as u8))
            });
            load(&words)
        };
        let shift = |four: usize| load(&std::array::from_fn(|j| ((4 * four + j) * bits % 8) as u64));
        Self {
            pairs: [0, 2, 4, 6].map(byte),
            order: [order(0), order(1)],
            shift: [shift(0), shift(1)],
            mask: _mm256_set1_epi64x((1 << bits) - 1),
        }
    }

    /// Values 4·`four` to 4·`four` + 3 of the row that begins at `byte`, as doubles.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn at(&self, limb: &PackedLimb<'_>, byte: usize, four: usize) -> V {
        let pair = |k: usize| {
            let bytes: &[u8; 16] = &limb.bytes[byte + self.pairs[2 * four + k]..].as_chunks().0[0];
            // SAFETY: sixteen bytes are borrowed; the instruction needs no alignment.
            unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
        };
        let words = _mm256_shuffle_epi8(_mm256_set_m128i(pair(1), pair(0)), self.order[four]);
        double(_mm256_and_si256(_mm256_srlv_epi64(words, self.shift[four]), self.mask))
    }
}

/// Which eight values a block takes, and in which order.
#[derive(Clone, Copy)]
struct Source {
    block: usize,
    /// Places of words of 32 bits in either half of a block, for both vectors.
    words: [__m256i; 2],
    /// Sign bits where a value comes from the upper half.
    upper: [V; 2],
}

impl Source {
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn of(&self, limb: &[u64]) -> [V; 2] {
        let [low, high] = &limb.as_chunks::<4>().0.as_chunks::<2>().0[self.block];
        let (low, high) = (load(low), load(high));
        [0, 1].map(|v| {
            let x = _mm256_castsi256_pd(_mm256_permutevar8x32_epi32(low, self.words[v]));
            let y = _mm256_castsi256_pd(_mm256_permutevar8x32_epi32(high, self.words[v]));
            double(_mm256_castpd_si256(_mm256_blendv_pd(x, y, self.upper[v])))
        })
    }
}

/// Digits are permuted as they are loaded, and each loaded digit serves both halves of the key.
#[target_feature(enable = "avx2,fma")]
pub(super) fn key_product(out: &mut [u64], product: &KeyProduct<'_>, start: usize, modulus: &Modulus) {
    // Residues as they are, if so few of them need no reduction in between.
    let limits = Limits::new(modulus.bits(), modulus);
    if product.digits.len() < limits.terms {
        products::<false>(out, product, start, limits);
    } else {
        products::<true>(out, product, start, Limits::balanced(modulus));
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn products<const MANY: bool>(out: &mut [u64], product: &KeyProduct<'_>, start: usize, limits: Limits) {
    let (first, second) = out.split_at_mut(out.len() / 2);
    let (first, second) = (first.as_chunks_mut::<4>().0, second.as_chunks_mut::<4>().0);
    let (first, second) = (first.as_chunks_mut::<2>().0, second.as_chunks_mut::<2>().0);
    let [key0, key1] = product.keys;
    let (rows, bits) = (key0.rows, key0.bits);
    let unpack = Unpack::new(bits);
    let in_order = [[0, 1, 2, 3, 4, 5, 6, 7]; 8];
    let orders = product.permutation.map_or(&in_order, |(_, orders)| orders);
    let words = orders.map(|order| order.map(|i| (2 * (i & 3)) | (2 * (i & 3) + 1) << 32));
    let upper = orders.map(|order| order.map(|i| (i >> 2 & 1) << 63));
    let vectors = |all: &[u64; 8]| {
        let halves = all.as_chunks::<4>().0;
        [load(&halves[0]), load(&halves[1])]
    };
    for (v, (first, second)) in first.iter_mut().zip(second).enumerate() {
        let place = start / 8 + v;
        let (block, ahead, order) = match product.permutation {
            Some((blocks, _)) => {
                let entry = blocks[place] as usize;
                (entry / 8, blocks[(place + AHEAD).min(blocks.len() - 1)] as usize / 8, entry % 8)
            }
            None => (place, place, 0),
        };
        let upper = vectors(&upper[order]).map(|x| _mm256_castsi256_pd(x));
        let source = Source { block, words: vectors(&words[order]), upper };
        let fetch = |limb: &[u64]| {
            prefetch(&limb[8 * ahead]);
            source.of(limb).map(|x| if MANY { limits.m.balanced(x) } else { x })
        };
        let mut sums = [Sums::<2>::new(limits); 2];
        let mut byte = place * rows * bits;
        for digit in product.digits {
            let x = fetch(digit);
            for (sums, key) in sums.iter_mut().zip([&key0, &key1]) {
                add::<MANY>(sums, limits, x, |four| unpack.at(key, byte, four));
            }
            byte += bits;
        }
        for (sums, summand) in sums.iter_mut().zip(&product.add) {
            if let Some((limb, factor)) = summand {
                let w = spread(*factor);
                add::<MANY>(sums, limits, fetch(limb), |_| w);
            }
        }
        let [low, high] = sums;
        low.finish(limits, first);
        high.finish(limits, second);
    }
}

/// A term of a sum, which may have to be reduced before where there are `MANY`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add<const MANY: bool>(sums: &mut Sums<2>, limits: Limits, x: [V; 2], weight: impl Fn(usize) -> V) {
    if MANY {
        sums.make_room(limits);
        sums.room -= 1;
    }
    sums.one(0, x[0], weight(0));
    sums.one(1, x[1], weight(1));
}

/// Asks for the cache line of a place. A hint: any address is allowed.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn prefetch(place: &u64) {
    _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast());
}
