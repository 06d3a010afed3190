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
    p_residue: Vec<u64>,
    levels: Vec<Level>,
}

/// What belongs to one level.
struct Level {
    /// Its primes, as indices into `q`.
    primes: Vec<usize>,
    moduli: Vec<Modulus>,
    log_q: f64,
    /// What a rescale divides the scale by.
    step: f64,
    /// The primes of its keys, and those together with the special ones.
    key_primes: Vec<usize>,
    key_moduli: Vec<Modulus>,
    reconstructor: Reconstructor,
    digits: Vec<Digit>,
    key_digits: usize,
    /// By P.
    mod_down: Division,
    /// To the level below, without and together with the division by P; none at level 0.
    steps: Option<[Division; 2]>,
}

/// One digit at one level.
pub(crate) struct Digit {
    /// Its limbs among those of the level.
    pub own: Range<usize>,
    /// From these to all primes.
    pub converter: BaseConverter,
}

/// Constants of the division of a polynomial by some of its primes, which may also multiply it with further primes on the way.
pub(crate) struct Division {
    /// Extended limbs that are divided by.
    pub divisors: Vec<usize>,
    /// From the divisors to the primes of the result.
    pub converter: BaseConverter,
    /// Of each prime of the result.
    pub targets: Vec<Target>,
}

/// A prime of a division's result.
pub(crate) struct Target {
    /// Its position among all primes.
    pub prime: usize,
    /// The limb that it comes from; none for a prime that the polynomial is multiplied with, where it is 0.
    pub limb: Option<usize>,
    /// The factor of what remains, modulo the prime.
    pub factor: Shoup,
}

