//! Arithmetic modulo one odd prime of at most 50 bits.
//!
//! **Barrett.** With k = bits(q) and μ = ⌊2^(62+k) / q⌋, the quotient of z is estimated as
//! ⌊⌊z / 2^(k−2)⌋ · μ / 2^64⌋. For z < 2^(k+62) the three truncations lose less than 1/2, 1 and 1, so the estimate is at
//! most 2 too small and the remainder lies in [0, 3q). A sum of up to 2^(62−k) products of residues (4096 at 50 bits)
//! may therefore be reduced at once.
//!
//! **Shoup.** For a fixed factor w the quotient ⌊w·2^64 / q⌋ is kept beside it; then w·x mod q needs one high and two low
//! products and lies in [0, 2q) for *any* 64-bit x (Harvey, "Faster arithmetic for number-theoretic transforms", 2014).

use crate::error::MathError;
use crate::prime::is_prime;

/// Smallest size of a modulus in bits: the vector kernels' reductions need it.
pub const MIN_MODULUS_BITS: u32 = 6;
/// Largest size of a modulus in bits: sums of four residues must fit a 52-bit multiplier.
pub const MAX_MODULUS_BITS: u32 = 50;

/// An odd prime below 2^50 with its reduction constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modulus {
    value: u64,
    bits: u32,
    ratio: u64,
}

/// A fixed factor with its precomputed quotient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shoup {
    /// The factor, reduced.
    pub value: u64,
    /// ⌊value · 2^64 / q⌋.
    pub quotient: u64,
}

impl Modulus {
    /// Checks that `value` is an odd prime of 6 to 50 bits.
    ///
    /// # Errors
    /// [`MathError::BadModulus`] otherwise.
    pub fn new(value: u64) -> Result<Self, MathError> {
        let bits = u64::BITS - value.leading_zeros();
        if !(MIN_MODULUS_BITS..=MAX_MODULUS_BITS).contains(&bits) || value % 2 == 0 || !is_prime(value) {
            return Err(MathError::BadModulus {
                value,
                min_bits: MIN_MODULUS_BITS,
                max_bits: MAX_MODULUS_BITS,
            });
        }
        // 2^(62+bits) / value lies strictly between 2^62 and 2^63.
        let ratio = ((1u128 << (62 + bits)) / u128::from(value)) as u64;
        Ok(Self { value, bits, ratio })
    }

    /// The prime.
    #[inline]
    #[must_use]
    pub const fn value(&self) -> u64 {
        self.value
    }

    /// Its size in bits.
    #[inline]
    #[must_use]
    pub const fn bits(&self) -> u32 {
        self.bits
    }

    /// ⌊2^(62 + bits) / q⌋, for vector kernels.
    #[inline]
    #[must_use]
    pub const fn ratio(&self) -> u64 {
        self.ratio
    }

    /// How many products of two residues may be summed before [`Modulus::reduce_wide`]; 2^30 where it would be more, which
    /// fits `usize` on every target.
    #[inline]
    #[must_use]
    pub const fn lazy_products(&self) -> usize {
        let log = 62 - self.bits;
        1 << if log < 30 { log } else { 30 }
    }

    /// `x + y` of residues.
    #[inline]
    #[must_use]
    pub const fn add(&self, x: u64, y: u64) -> u64 {
        self.reduce_once(x + y)
    }

    /// `x − y` of residues.
    #[inline]
    #[must_use]
    pub const fn sub(&self, x: u64, y: u64) -> u64 {
        self.reduce_once(x + self.value - y)
    }

    /// `−x` of a residue.
    #[inline]
    #[must_use]
    pub const fn neg(&self, x: u64) -> u64 {
        self.reduce_once(self.value - x)
    }

    /// `x · y` of residues.
    #[inline]
    #[must_use]
    pub const fn mul(&self, x: u64, y: u64) -> u64 {
        self.reduce_wide(x as u128 * y as u128)
    }

    /// Reduces a value below 2q.
    #[inline]
    #[must_use]
    pub const fn reduce_once(&self, x: u64) -> u64 {
        // The difference wraps to a huge number when x < q, so the smaller of the two is the residue: no branch.
        let y = x.wrapping_sub(self.value);
        if y < x { y } else { x }
    }

    /// Reduces any 64-bit value.
    #[inline]
    #[must_use]
    pub const fn reduce(&self, x: u64) -> u64 {
        let estimate = (((x >> (self.bits - 2)) as u128 * self.ratio as u128) >> 64) as u64;
        self.finish(x.wrapping_sub(estimate.wrapping_mul(self.value)))
    }

    /// Reduces a value below 2^(bits + 62); larger ones give a wrong result.
    #[inline]
    #[must_use]
    pub const fn reduce_wide(&self, x: u128) -> u64 {
        let high = (x >> (self.bits - 2)) as u64;
        let estimate = ((high as u128 * self.ratio as u128) >> 64) as u64;
        self.finish((x as u64).wrapping_sub(estimate.wrapping_mul(self.value)))
    }

    /// Reduces any signed 64-bit value.
    #[inline]
    #[must_use]
    pub const fn reduce_signed(&self, x: i64) -> u64 {
        let magnitude = self.reduce(x.unsigned_abs());
        if x < 0 { self.neg(magnitude) } else { magnitude }
    }

    /// Reduces any signed 128-bit value.
    #[must_use]
    pub const fn reduce_i128(&self, x: i128) -> u64 {
        let magnitude = x.unsigned_abs();
        let two32 = self.reduce(1 << 32);
        let two64 = self.mul(two32, two32);
        let r =
            self.add(self.mul(self.reduce((magnitude >> 64) as u64), two64), self.reduce(magnitude as u64));
        if x < 0 { self.neg(r) } else { r }
    }

