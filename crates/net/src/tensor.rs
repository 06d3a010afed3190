//! A dense row-major `f32` tensor: the value type of weights, images and logits.

use serde::{Deserialize, Serialize};

/// Dense row-major tensor. Invariant: `data.len()` is the product of `shape`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Vec<f32>,
}

/// A tensor whose data does not fill its shape.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("shape {shape:?} needs {expected} values, found {found}")]
pub struct TensorSizeError {
    /// The shape asked for.
    pub shape: Vec<usize>,
    /// Values the shape needs.
    pub expected: usize,
    /// Values given.
    pub found: usize,
}

impl Tensor {
    /// A tensor of `shape` over `data`.
    ///
    /// # Errors
    /// When `data` does not hold exactly as many values as `shape` says.
    pub fn new(shape: Vec<usize>, data: Vec<f32>) -> Result<Self, TensorSizeError> {
        let expected = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).unwrap_or(usize::MAX);
        if expected != data.len() {
            return Err(TensorSizeError { shape, expected, found: data.len() });
        }
        Ok(Self { shape, data })
    }

    /// A tensor of `shape` filled with `value`.
    #[must_use]
    pub fn full(shape: Vec<usize>, value: f32) -> Self {
        let n = shape.iter().product();
        Self { shape, data: vec![value; n] }
    }

    /// The extent of each axis.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values, last axis fastest.
    #[must_use]
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The values, mutable.
    pub fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// The values, moved out.
    #[must_use]
    pub fn into_data(self) -> Vec<f32> {
        self.data
    }

    /// Number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// True where the tensor holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The same values under another shape.
    ///
    /// # Errors
    /// When `shape` does not hold as many values.
    pub fn reshape(self, shape: Vec<usize>) -> Result<Self, TensorSizeError> {
        Self::new(shape, self.data)
    }
}
