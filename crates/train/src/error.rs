//! What can go wrong in training and conversion.

use std::path::PathBuf;

use crate::data::DataError;

/// Failure of training, conversion or evaluation.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The data could not be read.
    #[error(transparent)]
    Data(#[from] DataError),

    /// A configuration value is outside its range.
    #[error("configuration: {key} = {value}, expected {expected}")]
    Config {
        /// Name of the setting.
        key: &'static str,
        /// The value found.
        value: String,
        /// What is accepted.
        expected: &'static str,
    },

    /// Network and data do not fit each other.
    #[error("the network takes images of shape {network:?}, data set {name} has {data:?}")]
    InputShape {
        /// Input shape of the network.
        network: Vec<usize>,
        /// Shape of the images.
        data: Vec<usize>,
        /// Name of the data set.
        name: String,
    },

    /// The network has another number of outputs than the data has classes.
    #[error("the network yields {network} scores, data set {name} has {data} classes")]
    Classes {
        /// Outputs of the network.
        network: usize,
        /// Classes of the data.
        data: usize,
        /// Name of the data set.
        name: String,
    },

    /// A split that is needed holds no image.
    #[error("data set {name} has no {split} images")]
    EmptySplit {
        /// Name of the data set.
        name: String,
        /// The split asked for.
        split: crate::data::Split,
    },

    /// The graph is not well formed at a node.
    #[error("node {node}: {reason}")]
    Graph {
        /// Name of the node.
        node: String,
        /// What is wrong with it.
        reason: String,
    },

    /// There is nothing to convert.
    #[error("network {network} has no ReLU and no max-pool: nothing to convert")]
    NothingToConvert {
        /// Name of the network.
        network: String,
    },

    /// Training kept producing values that are not finite.
    #[error(
        "training diverged in epoch {epoch} at layer {layer}, also after {retries} roll-backs with a halved \
         learning rate; lower the learning rate or raise the range penalty"
    )]
    Diverged {
        /// First layer whose values are not finite.
        layer: String,
        /// Epoch (from 1) of the last attempt.
        epoch: usize,
        /// Roll-backs tried.
        retries: u32,
    },

    /// No epoch after the transition gave a network that may be exported.
    #[error(
        "no epoch gave a network that may be exported: {refusal}; train longer or raise the range penalty"
    )]
    NotAcceptable {
        /// What stands against the best one.
        refusal: crate::history::Refusal,
    },

    /// The caller asked to stop.
    #[error("stopped in epoch {epoch} of {epochs}{}", saved_note(.checkpoint.as_ref()))]
    Cancelled {
        /// Epoch (from 1) that was under way.
        epoch: usize,
        /// Epochs of the whole run.
        epochs: usize,
        /// The checkpoint from which the same call goes on.
        checkpoint: Option<PathBuf>,
    },

    /// A checkpoint belongs to another run.
    #[error(
        "checkpoint {path} belongs to another run (fingerprint {found}, this run {expected}): the configuration, \
         the data or the network changed; remove it to start anew"
    )]
    CheckpointMismatch {
        /// The file.
        path: PathBuf,
        /// Fingerprint of this run.
        expected: String,
        /// Fingerprint in the file.
        found: String,
    },

    /// A checkpoint is truncated or altered.
    #[error("checkpoint {path} is damaged: {reason}; remove it to start anew")]
    CheckpointDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },

    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },

    /// Metadata of a model is not what it should be.
    #[error("model metadata {key}: {reason}")]
    Metadata {
        /// The key.
        key: String,
        /// What is wrong.
        reason: String,
    },

    /// The plain executor refused the network.
    #[error("network: {0}")]
    Net(String),
}

fn saved_note(checkpoint: Option<&PathBuf>) -> String {
    checkpoint.map_or_else(String::new, |path| format!("; the same call goes on from {}", path.display()))
}
