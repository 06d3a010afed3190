//! `polyveil eval`: accuracy of any network on any data set, in plain arithmetic.

use std::path::PathBuf;

use clap::Args;

use crate::error::CliError;
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
}

/// Loads, measures, prints.
pub fn run(args: &EvalArgs, session: &Session) -> Result<(), CliError> {
    let graph = models::load(&args.model)?;
    let data = data::open_for(&args.data, &graph, &args.images, session)?;
    data::require_shape(&data, graph.input_shape())?;
    let indices = data::choose(&data, args.split, None)?;
    let figures = Figures::by_source(&training::evaluate_by_source(&graph, &data, &indices)?);
    session.emit(&figures, || figures.text())
}
