//! Kernels for processors with AVX2 and FMA: four residues at a time, held as `f64`.
//!
//! **Residues as doubles.** AVX2 has no wide integer product, but a fused multiply-add gives both halves of a product
//! of doubles exactly: h = fl(x·w) and l = x·w − h. With e the integer nearest to x·(w/q), r = (h − e·q) + l is x·w modulo
//! q in six operations for four lanes (Dekker, "A floating-point technique for extending the available precision", 1971,
//! for the exact product; van der Hoeven, Lecerf, Quintin, "Modular SIMD arithmetic in Mathemagix", 2016, section 3, for
//! its use modulo q).
//! Residues below 2^52 become doubles by setting the exponent bits of 2^52 and subtracting 2^52, and integers are rounded
//! by adding and subtracting 1.5·2^52, which is right up to magnitude 2^51.
//!
//! **Bounds.** Let q < 2^50 and w be balanced, |w| < q/2; its ratio is fl(w·fl(1/q)), off by at most 2^−53. For an integer
//! |x| < 2^52, e is below 2^51 and off by at most 1/2 + |x|·2^−53, so |r| ≤ (1/2 + |x|·2^−53)·q ≤ q. The product is below
//! 2^101, so |l| ≤ 2^47 and the integer h − e·q = r − l is below 2^53: it is exact, and so is r. Where both factors are
//! residues in [0, q), e comes from h·fl(1/q), off by at most 1/2 + 2^50·2^−52, and |r| ≤ 3q/4. A single value |x| < 2^52 is
//! reduced the same way to |r| ≤ q/2 + 1. Everything is brought to [0, q) before it is stored as a result, so results
//! equal the scalar ones bit for bit.
//!
//! The only `unsafe` here is loading and storing four words that are borrowed as an array, and entering code that needs
//! the processor features, which the existence of an [`Avx2`] proves.
#![allow(unsafe_code, reason = "vector instructions; see the module's text")]

pub(super) mod matrix;
mod mirror;
mod ntt;
mod pointwise;
mod product;
mod sums;
mod tiles;

use super::matrix::{Left, Lines, Out, Start};
use super::{KeyProduct, Sources, Target, Term, TileSum, Tiles, Twiddles};
use crate::modulus::{Modulus, Shoup};
use std::arch::x86_64::*;

/// Transforms shorter than this are scalar ones; in longer ones, blocks hold at least four of the last nodes.
pub(super) const MIN_TRANSFORM: usize = 128;

/// Four integers as doubles.
type V = __m256d;
type Lane = [u64; 4];

/// 2^52: a double of this exponent has its unit in the last bit.
const WORD: f64 = 4_503_599_627_370_496.0;
/// 1.5·2^52: adding and subtracting it rounds to the nearest integer.
const ROUND: f64 = 1.5 * WORD;

/// Proof that this processor has the features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Avx2(());

