//! Portable kernels, the reference for all others.
//!
//! **Bounds of the forward transform.** Input below q; each butterfly returns x + t and x − t + 2q with t < 2q, so after
//! k levels values are below (2k + 1)·q < 2^56 at 17 levels and 50 bits. Shoup products accept any 64-bit factor, so no
//! reduction is needed before the end. **Inverse.** Sums are brought back below 2q at every level.

use super::tiles::by_terms;
use super::{CONVERT_GROUP, PACKED_GROUP, Sources, Target, Term, TileSum, Tiles, Twiddles, Weights};
use crate::modulus::{Modulus, Shoup};

/// Values handled at once by the sums of products: 128-bit accumulators of this many values stay in the first cache.
const CHUNK: usize = 256;

/// See [`super::ntt_forward`].
pub fn ntt_forward(values: &mut [u64], twiddles: Twiddles<'_>, modulus: &Modulus) {
    let n = values.len();
    let two_q = 2 * modulus.value();
    let mut m = 1;
    while m < n {
        let half = n / (2 * m);
        let factors = twiddles.values[m..2 * m].iter().zip(&twiddles.quotients[m..2 * m]);
        for (node, (&value, &quotient)) in values.chunks_exact_mut(2 * half).zip(factors) {
            let w = Shoup { value, quotient };
            let (low, high) = node.split_at_mut(half);
            for (x, y) in low.iter_mut().zip(high) {
                let t = modulus.mul_shoup_lazy(*y, w);
                *y = *x + two_q - t;
                *x += t;
            }
        }
        m *= 2;
    }
    for x in values {
        *x = modulus.reduce(*x);
    }
}

/// See [`super::ntt_inverse`].
pub fn ntt_inverse(values: &mut [u64], twiddles: Twiddles<'_>, scale: Shoup, last: Shoup, modulus: &Modulus) {
    let n = values.len();
    let two_q = 2 * modulus.value();
    let mut m = n / 2;
    while m > 1 {
        let half = n / (2 * m);
        let factors = twiddles.values[m..2 * m].iter().zip(&twiddles.quotients[m..2 * m]);
        for (node, (&value, &quotient)) in values.chunks_exact_mut(2 * half).zip(factors) {
            let w = Shoup { value, quotient };
            let (low, high) = node.split_at_mut(half);
            for (x, y) in low.iter_mut().zip(high) {
                let sum = *x + *y;
                *y = modulus.mul_shoup_lazy(*x + two_q - *y, w);
                *x = sum.min(sum.wrapping_sub(two_q));
            }
        }
        m /= 2;
    }
    let (low, high) = values.split_at_mut(n / 2);
    if n == 1 {
        for x in high {
            *x = modulus.mul_shoup(*x, scale);
        }
        return;
    }
    for (x, y) in low.iter_mut().zip(high) {
        let (sum, difference) = (*x + *y, *x + two_q - *y);
        *x = modulus.mul_shoup(sum, scale);
        *y = modulus.mul_shoup(difference, last);
    }
}

/// See [`super::ntt_forward_folded`].
pub fn ntt_forward_folded(values: &mut [u64], iota: Shoup, twiddles: Twiddles<'_>, modulus: &Modulus) {
    fold(values, iota, modulus);
    ntt_forward(values, twiddles, modulus);
}

