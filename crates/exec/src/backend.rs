//! What the interpreter asks of a mode: a dozen operations on one ciphertext's worth of slots.

use polyveil_ckks::CkksError;

/// Weights of one product: one period over the slots, and the scale to encode them at.
#[derive(Clone, Debug)]
pub struct Weights {
    /// One period, a power of two long.
    pub period: Vec<f64>,
    /// Scale of the encoding.
    pub scale: f64,
}

/// A mode of running a plan. Every operation is pure; the interpreter decides order and threads.
pub trait Backend: Sync {
    /// One ciphertext, or what stands for it.
    type Cipher: Clone + Send + Sync;

    /// Drops to `level` without changing the value. Free.
    fn drop_to(&self, x: &Self::Cipher, level: usize) -> Result<Self::Cipher, CkksError>;

    /// Left rotations of one ciphertext, sharing one decomposition. Rotation 0 is a copy.
    fn rotate_many(&self, x: &Self::Cipher, rotations: &[usize]) -> Result<Vec<Self::Cipher>, CkksError>;

    /// `Σ x ⊙ weights`; the products' scales must agree. No rescaling.
    fn weighted_sum(&self, products: &[(&Self::Cipher, Weights)]) -> Result<Self::Cipher, CkksError>;

    /// `Σ x`, of equal scales.
    fn sum(&self, terms: &[&Self::Cipher]) -> Result<Self::Cipher, CkksError>;

    /// `x ← x + y`.
    fn add_assign(&self, x: &mut Self::Cipher, y: &Self::Cipher) -> Result<(), CkksError>;

    /// `x ← x ⊙ mask` at the mask's scale, without rescaling.
    fn mask(&self, x: &Self::Cipher, mask: &[f64], scale: f64) -> Result<Self::Cipher, CkksError>;

    /// Divides by the last prime; one level. `scale` is the scale that the plan states for the result.
    fn rescale(&self, x: &Self::Cipher, scale: f64) -> Result<Self::Cipher, CkksError>;

    /// Multiplies by `factor` through the scale alone: no product, no level. `scale` is the result's.
    fn constant(&self, x: Self::Cipher, factor: f64, scale: f64) -> Result<Self::Cipher, CkksError>;

    /// Adds one value a slot.
    fn add_slots(&self, x: &Self::Cipher, slots: &[f64]) -> Result<Self::Cipher, CkksError>;

    /// Elementwise square, relinearised and rescaled; one level.
    fn square(&self, x: &Self::Cipher, scale: f64) -> Result<Self::Cipher, CkksError>;
}
