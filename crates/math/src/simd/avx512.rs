//! Kernels for processors with AVX-512 F, DQ and IFMA: eight residues at a time, 52-bit products.
//!
//! **Bounds** (q < 2^50, so 4q < 2^52). With ⌊w·2^52/q⌋, which is the 64-bit quotient without its low 12 bits, the Shoup
//! product of any x < 2^52 lies in [0, 2q). The forward transform keeps values below 4q (Harvey, 2014): x is brought
//! below 2q, then x + t and x − t + 2q are below 4q. The inverse keeps them below 2q. Sums of products keep the low and
//! high 52-bit halves in two 64-bit accumulators; up to 4096 terms fit. Everything is fully reduced before it is stored,
//! so results equal the scalar ones bit for bit.
//!
//! The only `unsafe` here is loading and storing eight words that are borrowed as an array, and entering code that needs
//! the processor features, which the existence of an [`Avx512`] proves.
#![allow(unsafe_code, reason = "vector instructions; see the module's text")]

use super::{Term, Twiddles, Weights, scalar};
use crate::modulus::{Modulus, Shoup};
use std::arch::x86_64::*;

type V = __m512i;
type Lane = [u64; 8];

/// Below this length the scalar kernels run.
const MIN_LEN: usize = 64;
/// Values whose accumulators fit the registers of one sum of products.
const BLOCK: usize = 64;
/// Terms of one sum of products before its accumulators are reduced.
const MAX_TERMS: usize = 4000;

/// Proof that this processor has the features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Avx512(());

