//! Smaller inputs, for a network that may not be exported as it is.
//!
//! A student trained on inputs of all sizes from 1 − a/2 to 1 + a (`augmentation.amplify` = a) answers much the same to an image
//! made a little smaller, and its values keep further from where quadratics escape. So where single images do, all inputs are made
//! smaller by one factor, which the pre-processing takes up: the data owner's side, at no level.

use polyveil_net::Graph;

use super::validate::{observe, refuse};
use super::{Recipe, options};
use crate::data::{DataSet, Split};
use crate::error::TrainError;

/// From one factor tried to the next.
const STEP: f32 = 0.95;
/// What is exported at a factor was acceptable at this times the factor as well: other images are to come.
const ROOM: f32 = 1.1;

/// The largest factor at which a network may be exported, and its accuracy there on the validation split; none where there is none
/// within what it was trained for.
pub(super) fn largest(
    recipe: &Recipe<'_>,
    graph: &Graph,
    data: &DataSet,
) -> Result<Option<(f32, f64)>, TrainError> {
    let least = 1.0 - recipe.augmentation.amplify / 2.0;
    let options = options(recipe, graph, recipe.epochs as f64, false);
    let pass = |split: Split, factor: f32| {
        let pass = observe(&recipe.preprocessing.amplified(factor), graph, data, split, &options)?;
        Ok::<_, TrainError>((refuse(recipe, graph, split, &pass).is_none(), pass.accuracy))
    };
    let mut factor = STEP;
    while factor >= least {
        if pass(Split::Validation, ROOM * factor)?.0 && pass(Split::Train, ROOM * factor)?.0 {
            let (accepted, accuracy) = pass(Split::Validation, factor)?;
            if accepted && pass(Split::Train, factor)?.0 {
                return Ok(Some((factor, accuracy)));
            }
        }
        factor *= STEP;
    }
    Ok(None)
}
