//! Transforms. Two sets of bounds, chosen by the size of the modulus, and one schedule.
//!
//! **Schedule.** Levels are done three (or two) at a time in registers. The first passes run over everything, each node of
//! theirs is then finished depth first: once a node has at most [`BLOCK`] values it stays in the first cache. The last six
//! levels are one pass over runs of 64 values, three across vectors and three within them; between the latter, pairs of
//! vectors go through a perfect shuffle, which puts the twiddles in the order in which they lie in memory.
//!
//! **Strict** (any modulus, 4q < 2^52): Harvey's butterflies; see [`super`]. Of x + t and x − t the second may stay
//! negative in a register, since its next use is either `min(d, d + 2q)` or `d + 2q`.
//!
//! **Lean** (moduli up to [`MAX_LEAN`]): nothing is reduced on the way. Values are numbers v in [0, 2^52) of which only
//! the low 52 bits are kept, because a 52-bit multiplier reads no more; whatever additions leave above is ignored and
//! masked at the end. Forward, a product lies in [0, 2q), and each value that is the left operand of k levels in a row gets
//! 2kq beforehand, so no difference is negative; a level therefore adds at most 4q, and 17 levels and the fold stay below
//! 73q < 2^52. Inverse, inputs of a pass lie in [0, 8q); differences get the bound of their subtrahend; of the sums only the
//! one that was never multiplied reaches 64q < 2^52, and it is brought below 2q by Barrett's method.
//!
//! **Folding.** With t = ι·a_{n−i}, b_i = a_i − t and b_{n−i} = a_{n−i} − ι·a_i = −ι·(a_i + t), since ι² = −1. So the fold is
//! a level of butterflies (a_i, a_{n−i}) with the factor ι, the −ι being absorbed by the next level, whose right operands
//! are exactly the upper halves: its factor is −ι·w. It is done together with the first three levels, 16 vectors at a
//! time: columns i.. of the 8 rows of n/8 values and, reversed, their mirror images.

mod fold;
mod forward;
mod inverse;

pub(super) use fold::{fold, unfold};
pub(super) use forward::{ntt_forward, ntt_forward_folded};
pub(super) use inverse::{ntt_inverse, ntt_inverse_unfolded};

use super::super::Twiddles;
use super::{Factor, Lane, Mod, V, load, spread, store};
use crate::modulus::{Modulus, Shoup};
use std::arch::x86_64::*;

/// Below this length plain loops run.
const MIN_LEN: usize = 64;
/// Least length at which the fold is part of the first pass.
const MIN_FOLD_LEN: usize = 512;
/// Values of a node that is finished pass by pass: 64 KB. Twice or half of that is as good: the transforms are bound by
/// arithmetic as long as nodes stay in the second cache.
const BLOCK: usize = 8192;
/// Largest modulus without reductions on the way: a little below 2^45.81.
const MAX_LEAN: u64 = ((1 << 52) - 1) / 73;

/// Constants of a transform.
#[derive(Clone, Copy)]
struct Context<'a> {
    m: Mod,
    four_q: V,
    six_q: V,
    eight_q: V,
    sixteen_q: V,
    thirty_two_q: V,
    /// ⌊2^52 / q⌋.
    ratio: V,
    twiddles: Twiddles<'a>,
}

impl<'a> Context<'a> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn new(twiddles: Twiddles<'a>, modulus: &Modulus) -> Self {
        let q = modulus.value();
        Self {
            m: Mod::new(modulus),
            four_q: spread(4 * q),
            six_q: spread(6 * q),
            eight_q: spread(8 * q),
            sixteen_q: spread(16 * q),
            thirty_two_q: spread(32 * q),
            ratio: spread((1 << 52) / q),
            twiddles,
        }
    }

    /// One factor for all lanes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn factor(&self, index: usize) -> Factor {
        broadcast(self.table(), index)
    }

    #[inline]
    fn table(&self) -> [&'a [u64]; 2] {
        [self.twiddles.values, self.twiddles.quotients52]
    }

    /// The same for two levels.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn factors4(&self, m: usize, j: usize) -> [Factor; 3] {
        let (a, b) = (m + j, 2 * (m + j));
        [self.factor(a), self.factor(b), self.factor(b + 1)]
    }

    /// w·x whose low 52 bits lie in [0, 2q), for x of 52 bits and something above.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn mul_lean(&self, x: V, w: Factor) -> V {
        let estimate = _mm512_madd52hi_epu64(self.m.zero, x, w.quotient);
        let low = _mm512_madd52lo_epu64(self.m.zero, x, w.value);
        _mm512_madd52lo_epu64(low, estimate, self.m.minus_q)
    }

    /// A value whose low 52 bits are those of the argument reduced below 2q.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn reduce_lean(&self, x: V) -> V {
        let estimate = _mm512_madd52hi_epu64(self.m.zero, x, self.ratio);
        _mm512_madd52lo_epu64(x, estimate, self.m.minus_q)
    }

    /// The residue of the low 52 bits.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn finish_lean(&self, x: V) -> V {
        self.m.reduce2(_mm512_and_si512(self.reduce_lean(x), self.m.mask))
    }
}

