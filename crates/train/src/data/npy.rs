//! NumPy's `.npy`: one array with a text header (NEP 1, versions 1.0 to 3.0).

use super::{DataError, MAX_BYTES};

const MAGIC: &[u8] = b"\x93NUMPY";
/// Headers are a few dozen bytes; nothing sound comes near this.
const MAX_HEADER: usize = 64 << 10;

/// An array with its extents.
#[derive(Clone, Debug, PartialEq)]
pub struct NpyArray {
    /// Extent of each axis; empty for a single value.
    pub shape: Vec<usize>,
    /// The values, last axis fastest.
    pub data: NpyData,
}

/// Values by type.
#[derive(Clone, Debug, PartialEq)]
pub enum NpyData {
    /// `|u1`.
    U8(Vec<u8>),
    /// `<f4`.
    F32(Vec<f32>),
    /// `<f8`.
    F64(Vec<f64>),
    /// Any other integer type up to eight bytes.
    I64(Vec<i64>),
}

impl NpyArray {
    /// The values as `f32`.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.data {
            NpyData::U8(v) => v.iter().map(|&x| f32::from(x)).collect(),
            NpyData::F32(v) => v.clone(),
            NpyData::F64(v) => v.iter().map(|&x| x as f32).collect(),
            NpyData::I64(v) => v.iter().map(|&x| x as f32).collect(),
        }
    }
}

/// Parses the bytes of an `.npy` file: little-endian integers and floats in C order. `file` is the
/// name for messages.
///
/// # Errors
/// When the header is damaged, the type or order is another, or the data is shorter or longer than
/// the header says.
pub fn parse(file: &str, bytes: &[u8]) -> Result<NpyArray, DataError> {
    let (text, data) = split_header(file, bytes)?;
    let header = Header::parse(file, text)?;
    let count = header
        .shape
        .iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d))
        .filter(|&n| (n as u64).saturating_mul(header.width as u64) <= MAX_BYTES)
        .ok_or_else(|| {
            DataError::format(file, format!("at most {MAX_BYTES} bytes"), format!("shape {:?}", header.shape))
        })?;
    if data.len() != count * header.width {
        return Err(DataError::format(
            file,
            format!("{} bytes for shape {:?}", count * header.width, header.shape),
            format!("{} (truncated or altered file)", data.len()),
        ));
    }
    let data = match (header.kind, header.width) {
        ('u' | 'b', 1) => NpyData::U8(data.to_vec()),
        ('f', 4) => NpyData::F32(data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
        ('f', 8) => NpyData::F64(data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect()),
        (kind, width) => NpyData::I64(data.chunks_exact(width).map(|b| integer(kind, b)).collect()),
    };
    Ok(NpyArray { shape: header.shape, data })
}

/// The bytes of an `.npy` file (version 1.0) of little-endian `f32`.
#[must_use]
pub fn write_f32(shape: &[usize], values: &[f32]) -> Vec<u8> {
    let extents: Vec<String> = shape.iter().map(usize::to_string).collect();
    let comma = if shape.len() == 1 { "," } else { "" };
    let mut text =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}{comma}), }}", extents.join(", "));
    // Data starts at a multiple of 64 bytes.
    let unpadded = MAGIC.len() + 4 + text.len() + 1;
    text.push_str(&" ".repeat(unpadded.next_multiple_of(64) - unpadded));
    text.push('\n');
    let mut bytes = Vec::with_capacity(MAGIC.len() + 4 + text.len() + 4 * values.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&[1, 0]);
    bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    bytes
}

fn integer(kind: char, bytes: &[u8]) -> i64 {
    let negative = kind == 'i' && bytes.last().is_some_and(|b| b & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    i64::from_le_bytes(wide)
}

fn split_header<'a>(file: &str, bytes: &'a [u8]) -> Result<(&'a str, &'a [u8]), DataError> {
    let damaged = |found: &str| DataError::format(file, "an npy header", found);
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| damaged("other leading bytes"))?;
    let (length, rest) = match rest {
        [1, _, a, b, rest @ ..] => (usize::from(u16::from_le_bytes([*a, *b])), rest),
        [2 | 3, _, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
        _ => return Err(damaged("an unknown version or a truncated file")),
    };
    if length > MAX_HEADER || length > rest.len() {
        return Err(damaged(&format!("a header of {length} bytes in {} bytes", rest.len())));
    }
    let (text, data) = rest.split_at(length);
    let text = std::str::from_utf8(text).map_err(|_| damaged("text that is not UTF-8"))?;
    Ok((text, data))
}

struct Header {
    kind: char,
    width: usize,
    shape: Vec<usize>,
}

