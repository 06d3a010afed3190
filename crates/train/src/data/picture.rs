//! PNG and JPEG files: limits before decoding, planes, scaling.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{ColorType, ExtendedColorType, ImageDecoder, ImageReader};

use super::{DataError, Geometry};

/// No image of more pixels is decoded. Decoding takes at most 12 bytes a pixel for each thread.
pub const MAX_PIXELS: u64 = 1 << 25;
/// No image file of more bytes is read.
pub const MAX_IMAGE_FILE: u64 = 256 << 20;

/// Planes of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// `[C, H, W]`, one or three channels.
    pub shape: [usize; 3],
    /// As many bytes as the shape says.
    pub pixels: Vec<u8>,
}

/// What the header of an image file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// One channel (and perhaps transparency)?
    pub gray: bool,
}

/// Reads the header of a PNG or JPEG. `file` is the name for messages.
///
/// # Errors
/// Bytes that are neither, a damaged header, more than [`MAX_PIXELS`] pixels.
pub fn header(file: &str, bytes: &[u8]) -> Result<Header, DataError> {
    let decoder = reader(file, bytes)?.into_decoder().map_err(|e| damaged(file, &e))?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 || pixels > MAX_PIXELS {
        return Err(DataError::format(
            file,
            format!("an image of 1 to {MAX_PIXELS} pixels"),
            format!("{width}×{height}"),
        ));
    }
    let gray =
        matches!(decoder.color_type(), ColorType::L8 | ColorType::La8 | ColorType::L16 | ColorType::La16);
    Ok(Header { height: height as usize, width: width as usize, gray })
}

/// Decodes a PNG or JPEG to one (`gray`) or three channels of 8 bits. Transparency is dropped, colour
/// becomes grey as luminance (ITU-R BT.709). `file` is the name for messages.
///
/// # Errors
/// As [`header`]; also damaged pixels.
pub fn decode(file: &str, bytes: &[u8], gray: bool) -> Result<Picture, DataError> {
    let found = header(file, bytes)?;
    let (height, width) = (found.height, found.width);
    let picture = reader(file, bytes)?.decode().map_err(|e| damaged(file, &e))?;
    if gray && found.gray {
        return Ok(Picture { shape: [1, height, width], pixels: picture.into_luma8().into_raw() });
    }
    let interleaved = picture.into_rgb8().into_raw();
    let plane = |c: usize| interleaved.iter().skip(c).step_by(3).copied();
    let colored = Picture { shape: [3, height, width], pixels: (0..3).flat_map(plane).collect() };
    Ok(if gray { colored.luminance() } else { colored })
}

/// Decodes a PNG or JPEG as a network of this geometry takes it: `[C, H, W]` bytes, scaled and cut.
///
/// # Errors
/// As [`decode`].
pub fn decode_for(file: &str, bytes: &[u8], geometry: Geometry) -> Result<Picture, DataError> {
    let found = header(file, bytes)?;
    let gray = geometry.channels == 1 || found.gray;
    let scaled = decode(file, bytes, gray)?.scaled(geometry.stored([found.height, found.width]));
    let view = super::images::View { shape: scaled.shape, pixels: &scaled.pixels };
    let one: Vec<u8> = view.centre([geometry.height, geometry.width]).iter().map(|&v| v as u8).collect();
    let repeats = if scaled.shape[0] == geometry.channels { 1 } else { geometry.channels };
    Ok(Picture { shape: [geometry.channels, geometry.height, geometry.width], pixels: one.repeat(repeats) })
}

impl Picture {
    /// Scaled to `[rows, columns]`: triangle filter, widened when it shrinks, as bilinear resizing with
    /// antialiasing is elsewhere.
    #[must_use]
    pub fn scaled(self, [height, width]: [usize; 2]) -> Self {
        let [channels, rows, columns] = self.shape;
        if [rows, columns] == [height, width] {
            return self;
        }
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let mut pixels = Vec::with_capacity(channels * height * width);
        for plane in self.pixels.chunks_exact((rows * columns).max(1)) {
            let Some(plane) = image::GrayImage::from_raw(narrow(columns), narrow(rows), plane.to_vec())
            else {
                continue;
            };
            let scaled = image::imageops::resize(&plane, narrow(width), narrow(height), FilterType::Triangle);
            pixels.extend_from_slice(scaled.as_raw());
        }
        Self { shape: [channels, height, width], pixels }
    }

