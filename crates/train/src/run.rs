//! The epoch loop that teacher training and conversion share: steps, validation, choice of the best
//! epoch, divergence guard, checkpoints, progress.

use std::time::{Duration, Instant};

use polyveil_net::{Graph, NodeId, Op, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::config::{Augmentation, Distillation, GuardConfig, OptimiserConfig, RangeControl};
use crate::control::{Phase, Progress, RunControl};
use crate::data::{DataSet, Preprocessing, Split};
use crate::engine::{
    Batch, ForwardOptions, ParameterId, Scores, Soft, StepOutput, Terms, first_non_finite, gradient_step,
    infer, infer_observed, parameters, soft_targets,
};
use crate::error::TrainError;
use crate::history::{ActivationRecord, EpochRecord, Event, History};
use crate::metrics::argmax;
use crate::optim::{AdamW, Rates, clip};
use crate::random::{generator, shuffle};
use crate::schedule::{TransitionPlan, learning_rate};

/// Share of the new batch in batch-norm statistics.
const MOMENTUM: f32 = 0.1;

/// Everything that decides the course of a run.
pub(crate) struct Recipe<'a> {
    /// `teacher` or `student`: name of the checkpoint.
    pub(crate) name: &'static str,
    pub(crate) seed: u64,
    pub(crate) epochs: usize,
    pub(crate) batch: usize,
    pub(crate) label_smoothing: f32,
    pub(crate) optimiser: &'a OptimiserConfig,
    pub(crate) augmentation: &'a Augmentation,
    pub(crate) guard: &'a GuardConfig,
    pub(crate) preprocessing: &'a Preprocessing,
    /// Epoch from which batch-norm statistics stand still.
    pub(crate) freeze_from: usize,
    /// What only a conversion has.
    pub(crate) conversion: Option<Conversion<'a>>,
    /// Covers configuration, data and networks.
    pub(crate) fingerprint: [u8; 32],
}

/// The conversion's part of a recipe.
pub(crate) struct Conversion<'a> {
    pub(crate) teacher: &'a Graph,
    pub(crate) distillation: &'a Distillation,
    pub(crate) range: &'a RangeControl,
    pub(crate) transition: TransitionPlan,
    /// Size of one unit of every node's input.
    pub(crate) units: Vec<f32>,
    /// Learning rate of coefficients over that of weights.
    pub(crate) activation_rate: f32,
    pub(crate) min_a: f32,
    pub(crate) max_shift: f32,
}

/// What a run yields.
pub(crate) struct RunOutput {
    pub(crate) graph: Graph,
    pub(crate) validation_accuracy: f64,
    pub(crate) history: History,
}

/// All that changes from epoch to epoch.
#[derive(Clone, Serialize, Deserialize)]
struct State {
    epoch: usize,
    graph: Graph,
    optimiser: AdamW,
    rate_factor: f32,
    rollbacks: u32,
    best: Option<Best>,
    history: History,
}

#[derive(Clone, Serialize, Deserialize)]
struct Best {
    graph: Graph,
    accuracy: f64,
    loss: f32,
}

/// Runs a recipe from `graph`, or from its checkpoint.
pub(crate) fn run(
    recipe: &Recipe<'_>,
    graph: Graph,
    data: &DataSet,
    control: &RunControl<'_>,
) -> Result<RunOutput, TrainError> {
    for split in [Split::Train, Split::Validation] {
        if data.indices(split).is_empty() {
            return Err(TrainError::EmptySplit { name: data.name().to_owned(), split });
        }
    }
    let checkpoint = match &control.checkpoint_dir {
        Some(folder) => Some(Checkpoint::open(folder, recipe.name, recipe.fingerprint)?),
        None => None,
    };
    let trainable = trainable(recipe, &graph);
    let mut state = match checkpoint.as_ref().map(Checkpoint::load).transpose()?.flatten() {
        Some(state) => state,
        None => State {
            epoch: 0,
            optimiser: AdamW::new(&graph, &trainable),
            graph,
            rate_factor: 1.0,
            rollbacks: 0,
            best: None,
            history: History::default(),
        },
    };
    let validation = Validation::new(recipe, data);
    let mut clock = Clock::new(recipe, data, state.epoch);
    while state.epoch < recipe.epochs {
        let before = (state.graph.clone(), state.optimiser.clone());
        match run_epoch(recipe, &mut state, data, &trainable, control, &mut clock, checkpoint.as_ref())? {
            Epoch::Done(sums) => {
                let record = close_epoch(recipe, &mut state, data, &validation, &sums)?;
                control.report(&clock.progress(&record, recipe));
                state.history.epochs.push(record);
                state.epoch += 1;
                if let Some(checkpoint) = &checkpoint {
                    checkpoint.save(&state)?;
                }
            }
            Epoch::Diverged(layer) => {
                (state.graph, state.optimiser) = before;
                roll_back(recipe, &mut state, layer)?;
            }
        }
    }
    let last = state.history.epochs.last().map_or(0, |e| e.non_finite);
    let Some(best) = state.best else {
        return Err(TrainError::NotAcceptable { non_finite: last, total: validation.labels.len() });
    };
    if let Some(checkpoint) = &checkpoint {
        checkpoint.remove()?;
    }
    Ok(RunOutput { graph: best.graph, validation_accuracy: best.accuracy, history: state.history })
}

