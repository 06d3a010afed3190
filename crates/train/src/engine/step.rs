//! One training step: loss, its parts, and the gradient of every parameter.

use polyveil_net::{Graph, NodeId, Op};
use rayon::prelude::*;

use super::features::{Features, matching};
use super::pass::{Network, Pull, Trained, backward, forward};
use super::value::Buffer;
use super::{ForwardOptions, PIECE, ParameterId, parameter};

/// A step is cut into this many parts that run side by side. Fixed, so that a result does not
/// depend on the number of cores.
const PARTS: usize = 2;

/// Images and targets of one step.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// `[C, H, W]`.
    pub(crate) shape: [usize; 3],
    /// Pre-processed images, one after another.
    pub(crate) images: Vec<f32>,
    /// Class of each image.
    pub(crate) labels: Vec<u32>,
    /// Class of what is mixed into each image, and its share; empty where nothing is.
    pub(crate) mixed: Vec<(u32, f32)>,
}

impl Batch {
    /// Mixes a share of the next image (of the first into the last) into each one.
    pub(crate) fn mix(&mut self, shares: &[f32]) {
        let size = self.shape.iter().product::<usize>().max(1);
        let count = self.labels.len();
        let first = self.images.get(..size).map(<[f32]>::to_vec).unwrap_or_default();
        for (index, &share) in shares.iter().enumerate() {
            let (image, rest) = self.images[index * size..].split_at_mut(size);
            let other = rest.get(..size).unwrap_or(&first);
            image.iter_mut().zip(other).for_each(|(value, other)| *value += share * (other - *value));
        }
        self.mixed =
            shares.iter().enumerate().map(|(i, &share)| (self.labels[(i + 1) % count], share)).collect();
    }

    /// Share of a class in the label of an image.
    fn share(&self, image: usize, class: usize) -> f32 {
        let is = |label: u32| f32::from(u8::from(label as usize == class));
        let own = is(self.labels[image]);
        self.mixed.get(image).map_or(own, |&(other, share)| own + share * (is(other) - own))
    }
}

/// Target distributions, `[N, classes]`, with their weight in the loss.
#[derive(Clone, Debug)]
pub(crate) struct Soft {
    /// Probabilities, a row an image; none: those of the reference network whose features are matched.
    pub(crate) targets: Option<Vec<f32>>,
    /// Scores are divided by this before the softmax.
    pub(crate) temperature: f32,
    /// Factor on the term `T²·KL`.
    pub(crate) weight: f32,
}

/// What a step yields. Sums over images are divided by the number of images.
#[derive(Clone, Debug, Default)]
pub(crate) struct StepOutput {
    /// All terms, weighted.
    pub(crate) loss: f32,
    /// Cross-entropy with the labels.
    pub(crate) cross_entropy: f32,
    /// `T²·KL(teacher/T ‖ student/T)`.
    pub(crate) distillation: f32,
    /// Range penalty.
    pub(crate) penalty: f32,
    /// Distance of features to those of the reference network.
    pub(crate) features: f32,
    /// Images whose largest score is that of their class.
    pub(crate) correct: usize,
    /// One vector a parameter, in the order asked for.
    pub(crate) gradients: Vec<Buffer>,
    /// Mean and variance of every batch norm, averaged over the parts.
    pub(crate) statistics: Vec<(NodeId, Vec<f32>, Vec<f32>)>,
}

/// Weights of the terms of the loss.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms<'a> {
    /// Factor on the cross-entropy.
    pub(crate) cross_entropy: f32,
    /// Share of the target spread over all classes.
    pub(crate) smoothing: f32,
    /// The teacher's distributions.
    pub(crate) soft: Option<&'a Soft>,
    /// Factor on the range penalty.
    pub(crate) penalty: f32,
    /// The network whose features are matched.
    pub(crate) features: Option<Features<'a>>,
    /// From here on the loss of an image grows as a logarithm only: `c·(1 + ln(L/c))`, which has the gradient of `L` times `c/L`. Else
    /// one image whose values escape outweighs all others of the step. Infinite: never.
    pub(crate) most: f32,
}

