//! ONNX import and export.
//!
//! Import takes what exporters of LeNet, AlexNet, SqueezeNet, VGG and ResNet write, folds constants,
//! drops what does nothing at inference, and recognises quadratic activations in whatever
//! arithmetic they were written. Export writes opset 17 that the ONNX checker and onnxruntime
//! take. Limits of size and count are checked before anything is allocated.

mod error;

pub use error::{OnnxError, Unsupported, UnsupportedNode};
