//! Validation in inference mode after every epoch, and the choice of the network that is kept.

use polyveil_net::{Graph, NodeId, Op, Quadratic, Tensor};

use super::judge::{Judge, Tally};
use super::step::{PORTION, inputs};
use super::{Best, Recipe, State, Sums, malformed, options};
use crate::control::Phase;
use crate::convert::folded;
use crate::data::{DataSet, Preprocessing, Split};
use crate::engine::{ForwardOptions, infer_observed};
use crate::error::TrainError;
use crate::history::{ActivationRecord, EpochRecord, Refusal};

/// What a split looks like to the network in inference mode.
pub(super) struct Pass {
    pub(super) tally: Tally,
    /// Largest `|x|` of every quadratic's input, by node; infinite where one is not finite.
    largest: Vec<f32>,
}

/// Validates, keeps the network if it is the best so far, and makes the record. The name is that of
/// the layer whose values exploded, where the epoch shall be done again.
pub(super) fn close_epoch(
    recipe: &Recipe<'_>,
    state: &mut State,
    data: &DataSet,
    judge: &Judge,
    sums: &Sums,
) -> Result<(EpochRecord, Option<String>), TrainError> {
    let end = state.epoch as f64 + 1.0;
    let options = options(recipe, state.network.kept(), end, false);
    let network = state.network.kept();
    let pass = observe(recipe.preprocessing, network, data, Split::Validation, Some(judge), &options)?;
    let merits = pass.tally.merits();
    let transition = recipe.conversion.as_ref().map_or(1.0, |c| c.transition.share(end));
    let record = EpochRecord {
        epoch: state.epoch + 1,
        phase: recipe.conversion.as_ref().map_or(Phase::Teacher, |c| c.transition.phase(state.epoch)),
        transition: if recipe.conversion.is_some() { transition } else { 0.0 },
        learning_rate: sums.rate,
        loss: sums.mean(sums.total.loss),
        cross_entropy: sums.mean(sums.total.cross_entropy),
        distillation: sums.mean(sums.total.distillation),
        penalty: sums.mean(sums.total.penalty),
        train_accuracy: sums.total.correct as f64 / sums.images.max(1) as f64,
        validation_accuracy: merits.accuracy,
        validation_loss: merits.loss,
        teacher_distance: merits.distance,
        non_finite: pass.tally.non_finite(),
        activations: activation_records(recipe, network, &pass.largest),
    };
    let settled = transition >= 1.0 && sums.steps > 0;
    if settled && let Some(layer) = escaped(recipe, state, &pass.largest) {
        return Ok((record, Some(layer)));
    }
    if settled {
        keep_if_better(recipe, state, data, judge, &options, &pass)?;
    }
    Ok((record, None))
}

fn keep_if_better(
    recipe: &Recipe<'_>,
    state: &mut State,
    data: &DataSet,
    judge: &Judge,
    options: &ForwardOptions,
    pass: &Pass,
) -> Result<(), TrainError> {
    let graph = state.network.kept();
    let mut refusal = refuse(recipe, graph, Split::Validation, pass);
    let (merits, non_finite) = (pass.tally.merits(), pass.tally.non_finite());
    let rank = judge.rank(merits);
    let rank_of = |best: &Best| judge.rank(best.merits);
    let better = |refusal: &Option<Refusal>, best: Option<&Best>| {
        best.is_none_or(|b| match (refusal, &b.refusal) {
            (None, None) => judge.prefers(rank, rank_of(b)),
            (None, Some(_)) => true,
            (Some(_), None) => false,
            // Among networks that may not be exported, fewer failing images first.
            (Some(_), Some(_)) => (b.non_finite, rank) > (non_finite, rank_of(b)),
        })
    };
    if !better(&refusal, state.best.as_ref()) {
        return Ok(());
    }
    // The training images are many: they are run only where the answer matters.
    if refusal.is_none() && recipe.conversion.is_some() {
        let training = observe(recipe.preprocessing, graph, data, Split::Train, None, options)?;
        refusal = refuse(recipe, graph, Split::Train, &training);
    }
    if better(&refusal, state.best.as_ref()) {
        state.history.best_epoch = Some(state.epoch + 1);
        state.best = Some(Best { graph: graph.clone(), merits, non_finite, refusal });
    }
    Ok(())
}

