//! The Hermite basis with a batch norm for each member (AESPA, Park et al., arXiv 2201.06699, section 4),
//! out of the operators that the graph has: `norm(x) + norm(h2(x))`. Folds into one quadratic.
//!
//! In the paper one scale serves all members, with the coefficients of ReLU fixed inside; here each
//! member's batch norm has its own scale, beginning at that coefficient, which contains the paper's form.

use polyveil_net::{BatchNorm, Graph, Node, NodeId, Op, Quadratic, Tensor};

use crate::engine::{ChannelStats, LayerStats};

const EPS: f32 = 1e-5;
/// `h2(x) = (x² − 1)/√2`.
const H2: f32 = std::f32::consts::FRAC_1_SQRT_2;
/// Coefficients of ReLU in the normalised Hermite basis: 1/√(2π), 1/2, 1/√(4π).
const RELU: [f32; 3] = [0.398_942_3, 0.5, 0.282_094_8];

/// Replaces every node of `layers` by its basis. Each entry is a node, the statistics of its input,
/// and the quadratic that the basis shall begin as (none: the coefficients of ReLU on the normalised
/// input). Returns the sums (which keep the nodes' names), and `units` for the new numbering.
pub(super) fn expand(
    graph: &mut Graph,
    layers: &[(NodeId, &LayerStats, Option<Quadratic>)],
    units: &[f32],
) -> (Vec<NodeId>, Vec<f32>) {
    let old = std::mem::take(&mut graph.nodes);
    let mut moved = Vec::with_capacity(old.len());
    let (mut sums, mut new_units) = (Vec::new(), Vec::new());
    for (index, mut node) in old.into_iter().enumerate() {
        node.inputs.iter_mut().for_each(|i| *i = moved[*i]);
        let unit = units.get(index).copied().unwrap_or(1.0);
        if let Some((_, stats, start)) = layers.iter().find(|(n, _, _)| *n == index) {
            let at = graph.nodes.len();
            let [first, second] = norms(stats, start.as_ref());
            let named =
                |suffix: &str, op, inputs| Node { name: format!("{}.{suffix}", node.name), op, inputs };
            let scalar = |value| Tensor::full(vec![1], value);
            let square = Quadratic { a: scalar(H2), b: scalar(0.0), c: scalar(-H2) };
            graph.nodes.push(named("h1", Op::BatchNorm(first), node.inputs.clone()));
            graph.nodes.push(named("square", Op::Quadratic(square), node.inputs.clone()));
            graph.nodes.push(named("h2", Op::BatchNorm(second), vec![at + 1]));
            new_units.extend([1.0, unit, 1.0]);
            node.op = Op::Add;
            node.inputs = vec![at, at + 2];
            sums.push(graph.nodes.len());
        }
        moved.push(graph.nodes.len());
        graph.nodes.push(node);
        new_units.push(unit);
    }
    graph.output = moved.get(graph.output).copied().unwrap_or(graph.output);
    (sums, new_units)
}

/// The batch norms of both members, calibrated to the values seen.
fn norms(stats: &LayerStats, start: Option<&Quadratic>) -> [BatchNorm; 2] {
    let channels = stats.channels.len();
    let zeros = || Tensor::full(vec![channels], 0.0);
    let norm = || BatchNorm { gamma: zeros(), beta: zeros(), mean: zeros(), var: zeros(), eps: EPS };
    let (mut first, mut second) = (norm(), norm());
    for (index, channel) in stats.channels.iter().enumerate() {
        let [means, variances] = moments(channel);
        for (norm, (mean, variance)) in
            [&mut first, &mut second].into_iter().zip(means.into_iter().zip(variances))
        {
            norm.mean.data_mut()[index] = mean;
            norm.var.data_mut()[index] = variance;
        }
        let [shift, scale1, scale2] = match start {
            None => RELU,
            Some(q) => {
                let [a, b, c] = [&q.a, &q.b, &q.c].map(|t| t.data()[index.min(t.len() - 1)]);
                // x = σ₁·n₁ + μ₁ and x² = √2·(σ₂·n₂ + μ₂) + 1, where n is what the batch norm makes.
                let deviations = variances.map(|v| (v + EPS).sqrt());
                let shift = c + a + a / H2 * means[1] + b * means[0];
                [shift, b * deviations[0], a / H2 * deviations[1]]
            }
        };
        first.gamma.data_mut()[index] = scale1;
        first.beta.data_mut()[index] = shift;
        second.gamma.data_mut()[index] = scale2;
    }
    [first, second]
}

