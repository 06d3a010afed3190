//! ONNX import and export.
//!
//! Import takes what exporters of LeNet, AlexNet, SqueezeNet, VGG and ResNet write, folds
//! constants, drops what does nothing at inference, and recognises quadratic activations in
//! whatever arithmetic they were written. Export writes opset 17 that the ONNX checker and
//! onnxruntime take. Sizes and counts are checked before anything is allocated.
//!
//! | ONNX | becomes |
//! |---|---|
//! | Conv (2-D, groups, dilation, any padding) | `Conv` |
//! | Gemm, MatMul (+ Add) with constant weights | `Linear` |
//! | BatchNormalization | `BatchNorm` |
//! | AveragePool, MaxPool | `AvgPool`, `MaxPool` |
//! | GlobalAveragePool, ReduceMean over height and width | `GlobalAvgPool` |
//! | ReduceMean over height or width | `AvgPool` |
//! | Relu; Clip from 0 up, Max with 0 | `Relu` |
//! | Flatten; Reshape, Squeeze and Unsqueeze that end in a vector or in the same image | `Flatten` or nothing |
//! | Add of two values, Sum | `Add` |
//! | Concat of channels | `Concat` |
//! | Mul, Add, Sub, Div, Pow, Neg with constants or of one value with itself | one `Quadratic` |
//! | Pad with zeros before Conv or a pool | padding of that node |
//! | Dropout, Identity, Cast between float types | nothing |
//! | Softmax or LogSoftmax at the end | nothing; noted in the metadata under [`DROPPED_KEY`] |

mod advice;
mod args;
mod attributes;
mod constant;
mod elementwise;
mod error;
mod export;
mod fold;
mod import;
mod lower;
mod poly;
mod proto;
mod reshape;
mod scan;

use std::{fs, path::Path};

pub use error::{OnnxError, Unsupported, UnsupportedNode};
pub use import::DROPPED_KEY;

use crate::Graph;

/// Reads a model.
///
/// # Errors
/// Bytes that are no ONNX model; every unsupported node at once ([`OnnxError::Unsupported`]); a
/// network that does not hold together, by node name. Never panics; memory stays within some twenty
/// times the size of the file, plus half a GiB.
pub fn from_bytes(bytes: &[u8]) -> Result<Graph, OnnxError> {
    import::import(bytes)
}

/// [`from_bytes`] of a file.
///
/// # Errors
/// [`OnnxError::Io`], and those of [`from_bytes`].
pub fn from_path(path: &Path) -> Result<Graph, OnnxError> {
    let io = |source| OnnxError::Io { path: path.display().to_string(), source };
    scan::limit("bytes", fs::metadata(path).map_err(io)?.len(), scan::MAX_BYTES)?;
    from_bytes(&fs::read(path).map_err(io)?)
}

/// Writes a model: opset 17, batch extent `N`, quadratics as Mul and Add, metadata kept.
///
/// # Errors
/// [`OnnxError::Graph`] for a graph that is not valid; [`OnnxError::Limit`] beyond 2 GiB.
pub fn to_bytes(graph: &Graph) -> Result<Vec<u8>, OnnxError> {
    export::export(graph)
}

/// [`to_bytes`] to a file.
///
/// # Errors
/// [`OnnxError::Io`], and those of [`to_bytes`].
pub fn to_path(graph: &Graph, path: &Path) -> Result<(), OnnxError> {
    let io = |source| OnnxError::Io { path: path.display().to_string(), source };
    fs::write(path, to_bytes(graph)?).map_err(io)
}

#[cfg(test)]
mod tests;
