//! The last layer by itself, before the first epoch and after the last one.
//!
//! Its loss is convex, so its best weights for given features can be had exactly, where gradient steps of a size that suits the layers
//! before it leave it far from them on few images. What is fitted are the labels of training images; which ridge is taken, and whether
//! the layer changes at all, is for the validation split to say. Fitting the last layer before others are trained: Kumar et al.,
//! "Fine-Tuning can Distort Pretrained Features", arXiv 2202.10054, section 3.

use polyveil_net::{Graph, NodeId, Op, Pads};
use rayon::prelude::*;

use super::judge::{Judge, Tally};
use super::{PORTION, Recipe, inputs, malformed, options};
use crate::config::Augmentation;
use crate::data::{DataSet, Preprocessing, Split};
use crate::engine::logistic::Regression;
use crate::engine::{ForwardOptions, Scores, infer};
use crate::error::TrainError;
use crate::history::{Event, History};
use crate::random::generator;

/// From the strongest to the weakest, relative to the mean cross-entropy.
const RIDGES: [f64; 9] = [1.0, 0.3, 0.1, 0.03, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4];
/// Products of one evaluation of the loss. Beyond it a fit would take many minutes, and steps have had images enough.
const MOST_PRODUCTS: usize = 1 << 28;

/// Rows of features longer than this many times the median are left out.
const FAR: f32 = 4.0;

/// A network with a better last layer.
pub(super) struct Fitted {
    graph: Graph,
    event: Event,
}

impl Fitted {
    /// The network; what happened goes into the history.
    pub(super) fn tell(self, history: &mut History) -> Graph {
        history.events.push(self.event);
        self.graph
    }
}

/// Fits the last layer of `graph`, run as at `position` (in epochs). None where the settings say no, where the network does not end in
/// a layer of weights with a bias (pools and flattening aside), where it would take too long, or where no fit is better than what is there.
pub(super) fn fit(
    recipe: &Recipe<'_>,
    graph: &Graph,
    data: &DataSet,
    judge: &Judge,
    preprocessing: &Preprocessing,
    position: f64,
) -> Result<Option<Fitted>, TrainError> {
    if recipe.head_fit == 0 {
        return Ok(None);
    }
    let Some((head, classes)) = last_layer(graph) else { return Ok(None) };
    let options = options(recipe, graph, position, false);
    let training = data.indices(Split::Train);
    let width = graph.nodes[head].op.weights().first().map_or(0, |(_, weight)| weight.len()) / classes.max(1);
    let products =
        [training.len(), recipe.head_fit, width, classes].into_iter().fold(1, usize::saturating_mul);
    if products > MOST_PRODUCTS {
        return Ok(None);
    }
    let trunk = trunk(graph, head, data, width, &options);
    let (mut features, mut labels) = (Vec::new(), Vec::new());
    for pass in 0..recipe.head_fit {
        let augmentation = if pass == 0 { &Augmentation::none() } else { recipe.augmentation };
        for portion in training.chunks(PORTION) {
            let images = changed(recipe.seed, data, preprocessing, augmentation, portion, pass);
            let rows = trunk.features(&images)?;
            features.extend(rows);
            labels.extend(portion.iter().map(|&image| data.labels()[image]));
        }
    }
    keep_near(&mut features, &mut labels, width);
    let Some(regression) = Regression::new(&features, labels, classes) else { return Ok(None) };
    drop(features);

    let validation = data.indices(Split::Validation);
    let mut seen = Vec::new();
    for portion in validation.chunks(PORTION) {
        seen.extend(trunk.features(&inputs(data, preprocessing, portion))?);
    }
    let labels: Vec<u32> = validation.iter().map(|&image| data.labels()[image]).collect();
    let rank = |weights: &[f32], bias: &[f32]| {
        let mut tally = Tally::default();
        let scores = Scores { values: scores(&seen, weights, bias), classes };
        tally.add(&scores, &labels, judge.teacher(0, labels.len()));
        let merits = tally.merits();
        (judge.rank(merits), merits.accuracy)
    };
    let (before, accuracy) = match graph.nodes[head].op.weights()[..] {
        [(_, weights), (_, bias)] => rank(weights.data(), bias.data()),
        _ => return Ok(None),
    };
    let mut best = None;
    let mut merit = before;
    let mut solution = regression.zero();
    for ridge in RIDGES {
        solution = regression.fit(ridge, solution);
        let layer = regression.unscaled(&solution);
        let (found, after) = rank(&layer.0, &layer.1);
        if found > merit {
            (merit, best) = (found, Some((layer, ridge, after)));
        }
    }
    let Some((weights, ridge, after)) = best else { return Ok(None) };
    let mut graph = graph.clone();
    set(&mut graph, head, &weights);
    let layer = graph.nodes[head].name.clone();
    tracing::info!(layer, ridge, before = accuracy, after, "last layer fitted");
    let event = Event::LastLayerFitted { layer, ridge: ridge as f32, before: accuracy, after };
    Ok(Some(Fitted { graph, event }))
}

