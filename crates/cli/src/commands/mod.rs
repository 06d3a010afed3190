//! One file a command.

pub mod bench;
mod bench_engine;
mod bench_net;
pub mod compile;
pub mod convert;
pub mod decrypt;
pub mod demo;
mod demo_report;
pub mod doctor;
pub mod encrypt;
pub mod estimate;
pub mod eval;
pub mod experiment;
pub mod inspect;
pub mod keygen;
pub mod report;
pub mod run;
pub mod simulate;
pub mod train;

use crate::args::Command;
use crate::error::CliError;
use crate::session::Session;

/// Runs the command that was asked for.
pub fn dispatch(command: Command, session: &Session) -> Result<(), CliError> {
    match command {
        Command::Doctor(args) => doctor::run(&args, session),
        Command::Train(args) => train::run(args, session),
        Command::Convert(args) => convert::run(args, session),
        Command::Eval(args) => eval::run(&args, session),
        Command::Experiment(args) => experiment::run(&args, session),
        Command::Report(args) => report::run(&args, session),
        Command::Compile(args) => compile::run(&args, session),
        Command::Estimate(args) => estimate::run(&args, session),
        Command::Simulate(args) => simulate::run(&args, session),
        Command::Keygen(args) => keygen::run(&args, session),
        Command::Encrypt(args) => encrypt::run(&args, session),
        Command::Run(args) => run::run(&args, session),
        Command::Decrypt(args) => decrypt::run(&args, session),
        Command::Inspect(args) => inspect::run(&args, session),
        Command::Demo(args) => demo::run(&args, session),
        Command::Bench(args) => bench::run(&args, session),
    }
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
