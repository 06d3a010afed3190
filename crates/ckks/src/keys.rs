//! Evaluation keys: what the data owner gives to the server. They allow relinearisation and chosen rotations, and do not
//! allow decryption.

use crate::error::CkksError;
use crate::expand::uniform_extended_alone;
use crate::par;
use crate::parameters::Parameters;
use polyveil_math::{MathError, Ntt, PackedPolys, Poly};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::OnceLock;

/// A public random name of a secret key, carried by everything that was made with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct KeyId(pub [u8; 16]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Which keys an evaluation needs, and up to which level each: a key for a low level is short.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct KeySpec {
    /// Highest level of a product of ciphertexts.
    pub relin_level: Option<usize>,
    /// (rotation, highest level), each rotation once, from 1 to slots − 1.
    pub rotations: Vec<(usize, usize)>,
}

impl KeySpec {
    /// # Errors
    /// [`CkksError::NoSuchLevel`] or [`CkksError::BadRotation`].
    pub fn check(&self, params: &Parameters) -> Result<(), CkksError> {
        self.check_within(params.max_level(), params.slots())
    }

    /// [`KeySpec::check`] against the highest level and the number of slots, for a specification whose parameters are not
    /// built yet.
    ///
    /// # Errors
    /// As [`KeySpec::check`].
    pub fn check_within(&self, max_level: usize, slots: usize) -> Result<(), CkksError> {
        let mut seen = BTreeSet::new();
        if let Some(found) = self.levels().find(|&level| level > max_level) {
            return Err(CkksError::NoSuchLevel { found, max: max_level });
        }
        for &(rotation, _) in &self.rotations {
            if rotation == 0 || rotation >= slots {
                return Err(CkksError::BadRotation {
                    rotation,
                    reason: "is not between 1 and the number of slots − 1",
                });
            }
            if !seen.insert(rotation) {
                return Err(CkksError::BadRotation { rotation, reason: "is listed twice" });
            }
        }
        Ok(())
    }

    /// Number of keys.
    #[must_use]
    pub fn count(&self) -> usize {
        self.levels().count()
    }

    /// Bytes of all keys in memory, expanded.
    #[must_use]
    pub fn bytes(&self, params: &Parameters) -> u64 {
        self.levels().map(|level| params.switching_key_bytes(level)).sum()
    }

    /// Bytes of all keys in a file, with seeds for the uniform halves.
    #[must_use]
    pub fn stored_bytes(&self, params: &Parameters) -> u64 {
        self.levels().map(|level| params.switching_key_stored_bytes(level)).sum()
    }

    fn levels(&self) -> impl Iterator<Item = usize> + '_ {
        self.relin_level.into_iter().chain(self.rotations.iter().map(|&(_, level)| level))
    }
}

/// One switching key, usable at any level up to its own.
///
/// Per digit d a pair (b_d, a_d) modulo the primes of all levels up to its own and the special primes, b_d = −a_d·s + e_d + P·g_d·s' with g_d = 1
/// modulo the primes of digit d and 0 modulo the others. The a_d come from the seed, when they are first needed. Residues
/// take the bits of their prime, in the order in which a key switch reads them.
pub struct SwitchingKey {
    level: usize,
    seed: [u8; 32],
    b: PackedPolys,
    a: OnceLock<PackedPolys>,
}

impl SwitchingKey {
    /// From raw parts, as a file gives them: per digit a residue for each coefficient and [`Parameters::key_moduli`].
    ///
    /// # Errors
    /// [`CkksError::NoSuchLevel`], [`CkksError::Parts`] for a wrong number of digits, [`CkksError::Math`] for wrong sizes
    /// and residues.
    pub fn from_parts<D: AsRef<[u64]>>(
        params: &Parameters,
        level: usize,
        seed: [u8; 32],
        digits: &[D],
    ) -> Result<Self, CkksError> {
        let poly = |data: &D| Poly::from_words(params.degree(), data.as_ref());
        Self::packed(params, level, seed, digits.iter().map(poly))
    }

    /// The same from a polynomial for each digit.
    ///
    /// # Errors
    /// As [`SwitchingKey::from_parts`].
    pub fn from_polys(
        params: &Parameters,
        level: usize,
        seed: [u8; 32],
        digits: Vec<Poly<Ntt>>,
    ) -> Result<Self, CkksError> {
        Self::packed(params, level, seed, digits.into_iter().map(Ok))
    }

    fn packed(
        params: &Parameters,
        level: usize,
        seed: [u8; 32],
        digits: impl ExactSizeIterator<Item = Result<Poly<Ntt>, MathError>>,
    ) -> Result<Self, CkksError> {
        params.check_level(level)?;
        if digits.len() != params.key_digits(level) {
            return Err(CkksError::Parts { found: digits.len(), expected: params.key_digits(level) });
        }
        let moduli = params.key_moduli(level);
        let mut b = PackedPolys::zero(params.degree(), digits.len(), moduli);
        for (row, poly) in digits.enumerate() {
            b.set(row, &poly?.checked(params.degree(), moduli)?);
        }
        Ok(Self { level, seed, b, a: OnceLock::new() })
    }

    /// The highest level at which it can be used.
    #[must_use]
    pub const fn level(&self) -> usize {
        self.level
    }

    /// The seed of the uniform halves.
    #[must_use]
    pub const fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The halves that are not uniform, a row a digit.
    #[must_use]
    pub const fn b(&self) -> &PackedPolys {
        &self.b
    }

    /// The uniform halves, made on the first call.
    pub fn a(&self, params: &Parameters) -> &PackedPolys {
        self.a.get_or_init(|| {
            let moduli = params.key_moduli(self.level);
            let mut a = PackedPolys::zero(params.degree(), self.b.rows(), moduli);
            for digit in 0..self.b.rows() {
                a.set(digit, &uniform_extended_alone(params, &self.seed, digit, self.level));
            }
            a
        })
    }
}

