//! Kernels for processors with AVX-512 F, DQ, IFMA and VBMI (which came together): eight residues at a time, 52-bit products.
//!
//! **Bounds** (q < 2^50, so 4q < 2^52). With ⌊w·2^52/q⌋, which is the 64-bit quotient without its low 12 bits, the Shoup
//! product of any x < 2^52 lies in [0, 2q); `ntt` says what the transforms do with that. Sums of products keep the low and
//! high 52-bit halves in two 64-bit accumulators; up to 4096 terms fit. Everything is fully reduced before it is stored,
//! so results equal the scalar ones bit for bit.
//!
//! The only `unsafe` here is loading and storing eight words that are borrowed as an array, and entering code that needs
//! the processor features, which the existence of an [`Avx512`] proves.
#![allow(unsafe_code, reason = "vector instructions; see the module's text")]

mod matrix;
mod ntt;
mod pointwise;
mod product;
mod sums;
mod tiles;

use super::matrix::{Left, Lines, Out, Start};
use super::{KeyProduct, Sources, Target, Term, TileSum, Tiles, Twiddles};
use crate::modulus::{Modulus, Shoup};
use std::arch::x86_64::*;

type V = __m512i;
type Lane = [u64; 8];

/// Proof that this processor has the features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Avx512(());

macro_rules! entries {
    ($($module:ident::$name:ident ( $($arg:ident : $type:ty),* );)*) => {
        impl Avx512 {
            /// Looks at the processor.
            #[must_use]
            pub fn detect() -> Option<Self> {
                (is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vbmi")
                    && is_x86_feature_detected!("avx512ifma"))
                .then_some(Self(()))
            }
            $(
                #[doc = concat!("The kernel behind `", stringify!($name), "`, whose scalar twin says what it computes.")]
                pub fn $name(self, $($arg: $type),*) {
                    // SAFETY: `self` exists only where the features were detected.
                    unsafe { $module::$name($($arg),*) }
                }
            )*
        }
    };
}

