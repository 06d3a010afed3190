//! Smaller inputs for images with sharp edges.
//!
//! In a network of quadratics the values of single odd images escape: each layer squares what the one before made too large. They are
//! the images with the sharpest edges (docs/results.md), as first layers of trained networks look for edges; the deviation of an image, which
//! standardising brings to one, says little about them. So sharper images are made smaller as a whole until their edges are no sharper than a
//! limit. The pre-processing does that in the clear, at no level. A student trained on inputs of all sizes from 1 − a/2 to 1 + a
//! (`augmentation.amplify` = a) answers much the same to an image made a little smaller, and a ReLU network does but for its biases.

use rayon::prelude::*;

use polyveil_net::Graph;

use super::validate::{observe, refuse};
use super::{Recipe, RunOutput, options};
use crate::data::{DataSet, Preprocessing, Split};
use crate::error::TrainError;
use crate::history::{Event, Refusal, Verdict};

/// Shares of training images that are left as they are, one tried after another.
const SHARES: [f64; 5] = [0.95, 0.9, 0.8, 0.65, 0.5];
/// Where none of them will do, it is not edges that drive values out of range, and all inputs are made smaller: from one factor tried
/// to the next.
const STEP: f32 = 0.95;
/// What is exported was acceptable for inputs this times their size as well: other images are to come.
const ROOM: f32 = 1.1;
/// Accuracy that room may cost a network which could be exported without.
const PRICE: f64 = 0.01;

/// Pre-processing that leaves this share of the training images as they are, and makes sharper ones smaller. 0 and 1 = all are left.
pub(crate) fn limited(preprocessing: Preprocessing, data: &DataSet, share: f32) -> Preprocessing {
    if share <= 0.0 || share >= 1.0 {
        return preprocessing;
    }
    let limit = quantile(&sharpness(&preprocessing, data), f64::from(share)).filter(|limit| *limit > 0.0);
    // One that holds already is not loosened.
    let edges = [preprocessing.edges, limit].into_iter().flatten().reduce(f32::min);
    Preprocessing { edges, ..preprocessing }
}

/// Looks for the least change of inputs with which a network may be exported with room to spare, unless it may be as it is. Where there
/// is none within what it was trained for, or only one that costs accuracy, an acceptable network is left alone.
pub(super) fn settle(recipe: &Recipe<'_>, output: &mut RunOutput, data: &DataSet) -> Result<(), TrainError> {
    let Some(c) = recipe.conversion.as_ref().filter(|c| c.range.edges > 0.0) else { return Ok(()) };
    let accepted = match &output.verdict {
        Verdict::Accepted => true,
        Verdict::NotAcceptable { refusal: Refusal::NonFinite { .. } | Refusal::OutOfRange { .. } } => false,
        _ => return Ok(()),
    };
    let acceptable = |preprocessing: &Preprocessing| acceptable(recipe, &output.graph, data, preprocessing);
    let has_room = |preprocessing: &Preprocessing| {
        acceptable(&preprocessing.amplified(ROOM)).map(|accuracy| accuracy.is_some())
    };
    if c.range.declared <= 0.0 || accepted && has_room(recipe.preprocessing)? {
        return Ok(());
    }
    let sharpness = sharpness(recipe.preprocessing, data);
    for (preprocessing, event) in candidates(recipe.preprocessing, &sharpness, recipe.augmentation.amplify) {
        if !has_room(&preprocessing)? {
            continue;
        }
        let Some(accuracy) = acceptable(&preprocessing)? else { continue };
        if !accepted || accuracy >= output.validation_accuracy - PRICE {
            tracing::info!(?event, "inputs made smaller, to keep every value in range");
            output.history.events.push(event);
            output.validation_accuracy = accuracy;
            output.verdict = Verdict::Accepted;
            output.preprocessing = preprocessing;
        }
        break;
    }
    Ok(())
}

