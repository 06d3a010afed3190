//! `polyveil eval`: accuracy of any network on any data set, in plain arithmetic.

use std::path::PathBuf;

use clap::Args;

use crate::error::CliError;
use crate::pipeline::data::SplitArg;
use crate::pipeline::figures::Figures;
use crate::pipeline::{data, models, training};
use crate::session::Session;

/// Arguments of `eval`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  polyveil eval student.onnx --data mnist5k")]
pub struct EvalArgs {
    /// The network (ONNX), ReLU or HE-friendly.
    model: PathBuf,
    /// Data set: `mnist5k` (embedded), an .npz file, or a directory of idx files.
    #[arg(long)]
    data: String,
    /// Part of the data set.
    #[arg(long, value_enum, default_value = "test")]
    split: SplitArg,
}

/// Loads, measures, prints.
pub fn run(args: &EvalArgs, session: &Session) -> Result<(), CliError> {
    let graph = models::load(&args.model)?;
    let data = data::open(&args.data)?;
    data::require_shape(&data, graph.input_shape())?;
    let metrics = training::evaluate(&graph, &data, args.split.into())?;
    let figures = Figures::new(&metrics);
    session.emit(&figures, || figures.text())
}
