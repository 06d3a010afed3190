//! Reads a container, section by section; nothing is handed out before its checksum matched.

use std::io::Read;

use crate::header::read_up_to;
use crate::writer::{check_name, end_mark, section_hasher, section_prefix};
use crate::{FormatError, Header, Kind};

/// Reads one file.
///
/// Memory stays bounded by what the file really holds: a declared length is believed only after
/// the check of its own prefix, and buffers grow with the bytes that arrive.
pub struct Reader<R: Read> {
    from: R,
    header: Header,
    header_digest: blake3::Hash,
    sections: u64,
    total: u64,
    chain: blake3::Hasher,
    ended: bool,
}

/// A named run of bytes whose checksum matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// Reads the header of a file of any kind.
    ///
    /// # Errors
    /// When the file is not ours, altered, or of an unsupported version.
    pub fn open(mut from: R) -> Result<Self, FormatError> {
        let (header, header_digest) = Header::read(&mut from)?;
        let mut chain = blake3::Hasher::new();
        chain.update(header_digest.as_bytes());
        Ok(Self { from, header, header_digest, sections: 0, total: 0, chain, ended: false })
    }

    /// Reads the header of a file that must be of `kind`.
    ///
    /// # Errors
    /// As [`Reader::open`], and [`FormatError::WrongKind`].
    pub fn open_kind(from: R, kind: Kind) -> Result<Self, FormatError> {
        let reader = Self::open(from)?;
        reader.header.expect_kind(kind)?;
        Ok(reader)
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next section, or `None` at a valid end mark.
    ///
    /// # Errors
    /// When the file is truncated, altered, or exceeds its kind's limits.
    pub fn next_section(&mut self) -> Result<Option<Section>, FormatError> {
        if self.ended {
            return Ok(None);
        }
        let info = self.header.kind.info();
        let kind = info.kind;
        let place = format!("section {}", self.sections + 1);
        let [name_length] = self.take::<1>(&place)?;
        if name_length == 0 {
            self.check_end()?;
            return Ok(None);
        }
        let mut name = vec![0u8; usize::from(name_length)];
        self.fill(&mut name, &place)?;
        let length = u64::from_le_bytes(self.take::<8>(&place)?);
        let check = self.take::<16>(&place)?;
        let altered = || FormatError::Altered { kind, place: place.clone() };
        let name = String::from_utf8(name).map_err(|_| altered())?;
        let mut hasher = section_hasher(&self.header_digest, self.sections, &section_prefix(&name, length));
        if hasher.finalize().as_bytes()[..16] != check {
            return Err(altered());
        }
        check_name(&name).map_err(|what| FormatError::malformed(kind, &name, what))?;
        let place = format!("section \"{name}\"");
        if length > info.max_section_bytes {
            let limit = info.max_section_bytes;
            return Err(FormatError::TooLarge { kind, place, found: length, limit });
        }
        self.total = self.total.saturating_add(length);
        if self.total > info.max_bytes {
            let (found, limit) = (self.total, info.max_bytes);
            return Err(FormatError::TooLarge { kind, place: "the file".into(), found, limit });
        }
        let bytes = self.payload(length, &place)?;
        hasher.update(&bytes);
        let digest = hasher.finalize();
        if self.take::<32>(&place)? != *digest.as_bytes() {
            return Err(FormatError::Altered { kind, place });
        }
        self.chain.update(digest.as_bytes());
        self.sections += 1;
        Ok(Some(Section { name, bytes }))
    }

    /// The bytes of the next section, which must have this name.
    ///
    /// # Errors
    /// As [`Reader::next_section`], and [`FormatError::SectionOrder`].
    pub fn expect_section(&mut self, name: &str) -> Result<Vec<u8>, FormatError> {
        let found = match self.next_section()? {
            Some(section) if section.name == name => return Ok(section.bytes),
            Some(section) => format!("section \"{}\"", section.name),
            None => "the end of the file".into(),
        };
        Err(FormatError::SectionOrder { kind: self.header.kind, expected: name.into(), found })
    }

    /// Requires that no section and no byte follows.
    ///
    /// # Errors
    /// When there is more, or the end mark is missing or wrong.
    pub fn finish(mut self) -> Result<(), FormatError> {
        match self.next_section()? {
            None => Ok(()),
            Some(section) => Err(FormatError::SectionOrder {
                kind: self.header.kind,
                expected: "(none)".into(),
                found: format!("section \"{}\"", section.name),
            }),
        }
    }

    fn check_end(&mut self) -> Result<(), FormatError> {
        let kind = self.header.kind;
        let place = "the end mark";
        let found = self.take::<40>(place)?;
        if end_mark(self.sections, &self.chain)[1..] != found {
            return Err(FormatError::Altered { kind, place: place.into() });
        }
        if read_up_to(&mut self.from, &mut [0u8; 1])? != 0 {
            return Err(FormatError::TrailingData { kind });
        }
        self.ended = true;
        Ok(())
    }

    /// Reads `length` bytes, growing the buffer only as they arrive.
    fn payload(&mut self, length: u64, place: &str) -> Result<Vec<u8>, FormatError> {
        const TRUSTED: u64 = 1 << 22;
        let mut bytes = Vec::with_capacity(usize::try_from(length.min(TRUSTED)).unwrap_or(0));
        let got = (&mut self.from).take(length).read_to_end(&mut bytes)?;
        if got as u64 == length {
            return Ok(bytes);
        }
        Err(FormatError::Truncated { kind: self.header.kind, place: place.into() })
    }

    fn take<const N: usize>(&mut self, place: &str) -> Result<[u8; N], FormatError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, place)?;
        Ok(bytes)
    }

    fn fill(&mut self, into: &mut [u8], place: &str) -> Result<(), FormatError> {
        if read_up_to(&mut self.from, into)? == into.len() {
            return Ok(());
        }
        Err(FormatError::Truncated { kind: self.header.kind, place: place.into() })
    }
}
