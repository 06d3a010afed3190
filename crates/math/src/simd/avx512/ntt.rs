//! Transforms, and the folding between the conjugate-invariant ring and them.

use super::super::{Twiddles, scalar};
use super::{Factor, Lane, Mod, V, load, store};
use crate::modulus::{Modulus, Shoup};
use std::arch::x86_64::*;

/// Below this length the scalar kernels run.
const MIN_LEN: usize = 64;

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn ntt_forward(values: &mut [u64], twiddles: Twiddles<'_>, modulus: &Modulus) {
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
pub(super) fn ntt_inverse(
    values: &mut [u64],
    twiddles: Twiddles<'_>,
    scale: Shoup,
    last: Shoup,
    modulus: &Modulus,
) {
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
pub(super) fn fold(values: &mut [u64], iota: Shoup, modulus: &Modulus) {
    mirrored::<true>(values, iota, modulus);
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn unfold(values: &mut [u64], iota: Shoup, modulus: &Modulus) {
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
