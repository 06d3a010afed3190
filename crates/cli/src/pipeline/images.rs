//! Images from files, as a network takes them.
//!
//! Bytes (PNG, JPEG, idx, `u8` arrays) go through the model's pre-processing; floating-point arrays
//! are taken to be pre-processed already. Image files are scaled and cut where the model says how (the
//! geometry of its pre-processing); else a wrong size is refused by name.

use std::path::Path;

use polyveil_net::Tensor;
use polyveil_train::Preprocessing;
use polyveil_train::data::npy::{NpyArray, NpyData};
use polyveil_train::data::{idx, npy, npz, picture};

use crate::error::{CliError, Exit};
use crate::pipeline::data::refused;

/// Largest image file that is read.
const MAX_FILE: u64 = 4 << 30;

/// Reads every image of a file: one of a PNG, JPEG or single array, many of an array with one more
/// axis.
pub fn load(
    path: &Path,
    shape: &[usize],
    preprocessing: Option<&Preprocessing>,
) -> Result<Vec<Tensor>, CliError> {
    let fail = |e: std::io::Error| CliError::io(path, &e, "read").sorted(Exit::Data);
    let size = std::fs::metadata(path).map_err(fail)?.len();
    if size > MAX_FILE {
        let message = format!("the file has {size} bytes, at most {MAX_FILE} are read");
        return Err(CliError::new(Exit::Data, message).at(path));
    }
    let bytes = std::fs::read(path).map_err(fail)?;
    let name = path.display().to_string();
    let array = match bytes.as_slice() {
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => npy::parse(&name, &bytes).map_err(refused)?,
        [b'P', b'K', ..] => only_array(path, npz::parse(&name, &bytes).map_err(refused)?)?,
        [0x89, b'P', b'N', b'G', ..] | [0xff, 0xd8, 0xff, ..] => decode(path, &bytes, shape, preprocessing)?,
        [0, 0, 8, ..] | [0x1f, 0x8b, ..] => {
            let idx::IdxArray { shape, data } = idx::parse(&name, &bytes).map_err(refused)?;
            NpyArray { shape, data: NpyData::U8(data) }
        }
        _ => {
            let message = "expected a PNG, JPEG, .npy, .npz or idx file, found something else";
            return Err(CliError::new(Exit::Data, message).at(path));
        }
    };
    split(path, array, shape, preprocessing)
}

/// Cuts an array into samples and turns them into network input.
fn split(
    path: &Path,
    array: NpyArray,
    shape: &[usize],
    preprocessing: Option<&Preprocessing>,
) -> Result<Vec<Tensor>, CliError> {
    let refuse = |message: String| Err(CliError::new(Exit::Data, message).at(path));
    let squeezed = |s: &[usize]| s.iter().copied().filter(|&d| d != 1).collect::<Vec<_>>();
    let size: usize = shape.iter().product();
    let wanted = squeezed(shape);
    let single = squeezed(&array.shape) == wanted;
    let many = array.shape.split_first().is_some_and(|(_, rest)| squeezed(rest) == wanted);
    if size == 0 || !(single || many) {
        return refuse(format!("an image of shape {shape:?} expected, found {:?}", array.shape));
    }
    let values = match &array.data {
        NpyData::U8(bytes) => {
            let Some(preprocessing) = preprocessing else {
                return refuse(
                    "the model says no pre-processing, so images must be floating-point arrays".into(),
                );
            };
            let mut values = vec![0.0; bytes.len()];
            let width = shape.last().copied().unwrap_or(1);
            for (from, to) in bytes.chunks_exact(size).zip(values.chunks_exact_mut(size)) {
                preprocessing.apply(from, width, to);
            }
            values
        }
        NpyData::I64(_) => {
            return refuse("expected values of type u8, f32 or f64, found another integer type".into());
        }
        NpyData::F32(_) | NpyData::F64(_) => array.to_f32(),
    };
    if let Some(at) = values.iter().position(|v| !v.is_finite()) {
        let place = if values.len() == size { String::new() } else { format!("image {}, ", at / size) };
        return refuse(format!("{place}value {} is {}; every value must be finite", at % size, values[at]));
    }
    values
        .chunks_exact(size)
        .map(|v| Tensor::new(shape.to_vec(), v.to_vec()).map_err(|e| CliError::new(Exit::Data, e).at(path)))
        .collect()
}

/// Pixels of a PNG or JPEG as `[C, H, W]`: grey for networks of one channel, RGB for three; scaled and cut
/// where the model says how.
fn decode(
    path: &Path,
    bytes: &[u8],
    shape: &[usize],
    preprocessing: Option<&Preprocessing>,
) -> Result<NpyArray, CliError> {
    let &[channels @ (1 | 3), height, width] = shape else {
        let message = format!("the network takes {shape:?}, an image file gives [1, H, W] or [3, H, W]");
        return Err(CliError::new(Exit::Data, message).at(path));
    };
    let name = path.display().to_string();
    let picture =
        match preprocessing.and_then(|p| p.geometry).filter(|g| g.shape() == [channels, height, width]) {
            Some(geometry) => picture::decode_for(&name, bytes, geometry).map_err(refused)?,
            None => {
                // The size is checked before any pixel is decoded, so a hostile file cannot ask for memory.
                let found = picture::header(&name, bytes).map_err(refused)?;
                if (found.height, found.width) != (height, width) {
                    let message =
                        format!("{width}×{height} pixels expected, found {}×{}", found.width, found.height);
                    let help = "scale or crop the image as the training images were";
                    return Err(CliError::new(Exit::Data, message).at(path).help(help));
                }
                picture::decode(&name, bytes, channels == 1).map_err(refused)?
            }
        };
    Ok(NpyArray { shape: picture.shape.to_vec(), data: NpyData::U8(picture.pixels) })
}

