//! AdamW on plain vectors (Loshchilov, Hutter 2019), with clipping over all parameters together.

use polyveil_net::Graph;
use serde::{Deserialize, Serialize};

use crate::engine::{Group, ParameterId, parameter, parameter_mut};

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
        gradients: &[Vec<f32>],
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
            let state = first.iter_mut().zip(second);
            for ((value, &g), (m, v)) in values.data_mut().iter_mut().zip(gradient).zip(state) {
                *m = BETA1 * *m + (1.0 - BETA1) * g;
                *v = BETA2 * *v + (1.0 - BETA2) * g * g;
                *value = *value * decay - rate * (*m / bias1) / ((*v / bias2).sqrt() + EPSILON);
            }
        }
    }
}

/// Norm of all gradients together; scales them down to `limit` where it is larger (0 = never).
pub(crate) fn clip(gradients: &mut [Vec<f32>], limit: f32) -> f32 {
    let squares: f64 = gradients.iter().flatten().map(|&g| f64::from(g) * f64::from(g)).sum();
    let norm = squares.sqrt() as f32;
    if limit > 0.0 && norm > limit && norm.is_finite() {
        let factor = limit / norm;
        gradients.iter_mut().flatten().for_each(|g| *g *= factor);
    }
    norm
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clipping_is_over_all_tensors_together() {
        let mut gradients = vec![vec![3.0], vec![0.0, 4.0]];
        assert!((clip(&mut gradients, 0.0) - 5.0).abs() < 1e-6);
        assert_eq!(gradients, [vec![3.0], vec![0.0, 4.0]]);
        clip(&mut gradients, 1.0);
        assert!((gradients[0][0] - 0.6).abs() < 1e-6 && (gradients[1][1] - 0.8).abs() < 1e-6);
        assert!(!clip(&mut [vec![f32::NAN]], 1.0).is_finite());
    }
}
