//! `polyveil train`: trains a ReLU network, the teacher.

use std::path::PathBuf;

use clap::Args;
use polyveil_net::{Graph, builders};
use polyveil_train::{Split, TrainConfig};
use serde::Serialize;

use crate::error::{CliError, Exit};
use crate::files::{self, Access};
use crate::pipeline::figures::Figures;
use crate::pipeline::{data, models, training};
use crate::session::Session;

/// Arguments of `train`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  polyveil train --data mnist5k --out teacher.onnx\n\n\
    Ctrl-C leaves a checkpoint; the same command goes on from it, to the same result.")]
pub struct TrainArgs {
    /// Data set: `mnist5k` (embedded), an .npz file, or a directory of idx files.
    #[arg(long)]
    data: String,
    /// Where the trained network goes (ONNX).
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Network to train: `lenet5`, or an ONNX file whose structure is used.
    #[arg(long, default_value = "lenet5")]
    net: String,
    /// Settings (TOML); unknown keys are refused.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Passes over the training images [default: the configuration's].
    #[arg(long)]
    epochs: Option<usize>,
    /// Fixes weights, order and augmentation [default: the configuration's].
    #[arg(long)]
    seed: Option<u64>,
    /// Where checkpoints go [default: OUT.checkpoint].
    #[arg(long, value_name = "DIR")]
    checkpoint: Option<PathBuf>,
}

#[derive(Serialize)]
struct Outcome {
    model: String,
    epochs: usize,
    seconds: f64,
    best_epoch: Option<usize>,
    test: Option<Figures>,
}

/// Opens the data, builds the network, trains it, measures it, writes it.
pub fn run(args: TrainArgs, session: &Session) -> Result<(), CliError> {
    files::check_target(&args.out, Access::Shared)?;
    let mut config: TrainConfig = training::config(args.config.as_deref())?;
    config.epochs = args.epochs.unwrap_or(config.epochs);
    config.seed = args.seed.unwrap_or(config.seed);
    let data = data::open(&args.data)?;
    let graph = network(&args.net, &data.shape(), data.class_names().len(), config.seed)?;
    data::require_shape(&data, graph.input_shape())?;
    let checkpoints = training::checkpoint_dir(args.checkpoint, &args.out)?;

    let started = std::time::Instant::now();
    let trained = training::teacher(&graph, &data, &config, Some(checkpoints.clone()), session)?;
    let seconds = started.elapsed().as_secs_f64();
    models::save(&trained.graph, &args.out)?;
    training::remove_checkpoint_dir(&checkpoints);

    let test = Figures::of_split(&trained.graph, &data, Split::Test)?;
    let outcome = Outcome {
        model: args.out.display().to_string(),
        epochs: trained.history.epochs.len(),
        seconds,
        best_epoch: trained.history.best_epoch,
        test,
    };
    session.emit(&outcome, || {
        let figures = outcome.test.as_ref().map_or(String::new(), |f| format!("test images: {}\n", f.line()));
        format!("{figures}wrote {} ({:.0} s)\n", outcome.model, outcome.seconds)
    })
}

fn network(name: &str, shape: &[usize], classes: usize, seed: u64) -> Result<Graph, CliError> {
    match name {
        "lenet5" => builders::lenet5_relu(shape, classes, seed).map_err(|e| CliError::new(Exit::Model, e)),
        path => models::load(std::path::Path::new(path)),
    }
}
