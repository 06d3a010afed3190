//! The two rings, the order of their slots, and their Galois permutations.
//!
//! * **Conjugate-invariant** (Kim, Song, ICISC 2018): elements a_0 + Σ_{i=1}^{N−1} a_i (X^i + X^−i) of
//!   Z\[X + 1/X\] / Φ_4N. N real slots; slot j is the value at ψ^(5^j), ψ a primitive 4N-th root of unity.
//! * **Standard**: Z\[X\] / (X^N + 1). N/2 complex slots; slot j is the value at ζ^(5^j), ζ = ψ².
//!
//! The transforms leave the value at ψ^(1 + 4·brv(p)) (conjugate-invariant) or ζ^(1 + 2·brv(p)) (standard) at index p,
//! brv being bit reversal. X → X^(5^r) rotates the slots to the left by r and permutes the indices.

use crate::bits;

/// Which ring polynomials live in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RingKind {
    /// N real slots.
    ConjugateInvariant,
    /// N/2 complex slots.
    Standard,
}

impl RingKind {
    /// Number of slots at degree `n`.
    #[must_use]
    pub const fn slots(self, n: usize) -> usize {
        match self {
            Self::ConjugateInvariant => n,
            Self::Standard => n / 2,
        }
    }

    /// Degree that has `slots` slots.
    #[must_use]
    pub const fn degree_for_slots(self, slots: usize) -> usize {
        match self {
            Self::ConjugateInvariant => slots,
            Self::Standard => 2 * slots,
        }
    }

    /// Order of the root of unity whose powers index the transform: 4N or 2N.
    #[must_use]
    pub const fn root_order(self, n: usize) -> usize {
        n * self.stride()
    }

    /// Transform index of each slot at degree 2^`log_n`.
    #[must_use]
    pub fn slot_indices(self, log_n: u32) -> Vec<u32> {
        let n = 1usize << log_n;
        let (stride, mask) = (self.stride(), self.root_order(n) - 1);
        let mut exponent = 1usize;
        (0..self.slots(n))
            .map(|_| {
                let index = bits::reverse((exponent - 1) / stride, log_n) as u32;
                exponent = (exponent * 5) & mask;
                index
            })
            .collect()
    }

    /// Distance between the exponents of neighbouring roots.
    const fn stride(self) -> usize {
        match self {
            Self::ConjugateInvariant => 4,
            Self::Standard => 2,
        }
    }
}

/// An automorphism as permutation of transform indices: `out[p] = in[source[p]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GaloisPermutation {
    source: Vec<u32>,
}

impl GaloisPermutation {
    /// X → X^(5^r): slot j of the result is slot j + r of the input (indices modulo the number of slots).
    #[must_use]
    pub fn rotation(kind: RingKind, log_n: u32, r: usize) -> Self {
        let n = 1usize << log_n;
        let mask = kind.root_order(n) - 1;
        let mut factor = 1usize;
        let (mut square, mut exponent) = (5 & mask, r % kind.slots(n).max(1));
        while exponent > 0 {
            if exponent & 1 == 1 {
                factor = (factor * square) & mask;
            }
            square = (square * square) & mask;
            exponent >>= 1;
        }
        Self::power(kind, log_n, factor)
    }

    /// X → 1/X, complex conjugation of the slots; the identity in the conjugate-invariant ring.
    #[must_use]
    pub fn conjugation(kind: RingKind, log_n: u32) -> Self {
        match kind {
            RingKind::ConjugateInvariant => Self::power(kind, log_n, 1),
            RingKind::Standard => Self::power(kind, log_n, kind.root_order(1 << log_n) - 1),
        }
    }

    /// Applies the automorphism to one limb in transform order.
    pub fn apply(&self, input: &[u64], output: &mut [u64]) {
        for (out, &source) in output.iter_mut().zip(&self.source) {
            *out = input[source as usize];
        }
    }

    /// Source index of every output index.
    #[must_use]
    pub fn source(&self) -> &[u32] {
        &self.source
    }

    fn power(kind: RingKind, log_n: u32, factor: usize) -> Self {
        let n = 1usize << log_n;
        let (stride, mask) = (kind.stride(), kind.root_order(n) - 1);
        let source = (0..n)
            .map(|p| {
                let exponent = ((1 + stride * bits::reverse(p, log_n)) * factor) & mask;
                bits::reverse((exponent - 1) / stride, log_n) as u32
            })
            .collect();
        Self { source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_cover_their_indices_once() {
        for kind in [RingKind::ConjugateInvariant, RingKind::Standard] {
            for log_n in 1..10 {
                let mut indices = kind.slot_indices(log_n);
                indices.sort_unstable();
                indices.dedup();
                assert_eq!(indices.len(), kind.slots(1 << log_n));
            }
        }
    }

    #[test]
    fn rotation_moves_slots_to_the_left() {
        for kind in [RingKind::ConjugateInvariant, RingKind::Standard] {
            let log_n = 6;
            let slots = kind.slots(1 << log_n);
            let indices = kind.slot_indices(log_n);
            let mut input = vec![u64::MAX; 1 << log_n];
            for (j, &p) in indices.iter().enumerate() {
                input[p as usize] = j as u64;
            }
            for r in [0, 1, 5, slots - 1, slots + 3] {
                let mut output = vec![0; 1 << log_n];
                GaloisPermutation::rotation(kind, log_n, r).apply(&input, &mut output);
                for (j, &p) in indices.iter().enumerate() {
                    assert_eq!(output[p as usize], ((j + r) % slots) as u64);
                }
            }
        }
    }
}
