//! The epoch loop that teacher training and conversion share.
//!
//! | part | module |
//! |---|---|
//! | batches, the teacher's scores, one step | [`step`] |
//! | validation in inference mode, which epoch is kept | [`validate`] |
//! | by what networks are compared | [`judge`] |
//! | the last layer by itself | [`head`] |
//! | smaller inputs, for images with sharp edges first, that keep values in range | [`edges`] |
//! | moving average of the weights | [`average`] |
//! | time spent and left | [`clock`] |

mod average;
mod clock;
pub(crate) mod edges;
mod head;
mod judge;
mod step;
mod validate;

use std::time::Instant;

use polyveil_net::{Graph, NodeId, Op, Quadratic, Tensor};
use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::config::{Augmentation, Distillation, GuardConfig, Keep, OptimiserConfig, RangeControl};
use crate::control::RunControl;
use crate::data::{DataSet, Preprocessing, Split};
use crate::engine::{
    Buffer, Features, ForwardOptions, Group, Pair, ParameterId, StepOutput, first_non_finite, parameters,
};
use crate::error::TrainError;
use crate::history::{Event, History, Refusal, Timing, Verdict};
use crate::optim::{AdamW, Rates, clip};
use crate::random::{generator, shuffle};
use crate::schedule::{TransitionPlan, learning_rate};
use average::Average;
use clock::Clock;
use judge::{Judge, Merits};
use step::{InnerTerms, Stepper};
pub(crate) use step::{PORTION, inputs};
use validate::{close_epoch, observe};

/// Share of the new batch in batch-norm statistics.
const MOMENTUM: f32 = 0.1;

/// Share of the range penalty at the beginning of its warm-up (PILLAR: Diaa et al., USENIX Security 2024).
const FIRST_PENALTY: f32 = 0.01;

/// Everything that decides the course of a run.
pub(crate) struct Recipe<'a> {
    /// `teacher` or `student`: name of the checkpoint.
    pub(crate) name: &'static str,
    pub(crate) seed: u64,
    pub(crate) epochs: usize,
    pub(crate) batch: usize,
    /// Epochs without a better network after which the run ends; 0 = never.
    pub(crate) patience: usize,
    /// First epochs in which only the last layer with weights is trained.
    pub(crate) head_epochs: usize,
    /// The learning rate of these.
    pub(crate) head_rate: f32,
    /// Passes over the training images on which the last layer is fitted by itself; 0 = never.
    pub(crate) head_fit: usize,
    /// Whether the features before the last layer are worth a fit before the first epoch.
    pub(crate) pretrained: bool,
    /// By what the epoch is chosen that is kept.
    pub(crate) keep: Keep,
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

impl Recipe<'_> {
    /// The shape of training images in an epoch.
    fn patch(&self, epoch: usize, whole: [usize; 3]) -> [usize; 3] {
        let (side, share) = (self.augmentation.patch, f64::from(self.augmentation.patch_fraction));
        if side == 0 || epoch as f64 >= share * self.epochs as f64 { whole } else { [whole[0], side, side] }
    }

    /// Refuses parts of images that the images do not hold, or the networks do not take.
    fn check_patch(&self, graph: &Graph, whole: [usize; 3]) -> Result<(), TrainError> {
        let part = self.patch(0, whole);
        let takes = |graph: &Graph| match (graph.infer_shapes_for(&part), graph.infer_shapes()) {
            (Ok(part), Ok(whole)) => part.get(graph.output) == whole.get(graph.output),
            _ => false,
        };
        let fits = (1..3).all(|axis| (1..=whole[axis]).contains(&part[axis]));
        if part == whole || fits && takes(graph) && self.conversion.as_ref().is_none_or(|c| takes(c.teacher))
        {
            return Ok(());
        }
        Err(TrainError::Config {
            key: "augmentation.patch",
            value: self.augmentation.patch.to_string(),
            expected: "0, or a side within the image for which the network yields as many scores: one without fully \
                       connected layers on maps",
        })
    }

    /// The learning rate at a position in epochs.
    fn rate(&self, position: f64) -> f32 {
        let head = self.head_epochs as f64;
        if position < head {
            return self.head_rate;
        }
        learning_rate(self.optimiser, position - head, self.epochs - self.head_epochs)
    }

    /// Position in epochs from which every activation is what it will be.
    fn settled(&self) -> f64 {
        self.conversion.as_ref().map_or(0, |c| c.transition.settled()) as f64
    }
}

