//! Expected failures, each with a documented exit code.

use std::fmt;
use std::path::Path;

use polyveil_format::FormatError;
use serde::Serialize;

/// Why a command failed, sorted by what the user can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A bug of ours.
    Internal,
    /// The arguments do not make sense.
    Usage,
    /// A data set or an image is missing, damaged or of the wrong shape.
    Data,
    /// A network is damaged, unsupported or not HE-friendly.
    Model,
    /// No allowed parameter set fits the network.
    Parameters,
    /// A file of ours is missing, damaged, of the wrong kind or version.
    File,
    /// Files that do not belong together: another plan, key or parameter set.
    Mismatch,
    /// Not enough memory.
    Memory,
    /// A file could not be written.
    Storage,
    /// Training did not succeed.
    Training,
    /// The encrypted result is not as close to the plain one as promised.
    Verification,
    /// Ctrl-C or a termination signal.
    Interrupted,
}

/// One row of the exit code table.
pub struct ExitRow {
    /// The failure.
    pub exit: Exit,
    /// The process exit code.
    pub code: u8,
    /// Its name in `--json` output.
    pub name: &'static str,
    /// When it happens; shown in the document.
    #[cfg_attr(not(test), expect(dead_code, reason = "only the document prints it"))]
    pub meaning: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

macro_rules! exit_table {
    ($($exit:ident $code:literal $name:literal $meaning:literal $remedy:literal;)*) => {
        /// The one table of exit codes; `docs/exit-codes.md` is printed from it. Code 0 is success.
        pub const EXITS: &[ExitRow] = &[$(ExitRow {
            exit: Exit::$exit, code: $code, name: $name, meaning: $meaning, remedy: $remedy,
        }),*];
    };
}

exit_table! {
    Internal 1 "internal" "a bug in Polyveil" "report it with the message and the command";
    Usage 2 "usage" "the arguments do not make sense" "see `polyveil COMMAND --help`";
    Data 3 "data" "a data set or image is missing, damaged, of the wrong size, or holds NaN"
        "the message names the file and what was expected";
    Model 4 "model" "a network file is missing or damaged, has unsupported operators, or is not HE-friendly"
        "the message lists every node at fault; ReLU and max-pool are replaced by `polyveil convert`";
    Parameters 5 "parameters" "no parameter set of 128-bit security fits the network within the limits given"
        "use a shallower network, a larger tolerance or a higher limit; the message names the layer or the limit";
    File 6 "file" "a file of Polyveil is missing, truncated, altered, of another kind or of an unknown version"
        "copy it again, or make it anew with the command that the message names";
    Mismatch 7 "mismatch" "files do not belong together: another plan, another key, other parameters"
        "use the files of one `compile` and one `keygen`";
    Memory 8 "memory" "the work needs more memory than is available or allowed; nothing was started"
        "free memory, raise `--max-memory`, or use a larger machine";
    Storage 9 "storage" "a file could not be written (disk full, no permission, exists already); no partial file is left"
        "free space or choose another place";
    Training 10 "training" "training or conversion did not succeed" "follow the message; lower the learning rate";
    Verification 11 "verification" "the encrypted result is further from the plain one than the tolerance, or beyond the range of the plan"
        "report it with the network, compile with a smaller tolerance; for images out of range follow the message";
    Interrupted 130 "interrupted" "stopped by Ctrl-C or a termination signal"
        "the same `train`, `convert` or `experiment` goes on from its checkpoint; other commands leave nothing behind";
}

impl Exit {
    /// The failure's row in [`EXITS`].
    pub fn row(self) -> &'static ExitRow {
        EXITS.iter().find(|row| row.exit == self).unwrap_or(&EXITS[0])
    }
}

/// An expected failure: what failed, where, and what to do.
#[derive(Debug)]
pub struct CliError {
    /// Sorts the failure.
    pub exit: Exit,
    /// What failed, with what was expected and what was found.
    pub message: String,
    /// The file or layer at fault.
    pub place: Option<String>,
    /// What to do about it; the table's remedy where none is given.
    pub help: Option<String>,
}

