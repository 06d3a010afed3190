//! Bringing pre-activations to unit size without changing what the ReLU network computes.
//!
//! ReLU is positively homogeneous: dividing a channel before it by `s > 0` and multiplying the
//! readers' weights of that channel by `s` leaves the network as it was. A trained network reaches
//! pre-activations in the thousands; a quadratic would square them.

use polyveil_net::{BatchNorm, Conv, Graph, Linear, Node, NodeId, Op, Tensor};

use crate::engine::{ChannelStats, LayerStats};

const EPS: f32 = 1e-5;

/// The size that a channel is divided by: `max(rms, 99.99 percentile / 5)`.
pub(super) fn channel_size(stats: &ChannelStats) -> f32 {
    let size = (stats.rms() as f32).max(stats.abs_quantile(0.9999) / 5.0);
    // A dead channel keeps its size: blowing up its noise would help nobody.
    if size.is_finite() && size > 1e-4 { size.min(1e6) } else { 1.0 }
}

/// Rescales the input channels of every ReLU where producer and readers can take the factors.
/// `stats` (of the ReLU inputs) are rescaled with them. Returns the nodes that were rescaled.
pub(super) fn rescale(graph: &mut Graph, stats: &mut [(NodeId, LayerStats)]) -> Vec<NodeId> {
    let mut done = Vec::new();
    let mut sizes: Vec<Option<Vec<f32>>> = vec![None; graph.nodes.len()];
    for (relu, layer) in stats.iter_mut() {
        let Some(&producer) = graph.nodes[*relu].inputs.first() else { continue };
        let divisible = matches!(graph.nodes[producer].op, Op::Conv(_) | Op::Linear(_) | Op::BatchNorm(_));
        if !divisible || readers(graph, producer).count() != 1 || !absorbs(graph, *relu) {
            continue;
        }
        let factors: Vec<f32> = layer.channels.iter().map(channel_size).collect();
        layer.channels.iter_mut().zip(&factors).for_each(|(c, &s)| c.rescale(s));
        sizes[producer] = Some(factors);
        done.push(*relu);
    }
    apply(graph, &sizes);
    done
}

/// True when every reader of a value, through pools and reshapes, is an operator with weights for
/// each input channel.
fn absorbs(graph: &Graph, value: NodeId) -> bool {
    value != graph.output
        && readers(graph, value).all(|reader| match &graph.nodes[reader].op {
            Op::Conv(_) | Op::Linear(_) => true,
            Op::BatchNorm(norm) => norm.var.data().iter().all(|&v| v > 0.0),
            Op::AvgPool(_) | Op::MaxPool(_) | Op::GlobalAvgPool | Op::Flatten | Op::Concat => {
                absorbs(graph, reader)
            }
            Op::Input { .. } | Op::Relu | Op::Quadratic(_) | Op::Add => false,
        })
}

fn readers(graph: &Graph, value: NodeId) -> impl Iterator<Item = NodeId> {
    graph.nodes.iter().enumerate().filter(move |(_, n)| n.inputs.contains(&value)).map(|(index, _)| index)
}