/// Means and variances of `x` and `h2(x)`.
fn moments(channel: &ChannelStats) -> [[f32; 2]; 2] {
    let n = channel.count.max(1) as f64;
    let [_, m2, _, m4] = channel.powers.map(|p| p / n);
    let square_variance = (m4 - m2 * m2).max(0.0) / 2.0;
    let h2 = f64::from(H2);
    let means = [channel.mean() as f32, ((m2 - 1.0) * h2) as f32];
    // A channel that hardly varies would get an enormous scale from batch statistics.
    [means, [(channel.variance() as f32).max(1e-3), (square_variance as f32).max(1e-3)]]
}

/// The quadratic that a basis computes in inference mode, with the node that reads the same input.
/// None where `sum` is no basis.
pub(crate) fn folded(graph: &Graph, sum: NodeId) -> Option<(NodeId, Quadratic)> {
    let parents = |node: NodeId| graph.nodes.get(node).map(|n| n.inputs.as_slice());
    let (Op::Add, &[first, second]) = (&graph.nodes.get(sum)?.op, parents(sum)?) else { return None };
    let &[square] = parents(second)? else { return None };
    let (Op::BatchNorm(first_norm), Op::BatchNorm(second_norm), Op::Quadratic(q)) =
        (&graph.nodes.get(first)?.op, &graph.nodes.get(second)?.op, &graph.nodes.get(square)?.op)
    else {
        return None;
    };
    if parents(first)? != parents(square)? || q.a.len() != 1 {
        return None;
    }
    let (inner_a, inner_b, inner_c) = (q.a.data()[0], q.b.data()[0], q.c.data()[0]);
    let channels = first_norm.gamma.len();
    let [mut a, mut b, mut c] = [(); 3].map(|()| Tensor::full(vec![channels], 0.0));
    for index in 0..channels {
        let affine = |n: &BatchNorm| {
            let scale = n.gamma.data()[index] / (n.var.data()[index] + n.eps).sqrt();
            (scale, n.beta.data()[index] - scale * n.mean.data()[index])
        };
        let ((scale1, shift1), (scale2, shift2)) = (affine(first_norm), affine(second_norm));
        a.data_mut()[index] = scale2 * inner_a;
        b.data_mut()[index] = scale2 * inner_b + scale1;
        c.data_mut()[index] = scale2 * inner_c + shift1 + shift2;
    }
    Some((square, Quadratic { a, b, c }))
}

