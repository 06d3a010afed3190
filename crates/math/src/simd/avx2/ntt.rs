//! Transforms: two levels a pass, the last four levels within registers, blocks that fit the first cache finished before
//! the next. Between the passes the buffer holds the bits of doubles.
//!
//! **Bounds**, in units of q, of a pass over (a, b, c, d) whose inputs are at most B; a product of |x| is at most
//! 1/2 + |x|·s with s = q·2^−53, see [`super`]. Products need |x| < 2^52.
//!
//! * *Forward, q < 2^48* (s ≤ 1/32): nothing is reduced before the end. A level takes B to at most B + 1/2 + B/32, which
//!   starts at 1 and is below 12.7 after 17 levels, and 12.7·2^48 < 2^52.
//! * *Forward, larger q* (s ≤ 1/8): a and b are reduced to 1/2 first. After one level all are at most 1 + B/8, after two
//!   at most 13/8 + 9·B/64, hence below 1.9 always, and 1.9·2^50 < 2^52.
//! * *Inverse, q < 2^48*: only the sum of all four is reduced; the others are at most 2·(1/2 + 2B/32), so B stays below 8/7,
//!   and 4B·2^48 < 2^52.
//! * *Inverse, larger q*: the two sums of the first level are reduced. Then the largest is the sum of two products,
//!   2·(1/2 + 2B/8) = 1 + B/2, which starts at 1 and stays below 2; the largest factor, a difference of the first level or of
//!   those products, is at most 2B, and 2B·2^50 < 2^52. (What the roundings add to B is below 2^−48, less than what is
//!   missing to 2 after the eight passes of the largest degree.)

use super::super::{Twiddles, scalar};
use super::{Factor, Lane, MIN_TRANSFORM, Mod, V, double, load, store};
use crate::modulus::{Modulus, Shoup};
use std::arch::x86_64::*;

/// Largest modulus of the lean kernels.
const LEAN_BITS: u32 = 48;
/// Vectors of a block that is finished before the next one is begun: 4 to 16 kB.
const BLOCK: usize = 512;
/// Values of the last four levels' nodes, as vectors.
type Node = [Lane; 4];

