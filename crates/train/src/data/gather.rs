//! A list of image files becomes the parts of a data set.
//!
//! Headers are read first, so that sizes, colours and memory are settled before a pixel is decoded.
//! Decoded images are scaled at once and kept as bytes at their stored size: one byte a pixel and
//! channel, at most [`MAX_BYTES`] together; while decoding, each thread takes what one image needs
//! (see [`picture::MAX_PIXELS`]).

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::picture::{self, Header, MAX_IMAGE_FILE, MAX_PIXELS, Picture};
use super::{DataError, DataOptions, Images, MAX_BYTES, Parts, Split, fit, split};

/// Files decoded before their images are put away.
const AT_ONCE: usize = 256;

/// One image file and what is known of it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) path: PathBuf,
    /// Its name in messages: relative to the data set.
    pub(super) name: String,
    pub(super) label: u32,
    pub(super) split: Option<Split>,
    pub(super) source: Option<String>,
    pub(super) patient: Option<String>,
}

/// Reads all files. Where entries say no split they are shared out by `options.split`.
pub(super) fn load(
    name: String,
    class_names: Vec<String>,
    entries: Vec<Entry>,
    options: &DataOptions,
) -> Result<Parts, DataError> {
    options.check()?;
    if entries.is_empty() {
        return Err(DataError::format(&name, "at least one image", "none"));
    }
    let headers = ordered(&entries, |entry| picture::header(&shown(entry), &read(&entry.path)?))?;
    let sizes: Vec<[usize; 2]> = headers.iter().map(|h| [h.height, h.width]).collect();
    let gray = headers.iter().all(|h| h.gray);
    let geometry = fit::resolve(&name, options, &sizes, gray, true)?;
    let bytes = check_memory(&entries, &headers, geometry)?;

    let keep_gray = |header: &Header| geometry.channels == 1 || header.gray;
    let mut images = Images::with_capacity(bytes);
    let pairs: Vec<(&Entry, &Header)> = entries.iter().zip(&headers).collect();
    for chunk in pairs.chunks(AT_ONCE) {
        let decoded: Vec<Picture> = ordered(chunk, |(entry, header)| {
            let picture = picture::decode(&shown(entry), &read(&entry.path)?, keep_gray(header))?;
            Ok(picture.scaled(geometry.stored([header.height, header.width])))
        })?;
        decoded.iter().for_each(|picture| images.push(picture));
    }

    let labels: Vec<u32> = entries.iter().map(|e| e.label).collect();
    let mut parts = Parts {
        name,
        shape: geometry.shape(),
        stored: images,
        geometry: Some(geometry),
        class_names,
        names: entries.iter().map(|e| e.name.clone()).collect(),
        sources: entries.iter().map(|e| e.source.clone()).collect(),
        patients: entries.iter().map(|e| e.patient.clone()).collect(),
        labels,
        ..Parts::default()
    };
    let own: Option<Vec<Split>> = entries.iter().map(|e| e.split).collect();
    assign(&mut parts, own, options);
    Ok(parts)
}

/// Puts every image into its split: its own, or shared out by patient.
pub(super) fn assign(parts: &mut Parts, own: Option<Vec<Split>>, options: &DataOptions) {
    let splits = own.unwrap_or_else(|| {
        let mut numbers = std::collections::HashMap::new();
        let groups: Vec<Option<usize>> = (0..parts.labels.len())
            .map(|i| {
                let next = numbers.len();
                parts.patient_key(i).map(|key| *numbers.entry(key).or_insert(next))
            })
            .collect();
        split::grouped(&parts.labels, &groups, &options.split)
    });
    for (index, split) in splits.into_iter().enumerate() {
        match split {
            Split::Train => parts.train.push(index),
            Split::Validation => parts.validation.push(index),
            Split::Test => parts.test.push(index),
        }
    }
}

fn check_memory(
    entries: &[Entry],
    headers: &[Header],
    geometry: super::Geometry,
) -> Result<usize, DataError> {
    let mut total = 0u64;
    for (entry, header) in entries.iter().zip(headers) {
        let [rows, columns] = geometry.stored([header.height, header.width]);
        let pixels = rows as u64 * columns as u64;
        if pixels > MAX_PIXELS {
            return Err(DataError::format(
                &shown(entry),
                format!("at most {MAX_PIXELS} pixels after scaling"),
                format!("{rows}×{columns} from {}×{}", header.height, header.width),
            ));
        }
        total += pixels * if geometry.channels == 1 || header.gray { 1 } else { 3 };
    }
    if total > MAX_BYTES {
        return Err(DataError::format(
            "images",
            format!("at most {MAX_BYTES} bytes decoded, all together"),
            format!("{total}; choose a smaller image size, or fewer images"),
        ));
    }
    Ok(usize::try_from(total).unwrap_or(0))
}

fn shown(entry: &Entry) -> String {
    entry.path.display().to_string()
}

fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    super::folder::read_at_most(path, MAX_IMAGE_FILE)
}

/// Maps in parallel; the first failure in order is the one reported.
fn ordered<T: Sync, R: Send>(
    items: &[T],
    map: impl Fn(&T) -> Result<R, DataError> + Sync + Send,
) -> Result<Vec<R>, DataError> {
    let results: Vec<Result<R, DataError>> = items.par_iter().map(map).collect();
    results.into_iter().collect()
}

/// Class names in order: those of the network, else the labels that occur, sorted (as numbers where
/// all of them are).
pub(super) fn classes(labels: &[&str], options: &DataOptions) -> Vec<String> {
    if let Some(classes) = &options.classes {
        return classes.clone();
    }
    let mut names: Vec<&str> = labels.to_vec();
    names.sort_unstable();
    names.dedup();
    if names.iter().all(|n| n.parse::<u64>().is_ok()) {
        names.sort_by_key(|n| n.parse::<u64>().unwrap_or(0));
    }
    names.into_iter().map(str::to_owned).collect()
}
