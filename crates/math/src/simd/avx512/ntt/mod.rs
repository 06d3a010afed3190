//! Transforms. Two sets of bounds, chosen by the size of the modulus, and one schedule.
//!
//! **Schedule.** Levels are done three (or two) at a time in registers. The first passes run over everything, each node of
//! theirs is then finished depth first: once a node has at most [`BLOCK`] values it stays in the first cache. The last six
//! levels are one pass over runs of 64 values, three across vectors and three within them; before each of the latter, pairs
//! of vectors go through the same perfect shuffle, which puts the twiddles in the order in which they lie in memory.
//!
//! **Strict** (any modulus, 4q ≤ 2^52): only the low 52 bits of values are kept, as a 52-bit multiplier reads no more;
//! what additions leave above is ignored, and masked at the end. So nothing can be compared on the way, and reductions are
//! multiplications as well: with the estimate e = ⌊x·⌊2^52/q⌋/2^52⌋ of the quotient, x − e·q lies in [0, 2q). Multiples of q
//! that keep differences above zero cost nothing, being the start of the sum that forms an estimate. Forward, values lie
//! in [0, 4q): left operands are reduced into [q, 3q), products into [−q, q), so sums and differences lie in [0, 4q) again.
//! Inverse, left operands lie in [q, 3q) and right ones in [−q, q), so sums and differences lie in [0, 4q); both, the latter
//! multiplied, are brought to what they are in the next level. That makes seven instructions a butterfly where
//! comparisons (Harvey, 2014) take eight or nine, and none of them is one that only one port executes.
//!
//! **Lean** (moduli up to [`MAX_LEAN`]): the same numbers modulo 2^52, and nothing is reduced on the way. Forward, a product
//! lies in [0, 2q), and each value that is the left operand of k levels in a row gets 2kq beforehand, so no difference is
//! negative; a level therefore adds at most 4q, and 17 levels and the fold stay below 73q < 2^52. Inverse, inputs of a pass
//! lie in [0, 8q); differences get the bound of their subtrahend; of the sums only the one that was never multiplied
//! reaches 64q < 2^52, and it is brought below 2q by Barrett's method.
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
    one: V,
    minus_one: V,
    /// What a value of an even and of an odd node has to be brought to, for the next level of the inverse.
    roles: [V; 2],
    /// Both in turn.
    alternating: V,
    twiddles: Twiddles<'a>,
}

impl<'a> Context<'a> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn new(twiddles: Twiddles<'a>, modulus: &Modulus) -> Self {
        let q = modulus.value();
        let (one, minus_one) = (spread(1), spread(u64::MAX));
        Self {
            m: Mod::new(modulus),
            four_q: spread(4 * q),
            six_q: spread(6 * q),
            eight_q: spread(8 * q),
            sixteen_q: spread(16 * q),
            thirty_two_q: spread(32 * q),
            ratio: spread((1 << 52) / q),
            one,
            minus_one,
            roles: [minus_one, one],
            alternating: _mm512_mask_blend_epi64(0b1010_1010, minus_one, one),
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

    /// x − (⌊x/q⌋ + `shift`)·q, where the quotient may be one too small, so in [0, 2q) − `shift`·q; x is a number in
    /// [0, 2^52) given by its low 52 bits, and so is the result.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn reduce_strict(&self, x: V, shift: V) -> V {
        let estimate = _mm512_madd52hi_epu64(shift, x, self.ratio);
        _mm512_madd52lo_epu64(x, estimate, self.m.minus_q)
    }

    /// `sum` + w·x − `shift`·q, the product being one in [0, 2q).
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn mul_strict(&self, sum: V, x: V, w: Factor, shift: V) -> V {
        let estimate = _mm512_madd52hi_epu64(shift, x, w.quotient);
        let low = _mm512_madd52lo_epu64(sum, x, w.value);
        _mm512_madd52lo_epu64(low, estimate, self.m.minus_q)
    }

    /// How values at the end of node `j` of `m` are shifted: as left operands by −1 into [q, 3q), as right ones by 1 into
    /// [−q, q), at the root not at all.
    #[inline]
    fn role(&self, m: usize, j: usize) -> V {
        if m == 1 { self.m.zero } else { self.roles[j % 2] }
    }

    /// Lean bounds of the right operands in the last of three inverse levels.
    #[inline]
    fn last_bounds(&self) -> [V; 4] {
        [self.thirty_two_q, self.four_q, self.m.two_q, self.m.two_q]
    }

    /// The residue of the low 52 bits.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn residue(&self, x: V) -> V {
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

/// Values of two vectors in turn: x0 y0 x1 … y3 and x4 y4 x5 … y7.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn interleave(x: V, y: V) -> (V, V) {
    let low = _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0);
    let high = _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4);
    (_mm512_permutex2var_epi64(x, low, y), _mm512_permutex2var_epi64(x, high, y))
}

/// Undoes [`interleave`]: even and odd places.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn separate(x: V, y: V) -> (V, V) {
    let even = _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0);
    let odd = _mm512_set_epi64(15, 13, 11, 9, 7, 5, 3, 1);
    (_mm512_permutex2var_epi64(x, even, y), _mm512_permutex2var_epi64(x, odd, y))
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

    /// Factors of the level with halves of four values, for a pair of vectors interleaved once.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn within4(&self, run: usize, pair: usize) -> Factor {
        Factor { value: load2(&self.two[0][run][pair]), quotient: load2(&self.two[1][run][pair]) }
    }

    /// With halves of two, interleaved twice.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn within2(&self, run: usize, pair: usize) -> Factor {
        Factor { value: load4(&self.four[0][run][pair]), quotient: load4(&self.four[1][run][pair]) }
    }

    /// Of neighbours, interleaved three times.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn within1(&self, run: usize, pair: usize) -> Factor {
        Factor { value: load(&self.eight[0][run][pair]), quotient: load(&self.eight[1][run][pair]) }
    }
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

    /// The bounds are tightest for the largest lean modulus and the first strict one, for the largest of all, and where the
    /// quotient 2^52/q loses most, just above a fraction of 2^52.
    #[test]
    fn moduli_around_the_limits_equal_the_scalar_twin() {
        let Some(token) = super::super::Avx512::detect() else { return };
        for log_n in [9, 14, 17] {
            let step = 4u64 << log_n;
            let around = |limit: u64| {
                let last = limit / step * step + 1;
                let below = (0..).map(|i| last - i * step).find(|&q| q <= limit && is_prime(q));
                let above = (0..).map(|i| last + i * step).find(|&q| q > limit && is_prime(q));
                below.into_iter().chain(above.filter(|&q| q < 1 << 50))
            };
            for prime in [MAX_LEAN, (1 << 52) / 6, (1 << 52) / 5, (1 << 50) - 1].into_iter().flat_map(around)
            {
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
