//! Labelled image sets: what they are, how they are found, how pixels become network input.
//!
//! | data | module |
//! |---|---|
//! | `mnist5k`, embedded | [`mnist5k`] |
//! | folder with a `manifest.csv` | [`manifest`] |
//! | folder with one sub-folder a class, also below `train`, `val`, `test` | `tree` |
//! | more images, without labels, to imitate the teacher on | `unlabelled` |
//! | folder of idx files | [`idx`] |
//! | CIFAR files (`.bin`, `.bin.gz`) or a folder of them | [`cifar`] |
//! | `.npz` | [`npz`] |
//! | `.safetensors` | [`tensors`] |
//!
//! Images are kept as bytes; those of files are scaled once, when read, to the short side that their
//! [`Geometry`] says, and cut when asked for: at the centre, or at random for training.
//! [`Preprocessing`] turns bytes into `f32`. Every loader checks what it reads and names the file, what
//! was expected and what was found; memory is bounded by what a file really holds, and by [`MAX_BYTES`].

mod augment;
pub mod cifar;
mod error;
mod fit;
mod folder;
mod gather;
pub mod idx;
mod images;
mod leaks;
pub mod manifest;
pub mod mnist5k;
pub mod npy;
pub mod npz;
mod options;
pub mod picture;
mod preprocessing;
mod split;
pub mod tensors;
mod tree;
mod unlabelled;

pub use error::DataError;
pub use images::{Images, View};
pub use leaks::{Leak, Leaks};
pub use options::{Color, DataOptions, ImageSize, MAX_SIDE, Normalise, SplitRule};
pub use preprocessing::{Geometry, Preprocessing};

use std::path::Path;

use polyveil_net::Tensor;
use rand_core::Rng;
use serde::{Deserialize, Serialize};

use crate::config::Augmentation;

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

impl Split {
    /// From its name in files: `train`, `val` (also `valid`, `validation`), `test`, in any case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "train" | "training" => Self::Train,
            "val" | "valid" | "validation" => Self::Validation,
            "test" => Self::Test,
            _ => return None,
        })
    }
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
    /// `[C, H, W]` of the network input; that of the images where they are in `pixels`.
    pub shape: [usize; 3],
    /// All images, one after another, each of `shape`.
    pub pixels: Vec<u8>,
    /// Images of other sizes, in place of `pixels`.
    pub stored: Images,
    /// How `stored` becomes input.
    pub geometry: Option<Geometry>,
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
    /// Where each image comes from; empty where nothing is known.
    pub sources: Vec<Option<String>>,
    /// Whose each image is; empty where nothing is known.
    pub patients: Vec<Option<String>>,
    /// The file of each image; empty where images have none.
    pub names: Vec<String>,
}

impl Parts {
    /// Patient and source: the same number in two sources is two people.
    fn patient_key(&self, index: usize) -> Option<(Option<&str>, &str)> {
        let patient = self.patients.get(index)?.as_deref()?;
        Some((self.sources.get(index).and_then(Option::as_deref), patient))
    }

    fn image_name(&self, index: usize) -> String {
        self.names.get(index).cloned().unwrap_or_else(|| format!("image {index}"))
    }
}

/// A checked set of labelled images with fixed splits.
#[derive(Clone, Debug)]
pub struct DataSet {
    /// Without the images.
    parts: Parts,
    images: Images,
    preprocessing: Preprocessing,
    leaks: Leaks,
    fingerprint: String,
    /// Images in no split.
    unlabelled: Vec<usize>,
    unlabelled_fingerprint: String,
}

impl DataSet {
    /// Opens a data set (see the [module](self) for what there is), images as they are.
    ///
    /// # Errors
    /// Naming the file, what was expected and what was found.
    pub fn open(spec: &str) -> Result<Self, DataError> {
        Self::open_with(spec, &DataOptions::default())
    }

    /// Opens a data set: `mnist5k`, a file, or a directory.
    ///
    /// # Errors
    /// Naming the file, what was expected and what was found; options out of range; with
    /// [`DataOptions::strict`] also images or patients in two splits.
    pub fn open_with(spec: &str, options: &DataOptions) -> Result<Self, DataError> {
        options.check()?;
        Self::with_options(load(spec, options)?, options)
    }

    /// Checks `parts` and derives pre-processing (from the training split) and fingerprint.
    ///
    /// # Errors
    /// When pixels, labels, classes and splits do not fit each other.
    pub fn new(parts: Parts) -> Result<Self, DataError> {
        Self::with_options(parts, &DataOptions::default())
    }

