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
        let bounds = context.last_bounds();
        for i in 0..rows[0].len() {
            let mut v = two_of_three::<LEAN>(load_rows(&rows, i), w, context);
            for k in 0..4 {
                (v[k], v[k + 4]) = scaled::<LEAN>(v[k], v[k + 4], bounds[k], last, context);
            }
            store_rows(&mut rows, i, v);
        }
    } else {
        let role = context.role(m, j);
        for i in 0..rows[0].len() {
            let v = eight::<LEAN>(load_rows(&rows, i), w, role, context);
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
    let (role, [even, odd]) = (context.role(m, j), context.roles);
    let (two_q, eight_q, sixteen_q) = (context.m.two_q, context.eight_q, context.sixteen_q);
    let [ra, rb, rc, rd] = rows4(lanes);
    for (((ra, rb), rc), rd) in ra.iter_mut().zip(rb).zip(rc).zip(rd) {
        let (a, b) = butterfly::<LEAN>(load(ra), load(rb), eight_q, even, w[1], context);
        let (c, d) = butterfly::<LEAN>(load(rc), load(rd), eight_q, odd, w[2], context);
        let (a, b, c, d) = if let Some(last) = last {
            let (a, c) = scaled::<LEAN>(a, c, sixteen_q, last, context);
            let (b, d) = scaled::<LEAN>(b, d, two_q, last, context);
            (a, b, c, d)
        } else {
            let (a, c) = butterfly::<LEAN>(a, c, sixteen_q, role, w[0], context);
            let (b, d) = butterfly::<LEAN>(b, d, two_q, role, w[0], context);
            (if LEAN { context.reduce_lean(a) } else { a }, b, c, d)
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
    let (w, role) = (context.factor(m + j), context.role(m, j));
    let (low, high) = lanes.split_at_mut(lanes.len() / 2);
    for (x, y) in low.iter_mut().zip(high) {
        let (a, b) = (load(x), load(y));
        let (a, b) = if let Some(last) = last {
            scaled::<LEAN>(a, b, context.eight_q, last, context)
        } else {
            let (a, b) = butterfly::<LEAN>(a, b, context.eight_q, role, w, context);
            (if LEAN { context.reduce_lean(a) } else { a }, b)
        };
        store(x, a);
        store(y, b);
    }
}

/// x + y and x − y, both fit for a product. Lean: y is below `bound`. Strict: x lies in [q, 3q) and y in [−q, q).
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn halves<const LEAN: bool>(x: V, y: V, bound: V) -> (V, V) {
    (add(x, y), sub(if LEAN { add(x, bound) } else { x }, y))
}

/// The sum of [`halves`], and the product of the difference. Lean, that is below 2q. Strict, both take the `role`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn butterfly<const LEAN: bool>(x: V, y: V, bound: V, role: V, w: Factor, context: &Context<'_>) -> (V, V) {
    let (sum, difference) = halves::<LEAN>(x, y, bound);
    if LEAN {
        (sum, context.mul_lean(difference, w))
    } else {
        (context.reduce_strict(sum, role), context.mul_strict(context.m.zero, difference, w, role))
    }
}

/// The last level: both halves multiplied and fully reduced.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn scaled<const LEAN: bool>(
    x: V,
    y: V,
    bound: V,
    (scale, last): (Factor, Factor),
    context: &Context<'_>,
) -> (V, V) {
    let m = context.m;
    let (sum, difference) = halves::<LEAN>(x, y, bound);
    (m.reduce2(m.mul_lazy(sum, scale)), m.reduce2(m.mul_lazy(difference, last)))
}

/// The first two of three levels over eight rows. Lean, rows 0 and 4 end below 32q, rows 1 and 5 below 4q, the others
/// below 2q. Strict, rows 0 to 3 are ready to be left operands and 4 to 7 to be right ones.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn two_of_three<const LEAN: bool>(mut v: [V; 8], w: [Factor; 7], context: &Context<'_>) -> [V; 8] {
    across1::<LEAN>(&mut v, &w, context);
    across2::<LEAN>(&mut v, &w, context);
    v
}