/// Keeps coefficients where the compiler can use them: `|a|` not below its floor, and the shift
/// `|b / 2a|` of the completed square not above its limit. Both are in units of the layer.
pub(crate) fn bound_coefficients(graph: &mut Graph, units: &[f32], min_a: f32, max_shift: f32) {
    for (index, node) in graph.nodes.iter_mut().enumerate() {
        let Op::Quadratic(q) = &mut node.op else { continue };
        let unit = units.get(index).copied().unwrap_or(1.0);
        for (a, &b) in q.a.data_mut().iter_mut().zip(q.b.data()) {
            let floor = (min_a / unit).max(b.abs() / (2.0 * max_shift * unit));
            if a.abs() < floor {
                *a = floor.copysign(*a);
            }
        }
    }
}

/// Means over the steps of an epoch.
#[derive(Default)]
struct Sums {
    steps: usize,
    images: usize,
    total: StepOutput,
    rate: f32,
}

enum Epoch {
    Done(Sums),
    /// Too many steps were not finite; the layer that went first in the last of them.
    Diverged(String),
}

fn trainable(recipe: &Recipe<'_>, graph: &Graph) -> Vec<ParameterId> {
    let fixed = recipe.conversion.as_ref().is_some_and(|c| c.activation_rate == 0.0);
    let mut all = parameters(graph);
    all.retain(|id| !(fixed && id.group == crate::engine::Group::Activation));
    all.retain(|id| graph.nodes.get(id.node).is_none_or(|n| !graph.is_fixed(&n.name)));
    all
}

fn steps_per_epoch(recipe: &Recipe<'_>, data: &DataSet) -> usize {
    (data.indices(Split::Train).len() / recipe.batch).max(1)
}

fn run_epoch(
    recipe: &Recipe<'_>,
    state: &mut State,
    data: &DataSet,
    trainable: &[ParameterId],
    control: &RunControl<'_>,
    clock: &mut Clock,
    checkpoint: Option<&Checkpoint>,
) -> Result<Epoch, TrainError> {
    let epoch = state.epoch;
    let mut order = data.indices(Split::Train).to_vec();
    shuffle(&mut generator(recipe.seed, "order", epoch as u64, 0), &mut order);
    let steps = steps_per_epoch(recipe, data);
    let mut sums = Sums::default();
    let mut skipped = 0;
    // A last batch that is not full is left out: its gradient and statistics would be noisier. The
    // order changes every epoch, so no image stays out.
    for (step, images) in order.chunks(recipe.batch).take(steps).enumerate() {
        if control.cancelled() {
            return Err(TrainError::Cancelled {
                epoch: epoch + 1,
                epochs: recipe.epochs,
                checkpoint: checkpoint.filter(|_| epoch > 0).map(|c| c.path().to_owned()),
            });
        }
        let position = epoch as f64 + step as f64 / steps as f64;
        let options = options(recipe, &state.graph, position, true);
        let batch = make_batch(recipe, data, images, epoch);
        let mut output = train_step(recipe, &state.graph, trainable, &batch, &options)?;
        let norm = clip(&mut output.gradients, recipe.optimiser.clip_norm);
        if !output.loss.is_finite() || !norm.is_finite() {
            let layer = first_non_finite(&state.graph, &batch.images, batch.shape, &options)
                .and_then(|node| state.graph.nodes.get(node))
                .map_or_else(|| "gradient".to_owned(), |n| n.name.clone());
            skipped += 1;
            if skipped > recipe.guard.skips {
                return Ok(Epoch::Diverged(layer));
            }
            state.history.events.push(Event::SkippedStep { epoch: epoch + 1, step: step + 1, layer });
            continue;
        }
        let base = learning_rate(recipe.optimiser, position, recipe.epochs) * state.rate_factor;
        let factor = recipe.conversion.as_ref().map_or(1.0, |c| c.activation_rate);
        let rates = Rates { base, activation: base * factor, weight_decay: recipe.optimiser.weight_decay };
        state.optimiser.step(&mut state.graph, trainable, &output.gradients, rates);
        if let Some(c) = &recipe.conversion {
            bound_coefficients(&mut state.graph, &c.units, c.min_a, c.max_shift);
        }
        update_statistics(&mut state.graph, &output.statistics);
        sums.add(output, images.len(), base);
        clock.steps_done += 1;
        control.report(&clock.step_progress(recipe, state, &sums, step + 1, steps));
    }
    Ok(Epoch::Done(sums))
}

