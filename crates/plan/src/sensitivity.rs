//! What an error in each value does to the scores, from derivatives at the calibration inputs.
//!
//! An error that enters a value as independent deviations σ of its elements x reaches a score y with the variance
//! σ²·Σ(∂y/∂x)², as long as it is small. The sum is taken by going back through the network from a score (reverse
//! differentiation), once for each image and score looked at; layouts do not change it, so once a network does for all of them.
//! Norms of weights multiplied layer by layer would bound the same from above, by many orders of magnitude in a deep network.

use polyveil_net::Tensor;

use crate::PlanError;
use crate::canonical::{Ir, IrId, IrKind, IrTerm};
use crate::sweep::{backwards, forwards, weight_products};
use crate::watch::{Stage, Watch};

/// Images gone back through: those with the largest values among all calibration inputs.
const IMAGES: usize = 2;
/// Images that are run slot by slot, for what lies in unused slots; most of them have the largest values.
const IN_SLOTS: usize = 4;
/// Up to so many scores are looked at one by one.
const ONE_BY_ONE: usize = 4;
/// Sums of all scores with random signs where they are more: the mean square of such a sum's derivative is the sum of the
/// scores' squared ones.
const PROBES: usize = 3;

/// What the calibration inputs show of a network, whatever its layout.
#[derive(Debug)]
pub(crate) struct Sensitivity {
    /// Largest magnitude of every value.
    pub ranges: Vec<f64>,
    /// The inputs with the largest values, these first.
    pub extremes: Vec<Tensor>,
    /// One for each image and score looked at.
    pub rows: Vec<Row>,
}

/// How the error of one score comes about, as factors of variances.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    /// By value: Σ(∂y/∂x)² over its elements.
    pub reach: Vec<f64>,
    /// By value that a linear operator makes, one a term.
    pub terms: Vec<Vec<TermReach>>,
}

/// What errors inside a linear operator do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TermReach {
    /// Of the operator's inputs, each time they are read: Σ(∂y/∂x)²·Σw² over its outputs.
    pub inputs: f64,
    /// Of its weights: Σ(∂y/∂w)². A weight errs alike wherever it is used.
    pub weights: f64,
}

impl Sensitivity {
    /// Runs the network on all `samples`, and back from the scores of some of them.
    ///
    /// # Errors
    /// [`PlanError::Overflow`] where a value is not finite; [`PlanError::Cancelled`].
    pub fn measure(ir: &Ir, samples: &[Tensor], watch: &Watch<'_>) -> Result<Self, PlanError> {
        let mut largest: Vec<Vec<f64>> = Vec::new();
        for (done, sample) in samples.iter().enumerate() {
            watch.enter(Stage::Ranges { done, of: samples.len() })?;
            largest.push(forwards(ir, sample).iter().map(|value| largest_of(value)).collect());
        }
        for (id, node) in ir.nodes.iter().enumerate() {
            let found = largest.iter().map(|image| image[id]).fold(0.0, f64::max);
            if !found.is_finite() {
                return Err(PlanError::Overflow { layer: node.name.clone(), found, limit: f64::MAX });
            }
        }
        watch.enter(Stage::Sensitivity)?;
        // How near to the largest of all images its values come, over all layers.
        let nodes = 0..ir.nodes.len();
        let ranges: Vec<f64> =
            nodes.map(|id| largest.iter().map(|image| image[id]).fold(f64::MIN_POSITIVE, f64::max)).collect();
        let near = |image: &Vec<f64>| -> f64 {
            image.iter().zip(&ranges).map(|(v, range)| (v / range).max(f64::MIN_POSITIVE).ln()).sum()
        };
        let mut order: Vec<(f64, usize)> = largest.iter().map(near).zip(0..).collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0));
        let extremes: Vec<Tensor> = order.iter().take(IN_SLOTS).map(|&(_, at)| samples[at].clone()).collect();
        let rows = extremes.iter().take(IMAGES).flat_map(|sample| of_image(ir, sample)).collect();
        Ok(Self { ranges, extremes, rows })
    }

    /// Variance of the worst score's error where element errors of value `id` have the variance `own(id, row)` gives, summed up;
    /// and the value that adds most to it.
    pub fn worst(&self, own: impl Fn(IrId, &Row) -> f64) -> (f64, IrId) {
        let mut worst = (0.0, 0);
        for row in &self.rows {
            let parts: Vec<f64> = (0..row.reach.len()).map(|id| own(id, row)).collect();
            let sum = parts.iter().sum::<f64>();
            if sum > worst.0 || sum.is_nan() {
                let most = parts.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
                worst = (sum, most.map_or(0, |(id, _)| id));
            }
        }
        worst
    }
}

