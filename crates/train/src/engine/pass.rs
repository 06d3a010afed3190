//! A pass of a batch through the graph, and back.

use polyveil_net::{Graph, Hw, NodeId, Op};

use super::activation::{quadratic, quadratic_backward, relu, relu_backward};
use super::conv::{Sinks, conv, conv_backward, linear, linear_backward};
use super::features::Features;
use super::norm::{Statistics, batch_norm, batch_norm_backward};
use super::value::{Buffer, Value};
use super::wide::update;
use super::{ForwardOptions, ParameterId, pool};

/// A graph with what every pass needs to know of it.
pub(super) struct Network<'a> {
    pub(super) graph: &'a Graph,
    /// Channels and size of every node's value.
    pub(super) shapes: Vec<(usize, Hw)>,
    /// Index of the last node that reads a value.
    pub(super) last_use: Vec<NodeId>,
}

impl<'a> Network<'a> {
    /// For images of a shape. None when the graph is not well formed: callers check it before the first pass.
    pub(super) fn new(graph: &'a Graph, shape: &[usize]) -> Option<Self> {
        // A network of a single axis takes images as they come, flat.
        let same = graph.input_shape().len() == shape.len();
        let shapes = if same { graph.infer_shapes_for(shape) } else { graph.infer_shapes() }.ok()?;
        let shapes = shapes.iter().map(|shape| match shape[..] {
            [channels] => Some((channels, [1, 1])),
            [channels, h, w] => Some((channels, [h, w])),
            _ => None,
        });
        let mut last_use: Vec<NodeId> = (0..graph.nodes.len()).collect();
        for (index, node) in graph.nodes.iter().enumerate() {
            node.inputs.iter().for_each(|&i| last_use[i] = index);
        }
        *last_use.get_mut(graph.output)? = graph.nodes.len();
        Some(Self { graph, shapes: shapes.collect::<Option<_>>()?, last_use })
    }

    /// Numbers that one image's values take.
    pub(super) fn values_per_image(&self) -> usize {
        self.shapes.iter().map(|(c, [h, w])| c * h * w).sum()
    }

    /// Images (flat) as the value of the input node.
    pub(super) fn input(&self, images: &[f32]) -> Option<Value> {
        let &(channels, size) = self.shapes.first()?;
        let per_image = channels * size[0] * size[1];
        Some(Value { count: images.len() / per_image.max(1), channels, size, data: images.into() })
    }

    /// Scores, sample by sample.
    pub(super) fn classes(&self) -> usize {
        let (channels, [h, w]) = self.shapes[self.graph.output];
        channels * h * w
    }
}

/// What a pass leaves behind.
pub(super) struct Tape {
    /// Value of every node; none where it was let go.
    values: Vec<Option<Value>>,
    /// Statistics of batch norms that used those of the batch.
    pub(super) statistics: Vec<(NodeId, Statistics)>,
    /// `Σ relu(|x| − B)²` over all inputs of quadratics, in square units, by image; empty where nothing is penalised.
    pub(super) penalty: Vec<f32>,
}

impl Tape {
    /// The value of a node.
    pub(super) fn value(&self, node: NodeId) -> Option<&Value> {
        self.values.get(node)?.as_ref()
    }
}

/// Runs `input` through the network. Values are kept only where `keep` says so of their node: going back needs all
/// of them.
pub(super) fn forward(
    network: &Network<'_>,
    input: Value,
    options: &ForwardOptions,
    keep: impl Fn(NodeId) -> bool,
) -> Option<Tape> {
    let graph = network.graph;
    let mut tape =
        Tape { values: Vec::with_capacity(graph.nodes.len()), statistics: Vec::new(), penalty: Vec::new() };
    let mut input = Some(input);
    for (index, node) in graph.nodes.iter().enumerate() {
        let out = network.shapes[index];
        let value = match &node.op {
            Op::Input { .. } => input.take()?,
            op => {
                let inputs: Vec<&Value> =
                    node.inputs.iter().map(|&i| tape.value(i)).collect::<Option<_>>()?;
                let (value, effect) = apply(index, op, &inputs, out, options)?;
                match effect {
                    Effect::None => {}
                    Effect::Penalty(penalty) => {
                        tape.penalty.resize(penalty.len(), 0.0);
                        tape.penalty.iter_mut().zip(penalty).for_each(|(sum, p)| *sum += p);
                    }
                    Effect::Statistics(statistics) => tape.statistics.push((index, statistics)),
                }
                value
            }
        };
        tape.values.push(Some(value));
        for &i in &node.inputs {
            if network.last_use[i] == index && !keep(i) {
                tape.values[i] = None;
            }
        }
    }
    Some(tape)
}

