//! The arguments: what every command takes, and the list of commands.

use clap::{Args, Parser, Subcommand};

use crate::commands;

/// Encrypted inference for image classifiers.
///
/// A trained ReLU network becomes one that homomorphic encryption can run (`train`, `convert`),
/// is compiled to a plan (`compile`, `estimate`, `simulate`), and classifies encrypted images
/// (`keygen`, `encrypt`, `run`, `decrypt`). The server that runs the plan sees neither image nor
/// score.
#[derive(Debug, Parser)]
#[command(name = "polyveil", version, max_term_width = 100, after_help = EXAMPLE)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What every command takes.
    #[command(flatten)]
    pub common: Common,
}

const EXAMPLE: &str = "Example: the whole way on embedded images, in a few minutes\n  polyveil demo";

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Print the result as one JSON object on standard output (see docs/json.md).
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress on standard error.
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Threads to use [default: one for each processor].
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Refuse work that would need more memory than this; takes K, M, G, T (powers of 1024)
    /// [default: what the machine has free].
    #[arg(long, global = true, value_name = "BYTES", value_parser = parse_bytes)]
    pub max_memory: Option<u64>,
}

/// The commands, in the order in which a new user meets them.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the whole way on embedded images, from a ReLU network to decrypted scores.
    Demo(commands::demo::DemoArgs),
    /// Say what this machine offers and what will run how.
    Doctor(commands::doctor::DoctorArgs),
    /// Train a ReLU network, the teacher.
    Train(commands::train::TrainArgs),
    /// Turn a ReLU network into an HE-friendly one that it teaches.
    Convert(commands::convert::ConvertArgs),
    /// Measure a network on a data set: accuracy, macro F1, classes, confusion.
    Eval(commands::eval::EvalArgs),
    /// Compare methods of training HE-friendly networks over networks, data sets and seeds.
    Experiment(commands::experiment::ExperimentArgs),
    /// Write one HTML page of an experiment: tables, curves, activations, ranges, confusion.
    Report(commands::report::ReportArgs),
    /// Turn an HE-friendly network into a server plan and a client plan.
    Compile(commands::compile::CompileArgs),
    /// Say what a plan costs, before any key exists: time, memory, sizes, security, precision.
    Estimate(commands::estimate::EstimateArgs),
    /// Run a plan on a data set with modelled noise, before any key exists.
    Simulate(commands::simulate::SimulateArgs),
    /// Make the secret key and the evaluation keys (data owner).
    Keygen(commands::keygen::KeygenArgs),
    /// Encrypt images (data owner).
    Encrypt(commands::encrypt::EncryptArgs),
    /// Run a plan on encrypted images (server).
    Run(commands::run::RunArgs),
    /// Decrypt scores (data owner).
    Decrypt(commands::decrypt::DecryptArgs),
    /// Show what is in a file of ours or in an ONNX file.
    Inspect(commands::inspect::InspectArgs),
    /// Measure encrypted inference.
    Bench(commands::bench::BenchArgs),
}

/// Parses the arguments of the process; prints help or a usage error and exits with code 2 if they
/// are not valid.
pub fn parse() -> Cli {
    Cli::parse()
}

/// Parses a byte count such as `4096`, `512M` or `8GiB`.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        unit => return Err(format!("unknown unit \"{unit}\", expected K, M, G or T")),
    };
    let number: f64 = digits.parse().map_err(|_| format!("\"{digits}\" is not a number"))?;
    let bytes =
        number * f64::from(1u32 << (shift % 30)) * if shift >= 30 { f64::from(1u32 << 30) } else { 1.0 };
    if bytes.is_finite() && (0.0..=1e18).contains(&bytes) {
        return Ok(bytes as u64);
    }
    Err(format!("{text} is out of range"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        for command in Cli::command().get_subcommands_mut() {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example"), "{} has no example:\n{help}", command.get_name());
        }
    }

    #[test]
    fn byte_counts() {
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("1.5K"), Ok(1536));
        assert_eq!(parse_bytes("512M"), Ok(512 << 20));
        assert_eq!(parse_bytes("8GiB"), Ok(8 << 30));
        assert_eq!(parse_bytes("2T"), Ok(2 << 40));
        assert!(parse_bytes("-1").is_err() && parse_bytes("1Q").is_err() && parse_bytes("nanG").is_err());
    }
}
