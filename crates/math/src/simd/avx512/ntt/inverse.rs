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
    by_modulus!(modulus, MAX_SPARSE_INVERSE, node(lanes, 1, 0, Some(factors), &context));
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
    by_modulus!(modulus, MAX_SPARSE_INVERSE, unfolded(values, iota, scale, modulus, &context));
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn unfolded<B: Bounds>(
    values: &mut [u64],
    iota: Shoup,
    scale: Shoup,
    modulus: &Modulus,
    context: &Context<'_>,
) {
    let (lanes, _) = values.as_chunks_mut::<8>();
    let eighth = lanes.len() / 8;
    for (j, child) in lanes.chunks_exact_mut(eighth).enumerate() {
        node::<B>(child, 8, j, None, context);
    }
    fold::last_pass::<B>(values, iota, scale, modulus, context);
}

/// Everything below node `j` of the level with `m` nodes; `last` are the factors of the root's last level.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn node<B: Bounds>(
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
            node::<B>(lanes, m << step, (j << step) + c, None, context);
        }
        pass::<B>(lanes, m, j, step, last, context);
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
    tail::<B>(lanes, m << above, j << above, context);
    for &step in steps[..count].iter().rev() {
        above -= step;
        let width = lanes.len() >> above;
        let last = last.filter(|_| above == 0);
        for (c, lanes) in lanes.chunks_exact_mut(width).enumerate() {
            pass::<B>(lanes, m << above, (j << above) + c, step, last, context);
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
fn pass<B: Bounds>(
    lanes: &mut [Lane],
    m: usize,
    j: usize,
    step: u32,
    last: Option<(Factor, Factor)>,
    context: &Context<'_>,
) {
    match step {
        3 => pass8::<B>(lanes, m, j, last, context),
        2 => pass4::<B>(lanes, m, j, last, context),
        _ => pass2::<B>(lanes, m, j, last, context),
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn pass8<B: Bounds>(
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
            let mut v = load_rows(&rows, i);
            across1::<B>(&mut v, &w, context);
            across2::<B>(&mut v, &w, context);
            for k in 0..4 {
                (v[k], v[k + 4]) = scaled(v[k], v[k + 4], last, context);
            }
            store_rows(&mut rows, i, v);
        }
    } else {
        let role = Role::of_node::<B>(m, j, context);
        // Two columns level by level; see the forward `tail`.
        for i in (0..rows[0].len()).step_by(2) {
            let (a, b) = two_eights::<B>(load_rows(&rows, i), load_rows(&rows, i + 1), &w, role, context);
            store_rows(&mut rows, i, a);
            store_rows(&mut rows, i + 1, b);
        }
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn pass4<B: Bounds>(
    lanes: &mut [Lane],
    m: usize,
    j: usize,
    last: Option<(Factor, Factor)>,
    context: &Context<'_>,
) {
    let w = context.factors4(m, j);
    let (role, [even, odd]) = (Role::of_node::<B>(m, j, context), context.roles);
    let [ra, rb, rc, rd] = rows4(lanes);
    for (((ra, rb), rc), rd) in ra.iter_mut().zip(rb).zip(rc).zip(rd) {
        let (a, b) = butterfly::<B>(load(ra), load(rb), even, w[1], context);
        let (c, d) = butterfly::<B>(load(rc), load(rd), odd, w[2], context);
        let ((a, c), (b, d)) = if let Some(last) = last {
            (scaled(a, c, last, context), scaled(b, d, last, context))
        } else {
            let sums = last_of_sums::<B>(a, c, lift::<B>(context), role, w[0], context);
            (sums, last_of_products::<B>(b, d, role, w[0], context))
        };
        store(ra, a);
        store(rb, b);
        store(rc, c);
        store(rd, d);
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn pass2<B: Bounds>(
    lanes: &mut [Lane],
    m: usize,
    j: usize,
    last: Option<(Factor, Factor)>,
    context: &Context<'_>,
) {
    let (w, role) = (context.factor(m + j), Role::of_node::<B>(m, j, context));
    let (low, high) = lanes.split_at_mut(lanes.len() / 2);
    for (x, y) in low.iter_mut().zip(high) {
        let (a, b) = (load(x), load(y));
        let (a, b) = if let Some(last) = last {
            scaled(a, b, last, context)
        } else {
            last_of_sums::<B>(a, b, lift::<B>(context), role, w, context)
        };
        store(x, a);
        store(y, b);
    }
}

/// Roles are those of rows of eight: lean sums of two and of four may be −15q.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn lift<B: Bounds>(context: &Context<'_>) -> V {
    if B::LEAN { context.sixteen_q } else { _mm512_setzero_si512() }
}

/// What values have to be brought to at the end of a pass.
#[derive(Clone, Copy)]
pub(super) struct Role {
    /// Of the quotient in a reduction.
    shift: V,
    /// As a multiple of q.
    offset: V,
}

impl Role {
    /// For node `j` of `m`; the root's is none.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn of_node<B: Bounds>(m: usize, j: usize, context: &Context<'_>) -> Self {
        if m == 1 {
            return Self::none();
        }
        let offset = if B::LEAN { spread(context.offsets[j % 8]) } else { context.m.zero };
        Self { shift: spread(B::SHIFTS[j % 8]), offset }
    }

    /// For two nodes in turn over the lanes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn alternating<B: Bounds>(even: usize, context: &Context<'_>) -> Self {
        let [even, odd] = [Self::of_node::<B>(0, even, context), Self::of_node::<B>(0, even + 1, context)];
        let in_turn = |x, y| _mm512_mask_blend_epi64(0b1010_1010, x, y);
        Self { shift: in_turn(even.shift, odd.shift), offset: in_turn(even.offset, odd.offset) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn none() -> Self {
        Self { shift: _mm512_setzero_si512(), offset: _mm512_setzero_si512() }
    }
}

/// (x + y, w·(x − y)) for x − y above zero, the product shifted; so is the sum, if strict.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn butterfly<B: Bounds>(x: V, y: V, shift: V, w: Factor, context: &Context<'_>) -> (V, V) {
    let sum = add(x, y);
    let product = context.mul_strict(context.m.zero, sub(x, y), w, shift);
    (if B::STRICT { context.reduce_strict(sum, shift) } else { sum }, product)
}

/// The same in the last level of a pass, after which all have a `role`, for sums of sums, which are not negative with `lift`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn last_of_sums<B: Bounds>(x: V, y: V, lift: V, role: Role, w: Factor, context: &Context<'_>) -> (V, V) {
    let (sum, product) = butterfly::<B>(x, y, role.shift, w, context);
    (if B::STRICT { sum } else { context.reduce_strict(add(sum, lift), role.shift) }, product)
}

/// And for products and their sums, which need no reduction, if lean.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn last_of_products<B: Bounds>(x: V, y: V, role: Role, w: Factor, context: &Context<'_>) -> (V, V) {
    if !B::LEAN {
        return last_of_sums::<B>(x, y, _mm512_setzero_si512(), role, w, context);
    }
    let (sum, product) = butterfly::<B>(x, y, role.shift, w, context);
    (add(sum, role.offset), product)
}

/// The last level: both halves multiplied and fully reduced.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn scaled(x: V, y: V, (scale, last): (Factor, Factor), context: &Context<'_>) -> (V, V) {
    let m = context.m;
    (m.reduce2(m.mul_lazy(add(x, y), scale)), m.reduce2(m.mul_lazy(sub(x, y), last)))
}

/// Three levels over eight rows, ending in one `role`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn eight<B: Bounds>(mut v: [V; 8], w: [Factor; 7], role: Role, context: &Context<'_>) -> [V; 8] {
    across1::<B>(&mut v, &w, context);
    across2::<B>(&mut v, &w, context);
    across3::<B>(&mut v, &w, role, context);
    v
}

