//! Checked parameters with everything that is computed once from them.

use super::literal::{ParameterError, ParametersLiteral};
use super::security::Security;
use crate::error::CkksError;
use polyveil_math::{BaseConverter, Embedding, Modulus, NttTable, Reconstructor, RingKind, Shoup};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Checked parameters: cheap to clone, tables built once (32·N bytes a prime).
#[derive(Clone)]
pub struct Parameters {
    inner: Arc<Inner>,
}

struct Inner {
    literal: ParametersLiteral,
    security: Security,
    fingerprint: [u8; 32],
    /// Ciphertext primes, then special primes.
    tables: Vec<NttTable>,
    moduli: Vec<Modulus>,
    embedding: Embedding,
    reconstructor: Reconstructor,
    /// `digits[d][c − 1]`: from the first c primes of digit d to all primes.
    digits: Vec<Vec<BaseConverter>>,
    p_residue: Vec<u64>,
    /// By P, entry ℓ at level ℓ.
    mod_down: Vec<Division>,
    /// By q_ℓ and by P·q_ℓ: entry ℓ − 1 serves the step from level ℓ to ℓ − 1.
    rescale: Vec<Division>,
    mod_down_rescale: Vec<Division>,
}

/// Constants of a division by some primes, for a result modulo q_0 … q_ℓ.
pub(crate) struct Division {
    /// From the divisors to the primes of the result.
    pub converter: BaseConverter,
    /// Number of divisors.
    pub divisors: usize,
    /// The inverse of the divisors' product modulo each prime of the result.
    pub inverses: Vec<Shoup>,
}

impl Division {
    fn new(divisors: &[Modulus], to: &[Modulus]) -> Self {
        let inverse = |m: &Modulus| {
            let product = divisors.iter().fold(1, |product, d| m.mul(product, m.reduce(d.value())));
            m.shoup(m.inv(product))
        };
        Self {
            converter: BaseConverter::new(divisors, to),
            divisors: divisors.len(),
            inverses: to.iter().map(inverse).collect(),
        }
    }
}

impl Parameters {
    /// Most ciphertext primes.
    pub const MAX_Q: usize = 80;

    /// Checks a literal: degree, distinct primes of at most 50 bits that are 1 modulo 4N, digit size against special
    /// primes, and at least 128 bits of security by the table in [`Security`].
    ///
    /// # Errors
    /// [`ParameterError`] names what is wrong and the limit.
    pub fn new(literal: ParametersLiteral) -> Result<Self, ParameterError> {
        let (log_n, log_qp) = (literal.log_n, literal.log_qp());
        literal.check()?;
        let security = Security::of(log_n, log_qp);
        if security == Security::Insecure {
            let limit = Security::max_log_qp(log_n);
            return Err(ParameterError::Insecure { log_n, log_qp, limit, table: Security::TABLE });
        }
        Self::build(literal, security)
    }

    /// As [`Parameters::new`] without the security check, for tests on small rings. A set that fails the table calls
    /// itself [`Security::Insecure`] wherever it is printed, and has a fingerprint of its own kind.
    ///
    /// # Errors
    /// [`ParameterError`], but never for security.
    pub fn new_insecure(literal: ParametersLiteral) -> Result<Self, ParameterError> {
        literal.check()?;
        let security = Security::of(literal.log_n, literal.log_qp());
        Self::build(literal, security)
    }

    /// What was checked.
    #[must_use]
    pub fn literal(&self) -> &ParametersLiteral {
        &self.inner.literal
    }

    /// The security claim.
    #[must_use]
    pub fn security(&self) -> Security {
        self.inner.security
    }

