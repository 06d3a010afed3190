//! Teacher training, conversion and evaluation, with progress and checkpoints.

use std::path::{Path, PathBuf};

use polyveil_net::Graph;
use polyveil_train::{
    ConvertConfig, ConvertOutcome, DataSet, Evaluation, Event, History, Method, Metrics, Progress,
    RunControl, SettingsError, Split, TrainConfig, TrainError, TrainOutcome,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{CliError, Exit};
use crate::pipeline::data;
use crate::session::Session;

/// Trains a ReLU network.
pub fn teacher(
    graph: &Graph,
    data: &DataSet,
    config: &TrainConfig,
    checkpoint_dir: Option<PathBuf>,
    session: &Session,
) -> Result<TrainOutcome, CliError> {
    watched("train", session, checkpoint_dir, |control| {
        polyveil_train::train_teacher(graph, data, config, control)
    })
}

/// Turns a ReLU network into an HE-friendly one.
pub fn student(
    teacher: &Graph,
    data: &DataSet,
    config: &ConvertConfig,
    checkpoint_dir: Option<PathBuf>,
    session: &Session,
) -> Result<ConvertOutcome, CliError> {
    watched("convert", session, checkpoint_dir, |control| {
        polyveil_train::convert(teacher, data, config, control)
    })
}

/// Says what a run did to a network beside training it.
pub fn tell(history: &History, session: &Session) {
    for event in &history.events {
        match event {
            Event::EdgesLimited { share, .. } => session.note(&format!(
                "values of single images were out of range, or nearly: the network's pre-processing makes images with sharp edges smaller ({:.0} % of the training images)",
                100.0 * share
            )),
            Event::InputsReduced { factor } => session.note(&format!(
                "values of single images were out of range, or nearly: the network's pre-processing makes inputs smaller, by {factor:.3}"
            )),
            Event::LastLayerFitted { layer, before, after, .. } => session.note(&format!(
                "{layer}, the last layer, fitted by itself: {:.1} -> {:.1} % of validation images",
                100.0 * before,
                100.0 * after
            )),
            Event::SkippedStep { .. } | Event::RolledBack { .. } | Event::GaveUp { .. } => {}
        }
    }
}

/// Measures a network on a split, in plain arithmetic.
pub fn evaluate(graph: &Graph, data: &DataSet, split: Split) -> Result<Metrics, CliError> {
    polyveil_train::evaluate(graph, data, split).map_err(refused)
}

/// Measures a network on a list of images, as a whole and by source, in plain arithmetic.
pub fn evaluate_by_source(graph: &Graph, data: &DataSet, indices: &[usize]) -> Result<Evaluation, CliError> {
    polyveil_train::evaluate_by_source(graph, data, indices).map_err(refused)
}

/// Turns a ReLU network into one of quadratics by whatever method; that it may not be exported is a
/// result here. The checkpoint stays.
pub fn attempt(
    teacher: &Graph,
    data: &DataSet,
    config: &ConvertConfig,
    checkpoint_dir: &Path,
    label: &str,
    session: &Session,
) -> Result<ConvertOutcome, TrainError> {
    observed(label, session, Some(checkpoint_dir.to_owned()), true, |control| {
        polyveil_train::attempt_conversion(teacher, data, config, control)
    })
}

/// Trains a ReLU network. The checkpoint stays.
pub fn attempt_teacher(
    graph: &Graph,
    data: &DataSet,
    config: &TrainConfig,
    checkpoint_dir: &Path,
    label: &str,
    session: &Session,
) -> Result<TrainOutcome, TrainError> {
    observed(label, session, Some(checkpoint_dir.to_owned()), true, |control| {
        polyveil_train::train_teacher(graph, data, config, control)
    })
}

/// Changes of settings from a TOML file; none without a file.
pub fn changes(path: Option<&Path>) -> Result<Value, CliError> {
    let Some(path) = path else { return Ok(Value::Null) };
    let text =
        std::fs::read_to_string(path).map_err(|e| CliError::io(path, &e, "read").sorted(Exit::Usage))?;
    toml::from_str(&text)
        .map_err(|e| CliError::new(Exit::Usage, format!("not a valid TOML file: {e}")).at(path))
}

/// Reads a configuration file, or takes the defaults.
pub fn config<C: Serialize + DeserializeOwned + Default>(path: Option<&Path>) -> Result<C, CliError> {
    let changes = changes(path)?;
    polyveil_train::overlay(&C::default(), &changes).map_err(|e| misfit(path, &e))
}

/// Settings of a conversion: a configuration file laid over the preset of its method, or of `method`.
pub fn convert_config(path: Option<&Path>, method: Option<Method>) -> Result<ConvertConfig, CliError> {
    let mut changes = changes(path)?;
    if let Some(method) = method {
        polyveil_train::merge(&mut changes, &serde_json::json!({ "method": method.name() }));
    }
    ConvertConfig::from_changes(&changes).map_err(|e| misfit(path, &e))
}

/// A setting that does not fit.
pub fn misfit(path: Option<&Path>, error: &SettingsError) -> CliError {
    let failure = CliError::new(Exit::Usage, format!("configuration: {error}"))
        .help("`polyveil convert --template` prints every setting of a conversion with its meaning");
    match path {
        Some(path) => failure.at(path),
        None => failure,
    }
}

/// The checkpoint directory of a run: as asked for, or beside the result.
pub fn checkpoint_dir(asked: Option<PathBuf>, out: &Path) -> Result<PathBuf, CliError> {
    let directory = asked.unwrap_or_else(|| {
        let mut name = out.as_os_str().to_owned();
        name.push(".checkpoint");
        PathBuf::from(name)
    });
    std::fs::create_dir_all(&directory).map_err(|e| CliError::io(&directory, &e, "write"))?;
    Ok(directory)
}

/// Removes a checkpoint directory that the finished run emptied.
pub fn remove_checkpoint_dir(directory: &Path) {
    // Fails, rightly, where something else is in there.
    let _ = std::fs::remove_dir(directory);
}

/// A failure of training in the words of the command line.
pub fn refused(error: TrainError) -> CliError {
    let exit = match &error {
        TrainError::Data(_) => {
            let TrainError::Data(error) = error else { return CliError::new(Exit::Data, error) };
            return data::refused(error);
        }
        TrainError::Config { .. } => Exit::Usage,
        TrainError::InputShape { .. } | TrainError::Classes { .. } | TrainError::EmptySplit { .. } => {
            Exit::Data
        }
        TrainError::Graph { .. } | TrainError::NothingToConvert { .. } | TrainError::Metadata { .. } => {
            Exit::Model
        }
        TrainError::Net(_) => Exit::Model,
        TrainError::Cancelled { .. } => Exit::Interrupted,
        TrainError::CheckpointMismatch { .. } | TrainError::CheckpointDamaged { .. } => Exit::File,
        TrainError::Io { path, source } => return CliError::io(path, source, "write"),
        TrainError::Diverged { .. } | TrainError::NotAcceptable { .. } => Exit::Training,
    };
    CliError::new(exit, error)
}

fn watched<T>(
    label: &str,
    session: &Session,
    checkpoint_dir: Option<PathBuf>,
    run: impl FnOnce(&RunControl<'_>) -> Result<T, TrainError>,
) -> Result<T, CliError> {
    observed(label, session, checkpoint_dir, false, run).map_err(refused)
}

fn observed<T>(
    label: &str,
    session: &Session,
    checkpoint_dir: Option<PathBuf>,
    keep_checkpoint: bool,
    run: impl FnOnce(&RunControl<'_>) -> Result<T, TrainError>,
) -> Result<T, TrainError> {
    const PARTS: u64 = 1000;
    let display = session.progress(label, PARTS);
    let report = |p: &Progress| {
        let epoch = (p.epoch.saturating_sub(1)) as f64 + p.step as f64 / p.steps.max(1) as f64;
        let done = PARTS as f64 * epoch / p.epochs.max(1) as f64;
        let mut message = format!("{} {}/{}, loss {:.4}", p.phase, p.epoch, p.epochs, p.loss);
        if let Some(accuracy) = p.validation_accuracy {
            message.push_str(&format!(", validation {:.2} %", 100.0 * accuracy));
        }
        if let Some(distance) = p.teacher_distance {
            message.push_str(&format!(", {distance:.4} nats from the teacher"));
        }
        display.set(done as u64, &message);
    };
    let cancel = Some(session.cancel());
    run(&RunControl { progress: Some(&report), cancel, checkpoint_dir, keep_checkpoint })
}