impl Sums {
    fn add(&mut self, output: StepOutput, images: usize, rate: f32) {
        self.steps += 1;
        self.images += images;
        self.total.loss += output.loss;
        self.total.cross_entropy += output.cross_entropy;
        self.total.distillation += output.distillation;
        self.total.penalty += output.penalty;
        self.total.correct += output.correct;
        self.rate = rate;
    }

    fn mean(&self, sum: f32) -> f32 {
        sum / self.steps.max(1) as f32
    }
}

/// How the network runs at a position (in epochs) of the recipe.
fn options(recipe: &Recipe<'_>, graph: &Graph, position: f64, training: bool) -> ForwardOptions {
    let batch_statistics = training && position < recipe.freeze_from as f64;
    let Some(c) = &recipe.conversion else {
        return ForwardOptions { batch_statistics, ..ForwardOptions::default() };
    };
    let share = c.transition.share(position);
    let clamped = training
        && c.range.clamp > 0.0
        && position < f64::from(c.range.clamp_fraction) * recipe.epochs as f64;
    ForwardOptions {
        transition: c.transition.per_node(share, graph.nodes.len()),
        units: c.units.clone(),
        clamp: clamped.then_some(c.range.clamp),
        bound: (training && c.range.penalty > 0.0).then_some(c.range.bound),
        batch_statistics,
    }
}

fn make_batch(recipe: &Recipe<'_>, data: &DataSet, indices: &[usize], epoch: usize) -> Batch {
    let shape = data.shape();
    let images: Vec<Vec<f32>> = indices
        .par_iter()
        .map(|&index| {
            let mut rng = generator(recipe.seed, "augmentation", epoch as u64, index as u64);
            data.training_image(index, recipe.preprocessing, recipe.augmentation, &mut rng).into_data()
        })
        .collect();
    Batch { shape, images: images.concat(), labels: indices.iter().map(|&i| data.labels()[i]).collect() }
}

fn train_step(
    recipe: &Recipe<'_>,
    graph: &Graph,
    trainable: &[ParameterId],
    batch: &Batch,
    options: &ForwardOptions,
) -> Result<StepOutput, TrainError> {
    let mut terms = Terms { cross_entropy: 1.0, smoothing: recipe.label_smoothing, soft: None, penalty: 0.0 };
    let mut soft = None;
    if let Some(c) = &recipe.conversion {
        terms.penalty = c.range.penalty;
        if c.distillation.alpha > 0.0 {
            terms.cross_entropy = 1.0 - c.distillation.alpha;
            let scores = infer(c.teacher, &batch.images, batch.shape, &ForwardOptions::default())
                .ok_or_else(|| malformed(c.teacher))?;
            let temperature = c.distillation.temperature;
            let targets = soft_targets(&scores.values, scores.classes, temperature);
            soft = Some(Soft { targets, temperature, weight: c.distillation.alpha });
        }
    }
    terms.soft = soft.as_ref();
    gradient_step(graph, trainable, batch, terms, options).ok_or_else(|| malformed(graph))
}

/// Graphs are checked before a run, so this names a disagreement between checker and engine.
pub(crate) fn malformed(graph: &Graph) -> TrainError {
    TrainError::Graph {
        node: graph.name.clone(),
        reason: "the training engine cannot interpret it".to_owned(),
    }
}