impl CliError {
    /// A failure of this sort.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string(), place: None, help: None }
    }

    /// Names the file at fault.
    pub fn at(mut self, path: &Path) -> Self {
        self.place = Some(path.display().to_string());
        self
    }

    /// Says what to do.
    pub fn help(mut self, help: impl fmt::Display) -> Self {
        self.help = Some(help.to_string());
        self
    }

    /// Stopped by the user.
    pub fn interrupted() -> Self {
        Self::new(Exit::Interrupted, "stopped")
    }

    /// A file of ours that could not be read.
    pub fn reading(path: &Path, error: FormatError) -> Self {
        use FormatError as F;
        let exit = match &error {
            F::WrongParameters { .. } | F::WrongPlan { .. } | F::WrongKey { .. } => Exit::Mismatch,
            _ => Exit::File,
        };
        let failure = match &error {
            F::Io(e) => return Self::io(path, e, "read").sorted(Exit::File),
            F::Truncated { .. } | F::Altered { .. } | F::HeaderAltered { .. } | F::TrailingData { .. } => {
                Self::new(exit, &error).help("copy the file again, or make it anew")
            }
            F::ContainerVersion { .. } | F::KindVersion { .. } | F::UnknownKind { .. } => {
                Self::new(exit, &error)
                    .help("use the release of Polyveil that wrote the file, or make it anew")
            }
            _ => Self::new(exit, &error),
        };
        failure.at(path)
    }

    /// A file that could not be written.
    pub fn writing(path: &Path, error: FormatError) -> Self {
        match error {
            FormatError::Io(e) => Self::io(path, &e, "write").sorted(Exit::Storage),
            other => Self::new(Exit::Storage, other).at(path),
        }
    }

    /// A failure of the file system.
    pub fn io(path: &Path, error: &std::io::Error, action: &str) -> Self {
        use std::io::ErrorKind as K;
        let exit = if action == "write" { Exit::Storage } else { Exit::File };
        let (reason, help) = match error.kind() {
            K::NotFound => ("no such file or directory".into(), None),
            K::StorageFull | K::QuotaExceeded | K::WriteZero => (
                "the disk is full".to_string(),
                Some("free space or choose another place; no partial file was left"),
            ),
            K::PermissionDenied => ("permission denied".into(), None),
            K::AlreadyExists => ("it exists already".into(), Some("remove it or choose another name")),
            K::IsADirectory => ("it is a directory".into(), None),
            _ => (error.to_string(), None),
        };
        let mut failure = Self::new(exit, format!("cannot {action} the file: {reason}")).at(path);
        failure.help = help.map(str::to_string);
        failure
    }

    /// The same failure, sorted differently.
    pub fn sorted(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The `--json` form.
    pub fn to_json(&self) -> serde_json::Value {
        #[derive(Serialize)]
        struct Body<'a> {
            code: u8,
            name: &'a str,
            message: &'a str,
            place: Option<&'a str>,
            help: &'a str,
        }
        let row = self.exit.row();
        let help = self.help.as_deref().unwrap_or(row.remedy);
        let body = Body {
            code: row.code,
            name: row.name,
            message: &self.message,
            place: self.place.as_deref(),
            help,
        };
        serde_json::json!({ "error": body })
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => writeln!(f, "error: {place}: {}", self.message)?,
            None => writeln!(f, "error: {}", self.message)?,
        }
        let help = self.help.as_deref().unwrap_or(self.exit.row().remedy);
        write!(f, "help:  {help}")
    }
}

/// `docs/exit-codes.md`.
#[cfg(test)]
pub fn exit_code_document() -> String {
    let mut text = String::from(
        "# Exit codes\n\nPrinted from the table in `crates/cli/src/error.rs`; a test keeps this file equal to it. \
         Codes and names are part of the stable interface.\nWith `--json` a failure is one object on standard \
         output: `{\"error\": {\"code\", \"name\", \"message\", \"place\", \"help\"}}`.\n\n\
         | code | name | when | what to do |\n|---|---|---|---|\n| 0 | | success | |\n",
    );
    for row in EXITS {
        text += &format!("| {} | {} | {} | {} |\n", row.code, row.name, row.meaning, row.remedy);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_is_printed_from_the_table() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/exit-codes.md");
        if std::env::var_os("POLYVEIL_BLESS").is_some() {
            std::fs::write(&path, exit_code_document()).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(found, exit_code_document(), "run the test once with POLYVEIL_BLESS=1");
    }

    #[test]
    fn codes_are_distinct() {
        let mut codes: Vec<u8> = EXITS.iter().map(|row| row.code).collect();
        codes.dedup();
        assert_eq!(codes.len(), EXITS.len());
    }

    #[test]
    fn message_says_what_where_and_help() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let error = CliError::writing(Path::new("a.keys"), full.into());
        assert_eq!(
            error.to_string(),
            "error: a.keys: cannot write the file: the disk is full\nhelp:  free space or choose another place; \
             no partial file was left"
        );
        assert_eq!(error.exit.row().code, 9);
    }
}
