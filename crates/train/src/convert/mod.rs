//! From a ReLU network to an HE-friendly one.
//!
//! | step | module |
//! |---|---|
//! | max-pool → average-pool of the same window | [`pools`] |
//! | pre-activations to unit size, function unchanged; batch norm where the network is deep | [`normalise`] |
//! | ReLU → quadratic with start coefficients | [`start`] |
//! | transition, distillation, range control, choice of the epoch | `run` |
//! | ranges of the frozen network | [`ranges`] |
//!
//! After Baruch et al. (arXiv 2111.03362); the bounded start and the rescaling are ours.

mod normalise;
mod pools;
mod ranges;
mod start;

use polyveil_net::{Graph, NodeId, Op};
use rand_core::Rng;

use crate::config::{BatchNormPolicy, ConvertConfig, StartCoefficients};
use crate::control::RunControl;
use crate::data::{DataSet, Preprocessing, Split};
use crate::engine::{ForwardOptions, LayerStats, infer_observed};
use crate::error::TrainError;
use crate::history::History;
use crate::metadata::{self, ENGINE, PROVENANCE, Provenance, RANGES, Ranges, TOOL};
use crate::random::{generator, shuffle};
use crate::run::{Conversion, Recipe, bound_coefficients, malformed, run};
use crate::schedule::TransitionPlan;
use crate::{metrics, teacher};

pub use pools::replace_max_pools;

/// Networks of more activations than this count as deep: there, quadratics tend to escape.
const SHALLOW: usize = 8;
/// Training images that calibration looks at.
const CALIBRATION_IMAGES: usize = 1024;

/// A converted network.
#[derive(Clone, Debug)]
pub struct ConvertOutcome {
    /// The HE-friendly network of the epoch with the lowest cross-entropy on the validation split,
    /// frozen, with metadata (pre-processing, classes, ranges, provenance).
    pub graph: Graph,
    /// Its accuracy on the validation split.
    pub validation_accuracy: f64,
    /// The course of the run.
    pub history: History,
    /// Ranges of quadratic inputs and scores on the training split.
    pub ranges: Ranges,
}

/// Converts a trained ReLU network: replaces pools and activations, then trains the result with the
/// ReLU network as teacher. Images are pre-processed as the teacher's metadata say, as the data set
/// says where it has none.
///
/// # Errors
/// As [`crate::train_teacher`]; also a network without ReLU and max-pool, and a run in which no
/// epoch after the transition gave finite scores everywhere.
pub fn convert(
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
    let Prepared { graph, units } = prepare(teacher, data, &preprocessing, config)?;
    let activations: Vec<NodeId> = quadratics(&graph).collect();
    let recipe = Recipe {
        name: "student",
        seed: config.seed,
        epochs: config.epochs,
        batch: config.batch,
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
            units,
            activation_rate: config.activation.rate_factor,
            min_a: config.activation.min_a,
            max_shift: config.activation.max_shift,
        }),
        fingerprint: teacher::fingerprint("student", config, data, &[teacher])?,
    };
    let output = run(&recipe, graph, data, control)?;

    let mut graph = output.graph;
    let ranges = ranges::measure(&graph, data, &preprocessing)?;
    metadata::describe_data(&mut graph, data, &preprocessing)?;
    metadata::write(&mut graph, RANGES, &ranges)?;
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
            best_epoch: output.history.best_epoch,
            validation_accuracy: output.validation_accuracy,
            config,
        },
    )?;
    Ok(ConvertOutcome {
        graph,
        validation_accuracy: output.validation_accuracy,
        history: output.history,
        ranges,
    })
}

/// The student before training.
struct Prepared {
    graph: Graph,
    /// Size of one unit of each node's input: 1 where the channels were rescaled.
    units: Vec<f32>,
}

fn prepare(
    teacher: &Graph,
    data: &DataSet,
    preprocessing: &Preprocessing,
    config: &ConvertConfig,
) -> Result<Prepared, TrainError> {
    let mut graph = teacher.clone();
    let pools = replace_max_pools(&mut graph);
    let relus: Vec<NodeId> =
        (0..graph.nodes.len()).filter(|&n| matches!(graph.nodes[n].op, Op::Relu)).collect();
    if pools == 0 && relus.is_empty() {
        return Err(TrainError::NothingToConvert { network: teacher.name.clone() });
    }

    let images = calibration_images(data, preprocessing, config.seed);
    let mut stats = observe_inputs(&graph, &images, data.shape(), &relus)?;
    let mut units = vec![1.0f32; graph.nodes.len()];
    let rescaled =
        if config.normalise.rescale { normalise::rescale(&mut graph, &mut stats) } else { Vec::new() };
    for &(relu, ref layer) in &stats {
        if !rescaled.contains(&relu) {
            units[relu] = normalise::channel_size(&layer.whole());
        }
    }
    let deep = relus.len() > SHALLOW;
    let start = match config.activation.start {
        StartCoefficients::Auto if deep => StartCoefficients::SmallA,
        StartCoefficients::Auto => StartCoefficients::LeastSquares,
        other => other,
    };
    for (relu, layer) in &stats {
        let settings = start::Start { kind: start, range: config.activation.range, unit: units[*relu] };
        graph.nodes[*relu].op = Op::Quadratic(settings.coefficients(layer, config.activation.per));
    }
    let insert = match config.normalise.batch_norm {
        BatchNormPolicy::Always => true,
        BatchNormPolicy::Never => false,
        BatchNormPolicy::Auto => deep,
    };
    if insert {
        units = normalise::insert_batch_norm(&mut graph, &stats, &units);
    }
    bound_coefficients(&mut graph, &units, config.activation.min_a, config.activation.max_shift);
    graph.infer_shapes().map_err(|e| TrainError::Net(e.to_string()))?;
    Ok(Prepared { graph, units })
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
    indices
        .iter()
        .take(CALIBRATION_IMAGES)
        .flat_map(|&i| data.image_with(i, preprocessing).into_data())
        .collect()
}

/// Statistics of the inputs of some nodes, in inference mode.
fn observe_inputs(
    graph: &Graph,
    images: &[f32],
    shape: [usize; 3],
    nodes: &[NodeId],
) -> Result<Vec<(NodeId, LayerStats)>, TrainError> {
    let mut stats: Vec<(NodeId, LayerStats)> = nodes.iter().map(|&n| (n, LayerStats::default())).collect();
    infer_observed(graph, images, shape, &ForwardOptions::default(), &mut |node, input, _| {
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
