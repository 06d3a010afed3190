//! Evaluation keys, written and read one at a time.

use std::collections::BTreeMap;
use std::io::{Read, Seek, Write};
use std::sync::{Mutex, PoisonError};

use polyveil_ckks::{CkksError, EvaluationKeys, KeyId, KeySource, KeySpec, Parameters, SwitchingKey};

use crate::reader::Place;
use crate::record::{
    PARAMETERS, Parts, Payload, check_parameters, header, key_id, read_record, write_record,
};
use crate::{FormatError, Header, Kind, Reader, Writer};

const KIND: Kind = Kind::EvaluationKeys;
const INDEX: &str = "index";
const RELIN: &str = "relin";

/// Writes evaluation keys as they are made: relinearisation first where there is one, then the
/// rotations in ascending order.
pub struct EvaluationKeyWriter<W: Write> {
    writer: Writer<W>,
    params: Parameters,
    /// Names and levels of the keys still to come, last one first.
    due: Vec<(String, usize)>,
}

impl<W: Write> EvaluationKeyWriter<W> {
    /// Writes the header and the list of keys to come.
    ///
    /// # Errors
    /// When `spec` asks for keys that `params` does not have, or writing fails.
    pub fn new(
        to: W,
        params: &Parameters,
        plan: [u8; 32],
        key: KeyId,
        spec: &KeySpec,
    ) -> Result<Self, FormatError> {
        spec.check(params).map_err(|e| FormatError::malformed(KIND, INDEX, e))?;
        let mut spec = spec.clone();
        spec.rotations.sort_unstable();
        let mut writer = Writer::new(to, header(KIND, params).with_plan(plan).with_key(key.0))?;
        write_record(&mut writer, PARAMETERS, params.literal())?;
        write_record(&mut writer, INDEX, &spec)?;
        let mut due = names(&spec);
        due.reverse();
        Ok(Self { writer, params: params.clone(), due })
    }

    /// Writes the next key of the list.
    ///
    /// # Errors
    /// When no key is due, the key has another level than the list says, or writing fails.
    pub fn key(&mut self, key: &SwitchingKey) -> Result<(), FormatError> {
        let Some((name, level)) = self.due.pop() else {
            return Err(FormatError::malformed(KIND, "(none)", "more keys than the list says"));
        };
        let fail = |what: String| FormatError::malformed(KIND, name.as_str(), what);
        if key.level() != level {
            return Err(fail(format!("a key of level {level} expected, found one of {}", key.level())));
        }
        let moduli = moduli(&self.params, level);
        let mut payload =
            Payload(Vec::with_capacity(self.params.switching_key_stored_bytes(level) as usize + 8));
        let body = |payload: &mut Payload| {
            payload.u16(key.level())?;
            payload.u16(key.b().rows())?;
            payload.0.extend_from_slice(key.seed());
            (0..key.b().rows()).try_for_each(|digit| payload.poly(&key.b().get(digit), &moduli))
        };
        body(&mut payload).map_err(|e: &str| fail(e.into()))?;
        self.writer.section(&name, &payload.0)
    }

    /// Writes the end mark.
    ///
    /// # Errors
    /// When keys are still due, or writing fails.
    pub fn finish(self) -> Result<W, FormatError> {
        match self.due.last() {
            None => self.writer.finish(),
            Some((name, _)) => Err(FormatError::malformed(KIND, name.as_str(), "the key is missing")),
        }
    }
}

/// Reads evaluation keys one at a time.
pub struct EvaluationKeyReader<R: Read> {
    reader: Reader<R>,
    params: Parameters,
    spec: KeySpec,
    due: Vec<(String, usize)>,
    relin: Option<SwitchingKey>,
    rotations: BTreeMap<usize, SwitchingKey>,
}

impl<R: Read> EvaluationKeyReader<R> {
    /// Reads header and list; refuses keys of other parameters or of another plan.
    ///
    /// # Errors
    /// When the file is another one, damaged, or made for something else.
    pub fn open(from: R, params: &Parameters, plan: &[u8; 32]) -> Result<Self, FormatError> {
        let (reader, spec) = open(from, params, plan)?;
        let mut due = names(&spec);
        due.reverse();
        let (relin, rotations) = (None, BTreeMap::new());
        Ok(Self { reader, params: params.clone(), spec, due, relin, rotations })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        self.reader.header()
    }

    /// The keys that the file holds.
    pub fn spec(&self) -> &KeySpec {
        &self.spec
    }

    /// Reads one more key; false when all are there.
    ///
    /// # Errors
    /// When the key is damaged or not valid.
    pub fn read_next(&mut self) -> Result<bool, FormatError> {
        let Some((name, level)) = self.due.pop() else { return Ok(false) };
        let bytes = self.reader.expect_section(&name)?;
        let key = parse_key(&self.params, &name, level, &bytes)?;
        if name == RELIN {
            self.relin = Some(key);
        } else {
            // The list is sorted and checked, so position and rotation agree.
            let at = self.rotations.len();
            self.rotations.insert(self.spec.rotations[at].0, key);
        }
        Ok(true)
    }

    /// All keys, once the end mark was checked.
    ///
    /// # Errors
    /// When a key or the end is damaged, or data follows.
    pub fn finish(mut self) -> Result<EvaluationKeys, FormatError> {
        while self.read_next()? {}
        let key = key_id(self.reader.header());
        self.reader.finish()?;
        EvaluationKeys::from_parts(&self.params, key, self.relin, self.rotations)
            .map_err(|e| FormatError::malformed(KIND, INDEX, e))
    }
}

