//! Network graph: operators, shapes, ONNX and safetensors, plain f32 executor.
#![forbid(unsafe_code)]

mod graph;
mod tensor;

pub use graph::{BatchNorm, Conv, Graph, Hw, Linear, Node, NodeId, Op, Pads, Pool, Quadratic};
pub use tensor::{Tensor, TensorSizeError};
