//! The idx format of the original MNIST files, plain or gzipped.
//!
//! Layout: two zero bytes, a type byte (8 = unsigned byte), the number of axes, each extent as a
//! big-endian `u32`, then the values, last axis fastest.

use std::io::Read;

use super::{DataError, MAX_BYTES};

/// An array of bytes with its extents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdxArray {
    /// Extent of each axis, 1 to 4 axes.
    pub shape: Vec<usize>,
    /// The values.
    pub data: Vec<u8>,
}

/// Parses the bytes of an idx file; a gzip wrapper is recognised. `file` is the name for messages.
///
/// # Errors
/// When the header is not that of an idx file of bytes, or the data is shorter or longer than the
/// header says.
pub fn parse(file: &str, bytes: &[u8]) -> Result<IdxArray, DataError> {
    let inflated;
    let bytes = if bytes.starts_with(&[0x1f, 0x8b]) {
        // The header says how long the data is, so a gzip bomb stops there.
        let mut head = Vec::new();
        let _ = flate2::read::GzDecoder::new(bytes).take(20).read_to_end(&mut head);
        let (shape, offset) = header(file, &head)?;
        inflated = inflate(file, bytes, offset as u64 + volume(file, &shape)? as u64)?;
        &inflated[..]
    } else {
        bytes
    };
    let (shape, offset) = header(file, bytes)?;
    let expected = volume(file, &shape)?;
    let data = &bytes[offset..];
    if data.len() != expected {
        return Err(DataError::format(
            file,
            format!("{expected} values of shape {shape:?}"),
            format!("{} (truncated or altered file)", data.len()),
        ));
    }
    Ok(IdxArray { shape, data: data.to_vec() })
}

/// Decompresses gzip data of at most `limit` bytes.
pub(super) fn inflate(file: &str, bytes: &[u8], limit: u64) -> Result<Vec<u8>, DataError> {
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(bytes)
        .take(limit + 1)
        .read_to_end(&mut out)
        .map_err(|e| DataError::format(file, "sound gzip data", format!("{e} after {} bytes", out.len())))?;
    if out.len() as u64 > limit {
        return Err(DataError::format(file, format!("at most {limit} bytes after decompression"), "more"));
    }
    Ok(out)
}

fn header(file: &str, bytes: &[u8]) -> Result<(Vec<usize>, usize), DataError> {
    let axes = match bytes {
        [0, 0, 8, axes @ 1..=4, ..] => usize::from(*axes),
        _ => {
            let found = format!("{:02x?}", &bytes[..bytes.len().min(4)]);
            return Err(DataError::format(file, "an idx header of bytes: 00 00 08 and 1 to 4 axes", found));
        }
    };
    let offset = 4 + 4 * axes;
    let Some(extents) = bytes.get(4..offset) else {
        return Err(DataError::format(
            file,
            format!("a header of {offset} bytes"),
            format!("{}", bytes.len()),
        ));
    };
    let shape =
        extents.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize).collect();
    Ok((shape, offset))
}

fn volume(file: &str, shape: &[usize]) -> Result<usize, DataError> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n as u64 <= MAX_BYTES).ok_or_else(
        || DataError::format(file, format!("at most {MAX_BYTES} values"), format!("shape {shape:?}")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn sample() -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3];
        bytes.extend_from_slice(&[1, 2, 3, 4, 5, 6]);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn plain_and_gzipped_read_alike() {
        let array = parse("t", &sample()).unwrap();
        assert_eq!(array, IdxArray { shape: vec![2, 3], data: vec![1, 2, 3, 4, 5, 6] });
        assert_eq!(parse("t", &gzip(&sample())).unwrap(), array);
    }

    #[test]
    fn hostile_bytes_are_refused() {
        let good = sample();
        for length in 0..good.len() {
            parse("t", &good[..length]).unwrap_err();
            parse("t", &gzip(&good[..length])).unwrap_err();
        }
        let zipped = gzip(&good);
        for length in 0..zipped.len() {
            parse("t", &zipped[..length]).unwrap_err();
        }
        parse("t", &[good.clone(), vec![0]].concat()).unwrap_err();
        let huge = [vec![0, 0, 8, 4], vec![0xff; 16]].concat();
        let message = parse("t", &huge).unwrap_err().to_string();
        assert!(message.contains("at most"), "{message}");
        // A bomb: 64 MiB of zeros behind a header that admits six bytes.
        let bomb = gzip(&[good, vec![0; 64 << 20]].concat());
        assert!(parse("t", &bomb).unwrap_err().to_string().contains("more"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_give_an_array_or_an_error(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            if let Ok(array) = parse("t", &bytes) {
                proptest::prop_assert_eq!(array.shape.iter().product::<usize>(), array.data.len());
            }
        }
    }
}
