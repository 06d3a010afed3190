//! Values to coefficients.

use super::*;

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(in super::super) fn ntt_inverse(
    values: &mut [u64],
    twiddles: Twiddles<'_>,
    scale: Shoup,
    last: Shoup,
    modulus: &Modulus,
) {
    if values.len() < MIN_LEN {
        return plain(values, twiddles.values, scale, modulus);
    }
    let context = Context::new(twiddles, modulus);
    let factors = (Factor::of(scale), Factor::of(last));
    let (lanes, _) = values.as_chunks_mut::<8>();
    if modulus.value() <= MAX_LEAN {
        node::<true>(lanes, 1, 0, Some(factors), &context);
    } else {
        node::<false>(lanes, 1, 0, Some(factors), &context);
    }
}

/// Inverse transform and unfolding; the scale is that of [`ntt_inverse`] halved.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(in super::super) fn ntt_inverse_unfolded(
    values: &mut [u64],
    iota: Shoup,
    twiddles: Twiddles<'_>,
    scale: Shoup,
    last: Shoup,
    modulus: &Modulus,
) {
    if values.len() < MIN_FOLD_LEN {
        ntt_inverse(values, twiddles, scale, last, modulus);
        return unfold(values, iota, modulus);
    }
    let context = Context::new(twiddles, modulus);
    if modulus.value() <= MAX_LEAN {
        unfolded::<true>(values, iota, scale, modulus, &context);
    } else {
        unfolded::<false>(values, iota, scale, modulus, &context);
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn unfolded<const LEAN: bool>(
    values: &mut [u64],
    iota: Shoup,
    scale: Shoup,
    modulus: &Modulus,
    context: &Context<'_>,
) {
    let (lanes, _) = values.as_chunks_mut::<8>();
    let eighth = lanes.len() / 8;
    for (j, child) in lanes.chunks_exact_mut(eighth).enumerate() {
        node::<LEAN>(child, 8, j, None, context);
    }
    fold::last_pass::<LEAN>(values, iota, scale, modulus, context);
}

/// Everything below node `j` of the level with `m` nodes; `last` are the factors of the root's last level.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn node<const LEAN: bool>(
    lanes: &mut [Lane],
    m: usize,
    j: usize,
    last: Option<(Factor, Factor)>,
    context: &Context<'_>,
) {
    let len = 8 * lanes.len();
    let levels = len.trailing_zeros() - 6;
    if len > BLOCK {
        let step = step(levels);
        let child = lanes.len() >> step;
        for (c, lanes) in lanes.chunks_exact_mut(child).enumerate() {
            node::<LEAN>(lanes, m << step, (j << step) + c, None, context);
        }
        pass::<LEAN>(lanes, m, j, step, last, context);
        return;
    }
    // The steps of the forward transform, backwards.
    let (mut steps, mut count, mut left) = ([0; 8], 0, levels);
    while left > 0 {
        steps[count] = step(left);
        left -= steps[count];
        count += 1;
    }
    let mut above = levels;
    tail::<LEAN>(lanes, m << above, j << above, context);
    for &step in steps[..count].iter().rev() {
        above -= step;
        let width = lanes.len() >> above;
        let last = last.filter(|_| above == 0);
        for (c, lanes) in lanes.chunks_exact_mut(width).enumerate() {
            pass::<LEAN>(lanes, m << above, (j << above) + c, step, last, context);
        }
    }
    if let (0, Some(last)) = (levels, last) {
        // A single run: its last level was not scaled.
        for lane in lanes {
            let x = load(lane);
            store(lane, context.m.reduce2(context.m.mul_lazy(x, last.0)));
        }
    }
}

/// One to three levels of one node.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn pass<const LEAN: bool>(
    lanes: &mut [Lane],
    m: usize,
    j: usize,
    step: u32,
    last: Option<(Factor, Factor)>,
    context: &Context<'_>,
) {
    match step {
        3 => pass8::<LEAN>(lanes, m, j, last, context),
        2 => pass4::<LEAN>(lanes, m, j, last, context),
        _ => pass2::<LEAN>(lanes, m, j, last, context),
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn pass8<const LEAN: bool>(
    lanes: &mut [Lane],
    m: usize,
    j: usize,
    last: Option<(Factor, Factor)>,
    context: &Context<'_>,
) {
    let w = factors8!(context, m + j);
    let mut rows = rows8(lanes);
    if let Some(last) = last {
        for i in 0..rows[0].len() {
            let mut v = two_of_three::<LEAN>(load_rows(&rows, i), w, context);
            (v[0], v[4]) = scaled::<LEAN, true>(v[0], v[4], context.thirty_two_q, last, context);
            (v[1], v[5]) = scaled::<LEAN, true>(v[1], v[5], context.four_q, last, context);
            (v[2], v[6]) = scaled::<LEAN, false>(v[2], v[6], context.m.two_q, last, context);
            (v[3], v[7]) = scaled::<LEAN, false>(v[3], v[7], context.m.two_q, last, context);
            store_rows(&mut rows, i, v);
        }
    } else {
        for i in 0..rows[0].len() {
            let v = eight::<LEAN>(load_rows(&rows, i), w, context);
            store_rows(&mut rows, i, v);
        }
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn pass4<const LEAN: bool>(
    lanes: &mut [Lane],
    m: usize,
    j: usize,
    last: Option<(Factor, Factor)>,
    context: &Context<'_>,
) {
    let w = context.factors4(m, j);
    let [ra, rb, rc, rd] = rows4(lanes);
    for (((ra, rb), rc), rd) in ra.iter_mut().zip(rb).zip(rc).zip(rd) {
        let (a, b) = butterfly::<LEAN, false>(load(ra), load(rb), context.eight_q, w[1], context);
        let (c, d) = butterfly::<LEAN, false>(load(rc), load(rd), context.eight_q, w[2], context);
        let (a, b, c, d) = if let Some(last) = last {
            let (a, c) = scaled::<LEAN, true>(a, c, context.sixteen_q, last, context);
            let (b, d) = scaled::<LEAN, false>(b, d, context.m.two_q, last, context);
            (a, b, c, d)
        } else {
            let (a, c) = butterfly::<LEAN, true>(a, c, context.sixteen_q, w[0], context);
            let (b, d) = butterfly::<LEAN, false>(b, d, context.m.two_q, w[0], context);
            if LEAN {
                (context.reduce_lean(a), b, c, d)
            } else {
                (lower(a, context.m.two_q), lower(b, context.m.two_q), c, d)
            }
        };
        store(ra, a);
        store(rb, b);
        store(rc, c);
        store(rd, d);
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn pass2<const LEAN: bool>(
    lanes: &mut [Lane],
    m: usize,
    j: usize,
    last: Option<(Factor, Factor)>,
    context: &Context<'_>,
) {
    let w = context.factor(m + j);
    let (low, high) = lanes.split_at_mut(lanes.len() / 2);
    for (x, y) in low.iter_mut().zip(high) {
        let (a, b) = (load(x), load(y));
        let (a, b) = if let Some(last) = last {
            scaled::<LEAN, false>(a, b, context.eight_q, last, context)
        } else {
            let (a, b) = butterfly::<LEAN, false>(a, b, context.eight_q, w, context);
            (if LEAN { context.reduce_lean(a) } else { lower(a, context.m.two_q) }, b)
        };
        store(x, a);
        store(y, b);
    }
}

/// x + y and x − y, both fit for a product. Lean: y is below `bound`. Strict: both are below 2q, or 4q if `WIDE`, and
/// the results below 4q.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn halves<const LEAN: bool, const WIDE: bool>(x: V, y: V, bound: V, context: &Context<'_>) -> (V, V) {
    if LEAN {
        (add(x, y), sub(add(x, bound), y))
    } else if WIDE {
        (lower(add(x, y), context.four_q), lift(sub(x, y), context.four_q))
    } else {
        (add(x, y), sub(add(x, context.m.two_q), y))
    }
}

/// The sum of [`halves`], and the product of the difference, below 2q.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn butterfly<const LEAN: bool, const WIDE: bool>(
    x: V,
    y: V,
    bound: V,
    w: Factor,
    context: &Context<'_>,
) -> (V, V) {
    let (sum, difference) = halves::<LEAN, WIDE>(x, y, bound, context);
    (sum, if LEAN { context.mul_lean(difference, w) } else { context.m.mul_lazy(difference, w) })
}

/// The last level: both halves multiplied and fully reduced.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn scaled<const LEAN: bool, const WIDE: bool>(
    x: V,
    y: V,
    bound: V,
    (scale, last): (Factor, Factor),
    context: &Context<'_>,
) -> (V, V) {
    let m = context.m;
    let (sum, difference) = halves::<LEAN, WIDE>(x, y, bound, context);
    (m.reduce2(m.mul_lazy(sum, scale)), m.reduce2(m.mul_lazy(difference, last)))
}

/// The first two of three levels over eight rows. Rows 0 and 4 end below 32q lean, rows 1 and 5 below 4q, both strict
/// below 4q; the others below 2q.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn two_of_three<const LEAN: bool>(mut v: [V; 8], w: [Factor; 7], context: &Context<'_>) -> [V; 8] {
    across1::<LEAN>(&mut v, &w, context);
    across2::<LEAN>(&mut v, &w, context);
    v
}

/// Three levels over eight rows.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn eight<const LEAN: bool>(mut v: [V; 8], w: [Factor; 7], context: &Context<'_>) -> [V; 8] {
    across1::<LEAN>(&mut v, &w, context);
    across2::<LEAN>(&mut v, &w, context);
    across3::<LEAN>(&mut v, &w, context);
    v
}

/// The first level of [`eight`].
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn across1<const LEAN: bool>(v: &mut [V; 8], w: &[Factor; 7], context: &Context<'_>) {
    for k in [0, 2, 4, 6] {
        let w = w[3 + k / 2];
        (v[k], v[k + 1]) = butterfly::<LEAN, false>(v[k], v[k + 1], context.eight_q, w, context);
    }
}

/// The second.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn across2<const LEAN: bool>(v: &mut [V; 8], w: &[Factor; 7], context: &Context<'_>) {
    for k in [0, 4] {
        let w = w[1 + k / 4];
        (v[k], v[k + 2]) = butterfly::<LEAN, true>(v[k], v[k + 2], context.sixteen_q, w, context);
        (v[k + 1], v[k + 3]) = butterfly::<LEAN, false>(v[k + 1], v[k + 3], context.m.two_q, w, context);
    }
}