    /// BLAKE3 of everything that the parameters fix.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        self.inner.fingerprint
    }

    /// The ring.
    #[must_use]
    pub fn ring(&self) -> RingKind {
        self.inner.literal.ring
    }

    /// log2 of the degree.
    #[must_use]
    pub fn log_n(&self) -> u32 {
        self.inner.literal.log_n
    }

    /// The degree N.
    #[must_use]
    pub fn degree(&self) -> usize {
        1 << self.inner.literal.log_n
    }

    /// Number of slots: N, or N/2 complex ones in the standard ring.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.ring().slots(self.degree())
    }

    /// The highest level; a ciphertext of level ℓ has ℓ + 1 limbs.
    #[must_use]
    pub fn max_level(&self) -> usize {
        self.inner.literal.q.len() - 1
    }

    /// The ciphertext primes, base prime first.
    #[must_use]
    pub fn q(&self) -> &[u64] {
        &self.inner.literal.q
    }

    /// The special primes.
    #[must_use]
    pub fn p(&self) -> &[u64] {
        &self.inner.literal.p
    }

    /// log2 of the modulus at a level (of the highest one, if it does not exist).
    #[must_use]
    pub fn log_q(&self, level: usize) -> f64 {
        self.q().iter().take(level + 1).map(|&q| (q as f64).log2()).sum()
    }

    /// log2 of Q·P.
    #[must_use]
    pub fn log_qp(&self) -> f64 {
        self.inner.literal.log_qp()
    }

    /// log2 of the special modulus.
    #[must_use]
    pub fn log_p(&self) -> f64 {
        self.p().iter().map(|&p| (p as f64).log2()).sum()
    }

    /// How many primes make a digit.
    #[must_use]
    pub fn digit_size(&self) -> usize {
        self.inner.literal.digit_size
    }

    /// Number of key-switching digits at a level.
    #[must_use]
    pub fn digits(&self, level: usize) -> usize {
        (level + 1).div_ceil(self.digit_size())
    }

    /// Indices of the primes of one digit at a level.
    #[must_use]
    pub fn digit_range(&self, digit: usize, level: usize) -> Range<usize> {
        let start = digit * self.digit_size();
        start..(start + self.digit_size()).min(level + 1)
    }

    /// Bytes of one expanded switching key in memory: digits × 2 × N × the bits of the primes of all limbs / 8.
    #[must_use]
    pub fn switching_key_bytes(&self, level: usize) -> u64 {
        self.digits(level) as u64 * 2 * self.key_bits(level) * self.degree() as u64 / 8
    }

    /// Bits of a residue of each limb of a switching key.
    fn key_bits(&self, level: usize) -> u64 {
        self.limb_bits(level) + self.moduli_p().iter().map(|m| u64::from(m.bits())).sum::<u64>()
    }

    /// Bytes of one switching key in a file: the uniform half is its 32-byte seed, residues have the bits of their prime.
    #[must_use]
    pub fn switching_key_stored_bytes(&self, level: usize) -> u64 {
        self.digits(level) as u64 * self.key_bits(level) * self.degree() as u64 / 8 + 32
    }

    /// Bytes of one ciphertext of two parts in memory.
    #[must_use]
    pub fn ciphertext_bytes(&self, level: usize) -> u64 {
        (2 * (level + 1) * self.degree() * 8) as u64
    }

    /// Bytes of one ciphertext in a file, `seeded` if it comes fresh from the secret key.
    #[must_use]
    pub fn ciphertext_stored_bytes(&self, level: usize, seeded: bool) -> u64 {
        let part = self.limb_bits(level) * self.degree() as u64 / 8;
        if seeded { part + 32 } else { 2 * part }
    }

    /// Transform tables of the ciphertext primes up to a level.
    #[must_use]
    pub fn tables(&self, level: usize) -> &[NttTable] {
        &self.inner.tables[..=level.min(self.max_level())]
    }

    /// Transform tables of the special primes.
    #[must_use]
    pub fn special_tables(&self) -> &[NttTable] {
        &self.inner.tables[self.q().len()..]
    }

    /// Moduli of the ciphertext primes up to a level.
    #[must_use]
    pub fn moduli(&self, level: usize) -> &[Modulus] {
        &self.inner.moduli[..=level.min(self.max_level())]
    }

    /// Moduli of the special primes.
    #[must_use]
    pub fn moduli_p(&self) -> &[Modulus] {
        &self.inner.moduli[self.q().len()..]
    }

    /// P modulo each ciphertext prime, as key generation needs it.
    #[must_use]
    pub fn p_residues(&self) -> &[u64] {
        &self.inner.p_residue
    }

    /// The complex embedding.
    #[must_use]
    pub fn embedding(&self) -> &Embedding {
        &self.inner.embedding
    }

    /// Residues → integers.
    #[must_use]
    pub fn reconstructor(&self) -> &Reconstructor {
        &self.inner.reconstructor
    }

    /// # Errors
    /// [`CkksError::NoSuchLevel`] above the highest level.
    pub fn check_level(&self, level: usize) -> Result<(), CkksError> {
        if level > self.max_level() {
            return Err(CkksError::NoSuchLevel { found: level, max: self.max_level() });
        }
        Ok(())
    }

    /// # Errors
    /// [`CkksError::BadScale`] unless finite and at least 1.
    pub fn check_scale(scale: f64) -> Result<(), CkksError> {
        if scale.is_finite() && scale >= 1.0 { Ok(()) } else { Err(CkksError::BadScale { scale }) }
    }

    /// # Errors
    /// [`CkksError::ParameterMismatch`] unless both fingerprints agree.
    pub fn check_fingerprint(&self, other: &[u8; 32]) -> Result<(), CkksError> {
        if &self.inner.fingerprint == other {
            return Ok(());
        }
        Err(CkksError::ParameterMismatch {
            left: short_hex(&self.inner.fingerprint),
            right: short_hex(other),
        })
    }

    /// Table of extended limb `index` at a level: ciphertext limbs first, then special ones.
    pub(crate) fn extended_table(&self, index: usize, level: usize) -> &NttTable {
        &self.inner.tables[self.extended_index(index, level)]
    }

    /// Position of extended limb `index` of a level among all primes.
    pub(crate) fn extended_index(&self, index: usize, level: usize) -> usize {
        if index <= level { index } else { index - level - 1 + self.q().len() }
    }

    pub(crate) fn digit_converter(&self, digit: usize, level: usize) -> &BaseConverter {
        &self.inner.digits[digit][self.digit_range(digit, level).len() - 1]
    }

    /// By the special primes.
    pub(crate) fn mod_down(&self, level: usize) -> &Division {
        &self.inner.mod_down[level]
    }

    /// By the special primes and the last one of a level of at least 1.
    pub(crate) fn mod_down_rescale(&self, level: usize) -> &Division {
        &self.inner.mod_down_rescale[level - 1]
    }

    /// By the last prime of a level of at least 1.
    pub(crate) fn rescale(&self, level: usize) -> &Division {
        &self.inner.rescale[level - 1]
    }

    fn limb_bits(&self, level: usize) -> u64 {
        self.moduli(level).iter().map(|m| u64::from(m.bits())).sum()
    }

    fn build(literal: ParametersLiteral, security: Security) -> Result<Self, ParameterError> {
        let primes: Vec<u64> = literal.q.iter().chain(&literal.p).copied().collect();
        let tables: Vec<NttTable> =
            crate::par::map(primes.len(), |i| NttTable::new(literal.ring, literal.log_n, primes[i]))
                .into_iter()
                .collect::<Result<_, _>>()?;
        let moduli: Vec<Modulus> = tables.iter().map(|t| *t.modulus()).collect();
        let (q, p) = moduli.split_at(literal.q.len());
        let digits = q
            .chunks(literal.digit_size)
            .map(|digit| {
                (1..=digit.len()).map(|count| BaseConverter::new(&digit[..count], &moduli)).collect()
            })
            .collect();
        let p_residue: Vec<u64> =
            q.iter().map(|m| p.iter().fold(1, |product, p| m.mul(product, m.reduce(p.value())))).collect();
        let fused = |l: usize| Division::new(&[p, &q[l..=l]].concat(), &q[..l]);
        Ok(Self {
            inner: Arc::new(Inner {
                fingerprint: fingerprint(&literal, security),
                security,
                embedding: Embedding::new(literal.ring, literal.log_n)?,
                reconstructor: Reconstructor::new(q),
                digits,
                mod_down: (0..q.len()).map(|l| Division::new(p, &q[..=l])).collect(),
                rescale: (1..q.len()).map(|l| Division::new(&q[l..=l], &q[..l])).collect(),
                mod_down_rescale: (1..q.len()).map(fused).collect(),
                p_residue,
                literal,
                tables,
                moduli,
            }),
        })
    }
}

