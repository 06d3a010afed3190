//! Batches, the teacher's scores for them, and one step.

use polyveil_net::{Graph, Tensor};
use rayon::prelude::*;

use super::{Recipe, malformed};
use crate::config::Augmentation;
use crate::data::{DataSet, Preprocessing, Split};
use crate::engine::{
    Batch, Features, ForwardOptions, ParameterId, Soft, StepOutput, Terms, gradient_step, infer, soft_targets,
};
use crate::error::TrainError;
use crate::random::{generator, uniform};

/// Images taken at a time where a whole split is run: as `f32` it may be large.
pub(crate) const PORTION: usize = 256;

/// Makes batches and steps of one run.
pub(super) struct Stepper<'a> {
    recipe: &'a Recipe<'a>,
    data: &'a DataSet,
    /// The teacher's scores by image, where the images are the same in every epoch.
    cached: Option<Cache>,
}

/// The terms of the loss that act inside the network, at one point of a run.
#[derive(Clone, Copy, Default)]
pub(super) struct InnerTerms<'a> {
    /// The ReLU network whose features are matched.
    pub(super) features: Option<Features<'a>>,
    /// Factor on the range penalty.
    pub(super) penalty: f32,
}

/// Scores by image of the data set; empty for images outside the training split.
struct Cache {
    rows: Vec<Vec<f32>>,
}

impl<'a> Stepper<'a> {
    /// Scores all training images by the teacher at once where no augmentation changes them.
    pub(super) fn new(recipe: &'a Recipe<'a>, data: &'a DataSet) -> Result<Self, TrainError> {
        let mut stepper = Self { recipe, data, cached: None };
        let distils = recipe.conversion.as_ref().filter(|c| c.distillation.alpha > 0.0);
        if let Some(c) = distils.filter(|_| *recipe.augmentation == Augmentation::none()) {
            let mut rows = vec![Vec::new(); data.len()];
            for portion in data.indices(Split::Train).chunks(PORTION) {
                let images = inputs(data, recipe.preprocessing, portion);
                let scores = infer(c.teacher, &images, data.shape(), &ForwardOptions::default())
                    .ok_or_else(|| malformed(c.teacher))?;
                for (&image, row) in portion.iter().zip(scores.values.chunks(scores.classes.max(1))) {
                    rows[image] = row.to_vec();
                }
            }
            stepper.cached = Some(Cache { rows });
        }
        Ok(stepper)
    }

    /// The images of a step, changed as this epoch changes them.
    pub(super) fn batch(&self, indices: &[usize], epoch: usize) -> Batch {
        let (data, shape, seed) = (self.data, self.data.shape(), self.recipe.seed);
        let (preprocessing, augmentation) = (self.recipe.preprocessing, self.recipe.augmentation);
        let images = filled(shape, indices, |index| {
            let mut rng = generator(seed, "augmentation", epoch as u64, index as u64);
            data.training_image(index, preprocessing, augmentation, &mut rng)
        });
        let mut batch = Batch {
            shape,
            images,
            labels: indices.iter().map(|&i| data.labels()[i]).collect(),
            mixed: Vec::new(),
        };
        if augmentation.mix > 0.0 {
            let share = |&index: &usize| {
                uniform(&mut generator(seed, "mix", epoch as u64, index as u64), 0.0, augmentation.mix)
            };
            batch.mix(&indices.iter().map(share).collect::<Vec<f32>>());
        }
        batch
    }

    /// Loss and gradients of a batch of these images.
    pub(super) fn step(
        &self,
        graph: &Graph,
        trainable: &[ParameterId],
        indices: &[usize],
        batch: &Batch,
        options: &ForwardOptions,
        InnerTerms { features, penalty }: InnerTerms<'_>,
    ) -> Result<StepOutput, TrainError> {
        let smoothing = self.recipe.label_smoothing;
        let mut terms = Terms { cross_entropy: 1.0, smoothing, soft: None, penalty, features };
        let mut soft = None;
        if let Some(c) = self.recipe.conversion.as_ref().filter(|c| c.distillation.alpha > 0.0) {
            terms.cross_entropy = 1.0 - c.distillation.alpha;
            let temperature = c.distillation.temperature;
            let targets = match &self.cached {
                // The reference network runs in any case, and its scores are the teacher's.
                _ if features.is_some() => None,
                Some(cache) => {
                    let scores: Vec<f32> = indices.iter().flat_map(|&i| cache.rows[i].clone()).collect();
                    let classes = scores.len() / indices.len().max(1);
                    Some(soft_targets(&scores, classes, temperature))
                }
                None => {
                    let scores = infer(c.teacher, &batch.images, batch.shape, &ForwardOptions::default())
                        .ok_or_else(|| malformed(c.teacher))?;
                    Some(soft_targets(&scores.values, scores.classes, temperature))
                }
            };
            soft = Some(Soft { targets, temperature, weight: c.distillation.alpha });
        }
        terms.soft = soft.as_ref();
        gradient_step(graph, trainable, batch, terms, options).ok_or_else(|| malformed(graph))
    }
}

/// Images as the network takes them, without augmentation, one after another.
pub(crate) fn inputs(data: &DataSet, preprocessing: &Preprocessing, indices: &[usize]) -> Vec<f32> {
    filled(data.shape(), indices, |index| data.image_with(index, preprocessing))
}

fn filled(shape: [usize; 3], indices: &[usize], image: impl Fn(usize) -> Tensor + Sync) -> Vec<f32> {
    let size = shape.iter().product::<usize>().max(1);
    let mut all = vec![0.0; size * indices.len()];
    let pairs = all.par_chunks_mut(size).zip(indices);
    pairs.for_each(|(place, &index)| place.copy_from_slice(image(index).data()));
    all
}