fn largest_of(value: &[f64]) -> f64 {
    value.iter().fold(0.0, |m, v| if v.is_nan() { f64::INFINITY } else { m.max(v.abs()) })
}

/// The rows of one image.
fn of_image(ir: &Ir, sample: &Tensor) -> Vec<Row> {
    let values = forwards(ir, sample);
    let scores = values[ir.output].len();
    if scores <= ONE_BY_ONE {
        let one = |k: usize| (0..scores).map(|j| f64::from(u8::from(j == k))).collect::<Vec<f64>>();
        return (0..scores).map(|k| of_sum(ir, &values, one(k))).collect();
    }
    // The mean over the scores, raised to the one whose last weights are the largest.
    let share = spread(ir) / (scores * PROBES) as f64;
    let mut mean = Row::default();
    for probe in 0..PROBES {
        let signs = (0..scores).map(|k| sign(probe * scores + k)).collect();
        mean.add(&of_sum(ir, &values, signs), share);
    }
    vec![mean]
}

impl Row {
    fn add(&mut self, other: &Self, share: f64) {
        self.reach.resize(other.reach.len(), 0.0);
        self.terms.resize_with(other.terms.len(), Vec::new);
        for (sum, v) in self.reach.iter_mut().zip(&other.reach) {
            *sum += share * v;
        }
        for (sums, own) in self.terms.iter_mut().zip(&other.terms) {
            sums.resize(own.len(), TermReach::default());
            for (sum, v) in sums.iter_mut().zip(own) {
                sum.inputs += share * v.inputs;
                sum.weights += share * v.weights;
            }
        }
    }
}

/// The row of a sum of scores with these factors.
fn of_sum(ir: &Ir, values: &[Vec<f64>], factors: Vec<f64>) -> Row {
    let derivatives = backwards(ir, values, factors);
    let squares = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>();
    let terms = |id: IrId| match &ir.nodes[id].kind {
        IrKind::Linear { terms, .. } => {
            let one = |term: &IrTerm| {
                let plane = ir.nodes[id].shape[1] * ir.nodes[id].shape[2];
                let of = &derivatives[id][term.offset * plane..][..term.op.output[0] * plane];
                TermReach {
                    inputs: through(term, of),
                    weights: weight_products(&term.op, &values[term.value], of),
                }
            };
            terms.iter().map(one).collect()
        }
        _ => Vec::new(),
    };
    Row {
        reach: derivatives.iter().map(|d| squares(d)).collect(),
        terms: (0..ir.nodes.len()).map(terms).collect(),
    }
}

/// Σd²·Σw² over the outputs of a term; windows that hang over the border count whole.
fn through(term: &IrTerm, derivatives: &[f64]) -> f64 {
    let op = &term.op;
    let plane = op.output[1] * op.output[2];
    let each = op.weight.len() / op.output[0].max(1);
    let channels = derivatives.chunks(plane.max(1)).zip(op.weight.chunks(each.max(1)));
    let of = |(derivatives, weights): (&[f64], &[f32])| {
        let scale = |at: usize| op.position_scale.as_ref().map_or(1.0, |s| f64::from(s[at]));
        let sum: f64 = derivatives.iter().enumerate().map(|(at, d)| (d * scale(at)).powi(2)).sum();
        sum * weights.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>()
    };
    channels.map(of).sum()
}

/// Σw² of the score that has the largest, over the mean of all scores.
fn spread(ir: &Ir) -> f64 {
    let IrKind::Linear { terms, .. } = &ir.nodes[ir.output].kind else { return 1.0 };
    let mut norms = vec![0.0; ir.nodes[ir.output].shape[0]];
    for term in terms {
        let each = term.op.weight.len() / term.op.output[0].max(1);
        for (norm, weights) in norms[term.offset..].iter_mut().zip(term.op.weight.chunks(each.max(1))) {
            *norm += weights.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>();
        }
    }
    let mean = norms.iter().sum::<f64>() / norms.len() as f64;
    if mean > 0.0 { norms.iter().copied().fold(0.0, f64::max) / mean } else { 1.0 }
}

