//! The one security table. Bossuat et al., "Security Guidelines for Implementing Homomorphic Encryption" (IACR
//! Communications in Cryptology 2024, eprint 2024/463): classical attackers, uniform ternary secret, σ = 3.2. The
//! conjugate-invariant ring of degree N is an RLWE instance of dimension N and uses the same row.

use std::fmt;

/// Largest log2 of the whole modulus Q·P at one degree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecurityRow {
    /// log2 of the degree.
    pub log_n: u32,
    /// Limit for 128 bits.
    pub max_log_qp_128: u32,
    /// Limit for 192 bits.
    pub max_log_qp_192: u32,
}

const fn row(log_n: u32, max_log_qp_128: u32, max_log_qp_192: u32) -> SecurityRow {
    SecurityRow { log_n, max_log_qp_128, max_log_qp_192 }
}

/// The table, smallest degree first.
pub const SECURITY_TABLE: [SecurityRow; 6] = [
    row(12, 106, 73),
    row(13, 214, 147),
    row(14, 430, 297),
    row(15, 868, 597),
    row(16, 1747, 1199),
    row(17, 3523, 2411),
];

/// What the table says of a parameter set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Security {
    /// At least 192 bits.
    Bits192,
    /// At least 128 bits.
    Bits128,
    /// Outside the table: for tests only.
    Insecure,
}

impl Security {
    /// The source of the claim.
    pub const TABLE: &'static str = "Bossuat et al., eprint 2024/463, classical, ternary secret (2024)";

    /// What the table says of degree 2^`log_n` and a modulus Q·P of `log_qp` bits.
    #[must_use]
    pub fn of(log_n: u32, log_qp: f64) -> Self {
        match SECURITY_TABLE.iter().find(|row| row.log_n == log_n) {
            Some(row) if log_qp <= f64::from(row.max_log_qp_192) => Self::Bits192,
            Some(row) if log_qp <= f64::from(row.max_log_qp_128) => Self::Bits128,
            _ => Self::Insecure,
        }
    }

    /// Bits of security; 0 outside the table.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Bits192 => 192,
            Self::Bits128 => 128,
            Self::Insecure => 0,
        }
    }

    /// Largest log2(Q·P) that has 128 bits at degree 2^`log_n`, `None` outside the table.
    #[must_use]
    pub fn max_log_qp(log_n: u32) -> Option<u32> {
        SECURITY_TABLE.iter().find(|row| row.log_n == log_n).map(|row| row.max_log_qp_128)
    }
}

impl fmt::Display for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Insecure => write!(f, "INSECURE, for tests only (outside {})", Self::TABLE),
            secure => write!(f, "{} bits ({})", secure.bits(), Self::TABLE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_inclusive() {
        assert_eq!(Security::of(15, 868.0), Security::Bits128);
        assert_eq!(Security::of(15, 868.01), Security::Insecure);
        assert_eq!(Security::of(15, 597.0), Security::Bits192);
        assert_eq!(Security::of(12, 217.0), Security::Insecure);
        assert_eq!(Security::of(11, 10.0), Security::Insecure);
        assert_eq!(Security::of(18, 10.0), Security::Insecure);
    }

    #[test]
    fn insecurity_is_said_aloud() {
        assert!(Security::Insecure.to_string().contains("INSECURE"));
        assert!(Security::Bits128.to_string().contains("2024/463"));
    }
}
