//! `polyveil convert`: turns a ReLU network into an HE-friendly one that it teaches.

use std::path::PathBuf;

use clap::Args;
use polyveil_train::{ConvertConfig, Split};
use serde::Serialize;

use crate::error::CliError;
use crate::files::{self, Access};
use crate::pipeline::data::DataArgs;
use crate::pipeline::figures::Figures;
use crate::pipeline::{data, models, training};
use crate::session::Session;

/// Arguments of `convert`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  polyveil convert teacher.onnx --data mnist5k --out student.onnx\n\n\
    Ctrl-C leaves a checkpoint; the same command goes on from it, to the same result.")]
pub struct ConvertArgs {
    /// The trained ReLU network (ONNX).
    teacher: PathBuf,
    /// The data set it was trained on.
    #[arg(long)]
    data: String,
    #[command(flatten)]
    images: DataArgs,
    /// Where the HE-friendly network goes (ONNX).
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Settings (TOML); unknown keys are refused.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Passes over the training images [default: the configuration's].
    #[arg(long)]
    epochs: Option<usize>,
    /// Fixes order and augmentation [default: the configuration's].
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
    teacher: Option<Figures>,
    student: Option<Figures>,
}

/// Opens teacher and data, converts, measures both, writes the student.
pub fn run(args: ConvertArgs, session: &Session) -> Result<(), CliError> {
    files::check_target(&args.out, Access::Shared)?;
    let mut config: ConvertConfig = training::config(args.config.as_deref())?;
    config.epochs = args.epochs.unwrap_or(config.epochs);
    config.seed = args.seed.unwrap_or(config.seed);
    let teacher = models::load(&args.teacher)?;
    let data = data::open_for(&args.data, &teacher, &args.images, session)?;
    data::require_shape(&data, teacher.input_shape())?;
    let checkpoints = training::checkpoint_dir(args.checkpoint, &args.out)?;

    let started = std::time::Instant::now();
    let converted = training::student(&teacher, &data, &config, Some(checkpoints.clone()), session)?;
    let seconds = started.elapsed().as_secs_f64();
    models::save(&converted.graph, &args.out)?;
    training::remove_checkpoint_dir(&checkpoints);

    let outcome = Outcome {
        model: args.out.display().to_string(),
        epochs: converted.history.epochs.len(),
        seconds,
        best_epoch: converted.history.best_epoch,
        teacher: Figures::of_split(&teacher, &data, Split::Test)?,
        student: Figures::of_split(&converted.graph, &data, Split::Test)?,
    };
    session.emit(&outcome, || {
        let line = |name: &str, figures: &Option<Figures>| {
            figures.as_ref().map_or(String::new(), |f| format!("{name} on test images: {}\n", f.line()))
        };
        line("ReLU teacher", &outcome.teacher)
            + &line("HE-friendly ", &outcome.student)
            + &format!("wrote {} ({:.0} s)\n", outcome.model, outcome.seconds)
    })
}
