//! Labelled image sets: what they are, how they are found, how pixels become network input.
//!
//! Images are kept as the bytes they were published as, `[C, H, W]` per image; [`Preprocessing`]
//! turns them into `f32`. Every loader checks what it reads and names the file, what was expected
//! and what was found; memory is bounded by what a file really holds, and by [`MAX_BYTES`].

mod augment;
mod error;
mod folder;
pub mod idx;
pub mod mnist5k;
pub mod npy;
pub mod npz;
mod preprocessing;
mod split;

pub use error::DataError;
pub use preprocessing::Preprocessing;

pub(crate) use augment::augment;

use std::path::Path;

use polyveil_net::Tensor;
use serde::{Deserialize, Serialize};

/// No loader takes in more bytes of pixels than this.
pub const MAX_BYTES: u64 = 4 << 30;

/// No data set has more classes than this.
pub const MAX_CLASSES: usize = 65_536;

/// Part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// For fitting parameters.
    Train,
    /// For choosing between networks.
    Validation,
    /// For the figures that are reported, and nothing else.
    Test,
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        })
    }
}

/// What a loader hands over: a data set before it is checked.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// Name of the set.
    pub name: String,
    /// `[C, H, W]`.
    pub shape: [usize; 3],
    /// All images, one after another.
    pub pixels: Vec<u8>,
    /// One class index an image.
    pub labels: Vec<u32>,
    /// One name a class.
    pub class_names: Vec<String>,
    /// Images of the training split.
    pub train: Vec<usize>,
    /// Images of the validation split.
    pub validation: Vec<usize>,
    /// Images of the test split.
    pub test: Vec<usize>,
}

/// A checked set of labelled images with fixed splits.
#[derive(Clone, Debug)]
pub struct DataSet {
    parts: Parts,
    preprocessing: Preprocessing,
    fingerprint: String,
}

impl DataSet {
    /// Opens a data set: `mnist5k` (embedded), an `.npz` of the MedMNIST layout, or a directory of
    /// idx files (`train-images-idx3-ubyte`, …, each also as `.gz`).
    ///
    /// # Errors
    /// Naming the file, what was expected and what was found.
    pub fn open(spec: &str) -> Result<Self, DataError> {
        if spec == mnist5k::NAME {
            return mnist5k::load();
        }
        let path = Path::new(spec);
        let metadata = std::fs::metadata(path).map_err(|source| DataError::io(path, source))?;
        if metadata.is_dir() {
            return folder::load(path);
        }
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npz")) {
            return npz::load(path);
        }
        Err(DataError::Format {
            file: spec.to_owned(),
            expected: "the name mnist5k, an .npz file, or a directory of idx files".to_owned(),
            found: "another kind of file".to_owned(),
        })
    }

    /// Checks `parts` and derives pre-processing (from the training split) and fingerprint.
    ///
    /// # Errors
    /// When pixels, labels, classes and splits do not fit each other.
    pub fn new(parts: Parts) -> Result<Self, DataError> {
        check(&parts)?;
        let preprocessing = Preprocessing::measure(&parts);
        let fingerprint = fingerprint(&parts);
        Ok(Self { parts, preprocessing, fingerprint })
    }

    /// Name of the set.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.parts.name
    }

    /// Shape of one image, `[C, H, W]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 3] {
        self.parts.shape
    }

    /// Number of images of all splits.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.labels.len()
    }

    /// Never true: an empty set is refused when it is made.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.labels.is_empty()
    }

    /// One name a class.
    #[must_use]
    pub fn class_names(&self) -> &[String] {
        &self.parts.class_names
    }

    /// Indices of the images of a split.
    #[must_use]
    pub fn indices(&self, split: Split) -> &[usize] {
        match split {
            Split::Train => &self.parts.train,
            Split::Validation => &self.parts.validation,
            Split::Test => &self.parts.test,
        }
    }

    /// Class index of every image.
    #[must_use]
    pub fn labels(&self) -> &[u32] {
        &self.parts.labels
    }

    /// Bytes of one image, `[C, H, W]`.
    ///
    /// # Panics
    /// When `index` is not below [`Self::len`].
    #[must_use]
    pub fn pixels(&self, index: usize) -> &[u8] {
        let size: usize = self.parts.shape.iter().product();
        &self.parts.pixels[index * size..(index + 1) * size]
    }

    /// One image as network input, by the data set's own pre-processing.
    ///
    /// # Panics
    /// When `index` is not below [`Self::len`].
    #[must_use]
    pub fn image(&self, index: usize) -> Tensor {
        self.image_with(index, &self.preprocessing)
    }

    /// One image as network input, by the pre-processing of a model.
    ///
    /// # Panics
    /// When `index` is not below [`Self::len`].
    #[must_use]
    pub fn image_with(&self, index: usize, preprocessing: &Preprocessing) -> Tensor {
        let mut tensor = Tensor::full(self.parts.shape.to_vec(), 0.0);
        preprocessing.apply(self.pixels(index), tensor.data_mut());
        tensor
    }

    /// Pre-processing measured on the training split.
    #[must_use]
    pub fn preprocessing(&self) -> &Preprocessing {
        &self.preprocessing
    }

    /// BLAKE3 over shape, pixels, labels, classes and splits, in hexadecimal.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

