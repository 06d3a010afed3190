//! What can be wrong with a file, with both sides of every mismatch.

use crate::Kind;

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The reader or writer beneath failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The file does not start with Polyveil's mark.
    #[error("not a Polyveil file: it starts with {found}, a Polyveil file with \"POLYVEIL\"")]
    NotOurs {
        /// The first bytes, printable or in hex.
        found: String,
    },
    /// Written by a release whose container this one does not know.
    #[error("container version {found} is not supported (this release reads version {supported})")]
    ContainerVersion {
        /// Version in the file.
        found: u16,
        /// Version of this release.
        supported: u16,
    },
    /// The kind's tag is not in the table.
    #[error("file kind {tag} is unknown to this release")]
    UnknownKind {
        /// Tag in the file.
        tag: u16,
    },
    /// A file of ours, but of another kind than asked for.
    #[error("expected a file of kind \"{expected}\", found \"{found}\"")]
    WrongKind {
        /// What was asked for.
        expected: Kind,
        /// What the file says it is.
        found: Kind,
    },
    /// A version of this kind that this release does not read.
    #[error("{kind}: format version {found} is not supported (this release reads {oldest} to {newest})")]
    KindVersion {
        /// Kind of the file.
        kind: Kind,
        /// Version in the file.
        found: u16,
        /// Oldest version read.
        oldest: u16,
        /// Newest version read.
        newest: u16,
    },
    /// The header's checksum or a reserved field is wrong.
    #[error("the file header was altered or damaged ({what})")]
    HeaderAltered {
        /// Which check failed.
        what: &'static str,
    },
    /// The file ends too early.
    #[error("{kind}: the file is truncated, it ends inside {place}")]
    Truncated {
        /// Kind of the file.
        kind: Kind,
        /// The section, or "the header", or "the end mark".
        place: String,
    },
    /// A checksum does not match the bytes.
    #[error("{kind}: {place} was altered or damaged, its checksum does not match")]
    Altered {
        /// Kind of the file.
        kind: Kind,
        /// The section, or "the end mark".
        place: String,
    },
    /// More bytes than the kind allows.
    #[error("{kind}: {place} has {found} bytes, the limit is {limit}")]
    TooLarge {
        /// Kind of the file.
        kind: Kind,
        /// The section, or "the file".
        place: String,
        /// Bytes declared or given.
        found: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// Sections come in a fixed order; this one is not the expected one.
    #[error("{kind}: expected section \"{expected}\", found {found}")]
    SectionOrder {
        /// Kind of the file.
        kind: Kind,
        /// Name asked for.
        expected: String,
        /// Name found, quoted, or "the end of the file".
        found: String,
    },
    /// Bytes follow the end mark.
    #[error("{kind}: data follows the end mark")]
    TrailingData {
        /// Kind of the file.
        kind: Kind,
    },
    /// Made for another parameter set.
    #[error("{kind}: made for parameters {found}, these are parameters {expected}")]
    WrongParameters {
        /// Kind of the file.
        kind: Kind,
        /// Fingerprint asked for.
        expected: ShortId,
        /// Fingerprint in the file.
        found: ShortId,
    },
    /// Made for another plan.
    #[error("{kind}: made for plan {found}, this is plan {expected}")]
    WrongPlan {
        /// Kind of the file.
        kind: Kind,
        /// Plan id asked for.
        expected: ShortId,
        /// Plan id in the file.
        found: ShortId,
    },
    /// Made with another secret key.
    #[error("{kind}: made with key {found}, this is key {expected}")]
    WrongKey {
        /// Kind of the file.
        kind: Kind,
        /// Key id asked for.
        expected: ShortId,
        /// Key id in the file.
        found: ShortId,
    },
    /// The bytes are intact but do not describe a valid object.
    #[error("{kind}: section \"{section}\" is not valid: {what}")]
    Malformed {
        /// Kind of the file.
        kind: Kind,
        /// Section at fault.
        section: String,
        /// What is wrong, with the value found and the value expected.
        what: String,
    },
}

impl FormatError {
    /// A [`FormatError::Malformed`] with the reason as text.
    pub fn malformed(kind: Kind, section: impl Into<String>, what: impl std::fmt::Display) -> Self {
        Self::Malformed { kind, section: section.into(), what: what.to_string() }
    }
}

/// The first eight bytes of an id or fingerprint, printed in hex: enough to tell two apart by eye.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct ShortId(pub [u8; 8]);

impl ShortId {
    /// Shortens `id`; missing bytes count as zero.
    #[must_use]
    pub fn of(id: &[u8]) -> Self {
        let mut short = [0; 8];
        for (s, b) in short.iter_mut().zip(id) {
            *s = *b;
        }
        Self(short)
    }
}

impl std::fmt::Display for ShortId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 == [0; 8] {
            return f.write_str("(none)");
        }
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl std::fmt::Debug for ShortId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