/// The third, and what brings all rows back to the bounds of a pass.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn across3<const LEAN: bool>(v: &mut [V; 8], w: &[Factor; 7], context: &Context<'_>) {
    let two_q = context.m.two_q;
    (v[0], v[4]) = butterfly::<LEAN, true>(v[0], v[4], context.thirty_two_q, w[0], context);
    (v[1], v[5]) = butterfly::<LEAN, true>(v[1], v[5], context.four_q, w[0], context);
    (v[2], v[6]) = butterfly::<LEAN, false>(v[2], v[6], two_q, w[0], context);
    (v[3], v[7]) = butterfly::<LEAN, false>(v[3], v[7], two_q, w[0], context);
    if LEAN {
        v[0] = context.reduce_lean(v[0]);
    } else {
        for x in &mut v[..4] {
            *x = lower(*x, two_q);
        }
    }
}

/// The level with neighbours in the same vector, over four pairs of vectors in their order.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn within1<const LEAN: bool>(v: &mut [V; 8], tail: &Tail<'_>, run: usize, context: &Context<'_>) {
    let even = _mm512_set_epi64(14, 12, 6, 4, 10, 8, 2, 0);
    let odd = _mm512_set_epi64(15, 13, 7, 5, 11, 9, 3, 1);
    for pair in 0..4 {
        let (p, r) = (v[2 * pair], v[2 * pair + 1]);
        let (x, y) = (_mm512_permutex2var_epi64(p, even, r), _mm512_permutex2var_epi64(p, odd, r));
        let w = tail.within1(run, pair);
        (v[2 * pair], v[2 * pair + 1]) = butterfly::<LEAN, false>(x, y, context.m.q, w, context);
    }
}

