//! Residues that are kept for long and read often, in whole bytes instead of words, in the order in which they are read.
//!
//! Switching keys are streamed from memory by every rotation, and memory is what bounds that. A residue takes ⌈bits / 8⌉
//! bytes, and the polynomials that are read together (the digits of a key) alternate every eight values, so that a limb of
//! all of them is one stream.

use crate::buffer::{self, Buffer};
use crate::modulus::Modulus;
use crate::poly::{Ntt, Poly};
use crate::simd::{self, PACKED_GROUP, PackedLimb};

/// Several polynomials modulo the same primes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedPolys {
    degree: usize,
    rows: usize,
    /// Of each limb the first word and the words of eight residues.
    limbs: Vec<(usize, usize)>,
    data: Buffer,
}

/// Words that kernels may read behind the last limb.
const PADDING: usize = 8;

impl PackedPolys {
    /// Room for `rows` polynomials of a degree that is a multiple of 8; all zero.
    #[must_use]
    pub fn zero(degree: usize, rows: usize, moduli: &[Modulus]) -> Self {
        let mut next = 0;
        let mut place = |modulus: &Modulus| {
            let (start, width) = (next, width(modulus));
            next += rows * width * (degree / PACKED_GROUP);
            (start, width)
        };
        let limbs = moduli.iter().map(&mut place).collect();
        Self { degree, rows, limbs, data: buffer::take_zeroed(next + PADDING) }
    }

    /// Writes one polynomial, whose residues must be reduced. A row or a limb that does not exist is left out.
    pub fn set(&mut self, row: usize, poly: &Poly<Ntt>) {
        let place = (self.rows, row);
        for (i, &(start, width)) in self.limbs.iter().enumerate().take(poly.limbs()) {
            if row < self.rows {
                simd::pack(&mut self.data[start..], poly.limb(i), width, place);
            }
        }
    }

    /// One polynomial.
    #[must_use]
    pub fn get(&self, row: usize) -> Poly<Ntt> {
        let mut poly = Poly::unspecified(self.degree, self.limbs.len());
        for i in 0..self.limbs.len() {
            self.limb(i).unpack(row, 0, poly.limb_mut(i));
        }
        poly
    }

    /// One limb of all polynomials.
    #[must_use]
    pub fn limb(&self, index: usize) -> PackedLimb<'_> {
        let (start, width) = self.limbs[index];
        PackedLimb { words: &self.data[start..], rows: self.rows, width }
    }

    /// Number of polynomials.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of residues.
    #[must_use]
    pub fn bytes(&self) -> usize {
        8 * (self.data.len() - PADDING)
    }
}

/// Bytes of a residue, which is words of eight residues.
#[must_use]
pub const fn width(modulus: &Modulus) -> usize {
    modulus.bits().div_ceil(8) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prime::ntt_primes;
    use crate::sample::SeedStream;

    #[test]
    fn what_is_packed_comes_back() {
        let sizes = [9, 16, 20, 30, 40, 42, 48, 49, 50];
        let prime = |bits: u32| if bits == 9 { 257 } else { ntt_primes(bits, 4, 1, &[]).unwrap()[0] };
        let moduli: Vec<Modulus> = sizes.iter().map(|&b| Modulus::new(prime(b)).unwrap()).collect();
        let n = 64;
        let polys: Vec<Poly<Ntt>> = (0..3u64)
            .map(|row| {
                let mut poly = Poly::unspecified(n, moduli.len());
                for (i, m) in moduli.iter().enumerate() {
                    SeedStream::new(&[3; 32], row * 100 + i as u64).uniform(m, poly.limb_mut(i));
                    poly.limb_mut(i)[n - 1] = m.value() - 1;
                }
                poly
            })
            .collect();
        let mut packed = PackedPolys::zero(n, 3, &moduli);
        for row in [2, 0, 1] {
            packed.set(row, &polys[row]);
        }
        packed.set(3, &polys[0]);
        for (row, poly) in polys.iter().enumerate() {
            assert_eq!(&packed.get(row), poly);
        }
        assert_eq!(packed.bytes(), 3 * n * moduli.iter().map(width).sum::<usize>());
        let width_of = |q| width(&Modulus::new(q).unwrap());
        assert_eq!([97, 257, (1 << 48) - 59, (1 << 49) - 81].map(width_of), [1, 2, 6, 7]);
    }
}
