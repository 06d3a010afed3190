//! The `polyveil` command line.
//!
//! `main` parses the arguments, runs one command and turns its result into an exit code. Every
//! command is one file in [`commands`] that reads as the recipe of its verb; the steps that more
//! than one verb takes are in [`pipeline`]. Expected failures are [`error::CliError`] with a
//! documented exit code; anything else is a bug and says so.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod error;
mod experiment;
mod files;
mod machine;
mod output;
mod pipeline;
mod progress;
mod report;
mod session;

use std::process::ExitCode;

fn main() -> ExitCode {
    session::run(args::parse())
}
