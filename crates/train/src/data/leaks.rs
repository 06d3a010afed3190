//! The same image or patient in two splits: figures on such data say more than they should.

use std::collections::HashMap;

use rayon::prelude::*;

use super::unlabelled::digest;
use super::{Parts, Split};

/// What two splits share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaks {
    /// Images of one split that another holds as well, pixel for pixel.
    pub images: Vec<Leak>,
    /// Patients with images in both splits.
    pub patients: Vec<Leak>,
}

/// One pair of splits that share something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leak {
    /// The splits; counted is what the second shares with the first.
    pub splits: [Split; 2],
    /// How many.
    pub count: usize,
    /// The first of them: an image, or a patient.
    pub example: String,
}

impl Leaks {
    /// No leak at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.images.is_empty() && self.patients.is_empty()
    }

    /// `images`: the stored images, in order.
    pub(super) fn find(parts: &Parts, images: &super::Images) -> Self {
        let digests: Vec<Option<[u8; 32]>> = (0..images.len())
            .into_par_iter()
            .map(|index| images.get(index).map(|view| digest(&view)))
            .collect();
        let splits = [
            (Split::Train, &parts.train),
            (Split::Validation, &parts.validation),
            (Split::Test, &parts.test),
        ];
        Self {
            images: shared(&splits, |i| digests.get(i).copied().flatten(), false, |i| parts.image_name(i)),
            patients: shared(
                &splits,
                |i| parts.patient_key(i),
                true,
                |i| parts.patients.get(i).cloned().flatten().unwrap_or_default(),
            ),
        }
    }
}

/// For every pair of splits the keys of the later one that the earlier one has too: each image, or
/// (`once`) each key once.
fn shared<K: std::hash::Hash + Eq + Clone>(
    splits: &[(Split, &Vec<usize>); 3],
    key: impl Fn(usize) -> Option<K>,
    once: bool,
    name: impl Fn(usize) -> String,
) -> Vec<Leak> {
    let mut leaks = Vec::new();
    for (position, (earlier, members)) in splits.iter().enumerate() {
        let keys: HashMap<K, ()> = members.iter().filter_map(|&i| Some((key(i)?, ()))).collect();
        for (later, others) in &splits[position + 1..] {
            let mut counted: HashMap<K, ()> = HashMap::new();
            let mut found = others.iter().filter(|&&i| {
                key(i).is_some_and(|k| keys.contains_key(&k) && !(once && counted.insert(k, ()).is_some()))
            });
            if let Some(&first) = found.next() {
                let count = 1 + found.count();
                leaks.push(Leak { splits: [*earlier, *later], count, example: name(first) });
            }
        }
    }
    leaks
}

impl std::fmt::Display for Leaks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let image = |l: &Leak| {
            let [first, second] = l.splits;
            format!(
                "{} images of the {second} split are in the {first} split too (first: {})",
                l.count, l.example
            )
        };
        let patient = |l: &Leak| {
            let [first, second] = l.splits;
            format!("{} patients are in the {first} and the {second} split (first: {})", l.count, l.example)
        };
        let lines: Vec<String> =
            self.images.iter().map(image).chain(self.patients.iter().map(patient)).collect();
        f.write_str(&lines.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DataOptions, DataSet};
    use super::*;

    fn parts() -> Parts {
        Parts {
            name: "t".into(),
            shape: [1, 1, 2],
            pixels: vec![1, 2, 3, 4, 1, 2, 5, 6, 1, 2, 9, 9],
            labels: vec![0; 6],
            class_names: vec!["a".into()],
            train: vec![0, 1],
            validation: vec![2, 3],
            test: vec![4, 5],
            sources: ["x", "x", "x", "y", "y", "x"].map(|s| Some(s.to_owned())).to_vec(),
            patients: ["p", "q", "r", "p", "q", "q"].map(|s| Some(s.to_owned())).to_vec(),
            ..Parts::default()
        }
    }

    #[test]
    fn shared_images_and_patients_are_counted_by_pair_of_splits() {
        let data = DataSet::new(parts()).unwrap();
        let leaks = data.leaks();
        let pair = |first, second, count, example: &str| Leak {
            splits: [first, second],
            count,
            example: example.into(),
        };
        use Split::{Test, Train, Validation};
        assert_eq!(
            leaks.images,
            [
                pair(Train, Validation, 1, "image 2"),
                pair(Train, Test, 1, "image 4"),
                pair(Validation, Test, 1, "image 4")
            ]
        );
        // Patient p of source y is another person than p of source x.
        assert_eq!(leaks.patients, [pair(Train, Test, 1, "q")]);
        assert!(leaks.to_string().contains("1 patients are in the train and the test split (first: q)"));
    }

    #[test]
    fn strict_data_is_refused_and_clean_data_is_not() {
        let strict = DataOptions { strict: true, ..DataOptions::default() };
        let message = DataSet::with_options(parts(), &strict).unwrap_err().to_string();
        assert!(message.contains("1 images of the validation split are in the train split"), "{message}");
        let mut clean = parts();
        clean.validation.clear();
        clean.test = vec![3];
        assert!(DataSet::with_options(clean, &strict).unwrap().leaks().is_empty());
    }
}
