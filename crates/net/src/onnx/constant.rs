//! Constants of a model: decoding of tensors, within a budget.

use half::{bf16, f16};

use super::{
    OnnxError,
    proto::{TensorProto, element},
};
use crate::MAX_VALUES;

/// Stands for the batch extent in a shape, whatever it may be. Folding moves it about; arithmetic
/// on it is refused.
pub(super) const BATCH: i64 = i64::MIN;

/// Most elements of one integer constant.
const MAX_INTS: usize = 1 << 24;

/// Most axes of a constant.
pub(super) const MAX_RANK: usize = 8;

/// How much import may still copy and compute, counted in `f32`s.
///
/// In proportion to the file: its weights may be copied a few times over, but a small file cannot
/// make large arrays.
pub(super) struct Budget {
    total: usize,
    left: usize,
}

impl Budget {
    /// For a file of `bytes`: eight bytes for each of its own, and 64 MiB.
    pub(super) fn new(bytes: usize) -> Self {
        let total = bytes.saturating_mul(2).saturating_add(1 << 24);
        Self { total, left: total }
    }

    /// Takes `n` elements from the budget.
    pub(super) fn charge(&mut self, n: usize) -> Result<(), OnnxError> {
        match self.left.checked_sub(n) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(OnnxError::Limit {
                what: "elements in copied weights and folded constants",
                found: (self.total - self.left).saturating_add(n) as u64,
                limit: self.total as u64,
            }),
        }
    }
}

/// A constant array. Invariant: the data fill `dims`, of at most [`MAX_RANK`] axes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Const {
    pub dims: Vec<usize>,
    pub data: Data,
}

/// Values of a constant: any float type as `f32`, any integer or boolean as `i64`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Data {
    Float(Vec<f32>),
    Int(Vec<i64>),
}

impl Const {
    pub(super) fn floats(dims: Vec<usize>, data: Vec<f32>) -> Self {
        Self { dims, data: Data::Float(data) }
    }

    pub(super) fn ints(data: Vec<i64>) -> Self {
        Self { dims: vec![data.len()], data: Data::Int(data) }
    }

    pub(super) fn len(&self) -> usize {
        match &self.data {
            Data::Float(d) => d.len(),
            Data::Int(d) => d.len(),
        }
    }

    /// `f32`s that one element takes the room of.
    pub(super) fn width(&self) -> usize {
        match &self.data {
            Data::Float(_) => 1,
            Data::Int(_) => 2,
        }
    }

    /// The integers, where it holds some.
    pub(super) fn as_ints(&self) -> Option<&[i64]> {
        match &self.data {
            Data::Int(d) => Some(d),
            Data::Float(_) => None,
        }
    }

    /// The value at `i` as a number; the batch extent has none.
    pub(super) fn number(&self, i: usize) -> Option<f64> {
        match &self.data {
            Data::Float(d) => d.get(i).map(|&x| f64::from(x)),
            #[expect(clippy::cast_precision_loss, reason = "constants beside weights are small integers")]
            Data::Int(d) => d.get(i).filter(|&&x| x != BATCH).map(|&x| x as f64),
        }
    }

    /// The single value, whatever the rank.
    pub(super) fn scalar(&self) -> Option<f64> {
        if self.len() == 1 { self.number(0) } else { None }
    }

