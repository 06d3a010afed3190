//! Batch norm with frozen statistics and with those of the batch, forward and backward.

use polyveil_net::BatchNorm;

use super::sums::sums;
use super::value::Value;

/// Mean and (biased) variance of every channel over a batch.
pub(super) struct Statistics {
    pub(super) mean: Vec<f32>,
    pub(super) variance: Vec<f32>,
}

impl Statistics {
    /// Those of `x`. Two passes: the mean first, so that the variance does not cancel.
    pub(super) fn of(x: &Value) -> Self {
        let values = (x.count * x.plane()) as f32;
        let mut mean = vec![0.0f32; x.channels];
        x.planes().for_each(|(c, map)| mean[c] += sums(map, map, |v, _| [v])[0]);
        mean.iter_mut().for_each(|m| *m /= values);
        let mut variance = vec![0.0f32; x.channels];
        x.planes()
            .for_each(|(c, map)| variance[c] += sums(map, map, |v, _| [(v - mean[c]) * (v - mean[c])])[0]);
        variance.iter_mut().for_each(|v| *v /= values);
        Self { mean, variance }
    }

    /// The frozen ones.
    pub(super) fn frozen(norm: &BatchNorm) -> Self {
        Self { mean: norm.mean.data().to_vec(), variance: norm.var.data().to_vec() }
    }

    fn inverse_deviation(&self, norm: &BatchNorm) -> Vec<f32> {
        self.variance.iter().map(|v| (v + norm.eps).sqrt().recip()).collect()
    }
}

/// `gamma·(x − mean)/√(var + eps) + beta`.
pub(super) fn batch_norm(norm: &BatchNorm, statistics: &Statistics, x: &Value) -> Value {
    let inverse = statistics.inverse_deviation(norm);
    let mut y = x.like();
    for (y, (c, x)) in y.data.chunks_mut(x.plane()).zip(x.planes()) {
        let (mean, scale, shift) =
            (statistics.mean[c], norm.gamma.data()[c] * inverse[c], norm.beta.data()[c]);
        y.iter_mut().zip(x).for_each(|(y, x)| *y = (x - mean) * scale + shift);
    }
    y
}

/// Gradients of batch norm. With the statistics of the batch (`through`) they pass through those as well.
pub(super) fn batch_norm_backward(
    norm: &BatchNorm,
    statistics: &Statistics,
    through: bool,
    x: &Value,
    grad: &Value,
    [gamma, beta]: [Option<&mut [f32]>; 2],
) -> Value {
    let inverse = statistics.inverse_deviation(norm);
    // Per channel: Σ dy and Σ dy·x̂.
    let mut totals = vec![[0.0f32; 2]; x.channels];
    for ((c, x), (_, dy)) in x.planes().zip(grad.planes()) {
        let (mean, inverse) = (statistics.mean[c], inverse[c]);
        let [sum, product] = sums(x, dy, |x, d| [d, d * (x - mean) * inverse]);
        totals[c][0] += sum;
        totals[c][1] += product;
    }
    for (sink, which) in [(gamma, 1), (beta, 0)] {
        if let Some(sink) = sink {
            sink.iter_mut().zip(&totals).for_each(|(s, t)| *s += t[which]);
        }
    }
    let values = (x.count * x.plane()) as f32;
    let mut dx = x.like();
    for (dx, ((c, x), (_, dy))) in dx.data.chunks_mut(x.plane()).zip(x.planes().zip(grad.planes())) {
        let (mean, inverse) = (statistics.mean[c], inverse[c]);
        let scale = norm.gamma.data()[c] * inverse;
        if through {
            let [sum, product] = totals[c].map(|t| t / values);
            for (dx, (x, dy)) in dx.iter_mut().zip(x.iter().zip(dy)) {
                *dx = scale * (dy - sum - (x - mean) * inverse * product);
            }
        } else {
            dx.iter_mut().zip(dy).for_each(|(dx, dy)| *dx = scale * dy);
        }
    }
    dx
}
