//! The fixed-size header at the start of every file.

use std::io::{Read, Write};

use crate::{FormatError, Kind, ShortId};

/// First bytes of every file.
pub const MAGIC: [u8; 8] = *b"POLYVEIL";
/// Version of the container around the sections.
pub const CONTAINER_VERSION: u16 = 1;
/// Bytes of an encoded header.
pub const HEADER_BYTES: usize = 112;

const FLAG_INSECURE: u16 = 1;
const BODY_BYTES: usize = HEADER_BYTES - 16;

/// What a file is and what it belongs to. All-zero ids mean "does not apply".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the file holds.
    pub kind: Kind,
    /// Format version of that kind.
    pub version: u16,
    /// Made with parameters below 128 bits of security (tests only).
    pub insecure: bool,
    /// Fingerprint of the parameter set.
    pub parameters: [u8; 32],
    /// The plan that the file belongs to.
    pub plan: [u8; 32],
    /// The secret key that the file belongs to (a public random name, not derived from its bits).
    pub key: [u8; 16],
}

impl Header {
    /// A header of the newest version of `kind`, bound to a parameter set only.
    #[must_use]
    pub fn new(kind: Kind, parameters: [u8; 32]) -> Self {
        Self { kind, version: kind.info().version, insecure: false, parameters, plan: [0; 32], key: [0; 16] }
    }

    /// Binds to a plan.
    #[must_use]
    pub fn with_plan(mut self, plan: [u8; 32]) -> Self {
        self.plan = plan;
        self
    }

    /// Binds to a secret key.
    #[must_use]
    pub fn with_key(mut self, key: [u8; 16]) -> Self {
        self.key = key;
        self
    }

    /// Marks as made with insecure parameters.
    #[must_use]
    pub fn with_insecure(mut self, insecure: bool) -> Self {
        self.insecure = insecure;
        self
    }

    /// Refuses a file of another kind.
    ///
    /// # Errors
    /// [`FormatError::WrongKind`].
    pub fn expect_kind(&self, expected: Kind) -> Result<(), FormatError> {
        if self.kind == expected {
            Ok(())
        } else {
            Err(FormatError::WrongKind { expected, found: self.kind })
        }
    }

    /// Refuses a file made for another parameter set.
    ///
    /// # Errors
    /// [`FormatError::WrongParameters`].
    pub fn expect_parameters(&self, expected: &[u8; 32]) -> Result<(), FormatError> {
        if self.parameters == *expected {
            return Ok(());
        }
        let (expected, found) = (ShortId::of(expected), ShortId::of(&self.parameters));
        Err(FormatError::WrongParameters { kind: self.kind, expected, found })
    }

    /// Refuses a file made for another plan.
    ///
    /// # Errors
    /// [`FormatError::WrongPlan`].
    pub fn expect_plan(&self, expected: &[u8; 32]) -> Result<(), FormatError> {
        if self.plan == *expected {
            return Ok(());
        }
        let (expected, found) = (ShortId::of(expected), ShortId::of(&self.plan));
        Err(FormatError::WrongPlan { kind: self.kind, expected, found })
    }

    /// Refuses a file made with another secret key.
    ///
    /// # Errors
    /// [`FormatError::WrongKey`].
    pub fn expect_key(&self, expected: &[u8; 16]) -> Result<(), FormatError> {
        if self.key == *expected {
            return Ok(());
        }
        let (expected, found) = (ShortId::of(expected), ShortId::of(&self.key));
        Err(FormatError::WrongKey { kind: self.kind, expected, found })
    }

    /// Writes the header; returns its digest, which the sections' checksums include.
    ///
    /// # Errors
    /// When writing fails.
    pub(crate) fn write(&self, to: &mut impl Write) -> Result<blake3::Hash, FormatError> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        let flags = if self.insecure { FLAG_INSECURE } else { 0 };
        for field in [CONTAINER_VERSION, self.kind.info().tag, self.version, flags] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        bytes.extend_from_slice(&self.parameters);
        bytes.extend_from_slice(&self.plan);
        bytes.extend_from_slice(&self.key);
        let digest = blake3::hash(&bytes);
        bytes.extend_from_slice(&digest.as_bytes()[..16]);
        to.write_all(&bytes)?;
        Ok(digest)
    }

    /// Reads and checks a header of any kind.
    ///
    /// # Errors
    /// When the bytes are no header of ours, altered, or of an unsupported version.
    pub(crate) fn read(from: &mut impl Read) -> Result<(Self, blake3::Hash), FormatError> {
        let mut bytes = [0u8; HEADER_BYTES];
        let got = read_up_to(from, &mut bytes)?;
        if !bytes[..got].starts_with(&MAGIC) {
            return Err(FormatError::NotOurs { found: first_bytes(&bytes[..got.min(8)]) });
        }
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        if got >= 12 && u16_at(8) != CONTAINER_VERSION {
            return Err(FormatError::ContainerVersion { found: u16_at(8), supported: CONTAINER_VERSION });
        }
        if got < HEADER_BYTES {
            return Err(FormatError::HeaderAltered { what: "it is shorter than a header" });
        }
        let digest = blake3::hash(&bytes[..BODY_BYTES]);
        if digest.as_bytes()[..16] != bytes[BODY_BYTES..] {
            return Err(FormatError::HeaderAltered { what: "checksum" });
        }
        let tag = u16_at(10);
        let kind = Kind::from_tag(tag).ok_or(FormatError::UnknownKind { tag })?;
        let info = kind.info();
        let version = u16_at(12);
        if version < info.oldest || version > info.version {
            let (oldest, newest) = (info.oldest, info.version);
            return Err(FormatError::KindVersion { kind, found: version, oldest, newest });
        }
        let flags = u16_at(14);
        if flags & !FLAG_INSECURE != 0 {
            return Err(FormatError::HeaderAltered { what: "unknown flags" });
        }
        let header = Self {
            kind,
            version,
            insecure: flags & FLAG_INSECURE != 0,
            parameters: array_at(&bytes, 16),
            plan: array_at(&bytes, 48),
            key: array_at(&bytes, 80),
        };
        if info.bound_to_plan && header.plan == [0; 32] {
            return Err(FormatError::HeaderAltered { what: "no plan id" });
        }
        if info.bound_to_key && header.key == [0; 16] {
            return Err(FormatError::HeaderAltered { what: "no key id" });
        }
        Ok((header, digest))
    }
}

fn array_at<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// Fills as much of `into` as the reader yields.
pub(crate) fn read_up_to(from: &mut impl Read, into: &mut [u8]) -> Result<usize, FormatError> {
    let mut got = 0;
    while got < into.len() {
        match from.read(&mut into[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(got)
}

fn first_bytes(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "nothing (it is empty)".into();
    }
    if bytes.iter().all(|b| b.is_ascii_graphic() || *b == b' ') {
        return format!("{:?}", String::from_utf8_lossy(bytes));
    }
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")
}