/// Changes a graph at one point of the run.
pub(crate) type Refit<'a> = dyn Fn(&mut Graph) -> Result<(), TrainError> + 'a;

/// The conversion's part of a recipe.
pub(crate) struct Conversion<'a> {
    pub(crate) teacher: &'a Graph,
    pub(crate) distillation: &'a Distillation,
    pub(crate) range: &'a RangeControl,
    pub(crate) transition: TransitionPlan,
    /// Epochs with ReLU, after which `refit` sets the coefficients anew.
    pub(crate) recover_epochs: usize,
    /// Coefficients for the values that the network yields after those epochs.
    pub(crate) refit: Option<&'a Refit<'a>>,
    /// Size of one unit of every node's input.
    pub(crate) units: Vec<f32>,
    /// Sums that are a Hermite basis each.
    pub(crate) bases: Vec<NodeId>,
    /// Learning rate of coefficients over that of weights.
    pub(crate) activation_rate: f32,
    /// Whether constants of quadratics are trained.
    pub(crate) constant: bool,
    pub(crate) min_a: f32,
    pub(crate) max_shift: f32,
    /// The ReLU network whose features are matched, and the nodes that are compared.
    pub(crate) reference: Option<(Graph, Vec<Pair>)>,
}

impl Conversion<'_> {
    /// Are inputs of activations clamped in training, at a position in epochs of the recipe?
    fn clamped(&self, position: f64, epochs: usize) -> bool {
        self.range.clamp > 0.0 && position < f64::from(self.range.clamp_fraction) * epochs as f64
    }

    /// To what inputs of activations are clamped in training. Later on to the declared bound: what goes beyond is refused in
    /// any case, and would grow from layer to layer to a gradient of no meaning.
    fn clamp(&self, position: f64, epochs: usize) -> Option<f32> {
        let limit = if self.clamped(position, epochs) { self.range.clamp } else { self.range.declared };
        (self.range.clamp > 0.0 && limit > 0.0).then_some(limit)
    }

    /// What acts inside the network, at a position in epochs of the recipe.
    fn inner_terms(&self, position: f64, epochs: usize) -> InnerTerms<'_> {
        let end = f64::from(self.range.warmup) * epochs as f64;
        let due = if end > 0.0 { (1.0 - position / end).max(0.0) as f32 } else { 0.0 };
        let penalty = self.range.penalty * FIRST_PENALTY.powf(due);
        InnerTerms { features: self.features(position, epochs), penalty }
    }

    /// The term of the loss that matches features, at a position in epochs of the recipe.
    fn features(&self, position: f64, epochs: usize) -> Option<Features<'_>> {
        let (reference, pairs) = self.reference.as_ref()?;
        let end = f64::from(self.distillation.feature_fraction) * epochs as f64;
        let share = if end > 0.0 { (1.0 - position / end).max(0.0) as f32 } else { 0.0 };
        let weight = self.distillation.features * share;
        (weight > 0.0).then_some(Features { reference, pairs, weight })
    }
}

/// What a run yields.
pub(crate) struct RunOutput {
    /// The best acceptable network; where there is none, the best of the others.
    pub(crate) graph: Graph,
    pub(crate) validation_accuracy: f64,
    pub(crate) history: History,
    pub(crate) timing: Timing,
    pub(crate) verdict: Verdict,
    /// What it takes its inputs by: that of the recipe, or one that makes some or all of them smaller.
    pub(crate) preprocessing: Preprocessing,
}

/// All that changes from epoch to epoch.
#[derive(Clone, Serialize, Deserialize)]
struct State {
    epoch: usize,
    network: Trainee,
    rate_factor: f32,
    /// Roll-backs because steps were not finite.
    rollbacks: u32,
    /// Roll-backs because values exploded in inference mode.
    escapes: u32,
    best: Option<Best>,
    history: History,
    timing: Timing,
    /// Set when the run gave up before its last epoch.
    diverged: Option<Verdict>,
}

/// What a step changes, and what a roll-back takes back.
#[derive(Clone, Serialize, Deserialize)]
struct Trainee {
    graph: Graph,
    optimiser: AdamW,
    /// Moving average of the weights, once it has begun.
    average: Option<Average>,
}

