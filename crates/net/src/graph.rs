//! The network graph: one type for teacher, student, imported and exported networks.
//!
//! A graph is a list of nodes in topological order; each node yields one value, named by its
//! index. Node 0 is the input. Shapes are those of *one sample*, without the batch axis:
//! `[C, H, W]` for images and feature maps, `[F]` for vectors.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Tensor;

/// Index of the node that yields a value.
pub type NodeId = usize;

/// A feed-forward network with one input and one output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Graph {
    /// Name of the network.
    pub name: String,
    /// Nodes in topological order; node 0 is [`Op::Input`] and no other is.
    pub nodes: Vec<Node>,
    /// The node whose value is the network's result (logits).
    pub output: NodeId,
    /// What the model file carries beside the network: pre-processing, class names, activation
    /// ranges, provenance. Keys start with `polyveil.`; values are text or JSON.
    pub metadata: BTreeMap<String, String>,
}

/// One operator application.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Unique within the graph; torchvision-like where a builder made it (`features.0`).
    pub name: String,
    /// What is computed.
    pub op: Op,
    /// Values it reads, each of a smaller index.
    pub inputs: Vec<NodeId>,
}

/// An operator with its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// The network's input, of this shape (one sample).
    Input {
        /// `[C, H, W]` or `[F]`.
        shape: Vec<usize>,
    },
    /// 2-D convolution (cross-correlation, as in ONNX).
    Conv(Conv),
    /// Fully connected: `y = W x + b` on a vector.
    Linear(Linear),
    /// Batch normalisation in inference form, per channel.
    BatchNorm(BatchNorm),
    /// Average pooling over a window.
    AvgPool(Pool),
    /// Maximum pooling over a window (not HE-friendly).
    MaxPool(Pool),
    /// Mean over all positions: `[C, H, W]` to `[C, 1, 1]`.
    GlobalAvgPool,
    /// `max(x, 0)` (not HE-friendly).
    Relu,
    /// `a·x² + b·x + c`, per layer or per channel.
    Quadratic(Quadratic),
    /// `[C, H, W]` to `[C·H·W]`.
    Flatten,
    /// Elementwise sum of two values of equal shape.
    Add,
    /// Concatenation along the channel axis (axis 0 of a sample).
    Concat,
}

/// Two-dimensional extent or step: rows, then columns.
pub type Hw = [usize; 2];

/// Padding in ONNX order: top, left, bottom, right.
pub type Pads = [usize; 4];

/// Weights and geometry of a convolution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conv {
    /// `[out, in / groups, kh, kw]`.
    pub weight: Tensor,
    /// `[out]`.
    pub bias: Option<Tensor>,
    /// Step between output positions.
    pub stride: Hw,
    /// Zero padding.
    pub pads: Pads,
    /// Step between taps.
    pub dilation: Hw,
    /// Channel groups.
    pub groups: usize,
}

/// Weights of a fully connected layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Tensor,
    /// `[out]`.
    pub bias: Option<Tensor>,
}

/// Frozen batch normalisation: `gamma·(x − mean)/√(var + eps) + beta`, each `[C]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BatchNorm {
    /// Scale.
    pub gamma: Tensor,
    /// Shift.
    pub beta: Tensor,
    /// Running mean.
    pub mean: Tensor,
    /// Running variance.
    pub var: Tensor,
    /// Added to the variance.
    pub eps: f32,
}

/// Geometry of a pooling window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Window.
    pub kernel: Hw,
    /// Step.
    pub stride: Hw,
    /// Padding (zeros for average, −∞ for maximum).
    pub pads: Pads,
    /// Round the output size up, so that the last window may hang over.
    pub ceil_mode: bool,
    /// Average only: divide by the whole window (including `pads`) also at borders. Positions that
    /// hang over beyond the padding because of `ceil_mode` are never counted.
    pub count_include_pad: bool,
}

/// Coefficients of `a·x² + b·x + c`, each `[1]` (per layer) or `[C]` (per channel).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quadratic {
    /// Of `x²`.
    pub a: Tensor,
    /// Of `x`.
    pub b: Tensor,
    /// Constant.
    pub c: Tensor,
}