/// The value of one node for those of its inputs.
pub(super) fn evaluate(
    node: NodeId,
    op: &Op,
    inputs: &[&Value],
    out: (usize, Hw),
    options: &ForwardOptions,
) -> Option<Value> {
    Some(apply(node, op, inputs, out, options)?.0)
}

/// What applying an operator yields beside its value.
enum Effect {
    None,
    Penalty(Vec<f32>),
    Statistics(Statistics),
}

fn apply(
    node: NodeId,
    op: &Op,
    inputs: &[&Value],
    (channels, size): (usize, Hw),
    options: &ForwardOptions,
) -> Option<(Value, Effect)> {
    let &x = inputs.first()?;
    let value = match op {
        Op::Input { .. } => return None,
        Op::Conv(c) => conv(c, x, size),
        Op::Linear(l) => linear(l, x),
        Op::BatchNorm(norm) if options.batch_statistics => {
            let statistics = Statistics::of(x);
            return Some((batch_norm(norm, &statistics, x), Effect::Statistics(statistics)));
        }
        Op::BatchNorm(norm) => batch_norm(norm, &Statistics::frozen(norm), x),
        Op::AvgPool(p) => pool::avg_pool(p, x, size),
        Op::MaxPool(p) => pool::max_pool(p, x, size),
        Op::GlobalAvgPool => pool::global_avg_pool(x),
        Op::Relu => relu(x),
        Op::Quadratic(q) => {
            let course = options.course(node);
            if course.share <= 0.0 && course.bound.is_infinite() && course.clamp.is_infinite() {
                return Some((relu(x), Effect::None));
            }
            let (value, penalty) = quadratic(q, course, x);
            return Some((value, Effect::Penalty(penalty)));
        }
        Op::Flatten => Value { channels, size, ..x.clone() },
        Op::Add => {
            let mut y = x.clone();
            update(&mut y.data, &inputs.get(1)?.data, |y, v| y + v);
            y
        }
        Op::Concat => {
            let mut y = Value::unset(x.count, channels, size);
            let mut at = 0;
            for image in 0..x.count {
                for part in inputs {
                    let len = part.image();
                    y.data[at..at + len].copy_from_slice(&part.data[image * len..(image + 1) * len]);
                    at += len;
                }
            }
            y
        }
    };
    Some((value, Effect::None))
}

/// Which parameters are trained, and where each one's gradient lies.
pub(super) struct Trained {
    /// By node and slot.
    index: Vec<Vec<Option<usize>>>,
    /// Nodes whose value depends on a trained parameter.
    depends: Vec<bool>,
}

impl Trained {
    pub(super) fn new(graph: &Graph, trainable: &[ParameterId]) -> Self {
        let mut index: Vec<Vec<Option<usize>>> =
            graph.nodes.iter().map(|n| vec![None; n.op.weights().len()]).collect();
        for (position, id) in trainable.iter().enumerate() {
            if let Some(slot) = index.get_mut(id.node).and_then(|slots| slots.get_mut(id.slot)) {
                *slot = Some(position);
            }
        }
        let mut depends: Vec<bool> = Vec::with_capacity(graph.nodes.len());
        for (node, slots) in graph.nodes.iter().zip(&index) {
            let through = node.inputs.iter().any(|&i| depends.get(i).copied().unwrap_or(false));
            depends.push(through || slots.iter().any(Option::is_some));
        }
        Self { index, depends }
    }

    /// The gradients of the first `K` parameters of a node, to be added to.
    fn sinks<'g, const K: usize>(
        &self,
        node: NodeId,
        gradients: &'g mut [Buffer],
    ) -> [Option<&'g mut [f32]>; K] {
        let wanted: [Option<usize>; K] =
            std::array::from_fn(|slot| self.index[node].get(slot).copied().flatten());
        let mut sinks = [const { None }; K];
        for (position, gradient) in gradients.iter_mut().enumerate() {
            if let Some(slot) = wanted.iter().position(|w| *w == Some(position)) {
                sinks[slot] = Some(&mut gradient[..]);
            }
        }
        sinks
    }
}