fn check(parts: &Parts) -> Result<(), DataError> {
    let refuse = |expected: String, found: String| {
        Err(DataError::Format { file: parts.name.clone(), expected, found })
    };
    let size = parts.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).unwrap_or(0);
    if size == 0 || parts.labels.is_empty() {
        let found = format!("{} images of shape {:?}", parts.labels.len(), parts.shape);
        return refuse("at least one image with at least one pixel".to_owned(), found);
    }
    if size.checked_mul(parts.labels.len()) != Some(parts.pixels.len()) {
        let expected = format!("{} images of {size} bytes (one a label)", parts.labels.len());
        return refuse(expected, format!("{} bytes of pixels", parts.pixels.len()));
    }
    let classes = parts.class_names.len();
    if classes == 0 || classes > MAX_CLASSES {
        return refuse(format!("1 to {MAX_CLASSES} classes"), format!("{classes}"));
    }
    if let Some(label) = parts.labels.iter().find(|&&l| l as usize >= classes) {
        return refuse(format!("labels below {classes}"), format!("label {label}"));
    }
    let mut seen = vec![false; parts.labels.len()];
    for &index in parts.train.iter().chain(&parts.validation).chain(&parts.test) {
        match seen.get_mut(index) {
            None => return refuse(format!("split indices below {}", seen.len()), format!("{index}")),
            Some(true) => {
                return refuse("each image in one split".to_owned(), format!("image {index} in two"));
            }
            Some(slot) => *slot = true,
        }
    }
    Ok(())
}

fn fingerprint(parts: &Parts) -> String {
    let mut hash = blake3::Hasher::new_derive_key("polyveil 2026 data set fingerprint");
    for &d in &parts.shape {
        hash.update(&(d as u64).to_le_bytes());
    }
    hash.update(&parts.pixels);
    for label in &parts.labels {
        hash.update(&label.to_le_bytes());
    }
    for name in &parts.class_names {
        hash.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
    }
    for split in [&parts.train, &parts.validation, &parts.test] {
        hash.update(&(split.len() as u64).to_le_bytes());
        for &index in split {
            hash.update(&(index as u64).to_le_bytes());
        }
    }
    hash.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Parts {
        Parts {
            name: "tiny".into(),
            shape: [1, 1, 2],
            pixels: vec![0, 255, 255, 0, 1, 2],
            labels: vec![0, 1, 1],
            class_names: vec!["a".into(), "b".into()],
            train: vec![0, 1],
            validation: vec![],
            test: vec![2],
        }
    }

    #[test]
    fn a_sound_set_passes_and_its_fingerprint_sees_every_part() {
        let reference = DataSet::new(parts()).unwrap();
        let mut other = parts();
        other.pixels[5] = 3;
        assert_ne!(DataSet::new(other).unwrap().fingerprint(), reference.fingerprint());
        let mut other = parts();
        other.validation = other.train.split_off(1);
        assert_ne!(DataSet::new(other).unwrap().fingerprint(), reference.fingerprint());
    }

    #[test]
    fn parts_that_do_not_fit_are_refused_with_both_sides() {
        type Break = fn(&mut Parts);
        let broken: [(&str, Break); 6] = [
            ("5 bytes", |p| p.pixels.truncate(5)),
            ("label 7", |p| p.labels[0] = 7),
            ("image 1 in two", |p| p.test = vec![1]),
            ("9", |p| p.test = vec![9]),
            ("0 images", |p| p.labels.clear()),
            ("[1, 0, 2]", |p| p.shape = [1, 0, 2]),
        ];
        for (needle, breaks) in broken {
            let mut parts = parts();
            breaks(&mut parts);
            let message = DataSet::new(parts).unwrap_err().to_string();
            assert!(message.contains(needle), "{message} lacks {needle}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let message = DataSet::open("no/such/place.npz").unwrap_err().to_string();
        assert!(message.contains("no/such/place.npz"), "{message}");
    }
}