/// One of two signs, as good as random and the same everywhere (splitmix64).
fn sign(k: usize) -> f64 {
    let mut z = (k as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    if (z >> 63) == 0 { 1.0 } else { -1.0 }
}

#[cfg(test)]
mod tests {
    use polyveil_net::builders::{ConvSpec, GraphBuilder, PoolSpec};
    use polyveil_net::{Graph, Op, Quadratic, exec};

    use super::*;
    use crate::canonical::canonicalise;

    fn network(scores: usize) -> Graph {
        let mut b = GraphBuilder::new("n", &[2, 6, 5], 3);
        let x = b.input();
        let x = b.conv("conv", x, 3, ConvSpec::new(3).pad(1));
        let t = |v: [f32; 3]| Tensor::new(vec![3], v.to_vec()).unwrap();
        let quadratic = Quadratic { a: t([0.3, -0.2, 0.0]), b: t([0.5, 1.0, 0.7]), c: t([0.1, 0.0, 0.2]) };
        let x = b.push("act", Op::Quadratic(quadratic), vec![x]);
        let x = b.avg_pool("pool", x, PoolSpec::new(2).stride(2));
        let x = b.flatten("flat", x);
        let x = b.linear("fc", x, scores);
        b.finish(x).unwrap()
    }

    fn sample(factor: f32) -> Tensor {
        let data = (0..60).map(|k| factor * ((k * 37 % 29) as f32 / 14.0 - 1.0)).collect();
        Tensor::new(vec![2, 6, 5], data).unwrap()
    }

    /// Squared derivative of every score by every element of the input, from differences.
    fn squares(graph: &Graph, at: &Tensor, scores: usize) -> Vec<f64> {
        let mut sums = vec![0.0; scores];
        for k in 0..at.len() {
            let moved = |by: f32| {
                let mut x = at.clone();
                x.data_mut()[k] += by;
                exec::run(graph, &x).unwrap()
            };
            // Scores are quadratic, so that central differences are exact but for rounding.
            let (up, down) = (moved(0.5), moved(-0.5));
            for (sum, (u, d)) in sums.iter_mut().zip(up.data().iter().zip(down.data())) {
                *sum += f64::from(u - d).powi(2);
            }
        }
        sums
    }

    #[test]
    fn errors_of_the_input_reach_the_scores_by_their_derivatives() {
        let graph = network(3);
        let ir = canonicalise(&graph).unwrap();
        let found = Sensitivity::measure(&ir, &[sample(0.1), sample(1.0)], &Watch(&|_| true)).unwrap();
        // The image with the larger values first, a row for each score.
        assert_eq!(found.extremes[0], sample(1.0));
        assert_eq!(found.rows.len(), 6);
        for (image, rows) in [sample(1.0), sample(0.1)].iter().zip(found.rows.chunks(3)) {
            for (row, expected) in rows.iter().zip(squares(&graph, image, 3)) {
                assert!((row.reach[0] / expected - 1.0).abs() < 1e-3, "{} {expected}", row.reach[0]);
            }
        }
        let largest =
            exec::run(&graph, &sample(1.0)).unwrap().data().iter().fold(0f32, |m, v| m.max(v.abs()));
        assert!((found.ranges[ir.output] / f64::from(largest) - 1.0).abs() < 1e-5);
        let (worst, id) = found.worst(|id, row| if id == 0 { row.reach[0] } else { 0.0 });
        let expected = squares(&graph, &sample(1.0), 3).into_iter().fold(0.0, f64::max);
        assert!((worst / expected - 1.0).abs() < 1e-3 && id == 0);
    }

    #[test]
    fn random_sums_of_many_scores_are_near_the_worst_one() {
        let graph = network(40);
        let ir = canonicalise(&graph).unwrap();
        let found = Sensitivity::measure(&ir, &[sample(1.0)], &Watch(&|_| true)).unwrap();
        assert_eq!(found.rows.len(), 1);
        let worst = squares(&graph, &sample(1.0), 40).into_iter().fold(0.0, f64::max);
        let ratio = found.rows[0].reach[0] / worst;
        assert!((0.4..2.5).contains(&ratio), "{ratio}");
    }

    #[test]
    fn values_that_are_not_finite_are_named() {
        let ir = canonicalise(&network(3)).unwrap();
        let mut image = sample(1.0);
        image.data_mut()[3] = f32::NAN;
        let error = Sensitivity::measure(&ir, &[sample(1.0), image], &Watch(&|_| true)).unwrap_err();
        assert!(matches!(&error, PlanError::Overflow { layer, .. } if !layer.is_empty()), "{error}");
    }
}
