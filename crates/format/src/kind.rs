//! The table of file kinds: tag, name, version, limits, and what each kind is bound to.

/// What a file holds. The table is closed: an unknown tag is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The server's plan: steps and weights. Goes to the server only.
    ServerPlan,
    /// The data owner's plan: parameters, key list, input layout, class names. Holds no weights.
    ClientPlan,
    /// The secret key. Never leaves the data owner.
    SecretKey,
    /// Relinearisation and rotation keys. Goes to the server.
    EvaluationKeys,
    /// Encrypted images. Goes to the server.
    Ciphertexts,
    /// Encrypted scores. Goes back to the data owner.
    Results,
}

/// One row of the table.
#[derive(Debug)]
pub struct KindInfo {
    /// The kind.
    pub kind: Kind,
    /// Its number in the file header.
    pub tag: u16,
    /// Its name in messages and documents.
    pub name: &'static str,
    /// The format version written today, and the newest that is read.
    pub version: u16,
    /// The oldest format version that is still read.
    pub oldest: u16,
    /// Most bytes that all payloads of one file may have together.
    pub max_bytes: u64,
    /// Most bytes of one section.
    pub max_section_bytes: u64,
    /// Whether the header must carry a plan id.
    pub bound_to_plan: bool,
    /// Whether the header must carry a key id.
    pub bound_to_key: bool,
    /// Who may hold it.
    pub holder: &'static str,
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Every kind, in the order of the tags. Tag 4 is kept for public encryption keys.
pub const KINDS: &[KindInfo] = &[
    KindInfo {
        kind: Kind::ServerPlan,
        tag: 1,
        name: "server plan",
        version: 4,
        oldest: 1,
        max_bytes: 16 * GIB,
        max_section_bytes: 16 * GIB,
        bound_to_plan: true,
        bound_to_key: false,
        holder: "model owner, server",
    },
    KindInfo {
        kind: Kind::ClientPlan,
        tag: 2,
        name: "client plan",
        version: 3,
        oldest: 1,
        max_bytes: 64 * MIB,
        max_section_bytes: 64 * MIB,
        bound_to_plan: true,
        bound_to_key: false,
        holder: "model owner, data owner",
    },
    KindInfo {
        kind: Kind::SecretKey,
        tag: 3,
        name: "secret key",
        version: 2,
        oldest: 1,
        max_bytes: MIB,
        max_section_bytes: MIB,
        bound_to_plan: false,
        bound_to_key: true,
        holder: "data owner only",
    },
    KindInfo {
        kind: Kind::EvaluationKeys,
        tag: 5,
        name: "evaluation keys",
        version: 2,
        oldest: 1,
        max_bytes: 256 * GIB,
        max_section_bytes: 2 * GIB,
        bound_to_plan: true,
        bound_to_key: true,
        holder: "data owner, server",
    },
    KindInfo {
        kind: Kind::Ciphertexts,
        tag: 6,
        name: "ciphertexts",
        version: 3,
        oldest: 1,
        max_bytes: 64 * GIB,
        max_section_bytes: 256 * MIB,
        bound_to_plan: true,
        bound_to_key: true,
        holder: "data owner, server",
    },
    KindInfo {
        kind: Kind::Results,
        tag: 7,
        name: "results",
        version: 3,
        oldest: 1,
        max_bytes: 64 * GIB,
        max_section_bytes: 256 * MIB,
        bound_to_plan: true,
        bound_to_key: true,
        holder: "data owner, server",
    },
];

impl Kind {
    /// The kind's row in [`KINDS`].
    #[must_use]
    pub fn info(self) -> &'static KindInfo {
        let row = match self {
            Self::ServerPlan => 0,
            Self::ClientPlan => 1,
            Self::SecretKey => 2,
            Self::EvaluationKeys => 3,
            Self::Ciphertexts => 4,
            Self::Results => 5,
        };
        &KINDS[row]
    }

    /// The kind's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.info().name
    }

    /// The kind with this tag.
    #[must_use]
    pub fn from_tag(tag: u16) -> Option<Self> {
        KINDS.iter().find(|k| k.tag == tag).map(|k| k.kind)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_tags_agree() {
        for row in KINDS {
            assert_eq!(row.kind.info().tag, row.tag);
            assert_eq!(Kind::from_tag(row.tag), Some(row.kind));
            assert!(row.oldest <= row.version && row.max_section_bytes <= row.max_bytes);
        }
        assert_eq!(Kind::from_tag(0), None);
        assert_eq!(Kind::from_tag(999), None);
    }
}