#[target_feature(enable = "avx2,fma")]
pub(super) fn ntt_forward(values: &mut [u64], twiddles: Twiddles<'_>, modulus: &Modulus) {
    if values.len() < MIN_TRANSFORM {
        return scalar::ntt_forward(values, twiddles, modulus);
    }
    let (lanes, _) = values.as_chunks_mut();
    let m = Mod::new(modulus);
    if modulus.bits() > LEAN_BITS {
        forward::<true>(lanes, twiddles.doubles, m);
    } else {
        forward::<false>(lanes, twiddles.doubles, m);
    }
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn ntt_inverse(
    values: &mut [u64],
    twiddles: Twiddles<'_>,
    scale: Shoup,
    last: Shoup,
    modulus: &Modulus,
) {
    if values.len() < MIN_TRANSFORM {
        return scalar::ntt_inverse(values, twiddles, scale, last, modulus);
    }
    let (lanes, _) = values.as_chunks_mut();
    let m = Mod::new(modulus);
    let ends = [m.spread(scale.value), m.spread(last.value)];
    if modulus.bits() > LEAN_BITS {
        inverse::<true>(lanes, twiddles.doubles, ends, m);
    } else {
        inverse::<false>(lanes, twiddles.doubles, ends, m);
    }
}

#[target_feature(enable = "avx2,fma")]
fn forward<const WIDE: bool>(lanes: &mut [Lane], w: &[u64], m: Mod) {
    let w = &w[..4 * lanes.len()];
    // The first pass turns words into doubles, and takes one level where the number of levels is odd.
    let mut nodes = first_nodes(lanes.len());
    if nodes == 2 {
        let w = broadcast(m, w[1]);
        let (low, high) = lanes.split_at_mut(lanes.len() / 2);
        for (x, y) in low.iter_mut().zip(high) {
            let (a, t) = (double(load(x)), m.mul(double(load(y)), w));
            put(x, _mm256_add_pd(a, t));
            put(y, _mm256_sub_pd(a, t));
        }
    } else {
        let w = Quad::new(m, w, 1, 0);
        each_four(lanes, |x| w.forward::<WIDE>(m, x.map(|x| double(_mm256_castpd_si256(x)))));
    }
    while lanes.len() / nodes > BLOCK {
        forward_pass::<WIDE>(lanes, w, nodes, 0, m);
        nodes *= 4;
    }
    let size = lanes.len() / nodes;
    for (j, block) in lanes.chunks_exact_mut(size).enumerate() {
        let mut inner = 1;
        while size / inner > 4 {
            forward_pass::<WIDE>(block, w, nodes * inner, j * inner, m);
            inner *= 4;
        }
        forward_tail::<WIDE>(block, w, nodes * inner, j * inner, m);
    }
}

#[target_feature(enable = "avx2,fma")]
fn inverse<const WIDE: bool>(lanes: &mut [Lane], w: &[u64], [scale, last]: [Factor; 2], m: Mod) {
    let w = &w[..4 * lanes.len()];
    let first = first_nodes(lanes.len());
    let mut nodes = first;
    while lanes.len() / nodes > BLOCK {
        nodes *= 4;
    }
    let size = lanes.len() / nodes;
    for (j, block) in lanes.chunks_exact_mut(size).enumerate() {
        let mut inner = size / 4;
        inverse_tail::<WIDE>(block, w, nodes * inner, j * inner, m);
        while inner > 1 {
            inner /= 4;
            inverse_pass::<WIDE>(block, w, nodes * inner, j * inner, m);
        }
    }
    while nodes > first {
        nodes /= 4;
        inverse_pass::<WIDE>(lanes, w, nodes, 0, m);
    }
    // The last pass scales and turns doubles into words.
    if nodes == 2 {
        let (low, high) = lanes.split_at_mut(lanes.len() / 2);
        for (x, y) in low.iter_mut().zip(high) {
            let (a, b) = (get(x), get(y));
            store(x, m.word(m.mul(_mm256_add_pd(a, b), scale)));
            store(y, m.word(m.mul(_mm256_sub_pd(a, b), last)));
        }
    } else {
        let w = Quad { one: last, ..Quad::new(m, w, 1, 0) };
        each_four(lanes, |x| {
            let [a, b, c, d] = w.inverse_first::<WIDE>(m, x);
            let (a, c) = (m.mul(_mm256_add_pd(a, c), scale), m.mul(_mm256_sub_pd(a, c), w.one));
            let (b, d) = (m.mul(_mm256_add_pd(b, d), scale), m.mul(_mm256_sub_pd(b, d), w.one));
            [a, b, c, d].map(|x| _mm256_castsi256_pd(m.word(x)))
        });
    }
}

/// Nodes after the first pass, so that pairs of levels and four levels are left.
fn first_nodes(vectors: usize) -> usize {
    if vectors.trailing_zeros().is_multiple_of(2) { 4 } else { 2 }
}

/// Two levels of consecutive nodes that fill `lanes`, the first of them node `j` of the level with `nodes` nodes.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn forward_pass<const WIDE: bool>(lanes: &mut [Lane], w: &[u64], nodes: usize, j: usize, m: Mod) {
    let size = w.len() / 4 / nodes;
    for (j, node) in (j..).zip(lanes.chunks_exact_mut(size)) {
        let w = Quad::new(m, w, nodes, j);
        each_four(node, |x| w.forward::<WIDE>(m, x));
    }
}

/// [`forward_pass`] backwards.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn inverse_pass<const WIDE: bool>(lanes: &mut [Lane], w: &[u64], nodes: usize, j: usize, m: Mod) {
    let size = w.len() / 4 / nodes;
    for (j, node) in (j..).zip(lanes.chunks_exact_mut(size)) {
        let w = Quad::new(m, w, nodes, j);
        each_four(node, |x| w.inverse::<WIDE>(m, x));
    }
}

