//! Weights in closed form: node by node, front to back, those of a network are fitted so that its values come nearest
//! to those that a reference network of the same structure has for the same images.
//!
//! Every node is fitted on what the nodes before it, already fitted, really yield, so that errors do not add up: a layer
//! makes good what it can of those before (as reconstruction does in the pruning of channels: He, Zhang, Sun, arXiv
//! 1707.06168, section 3). Convolutions and fully connected layers are ridge regressions around their present weights,
//! `ΔW = R·Xᵀ·(X·Xᵀ + λ·s·I)⁻¹` for the residual `R` and the windows `X`, `s` their mean square ([`super::ridge`]); batch norms get a
//! scale and an offset a channel; quadratics are left to the caller, who is given the moments.

use polyveil_net::{BatchNorm, Conv, Graph, Linear, NodeId, Op, Quadratic, Tensor};
use rayon::prelude::*;

use super::ForwardOptions;
use super::conv::{Sinks, conv, conv_backward};
use super::observe::{ChannelStats, LayerStats};
use super::pass::{Network, evaluate};
use super::ridge::{self, System};
use super::value::Value;

/// Normal equations of more unknowns than this are not solved: they would take minutes.
const MAX_TAPS: usize = 4608;
/// Images that go through a node together.
const AT_ONCE: usize = 4;

/// Coefficients for a node, from the moments of its input `x` and its target `t` (in the place of ReLU).
pub(crate) type Coefficients<'a> = dyn Fn(NodeId, &LayerStats) -> Quadratic + 'a;

/// Fits the weights of `graph`, run with `options`, to the values of `reference`. None when the two do not have the same structure.
pub(crate) fn refit(
    graph: &mut Graph,
    reference: &Graph,
    images: &[f32],
    shape: [usize; 3],
    ridge: f64,
    options: &ForwardOptions,
    coefficients: &Coefficients<'_>,
) -> Option<()> {
    let size = shape.iter().product::<usize>().max(1);
    let structure = graph.clone();
    let (own, other) = (Network::new(&structure, &shape)?, Network::new(reference, &shape)?);
    if own.shapes != other.shapes {
        return None;
    }
    let input = |network: &Network<'_>| -> Option<Vec<Value>> {
        images.chunks(AT_ONCE * size).map(|chunk| network.input(chunk)).collect()
    };
    let (mut values, mut targets) = (Vec::new(), Vec::new());
    for (index, node) in structure.nodes.iter().enumerate() {
        if matches!(node.op, Op::Input { .. }) {
            values.push(Some(input(&own)?));
            targets.push(Some(input(&other)?));
            continue;
        }
        let target = step(
            index,
            &reference.nodes.get(index)?.op,
            &node.inputs,
            &targets,
            &other,
            &ForwardOptions::default(),
        )?;
        let x = values.get(*node.inputs.first()?)?.as_ref()?;
        let op = &mut graph.nodes.get_mut(index)?.op;
        match op {
            Op::Conv(c) => fit_conv(c, x, &target, ridge),
            Op::Linear(l) => fit_linear(l, x, &target, ridge),
            Op::Quadratic(q) => *q = coefficients(index, &paired(x, &target)),
            Op::BatchNorm(norm) => {
                let present: Vec<Value> =
                    step(index, op_of(&structure, index), &node.inputs, &values, &own, options)?;
                fit_affine(norm, &paired(&present, &target));
            }
            _ => {}
        }
        let value = step(index, op, &node.inputs, &values, &own, options)?;
        values.push(Some(value));
        targets.push(Some(target));
        for &input in &node.inputs {
            if own.last_use[input] == index {
                (values[input], targets[input]) = (None, None);
            }
        }
    }
    Some(())
}

fn op_of(graph: &Graph, node: NodeId) -> &Op {
    &graph.nodes[node].op
}

