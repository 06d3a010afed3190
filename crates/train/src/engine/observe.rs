//! Statistics of the values that activations see, per channel and in bounded memory.

use polyveil_net::{Graph, NodeId};
use rayon::prelude::*;

use super::{ForwardOptions, Value, infer_observed};

/// Bins of `|x|` by exponent and four bits of mantissa: 6 % apart, whatever the size.
const BINS: usize = 1 << 12;

/// Statistics of one channel.
#[derive(Clone, Debug)]
pub(crate) struct ChannelStats {
    /// Values seen.
    pub(crate) count: u64,
    /// Smallest value.
    pub(crate) min: f32,
    /// Largest value.
    pub(crate) max: f32,
    /// `Σ x^k` for k = 1 to 4.
    pub(crate) powers: [f64; 4],
    /// `Σ max(x, 0)·x^k` for k = 0 to 2.
    pub(crate) relu: [f64; 3],
    bins: Vec<u32>,
}

impl Default for ChannelStats {
    fn default() -> Self {
        Self {
            count: 0,
            min: f32::INFINITY,
            max: f32::NEG_INFINITY,
            powers: [0.0; 4],
            relu: [0.0; 3],
            bins: vec![0; BINS],
        }
    }
}

impl ChannelStats {
    pub(crate) fn add(&mut self, value: f32) {
        self.count += 1;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        let x = f64::from(value);
        let square = x * x;
        for (sum, power) in self.powers.iter_mut().zip([x, square, square * x, square * square]) {
            *sum += power;
        }
        if x > 0.0 {
            for (sum, power) in self.relu.iter_mut().zip([x, square, square * x]) {
                *sum += power;
            }
        }
        let bin = &mut self.bins[(value.abs().to_bits() >> 19) as usize];
        *bin = bin.saturating_add(1);
    }

    /// Takes in values `x` with targets `t`, whose sums `Σ t·x^k` take the place of those of ReLU. No quantiles.
    pub(super) fn add_pairs(&mut self, x: &[f32], t: &[f32]) {
        self.count += x.len() as u64;
        for (&x, &t) in x.iter().zip(t) {
            self.min = self.min.min(x);
            self.max = self.max.max(x);
            let (x, t) = (f64::from(x), f64::from(t));
            let square = x * x;
            let powers = self.powers.iter_mut().zip([x, square, square * x, square * square]);
            powers.for_each(|(sum, power)| *sum += power);
            let products = self.relu.iter_mut().zip([t, t * x, t * square]);
            products.for_each(|(sum, product)| *sum += product);
        }
    }

    pub(crate) fn mean(&self) -> f64 {
        self.powers[0] / self.count.max(1) as f64
    }

    /// Root of the mean square.
    pub(crate) fn rms(&self) -> f64 {
        (self.powers[1] / self.count.max(1) as f64).sqrt()
    }

    pub(crate) fn variance(&self) -> f64 {
        (self.powers[1] / self.count.max(1) as f64 - self.mean().powi(2)).max(0.0)
    }

    /// A value that the share `quantile` of all `|x|` does not exceed: the upper edge of its bin,
    /// so at most 6 % too large.
    pub(crate) fn abs_quantile(&self, quantile: f64) -> f32 {
        let due = (quantile * self.count as f64).ceil() as u64;
        let mut seen = 0u64;
        for (bin, &count) in self.bins.iter().enumerate() {
            seen += u64::from(count);
            if seen >= due && count > 0 {
                let edge = f32::from_bits(((bin as u32 + 1) << 19) - 1);
                return edge.min(self.max_abs());
            }
        }
        self.max_abs()
    }

    /// At least this share of all `|x|` is within `bound`: bins that reach beyond it count as outside,
    /// so the share is exact where the bound is a power of two.
    pub(crate) fn share_within(&self, bound: f32) -> f64 {
        // Extremes leave NaN out; the bins from infinity on hold it.
        let edge = if self.max_abs() <= bound { f32::INFINITY } else { bound.max(0.0) };
        let inside = (edge.to_bits() >> 19) as usize;
        let count: u64 = self.bins.iter().take(inside).map(|&n| u64::from(n)).sum();
        count as f64 / self.count.max(1) as f64
    }

