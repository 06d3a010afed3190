//! One training step: loss, its parts, and the gradient of every parameter.

use burn_tensor::{Tensor, activation};
use polyveil_net::{Graph, NodeId};
use rayon::prelude::*;

use super::forward::{ForwardOptions, Leaves, forward};
use super::{ParameterId, Value, gradient_device, host, tensor};

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
}

/// Target distributions, `[N, classes]`, with their weight in the loss.
#[derive(Clone, Debug)]
pub(crate) struct Soft {
    /// Probabilities, a row an image.
    pub(crate) targets: Vec<f32>,
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
    /// Images whose largest score is that of their class.
    pub(crate) correct: usize,
    /// One vector a parameter, in the order asked for.
    pub(crate) gradients: Vec<Vec<f32>>,
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
    let outputs: Vec<Option<StepOutput>> = ranges
        .into_par_iter()
        .map(|range| part_step(graph, trainable, batch, range, terms, options))
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
    left.correct += right.correct;
    let accumulate = |l: &mut Vec<f32>, r: &[f32]| l.iter_mut().zip(r).for_each(|(l, r)| *l += r);
    for (l, r) in left.gradients.iter_mut().zip(&right.gradients) {
        accumulate(l, r);
    }
    for ((_, mean, variance), (_, other_mean, other_variance)) in
        left.statistics.iter_mut().zip(&right.statistics)
    {
        accumulate(mean, other_mean);
        accumulate(variance, other_variance);
    }
    left
}

fn part_step(
    graph: &Graph,
    trainable: &[ParameterId],
    batch: &Batch,
    range: std::ops::Range<usize>,
    terms: Terms<'_>,
    options: &ForwardOptions,
) -> Option<StepOutput> {
    let device = gradient_device();
    let [c, h, w] = batch.shape;
    let (size, count, total) = (c * h * w, range.len(), batch.labels.len() as f32);
    let images = batch.images.get(range.start * size..range.end * size)?.to_vec();
    let input = input_value(graph, images, count, batch.shape, &device);
    let leaves = Leaves::new(graph, trainable, &device);
    let result = forward(graph, &leaves, input, options, &mut |_, _, _| {})?;

    let classes = result.logits.dims()[1];
    let labels = &batch.labels[range.clone()];
    let mut output = StepOutput {
        correct: correct(&host(result.logits.clone()), labels, classes),
        statistics: result.statistics,
        ..StepOutput::default()
    };

    let one_hot = tensor(one_hot(labels, classes, terms.smoothing), [count, classes], &device);
    let hard = (activation::log_softmax(result.logits.clone(), 1) * one_hot).sum().mul_scalar(-1.0 / total);
    output.cross_entropy = scalar(&hard);
    let mut loss = hard.mul_scalar(terms.cross_entropy);
    if let Some(soft) = terms.soft {
        let targets = soft.targets.get(range.start * classes..range.end * classes)?;
        let square = soft.temperature * soft.temperature;
        // KL(p‖q) = Σ p ln p − Σ p ln q; the first sum is the teacher's alone.
        let own: f32 = targets.iter().filter(|&&p| p > 0.0).map(|p| p * p.ln()).sum();
        let scores = result.logits.div_scalar(soft.temperature);
        let targets = tensor(targets.to_vec(), [count, classes], &device);
        let cross = (activation::log_softmax(scores, 1) * targets).sum();
        let divergence = cross.neg().add_scalar(own).mul_scalar(square / total);
        output.distillation = scalar(&divergence);
        loss = loss + divergence.mul_scalar(soft.weight);
    }
    if let Some(penalty) = result.penalty {
        let penalty = penalty.div_scalar(total);
        output.penalty = scalar(&penalty);
        loss = loss + penalty.mul_scalar(terms.penalty);
    }
    output.loss = scalar(&loss);
    let gradients = loss.backward();
    output.gradients = trainable.iter().map(|&id| leaves.gradient(graph, id, &gradients)).collect();
    Some(output)
}

/// Images as the graph's input: maps, or rows where it takes vectors.
pub(super) fn input_value(
    graph: &Graph,
    images: Vec<f32>,
    count: usize,
    [c, h, w]: [usize; 3],
    device: &burn_tensor::Device,
) -> Value {
    if graph.input_shape().len() == 1 {
        return Value::Row(tensor(images, [count, c * h * w], device));
    }
    Value::Map(tensor(images, [count, c, h, w], device))
}

fn scalar(tensor: &Tensor<1>) -> f32 {
    host(tensor.clone()).first().copied().unwrap_or(f32::NAN)
}

fn one_hot(labels: &[u32], classes: usize, smoothing: f32) -> Vec<f32> {
    let mut out = vec![smoothing / classes as f32; labels.len() * classes];
    for (row, &label) in out.chunks_mut(classes.max(1)).zip(labels) {
        if let Some(target) = row.get_mut(label as usize) {
            *target += 1.0 - smoothing;
        }
    }
    out
}

fn correct(scores: &[f32], labels: &[u32], classes: usize) -> usize {
    let hits = scores.chunks(classes.max(1)).zip(labels);
    hits.filter(|(row, label)| crate::metrics::argmax(row) == Some(**label)).count()
}