fn update_statistics(graph: &mut Graph, statistics: &[(NodeId, Vec<f32>, Vec<f32>)]) {
    let blend = |running: &mut Tensor, batch: &[f32]| {
        running.data_mut().iter_mut().zip(batch).for_each(|(r, b)| *r += MOMENTUM * (b - *r));
    };
    for (node, mean, variance) in statistics {
        if let Some(Op::BatchNorm(norm)) = graph.nodes.get_mut(*node).map(|n| &mut n.op) {
            blend(&mut norm.mean, mean);
            blend(&mut norm.var, variance);
        }
    }
}

fn roll_back(recipe: &Recipe<'_>, state: &mut State, layer: String) -> Result<(), TrainError> {
    let epoch = state.epoch + 1;
    if state.rollbacks >= recipe.guard.retries {
        return Err(TrainError::Diverged { layer, epoch, retries: state.rollbacks });
    }
    state.rollbacks += 1;
    state.rate_factor *= 0.5;
    tracing::warn!(epoch, layer, rate_factor = state.rate_factor, "values not finite: rolled back");
    state.history.events.push(Event::RolledBack { epoch, layer, rate_factor: state.rate_factor });
    Ok(())
}

/// The validation split, ready for the engine.
struct Validation {
    images: Vec<f32>,
    labels: Vec<u32>,
}

impl Validation {
    fn new(recipe: &Recipe<'_>, data: &DataSet) -> Self {
        let indices = data.indices(Split::Validation);
        let images =
            indices.iter().flat_map(|&i| data.image_with(i, recipe.preprocessing).into_data()).collect();
        Self { images, labels: indices.iter().map(|&i| data.labels()[i]).collect() }
    }
}

/// Validates, keeps the network if it is the best so far, and makes the record.
fn close_epoch(
    recipe: &Recipe<'_>,
    state: &mut State,
    data: &DataSet,
    validation: &Validation,
    sums: &Sums,
) -> Result<EpochRecord, TrainError> {
    let end = state.epoch as f64 + 1.0;
    let options = options(recipe, &state.graph, end, false);
    let mut largest = vec![0.0f32; state.graph.nodes.len()];
    let scores =
        infer_observed(&state.graph, &validation.images, data.shape(), &options, &mut |node, input, _| {
            if matches!(state.graph.nodes[node].op, Op::Quadratic(_)) {
                let highest = input.map_or(0.0, |v| v.max_abs());
                largest[node] = largest[node].max(highest);
            }
        })
        .ok_or_else(|| malformed(&state.graph))?;
    let (accuracy, loss, non_finite) = score(&scores, &validation.labels);
    let transition = recipe.conversion.as_ref().map_or(1.0, |c| c.transition.share(end));
    let better = state.best.as_ref().is_none_or(|b| improves(recipe, (accuracy, loss), b));
    if transition >= 1.0 && non_finite == 0 && better && finite_on_training(recipe, state, data, &options)? {
        state.best = Some(Best { graph: state.graph.clone(), accuracy, loss });
        state.history.best_epoch = Some(state.epoch + 1);
    }
    Ok(EpochRecord {
        epoch: state.epoch + 1,
        phase: recipe.conversion.as_ref().map_or(Phase::Teacher, |c| c.transition.phase(state.epoch)),
        transition: if recipe.conversion.is_some() { transition } else { 0.0 },
        learning_rate: sums.rate,
        loss: sums.mean(sums.total.loss),
        cross_entropy: sums.mean(sums.total.cross_entropy),
        distillation: sums.mean(sums.total.distillation),
        penalty: sums.mean(sums.total.penalty),
        train_accuracy: sums.total.correct as f64 / sums.images.max(1) as f64,
        validation_accuracy: accuracy,
        validation_loss: loss,
        non_finite,
        activations: activation_records(&state.graph, &largest),
    })
}

/// A teacher is chosen by accuracy: its loss grows with its confidence while accuracy still rises. A
/// student is chosen by loss, which distillation keeps calibrated and which is less of a lottery than
/// accuracy on a few hundred images; it also shows scores that begin to escape.
fn improves(recipe: &Recipe<'_>, (accuracy, loss): (f64, f32), best: &Best) -> bool {
    if recipe.conversion.is_some() {
        return loss < best.loss;
    }
    accuracy > best.accuracy || (accuracy >= best.accuracy && loss < best.loss)
}

