//! How a caller watches, stops and resumes a run.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Handles of a caller on a run. The default neither reports, stops nor saves.
#[derive(Default)]
pub struct RunControl<'a> {
    /// Called after every step and every epoch, on the calling thread. Should be quick.
    pub progress: Option<&'a dyn Fn(&Progress)>,
    /// Checked before every step; when true the run ends with [`crate::TrainError::Cancelled`].
    pub cancel: Option<&'a AtomicBool>,
    /// Directory for the checkpoint (`teacher.ckpt`, `student.ckpt`), written after epochs (so
    /// often that it costs at most a twentieth of the time) and removed when the run succeeds. A run that finds one of its own goes on from it, to the same
    /// result as a run that was never interrupted.
    pub checkpoint_dir: Option<PathBuf>,
    /// Leaves the checkpoint of a complete run: the same call then yields its result again at once.
    pub keep_checkpoint: bool,
}

impl RunControl<'_> {
    pub(crate) fn cancelled(&self) -> bool {
        self.cancel.is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    pub(crate) fn report(&self, progress: &Progress) {
        if let Some(callback) = self.progress {
            callback(progress);
        }
    }
}

/// What a run is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Training the ReLU network.
    Teacher,
    /// Student with average pools, still with ReLU.
    Recover,
    /// ReLU turning into quadratics.
    Transition,
    /// All activations quadratic.
    Settle,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Teacher => "teacher",
            Self::Recover => "recover",
            Self::Transition => "transition",
            Self::Settle => "settle",
        })
    }
}

/// State of a run at one moment.
#[derive(Clone, Debug)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// Current epoch, from 1.
    pub epoch: usize,
    /// Epochs of the run.
    pub epochs: usize,
    /// Steps done in this epoch.
    pub step: usize,
    /// Steps of an epoch.
    pub steps: usize,
    /// Share of the transition done: 0 = ReLU, 1 = quadratic.
    pub transition: f32,
    /// Mean training loss of this epoch so far.
    pub loss: f32,
    /// Accuracy on the validation split, once the epoch's steps are done.
    pub validation_accuracy: Option<f64>,
    /// Mean divergence of a student from its teacher there, in nats; with the accuracy.
    pub teacher_distance: Option<f32>,
    /// Time since this call began.
    pub elapsed: Duration,
    /// Time left at the present speed; none before the first step.
    pub remaining: Option<Duration>,
}
