//! Base conversion: from residues modulo q_1 … q_α to residues modulo other primes.
//!
//! With Q = Π q_i and x'_i = x_i·(Q/q_i)^−1 mod q_i, the centred value is Σ x'_i·(Q/q_i) − v·Q, v = ⌊Σ x'_i/q_i + 1/2⌋,
//! v summed in `f64` (Halevi, Polyakov, Shoup, CT-RSA 2019). The result is congruent to x modulo Q, and centred except
//! where |x| lies within about 2^−49 of Q/2, where it may be off by one Q. Cost a coefficient: α products once and α
//! products per target prime.

use crate::buffer::Buffer;
use crate::limbs::Limbs;
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

    /// First half, from limbs of coefficients of one length, one limb a source prime.
    #[must_use]
    pub fn prepare(&self, limbs: &[Buffer]) -> Prepared {
        let (n, rows) = (limbs.first().map_or(0, |limb| limb.len()), self.from.len() + 1);
        let piece = piece(n, rows);
        let mut pieces = Limbs::unspecified(n.div_ceil(piece), n.max(rows * piece));
        for (out, start) in pieces.iter_mut().zip((0..n).step_by(piece)) {
            let len = rows * piece.min(n - start);
            let sources = simd::Sources { limbs, start, factors: &self.factors, moduli: &self.from };
            simd::convert_prepare(&mut out[..len], &sources);
        }
        Prepared { pieces, piece, rows }
    }

    /// Second half for target primes of those indices, into limbs of the same length: what was prepared is read once for every two
    /// of them.
    pub fn combine<'a, 'p>(
        &self,
        prepared: &'p Prepared,
        outs: impl IntoIterator<Item = (usize, &'a mut [u64])>,
    ) {
        let Prepared { pieces, piece, rows } = prepared;
        let own = |values: &'p Buffer, len: usize| &values[..rows * len];
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
                    let outs = out.chunks_mut(*piece).zip(second.chunks_mut(*piece));
                    for (values, (out, second)) in pieces.iter().zip(outs) {
                        let values = own(values, out.len());
                        simd::convert_combine_two([out, second], values, targets);
                    }
                }
                None => {
                    let target = target(index);
                    for (values, out) in pieces.iter().zip(out.chunks_mut(*piece)) {
                        let values = own(values, out.len());
                        simd::convert_combine(out, values, &target);
                    }
                }
            }
        }
    }
}

/// What stands between the halves of a conversion, in pieces that fit buffers of a limb's length: there are many of them at a time, and
/// so they take what limbs leave.
#[derive(Debug)]
pub struct Prepared {
    pieces: Limbs,
    /// Values of a piece; the last one may have fewer.
    piece: usize,
    /// A limb a source prime and the overflows.
    rows: usize,
}

/// Values of a piece: as many whole groups as have room in n words, `rows` rows of them, one at least.
fn piece(n: usize, rows: usize) -> usize {
    (n / (rows * simd::CONVERT_GROUP)).max(1) * simd::CONVERT_GROUP
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
            values in prop_oneof![1..300usize, Just(512)].prop_flat_map(|n| prop::collection::vec(any::<i64>(), n)),
            count in 1usize..4,
        ) {
            let from = moduli(45, count);
            let to = [moduli(20, 1), moduli(50, 2), moduli(30, 1)].concat();
            let converter = BaseConverter::new(&from, &to);
            // Well inside (−Q/2, Q/2).
            let values: Vec<i64> = values.iter().map(|v| v >> 20).collect();
            let limb = |q: &Modulus| values.iter().map(|&v| q.reduce_signed(v)).collect::<Vec<_>>().into();
            let prepared = converter.prepare(&from.iter().map(limb).collect::<Vec<_>>());
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
        let limbs: Vec<Buffer> = from.iter().map(|q| vec![q.value() - 1; 4].into()).collect();
        let (prepared, mut out) = (converter.prepare(&limbs), vec![0; 4]);
        converter.combine(&prepared, [(0, &mut out[..])]);
        assert_eq!(out, vec![to[0].value() - 1; 4]);
    }
}
