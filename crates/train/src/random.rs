//! Randomness as a function of (seed, purpose, position): nothing to save in a checkpoint, and
//! independent of the number of threads.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// The generator for one purpose at one position of a run.
pub(crate) fn generator(seed: u64, purpose: &str, major: u64, minor: u64) -> ChaCha8Rng {
    let mut hash = blake3::Hasher::new_derive_key("polyveil 2026 training randomness");
    for word in [seed, major, minor] {
        hash.update(&word.to_le_bytes());
    }
    hash.update(purpose.as_bytes());
    ChaCha8Rng::from_seed(*hash.finalize().as_bytes())
}

/// Uniform in `[low, high)`.
pub(crate) fn uniform(rng: &mut impl Rng, low: f32, high: f32) -> f32 {
    // 24 bits fill an f32 mantissa exactly.
    let unit = (rng.next_u32() >> 8) as f32 / (1u32 << 24) as f32;
    low + (high - low) * unit
}

/// Uniform in `0..n`, without bias that matters (`n` far below 2⁶⁴). `n` must not be 0.
pub(crate) fn below(rng: &mut impl Rng, n: usize) -> usize {
    ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize
}

/// A unit normal (Box–Muller).
pub(crate) fn normal(rng: &mut impl Rng) -> f32 {
    let radius = (-2.0 * uniform(rng, f32::MIN_POSITIVE, 1.0).max(f32::MIN_POSITIVE).ln()).sqrt();
    radius * (std::f32::consts::TAU * uniform(rng, 0.0, 1.0)).cos()
}

/// Fisher–Yates.
pub(crate) fn shuffle<T>(rng: &mut impl Rng, items: &mut [T]) {
    for i in (1..items.len()).rev() {
        items.swap(i, below(rng, i + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generators_differ_by_every_argument_and_repeat() {
        let first = |seed, purpose, major, minor| generator(seed, purpose, major, minor).next_u64();
        let reference = first(1, "a", 2, 3);
        assert_eq!(reference, first(1, "a", 2, 3));
        for other in [first(2, "a", 2, 3), first(1, "b", 2, 3), first(1, "a", 3, 3), first(1, "a", 2, 4)] {
            assert_ne!(reference, other);
        }
    }

    #[test]
    fn normal_has_unit_variance() {
        let mut rng = generator(5, "normal", 0, 0);
        let draws: Vec<f32> = (0..20_000).map(|_| normal(&mut rng)).collect();
        let mean = draws.iter().sum::<f32>() / draws.len() as f32;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / draws.len() as f32;
        assert!(mean.abs() < 0.03, "{mean}");
        assert!((variance - 1.0).abs() < 0.05, "{variance}");
    }

    #[test]
    fn shuffle_is_a_permutation() {
        let mut items: Vec<usize> = (0..100).collect();
        shuffle(&mut generator(1, "order", 0, 0), &mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