/// One pass, front to back: `scales[n]` is what the value of node `n` must be multiplied by, channel
/// by channel, to be what it was. An empty list is all ones.
fn apply(graph: &mut Graph, sizes: &[Option<Vec<f32>>]) {
    let Ok(shapes) = graph.infer_shapes() else { return };
    let mut scales: Vec<Vec<f32>> = Vec::with_capacity(graph.nodes.len());
    for (index, node) in graph.nodes.iter_mut().enumerate() {
        let input = node.inputs.first().map(|&i| scales[i].clone()).unwrap_or_default();
        let inputs = &node.inputs;
        let scale = match &mut node.op {
            Op::Conv(conv) => {
                multiply_conv_inputs(conv, &input);
                divide_rows(&mut conv.weight, conv.bias.as_mut(), sizes[index].as_deref())
            }
            Op::Linear(linear) => {
                multiply_linear_inputs(linear, &input);
                divide_rows(&mut linear.weight, linear.bias.as_mut(), sizes[index].as_deref())
            }
            Op::BatchNorm(norm) => {
                rescale_batch_norm_input(norm, &input);
                divide_rows(&mut norm.gamma, Some(&mut norm.beta), sizes[index].as_deref())
            }
            Op::Flatten => {
                let plane: usize = shapes[inputs[0]].iter().skip(1).product();
                input.iter().flat_map(|&s| std::iter::repeat_n(s, plane)).collect()
            }
            Op::Concat if inputs.iter().any(|&i| !scales[i].is_empty()) => inputs
                .iter()
                .flat_map(|&i| {
                    let channels = shapes[i].first().copied().unwrap_or(0);
                    if scales[i].is_empty() { vec![1.0; channels] } else { scales[i].clone() }
                })
                .collect(),
            Op::AvgPool(_) | Op::MaxPool(_) | Op::GlobalAvgPool | Op::Relu => input,
            Op::Concat | Op::Input { .. } | Op::Quadratic(_) | Op::Add => Vec::new(),
        };
        scales.push(scale);
    }
}

/// Divides row `i` of a weight (and entry `i` of an offset) by `sizes[i]`; returns the sizes.
fn divide_rows(weight: &mut Tensor, offset: Option<&mut Tensor>, sizes: Option<&[f32]>) -> Vec<f32> {
    let Some(sizes) = sizes else { return Vec::new() };
    let row = (weight.len() / sizes.len().max(1)).max(1);
    for (values, s) in weight.data_mut().chunks_mut(row).zip(sizes) {
        values.iter_mut().for_each(|v| *v /= s);
    }
    if let Some(offset) = offset {
        offset.data_mut().iter_mut().zip(sizes).for_each(|(v, s)| *v /= s);
    }
    sizes.to_vec()
}

fn multiply_conv_inputs(conv: &mut Conv, scale: &[f32]) {
    let [out, per_group, kh, kw] = conv.weight.shape()[..] else { return };
    let per_output = (out / conv.groups.max(1)).max(1);
    for (index, taps) in conv.weight.data_mut().chunks_mut((kh * kw).max(1)).enumerate() {
        let (output, input) = (index / per_group, index % per_group);
        if let Some(&s) = scale.get(output / per_output * per_group + input) {
            taps.iter_mut().for_each(|v| *v *= s);
        }
    }
}

fn multiply_linear_inputs(linear: &mut Linear, scale: &[f32]) {
    if scale.is_empty() {
        return;
    }
    for row in linear.weight.data_mut().chunks_mut(scale.len()) {
        row.iter_mut().zip(scale).for_each(|(v, s)| *v *= s);
    }
}

/// Statistics of the divided input. `γ·(s·x − μ)/√(σ² + ε)` is kept exactly in inference mode by
/// `σ'² + ε = (σ² + ε)/s²`; where that leaves no positive variance, by the scale instead.
fn rescale_batch_norm_input(norm: &mut BatchNorm, scale: &[f32]) {
    let eps = norm.eps;
    let statistics = norm.mean.data_mut().iter_mut().zip(norm.var.data_mut());
    for ((mean, variance), (gamma, &s)) in statistics.zip(norm.gamma.data_mut().iter_mut().zip(scale)) {
        *mean /= s;
        let smaller = (*variance + eps) / (s * s) - eps;
        if smaller > eps { *variance = smaller } else { *gamma *= s }
    }
}

