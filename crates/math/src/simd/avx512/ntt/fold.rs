//! Between the conjugate-invariant ring and the transforms: alone, and as part of the first or last pass.

use super::*;

/// Factors of the joined passes.
struct Joined {
    /// Of the fold: ι. Of its inverse: ι · scale.
    iota: Factor,
    /// What sums are multiplied with at the end; unused forward.
    scale: Factor,
    /// Of three levels, the first absorbing −ι, or its inverse ι.
    levels: [Factor; 7],
}

/// Fold and three levels.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn first_pass<B: Bounds>(
    values: &mut [u64],
    iota: Shoup,
    modulus: &Modulus,
    context: &Context<'_>,
) {
    let minus_iota = modulus.neg(iota.value);
    let mut levels = factors8!(context, 1);
    levels[0] = Factor::of(modulus.shoup(modulus.mul(minus_iota, context.twiddles.values[1])));
    let joined = Joined { iota: Factor::of(iota), scale: levels[0], levels };
    // Lane 0 of the left-over columns has its mirror images elsewhere and is folded here.
    let mut rest = Rest::gather(values);
    let fold = |x: &mut u64, y: &mut u64| {
        let t = modulus.mul_shoup(*y, iota);
        (*x, *y) = (modulus.sub(*x, t), modulus.add(*x, t));
    };
    let mut middle = rest.first[4];
    let mut unused = middle;
    fold(&mut unused, &mut middle);
    rest.first[4] = middle;
    for k in 1..4 {
        let (low, high) = rest.first.split_at_mut(4);
        fold(&mut low[k], &mut high[4 - k]);
    }
    for k in 0..4 {
        let (low, high) = rest.half.split_at_mut(4);
        fold(&mut low[k], &mut high[3 - k]);
    }
    let (mut a, mut b) = (load_run(&rest.a), load_run(&rest.b));
    fold_columns::<B>(&mut a, &mut b, &joined, context);
    for k in 0..8 {
        a[k] = _mm512_mask_blend_epi64(1, a[k], spread(rest.first[k]));
        b[k] = _mm512_mask_blend_epi64(1, b[k], spread(rest.half[k]));
    }
    let a = forward::eight::<B, true>(a, levels, context);
    let b = forward::eight::<B, true>(b, levels, context);
    store_run(&mut rest.a, a);
    store_run(&mut rest.b, b);
    columns(values, |mut a, mut b| {
        fold_columns::<B>(&mut a, &mut b, &joined, context);
        let w = &joined.levels;
        forward::across1::<B, true>(&mut a, w, context);
        forward::across1::<B, true>(&mut b, w, context);
        forward::across2::<B>(&mut a, w, context);
        forward::across2::<B>(&mut b, w, context);
        forward::across3::<B>(&mut a, w, context);
        forward::across3::<B>(&mut b, w, context);
        (a, b)
    });
    rest.scatter(values);
}

/// Three levels backwards, unfolding, and the scale; fully reduced.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn last_pass<B: Bounds>(
    values: &mut [u64],
    iota: Shoup,
    scale: Shoup,
    modulus: &Modulus,
    context: &Context<'_>,
) {
    let mut levels = factors8!(context, 1);
    levels[0] = Factor::of(modulus.shoup(modulus.mul(iota.value, context.twiddles.values[1])));
    let scaled_iota = modulus.shoup(modulus.mul(iota.value, scale.value));
    let joined = Joined { iota: Factor::of(scaled_iota), scale: Factor::of(scale), levels };
    let mut rest = Rest::gather(values);
    let (a, b) = (load_run(&rest.a), load_run(&rest.b));
    let root = inverse::Role::none();
    let mut a = inverse::eight::<B>(a, levels, root, context);
    let mut b = inverse::eight::<B>(b, levels, root, context);
    for k in 0..8 {
        let mut lane = [0; 8];
        store(&mut lane, _mm512_and_si512(a[k], context.m.mask));
        rest.first[k] = modulus.reduce(lane[0]);
        store(&mut lane, _mm512_and_si512(b[k], context.m.mask));
        rest.half[k] = modulus.reduce(lane[0]);
    }
    unfold_columns(&mut a, &mut b, &joined, context);
    store_run(&mut rest.a, a);
    store_run(&mut rest.b, b);
    let unfold = |x: &mut u64, y: &mut u64| {
        let (sum, difference) = (modulus.add(*x, *y), modulus.sub(*x, *y));
        (*x, *y) = (modulus.mul_shoup(sum, scale), modulus.mul_shoup(difference, scaled_iota));
    };
    let start = rest.first[0];
    rest.first[0] = modulus.mul_shoup(modulus.add(start, start), scale);
    let middle = rest.first[4];
    rest.first[4] = modulus.sub(modulus.mul_shoup(middle, scale), modulus.mul_shoup(middle, scaled_iota));
    for k in 1..4 {
        let (low, high) = rest.first.split_at_mut(4);
        unfold(&mut low[k], &mut high[4 - k]);
    }
    for k in 0..4 {
        let (low, high) = rest.half.split_at_mut(4);
        unfold(&mut low[k], &mut high[3 - k]);
    }
    for k in 0..8 {
        rest.a[k][0] = rest.first[k];
        rest.b[k][0] = rest.half[k];
    }
    columns(values, |a, b| {
        let (mut a, mut b) = inverse::two_eights::<B>(a, b, &joined.levels, root, context);
        unfold_columns(&mut a, &mut b, &joined, context);
        (a, b)
    });
    rest.scatter(values);
}