macro_rules! entries {
    ($($module:ident::$name:ident ( $($arg:ident : $type:ty),* );)*) => {
        impl Avx2 {
            /// Looks at the processor.
            #[must_use]
            pub fn detect() -> Option<Self> {
                (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
            }
            $(
                #[doc = concat!("The kernel behind `", stringify!($name), "`, whose scalar twin says what it computes.")]
                pub fn $name(self, $($arg: $type),*) {
                    // SAFETY: `self` exists only where the features were detected.
                    unsafe { $module::$name($($arg),*) }
                }
            )*
        }
    };
}

entries! {
    ntt::ntt_forward(values: &mut [u64], twiddles: Twiddles<'_>, modulus: &Modulus);
    ntt::ntt_inverse(values: &mut [u64], twiddles: Twiddles<'_>, scale: Shoup, last: Shoup, modulus: &Modulus);
    mirror::ntt_forward_folded(values: &mut [u64], iota: Shoup, twiddles: Twiddles<'_>, modulus: &Modulus);
    mirror::ntt_inverse_unfolded(
        values: &mut [u64], iota: Shoup, twiddles: Twiddles<'_>, scale: Shoup, last: Shoup, modulus: &Modulus
    );
    mirror::fold(values: &mut [u64], iota: Shoup, modulus: &Modulus);
    mirror::unfold(values: &mut [u64], iota: Shoup, modulus: &Modulus);
    pointwise::prefetch(values: &[u64]);
    pointwise::add_assign(out: &mut [u64], x: &[u64], modulus: &Modulus);
    pointwise::sub_assign(out: &mut [u64], x: &[u64], modulus: &Modulus);
    pointwise::neg_assign(out: &mut [u64], modulus: &Modulus);
    pointwise::mul(out: &mut [u64], x: &[u64], y: &[u64], modulus: &Modulus);
    pointwise::mul_assign(out: &mut [u64], x: &[u64], modulus: &Modulus);
    pointwise::mul_blocks(out: &mut [u64], values: &[u64], weights: &[u64], modulus: &Modulus);
    pointwise::scale_assign(out: &mut [u64], factor: Shoup, modulus: &Modulus);
    pointwise::sub_from_scale(out: &mut [u64], x: &[u64], factor: Shoup, modulus: &Modulus);
    pointwise::permute(out: &mut [u64], input: &[u64], blocks: &[u32], orders: &[[u64; 8]; 8]);
    pointwise::reduce_signed(out: &mut [u64], x: &[i64], modulus: &Modulus);
    sums::dot(out: &mut [u64], terms: &[Term<'_>], modulus: &Modulus);
    tiles::tile_sums(sums: &mut [TileSum<'_>], tiles: Tiles<'_>, modulus: &Modulus);
    sums::convert_prepare(out: &mut [u64], sources: &Sources<'_>);
    sums::convert_combine(out: &mut [u64], prepared: &[u64], target: &Target<'_>);
    sums::convert_combine_two(outs: [&mut [u64]; 2], prepared: &[u64], targets: [&Target<'_>; 2]);
    product::key_product(out: [&mut [u64]; 2], product: &KeyProduct<'_>, start: usize, modulus: &Modulus);
    matrix::product(a: Left<'_>, b: Lines<'_>, start: Start<'_>, out: Out<'_>);
    matrix::product_transposed(a: Left<'_>, b: Lines<'_>, start: Start<'_>, out: Out<'_>);
}

impl Avx2 {
    /// See [`super::wide::wide`].
    #[inline]
    pub fn wide<L: super::wide::Loop>(self, body: L) -> L::Output {
        #[target_feature(enable = "avx2,fma")]
        fn entry<L: super::wide::Loop>(body: L) -> L::Output {
            body.run()
        }
        // SAFETY: `self` exists only where the features were detected.
        unsafe { entry(body) }
    }
}

/// A modulus spread over a vector.
#[derive(Clone, Copy)]
struct Mod {
    q: V,
    /// fl(1/q).
    inverse: V,
    /// q/2.
    half: V,
    /// 2^52 + q.
    word_q: V,
}

/// A balanced fixed factor and its ratio to q, spread over a vector or one per lane.
#[derive(Clone, Copy)]
struct Factor {
    value: V,
    ratio: V,
}

impl Mod {
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn new(modulus: &Modulus) -> Self {
        let q = modulus.value() as f64;
        Self {
            q: _mm256_set1_pd(q),
            inverse: _mm256_set1_pd(1.0 / q),
            half: _mm256_set1_pd(0.5 * q),
            word_q: _mm256_set1_pd(WORD + q),
        }
    }

    /// A residue in [0, q), one per lane, as factor.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn factor(self, w: V) -> Factor {
        self.fixed(self.balanced(w))
    }

    /// One that is at most q/2 in magnitude.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn fixed(self, value: V) -> Factor {
        Factor { value, ratio: _mm256_mul_pd(value, self.inverse) }
    }

    /// The same factor in all lanes.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn spread(self, w: u64) -> Factor {
        self.factor(spread(w))
    }

    /// x·w with |x| < 2^52; at most (1/2 + |x|·2^−53)·q in magnitude.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn mul(self, x: V, w: Factor) -> V {
        let high = _mm256_mul_pd(x, w.value);
        let low = _mm256_fmsub_pd(x, w.value, high);
        let estimate = round(_mm256_fmadd_pd(x, w.ratio, _mm256_set1_pd(ROUND)));
        _mm256_add_pd(_mm256_fnmadd_pd(estimate, self.q, high), low)
    }

    /// x·y of residues in [0, q); at most 3q/4 in magnitude.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn mul_residues(self, x: V, y: V) -> V {
        let high = _mm256_mul_pd(x, y);
        let low = _mm256_fmsub_pd(x, y, high);
        let estimate = round(_mm256_fmadd_pd(high, self.inverse, _mm256_set1_pd(ROUND)));
        _mm256_add_pd(_mm256_fnmadd_pd(estimate, self.q, high), low)
    }

    /// A residue in [0, q) as the same modulo q of at most q/2 in magnitude.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn balanced(self, x: V) -> V {
        let large = _mm256_cmp_pd::<_CMP_GT_OQ>(x, self.half);
        _mm256_sub_pd(x, _mm256_and_pd(large, self.q))
    }

    /// |x| < 2^52 → at most q/2 + 1 in magnitude.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn reduce(self, x: V) -> V {
        let estimate = round(_mm256_fmadd_pd(x, self.inverse, _mm256_set1_pd(ROUND)));
        _mm256_fnmadd_pd(estimate, self.q, x)
    }

    /// A value in (−q, q) as residue in [0, q).
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn residue(self, x: V) -> V {
        let negative = _mm256_cmp_pd::<_CMP_LT_OQ>(x, _mm256_setzero_pd());
        _mm256_add_pd(x, _mm256_and_pd(negative, self.q))
    }

    /// A value in (−q, q) as residue in [0, q), a word per lane.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn word(self, x: V) -> __m256i {
        let word = _mm256_set1_pd(WORD);
        let negative = _mm256_cmp_pd::<_CMP_LT_OQ>(x, _mm256_setzero_pd());
        let sum = _mm256_add_pd(x, _mm256_blendv_pd(word, self.word_q, negative));
        _mm256_castpd_si256(_mm256_xor_pd(sum, word))
    }
}

/// The second half of rounding: takes off what [`ROUND`] added.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn round(x: V) -> V {
    _mm256_sub_pd(x, _mm256_set1_pd(ROUND))
}

/// Words below 2^52 as doubles.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn double(x: __m256i) -> V {
    let word = _mm256_set1_pd(WORD);
    _mm256_sub_pd(_mm256_or_pd(_mm256_castsi256_pd(x), word), word)
}

/// A word below 2^52 in all lanes, as doubles.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn spread(x: u64) -> V {
    double(_mm256_set1_epi64x(x as i64))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load(x: &Lane) -> __m256i {
    // SAFETY: four words are borrowed; the instruction needs no alignment.
    unsafe { _mm256_loadu_si256(x.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn store(x: &mut Lane, v: __m256i) {
    // SAFETY: four words are borrowed for writing; the instruction needs no alignment.
    unsafe { _mm256_storeu_si256(x.as_mut_ptr().cast(), v) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::SeedStream;
    use proptest::prelude::*;

    /// Lanes of a vector of integers.
    #[target_feature(enable = "avx2,fma")]
    fn integers(x: V) -> [i64; 4] {
        let mut out = [0; 4];
        store(&mut out, _mm256_castpd_si256(x));
        out.map(|bits| f64::from_bits(bits) as i64)
    }

    /// Residue and magnitude of x·w and of x, as the module's text states them.
    #[target_feature(enable = "avx2,fma")]
    fn check(modulus: &Modulus, x: [i64; 4], w: u64) {
        let (m, q) = (Mod::new(modulus), i128::from(modulus.value()));
        let v = _mm256_set_pd(x[3] as f64, x[2] as f64, x[1] as f64, x[0] as f64);
        let (products, remainders) = (integers(m.mul(v, m.spread(w))), integers(m.reduce(v)));
        for ((x, product), remainder) in x.into_iter().zip(products).zip(remainders) {
            let (exact, r) = (i128::from(x) * i128::from(w), i128::from(product));
            assert_eq!(exact.rem_euclid(q), r.rem_euclid(q), "{x}·{w} modulo {q}");
            let bound = (0.5 + x.unsigned_abs() as f64 / 2f64.powi(53)) * q as f64;
            assert!(r.unsigned_abs() as f64 <= bound, "{x}·{w} gave {r}, modulo {q}");
            let r = i128::from(remainder);
            assert_eq!(i128::from(x).rem_euclid(q), r.rem_euclid(q), "{x} modulo {q}");
            assert!(r.abs() <= q / 2 + 1, "{x} gave {r}, modulo {q}");
        }
    }

    const PRIMES: [u64; 6] = [37, 65_537, (1 << 45) - 55, (1 << 48) - 59, (1 << 49) - 81, (1 << 50) - 27];

    #[test]
    fn products_of_lazy_values_are_exact_and_small() {
        if Avx2::detect().is_none() {
            println!("skipped: no AVX2 and FMA");
            return;
        }
        let top = (1i64 << 52) - 1;
        for q in PRIMES {
            let modulus = Modulus::new(q).unwrap();
            let half = (q / 2) as i64;
            for w in [0, 1, q / 2, q / 2 + 1, q - 1] {
                for x in [[top, -top, 0, 1], [half, half + 1, -half, -half - 1], [1 << 51, q as i64, 2, -1]] {
                    // SAFETY: the features were detected.
                    unsafe { check(&modulus, x, w) };
                }
            }
        }
    }

    proptest! {
        #[test]
        fn products_of_random_lazy_values_are_exact_and_small(seed: u8, which in 0..PRIMES.len()) {
            if Avx2::detect().is_some() {
                let modulus = Modulus::new(PRIMES[which]).unwrap();
                let mut w = [0; 64];
                SeedStream::new(&[seed; 32], 1).uniform(&modulus, &mut w);
                let mut bytes = [0; 32];
                let mut stream = SeedStream::new(&[seed; 32], 2);
                for w in w {
                    stream.bytes(&mut bytes);
                    // Signed values of 53 bits.
                    let x = [0, 8, 16, 24].map(|i| {
                        let word = bytes[i..].iter().take(8).fold(0u64, |word, &byte| word << 8 | u64::from(byte));
                        (word as i64) >> 11
                    });
                    // SAFETY: the features were detected.
                    unsafe { check(&modulus, x, w) };
                }
            }
        }
    }
}
