//! Coefficients that a quadratic begins with.

use polyveil_net::{Quadratic, Tensor};

use crate::config::{Granularity, StartCoefficients};
use crate::engine::{ChannelStats, LayerStats};

/// How to choose start coefficients for one layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    /// Rule; `Auto` acts as `LeastSquares`.
    pub(super) kind: StartCoefficients,
    /// `R` of the bounded start, in units.
    pub(super) range: f32,
    /// Size of one unit of the input.
    pub(super) unit: f32,
}

impl Start {
    /// One triple a channel or one for the layer.
    pub(super) fn coefficients(&self, layer: &LayerStats, per: Granularity) -> Quadratic {
        let triples: Vec<[f32; 3]> = match per {
            Granularity::Channel => layer.channels.iter().map(|c| self.triple(c)).collect(),
            Granularity::Layer => vec![self.triple(&layer.whole())],
        };
        let [a, b, c] = [0, 1, 2].map(|k| {
            let values: Vec<f32> = triples.iter().map(|t| t[k]).collect();
            let mut tensor = Tensor::full(vec![values.len()], 0.0);
            tensor.data_mut().copy_from_slice(&values);
            tensor
        });
        Quadratic { a, b, c }
    }

    fn triple(&self, stats: &ChannelStats) -> [f32; 3] {
        let unit = self.unit;
        match self.kind {
            StartCoefficients::Hermite => [0.1995 / unit, 0.5, 0.1995 * unit],
            StartCoefficients::SmallA => self.small_a(),
            StartCoefficients::Identity => [0.0, 1.0, 0.0],
            StartCoefficients::Square => [1.0, 0.0, 0.0],
            StartCoefficients::Bounded => {
                bounded(stats, 0.5 / (self.range * self.unit)).unwrap_or_else(|| self.small_a())
            }
            StartCoefficients::LeastSquares | StartCoefficients::Auto => {
                least_squares(stats).unwrap_or_else(|| self.small_a())
            }
        }
    }

    /// `0.5/R·x² + 0.5·x + R/16`: at ±R it is within R, so it cannot blow values up.
    fn small_a(&self) -> [f32; 3] {
        let range = self.range * self.unit;
        [0.5 / range, 0.5, range / 16.0]
    }
}

/// The quadratic nearest to ReLU, in the mean square over the values seen. None when fewer than
/// three different values were seen.
pub(crate) fn least_squares(stats: &ChannelStats) -> Option<[f32; 3]> {
    let n = stats.count as f64;
    let [s1, s2, s3, s4] = stats.powers;
    let [r0, r1, r2] = stats.relu;
    // Solved for x in units of its rms, so that the pivots are of one size.
    let u = stats.rms();
    if !(u.is_finite() && u > 1e-12) {
        return None;
    }
    let (u2, u3, u4) = (u * u, u * u * u, u * u * u * u);
    let rows = [
        [s4 / u4, s3 / u3, s2 / u2, r2 / u3],
        [s3 / u3, s2 / u2, s1 / u, r1 / u2],
        [s2 / u2, s1 / u, n, r0 / u],
    ];
    let [a, b, c] = solve(rows.map(|row| row.map(|v| v / n)))?;
    // p(x) = u·q(x/u)
    let triple = [a / u, b, c * u].map(|v| v as f32);
    triple.iter().all(|v| v.is_finite()).then_some(triple)
}

/// The same among those with `|a|` at most `limit`.
fn bounded(stats: &ChannelStats, limit: f32) -> Option<[f32; 3]> {
    let free = least_squares(stats)?;
    if free[0].abs() <= limit {
        return Some(free);
    }
    // The best line through what is left once the square has been taken off.
    let n = stats.count as f64;
    let [m1, m2, m3, _] = stats.powers.map(|p| p / n);
    let [r0, r1, _] = stats.relu.map(|r| r / n);
    let a = f64::from(limit.copysign(free[0]));
    let variance = m2 - m1 * m1;
    if variance <= 1e-12 * m2 {
        return None;
    }
    let b = ((r1 - r0 * m1) - a * (m3 - m2 * m1)) / variance;
    let c = r0 - a * m2 - b * m1;
    let triple = [a, b, c].map(|v| v as f32);
    triple.iter().all(|v| v.is_finite()).then_some(triple)
}

