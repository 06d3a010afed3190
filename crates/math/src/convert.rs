//! Base conversion: from residues modulo q_1 … q_α to residues modulo other primes.
//!
//! With Q = Π q_i and x'_i = x_i·(Q/q_i)^−1 mod q_i, the centred value is Σ x'_i·(Q/q_i) − v·Q, v = ⌊Σ x'_i/q_i + 1/2⌋,
//! v summed in `f64` (Halevi, Polyakov, Shoup, CT-RSA 2019). The result is congruent to x modulo Q, and centred except
//! where |x| lies within about 2^−49 of Q/2, where it may be off by one Q. Cost a coefficient: α products once and α
//! products per target prime.

use crate::modulus::{Modulus, Shoup};
use crate::simd;

/// Constants of one conversion.
#[derive(Debug, Clone)]
pub struct BaseConverter {
    from: Vec<Modulus>,
    to: Vec<Modulus>,
    factors: Vec<Shoup>,
    hats: Vec<Vec<u64>>,
    corrections: Vec<u64>,
    /// Of the largest source prime.
    bits: u32,
}

impl BaseConverter {
    /// From one set of distinct primes to any list of primes.
    #[must_use]
    pub fn new(from: &[Modulus], to: &[Modulus]) -> Self {
        Self::scaled(from, &vec![1; from.len()], to, &vec![1; to.len()])
    }

    /// As [`BaseConverter::new`], of the value times a factor, which `scales` holds modulo each source prime, and the result
    /// times another, of which `descales` holds the residue for each target prime.
    #[must_use]
    pub fn scaled(from: &[Modulus], scales: &[u64], to: &[Modulus], descales: &[u64]) -> Self {
        let product = |skip: Option<usize>, modulus: &Modulus| {
            let others = from.iter().enumerate().filter(|(i, _)| Some(*i) != skip);
            others.fold(1, |product, (_, q)| modulus.mul(product, modulus.reduce(q.value())))
        };
        Self {
            factors: from
                .iter()
                .zip(scales)
                .enumerate()
                .map(|(i, (q, &scale))| q.shoup(q.mul(q.inv(product(Some(i), q)), scale)))
                .collect(),
            hats: to
                .iter()
                .zip(descales)
                .map(|(t, &by)| (0..from.len()).map(|i| t.mul(product(Some(i), t), by)).collect())
                .collect(),
            corrections: to.iter().zip(descales).map(|(t, &by)| t.neg(t.mul(product(None, t), by))).collect(),
            bits: from.iter().map(Modulus::bits).max().unwrap_or_default(),
            from: from.to_vec(),
            to: to.to_vec(),
        }
    }

    /// Number of source primes.
    #[must_use]
    pub fn sources(&self) -> usize {
        self.from.len()
    }

    /// First half, from limbs of coefficients, one limb a source prime; `out` has room for one more limb. See
    /// [`simd::convert_prepare`] for its order.
    pub fn prepare(&self, limbs: &[u64], out: &mut [u64]) {
        simd::convert_prepare(out, limbs, &self.factors, &self.from);
    }

    /// Second half for target primes of those indices, from what [`BaseConverter::prepare`] left: it is read once for every two
    /// of them.
    pub fn combine<'a>(&self, prepared: &[u64], outs: impl IntoIterator<Item = (usize, &'a mut [u64])>) {
        let target = |index: usize| simd::Target {
            hats: &self.hats[index],
            correction: self.corrections[index],
            source_bits: self.bits,
            modulus: &self.to[index],
        };
        let mut outs = outs.into_iter();
        while let Some((index, out)) = outs.next() {
            match outs.next() {
                Some((next, second)) => {
                    let targets = [&target(index), &target(next)];
                    simd::convert_combine_two([out, second], prepared, targets);
                }
                None => simd::convert_combine(out, prepared, &target(index)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prime::ntt_primes;
    use proptest::prelude::*;

    fn moduli(bits: u32, count: usize) -> Vec<Modulus> {
        ntt_primes(bits, 4, count, &[]).unwrap().into_iter().map(|q| Modulus::new(q).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn small_values_of_either_sign_convert_exactly(
            values in prop::collection::vec(any::<i64>(), 1..300),
            count in 1usize..4,
        ) {
            let from = moduli(45, count);
            let to = [moduli(20, 1), moduli(50, 2), moduli(30, 1)].concat();
            let converter = BaseConverter::new(&from, &to);
            // Well inside (−Q/2, Q/2).
            let values: Vec<i64> = values.iter().map(|v| v >> 20).collect();
            let limbs: Vec<u64> =
                from.iter().flat_map(|q| values.iter().map(|&v| q.reduce_signed(v))).collect();
            let mut prepared = vec![0; limbs.len() + values.len()];
            converter.prepare(&limbs, &mut prepared);
            let mut out = vec![0; values.len()];
            for (index, t) in to.iter().enumerate() {
                converter.combine(&prepared, [(index, &mut out[..])]);
                let expected: Vec<u64> = values.iter().map(|&v| t.reduce_signed(v)).collect();
                prop_assert_eq!(&out, &expected);
            }
        }
    }

    #[test]
    fn extreme_residues_do_not_overflow() {
        let from = moduli(50, 6);
        let to = moduli(20, 1);
        let converter = BaseConverter::new(&from, &to);
        let limbs: Vec<u64> = from.iter().flat_map(|q| vec![q.value() - 1; 4]).collect();
        let (mut prepared, mut out) = (vec![0; limbs.len() + 4], vec![0; 4]);
        converter.prepare(&limbs, &mut prepared);
        converter.combine(&prepared, [(0, &mut out[..])]);
        assert_eq!(out, vec![to[0].value() - 1; 4]);
    }
}
