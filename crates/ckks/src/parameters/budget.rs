//! What each object takes, in bytes, from its formula. N is the degree, l the number of limbs of the level, k that of special primes, d the
//! number of digits; residues are words of 8 bytes in memory; in keys and in files a residue has the bits of its prime.

use super::checked::Parameters;

/// Bytes of the objects of one level. Fixed parts of a few hundred bytes (headers, names, checksums) are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Ciphertext of two parts in memory: 2 · l · N · 8.
    pub ciphertext: u64,
    /// The same in a file: 2 · log2(Q) · N / 8.
    pub ciphertext_stored: u64,
    /// A fresh one in a file: log2(Q) · N / 8, and the seed of the other half.
    pub seeded_stored: u64,
    /// Plaintext with a residue a coefficient: l · N · 8.
    pub plaintext: u64,
    /// Relinearisation or rotation key in memory, its uniform halves expanded: d · 2 · N / 8 · the bits of the primes that the
    /// level or a lower one has, and of the k special ones.
    pub key: u64,
    /// The same in a file: half of that, and a seed.
    pub key_stored: u64,
    /// Tables of all transforms: four words a coefficient and prime, whatever the level.
    pub tables: u64,
    /// Secret key in memory: one byte a coefficient, and its transforms modulo all primes, whatever the level.
    pub secret_key: u64,
}

impl Budget {
    /// Of objects at a level (the highest one, if it does not exist).
    #[must_use]
    pub fn new(params: &Parameters, level: usize) -> Self {
        let level = level.min(params.max_level());
        let n = params.degree() as u64;
        let primes = (params.q().len() + params.p().len()) as u64;
        Self {
            ciphertext: params.ciphertext_bytes(level),
            ciphertext_stored: params.ciphertext_stored_bytes(level, false),
            seeded_stored: params.ciphertext_stored_bytes(level, true),
            plaintext: params.ciphertext_bytes(level) / 2,
            key: params.switching_key_bytes(level),
            key_stored: params.switching_key_stored_bytes(level),
            tables: 4 * 8 * n * primes,
            secret_key: n + 8 * n * primes,
        }
    }

    /// Names for people, with their bytes.
    #[must_use]
    pub const fn rows(&self) -> [(&'static str, u64); 8] {
        [
            ("ciphertext", self.ciphertext),
            ("ciphertext, in a file", self.ciphertext_stored),
            ("fresh ciphertext, in a file", self.seeded_stored),
            ("plaintext, one residue a coefficient", self.plaintext),
            ("rotation or relinearisation key", self.key),
            ("the same, in a file", self.key_stored),
            ("transform tables, once", self.tables),
            ("secret key", self.secret_key),
        ]
    }
}