/// Values of one node for all images.
fn step(
    node: NodeId,
    op: &Op,
    inputs: &[NodeId],
    values: &[Option<Vec<Value>>],
    network: &Network<'_>,
    options: &ForwardOptions,
) -> Option<Vec<Value>> {
    let inputs: Vec<&Vec<Value>> =
        inputs.iter().map(|&i| values.get(i).and_then(Option::as_ref)).collect::<Option<_>>()?;
    let chunks = inputs.first()?.len();
    (0..chunks)
        .into_par_iter()
        .map(|chunk| {
            let parts: Vec<&Value> = inputs.iter().map(|v| &v[chunk]).collect();
            evaluate(node, op, &parts, network.shapes[node], options)
        })
        .collect()
}

/// Moments of values with their targets, channel by channel.
fn paired(values: &[Value], targets: &[Value]) -> LayerStats {
    let channels = values.first().map_or(0, |v| v.channels);
    let stats = (0..channels).into_par_iter().map(|channel| {
        let mut stats = ChannelStats::default();
        for (x, t) in values.iter().zip(targets) {
            let planes = x.planes().zip(t.planes()).filter(|((c, _), _)| *c == channel);
            planes.for_each(|((_, x), (_, t))| stats.add_pairs(x, t));
        }
        stats
    });
    LayerStats { channels: stats.collect() }
}

/// Sums over all windows of a convolution: of products with each other, with the residuals, and of both alone.
struct Sums {
    gram: Vec<f64>,
    windows: Vec<f64>,
    cross: Vec<f64>,
    residuals: Vec<f64>,
    count: f64,
}

fn fit_conv(layer: &mut Conv, x: &[Value], targets: &[Value], ridge: f64) {
    let shape = layer.weight.shape().to_vec();
    let (outputs, taps, groups) = (shape[0], shape[1..].iter().product::<usize>(), layer.groups);
    if taps > MAX_TAPS || taps == 0 {
        return;
    }
    // A convolution that yields its own windows: with its gradients all sums can be had.
    let mut weight = Tensor::full([&[groups * taps], &shape[1..]].concat(), 0.0);
    for (row, values) in weight.data_mut().chunks_mut(taps).enumerate() {
        values[row % taps] = 1.0;
    }
    let windows = Conv { weight, bias: None, ..layer.clone() };
    let mut sums = Sums {
        gram: vec![0.0; groups * taps * taps],
        windows: vec![0.0; groups * taps],
        cross: vec![0.0; outputs * taps],
        residuals: vec![0.0; outputs],
        count: 0.0,
    };
    let pairs: Vec<(&Value, &Value)> = x.iter().zip(targets).collect();
    for wave in pairs.chunks(rayon::current_num_threads().max(1)) {
        let parts: Vec<_> = wave.par_iter().map(|(x, target)| part(layer, &windows, x, target)).collect();
        for part in parts {
            for (sum, part) in [
                (&mut sums.gram, part.0),
                (&mut sums.windows, part.1),
                (&mut sums.cross, part.2),
                (&mut sums.residuals, part.3),
            ] {
                sum.iter_mut().zip(part).for_each(|(s, p)| *s += f64::from(p));
            }
        }
        sums.count += wave.iter().map(|(_, t)| (t.count * t.plane()) as f64).sum::<f64>();
    }
    let per_group = outputs / groups.max(1);
    for group in 0..groups {
        let gram = &sums.gram[group * taps * taps..(group + 1) * taps * taps];
        let means =
            layer.bias.is_some().then(|| (&sums.windows[group * taps..(group + 1) * taps], sums.count));
        let Some(system) = System::new(gram, means, ridge) else { continue };
        let first = group * per_group;
        let changes: Vec<Vec<f64>> = (first..first + per_group)
            .into_par_iter()
            .map(|o| system.solve(&sums.cross[o * taps..(o + 1) * taps], sums.residuals[o]))
            .collect();
        for (output, change) in (first..).zip(changes) {
            if change.iter().any(|v| !v.is_finite()) {
                continue;
            }
            let row = &mut layer.weight.data_mut()[output * taps..(output + 1) * taps];
            row.iter_mut().zip(&change).for_each(|(w, d)| *w += *d as f32);
            if let (Some(bias), Some(&d)) = (&mut layer.bias, change.get(taps)) {
                bias.data_mut()[output] += d as f32;
            }
        }
    }
}

