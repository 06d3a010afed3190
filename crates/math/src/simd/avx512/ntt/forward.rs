//! Coefficients to values.

use super::*;

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(in super::super) fn ntt_forward(values: &mut [u64], twiddles: Twiddles<'_>, modulus: &Modulus) {
    if values.len() < MIN_LEN {
        return plain(values, twiddles.values, modulus);
    }
    let context = Context::new(twiddles, modulus);
    let (lanes, _) = values.as_chunks_mut::<8>();
    by_modulus!(modulus, MAX_SPARSE, node(lanes, 1, 0, &context));
}

/// Fold and transform.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(in super::super) fn ntt_forward_folded(
    values: &mut [u64],
    iota: Shoup,
    twiddles: Twiddles<'_>,
    modulus: &Modulus,
) {
    if values.len() < MIN_FOLD_LEN {
        fold(values, iota, modulus);
        return ntt_forward(values, twiddles, modulus);
    }
    let context = Context::new(twiddles, modulus);
    by_modulus!(modulus, MAX_SPARSE, folded(values, iota, modulus, &context));
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn folded<B: Bounds>(values: &mut [u64], iota: Shoup, modulus: &Modulus, context: &Context<'_>) {
    fold::first_pass::<B>(values, iota, modulus, context);
    let (lanes, _) = values.as_chunks_mut::<8>();
    let eighth = lanes.len() / 8;
    for (j, child) in lanes.chunks_exact_mut(eighth).enumerate() {
        node::<B>(child, 8, j, context);
    }
}

/// Everything below node `j` of the level with `m` nodes.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn node<B: Bounds>(lanes: &mut [Lane], m: usize, j: usize, context: &Context<'_>) {
    let len = 8 * lanes.len();
    let levels = len.trailing_zeros() - 6;
    if len > BLOCK {
        let step = step(levels);
        pass::<B>(lanes, m, j, step, context);
        let child = lanes.len() >> step;
        for (c, lanes) in lanes.chunks_exact_mut(child).enumerate() {
            node::<B>(lanes, m << step, (j << step) + c, context);
        }
        return;
    }
    let mut done = 0;
    while done < levels {
        let step = step(levels - done);
        let width = lanes.len() >> done;
        for (c, lanes) in lanes.chunks_exact_mut(width).enumerate() {
            pass::<B>(lanes, m << done, (j << done) + c, step, context);
        }
        done += step;
    }
    tail::<B>(lanes, m << done, j << done, context);
}

