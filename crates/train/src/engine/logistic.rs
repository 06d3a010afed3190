//! Multinomial logistic regression with a ridge: the one layer whose best weights can be had exactly, since its loss is convex.
//! Minimised by L-BFGS (Nocedal, Wright, Numerical Optimization, 2nd ed., algorithms 7.4 and 3.1).

use rayon::prelude::*;

/// Rows of a part whose sums are made together. Fixed, so that rounding does not depend on the number of cores.
const PART: usize = 64;
/// Pairs of steps and gradient changes that are kept.
const MEMORY: usize = 12;
const MOST_STEPS: usize = 200;
/// Done when no entry of the gradient is larger.
const FLAT: f64 = 1e-6;

/// Rows of features with their classes. Features are used standardised; weights are given back for those as they came.
pub(crate) struct Regression {
    /// `[N, D]`, standardised.
    rows: Vec<f64>,
    labels: Vec<u32>,
    classes: usize,
    mean: Vec<f64>,
    deviation: Vec<f64>,
}

/// Weights `[K, D]` and bias `[K]` for standardised features, flat, one after the other.
pub(crate) type Solution = Vec<f64>;

impl Regression {
    /// None without rows, or where a value is not finite.
    pub(crate) fn new(features: &[f32], labels: Vec<u32>, classes: usize) -> Option<Self> {
        let width = features.len().checked_div(labels.len()).filter(|&w| w > 0)?;
        let fits = width * labels.len() == features.len() && labels.iter().all(|&l| (l as usize) < classes);
        if !fits || features.iter().any(|v| !v.is_finite()) {
            return None;
        }
        let count = labels.len() as f64;
        let mut rows: Vec<f64> = features.iter().map(|&v| f64::from(v)).collect();
        let mut mean = vec![0.0; width];
        for row in rows.chunks(width) {
            mean.iter_mut().zip(row).for_each(|(m, v)| *m += v / count);
        }
        let mut deviation = vec![0.0; width];
        for row in rows.chunks(width) {
            let squares = row.iter().zip(&mean).map(|(v, m)| (v - m) * (v - m));
            deviation.iter_mut().zip(squares).for_each(|(d, s)| *d += s / count);
        }
        deviation.iter_mut().for_each(|d| *d = d.sqrt());
        // A feature that hardly changes on these images must not count by its rounding.
        let least = 1e-4 * deviation.iter().copied().fold(0.0, f64::max);
        if least == 0.0 {
            return None;
        }
        deviation.iter_mut().for_each(|d| *d = d.max(least));
        for row in rows.chunks_mut(width) {
            row.iter_mut().zip(mean.iter().zip(&deviation)).for_each(|(v, (m, d))| *v = (*v - m) / d);
        }
        Some(Self { rows, labels, classes, mean, deviation })
    }

    fn width(&self) -> usize {
        self.mean.len()
    }

    /// All weights zero.
    pub(crate) fn zero(&self) -> Solution {
        vec![0.0; self.classes * (self.width() + 1)]
    }

    /// The least of `mean cross-entropy + ridge/2·Σ w²` (biases are free), sought from `start`.
    pub(crate) fn fit(&self, ridge: f64, start: Solution) -> Solution {
        let mut at = start;
        let (mut value, mut gradient) = self.loss(ridge, &at);
        let mut past: Vec<(Vec<f64>, Vec<f64>)> = Vec::new();
        for _ in 0..MOST_STEPS {
            if gradient.iter().all(|g| g.abs() <= FLAT) {
                break;
            }
            let direction = downhill(&gradient, &past);
            let slope = dot(&gradient, &direction);
            let mut length =
                if past.is_empty() { 1.0 / dot(&gradient, &gradient).sqrt().max(1.0) } else { 1.0 };
            let found = loop {
                let next: Vec<f64> = at.iter().zip(&direction).map(|(x, d)| x + length * d).collect();
                let (next_value, next_gradient) = self.loss(ridge, &next);
                if next_value <= value + 1e-4 * length * slope {
                    break Some((next, next_value, next_gradient));
                }
                length *= 0.5;
                if length < 1e-10 {
                    break None;
                }
            };
            // No shorter step leads down any more: rounding is all that is left.
            let Some((next, next_value, next_gradient)) = found else { break };
            let step: Vec<f64> = next.iter().zip(&at).map(|(n, x)| n - x).collect();
            let change: Vec<f64> = next_gradient.iter().zip(&gradient).map(|(n, g)| n - g).collect();
            if dot(&step, &change) > 0.0 {
                past.push((step, change));
                if past.len() > MEMORY {
                    past.remove(0);
                }
            }
            (at, value, gradient) = (next, next_value, next_gradient);
        }
        at
    }

