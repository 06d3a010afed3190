//! Max-pool to average-pool.

use polyveil_net::{Graph, Node, NodeId, Op};

use super::{malformed, normalise};
use crate::engine::{ForwardOptions, LayerStats, infer_observed};
use crate::error::TrainError;

/// Replaces every max-pool by the average-pool of the same window, stride, padding and rounding.
/// Returns how many there were. Positions of the padding count as zeros, so that every window has
/// the same weights: that is cheapest when encrypted.
pub fn replace_max_pools(graph: &mut Graph) -> usize {
    let mut count = 0;
    for node in &mut graph.nodes {
        if let Op::MaxPool(pool) = &mut node.op {
            pool.count_include_pad = true;
            node.op = Op::AvgPool(pool.clone());
            count += 1;
        }
    }
    count
}

/// The same, with a batch norm behind each new average-pool that gives its channels the mean and the variance that
/// the max-pool's have on `images`: a mean is smaller than a maximum and varies less, and what follows was trained on
/// maxima. It folds away when compiled. Returns the new index of every node.
pub(super) fn replace_calibrated(
    graph: &mut Graph,
    images: &[f32],
    shape: [usize; 3],
) -> Result<Vec<NodeId>, TrainError> {
    let pools: Vec<NodeId> =
        (0..graph.nodes.len()).filter(|&n| matches!(graph.nodes[n].op, Op::MaxPool(_))).collect();
    // Averages beside the maxima, of the same inputs.
    let mut both = graph.clone();
    let averages: Vec<NodeId> = pools.iter().map(|&pool| beside(&mut both, pool)).collect();
    let mut maxima = vec![LayerStats::default(); pools.len()];
    let mut means = maxima.clone();
    let options = ForwardOptions { transition: vec![0.0; both.nodes.len()], ..ForwardOptions::default() };
    infer_observed(&both, images, shape, &options, &mut |node, _, value| {
        for (index, stats) in maxima.iter_mut().enumerate() {
            if pools[index] == node {
                stats.add(value);
            } else if averages[index] == node {
                means[index].add(value);
            }
        }
    })
    .ok_or_else(|| malformed(graph))?;
    replace_max_pools(graph);
    let mut norms = std::collections::BTreeMap::new();
    for ((&pool, maxima), means) in pools.iter().zip(&maxima).zip(&means) {
        norms.insert(pool, normalise::matching(means, maxima));
    }
    let old = std::mem::take(&mut graph.nodes);
    let mut moved: Vec<NodeId> = Vec::with_capacity(old.len());
    let mut own: Vec<NodeId> = Vec::with_capacity(old.len());
    for (index, mut node) in old.into_iter().enumerate() {
        // Readers of a pool read its batch norm.
        node.inputs.iter_mut().for_each(|i| *i = moved[*i]);
        let name = norm_name(&node.name);
        own.push(graph.nodes.len());
        graph.nodes.push(node);
        if let Some(norm) = norms.remove(&index) {
            let inputs = vec![graph.nodes.len() - 1];
            graph.nodes.push(Node { name, op: Op::BatchNorm(norm), inputs });
        }
        moved.push(graph.nodes.len() - 1);
    }
    graph.output = moved.get(graph.output).copied().unwrap_or(graph.output);
    Ok(own)
}

/// Name of the batch norm behind a pool.
pub(super) fn norm_name(pool: &str) -> String {
    format!("{pool}.norm")
}

/// Adds the average-pool of a max-pool's input at the end of the graph.
fn beside(graph: &mut Graph, pool: NodeId) -> NodeId {
    let mut average = graph.nodes[pool].clone();
    if let Op::MaxPool(geometry) = average.op {
        average.op = Op::AvgPool(polyveil_net::Pool { count_include_pad: true, ..geometry });
    }
    average.name.push_str(".average");
    graph.nodes.push(average);
    graph.nodes.len() - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{generator, normal};
    use polyveil_net::builders::lenet5_relu;

    #[test]
    fn geometry_and_shapes_stay() {
        let mut graph = lenet5_relu(&[1, 28, 28], 10, 1).unwrap();
        let shapes = graph.infer_shapes().unwrap();
        assert_eq!(replace_max_pools(&mut graph), 2);
        assert_eq!(graph.infer_shapes().unwrap(), shapes);
        assert_eq!(replace_max_pools(&mut graph), 0);
    }

    #[test]
    fn a_calibrated_pool_has_the_moments_of_the_maxima() {
        let mut graph = lenet5_relu(&[1, 28, 28], 10, 1).unwrap();
        let mut rng = generator(3, "t", 0, 0);
        let images: Vec<f32> = (0..784 * 32).map(|_| normal(&mut rng)).collect();
        let moments = |graph: &Graph, name: &str| {
            let node = graph.node(name).unwrap().0;
            let mut stats = LayerStats::default();
            infer_observed(graph, &images, [1, 28, 28], &ForwardOptions::default(), &mut |n, _, value| {
                if n == node {
                    stats.add(value);
                }
            })
            .unwrap();
            stats.channels.iter().map(|c| (c.mean(), c.variance())).collect::<Vec<_>>()
        };
        let pools: Vec<String> =
            graph.nodes.iter().filter(|n| matches!(n.op, Op::MaxPool(_))).map(|n| n.name.clone()).collect();
        let maxima = moments(&graph, &pools[0]);
        let names: Vec<String> = graph.nodes.iter().map(|n| n.name.clone()).collect();
        let own = replace_calibrated(&mut graph, &images, [1, 28, 28]).unwrap();
        graph.validate().unwrap();
        assert!(names.iter().zip(&own).all(|(name, &node)| graph.nodes[node].name == *name));
        for ((mean, variance), (m, v)) in moments(&graph, &norm_name(&pools[0])).iter().zip(&maxima) {
            assert!(
                (mean - m).abs() < 1e-3 * v.sqrt() && (variance / v - 1.0).abs() < 1e-2,
                "{mean} {m} {variance} {v}"
            );
        }
    }
}