    /// [`DataSet::new`], with images brought to the size and colour that `options` ask for.
    ///
    /// # Errors
    /// As [`DataSet::new`], and options that do not fit the images.
    pub fn with_options(mut parts: Parts, options: &DataOptions) -> Result<Self, DataError> {
        options.check()?;
        let mut images = std::mem::take(&mut parts.stored);
        if parts.geometry.is_none() {
            check_uniform(&parts)?;
            images = Images::uniform(parts.shape, std::mem::take(&mut parts.pixels));
        }
        check(&parts, &images)?;
        if parts.geometry.is_none()
            && !options.files_only
            && (options.image_size.is_some() || options.color != Color::Auto)
        {
            let [channels, rows, columns] = parts.shape;
            let geometry = fit::resolve(&parts.name, options, &[[rows, columns]], channels == 1, false)?;
            if geometry.shape() != parts.shape || geometry.resize != rows.min(columns) {
                images = fit::scale(&parts.name, &images, geometry)?;
                parts.shape = geometry.shape();
                parts.geometry = Some(geometry);
            }
        }
        let (channels, geometry) = (parts.shape[0], parts.geometry);
        let preprocessing = Preprocessing::new(&images, &parts.train, channels, options.normalise, geometry)?;
        let leaks = Leaks::find(&parts, &images);
        if options.strict && !leaks.is_empty() {
            return Err(DataError::Leak { data: parts.name, leaks });
        }
        let fingerprint = fingerprint(&parts, &images);
        let (unlabelled, unlabelled_fingerprint) = (Vec::new(), String::new());
        Ok(Self { parts, images, preprocessing, leaks, fingerprint, unlabelled, unlabelled_fingerprint })
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

    /// Number of images of all splits, and of those without labels.
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

    /// One image as it is stored.
    ///
    /// # Panics
    /// When `index` is not below [`Self::len`].
    #[must_use]
    pub fn stored(&self, index: usize) -> View<'_> {
        #[expect(clippy::expect_used, reason = "documented, as for a slice")]
        self.images.get(index).expect("an index below the number of images")
    }

    /// Bytes of one image as it is stored, `[C, H, W]`.
    ///
    /// # Panics
    /// When `index` is not below [`Self::len`].
    #[must_use]
    pub fn pixels(&self, index: usize) -> &[u8] {
        self.stored(index).pixels
    }

    /// One image as network input, by the data set's own pre-processing.
    ///
    /// # Panics
    /// When `index` is not below [`Self::len`].
    #[must_use]
    pub fn image(&self, index: usize) -> Tensor {
        self.image_with(index, &self.preprocessing)
    }

    /// One image as network input, by the pre-processing of a model: the centre of the stored image.
    ///
    /// # Panics
    /// When `index` is not below [`Self::len`].
    #[must_use]
    pub fn image_with(&self, index: usize, preprocessing: &Preprocessing) -> Tensor {
        let [_, height, width] = self.parts.shape;
        self.input(self.stored(index).centre([height, width]), preprocessing)
    }

    /// One image changed at random, as network input for training.
    ///
    /// # Panics
    /// When `index` is not below [`Self::len`].
    pub fn training_image(
        &self,
        index: usize,
        preprocessing: &Preprocessing,
        augmentation: &Augmentation,
        rng: &mut impl Rng,
    ) -> Tensor {
        let [_, height, width] = self.parts.shape;
        let values = augment::augmented(self.stored(index), [height, width], augmentation, rng);
        let mut input = self.input(values, preprocessing);
        augment::amplify(input.data_mut(), augmentation, rng);
        input
    }

