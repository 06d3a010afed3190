//! Transforms. Three sets of bounds, chosen by the size of the modulus, and one schedule.
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
//! **Sparse**: the same with a reduction where it is needed only; the other butterflies take five instructions, and three
//! multiplications instead of five. Forward (up to [`MAX_SPARSE`]), the left operands of the first level of a pass are
//! reduced. With r = ⌊2^52/q⌋ a reduction leaves less than 2^52 − (r − 1)q of any x < 2^52, as x·(1 − rq/2^52) + q is no more
//! than that. A left operand of k levels in a row is brought to kq and above, and each of at most three levels adds a number in
//! [−q, q]: so nothing is negative, and all is below 2^52 − (r − 1)q + 6q, which is 2^52 for r = 7. Inverse (up to
//! [`MAX_SPARSE_INVERSE`]), sums stay what they are until the last level of a pass, but for row 4, which is reduced before it:
//! with the roles below, sums of two lie in [4q, 8q) and [0, 4q) in turn, of four in [4q, 12q), and the first row ends below 14q.
//!
//! **Lean** (moduli up to [`MAX_LEAN`]): the same numbers modulo 2^52, and nothing is reduced on the way but one row of a pass
//! of the inverse. Forward, a product lies in [0, 2q), and each value that is the left operand of k levels in a row gets 2kq
//! beforehand, so no difference is negative; a level therefore adds at most 4q, and 17 levels and the fold stay below
//! 73q < 2^52. Inverse, inputs of a pass span 8q; the first row, a sum of eight of them, ends in [4q, 68q) and is reduced.
//!
//! **Roles.** What is multiplied in the inverse are differences, which must not be negative. The least value of a product or of
//! a reduced sum can be any multiple of q, at no cost, as that is the start of the sum that forms an estimate. So the results
//! of a node, which are row j mod 8 of the next pass, begin where this row needs it ([`Bounds::ROLES`]), as do products within
//! a pass.
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

/// Which of the three sets of bounds.
trait Bounds {
    /// Nothing is reduced on the way.
    const LEAN: bool;
    /// Something is, at every level.
    const STRICT: bool;
    /// Inverse: what node j is brought to when it is done, for the pass that it is row j of: ROLES[j mod 8]·q and above.
    const ROLES: [i64; 8];
    /// The same for the products of the first of three levels, in the order of their rows, from −2 to 2.
    const PRODUCTS: [i64; 4];
    /// What the estimates of quotients begin with for them.
    const SHIFTS: [u64; 8] = {
        let mut shifts = [0; 8];
        let mut j = 0;
        while j < 8 {
            shifts[j] = (-Self::ROLES[j]) as u64;
            j += 1;
        }
        shifts
    };
}

struct Lean;
struct Sparse;
struct Strict;

impl Bounds for Lean {
    const LEAN: bool = true;
    const STRICT: bool = false;
    const ROLES: [i64; 8] = [13, 4, 5, -4, 5, -4, -3, -12];
    const PRODUCTS: [i64; 4] = [2, 0, 0, -2];
}

impl Bounds for Sparse {
    const LEAN: bool = false;
    const STRICT: bool = false;
    const ROLES: [i64; 8] = [4, 0, 1, -1, 4, 0, 1, -1];
    const PRODUCTS: [i64; 4] = [2, 0, 0, -2];
}

impl Bounds for Strict {
    const LEAN: bool = false;
    const STRICT: bool = true;
    const ROLES: [i64; 8] = [1, -1, 1, -1, 1, -1, 1, -1];
    const PRODUCTS: [i64; 4] = [1, -1, 1, -1];
}

/// Calls a function with the bounds of a modulus, given the largest sparse one.
macro_rules! by_modulus {
    ($modulus:expr, $sparse:expr, $function:ident($($argument:expr),*)) => {
        match $modulus.value() {
            ..=MAX_LEAN => $function::<Lean>($($argument),*),
            q if q <= $sparse => $function::<Sparse>($($argument),*),
            _ => $function::<Strict>($($argument),*),
        }
    };
}
use by_modulus;

/// Below this length plain loops run.
const MIN_LEN: usize = 64;
/// Least length at which the fold is part of the first pass.
const MIN_FOLD_LEN: usize = 512;
/// Values of a node that is finished pass by pass: 64 KB. Twice or half of that is as good: the transforms are bound by
/// arithmetic as long as nodes stay in the second cache.
const BLOCK: usize = 8192;
/// Largest modulus without reductions on the way: a little below 2^45.81.
const MAX_LEAN: u64 = ((1 << 52) - 1) / 73;
/// Largest modulus with one reduction every three levels, forward: 2^49.19.
const MAX_SPARSE: u64 = (1 << 52) / 7;
/// And inverse: 2^48.19.
const MAX_SPARSE_INVERSE: u64 = (1 << 52) / 14;

/// Constants of a transform.
#[derive(Clone, Copy)]
struct Context<'a> {
    m: Mod,
    four_q: V,
    six_q: V,
    eight_q: V,
    sixteen_q: V,
    /// ⌊2^52 / q⌋.
    ratio: V,
    one: V,
    minus_one: V,
    /// What a value of an even and of an odd node has to be brought to, for the next level of the inverse.
    roles: [V; 2],
    /// Both in turn.
    alternating: V,
    /// −2 to 2: constants that are loaded, as making them takes a vector instruction at every use.
    shifts: [V; 5],
    /// Lean multiples of q of [`Bounds::ROLES`].
    offsets: [u64; 8],
    /// Shifts of the first reduction of a pass for left operands of one to three levels in a row.
    left: [V; 3],
    /// The same for the lanes of a pair of vectors in the three levels within vectors.
    left_within: V,
    twiddles: Twiddles<'a>,
}

impl<'a> Context<'a> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn new(twiddles: Twiddles<'a>, modulus: &Modulus) -> Self {
        let q = modulus.value();
        let (one, minus_one) = (spread(1), spread(u64::MAX));
        let strict = q > MAX_SPARSE;
        let left =
            if strict { [minus_one; 3] } else { [minus_one, spread(u64::MAX - 1), spread(u64::MAX - 2)] };
        let two_or_three = _mm512_mask_blend_epi64(0b0000_0011, left[1], left[2]);
        Self {
            m: Mod::new(modulus),
            four_q: spread(4 * q),
            six_q: spread(6 * q),
            eight_q: spread(8 * q),
            sixteen_q: spread(16 * q),
            ratio: spread((1 << 52) / q),
            one,
            minus_one,
            roles: [minus_one, one],
            alternating: _mm512_mask_blend_epi64(0b1010_1010, minus_one, one),
            shifts: [spread(u64::MAX - 1), minus_one, spread(0), one, spread(2)],
            offsets: Lean::ROLES.map(|role| (role as u64).wrapping_mul(q)),
            left,
            left_within: _mm512_mask_blend_epi64(0b1111_0000, two_or_three, minus_one),
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
mod tests;
