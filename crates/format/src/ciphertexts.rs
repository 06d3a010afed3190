//! Encrypted images and encrypted scores, written and read one batch at a time: the images that share ciphertexts.

use std::io::{Read, Write};
use std::marker::PhantomData;

use polyveil_ckks::{Ciphertext, KeyId, Parameters, SeededCiphertext};
use serde::{Deserialize, Serialize};

use crate::old::CountV1;
use crate::record::{
    PARAMETERS, Parts, Payload, check_parameters, header, key_id, read_versioned, write_record,
};
use crate::{FormatError, Header, Kind, Reader, Writer};

const INDEX: &str = "index";
/// Most images in one file.
pub const MAX_IMAGES: u32 = 1 << 24;
/// Most ciphertexts of one batch, and most images.
pub const MAX_PER_BATCH: u32 = 1 << 16;

/// How many images a file holds, and in how many ciphertexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Images.
    pub images: u32,
    /// Images that share ciphertexts; the last ones may be fewer.
    pub batch: u32,
    /// Ciphertexts of each batch.
    pub per_batch: u32,
}

impl Count {
    /// How many batches there are.
    #[must_use]
    pub const fn batches(&self) -> u32 {
        self.images.div_ceil(if self.batch == 0 { 1 } else { self.batch })
    }
}

/// A form of ciphertext that files hold: [`SeededCiphertext`] in [`Kind::Ciphertexts`], and
/// [`Ciphertext`] (of two parts) in [`Kind::Results`].
pub trait Stored: Sized + sealed::Sealed {
    /// The kind of file.
    const KIND: Kind;
}

impl Stored for SeededCiphertext {
    const KIND: Kind = Kind::Ciphertexts;
}

impl Stored for Ciphertext {
    const KIND: Kind = Kind::Results;
}

/// Writes batches of one key.
pub struct CiphertextWriter<W: Write, C: Stored> {
    writer: Writer<W>,
    params: Parameters,
    count: Count,
    done: u32,
    form: PhantomData<C>,
}

impl<W: Write, C: Stored> CiphertextWriter<W, C> {
    /// Writes the header and the counts.
    ///
    /// # Errors
    /// When a count is zero or too large, or writing fails.
    pub fn new(
        to: W,
        params: &Parameters,
        plan: [u8; 32],
        key: KeyId,
        count: Count,
    ) -> Result<Self, FormatError> {
        check_count(C::KIND, count)?;
        let mut writer = Writer::new(to, header(C::KIND, params).with_plan(plan).with_key(key.0))?;
        write_record(&mut writer, PARAMETERS, params.literal())?;
        write_record(&mut writer, INDEX, &count)?;
        Ok(Self { writer, params: params.clone(), count, done: 0, form: PhantomData })
    }

    /// Writes the ciphertexts of the next batch.
    ///
    /// # Errors
    /// When there are more batches or other ciphertexts than announced, or writing fails.
    pub fn batch(&mut self, ciphertexts: &[C]) -> Result<(), FormatError> {
        let fail = |what: String| FormatError::malformed(C::KIND, format!("batch {}", self.done), what);
        let batches = self.count.batches();
        if self.done == batches || ciphertexts.len() as u64 != u64::from(self.count.per_batch) {
            let (expected, found) = (self.count.per_batch, ciphertexts.len());
            return Err(fail(format!(
                "{batches} batches of {expected} ciphertexts announced, found one of {found}"
            )));
        }
        let key = key_id(self.writer.header());
        for (index, ciphertext) in ciphertexts.iter().enumerate() {
            if ciphertext.key() != key {
                return Err(fail(format!("key {key} expected, found {}", ciphertext.key())));
            }
            let mut payload = Payload(Vec::new());
            ciphertext.encode(&self.params, &mut payload).map_err(|e| fail(e.into()))?;
            self.writer.section(&format!("{}/{index}", self.done), &payload.0)?;
        }
        self.done += 1;
        Ok(())
    }

    /// Writes the end mark.
    ///
    /// # Errors
    /// When batches are missing, or writing fails.
    pub fn finish(self) -> Result<W, FormatError> {
        if self.done == self.count.batches() {
            return self.writer.finish();
        }
        let what = format!("{} batches announced, found {}", self.count.batches(), self.done);
        Err(FormatError::malformed(C::KIND, INDEX, what))
    }
}

/// Reads batches of one key.
pub struct CiphertextReader<R: Read, C: Stored> {
    reader: Reader<R>,
    params: Parameters,
    count: Count,
    done: u32,
    form: PhantomData<C>,
}

impl<R: Read, C: Stored> CiphertextReader<R, C> {
    /// Reads header and counts; refuses ciphertexts of other parameters or of another plan.
    ///
    /// # Errors
    /// When the file is another one, damaged, or made for something else.
    pub fn open(from: R, params: &Parameters, plan: &[u8; 32]) -> Result<Self, FormatError> {
        let mut reader = Reader::open_kind(from, C::KIND)?;
        reader.header().expect_plan(plan)?;
        check_parameters(&mut reader, params)?;
        let count = read_count(&mut reader)?;
        check_count(C::KIND, count)?;
        Ok(Self { reader, params: params.clone(), count, done: 0, form: PhantomData })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        self.reader.header()
    }

