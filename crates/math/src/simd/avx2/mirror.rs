//! Folding between the conjugate-invariant ring and the transform, a pass of its own here: about a sixth of both together.

use super::super::Twiddles;
use super::ntt::{ntt_forward, ntt_inverse};
use super::{Lane, Mod, V, double, load, store};
use crate::modulus::{Modulus, Shoup};
use std::arch::x86_64::*;

#[target_feature(enable = "avx2,fma")]
pub(super) fn ntt_forward_folded(values: &mut [u64], iota: Shoup, twiddles: Twiddles<'_>, modulus: &Modulus) {
    fold(values, iota, modulus);
    ntt_forward(values, twiddles, modulus);
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn ntt_inverse_unfolded(
    values: &mut [u64],
    iota: Shoup,
    twiddles: Twiddles<'_>,
    scale: Shoup,
    last: Shoup,
    modulus: &Modulus,
) {
    ntt_inverse(values, twiddles, scale, last, modulus);
    unfold(values, iota, modulus);
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn fold(values: &mut [u64], iota: Shoup, modulus: &Modulus) {
    mirrored::<true>(values, iota, modulus);
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn unfold(values: &mut [u64], iota: Shoup, modulus: &Modulus) {
    if let Some(first) = values.first_mut() {
        *first = modulus.add(*first, *first);
    }
    mirrored::<false>(values, iota, modulus);
}

/// x ∓ ι·y and y ∓ ι·x for the mirrored pairs.
#[target_feature(enable = "avx2,fma")]
fn mirrored<const SUBTRACT: bool>(values: &mut [u64], iota: Shoup, modulus: &Modulus) {
    let n = values.len();
    if n < 2 {
        return;
    }
    let m = Mod::new(modulus);
    let w = m.spread(iota.value);
    let one = |x: u64, y: u64| {
        let t = modulus.mul_shoup(y, iota);
        if SUBTRACT { modulus.sub(x, t) } else { modulus.add(x, t) }
    };
    // The sum lies in (−3q/4, 7q/4).
    let many = |x: V, y: V| {
        let t = m.mul(y, w);
        let sum = if SUBTRACT { _mm256_sub_pd(x, t) } else { _mm256_add_pd(x, t) };
        let above = _mm256_cmp_pd::<_CMP_GE_OQ>(sum, m.q);
        m.word(_mm256_sub_pd(sum, _mm256_and_pd(above, m.q)))
    };
    let (low, high) = values.split_at_mut(n / 2);
    let (low, high) = (&mut low[1..], &mut high[..]);
    let middle = &mut high[0];
    *middle = one(*middle, *middle);
    let (low_lanes, low_rest) = low.as_chunks_mut::<4>();
    let (high_rest, high_lanes) = high[1..].as_rchunks_mut::<4>();
    for (x, y) in low_lanes.iter_mut().zip(high_lanes.iter_mut().rev()) {
        let (a, b) = (double(load(x)), double(reversed(y)));
        store(x, many(a, b));
        store(y, _mm256_permute4x64_epi64::<0b00_01_10_11>(many(b, a)));
    }
    for (x, y) in low_rest.iter_mut().zip(high_rest.iter_mut().rev()) {
        (*x, *y) = (one(*x, *y), one(*y, *x));
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn reversed(x: &Lane) -> __m256i {
    _mm256_permute4x64_epi64::<0b00_01_10_11>(load(x))
}