/// Number of levels of the next pass when `levels` are left before the last six.
const fn step(levels: u32) -> u32 {
    match levels {
        0..=2 => levels,
        4 => 2,
        _ => 3,
    }
}

/// A node's rows.
#[inline]
fn rows4(node: &mut [Lane]) -> [&mut [Lane]; 4] {
    let quarter = node.len() / 4;
    let (ab, cd) = node.split_at_mut(2 * quarter);
    let ((a, b), (c, d)) = (ab.split_at_mut(quarter), cd.split_at_mut(quarter));
    [a, b, &mut c[..quarter], &mut d[..quarter]]
}

/// A node's rows.
#[inline]
fn rows8(node: &mut [Lane]) -> [&mut [Lane]; 8] {
    let (low, high) = node.split_at_mut(node.len() / 2);
    let ([a, b, c, d], [e, f, g, h]) = (rows4(low), rows4(high));
    [a, b, c, d, e, f, g, h]
}

// Closures given to functions of the standard library, such as `map` of arrays, are not compiled for these processor
// features; hence arrays are written out or filled in loops.

/// Vector `i` of each row.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn load_rows(rows: &[&mut [Lane]; 8], i: usize) -> [V; 8] {
    let mut v = [_mm512_setzero_si512(); 8];
    for k in 0..8 {
        v[k] = load(&rows[k][i]);
    }
    v
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn store_rows(rows: &mut [&mut [Lane]; 8], i: usize, v: [V; 8]) {
    for k in 0..8 {
        store(&mut rows[k][i], v[k]);
    }
}

/// Eight vectors in a row.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn load_run(run: &[Lane; 8]) -> [V; 8] {
    let mut v = [_mm512_setzero_si512(); 8];
    for k in 0..8 {
        v[k] = load(&run[k]);
    }
    v
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn store_run(run: &mut [Lane; 8], v: [V; 8]) {
    for k in 0..8 {
        store(&mut run[k], v[k]);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn add(x: V, y: V) -> V {
    _mm512_add_epi64(x, y)
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn sub(x: V, y: V) -> V {
    _mm512_sub_epi64(x, y)
}

/// A number that may be negative, and `bound` added if it is.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn lift(x: V, bound: V) -> V {
    _mm512_min_epu64(x, add(x, bound))
}

/// A number, and `bound` subtracted if it is at least that.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn lower(x: V, bound: V) -> V {
    _mm512_min_epu64(x, sub(x, bound))
}

/// Two factors, alternating over the lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn load2(x: &[u64; 2]) -> V {
    // SAFETY: two words are borrowed; the instruction needs no alignment.
    _mm512_broadcast_i64x2(unsafe { _mm_loadu_si128(x.as_ptr().cast()) })
}

/// Four factors, twice.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn load4(x: &[u64; 4]) -> V {
    // SAFETY: four words are borrowed; the instruction needs no alignment.
    _mm512_broadcast_i64x4(unsafe { _mm256_loadu_si256(x.as_ptr().cast()) })
}