    /// The objective and its gradient.
    fn loss(&self, ridge: f64, at: &[f64]) -> (f64, Vec<f64>) {
        let (width, classes) = (self.width(), self.classes);
        let (weights, bias) = at.split_at(classes * width);
        let parts: Vec<(f64, Vec<f64>)> = self
            .rows
            .par_chunks(PART * width)
            .zip(self.labels.par_chunks(PART))
            .map(|(rows, labels)| {
                let (mut value, mut gradient) = (0.0, vec![0.0; at.len()]);
                for (row, &label) in rows.chunks(width).zip(labels) {
                    let scores = weights.chunks(width).zip(bias).map(|(w, b)| dot(w, row) + b);
                    let mut share: Vec<f64> = scores.collect();
                    let highest = share.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    value += highest - share[label as usize];
                    share.iter_mut().for_each(|s| *s = (*s - highest).exp());
                    let sum: f64 = share.iter().sum();
                    value += sum.ln();
                    share.iter_mut().for_each(|s| *s /= sum);
                    share[label as usize] -= 1.0;
                    let (by_weight, by_bias) = gradient.split_at_mut(classes * width);
                    for ((g, b), s) in by_weight.chunks_mut(width).zip(by_bias).zip(&share) {
                        g.iter_mut().zip(row).for_each(|(g, v)| *g += s * v);
                        *b += s;
                    }
                }
                (value, gradient)
            })
            .collect();
        let count = self.labels.len() as f64;
        let mut value = 0.5 * ridge * dot(weights, weights);
        let mut gradient: Vec<f64> = weights.iter().map(|w| ridge * w).collect();
        gradient.resize(at.len(), 0.0);
        for (part, slopes) in parts {
            value += part / count;
            gradient.iter_mut().zip(slopes).for_each(|(g, s)| *g += s / count);
        }
        (value, gradient)
    }

    /// Weights `[K, D]` and bias `[K]` of the same function for features as they came.
    pub(crate) fn unscaled(&self, solution: &[f64]) -> (Vec<f32>, Vec<f32>) {
        let (weights, bias) = solution.split_at(self.classes * self.width());
        let mut plain = Vec::with_capacity(weights.len());
        let mut constants = Vec::with_capacity(bias.len());
        for (row, b) in weights.chunks(self.width()).zip(bias) {
            let scaled: Vec<f64> = row.iter().zip(&self.deviation).map(|(w, d)| w / d).collect();
            constants.push((b - dot(&scaled, &self.mean)) as f32);
            plain.extend(scaled.iter().map(|&w| w as f32));
        }
        (plain, constants)
    }
}

/// The L-BFGS direction: the gradient times an estimate of the inverse Hessian from past steps, downwards.
fn downhill(gradient: &[f64], past: &[(Vec<f64>, Vec<f64>)]) -> Vec<f64> {
    let add = |to: &mut [f64], factor: f64, from: &[f64]| {
        to.iter_mut().zip(from).for_each(|(t, f)| *t += factor * f);
    };
    let mut direction: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut shares = Vec::with_capacity(past.len());
    for (step, change) in past.iter().rev() {
        let share = dot(step, &direction) / dot(step, change);
        add(&mut direction, -share, change);
        shares.push(share);
    }
    if let Some((step, change)) = past.last() {
        let scale = dot(step, change) / dot(change, change);
        direction.iter_mut().for_each(|d| *d *= scale);
    }
    for ((step, change), share) in past.iter().zip(shares.into_iter().rev()) {
        let back = dot(change, &direction) / dot(step, change);
        add(&mut direction, share - back, step);
    }
    direction
}