impl Terms<'_> {
    /// No term at all, and no image held back.
    pub(crate) const NONE: Terms<'static> = Terms {
        cross_entropy: 0.0,
        smoothing: 0.0,
        soft: None,
        penalty: 0.0,
        features: None,
        most: f32::INFINITY,
    };

    /// Weighs images by their losses, adds up what they come to, and takes the weights into the gradients `scores` (a row an image)
    /// already has. Yields the weights, and those of the penalty, both over the images of the whole step.
    pub(super) fn weigh(
        &self,
        own: &[f32],
        (penalties, distances): (&[f32], &[f32]),
        scores: &mut [f32],
        total: f32,
        output: &mut StepOutput,
    ) -> [Vec<f32>; 2] {
        let pull = self.features.map_or(0.0, |f| f.weight);
        let at = |list: &[f32], image: usize| list.get(image).copied().unwrap_or(0.0);
        let mut shares = Vec::with_capacity(own.len());
        let rows = scores.chunks_mut((scores.len() / own.len().max(1)).max(1));
        for (image, (own, row)) in own.iter().zip(rows).enumerate() {
            let (penalty, distance) = (at(penalties, image), at(distances, image));
            // A term that is off must not make a loss of its own infinity.
            let weighted = |weight: f32, term: f32| if weight > 0.0 { weight * term } else { 0.0 };
            let loss = own + weighted(self.penalty, penalty) + weighted(pull, distance);
            let far = loss > self.most;
            let weight = if far { self.most / loss } else { 1.0 };
            output.penalty += penalty / total;
            output.features += distance / total;
            let counted = if far { self.most * (1.0 + (loss / self.most).ln()) } else { loss };
            output.loss += counted / total;
            if far {
                row.iter_mut().for_each(|g| *g *= weight);
            }
            shares.push(weight / total);
        }
        let penalties = shares.iter().map(|share| self.penalty * share).collect();
        [shares, penalties]
    }
}

/// Probabilities `softmax(scores / temperature)`, row by row; the teacher's side of distillation.
pub(crate) fn soft_targets(scores: &[f32], classes: usize, temperature: f32) -> Vec<f32> {
    let mut out = Vec::with_capacity(scores.len());
    for row in scores.chunks(classes.max(1)) {
        let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers: Vec<f32> = row.iter().map(|&s| ((s - highest) / temperature).exp()).collect();
        let sum: f32 = powers.iter().sum();
        out.extend(powers.iter().map(|p| p / sum));
    }
    out
}

/// Loss and gradients of one batch. None when the graph is not well formed.
pub(crate) fn gradient_step(
    graph: &Graph,
    trainable: &[ParameterId],
    batch: &Batch,
    terms: Terms<'_>,
    options: &ForwardOptions,
) -> Option<StepOutput> {
    let total = batch.labels.len();
    let per_part = total.div_ceil(PARTS).max(1);
    let ranges: Vec<_> = (0..total).step_by(per_part).map(|s| s..(s + per_part).min(total)).collect();
    let network = Network::new(graph, &batch.shape)?;
    let reference = match terms.features {
        Some(features) => Some(Network::new(features.reference, &batch.shape)?),
        None => None,
    };
    let trained = Trained::new(graph, trainable);
    let zeros =
        || trainable.iter().map(|&id| Buffer::zeros(parameter(graph, id).map_or(0, |t| t.len()))).collect();
    let outputs: Vec<Option<StepOutput>> = ranges
        .into_par_iter()
        .map(|range| part_step(&network, reference.as_ref(), &trained, batch, range, terms, options, zeros()))
        .collect();
    // Summed in order, so that rounding is the same in every run.
    let count = outputs.len() as f32;
    let mut sum: Option<StepOutput> = None;
    for output in outputs {
        let output = output?;
        sum = Some(match sum {
            None => output,
            Some(sum) => add(sum, output),
        });
    }
    let mut sum = sum?;
    for (_, mean, variance) in &mut sum.statistics {
        mean.iter_mut().chain(variance.iter_mut()).for_each(|v| *v /= count);
    }
    Some(sum)
}