fn only_array(
    path: &Path,
    mut arrays: std::collections::BTreeMap<String, NpyArray>,
) -> Result<NpyArray, CliError> {
    let names = arrays.keys().cloned().collect::<Vec<_>>().join(", ");
    match (arrays.remove("images"), arrays.pop_first(), arrays.is_empty()) {
        (Some(images), _, _) => Ok(images),
        (None, Some((_, only)), true) => Ok(only),
        _ => {
            let message = format!("expected one array, or one named \"images\", found: {names}");
            let help = "images of a data set are chosen with --data FILE --index 0..20";
            Err(CliError::new(Exit::Data, message).at(path).help(help))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        (directory, path)
    }

    fn message(name: &str, bytes: &[u8], shape: &[usize]) -> String {
        let (_directory, path) = file(name, bytes);
        let error = load(&path, shape, None).unwrap_err();
        assert_eq!(error.exit, Exit::Data);
        assert!(error.to_string().contains(name), "{error}");
        error.message
    }

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let picture = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 7]));
        picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn float_arrays_are_taken_as_they_are() {
        let (_directory, path) =
            file("a.npy", &npy::write_f32(&[2, 1, 2, 2], &[0., 1., 2., 3., 4., 5., 6., 7.]));
        let images = load(&path, &[1, 2, 2], None).unwrap();
        assert_eq!(images.len(), 2);
        assert_eq!(
            (images[1].shape(), images[1].data()),
            ([1, 2, 2].as_slice(), [4., 5., 6., 7.].as_slice())
        );
    }

    #[test]
    fn pixels_are_planar_and_preprocessed() {
        let (_directory, path) = file("a.png", &png(3, 2));
        let preprocessing = Preprocessing {
            scale: 1.0,
            mean: vec![0.0, 0.0, 1.0],
            std: vec![1.0; 3],
            standardise: None,
            edges: None,
            geometry: None,
        };
        let images = load(&path, &[3, 2, 3], Some(&preprocessing)).unwrap();
        assert_eq!(images[0].data()[..6], [0., 1., 2., 0., 1., 2.]);
        assert_eq!(images[0].data()[6..12], [0., 0., 0., 1., 1., 1.]);
        assert_eq!(images[0].data()[12..], [6.; 6]);
    }

    #[test]
    fn a_model_with_a_geometry_takes_images_of_any_size() {
        let geometry = polyveil_train::Geometry { channels: 1, height: 4, width: 4, resize: 5 };
        let preprocessing = Preprocessing {
            scale: 1.0,
            mean: vec![0.0],
            std: vec![1.0],
            standardise: None,
            edges: None,
            geometry: Some(geometry),
        };
        let (_directory, path) = file("a.png", &png(30, 20));
        let images = load(&path, &[1, 4, 4], Some(&preprocessing)).unwrap();
        // Red rises by four a pixel after scaling by four, luminance by 0.2126 of that.
        let row = &images[0].data()[..4];
        assert!(row.is_sorted() && row[3] >= row[0] + 2.0, "{row:?}");
    }

    #[test]
    fn wrong_size_nan_and_damage_name_the_file() {
        let wrong = message("a.npy", &npy::write_f32(&[1, 3, 3], &[0.0; 9]), &[1, 2, 2]);
        assert_eq!(wrong, "an image of shape [1, 2, 2] expected, found [1, 3, 3]");
        let nan = message("b.npy", &npy::write_f32(&[2, 2], &[0.0, 1.0, f32::NAN, 0.0]), &[1, 2, 2]);
        assert_eq!(nan, "value 2 is NaN; every value must be finite");
        assert_eq!(message("c.png", &png(3, 2), &[3, 2, 2]), "2×2 pixels expected, found 3×2");
        let damaged = png(3, 2);
        assert!(message("d.png", &damaged[..damaged.len() / 2], &[3, 2, 3]).contains("image"));
        assert!(message("e.gif", b"GIF89a", &[3, 2, 2]).contains("expected a PNG"));
        assert!(message("f.npy", b"\x93NUMPY\x01\x00", &[3, 2, 2]).contains("f.npy"));
    }

    #[test]
    fn a_missing_file_is_a_data_error() {
        let error = load(Path::new("no-such.png"), &[1, 2, 2], None).unwrap_err();
        assert_eq!(
            error.to_string().lines().next(),
            Some("error: no-such.png: cannot read the file: no such file or directory")
        );
        assert_eq!(error.exit, Exit::Data);
    }
}
