//! `polyveil eval`: accuracy of any network on any data set, in plain arithmetic.

use std::path::{Path, PathBuf};

use clap::Args;
use polyveil_train::{DataSet, Evaluation, metrics};

use crate::error::{CliError, Exit};
use crate::files::{self, Access};
use crate::pipeline::data::{DataArgs, SplitArg};
use crate::pipeline::figures::Figures;
use crate::pipeline::{data, models, training};
use crate::session::Session;

/// Arguments of `eval`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  polyveil eval student.onnx --data mnist5k\n  polyveil eval student.onnx --data scans/ --split all"
)]
pub struct EvalArgs {
    /// The network (ONNX), ReLU or HE-friendly.
    model: PathBuf,
    /// Data set: a folder of images (manifest.csv, or one folder a class), of CIFAR or of idx files; an
    /// .npz or .safetensors file; `mnist5k` (embedded).
    #[arg(long)]
    data: String,
    #[command(flatten)]
    images: DataArgs,
    /// Part of the data set.
    #[arg(long, value_enum, default_value = "test")]
    split: SplitArg,
    /// Write a line an image (CSV): its place in the split, its name, its class, the predicted class (empty where a score is not
    /// finite), the scores.
    #[arg(long, value_name = "FILE")]
    predictions: Option<PathBuf>,
}

/// Loads, measures, prints.
pub fn run(args: &EvalArgs, session: &Session) -> Result<(), CliError> {
    if let Some(path) = &args.predictions {
        files::check_target(path, Access::Shared)?;
    }
    let graph = models::load(&args.model)?;
    let data = data::open_for(&args.data, &graph, &args.images, session)?;
    data::require_shape(&data, graph.input_shape())?;
    let indices = data::choose(&data, args.split, None)?;
    let evaluation = training::evaluate_by_source(&graph, &data, &indices)?;
    if let Some(path) = &args.predictions {
        write_predictions(path, &data, &indices, &evaluation)?;
    }
    let figures = Figures::by_source(&evaluation);
    session.emit(&figures, || figures.text())
}

fn write_predictions(
    path: &Path,
    data: &DataSet,
    indices: &[usize],
    evaluation: &Evaluation,
) -> Result<(), CliError> {
    let names = data.class_names();
    let name = |class: u32| names.get(class as usize).map_or("", String::as_str);
    let broken = |e: csv::Error| CliError::new(Exit::Internal, e);
    let mut writer = csv::Writer::from_writer(Vec::new());
    let header = ["index", "image", "class", "predicted"].into_iter().map(str::to_owned);
    writer.write_record(header.chain(names.iter().map(|n| format!("score {n}")))).map_err(broken)?;
    for (index, (&image, scores)) in indices.iter().zip(&evaluation.scores).enumerate() {
        let predicted = scores.as_deref().and_then(metrics::argmax).map_or("", name);
        let truth = data.labels().get(image).map_or("", |&class| name(class));
        let first = [index.to_string(), data.image_name(image), truth.to_owned(), predicted.to_owned()];
        let scores = (0..names.len()).map(|k| {
            scores.as_ref().and_then(|s| s.get(k)).map_or_else(|| "NaN".to_owned(), ToString::to_string)
        });
        writer.write_record(first.into_iter().chain(scores)).map_err(broken)?;
    }
    let bytes = writer.into_inner().map_err(|e| CliError::new(Exit::Internal, e))?;
    files::write_bytes(path, &bytes)
}