/// Puts a batch norm before every quadratic that does not follow one, calibrated on `stats` to be
/// the identity in inference mode. Returns the units by new node index.
pub(super) fn insert_batch_norm(
    graph: &mut Graph,
    stats: &[(NodeId, LayerStats)],
    units: &[f32],
) -> Vec<f32> {
    let old = std::mem::take(&mut graph.nodes);
    let follows: Vec<bool> = old
        .iter()
        .map(|n| n.inputs.first().is_some_and(|&i| matches!(old[i].op, Op::BatchNorm(_))))
        .collect();
    let mut moved = Vec::with_capacity(old.len());
    let mut new_units = Vec::new();
    for (index, mut node) in old.into_iter().enumerate() {
        node.inputs.iter_mut().for_each(|i| *i = moved[*i]);
        let layer = stats.iter().find(|(n, _)| *n == index).map(|(_, layer)| layer);
        if let (Some(layer), false) = (layer, follows[index]) {
            let name = format!("{}.norm", node.name);
            let inputs = std::mem::replace(&mut node.inputs, vec![graph.nodes.len()]);
            graph.nodes.push(Node { name, op: Op::BatchNorm(identity(layer)), inputs });
            new_units.push(1.0);
        }
        moved.push(graph.nodes.len());
        graph.nodes.push(node);
        new_units.push(units.get(index).copied().unwrap_or(1.0));
    }
    graph.output = moved.get(graph.output).copied().unwrap_or(graph.output);
    new_units
}

fn identity(layer: &LayerStats) -> BatchNorm {
    matching(layer, layer)
}