/// A student must give finite scores on every training image before it may be exported.
fn finite_on_training(
    recipe: &Recipe<'_>,
    state: &State,
    data: &DataSet,
    options: &ForwardOptions,
) -> Result<bool, TrainError> {
    if recipe.conversion.is_none() {
        return Ok(true);
    }
    // In portions: the whole split as f32 may be large.
    for portion in data.indices(Split::Train).chunks(1024) {
        let images: Vec<f32> =
            portion.iter().flat_map(|&i| data.image_with(i, recipe.preprocessing).into_data()).collect();
        let scores =
            infer(&state.graph, &images, data.shape(), options).ok_or_else(|| malformed(&state.graph))?;
        if scores.values.iter().any(|v| !v.is_finite()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Accuracy, mean cross-entropy of the finite rows, and number of rows that are not finite.
fn score(scores: &Scores, labels: &[u32]) -> (f64, f32, usize) {
    let (mut correct, mut loss, mut finite) = (0usize, 0.0f64, 0usize);
    for (row, &label) in scores.values.chunks(scores.classes.max(1)).zip(labels) {
        let Some(best) = argmax(row) else { continue };
        finite += 1;
        correct += usize::from(best == label);
        let highest = f64::from(row[best as usize]);
        let sum: f64 = row.iter().map(|&s| (f64::from(s) - highest).exp()).sum();
        loss += sum.ln() + highest - row.get(label as usize).map_or(0.0, |&s| f64::from(s));
    }
    (correct as f64 / labels.len().max(1) as f64, (loss / finite.max(1) as f64) as f32, labels.len() - finite)
}

fn activation_records(graph: &Graph, largest: &[f32]) -> Vec<ActivationRecord> {
    let mean = |t: &Tensor| t.data().iter().sum::<f32>() / t.len().max(1) as f32;
    let record = |(index, node): (usize, &polyveil_net::Node)| {
        let Op::Quadratic(q) = &node.op else { return None };
        let shifts = q.a.data().iter().zip(q.b.data()).map(|(a, b)| (b / (2.0 * a)).abs());
        Some(ActivationRecord {
            node: node.name.clone(),
            a: mean(&q.a),
            b: mean(&q.b),
            c: mean(&q.c),
            min_abs_a: q.a.data().iter().map(|a| a.abs()).fold(f32::INFINITY, f32::min),
            max_shift: shifts.fold(0.0, f32::max),
            max_abs_input: largest[index],
        })
    };
    graph.nodes.iter().enumerate().filter_map(record).collect()
}

/// Time spent and left.
struct Clock {
    start: Instant,
    steps_done: usize,
    steps_due: usize,
}

impl Clock {
    fn new(recipe: &Recipe<'_>, data: &DataSet, epoch: usize) -> Self {
        let due = (recipe.epochs.saturating_sub(epoch)) * steps_per_epoch(recipe, data);
        Self { start: Instant::now(), steps_done: 0, steps_due: due }
    }

    fn step_progress(
        &self,
        recipe: &Recipe<'_>,
        state: &State,
        sums: &Sums,
        step: usize,
        steps: usize,
    ) -> Progress {
        let position = state.epoch as f64 + step as f64 / steps as f64;
        let conversion = recipe.conversion.as_ref();
        Progress {
            phase: conversion.map_or(Phase::Teacher, |c| c.transition.phase(state.epoch)),
            epoch: state.epoch + 1,
            epochs: recipe.epochs,
            step,
            steps,
            transition: conversion.map_or(0.0, |c| c.transition.share(position)),
            loss: sums.mean(sums.total.loss),
            validation_accuracy: None,
            elapsed: self.start.elapsed(),
            remaining: self.remaining(),
        }
    }

    fn progress(&self, record: &EpochRecord, recipe: &Recipe<'_>) -> Progress {
        Progress {
            phase: record.phase,
            epoch: record.epoch,
            epochs: recipe.epochs,
            step: 1,
            steps: 1,
            transition: record.transition,
            loss: record.loss,
            validation_accuracy: Some(record.validation_accuracy),
            elapsed: self.start.elapsed(),
            remaining: self.remaining(),
        }
    }

    fn remaining(&self) -> Option<Duration> {
        let left = self.steps_due.saturating_sub(self.steps_done);
        (self.steps_done > 0).then(|| self.start.elapsed().mul_f64(left as f64 / self.steps_done as f64))
    }
}
