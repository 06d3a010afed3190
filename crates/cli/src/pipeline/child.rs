//! Commands run as processes of their own, each in its own directory: so a demonstration keeps the
//! two sides apart, and the memory of each is measured for itself.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::error::{CliError, EXITS, Exit};
use crate::session::Session;

/// Runs `polyveil ARGS --json` in `directory` and returns its result; a failure of the child becomes
/// ours.
pub fn run(directory: &Path, args: &[&str], session: &Session) -> Result<Value, CliError> {
    let internal = |what: String| CliError::new(Exit::Internal, what);
    let program =
        std::env::current_exe().map_err(|e| internal(format!("the program cannot find itself: {e}")))?;
    let output = Command::new(program)
        .args(args)
        .args(session.common_args())
        .arg("--json")
        .current_dir(directory)
        .stdin(Stdio::null())
        .stderr(if session.quiet() { Stdio::piped() } else { Stdio::inherit() })
        .output()
        .map_err(|e| internal(format!("`polyveil {}` could not be started: {e}", args.join(" "))))?;
    session.check_cancel()?;
    let result: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    if output.status.success() && result.is_object() {
        return Ok(result);
    }
    let text = |key: &str| result["error"][key].as_str().map(str::to_string);
    let code = result["error"]["code"].as_u64();
    let exit =
        EXITS.iter().find(|row| code == Some(u64::from(row.code))).map_or(Exit::Internal, |row| row.exit);
    let message = text("message").unwrap_or_else(|| format!("the process ended with {}", output.status));
    let failure = CliError::new(exit, format!("`polyveil {}`: {message}", args.join(" ")));
    Err(CliError { place: text("place"), help: text("help"), ..failure })
}
