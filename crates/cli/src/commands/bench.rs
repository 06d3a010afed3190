//! `polyveil bench`: one measurement a subcommand.

use clap::{Args, Subcommand};

use super::{bench_engine, bench_net};
use crate::error::CliError;
use crate::session::Session;

/// Arguments of `bench`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  polyveil bench net student.onnx --json\n  \
    polyveil bench engine --log-n 15 --levels 13 --scale-bits 42 --threads 1")]
pub struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Compile, make keys, encrypt, run and decrypt one image in memory, and compare with plain
    /// arithmetic.
    Net(bench_net::NetArgs),
    /// Time the operations of the encrypted arithmetic, one by one.
    Engine(bench_engine::EngineArgs),
}

/// Runs the benchmark that was asked for.
pub fn run(args: &BenchArgs, session: &Session) -> Result<(), CliError> {
    match &args.what {
        What::Net(args) => bench_net::run(args, session),
        What::Engine(args) => bench_engine::run(args, session),
    }
}
