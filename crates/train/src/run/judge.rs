//! What networks are measured by on the validation split: an epoch and a last layer are chosen by it.

use serde::{Deserialize, Serialize};

use super::{PORTION, Recipe, inputs, malformed};
use crate::config::Keep;
use crate::data::{DataSet, Split};
use crate::engine::{ForwardOptions, Scores, infer};
use crate::error::TrainError;
use crate::metrics::{argmax, log_softmax};

/// Chooses between networks of one run.
pub(super) struct Judge {
    keep: Keep,
    /// The teacher's scores of the validation images, one after another; none in a teacher's own training.
    teacher: Option<Scores>,
}

/// What a network is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Merits {
    pub(super) accuracy: f64,
    /// Mean cross-entropy of the finite rows.
    pub(super) loss: f32,
    /// Their mean divergence from the teacher, in nats; 0 where there is none.
    pub(super) distance: f32,
}

/// The same while images are counted.
#[derive(Default)]
pub(super) struct Tally {
    images: usize,
    correct: usize,
    finite: usize,
    loss: f64,
    distance: f64,
}

impl Judge {
    pub(super) fn new(recipe: &Recipe<'_>, data: &DataSet) -> Result<Self, TrainError> {
        let Some(c) = &recipe.conversion else { return Ok(Self { keep: recipe.keep, teacher: None }) };
        let mut all = Scores { values: Vec::new(), classes: 1 };
        for portion in data.indices(Split::Validation).chunks(PORTION) {
            let images = inputs(data, recipe.preprocessing, portion);
            let scores = infer(c.teacher, &images, data.shape(), &ForwardOptions::default());
            let scores = scores.ok_or_else(|| malformed(c.teacher))?;
            all.values.extend(scores.values);
            all.classes = scores.classes;
        }
        Ok(Self { keep: recipe.keep, teacher: Some(all) })
    }

    /// The teacher's scores of `images` validation images from number `first` on; empty where there is none.
    pub(super) fn teacher(&self, first: usize, images: usize) -> &[f32] {
        let rows = |all: &Scores| all.classes * first..all.classes * (first + images);
        self.teacher.as_ref().and_then(|all| all.values.get(rows(all))).unwrap_or(&[])
    }

    /// Larger for the better of two networks; what is compared first comes first.
    pub(super) fn rank(&self, merits: Merits) -> (f64, f64) {
        // What is no number is the worst.
        let least = |value: f32| if value.is_nan() { f64::NEG_INFINITY } else { -f64::from(value) };
        match self.keep {
            Keep::Accuracy => (merits.accuracy, least(merits.loss)),
            Keep::Loss => (least(merits.loss), merits.accuracy),
            Keep::Teacher => (least(merits.distance), merits.accuracy),
            Keep::Last => (0.0, 0.0),
        }
    }

    /// Whether a later network takes the place of an earlier one of these ranks.
    pub(super) fn prefers(&self, later: (f64, f64), earlier: (f64, f64)) -> bool {
        later > earlier || self.keep == Keep::Last
    }
}

impl Tally {
    /// Counts the images of these rows of scores, and of the teacher's rows where there are any.
    pub(super) fn add(&mut self, scores: &Scores, labels: &[u32], teacher: &[f32]) {
        let classes = scores.classes.max(1);
        let mut teacher = teacher.chunks(classes);
        self.images += labels.len();
        for (row, &label) in scores.values.chunks(classes).zip(labels) {
            let wanted = teacher.next();
            let (Some(best), Some(logs)) = (argmax(row), log_softmax(row)) else { continue };
            self.finite += 1;
            self.correct += usize::from(best == label);
            self.loss -= logs.get(label as usize).copied().unwrap_or(0.0);
            let Some(wanted) = wanted.and_then(log_softmax) else { continue };
            let pairs = wanted.into_iter().zip(logs);
            self.distance += pairs.map(|(wanted, found)| wanted.exp() * (wanted - found)).sum::<f64>();
        }
    }

    pub(super) fn merits(&self) -> Merits {
        let mean = |sum: f64| (sum / self.finite.max(1) as f64) as f32;
        Merits {
            accuracy: self.correct as f64 / self.images.max(1) as f64,
            loss: mean(self.loss),
            distance: mean(self.distance),
        }
    }

    pub(super) const fn images(&self) -> usize {
        self.images
    }

    /// Images with a score that is not finite.
    pub(super) const fn non_finite(&self) -> usize {
        self.images - self.finite
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merits(rows: &[f32], labels: &[u32], teacher: &[f32]) -> (Merits, usize) {
        let mut tally = Tally::default();
        tally.add(&Scores { values: rows.to_vec(), classes: 2 }, labels, teacher);
        (tally.merits(), tally.non_finite())
    }

    #[test]
    fn known_values() {
        let third = 3f32.ln();
        // Probabilities 3/4 and 1/4; the teacher's 1/2 and 1/2; an image that escapes counts as wrong and in no mean.
        let (found, non_finite) = merits(&[third, 0.0, f32::NAN, 0.0], &[0, 1], &[5.0, 5.0, 1.0, 0.0]);
        assert_eq!((found.accuracy, non_finite), (0.5, 1));
        assert!((found.loss - (4f32 / 3.0).ln()).abs() < 1e-6, "{found:?}");
        assert!((found.distance - (4f32 / 3.0).ln() / 2.0).abs() < 1e-6, "{found:?}");
        // The same scores shifted are the same answer.
        let (found, _) = merits(&[third, 0.0, 7.0, 9.0], &[0, 1], &[third + 2.0, 2.0, -3.0, -1.0]);
        assert!(found.distance.abs() < 1e-6, "{found:?}");
        assert_eq!(merits(&[third, 0.0], &[1], &[]).0.distance, 0.0);
        // Finite scores further apart than a float reaches: the teacher is sure, the student wrong or right.
        let far = [f32::MAX, -f32::MAX];
        assert_eq!(merits(&far, &[0], &far).0.distance, 0.0);
        assert_eq!(merits(&far, &[0], &[0.0, f32::MAX]).0.distance, f32::INFINITY);
    }

    #[test]
    fn each_choice_has_its_first_and_its_tie() {
        let near = Merits { accuracy: 0.5, loss: 2.0, distance: 0.1 };
        let right = Merits { accuracy: 0.9, loss: 1.0, distance: 0.2 };
        let sure = Merits { accuracy: 0.8, loss: 0.5, distance: 0.2 };
        let best = |keep| {
            let judge = Judge { keep, teacher: None };
            let rank = |m: &&Merits| judge.rank(**m);
            *[near, right, sure].iter().max_by(|a, b| rank(a).partial_cmp(&rank(b)).unwrap()).unwrap()
        };
        assert_eq!([Keep::Accuracy, Keep::Loss, Keep::Teacher].map(best), [right, sure, near]);
        let last = Judge { keep: Keep::Last, teacher: None };
        assert!(
            last.prefers(last.rank(near), last.rank(right))
                && last.prefers(last.rank(right), last.rank(near))
        );
        assert_eq!(last.rank(right), last.rank(near), "no fitted layer is better than another");
        let judge = Judge { keep: Keep::Teacher, teacher: None };
        assert!(judge.rank(right) > judge.rank(sure), "ties go by accuracy");
        assert!(judge.rank(sure) > judge.rank(Merits { distance: f32::NAN, ..near }));
    }
}
