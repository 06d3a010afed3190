//! From a ReLU network to an HE-friendly one.
//!
//! | step | module |
//! |---|---|
//! | pre-activations to unit size, function unchanged; batch norm where the network is deep | [`normalise`] |
//! | max-pool → average-pool of the same window, with the moments of the maxima | [`pools`] |
//! | ReLU → quadratic with start coefficients | [`start`] |
//! | weights refitted in closed form to the ReLU network's values, layer by layer | [`reconstruct`], `engine::refit` |
//! | ReLU → Hermite basis with batch norm (a rival's form) | [`basis`] |
//! | the ReLU network whose features are matched | [`features`] |
//! | transition, distillation, range control, choice of the epoch | `run` |
//! | ranges of the frozen network | [`ranges`] |
//!
//! After Baruch et al. (arXiv 2111.03362); the bounded start and the rescaling are ours.

mod basis;
mod features;
mod normalise;
mod pools;
mod ranges;
mod reconstruct;
mod start;

use std::collections::BTreeMap;

use polyveil_net::{Graph, NodeId, Op};
use rand_core::Rng;

use crate::config::{
    ActivationForm, BatchNormPolicy, ConvertConfig, Granularity, InitialWeights, StartCoefficients,
};
use crate::control::RunControl;
use crate::data::{DataSet, Preprocessing, Split};
use crate::engine::{ForwardOptions, LayerStats, Pair, infer_observed};
use crate::error::TrainError;
use crate::history::{History, Timing, Verdict};
use crate::init;
use crate::metadata::{self, ENGINE, PROVENANCE, Provenance, RANGES, Ranges, TOOL};
use crate::random::{generator, shuffle};
use crate::run::{Conversion, Recipe, bound_coefficients, edges, inputs, malformed, run};
use crate::schedule::TransitionPlan;
use crate::{metrics, teacher};

pub(crate) use basis::folded;
pub use pools::replace_max_pools;
#[cfg(test)]
pub(crate) use start::least_squares;

/// Networks of more activations than this count as deep: there, quadratics tend to escape.
const SHALLOW: usize = 8;
/// Training images that calibration looks at: as many as have these numbers of values, within these bounds.
const CALIBRATION_VALUES: usize = 1 << 25;
const CALIBRATION_IMAGES: [usize; 2] = [128, 1024];

/// A converted network.
#[derive(Clone, Debug)]
pub struct ConvertOutcome {
    /// The HE-friendly network of the epoch that is best on the validation split (`keep`) among those that may be exported, frozen, with metadata (pre-processing,
    /// classes, ranges, provenance). Where `verdict` is not [`Verdict::Accepted`]: the best of the others.
    pub graph: Graph,
    /// Its accuracy on the validation split.
    pub validation_accuracy: f64,
    /// The course of the run.
    pub history: History,
    /// The time it took.
    pub timing: Timing,
    /// Whether the network may be exported.
    pub verdict: Verdict,
    /// Ranges of quadratic inputs and scores, with the share within the declared bound.
    pub ranges: Ranges,
}

/// Converts a trained ReLU network: replaces pools and activations, then trains the result with the
/// ReLU network as teacher. Images are pre-processed as the teacher's metadata say, as the data set
/// says where it has none.
///
/// # Errors
/// As [`crate::train_teacher`]; also a network without ReLU and max-pool, and a run in which no
/// epoch after the transition gave a network that may be exported: one with finite scores on all
/// training and validation images and with activation inputs within the declared bound.
pub fn convert(
    teacher: &Graph,
    data: &DataSet,
    config: &ConvertConfig,
    control: &RunControl<'_>,
) -> Result<ConvertOutcome, TrainError> {
    let outcome = attempt_conversion(teacher, data, config, control)?;
    teacher::accepted(outcome.verdict.clone())?;
    Ok(outcome)
}