/// Turns values with the moments of `from` into values with those of `to`, channel by channel, in inference mode.
pub(super) fn matching(from: &LayerStats, to: &LayerStats) -> BatchNorm {
    let vector = |layer: &LayerStats, value: &dyn Fn(&ChannelStats) -> f32| {
        let mut tensor = Tensor::full(vec![layer.channels.len()], 0.0);
        tensor.data_mut().iter_mut().zip(&layer.channels).for_each(|(v, c)| *v = value(c));
        tensor
    };
    // A channel that hardly varies would get an enormous scale from batch statistics.
    let variance = |c: &ChannelStats| (c.variance() as f32).max(1e-3);
    BatchNorm {
        gamma: vector(to, &|c| (variance(c) + EPS).sqrt()),
        beta: vector(to, &|c| c.mean() as f32),
        mean: vector(from, &|c| c.mean() as f32),
        var: vector(from, &variance),
        eps: EPS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StartCoefficients;
    use crate::convert::{observe_inputs, replace_max_pools};
    use crate::engine::ForwardOptions;
    use crate::random::{generator, normal};
    use polyveil_net::builders::{ConvSpec, GraphBuilder, PoolSpec};
    use polyveil_net::exec;

    /// Convolutions in groups, two branches, batch norm before and after ReLU, a residual sum.
    fn network() -> Graph {
        let mut b = GraphBuilder::new("t", &[2, 8, 8], 3);
        let x = b.input();
        let x = b.conv("c1", x, 4, ConvSpec::new(3).pad(1));
        let x = b.relu("r1", x);
        let left = b.conv("c2", x, 4, ConvSpec::new(3).pad(1).groups(2));
        let left = b.batch_norm("n2", left);
        let left = b.relu("r2", left);
        let right = b.max_pool("p", x, PoolSpec::new(3).stride(1).pad(1));
        let both = b.concat("cat", &[left, right]);
        let y = b.batch_norm("n3", both);
        let y = b.conv("c3", y, 4, ConvSpec::new(1));
        let y = b.relu("r3", y);
        let z = b.conv("c4", y, 4, ConvSpec::new(3).pad(1));
        let z = b.add("sum", z, y);
        let z = b.relu("r4", z);
        let z = b.avg_pool("p2", z, PoolSpec::new(2).stride(2));
        let z = b.flatten("flat", z);
        let z = b.linear("f1", z, 5);
        let z = b.relu("r5", z);
        let z = b.linear("f2", z, 3);
        let mut graph = b.finish(z).unwrap();
        let mut rng = generator(9, "t", 0, 0);
        for node in &mut graph.nodes {
            if let Op::BatchNorm(n) = &mut node.op {
                n.mean.data_mut().iter_mut().for_each(|v| *v = normal(&mut rng));
                n.var.data_mut().iter_mut().for_each(|v| *v = 0.5 + normal(&mut rng).abs());
            }
        }
        // Raw teachers have channels of very different size.
        if let Op::Conv(conv) = &mut graph.nodes[1].op {
            conv.weight.data_mut().iter_mut().for_each(|v| *v *= 300.0);
        }
        graph
    }

    fn images() -> Vec<f32> {
        let mut rng = generator(4, "t", 0, 0);
        (0..32 * 128).map(|_| normal(&mut rng)).collect()
    }

    fn relus(graph: &Graph) -> Vec<NodeId> {
        (0..graph.nodes.len()).filter(|&n| matches!(graph.nodes[n].op, Op::Relu)).collect()
    }

    fn scores(graph: &Graph) -> Vec<f32> {
        let images = images();
        let all = images.chunks(128).flat_map(|image| {
            exec::run(graph, &Tensor::new(vec![2, 8, 8], image.to_vec()).unwrap()).unwrap().into_data()
        });
        all.collect()
    }

    fn assert_close(left: &[f32], right: &[f32]) {
        let size = left.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        for (l, r) in left.iter().zip(right) {
            assert!((l - r).abs() < 2e-4 * size, "{l} {r}");
        }
    }

    #[test]
    fn rescaling_keeps_the_function_and_brings_inputs_to_unit_size() {
        let mut graph = network();
        let before = scores(&graph);
        let nodes = relus(&graph);
        let mut stats =
            observe_inputs(&graph, &images(), [2, 8, 8], &nodes, &ForwardOptions::default()).unwrap();
        let done = rescale(&mut graph, &mut stats);
        let names: Vec<&str> = done.iter().map(|&n| graph.nodes[n].name.as_str()).collect();
        // r3 feeds the sum and r4 follows it: neither can be rescaled channel by channel.
        assert_eq!(names, ["r1", "r2", "r5"]);
        assert_close(&before, &scores(&graph));
        let after = observe_inputs(&graph, &images(), [2, 8, 8], &nodes, &ForwardOptions::default()).unwrap();
        for ((node, layer), (_, predicted)) in after.iter().zip(&stats) {
            for (channel, expected) in layer.channels.iter().zip(&predicted.channels) {
                assert!((channel.rms() / expected.rms() - 1.0).abs() < 1e-3);
                assert!((channel.mean() - expected.mean()).abs() < 1e-3 * expected.rms());
                if done.contains(node) {
                    assert!(channel.rms() < 1.01 && channel.abs_quantile(0.9999) < 5.4, "{channel:?}");
                }
            }
        }
    }

    #[test]
    fn inserted_batch_norm_is_the_identity() {
        let mut graph = network();
        replace_max_pools(&mut graph);
        let nodes = relus(&graph);
        let stats = observe_inputs(&graph, &images(), [2, 8, 8], &nodes, &ForwardOptions::default()).unwrap();
        for (node, layer) in &stats {
            let start =
                super::super::start::Start { kind: StartCoefficients::Identity, range: 8.0, unit: 1.0 };
            graph.nodes[*node].op =
                Op::Quadratic(start.coefficients(layer, crate::config::Granularity::Channel));
        }
        let before = scores(&graph);
        let units: Vec<f32> = (0..graph.nodes.len()).map(|n| n as f32).collect();
        let new_units = insert_batch_norm(&mut graph, &stats, &units);
        graph.validate().unwrap();
        assert_close(&before, &scores(&graph));
        let inserted: Vec<&str> =
            graph.nodes.iter().map(|n| n.name.as_str()).filter(|n| n.ends_with(".norm")).collect();
        assert_eq!(inserted, ["r1.norm", "r3.norm", "r4.norm", "r5.norm"]);
        let r4 = graph.node("r4").unwrap().0;
        assert_eq!(new_units[r4], network().node("r4").unwrap().0 as f32);
    }
}