fn add(mut left: StepOutput, right: StepOutput) -> StepOutput {
    left.loss += right.loss;
    left.cross_entropy += right.cross_entropy;
    left.distillation += right.distillation;
    left.penalty += right.penalty;
    left.features += right.features;
    left.correct += right.correct;
    let accumulate = |l: &mut [f32], r: &[f32]| l.iter_mut().zip(r).for_each(|(l, r)| *l += r);
    for (l, r) in left.gradients.iter_mut().zip(&right.gradients) {
        l.par_chunks_mut(PIECE).zip(r.par_chunks(PIECE)).for_each(|(l, r)| accumulate(l, r));
    }
    for ((_, mean, variance), (_, other_mean, other_variance)) in
        left.statistics.iter_mut().zip(&right.statistics)
    {
        accumulate(mean, other_mean);
        accumulate(variance, other_variance);
    }
    left
}

/// Numbers that the values of the images of one pass may fill: what stays in outer caches. A fixed figure, so
/// that a result does not depend on the machine.
const PASS_VALUES: usize = 1 << 22;

/// Weights of fully connected layers from which a pass takes as many images as there are: each pass reads
/// all of them.
const HEAVY: usize = 1 << 20;

/// Images of one pass.
pub(super) fn images_at_once(network: &Network<'_>, count: usize, options: &ForwardOptions) -> usize {
    let linear = network.graph.nodes.iter().filter_map(|n| match &n.op {
        Op::Linear(l) => Some(l.weight.len()),
        _ => None,
    });
    let most = if options.batch_statistics {
        count
    } else if linear.sum::<usize>() > HEAVY {
        HEAVY_AT_ONCE
    } else {
        PASS_VALUES / network.values_per_image().max(1)
    };
    most.clamp(1, count.max(1))
}

/// Images of one pass where fully connected layers are heavy.
const HEAVY_AT_ONCE: usize = 32;

#[expect(clippy::too_many_arguments, reason = "what a step has, once")]
fn part_step(
    network: &Network<'_>,
    reference: Option<&Network<'_>>,
    trained: &Trained,
    batch: &Batch,
    range: std::ops::Range<usize>,
    terms: Terms<'_>,
    options: &ForwardOptions,
    mut gradients: Vec<Buffer>,
) -> Option<StepOutput> {
    let size: usize = batch.shape.iter().product();
    let total = batch.labels.len() as f32;
    let at_once = images_at_once(network, range.len(), options);
    let mut output = StepOutput::default();
    let mut statistics = Vec::new();
    for start in range.clone().step_by(at_once) {
        let images = start..(start + at_once).min(range.end);
        let pixels = batch.images.get(images.start * size..images.end * size)?;
        let teacher = match reference {
            Some(r) => {
                let pairs = terms.features.map_or(&[][..], |f| f.pairs);
                let compared = |node| pairs.iter().any(|p| p.reference == node);
                Some(forward(r, r.input(pixels)?, &ForwardOptions::default(), compared)?)
            }
            None => None,
        };
        let tape = forward(network, network.input(pixels)?, options, |_| true)?;
        let mut scores = tape.value(network.graph.output)?.clone();
        let loss = Loss { terms, total, classes: network.classes() };
        let known = match (&teacher, reference) {
            (Some(tape), Some(r)) => Some(&tape.value(r.graph.output)?.data[..]),
            _ => None,
        };
        let own = loss.apply(&mut scores.data, batch, images.start, known, &mut output)?;
        let pull = teacher.as_ref().zip(terms.features);
        let distances = match pull {
            Some((targets, features)) => matching(features.pairs, &tape, targets)?,
            None => Vec::new(),
        };
        let [shares, penalties] =
            terms.weigh(&own, (&tape.penalty, &distances), &mut scores.data, total, &mut output);
        for (node, s) in &tape.statistics {
            statistics.push((*node, s.mean.clone(), s.variance.clone()));
        }
        if !gradients.is_empty() {
            let pull = Pull { penalty: &penalties, features: pull, shares: &shares };
            backward(network, tape, scores, options, &pull, trained, &mut gradients)?;
        }
    }
    (output.gradients, output.statistics) = (gradients, statistics);
    Some(output)
}

