//! Value by value.

use super::super::scalar;
use super::{Barrett, Factor, Mod, load, spread, store};
use crate::modulus::{Modulus, Shoup};
use std::arch::x86_64::*;

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn prefetch(values: &[u64]) {
    for line in values.chunks(8) {
        super::prefetch(&line[0], 0);
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn add_assign(out: &mut [u64], x: &[u64], modulus: &Modulus) {
    let m = Mod::new(modulus);
    let ((lanes, rest), (xs, x_rest)) = (out.as_chunks_mut(), x.as_chunks());
    for (o, x) in lanes.iter_mut().zip(xs) {
        store(o, m.add(load(o), load(x)));
    }
    scalar::add_assign(rest, x_rest, modulus);
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn sub_assign(out: &mut [u64], x: &[u64], modulus: &Modulus) {
    let m = Mod::new(modulus);
    let ((lanes, rest), (xs, x_rest)) = (out.as_chunks_mut(), x.as_chunks());
    for (o, x) in lanes.iter_mut().zip(xs) {
        store(o, m.sub(load(o), load(x)));
    }
    scalar::sub_assign(rest, x_rest, modulus);
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn neg_assign(out: &mut [u64], modulus: &Modulus) {
    let m = Mod::new(modulus);
    let (lanes, rest) = out.as_chunks_mut();
    for o in lanes {
        store(o, m.sub(m.zero, load(o)));
    }
    scalar::neg_assign(rest, modulus);
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn mul(out: &mut [u64], x: &[u64], y: &[u64], modulus: &Modulus) {
    let b = Barrett::new(modulus);
    let ((lanes, rest), (xs, x_rest), (ys, y_rest)) = (out.as_chunks_mut(), x.as_chunks(), y.as_chunks());
    for ((o, x), y) in lanes.iter_mut().zip(xs).zip(ys) {
        store(o, b.mul(load(x), load(y)));
    }
    scalar::mul(rest, x_rest, y_rest, modulus);
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn mul_assign(out: &mut [u64], x: &[u64], modulus: &Modulus) {
    let b = Barrett::new(modulus);
    let ((lanes, rest), (xs, x_rest)) = (out.as_chunks_mut(), x.as_chunks());
    for (o, x) in lanes.iter_mut().zip(xs) {
        store(o, b.mul(load(o), load(x)));
    }
    scalar::mul_assign(rest, x_rest, modulus);
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn mul_blocks(out: &mut [u64], values: &[u64], weights: &[u64], modulus: &Modulus) {
    let block = out.len() / weights.len().max(1);
    if block < 8 {
        return scalar::mul_blocks(out, values, weights, modulus);
    }
    let b = Barrett::new(modulus);
    for ((o, x), &w) in out.chunks_exact_mut(block).zip(values.chunks_exact(block)).zip(weights) {
        let w = spread(w);
        for (o, x) in o.as_chunks_mut().0.iter_mut().zip(x.as_chunks().0) {
            store(o, b.mul(load(x), w));
        }
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn scale_assign(out: &mut [u64], factor: Shoup, modulus: &Modulus) {
    let (m, w) = (Mod::new(modulus), Factor::of(factor));
    let (lanes, rest) = out.as_chunks_mut();
    for o in lanes {
        store(o, m.reduce2(m.mul_lazy(load(o), w)));
    }
    scalar::scale_assign(rest, factor, modulus);
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn sub_from_scale(out: &mut [u64], x: &[u64], factor: Shoup, modulus: &Modulus) {
    let (m, w) = (Mod::new(modulus), Factor::of(factor));
    let ((lanes, rest), (xs, x_rest)) = (out.as_chunks_mut(), x.as_chunks());
    for (o, x) in lanes.iter_mut().zip(xs) {
        let difference = _mm512_sub_epi64(_mm512_add_epi64(load(x), m.q), load(o));
        store(o, m.reduce2(m.mul_lazy(difference, w)));
    }
    scalar::sub_from_scale(rest, x_rest, factor, modulus);
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn reduce_signed(out: &mut [u64], x: &[i64], modulus: &Modulus) {
    let b = Barrett::new(modulus);
    let limit = spread(1 << 52);
    let ((lanes, rest), (xs, x_rest)) = (out.as_chunks_mut::<8>(), x.as_chunks::<8>());
    for (o, x) in lanes.iter_mut().zip(xs) {
        // SAFETY: eight words are borrowed.
        let v = unsafe { _mm512_loadu_si512(x.as_ptr().cast()) };
        let magnitude = _mm512_abs_epi64(v);
        if _mm512_cmpge_epu64_mask(magnitude, b.m.q) == 0 {
            store(o, _mm512_min_epu64(v, _mm512_add_epi64(v, b.m.q)));
            continue;
        }
        if _mm512_cmpge_epu64_mask(magnitude, limit) != 0 {
            scalar::reduce_signed(o, x, modulus);
            continue;
        }
        let r = b.finish(_mm512_srlv_epi64(magnitude, b.low_shift), magnitude);
        store(o, _mm512_mask_mov_epi64(r, _mm512_movepi64_mask(v), b.m.sub(b.m.zero, r)));
    }
    scalar::reduce_signed(rest, x_rest, modulus);
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn permute(out: &mut [u64], input: &[u64], blocks: &[u32], orders: &[[u64; 8]; 8]) {
    let (input, _) = input.as_chunks::<8>();
    for (out, &entry) in out.as_chunks_mut::<8>().0.iter_mut().zip(blocks) {
        let (source, order) = (&input[entry as usize / 8], &orders[entry as usize % 8]);
        store(out, _mm512_permutexvar_epi64(load(order), load(source)));
    }
}
