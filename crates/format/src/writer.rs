//! Writes a container, section by section, without holding more than one in memory.

use std::io::Write;

use crate::{FormatError, Header};

/// Longest name of a section.
pub const MAX_NAME: usize = 64;

/// Writes one file. Every section is hashed as it passes; [`Writer::finish`] adds the end mark,
/// without which a reader takes the file for truncated.
pub struct Writer<W: Write> {
    to: W,
    header: Header,
    header_digest: blake3::Hash,
    sections: u64,
    total: u64,
    chain: blake3::Hasher,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// When writing fails.
    pub fn new(mut to: W, header: Header) -> Result<Self, FormatError> {
        let header_digest = header.write(&mut to)?;
        let mut chain = blake3::Hasher::new();
        chain.update(header_digest.as_bytes());
        Ok(Self { to, header, header_digest, sections: 0, total: 0, chain })
    }

    /// The header that was written.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Writes one section: a name (1 to 64 printable ASCII characters) and its bytes.
    ///
    /// # Errors
    /// When the section or the file would exceed its kind's limit, or writing fails.
    pub fn section(&mut self, name: &str, payload: &[u8]) -> Result<(), FormatError> {
        let info = self.header.kind.info();
        let length = payload.len() as u64;
        check_name(name).map_err(|what| FormatError::malformed(info.kind, name, what))?;
        let quoted = || format!("section \"{name}\"");
        if length > info.max_section_bytes {
            let (found, limit) = (length, info.max_section_bytes);
            return Err(FormatError::TooLarge { kind: info.kind, place: quoted(), found, limit });
        }
        self.total = self.total.saturating_add(length);
        if self.total > info.max_bytes {
            let (found, limit) = (self.total, info.max_bytes);
            return Err(FormatError::TooLarge { kind: info.kind, place: "the file".into(), found, limit });
        }
        let prefix = section_prefix(name, length);
        let mut hasher = section_hasher(&self.header_digest, self.sections, &prefix);
        self.to.write_all(&prefix)?;
        self.to.write_all(&hasher.finalize().as_bytes()[..16])?;
        hasher.update(payload);
        let digest = hasher.finalize();
        self.to.write_all(payload)?;
        self.to.write_all(digest.as_bytes())?;
        self.chain.update(digest.as_bytes());
        self.sections += 1;
        Ok(())
    }

    /// Writes the end mark, flushes, and gives the writer back.
    ///
    /// # Errors
    /// When writing fails.
    pub fn finish(mut self) -> Result<W, FormatError> {
        self.to.write_all(&end_mark(self.sections, &self.chain))?;
        self.to.flush()?;
        Ok(self.to)
    }
}

/// Name length, name, payload length.
pub(crate) fn section_prefix(name: &str, length: u64) -> Vec<u8> {
    let mut prefix = vec![u8::try_from(name.len()).unwrap_or(u8::MAX)];
    prefix.extend_from_slice(name.as_bytes());
    prefix.extend_from_slice(&length.to_le_bytes());
    prefix
}

/// A hasher over what makes a section's place unique, so that sections cannot be moved between
/// files or within one. Its state before the payload gives the 16-byte check of the prefix.
pub(crate) fn section_hasher(header: &blake3::Hash, index: u64, prefix: &[u8]) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.update(header.as_bytes());
    hasher.update(&index.to_le_bytes());
    hasher.update(prefix);
    hasher
}

/// A zero name length, the section count, and a digest over the header and all sections.
pub(crate) fn end_mark(sections: u64, chain: &blake3::Hasher) -> Vec<u8> {
    let mut chain = chain.clone();
    chain.update(&sections.to_le_bytes());
    let mut mark = vec![0u8];
    mark.extend_from_slice(&sections.to_le_bytes());
    mark.extend_from_slice(chain.finalize().as_bytes());
    mark
}

pub(crate) fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err("a section name has 1 to 64 characters");
    }
    if !name.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("a section name is printable ASCII");
    }
    Ok(())
}