/// Three levels over eight rows, ending in one `role`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn eight<const LEAN: bool>(
    mut v: [V; 8],
    w: [Factor; 7],
    role: V,
    context: &Context<'_>,
) -> [V; 8] {
    across1::<LEAN>(&mut v, &w, context);
    across2::<LEAN>(&mut v, &w, context);
    across3::<LEAN>(&mut v, &w, role, context);
    v
}

/// The first level of [`eight`].
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn across1<const LEAN: bool>(v: &mut [V; 8], w: &[Factor; 7], context: &Context<'_>) {
    for k in [0, 2, 4, 6] {
        let (w, role) = (w[3 + k / 2], context.roles[k / 2 % 2]);
        (v[k], v[k + 1]) = butterfly::<LEAN>(v[k], v[k + 1], context.eight_q, role, w, context);
    }
}

/// The second.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn across2<const LEAN: bool>(v: &mut [V; 8], w: &[Factor; 7], context: &Context<'_>) {
    for k in [0, 4] {
        let (w, role) = (w[1 + k / 4], context.roles[k / 4]);
        (v[k], v[k + 2]) = butterfly::<LEAN>(v[k], v[k + 2], context.sixteen_q, role, w, context);
        (v[k + 1], v[k + 3]) = butterfly::<LEAN>(v[k + 1], v[k + 3], context.m.two_q, role, w, context);
    }
}

/// The third, and what brings all rows back to the bounds of a pass.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn across3<const LEAN: bool>(v: &mut [V; 8], w: &[Factor; 7], role: V, context: &Context<'_>) {
    let bounds = context.last_bounds();
    for k in 0..4 {
        (v[k], v[k + 4]) = butterfly::<LEAN>(v[k], v[k + 4], bounds[k], role, w[0], context);
    }
    if LEAN {
        v[0] = context.reduce_lean(v[0]);
    }
}

/// The level with neighbours in the same vector, over four pairs of vectors of residues in their order.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn within1<const LEAN: bool>(v: &mut [V; 8], tail: &Tail<'_>, run: usize, context: &Context<'_>) {
    for pair in 0..4 {
        let (x, y) = separate(v[2 * pair], v[2 * pair + 1]);
        let x = if LEAN { x } else { add(x, context.m.q) };
        let w = tail.within1(run, pair);
        (v[2 * pair], v[2 * pair + 1]) =
            butterfly::<LEAN>(x, y, context.m.q, context.alternating, w, context);
    }
}

/// With halves of two values.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn within2<const LEAN: bool>(v: &mut [V; 8], tail: &Tail<'_>, run: usize, context: &Context<'_>) {
    for pair in 0..4 {
        let (x, y) = separate(v[2 * pair], v[2 * pair + 1]);
        let w = tail.within2(run, pair);
        (v[2 * pair], v[2 * pair + 1]) =
            butterfly::<LEAN>(x, y, context.m.two_q, context.alternating, w, context);
    }
}

/// With halves of four values; the vectors are in their order again.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn within4<const LEAN: bool>(v: &mut [V; 8], tail: &Tail<'_>, run: usize, context: &Context<'_>) {
    for pair in 0..4 {
        let (x, y) = separate(v[2 * pair], v[2 * pair + 1]);
        let w = tail.within4(run, pair);
        let (x, y) = butterfly::<LEAN>(x, y, context.four_q, context.alternating, w, context);
        (v[2 * pair], v[2 * pair + 1]) = separate(x, y);
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
        across3::<LEAN>(&mut now, &w, context.role(m, number + index), context);
        store_run(&mut runs[index], now);
        now = next;
    }
    let role = context.role(m, number + count - 1);
    let now = eight::<LEAN>(now, factors8!(first, second, third, count - 1), role, context);
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
