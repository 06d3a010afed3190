//! Residues → centred integers, exactly.
//!
//! Garner's mixed radix with *centred* digits: x = d_0 + d_1·q_0 + d_2·q_0·q_1 + …, |d_i| < q_i/2. Odd moduli make this
//! representation unique on (−Q/2, Q/2), so the result is centred without comparing long integers, and a small x has only
//! zero digits above its size, where the work stops.

use crate::error::MathError;
use crate::modulus::{Modulus, Shoup};

/// Constants for one list of primes.
#[derive(Debug, Clone)]
pub struct Reconstructor {
    moduli: Vec<Modulus>,
    /// `inverses[i][j − i − 1]` = q_i^−1 mod q_j for j > i.
    inverses: Vec<Vec<Shoup>>,
}

impl Reconstructor {
    /// For distinct primes.
    #[must_use]
    pub fn new(moduli: &[Modulus]) -> Self {
        let inverse = |q: &Modulus, other: &Modulus| other.shoup(other.inv(other.reduce(q.value())));
        let inverses = moduli
            .iter()
            .enumerate()
            .map(|(i, q)| moduli[i + 1..].iter().map(|other| inverse(q, other)).collect())
            .collect();
        Self { moduli: moduli.to_vec(), inverses }
    }

    /// The centred values of coefficients in limbs (the first `k` of the primes), rounded to `f64`.
    ///
    /// # Errors
    /// [`MathError::Length`] if `limbs` is no multiple of `n` or has more limbs than there are primes.
    pub fn to_f64(&self, limbs: &[u64], n: usize) -> Result<Vec<f64>, MathError> {
        self.map(limbs, n, |digits| {
            let mut value = 0.0;
            for (digit, q) in digits.iter().zip(&self.moduli).rev() {
                value = value * q.value() as f64 + *digit as f64;
            }
            value
        })
    }

    /// The centred values as integers, `None` where they do not fit.
    ///
    /// # Errors
    /// [`MathError::Length`] as for [`Reconstructor::to_f64`].
    pub fn to_i128(&self, limbs: &[u64], n: usize) -> Result<Vec<Option<i128>>, MathError> {
        self.map(limbs, n, |digits| {
            let mut value = 0i128;
            for (digit, q) in digits.iter().zip(&self.moduli).rev() {
                value = value.checked_mul(i128::from(q.value()))?.checked_add(i128::from(*digit))?;
            }
            Some(value)
        })
    }

    fn map<T>(&self, limbs: &[u64], n: usize, finish: impl Fn(&[i64]) -> T) -> Result<Vec<T>, MathError> {
        let count = limbs.len().checked_div(n).unwrap_or(0);
        if count * n != limbs.len() || count > self.moduli.len() {
            return Err(MathError::Length { expected: n * self.moduli.len(), found: limbs.len() });
        }
        let (mut residues, mut digits) = (vec![0; count], vec![0; count]);
        Ok((0..n)
            .map(|i| {
                for (residue, limb) in residues.iter_mut().zip(limbs.chunks_exact(n)) {
                    *residue = limb[i];
                }
                let used = self.digits(&mut residues, &mut digits);
                finish(&digits[..used])
            })
            .collect())
    }

    /// Writes the centred digits and returns how many there are before only zeros follow.
    fn digits(&self, residues: &mut [u64], digits: &mut [i64]) -> usize {
        for i in 0..residues.len() {
            let digit = self.moduli[i].centre(residues[i]);
            digits[i] = digit;
            let mut any = 0;
            let rest = residues[i + 1..].iter_mut().zip(&self.moduli[i + 1..]).zip(&self.inverses[i]);
            for ((residue, q), &inverse) in rest {
                *residue = q.mul_shoup(q.sub(*residue, q.reduce_signed(digit)), inverse);
                any |= *residue;
            }
            if any == 0 {
                return i + 1;
            }
        }
        residues.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prime::ntt_primes;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn integers_come_back(values in prop::collection::vec(any::<i128>(), 1..20), shift in 9u32..120) {
            let primes = [ntt_primes(20, 3, 1, &[]).unwrap(), ntt_primes(50, 3, 2, &[]).unwrap()].concat();
            let moduli: Vec<Modulus> = primes.iter().map(|&q| Modulus::new(q).unwrap()).collect();
            // |x| < 2^118 < Q/2.
            let values: Vec<i128> = values.iter().map(|v| v >> shift.max(10)).collect();
            let limbs: Vec<u64> = moduli.iter().flat_map(|q| values.iter().map(|&v| q.reduce_i128(v))).collect();
            let reconstructor = Reconstructor::new(&moduli);
            let n = values.len();
            let expected: Vec<Option<i128>> = values.iter().map(|&v| Some(v)).collect();
            prop_assert_eq!(reconstructor.to_i128(&limbs, n).unwrap(), expected);
            for (float, &value) in reconstructor.to_f64(&limbs, n).unwrap().iter().zip(&values) {
                prop_assert!((float - value as f64).abs() <= (value as f64).abs() * 1e-15);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_none_and_lengths_are_checked() {
        let moduli: Vec<Modulus> =
            ntt_primes(50, 3, 4, &[]).unwrap().iter().map(|&q| Modulus::new(q).unwrap()).collect();
        let reconstructor = Reconstructor::new(&moduli);
        // 2^150 mod each prime.
        let limbs: Vec<u64> = moduli.iter().map(|q| q.pow(2, 150)).collect();
        assert_eq!(reconstructor.to_i128(&limbs, 1).unwrap(), [None]);
        let float = reconstructor.to_f64(&limbs, 1).unwrap()[0];
        assert!((float / 2f64.powi(150) - 1.0).abs() < 1e-14);
        assert!(reconstructor.to_f64(&[0; 5], 1).is_err());
        assert!(reconstructor.to_f64(&[0; 5], 2).is_err());
        assert!(reconstructor.to_f64(&[0; 5], 0).is_err());
    }
}