/// Keys of a file that are read one by one, when each is first used.
///
/// Opening reads the list of keys and where each is, not the keys; it checks that the file is whole and has the length it
/// says. A key's own checksum is checked when it is read. Reads are positioned reads behind a lock, not a memory map: that
/// needs `unsafe`, and a mapped file that somebody shortens kills the process instead of failing with an error.
///
/// # Errors
/// When the file is another one, damaged, or made for something else.
pub fn open_evaluation_keys<R: Read + Seek + Send + 'static>(
    from: R,
    params: &Parameters,
    plan: &[u8; 32],
) -> Result<EvaluationKeys, FormatError> {
    let (mut reader, spec) = open(from, params, plan)?;
    let mut places = BTreeMap::new();
    let rotations = spec.rotations.iter().map(|&(r, level)| (Some(r), level));
    for (rotation, level) in spec.relin_level.map(|level| (None, level)).into_iter().chain(rotations) {
        places.insert(rotation, (reader.skip_section(&name(rotation))?, level));
    }
    let key = key_id(reader.header());
    let from = Mutex::new(reader.finish_into_inner()?);
    let source = KeyFile { from, params: params.clone(), places };
    EvaluationKeys::from_source(params, key, &spec, Box::new(source))
        .map_err(|e| FormatError::malformed(KIND, INDEX, e))
}

/// An opened key file: where each key is, and its level.
struct KeyFile<R> {
    from: Mutex<R>,
    params: Parameters,
    places: BTreeMap<Option<usize>, (Place, usize)>,
}

impl<R: Read + Seek> KeyFile<R> {
    fn read(&self, rotation: Option<usize>) -> Result<SwitchingKey, FormatError> {
        let missing = || FormatError::malformed(KIND, INDEX, "the key is not in the list");
        let (place, level) = self.places.get(&rotation).ok_or_else(missing)?;
        // Checked and parsed outside the lock.
        let bytes = place.read(&mut *self.from.lock().unwrap_or_else(PoisonError::into_inner))?;
        place.check(&bytes)?;
        parse_key(&self.params, &name(rotation), *level, &bytes)
    }
}

impl<R: Read + Seek + Send> KeySource for KeyFile<R> {
    fn load(&self, rotation: Option<usize>) -> Result<SwitchingKey, CkksError> {
        self.read(rotation)
            .map_err(|e| CkksError::KeyNotLoaded { key: name(rotation), reason: e.to_string() })
    }
}

/// Reads and checks all that comes before the keys.
fn open<R: Read>(from: R, params: &Parameters, plan: &[u8; 32]) -> Result<(Reader<R>, KeySpec), FormatError> {
    let mut reader = Reader::open_kind(from, KIND)?;
    reader.header().expect_plan(plan)?;
    check_parameters(&mut reader, params)?;
    let spec: KeySpec = read_record(&mut reader, INDEX)?;
    spec.check(params).map_err(|e| FormatError::malformed(KIND, INDEX, e))?;
    if !spec.rotations.is_sorted() {
        return Err(FormatError::malformed(KIND, INDEX, "the rotations are not in ascending order"));
    }
    Ok((reader, spec))
}

/// Writes keys, reading those that are not in memory yet.
///
/// # Errors
/// As [`EvaluationKeyWriter`], and where a key cannot be read.
pub fn write_evaluation_keys<W: Write>(
    to: W,
    params: &Parameters,
    plan: [u8; 32],
    keys: &EvaluationKeys,
) -> Result<W, FormatError> {
    let mut writer = EvaluationKeyWriter::new(to, params, plan, keys.key_id(), &keys.spec())?;
    let absent = |e: CkksError| FormatError::malformed(KIND, INDEX, e);
    if let Some(key) = keys.relin().map_err(absent)? {
        writer.key(key)?;
    }
    for (rotation, _) in keys.rotations() {
        if let Some(key) = keys.rotation(rotation).map_err(absent)? {
            writer.key(key)?;
        }
    }
    writer.finish()
}

/// Reads all keys of a file.
///
/// # Errors
/// As [`EvaluationKeyReader`].
pub fn read_evaluation_keys(
    from: impl Read,
    params: &Parameters,
    plan: &[u8; 32],
) -> Result<EvaluationKeys, FormatError> {
    EvaluationKeyReader::open(from, params, plan)?.finish()
}

/// Section name of a rotation's key, or of the relinearisation key.
fn name(rotation: Option<usize>) -> String {
    rotation.map_or_else(|| RELIN.to_string(), |r| format!("rotation/{r}"))
}

/// Section names and levels, in file order.
fn names(spec: &KeySpec) -> Vec<(String, usize)> {
    let relin = spec.relin_level.map(|level| (name(None), level));
    let rotations = spec.rotations.iter().map(|&(r, level)| (name(Some(r)), level));
    relin.into_iter().chain(rotations).collect()
}

fn moduli(params: &Parameters, level: usize) -> Vec<u64> {
    params.key_moduli(level).iter().map(polyveil_ckks::Modulus::value).collect()
}

fn parse_key(
    params: &Parameters,
    name: &str,
    level: usize,
    bytes: &[u8],
) -> Result<SwitchingKey, FormatError> {
    let mut parts = Parts::new(KIND, name, bytes);
    let (found, digits) = (parts.u16()?, parts.u16()?);
    let expected = params.key_digits(level);
    if (found, digits) != (level, expected) {
        return Err(
            parts.fail(format!("level {level} with {expected} digits expected, found {found} with {digits}"))
        );
    }
    let seed = parts.array()?;
    let moduli = moduli(params, level);
    let digits = (0..digits).map(|_| parts.poly(params.degree(), &moduli)).collect::<Result<Vec<_>, _>>()?;
    parts.end()?;
    SwitchingKey::from_parts(params, level, seed, &digits).map_err(|e| FormatError::malformed(KIND, name, e))
}