/// Terms of the loss that act inside the network.
pub(super) struct Pull<'a> {
    /// Factor of the range penalty, by image.
    pub(super) penalty: &'a [f32],
    /// Values of the reference network and which of them are matched.
    pub(super) features: Option<(&'a Tape, Features<'a>)>,
    /// What an image counts for in the step.
    pub(super) shares: &'a [f32],
}

/// Walks back from the gradient of the scores and adds to `gradients` those of the trained parameters.
pub(super) fn backward(
    network: &Network<'_>,
    mut tape: Tape,
    scores: Value,
    options: &ForwardOptions,
    pull: &Pull<'_>,
    trained: &Trained,
    gradients: &mut [Buffer],
) -> Option<()> {
    let graph = network.graph;
    let mut grads: Vec<Option<Value>> = (0..graph.nodes.len()).map(|_| None).collect();
    let (channels, size) = network.shapes[graph.output];
    grads[graph.output] = Some(Value { channels, size, ..scores });
    for (index, node) in graph.nodes.iter().enumerate().rev() {
        // A value's readers have all been walked past by now, and its own node needs its inputs only.
        let value = tape.values[index].take();
        // What follows no node that leads to the scores has no gradient, yet a penalty may act there; such
        // a branch is not reachable in a checked graph.
        let Some(mut grad) = grads[index].take() else { continue };
        if !trained.depends[index] {
            continue;
        }
        if let (Some((targets, features)), Some(value)) = (pull.features, &value) {
            features.pull(index, value, targets, pull.shares, &mut grad)?;
        }
        let Some(&first) = node.inputs.first() else { continue };
        let x = tape.value(first)?;
        let wanted = trained.depends[first];
        let dx = match &node.op {
            Op::Input { .. } => None,
            Op::Conv(c) => {
                let [weight, bias] = trained.sinks(index, gradients);
                conv_backward(c, x, &grad, Sinks { weight, bias }, wanted)
            }
            Op::Linear(l) => {
                let [weight, bias] = trained.sinks(index, gradients);
                linear_backward(l, x, &grad, Sinks { weight, bias }, wanted)
            }
            Op::BatchNorm(norm) => {
                let own = tape.statistics.iter().find(|(n, _)| *n == index).map(|(_, s)| s);
                let frozen = Statistics::frozen(norm);
                let sinks = trained.sinks(index, gradients);
                Some(batch_norm_backward(norm, own.unwrap_or(&frozen), own.is_some(), x, &grad, sinks))
            }
            Op::AvgPool(p) => Some(pool::avg_pool_backward(p, x, &grad)),
            Op::MaxPool(p) => Some(pool::max_pool_backward(p, x, &grad)),
            Op::GlobalAvgPool => Some(pool::global_avg_pool_backward(x, &grad)),
            Op::Relu => Some(relu_backward(x, &grad)),
            Op::Quadratic(q) => {
                let sinks = trained.sinks(index, gradients);
                Some(quadratic_backward(q, options.course(index), pull.penalty, x, &grad, sinks))
            }
            Op::Flatten => Some(Value { channels: x.channels, size: x.size, ..grad }),
            Op::Add => {
                let &second = node.inputs.get(1)?;
                if trained.depends[second] {
                    accumulate(&mut grads[second], grad.clone());
                }
                Some(grad)
            }
            Op::Concat => {
                split(&grad, node, &tape, trained, &mut grads)?;
                None
            }
        };
        if let (Some(dx), true) = (dx, wanted) {
            accumulate(&mut grads[first], dx);
        }
    }
    Some(())
}

/// Gives every part of a concatenation its share of the gradient.
fn split(
    grad: &Value,
    node: &polyveil_net::Node,
    tape: &Tape,
    trained: &Trained,
    grads: &mut [Option<Value>],
) -> Option<()> {
    let mut offset = 0;
    for &input in &node.inputs {
        let part = tape.value(input)?;
        let len = part.image();
        if trained.depends[input] {
            let mut share = part.like();
            for (share, whole) in share.data.chunks_mut(len).zip(grad.data.chunks(grad.image())) {
                share.copy_from_slice(&whole[offset..offset + len]);
            }
            accumulate(&mut grads[input], share);
        }
        offset += len;
    }
    Some(())
}

fn accumulate(slot: &mut Option<Value>, grad: Value) {
    match slot {
        None => *slot = Some(grad),
        Some(sum) => update(&mut sum.data, &grad.data, |s, g| s + g),
    }
}