    /// As it is after storing it as JPEG (1 to 100) and reading it again; none where that cannot be done.
    pub(super) fn compressed(&self, quality: usize) -> Option<Self> {
        let [channels, height, width] = self.shape;
        let plane = height * width;
        let (pixels, kind) = match channels {
            1 => (self.pixels.clone(), ExtendedColorType::L8),
            3 => {
                let interleaved = (0..plane).flat_map(|i| [0, 1, 2].map(|c| self.pixels[c * plane + i]));
                (interleaved.collect(), ExtendedColorType::Rgb8)
            }
            _ => return None,
        };
        let mut file = Vec::new();
        let (columns, rows) = (u32::try_from(width).ok()?, u32::try_from(height).ok()?);
        JpegEncoder::new_with_quality(&mut file, quality.clamp(1, 100) as u8)
            .encode(&pixels, columns, rows, kind)
            .ok()?;
        decode("compressed", &file, channels == 1).ok()
    }

    /// One channel: 0.2126 of red, 0.7152 of green, 0.0722 of blue, rounded.
    pub(super) fn luminance(self) -> Self {
        let [channels, height, width] = self.shape;
        if channels != 3 {
            return self;
        }
        let plane = height * width;
        let luma = |i: usize| {
            let [r, g, b] = [0, 1, 2].map(|c| u32::from(self.pixels[c * plane + i]));
            ((2126 * r + 7152 * g + 722 * b + 5_000) / 10_000) as u8
        };
        Self { shape: [1, height, width], pixels: (0..plane).map(luma).collect() }
    }
}

fn reader<'a>(file: &str, bytes: &'a [u8]) -> Result<ImageReader<Cursor<&'a [u8]>>, DataError> {
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|e| DataError::format(file, "a readable image", e.to_string()))?;
    if reader.format().is_none() {
        return Err(DataError::format(file, "a PNG or JPEG image", "another kind of file"));
    }
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(MAX_PIXELS * 12);
    reader.limits(limits);
    Ok(reader)
}

fn damaged(file: &str, error: &image::ImageError) -> DataError {
    DataError::format(file, "a sound PNG or JPEG image", error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn png(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let picture = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 7]));
        picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    fn jpeg(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let picture = image::GrayImage::from_fn(width, height, |x, y| image::Luma([(x * 3 + y) as u8]));
        picture.write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn planes_and_colours() {
        let bytes = png(3, 2);
        assert_eq!(header("t", &bytes).unwrap(), Header { height: 2, width: 3, gray: false });
        let picture = decode("t", &bytes, false).unwrap();
        assert_eq!(picture.shape, [3, 2, 3]);
        assert_eq!(picture.pixels[..6], [0, 1, 2, 0, 1, 2]);
        assert_eq!(picture.pixels[6..12], [0, 0, 0, 1, 1, 1]);
        let gray = decode("t", &bytes, true).unwrap();
        assert_eq!(gray.shape, [1, 2, 3]);
        // 0.0722·7 = 0.51, and one more row or two columns of green or red.
        assert_eq!(gray.pixels, [1, 1, 1, 1, 1, 2]);
        assert!(header("t", &jpeg(8, 9)).unwrap().gray);
    }

    #[test]
    fn shrinking_averages_and_enlarging_interpolates() {
        let flat = Picture { shape: [1, 8, 8], pixels: vec![9; 64] };
        assert_eq!(flat.scaled([3, 5]).pixels, [9; 15]);
        let halves = Picture { shape: [1, 1, 8], pixels: vec![0, 0, 0, 0, 200, 200, 200, 200] };
        let small = halves.scaled([1, 2]).pixels;
        assert!(small[0] < 60 && small[1] > 140, "{small:?}");
    }

    #[test]
    fn a_geometry_scales_cuts_and_repeats() {
        let geometry = Geometry { channels: 3, height: 4, width: 4, resize: 6 };
        let picture = decode_for("t", &jpeg(24, 12), geometry).unwrap();
        assert_eq!(picture.shape, [3, 4, 4]);
        assert_eq!(picture.pixels[..16], picture.pixels[32..]);
    }

    #[test]
    fn hostile_bytes_are_refused() {
        for good in [png(9, 7), jpeg(16, 16)] {
            decode("t", &good, false).unwrap();
            for length in 0..20 {
                decode("t", &good[..length], false).unwrap_err();
            }
            for position in 0..good.len() {
                let mut altered = good.clone();
                altered[position] ^= 0x55;
                let _ = decode("t", &altered, position % 2 == 0);
            }
        }
        // A header that claims 2³¹ × 2³¹ pixels (its checksum made to fit).
        let mut huge = png(3, 2);
        huge[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
        let sum = crc32(&huge[12..29]);
        huge[29..33].copy_from_slice(&sum.to_be_bytes());
        let message = header("t", &huge).unwrap_err().to_string();
        assert!(message.starts_with("t: expected"), "{message}");
        let message = header("t", b"GIF89a").unwrap_err().to_string();
        assert!(message.contains("PNG or JPEG"), "{message}");
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |c, _| if c & 1 == 1 { c >> 1 ^ 0xEDB8_8320 } else { c >> 1 })
        })
    }
}
