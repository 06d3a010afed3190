//! Batch norm with frozen statistics and with those of the batch, forward and backward.

use polyveil_net::BatchNorm;

use super::value::Value;
use super::wide::{map, map2, sums};

/// Mean and (biased) variance of every channel over a batch.
pub(super) struct Statistics {
    pub(super) mean: Vec<f32>,
    pub(super) variance: Vec<f32>,
}

impl Statistics {
    /// Those of `x`. Two passes: the mean first, so that the variance does not cancel. Channel by channel, so that the
    /// second finds the values in a cache.
    pub(super) fn of(x: &Value) -> Self {
        let values = (x.count * x.plane()) as f32;
        let of_channel = |c| {
            let total = |f: &dyn Fn(&[f32]) -> f32| x.channel(c).map(f).sum::<f32>() / values;
            let mean = total(&|map| sums(map, map, |v, _| [v])[0]);
            (mean, total(&|map| sums(map, map, |v, _| [(v - mean) * (v - mean)])[0]))
        };
        let (mean, variance) = (0..x.channels).map(of_channel).unzip();
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
        map(y, x, |x| (x - mean) * scale + shift);
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
    let values = (x.count * x.plane()) as f32;
    let mut dx = x.like();
    let mut sinks = [(gamma, 1), (beta, 0)];
    for c in 0..x.channels {
        let (mean, inverse) = (statistics.mean[c], inverse[c]);
        // Σ dy and Σ dy·x̂.
        let mut totals = [0.0f32; 2];
        for (x, dy) in x.channel(c).zip(grad.channel(c)) {
            let terms = sums(x, dy, |x, d| [d, d * (x - mean) * inverse]);
            totals.iter_mut().zip(terms).for_each(|(total, term)| *total += term);
        }
        for (sink, which) in &mut sinks {
            if let Some(sink) = sink {
                sink[c] += totals[*which];
            }
        }
        let scale = norm.gamma.data()[c] * inverse;
        let [sum, product] = totals.map(|t| t / values);
        for (dx, (x, dy)) in dx.channel_mut(c).zip(x.channel(c).zip(grad.channel(c))) {
            if through {
                map2(dx, x, dy, |x, dy| scale * (dy - sum - (x - mean) * inverse * product));
            } else {
                map(dx, dy, |dy| scale * dy);
            }
        }
    }
    dx
}