/// Why a network may not be exported: a score that is not finite, or an activation input beyond the
/// declared bound.
pub(super) fn refuse(recipe: &Recipe<'_>, graph: &Graph, split: Split, pass: &Pass) -> Option<Refusal> {
    let (images, total) = (pass.tally.non_finite(), pass.tally.images());
    if images > 0 {
        return Some(Refusal::NonFinite { split, images, total });
    }
    let c = recipe.conversion.as_ref().filter(|c| c.range.declared > 0.0)?;
    pass.largest.iter().enumerate().find_map(|(node, &value)| {
        let bound = c.range.declared * c.units.get(node).copied().unwrap_or(1.0);
        (value > bound).then(|| Refusal::OutOfRange {
            split,
            layer: graph.nodes[node].name.clone(),
            value,
            bound,
        })
    })
}

/// The first layer whose input exploded on the validation split, while the guard has roll-backs left
/// for it. Only once batch-norm statistics stand still (before, they may lag behind the weights) and inputs are no
/// longer clamped in training (before, nothing has yet shown the weights what happens beyond).
fn escaped(recipe: &Recipe<'_>, state: &State, largest: &[f32]) -> Option<String> {
    let c = recipe.conversion.as_ref()?;
    let clamped = c.clamped(state.epoch as f64, recipe.epochs);
    if state.epoch < recipe.freeze_from || clamped || state.escapes >= recipe.guard.escapes {
        return None;
    }
    let limit = |node: usize| recipe.guard.explosion * c.units.get(node).copied().unwrap_or(1.0);
    let node = largest.iter().enumerate().find(|&(node, &value)| value > limit(node))?.0;
    Some(state.network.graph.nodes[node].name.clone())
}

/// Runs a split in inference mode, in portions; the validation split beside the teacher of `judge`.
pub(super) fn observe(
    preprocessing: &Preprocessing,
    graph: &Graph,
    data: &DataSet,
    split: Split,
    judge: Option<&Judge>,
    options: &ForwardOptions,
) -> Result<Pass, TrainError> {
    let mut largest = vec![0.0f32; graph.nodes.len()];
    let mut tally = Tally::default();
    for portion in data.indices(split).chunks(PORTION) {
        let images = inputs(data, preprocessing, portion);
        let scores = infer_observed(graph, &images, data.shape(), options, &mut |node, input, _| {
            if matches!(graph.nodes[node].op, Op::Quadratic(_)) {
                largest[node] = largest[node].max(input.map_or(0.0, |v| v.max_abs()));
            }
        })
        .ok_or_else(|| malformed(graph))?;
        let labels: Vec<u32> = portion.iter().map(|&image| data.labels()[image]).collect();
        let teacher = judge.map_or(&[][..], |judge| judge.teacher(tally.images(), portion.len()));
        tally.add(&scores, &labels, teacher);
    }
    Ok(Pass { tally, largest })
}

fn activation_records(recipe: &Recipe<'_>, graph: &Graph, largest: &[f32]) -> Vec<ActivationRecord> {
    let mean = |t: &Tensor| t.data().iter().sum::<f32>() / t.len().max(1) as f32;
    let record = |name: &str, input: NodeId, q: &Quadratic| {
        let shifts = q.a.data().iter().zip(q.b.data()).map(|(a, b)| (b / (2.0 * a)).abs());
        ActivationRecord {
            node: name.to_owned(),
            a: mean(&q.a),
            b: mean(&q.b),
            c: mean(&q.c),
            min_abs_a: q.a.data().iter().map(|a| a.abs()).fold(f32::INFINITY, f32::min),
            max_shift: shifts.fold(0.0, f32::max),
            max_abs_input: largest[input],
        }
    };
    let bases: &[NodeId] = recipe.conversion.as_ref().map_or(&[], |c| &c.bases);
    if bases.is_empty() {
        let all = graph.nodes.iter().enumerate();
        return all
            .filter_map(|(index, node)| match &node.op {
                Op::Quadratic(q) => Some(record(&node.name, index, q)),
                _ => None,
            })
            .collect();
    }
    bases
        .iter()
        .filter_map(|&sum| {
            let (square, q) = folded(graph, sum)?;
            Some(record(&graph.nodes[sum].name, square, &q))
        })
        .collect()
}