/// Two [`eight`] level by level.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn two_eights<B: Bounds>(
    mut a: [V; 8],
    mut b: [V; 8],
    w: &[Factor; 7],
    role: Role,
    context: &Context<'_>,
) -> ([V; 8], [V; 8]) {
    across1::<B>(&mut a, w, context);
    across1::<B>(&mut b, w, context);
    across2::<B>(&mut a, w, context);
    across2::<B>(&mut b, w, context);
    across3::<B>(&mut a, w, role, context);
    across3::<B>(&mut b, w, role, context);
    (a, b)
}

/// The first level of [`eight`].
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn across1<B: Bounds>(v: &mut [V; 8], w: &[Factor; 7], context: &Context<'_>) {
    for k in 0..4 {
        let (at, shift) = (2 * k, context.shifts[(2 - B::PRODUCTS[k]) as usize]);
        (v[at], v[at + 1]) = butterfly::<B>(v[at], v[at + 1], shift, w[3 + k], context);
    }
}

/// The second.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn across2<B: Bounds>(v: &mut [V; 8], w: &[Factor; 7], context: &Context<'_>) {
    for k in [0, 4] {
        let (w, shift) = (w[1 + k / 4], context.roles[k / 4]);
        (v[k], v[k + 2]) = butterfly::<B>(v[k], v[k + 2], shift, w, context);
        (v[k + 1], v[k + 3]) = butterfly::<B>(v[k + 1], v[k + 3], shift, w, context);
    }
    if !B::LEAN && !B::STRICT {
        v[4] = context.reduce_strict(v[4], context.m.zero);
    }
}

