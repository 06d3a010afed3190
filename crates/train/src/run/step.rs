//! Batches, the teacher's scores for them, and one step.

use polyveil_net::{Graph, Tensor};
use rand_core::Rng;
use rayon::prelude::*;

use super::{Recipe, learnt, malformed};
use crate::config::Augmentation;
use crate::data::{DataSet, Preprocessing};
use crate::engine::{
    Batch, Features, ForwardOptions, ParameterId, Soft, StepOutput, Terms, gradient_step, infer, soft_targets,
};
use crate::error::TrainError;
use crate::random::{below, generator, uniform};

/// Images taken at a time where a whole split is run: as `f32` it may be large.
pub(crate) const PORTION: usize = 256;

/// Makes batches and steps of one run.
pub(super) struct Stepper<'a> {
    recipe: &'a Recipe<'a>,
    data: &'a DataSet,
    /// The class of every image: the teacher's answer where it has no label.
    labels: Vec<u32>,
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
        let mut stepper = Self { recipe, data, labels: data.labels().to_vec(), cached: None };
        if let Some(c) = &recipe.conversion {
            let graded =
                each_score(c.teacher, recipe.preprocessing, data, data.unlabelled(), |image, row| {
                    stepper.labels[image] = argmax(row);
                });
            graded?;
        }
        let distils = recipe.conversion.as_ref().filter(|c| c.distillation.alpha > 0.0);
        if let Some(c) = distils.filter(|_| *recipe.augmentation == Augmentation::none()) {
            let mut rows = vec![Vec::new(); data.len()];
            let put = |image: usize, row: &[f32]| rows[image] = row.to_vec();
            each_score(c.teacher, recipe.preprocessing, data, &learnt(recipe, data), put)?;
            stepper.cached = Some(Cache { rows });
        }
        Ok(stepper)
    }

    /// The images of a step, changed as this epoch changes them.
    pub(super) fn batch(&self, indices: &[usize], epoch: usize) -> Batch {
        let (data, seed) = (self.data, self.recipe.seed);
        let (preprocessing, augmentation) = (self.recipe.preprocessing, self.recipe.augmentation);
        let shape = self.recipe.patch(epoch, data.shape());
        let images = filled(shape, indices, |index| {
            let mut rng = generator(seed, "augmentation", epoch as u64, index as u64);
            let image = data.training_image(index, preprocessing, augmentation, &mut rng);
            patch(image, data.shape(), shape, &mut rng)
        });
        let mut batch = Batch {
            shape,
            images,
            labels: indices.iter().map(|&i| self.labels[i]).collect(),
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

    /// From where on the loss of an image counts by its logarithm.
    fn most(&self) -> f32 {
        let most = self.recipe.guard.image_loss;
        if most > 0.0 { most } else { f32::INFINITY }
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
        let mut terms =
            Terms { cross_entropy: 1.0, smoothing, penalty, features, most: self.most(), ..Terms::NONE };
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

/// Calls `f(image, scores)` for every image of a list, not augmented.
fn each_score(
    graph: &Graph,
    preprocessing: &Preprocessing,
    data: &DataSet,
    indices: &[usize],
    mut f: impl FnMut(usize, &[f32]),
) -> Result<(), TrainError> {
    for portion in indices.chunks(PORTION) {
        let images = inputs(data, preprocessing, portion);
        let scores = infer(graph, &images, data.shape(), &ForwardOptions::default())
            .ok_or_else(|| malformed(graph))?;
        portion.iter().zip(scores.values.chunks(scores.classes.max(1))).for_each(|(&i, row)| f(i, row));
    }
    Ok(())
}

fn argmax(row: &[f32]) -> u32 {
    let best = row.iter().enumerate().max_by(|l, r| l.1.total_cmp(r.1));
    best.map_or(0, |(class, _)| class as u32)
}

/// A part of an image, from a random place.
fn patch(
    image: Tensor,
    [channels, height, width]: [usize; 3],
    part: [usize; 3],
    rng: &mut impl Rng,
) -> Tensor {
    let [_, rows, columns] = part;
    if [rows, columns] == [height, width] {
        return image;
    }
    let (top, left) = (below(rng, height - rows + 1), below(rng, width - columns + 1));
    let mut out = Tensor::full(part.to_vec(), 0.0);
    let lines = (0..channels).flat_map(|c| (0..rows).map(move |row| (c * height + top + row) * width + left));
    for (to, from) in out.data_mut().chunks_mut(columns).zip(lines) {
        to.copy_from_slice(&image.data()[from..from + columns]);
    }
    out
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
