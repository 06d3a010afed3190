//! The pass through the graph with tensors that know their gradients.

use burn_tensor::ops::ConvOptions;
use burn_tensor::ops::{AvgPoolOptions, MaxPoolOptions};
use burn_tensor::{Device, Tensor, activation, module};
use polyveil_net::{BatchNorm, Conv, Graph, Linear, NodeId, Op, Pads, Pool, Quadratic};

use super::super::activation::Course;
use super::super::{ForwardOptions, ParameterId, parameter};
use super::{Batch, tensor};

/// Parameters as tensors of one device, by node and slot.
pub(super) struct Leaves {
    by_node: Vec<Vec<Option<Leaf>>>,
}

/// One parameter tensor.
enum Leaf {
    Vector(Tensor<1>),
    Matrix(Tensor<2>),
    Kernel(Tensor<4>),
}

impl Leaves {
    /// All weights as constants, those in `trainable` as sources of gradients.
    pub(super) fn new(graph: &Graph, trainable: &[ParameterId], device: &Device) -> Self {
        let by_node = graph
            .nodes
            .iter()
            .enumerate()
            .map(|(node, n)| {
                let leaf = |(slot, (_, t)): (usize, &(&str, &polyveil_net::Tensor))| {
                    let track = trainable.iter().any(|id| id.node == node && id.slot == slot);
                    Leaf::new(t, track, device)
                };
                n.op.weights().iter().enumerate().map(leaf).collect()
            })
            .collect();
        Self { by_node }
    }

    /// The gradient of one parameter; zeros where the loss does not depend on it.
    pub(super) fn gradient(
        &self,
        graph: &Graph,
        id: ParameterId,
        gradients: &burn_tensor::Gradients,
    ) -> Vec<f32> {
        let leaf = self.by_node.get(id.node).and_then(|slots| slots.get(id.slot)).and_then(Option::as_ref);
        let found = match leaf {
            Some(Leaf::Vector(t)) => t.grad(gradients).map(super::host),
            Some(Leaf::Matrix(t)) => t.grad(gradients).map(super::host),
            Some(Leaf::Kernel(t)) => t.grad(gradients).map(super::host),
            None => None,
        };
        found.unwrap_or_else(|| vec![0.0; parameter(graph, id).map_or(0, polyveil_net::Tensor::len)])
    }

    fn vector(&self, node: NodeId, slot: usize) -> Option<Tensor<1>> {
        match self.by_node.get(node)?.get(slot)? {
            Some(Leaf::Vector(t)) => Some(t.clone()),
            _ => None,
        }
    }

    fn matrix(&self, node: NodeId) -> Option<Tensor<2>> {
        match self.by_node.get(node)?.first()? {
            Some(Leaf::Matrix(t)) => Some(t.clone()),
            _ => None,
        }
    }

    fn kernel(&self, node: NodeId) -> Option<Tensor<4>> {
        match self.by_node.get(node)?.first()? {
            Some(Leaf::Kernel(t)) => Some(t.clone()),
            _ => None,
        }
    }
}

impl Leaf {
    fn new(values: &polyveil_net::Tensor, track: bool, device: &Device) -> Option<Self> {
        let data = values.data().to_vec();
        Some(match *values.shape() {
            [n] => Self::Vector(marked(tensor(data, [n], device), track)),
            [o, i] => Self::Matrix(marked(tensor(data, [o, i], device), track)),
            [o, i, h, w] => Self::Kernel(marked(tensor(data, [o, i, h, w], device), track)),
            _ => return None,
        })
    }
}

fn marked<const D: usize>(tensor: Tensor<D>, track: bool) -> Tensor<D> {
    if track { tensor.require_grad() } else { tensor }
}

/// What a pass yields.
pub(super) struct Forward {
    /// `[N, classes]`.
    pub(super) logits: Tensor<2>,
    /// `Σ relu(|x| − B)²` over all elements of all quadratic inputs in units, by image.
    pub(super) penalty: Option<Tensor<1>>,
    /// Batch mean and (biased) variance of every batch norm, with the number of values behind them.
    pub(super) statistics: Vec<(NodeId, Vec<f32>, Vec<f32>)>,
}

