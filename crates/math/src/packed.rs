//! Residues that are kept for long and read often, in the bits of their prime instead of words, in the order in which they are read.
//!
//! Switching keys are streamed from memory by every rotation, and memory is what bounds that. Eight residues take as many bytes
//! as their prime has bits, and the polynomials that are read together (the digits of a key) alternate every eight values, so that
//! a limb of all of them is one stream.

use crate::buffer::{self, Buffer};
use crate::modulus::Modulus;
use crate::poly::{Ntt, Poly};
use crate::simd::{self, PACKED_GROUP, PACKED_PADDING, PackedLimb};

/// Several polynomials modulo the same primes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedPolys {
    degree: usize,
    rows: usize,
    /// Of each limb the first byte and the bits of a residue.
    limbs: Vec<(usize, usize)>,
    bytes: usize,
    data: Buffer,
}

impl PackedPolys {
    /// Room for `rows` polynomials of a degree that is a multiple of 8; all zero.
    #[must_use]
    pub fn zero(degree: usize, rows: usize, moduli: &[Modulus]) -> Self {
        let mut next = 0;
        let mut place = |modulus: &Modulus| {
            let (start, bits) = (next, modulus.bits() as usize);
            next += rows * bits * (degree / PACKED_GROUP);
            (start, bits)
        };
        let limbs = moduli.iter().map(&mut place).collect();
        let words = (next + PACKED_PADDING).div_ceil(size_of::<u64>());
        Self { degree, rows, limbs, bytes: next, data: buffer::take_zeroed(words) }
    }

    /// Writes one polynomial, whose residues must be reduced. A row or a limb that does not exist is left out.
    pub fn set(&mut self, row: usize, poly: &Poly<Ntt>) {
        let place = (self.rows, row);
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut self.data);
        for (i, &(start, bits)) in self.limbs.iter().enumerate().take(poly.limbs()) {
            if row < self.rows {
                simd::pack(&mut bytes[start..], poly.limb(i), bits, place);
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
        let (start, bits) = self.limbs[index];
        PackedLimb { bytes: &bytemuck::cast_slice(&self.data)[start..], rows: self.rows, bits }
    }

    /// Number of polynomials.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of residues.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
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
        assert_eq!(packed.bytes(), 3 * n / 8 * moduli.iter().map(|m| m.bits() as usize).sum::<usize>());
    }
}
