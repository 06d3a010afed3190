//! The two rings, the order of their slots, and their Galois permutations.
//!
//! * **Conjugate-invariant** (Kim, Song, ICISC 2018): elements a_0 + Σ_{i=1}^{N−1} a_i (X^i + X^−i) of
//!   Z\[X + 1/X\] / Φ_4N. N real slots; slot j is the value at ψ^(5^j), ψ a primitive 4N-th root of unity.
//! * **Standard**: Z\[X\] / (X^N + 1). N/2 complex slots; slot j is the value at ζ^(5^j), ζ = ψ².
//!
//! The transforms leave the value at ψ^(1 + 4·brv(p)) (conjugate-invariant) or ζ^(1 + 2·brv(p)) (standard) at index p,
//! brv being bit reversal. X → X^(5^r) rotates the slots to the left by r and permutes the indices.

use crate::bits;
use crate::simd;

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

    /// Exponent of ψ, a primitive 4N-th root of unity, in the factor of node `j` of the tree level with 2^`log_m` nodes of the
    /// transform of degree `n` (see [`crate::ntt`]).
    pub(crate) fn node_exponent(self, n: usize, log_m: u32, j: usize) -> usize {
        let stride = self.stride();
        n * 2 / stride / (1 << log_m) * (1 + stride * bits::reverse(j, log_m))
    }

    /// Distance between the exponents of neighbouring roots.
    const fn stride(self) -> usize {
        match self {
            Self::ConjugateInvariant => 4,
            Self::Standard => 2,
        }
    }
}

/// An automorphism as permutation of transform indices.
///
/// With x = brv(p), X → X^g sends the index p of the result to the index brv(g·x + h) of the input, h = (g − 1)/stride. The
/// lowest three bits of p are the highest of x, so eight neighbours of the result stem from eight neighbours of the input in
/// one of eight orders: one load and one shuffle in a vector unit, and N/8 entries instead of N. As the power is odd, even places
/// of the index go to even ones or all to odd ones, so either half of a block goes to one half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GaloisPermutation {
    /// Per block of the result: 8 · (block of the input) + order.
    blocks: Vec<u32>,
    /// The orders: index within the input's block.
    orders: [[u64; BLOCK]; BLOCK],
    /// Degrees below 8 have one source index a value instead.
    small: Vec<u32>,
}

/// Values that an automorphism keeps together.
pub const BLOCK: usize = 8;

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
        self.apply_part(input, output, 0);
    }

    /// The values of the result from index `start` on, as many as `output` holds; both multiples of [`BLOCK`], or all of
    /// a degree below it.
    pub fn apply_part(&self, input: &[u64], output: &mut [u64], start: usize) {
        if self.blocks.is_empty() {
            for (out, &source) in output.iter_mut().zip(&self.small) {
                *out = input[source as usize];
            }
        } else {
            simd::permute(output, input, &self.blocks[start / BLOCK..], &self.orders);
        }
    }

    /// Blocks and orders as [`simd::permute`] takes them; `None` below degree [`BLOCK`].
    #[must_use]
    pub fn table(&self) -> Option<(&[u32], &[[u64; BLOCK]; BLOCK])> {
        (!self.blocks.is_empty()).then_some((&self.blocks, &self.orders))
    }

    fn power(kind: RingKind, log_n: u32, factor: usize) -> Self {
        let n = 1usize << log_n;
        let shift = (factor - 1) / kind.stride();
        let mut orders = [[0; BLOCK]; BLOCK];
        if n < BLOCK {
            let source =
                |p| bits::reverse((bits::reverse(p, log_n) * factor + shift) & (n - 1), log_n) as u32;
            return Self { blocks: Vec::new(), orders, small: (0..n).map(source).collect() };
        }
        let log_blocks = log_n - BLOCK.ilog2();
        let blocks = n / BLOCK;
        for (carry, order) in orders.iter_mut().enumerate() {
            for (b, index) in order.iter_mut().enumerate() {
                *index = bits::reverse((bits::reverse(b, 3) * factor + carry) % BLOCK, 3) as u64;
            }
        }
        let entry = |a| {
            let z = (bits::reverse(a, log_blocks) * factor + shift) & (n - 1);
            (bits::reverse(z % blocks, log_blocks) * BLOCK + z / blocks) as u32
        };
        Self { blocks: (0..blocks).map(entry).collect(), orders, small: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [RingKind; 2] = [RingKind::ConjugateInvariant, RingKind::Standard];

    #[test]
    fn slots_cover_their_indices_once() {
        for kind in KINDS {
            for log_n in 1..10 {
                let mut indices = kind.slot_indices(log_n);
                indices.sort_unstable();
                indices.dedup();
                assert_eq!(indices.len(), kind.slots(1 << log_n));
            }
        }
    }

    #[test]
    fn halves_of_blocks_stem_from_halves() {
        for (kind, log_n) in KINDS.into_iter().flat_map(|kind| (3..10).map(move |log_n| (kind, log_n))) {
            for steps in 0..kind.slots(1 << log_n) {
                let permutation = GaloisPermutation::rotation(kind, log_n, steps);
                assert!(permutation.table().is_some_and(|(_, orders)| simd::keeps_halves(orders)));
            }
        }
    }

    #[test]
    fn rotation_moves_slots_to_the_left() {
        for (kind, log_n) in KINDS.into_iter().flat_map(|kind| (1..10).map(move |log_n| (kind, log_n))) {
            let slots = kind.slots(1 << log_n);
            let input = numbered(kind, log_n);
            let indices = kind.slot_indices(log_n);
            for r in (0..slots.min(9)).chain([slots - 1, slots + 3]) {
                let mut output = vec![0; 1 << log_n];
                GaloisPermutation::rotation(kind, log_n, r).apply(&input, &mut output);
                for (j, &p) in indices.iter().enumerate() {
                    assert_eq!(output[p as usize], ((j + r) % slots) as u64, "{kind:?} 2^{log_n} by {r}");
                }
            }
        }
    }

    #[test]
    fn parts_are_those_of_the_whole() {
        let permutation = GaloisPermutation::rotation(RingKind::ConjugateInvariant, 7, 5);
        let input = numbered(RingKind::ConjugateInvariant, 7);
        let (mut whole, mut part) = (vec![0; 128], vec![0; 48]);
        permutation.apply(&input, &mut whole);
        permutation.apply_part(&input, &mut part, 40);
        assert_eq!(part, whole[40..88]);
    }

    #[test]
    fn conjugation_is_an_involution_without_fixed_values() {
        let permutation = GaloisPermutation::conjugation(RingKind::Standard, 6);
        let input: Vec<u64> = (0..64).collect();
        let (mut once, mut twice) = (vec![0; 64], vec![0; 64]);
        permutation.apply(&input, &mut once);
        permutation.apply(&once, &mut twice);
        assert!(twice == input && once.iter().zip(&input).all(|(a, b)| a != b));
    }

    /// Slot numbers in transform order.
    fn numbered(kind: RingKind, log_n: u32) -> Vec<u64> {
        let mut input = vec![u64::MAX; 1 << log_n];
        for (j, &p) in kind.slot_indices(log_n).iter().enumerate() {
            input[p as usize] = j as u64;
        }
        input
    }
}