/// Runs `input` through the graph. `observe` sees every node's index, its inputs' values and its own.
/// None when the graph is not well formed: callers check it before the first pass.
pub(super) fn forward(
    graph: &Graph,
    leaves: &Leaves,
    input: Batch,
    options: &ForwardOptions,
    observe: &mut dyn FnMut(NodeId, Option<&Batch>, &Batch),
) -> Option<Forward> {
    let mut last_use = vec![0; graph.nodes.len()];
    for (index, node) in graph.nodes.iter().enumerate() {
        for &i in &node.inputs {
            *last_use.get_mut(i)? = index;
        }
    }
    *last_use.get_mut(graph.output)? = graph.nodes.len();

    let mut pass = Pass { leaves, options, penalty: None, statistics: Vec::new() };
    let mut values: Vec<Option<Batch>> = Vec::with_capacity(graph.nodes.len());
    let mut input = Some(input);
    for (index, node) in graph.nodes.iter().enumerate() {
        let inputs: Vec<&Batch> =
            node.inputs.iter().map(|&i| values.get(i)?.as_ref()).collect::<Option<_>>()?;
        let value = match &node.op {
            Op::Input { .. } => input.take()?,
            op => pass.apply(index, op, &inputs)?,
        };
        observe(index, inputs.first().copied(), &value);
        values.push(Some(value));
        // Inference keeps no tape, so memory is freed as soon as nobody reads a value any more.
        for &i in &node.inputs {
            if last_use[i] == index {
                values[i] = None;
            }
        }
    }
    let logits = match values.get_mut(graph.output)?.take()? {
        Batch::Row(t) => t,
        Batch::Map(t) => t.flatten(1, 3),
    };
    Some(Forward { logits, penalty: pass.penalty, statistics: pass.statistics })
}

struct Pass<'a> {
    leaves: &'a Leaves,
    options: &'a ForwardOptions,
    penalty: Option<Tensor<1>>,
    statistics: Vec<(NodeId, Vec<f32>, Vec<f32>)>,
}