/// The twiddles of the last six levels, run by run.
struct Tail<'a> {
    across: [[&'a [u64]; 2]; 3],
    two: [&'a [[[u64; 2]; 4]]; 2],
    four: [&'a [[[u64; 4]; 4]]; 2],
    eight: [&'a [[Lane; 4]]; 2],
}

impl<'a> Tail<'a> {
    /// For `runs` runs of 64 values from number `first` of `m` on.
    #[inline]
    fn new(twiddles: Twiddles<'a>, m: usize, first: usize, runs: usize) -> Self {
        let both = [twiddles.values, twiddles.quotients52];
        let part = |width: usize| both.map(|t| &t[width * (m + first)..width * (m + first + runs)]);
        Self {
            across: [part(1), part(2), part(4)],
            two: part(8).map(|t| t.as_chunks().0.as_chunks().0),
            four: part(16).map(|t| t.as_chunks().0.as_chunks().0),
            eight: part(32).map(|t| t.as_chunks().0.as_chunks().0),
        }
    }

    /// Factors of the first of the levels within a pair of vectors, in the order a a a a b b b b or a a b b a a b b.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn within4<const ORDER: i32>(&self, run: usize, pair: usize) -> Factor {
        Factor {
            value: spread_in_lanes::<ORDER>(load2(&self.two[0][run][pair])),
            quotient: spread_in_lanes::<ORDER>(load2(&self.two[1][run][pair])),
        }
    }

    /// Of the second: from a b c d in memory to a a c c b b d d.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn within2(&self, run: usize, pair: usize) -> Factor {
        Factor {
            value: spread_in_lanes::<0b1111_0000>(load4(&self.four[0][run][pair])),
            quotient: spread_in_lanes::<0b1111_0000>(load4(&self.four[1][run][pair])),
        }
    }

    /// Of the third: the middle 128-bit lanes exchanged.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn within1(&self, run: usize, pair: usize) -> Factor {
        let (value, quotient) = (load(&self.eight[0][run][pair]), load(&self.eight[1][run][pair]));
        Factor {
            value: _mm512_shuffle_i64x2::<0b11_01_10_00>(value, value),
            quotient: _mm512_shuffle_i64x2::<0b11_01_10_00>(quotient, quotient),
        }
    }
}

/// In each pair of lanes, for each the first (bit 0) or second (bit 1).
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn spread_in_lanes<const ORDER: i32>(x: V) -> V {
    _mm512_castpd_si512(_mm512_permute_pd::<ORDER>(_mm512_castsi512_pd(x)))
}

/// The factors of three levels from three tables, node `j` of the first and its descendants, for [`forward::eight`] and
/// [`inverse::eight`]. A macro, because a function would return 14 vectors through memory.
macro_rules! factors8 {
    ($first:expr, $second:expr, $third:expr, $j:expr) => {{
        let (j, first, second, third) = ($j, $first, $second, $third);
        [
            broadcast(first, j),
            broadcast(second, 2 * j),
            broadcast(second, 2 * j + 1),
            broadcast(third, 4 * j),
            broadcast(third, 4 * j + 1),
            broadcast(third, 4 * j + 2),
            broadcast(third, 4 * j + 3),
        ]
    }};
    ($context:expr, $node:expr) => {{
        let table = $context.table();
        factors8!(table, table, table, $node)
    }};
}
use factors8;

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn broadcast([values, quotients]: [&[u64]; 2], index: usize) -> Factor {
    Factor { value: spread(values[index]), quotient: spread(quotients[index]) }
}

#[cfg(test)]
mod tests {
    use super::super::super::scalar;
    use super::*;
    use crate::ntt::NttTable;
    use crate::prime::is_prime;
    use crate::ring::RingKind;

    /// The bounds are tightest for the largest lean modulus and the first strict one.
    #[test]
    fn moduli_around_the_limit_equal_the_scalar_twin() {
        let Some(token) = super::super::Avx512::detect() else { return };
        for log_n in [9, 14, 17] {
            let step = 4u64 << log_n;
            let last = MAX_LEAN / step * step + 1;
            let below = (0..).map(|i| last - i * step).find(|&q| q <= MAX_LEAN && is_prime(q));
            let above = (1..).map(|i| last + i * step).find(|&q| q > MAX_LEAN && is_prime(q));
            for prime in below.into_iter().chain(above) {
                let table = NttTable::new(RingKind::ConjugateInvariant, log_n, prime).unwrap();
                let m = *table.modulus();
                let n = table.degree();
                let extreme = vec![prime - 1; n];
                let mixed = (0..n as u64).map(|i| [0, prime - 1, i % prime][i as usize % 3]).collect();
                for input in [extreme, mixed] {
                    table.with_tables(|forward, inverse, scale, last, iota| {
                        let (mut a, mut b) = (input.clone(), input.clone());
                        scalar::fold(&mut a, iota, &m);
                        scalar::ntt_forward(&mut a, forward, &m);
                        token.ntt_forward_folded(&mut b, iota, forward, &m);
                        assert!(a == b, "forward, 2^{log_n}, {prime}");
                        token.ntt_inverse_unfolded(&mut b, iota, inverse, scale, last, &m);
                        assert!(b == input, "inverse, 2^{log_n}, {prime}");
                    });
                }
            }
        }
    }
}