fn dot(left: &[f64], right: &[f64]) -> f64 {
    // Eight sums, so that the compiler may use vector registers without changing the order of additions.
    let mut sums = [0.0f64; 8];
    let (l, r) = (left.chunks_exact(8), right.chunks_exact(8));
    let tail: f64 = l.remainder().iter().zip(r.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in l.zip(r) {
        for (s, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *s += a * b;
        }
    }
    sums.iter().sum::<f64>() + tail
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{generator, uniform};

    fn problem(rows: usize, width: usize, classes: usize, seed: u64) -> Regression {
        let mut rng = generator(seed, "logistic", 0, 0);
        let features: Vec<f32> =
            (0..rows * width).map(|i| uniform(&mut rng, -1.0, 1.0) + (i % width) as f32).collect();
        let labels = features
            .chunks(width)
            .map(|row| {
                let best = (0..classes).max_by(|&l, &r| {
                    let score = |class: usize| row[class % width] - (class % width) as f32;
                    (score(l) + uniform(&mut rng, 0.0, 0.5)).total_cmp(&score(r))
                });
                best.unwrap_or(0) as u32
            })
            .collect();
        Regression::new(&features, labels, classes).unwrap()
    }

    #[test]
    fn the_gradient_agrees_with_differences() {
        let regression = problem(70, 5, 3, 1);
        let mut rng = generator(2, "point", 0, 0);
        let at: Vec<f64> =
            regression.zero().iter().map(|_| f64::from(uniform(&mut rng, -1.0, 1.0))).collect();
        let (_, gradient) = regression.loss(0.03, &at);
        for (index, slope) in gradient.iter().enumerate() {
            let moved = |by: f64| {
                let mut at = at.clone();
                at[index] += by;
                regression.loss(0.03, &at).0
            };
            let difference = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((difference - slope).abs() < 1e-7, "{index}: {difference} {slope}");
        }
    }

    #[test]
    fn the_fit_is_the_least_and_does_not_depend_on_its_start() {
        let regression = problem(200, 9, 4, 3);
        let ridge = 1e-2;
        let fitted = regression.fit(ridge, regression.zero());
        let (value, gradient) = regression.loss(ridge, &fitted);
        assert!(gradient.iter().all(|g| g.abs() < 1e-5), "{gradient:?}");
        assert!(value < 0.9 * f64::from(4.0f32.ln()), "{value}");
        let again = regression.fit(ridge, fitted.iter().map(|w| 0.5 - 2.0 * w).collect());
        let width = regression.width() * regression.classes;
        for (l, r) in fitted[..width].iter().zip(&again[..width]) {
            assert!((l - r).abs() < 1e-3, "{l} {r}");
        }
    }

    #[test]
    fn unscaled_weights_give_the_same_scores() {
        let mut rng = generator(4, "features", 0, 0);
        let features: Vec<f32> =
            (0..40 * 3).map(|i| 5.0 + (i % 3) as f32 * uniform(&mut rng, -1.0, 1.0)).collect();
        let labels = (0..40).map(|i| i % 2).collect();
        let regression = Regression::new(&features, labels, 2).unwrap();
        let solution = regression.fit(1e-2, regression.zero());
        let (weights, bias) = regression.unscaled(&solution);
        for (standard, row) in regression.rows.chunks(3).zip(features.chunks(3)) {
            for class in 0..2 {
                let expected = dot(&solution[class * 3..][..3], standard) + solution[6 + class];
                let own: f32 = row.iter().zip(&weights[class * 3..]).map(|(v, w)| v * w).sum();
                assert!((f64::from(own + bias[class]) - expected).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn what_cannot_be_fitted_is_refused() {
        assert!(Regression::new(&[], vec![], 2).is_none());
        assert!(Regression::new(&[1.0, f32::NAN], vec![0, 1], 2).is_none());
        assert!(Regression::new(&[1.0, 1.0], vec![0, 1], 2).is_none(), "nothing differs");
        assert!(Regression::new(&[1.0, 2.0], vec![0, 2], 2).is_none(), "no such class");
        assert!(Regression::new(&[1.0, 2.0, 3.0], vec![0, 1], 2).is_none(), "a broken row");
    }
}
