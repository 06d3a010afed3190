//! The course of a run as plain data, for plots and reports.

use serde::{Deserialize, Serialize};

use crate::control::Phase;
use crate::data::Split;

/// One record an epoch, and what else happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Finished epochs in order.
    pub epochs: Vec<EpochRecord>,
    /// Roll-backs and skipped steps.
    pub events: Vec<Event>,
    /// The epoch (from 1) whose network was exported.
    pub best_epoch: Option<usize>,
}

/// One epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// From 1.
    pub epoch: usize,
    /// What the epoch did.
    pub phase: Phase,
    /// Share of the transition at the end of the epoch: 0 = ReLU, 1 = quadratic.
    pub transition: f32,
    /// Learning rate at the end of the epoch.
    pub learning_rate: f32,
    /// Mean loss over the steps: all terms together.
    pub loss: f32,
    /// Cross-entropy term, unweighted.
    pub cross_entropy: f32,
    /// Distillation term `T²·KL`, unweighted; 0 without a teacher.
    pub distillation: f32,
    /// Range penalty, unweighted.
    pub penalty: f32,
    /// Accuracy on the (augmented) training images.
    pub train_accuracy: f64,
    /// Accuracy on the validation split, in inference mode.
    pub validation_accuracy: f64,
    /// Mean cross-entropy on the validation split.
    pub validation_loss: f32,
    /// Mean Kullback-Leibler divergence from the teacher's answers there, in nats; 0 without a teacher, and in histories older
    /// than 2026-11-29.
    #[serde(default)]
    pub teacher_distance: f32,
    /// Validation images with a score that is not finite.
    pub non_finite: usize,
    /// State of every quadratic activation after the epoch.
    pub activations: Vec<ActivationRecord>,
}

/// One quadratic activation after an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActivationRecord {
    /// Node name.
    pub node: String,
    /// Mean of `a` over channels.
    pub a: f32,
    /// Mean of `b`.
    pub b: f32,
    /// Mean of `c`.
    pub c: f32,
    /// Smallest `|a|`.
    pub min_abs_a: f32,
    /// Largest `|b / 2a|`: the shift of the completed square.
    pub max_shift: f32,
    /// Largest `|x|` of its input on the validation split.
    pub max_abs_input: f32,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The network may be exported.
    Accepted,
    /// No epoch gave a network that may be exported.
    NotAcceptable {
        /// What stands against the best one.
        refusal: Refusal,
    },
    /// Steps kept giving values that are not finite, and no epoch before gave an acceptable network.
    Diverged {
        /// First layer whose values are not finite; `gradient` where all values were.
        layer: String,
        /// Epoch (from 1) of the last attempt.
        epoch: usize,
        /// Roll-backs tried.
        retries: u32,
    },
}

/// Why a network may not be exported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Scores are not finite.
    NonFinite {
        /// Where.
        split: Split,
        /// Images with such a score.
        images: usize,
        /// Images of the split.
        total: usize,
    },
    /// An activation's input leaves the declared bound.
    OutOfRange {
        /// Where.
        split: Split,
        /// The first such layer.
        layer: String,
        /// Its largest `|x|`.
        value: f32,
        /// The bound of this layer.
        bound: f32,
    },
    /// No epoch was finished after the transition.
    Unfinished,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NonFinite { split, images, total } => {
                write!(f, "scores of {images} of {total} {split} images are not finite")
            }
            Self::OutOfRange { split, layer, value, bound } => {
                write!(f, "{split} images reach |x| = {value:.3} at layer {layer}, {bound:.3} is declared")
            }
            Self::Unfinished => f.write_str("no epoch was finished after the transition"),
        }
    }
}

/// Time that a run took, over all its interruptions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Seconds of all finished epochs.
    pub seconds: f64,
    /// Those of them spent on training steps (the rest is validation).
    pub step_seconds: f64,
    /// Training images that went through steps.
    pub images: u64,
}

impl Timing {
    /// Training images a second; 0 where there were none.
    #[must_use]
    pub fn images_per_second(&self) -> f64 {
        if self.step_seconds > 0.0 { self.images as f64 / self.step_seconds } else { 0.0 }
    }
}

/// Something out of the ordinary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A step gave values that are not finite and was left out.
    SkippedStep {
        /// Epoch, from 1.
        epoch: usize,
        /// Step, from 1.
        step: usize,
        /// First layer whose values are not finite; `gradient` where all values were finite.
        layer: String,
    },
    /// The run went back to the start of an epoch with half the learning rate.
    RolledBack {
        /// Epoch, from 1.
        epoch: usize,
        /// First layer whose values are not finite.
        layer: String,
        /// Factor on the learning rate from now on.
        rate_factor: f32,
    },
    /// Scores or activation inputs of single images were out of range, or nearly; images with sharper edges than this are made smaller,
    /// which brings them back (`Preprocessing::edges`).
    EdgesLimited {
        /// Most sharpness.
        limit: f32,
        /// Share of the training images that are made smaller.
        share: f64,
    },
    /// The same, where limits on edges did not: all inputs are multiplied by this.
    InputsReduced {
        /// Below 1.
        factor: f32,
    },
    /// The last layer was fitted by itself, which made it better on the validation split.
    LastLayerFitted {
        /// Its name.
        layer: String,
        /// The ridge that was best, relative to the mean cross-entropy of training images.
        ridge: f32,
        /// Accuracy on the validation split before.
        before: f64,
        /// And after.
        after: f64,
    },
    /// The run ended here: no roll-back was left.
    GaveUp {
        /// Epoch, from 1.
        epoch: usize,
        /// First layer whose values are not finite.
        layer: String,
    },
}
