//! `polyveil convert`: turns a ReLU network into an HE-friendly one that it teaches.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use polyveil_train::{Ablation, Method, Split};
use serde::Serialize;

use crate::error::CliError;
use crate::files::{self, Access};
use crate::output;
use crate::pipeline::data::DataArgs;
use crate::pipeline::figures::Figures;
use crate::pipeline::{data, models, training};
use crate::session::Session;

/// Arguments of `convert`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  polyveil convert teacher.onnx --data mnist5k --out student.onnx\n  \
    polyveil convert --template > convert.toml\n  \
    polyveil convert teacher.onnx --data mnist5k --config convert.toml --out student.onnx\n\n\
    Ctrl-C leaves a checkpoint; the same command goes on from it, to the same result.")]
pub struct ConvertArgs {
    /// The trained ReLU network (ONNX).
    #[arg(required_unless_present = "template")]
    teacher: Option<PathBuf>,
    /// The data set it was trained on.
    #[arg(long, required_unless_present = "template")]
    data: Option<String>,
    /// More images for the student to learn its teacher's answers on; no labels are needed. A data set, or a folder of
    /// image files. Those that the data set holds are left out. May be given several times.
    #[arg(long, value_name = "DATA")]
    unlabelled: Vec<String>,
    #[command(flatten)]
    images: DataArgs,
    /// Where the HE-friendly network goes (ONNX).
    #[arg(long, value_name = "FILE", required_unless_present = "template")]
    out: Option<PathBuf>,
    /// Settings (TOML), laid over the method's; unknown keys are refused.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Training method: Polyveil's own, or one from the literature for comparison [default: the
    /// configuration's, or ours].
    #[arg(long, value_enum)]
    method: Option<MethodArg>,
    /// Leave parts of the method out.
    #[arg(long, value_enum, value_name = "PART", value_delimiter = ',')]
    without: Vec<PartArg>,
    /// Print a commented configuration file with every setting, and end.
    #[arg(long)]
    template: bool,
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

/// A method, as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum MethodArg {
    /// Trainable quadratics, transition, distillation, range control.
    Ours,
    /// x² from fresh weights (CryptoNets).
    Square,
    /// a·x² + b·x from fresh weights (CHET).
    Poly,
    /// Least-squares quadratics at once, fine-tuned from the teacher's weights without distillation.
    Replace,
    /// Hermite basis with batch norm for each member, from fresh weights (AESPA).
    Hermite,
}

impl From<MethodArg> for Method {
    fn from(method: MethodArg) -> Self {
        match method {
            MethodArg::Ours => Self::Ours,
            MethodArg::Square => Self::Square,
            MethodArg::Poly => Self::Poly,
            MethodArg::Replace => Self::Replace,
            MethodArg::Hermite => Self::Hermite,
        }
    }
}

/// A part of the method, as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PartArg {
    /// The teacher's share of the loss.
    Distillation,
    /// The gradual change of the activations.
    Transition,
    /// The training of the coefficients.
    Trainable,
    /// Rescaling, penalty, clamp, hard cases, frozen batch-norm statistics.
    RangeControl,
    /// The fit of the last layer by itself.
    LastLayer,
}

impl From<PartArg> for Ablation {
    fn from(part: PartArg) -> Self {
        match part {
            PartArg::Distillation => Self::Distillation,
            PartArg::Transition => Self::Transition,
            PartArg::Trainable => Self::Trainable,
            PartArg::RangeControl => Self::RangeControl,
            PartArg::LastLayer => Self::LastLayer,
        }
    }
}

/// Every setting of a conversion with its default and meaning.
pub const TEMPLATE: &str = include_str!("convert.toml");

#[derive(Serialize)]
struct Outcome {
    model: String,
    method: &'static str,
    epochs: usize,
    seconds: f64,
    best_epoch: Option<usize>,
    teacher: Option<Figures>,
    student: Option<Figures>,
}

/// Opens teacher and data, converts, measures both, writes the student.
pub fn run(args: ConvertArgs, session: &Session) -> Result<(), CliError> {
    let (false, Some(teacher), Some(source), Some(out)) = (args.template, args.teacher, args.data, args.out)
    else {
        return output::print(TEMPLATE);
    };
    files::check_target(&out, Access::Shared)?;
    let mut config = training::convert_config(args.config.as_deref(), args.method.map(Method::from))?;
    args.without.iter().for_each(|&part| Ablation::from(part).apply(&mut config));
    config.epochs = args.epochs.unwrap_or(config.epochs);
    config.seed = args.seed.unwrap_or(config.seed);
    let teacher = models::load(&teacher)?;
    let data = data::open_for(&source, &teacher, &args.images, session)?;
    data::require_shape(&data, teacher.input_shape())?;
    let options = data::options_for(&teacher, &args.images)?;
    let data = data::with_unlabelled(data, &args.unlabelled, &options, session)?;
    let checkpoints = training::checkpoint_dir(args.checkpoint, &out)?;

    let started = std::time::Instant::now();
    let converted = training::student(&teacher, &data, &config, Some(checkpoints.clone()), session)?;
    let seconds = started.elapsed().as_secs_f64();
    models::save(&converted.graph, &out)?;
    training::tell(&converted.history, session);
    training::remove_checkpoint_dir(&checkpoints);

    let outcome = Outcome {
        model: out.display().to_string(),
        method: config.method.name(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use polyveil_train::ConvertConfig;
    use serde_json::Value;

    /// Full names of all settings, in order.
    fn keys(tree: &Value, prefix: &str) -> Vec<String> {
        let Value::Object(entries) = tree else { return vec![prefix.to_owned()] };
        entries
            .iter()
            .flat_map(|(name, value)| {
                keys(value, &if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") })
            })
            .collect()
    }

    #[test]
    fn the_template_holds_every_setting_with_its_default() {
        let template: Value = toml::from_str(TEMPLATE).unwrap();
        assert_eq!(ConvertConfig::from_changes(&template).unwrap(), ConvertConfig::default());
        let all = serde_json::to_value(ConvertConfig::default()).unwrap();
        assert_eq!(keys(&template, ""), keys(&all, ""));
        let comments = TEMPLATE.lines().filter(|l| l.contains(" # ") || l.starts_with('#')).count();
        assert!(comments >= keys(&all, "").len(), "a setting without a comment");
    }
}