impl Trainee {
    /// The network that is validated and kept.
    fn kept(&self) -> &Graph {
        self.average.as_ref().map_or(&self.graph, |a| &a.graph)
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct Best {
    graph: Graph,
    merits: Merits,
    non_finite: usize,
    /// Why it may not be exported; none when it may.
    refusal: Option<Refusal>,
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
    recipe.check_patch(&graph, data.shape())?;
    let checkpoint = match &control.checkpoint_dir {
        Some(folder) => Some(Checkpoint::open(folder, recipe.name, recipe.fingerprint)?),
        None => None,
    };
    let trainable = trainable(recipe, &graph);
    let judge = Judge::new(recipe, data)?;
    let mut state = match checkpoint.as_ref().map(Checkpoint::load).transpose()?.flatten() {
        Some(state) => state,
        None => {
            let mut history = History::default();
            let fitted = match recipe.pretrained {
                true => head::fit(recipe, &graph, data, &judge, recipe.preprocessing, 0.0)?,
                false => None,
            };
            let graph = fitted.map_or(graph, |fitted| fitted.tell(&mut history));
            State {
                epoch: 0,
                network: Trainee { optimiser: AdamW::new(&graph, &trainable), graph, average: None },
                rate_factor: 1.0,
                rollbacks: 0,
                escapes: 0,
                best: None,
                history,
                timing: Timing::default(),
                diverged: None,
            }
        }
    };
    let stepper = Stepper::new(recipe, data)?;
    let mut clock = Clock::new(recipe, data, state.epoch);
    while state.epoch < recipe.epochs && state.diverged.is_none() && !out_of_patience(recipe, &state) {
        let started = Instant::now();
        // What a failed epoch goes back to: the network before it was refitted, as it then is again.
        let before = state.network.clone();
        if let Some(c) = recipe.conversion.as_ref().filter(|c| state.epoch == c.recover_epochs)
            && let Some(refit) = c.refit
        {
            refit(&mut state.network.graph)?;
            bound_coefficients(&mut state.network.graph, &c.units, c.min_a, c.max_shift);
        }
        let events = state.history.events.len();
        match run_epoch(recipe, &mut state, data, &trainable, &stepper, control, &mut clock)? {
            Epoch::Done(sums) => {
                let trained = started.elapsed().as_secs_f64();
                let (record, escaped) = close_epoch(recipe, &mut state, data, &judge, &sums)?;
                if let Some(layer) = escaped {
                    state.network = before;
                    state.escapes += 1;
                    halve(&mut state, layer);
                    continue;
                }
                control.report(&clock.progress(&record, recipe));
                state.history.epochs.push(record);
                state.timing.seconds += started.elapsed().as_secs_f64();
                state.timing.step_seconds += trained;
                state.timing.images += sums.images as u64;
                state.epoch += 1;
                if let Some(checkpoint) = &checkpoint {
                    checkpoint.save_if_due(&state)?;
                }
            }
            Epoch::Cancelled => {
                state.network = before;
                state.history.events.truncate(events);
                let epoch = state.epoch;
                if let Some(checkpoint) = checkpoint.as_ref().filter(|_| epoch > 0) {
                    checkpoint.save(&state)?;
                }
                return Err(TrainError::Cancelled {
                    epoch: epoch + 1,
                    epochs: recipe.epochs,
                    checkpoint: checkpoint.filter(|_| epoch > 0).map(|c| c.path().to_owned()),
                });
            }
            Epoch::Diverged(layer) => {
                state.network = before;
                roll_back(recipe, &mut state, layer);
            }
        }
    }
    if let Some(checkpoint) = &checkpoint {
        if control.keep_checkpoint { checkpoint.save(&state)? } else { checkpoint.remove()? }
    }
    let mut output = finish(recipe, state);
    edges::settle(recipe, &mut output, data)?;
    let end = recipe.epochs as f64;
    if let Some(fitted) = head::fit(recipe, &output.graph, data, &judge, &output.preprocessing, end)? {
        output.graph = fitted.tell(&mut output.history);
        let options = options(recipe, &output.graph, end, false);
        let pass = observe(&output.preprocessing, &output.graph, data, Split::Validation, None, &options)?;
        output.validation_accuracy = pass.tally.merits().accuracy;
    }
    Ok(output)
}

fn finish(recipe: &Recipe<'_>, state: State) -> RunOutput {
    let State { network, best, history, timing, diverged, .. } = state;
    let last = history.epochs.last().map_or(0.0, |e| e.validation_accuracy);
    let (graph, validation_accuracy, refusal) = match best {
        Some(best) => (best.graph, best.merits.accuracy, best.refusal),
        None => (network.kept().clone(), last, Some(Refusal::Unfinished)),
    };
    let verdict = match refusal {
        None => Verdict::Accepted,
        Some(refusal) => diverged.unwrap_or(Verdict::NotAcceptable { refusal }),
    };
    RunOutput {
        graph,
        validation_accuracy,
        history,
        timing,
        verdict,
        preprocessing: recipe.preprocessing.clone(),
    }
}

/// Keeps coefficients where the compiler can use them: `|a|` not below its floor, and the shift
/// `|b / 2a|` of the completed square not above its limit. Both are in units of the layer.
pub(crate) fn bound_coefficients(graph: &mut Graph, units: &[f32], min_a: f32, max_shift: f32) {
    for (index, node) in graph.nodes.iter_mut().enumerate() {
        let Op::Quadratic(q) = &mut node.op else { continue };
        bound_quadratic(q, units.get(index).copied().unwrap_or(1.0), min_a, max_shift);
    }
}

/// The same for one quadratic.
pub(crate) fn bound_quadratic(q: &mut Quadratic, unit: f32, min_a: f32, max_shift: f32) {
    for (a, &b) in q.a.data_mut().iter_mut().zip(q.b.data()) {
        let floor = (min_a / unit).max(b.abs() / (2.0 * max_shift * unit));
        if a.abs() < floor {
            *a = floor.copysign(*a);
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
    /// The caller asked to stop.
    Cancelled,
    /// Too many steps were not finite; the layer that went first in the last of them.
    Diverged(String),
}

fn trainable(recipe: &Recipe<'_>, graph: &Graph) -> Vec<ParameterId> {
    let mut all = parameters(graph);
    all.retain(|id| graph.nodes.get(id.node).is_none_or(|n| !graph.is_fixed(&n.name)));
    if let Some(c) = &recipe.conversion {
        let square = |sum: &NodeId| crate::convert::folded(graph, *sum).map(|(square, _)| square);
        let basis: Vec<NodeId> = c.bases.iter().filter_map(square).collect();
        all.retain(|id| {
            let fixed = c.activation_rate == 0.0 || basis.contains(&id.node) || (!c.constant && id.slot == 2);
            !(fixed && id.group == Group::Activation)
        });
    }
    all
}

fn steps_per_epoch(recipe: &Recipe<'_>, data: &DataSet) -> usize {
    (learnt(recipe, data).len() / recipe.batch).max(1)
}

/// The images of an epoch: the training split, and for a student of a teacher those without labels.
fn learnt(recipe: &Recipe<'_>, data: &DataSet) -> Vec<usize> {
    let taught = recipe.conversion.as_ref().is_some_and(|c| c.distillation.alpha > 0.0);
    let further = if taught { data.unlabelled() } else { &[] };
    [data.indices(Split::Train), further].concat()
}

/// No better acceptable network for `patience` epochs?
fn out_of_patience(recipe: &Recipe<'_>, state: &State) -> bool {
    let accepted = state.best.as_ref().is_some_and(|b| b.refusal.is_none());
    let since = state.epoch.saturating_sub(state.history.best_epoch.unwrap_or(0));
    recipe.patience > 0 && accepted && since >= recipe.patience
}

fn run_epoch(
    recipe: &Recipe<'_>,
    state: &mut State,
    data: &DataSet,
    trainable: &[ParameterId],
    stepper: &Stepper<'_>,
    control: &RunControl<'_>,
    clock: &mut Clock,
) -> Result<Epoch, TrainError> {
    let epoch = state.epoch;
    let network = &mut state.network;
    let head = (epoch < recipe.head_epochs).then(|| head(&network.graph, trainable));
    let mut order = learnt(recipe, data);
    shuffle(&mut generator(recipe.seed, "order", epoch as u64, 0), &mut order);
    let steps = steps_per_epoch(recipe, data);
    let mut sums = Sums::default();
    let mut skipped = 0;
    // A last batch that is not full is left out: its gradient and statistics would be noisier. The
    // order changes every epoch, so no image stays out.
    for (step, images) in order.chunks(recipe.batch).take(steps).enumerate() {
        if control.cancelled() {
            return Ok(Epoch::Cancelled);
        }
        let position = epoch as f64 + step as f64 / steps as f64;
        let graph = &network.graph;
        let options = options(recipe, graph, position, true);
        let inner =
            recipe.conversion.as_ref().map(|c| c.inner_terms(position, recipe.epochs)).unwrap_or_default();
        let batch = stepper.batch(images, epoch);
        let mut output = match &head {
            None => stepper.step(graph, trainable, images, &batch, &options, inner)?,
            Some(head) => {
                let output = stepper.step(graph, head, images, &batch, &options, inner)?;
                spread(output, head, trainable)
            }
        };
        let norm = clip(&mut output.gradients, trainable, graph, recipe.optimiser.clip_norm);
        if !output.loss.is_finite() || !norm.is_finite() {
            let layer = first_non_finite(graph, &batch.images, batch.shape, &options)
                .and_then(|node| graph.nodes.get(node))
                .map_or_else(|| "gradient".to_owned(), |n| n.name.clone());
            skipped += 1;
            if skipped > recipe.guard.skips {
                return Ok(Epoch::Diverged(layer));
            }
            state.history.events.push(Event::SkippedStep { epoch: epoch + 1, step: step + 1, layer });
            continue;
        }
        let base = recipe.rate(position) * state.rate_factor;
        let factor = recipe.conversion.as_ref().map_or(1.0, |c| c.activation_rate);
        let rates = Rates { base, activation: base * factor, weight_decay: recipe.optimiser.weight_decay };
        network.optimiser.step(&mut network.graph, trainable, &output.gradients, rates);
        if let Some(c) = &recipe.conversion {
            bound_coefficients(&mut network.graph, &c.units, c.min_a, c.max_shift);
        }
        update_statistics(&mut network.graph, &output.statistics);
        if recipe.optimiser.average > 0.0 && position >= recipe.settled() {
            let average = network.average.get_or_insert_with(|| Average::new(&network.graph));
            average.add(&network.graph, recipe.optimiser.average);
        }
        sums.add(output, images.len(), base);
        clock.steps_done += 1;
        control.report(&clock.step_progress(recipe, epoch, &sums, step + 1, steps));
    }
    Ok(Epoch::Done(sums))
}

/// The parameters of the last layer with weights among `trainable`.
fn head(graph: &Graph, trainable: &[ParameterId]) -> Vec<ParameterId> {
    let layer = |id: &&ParameterId| matches!(graph.nodes[id.node].op, Op::Conv(_) | Op::Linear(_));
    let last = trainable.iter().filter(layer).map(|id| id.node).max();
    trainable.iter().filter(|id| Some(id.node) == last).copied().collect()
}

/// The output of a step on some parameters as one on all of them: the others have empty gradients and stay.
fn spread(mut output: StepOutput, some: &[ParameterId], all: &[ParameterId]) -> StepOutput {
    let mut gradients = std::mem::take(&mut output.gradients).into_iter();
    let taken = |id: &ParameterId| {
        if some.contains(id) { gradients.next().unwrap_or_default() } else { Buffer::default() }
    };
    output.gradients = all.iter().map(taken).collect();
    output
}

impl Sums {
    fn add(&mut self, output: StepOutput, images: usize, rate: f32) {
        self.steps += 1;
        self.images += images;
        self.total.loss += output.loss;
        self.total.cross_entropy += output.cross_entropy;
        self.total.distillation += output.distillation;
        self.total.penalty += output.penalty;
        self.total.features += output.features;
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
    ForwardOptions {
        transition: c.transition.per_node(share, graph.nodes.len()),
        units: c.units.clone(),
        clamp: c.clamp(position, recipe.epochs).filter(|_| training),
        bound: (training && c.range.penalty > 0.0).then_some(c.range.bound),
        batch_statistics,
    }
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

fn roll_back(recipe: &Recipe<'_>, state: &mut State, layer: String) {
    if state.rollbacks >= recipe.guard.retries {
        let epoch = state.epoch + 1;
        tracing::warn!(epoch, layer, "values not finite: gave up");
        state.history.events.push(Event::GaveUp { epoch, layer: layer.clone() });
        state.diverged = Some(Verdict::Diverged { layer, epoch, retries: state.rollbacks });
        return;
    }
    state.rollbacks += 1;
    halve(state, layer);
}

/// The epoch is done again with half the learning rate.
fn halve(state: &mut State, layer: String) {
    state.rate_factor *= 0.5;
    let epoch = state.epoch + 1;
    tracing::warn!(epoch, layer, rate_factor = state.rate_factor, "rolled back");
    state.history.events.push(Event::RolledBack { epoch, layer, rate_factor: state.rate_factor });
}