    /// The counts.
    pub fn count(&self) -> Count {
        self.count
    }

    /// The key of all ciphertexts.
    pub fn key_id(&self) -> KeyId {
        key_id(self.reader.header())
    }

    /// The next batch's ciphertexts; `None` after the last, once the end mark was checked.
    ///
    /// # Errors
    /// When a ciphertext or the end is damaged or not valid.
    pub fn next_batch(&mut self) -> Result<Option<Vec<C>>, FormatError> {
        if self.done == self.count.batches() {
            return match self.reader.next_section()? {
                None => Ok(None),
                Some(more) => Err(FormatError::malformed(C::KIND, more.name, "more than the index says")),
            };
        }
        let mut batch = Vec::new();
        for index in 0..self.count.per_batch {
            let name = format!("{}/{index}", self.done);
            let bytes = self.reader.expect_section(&name)?;
            let mut parts = Parts::new(C::KIND, &name, &bytes);
            let ciphertext = C::decode(&self.params, key_id(self.reader.header()), &mut parts)?;
            parts.end()?;
            batch.push(ciphertext);
        }
        self.done += 1;
        Ok(Some(batch))
    }
}

/// Reads the counts, which follow the parameters.
///
/// # Errors
/// When the section is another one or damaged.
pub fn read_count<R: Read>(from: &mut Reader<R>) -> Result<Count, FormatError> {
    read_versioned::<_, Count, CountV1>(from, INDEX)
}

fn check_count(kind: Kind, count: Count) -> Result<(), FormatError> {
    let Count { images, batch, per_batch } = count;
    let few = 1..=MAX_PER_BATCH;
    if (1..=MAX_IMAGES).contains(&images) && few.contains(&batch) && few.contains(&per_batch) {
        return Ok(());
    }
    let what = format!(
        "1 to {MAX_IMAGES} images, 1 to {MAX_PER_BATCH} of them in 1 to {MAX_PER_BATCH} ciphertexts expected, found {images}, \
         {batch} of them in {per_batch}"
    );
    Err(FormatError::malformed(kind, INDEX, what))
}

mod sealed {
    use polyveil_ckks::{Ciphertext, CkksError, KeyId, Modulus, Parameters, SeededCiphertext};

    use crate::FormatError;
    use crate::record::{Parts, Payload};

    pub trait Sealed {
        fn key(&self) -> KeyId;
        fn encode(&self, params: &Parameters, payload: &mut Payload) -> Result<(), &'static str>;
        fn decode(params: &Parameters, key: KeyId, parts: &mut Parts<'_>) -> Result<Self, FormatError>
        where
            Self: Sized;
    }

    impl Sealed for SeededCiphertext {
        fn key(&self) -> KeyId {
            self.key_id()
        }

        fn encode(&self, params: &Parameters, payload: &mut Payload) -> Result<(), &'static str> {
            head(self.level(), self.scale(), payload)?;
            payload.0.extend_from_slice(self.seed());
            payload.poly(self.c0(), &moduli(params, self.level()))
        }

        fn decode(params: &Parameters, key: KeyId, parts: &mut Parts<'_>) -> Result<Self, FormatError> {
            let (level, scale) = (read_level(params, parts)?, parts.f64()?);
            let seed = parts.array()?;
            let c0 = parts.poly(params.degree(), &moduli(params, level))?;
            Self::from_parts(params, key, level, scale, c0, seed).map_err(|e| refused(parts, &e))
        }
    }

    impl Sealed for Ciphertext {
        fn key(&self) -> KeyId {
            self.key_id()
        }

        fn encode(&self, params: &Parameters, payload: &mut Payload) -> Result<(), &'static str> {
            let [c0, c1] = self.parts() else { return Err("a result has two parts; relinearise it first") };
            head(self.level(), self.scale(), payload)?;
            let moduli = moduli(params, self.level());
            payload.poly(c0, &moduli)?;
            payload.poly(c1, &moduli)
        }

        fn decode(params: &Parameters, key: KeyId, parts: &mut Parts<'_>) -> Result<Self, FormatError> {
            let (level, scale) = (read_level(params, parts)?, parts.f64()?);
            let moduli = moduli(params, level);
            let polys = vec![parts.poly(params.degree(), &moduli)?, parts.poly(params.degree(), &moduli)?];
            Self::from_parts(params, key, level, scale, polys).map_err(|e| refused(parts, &e))
        }
    }

    fn head(level: usize, scale: f64, payload: &mut Payload) -> Result<(), &'static str> {
        payload.u16(level)?;
        payload.f64(scale);
        Ok(())
    }

    fn read_level(params: &Parameters, parts: &mut Parts<'_>) -> Result<usize, FormatError> {
        let level = parts.u16()?;
        params.check_level(level).map_err(|e| refused(parts, &e))?;
        Ok(level)
    }

    fn moduli(params: &Parameters, level: usize) -> Vec<u64> {
        params.moduli(level).iter().map(Modulus::value).collect()
    }

    fn refused(parts: &Parts<'_>, error: &CkksError) -> FormatError {
        parts.fail(error)
    }
}
