//! Value by value. Sums and differences stay integers: of a number and itself plus q, the sign bit tells which is the
//! residue.

use super::super::scalar;
use super::product::Permutation;
use super::{Mod, ROUND, double, load, round, store};
use crate::modulus::{Modulus, Shoup};
use std::arch::x86_64::*;

#[target_feature(enable = "avx2,fma")]
pub(super) fn prefetch(values: &[u64]) {
    for line in values.chunks(8) {
        _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
    }
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn add_assign(out: &mut [u64], x: &[u64], modulus: &Modulus) {
    let q = word(modulus.value());
    let ((lanes, rest), (xs, x_rest)) = (out.as_chunks_mut(), x.as_chunks());
    for (o, x) in lanes.iter_mut().zip(xs) {
        let sum = _mm256_add_epi64(load(o), load(x));
        store(o, choose(_mm256_sub_epi64(sum, q), sum));
    }
    scalar::add_assign(rest, x_rest, modulus);
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn sub_assign(out: &mut [u64], x: &[u64], modulus: &Modulus) {
    let q = word(modulus.value());
    let ((lanes, rest), (xs, x_rest)) = (out.as_chunks_mut(), x.as_chunks());
    for (o, x) in lanes.iter_mut().zip(xs) {
        let difference = _mm256_sub_epi64(load(o), load(x));
        store(o, choose(difference, _mm256_add_epi64(difference, q)));
    }
    scalar::sub_assign(rest, x_rest, modulus);
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn neg_assign(out: &mut [u64], modulus: &Modulus) {
    let q = word(modulus.value());
    let (lanes, rest) = out.as_chunks_mut();
    for o in lanes {
        let x = load(o);
        let negative = _mm256_sub_epi64(_mm256_setzero_si256(), x);
        store(o, choose(negative, _mm256_sub_epi64(q, x)));
    }
    scalar::neg_assign(rest, modulus);
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn mul(out: &mut [u64], x: &[u64], y: &[u64], modulus: &Modulus) {
    let m = Mod::new(modulus);
    let ((lanes, rest), (xs, x_rest), (ys, y_rest)) = (out.as_chunks_mut(), x.as_chunks(), y.as_chunks());
    for ((o, x), y) in lanes.iter_mut().zip(xs).zip(ys) {
        store(o, m.word(m.mul_residues(double(load(x)), double(load(y)))));
    }
    scalar::mul(rest, x_rest, y_rest, modulus);
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn mul_assign(out: &mut [u64], x: &[u64], modulus: &Modulus) {
    let m = Mod::new(modulus);
    let ((lanes, rest), (xs, x_rest)) = (out.as_chunks_mut(), x.as_chunks());
    for (o, x) in lanes.iter_mut().zip(xs) {
        store(o, m.word(m.mul_residues(double(load(o)), double(load(x)))));
    }
    scalar::mul_assign(rest, x_rest, modulus);
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn mul_blocks(out: &mut [u64], values: &[u64], weights: &[u64], modulus: &Modulus) {
    let block = out.len() / weights.len().max(1);
    if block < 4 {
        return scalar::mul_blocks(out, values, weights, modulus);
    }
    let m = Mod::new(modulus);
    for ((o, x), &w) in out.chunks_exact_mut(block).zip(values.chunks_exact(block)).zip(weights) {
        let w = m.spread(w);
        for (o, x) in o.as_chunks_mut().0.iter_mut().zip(x.as_chunks().0) {
            store(o, m.word(m.mul(double(load(x)), w)));
        }
    }
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn scale_assign(out: &mut [u64], factor: Shoup, modulus: &Modulus) {
    let m = Mod::new(modulus);
    let w = m.spread(factor.value);
    let (lanes, rest) = out.as_chunks_mut();
    for o in lanes {
        store(o, m.word(m.mul(double(load(o)), w)));
    }
    scalar::scale_assign(rest, factor, modulus);
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn sub_from_scale(out: &mut [u64], x: &[u64], factor: Shoup, modulus: &Modulus) {
    let m = Mod::new(modulus);
    let w = m.spread(factor.value);
    let ((lanes, rest), (xs, x_rest)) = (out.as_chunks_mut(), x.as_chunks());
    for (o, x) in lanes.iter_mut().zip(xs) {
        let difference = _mm256_sub_pd(double(load(x)), double(load(o)));
        store(o, m.word(m.mul(difference, w)));
    }
    scalar::sub_from_scale(rest, x_rest, factor, modulus);
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn permute(out: &mut [u64], input: &[u64], blocks: &[u32], orders: &[[u64; 8]; 8]) {
    let permutation = Permutation::new(orders);
    let (input, (out, _)) = (input.as_chunks().0, out.as_chunks_mut::<4>().0.as_chunks_mut::<2>());
    for (out, &entry) in out.iter_mut().zip(blocks) {
        for (out, x) in out.iter_mut().zip(permutation.source(entry).of(input)) {
            store(out, x);
        }
    }
}

/// Values outside [−2^51, 2^51), which have no short way to a double, go through the scalar kernel.
#[target_feature(enable = "avx2,fma")]
pub(super) fn reduce_signed(out: &mut [u64], x: &[i64], modulus: &Modulus) {
    let m = Mod::new(modulus);
    let (bias, beyond) = (word(1 << 51), word(!((1 << 52) - 1)));
    let zero = word(ROUND.to_bits());
    let ((lanes, rest), (xs, x_rest)) = (out.as_chunks_mut::<4>(), x.as_chunks::<4>());
    for (o, x) in lanes.iter_mut().zip(xs) {
        // SAFETY: four words are borrowed; the instruction needs no alignment.
        let v = unsafe { _mm256_loadu_si256(x.as_ptr().cast()) };
        if _mm256_testz_si256(_mm256_add_epi64(v, bias), beyond) == 0 {
            scalar::reduce_signed(o, x, modulus);
            continue;
        }
        let v = round(_mm256_castsi256_pd(_mm256_add_epi64(v, zero)));
        store(o, m.word(m.reduce(v)));
    }
    scalar::reduce_signed(rest, x_rest, modulus);
}

/// The first where it is not negative, else the second.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn choose(x: __m256i, y: __m256i) -> __m256i {
    let (x, y) = (_mm256_castsi256_pd(x), _mm256_castsi256_pd(y));
    _mm256_castpd_si256(_mm256_blendv_pd(x, y, x))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn word(x: u64) -> __m256i {
    _mm256_set1_epi64x(x as i64)
}