impl Division {
    /// From limbs modulo `from`, of which those not in `to` are divided by, to limbs modulo `to`; both are positions among all
    /// primes. A prime of `to` alone is multiplied with: with F the product of these and D that of the divisors, c becomes
    /// (c·F − [c·F]_D) / D = (c − [c·F]_D / F) · F / D.
    pub fn new(from: &[usize], to: &[usize], moduli: &[Modulus]) -> Self {
        let divisors: Vec<usize> = (0..from.len()).filter(|&i| !to.contains(&from[i])).collect();
        let by: Vec<Modulus> = divisors.iter().map(|&i| moduli[from[i]]).collect();
        let new: Vec<Modulus> = to.iter().filter(|i| !from.contains(i)).map(|&i| moduli[i]).collect();
        let product =
            |of: &[Modulus], m: &Modulus| of.iter().fold(1, |product, d| m.mul(product, m.reduce(d.value())));
        let scales = by.iter().map(|m| product(&new, m)).collect::<Vec<_>>();
        let (mut descales, mut targets) = (Vec::new(), Vec::new());
        for &prime in to {
            let m = &moduli[prime];
            let inverse = m.inv(product(&by, m));
            let limb = from.iter().position(|&i| i == prime);
            // Nothing is left of c·F modulo a factor of F.
            let scale = if limb.is_some() { product(&new, m) } else { 1 };
            descales.push(m.inv(scale));
            targets.push(Target { prime, limb, factor: m.shoup(m.mul(scale, inverse)) });
        }
        let to: Vec<Modulus> = to.iter().map(|&i| moduli[i]).collect();
        Self { converter: BaseConverter::scaled(&by, &scales, &to, &descales), divisors, targets }
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

    /// The highest level.
    #[must_use]
    pub fn max_level(&self) -> usize {
        self.inner.levels.len() - 1
    }

    /// The ciphertext primes.
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
        self.level(level).log_q
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

    /// The most limbs that a digit has at a level.
    #[must_use]
    pub fn digit_size(&self, level: usize) -> usize {
        self.level(level).digits.iter().map(|digit| digit.own.len()).max().unwrap_or(0)
    }

    /// How many limbs a ciphertext of a level has (of the highest one, if it does not exist).
    #[must_use]
    pub fn limbs(&self, level: usize) -> usize {
        self.level(level).primes.len()
    }

    /// The primes of a level, as indices into [`Parameters::q`].
    #[must_use]
    pub fn primes(&self, level: usize) -> &[usize] {
        &self.level(level).primes
    }

    /// The ciphertext primes of a switching key of a level, as indices into [`Parameters::q`]; its special primes follow them.
    #[must_use]
    pub fn key_primes(&self, level: usize) -> &[usize] {
        &self.level(level).key_primes
    }

    /// What a rescale from a level divides the scale by, 1 at level 0.
    #[must_use]
    pub fn step(&self, level: usize) -> f64 {
        self.inner.levels.get(level).map_or(1.0, |level| level.step)
    }

    /// Number of key-switching digits at a level.
    #[must_use]
    pub fn digits(&self, level: usize) -> usize {
        self.level(level).digits.len()
    }

    /// Number of digits of a switching key of a level.
    #[must_use]
    pub fn key_digits(&self, level: usize) -> usize {
        self.level(level).key_digits
    }

    /// The limbs of one digit at a level.
    #[must_use]
    pub fn digit_range(&self, digit: usize, level: usize) -> Range<usize> {
        self.level(level).digits[digit].own.clone()
    }

    /// Bytes of one expanded switching key in memory: digits × 2 × N × the bits of the primes of all limbs / 8.
    #[must_use]
    pub fn switching_key_bytes(&self, level: usize) -> u64 {
        self.key_digits(level) as u64 * 2 * self.key_bits(level) * self.degree() as u64 / 8
    }

    /// Bits of a residue of each limb of a switching key.
    fn key_bits(&self, level: usize) -> u64 {
        self.key_moduli(level).iter().map(|m| u64::from(m.bits())).sum()
    }

    /// Bytes of one switching key in a file: the uniform half is its 32-byte seed, residues have the bits of their prime.
    #[must_use]
    pub fn switching_key_stored_bytes(&self, level: usize) -> u64 {
        self.key_digits(level) as u64 * self.key_bits(level) * self.degree() as u64 / 8 + 32
    }

    /// Bytes of one ciphertext of two parts in memory.
    #[must_use]
    pub fn ciphertext_bytes(&self, level: usize) -> u64 {
        (2 * self.limbs(level) * self.degree() * 8) as u64
    }

    /// Bytes of one ciphertext in a file, `seeded` if it comes fresh from the secret key.
    #[must_use]
    pub fn ciphertext_stored_bytes(&self, level: usize, seeded: bool) -> u64 {
        let part = self.limb_bits(level) * self.degree() as u64 / 8;
        if seeded { part + 32 } else { 2 * part }
    }

    /// Transform tables of all primes: the ciphertext primes, then the special ones.
    #[must_use]
    pub fn tables(&self) -> &[NttTable] {
        &self.inner.tables
    }

    /// Transform table of extended limb `index` at a level: ciphertext limbs first, then special ones.
    #[must_use]
    pub fn table(&self, index: usize, level: usize) -> &NttTable {
        &self.inner.tables[self.extended_index(index, level)]
    }

    /// Position of extended limb `index` of a level among all primes, as [`Parameters::tables`] has them.
    #[must_use]
    pub fn extended_index(&self, index: usize, level: usize) -> usize {
        extended(self.primes(level), index, self.q().len())
    }

    /// Position of limb `index` of a switching key of a level among all primes.
    #[must_use]
    pub fn key_index(&self, index: usize, level: usize) -> usize {
        extended(self.key_primes(level), index, self.q().len())
    }

    /// Moduli of the limbs of a level.
    #[must_use]
    pub fn moduli(&self, level: usize) -> &[Modulus] {
        &self.level(level).moduli
    }

    /// Moduli of the limbs of a switching key of a level, special ones last.
    #[must_use]
    pub fn key_moduli(&self, level: usize) -> &[Modulus] {
        &self.level(level).key_moduli
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

    /// Residues of a level → integers.
    #[must_use]
    pub fn reconstructor(&self, level: usize) -> &Reconstructor {
        &self.level(level).reconstructor
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

    fn level(&self, level: usize) -> &Level {
        &self.inner.levels[level.min(self.max_level())]
    }

    /// The limb of a switching key of level `key` that belongs to extended limb `index` of a level up to that.
    pub(crate) fn key_limb(&self, index: usize, level: usize, key: usize) -> usize {
        let (primes, key_primes) = (self.primes(level), self.key_primes(key));
        match primes.get(index) {
            Some(prime) => key_primes.binary_search(prime).unwrap_or(0),
            None => index - primes.len() + key_primes.len(),
        }
    }

    /// The digits of a level.
    pub(crate) fn level_digits(&self, level: usize) -> &[Digit] {
        &self.level(level).digits
    }

    /// By the special primes.
    pub(crate) fn mod_down(&self, level: usize) -> &Division {
        &self.level(level).mod_down
    }

    /// To the level below, together with the division by the special primes if `special`; none at level 0.
    pub(crate) fn rescale(&self, level: usize, special: bool) -> Option<&Division> {
        self.level(level).steps.as_ref().map(|steps| &steps[usize::from(special)])
    }

    /// From one level to a lower one.
    pub(crate) fn descent(&self, from: usize, to: usize) -> Division {
        Division::new(self.primes(from), self.primes(to), &self.inner.moduli)
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
        let p_residue: Vec<u64> =
            q.iter().map(|m| p.iter().fold(1, |product, p| m.mul(product, m.reduce(p.value())))).collect();
        let levels = (0..=literal.max_level()).map(|level| Level::new(&literal, level, &moduli)).collect();
        Ok(Self {
            inner: Arc::new(Inner {
                fingerprint: fingerprint(&literal, security),
                security,
                embedding: Embedding::new(literal.ring, literal.log_n)?,
                levels,
                p_residue,
                literal,
                tables,
                moduli,
            }),
        })
    }
}

impl Level {
    fn new(literal: &ParametersLiteral, level: usize, moduli: &[Modulus]) -> Self {
        let (primes, key_primes) = (literal.primes(level), literal.key_primes(level));
        let special: Vec<usize> = (literal.q.len()..moduli.len()).collect();
        let with_special = |primes: &[usize]| [primes, &special].concat();
        let of = |primes: &[usize]| primes.iter().map(|&i| moduli[i]).collect::<Vec<_>>();
        let mut start = 0;
        let digits = primes.chunk_by(|&a, &b| literal.digit_of(a) == literal.digit_of(b)).map(|digit| {
            let own = start..start + digit.len();
            start = own.end;
            Digit { own, converter: BaseConverter::new(&of(digit), moduli) }
        });
        let step = |from: &[usize]| Division::new(from, &literal.primes(level - 1), moduli);
        Self {
            digits: digits.collect(),
            key_digits: literal.key_digits(level),
            moduli: of(&primes),
            log_q: literal.log_q(level),
            step: literal.step(level),
            key_moduli: of(&with_special(&key_primes)),
            reconstructor: Reconstructor::new(&of(&primes)),
            mod_down: Division::new(&with_special(&primes), &primes, moduli),
            steps: (level > 0).then(|| [step(&primes), step(&with_special(&primes))]),
            primes,
            key_primes,
        }
    }
}

/// Position among all primes of limb `index`, where the special ones follow `primes`.
fn extended(primes: &[usize], index: usize, q: usize) -> usize {
    primes.get(index).copied().unwrap_or_else(|| index - primes.len() + q)
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
    // A nested chain is named by its primes alone.
    for list in literal.shared.iter().flat_map(|shared| shared.levels.iter().chain([&shared.digits])) {
        hasher.update(&[list.len() as u8]);
        hasher.update(list);
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::literal::SharedChain;
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
    fn malformed_levels_are_named() {
        let mut good = literal(12, &[40, 30, 35], &[50], 1);
        let levels = vec![vec![0], vec![0, 1], vec![0, 1, 2]];
        good.shared = Some(SharedChain { levels, digits: vec![0, 1, 2] });
        let with = |change: &dyn Fn(&mut SharedChain)| {
            let mut changed = good.clone();
            changed.shared.as_mut().map(change);
            Parameters::new_insecure(changed).map(|params| params.max_level())
        };
        let level = |change: &dyn Fn(&mut Vec<Vec<u8>>)| match with(&|chain| change(&mut chain.levels)) {
            Err(ParameterError::Level { level, reason }) => (level, reason.split(' ').next().unwrap()),
            other => panic!("{other:?}"),
        };
        assert_eq!(with(&|_| ()), Ok(2));
        assert_eq!(with(&|chain| chain.levels.clear()), Err(ParameterError::Levels { found: 0, max: 80 }));
        assert_eq!(
            with(&|chain| chain.levels.resize(100, vec![0])),
            Err(ParameterError::Levels { found: 100, max: 80 })
        );
        for digits in [vec![], vec![1, 2], vec![0, 2, 2]] {
            assert_eq!(with(&|chain| chain.digits.clone_from(&digits)), Err(ParameterError::Digits));
        }
        assert_eq!(level(&|levels| levels[1].clear()), (1, "has"));
        assert_eq!(level(&|levels| levels[2][2] = 3), (2, "names"));
        assert_eq!(level(&|levels| levels[2].reverse()), (2, "does"));
        // No prime of the second digit below one of the third, or none of the first.
        assert_eq!(level(&|levels| levels[2] = vec![0, 2]), (2, "has"));
        assert_eq!(level(&|levels| levels[0] = vec![1]), (0, "has"));
        // Smaller than the level below, as large, and larger by five bits.
        assert_eq!(level(&|levels| levels.swap(1, 2)), (2, "is"));
        assert_eq!(level(&|levels| levels[2] = vec![0, 1]), (2, "is"));
        let five = with(&|chain| {
            chain.levels = vec![vec![0, 1], vec![0, 2]];
            chain.digits = vec![0];
        });
        assert!(matches!(five, Err(ParameterError::Level { level: 1, .. })), "{five:?}");
        // Digits are as large as any level has them.
        let large = with(&|chain| chain.digits = vec![0]);
        assert!(matches!(large, Err(ParameterError::SpecialTooSmall { .. })), "{large:?}");
        let other = with(&|chain| chain.levels = vec![vec![0], vec![0, 1]]);
        assert_eq!(other, Ok(1));
    }

    #[test]
    fn steps_beyond_numbers_are_refused() {
        let mut chain = literal(4, &[50; 60], &[50; 20], 20);
        let all: Vec<u8> = (0..60).collect();
        let digits = (0..60).step_by(20).collect();
        // From one prime to sixty, and from one half of them to the other: neither ratio is a number.
        for levels in [vec![vec![0], all.clone()], vec![all[..30].to_vec(), all[..].to_vec()]] {
            chain.shared = Some(SharedChain { levels, digits: Vec::clone(&digits) });
            let refused = Parameters::new_insecure(chain.clone()).err();
            assert!(matches!(refused, Some(ParameterError::Level { level: 1, .. })), "{refused:?}");
        }
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
