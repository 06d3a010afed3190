//! The two number types of the executor.

use std::borrow::Cow;

use ndarray::LinalgScalar;

use crate::Tensor;

/// `f32` or `f64`.
pub(super) trait Element:
    LinalgScalar + Default + PartialOrd + Send + Sync + std::ops::AddAssign
{
    /// Weights in this type; borrowed where they already are.
    fn weights(tensor: &Tensor) -> Cow<'_, [Self]>;
    fn of(value: f64) -> Self;
    fn finite(self) -> bool;
    fn root(self) -> Self;
}

impl Element for f32 {
    fn weights(tensor: &Tensor) -> Cow<'_, [Self]> {
        Cow::Borrowed(tensor.data())
    }
    #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is meant")]
    fn of(value: f64) -> Self {
        value as Self
    }
    fn finite(self) -> bool {
        self.is_finite()
    }
    fn root(self) -> Self {
        self.sqrt()
    }
}

impl Element for f64 {
    fn weights(tensor: &Tensor) -> Cow<'_, [Self]> {
        Cow::Owned(tensor.data().iter().map(|&x| Self::from(x)).collect())
    }
    fn of(value: f64) -> Self {
        value
    }
    fn finite(self) -> bool {
        self.is_finite()
    }
    fn root(self) -> Self {
        self.sqrt()
    }
}

/// Index of the first value that is not finite. Looks at blocks, which vectorises.
pub(super) fn first_non_finite<T: Element>(values: &[T]) -> Option<usize> {
    values
        .chunks(64)
        .position(|block| !block.iter().fold(true, |ok, x| ok & x.finite()))
        .and_then(|b| values.iter().skip(b * 64).position(|x| !x.finite()).map(|i| b * 64 + i))
}

/// A tensor over data whose length inference has fixed.
pub(super) fn tensor(shape: &[usize], data: Vec<f32>) -> Tensor {
    #[expect(
        clippy::expect_used,
        reason = "shape inference sized the data; a mismatch is a bug of the kernels"
    )]
    Tensor::new(shape.to_vec(), data).expect("kernel output fills its inferred shape")
}
