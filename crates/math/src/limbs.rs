//! Memory of polynomials and of many sums: buffers of one length each, a limb.
//!
//! What one layer of a network frees serves the next one, whatever their levels are. With one buffer a polynomial they did not fit
//! each other, and the system cleared up to 2.5 GB anew for every image of a network of AlexNet's size.

use crate::buffer::{self, Buffer};
use std::ops::{Deref, DerefMut};

/// Limbs of the same length.
#[derive(Debug, Default)]
pub struct Limbs(Vec<Buffer>);

impl Limbs {
    /// Limbs with unspecified (but initialised) contents.
    #[must_use]
    pub fn unspecified(count: usize, len: usize) -> Self {
        Self(buffer::take_all(count, len))
    }

    /// Forgets all but the first `count`.
    pub fn truncate(&mut self, count: usize) {
        self.0.truncate(count);
    }
}

impl Deref for Limbs {
    type Target = [Buffer];

    fn deref(&self) -> &[Buffer] {
        &self.0
    }
}

impl DerefMut for Limbs {
    fn deref_mut(&mut self) -> &mut [Buffer] {
        &mut self.0
    }
}

impl PartialEq for Limbs {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Limbs {}

impl Drop for Limbs {
    fn drop(&mut self) {
        buffer::give_all(std::mem::take(&mut self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limbs_are_separate_and_of_one_length() {
        for len in [0, 3, 4096, 100_000] {
            let mut limbs = Limbs::unspecified(3, len);
            for (k, limb) in limbs.iter_mut().enumerate() {
                limb.fill(k as u64);
            }
            assert!(limbs.iter().enumerate().all(|(k, limb)| **limb == vec![k as u64; len]));
            limbs.truncate(1);
            assert_eq!(limbs.len(), 1);
        }
        assert!(Limbs::unspecified(0, 4096).is_empty());
    }
}