impl Pass<'_> {
    fn apply(&mut self, node: NodeId, op: &Op, inputs: &[&Batch]) -> Option<Batch> {
        let first = (*inputs.first()?).clone();
        Some(match (op, first) {
            (Op::Conv(conv), Batch::Map(x)) => Batch::Map(self.conv(node, conv, x)?),
            (Op::Linear(linear), Batch::Row(x)) => Batch::Row(self.linear(node, linear, x)?),
            (Op::BatchNorm(norm), Batch::Map(x)) => Batch::Map(self.batch_norm(node, norm, x)?),
            (Op::BatchNorm(norm), Batch::Row(x)) => Batch::Row(self.batch_norm(node, norm, x)?),
            (Op::AvgPool(pool), Batch::Map(x)) => Batch::Map(avg_pool(pool, x)),
            (Op::MaxPool(pool), Batch::Map(x)) => Batch::Map(max_pool(pool, x)),
            (Op::GlobalAvgPool, Batch::Map(x)) => Batch::Map(x.mean_dim(3).mean_dim(2)),
            (Op::Relu, Batch::Map(x)) => Batch::Map(activation::relu(x)),
            (Op::Relu, Batch::Row(x)) => Batch::Row(activation::relu(x)),
            (Op::Quadratic(q), Batch::Map(x)) => Batch::Map(self.quadratic(node, q, x)?),
            (Op::Quadratic(q), Batch::Row(x)) => Batch::Row(self.quadratic(node, q, x)?),
            (Op::Flatten, Batch::Map(x)) => Batch::Row(x.flatten(1, 3)),
            (Op::Flatten, row @ Batch::Row(_)) => row,
            (Op::Add, first) => match (first, (*inputs.get(1)?).clone()) {
                (Batch::Map(x), Batch::Map(y)) => Batch::Map(x + y),
                (Batch::Row(x), Batch::Row(y)) => Batch::Row(x + y),
                _ => return None,
            },
            (Op::Concat, Batch::Map(_)) => {
                let part = |v: &&Batch| if let Batch::Map(x) = v { Some(x.clone()) } else { None };
                Batch::Map(Tensor::cat(inputs.iter().map(part).collect::<Option<Vec<_>>>()?, 1))
            }
            (Op::Concat, Batch::Row(_)) => {
                let part = |v: &&Batch| if let Batch::Row(x) = v { Some(x.clone()) } else { None };
                Batch::Row(Tensor::cat(inputs.iter().map(part).collect::<Option<Vec<_>>>()?, 1))
            }
            _ => return None,
        })
    }

    fn conv(&self, node: NodeId, conv: &Conv, x: Tensor<4>) -> Option<Tensor<4>> {
        let mut options = ConvOptions::new(conv.stride, [0, 0], conv.dilation, conv.groups);
        options.padding = pairs(conv.pads);
        let bias = conv.bias.is_some().then(|| self.leaves.vector(node, 1)).flatten();
        Some(module::conv2d(x, self.leaves.kernel(node)?, bias, options))
    }

    fn linear(&self, node: NodeId, linear: &Linear, x: Tensor<2>) -> Option<Tensor<2>> {
        let product = x.matmul(self.leaves.matrix(node)?.transpose());
        if linear.bias.is_none() {
            return Some(product);
        }
        Some(product + self.leaves.vector(node, 1)?.unsqueeze_dim::<2>(0))
    }

    fn batch_norm<const D: usize>(
        &mut self,
        node: NodeId,
        norm: &BatchNorm,
        x: Tensor<D>,
    ) -> Option<Tensor<D>> {
        let [gamma, beta] = [0, 1].map(|slot| self.leaves.vector(node, slot));
        let (gamma, beta, eps) = (gamma?, beta?, f64::from(norm.eps));
        if !self.options.batch_statistics {
            let [mean, variance] = [2, 3].map(|slot| self.leaves.vector(node, slot));
            return Some(module::batch_norm(x, gamma, beta, mean?, variance?, eps));
        }
        let result = module::batch_norm_train(x, gamma, beta, eps);
        self.statistics.push((node, super::host(result.mean), super::host(result.variance)));
        Some(result.output)
    }

    fn quadratic<const D: usize>(&mut self, node: NodeId, q: &Quadratic, x: Tensor<D>) -> Option<Tensor<D>> {
        let course = self.options.course(node);
        let x = self.control_range(x, course);
        if course.share <= 0.0 {
            return Some(activation::relu(x));
        }
        let [a, b, c] = [(0, &q.a), (1, &q.b), (2, &q.c)].map(|(slot, t)| {
            let mut shape = [1; D];
            shape[1] = t.len();
            self.leaves.vector(node, slot).map(|v| v.reshape(shape))
        });
        // a·x² + b·x + c, never (w·x)²: that has no gradient at w = 0 and cannot turn negative.
        let polynomial = (x.clone() * a? + b?) * x.clone() + c?;
        if course.share >= 1.0 {
            return Some(polynomial);
        }
        Some(activation::relu(x).mul_scalar(1.0 - course.share) + polynomial.mul_scalar(course.share))
    }

    /// Penalises and clamps.
    fn control_range<const D: usize>(&mut self, x: Tensor<D>, course: Course) -> Tensor<D> {
        if course.bound.is_finite() {
            let excess = (x.clone() - x.clone().clamp(-course.bound, course.bound)).div_scalar(course.unit);
            let sum = by_image(excess.clone() * excess);
            self.penalty = Some(match self.penalty.take() {
                Some(other) => other + sum,
                None => sum,
            });
        }
        if course.clamp.is_finite() { x.clamp(-course.clamp, course.clamp) } else { x }
    }
}

/// Sums over all but the first axis.
pub(super) fn by_image<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let images = x.dims()[0];
    x.reshape([images as i64, -1]).sum_dim(1).reshape([images as i64])
}

fn pairs([top, left, bottom, right]: Pads) -> [(usize, usize); 2] {
    [(top, bottom), (left, right)]
}

fn avg_pool(pool: &Pool, x: Tensor<4>) -> Tensor<4> {
    let options = AvgPoolOptions::new(pool.kernel)
        .with_stride(pool.stride)
        .with_padding_pairs(pairs(pool.pads))
        .with_count_include_pad(pool.count_include_pad)
        .with_ceil_mode(pool.ceil_mode);
    module::avg_pool2d(x, options)
}

fn max_pool(pool: &Pool, x: Tensor<4>) -> Tensor<4> {
    let options = MaxPoolOptions::new(pool.kernel)
        .with_stride(pool.stride)
        .with_padding_pairs(pairs(pool.pads))
        .with_ceil_mode(pool.ceil_mode);
    module::max_pool2d(x, options)
}