/// Accuracy on the validation split of a network that may be exported; none of one that may not.
fn acceptable(
    recipe: &Recipe<'_>,
    graph: &Graph,
    data: &DataSet,
    preprocessing: &Preprocessing,
) -> Result<Option<f64>, TrainError> {
    let options = options(recipe, graph, recipe.epochs as f64, false);
    let mut accuracy = None;
    // The split with fewer images first.
    for split in [Split::Validation, Split::Train] {
        let pass = observe(preprocessing, graph, data, split, None, &options)?;
        if refuse(recipe, graph, split, &pass).is_some() {
            return Ok(None);
        }
        accuracy = accuracy.or(Some(pass.tally.merits().accuracy));
    }
    Ok(accuracy)
}

/// What is tried, in this order: limits on edges for [`SHARES`], none as high as the one that holds already, then smaller inputs for all
/// images, down to the smallest that training has seen (`amplify`, see there).
fn candidates(holds: &Preprocessing, sharpness: &[f32], amplify: f32) -> Vec<(Preprocessing, Event)> {
    let highest = holds.edges.unwrap_or(f32::INFINITY);
    let limits = SHARES.iter().filter_map(|&share| quantile(sharpness, share));
    let limits = limits.filter(|&limit| limit > 0.0 && limit < highest).map(|limit| {
        let smaller = sharpness.iter().filter(|&&s| s > limit).count();
        let share = smaller as f64 / sharpness.len() as f64;
        (Preprocessing { edges: Some(limit), ..holds.clone() }, Event::EdgesLimited { limit, share })
    });
    let factors = std::iter::successors(Some(STEP), |factor| Some(factor * STEP));
    let factors = factors.take_while(|&factor| factor >= 1.0 - amplify / 2.0);
    let smaller = factors.map(|factor| (holds.amplified(factor), Event::InputsReduced { factor }));
    limits.chain(smaller).collect()
}

/// Of every training image, ascending, whatever limit holds.
fn sharpness(preprocessing: &Preprocessing, data: &DataSet) -> Vec<f32> {
    let free = Preprocessing { edges: None, ..preprocessing.clone() };
    let [_, height, width] = data.shape();
    let of = |&image: &usize| {
        Preprocessing::sharpness(data.image_with(image, &free).data(), height * width, width)
    };
    let mut all: Vec<f32> = data.indices(Split::Train).par_iter().map(of).collect();
    all.sort_by(f32::total_cmp);
    all
}

/// The value that a share of an ascending list does not exceed.
fn quantile(sorted: &[f32], share: f64) -> Option<f32> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get((share * last as f64).round() as usize).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_limited_before_all_inputs_are_made_smaller() {
        let free = Preprocessing {
            scale: 1.0,
            mean: vec![0.0],
            std: vec![2.0],
            standardise: None,
            edges: None,
            geometry: None,
        };
        let sharpness: Vec<f32> = (0..=100).map(|i| i as f32).collect();
        let limits = |holds: &Preprocessing, sharpness: &[f32], amplify| {
            let split = |(p, event): (Preprocessing, Event)| match event {
                Event::EdgesLimited { limit, share } => {
                    assert_eq!(p, Preprocessing { edges: Some(limit), ..holds.clone() });
                    assert!((share - (100.0 - f64::from(limit)) / 101.0).abs() < 1e-6, "{limit} {share}");
                    limit
                }
                Event::InputsReduced { factor } => {
                    assert_eq!(p, holds.amplified(factor));
                    -factor
                }
                other => panic!("{other:?}"),
            };
            candidates(holds, sharpness, amplify).into_iter().map(split).collect::<Vec<f32>>()
        };
        let all = limits(&free, &sharpness, 0.4);
        assert_eq!(all[..6], [95.0, 90.0, 80.0, 65.0, 50.0, -0.95]);
        // 0.95⁴ = 0.81 is within 1 − 0.4/2, 0.95⁵ is not.
        assert!(all.len() == 9 && all[8] < -0.8, "{all:?}");
        let limited = Preprocessing { edges: Some(80.0), ..free.clone() };
        assert_eq!(limits(&limited, &sharpness, 0.0), [65.0, 50.0]);
        // Images without edges have no limit.
        assert_eq!(limits(&free, &[0.0; 5], 0.0), Vec::<f32>::new());
        assert_eq!(limits(&free, &[], 0.0), Vec::<f32>::new());
    }
}