/// [`convert`], for comparisons of methods: that no network may be exported is a result here, and no
/// error. Look at [`ConvertOutcome::verdict`].
///
/// # Errors
/// As [`convert`], but for the last.
pub fn attempt_conversion(
    teacher: &Graph,
    data: &DataSet,
    config: &ConvertConfig,
    control: &RunControl<'_>,
) -> Result<ConvertOutcome, TrainError> {
    config.check()?;
    metrics::check_fit(teacher, data)?;
    if data.indices(Split::Train).is_empty() {
        return Err(TrainError::EmptySplit { name: data.name().to_owned(), split: Split::Train });
    }
    let preprocessing = metadata::preprocessing(teacher)?.unwrap_or_else(|| data.preprocessing().clone());
    let preprocessing = edges::limited(preprocessing, data, config.range.edges);
    let Prepared { graph, units, bases, start, reference } = prepare(teacher, data, &preprocessing, config)?;
    let activations: Vec<NodeId> = quadratics(&graph).collect();
    let reconstructs = config.reconstruction.images > 0;
    let refit = |graph: &mut Graph| {
        if reconstructs {
            let reference = reconstruct::with_relu(graph);
            reconstruct::fit(graph, &reference, data, &preprocessing, config, (&units, start))
        } else {
            fit_again(graph, data, &preprocessing, config, &units, start)
        }
    };
    let recovers = config.transition.recover_epochs > 0;
    let recalculates = config.activation.rate_factor > 0.0 && start == StartCoefficients::LeastSquares;
    let declared = declared_bounds(&graph, &units, &bases, config.range.declared);
    let reference = reference.filter(|_| config.distillation.features > 0.0);
    let recipe = Recipe {
        name: "student",
        seed: config.seed,
        epochs: config.epochs,
        batch: config.batch,
        patience: config.patience,
        head_epochs: 0,
        head_rate: 0.0,
        head_fit: config.head_fit,
        pretrained: config.weights == InitialWeights::Teacher,
        keep: config.keep,
        label_smoothing: 0.0,
        optimiser: &config.optimiser,
        augmentation: &config.augmentation,
        guard: &config.guard,
        preprocessing: &preprocessing,
        freeze_from: (f64::from(config.normalise.freeze_from) * config.epochs as f64).round() as usize,
        conversion: Some(Conversion {
            teacher,
            distillation: &config.distillation,
            range: &config.range,
            transition: TransitionPlan::new(config.transition.clone(), activations),
            recover_epochs: config.transition.recover_epochs,
            refit: (recovers && (reconstructs || recalculates)).then_some(&refit),
            units: units.clone(),
            bases: bases.clone(),
            activation_rate: config.activation.rate_factor,
            constant: config.activation.constant,
            min_a: config.activation.min_a,
            max_shift: config.activation.max_shift,
            reference,
        }),
        fingerprint: teacher::fingerprint("student", config, data, &[teacher])?,
    };
    let output = run(&recipe, graph, data, control)?;

    let preprocessing = output.preprocessing;
    let mut graph = output.graph;
    basis::fold(&mut graph, &bases);
    let ranges = ranges::measure(&graph, data, &preprocessing, &declared)?;
    metadata::describe_data(&mut graph, data, &preprocessing)?;
    // JSON has no infinity; a network that reaches it is never compiled.
    if ranges.values().all(|r| r.min.is_finite() && r.max.is_finite()) {
        metadata::write(&mut graph, RANGES, &ranges)?;
    }
    metadata::write(
        &mut graph,
        PROVENANCE,
        &Provenance {
            kind: "student",
            tool: TOOL,
            engine: ENGINE,
            seed: config.seed,
            data: data.name(),
            data_fingerprint: data.fingerprint(),
            unlabelled: data.unlabelled().len(),
            best_epoch: output.history.best_epoch,
            validation_accuracy: output.validation_accuracy,
            verdict: &output.verdict,
            config,
        },
    )?;
    Ok(ConvertOutcome {
        graph,
        validation_accuracy: output.validation_accuracy,
        history: output.history,
        timing: output.timing,
        verdict: output.verdict,
        ranges,
    })
}

/// The student before training.
struct Prepared {
    graph: Graph,
    /// Size of one unit of each node's input: 1 where the channels were rescaled.
    units: Vec<f32>,
    /// Sums that are a Hermite basis each.
    bases: Vec<NodeId>,
    /// The rule behind the coefficients, never `Auto`.
    start: StartCoefficients,
    /// The ReLU network in this structure, and the activations to compare; none for a Hermite basis.
    reference: Option<(Graph, Vec<Pair>)>,
}