    /// Residue of an integer-valued finite `f64` of any size.
    ///
    /// A value that is not finite gives 0; callers refuse such values first.
    #[must_use]
    pub fn reduce_f64(&self, x: f64) -> u64 {
        const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
        if x.abs() <= EXACT {
            return self.reduce_signed(x as i64);
        }
        if !x.is_finite() {
            return 0;
        }
        let bits = x.to_bits();
        let exponent = ((bits >> 52) & 0x7ff) as u32 - 1075; // above 2^53 the mantissa's unit is at least 1
        let mantissa = (bits & ((1 << 52) - 1)) | (1 << 52);
        let r = self.mul(self.reduce(mantissa), self.pow(2, u64::from(exponent)));
        if x < 0.0 { self.neg(r) } else { r }
    }

    /// The representative of a residue in (−q/2, q/2).
    #[inline]
    #[must_use]
    pub const fn centre(&self, x: u64) -> i64 {
        if x > self.value / 2 { x as i64 - self.value as i64 } else { x as i64 }
    }

    /// `base^exponent`, `base` a residue.
    #[must_use]
    pub const fn pow(&self, base: u64, mut exponent: u64) -> u64 {
        let mut square = base;
        let mut result = 1;
        while exponent > 0 {
            if exponent & 1 == 1 {
                result = self.mul(result, square);
            }
            square = self.mul(square, square);
            exponent >>= 1;
        }
        result
    }

    /// Inverse of a non-zero residue; 0 for 0.
    #[must_use]
    pub const fn inv(&self, x: u64) -> u64 {
        self.pow(x, self.value - 2)
    }

    /// Prepares a residue as fixed factor.
    #[inline]
    #[must_use]
    pub const fn shoup(&self, value: u64) -> Shoup {
        Shoup { value, quotient: (((value as u128) << 64) / self.value as u128) as u64 }
    }

    /// `w · x` in [0, 2q) for any 64-bit `x`.
    #[inline]
    #[must_use]
    pub const fn mul_shoup_lazy(&self, x: u64, w: Shoup) -> u64 {
        let estimate = ((x as u128 * w.quotient as u128) >> 64) as u64;
        x.wrapping_mul(w.value).wrapping_sub(estimate.wrapping_mul(self.value))
    }

    /// `w · x`, reduced, for any 64-bit `x`.
    #[inline]
    #[must_use]
    pub const fn mul_shoup(&self, x: u64, w: Shoup) -> u64 {
        self.reduce_once(self.mul_shoup_lazy(x, w))
    }

    #[inline]
    const fn finish(&self, x: u64) -> u64 {
        let y = x.wrapping_sub(2 * self.value);
        self.reduce_once(if y < x { y } else { x })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PRIMES: [u64; 6] = [37, 97, 1_048_583, (1 << 40) - 87, (1 << 49) - 81, (1 << 50) - 27];

    #[test]
    fn rejects_what_is_no_odd_prime_of_fifty_bits() {
        for bad in [0, 1, 2, 3, 31, 49, 91, 1 << 40, (1 << 50) + 1, u64::MAX] {
            assert!(Modulus::new(bad).is_err(), "{bad}");
        }
        for good in PRIMES {
            assert_eq!(Modulus::new(good).map(|m| m.value()), Ok(good));
        }
    }

    #[test]
    fn extreme_inputs_reduce_exactly() {
        for q in PRIMES {
            let m = Modulus::new(q).unwrap();
            for x in [0, 1, q - 1, q, q + 1, 2 * q - 1, u64::MAX, u64::MAX - 1, i64::MAX as u64] {
                assert_eq!(m.reduce(x), x % q);
            }
            let top = (1u128 << (m.bits() + 62)) - 1;
            for x in [top, top - 1, top / 2, u128::from(q) * u128::from(q), u128::from(u64::MAX)] {
                if x <= top {
                    assert_eq!(u128::from(m.reduce_wide(x)), x % u128::from(q), "{x} mod {q}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn agrees_with_plain_division(x: u64, y: u64, which in 0..PRIMES.len(), wide: u128, signed: i128) {
            let q = PRIMES[which];
            let m = Modulus::new(q).unwrap();
            let (a, b) = (x % q, y % q);
            prop_assert_eq!(u128::from(m.mul(a, b)), u128::from(a) * u128::from(b) % u128::from(q));
            prop_assert_eq!(m.add(a, b), (a + b) % q);
            prop_assert_eq!(m.sub(a, b), (a + q - b) % q);
            prop_assert_eq!(m.mul_shoup(y, m.shoup(a)), (u128::from(a) * u128::from(y) % u128::from(q)) as u64);
            prop_assert!(m.mul_shoup_lazy(y, m.shoup(a)) < 2 * q);
            prop_assert_eq!(m.reduce_signed(x as i64), i128::from(x as i64).rem_euclid(i128::from(q)) as u64);
            prop_assert_eq!(m.reduce_i128(signed), signed.rem_euclid(i128::from(q)) as u64);
            let z = wide >> (66 - m.bits());
            prop_assert_eq!(u128::from(m.reduce_wide(z)), z % u128::from(q));
            if a != 0 {
                prop_assert_eq!(m.mul(a, m.inv(a)), 1);
            }
            let f = (signed >> 20) as f64;
            prop_assert_eq!(m.reduce_f64(f), (f as i128).rem_euclid(i128::from(q)) as u64);
        }
    }
}