    /// Decodes a tensor, checking its size before anything is allocated.
    pub(super) fn decode(tensor: &TensorProto) -> Result<Self, OnnxError> {
        let fail = |reason: String| OnnxError::Tensor { tensor: tensor.name.clone(), reason };
        if tensor.data_location == 1 || !tensor.external_data.is_empty() {
            return Err(fail(
                "its values lie in another file; save the model with all weights inside".into(),
            ));
        }
        let dims: Option<Vec<usize>> = tensor.dims.iter().map(|&d| usize::try_from(d).ok()).collect();
        let count = dims.as_ref().and_then(|d| product(d));
        let (Some(dims), Some(count)) = (dims, count) else {
            return Err(fail(format!("impossible shape {:?}", tensor.dims)));
        };
        if dims.len() > MAX_RANK {
            return Err(fail(format!("{} axes; at most {MAX_RANK} are read", dims.len())));
        }
        if volume(&dims).is_none_or(|n| n > MAX_VALUES) {
            return Err(fail(format!("shape {dims:?} holds more than {MAX_VALUES} values")));
        }
        let raw = tensor.raw_data.as_slice();
        let size = match tensor.data_type {
            element::FLOAT | element::INT32 => 4,
            element::DOUBLE | element::INT64 => 8,
            element::FLOAT16 | element::BFLOAT16 => 2,
            element::UINT8 | element::INT8 | element::BOOL => 1,
            other => return Err(fail(format!("element type {other} is not read; use float32 weights"))),
        };
        let narrow =
            matches!(tensor.data_type, element::UINT8 | element::INT8 | element::INT32 | element::BOOL);
        if count > MAX_INTS && (narrow || tensor.data_type == element::INT64) {
            return Err(fail(format!("{count} integers; at most {MAX_INTS} are read")));
        }
        if !raw.is_empty() && count.checked_mul(size) != Some(raw.len()) {
            return Err(fail(format!(
                "shape {dims:?} needs {count} values of {size} bytes, found {} bytes",
                raw.len()
            )));
        }
        let data =
            if raw.is_empty() { Data::from_fields(tensor) } else { Data::from_raw(tensor.data_type, raw) };
        let constant = Self { dims, data };
        if constant.len() != count {
            return Err(fail(format!(
                "shape {:?} needs {count} values, found {}",
                constant.dims,
                constant.len()
            )));
        }
        Ok(constant)
    }

    /// The elements at these flat positions, as an array of `dims`.
    pub(super) fn pick(&self, dims: Vec<usize>, positions: impl Iterator<Item = usize>) -> Self {
        let data = match &self.data {
            Data::Float(d) => Data::Float(positions.map(|i| d[i]).collect()),
            Data::Int(d) => Data::Int(positions.map(|i| d[i]).collect()),
        };
        Self { dims, data }
    }
}

impl Data {
    #[expect(clippy::cast_possible_truncation, reason = "weights are kept in f32")]
    fn from_raw(data_type: i32, raw: &[u8]) -> Self {
        let (two, four, eight) = (raw.as_chunks::<2>().0, raw.as_chunks::<4>().0, raw.as_chunks::<8>().0);
        match data_type {
            element::FLOAT => Self::Float(four.iter().map(|&b| f32::from_le_bytes(b)).collect()),
            element::DOUBLE => Self::Float(eight.iter().map(|&b| f64::from_le_bytes(b) as f32).collect()),
            element::FLOAT16 => Self::Float(two.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect()),
            element::BFLOAT16 => Self::Float(two.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect()),
            element::INT32 => Self::Int(four.iter().map(|&b| i64::from(i32::from_le_bytes(b))).collect()),
            element::INT8 => Self::Int(raw.iter().map(|&b| i64::from(b.cast_signed())).collect()),
            element::INT64 => Self::Int(eight.iter().map(|&b| i64::from_le_bytes(b)).collect()),
            _ => Self::Int(raw.iter().map(|&b| i64::from(b)).collect()),
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "16-bit floats lie in the low half"
    )]
    fn from_fields(tensor: &TensorProto) -> Self {
        let narrow = tensor.int32_data.iter();
        match tensor.data_type {
            element::FLOAT => Self::Float(tensor.float_data.clone()),
            element::DOUBLE => Self::Float(tensor.double_data.iter().map(|&x| x as f32).collect()),
            element::FLOAT16 => Self::Float(narrow.map(|&x| f16::from_bits(x as u16).to_f32()).collect()),
            element::BFLOAT16 => Self::Float(narrow.map(|&x| bf16::from_bits(x as u16).to_f32()).collect()),
            element::INT64 => Self::Int(tensor.int64_data.clone()),
            _ => Self::Int(narrow.map(|&x| i64::from(x)).collect()),
        }
    }
}

pub(super) fn product(dims: &[usize]) -> Option<usize> {
    dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

/// Number of elements, counting axes of extent 0 as 1: bounds the work as well as the memory.
pub(super) fn volume(dims: &[usize]) -> Option<usize> {
    dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)))
}