/// One to three levels of one node.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn pass<B: Bounds>(lanes: &mut [Lane], m: usize, j: usize, step: u32, context: &Context<'_>) {
    match step {
        3 => pass8::<B>(lanes, m, j, context),
        2 => pass4::<B>(lanes, m, j, context),
        _ => pass2::<B>(lanes, m, j, context),
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn pass8<B: Bounds>(lanes: &mut [Lane], m: usize, j: usize, context: &Context<'_>) {
    let w = factors8!(context, m + j);
    let mut rows = rows8(lanes);
    // Two columns level by level; see `tail`.
    for i in (0..rows[0].len()).step_by(2) {
        let (mut a, mut b) = (load_rows(&rows, i), load_rows(&rows, i + 1));
        across1::<B, false>(&mut a, &w, context);
        across1::<B, false>(&mut b, &w, context);
        across2::<B>(&mut a, &w, context);
        across2::<B>(&mut b, &w, context);
        across3::<B>(&mut a, &w, context);
        across3::<B>(&mut b, &w, context);
        store_rows(&mut rows, i, a);
        store_rows(&mut rows, i + 1, b);
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn pass4<B: Bounds>(lanes: &mut [Lane], m: usize, j: usize, context: &Context<'_>) {
    let w = context.factors4(m, j);
    let [ra, rb, rc, rd] = rows4(lanes);
    for (((ra, rb), rc), rd) in ra.iter_mut().zip(rb).zip(rc).zip(rd) {
        let (mut a, mut b, c, d) = (load(ra), load(rb), load(rc), load(rd));
        if B::LEAN {
            a = add(a, context.four_q);
            b = add(b, context.m.two_q);
        }
        let (a, c) = first_butterfly::<B>(a, c, w[0], context.left[1], context);
        let (b, d) = first_butterfly::<B>(b, d, w[0], context.left[0], context);
        let (a, b) = butterfly::<B>(a, b, w[1], context);
        let (c, d) = butterfly::<B>(c, d, w[2], context);
        store(ra, a);
        store(rb, b);
        store(rc, c);
        store(rd, d);
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn pass2<B: Bounds>(lanes: &mut [Lane], m: usize, j: usize, context: &Context<'_>) {
    let w = context.factor(m + j);
    let (low, high) = lanes.split_at_mut(lanes.len() / 2);
    for (x, y) in low.iter_mut().zip(high) {
        let (a, b) = (load(x), load(y));
        let a = if B::LEAN { add(a, context.m.two_q) } else { a };
        let (a, b) = first_butterfly::<B>(a, b, w, context.left[0], context);
        store(x, a);
        store(y, b);
    }
}

/// (x + w·y, x − w·y) of numbers modulo 2^52. Strict: x and y lie in [0, 4q), and so do the results.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn butterfly<B: Bounds>(x: V, y: V, w: Factor, context: &Context<'_>) -> (V, V) {
    if B::STRICT {
        return first_butterfly::<B>(x, y, w, context.minus_one, context);
    }
    if B::LEAN {
        let t = context.mul_lean(y, w);
        return (add(x, t), sub(x, t));
    }
    sum_and_difference(x, y, w, context)
}

/// The same in the first level of a pass, where left operands are reduced with a `shift`, unless nothing is.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn first_butterfly<B: Bounds>(x: V, y: V, w: Factor, shift: V, context: &Context<'_>) -> (V, V) {
    if B::LEAN {
        return butterfly::<B>(x, y, w, context);
    }
    sum_and_difference(context.reduce_strict(x, shift), y, w, context)
}

/// (x + w·y, x − w·y) with w·y in [−q, q).
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn sum_and_difference(x: V, y: V, w: Factor, context: &Context<'_>) -> (V, V) {
    let sum = context.mul_strict(x, y, w, context.one);
    (sum, sub(add(x, x), sum))
}

/// [`butterfly`] of residues, which need no reduction.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn butterfly_of_residues<B: Bounds>(x: V, y: V, w: Factor, context: &Context<'_>) -> (V, V) {
    if B::LEAN {
        return butterfly::<B>(x, y, w, context);
    }
    sum_and_difference(add(x, context.m.q), y, w, context)
}

/// Three levels over eight rows. `FOLDED` rows come from the fold: the first four are differences, one level deeper.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn eight<B: Bounds, const FOLDED: bool>(
    mut v: [V; 8],
    w: [Factor; 7],
    context: &Context<'_>,
) -> [V; 8] {
    across1::<B, FOLDED>(&mut v, &w, context);
    across2::<B>(&mut v, &w, context);
    across3::<B>(&mut v, &w, context);
    v
}

/// The first level of [`eight`].
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn across1<B: Bounds, const FOLDED: bool>(v: &mut [V; 8], w: &[Factor; 7], context: &Context<'_>) {
    let (two_q, four_q, six_q) = (context.m.two_q, context.four_q, context.six_q);
    if B::LEAN {
        let offsets =
            if FOLDED { [context.eight_q, six_q, four_q, four_q] } else { [six_q, four_q, two_q, two_q] };
        for k in 0..4 {
            v[k] = add(v[k], offsets[k]);
        }
    }
    let [one, two, three] = context.left;
    let shifts = [three, two, one, one];
    for k in 0..4 {
        (v[k], v[k + 4]) = first_butterfly::<B>(v[k], v[k + 4], w[0], shifts[k], context);
    }
}

/// The second.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn across2<B: Bounds>(v: &mut [V; 8], w: &[Factor; 7], context: &Context<'_>) {
    for k in [0, 1, 4, 5] {
        (v[k], v[k + 2]) = butterfly::<B>(v[k], v[k + 2], w[1 + k / 4], context);
    }
}

/// The third.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn across3<B: Bounds>(v: &mut [V; 8], w: &[Factor; 7], context: &Context<'_>) {
    for k in [0, 2, 4, 6] {
        (v[k], v[k + 1]) = butterfly::<B>(v[k], v[k + 1], w[3 + k / 2], context);
    }
}

