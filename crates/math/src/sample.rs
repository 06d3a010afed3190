//! Seeded samplers on ChaCha20.
//!
//! A 32-byte seed and a 64-bit stream number name a stream; equal names give equal values on every machine, which is how
//! the uniform halves of keys and ciphertexts shrink to their seeds.

use crate::modulus::Modulus;
use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};

/// Bits of each of the two halves of the centred binomial distribution.
const BINOMIAL_BITS: u32 = 21;

/// Standard deviation of the error: the centred binomial distribution with 21 bits has variance 10.5.
pub const ERROR_STD: f64 = 3.240_370_349_203_93;

/// Largest absolute value of an error sample.
pub const ERROR_BOUND: i64 = BINOMIAL_BITS as i64;

/// A stream of samples. It holds its seed, which is zeroed when it is dropped.
pub struct SeedStream {
    rng: ChaCha20Rng,
}

impl SeedStream {
    /// The stream of that number under the seed.
    #[must_use]
    pub fn new(seed: &[u8; 32], stream: u64) -> Self {
        let mut rng = ChaCha20Rng::from_seed(*seed);
        rng.set_stream(stream);
        Self { rng }
    }

    /// Exactly uniform residues: 64-bit words at or above the largest multiple of q are skipped, then reduced. The time
    /// depends on the skipped words, so this is for public values.
    pub fn uniform(&mut self, modulus: &Modulus, out: &mut [u64]) {
        let q = modulus.value();
        let limit = u64::MAX - u64::MAX % q; // a multiple of q
        for x in out {
            *x = loop {
                let word = self.rng.next_u64();
                if word < limit {
                    break modulus.reduce(word);
                }
            };
        }
    }

    /// Uniform values in {−1, 0, 1} from one 64-bit word each, without branches; the bias is below 2^−62.
    pub fn ternary(&mut self, out: &mut [i8]) {
        for x in out {
            *x = ((u128::from(self.rng.next_u64()) * 3) >> 64) as i8 - 1;
        }
    }

    /// Centred binomial error values, standard deviation [`ERROR_STD`], without branches.
    pub fn error(&mut self, out: &mut [i8]) {
        const MASK: u64 = (1 << BINOMIAL_BITS) - 1;
        for x in out {
            let word = self.rng.next_u64();
            let (plus, minus) = ((word & MASK).count_ones(), ((word >> BINOMIAL_BITS) & MASK).count_ones());
            *x = plus as i8 - minus as i8;
        }
    }

    /// Raw bytes.
    pub fn bytes(&mut self, out: &mut [u8]) {
        self.rng.fill_bytes(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_reproducible_and_distinct() {
        let m = Modulus::new((1 << 50) - 27).unwrap();
        let draw = |seed: u8, stream: u64| {
            let mut out = [0; 8];
            SeedStream::new(&[seed; 32], stream).uniform(&m, &mut out);
            out
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
    }

    #[test]
    fn the_first_words_are_chacha20() {
        // RFC 8439 block function with zero key, nonce and counter.
        let mut bytes = [0; 8];
        SeedStream::new(&[0; 32], 0).bytes(&mut bytes);
        assert_eq!(bytes, [0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90]);
    }

    #[test]
    fn uniform_fills_the_range() {
        let m = Modulus::new(97).unwrap();
        let mut out = vec![0; 97_000];
        SeedStream::new(&[5; 32], 1).uniform(&m, &mut out);
        let mut counts = [0f64; 97];
        out.iter().for_each(|&x| counts[x as usize] += 1.0);
        let chi2: f64 = counts.iter().map(|c| (c - 1000.0).powi(2) / 1000.0).sum();
        assert!((50.0..160.0).contains(&chi2), "{chi2}");
    }

    #[test]
    fn ternary_and_error_have_their_moments() {
        let mut stream = SeedStream::new(&[9; 32], 4);
        let mut out = vec![0i8; 1 << 16];
        stream.ternary(&mut out);
        for value in -1..=1 {
            let share = out.iter().filter(|&&x| x == value).count() as f64 / out.len() as f64;
            assert!((share - 1.0 / 3.0).abs() < 0.01);
        }
        stream.error(&mut out);
        let mean = out.iter().map(|&x| f64::from(x)).sum::<f64>() / out.len() as f64;
        let variance = out.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / out.len() as f64;
        assert!(mean.abs() < 0.06 && (variance - ERROR_STD * ERROR_STD).abs() < 0.25, "{mean} {variance}");
        assert!(out.iter().all(|&x| i64::from(x).abs() <= ERROR_BOUND));
    }
}
