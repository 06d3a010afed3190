//! Records and residues as section payloads.

use std::io::{Read, Write};

use polyveil_ckks::{KeyId, Ntt, Parameters, ParametersLiteral, Poly, Security};
use serde::{Serialize, de::DeserializeOwned};

use crate::{FormatError, Header, Kind, Reader, Writer, bits};

/// Name of the section with the parameter set.
pub(crate) const PARAMETERS: &str = "parameters";

/// The header of a file made with `params`.
pub(crate) fn header(kind: Kind, params: &Parameters) -> Header {
    Header::new(kind, params.fingerprint()).with_insecure(params.security() == Security::Insecure)
}

/// Writes `value` as a section.
///
/// # Errors
/// When the section is too large or writing fails.
pub fn write_record<W: Write>(
    to: &mut Writer<W>,
    name: &str,
    value: &impl Serialize,
) -> Result<(), FormatError> {
    let kind = to.header().kind;
    let bytes = postcard::to_stdvec(value).map_err(|e| FormatError::malformed(kind, name, e))?;
    to.section(name, &bytes)
}

/// Reads the next section, which must have this name and hold exactly one value.
///
/// # Errors
/// When the section is another one, damaged, or not the record of a `T`.
pub fn read_record<R: Read, T: DeserializeOwned>(from: &mut Reader<R>, name: &str) -> Result<T, FormatError> {
    let kind = from.header().kind;
    parse_record(kind, name, &from.expect_section(name)?)
}

/// As [`read_record`], whose record was another one in version 1 of the kind.
pub(crate) fn read_versioned<R: Read, T: DeserializeOwned + From<V1>, V1: DeserializeOwned>(
    from: &mut Reader<R>,
    name: &str,
) -> Result<T, FormatError> {
    if from.header().version == 1 {
        read_record::<_, V1>(from, name).map(T::from)
    } else {
        read_record(from, name)
    }
}

/// The value of a section's bytes.
pub(crate) fn parse_record<T: DeserializeOwned>(
    kind: Kind,
    name: &str,
    bytes: &[u8],
) -> Result<T, FormatError> {
    let (value, rest) =
        postcard::take_from_bytes(bytes).map_err(|e| FormatError::malformed(kind, name, e))?;
    if rest.is_empty() {
        return Ok(value);
    }
    Err(FormatError::malformed(kind, name, format!("{} bytes follow the record", rest.len())))
}

/// Reads the parameter section of a file that must belong to `params`.
pub(crate) fn check_parameters<R: Read>(
    from: &mut Reader<R>,
    params: &Parameters,
) -> Result<(), FormatError> {
    from.header().expect_parameters(&params.fingerprint())?;
    let kind = from.header().kind;
    let literal: ParametersLiteral = read_record(from, PARAMETERS)?;
    if literal == *params.literal() {
        return Ok(());
    }
    Err(FormatError::malformed(kind, PARAMETERS, "they contradict the fingerprint in the header"))
}

/// Reads the parameter section of a file on its own, for inspection.
///
/// # Errors
/// When the next section is not a parameter set.
pub fn read_parameters<R: Read>(from: &mut Reader<R>) -> Result<ParametersLiteral, FormatError> {
    read_record(from, PARAMETERS)
}

/// The key id of a header.
pub(crate) fn key_id(header: &Header) -> KeyId {
    KeyId(header.key)
}

/// Builds a payload.
pub struct Payload(pub Vec<u8>);

impl Payload {
    pub fn u16(&mut self, value: usize) -> Result<(), &'static str> {
        let value = u16::try_from(value).map_err(|_| "a count is above 65535")?;
        self.0.extend_from_slice(&value.to_le_bytes());
        Ok(())
    }

    pub fn f64(&mut self, value: f64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// All limbs of a polynomial whose limb `i` has modulus `moduli[i]`.
    pub fn poly(&mut self, poly: &Poly<Ntt>, moduli: &[u64]) -> Result<(), &'static str> {
        if poly.limbs() != moduli.len() {
            return Err("a polynomial has another number of limbs than its level says");
        }
        for (index, &modulus) in moduli.iter().enumerate() {
            bits::pack(poly.limb(index), modulus, &mut self.0);
        }
        Ok(())
    }
}

/// Takes a payload apart, from the front.
pub struct Parts<'a> {
    kind: Kind,
    section: &'a str,
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    pub fn new(kind: Kind, section: &'a str, bytes: &'a [u8]) -> Self {
        Self { kind, section, rest: bytes }
    }

    pub fn fail(&self, what: impl std::fmt::Display) -> FormatError {
        FormatError::malformed(self.kind, self.section, what)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.fail(format!("{N} more bytes expected, found {}", self.rest.len())));
        };
        self.rest = rest;
        Ok(*head)
    }

    pub fn u16(&mut self) -> Result<usize, FormatError> {
        Ok(usize::from(u16::from_le_bytes(self.array()?)))
    }

    pub fn f64(&mut self) -> Result<f64, FormatError> {
        Ok(f64::from_le_bytes(self.array()?))
    }

    /// The residues of all limbs of one polynomial.
    pub fn poly(&mut self, degree: usize, moduli: &[u64]) -> Result<Vec<u64>, FormatError> {
        let needed: u64 = moduli.iter().map(|&q| bits::packed_bytes(degree, q)).sum();
        if (self.rest.len() as u64) < needed {
            return Err(self.fail(format!("{needed} bytes of residues expected, found {}", self.rest.len())));
        }
        let mut residues = Vec::with_capacity(degree * moduli.len());
        for &modulus in moduli {
            let (limb, rest) = self.rest.split_at(bits::packed_bytes(degree, modulus) as usize);
            bits::unpack(limb, degree, modulus, &mut residues).map_err(|e| self.fail(e))?;
            self.rest = rest;
        }
        Ok(residues)
    }

    pub fn end(self) -> Result<(), FormatError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(self.fail(format!("{} bytes too many", self.rest.len())))
    }
}
