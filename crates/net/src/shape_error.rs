//! What can be wrong with a graph.

use crate::{Hw, NodeId};

/// Most elements that one value (of one sample) may hold: 2^28, a gibibyte of `f32`.
pub const MAX_VALUES: usize = 1 << 28;

/// Why a graph is not a network.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
pub enum ShapeError {
    /// No nodes, or the first is not the input.
    #[error("the first node must be the input")]
    NoInput,
    /// An input node that is not the first.
    #[error("node `{node}` is a second input; a network has one")]
    SecondInput {
        /// Name of the node.
        node: String,
    },
    /// A node without a name.
    #[error("node {index} has no name")]
    Unnamed {
        /// Its index.
        index: NodeId,
    },
    /// Two nodes of one name.
    #[error("the name `{node}` is used by nodes {first} and {second}")]
    DuplicateName {
        /// The name.
        node: String,
        /// Index of the first node.
        first: NodeId,
        /// Index of the second node.
        second: NodeId,
    },
    /// Too few or too many inputs.
    #[error("node `{node}` ({op}) takes {expected} inputs, found {found}")]
    InputCount {
        /// Name of the node.
        node: String,
        /// Its operator.
        op: &'static str,
        /// How many it takes.
        expected: &'static str,
        /// How many it has.
        found: usize,
    },
    /// A node reads a value that no earlier node yields.
    #[error("node `{node}` (index {index}) reads value {input}, which no earlier node yields")]
    Order {
        /// Name of the node.
        node: String,
        /// Its index.
        index: NodeId,
        /// What it reads.
        input: NodeId,
    },
    /// The output is not a node.
    #[error("the output is node {output}, but there are {nodes} nodes")]
    Output {
        /// The output's index.
        output: NodeId,
        /// Number of nodes.
        nodes: usize,
    },
    /// A value of the wrong rank.
    #[error("node `{node}` ({op}) takes {expected}, found shape {found:?}")]
    Rank {
        /// Name of the node.
        node: String,
        /// Its operator.
        op: &'static str,
        /// The form it takes.
        expected: &'static str,
        /// The shape it was given.
        found: Vec<usize>,
    },
    /// Two shapes that must agree and do not.
    #[error("node `{node}` ({op}): {what} should have shape {expected:?}, found {found:?}")]
    Mismatch {
        /// Name of the node.
        node: String,
        /// Its operator.
        op: &'static str,
        /// The weight or input concerned.
        what: String,
        /// The shape that fits.
        expected: Vec<usize>,
        /// The shape found.
        found: Vec<usize>,
    },
    /// Channels that do not divide into groups.
    #[error(
        "node `{node}` (Conv): {groups} groups do not divide {inputs} input and {outputs} output channels"
    )]
    Groups {
        /// Name of the node.
        node: String,
        /// Groups asked for.
        groups: usize,
        /// Channels in.
        inputs: usize,
        /// Channels out.
        outputs: usize,
    },
    /// A window, step or dilation of zero.
    #[error("node `{node}` ({op}): {what} must be at least 1, found {found:?}")]
    Zero {
        /// Name of the node.
        node: String,
        /// Its operator.
        op: &'static str,
        /// Which attribute.
        what: &'static str,
        /// Its value.
        found: Hw,
    },
    /// The window does not fit in the padded input.
    #[error("node `{node}` ({op}): a window of {window} does not fit in {padded} padded positions")]
    EmptyOutput {
        /// Name of the node.
        node: String,
        /// Its operator.
        op: &'static str,
        /// Extent of the window, dilation included.
        window: usize,
        /// Extent of the padded input.
        padded: usize,
    },
    /// Padding that lets a pooling window see nothing but padding.
    #[error("node `{node}` ({op}): padding {pads:?} must be less than the window {kernel:?}")]
    PoolPads {
        /// Name of the node.
        node: String,
        /// Its operator.
        op: &'static str,
        /// The padding.
        pads: [usize; 4],
        /// The window.
        kernel: Hw,
    },
    /// A value beyond [`MAX_VALUES`].
    #[error("node `{node}` ({op}) would yield shape {shape:?}, more than {MAX_VALUES} elements")]
    TooLarge {
        /// Name of the node.
        node: String,
        /// Its operator.
        op: &'static str,
        /// The shape.
        shape: Vec<usize>,
    },
    /// A weight that is NaN or infinite.
    #[error("node `{node}` ({op}): `{weight}` holds {value} at position {position}; weights must be finite")]
    NonFiniteWeight {
        /// Name of the node.
        node: String,
        /// Its operator.
        op: &'static str,
        /// Name of the weight.
        weight: &'static str,
        /// Flat index of the value.
        position: usize,
        /// The value.
        value: f32,
    },
    /// A batch normalisation that would divide by zero or take the root of a negative number.
    #[error("node `{node}` (BatchNorm): variance + eps must be positive, found {value} in channel {channel}")]
    Variance {
        /// Name of the node.
        node: String,
        /// The channel.
        channel: usize,
        /// `var + eps` there.
        value: f32,
    },
}
