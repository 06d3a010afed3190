//! Moving average of the weights (Polyak, Juditsky 1992; exponential, as usual in the training of networks).

use polyveil_net::{Graph, Op};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::engine::PIECE;

/// A network whose weights, batch-norm statistics included, are an average over steps.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Average {
    pub(super) graph: Graph,
    steps: u32,
}

impl Average {
    pub(super) fn new(graph: &Graph) -> Self {
        Self { graph: graph.clone(), steps: 0 }
    }

    /// Takes in the weights after one more step. The decay rises to `decay` as `(1 + n)/(10 + n)` after `n` steps, so
    /// that the first weights are soon forgotten.
    pub(super) fn add(&mut self, graph: &Graph, decay: f32) {
        let n = self.steps as f32;
        let decay = decay.min((1.0 + n) / (10.0 + n));
        self.steps = self.steps.saturating_add(1);
        for (mean, node) in self.graph.nodes.iter_mut().zip(&graph.nodes) {
            for ((_, mean), (_, value)) in mean.op.weights_mut().into_iter().zip(node.op.weights()) {
                let pieces = mean.data_mut().par_chunks_mut(PIECE).zip(value.data().par_chunks(PIECE));
                pieces.for_each(|(means, values)| {
                    let pairs = means.iter_mut().zip(values);
                    pairs.for_each(|(mean, value)| *mean += (1.0 - decay) * (value - *mean));
                });
            }
            // The mean of two leading coefficients of opposite sign may be next to nothing, which the compiler cannot
            // divide by: then the newest ones stand.
            if let (Op::Quadratic(mean), Op::Quadratic(value)) = (&mut mean.op, &node.op) {
                let triples = mean.a.data_mut().iter_mut().zip(value.a.data());
                triples
                    .filter(|(mean, value)| **mean * **value <= 0.0)
                    .for_each(|(mean, value)| *mean = *value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use polyveil_net::builders::GraphBuilder;

    fn network(a: f32, weight: f32) -> Graph {
        let mut b = GraphBuilder::new("t", &[1], 1);
        let x = b.input();
        let x = b.linear("f", x, 1);
        let x = b.quadratic("q", x, [a, 1.0, 0.0]);
        let mut graph = b.finish(x).unwrap();
        graph.nodes[1].op.weights_mut()[0].1.data_mut()[0] = weight;
        graph
    }

    fn weight(graph: &Graph) -> f32 {
        graph.nodes[1].op.weights()[0].1.data()[0]
    }

    #[test]
    fn the_average_follows_and_forgets_where_it_began() {
        let mut average = Average::new(&network(0.1, 5.0));
        (0..2000).for_each(|step| average.add(&network(0.1, if step % 2 == 0 { 1.0 } else { 2.0 }), 0.99));
        assert!((weight(&average.graph) - 1.5).abs() < 0.01, "{}", weight(&average.graph));
    }

    #[test]
    fn leading_coefficients_do_not_cancel() {
        let mut average = Average::new(&network(0.1, 0.0));
        average.add(&network(-0.1, 0.0), 0.9);
        let Op::Quadratic(q) = &average.graph.nodes[2].op else { unreachable!() };
        assert!(q.a.data()[0].abs() > 0.04, "{:?}", q.a);
    }
}
