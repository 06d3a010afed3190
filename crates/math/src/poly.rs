//! Residue polynomials: `limbs × N` values in one buffer, with the representation in the type, so that a product of
//! coefficients with transform values does not compile.

use crate::buffer::{self, Buffer};
use crate::error::MathError;
use crate::modulus::Modulus;
use std::marker::PhantomData;

/// Coefficients a_0 … a_{N−1}.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coeff;

/// Values at the roots, in the transform's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ntt;

/// How the values of a [`Poly`] are to be read.
pub trait Representation: Copy {}
impl Representation for Coeff {}
impl Representation for Ntt {}

/// A polynomial by its residues modulo several primes.
#[derive(Debug, PartialEq, Eq)]
pub struct Poly<R: Representation> {
    degree: usize,
    data: Buffer,
    representation: PhantomData<R>,
}

impl<R: Representation> Poly<R> {
    /// Zero with `limbs` limbs.
    #[must_use]
    pub fn zero(degree: usize, limbs: usize) -> Self {
        Self { degree, data: buffer::take_zeroed(degree * limbs), representation: PhantomData }
    }

    /// Reduced residues are still to be written: unspecified contents.
    #[must_use]
    pub fn unspecified(degree: usize, limbs: usize) -> Self {
        Self { degree, data: buffer::take(degree * limbs), representation: PhantomData }
    }

    /// Takes a buffer of `limbs × degree` residues that the caller knows to be reduced.
    ///
    /// # Errors
    /// [`MathError::Length`] if the length is no multiple of the degree.
    pub fn from_raw(degree: usize, data: impl Into<Buffer>) -> Result<Self, MathError> {
        let data = data.into();
        if degree == 0 || data.len() % degree != 0 {
            return Err(MathError::Length { expected: degree, found: data.len() });
        }
        Ok(Self { degree, data, representation: PhantomData })
    }

    /// Takes a buffer from outside: its length must be `moduli.len() × degree` and each residue below its modulus.
    ///
    /// # Errors
    /// [`MathError::Length`] or [`MathError::Residue`].
    pub fn from_untrusted(
        degree: usize,
        data: impl Into<Buffer>,
        moduli: &[Modulus],
    ) -> Result<Self, MathError> {
        let data = data.into();
        let expected = degree.saturating_mul(moduli.len());
        if degree == 0 || data.len() != expected {
            return Err(MathError::Length { expected, found: data.len() });
        }
        for (limb, (values, modulus)) in data.chunks_exact(degree).zip(moduli).enumerate() {
            if let Some(index) = values.iter().position(|&v| v >= modulus.value()) {
                return Err(MathError::Residue {
                    value: values[index],
                    index,
                    limb,
                    modulus: modulus.value(),
                });
            }
        }
        Self::from_raw(degree, data)
    }

    /// N.
    #[must_use]
    pub const fn degree(&self) -> usize {
        self.degree
    }

    /// Number of limbs.
    #[must_use]
    pub fn limbs(&self) -> usize {
        self.data.len() / self.degree
    }

    /// One limb.
    #[must_use]
    pub fn limb(&self, index: usize) -> &[u64] {
        &self.data[index * self.degree..(index + 1) * self.degree]
    }

    /// One limb, to be changed; what is written must be reduced.
    #[must_use]
    pub fn limb_mut(&mut self, index: usize) -> &mut [u64] {
        &mut self.data[index * self.degree..(index + 1) * self.degree]
    }

    /// All residues, limb after limb.
    #[must_use]
    pub fn raw(&self) -> &[u64] {
        &self.data
    }

    /// All residues, to be changed; what is written must be reduced.
    #[must_use]
    pub fn raw_mut(&mut self) -> &mut [u64] {
        &mut self.data
    }

    /// Gives the buffer back.
    #[must_use]
    pub fn into_raw(self) -> Buffer {
        self.data
    }

    /// Keeps the first `limbs` limbs.
    pub fn truncate(&mut self, limbs: usize) {
        self.data.truncate(limbs * self.degree);
    }

    /// A copy of the first `limbs` limbs.
    #[must_use]
    pub fn prefix(&self, limbs: usize) -> Self {
        let limbs = limbs.min(self.limbs());
        let mut copy = Self::unspecified(self.degree, limbs);
        copy.data.copy_from_slice(&self.data[..limbs * self.degree]);
        copy
    }

    /// Declares another representation after the buffer was transformed in place.
    #[must_use]
    pub fn relabel<S: Representation>(self) -> Poly<S> {
        Poly { degree: self.degree, data: self.data, representation: PhantomData }
    }
}

impl<R: Representation> Clone for Poly<R> {
    fn clone(&self) -> Self {
        self.prefix(self.limbs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untrusted_buffers_are_checked() {
        let moduli = [Modulus::new(97).unwrap(), Modulus::new(193).unwrap()];
        assert!(Poly::<Ntt>::from_untrusted(2, vec![96, 0, 192, 3], &moduli).is_ok());
        assert_eq!(
            Poly::<Ntt>::from_untrusted(2, vec![96, 97, 192, 3], &moduli),
            Err(MathError::Residue { value: 97, index: 1, limb: 0, modulus: 97 })
        );
        assert!(Poly::<Ntt>::from_untrusted(2, vec![0; 3], &moduli).is_err());
        assert!(Poly::<Ntt>::from_untrusted(0, vec![], &moduli).is_err());
        assert!(Poly::<Ntt>::from_raw(4, &[0; 6][..]).is_err());
    }

    #[test]
    fn limbs_are_consecutive() {
        let mut poly = Poly::<Coeff>::from_raw(2, &[1, 2, 3, 4, 5, 6][..]).unwrap();
        assert_eq!((poly.limbs(), poly.limb(1)), (3, &[3, 4][..]));
        poly.limb_mut(2)[0] = 9;
        assert_eq!(poly.prefix(1).raw(), [1, 2]);
        poly.truncate(2);
        assert_eq!(*poly.into_raw(), [1, 2, 3, 4]);
    }
}