/// The last four levels, from doubles to words. Two nodes at a time hide the latency of one.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn forward_tail<const WIDE: bool>(lanes: &mut [Lane], w: &[u64], nodes: usize, j: usize, m: Mod) {
    let (pairs, _) = lanes.as_chunks_mut::<4>().0.as_chunks_mut::<2>();
    let mut tails = Tail::all(w, nodes, j);
    for [p, r] in pairs {
        let (Some(s), Some(t)) = (tails.next(), tails.next()) else { return };
        let x = s.upper(m).forward::<WIDE>(m, get_all(p));
        let y = t.upper(m).forward::<WIDE>(m, get_all(r));
        let (x, y) = (transpose(x), transpose(y));
        let x = s.lower(m).forward::<WIDE>(m, x);
        let y = t.lower(m).forward::<WIDE>(m, y);
        let x = x.map(|x| _mm256_castsi256_pd(m.word(m.reduce(x))));
        let y = y.map(|y| _mm256_castsi256_pd(m.word(m.reduce(y))));
        put_all(p, transpose(x));
        put_all(r, transpose(y));
    }
}

/// The first four levels of the inverse, from words to doubles.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn inverse_tail<const WIDE: bool>(lanes: &mut [Lane], w: &[u64], nodes: usize, j: usize, m: Mod) {
    let (pairs, _) = lanes.as_chunks_mut::<4>().0.as_chunks_mut::<2>();
    let mut tails = Tail::all(w, nodes, j);
    for [p, r] in pairs {
        let (Some(s), Some(t)) = (tails.next(), tails.next()) else { return };
        let x = transpose(get_all(p).map(|x| double(_mm256_castpd_si256(x))));
        let y = transpose(get_all(r).map(|y| double(_mm256_castpd_si256(y))));
        let x = s.lower(m).inverse::<WIDE>(m, x);
        let y = t.lower(m).inverse::<WIDE>(m, y);
        let (x, y) = (transpose(x), transpose(y));
        put_all(p, s.upper(m).inverse::<WIDE>(m, x));
        put_all(r, t.upper(m).inverse::<WIDE>(m, y));
    }
}

/// Factors of two levels: one of the upper, two of the lower.
#[derive(Clone, Copy)]
struct Quad {
    one: Factor,
    two: Factor,
    three: Factor,
}

impl Quad {
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn new(m: Mod, w: &[u64], nodes: usize, j: usize) -> Self {
        let lower = 2 * (nodes + j);
        let [one, two, three] = [nodes + j, lower, lower + 1].map(|k| broadcast(m, w[k]));
        Self { one, two, three }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn forward<const WIDE: bool>(&self, m: Mod, [a, b, c, d]: [V; 4]) -> [V; 4] {
        let (a, b) = if WIDE { (m.reduce(a), m.reduce(b)) } else { (a, b) };
        let (c, d) = (m.mul(c, self.one), m.mul(d, self.one));
        let (a, c) = (_mm256_add_pd(a, c), _mm256_sub_pd(a, c));
        let (b, d) = (_mm256_add_pd(b, d), _mm256_sub_pd(b, d));
        let (b, d) = (m.mul(b, self.two), m.mul(d, self.three));
        [_mm256_add_pd(a, b), _mm256_sub_pd(a, b), _mm256_add_pd(c, d), _mm256_sub_pd(c, d)]
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn inverse<const WIDE: bool>(&self, m: Mod, x: [V; 4]) -> [V; 4] {
        let [a, b, c, d] = self.inverse_first::<WIDE>(m, x);
        let (a, c) = (_mm256_add_pd(a, c), m.mul(_mm256_sub_pd(a, c), self.one));
        let (b, d) = (_mm256_add_pd(b, d), m.mul(_mm256_sub_pd(b, d), self.one));
        [if WIDE { a } else { m.reduce(a) }, b, c, d]
    }

    /// The lower level alone.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn inverse_first<const WIDE: bool>(&self, m: Mod, [a, b, c, d]: [V; 4]) -> [V; 4] {
        let (a, b) = (_mm256_add_pd(a, b), m.mul(_mm256_sub_pd(a, b), self.two));
        let (c, d) = (_mm256_add_pd(c, d), m.mul(_mm256_sub_pd(c, d), self.three));
        if WIDE { [m.reduce(a), b, m.reduce(c), d] } else { [a, b, c, d] }
    }
}

/// Twiddles of the last four levels below one node of sixteen values.
struct Tail<'a> {
    upper: (&'a u64, &'a [u64; 2]),
    lower: (&'a Lane, &'a [Lane; 2]),
}

