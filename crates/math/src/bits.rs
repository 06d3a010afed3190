//! Bit reversal, the order in which the transforms leave their output.

/// Reverses the lowest `bits` bits of `index`; the others must be zero.
#[inline]
#[must_use]
pub fn reverse(index: usize, bits: u32) -> usize {
    if bits == 0 { 0 } else { index.reverse_bits() >> (usize::BITS - bits) }
}

#[cfg(test)]
mod tests {
    use super::reverse;

    #[test]
    fn known_reversals() {
        assert_eq!(reverse(0, 0), 0);
        assert_eq!(reverse(1, 3), 4);
        assert_eq!(reverse(0b0011, 4), 0b1100);
        for i in 0..64 {
            assert_eq!(reverse(reverse(i, 6), 6), i);
        }
    }
}
