//! Network graph: operators, shapes, ONNX and safetensors, plain executor.
//!
//! One [`Graph`] type serves teacher, student, imported and exported networks:
//!
//! * [`builders`] makes graphs with initialised weights, [`onnx`] reads and writes them,
//!   [`weights`] loads and saves their weights as safetensors;
//! * [`Graph::validate`] and [`Graph::infer_shapes`] check a graph and say what every value looks like;
//! * [`exec`] runs a graph in plain arithmetic: the reference that encrypted results are held against;
//! * [`Graph::is_he_friendly`] names what stands between a graph and encrypted inference.
//!
//! What it does not do: rewriting for encryption (crate `plan`) and training (crate `train`).
#![forbid(unsafe_code)]

pub mod builders;
pub mod exec;
pub mod onnx;
pub mod weights;
pub mod window;

mod friendly;
mod graph;
mod op;
mod shape;
mod shape_error;
mod tensor;

pub use friendly::NotFriendly;
pub use graph::{BatchNorm, Conv, Graph, Hw, Linear, Node, NodeId, Op, Pads, Pool, Quadratic};
pub use op::FIXED_KEY;
pub use shape_error::{MAX_VALUES, ShapeError};
pub use tensor::{Tensor, TensorSizeError};