impl PartialEq for Parameters {
    fn eq(&self, other: &Self) -> bool {
        self.inner.fingerprint == other.inner.fingerprint
    }
}

impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parameters({self})")
    }
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (levels, log_qp) = (self.max_level(), self.log_qp());
        write!(f, "{:?} N = 2^{}, {levels} levels, ", self.ring(), self.log_n())?;
        write!(f, "log2(QP) = {log_qp:.1}, {}", self.security())
    }
}

/// First eight bytes in hexadecimal.
pub(crate) fn short_hex(bytes: &[u8]) -> String {
    bytes.iter().take(8).map(|b| format!("{b:02x}")).collect()
}

fn fingerprint(literal: &ParametersLiteral, security: Security) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("polyveil ckks parameters v1");
    let ring = match literal.ring {
        RingKind::ConjugateInvariant => 0u64,
        RingKind::Standard => 1,
    };
    let head = [ring, u64::from(literal.log_n), literal.digit_size as u64, u64::from(security.bits())];
    let counts = [literal.q.len() as u64, literal.p.len() as u64];
    for word in head.iter().chain(&counts).chain(&literal.q).chain(&literal.p) {
        hasher.update(&word.to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(log_n: u32, q: &[u32], p: &[u32], digit_size: usize) -> ParametersLiteral {
        ParametersLiteral::generate(RingKind::ConjugateInvariant, log_n, q, p, digit_size).unwrap()
    }

    #[test]
    fn the_table_decides() {
        let good = Parameters::new(literal(13, &[50, 40, 40], &[50], 1)).unwrap();
        assert_eq!((good.security(), good.max_level(), good.slots()), (Security::Bits128, 2, 8192));
        let error = Parameters::new(literal(12, &[50, 40, 40], &[50], 1)).unwrap_err();
        assert!(matches!(error, ParameterError::Insecure { limit: Some(106), .. }));
        assert!(error.to_string().contains("limit is 106"), "{error}");
        let small = literal(10, &[30], &[30], 1);
        assert!(matches!(Parameters::new(small.clone()), Err(ParameterError::Insecure { limit: None, .. })));
        let insecure = Parameters::new_insecure(small).unwrap();
        assert_eq!(insecure.security(), Security::Insecure);
        assert!(insecure.to_string().contains("INSECURE"));
    }

    #[test]
    fn malformed_literals_are_named() {
        let good = literal(12, &[40, 30], &[40], 1);
        let with = |change: &dyn Fn(&mut ParametersLiteral)| {
            let mut changed = good.clone();
            change(&mut changed);
            Parameters::new_insecure(changed).unwrap_err()
        };
        assert!(matches!(with(&|l| l.log_n = 18), ParameterError::Degree { found: 18, .. }));
        assert!(matches!(with(&|l| l.log_n = u32::MAX), ParameterError::Degree { .. }));
        assert!(matches!(with(&|l| l.q.clear()), ParameterError::PrimeCount { what: "ciphertext", .. }));
        assert!(matches!(with(&|l| l.q = vec![97; 1000]), ParameterError::PrimeCount { found: 1000, .. }));
        assert!(matches!(with(&|l| l.p.clear()), ParameterError::PrimeCount { what: "special", .. }));
        assert!(matches!(with(&|l| l.q[1] = l.q[0]), ParameterError::Repeated { .. }));
        assert!(matches!(with(&|l| l.q[1] += 1), ParameterError::Math(_)));
        assert!(matches!(with(&|l| l.q[1] = 97), ParameterError::Math(_)));
        assert!(matches!(with(&|l| l.digit_size = 0), ParameterError::DigitSize { found: 0, max: 2 }));
        assert!(matches!(with(&|l| l.digit_size = 3), ParameterError::DigitSize { .. }));
        assert!(matches!(with(&|l| l.digit_size = 2), ParameterError::SpecialTooSmall { .. }));
    }

    #[test]
    fn fingerprints_tell_sets_apart() {
        let a = Parameters::new(literal(13, &[50, 40, 40], &[50], 1)).unwrap();
        let b = Parameters::new(literal(13, &[50, 40], &[50], 1)).unwrap();
        assert_eq!(a, Parameters::new(a.literal().clone()).unwrap());
        assert_ne!(a, b);
        assert!(a.check_fingerprint(&b.fingerprint()).is_err());
    }

    #[test]
    fn key_sizes_follow_the_level() {
        let params = Parameters::new(literal(14, &[50, 40, 40, 40], &[45, 45], 2)).unwrap();
        assert_eq!(params.digits(3), 2);
        assert_eq!(params.digits(1), 1);
        // Of the three primes near 2^40 two lie above it, of those near 2^45 both.
        assert_eq!(params.switching_key_bytes(3), 2 * 2 * (50 + 40 + 2 * 41 + 2 * 46) * 16384 / 8);
        assert!(params.switching_key_bytes(1) < params.switching_key_bytes(3) / 2);
        assert_eq!(params.switching_key_stored_bytes(3), params.switching_key_bytes(3) / 2 + 32);
    }
}
