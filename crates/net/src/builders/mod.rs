//! Graphs made in code, with He-initialised weights from a seeded generator.
//!
//! [`ARCHITECTURES`] lists the networks that have a name, [`by_name`] builds one. Inputs are `[C, H, W]`.

mod classic;
mod resnet;

pub use classic::{alexnet, lenet5_relu, squeezenet1_1, squeezenet1_1_linear, vgg11, vgg16};
pub use resnet::{resnet18, resnet20, resnet32};

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use crate::{
    BatchNorm, Conv, Graph, Hw, Linear, Node, NodeId, Op, Pads, Pool, Quadratic, ShapeError, Tensor,
};

/// Names that [`by_name`] knows.
pub const ARCHITECTURES: [&str; 11] = [
    "lenet5",
    "alexnet",
    "squeezenet1_1",
    "squeezenet1_1_linear",
    "vgg11",
    "vgg11_bn",
    "vgg16",
    "vgg16_bn",
    "resnet18",
    "resnet20",
    "resnet32",
];

/// The ReLU network of this name for images of shape `input` (`[C, H, W]`); none where the name is not
/// in [`ARCHITECTURES`].
///
/// # Errors
/// When `input` is too small for the network, or `classes` is 0.
#[must_use]
pub fn by_name(name: &str, input: &[usize], classes: usize, seed: u64) -> Option<Result<Graph, ShapeError>> {
    Some(match name {
        "lenet5" => lenet5_relu(input, classes, seed),
        "alexnet" => alexnet(input, classes, seed),
        "squeezenet1_1" => squeezenet1_1(input, classes, seed),
        "squeezenet1_1_linear" => squeezenet1_1_linear(input, classes, seed),
        "vgg11" => vgg11(input, classes, false, seed),
        "vgg11_bn" => vgg11(input, classes, true, seed),
        "vgg16" => vgg16(input, classes, false, seed),
        "vgg16_bn" => vgg16(input, classes, true, seed),
        "resnet18" => resnet18(input, classes, seed),
        "resnet20" => resnet20(input, classes, seed),
        "resnet32" => resnet32(input, classes, seed),
        _ => return None,
    })
}

/// Geometry of a convolution to build.
#[derive(Clone, Copy, Debug)]
pub struct ConvSpec {
    kernel: Hw,
    stride: Hw,
    pads: Pads,
    dilation: Hw,
    groups: usize,
    bias: bool,
}

impl ConvSpec {
    /// A square kernel; stride 1, no padding, one group, with bias.
    #[must_use]
    pub fn new(kernel: usize) -> Self {
        Self::rect([kernel; 2])
    }

    /// A kernel of `[rows, columns]`.
    #[must_use]
    pub fn rect(kernel: Hw) -> Self {
        Self { kernel, stride: [1; 2], pads: [0; 4], dilation: [1; 2], groups: 1, bias: true }
    }

    /// The same step in both directions.
    #[must_use]
    pub fn stride(self, stride: usize) -> Self {
        Self { stride: [stride; 2], ..self }
    }

    /// The same zero padding on all four sides.
    #[must_use]
    pub fn pad(self, pad: usize) -> Self {
        Self { pads: [pad; 4], ..self }
    }

    /// Padding top, left, bottom, right.
    #[must_use]
    pub fn pads(self, pads: Pads) -> Self {
        Self { pads, ..self }
    }

    /// The same step between taps in both directions.
    #[must_use]
    pub fn dilation(self, dilation: usize) -> Self {
        Self { dilation: [dilation; 2], ..self }
    }

    /// Channel groups.
    #[must_use]
    pub fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// Without bias, as before a batch normalisation.
    #[must_use]
    pub fn no_bias(self) -> Self {
        Self { bias: false, ..self }
    }
}

/// Geometry of a pooling window to build.
#[derive(Clone, Copy, Debug)]
pub struct PoolSpec {
    kernel: Hw,
    stride: Hw,
    pads: Pads,
    ceil_mode: bool,
    count_include_pad: bool,
}