/// With halves of two values.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn within2<const LEAN: bool>(v: &mut [V; 8], tail: &Tail<'_>, run: usize, context: &Context<'_>) {
    let two_q = context.m.two_q;
    for pair in 0..4 {
        let (p, r) = (v[2 * pair], v[2 * pair + 1]);
        let (x, y) = (_mm512_unpacklo_epi64(p, r), _mm512_unpackhi_epi64(p, r));
        let (x, y) = butterfly::<LEAN, false>(x, y, two_q, tail.within2(run, pair), context);
        (v[2 * pair], v[2 * pair + 1]) = (if LEAN { x } else { lower(x, two_q) }, y);
    }
}

/// With halves of four values; the vectors are in their order again.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn within4<const LEAN: bool>(v: &mut [V; 8], tail: &Tail<'_>, run: usize, context: &Context<'_>) {
    for pair in 0..4 {
        let (p, r) = (v[2 * pair], v[2 * pair + 1]);
        let (x, y) = (_mm512_shuffle_i64x2::<0x44>(p, r), _mm512_shuffle_i64x2::<0xee>(p, r));
        let w = tail.within4::<0b1100_1100>(run, pair);
        let (x, y) = butterfly::<LEAN, false>(x, y, context.four_q, w, context);
        let x = if LEAN { x } else { lower(x, context.m.two_q) };
        v[2 * pair] = _mm512_shuffle_i64x2::<0x88>(x, y);
        v[2 * pair + 1] = _mm512_shuffle_i64x2::<0xdd>(x, y);
    }
}

