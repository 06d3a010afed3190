//! Reads a container, section by section; nothing is handed out before its checksum matched.

use std::io::{Read, Seek, SeekFrom};

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
        let Some(prefix) = self.next_prefix()? else { return Ok(None) };
        let Prefix { name, length, mut hasher } = prefix;
        let place = format!("section \"{name}\"");
        let bytes = self.payload(length, &place)?;
        hasher.update(&bytes);
        let digest = hasher.finalize();
        if self.take::<32>(&place)? != *digest.as_bytes() {
            return Err(FormatError::Altered { kind: self.header.kind, place });
        }
        self.chain.update(digest.as_bytes());
        self.sections += 1;
        Ok(Some(Section { name, bytes }))
    }

    /// Name and length of the next section, checked, or `None` at a valid end mark.
    fn next_prefix(&mut self) -> Result<Option<Prefix>, FormatError> {
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
        let hasher = section_hasher(&self.header_digest, self.sections, &section_prefix(&name, length));
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
        Ok(Some(Prefix { name, length, hasher }))
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

    /// Passes over the next section, which must have this name, and notes where it is. Its checksum enters the end
    /// mark's, so that a file whose end was checked has the sections that were noted, or they will not load.
    ///
    /// # Errors
    /// As [`Reader::expect_section`], but for an altered payload, which [`Place::check`] finds.
    pub(crate) fn skip_section(&mut self, name: &str) -> Result<Place, FormatError>
    where
        R: Seek,
    {
        let kind = self.header.kind;
        let wrong = |found: String| FormatError::SectionOrder { kind, expected: name.into(), found };
        let Some(Prefix { name: found, length, hasher }) = self.next_prefix()? else {
            return Err(wrong("the end of the file".into()));
        };
        if found != name {
            return Err(wrong(format!("section \"{found}\"")));
        }
        let offset = self.from.stream_position()?;
        // Beyond the end of a truncated file nothing can be read.
        self.from.seek(SeekFrom::Start(offset.saturating_add(length)))?;
        let digest = self.take::<32>(&format!("section \"{name}\""))?;
        self.chain.update(&digest);
        self.sections += 1;
        Ok(Place { kind, name: found, offset, length, hasher, digest })
    }

    /// Requires that no section and no byte follows, and gives the source back.
    ///
    /// # Errors
    /// As [`Reader::finish`].
    pub(crate) fn finish_into_inner(mut self) -> Result<R, FormatError> {
        self.require_end()?;
        Ok(self.from)
    }

    /// Requires that no section and no byte follows.
    ///
    /// # Errors
    /// When there is more, or the end mark is missing or wrong.
    pub fn finish(mut self) -> Result<(), FormatError> {
        self.require_end()
    }

    fn require_end(&mut self) -> Result<(), FormatError> {
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
        read_payload(&mut self.from, length)?
            .ok_or_else(|| FormatError::Truncated { kind: self.header.kind, place: place.into() })
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

/// `length` bytes, `None` if there are fewer; the buffer grows only as they arrive.
fn read_payload(from: &mut impl Read, length: u64) -> Result<Option<Vec<u8>>, FormatError> {
    const TRUSTED: u64 = 1 << 22;
    let mut bytes = Vec::with_capacity(usize::try_from(length.min(TRUSTED)).unwrap_or(0));
    let got = from.take(length).read_to_end(&mut bytes)?;
    Ok((got as u64 == length).then_some(bytes))
}

/// What stands before a section's payload.
struct Prefix {
    name: String,
    length: u64,
    /// Fed with everything before the payload.
    hasher: blake3::Hasher,
}

/// Where a section is that was passed over.
pub(crate) struct Place {
    kind: Kind,
    name: String,
    offset: u64,
    length: u64,
    hasher: blake3::Hasher,
    digest: [u8; 32],
}

impl Place {
    /// The payload's bytes as they are.
    ///
    /// # Errors
    /// When the file became shorter, or reading fails.
    pub fn read(&self, from: &mut (impl Read + Seek)) -> Result<Vec<u8>, FormatError> {
        from.seek(SeekFrom::Start(self.offset))?;
        let truncated = || FormatError::Truncated { kind: self.kind, place: self.quoted() };
        read_payload(from, self.length)?.ok_or_else(truncated)
    }

    /// Checks the bytes that [`Place::read`] gave.
    ///
    /// # Errors
    /// [`FormatError::Altered`].
    pub fn check(&self, bytes: &[u8]) -> Result<(), FormatError> {
        let mut hasher = self.hasher.clone();
        hasher.update(bytes);
        if *hasher.finalize().as_bytes() == self.digest {
            return Ok(());
        }
        Err(FormatError::Altered { kind: self.kind, place: self.quoted() })
    }

    fn quoted(&self) -> String {
        format!("section \"{}\"", self.name)
    }
}