/// Gaussian elimination with row exchange on three equations.
fn solve(mut rows: [[f64; 4]; 3]) -> Option<[f64; 3]> {
    for column in 0..3 {
        let pivot = (column..3).max_by(|&l, &r| rows[l][column].abs().total_cmp(&rows[r][column].abs()))?;
        rows.swap(column, pivot);
        if rows[column][column].abs() < 1e-9 {
            return None;
        }
        for row in 0..3 {
            if row != column {
                let factor = rows[row][column] / rows[column][column];
                let source = rows[column];
                rows[row].iter_mut().zip(source).for_each(|(v, s)| *v -= factor * s);
            }
        }
    }
    Some([0, 1, 2].map(|k| rows[k][3] / rows[k][k]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{generator, normal};

    fn stats(values: impl IntoIterator<Item = f32>) -> ChannelStats {
        let mut stats = ChannelStats::default();
        values.into_iter().for_each(|v| stats.add(v));
        stats
    }

    #[test]
    fn the_fit_to_a_unit_normal_is_the_hermite_one() {
        let mut rng = generator(1, "t", 0, 0);
        let triple = least_squares(&stats((0..200_000).map(|_| normal(&mut rng)))).unwrap();
        for (found, expected) in triple.iter().zip([0.1995, 0.5, 0.1995]) {
            assert!((found - expected).abs() < 0.01, "{triple:?}");
        }
    }

    #[test]
    fn the_fit_scales_with_the_input() {
        let values: Vec<f32> = (-50..=50).map(|i| i as f32 * 0.1).collect();
        let small = least_squares(&stats(values.iter().copied())).unwrap();
        let large = least_squares(&stats(values.iter().map(|v| v * 1000.0))).unwrap();
        for (found, expected) in large.iter().zip([small[0] / 1000.0, small[1], small[2] * 1000.0]) {
            assert!((found / expected - 1.0).abs() < 1e-4, "{large:?} {small:?}");
        }
    }

    #[test]
    fn positive_values_fit_the_identity_and_constants_do_not_fit() {
        let [a, b, c] = least_squares(&stats((1..100).map(|i| i as f32))).unwrap();
        assert!(a.abs() < 1e-4 && (b - 1.0).abs() < 1e-3 && c.abs() < 1e-1, "{a} {b} {c}");
        assert_eq!(least_squares(&stats([2.0; 10])), None);
        assert_eq!(least_squares(&stats([0.0; 10])), None);
        assert_eq!(least_squares(&ChannelStats::default()), None);
    }

    #[test]
    fn a_bounded_fit_is_the_best_one_within_its_limit() {
        let mut rng = generator(2, "t", 0, 0);
        let values: Vec<f32> = (0..20_000).map(|_| normal(&mut rng) - 0.3).collect();
        let stats = stats(values.iter().copied());
        assert_eq!(bounded(&stats, 1.0), least_squares(&stats));
        let error = |[a, b, c]: [f32; 3]| {
            values.iter().map(|x| f64::from(a * x * x + b * x + c - x.max(0.0)).powi(2)).sum::<f64>()
        };
        let best = bounded(&stats, 0.1).unwrap();
        assert_eq!(best[0], 0.1);
        for change in
            [[0.0, 0.01, 0.0], [0.0, -0.01, 0.0], [0.0, 0.0, 0.01], [0.0, 0.0, -0.01], [-0.01, 0.0, 0.0]]
        {
            let other = std::array::from_fn(|k| best[k] + change[k]);
            assert!(error(other) > error(best), "{change:?}");
        }
    }

    #[test]
    fn the_bounded_start_stays_within_its_range() {
        let start = Start { kind: StartCoefficients::SmallA, range: 8.0, unit: 2.0 };
        let [a, b, c] = start.small_a();
        for x in [-16.0f32, -8.0, 0.0, 8.0, 16.0] {
            assert!((a * x * x + b * x + c).abs() <= 17.0 + 1e-3, "{x}");
        }
    }
}