fn prepare(
    teacher: &Graph,
    data: &DataSet,
    preprocessing: &Preprocessing,
    config: &ConvertConfig,
) -> Result<Prepared, TrainError> {
    let mut graph = teacher.clone();
    let fresh = config.weights == InitialWeights::Fresh;
    if fresh {
        init::initialise(&mut graph, config.seed);
    }
    let pools = graph.nodes.iter().filter(|n| matches!(n.op, Op::MaxPool(_))).count();
    let mut relus: Vec<NodeId> =
        (0..graph.nodes.len()).filter(|&n| matches!(graph.nodes[n].op, Op::Relu)).collect();
    if pools == 0 && relus.is_empty() {
        return Err(TrainError::NothingToConvert { network: teacher.name.clone() });
    }
    let calibrated = config.normalise.pools && !fresh;
    if !calibrated {
        replace_max_pools(&mut graph);
    }

    let images = calibration_images(data, preprocessing, config.seed);
    let mut stats = observe_inputs(&graph, &images, data.shape(), &relus, &ForwardOptions::default())?;
    let mut units = vec![1.0f32; graph.nodes.len()];
    let mut rescaled =
        if config.normalise.rescale { normalise::rescale(&mut graph, &mut stats) } else { Vec::new() };
    if calibrated && pools > 0 {
        let moved = pools::replace_calibrated(&mut graph, &images, data.shape())?;
        let nodes = relus.iter_mut().chain(&mut rescaled).chain(stats.iter_mut().map(|(node, _)| node));
        nodes.for_each(|node| *node = moved[*node]);
        units.resize(graph.nodes.len(), 1.0);
    }
    for &(relu, ref layer) in &stats {
        if !rescaled.contains(&relu) {
            units[relu] = normalise::channel_size(&layer.whole());
        }
    }
    let count = (images.len() / data.shape().iter().product::<usize>().max(1)).max(1);
    let size = |layer: &LayerStats| (layer.whole().relu[1] / count as f64) as f32;
    let sizes = stats.iter().map(|(relu, layer)| (graph.nodes[*relu].name.clone(), size(layer))).collect();
    let deep = relus.len() > SHALLOW;
    let kind = match config.activation.start {
        StartCoefficients::Auto if deep => StartCoefficients::Bounded,
        StartCoefficients::Auto => StartCoefficients::LeastSquares,
        other => other,
    };
    let rule = |relu: NodeId| start::Start { kind, range: config.activation.range, unit: units[relu] };
    if config.activation.form == ActivationForm::Hermite {
        let layers: Vec<_> = stats
            .iter()
            .map(|(relu, layer)| {
                let start = (!fresh).then(|| rule(*relu).coefficients(layer, Granularity::Channel));
                (*relu, layer, start)
            })
            .collect();
        let (bases, units) = basis::expand(&mut graph, &layers, &units);
        graph.infer_shapes().map_err(|e| TrainError::Net(e.to_string()))?;
        return Ok(Prepared { graph, units, bases, start: kind, reference: None });
    }
    for (relu, layer) in &stats {
        graph.nodes[*relu].op = Op::Quadratic(rule(*relu).coefficients(layer, config.activation.per));
    }
    let insert = match config.normalise.batch_norm {
        BatchNormPolicy::Always => true,
        BatchNormPolicy::Never => false,
        BatchNormPolicy::Auto => deep,
    };
    if insert {
        units = normalise::insert_batch_norm(&mut graph, &stats, &units);
        if fresh {
            // Random weights have no values worth keeping: the usual start, unit variance.
            init::reset_batch_norm(&mut graph);
        }
    }
    let reference = features::reference(&graph, teacher, &sizes);
    if config.reconstruction.images > 0 && config.transition.recover_epochs == 0 {
        reconstruct::fit(&mut graph, &reference.0, data, preprocessing, config, (&units, kind))?;
    }
    bound_coefficients(&mut graph, &units, config.activation.min_a, config.activation.max_shift);
    graph.infer_shapes().map_err(|e| TrainError::Net(e.to_string()))?;
    Ok(Prepared { graph, units, bases: Vec::new(), start: kind, reference: Some(reference) })
}