/// The terms of the loss that come from the scores.
pub(super) struct Loss<'a> {
    pub(super) terms: Terms<'a>,
    /// Images of the whole step.
    pub(super) total: f32,
    /// Scores of an image.
    pub(super) classes: usize,
}

impl Loss<'_> {
    /// Adds the loss of these images, the first of which is the `first` of the batch, to `output`, and
    /// replaces their scores by the gradient. Yields their weighted losses, not divided by the number of
    /// images. `reference` are the scores of the reference network for the same images. None where a
    /// teacher's row is missing.
    pub(super) fn apply(
        &self,
        scores: &mut [f32],
        batch: &Batch,
        first: usize,
        reference: Option<&[f32]>,
        output: &mut StepOutput,
    ) -> Option<Vec<f32>> {
        let classes = self.classes;
        let mut losses = Vec::new();
        let own = match (self.terms.soft, reference) {
            (Some(Soft { targets: None, temperature, .. }), Some(scores)) => {
                Some(soft_targets(scores, classes, *temperature))
            }
            _ => None,
        };
        for (index, row) in scores.chunks_mut(classes.max(1)).enumerate() {
            let label = batch.labels.get(first + index).copied()?;
            output.correct += usize::from(crate::metrics::argmax(row) == Some(label));
            let smoothing = self.terms.smoothing;
            let target = |class: usize| {
                smoothing / classes as f32 + (1.0 - smoothing) * batch.share(first + index, class)
            };
            let log_softmax = log_softmax(row, 1.0);
            let cross: f32 = log_softmax.iter().enumerate().map(|(k, l)| target(k) * l).sum();
            output.cross_entropy -= cross / self.total;
            let mut loss = -self.terms.cross_entropy * cross;
            let hard = self.terms.cross_entropy / self.total;
            let mut gradient: Vec<f32> =
                log_softmax.iter().enumerate().map(|(k, l)| hard * (l.exp() - target(k))).collect();
            if let Some(soft) = self.terms.soft {
                let (all, image) = match &soft.targets {
                    Some(targets) => (targets, first + index),
                    None => (own.as_ref()?, index),
                };
                let targets = all.get(image * classes..(image + 1) * classes)?;
                let t = soft.temperature;
                let log_softmax = self::log_softmax(row, t);
                // KL(p‖q) = Σ p·(ln p − ln q)
                let kl = |(&p, &l): (&f32, &f32)| if p > 0.0 { p * (p.ln() - l) } else { 0.0 };
                let divergence: f32 = targets.iter().zip(&log_softmax).map(kl).sum();
                output.distillation += t * t * divergence / self.total;
                loss += soft.weight * t * t * divergence;
                let factor = soft.weight * t / self.total;
                let pairs = log_softmax.iter().zip(targets);
                gradient.iter_mut().zip(pairs).for_each(|(g, (l, p))| *g += factor * (l.exp() - p));
            }
            row.copy_from_slice(&gradient);
            losses.push(loss);
        }
        Some(losses)
    }
}