type Part = (Vec<f32>, Vec<f32>, Vec<f32>, Vec<f32>);

fn part(layer: &Conv, windows: &Conv, x: &Value, target: &Value) -> Part {
    let columns = conv(windows, x, target.size);
    let residual = residual(layer, x, target);
    let sums_of = |layer: &Conv, grad: &Value| {
        let mut weight = vec![0.0; layer.weight.len()];
        let mut bias = vec![0.0; layer.weight.shape()[0]];
        let sinks = Sinks { weight: Some(&mut weight), bias: Some(&mut bias) };
        conv_backward(layer, x, grad, sinks, false);
        (weight, bias)
    };
    let (gram, sums) = sums_of(windows, &columns);
    let (cross, residuals) = sums_of(layer, &residual);
    (gram, sums, cross, residuals)
}

/// A fully connected layer is a convolution of one position. It has a window an image, so mostly fewer windows than values.
fn fit_linear(linear: &mut Linear, x: &[Value], targets: &[Value], ridge: f64) {
    let [outputs, inputs] = linear.weight.shape()[..] else { return };
    let images: usize = x.iter().map(|v| v.count).sum();
    if inputs == 0 || images >= inputs && inputs > MAX_TAPS {
        return;
    }
    let Ok(weight) = Tensor::new(vec![outputs, inputs, 1, 1], linear.weight.data().to_vec()) else { return };
    let mut conv =
        Conv { weight, bias: linear.bias.clone(), stride: [1, 1], pads: [0; 4], dilation: [1, 1], groups: 1 };
    let flat: Vec<Value> =
        x.iter().map(|v| Value { channels: v.image(), size: [1, 1], ..v.clone() }).collect();
    if images >= inputs {
        fit_conv(&mut conv, &flat, targets, ridge);
        linear.weight.data_mut().copy_from_slice(conv.weight.data());
        linear.bias = conv.bias;
        return;
    }
    let residuals: Vec<Vec<f32>> =
        flat.par_iter().zip(targets).map(|(x, target)| residual(&conv, x, target).data.to_vec()).collect();
    let rows: Vec<f32> = flat.iter().flat_map(|v| v.data.iter().copied()).collect();
    let bias = linear.bias.as_mut().map(Tensor::data_mut);
    ridge::fit_rows(inputs, linear.weight.data_mut(), bias, rows, &residuals.concat(), ridge);
}

/// What a layer lacks to its target.
fn residual(layer: &Conv, x: &Value, target: &Value) -> Value {
    let mut residual = target.clone();
    let present = conv(layer, x, target.size);
    residual.data.iter_mut().zip(present.data.iter()).for_each(|(r, y)| *r -= y);
    residual
}

