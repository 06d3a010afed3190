//! The inner loop of a key switch.

use super::super::{KeyProduct, PACKED_PADDING};
use super::pointwise::{choose, word};
use super::sums::{Limits, Sums};
use super::{Lane, V, double, load, spread, store};
use crate::modulus::Modulus;
use std::arch::x86_64::*;

/// Bytes from the beginning of eight packed values on, and of those that hold two.
const ROW: usize = PACKED_PADDING;
const PAIR: usize = 16;

/// How many blocks of eight values before its use a permuted one is asked for.
const AHEAD: usize = 24;

/// Takes residues of `bits` bits apart, four at a time, two from each half of a vector: which byte each byte of the words comes
/// from, how far these are shifted then, and which bits are theirs.
#[derive(Clone, Copy)]
struct Unpack {
    /// Bytes of a row at which the pairs begin.
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
            // At most 42 anyway; said so that no check is needed where they are read.
            pairs: [0, 2, 4, 6].map(|j| byte(j).min(ROW - PAIR)),
            order: [order(0), order(1)],
            shift: [shift(0), shift(1)],
            mask: _mm256_set1_epi64x((1 << bits) - 1),
        }
    }

    /// Values 4·`four` to 4·`four` + 3 of a row, as doubles.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn at(&self, row: &[u8; ROW], four: usize) -> V {
        let pair = |k: usize| {
            let bytes: &[u8; PAIR] = &row[self.pairs[2 * four + k]..].as_chunks().0[0];
            // SAFETY: sixteen bytes are borrowed; the instruction needs no alignment.
            unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
        };
        let words = _mm256_shuffle_epi8(_mm256_set_m128i(pair(1), pair(0)), self.order[four]);
        double(_mm256_and_si256(_mm256_srlv_epi64(words, self.shift[four]), self.mask))
    }
}

/// Takes permuted values four at a time: each four come from one half of a block.
#[derive(Clone, Copy)]
pub(super) struct Permutation {
    /// Of every order and four: which half they come from, and the places there of their words of 32 bits.
    fours: [[(usize, Lane); 2]; 8],
}

impl Permutation {
    #[inline]
    pub(super) fn new(orders: &[[u64; 8]; 8]) -> Self {
        let four =
            |order: &Lane| ((order[0] >> 2) as usize, order.map(|i| (2 * (i & 3)) | (2 * (i & 3) + 1) << 32));
        Self { fours: orders.map(|order| [0, 1].map(|k| four(&order.as_chunks::<4>().0[k]))) }
    }

    /// What an entry of a table of blocks stands for.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn source(&self, entry: u32) -> Source {
        let [(low, x), (high, y)] = &self.fours[entry as usize % 8];
        let block = 2 * (entry as usize / 8);
        Source { places: [block + low, block + high], words: [load(x), load(y)] }
    }
}

/// Where both fours of a block come from.
#[derive(Clone, Copy)]
pub(super) struct Source {
    places: [usize; 2],
    words: [__m256i; 2],
}

impl Source {
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn of(&self, values: &[Lane]) -> [__m256i; 2] {
        [0, 1].map(|v| _mm256_permutevar8x32_epi32(load(&values[self.places[v]]), self.words[v]))
    }
}

/// Digits are permuted as they are loaded, and each loaded digit serves both halves of the key.
#[target_feature(enable = "avx2,fma")]
pub(super) fn key_product(out: [&mut [u64]; 2], product: &KeyProduct<'_>, start: usize, modulus: &Modulus) {
    // Residues as they are, if so few of them need no reduction in between.
    let limits = Limits::new(modulus.bits(), modulus);
    if product.digits.len() < limits.terms {
        products::<false>(out, product, start, limits, modulus);
    } else {
        products::<true>(out, product, start, Limits::balanced(modulus), modulus);
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn products<const MANY: bool>(
    out: [&mut [u64]; 2],
    product: &KeyProduct<'_>,
    start: usize,
    limits: Limits,
    modulus: &Modulus,
) {
    let q = word(modulus.value());
    let [first, second] = out.map(|half| half.as_chunks_mut::<4>().0.as_chunks_mut::<2>().0);
    let [key0, key1] = product.keys;
    let (rows, bits) = (key0.rows, key0.bits);
    let unpack = Unpack::new(bits);
    let in_order = [[0, 1, 2, 3, 4, 5, 6, 7]; 8];
    let permutation = Permutation::new(product.permutation.map_or(&in_order, |(_, orders)| orders));
    for (v, (first, second)) in first.iter_mut().zip(second).enumerate() {
        let place = start / 8 + v;
        let (entry, ahead) = match product.permutation {
            Some((blocks, _)) => (blocks[place], blocks[(place + AHEAD).min(blocks.len() - 1)] as usize / 8),
            None => (8 * place as u32, place),
        };
        let source = permutation.source(entry);
        let fetch = |limb: &[u64]| {
            prefetch(limb.as_ptr().wrapping_add(8 * ahead));
            let x = source.of(limb.as_chunks().0).map(|x| double(x));
            x.map(|x| if MANY { limits.m.balanced(x) } else { x })
        };
        let mut sums = [Sums::<2>::new(limits); 2];
        let mut byte = place * rows * bits;
        for digit in product.digits {
            let x = fetch(digit);
            for (sums, key) in sums.iter_mut().zip([key0.bytes, key1.bytes]) {
                let row = &key[byte..byte + ROW].as_chunks().0[0];
                add::<MANY>(sums, limits, x, |four| unpack.at(row, four));
            }
            byte += bits;
        }
        for (sums, summand) in sums.iter_mut().zip(&product.add) {
            if let Some((limb, factor)) = summand {
                let w = spread(*factor);
                add::<MANY>(sums, limits, fetch(limb), |_| w);
            }
        }
        for (sums, out) in sums.into_iter().zip([first, second]) {
            let before = out.map(|out| load(&out));
            sums.finish(limits, out);
            if product.onto {
                for (o, before) in out.iter_mut().zip(before) {
                    let sum = _mm256_add_epi64(load(o), before);
                    store(o, choose(_mm256_sub_epi64(sum, q), sum));
                }
            }
        }
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
fn prefetch(place: *const u64) {
    _mm_prefetch::<_MM_HINT_T0>(place.cast());
}
