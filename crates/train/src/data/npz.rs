//! `.npz` archives of the MedMNIST layout: `train_images`, `train_labels`, `val_…`, `test_…`.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::Path;

use super::npy::{self, NpyArray, NpyData};
use super::{DataError, DataOptions, MAX_BYTES, Parts, Split, folder, gather};

/// Archives of data sets hold six arrays; nothing sound comes near this.
const MAX_ENTRIES: usize = 64;

/// Parses the bytes of an `.npz` archive into its arrays, by name without `.npy`. `file` is the name
/// for messages.
///
/// # Errors
/// When the archive or one of its arrays is damaged, or all arrays together are too large.
pub fn parse(file: &str, bytes: &[u8]) -> Result<BTreeMap<String, NpyArray>, DataError> {
    let damaged = |e: zip::result::ZipError| DataError::format(file, "a sound zip archive", e.to_string());
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(damaged)?;
    if archive.len() > MAX_ENTRIES {
        return Err(DataError::format(
            file,
            format!("at most {MAX_ENTRIES} entries"),
            archive.len().to_string(),
        ));
    }
    let mut arrays = BTreeMap::new();
    let mut left = MAX_BYTES;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(damaged)?;
        let part = format!("{file}: {}", entry.name());
        let name = entry.name().trim_end_matches(".npy").to_owned();
        // Sizes in a zip header may lie, so what is read is counted.
        let mut content = Vec::new();
        let limit = entry.size().min(left);
        Read::by_ref(&mut entry)
            .take(limit + 1)
            .read_to_end(&mut content)
            .map_err(|e| DataError::format(&part, "sound compressed data", e.to_string()))?;
        if content.len() as u64 > limit {
            return Err(DataError::format(&part, format!("at most {limit} bytes"), "more"));
        }
        left -= content.len() as u64;
        arrays.insert(name, npy::parse(&part, &content)?);
    }
    Ok(arrays)
}

/// Loads a data set with the archive's own splits.
pub(super) fn load(path: &Path, options: &DataOptions) -> Result<Parts, DataError> {
    let file = path.display().to_string();
    let arrays = parse(&file, &folder::read_bounded(path)?)?;
    assemble(&file, folder::stem(path), arrays, Layout::PlanesLast, options)
}

/// Order of axes where images have channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// `[N, C, H, W]`.
    PlanesFirst,
    /// `[N, H, W, C]`.
    PlanesLast,
}

/// A data set from arrays `train_images`, `train_labels`, `val_…`, `test_…`, or from `images` and `labels`
/// alone, which are then shared out.
pub(super) fn assemble(
    file: &str,
    name: String,
    mut arrays: BTreeMap<String, NpyArray>,
    layout: Layout,
    options: &DataOptions,
) -> Result<Parts, DataError> {
    let mut parts = Parts { name, ..Parts::default() };
    let mut shape: Option<[usize; 3]> = None;
    let mut splits = Vec::new();
    let single = arrays.contains_key("images");
    let all = [("train_", Split::Train), ("val_", Split::Validation), ("test_", Split::Test)];
    let groups = if single { &[("", Split::Train)][..] } else { &all };
    for &(prefix, split) in groups {
        let keys = [format!("{prefix}images"), format!("{prefix}labels")];
        if split != Split::Train && !keys.iter().any(|key| arrays.contains_key(key)) {
            continue;
        }
        let images = take(file, &mut arrays, &keys[0])?;
        let labels = take(file, &mut arrays, &keys[1])?;
        let part = format!("{file}: {}", keys[0]);
        let (count, this_shape, pixels) = planes(&part, images, layout)?;
        let first = *shape.get_or_insert(this_shape);
        if first != this_shape {
            let expected = format!("images of shape {first:?}");
            return Err(DataError::format(&part, expected, format!("{this_shape:?}")));
        }
        parts.pixels.extend_from_slice(&pixels);
        parts.labels.extend(class_indices(&format!("{file}: {}", keys[1]), &labels, count)?);
        splits.resize(parts.labels.len(), split);
    }
    parts.shape = shape.unwrap_or_default();
    let classes = parts.labels.iter().max().map_or(0, |&m| m as usize + 1);
    parts.class_names = match &options.classes {
        Some(names) if names.len() >= classes => names.clone(),
        _ => class_names(&parts.name, classes),
    };
    gather::assign(&mut parts, (!single).then_some(splits), options);
    folder::hold_out_validation(&mut parts);
    Ok(parts)
}

fn take(file: &str, arrays: &mut BTreeMap<String, NpyArray>, key: &str) -> Result<NpyArray, DataError> {
    let found = || arrays.keys().cloned().collect::<Vec<_>>().join(", ");
    let missing = DataError::format(file, format!("an array {key}"), format!("[{}]", found()));
    arrays.remove(key).ok_or(missing)
}