entries! {
    ntt::ntt_forward(values: &mut [u64], twiddles: Twiddles<'_>, modulus: &Modulus);
    ntt::ntt_inverse(values: &mut [u64], twiddles: Twiddles<'_>, scale: Shoup, last: Shoup, modulus: &Modulus);
    ntt::ntt_forward_folded(values: &mut [u64], iota: Shoup, twiddles: Twiddles<'_>, modulus: &Modulus);
    ntt::ntt_inverse_unfolded(
        values: &mut [u64], iota: Shoup, twiddles: Twiddles<'_>, scale: Shoup, last: Shoup, modulus: &Modulus
    );
    ntt::fold(values: &mut [u64], iota: Shoup, modulus: &Modulus);
    ntt::unfold(values: &mut [u64], iota: Shoup, modulus: &Modulus);
    pointwise::prefetch(values: &[u64]);
    pointwise::add_assign(out: &mut [u64], x: &[u64], modulus: &Modulus);
    pointwise::sub_assign(out: &mut [u64], x: &[u64], modulus: &Modulus);
    pointwise::neg_assign(out: &mut [u64], modulus: &Modulus);
    pointwise::mul(out: &mut [u64], x: &[u64], y: &[u64], modulus: &Modulus);
    pointwise::mul_assign(out: &mut [u64], x: &[u64], modulus: &Modulus);
    pointwise::mul_blocks(out: &mut [u64], values: &[u64], weights: &[u64], modulus: &Modulus);
    pointwise::scale_assign(out: &mut [u64], factor: Shoup, modulus: &Modulus);
    pointwise::sub_from_scale(out: &mut [u64], x: &[u64], factor: Shoup, modulus: &Modulus);
    pointwise::permute(out: &mut [u64], input: &[u64], blocks: &[u32], orders: &[[u64; 8]; 8]);
    pointwise::reduce_signed(out: &mut [u64], x: &[i64], modulus: &Modulus);
    product::pack(out: &mut [u8], values: &[u64], bits: usize, place: (usize, usize));
    product::key_product(out: [&mut [u64]; 2], product: &KeyProduct<'_>, start: usize, modulus: &Modulus);
    sums::dot(out: &mut [u64], terms: &[Term<'_>], modulus: &Modulus);
    tiles::tile_sums(sums: &mut [TileSum<'_>], tiles: Tiles<'_>, modulus: &Modulus);
    sums::convert_prepare(out: &mut [u64], sources: &Sources<'_>);
    sums::convert_combine(out: &mut [u64], prepared: &[u64], target: &Target<'_>);
    sums::convert_combine_two(outs: [&mut [u64]; 2], prepared: &[u64], targets: [&Target<'_>; 2]);
    matrix::product(a: Left<'_>, b: Lines<'_>, start: Start<'_>, out: Out<'_>);
    matrix::product_transposed(a: Left<'_>, b: Lines<'_>, start: Start<'_>, out: Out<'_>);
}

impl Avx512 {
    /// See [`super::wide::wide`].
    #[inline]
    pub fn wide<L: super::wide::Loop>(self, body: L) -> L::Output {
        #[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
        fn entry<L: super::wide::Loop>(body: L) -> L::Output {
            body.run()
        }
        // SAFETY: `self` exists only where the features were detected.
        unsafe { entry(body) }
    }
}

/// A modulus spread over a vector.
#[derive(Clone, Copy)]
struct Mod {
    q: V,
    two_q: V,
    /// 2^52 − q.
    minus_q: V,
    mask: V,
    zero: V,
}

/// A fixed factor and its 52-bit quotient, spread over a vector or one per lane.
#[derive(Clone, Copy)]
struct Factor {
    value: V,
    quotient: V,
}

/// Barrett constants on top of [`Mod`].
#[derive(Clone, Copy)]
struct Barrett {
    m: Mod,
    bits: u32,
    ratio: V,
    /// bits − 2 and 54 − bits.
    low_shift: V,
    high_shift: V,
    /// bits − 3, the mask of as many bits, and 2^(bits + 49) mod q.
    fold_shift: V,
    fold_mask: V,
    fold_factor: V,
}

impl Mod {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn new(modulus: &Modulus) -> Self {
        let q = modulus.value();
        Self {
            q: spread(q),
            two_q: spread(2 * q),
            minus_q: spread((1 << 52) - q),
            mask: spread((1 << 52) - 1),
            zero: _mm512_setzero_si512(),
        }
    }

    /// w·x in [0, 2q) for x < 2^52.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn mul_lazy(self, x: V, w: Factor) -> V {
        let estimate = _mm512_madd52hi_epu64(self.zero, x, w.quotient);
        let low = _mm512_madd52lo_epu64(self.zero, x, w.value);
        _mm512_and_si512(_mm512_madd52lo_epu64(low, estimate, self.minus_q), self.mask)
    }

    /// Below 2q → below q.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn reduce2(self, x: V) -> V {
        _mm512_min_epu64(x, _mm512_sub_epi64(x, self.q))
    }

    /// Below 4q → below q.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn reduce4(self, x: V) -> V {
        self.reduce2(_mm512_min_epu64(x, _mm512_sub_epi64(x, self.two_q)))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn add(self, x: V, y: V) -> V {
        self.reduce2(_mm512_add_epi64(x, y))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn sub(self, x: V, y: V) -> V {
        // A negative difference is huge as unsigned number, so the one with q added is the smaller.
        let d = _mm512_sub_epi64(x, y);
        _mm512_min_epu64(d, _mm512_add_epi64(d, self.q))
    }
}

impl Factor {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn of(w: Shoup) -> Self {
        Self { value: spread(w.value), quotient: spread(w.quotient >> 12) }
    }
}

impl Barrett {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn new(modulus: &Modulus) -> Self {
        let bits = u64::from(modulus.bits());
        let fold = bits.saturating_sub(3);
        Self {
            m: Mod::new(modulus),
            bits: modulus.bits(),
            ratio: spread(modulus.ratio() >> 12),
            low_shift: spread(bits - 2),
            high_shift: spread(54 - bits),
            fold_shift: spread(fold),
            fold_mask: spread((1 << fold) - 1),
            fold_factor: spread(modulus.reduce_wide(1u128 << (fold + 52))),
        }
    }

    /// x·y of residues.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn mul(self, x: V, y: V) -> V {
        let low = _mm512_madd52lo_epu64(self.m.zero, x, y);
        let high = _mm512_madd52hi_epu64(self.m.zero, x, y);
        self.reduce_pair(low, high)
    }

    /// high·2^52 + low, below 2^(bits + 50), low below 2^52.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn reduce_pair(self, low: V, high: V) -> V {
        let top =
            _mm512_or_si512(_mm512_sllv_epi64(high, self.high_shift), _mm512_srlv_epi64(low, self.low_shift));
        self.finish(top, low)
    }

    /// Value whose bits from bits − 2 upwards are `top` (below 2^52) and whose low 52 bits are those of `low`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn finish(self, top: V, low: V) -> V {
        let estimate = _mm512_madd52hi_epu64(self.m.zero, top, self.ratio);
        let r = _mm512_and_si512(_mm512_madd52lo_epu64(low, estimate, self.m.minus_q), self.m.mask);
        self.m.reduce4(r)
    }

    /// Whether a sum of `terms` products of residues with factors of at most `bits` bits stays below 2^(bits of q + 50).
    pub(super) fn fits(terms: usize, bits: u32) -> bool {
        terms.next_power_of_two().ilog2() + bits <= 50
    }

    /// high·2^52 + low with accumulators of products that [`Barrett::fits`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn reduce_short_sum(self, low: V, high: V) -> V {
        let high = _mm512_add_epi64(high, _mm512_srli_epi64::<52>(low));
        self.reduce_pair(_mm512_and_si512(low, self.m.mask), high)
    }

    /// high·2^52 + low with accumulators of up to 4096 products.
    ///
    /// The carry of `low` goes to `high`; what `high` has above 2^(bits − 3) is multiplied by 2^(bits + 49) mod q, which
    /// leaves less than 2^(bits + 50).
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn reduce_sum(self, low: V, high: V) -> V {
        let high = _mm512_add_epi64(high, _mm512_srli_epi64::<52>(low));
        let low = _mm512_and_si512(low, self.m.mask);
        let excess = _mm512_srlv_epi64(high, self.fold_shift);
        let high = _mm512_and_si512(high, self.fold_mask);
        let low = _mm512_madd52lo_epu64(low, excess, self.fold_factor);
        let high = _mm512_madd52hi_epu64(high, excess, self.fold_factor);
        let high = _mm512_add_epi64(high, _mm512_srli_epi64::<52>(low));
        self.reduce_pair(_mm512_and_si512(low, self.m.mask), high)
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn spread(x: u64) -> V {
    _mm512_set1_epi64(x as i64)
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn load(x: &Lane) -> V {
    // SAFETY: eight words are borrowed; the instruction needs no alignment.
    unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn store(x: &mut Lane, v: V) {
    // SAFETY: eight words are borrowed for writing; the instruction needs no alignment.
    unsafe { _mm512_storeu_si512(x.as_mut_ptr().cast(), v) }
}

/// Asks for the line that lies `bytes` behind a place: streams from outer caches and permuted vectors arrive late
/// otherwise. A hint; the address need not exist.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn prefetch<T>(place: &T, bytes: usize) {
    _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).wrapping_byte_add(bytes).cast());
}