/// Drops rows much longer than most: an image that escapes teaches nothing, and would set the scale of every feature.
fn keep_near(features: &mut Vec<f32>, labels: &mut Vec<u32>, width: usize) {
    let lengths: Vec<f32> =
        features.chunks(width.max(1)).map(|row| row.iter().map(|v| v * v).sum::<f32>().sqrt()).collect();
    let mut sorted = lengths.clone();
    sorted.sort_by(f32::total_cmp);
    let Some(&median) = sorted.get(sorted.len().saturating_sub(1) / 2) else { return };
    // Written so that NaN is dropped.
    let near: Vec<usize> = (0..lengths.len()).filter(|&row| lengths[row] <= FAR * median).collect();
    *features = near.iter().flat_map(|&row| &features[row * width..(row + 1) * width]).copied().collect();
    *labels = near.iter().map(|&row| labels[row]).collect();
}

/// Scores of rows of features.
fn scores(rows: &[f32], weights: &[f32], bias: &[f32]) -> Vec<f32> {
    let width = weights.len() / bias.len().max(1);
    let row = |row: &[f32]| -> Vec<f32> {
        let one = |(weights, &bias): (&[f32], &f32)| {
            bias + row.iter().zip(weights).map(|(v, w)| v * w).sum::<f32>()
        };
        weights.chunks(width.max(1)).zip(bias).map(one).collect()
    };
    rows.chunks(width.max(1)).flat_map(row).collect()
}

/// The layer whose outputs are the scores, perhaps after a mean over positions, and the number of classes.
fn last_layer(graph: &Graph) -> Option<(NodeId, usize)> {
    let mut node = graph.output;
    let mut pooled = false;
    loop {
        let at = graph.nodes.get(node).filter(|at| !graph.is_fixed(&at.name))?;
        match &at.op {
            Op::Flatten => {}
            Op::GlobalAvgPool => pooled = true,
            Op::Linear(l) => return Some((node, *l.weight.shape().first()?)),
            // Then the mean of its outputs is what it makes of the mean of its inputs.
            Op::Conv(c) if pooled => {
                let [outputs, _, 1, 1] = *c.weight.shape() else { return None };
                let plain = c.groups == 1 && c.stride == [1, 1] && c.pads == Pads::default();
                return plain.then_some((node, outputs));
            }
            _ => return None,
        }
        node = *at.inputs.first()?;
    }
}

fn trunk<'a>(
    graph: &Graph,
    head: NodeId,
    data: &DataSet,
    width: usize,
    options: &'a ForwardOptions,
) -> Trunk<'a> {
    let mut trunk = graph.clone();
    trunk.output = trunk.nodes[head].inputs.first().copied().unwrap_or_default();
    // Nodes stand in the order of evaluation.
    trunk.nodes.truncate(head);
    Trunk { graph: trunk, shape: data.shape(), width, options }
}

fn set(graph: &mut Graph, head: NodeId, (weights, bias): &(Vec<f32>, Vec<f32>)) {
    for (name, tensor) in graph.nodes[head].op.weights_mut() {
        tensor.data_mut().copy_from_slice(if name == "bias" { bias } else { weights });
    }
}

/// The network up to its last layer.
struct Trunk<'a> {
    graph: Graph,
    shape: [usize; 3],
    /// Channels that the last layer sees.
    width: usize,
    options: &'a ForwardOptions,
}

impl Trunk<'_> {
    /// Channels of every image, means over positions.
    fn features(&self, images: &[f32]) -> Result<Vec<f32>, TrainError> {
        let count = images.len() / self.shape.iter().product::<usize>().max(1);
        let maps = infer(&self.graph, images, self.shape, self.options)
            .ok_or_else(|| malformed(&self.graph))?
            .values;
        let plane = maps.len() / (count * self.width).max(1);
        if plane * count * self.width != maps.len() || plane == 0 {
            return Err(malformed(&self.graph));
        }
        Ok(maps.chunks(plane).map(|plane| plane.iter().sum::<f32>() / plane.len() as f32).collect())
    }
}

/// Images as training changes them, one after another.
fn changed(
    seed: u64,
    data: &DataSet,
    preprocessing: &Preprocessing,
    augmentation: &Augmentation,
    portion: &[usize],
    pass: usize,
) -> Vec<f32> {
    let images = portion.par_iter().map(|&index| {
        let mut rng = generator(seed, "last layer", pass as u64, index as u64);
        data.training_image(index, preprocessing, augmentation, &mut rng).into_data()
    });
    images.flatten_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_escape_are_left_out() {
        let mut features = vec![1.0, 1.0, f32::NAN, 0.0, 0.0, 2.0, 1e9, 0.0, f32::INFINITY, 0.0, -1.0, 1.0];
        let mut labels = vec![0, 1, 2, 3, 4, 5];
        keep_near(&mut features, &mut labels, 2);
        assert_eq!((features, labels), (vec![1.0, 1.0, 0.0, 2.0, -1.0, 1.0], vec![0, 2, 5]));
        let (mut features, mut labels) = (Vec::new(), Vec::new());
        keep_near(&mut features, &mut labels, 3);
        assert!(labels.is_empty());
    }
}
