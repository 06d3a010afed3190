//! `polyveil train`: trains a ReLU network, the teacher.

use std::path::{Path, PathBuf};

use clap::Args;
use polyveil_net::{Graph, builders};
use polyveil_train::{DataSet, Split, TrainConfig};
use serde::Serialize;

use crate::error::{CliError, Exit};
use crate::files::{self, Access};
use crate::pipeline::data::DataArgs;
use crate::pipeline::figures::Figures;
use crate::pipeline::{data, models, training};
use crate::session::Session;

/// Arguments of `train`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  polyveil train --data mnist5k --out teacher.onnx\n\n\
    Ctrl-C leaves a checkpoint; the same command goes on from it, to the same result.\n\n  \
    polyveil train --data scans/ --arch squeezenet1_1_linear --image-size 224 --color rgb \\\n    \
    --weights squeezenet1_1.safetensors --normalise imagenet --out teacher.onnx")]
pub struct TrainArgs {
    /// Data set: a folder of images (manifest.csv, or one folder a class), of CIFAR or of idx files; an
    /// .npz or .safetensors file; `mnist5k` (embedded).
    #[arg(long)]
    data: String,
    #[command(flatten)]
    images: DataArgs,
    /// Where the trained network goes (ONNX).
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Network to train: lenet5, alexnet, squeezenet1_1, squeezenet1_1_linear (no ReLU on the scores),
    /// vgg11, vgg11_bn, vgg16, vgg16_bn, resnet18, resnet20, resnet32, or an ONNX file whose structure is
    /// used.
    #[arg(long, visible_alias = "net", default_value = "lenet5")]
    arch: String,
    /// Weights to start from (safetensors, names of torchvision) instead of random ones. A classifier for
    /// another number of classes is left out.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Settings (TOML); unknown keys are refused.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Passes over the training images [default: the configuration's]. 0 with --weights trains nothing and
    /// writes the network as it is.
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
    let data = data::open_chosen(&args.data, &args.images, session)?;
    let mut graph = network(&args.arch, &data.shape(), data.class_names().len(), config.seed)?;
    if let Some(path) = &args.weights {
        let whole = models::load_weights(&mut graph, path, session)?;
        config.initialise = false;
        if config.epochs == 0 {
            return import(graph, whole, &data, &args.out, path, session);
        }
    }
    data::require_shape(&data, graph.input_shape())?;
    let checkpoints = training::checkpoint_dir(args.checkpoint, &args.out)?;

    let started = std::time::Instant::now();
    let trained = training::teacher(&graph, &data, &config, Some(checkpoints.clone()), session)?;
    let seconds = started.elapsed().as_secs_f64();
    models::save(&trained.graph, &args.out)?;
    training::tell(&trained.history, session);
    training::remove_checkpoint_dir(&checkpoints);

    let test = Figures::of_split(&trained.graph, &data, Split::Test)?;
    let outcome = Outcome {
        model: args.out.display().to_string(),
        epochs: trained.history.epochs.len(),
        seconds,
        best_epoch: trained.history.best_epoch,
        test,
    };
    session.emit(&outcome, || outcome.text())
}

impl Outcome {
    fn text(&self) -> String {
        let figures = self.test.as_ref().map_or(String::new(), |f| format!("test images: {}\n", f.line()));
        format!("{figures}wrote {} ({:.0} s)\n", self.model, self.seconds)
    }
}

/// Writes a network with the weights that it was given, no step trained.
fn import(
    mut graph: Graph,
    whole: bool,
    data: &DataSet,
    out: &Path,
    weights: &Path,
    session: &Session,
) -> Result<(), CliError> {
    if !whole {
        let message = "the classifier is for another number of classes, so the network needs training";
        return Err(CliError::new(Exit::Model, message).at(weights).help("give --epochs above 0"));
    }
    polyveil_train::metadata::describe(&mut graph, data).map_err(training::refused)?;
    models::save(&graph, out)?;
    let outcome = Outcome {
        model: out.display().to_string(),
        epochs: 0,
        seconds: 0.0,
        best_epoch: None,
        test: Figures::of_split(&graph, data, Split::Test)?,
    };
    session.emit(&outcome, || outcome.text())
}

/// The network of an architecture's name or of an ONNX file.
pub(super) fn network(name: &str, shape: &[usize], classes: usize, seed: u64) -> Result<Graph, CliError> {
    if let Some(built) = builders::by_name(name, shape, classes, seed) {
        return built.map_err(|e| {
            CliError::new(Exit::Model, format!("{name} for images of shape {shape:?}: {e}"))
                .help("choose a larger --image-size, or another --arch")
        });
    }
    let path = Path::new(name);
    if !path.exists() {
        let known = builders::ARCHITECTURES.join(", ");
        return Err(CliError::new(
            Exit::Usage,
            format!("--arch {name}: expected an ONNX file or one of {known}"),
        ));
    }
    models::load(path)
}
