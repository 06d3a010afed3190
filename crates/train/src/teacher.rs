//! Training the ReLU network.

use polyveil_net::Graph;

use crate::config::TrainConfig;
use crate::control::RunControl;
use crate::data::DataSet;
use crate::error::TrainError;
use crate::history::{History, Timing, Verdict};
use crate::metadata::{self, ENGINE, PROVENANCE, Provenance, TOOL};
use crate::run::{Recipe, run};
use crate::{init, metrics};

/// A trained network.
#[derive(Clone, Debug)]
pub struct TrainOutcome {
    /// The network of the epoch that is best on the validation split (`keep`), with metadata.
    pub graph: Graph,
    /// Its accuracy on the validation split.
    pub validation_accuracy: f64,
    /// The course of the run.
    pub history: History,
    /// The time it took.
    pub timing: Timing,
}

/// Trains `graph` on the training split of `data`, and keeps the epoch that is best on the
/// validation split. Images are pre-processed as the data set says (as the graph says, where it
/// carries a pre-processing and its weights are kept).
///
/// # Errors
/// A setting out of range, a network that does not fit the data, an empty split, divergence, a
/// request to stop, a checkpoint that is damaged or of another run, a file that cannot be written.
pub fn train_teacher(
    graph: &Graph,
    data: &DataSet,
    config: &TrainConfig,
    control: &RunControl<'_>,
) -> Result<TrainOutcome, TrainError> {
    config.check()?;
    metrics::check_fit(graph, data)?;
    let mut graph = graph.clone();
    let kept = if config.initialise { None } else { metadata::preprocessing(&graph)? };
    let preprocessing = kept.unwrap_or_else(|| data.preprocessing().clone());
    if config.initialise {
        init::initialise(&mut graph, config.seed);
    }
    let recipe = Recipe {
        name: "teacher",
        seed: config.seed,
        epochs: config.epochs,
        batch: config.batch,
        patience: config.patience,
        head_epochs: config.head_epochs,
        head_rate: config.head_rate,
        head_fit: config.head_fit,
        pretrained: !config.initialise,
        keep: config.keep,
        label_smoothing: config.label_smoothing,
        optimiser: &config.optimiser,
        augmentation: &config.augmentation,
        guard: &config.guard,
        preprocessing: &preprocessing,
        freeze_from: config.epochs,
        conversion: None,
        fingerprint: fingerprint("teacher", config, data, &[&graph])?,
    };
    let output = run(&recipe, graph, data, control)?;
    accepted(output.verdict)?;
    let mut graph = output.graph;
    metadata::describe_data(&mut graph, data, &preprocessing)?;
    metadata::write(
        &mut graph,
        PROVENANCE,
        &Provenance {
            kind: "teacher",
            tool: TOOL,
            engine: ENGINE,
            seed: config.seed,
            data: data.name(),
            data_fingerprint: data.fingerprint(),
            unlabelled: 0,
            best_epoch: output.history.best_epoch,
            validation_accuracy: output.validation_accuracy,
            verdict: &Verdict::Accepted,
            config,
        },
    )?;
    Ok(TrainOutcome {
        graph,
        validation_accuracy: output.validation_accuracy,
        history: output.history,
        timing: output.timing,
    })
}

/// Nothing where a network may be used; else the error that says why not.
pub(crate) fn accepted(verdict: Verdict) -> Result<(), TrainError> {
    match verdict {
        Verdict::Accepted => Ok(()),
        Verdict::NotAcceptable { refusal } => Err(TrainError::NotAcceptable { refusal }),
        Verdict::Diverged { layer, epoch, retries } => Err(TrainError::Diverged { layer, epoch, retries }),
    }
}

/// What a checkpoint must agree with to be continued.
pub(crate) fn fingerprint(
    kind: &str,
    config: &impl serde::Serialize,
    data: &DataSet,
    graphs: &[&Graph],
) -> Result<[u8; 32], TrainError> {
    let mut hash = blake3::Hasher::new_derive_key("polyveil 2026 training run");
    let mut part = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    let encode = |e: postcard::Error| TrainError::Metadata { key: kind.to_owned(), reason: e.to_string() };
    part(TOOL.as_bytes());
    part(ENGINE.as_bytes());
    part(kind.as_bytes());
    part(&postcard::to_stdvec(config).map_err(encode)?);
    part(data.fingerprint().as_bytes());
    // A teacher learns nothing from images without labels.
    if kind != "teacher" && !data.unlabelled().is_empty() {
        part(data.unlabelled_fingerprint().as_bytes());
    }
    for graph in graphs {
        part(&postcard::to_stdvec(graph).map_err(encode)?);
    }
    Ok(*hash.finalize().as_bytes())
}