/// See [`super::ntt_inverse_unfolded`].
pub fn ntt_inverse_unfolded(
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

/// See [`super::fold`].
pub fn fold(values: &mut [u64], iota: Shoup, modulus: &Modulus) {
    for_mirrored_pairs(values, |x, y| {
        (modulus.sub(x, modulus.mul_shoup(y, iota)), modulus.sub(y, modulus.mul_shoup(x, iota)))
    });
}

/// See [`super::unfold`].
pub fn unfold(values: &mut [u64], iota: Shoup, modulus: &Modulus) {
    if let Some(first) = values.first_mut() {
        *first = modulus.add(*first, *first);
    }
    for_mirrored_pairs(values, |x, y| {
        (modulus.add(x, modulus.mul_shoup(y, iota)), modulus.add(y, modulus.mul_shoup(x, iota)))
    });
}

/// See [`super::add_assign`].
pub fn add_assign(out: &mut [u64], x: &[u64], modulus: &Modulus) {
    for (o, &x) in out.iter_mut().zip(x) {
        *o = modulus.add(*o, x);
    }
}

/// See [`super::sub_assign`].
pub fn sub_assign(out: &mut [u64], x: &[u64], modulus: &Modulus) {
    for (o, &x) in out.iter_mut().zip(x) {
        *o = modulus.sub(*o, x);
    }
}

/// See [`super::neg_assign`].
pub fn neg_assign(out: &mut [u64], modulus: &Modulus) {
    for o in out {
        *o = modulus.neg(*o);
    }
}

/// See [`super::mul`].
pub fn mul(out: &mut [u64], x: &[u64], y: &[u64], modulus: &Modulus) {
    for ((o, &x), &y) in out.iter_mut().zip(x).zip(y) {
        *o = modulus.mul(x, y);
    }
}

/// See [`super::mul_assign`].
pub fn mul_assign(out: &mut [u64], x: &[u64], modulus: &Modulus) {
    for (o, &x) in out.iter_mut().zip(x) {
        *o = modulus.mul(*o, x);
    }
}

/// See [`super::scale_assign`].
pub fn scale_assign(out: &mut [u64], factor: Shoup, modulus: &Modulus) {
    for o in out {
        *o = modulus.mul_shoup(*o, factor);
    }
}

/// See [`super::sub_from_scale`].
pub fn sub_from_scale(out: &mut [u64], x: &[u64], factor: Shoup, modulus: &Modulus) {
    let q = modulus.value();
    for (o, &x) in out.iter_mut().zip(x) {
        *o = modulus.mul_shoup(x + q - *o, factor);
    }
}

/// See [`super::permute`].
pub fn permute(out: &mut [u64], input: &[u64], blocks: &[u32], orders: &[[u64; 8]; 8]) {
    for (out, &entry) in out.chunks_exact_mut(8).zip(blocks) {
        let (start, order) = (entry as usize / 8 * 8, &orders[entry as usize % 8]);
        let source = &input[start..start + 8];
        for (out, &index) in out.iter_mut().zip(order) {
            *out = source[index as usize % 8];
        }
    }
}

/// See [`super::reduce_signed`].
pub fn reduce_signed(out: &mut [u64], x: &[i64], modulus: &Modulus) {
    for (o, &x) in out.iter_mut().zip(x) {
        *o = modulus.reduce_signed(x);
    }
}

/// See [`super::dot`].
pub fn dot(out: &mut [u64], terms: &[Term<'_>], modulus: &Modulus) {
    let n = out.len();
    let mut sums = [0u128; CHUNK];
    for (index, chunk) in out.chunks_mut(CHUNK).enumerate() {
        let start = index * CHUNK;
        let sums = &mut sums[..chunk.len()];
        sums.fill(0);
        // One reduced value may sit in the accumulator beside the products, hence one less than the limit.
        for group in terms.chunks(modulus.lazy_products() - 1) {
            for term in group {
                accumulate(sums, term, start, n);
            }
            for sum in &mut *sums {
                *sum = u128::from(modulus.reduce_wide(*sum));
            }
        }
        for (o, sum) in chunk.iter_mut().zip(sums) {
            *o = *sum as u64;
        }
    }
}

/// See [`super::prefetch`]; nothing here.
pub const fn prefetch(_: &[u64]) {}

/// See [`super::tile_sums`].
pub fn tile_sums(sums: &mut [TileSum<'_>], tiles: Tiles<'_>, modulus: &Modulus) {
    by_terms(sums, tiles, |out, terms| dot(out, terms, modulus));
}

/// See [`super::mul_blocks`].
pub fn mul_blocks(out: &mut [u64], values: &[u64], weights: &[u64], modulus: &Modulus) {
    let block = out.len() / weights.len().max(1);
    for ((o, x), &w) in out.chunks_exact_mut(block).zip(values.chunks_exact(block)).zip(weights) {
        for (o, &x) in o.iter_mut().zip(x) {
            *o = modulus.mul(x, w);
        }
    }
}

/// See [`super::pack`].
pub fn pack(out: &mut [u8], values: &[u64], bits: usize, (rows, row): (usize, usize)) {
    let groups = out.chunks_exact_mut(rows * bits);
    for (values, group) in values.chunks_exact(PACKED_GROUP).zip(groups) {
        // Whole words, and at the end the bytes of a last one.
        let (words, rest) = group[row * bits..(row + 1) * bits].split_at_mut(bits / 8 * 8);
        let mut words = words.chunks_exact_mut(8);
        let (mut pending, mut count) = (0u64, 0);
        for &x in values {
            pending |= x << count;
            count += bits;
            if count >= 64 {
                count -= 64;
                if let Some(word) = words.next() {
                    word.copy_from_slice(&pending.to_le_bytes());
                }
                // Fewer than `bits` are left over.
                pending = x >> (bits - count);
            }
        }
        for (byte, value) in rest.iter_mut().zip(pending.to_le_bytes()) {
            *byte = value;
        }
    }
}

/// See [`super::convert_prepare`].
pub fn convert_prepare(out: &mut [u64], sources: &Sources<'_>) {
    let Sources { limbs, factors, moduli, .. } = *sources;
    for (index, out) in sources.groups(out) {
        let mut sums = [0.5; CONVERT_GROUP];
        let group = out.len() / (factors.len() + 1);
        let (scaled, overflow) = out.split_at_mut(factors.len() * group);
        let limbs = limbs.iter().zip(scaled.chunks_exact_mut(group));
        for (((limb, scaled), &factor), modulus) in limbs.zip(factors).zip(moduli) {
            let inverse = 1.0 / modulus.value() as f64;
            let limb = &limb[index * CONVERT_GROUP..][..group];
            for ((x, scaled), sum) in limb.iter().zip(scaled).zip(&mut sums) {
                *scaled = modulus.mul_shoup(*x, factor);
                *sum += *scaled as f64 * inverse;
            }
        }
        for (o, sum) in overflow.iter_mut().zip(sums) {
            *o = sum as u64;
        }
    }
}

/// See [`super::convert_combine`].
pub fn convert_combine(out: &mut [u64], prepared: &[u64], target: &Target<'_>) {
    let Target { hats, correction, modulus, .. } = *target;
    let sources = prepared.chunks((hats.len() + 1) * CONVERT_GROUP);
    for (out, prepared) in out.chunks_mut(CONVERT_GROUP).zip(sources) {
        let mut sums = [0u128; CONVERT_GROUP];
        let (limbs, overflow) = prepared.split_at(hats.len() * out.len());
        for (sum, &v) in sums.iter_mut().zip(overflow) {
            *sum = u128::from(v * correction);
        }
        for (limb, &hat) in limbs.chunks_exact(out.len()).zip(hats) {
            for (sum, &x) in sums.iter_mut().zip(limb) {
                *sum += u128::from(x) * u128::from(hat);
            }
        }
        for (o, sum) in out.iter_mut().zip(sums) {
            *o = modulus.reduce_wide(sum);
        }
    }
}

/// See [`super::convert_combine_two`].
pub fn convert_combine_two(outs: [&mut [u64]; 2], prepared: &[u64], targets: [&Target<'_>; 2]) {
    for (out, target) in outs.into_iter().zip(targets) {
        convert_combine(out, prepared, target);
    }
}

fn for_mirrored_pairs(values: &mut [u64], pair: impl Fn(u64, u64) -> (u64, u64)) {
    let n = values.len();
    if n < 2 {
        return;
    }
    let (low, high) = values.split_at_mut(n / 2);
    for (x, y) in low[1..].iter_mut().zip(high[1..].iter_mut().rev()) {
        (*x, *y) = pair(*x, *y);
    }
    let middle = &mut high[0];
    *middle = pair(*middle, *middle).0;
}

fn accumulate(sums: &mut [u128], term: &Term<'_>, start: usize, n: usize) {
    let values = &term.values[start..start + sums.len()];
    match term.weights {
        Weights::Full(weights) => {
            for ((sum, &x), &w) in sums.iter_mut().zip(values).zip(&weights[start..]) {
                *sum += u128::from(x) * u128::from(w);
            }
        }
        Weights::Blocks(weights) => {
            let block = n / weights.len();
            if block >= sums.len() {
                let w = u128::from(weights[start / block]);
                for (sum, &x) in sums.iter_mut().zip(values) {
                    *sum += u128::from(x) * w;
                }
            } else {
                let pairs = sums.chunks_exact_mut(block).zip(values.chunks_exact(block));
                for ((sums, values), &w) in pairs.zip(&weights[start / block..]) {
                    for (sum, &x) in sums.iter_mut().zip(values) {
                        *sum += u128::from(x) * u128::from(w);
                    }
                }
            }
        }
    }
}
