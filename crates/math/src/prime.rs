//! Primality and the search for transform-friendly primes.

use crate::error::MathError;
use crate::modulus::MAX_MODULUS_BITS;

/// Deterministic Miller–Rabin test for 64-bit numbers: the first twelve primes are enough as witnesses below 3.3·10^24
/// (Sorenson, Webster, "Strong pseudoprimes to twelve prime bases", 2017).
#[must_use]
pub fn is_prime(n: u64) -> bool {
    const WITNESSES: [u64; 12] = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37];
    if n < 2 {
        return false;
    }
    for p in WITNESSES {
        if n % p == 0 {
            return n == p;
        }
    }
    let twos = (n - 1).trailing_zeros();
    let odd = (n - 1) >> twos;
    WITNESSES.iter().all(|&witness| {
        let mut x = pow_mod(witness, odd, n);
        if x == 1 || x == n - 1 {
            return true;
        }
        for _ in 1..twos {
            x = mul_mod(x, x, n);
            if x == n - 1 {
                return true;
            }
        }
        false
    })
}

/// The `count` primes nearest to 2^`bits` that are 1 modulo 4N, N = 2^`log_n`, below 2^50 and not in `exclude`.
///
/// Nearest first, the larger one first where two are equally near. Cost: a few hundred primality tests.
///
/// # Errors
/// [`MathError::TooFewPrimes`] if the range from 2^(bits−1) to 2^(bits+1) does not hold as many.
pub fn ntt_primes(bits: u32, log_n: u32, count: usize, exclude: &[u64]) -> Result<Vec<u64>, MathError> {
    let step = 1u64.checked_shl(log_n + 2).unwrap_or(0);
    let short = |found| MathError::TooFewPrimes { wanted: count, found, bits, step };
    if !(3..=MAX_MODULUS_BITS).contains(&bits) || step == 0 || log_n + 2 > bits + 1 {
        return Err(short(0));
    }
    let centre = 1u64 << bits;
    let (low, high) = (centre >> 1, (centre << 1).min(1 << MAX_MODULUS_BITS));
    let mut up = (centre / step) * step + 1;
    let mut down = up.checked_sub(step);
    let mut found = Vec::new();
    while found.len() < count {
        let above = (up < high).then_some(up);
        let below = down.filter(|&d| d > low);
        let next = match (above, below) {
            (None, None) => return Err(short(found.len())),
            (Some(a), Some(b)) if a.abs_diff(centre) > b.abs_diff(centre) => b,
            (Some(a), _) => a,
            (None, Some(b)) => b,
        };
        if Some(next) == below && Some(next) != above {
            down = next.checked_sub(step);
        } else {
            up += step;
        }
        if !exclude.contains(&next) && is_prime(next) {
            found.push(next);
        }
    }
    Ok(found)
}

fn mul_mod(x: u64, y: u64, n: u64) -> u64 {
    (u128::from(x) * u128::from(y) % u128::from(n)) as u64
}

fn pow_mod(base: u64, mut exponent: u64, n: u64) -> u64 {
    let mut square = base % n;
    let mut result = 1;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = mul_mod(result, square, n);
        }
        square = mul_mod(square, square, n);
        exponent >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_trial_division() {
        for n in 0u64..5000 {
            let naive = n >= 2 && (2..n).take_while(|d| d * d <= n).all(|d| n % d != 0);
            assert_eq!(is_prime(n), naive, "{n}");
        }
        // Strong pseudoprimes to several small bases, and the largest 64-bit prime.
        for composite in [3_215_031_751, 341_550_071_728_321, 3_825_123_056_546_413_051] {
            assert!(!is_prime(composite));
        }
        assert!(is_prime(18_446_744_073_709_551_557));
    }

    #[test]
    fn generated_primes_are_distinct_friendly_and_near() {
        for (bits, log_n, count) in
            [(20, 10, 3), (30, 12, 8), (42, 15, 20), (45, 16, 30), (50, 15, 12), (50, 17, 5)]
        {
            let exclude = ntt_primes(bits, log_n, 1, &[]).unwrap();
            let primes = ntt_primes(bits, log_n, count, &exclude).unwrap();
            assert_eq!(primes.len(), count);
            let mut distance = 0;
            for (i, &q) in primes.iter().enumerate() {
                assert!(is_prime(q) && q % (4 << log_n) == 1 && q < 1 << 50);
                assert!(!exclude.contains(&q) && !primes[..i].contains(&q));
                assert!(q.abs_diff(1 << bits) >= distance);
                distance = q.abs_diff(1 << bits);
            }
        }
    }

    #[test]
    fn too_few_is_an_error_and_not_a_loop() {
        assert!(matches!(ntt_primes(20, 17, 50, &[]), Err(MathError::TooFewPrimes { .. })));
        assert!(ntt_primes(51, 10, 1, &[]).is_err());
        assert!(ntt_primes(20, 40, 1, &[]).is_err());
        assert!(ntt_primes(20, 200, 1, &[]).is_err());
    }
}