/// The third, after which all rows have one role.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn across3<B: Bounds>(v: &mut [V; 8], w: &[Factor; 7], role: Role, context: &Context<'_>) {
    (v[0], v[4]) = last_of_sums::<B>(v[0], v[4], _mm512_setzero_si512(), role, w[0], context);
    for k in 1..4 {
        (v[k], v[k + 4]) = last_of_products::<B>(v[k], v[k + 4], role, w[0], context);
    }
}

/// The level with neighbours in the same vector, over four pairs of vectors of residues in their order.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn within1<B: Bounds>(v: &mut [V; 8], tail: &Tail<'_>, run: usize, context: &Context<'_>) {
    for pair in 0..4 {
        let (x, y) = separate(v[2 * pair], v[2 * pair + 1]);
        let w = tail.within1(run, pair);
        (v[2 * pair], v[2 * pair + 1]) = if B::STRICT {
            butterfly::<B>(add(x, context.m.q), y, context.alternating, w, context)
        } else {
            bounded(x, y, context.m.q, w, context)
        };
    }
}

/// With halves of two values.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn within2<B: Bounds>(v: &mut [V; 8], tail: &Tail<'_>, run: usize, context: &Context<'_>) {
    for pair in 0..4 {
        let (x, y) = separate(v[2 * pair], v[2 * pair + 1]);
        let w = tail.within2(run, pair);
        (v[2 * pair], v[2 * pair + 1]) = if B::STRICT {
            butterfly::<B>(x, y, context.alternating, w, context)
        } else {
            bounded(x, y, context.m.two_q, w, context)
        };
    }
}

/// (x + y, w·(x − y)) for y below the `bound`, the product below 2q.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn bounded(x: V, y: V, bound: V, w: Factor, context: &Context<'_>) -> (V, V) {
    (add(x, y), context.mul_lean(sub(add(x, bound), y), w))
}

/// With halves of four values, below 4q unless strict; the vectors are in their order again, and have the roles of rows.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn within4<B: Bounds>(v: &mut [V; 8], tail: &Tail<'_>, run: usize, roles: &[Role; 4], context: &Context<'_>) {
    for pair in 0..4 {
        let (x, y) = separate(v[2 * pair], v[2 * pair + 1]);
        let w = tail.within4(run, pair);
        let (x, y) = if B::STRICT {
            butterfly::<B>(x, y, context.alternating, w, context)
        } else {
            let (sum, left) = (add(x, y), add(x, context.four_q));
            let Role { shift, offset } = roles[pair];
            let sum = if B::LEAN { add(sum, offset) } else { context.reduce_strict(sum, shift) };
            (sum, context.mul_strict(context.m.zero, sub(left, y), w, shift))
        };
        (v[2 * pair], v[2 * pair + 1]) = separate(x, y);
    }
}

/// The last six levels of runs of 64 values, from residues. Runs are interleaved as in the forward transform.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn tail<B: Bounds>(lanes: &mut [Lane], m: usize, number: usize, context: &Context<'_>) {
    let (runs, _) = lanes.as_chunks_mut::<8>();
    let tail = Tail::new(context.twiddles, m, number, runs.len());
    let [first, second, third] = tail.across;
    let mut roles = [Role::none(); 4];
    for (pair, role) in roles.iter_mut().enumerate() {
        *role = Role::alternating::<B>(2 * pair, context);
    }
    let count = runs.len();
    let mut now = load_run(&runs[0]);
    within1::<B>(&mut now, &tail, 0, context);
    within2::<B>(&mut now, &tail, 0, context);
    within4::<B>(&mut now, &tail, 0, &roles, context);
    for index in 0..count - 1 {
        let mut next = load_run(&runs[index + 1]);
        let w = factors8!(first, second, third, index);
        within1::<B>(&mut next, &tail, index + 1, context);
        across1::<B>(&mut now, &w, context);
        within2::<B>(&mut next, &tail, index + 1, context);
        across2::<B>(&mut now, &w, context);
        within4::<B>(&mut next, &tail, index + 1, &roles, context);
        across3::<B>(&mut now, &w, Role::of_node::<B>(m, number + index, context), context);
        store_run(&mut runs[index], now);
        now = next;
    }
    let role = Role::of_node::<B>(m, number + count - 1, context);
    let now = eight::<B>(now, factors8!(first, second, third, count - 1), role, context);
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
