//! Time spent and left.

use std::time::{Duration, Instant};

use super::{Recipe, Sums, steps_per_epoch};
use crate::control::{Phase, Progress};
use crate::data::DataSet;
use crate::history::EpochRecord;

/// Time spent and left.
pub(super) struct Clock {
    start: Instant,
    pub(super) steps_done: usize,
    steps_due: usize,
}

impl Clock {
    pub(super) fn new(recipe: &Recipe<'_>, data: &DataSet, epoch: usize) -> Self {
        let due = (recipe.epochs.saturating_sub(epoch)) * steps_per_epoch(recipe, data);
        Self { start: Instant::now(), steps_done: 0, steps_due: due }
    }

    pub(super) fn step_progress(
        &self,
        recipe: &Recipe<'_>,
        epoch: usize,
        sums: &Sums,
        step: usize,
        steps: usize,
    ) -> Progress {
        let position = epoch as f64 + step as f64 / steps as f64;
        let conversion = recipe.conversion.as_ref();
        Progress {
            phase: conversion.map_or(Phase::Teacher, |c| c.transition.phase(epoch)),
            epoch: epoch + 1,
            epochs: recipe.epochs,
            step,
            steps,
            transition: conversion.map_or(0.0, |c| c.transition.share(position)),
            loss: sums.mean(sums.total.loss),
            validation_accuracy: None,
            teacher_distance: None,
            elapsed: self.start.elapsed(),
            remaining: self.remaining(),
        }
    }

    pub(super) fn progress(&self, record: &EpochRecord, recipe: &Recipe<'_>) -> Progress {
        Progress {
            phase: record.phase,
            epoch: record.epoch,
            epochs: recipe.epochs,
            step: 1,
            steps: 1,
            transition: record.transition,
            loss: record.loss,
            validation_accuracy: Some(record.validation_accuracy),
            teacher_distance: recipe.conversion.as_ref().map(|_| record.teacher_distance),
            elapsed: self.start.elapsed(),
            remaining: self.remaining(),
        }
    }

    fn remaining(&self) -> Option<Duration> {
        let left = self.steps_due.saturating_sub(self.steps_done);
        (self.steps_done > 0).then(|| self.start.elapsed().mul_f64(left as f64 / self.steps_done as f64))
    }
}