impl<'a> Tail<'a> {
    /// Of node `j` and all that follow it on the level with `nodes` = n/16 nodes.
    #[inline]
    fn all(w: &'a [u64], nodes: usize, j: usize) -> impl Iterator<Item = Self> {
        let upper = w[nodes + j..2 * nodes].iter().zip(w[2 * (nodes + j)..4 * nodes].as_chunks().0);
        let pairs = w[8 * (nodes + j)..16 * nodes].as_chunks().0.as_chunks().0;
        let lower = w[4 * (nodes + j)..8 * nodes].as_chunks().0.iter().zip(pairs);
        upper.zip(lower).map(|(upper, lower)| Self { upper, lower })
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn upper(&self, m: Mod) -> Quad {
        let (&one, &[two, three]) = self.upper;
        Quad { one: broadcast(m, one), two: broadcast(m, two), three: broadcast(m, three) }
    }

    /// One node of four values a lane.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn lower(&self, m: Mod) -> Quad {
        let (one, [low, high]) = self.lower;
        let (low, high) = (get(low), get(high));
        // The pairs (two, three) of the nodes 0, 2, 1, 3, then split.
        let even = _mm256_permute2f128_pd::<0x20>(low, high);
        let odd = _mm256_permute2f128_pd::<0x31>(low, high);
        let (two, three) = (_mm256_unpacklo_pd(even, odd), _mm256_unpackhi_pd(even, odd));
        Quad { one: m.fixed(get(one)), two: m.fixed(two), three: m.fixed(three) }
    }
}

/// A factor from the bits of a double, in all lanes.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn broadcast(m: Mod, bits: u64) -> Factor {
    m.fixed(_mm256_set1_pd(f64::from_bits(bits)))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn transpose([a, b, c, d]: [V; 4]) -> [V; 4] {
    let (p, q) = (_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
    let (r, s) = (_mm256_unpacklo_pd(c, d), _mm256_unpackhi_pd(c, d));
    [
        _mm256_permute2f128_pd::<0x20>(p, r),
        _mm256_permute2f128_pd::<0x20>(q, s),
        _mm256_permute2f128_pd::<0x31>(p, r),
        _mm256_permute2f128_pd::<0x31>(q, s),
    ]
}

/// Replaces the vectors at the same place of the four quarters.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn each_four(lanes: &mut [Lane], pass: impl Fn([V; 4]) -> [V; 4]) {
    let quarter = lanes.len() / 4;
    let (ab, cd) = lanes.split_at_mut(2 * quarter);
    let ((a, b), (c, d)) = (ab.split_at_mut(quarter), cd.split_at_mut(quarter));
    for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
        let [x, y, z, t] = pass([get(a), get(b), get(c), get(d)]);
        put(a, x);
        put(b, y);
        put(c, z);
        put(d, t);
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn get_all([a, b, c, d]: &Node) -> [V; 4] {
    [get(a), get(b), get(c), get(d)]
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn put_all(node: &mut Node, x: [V; 4]) {
    for (lane, x) in node.iter_mut().zip(x) {
        put(lane, x);
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn get(x: &Lane) -> V {
    _mm256_castsi256_pd(load(x))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn put(x: &mut Lane, v: V) {
    store(x, _mm256_castpd_si256(v));
}