impl PoolSpec {
    /// A square window that steps by its own size; no padding, floor mode, padding counted.
    #[must_use]
    pub fn new(kernel: usize) -> Self {
        Self {
            kernel: [kernel; 2],
            stride: [kernel; 2],
            pads: [0; 4],
            ceil_mode: false,
            count_include_pad: true,
        }
    }

    /// A window of `[rows, columns]` with these steps.
    #[must_use]
    pub fn rect(kernel: Hw, stride: Hw) -> Self {
        Self { kernel, stride, ..Self::new(1) }
    }

    /// The same step in both directions.
    #[must_use]
    pub fn stride(self, stride: usize) -> Self {
        Self { stride: [stride; 2], ..self }
    }

    /// The same padding on all four sides.
    #[must_use]
    pub fn pad(self, pad: usize) -> Self {
        Self { pads: [pad; 4], ..self }
    }

    /// Round the output size up.
    #[must_use]
    pub fn ceil(self) -> Self {
        Self { ceil_mode: true, ..self }
    }

    /// Average over real positions only.
    #[must_use]
    pub fn exclude_pad(self) -> Self {
        Self { count_include_pad: false, ..self }
    }

    fn build(self) -> Pool {
        Pool {
            kernel: self.kernel,
            stride: self.stride,
            pads: self.pads,
            ceil_mode: self.ceil_mode,
            count_include_pad: self.count_include_pad,
        }
    }
}

/// Builds a graph node by node. Each method takes the values that the node reads and returns its
/// own; sizes of weights follow from the shapes so far. The first fault is kept and returned by
/// [`GraphBuilder::finish`], so chains need no `?`.
#[derive(Debug)]
pub struct GraphBuilder {
    graph: Graph,
    shapes: Vec<Vec<usize>>,
    rng: ChaCha8Rng,
    fault: Option<ShapeError>,
}

impl GraphBuilder {
    /// A graph of one input node, `input`, of this shape (`[C, H, W]` or `[F]`).
    #[must_use]
    pub fn new(name: &str, input: &[usize], seed: u64) -> Self {
        let graph =
            Graph { name: name.to_owned(), nodes: Vec::new(), output: 0, metadata: Default::default() };
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let mut builder = Self { graph, shapes: Vec::new(), rng, fault: None };
        builder.push("input", Op::Input { shape: input.to_vec() }, vec![]);
        builder
    }

    /// The input's value.
    #[must_use]
    pub fn input(&self) -> NodeId {
        0
    }

    /// The shape of a value; empty after a fault.
    #[must_use]
    pub fn shape(&self, value: NodeId) -> &[usize] {
        self.shapes.get(value).map_or(&[], Vec::as_slice)
    }

    /// Any operator with the weights given.
    pub fn push(&mut self, name: &str, op: Op, inputs: Vec<NodeId>) -> NodeId {
        let node = Node { name: name.to_owned(), op, inputs };
        self.graph.nodes.push(node);
        if self.fault.is_none() {
            match self.graph.infer_shapes() {
                Ok(shapes) => self.shapes = shapes,
                Err(fault) => self.fault = Some(fault),
            }
        }
        self.graph.nodes.len() - 1
    }

    /// Any operator whose weights are part of the network's structure (see [`Graph::is_fixed`]).
    pub fn push_fixed(&mut self, name: &str, op: Op, inputs: Vec<NodeId>) -> NodeId {
        self.graph.fix(name);
        self.push(name, op, inputs)
    }

    /// A convolution to `out` channels.
    pub fn conv(&mut self, name: &str, from: NodeId, out: usize, spec: ConvSpec) -> NodeId {
        let channels = self.shape(from).first().copied().unwrap_or(1);
        let per_group = channels / spec.groups.max(1);
        let fan_in = per_group * spec.kernel[0] * spec.kernel[1];
        let weight = self.he(vec![out, per_group, spec.kernel[0], spec.kernel[1]], fan_in);
        let ConvSpec { stride, pads, dilation, groups, .. } = spec;
        let bias = spec.bias.then(|| Tensor::full(vec![out], 0.0));
        self.push(name, Op::Conv(Conv { weight, bias, stride, pads, dilation, groups }), vec![from])
    }