/// x − ι·y and x + ι·y: row k of one side with row 7 − k of the other.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn fold_columns<B: Bounds>(a: &mut [V; 8], b: &mut [V; 8], joined: &Joined, context: &Context<'_>) {
    for k in 0..4 {
        (b[7 - k], a[k]) = forward::butterfly_of_residues::<B>(a[k], b[7 - k], joined.iota, context);
        (a[7 - k], b[k]) = forward::butterfly_of_residues::<B>(b[k], a[7 - k], joined.iota, context);
    }
}

/// (x + y) · scale and (x − y) · ι · scale, fully reduced.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn unfold_columns(a: &mut [V; 8], b: &mut [V; 8], joined: &Joined, context: &Context<'_>) {
    let m = context.m;
    let unfold = |x: V, y: V| {
        // Right operands were multiplied last, so they are below 2q.
        let (sum, difference) = (add(x, y), sub(add(x, m.two_q), y));
        (m.reduce2(m.mul_lazy(sum, joined.scale)), m.reduce2(m.mul_lazy(difference, joined.iota)))
    };
    for k in 0..4 {
        (a[k], b[7 - k]) = unfold(a[k], b[7 - k]);
        (b[k], a[7 - k]) = unfold(b[k], a[7 - k]);
    }
}

/// Runs `f` over columns 8.. in eights and their mirror images, those mirrored in reverse order.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn columns(values: &mut [u64], f: impl Fn([V; 8], [V; 8]) -> ([V; 8], [V; 8])) {
    let reverse = _mm512_set_epi64(0, 1, 2, 3, 4, 5, 6, 7);
    let len = values.len() / 8;
    let mut column = 8;
    while column < len / 2 {
        let (left, right) = (column, len - column - 7);
        let (mut a, mut b) = ([_mm512_setzero_si512(); 8], [_mm512_setzero_si512(); 8]);
        for k in 0..8 {
            a[k] = load(lane(values, k * len + left));
            b[k] = _mm512_permutexvar_epi64(reverse, load(lane(values, k * len + right)));
        }
        let (a, b) = f(a, b);
        for k in 0..8 {
            store(lane_mut(values, k * len + left), a[k]);
            store(lane_mut(values, k * len + right), _mm512_permutexvar_epi64(reverse, b[k]));
        }
        column += 8;
    }
}

/// The columns that [`columns`] leaves out: 0 to 7, the mirror images of 1 to 7, and the middle one in lane 0 of those.
struct Rest {
    a: [Lane; 8],
    b: [Lane; 8],
    /// Lane 0 of both.
    first: Lane,
    half: Lane,
}

impl Rest {
    fn gather(values: &[u64]) -> Self {
        let len = values.len() / 8;
        let (mut a, mut b) = ([[0; 8]; 8], [[0; 8]; 8]);
        for ((row, a), b) in values.chunks_exact(len).zip(&mut a).zip(&mut b) {
            *a = *lane(row, 0);
            b[0] = row[len / 2];
            for (b, &x) in b[1..].iter_mut().zip(row[len - 7..].iter().rev()) {
                *b = x;
            }
        }
        Self { first: a.map(|x| x[0]), half: b.map(|x| x[0]), a, b }
    }

    fn scatter(&self, values: &mut [u64]) {
        let len = values.len() / 8;
        for ((row, a), b) in values.chunks_exact_mut(len).zip(&self.a).zip(&self.b) {
            *lane_mut(row, 0) = *a;
            row[len / 2] = b[0];
            for (&b, x) in b[1..].iter().zip(row[len - 7..].iter_mut().rev()) {
                *x = b;
            }
        }
    }
}

#[inline]
fn lane(values: &[u64], start: usize) -> &Lane {
    &values[start..start + 8].as_chunks().0[0]
}

#[inline]
fn lane_mut(values: &mut [u64], start: usize) -> &mut Lane {
    &mut values[start..start + 8].as_chunks_mut().0[0]
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(in super::super) fn fold(values: &mut [u64], iota: Shoup, modulus: &Modulus) {
    mirrored::<true>(values, iota, modulus);
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(in super::super) fn unfold(values: &mut [u64], iota: Shoup, modulus: &Modulus) {
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