    fn input(&self, values: Vec<f32>, preprocessing: &Preprocessing) -> Tensor {
        let [channels, height, width] = self.parts.shape;
        let values = preprocessing.input(values, self.parts.shape);
        #[expect(
            clippy::expect_used,
            reason = "views have the data set's size and one or all of its channels"
        )]
        Tensor::new(vec![channels, height, width], values).expect("planes of the data set's shape")
    }

    /// Where an image comes from, where that is known.
    #[must_use]
    pub fn source(&self, index: usize) -> Option<&str> {
        self.parts.sources.get(index)?.as_deref()
    }

    /// Whose an image is, where that is known. Unique within a source.
    #[must_use]
    pub fn patient(&self, index: usize) -> Option<&str> {
        self.parts.patients.get(index)?.as_deref()
    }

    /// Name of an image: its file, else its number.
    #[must_use]
    pub fn image_name(&self, index: usize) -> String {
        self.parts.image_name(index)
    }

    /// Images and patients that are in two splits.
    #[must_use]
    pub fn leaks(&self) -> &Leaks {
        &self.leaks
    }

    /// A weight a class, inverse to its number of training images, with mean 1 over these images; 0 for
    /// classes without any.
    #[must_use]
    pub fn class_weights(&self) -> Vec<f32> {
        let mut counts = vec![0usize; self.parts.class_names.len()];
        self.parts.train.iter().for_each(|&i| counts[self.parts.labels[i] as usize] += 1);
        let present = counts.iter().filter(|&&c| c > 0).count();
        let weight = |&count: &usize| match count {
            0 => 0.0,
            _ => self.parts.train.len() as f32 / (present * count) as f32,
        };
        counts.iter().map(weight).collect()
    }

    /// Pre-processing measured on the training split.
    #[must_use]
    pub fn preprocessing(&self) -> &Preprocessing {
        &self.preprocessing
    }

    /// BLAKE3 over shape, pixels, labels, classes and splits, in hexadecimal. It leaves out unlabelled images.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

fn load(spec: &str, options: &DataOptions) -> Result<Parts, DataError> {
    if spec == mnist5k::NAME {
        return mnist5k::load();
    }
    let path = Path::new(spec);
    let metadata = std::fs::metadata(path).map_err(|source| DataError::io(path, source))?;
    if metadata.is_dir() {
        return folder::load(path, options);
    }
    let suffix = |text: &str| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(text));
    if path.file_name().is_some_and(|n| n == manifest::FILE) {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        return manifest::load(parent.unwrap_or(Path::new(".")), options);
    }
    if suffix("npz") {
        return npz::load(path, options);
    }
    if suffix("safetensors") {
        return tensors::load(path, options);
    }
    if cifar::is_file_name(path) {
        return cifar::load(folder::stem(path), &[path.to_owned()], options);
    }
    Err(DataError::Format {
        file: spec.to_owned(),
        expected:
            "the name mnist5k, an .npz, .safetensors or CIFAR (.bin, .bin.gz) file, or a directory of images \
                   (manifest.csv, or one folder a class), of CIFAR files or of idx files"
                .to_owned(),
        found: "another kind of file".to_owned(),
    })
}

fn check_uniform(parts: &Parts) -> Result<(), DataError> {
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
    Ok(())
}

fn check(parts: &Parts, images: &Images) -> Result<(), DataError> {
    let refuse = |expected: String, found: String| {
        Err(DataError::Format { file: parts.name.clone(), expected, found })
    };
    if images.is_empty() || images.len() != parts.labels.len() {
        let found = format!("{} images, {} labels", images.len(), parts.labels.len());
        return refuse("at least one image, and a label for each".to_owned(), found);
    }
    let [channels, ..] = parts.shape;
    if let Some(view) = images.iter().find(|v| !(v.shape[0] == channels || v.shape[0] == 1)) {
        return refuse(format!("images of 1 or {channels} channels"), format!("{:?}", view.shape));
    }
    for (what, count) in
        [("sources", parts.sources.len()), ("patients", parts.patients.len()), ("names", parts.names.len())]
    {
        if count != 0 && count != images.len() {
            return refuse(format!("{} {what}, one an image", images.len()), count.to_string());
        }
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

fn fingerprint(parts: &Parts, images: &Images) -> String {
    let mut hash = blake3::Hasher::new_derive_key("polyveil 2026 data set fingerprint");
    for &d in &parts.shape {
        hash.update(&(d as u64).to_le_bytes());
    }
    hash.update(images.bytes());
    // Images of the data set's shape need no word about theirs.
    for view in images.iter().filter(|v| v.shape != parts.shape) {
        view.shape.iter().for_each(|&d| {
            hash.update(&(d as u64).to_le_bytes());
        });
    }
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
            ..Parts::default()
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
    fn class_weights_are_inverse_to_frequency_on_the_training_split() {
        let mut parts = parts();
        parts.class_names.push("absent".into());
        parts.test.clear();
        parts.train = vec![0, 1, 2];
        assert_eq!(DataSet::new(parts).unwrap().class_weights(), [1.5, 0.75, 0.0]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let message = DataSet::open("no/such/place.npz").unwrap_err().to_string();
        assert!(message.contains("no/such/place.npz"), "{message}");
    }
}