/// Images as channel planes, whatever the order in the file: `[N, H, W]`, or with one or three channels.
fn planes(part: &str, images: NpyArray, layout: Layout) -> Result<(usize, [usize; 3], Vec<u8>), DataError> {
    let NpyData::U8(bytes) = images.data else {
        return Err(DataError::format(part, "bytes (|u1)", "another type"));
    };
    match images.shape[..] {
        [count, height, width] => Ok((count, [1, height, width], bytes)),
        [count, channels @ (1 | 3), height, width] if layout == Layout::PlanesFirst => {
            Ok((count, [channels, height, width], bytes))
        }
        [count, height, width, channels @ (1 | 3)] if layout == Layout::PlanesLast => {
            let plane = height * width;
            let mut pixels = Vec::with_capacity(bytes.len());
            for image in bytes.chunks_exact((plane * channels).max(1)) {
                for channel in 0..channels {
                    pixels.extend(image.iter().skip(channel).step_by(channels));
                }
            }
            Ok((count, [channels, height, width], pixels))
        }
        _ => {
            let expected = match layout {
                Layout::PlanesFirst => "shape [N, H, W] or [N, 3, H, W]",
                Layout::PlanesLast => "shape [N, H, W] or [N, H, W, 3]",
            };
            Err(DataError::format(part, expected, format!("{:?}", images.shape)))
        }
    }
}

fn class_indices(part: &str, labels: &NpyArray, count: usize) -> Result<Vec<u32>, DataError> {
    if labels.shape != [count] && labels.shape != [count, 1] {
        return Err(DataError::format(part, format!("{count} labels"), format!("shape {:?}", labels.shape)));
    }
    let wide: Vec<i64> = match &labels.data {
        NpyData::U8(v) => v.iter().map(|&x| i64::from(x)).collect(),
        NpyData::I64(v) => v.clone(),
        NpyData::F32(_) | NpyData::F64(_) => {
            return Err(DataError::format(part, "whole numbers", "floating point"));
        }
    };
    let valid = |x: i64| u32::try_from(x).ok().filter(|&l| (l as usize) < super::MAX_CLASSES);
    wide.into_iter()
        .map(|x| valid(x).ok_or_else(|| DataError::format(part, "class indices from 0", x.to_string())))
        .collect()
}

/// The archive holds no names; those of known sets are filled in.
fn class_names(set: &str, classes: usize) -> Vec<String> {
    match (set, classes) {
        ("pneumoniamnist", 2) => ["normal", "pneumonia"].map(str::to_owned).to_vec(),
        _ => (0..classes).map(|c| c.to_string()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::DataSet;
    use std::io::Write;

    fn npy_u8(shape: &[usize], data: &[u8]) -> Vec<u8> {
        let extents: Vec<String> = shape.iter().map(usize::to_string).collect();
        let text = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({},), }}", extents.join(","));
        [b"\x93NUMPY\x01\x00".as_slice(), &(text.len() as u16).to_le_bytes(), text.as_bytes(), data].concat()
    }

    fn archive(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in entries {
            writer.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn sound() -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("train_images", npy_u8(&[2, 1, 2, 3], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])),
            ("train_labels", npy_u8(&[2, 1], &[0, 1])),
            ("val_images", npy_u8(&[1, 1, 2, 3], &[0; 6])),
            ("val_labels", npy_u8(&[1, 1], &[1])),
            ("test_images", npy_u8(&[1, 1, 2, 3], &[0; 6])),
            ("test_labels", npy_u8(&[1], &[0])),
        ]
    }

    fn open(entries: &[(&str, Vec<u8>)]) -> Result<DataSet, DataError> {
        let arrays = parse("t", &archive(entries))?;
        DataSet::new(assemble("t", "t".into(), arrays, Layout::PlanesLast, &DataOptions::default())?)
    }

    #[test]
    fn interleaved_colours_become_planes() {
        let data = open(&sound()).unwrap();
        assert_eq!(data.shape(), [3, 1, 2]);
        assert_eq!(data.pixels(0), [1, 4, 2, 5, 3, 6]);
        assert_eq!([Split::Train, Split::Validation, Split::Test].map(|s| data.indices(s).len()), [2, 1, 1]);
    }

    #[test]
    fn missing_and_unequal_arrays_are_named() {
        let mut entries = sound();
        entries.remove(3);
        assert!(open(&entries).unwrap_err().to_string().contains("val_labels"));
        let mut entries = sound();
        entries[5].1 = npy_u8(&[2], &[0, 0]);
        let message = open(&entries).unwrap_err().to_string();
        assert!(message.contains("test_labels") && message.contains("1 labels"), "{message}");
        let mut entries = sound();
        entries[4].1 = npy_u8(&[1, 2, 2], &[0; 4]);
        assert!(open(&entries).unwrap_err().to_string().contains("[1, 2, 2]"));
    }

    #[test]
    fn images_without_splits_are_shared_out() {
        let pixels: Vec<u8> = (0..40).collect();
        let labels = [0, 1].repeat(10);
        let data =
            open(&[("images", npy_u8(&[20, 1, 2], &pixels)), ("labels", npy_u8(&[20], &labels))]).unwrap();
        assert_eq!([Split::Train, Split::Validation, Split::Test].map(|s| data.indices(s).len()), [14, 2, 4]);
    }

    #[test]
    fn truncated_archives_are_refused() {
        let bytes = archive(&sound());
        for length in (0..bytes.len()).step_by(7) {
            parse("t", &bytes[..length]).unwrap_err();
        }
    }

    #[test]
    fn altered_archives_never_panic() {
        let bytes = archive(&sound());
        for position in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[position] ^= 0x55;
            let options = DataOptions::default();
            let _ = parse("t", &altered)
                .and_then(|arrays| assemble("t", "t".into(), arrays, Layout::PlanesLast, &options));
        }
    }
}
