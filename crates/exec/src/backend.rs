//! What the interpreter asks of a mode: a dozen operations on one ciphertext's worth of slots.

use polyveil_ckks::{CkksError, par};

/// Weights of one product: one period over the slots, and the scale to encode them at.
#[derive(Clone, Debug)]
pub struct Weights {
    /// One period, a power of two long.
    pub period: Vec<f64>,
    /// Scale of the encoding.
    pub scale: f64,
}

/// Σ_g rotate(Σ_p rotate(inputs, p) ⊙ w_p, g) for every output: the weighted sums of a linear step.
pub struct WeightedRotations<'a, C> {
    /// The inputs at the step's level.
    pub inputs: &'a [C],
    /// The distinct rotations of inputs: which input, how far to the left.
    pub babies: &'a [(usize, usize)],
    /// The giant steps of every output; an output that no weight reaches has none.
    pub outputs: &'a [Vec<GiantSum<'a>>],
    /// Scale of the results after a rescale, or none if they are not to be rescaled.
    pub rescale: Option<f64>,
    /// Whether sums are to be formed before the division by the special primes, where the mode has such a thing.
    pub double_hoisted: bool,
}

/// A sum of products and its rotation.
pub struct GiantSum<'a> {
    /// Rotation to the left.
    pub rotation: usize,
    /// Numbers in all its weights.
    pub numbers: usize,
    /// Which of the babies, and what makes the weights.
    pub products: Vec<(usize, Box<dyn Fn() -> Weights + Send + Sync + 'a>)>,
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

    /// [`Backend::weighted_sum`] of many sums of the same ciphertexts, whose own rotations are left aside.
    fn weighted_sums(
        &self,
        inputs: &[Self::Cipher],
        sums: &[&GiantSum<'_>],
    ) -> Result<Vec<Self::Cipher>, CkksError> {
        let one = |giant: &&GiantSum<'_>| {
            let products: Vec<(&Self::Cipher, Weights)> =
                giant.products.iter().map(|(input, weights)| (&inputs[*input], weights())).collect();
            self.weighted_sum(&products)
        };
        par::try_map(sums, one)
    }

    /// The weighted sums of a linear step; `None` for outputs without products.
    fn weighted_rotations(
        &self,
        request: &WeightedRotations<'_, Self::Cipher>,
    ) -> Result<Vec<Option<Self::Cipher>>, CkksError> {
        crate::linear::step_by_step(self, request)
    }

    /// `Σ x`, of equal scales.
    fn sum(&self, terms: &[&Self::Cipher]) -> Result<Self::Cipher, CkksError>;

    /// `x ← x + y`.
    fn add_assign(&self, x: &mut Self::Cipher, y: &Self::Cipher) -> Result<(), CkksError>;

    /// `x ← x ⊙ mask` at the mask's scale, without rescaling; of the mask one period.
    fn mask(&self, x: &Self::Cipher, mask: &[f64], scale: f64) -> Result<Self::Cipher, CkksError>;

    /// Divides by the last prime; one level. `scale` is the scale that the plan states for the result.
    fn rescale(&self, x: &Self::Cipher, scale: f64) -> Result<Self::Cipher, CkksError>;

    /// Multiplies by `factor` through the scale alone: no product, no level. `scale` is the result's.
    fn constant(&self, x: Self::Cipher, factor: f64, scale: f64) -> Result<Self::Cipher, CkksError>;

    /// Adds one value a slot, given as one period.
    fn add_slots(&self, x: &Self::Cipher, slots: &[f64]) -> Result<Self::Cipher, CkksError>;

    /// Elementwise square, relinearised and rescaled; one level.
    fn square(&self, x: &Self::Cipher, scale: f64) -> Result<Self::Cipher, CkksError>;
}