/// The level with halves of four values over four pairs of vectors.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn within4<B: Bounds>(v: &mut [V; 8], tail: &Tail<'_>, run: usize, context: &Context<'_>) {
    for pair in 0..4 {
        let (x, y) = interleave(v[2 * pair], v[2 * pair + 1]);
        let (w, shift) = (tail.within4(run, pair), context.left_within);
        (v[2 * pair], v[2 * pair + 1]) = first_butterfly::<B>(x, y, w, shift, context);
    }
}

/// With halves of two values.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn within2<B: Bounds>(v: &mut [V; 8], tail: &Tail<'_>, run: usize, context: &Context<'_>) {
    for pair in 0..4 {
        let (x, y) = interleave(v[2 * pair], v[2 * pair + 1]);
        (v[2 * pair], v[2 * pair + 1]) = butterfly::<B>(x, y, tail.within2(run, pair), context);
    }
}

/// The last level.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn within1<B: Bounds>(v: &mut [V; 8], tail: &Tail<'_>, run: usize, context: &Context<'_>) {
    for pair in 0..4 {
        let (x, y) = interleave(v[2 * pair], v[2 * pair + 1]);
        (v[2 * pair], v[2 * pair + 1]) = butterfly::<B>(x, y, tail.within1(run, pair), context);
    }
}

/// Residues in their order.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn finish(v: &mut [V; 8], context: &Context<'_>) {
    for pair in 0..4 {
        let (x, y) = (context.residue(v[2 * pair]), context.residue(v[2 * pair + 1]));
        (v[2 * pair], v[2 * pair + 1]) = interleave(x, y);
    }
}

/// The last six levels of runs of 64 values, fully reduced.
///
/// The levels within the vectors of one run alternate with those across the vectors of the next: the processor looks
/// ahead some 64 vector instructions, and one run alone has too few independent ones among them.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn tail<B: Bounds>(lanes: &mut [Lane], m: usize, number: usize, context: &Context<'_>) {
    let (runs, _) = lanes.as_chunks_mut::<8>();
    let tail = Tail::new(context.twiddles, m, number, runs.len());
    let [first, second, third] = tail.across;
    // The left operands of the three levels within vectors are known by lane only before the first of them.
    let two_q = context.m.two_q;
    let offsets = _mm512_mask_blend_epi64(0b10, two_q, context.four_q);
    let offsets = _mm512_maskz_mov_epi64(0b1111, _mm512_mask_blend_epi64(0b01, offsets, context.six_q));
    let count = runs.len();
    let mut now = load_run(&runs[0]);
    if B::LEAN {
        now[0] = add(now[0], offsets);
    }
    now = eight::<B, false>(now, factors8!(first, second, third, 0), context);
    for index in 0..count - 1 {
        let mut next = load_run(&runs[index + 1]);
        if B::LEAN {
            next[0] = add(next[0], offsets);
        }
        let w = factors8!(first, second, third, index + 1);
        across1::<B, false>(&mut next, &w, context);
        within4::<B>(&mut now, &tail, index, context);
        across2::<B>(&mut next, &w, context);
        within2::<B>(&mut now, &tail, index, context);
        across3::<B>(&mut next, &w, context);
        within1::<B>(&mut now, &tail, index, context);
        finish(&mut now, context);
        store_run(&mut runs[index], now);
        now = next;
    }
    within4::<B>(&mut now, &tail, count - 1, context);
    within2::<B>(&mut now, &tail, count - 1, context);
    within1::<B>(&mut now, &tail, count - 1, context);
    finish(&mut now, context);
    store_run(&mut runs[count - 1], now);
}

/// Short transforms, fully reduced throughout.
fn plain(values: &mut [u64], twiddles: &[u64], modulus: &Modulus) {
    let n = values.len();
    let mut m = 1;
    while m < n {
        for (node, &w) in values.chunks_exact_mut(n / m).zip(&twiddles[m..]) {
            let (low, high) = node.split_at_mut(n / m / 2);
            for (x, y) in low.iter_mut().zip(high) {
                let t = modulus.mul(*y, w);
                (*x, *y) = (modulus.add(*x, t), modulus.sub(*x, t));
            }
        }
        m *= 2;
    }
}