impl Header {
    /// Reads the three entries of the header dictionary wherever they stand.
    fn parse(file: &str, text: &str) -> Result<Self, DataError> {
        let damaged = |what: &str| {
            DataError::format(file, what, format!("{:?}", text.chars().take(120).collect::<String>()))
        };
        let after = |key: &str| text.split_once(key).map(|(_, rest)| rest.trim_start_matches([' ', ':']));
        let descr = after("'descr'")
            .and_then(|rest| rest.strip_prefix('\''))
            .and_then(|rest| rest.split_once('\''))
            .map(|(descr, _)| descr)
            .ok_or_else(|| damaged("an entry 'descr'"))?;
        if !after("'fortran_order'").is_some_and(|rest| rest.starts_with("False")) {
            return Err(damaged("'fortran_order': False"));
        }
        let shape = after("'shape'")
            .and_then(|rest| rest.strip_prefix('('))
            .and_then(|rest| rest.split_once(')'))
            .and_then(|(list, _)| {
                let fields = list.split(',').map(str::trim).filter(|f| !f.is_empty());
                fields.map(|f| f.parse().ok()).collect::<Option<Vec<usize>>>()
            })
            .filter(|shape| shape.len() <= 32)
            .ok_or_else(|| damaged("an entry 'shape'"))?;
        let known = ["|u1", "|b1", "|i1", "<u2", "<i2", "<u4", "<i4", "<i8", "<u8", "<f4", "<f8"];
        let mut letters = descr.chars().skip(1);
        match (known.contains(&descr), letters.next(), letters.next().and_then(|c| c.to_digit(10))) {
            (true, Some(kind), Some(width)) => Ok(Self { kind, width: width as usize, shape }),
            _ => Err(DataError::format(
                file,
                format!("one of the types {}", known.join(" ")),
                format!("{descr:?}"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut bytes = [MAGIC, &[1, 0], &(text.len() as u16).to_le_bytes(), text.as_bytes()].concat();
        bytes.extend_from_slice(data);
        bytes
    }

    #[test]
    fn what_is_written_reads_back() {
        for shape in [vec![], vec![1], vec![2, 3], vec![1, 2, 3]] {
            let values: Vec<f32> = (0..shape.iter().product()).map(|i: usize| i as f32 * 0.5 - 1.0).collect();
            let bytes = write_f32(&shape, &values);
            assert_eq!((bytes.len() - 4 * values.len()) % 64, 0);
            assert_eq!(parse("t", &bytes).unwrap(), NpyArray { shape, data: NpyData::F32(values) });
        }
    }

    #[test]
    fn integers_of_every_width_keep_their_sign() {
        let parsed = parse("t", &array("<i2", "(2,)", &[0xff, 0xff, 1, 0])).unwrap();
        assert_eq!(parsed.data, NpyData::I64(vec![-1, 1]));
        assert_eq!(
            parse("t", &array("<u2", "(1,)", &[0xff, 0xff])).unwrap().data,
            NpyData::I64(vec![65_535])
        );
        assert_eq!(parse("t", &array("|u1", "(2,)", &[3, 4])).unwrap().to_f32(), [3.0, 4.0]);
    }

    #[test]
    fn hostile_headers_are_refused() {
        let good = array("|u1", "(2, 3)", &[0; 6]);
        parse("t", &good).unwrap();
        for length in 0..good.len() {
            parse("t", &good[..length]).unwrap_err();
        }
        let cases = [
            (array("|u1", "(18446744073709551615, 2)", &[]), "at most"),
            (array("|u1", "(99999999999999999999,)", &[]), "'shape'"),
            (array("|u1", "(-1,)", &[]), "'shape'"),
            (array("|O", "(1,)", &[0; 8]), "|O"),
            (array(">f4", "(1,)", &[0; 4]), ">f4"),
            (array("|u1", "(2,)", &[0; 3]), "3 (truncated"),
            ([MAGIC, &[2, 0, 0xff, 0xff, 0xff, 0xff]].concat(), "a header of"),
        ];
        for (bytes, needle) in cases {
            let message = parse("t", &bytes).unwrap_err().to_string();
            assert!(message.contains(needle), "{message} lacks {needle}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_header_text_gives_an_array_or_an_error(text in ".{0,80}", data in proptest::collection::vec(proptest::num::u8::ANY, 0..32)) {
            let mut bytes = [MAGIC, &[1, 0], &(text.len() as u16).to_le_bytes(), text.as_bytes()].concat();
            bytes.extend_from_slice(&data);
            let _ = parse("t", &bytes);
        }
    }
}