/// `ln softmax(row / temperature)`; NaN where a score is not finite.
fn log_softmax(row: &[f32], temperature: f32) -> Vec<f32> {
    let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted: Vec<f32> = row.iter().map(|s| (s - highest) / temperature).collect();
    let log_sum = shifted.iter().map(|s| s.exp()).sum::<f32>().ln();
    shifted.iter().map(|s| s - log_sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{infer, parameter_mut, parameters};
    use crate::random::{generator, normal, uniform};
    use polyveil_net::builders::{ConvSpec, GraphBuilder, PoolSpec};
    use polyveil_net::{Op, exec};

    const SHAPE: [usize; 3] = [2, 6, 6];

    /// Every operator once; quadratics per channel and per layer.
    fn network() -> Graph {
        let mut b = GraphBuilder::new("t", &SHAPE, 11);
        let x = b.input();
        let x = b.conv("c1", x, 4, ConvSpec::new(3).pads([0, 1, 1, 0]));
        let x = b.batch_norm("n1", x);
        let x = b.quadratic("q1", x, [0.2, 0.5, 0.1]);
        let left = b.avg_pool("p1", x, PoolSpec::new(3).stride(2).pad(1).ceil());
        let right = b.max_pool("p2", x, PoolSpec::new(3).stride(2).pad(1).ceil());
        let both = b.concat("cat", &[left, right]);
        let y = b.conv("c2", both, 8, ConvSpec::new(3).pad(1).groups(2).no_bias());
        let y = b.add("sum", y, both);
        let y = b.relu("r", y);
        let z = b.global_avg_pool("g", y);
        let z = b.flatten("flat", z);
        let z = b.quadratic("q2", z, [0.1, 0.6, -0.1]);
        let z = b.linear("f", z, 3);
        let mut graph = b.finish(z).unwrap();
        let mut rng = generator(2, "t", 0, 0);
        for node in &mut graph.nodes {
            match &mut node.op {
                Op::BatchNorm(n) => {
                    n.mean.data_mut().iter_mut().for_each(|v| *v = 0.3 * normal(&mut rng));
                    n.var.data_mut().iter_mut().for_each(|v| *v = uniform(&mut rng, 0.5, 2.0));
                }
                Op::Quadratic(q) if node.name == "q1" => {
                    for t in [&mut q.a, &mut q.b, &mut q.c] {
                        let value = t.data()[0];
                        *t = polyveil_net::Tensor::full(vec![4], value);
                    }
                }
                _ => {}
            }
        }
        graph
    }

    fn batch(count: usize) -> Batch {
        let mut rng = generator(3, "t", 0, 0);
        let images = (0..count * 72).map(|_| normal(&mut rng)).collect();
        Batch {
            shape: SHAPE,
            images,
            labels: (0..count).map(|i| (i % 3) as u32).collect(),
            mixed: Vec::new(),
        }
    }

    #[test]
    fn engine_and_plain_executor_agree() {
        let (graph, batch) = (network(), batch(5));
        let scores = infer(&graph, &batch.images, SHAPE, &ForwardOptions::default()).unwrap();
        for (image, row) in batch.images.chunks(72).zip(scores.values.chunks(3)) {
            let image = polyveil_net::Tensor::new(SHAPE.to_vec(), image.to_vec()).unwrap();
            for (plain, engine) in exec::run(&graph, &image).unwrap().data().iter().zip(row) {
                assert!((plain - engine).abs() < 1e-4 * (1.0 + plain.abs()), "{plain} {engine}");
            }
        }
    }

    /// Distillation, cross-entropy and penalty, in the middle of the transition.
    fn check_gradients(batch_statistics: bool) {
        let (mut graph, batch) = (network(), batch(6));
        let mut rng = generator(4, "t", 0, 0);
        let teacher: Vec<f32> = (0..18).map(|_| 2.0 * normal(&mut rng)).collect();
        let soft = Soft { targets: Some(soft_targets(&teacher, 3, 2.0)), temperature: 2.0, weight: 0.7 };
        let terms =
            Terms { cross_entropy: 0.3, smoothing: 0.1, soft: Some(&soft), penalty: 0.05, ..Terms::NONE };
        let mut options = ForwardOptions {
            bound: Some(0.8),
            units: vec![1.5; 20],
            batch_statistics,
            ..ForwardOptions::default()
        };
        options.transition = vec![0.4; graph.nodes.len()];
        let all = parameters(&graph);
        let output = gradient_step(&graph, &all, &batch, terms, &options).unwrap();
        assert!(output.penalty > 0.0 && output.distillation > 0.0 && output.cross_entropy > 0.0);
        let sum = 0.3 * output.cross_entropy + 0.7 * output.distillation + 0.05 * output.penalty;
        assert!((output.loss - sum).abs() < 1e-4, "{output:?}");

        for (&id, gradient) in all.iter().zip(&output.gradients) {
            // A few entries of each tensor; all would be slow.
            let entries = [0, gradient.len() / 2, gradient.len() - 1];
            for entry in entries {
                let mut loss_at = |delta: f32| {
                    parameter_mut(&mut graph, id).unwrap().data_mut()[entry] += delta;
                    let loss = gradient_step(&graph, &[], &batch, terms, &options).map(|o| o.loss);
                    parameter_mut(&mut graph, id).unwrap().data_mut()[entry] -= delta;
                    loss.unwrap()
                };
                let h = 4e-3;
                let numeric = (loss_at(h) - loss_at(-h)) / (2.0 * h);
                let exact = gradient[entry];
                assert!(
                    (numeric - exact).abs() < 2e-3 + 0.03 * exact.abs().max(numeric.abs()),
                    "{id:?} entry {entry}: {exact} against {numeric}"
                );
            }
        }
    }

    #[test]
    fn gradients_match_finite_differences() {
        check_gradients(false);
    }

    #[test]
    fn gradients_match_with_batch_statistics() {
        check_gradients(true);
    }

    /// Scores, loss and gradients of the device against ours, with everything switched on.
    #[cfg(feature = "burn")]
    #[test]
    fn the_device_agrees_with_the_native_engine() {
        use crate::engine::{burn, infer::infer, step::gradient_step};
        let (graph, batch) = (network(), batch(6));
        let soft = Soft { targets: None, temperature: 2.0, weight: 0.7 };
        let mut reference = graph.clone();
        reference.nodes.iter_mut().filter(|n| matches!(n.op, Op::Quadratic(_))).for_each(|n| n.op = Op::Relu);
        let q1 = graph.node("q1").unwrap().0;
        let q2 = graph.node("q2").unwrap().0;
        let pairs = [q1, q2].map(|q| super::super::Pair { student: q, reference: q, weight: 0.1 });
        let features = Some(Features { reference: &reference, pairs: &pairs, weight: 0.5 });
        let terms = Terms {
            cross_entropy: 0.3,
            smoothing: 0.1,
            soft: Some(&soft),
            penalty: 0.05,
            features,
            most: 1.5,
        };
        // Batch statistics are left out: the native engine takes them from each half.
        let options = ForwardOptions {
            transition: vec![0.4; graph.nodes.len()],
            units: vec![1.5; 20],
            clamp: Some(1.0),
            bound: Some(0.8),
            batch_statistics: false,
        };
        let close = |left: &[f32], right: &[f32]| {
            left.iter().zip(right).all(|(l, r)| (l - r).abs() < 1e-4 * (1.0 + l.abs()))
        };
        let scores = infer(&graph, &batch.images, SHAPE, &options).unwrap();
        assert!(close(&scores.values, &burn::infer(&graph, &batch.images, SHAPE, &options).unwrap().values));
        let all = parameters(&graph);
        let native = gradient_step(&graph, &all, &batch, terms, &options).unwrap();
        let device = burn::gradient_step(&graph, &all, &batch, terms, &options).unwrap();
        let terms_of = |o: &StepOutput| [o.loss, o.penalty, o.distillation, o.features];
        assert!(native.features > 0.0 && close(&terms_of(&native), &terms_of(&device)));
        assert_eq!(native.correct, device.correct);
        for (native, device) in native.gradients.iter().zip(&device.gradients) {
            assert!(close(native, device), "{native:?} {device:?}");
        }
    }

    #[test]
    fn clamped_and_pure_quadratics_behave_as_written() {
        let mut b = GraphBuilder::new("t", &[2], 1);
        let x = b.input();
        let x = b.quadratic("q", x, [2.0, -1.0, 0.5]);
        let graph = b.finish(x).unwrap();
        let run = |options: &ForwardOptions| infer(&graph, &[-3.0, 2.0], [2, 1, 1], options).unwrap().values;
        assert_eq!(run(&ForwardOptions::default()), [21.5, 6.5]);
        let clamp = ForwardOptions { clamp: Some(1.0), units: vec![1.0, 2.0], ..ForwardOptions::default() };
        assert_eq!(run(&clamp), [10.5, 6.5]);
        let relu = ForwardOptions { transition: vec![1.0, 0.0], ..ForwardOptions::default() };
        assert_eq!(run(&relu), [0.0, 2.0]);
        let half = ForwardOptions { transition: vec![1.0, 0.5], ..ForwardOptions::default() };
        assert_eq!(run(&half), [10.75, 4.25]);
    }

    #[test]
    fn mixed_images_lie_between_two_and_so_do_their_losses() {
        let graph = network();
        let plain = batch(3);
        let mut mixed = plain.clone();
        mixed.mix(&[0.25, 0.0, 0.5]);
        let size = SHAPE.iter().product::<usize>();
        for i in [0, 5, size - 1] {
            let at = |image: usize| plain.images[image * size + i];
            assert!((mixed.images[i] - (0.75 * at(0) + 0.25 * at(1))).abs() < 1e-6);
            assert_eq!(mixed.images[size + i], at(1));
            assert!((mixed.images[2 * size + i] - (0.5 * at(2) + 0.5 * at(0))).abs() < 1e-6);
        }
        // Cross-entropy is linear in the label: that of the mixture is the mixture of both labels' ones.
        let terms = Terms { cross_entropy: 1.0, ..Terms::NONE };
        let loss = |labels: &[u32]| {
            let batch = Batch { labels: labels.to_vec(), mixed: Vec::new(), ..mixed.clone() };
            gradient_step(&graph, &[], &batch, terms, &ForwardOptions::default()).unwrap().cross_entropy
        };
        let whole =
            gradient_step(&graph, &[], &mixed, terms, &ForwardOptions::default()).unwrap().cross_entropy;
        // Labels 0, 1, 2 with partners 1, 2, 0.
        let own = loss(&[0, 1, 2]);
        let expected = own + 0.25 * (loss(&[1, 1, 2]) - own) + 0.5 * (loss(&[0, 1, 0]) - own);
        assert!((whole - expected).abs() < 1e-5, "{whole} {expected}");
    }

    #[test]
    fn distillation_vanishes_where_student_and_teacher_agree() {
        let (graph, batch) = (network(), batch(4));
        let scores = infer(&graph, &batch.images, SHAPE, &ForwardOptions::default()).unwrap();
        let soft =
            Soft { targets: Some(soft_targets(&scores.values, 3, 4.0)), temperature: 4.0, weight: 1.0 };
        let terms = Terms { soft: Some(&soft), ..Terms::NONE };
        let all = parameters(&graph);
        let output = gradient_step(&graph, &all, &batch, terms, &ForwardOptions::default()).unwrap();
        assert!(output.distillation.abs() < 1e-5, "{output:?}");
        assert!(output.gradients.iter().flat_map(|g| g.iter()).all(|g| g.abs() < 1e-4));
    }
}