/// Folds every basis into one quadratic of the sum's name.
pub(super) fn fold(graph: &mut Graph, sums: &[NodeId]) {
    let mut dropped = vec![false; graph.nodes.len()];
    for &sum in sums {
        let Some((square, quadratic)) = folded(graph, sum) else { continue };
        let [first, second] = [0, 1].map(|i| graph.nodes[sum].inputs[i]);
        let inputs = graph.nodes[square].inputs.clone();
        for node in [first, square, second] {
            dropped[node] = true;
        }
        graph.nodes[sum].op = Op::Quadratic(quadratic);
        graph.nodes[sum].inputs = inputs;
    }
    let old = std::mem::take(&mut graph.nodes);
    let mut moved = Vec::with_capacity(old.len());
    for (mut node, dropped) in old.into_iter().zip(dropped) {
        moved.push(graph.nodes.len());
        if !dropped {
            node.inputs.iter_mut().for_each(|i| *i = moved[*i]);
            graph.nodes.push(node);
        }
    }
    graph.output = moved.get(graph.output).copied().unwrap_or(graph.output);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::observe_inputs;
    use crate::convert::start::least_squares;
    use crate::engine::ForwardOptions;
    use crate::random::{generator, normal};
    use polyveil_net::builders::{ConvSpec, GraphBuilder};
    use polyveil_net::exec;

    fn network() -> Graph {
        let mut b = GraphBuilder::new("t", &[2, 4, 4], 3);
        let x = b.input();
        let x = b.conv("c1", x, 3, ConvSpec::new(3).pad(1));
        let x = b.relu("r1", x);
        let x = b.flatten("flat", x);
        let x = b.linear("f1", x, 4);
        let x = b.relu("r2", x);
        let x = b.linear("f2", x, 2);
        b.finish(x).unwrap()
    }

    fn images() -> Vec<f32> {
        let mut rng = generator(4, "t", 0, 0);
        (0..64 * 32).map(|_| 0.3 + 2.0 * normal(&mut rng)).collect()
    }

    fn scores(graph: &Graph) -> Vec<f32> {
        let images = images();
        let all = images.chunks(32).flat_map(|image| {
            exec::run(graph, &Tensor::new(vec![2, 4, 4], image.to_vec()).unwrap()).unwrap().into_data()
        });
        all.collect()
    }

    fn close(left: &[f32], right: &[f32]) {
        let size = left.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        assert!(left.iter().zip(right).all(|(l, r)| (l - r).abs() < 1e-4 * size), "{left:?}\n{right:?}");
    }

    #[test]
    fn the_basis_begins_as_the_quadratic_asked_for_and_folds_back_to_it() {
        let mut graph = network();
        let relus = [2, 5];
        let stats = observe_inputs(&graph, &images(), [2, 4, 4], &relus, &ForwardOptions::default()).unwrap();
        let fit = |layer: &LayerStats| {
            let triples: Vec<_> = layer.channels.iter().map(|c| least_squares(c).unwrap()).collect();
            let [a, b, c] = [0, 1, 2]
                .map(|k| Tensor::new(vec![triples.len()], triples.iter().map(|t| t[k]).collect()).unwrap());
            Quadratic { a, b, c }
        };
        let mut plain = graph.clone();
        for (node, layer) in &stats {
            plain.nodes[*node].op = Op::Quadratic(fit(layer));
        }
        let layers: Vec<_> = stats.iter().map(|(n, layer)| (*n, layer, Some(fit(layer)))).collect();
        let (sums, units) = expand(&mut graph, &layers, &[1.0, 1.0, 2.0, 1.0, 1.0, 5.0, 1.0]);
        graph.validate().unwrap();
        assert_eq!(units.len(), graph.nodes.len());
        assert_eq!(units[graph.node("r2.square").unwrap().0], 5.0);
        close(&scores(&plain), &scores(&graph));
        fold(&mut graph, &sums);
        graph.validate().unwrap();
        assert_eq!(graph.nodes.len(), plain.nodes.len());
        let names = |g: &Graph| g.nodes.iter().map(|n| n.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&graph), names(&plain));
        close(&scores(&plain), &scores(&graph));
    }

    #[test]
    fn without_a_start_it_is_the_fit_of_relu_to_the_normalised_input() {
        let mut graph = network();
        let stats = observe_inputs(&graph, &images(), [2, 4, 4], &[2], &ForwardOptions::default()).unwrap();
        let (sums, _) = expand(&mut graph, &[(2, &stats[0].1, None)], &[]);
        let (square, q) = folded(&graph, sums[0]).unwrap();
        assert_eq!(graph.nodes[square].name, "r1.square");
        // The output has the mean and (nearly) the deviation of the normal's rectified values.
        let channel = &stats[0].1.channels[0];
        let (n, [s1, s2, _, _]) = (channel.count as f64, channel.powers);
        let [a, b, c] = [&q.a, &q.b, &q.c].map(|t| f64::from(t.data()[0]));
        assert!(((a * s2 + b * s1) / n + c - 0.3989).abs() < 1e-3);
        assert!(a > 0.0 && b.is_finite());
    }
}