/// Coefficients fitted anew to the values that reach the activations now, while they still are ReLU
/// (arXiv 2304.14836: first a range-aware ReLU network, then polynomials for its range).
fn fit_again(
    graph: &mut Graph,
    data: &DataSet,
    preprocessing: &Preprocessing,
    config: &ConvertConfig,
    units: &[f32],
    kind: StartCoefficients,
) -> Result<(), TrainError> {
    let nodes: Vec<NodeId> = quadratics(graph).collect();
    let images = calibration_images(data, preprocessing, config.seed);
    let relu = ForwardOptions { transition: vec![0.0; graph.nodes.len()], ..ForwardOptions::default() };
    for (node, layer) in observe_inputs(graph, &images, data.shape(), &nodes, &relu)? {
        let unit = units.get(node).copied().unwrap_or(1.0);
        let rule = start::Start { kind, range: config.activation.range, unit };
        let mut quadratic = rule.coefficients(&layer, config.activation.per);
        if let Op::Quadratic(old) = &graph.nodes[node].op
            && !config.activation.constant
        {
            quadratic.c = old.c.clone();
        }
        graph.nodes[node].op = Op::Quadratic(quadratic);
    }
    Ok(())
}

/// The declared bound of every activation's input, by the name that it has in the exported network.
fn declared_bounds(graph: &Graph, units: &[f32], bases: &[NodeId], declared: f32) -> BTreeMap<String, f32> {
    if declared <= 0.0 {
        return BTreeMap::new();
    }
    let bound = |node: NodeId| declared * units.get(node).copied().unwrap_or(1.0);
    let name = |node: NodeId| graph.nodes[node].name.clone();
    if bases.is_empty() {
        return quadratics(graph).map(|node| (name(node), bound(node))).collect();
    }
    let squares = bases.iter().filter_map(|&sum| Some((name(sum), bound(folded(graph, sum)?.0))));
    squares.collect()
}

fn quadratics(graph: &Graph) -> impl Iterator<Item = NodeId> {
    graph.nodes.iter().enumerate().filter(|(_, n)| matches!(n.op, Op::Quadratic(_))).map(|(index, _)| index)
}

fn calibration_images(data: &DataSet, preprocessing: &Preprocessing, seed: u64) -> Vec<f32> {
    let mut indices = data.indices(Split::Train).to_vec();
    let mut rng = generator(seed, "calibration", 0, 0);
    // One draw is thrown away so that the order differs from that of an epoch with the same key.
    rng.next_u32();
    shuffle(&mut rng, &mut indices);
    let [fewest, most] = CALIBRATION_IMAGES;
    let size = data.shape().iter().product::<usize>().max(1);
    indices.truncate((CALIBRATION_VALUES / size).clamp(fewest, most));
    inputs(data, preprocessing, &indices)
}

/// Largest `|x|` that enters each ReLU of a network, by node name in graph order, on the training images
/// that a conversion calibrates with.
///
/// # Errors
/// A network that does not fit the data, or that yields values that are not finite.
pub fn input_ranges(graph: &Graph, data: &DataSet) -> Result<Vec<(String, f32)>, TrainError> {
    metrics::check_fit(graph, data)?;
    let preprocessing = metadata::preprocessing(graph)?.unwrap_or_else(|| data.preprocessing().clone());
    let relus: Vec<NodeId> =
        (0..graph.nodes.len()).filter(|&n| matches!(graph.nodes[n].op, Op::Relu)).collect();
    let images = calibration_images(data, &preprocessing, 0);
    let stats = observe_inputs(graph, &images, data.shape(), &relus, &ForwardOptions::default())?;
    let range =
        |(node, layer): &(NodeId, LayerStats)| (graph.nodes[*node].name.clone(), layer.whole().max_abs());
    Ok(stats.iter().map(range).collect())
}

/// Statistics of the inputs of some nodes, in inference mode.
fn observe_inputs(
    graph: &Graph,
    images: &[f32],
    shape: [usize; 3],
    nodes: &[NodeId],
    options: &ForwardOptions,
) -> Result<Vec<(NodeId, LayerStats)>, TrainError> {
    let mut stats: Vec<(NodeId, LayerStats)> = nodes.iter().map(|&n| (n, LayerStats::default())).collect();
    infer_observed(graph, images, shape, options, &mut |node, input, _| {
        if let (Some((_, layer)), Some(value)) = (stats.iter_mut().find(|(n, _)| *n == node), input) {
            layer.add(value);
        }
    })
    .ok_or_else(|| malformed(graph))?;
    match stats.iter().find(|(_, layer)| !layer.whole().max_abs().is_finite()) {
        Some((node, _)) => Err(TrainError::Graph {
            node: graph.nodes[*node].name.clone(),
            reason: "the ReLU network itself yields values that are not finite here".to_owned(),
        }),
        None => Ok(stats),
    }
}
