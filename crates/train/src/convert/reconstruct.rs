//! Weights in closed form, to the values of a ReLU network, where quadratics take the place of ReLU: before the first step, or after
//! epochs in which the network still had ReLU and learned to keep its values in range (arXiv 2304.14836 fits polynomials to such a
//! network; here all layers are fitted).

use polyveil_net::{Graph, NodeId, Op, Quadratic};
use rayon::prelude::*;

use super::start::Start;
use crate::config::{Augmentation, ConvertConfig, StartCoefficients};
use crate::data::{DataSet, Preprocessing, Split};
use crate::engine::{ForwardOptions, LayerStats, refit};
use crate::error::TrainError;
use crate::random::{below, generator};
use crate::run::{bound_quadratic, malformed};

/// Fits `graph`, which has the structure of `reference`. `units` has the size of one unit of each node's input, `kind` the rule behind
/// the coefficients.
pub(super) fn fit(
    graph: &mut Graph,
    reference: &Graph,
    data: &DataSet,
    preprocessing: &Preprocessing,
    config: &ConvertConfig,
    (units, kind): (&[f32], StartCoefficients),
) -> Result<(), TrainError> {
    let images = training_images(data, preprocessing, config);
    let coefficients = |node: NodeId, stats: &LayerStats| {
        let unit = units.get(node).copied().unwrap_or(1.0);
        let rule = Start { kind, range: config.activation.range, unit };
        bounded(rule.coefficients(stats, config.activation.per), unit, config)
    };
    // As in training: a single image that escapes would outweigh all others.
    let options = ForwardOptions {
        clamp: (config.range.clamp > 0.0).then_some(config.range.clamp),
        units: units.to_vec(),
        ..ForwardOptions::default()
    };
    let ridge = config.reconstruction.ridge.into();
    refit(graph, reference, &images, data.shape(), ridge, &options, &coefficients)
        .ok_or_else(|| malformed(graph))
}

/// The network as it is while its activations still are ReLU.
pub(super) fn with_relu(graph: &Graph) -> Graph {
    let mut relu = graph.clone();
    let quadratics = relu.nodes.iter_mut().filter(|n| matches!(n.op, Op::Quadratic(_)));
    quadratics.for_each(|node| node.op = Op::Relu);
    relu
}

/// Training images, changed as training changes them.
fn training_images(data: &DataSet, preprocessing: &Preprocessing, config: &ConvertConfig) -> Vec<f32> {
    let all = data.indices(Split::Train);
    // One odd image that escapes would outweigh the others in the sums of squares.
    let augmentation = Augmentation { hard_cases: 0.0, ..config.augmentation.clone() };
    let images = (0..config.reconstruction.images).into_par_iter().flat_map_iter(|draw| {
        let mut rng = generator(config.seed, "reconstruction", 0, draw as u64);
        let image = all[below(&mut rng, all.len())];
        data.training_image(image, preprocessing, &augmentation, &mut rng).into_data()
    });
    images.collect()
}

/// Coefficients within the limits of the settings.
fn bounded(mut quadratic: Quadratic, unit: f32, config: &ConvertConfig) -> Quadratic {
    bound_quadratic(&mut quadratic, unit, config.activation.min_a, config.activation.max_shift);
    quadratic
}