macro_rules! entries {
    ($($name:ident ( $($arg:ident : $type:ty),* );)*) => {
        impl Avx512 {
            /// Looks at the processor.
            #[must_use]
            pub fn detect() -> Option<Self> {
                (is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512ifma"))
                .then_some(Self(()))
            }
            $(
                #[doc = concat!("See [`super::", stringify!($name), "`].")]
                pub fn $name(self, $($arg: $type),*) {
                    // SAFETY: `self` exists only where the features were detected.
                    unsafe { $name($($arg),*) }
                }
            )*
        }
    };
}

entries! {
    ntt_forward(values: &mut [u64], twiddles: Twiddles<'_>, modulus: &Modulus);
    ntt_inverse(values: &mut [u64], twiddles: Twiddles<'_>, scale: Shoup, last: Shoup, modulus: &Modulus);
    fold(values: &mut [u64], iota: Shoup, modulus: &Modulus);
    unfold(values: &mut [u64], iota: Shoup, modulus: &Modulus);
    add_assign(out: &mut [u64], x: &[u64], modulus: &Modulus);
    sub_assign(out: &mut [u64], x: &[u64], modulus: &Modulus);
    neg_assign(out: &mut [u64], modulus: &Modulus);
    mul(out: &mut [u64], x: &[u64], y: &[u64], modulus: &Modulus);
    mul_assign(out: &mut [u64], x: &[u64], modulus: &Modulus);
    mul_blocks(out: &mut [u64], values: &[u64], weights: &[u64], modulus: &Modulus);
    scale_assign(out: &mut [u64], factor: Shoup, modulus: &Modulus);
    sub_from_scale(out: &mut [u64], x: &[u64], factor: Shoup, modulus: &Modulus);
    reduce_signed(out: &mut [u64], x: &[i64], modulus: &Modulus);
    dot(out: &mut [u64], terms: &[Term<'_>], modulus: &Modulus);
    convert_prepare(limbs: &mut [u64], overflow: &mut [u64], factors: &[Shoup], moduli: &[Modulus]);
    convert_combine(
        out: &mut [u64], limbs: &[u64], overflow: &[u64], hats: &[u64], correction: u64, modulus: &Modulus
    );
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
    ratio: V,
    /// bits − 2 and 54 − bits.
    low_shift: V,
    high_shift: V,
    /// bits − 3, the mask of as many bits, and 2^(bits + 49) mod q.
    fold_shift: V,
    fold_mask: V,
    fold_factor: V,
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn ntt_forward(values: &mut [u64], twiddles: Twiddles<'_>, modulus: &Modulus) {
    let n = values.len();
    if n < MIN_LEN {
        return scalar::ntt_forward(values, twiddles, modulus);
    }
    let m52 = Mod::new(modulus);
    let (lanes, _) = values.as_chunks_mut::<8>();
    let mut m = 1;
    // The last three levels are done within registers, so an odd rest is one level alone and then pairs.
    if n.trailing_zeros().is_multiple_of(2) {
        let w = Factor::spread(twiddles, 1);
        let (low, high) = lanes.split_at_mut(n / 16);
        for (x, y) in low.iter_mut().zip(high) {
            let (a, b) = m52.butterfly(load(x), load(y), w);
            store(x, a);
            store(y, b);
        }
        m = 2;
    }
    while n / m > 8 {
        let quarter = n / (4 * m) / 8;
        for (j, node) in lanes.chunks_exact_mut(4 * quarter).enumerate() {
            let w1 = Factor::spread(twiddles, m + j);
            let w2 = Factor::spread(twiddles, 2 * m + 2 * j);
            let w3 = Factor::spread(twiddles, 2 * m + 2 * j + 1);
            let (ab, cd) = node.split_at_mut(2 * quarter);
            let ((a, b), (c, d)) = (ab.split_at_mut(quarter), cd.split_at_mut(quarter));
            for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
                let (a1, c1) = m52.butterfly(load(a), load(c), w1);
                let (b1, d1) = m52.butterfly(load(b), load(d), w1);
                let (a2, b2) = m52.butterfly(a1, b1, w2);
                let (c2, d2) = m52.butterfly(c1, d1, w3);
                store(a, a2);
                store(b, b2);
                store(c, c2);
                store(d, d2);
            }
        }
        m *= 4;
    }
    forward_tail(lanes, twiddles, m52);
}

/// The levels with halves of 4, 2 and 1 values, two vectors at a time, and the final reduction.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn forward_tail(lanes: &mut [Lane], twiddles: Twiddles<'_>, m: Mod) {
    let n = lanes.len() * 8;
    let tables = TailTables::new(twiddles, n);
    let (pairs, _) = lanes.as_chunks_mut::<2>();
    let low4 = _mm512_set_epi64(11, 10, 9, 8, 3, 2, 1, 0);
    let high4 = _mm512_set_epi64(15, 14, 13, 12, 7, 6, 5, 4);
    let low2 = _mm512_set_epi64(13, 12, 5, 4, 9, 8, 1, 0);
    let high2 = _mm512_set_epi64(15, 14, 7, 6, 11, 10, 3, 2);
    let first = _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0);
    let second = _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4);
    for (index, [p, r]) in pairs.iter_mut().enumerate() {
        let (w4, w2, w1) = tables.at(index);
        let (p0, r0) = (load(p), load(r));
        let x = _mm512_permutex2var_epi64(p0, low4, r0);
        let y = _mm512_permutex2var_epi64(p0, high4, r0);
        let (x, y) = m.butterfly(x, y, w4);
        let (x, y) = (_mm512_permutex2var_epi64(x, low2, y), _mm512_permutex2var_epi64(x, high2, y));
        let (x, y) = m.butterfly(x, y, w2);
        let (x, y) = (_mm512_unpacklo_epi64(x, y), _mm512_unpackhi_epi64(x, y));
        let (x, y) = m.butterfly(x, y, w1);
        let (x, y) = (m.reduce4(x), m.reduce4(y));
        store(p, _mm512_permutex2var_epi64(x, first, y));
        store(r, _mm512_permutex2var_epi64(x, second, y));
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn ntt_inverse(values: &mut [u64], twiddles: Twiddles<'_>, scale: Shoup, last: Shoup, modulus: &Modulus) {
    let n = values.len();
    if n < MIN_LEN {
        return scalar::ntt_inverse(values, twiddles, scale, last, modulus);
    }
    let m52 = Mod::new(modulus);
    let (lanes, _) = values.as_chunks_mut::<8>();
    inverse_tail(lanes, twiddles, m52);
    // Levels from m = n/16 down to 1 are left; the one with m = 1 scales and is done alone or at the end.
    let mut m = n / 16;
    while m >= 4 {
        // Levels m and m/2 together: nodes of the level with m/2 nodes.
        let nodes = m / 2;
        let quarter = n / (4 * nodes) / 8;
        for (j, node) in lanes.chunks_exact_mut(4 * quarter).enumerate() {
            let w1 = Factor::spread(twiddles, nodes + j);
            let w2 = Factor::spread(twiddles, m + 2 * j);
            let w3 = Factor::spread(twiddles, m + 2 * j + 1);
            let (ab, cd) = node.split_at_mut(2 * quarter);
            let ((a, b), (c, d)) = (ab.split_at_mut(quarter), cd.split_at_mut(quarter));
            for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
                let (a1, b1) = m52.inverse_butterfly(load(a), load(b), w2);
                let (c1, d1) = m52.inverse_butterfly(load(c), load(d), w3);
                let (a2, c2) = m52.inverse_butterfly(a1, c1, w1);
                let (b2, d2) = m52.inverse_butterfly(b1, d1, w1);
                store(a, a2);
                store(b, b2);
                store(c, c2);
                store(d, d2);
            }
        }
        m /= 4;
    }
    if m == 2 {
        let half = n / 4 / 8;
        for (j, node) in lanes.chunks_exact_mut(2 * half).enumerate() {
            let w = Factor::spread(twiddles, 2 + j);
            let (low, high) = node.split_at_mut(half);
            for (x, y) in low.iter_mut().zip(high) {
                let (a, b) = m52.inverse_butterfly(load(x), load(y), w);
                store(x, a);
                store(y, b);
            }
        }
    }
    let (scale, last) = (Factor::of(scale), Factor::of(last));
    let (low, high) = lanes.split_at_mut(n / 16);
    for (x, y) in low.iter_mut().zip(high) {
        let (a, b) = (load(x), load(y));
        let difference = _mm512_sub_epi64(_mm512_add_epi64(a, m52.two_q), b);
        store(x, m52.reduce2(m52.mul_lazy(_mm512_add_epi64(a, b), scale)));
        store(y, m52.reduce2(m52.mul_lazy(difference, last)));
    }
}

/// The levels with halves of 1, 2 and 4 values: [`forward_tail`] backwards.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn inverse_tail(lanes: &mut [Lane], twiddles: Twiddles<'_>, m: Mod) {
    let n = lanes.len() * 8;
    let tables = TailTables::new(twiddles, n);
    let (pairs, _) = lanes.as_chunks_mut::<2>();
    let even = _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0);
    let odd = _mm512_set_epi64(15, 13, 11, 9, 7, 5, 3, 1);
    let low2 = _mm512_set_epi64(13, 12, 5, 4, 9, 8, 1, 0);
    let high2 = _mm512_set_epi64(15, 14, 7, 6, 11, 10, 3, 2);
    let low4 = _mm512_set_epi64(11, 10, 9, 8, 3, 2, 1, 0);
    let high4 = _mm512_set_epi64(15, 14, 13, 12, 7, 6, 5, 4);
    for (index, [p, r]) in pairs.iter_mut().enumerate() {
        let (w4, w2, w1) = tables.at(index);
        let (p0, r0) = (load(p), load(r));
        let x = _mm512_permutex2var_epi64(p0, even, r0);
        let y = _mm512_permutex2var_epi64(p0, odd, r0);
        let (x, y) = m.inverse_butterfly(x, y, w1);
        let (x, y) = (_mm512_unpacklo_epi64(x, y), _mm512_unpackhi_epi64(x, y));
        let (x, y) = m.inverse_butterfly(x, y, w2);
        // Both selections are their own inverses.
        let (x, y) = (_mm512_permutex2var_epi64(x, low2, y), _mm512_permutex2var_epi64(x, high2, y));
        let (x, y) = m.inverse_butterfly(x, y, w4);
        store(p, _mm512_permutex2var_epi64(x, low4, y));
        store(r, _mm512_permutex2var_epi64(x, high4, y));
    }
}

/// Twiddles of the last three levels, cut to what two vectors need.
struct TailTables<'a> {
    four: [&'a [[u64; 2]]; 2],
    two: [&'a [[u64; 4]]; 2],
    one: [&'a [Lane]; 2],
}

impl<'a> TailTables<'a> {
    fn new(twiddles: Twiddles<'a>, n: usize) -> Self {
        let both = [twiddles.values, twiddles.quotients];
        Self {
            four: both.map(|t| t[n / 8..n / 4].as_chunks().0),
            two: both.map(|t| t[n / 4..n / 2].as_chunks().0),
            one: both.map(|t| t[n / 2..n].as_chunks().0),
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn at(&self, index: usize) -> (Factor, Factor, Factor) {
        let four = |t: &[[u64; 2]]| {
            let [a, b] = t[index].map(|w| w as i64);
            _mm512_set_epi64(b, b, b, b, a, a, a, a)
        };
        let two_index = _mm512_set_epi64(3, 3, 2, 2, 1, 1, 0, 0);
        let two = |t: &[[u64; 4]]| {
            let [a, b, c, d] = t[index].map(|w| w as i64);
            let four = _mm256_set_epi64x(d, c, b, a);
            _mm512_permutexvar_epi64(two_index, _mm512_castsi256_si512(four))
        };
        (
            Factor::new(four(self.four[0]), four(self.four[1])),
            Factor::new(two(self.two[0]), two(self.two[1])),
            Factor::new(load(&self.one[0][index]), load(&self.one[1][index])),
        )
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn fold(values: &mut [u64], iota: Shoup, modulus: &Modulus) {
    mirrored::<true>(values, iota, modulus);
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn unfold(values: &mut [u64], iota: Shoup, modulus: &Modulus) {
    if let Some(first) = values.first_mut() {
        *first = modulus.add(*first, *first);
    }
    mirrored::<false>(values, iota, modulus);
}

/// x ∓ ι·y and y ∓ ι·x for the mirrored pairs.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn mirrored<const SUBTRACT: bool>(values: &mut [u64], iota: Shoup, modulus: &Modulus) {
    let n = values.len();
    if n < 2 {
        return;
    }
    let m = Mod::new(modulus);
    let w = Factor::of(iota);
    let one = |x: u64, y: u64| {
        let t = modulus.mul_shoup(y, iota);
        if SUBTRACT { modulus.sub(x, t) } else { modulus.add(x, t) }
    };
    let many = |x: V, y: V| {
        let t = m.reduce2(m.mul_lazy(y, w));
        if SUBTRACT { m.sub(x, t) } else { m.add(x, t) }
    };
    let reverse = _mm512_set_epi64(0, 1, 2, 3, 4, 5, 6, 7);
    let (low, high) = values.split_at_mut(n / 2);
    let (low, high) = (&mut low[1..], &mut high[..]);
    let middle = &mut high[0];
    *middle = one(*middle, *middle);
    let (low_lanes, low_rest) = low.as_chunks_mut::<8>();
    let (high_rest, high_lanes) = high[1..].as_rchunks_mut::<8>();
    for (x, y) in low_lanes.iter_mut().zip(high_lanes.iter_mut().rev()) {
        let (a, b) = (load(x), _mm512_permutexvar_epi64(reverse, load(y)));
        store(x, many(a, b));
        store(y, _mm512_permutexvar_epi64(reverse, many(b, a)));
    }
    for (x, y) in low_rest.iter_mut().zip(high_rest.iter_mut().rev()) {
        (*x, *y) = (one(*x, *y), one(*y, *x));
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn add_assign(out: &mut [u64], x: &[u64], modulus: &Modulus) {
    let m = Mod::new(modulus);
    let ((lanes, rest), (xs, x_rest)) = (out.as_chunks_mut(), x.as_chunks());
    for (o, x) in lanes.iter_mut().zip(xs) {
        store(o, m.add(load(o), load(x)));
    }
    scalar::add_assign(rest, x_rest, modulus);
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn sub_assign(out: &mut [u64], x: &[u64], modulus: &Modulus) {
    let m = Mod::new(modulus);
    let ((lanes, rest), (xs, x_rest)) = (out.as_chunks_mut(), x.as_chunks());
    for (o, x) in lanes.iter_mut().zip(xs) {
        store(o, m.sub(load(o), load(x)));
    }
    scalar::sub_assign(rest, x_rest, modulus);
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn neg_assign(out: &mut [u64], modulus: &Modulus) {
    let m = Mod::new(modulus);
    let (lanes, rest) = out.as_chunks_mut();
    for o in lanes {
        store(o, m.sub(m.zero, load(o)));
    }
    scalar::neg_assign(rest, modulus);
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn mul(out: &mut [u64], x: &[u64], y: &[u64], modulus: &Modulus) {
    let b = Barrett::new(modulus);
    let ((lanes, rest), (xs, x_rest), (ys, y_rest)) = (out.as_chunks_mut(), x.as_chunks(), y.as_chunks());
    for ((o, x), y) in lanes.iter_mut().zip(xs).zip(ys) {
        store(o, b.mul(load(x), load(y)));
    }
    scalar::mul(rest, x_rest, y_rest, modulus);
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn mul_assign(out: &mut [u64], x: &[u64], modulus: &Modulus) {
    let b = Barrett::new(modulus);
    let ((lanes, rest), (xs, x_rest)) = (out.as_chunks_mut(), x.as_chunks());
    for (o, x) in lanes.iter_mut().zip(xs) {
        store(o, b.mul(load(o), load(x)));
    }
    scalar::mul_assign(rest, x_rest, modulus);
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn mul_blocks(out: &mut [u64], values: &[u64], weights: &[u64], modulus: &Modulus) {
    let block = out.len() / weights.len().max(1);
    if block < 8 {
        return scalar::mul_blocks(out, values, weights, modulus);
    }
    let b = Barrett::new(modulus);
    for ((o, x), &w) in out.chunks_exact_mut(block).zip(values.chunks_exact(block)).zip(weights) {
        let w = spread(w);
        for (o, x) in o.as_chunks_mut().0.iter_mut().zip(x.as_chunks().0) {
            store(o, b.mul(load(x), w));
        }
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn scale_assign(out: &mut [u64], factor: Shoup, modulus: &Modulus) {
    let (m, w) = (Mod::new(modulus), Factor::of(factor));
    let (lanes, rest) = out.as_chunks_mut();
    for o in lanes {
        store(o, m.reduce2(m.mul_lazy(load(o), w)));
    }
    scalar::scale_assign(rest, factor, modulus);
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn sub_from_scale(out: &mut [u64], x: &[u64], factor: Shoup, modulus: &Modulus) {
    let (m, w) = (Mod::new(modulus), Factor::of(factor));
    let ((lanes, rest), (xs, x_rest)) = (out.as_chunks_mut(), x.as_chunks());
    for (o, x) in lanes.iter_mut().zip(xs) {
        let difference = _mm512_sub_epi64(_mm512_add_epi64(load(x), m.q), load(o));
        store(o, m.reduce2(m.mul_lazy(difference, w)));
    }
    scalar::sub_from_scale(rest, x_rest, factor, modulus);
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn reduce_signed(out: &mut [u64], x: &[i64], modulus: &Modulus) {
    let b = Barrett::new(modulus);
    let limit = spread(1 << 52);
    let ((lanes, rest), (xs, x_rest)) = (out.as_chunks_mut::<8>(), x.as_chunks::<8>());
    for (o, x) in lanes.iter_mut().zip(xs) {
        // SAFETY: eight words are borrowed.
        let v = unsafe { _mm512_loadu_si512(x.as_ptr().cast()) };
        let magnitude = _mm512_abs_epi64(v);
        if _mm512_cmpge_epu64_mask(magnitude, limit) != 0 {
            scalar::reduce_signed(o, x, modulus);
            continue;
        }
        let r = b.finish(_mm512_srlv_epi64(magnitude, b.low_shift), magnitude);
        store(o, _mm512_mask_mov_epi64(r, _mm512_movepi64_mask(v), b.m.sub(b.m.zero, r)));
    }
    scalar::reduce_signed(rest, x_rest, modulus);
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn dot(out: &mut [u64], terms: &[Term<'_>], modulus: &Modulus) {
    let n = out.len();
    if n < BLOCK {
        return scalar::dot(out, terms, modulus);
    }
    let b = Barrett::new(modulus);
    let (blocks, _) = out.as_chunks_mut::<BLOCK>();
    let mut weights_buffer = [0u64; BLOCK];
    for (index, out) in blocks.iter_mut().enumerate() {
        let start = index * BLOCK;
        let mut low = [b.m.zero; BLOCK / 8];
        let mut high = [b.m.zero; BLOCK / 8];
        for (count, term) in terms.iter().enumerate() {
            if count % MAX_TERMS == MAX_TERMS - 1 {
                for (l, h) in low.iter_mut().zip(&mut high) {
                    (*l, *h) = (b.reduce_sum(*l, *h), b.m.zero);
                }
            }
            let (values, _) = term.values[start..start + BLOCK].as_chunks::<8>();
            let weights = match term.weights {
                Weights::Full(weights) => &weights[start..start + BLOCK],
                Weights::Blocks(weights) if n / weights.len() >= BLOCK => {
                    let w = spread(weights[start / (n / weights.len())]);
                    for ((l, h), x) in low.iter_mut().zip(&mut high).zip(values) {
                        let x = load(x);
                        *l = _mm512_madd52lo_epu64(*l, x, w);
                        *h = _mm512_madd52hi_epu64(*h, x, w);
                    }
                    continue;
                }
                Weights::Blocks(weights) => {
                    let size = n / weights.len();
                    for (chunk, &w) in weights_buffer.chunks_exact_mut(size).zip(&weights[start / size..]) {
                        chunk.fill(w);
                    }
                    &weights_buffer[..]
                }
            };
            for (((l, h), x), w) in low.iter_mut().zip(&mut high).zip(values).zip(weights.as_chunks::<8>().0)
            {
                let (x, w) = (load(x), load(w));
                *l = _mm512_madd52lo_epu64(*l, x, w);
                *h = _mm512_madd52hi_epu64(*h, x, w);
            }
        }
        for ((o, l), h) in out.as_chunks_mut().0.iter_mut().zip(low).zip(high) {
            store(o, b.reduce_sum(l, h));
        }
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn convert_prepare(limbs: &mut [u64], overflow: &mut [u64], factors: &[Shoup], moduli: &[Modulus]) {
    let n = overflow.len();
    if !n.is_multiple_of(8) {
        return scalar::convert_prepare(limbs, overflow, factors, moduli);
    }
    for (index, o) in overflow.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let mut sum = _mm512_set1_pd(0.5);
        for ((limb, &factor), modulus) in limbs.chunks_exact_mut(n).zip(factors).zip(moduli) {
            let m = Mod::new(modulus);
            let x = &mut limb.as_chunks_mut().0[index];
            let scaled = m.reduce2(m.mul_lazy(load(x), Factor::of(factor)));
            store(x, scaled);
            // Product and sum are rounded apart, as in the scalar twin.
            let inverse = _mm512_set1_pd(1.0 / modulus.value() as f64);
            sum = _mm512_add_pd(sum, _mm512_mul_pd(_mm512_cvtepu64_pd(scaled), inverse));
        }
        store(o, _mm512_cvttpd_epu64(sum));
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn convert_combine(
    out: &mut [u64],
    limbs: &[u64],
    overflow: &[u64],
    hats: &[u64],
    correction: u64,
    modulus: &Modulus,
) {
    let n = out.len();
    if !n.is_multiple_of(8) {
        return scalar::convert_combine(out, limbs, overflow, hats, correction, modulus);
    }
    let b = Barrett::new(modulus);
    let correction = spread(correction);
    for ((index, o), v) in out.as_chunks_mut().0.iter_mut().enumerate().zip(overflow.as_chunks().0) {
        let v = load(v);
        let mut low = _mm512_madd52lo_epu64(b.m.zero, v, correction);
        let mut high = _mm512_madd52hi_epu64(b.m.zero, v, correction);
        for (limb, &hat) in limbs.chunks_exact(n).zip(hats) {
            let (x, hat) = (load(&limb.as_chunks().0[index]), spread(hat));
            low = _mm512_madd52lo_epu64(low, x, hat);
            high = _mm512_madd52hi_epu64(high, x, hat);
        }
        store(o, b.reduce_sum(low, high));
    }
}

impl Mod {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn new(modulus: &Modulus) -> Self {
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
    fn mul_lazy(self, x: V, w: Factor) -> V {
        let estimate = _mm512_madd52hi_epu64(self.zero, x, w.quotient);
        let low = _mm512_madd52lo_epu64(self.zero, x, w.value);
        _mm512_and_si512(_mm512_madd52lo_epu64(low, estimate, self.minus_q), self.mask)
    }

    /// Below 2q → below q.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn reduce2(self, x: V) -> V {
        _mm512_min_epu64(x, _mm512_sub_epi64(x, self.q))
    }

    /// Below 4q → below q.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn reduce4(self, x: V) -> V {
        self.reduce2(_mm512_min_epu64(x, _mm512_sub_epi64(x, self.two_q)))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn add(self, x: V, y: V) -> V {
        self.reduce2(_mm512_add_epi64(x, y))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn sub(self, x: V, y: V) -> V {
        // A negative difference is huge as unsigned number, so the one with q added is the smaller.
        let d = _mm512_sub_epi64(x, y);
        _mm512_min_epu64(d, _mm512_add_epi64(d, self.q))
    }

    /// (x + w·y, x − w·y), all below 4q.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn butterfly(self, x: V, y: V, w: Factor) -> (V, V) {
        let x = _mm512_min_epu64(x, _mm512_sub_epi64(x, self.two_q));
        let t = self.mul_lazy(y, w);
        (_mm512_add_epi64(x, t), _mm512_sub_epi64(_mm512_add_epi64(x, self.two_q), t))
    }

    /// (x + y, w·(x − y)), all below 2q.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn inverse_butterfly(self, x: V, y: V, w: Factor) -> (V, V) {
        let sum = _mm512_add_epi64(x, y);
        let difference = _mm512_sub_epi64(_mm512_add_epi64(x, self.two_q), y);
        (_mm512_min_epu64(sum, _mm512_sub_epi64(sum, self.two_q)), self.mul_lazy(difference, w))
    }
}

impl Factor {
    /// From 64-bit quotients.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn new(value: V, quotient: V) -> Self {
        Self { value, quotient: _mm512_srli_epi64::<12>(quotient) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn of(w: Shoup) -> Self {
        Self { value: spread(w.value), quotient: spread(w.quotient >> 12) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn spread(twiddles: Twiddles<'_>, index: usize) -> Self {
        Self::of(Shoup { value: twiddles.values[index], quotient: twiddles.quotients[index] })
    }
}

impl Barrett {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn new(modulus: &Modulus) -> Self {
        let bits = u64::from(modulus.bits());
        let fold = bits.saturating_sub(3);
        Self {
            m: Mod::new(modulus),
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
    fn mul(self, x: V, y: V) -> V {
        let low = _mm512_madd52lo_epu64(self.m.zero, x, y);
        let high = _mm512_madd52hi_epu64(self.m.zero, x, y);
        self.reduce_pair(low, high)
    }

    /// high·2^52 + low, below 2^(bits + 50), low below 2^52.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn reduce_pair(self, low: V, high: V) -> V {
        let top =
            _mm512_or_si512(_mm512_sllv_epi64(high, self.high_shift), _mm512_srlv_epi64(low, self.low_shift));
        self.finish(top, low)
    }

    /// Value whose bits from bits − 2 upwards are `top` (below 2^52) and whose low 52 bits are those of `low`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn finish(self, top: V, low: V) -> V {
        let estimate = _mm512_madd52hi_epu64(self.m.zero, top, self.ratio);
        let r = _mm512_and_si512(_mm512_madd52lo_epu64(low, estimate, self.m.minus_q), self.m.mask);
        self.m.reduce4(r)
    }

    /// high·2^52 + low with accumulators of up to 4096 products.
    ///
    /// The carry of `low` goes to `high`; what `high` has above 2^(bits − 3) is multiplied by 2^(bits + 49) mod q, which
    /// leaves less than 2^(bits + 50).
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn reduce_sum(self, low: V, high: V) -> V {
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
