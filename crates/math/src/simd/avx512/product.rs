//! The inner loop of a key switch.

use super::super::KeyProduct;
use super::{Barrett, Lane, load, spread, store};
use crate::modulus::Modulus;
use std::arch::x86_64::*;

/// Digits are permuted as they are loaded, and each loaded digit serves both halves of the key.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn key_product(out: &mut [u64], product: &KeyProduct<'_>, start: usize, modulus: &Modulus) {
    let b = Barrett::new(modulus);
    let short = Barrett::fits(product.digits.len() + 1, modulus.bits());
    let (first, second) = out.split_at_mut(out.len() / 2);
    let (first, second) = (first.as_chunks_mut::<8>().0, second.as_chunks_mut::<8>().0);
    let in_order = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
    for (v, (first, second)) in first.iter_mut().zip(second).enumerate() {
        let (source, order) = match product.permutation {
            Some((blocks, orders)) => {
                let entry = blocks[start / 8 + v] as usize;
                (entry / 8, load(&orders[entry % 8]))
            }
            None => (start / 8 + v, in_order),
        };
        let fetch = |limb: &[u64]| _mm512_permutexvar_epi64(order, load(&lanes(limb)[source]));
        let mut low = [b.m.zero; 2];
        let mut high = [b.m.zero; 2];
        let [keys0, keys1] = product.keys;
        for ((digit, key0), key1) in product.digits.iter().zip(keys0).zip(keys1) {
            let x = fetch(digit);
            let (k0, k1) = (load(&lanes(key0)[v]), load(&lanes(key1)[v]));
            low[0] = _mm512_madd52lo_epu64(low[0], x, k0);
            high[0] = _mm512_madd52hi_epu64(high[0], x, k0);
            low[1] = _mm512_madd52lo_epu64(low[1], x, k1);
            high[1] = _mm512_madd52hi_epu64(high[1], x, k1);
        }
        for (half, add) in product.add.iter().enumerate() {
            if let Some((limb, factor)) = add {
                let (x, w) = (fetch(limb), spread(*factor));
                low[half] = _mm512_madd52lo_epu64(low[half], x, w);
                high[half] = _mm512_madd52hi_epu64(high[half], x, w);
            }
        }
        for (half, out) in [first, second].into_iter().enumerate() {
            let (low, high) = (low[half], high[half]);
            store(out, if short { b.reduce_short_sum(low, high) } else { b.reduce_sum(low, high) });
        }
    }
}

fn lanes(limb: &[u64]) -> &[Lane] {
    limb.as_chunks().0
}