impl fmt::Debug for SwitchingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SwitchingKey {{ level: {}, digits: {} }}", self.level, self.b.rows())
    }
}

/// Where keys come from that are not in memory yet: a file, usually.
pub trait KeySource: Send + Sync {
    /// Reads one key, the relinearisation key for `None`. May be called from several threads, for the same key too.
    ///
    /// # Errors
    /// [`CkksError::KeyNotLoaded`] where it is missing or damaged.
    fn load(&self, rotation: Option<usize>) -> Result<SwitchingKey, CkksError>;
}

/// One key, or the place for it.
struct Slot {
    level: usize,
    key: OnceLock<SwitchingKey>,
}

/// The keys of one secret key, all in memory or each read from a [`KeySource`] when it is first used; then it stays.
pub struct EvaluationKeys {
    fingerprint: [u8; 32],
    key_id: KeyId,
    relin: Option<Slot>,
    rotations: BTreeMap<usize, Slot>,
    source: Option<Box<dyn KeySource>>,
}

impl EvaluationKeys {
    /// Collects keys that belong to `key_id`.
    ///
    /// # Errors
    /// [`CkksError::BadRotation`] for a rotation out of range.
    pub fn from_parts(
        params: &Parameters,
        key_id: KeyId,
        relin: Option<SwitchingKey>,
        rotations: BTreeMap<usize, SwitchingKey>,
    ) -> Result<Self, CkksError> {
        let slot = |key: SwitchingKey| Slot { level: key.level(), key: OnceLock::from(key) };
        let keys = Self {
            fingerprint: params.fingerprint(),
            key_id,
            relin: relin.map(slot),
            rotations: rotations.into_iter().map(|(r, key)| (r, slot(key))).collect(),
            source: None,
        };
        keys.spec().check(params)?;
        Ok(keys)
    }

    /// Keys of `key_id` that the source will give when they are needed; `spec` says which there are.
    ///
    /// # Errors
    /// As [`KeySpec::check`].
    pub fn from_source(
        params: &Parameters,
        key_id: KeyId,
        spec: &KeySpec,
        source: Box<dyn KeySource>,
    ) -> Result<Self, CkksError> {
        spec.check(params)?;
        let slot = |level| Slot { level, key: OnceLock::new() };
        Ok(Self {
            fingerprint: params.fingerprint(),
            key_id,
            relin: spec.relin_level.map(slot),
            rotations: spec.rotations.iter().map(|&(r, level)| (r, slot(level))).collect(),
            source: Some(source),
        })
    }

    /// The secret key that they belong to.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Fingerprint of their parameters.
    #[must_use]
    pub const fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// The relinearisation key, if there is one.
    ///
    /// # Errors
    /// [`CkksError::KeyNotLoaded`] where the source fails.
    pub fn relin(&self) -> Result<Option<&SwitchingKey>, CkksError> {
        self.relin.as_ref().map(|slot| self.get(slot, None)).transpose()
    }

    /// The key of a rotation, if there is one.
    ///
    /// # Errors
    /// [`CkksError::KeyNotLoaded`] where the source fails.
    pub fn rotation(&self, rotation: usize) -> Result<Option<&SwitchingKey>, CkksError> {
        self.rotations.get(&rotation).map(|slot| self.get(slot, Some(rotation))).transpose()
    }

    /// Rotations that have a key, ascending, and up to which level.
    pub fn rotations(&self) -> impl ExactSizeIterator<Item = (usize, usize)> + '_ {
        self.rotations.iter().map(|(&rotation, slot)| (rotation, slot.level))
    }

    /// Which keys there are.
    #[must_use]
    pub fn spec(&self) -> KeySpec {
        KeySpec {
            relin_level: self.relin.as_ref().map(|slot| slot.level),
            rotations: self.rotations().collect(),
        }
    }

    /// How many keys are in memory.
    #[must_use]
    pub fn loaded(&self) -> usize {
        self.relin.iter().chain(self.rotations.values()).filter(|slot| slot.key.get().is_some()).count()
    }

    /// Makes the uniform halves of all keys in memory now instead of at their first use.
    pub fn expand(&self, params: &Parameters) {
        let slots = self.relin.iter().chain(self.rotations.values());
        let keys: Vec<&SwitchingKey> = slots.filter_map(|slot| slot.key.get()).collect();
        par::for_each(keys.into_iter(), |key| {
            let _ = key.a(params);
        });
    }

    fn get<'a>(&'a self, slot: &'a Slot, rotation: Option<usize>) -> Result<&'a SwitchingKey, CkksError> {
        if let Some(key) = slot.key.get() {
            return Ok(key);
        }
        let failed = |reason: String| CkksError::KeyNotLoaded { key: key_name(rotation), reason };
        let source = self.source.as_ref().ok_or_else(|| failed("it has no source".to_owned()))?;
        let key = source.load(rotation)?;
        if key.level() != slot.level {
            let (found, expected) = (key.level(), slot.level);
            return Err(failed(format!("it reaches level {found}, level {expected} was announced")));
        }
        // Another thread may have been first; its key is the same.
        Ok(slot.key.get_or_init(|| key))
    }
}

impl fmt::Debug for EvaluationKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.rotations.len() + usize::from(self.relin.is_some());
        write!(f, "EvaluationKeys {{ key: {}, keys: {count}, loaded: {} }}", self.key_id, self.loaded())
    }
}

/// A key's name in messages.
fn key_name(rotation: Option<usize>) -> String {
    rotation.map_or_else(|| "the relinearisation key".to_owned(), |r| format!("the key for rotation {r}"))
}
