//! Max-pool to average-pool.

use polyveil_net::{Graph, Op};

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

#[cfg(test)]
mod tests {
    use super::*;
    use polyveil_net::builders::lenet5_relu;

    #[test]
    fn geometry_and_shapes_stay() {
        let mut graph = lenet5_relu(&[1, 28, 28], 10, 1).unwrap();
        let shapes = graph.infer_shapes().unwrap();
        assert_eq!(replace_max_pools(&mut graph), 2);
        assert_eq!(graph.infer_shapes().unwrap(), shapes);
        assert_eq!(replace_max_pools(&mut graph), 0);
    }
}