    /// A fully connected layer to `out` features.
    pub fn linear(&mut self, name: &str, from: NodeId, out: usize) -> NodeId {
        let inputs = self.shape(from).first().copied().unwrap_or(1);
        let weight = self.he(vec![out, inputs], inputs);
        let bias = Some(Tensor::full(vec![out], 0.0));
        self.push(name, Op::Linear(Linear { weight, bias }), vec![from])
    }

    /// A batch normalisation that does nothing yet: scale 1, shift 0, mean 0, variance 1.
    pub fn batch_norm(&mut self, name: &str, from: NodeId) -> NodeId {
        let channels = self.shape(from).first().copied().unwrap_or(1);
        let filled = |v| Tensor::full(vec![channels], v);
        let (gamma, beta, mean, var) = (filled(1.0), filled(0.0), filled(0.0), filled(1.0));
        self.push(name, Op::BatchNorm(BatchNorm { gamma, beta, mean, var, eps: 1e-5 }), vec![from])
    }

    /// `max(x, 0)`.
    pub fn relu(&mut self, name: &str, from: NodeId) -> NodeId {
        self.push(name, Op::Relu, vec![from])
    }

    /// `a·x² + b·x + c` with one set of coefficients for the layer.
    pub fn quadratic(&mut self, name: &str, from: NodeId, [a, b, c]: [f32; 3]) -> NodeId {
        let one = |v| Tensor::full(vec![1], v);
        self.push(name, Op::Quadratic(Quadratic { a: one(a), b: one(b), c: one(c) }), vec![from])
    }

    /// Average pooling.
    pub fn avg_pool(&mut self, name: &str, from: NodeId, spec: PoolSpec) -> NodeId {
        self.push(name, Op::AvgPool(spec.build()), vec![from])
    }

    /// Maximum pooling.
    pub fn max_pool(&mut self, name: &str, from: NodeId, spec: PoolSpec) -> NodeId {
        self.push(name, Op::MaxPool(spec.build()), vec![from])
    }

    /// Mean over all positions.
    pub fn global_avg_pool(&mut self, name: &str, from: NodeId) -> NodeId {
        self.push(name, Op::GlobalAvgPool, vec![from])
    }

    /// To a vector.
    pub fn flatten(&mut self, name: &str, from: NodeId) -> NodeId {
        self.push(name, Op::Flatten, vec![from])
    }

    /// Sum of two values.
    pub fn add(&mut self, name: &str, left: NodeId, right: NodeId) -> NodeId {
        self.push(name, Op::Add, vec![left, right])
    }

    /// Concatenation along the channels.
    pub fn concat(&mut self, name: &str, parts: &[NodeId]) -> NodeId {
        self.push(name, Op::Concat, parts.to_vec())
    }

    /// The graph with this output.
    ///
    /// # Errors
    /// The first fault of any step.
    pub fn finish(mut self, output: NodeId) -> Result<Graph, ShapeError> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        self.graph.output = output;
        self.graph.validate()?;
        Ok(self.graph)
    }

    /// Normal weights of variance `2 / fan_in` (He et al. 2015, arXiv 1502.01852, eq. 10).
    fn he(&mut self, shape: Vec<usize>, fan_in: usize) -> Tensor {
        #[expect(clippy::cast_precision_loss, reason = "a fan-in is far below 2^52")]
        let deviation = (2.0 / fan_in.max(1) as f64).sqrt();
        // A faulty size is reported by `push`; do not allocate for it.
        let size = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if self.fault.is_some() || size.is_none_or(|n| n > crate::MAX_VALUES) {
            return Tensor::full(vec![0], 0.0);
        }
        let mut tensor = Tensor::full(shape, 0.0);
        for value in tensor.data_mut() {
            #[expect(clippy::cast_possible_truncation, reason = "weights are f32")]
            let drawn = (normal(&mut self.rng) * deviation) as f32;
            *value = drawn;
        }
        tensor
    }
}

/// A standard normal value (Box and Muller 1958).
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact in f64")]
    let mut uniform = || ((rng.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    let (u, v) = (uniform(), uniform());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}
