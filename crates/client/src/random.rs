//! Where seeds come from.

use crate::error::ClientError;
use polyveil_math::SeedStream;
use zeroize::{Zeroize, Zeroizing};

/// A source of 32-byte seeds.
pub struct Randomness {
    source: Source,
}

enum Source {
    System,
    Test { seed: [u8; 32], next: u64 },
}

impl Randomness {
    /// The operating system.
    #[must_use]
    pub const fn system() -> Self {
        Self { source: Source::System }
    }

    /// A fixed sequence, **for tests only**: whoever knows the seed knows everything made with it.
    #[must_use]
    pub const fn from_seed_for_tests(seed: [u8; 32]) -> Self {
        Self { source: Source::Test { seed, next: 0 } }
    }

    /// The next seed.
    pub(crate) fn seed(&mut self) -> Result<Zeroizing<[u8; 32]>, ClientError> {
        let mut out = Zeroizing::new([0; 32]);
        self.fill(&mut *out)?;
        Ok(out)
    }

    pub(crate) fn fill(&mut self, out: &mut [u8]) -> Result<(), ClientError> {
        match &mut self.source {
            Source::System => getrandom::fill(out).map_err(|e| ClientError::Randomness(e.to_string())),
            Source::Test { seed, next } => {
                SeedStream::new(seed, *next).bytes(out);
                *next += 1;
                Ok(())
            }
        }
    }
}

impl Drop for Randomness {
    fn drop(&mut self) {
        if let Source::Test { seed, .. } = &mut self.source {
            seed.zeroize();
        }
    }
}
