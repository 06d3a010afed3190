//! Residues packed to as many bits as their modulus needs.
//!
//! A residue modulo `q` takes `⌈log2 q⌉` bits, least significant first, without gaps; the last byte
//! is padded with zero bits. A 42-bit prime thus costs 5.25 bytes a coefficient, not 8.

/// Bits that a residue modulo `modulus` takes (1 to 64).
#[must_use]
pub fn width(modulus: u64) -> u32 {
    (64 - modulus.saturating_sub(1).leading_zeros()).max(1)
}

/// Bytes that `count` residues modulo `modulus` take.
#[must_use]
pub fn packed_bytes(count: usize, modulus: u64) -> u64 {
    (count as u64 * u64::from(width(modulus))).div_ceil(8)
}

/// Appends `values` (each below `2^width(modulus)`) to `out`.
pub fn pack(values: &[u64], modulus: u64, out: &mut Vec<u8>) {
    let bits = width(modulus);
    out.reserve(packed_bytes(values.len(), modulus) as usize);
    let (mut pending, mut held) = (0u128, 0u32);
    for &value in values {
        debug_assert!(value < modulus);
        pending |= u128::from(value) << held;
        held += bits;
        while held >= 32 {
            out.extend_from_slice(&(pending as u32).to_le_bytes());
            pending >>= 32;
            held -= 32;
        }
    }
    while held > 0 {
        out.push(pending as u8);
        pending >>= 8;
        held = held.saturating_sub(8);
    }
}

/// Why packed residues were refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UnpackError {
    /// Not the number of bytes that the residues take.
    #[error("expected {expected} bytes of residues, found {found}")]
    Length {
        /// Bytes needed.
        expected: u64,
        /// Bytes given.
        found: u64,
    },
    /// A residue is not reduced.
    #[error("residue {index} is {value}, not below its modulus {modulus}")]
    NotReduced {
        /// Position of the residue.
        index: usize,
        /// Its value.
        value: u64,
        /// The modulus.
        modulus: u64,
    },
    /// The bits after the last residue are not zero.
    #[error("the padding bits after the last residue are not zero")]
    Padding,
}

/// Reads `count` residues below `modulus` from exactly the bytes they take, appending to `out`.
///
/// # Errors
/// When the length is wrong, a residue is not below `modulus`, or the padding is not zero; `out` is
/// then of no use.
pub fn unpack(bytes: &[u8], count: usize, modulus: u64, out: &mut Vec<u64>) -> Result<(), UnpackError> {
    let bits = width(modulus);
    let expected = packed_bytes(count, modulus);
    if bytes.len() as u64 != expected {
        return Err(UnpackError::Length { expected, found: bytes.len() as u64 });
    }
    let mask = if bits == 64 { u64::MAX } else { (1u64 << bits) - 1 };
    out.reserve(count);
    let (mut pending, mut held) = (0u128, 0u32);
    let mut chunks = bytes.chunks(4);
    for index in 0..count {
        while held < bits {
            let Some(chunk) = chunks.next() else { break };
            let mut word = [0u8; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            pending |= u128::from(u32::from_le_bytes(word)) << held;
            held += 8 * chunk.len() as u32;
        }
        let value = pending as u64 & mask;
        if value >= modulus {
            return Err(UnpackError::NotReduced { index, value, modulus });
        }
        out.push(value);
        pending >>= bits;
        held -= bits;
    }
    if pending != 0 {
        return Err(UnpackError::Padding);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn widths() {
        assert_eq!(width(2), 1);
        assert_eq!(width(3), 2);
        assert_eq!(width(1 << 42), 42);
        assert_eq!(width((1 << 42) + 1), 43);
        assert_eq!(width(u64::MAX), 64);
        assert_eq!(packed_bytes(8, (1 << 42) - 11), 42);
    }

    #[test]
    fn known_bytes() {
        let mut out = Vec::new();
        pack(&[1, 2, 3, 4], 5, &mut out);
        // 3 bits each, least significant first: 100 011 010 001.
        assert_eq!(out, [0b1101_0001, 0b0000_1000]);
    }

    #[test]
    fn refuses_unreduced_padding_and_length() {
        let mut out = Vec::new();
        assert_eq!(
            unpack(&[0b0000_0111], 1, 5, &mut out),
            Err(UnpackError::NotReduced { index: 0, value: 7, modulus: 5 })
        );
        assert_eq!(unpack(&[0b1000_0001], 1, 5, &mut out), Err(UnpackError::Padding));
        assert_eq!(unpack(&[0, 0], 1, 5, &mut out), Err(UnpackError::Length { expected: 1, found: 2 }));
    }

    proptest! {
        #[test]
        fn round_trip(modulus in 2u64..u64::MAX, raw in prop::collection::vec(any::<u64>(), 0..70)) {
            let values: Vec<u64> = raw.iter().map(|v| v % modulus).collect();
            let mut packed = Vec::new();
            pack(&values, modulus, &mut packed);
            prop_assert_eq!(packed.len() as u64, packed_bytes(values.len(), modulus));
            let mut back = Vec::new();
            prop_assert!(unpack(&packed, values.len(), modulus, &mut back).is_ok());
            prop_assert_eq!(back, values);
        }
    }
}
