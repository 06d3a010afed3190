//! One run of the program: options, cancellation, and the way out.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::args::{Cli, Common};
use crate::error::{CliError, Exit};
use crate::progress::Progress;
use crate::{commands, machine, output};

/// Set by the first Ctrl-C; the second one ends the process at once.
static CANCEL: AtomicBool = AtomicBool::new(false);

/// What a command may ask of its surroundings.
pub struct Session {
    common: Common,
}

/// Runs the command and turns its result into an exit code.
pub fn run(cli: Cli) -> ExitCode {
    let session = Session { common: cli.common };
    let outcome = session.prepare().and_then(|()| {
        let command = std::panic::AssertUnwindSafe(|| commands::dispatch(cli.command, &session));
        std::panic::catch_unwind(command).unwrap_or_else(|_| Err(internal()))
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            // A result that failed its check was printed already, and is the one object.
            if session.common.json && error.exit != Exit::Verification {
                // Nothing is left to do where even this cannot be written.
                let _ = output::print(&format!("{:#}\n", error.to_json()));
            }
            ExitCode::from(error.exit.row().code)
        }
    }
}

impl Session {
    /// No progress wanted?
    pub fn quiet(&self) -> bool {
        self.common.quiet
    }

    /// The common options as arguments for a child process, `--json` left out.
    pub fn common_args(&self) -> Vec<String> {
        let mut args = Vec::new();
        if self.common.quiet {
            args.push("--quiet".into());
        }
        if let Some(threads) = self.common.threads {
            args.extend(["--threads".into(), threads.to_string()]);
        }
        if let Some(bytes) = self.common.max_memory {
            args.extend(["--max-memory".into(), bytes.to_string()]);
        }
        args
    }

    /// The flag that Ctrl-C sets.
    pub fn cancel(&self) -> &'static AtomicBool {
        &CANCEL
    }

    /// Fails once Ctrl-C was pressed.
    pub fn check_cancel(&self) -> Result<(), CliError> {
        if CANCEL.load(Ordering::Relaxed) { Err(CliError::interrupted()) } else { Ok(()) }
    }

    /// Threads that the work is spread over.
    pub fn threads(&self) -> usize {
        rayon::current_num_threads()
    }

    /// A progress display of `total` units.
    pub fn progress(&self, label: &str, total: u64) -> Progress {
        Progress::new(label, total, self.common.quiet)
    }

    /// A display of work whose end cannot be foreseen.
    pub fn activity(&self, label: &str) -> Progress {
        Progress::open(label, self.common.quiet)
    }

    /// Prints the result: `value` with `--json`, else `text`.
    pub fn emit(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), CliError> {
        if !self.common.json {
            return output::print(&text());
        }
        let json = serde_json::to_string_pretty(value).map_err(|e| CliError::new(Exit::Internal, e))?;
        output::print(&(json + "\n"))
    }

    /// A remark that is no result, on standard error.
    pub fn note(&self, text: &str) {
        if !self.common.quiet {
            eprintln!("{text}");
        }
    }

    /// Refuses work whose predicted memory does not fit, before it starts.
    pub fn require_memory(&self, what: &str, needed: u64) -> Result<(), CliError> {
        let available = machine::available_memory();
        let (limit, source) = match self.common.max_memory {
            Some(allowed) if allowed < available => (allowed, "allowed by --max-memory"),
            _ => (available, "available"),
        };
        if needed <= limit {
            return Ok(());
        }
        let (needed, limit) = (output::bytes(needed), output::bytes(limit));
        Err(CliError::new(
            Exit::Memory,
            format!("{what} needs about {needed} of memory, {limit} are {source}"),
        ))
    }

    fn prepare(&self) -> Result<(), CliError> {
        polyveil_math::simd::requested().map_err(|error| CliError::new(Exit::Usage, error))?;
        let handler = || {
            if CANCEL.swap(true, Ordering::Relaxed) {
                std::process::exit(i32::from(Exit::Interrupted.row().code));
            }
            eprintln!("\nstopping (again to stop at once)");
        };
        ctrlc::set_handler(handler).map_err(|e| CliError::new(Exit::Internal, e))?;
        let threads = self.common.threads.map_or(0, usize::from);
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .map_err(|e| CliError::new(Exit::Internal, e))
    }
}

fn internal() -> CliError {
    CliError::new(Exit::Internal, "internal error (the lines above say where)")
}
