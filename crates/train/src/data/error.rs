//! Why a data set was refused.

use std::path::Path;

/// Failure of a loader.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The file could not be read.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// The system's reason.
        source: std::io::Error,
    },

    /// The file holds something else than it should.
    #[error("{file}: expected {expected}, found {found}")]
    Format {
        /// The file, or the part of a file.
        file: String,
        /// What a sound file has there.
        expected: String,
        /// What this one has.
        found: String,
    },

    /// Splits share images or patients, and that was not to be.
    #[error("{data}: {leaks}")]
    Leak {
        /// Name of the data set.
        data: String,
        /// What is shared.
        leaks: super::Leaks,
    },

    /// A directory holds none of the files that make up a data set.
    #[error("{folder}: no data set found; expected {expected}")]
    NoDataSet {
        /// The directory.
        folder: String,
        /// The files looked for.
        expected: String,
    },
}

impl DataError {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { file: path.display().to_string(), source }
    }

    pub(crate) fn format(file: &str, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Format { file: file.to_owned(), expected: expected.into(), found: found.into() }
    }
}
