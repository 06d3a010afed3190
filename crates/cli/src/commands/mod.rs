//! One file a command.

pub mod doctor;

use crate::args::Command;
use crate::error::CliError;
use crate::session::Session;

/// Runs the command that was asked for.
pub fn dispatch(command: Command, session: &Session) -> Result<(), CliError> {
    match command {
        Command::Doctor(args) => doctor::run(&args, session),
    }
}