    pub(crate) fn max_abs(&self) -> f32 {
        if self.count == 0 { 0.0 } else { self.max.abs().max(self.min.abs()) }
    }

    /// Turns the statistics of `x` into those of `x / size`. Counts of quantiles are dropped.
    pub(crate) fn rescale(&mut self, size: f32) {
        self.min /= size;
        self.max /= size;
        let size = f64::from(size);
        for (k, sum) in (1..).zip(&mut self.powers) {
            *sum /= size.powi(k);
        }
        for (k, sum) in (1..).zip(&mut self.relu) {
            *sum /= size.powi(k);
        }
        self.bins.fill(0);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.powers.iter_mut().zip(other.powers).for_each(|(l, r)| *l += r);
        self.relu.iter_mut().zip(other.relu).for_each(|(l, r)| *l += r);
        self.bins.iter_mut().zip(&other.bins).for_each(|(l, r)| *l = l.saturating_add(*r));
    }
}

/// Statistics of one layer, channel by channel.
#[derive(Clone, Debug, Default)]
pub(crate) struct LayerStats {
    /// One entry a channel (a feature, for vectors).
    pub(crate) channels: Vec<ChannelStats>,
}

impl LayerStats {
    /// Takes in a batch of values of this layer.
    pub(crate) fn add(&mut self, value: &Value) {
        self.channels.resize_with(value.channels.max(self.channels.len()), ChannelStats::default);
        let (plane, image) = (value.plane(), value.image());
        self.channels.par_iter_mut().enumerate().take(value.channels).for_each(|(index, channel)| {
            for image in value.data.chunks(image) {
                image[index * plane..(index + 1) * plane].iter().for_each(|&v| channel.add(v));
            }
        });
    }

    /// All channels together.
    pub(crate) fn whole(&self) -> ChannelStats {
        let mut sum = ChannelStats::default();
        self.channels.iter().for_each(|c| sum.merge(c));
        sum
    }
}

/// The first node, in graph order, that yields a value that is not finite on these images.
pub(crate) fn first_non_finite(
    graph: &Graph,
    images: &[f32],
    shape: [usize; 3],
    options: &ForwardOptions,
) -> Option<NodeId> {
    let mut first: Option<NodeId> = None;
    infer_observed(graph, images, shape, options, &mut |node, _, value| {
        if first.is_none_or(|f| node < f) && value.max_abs().is_infinite() {
            first = Some(node);
        }
    })?;
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_quantiles_of_a_known_set() {
        let mut stats = ChannelStats::default();
        (1..=1000).for_each(|i| stats.add(if i % 2 == 0 { i as f32 } else { -(i as f32) }));
        assert_eq!((stats.count, stats.min, stats.max), (1000, -999.0, 1000.0));
        assert!((stats.mean() - 0.5).abs() < 1e-9);
        assert!((stats.rms() - (1001.0f64 * 2001.0 / 6.0).sqrt()).abs() < 1e-6);
        for quantile in [0.1, 0.5, 0.9, 0.999] {
            let found = f64::from(stats.abs_quantile(quantile));
            let exact = quantile * 1000.0;
            assert!(found >= exact && found <= exact * 1.07, "{quantile}: {found}");
        }
        assert_eq!(stats.abs_quantile(1.0), 1000.0);
    }

    #[test]
    fn the_share_within_a_bound_is_exact_at_powers_of_two_and_never_too_large() {
        let mut stats = ChannelStats::default();
        (1..=1000).for_each(|i| stats.add(if i % 2 == 0 { i as f32 } else { -(i as f32) }));
        assert_eq!(stats.share_within(512.0), 0.511);
        assert_eq!(stats.share_within(1000.0), 1.0);
        for bound in [3.0, 100.0, 700.5, 999.0] {
            let share = stats.share_within(bound);
            assert!(
                share <= f64::from(bound) / 1000.0 && share > 0.9 * f64::from(bound) / 1000.0 - 0.002,
                "{share}"
            );
        }
        stats.add(f32::NAN);
        assert!(stats.share_within(2000.0) < 1.0);
    }

    #[test]
    fn an_empty_channel_has_no_size() {
        let stats = ChannelStats::default();
        assert_eq!((stats.max_abs(), stats.abs_quantile(0.999), stats.rms()), (0.0, 0.0, 0.0));
    }
}
