//! Images without labels, on which a student imitates its teacher: the more of them, the more of the teacher's function
//! it sees (Hinton, Vinyals, Dean, arXiv 1503.02531, section 2: a transfer set need have no labels).

use std::collections::HashSet;
use std::path::Path;

use super::{DataError, DataOptions, DataSet, View, load, manifest, tree};

impl DataSet {
    /// Adds the images of a further source, whatever its labels and splits say: anything that [`DataSet::open`] takes,
    /// or a directory of image files. Images that the set holds already, in any split or as unlabelled, are left out, so
    /// none of validation or test is learnt. (By pixels: the same patient in another picture is not seen.)
    ///
    /// # Errors
    /// As [`DataSet::open_with`]; images of another shape than the set's.
    pub fn with_unlabelled(mut self, spec: &str, options: &DataOptions) -> Result<Self, DataError> {
        options.check()?;
        // Other classes are no fault here, and splits that share images do not matter.
        let options = DataOptions { classes: None, strict: false, ..options.clone() };
        let path = Path::new(spec);
        let parts = if !path.join(manifest::FILE).is_file() && tree::is_flat(path) {
            tree::load_flat(path, &options)?
        } else {
            load(spec, &options)?
        };
        let other = Self::with_options(parts, &options)?;
        if other.shape() != self.shape() {
            let expected = format!("images of shape {:?}, as in {}", self.shape(), self.name());
            return Err(DataError::format(spec, expected, format!("{:?}", other.shape())));
        }
        let mut known: HashSet<[u8; 32]> = self.images.iter().map(|v| digest(&v)).collect();
        let mut added = blake3::Hasher::new_derive_key("polyveil 2026 unlabelled images");
        added.update(self.unlabelled_fingerprint.as_bytes());
        let before = self.unlabelled.len();
        for (index, view) in other.images.iter().enumerate() {
            let digest = digest(&view);
            if !known.insert(digest) {
                continue;
            }
            added.update(&digest);
            self.unlabelled.push(self.images.len());
            self.images.put(view.shape, view.pixels);
            self.parts.labels.push(0);
            if !self.parts.names.is_empty() {
                self.parts.names.push(format!("{}/{}", other.name(), other.image_name(index)));
            }
            for places in [&mut self.parts.sources, &mut self.parts.patients] {
                if !places.is_empty() {
                    places.push(None);
                }
            }
        }
        if self.unlabelled.len() > before {
            self.unlabelled_fingerprint = added.finalize().to_hex().to_string();
        }
        Ok(self)
    }

    /// Indices of the images without labels; they are in no split.
    #[must_use]
    pub fn unlabelled(&self) -> &[usize] {
        &self.unlabelled
    }

    /// BLAKE3 over the unlabelled images, in hexadecimal; empty where there are none.
    #[must_use]
    pub fn unlabelled_fingerprint(&self) -> &str {
        &self.unlabelled_fingerprint
    }
}

/// The digest of an image.
pub(super) fn digest(view: &View<'_>) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    view.shape.iter().for_each(|&d| {
        hash.update(&(d as u64).to_le_bytes());
    });
    *hash.update(view.pixels).finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Parts, Split};

    fn set() -> DataSet {
        DataSet::new(Parts {
            name: "own".into(),
            shape: [1, 2, 2],
            pixels: vec![0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3],
            labels: vec![0, 1, 1],
            class_names: vec!["a".into(), "b".into()],
            train: vec![0],
            validation: vec![1],
            test: vec![2],
            ..Parts::default()
        })
        .unwrap()
    }

    fn picture(folder: &Path, name: &str, last: u8) {
        image::GrayImage::from_raw(2, 2, vec![0, 0, 0, last]).unwrap().save(folder.join(name)).unwrap();
    }

    #[test]
    fn images_of_a_folder_are_added_and_those_of_a_split_left_out() {
        let folder = tempfile::tempdir().unwrap();
        for (name, last) in [("1.png", 9), ("2.png", 3), ("3.png", 8), ("4.png", 9)] {
            picture(folder.path(), name, last);
        }
        let spec = folder.path().to_str().unwrap();
        let own = set();
        let (fingerprint, before) = (own.fingerprint().to_owned(), own.indices(Split::Train).to_vec());
        let data = own.with_unlabelled(spec, &DataOptions::default()).unwrap();
        // 3 is a test image, and the second 9 is the first one again.
        assert_eq!(data.unlabelled(), [3, 4]);
        assert_eq!([3, 4].map(|i| data.pixels(i)[3]), [9, 8]);
        assert_eq!(data.indices(Split::Train), before);
        assert_eq!(data.fingerprint(), fingerprint);
        let once = data.unlabelled_fingerprint().to_owned();
        assert_eq!(once.len(), 64);
        let again = data.with_unlabelled(spec, &DataOptions::default()).unwrap();
        assert_eq!((again.unlabelled().len(), again.unlabelled_fingerprint()), (2, once.as_str()));
    }

    #[test]
    fn images_of_another_shape_are_refused_with_both_sides() {
        let folder = tempfile::tempdir().unwrap();
        image::GrayImage::new(3, 3).save(folder.path().join("x.png")).unwrap();
        let spec = folder.path().to_str().unwrap();
        let message = set().with_unlabelled(spec, &DataOptions::default()).unwrap_err().to_string();
        assert!(message.contains("[1, 2, 2]") && message.contains("[1, 3, 3]"), "{message}");
    }
}