/// The last six levels of runs of 64 values, from residues. Runs are interleaved as in the forward transform.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn tail<const LEAN: bool>(lanes: &mut [Lane], m: usize, number: usize, context: &Context<'_>) {
    let (runs, _) = lanes.as_chunks_mut::<8>();
    let tail = Tail::new(context.twiddles, m, number, runs.len());
    let [first, second, third] = tail.across;
    let count = runs.len();
    let mut now = load_run(&runs[0]);
    within1::<LEAN>(&mut now, &tail, 0, context);
    within2::<LEAN>(&mut now, &tail, 0, context);
    within4::<LEAN>(&mut now, &tail, 0, context);
    for index in 0..count - 1 {
        let mut next = load_run(&runs[index + 1]);
        let w = factors8!(first, second, third, index);
        within1::<LEAN>(&mut next, &tail, index + 1, context);
        across1::<LEAN>(&mut now, &w, context);
        within2::<LEAN>(&mut next, &tail, index + 1, context);
        across2::<LEAN>(&mut now, &w, context);
        within4::<LEAN>(&mut next, &tail, index + 1, context);
        across3::<LEAN>(&mut now, &w, context);
        store_run(&mut runs[index], now);
        now = next;
    }
    let now = eight::<LEAN>(now, factors8!(first, second, third, count - 1), context);
    store_run(&mut runs[count - 1], now);
}

/// Short transforms, fully reduced throughout.
fn plain(values: &mut [u64], twiddles: &[u64], scale: Shoup, modulus: &Modulus) {
    let n = values.len();
    let mut m = n / 2;
    while m >= 1 {
        for (node, &w) in values.chunks_exact_mut(n / m).zip(&twiddles[m..]) {
            let (low, high) = node.split_at_mut(n / m / 2);
            for (x, y) in low.iter_mut().zip(high) {
                let difference = modulus.sub(*x, *y);
                *x = modulus.add(*x, *y);
                *y = modulus.mul(difference, w);
            }
        }
        m /= 2;
    }
    for x in values {
        *x = modulus.mul_shoup(*x, scale);
    }
}