/// The scale and offset that bring what a batch norm yields nearest to its target.
fn fit_affine(norm: &mut BatchNorm, stats: &LayerStats) {
    let parameters = norm.gamma.data_mut().iter_mut().zip(norm.beta.data_mut());
    for ((gamma, beta), channel) in parameters.zip(&stats.channels) {
        let n = channel.count.max(1) as f64;
        let (mean, target) = (channel.mean(), channel.relu[0] / n);
        let variance = channel.variance();
        if variance < 1e-9 {
            continue;
        }
        let scale = (channel.relu[1] / n - mean * target) / variance;
        *gamma = (f64::from(*gamma) * scale) as f32;
        *beta = (f64::from(*beta) * scale + target - scale * mean) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{generator, normal};
    use polyveil_net::builders::{ConvSpec, GraphBuilder};

    const SHAPE: [usize; 3] = [4, 9, 9];

    fn network(seed: u64, op: impl Fn(&mut GraphBuilder, &str, NodeId) -> NodeId) -> Graph {
        let mut b = GraphBuilder::new("t", &SHAPE, seed);
        let x = b.input();
        let x = b.conv("c1", x, 8, ConvSpec::new(3).pad(1));
        let x = op(&mut b, "r1", x);
        let x = b.conv("c2", x, 8, ConvSpec::new(3).stride(2).groups(2));
        let x = op(&mut b, "r2", x);
        let x = b.global_avg_pool("g", x);
        let x = b.flatten("flat", x);
        let x = b.linear("f", x, 3);
        b.finish(x).unwrap()
    }

    fn images(count: usize) -> Vec<f32> {
        let mut rng = generator(7, "t", 0, 0);
        (0..count * SHAPE.iter().product::<usize>()).map(|_| normal(&mut rng)).collect()
    }

    fn distance(left: &Graph, right: &Graph) -> f64 {
        let images = images(64);
        let run = |g| crate::engine::infer(g, &images, SHAPE, &ForwardOptions::default()).unwrap().values;
        let (l, r) = (run(left), run(right));
        let squares = l.iter().zip(&r).map(|(l, r)| f64::from(l - r).powi(2)).sum::<f64>();
        squares / r.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>()
    }

    /// Least squares for both, as the conversion has them.
    fn fit(_: NodeId, stats: &LayerStats) -> Quadratic {
        let triples: Vec<[f32; 3]> =
            stats.channels.iter().map(|c| crate::convert::least_squares(c).unwrap()).collect();
        let vector =
            |k: usize| Tensor::new(vec![triples.len()], triples.iter().map(|t| t[k]).collect()).unwrap();
        Quadratic { a: vector(0), b: vector(1), c: vector(2) }
    }

    #[test]
    fn other_weights_are_fitted_to_the_reference() {
        let reference = network(1, |b, name, x| b.relu(name, x));
        // The same structure with other random weights in all layers: only a fit can bring it there.
        let mut graph = network(2, |b, name, x| b.relu(name, x));
        assert!(distance(&graph, &reference) > 0.5);
        refit(&mut graph, &reference, &images(64), SHAPE, 1e-9, &ForwardOptions::default(), &fit).unwrap();
        assert!(distance(&graph, &reference) < 1e-6, "{}", distance(&graph, &reference));
    }

    #[test]
    fn quadratics_come_nearer_than_by_their_own_fit_alone() {
        let reference = network(1, |b, name, x| b.relu(name, x));
        let mut graph = network(1, |b, name, x| b.quadratic(name, x, [0.05, 0.5, 0.5]));
        let before = distance(&graph, &reference);
        refit(&mut graph, &reference, &images(64), SHAPE, 1e-6, &ForwardOptions::default(), &fit).unwrap();
        let after = distance(&graph, &reference);
        assert!(after < 0.2 * before, "{before} {after}");
    }

    #[test]
    fn a_layer_with_more_inputs_than_images_is_fitted() {
        let network = |seed| {
            let mut b = GraphBuilder::new("t", &SHAPE, seed);
            let x = b.input();
            let x = b.flatten("flat", x);
            let x = b.linear("f", x, 3);
            b.finish(x).unwrap()
        };
        let (reference, mut graph, images) = (network(1), network(2), images(37));
        let run =
            |g: &Graph| crate::engine::infer(g, &images, SHAPE, &ForwardOptions::default()).unwrap().values;
        let error = |g: &Graph| run(g).iter().zip(run(&reference)).map(|(x, y)| (x - y).powi(2)).sum::<f32>();
        let before = error(&graph);
        refit(&mut graph, &reference, &images, SHAPE, 1e-6, &ForwardOptions::default(), &fit).unwrap();
        assert!(error(&graph) < 1e-6 * before, "{before} {}", error(&graph));
    }
}
