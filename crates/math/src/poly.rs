//! Residue polynomials: N values a limb, with the representation in the type, so that a product of
//! coefficients with transform values does not compile.

use crate::buffer::Buffer;
use crate::error::MathError;
use crate::limbs::Limbs;
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
    limbs: Limbs,
    representation: PhantomData<R>,
}

impl<R: Representation> Poly<R> {
    /// Zero with `limbs` limbs.
    #[must_use]
    pub fn zero(degree: usize, limbs: usize) -> Self {
        let mut poly = Self::unspecified(degree, limbs);
        poly.limbs.iter_mut().for_each(|limb| limb.fill(0));
        poly
    }

    /// Reduced residues are still to be written: unspecified contents.
    #[must_use]
    pub fn unspecified(degree: usize, limbs: usize) -> Self {
        Self { degree, limbs: Limbs::unspecified(limbs, degree), representation: PhantomData }
    }

    /// Copies `limbs × degree` residues, limb after limb, that the caller knows to be reduced.
    ///
    /// # Errors
    /// [`MathError::Length`] if the length is no multiple of the degree.
    pub fn from_words(degree: usize, data: &[u64]) -> Result<Self, MathError> {
        if degree == 0 || data.len() % degree != 0 {
            return Err(MathError::Length { expected: degree, found: data.len() });
        }
        let mut poly = Self::unspecified(degree, data.len() / degree);
        for (limb, own) in poly.limbs.iter_mut().zip(data.chunks_exact(degree)) {
            limb.copy_from_slice(own);
        }
        Ok(poly)
    }

    /// Copies residues from outside: their number must be `moduli.len() × degree` and each residue below its modulus.
    ///
    /// # Errors
    /// [`MathError::Length`] or [`MathError::Residue`].
    pub fn from_untrusted(degree: usize, data: &[u64], moduli: &[Modulus]) -> Result<Self, MathError> {
        Self::from_words(degree, data)?.checked(degree, moduli)
    }

    /// The same polynomial, if it has this degree and each residue is below its modulus.
    ///
    /// # Errors
    /// [`MathError::Length`] or [`MathError::Residue`].
    pub fn checked(self, degree: usize, moduli: &[Modulus]) -> Result<Self, MathError> {
        let expected = degree.saturating_mul(moduli.len());
        if self.degree != degree || self.words() != expected {
            return Err(MathError::Length { expected, found: self.words() });
        }
        for (limb, (values, modulus)) in self.limbs.iter().zip(moduli).enumerate() {
            if let Some(index) = values.iter().position(|&v| v >= modulus.value()) {
                return Err(MathError::Residue {
                    value: values[index],
                    index,
                    limb,
                    modulus: modulus.value(),
                });
            }
        }
        Ok(self)
    }

    /// N.
    #[must_use]
    pub const fn degree(&self) -> usize {
        self.degree
    }

    /// Number of limbs.
    #[must_use]
    pub fn limbs(&self) -> usize {
        self.limbs.len()
    }

    /// One limb.
    #[must_use]
    pub fn limb(&self, index: usize) -> &[u64] {
        &self.limbs[index]
    }

    /// One limb, to be changed; what is written must be reduced.
    #[must_use]
    pub fn limb_mut(&mut self, index: usize) -> &mut [u64] {
        &mut self.limbs[index]
    }

    /// All limbs, to be changed; what is written must be reduced.
    #[must_use]
    pub fn limbs_mut(&mut self) -> &mut [Buffer] {
        &mut self.limbs
    }

    /// Number of residues.
    #[must_use]
    pub fn words(&self) -> usize {
        self.limbs.len() * self.degree
    }

    /// All residues, limb after limb.
    #[must_use]
    pub fn to_words(&self) -> Vec<u64> {
        // All at once: what is secret must not stay behind where a vector grew.
        let mut words = Vec::with_capacity(self.words());
        self.limbs.iter().for_each(|limb| words.extend_from_slice(limb));
        words
    }

    /// Keeps the first `limbs` limbs.
    pub fn truncate(&mut self, limbs: usize) {
        self.limbs.truncate(limbs);
    }

    /// A copy of the first `limbs` limbs.
    #[must_use]
    pub fn prefix(&self, limbs: usize) -> Self {
        let limbs = limbs.min(self.limbs());
        let mut copy = Self::unspecified(self.degree, limbs);
        for (copy, limb) in copy.limbs.iter_mut().zip(&*self.limbs) {
            copy.copy_from_slice(limb);
        }
        copy
    }

    /// Declares another representation after the limbs were transformed in place.
    #[must_use]
    pub fn relabel<S: Representation>(self) -> Poly<S> {
        Poly { degree: self.degree, limbs: self.limbs, representation: PhantomData }
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
        assert!(Poly::<Ntt>::from_untrusted(2, &[96, 0, 192, 3], &moduli).is_ok());
        assert_eq!(
            Poly::<Ntt>::from_untrusted(2, &[96, 97, 192, 3], &moduli),
            Err(MathError::Residue { value: 97, index: 1, limb: 0, modulus: 97 })
        );
        assert!(Poly::<Ntt>::from_untrusted(2, &[0; 3], &moduli).is_err());
        assert!(Poly::<Ntt>::from_untrusted(0, &[], &moduli).is_err());
        assert!(Poly::<Ntt>::from_words(4, &[0; 6]).is_err());
    }

    #[test]
    fn limbs_are_consecutive() {
        let mut poly = Poly::<Coeff>::from_words(2, &[1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!((poly.limbs(), poly.limb(1)), (3, &[3, 4][..]));
        poly.limb_mut(2)[0] = 9;
        assert_eq!(poly.prefix(1).to_words(), [1, 2]);
        poly.truncate(2);
        assert_eq!((poly.words(), poly.to_words()), (4, vec![1, 2, 3, 4]));
    }
}
