//! AdamW on plain vectors (Loshchilov, Hutter 2019), with clipping over all parameters together.

use polyveil_net::{Graph, Op};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::engine::{Buffer, Group, PIECE, ParameterId, parameter, parameter_mut};

const BETA1: f32 = 0.9;
const BETA2: f32 = 0.999;
const EPSILON: f32 = 1e-8;

/// Moments of every parameter, and the number of steps behind them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct AdamW {
    steps: u32,
    first: Vec<Vec<f32>>,
    second: Vec<Vec<f32>>,
}

/// Sizes of one step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    /// Learning rate of weights and offsets.
    pub(crate) base: f32,
    /// Learning rate of activation coefficients.
    pub(crate) activation: f32,
    /// Decoupled decay of weights.
    pub(crate) weight_decay: f32,
}

impl AdamW {
    pub(crate) fn new(graph: &Graph, parameters: &[ParameterId]) -> Self {
        let zeros: Vec<Vec<f32>> =
            parameters.iter().map(|&id| vec![0.0; parameter(graph, id).map_or(0, |t| t.len())]).collect();
        Self { steps: 0, first: zeros.clone(), second: zeros }
    }

    /// Moves every parameter by one step along its gradient.
    pub(crate) fn step(
        &mut self,
        graph: &mut Graph,
        parameters: &[ParameterId],
        gradients: &[Buffer],
        rates: Rates,
    ) {
        self.steps = self.steps.saturating_add(1);
        let exponent = i32::try_from(self.steps).unwrap_or(i32::MAX);
        let (bias1, bias2) = (1.0 - BETA1.powi(exponent), 1.0 - BETA2.powi(exponent));
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((&id, gradient), (first, second)) in parameters.iter().zip(gradients).zip(moments) {
            let Some(values) = parameter_mut(graph, id) else { continue };
            let rate = if id.group == Group::Activation { rates.activation } else { rates.base };
            let decay = if id.group == Group::Weight { 1.0 - rate * rates.weight_decay } else { 1.0 };
            let state = first.par_chunks_mut(PIECE).zip(second.par_chunks_mut(PIECE));
            let pieces = values.data_mut().par_chunks_mut(PIECE).zip(gradient.par_chunks(PIECE)).zip(state);
            pieces.for_each(|((values, gradient), (first, second))| {
                let state = first.iter_mut().zip(second);
                for ((value, &g), (m, v)) in values.iter_mut().zip(gradient).zip(state) {
                    *m = BETA1 * *m + (1.0 - BETA1) * g;
                    *v = BETA2 * *v + (1.0 - BETA2) * g * g;
                    *value = *value * decay - rate * (*m / bias1) / ((*v / bias2).sqrt() + EPSILON);
                }
            });
        }
    }
}

/// Norm of all gradients together; scales them down to `limit` where it is larger (0 = never). Batch
/// norm is left out on both sides (arXiv 2505.11589): its scale says how large gradients are.
pub(crate) fn clip(gradients: &mut [Buffer], parameters: &[ParameterId], graph: &Graph, limit: f32) -> f32 {
    let clipped =
        |id: &ParameterId| !matches!(graph.nodes.get(id.node).map(|n| &n.op), Some(Op::BatchNorm(_)));
    let norm_of = |squares: f64| squares.sqrt() as f32;
    let (mut squares, mut others) = (0.0f64, 0.0f64);
    for (gradient, id) in gradients.iter().zip(parameters) {
        // Pieces are added up in order, so that rounding is the same on any number of threads.
        let pieces: Vec<f64> = gradient.par_chunks(PIECE).map(sum_of_squares).collect();
        let sum: f64 = pieces.iter().sum();
        if clipped(id) { squares += sum } else { others += sum }
    }
    let norm = norm_of(squares);
    if limit > 0.0 && norm > limit && norm.is_finite() {
        let factor = limit / norm;
        let chosen = gradients.iter_mut().zip(parameters).filter(|(_, id)| clipped(id));
        for (gradient, _) in chosen {
            gradient.par_chunks_mut(PIECE).for_each(|piece| piece.iter_mut().for_each(|g| *g *= factor));
        }
    }
    // What is not finite shows in the whole.
    norm_of(squares + others)
}

/// In eight strands: one chain would wait for every addition.
fn sum_of_squares(values: &[f32]) -> f64 {
    let (whole, rest) = values.as_chunks::<8>();
    let square = |g: f32| f64::from(g) * f64::from(g);
    let mut strands = [0.0f64; 8];
    for values in whole {
        strands.iter_mut().zip(values).for_each(|(sum, &g)| *sum += square(g));
    }
    strands.iter().sum::<f64>() + rest.iter().map(|&g| square(g)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::parameters;
    use polyveil_net::builders::{ConvSpec, GraphBuilder};

    #[test]
    fn clipping_is_over_all_tensors_together_and_spares_batch_norm() {
        let mut b = GraphBuilder::new("t", &[1, 2, 2], 1);
        let x = b.input();
        let x = b.conv("c", x, 1, ConvSpec::new(1));
        let x = b.batch_norm("n", x);
        let graph = b.finish(x).unwrap();
        let all = parameters(&graph);
        // Weight, bias, scale, shift.
        let fresh = || [3.0, 4.0, 12.0, 0.0].map(|g| Buffer::from(&[g][..]));
        let mut gradients = fresh();
        assert!((clip(&mut gradients, &all, &graph, 0.0) - 13.0).abs() < 1e-5);
        assert!(gradients.iter().zip(&fresh()).all(|(g, f)| g[..] == f[..]));
        clip(&mut gradients, &all, &graph, 1.0);
        assert!((gradients[0][0] - 0.6).abs() < 1e-6 && (gradients[1][0] - 0.8).abs() < 1e-6);
        assert_eq!(gradients[2][..], [12.0]);
        gradients[3][0] = f32::NAN;
        assert!(!clip(&mut gradients, &all, &graph, 1.0).is_finite());
    }
}
