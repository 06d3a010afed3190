//! Inference through the engine: no gradients, frozen statistics. Faster than the plain executor,
//! so it serves validation within a run; reported figures come from the plain executor.

use polyveil_net::{Graph, NodeId};

use super::forward::{ForwardOptions, Leaves, forward};
use super::step::input_value;
use super::{Value, plain_device};

/// Images a pass. Small passes stay in cache.
const AT_ONCE: usize = 64;

/// Scores of a list of images.
#[derive(Clone, Debug)]
pub(crate) struct Scores {
    /// `[N, classes]`, flat.
    pub(crate) values: Vec<f32>,
    /// Scores a row.
    pub(crate) classes: usize,
}

/// Scores of images (flat, pre-processed). None when the graph is not well formed.
pub(crate) fn infer(
    graph: &Graph,
    images: &[f32],
    shape: [usize; 3],
    options: &ForwardOptions,
) -> Option<Scores> {
    infer_observed(graph, images, shape, options, &mut |_, _, _| {})
}

/// The same; `observe` sees node index, input and output of every node for every pass.
pub(crate) fn infer_observed(
    graph: &Graph,
    images: &[f32],
    shape: [usize; 3],
    options: &ForwardOptions,
    observe: &mut dyn FnMut(NodeId, Option<&Value>, &Value),
) -> Option<Scores> {
    let device = plain_device();
    let leaves = Leaves::new(graph, &[], &device);
    let size: usize = shape.iter().product();
    let mut scores = Scores { values: Vec::new(), classes: 0 };
    for chunk in images.chunks((AT_ONCE * size).max(1)) {
        let input = input_value(graph, chunk.to_vec(), chunk.len() / size, shape, &device);
        let result = forward(graph, &leaves, input, options, observe)?;
        scores.classes = result.logits.dims()[1];
        scores.values.extend(super::host(result.logits));
    }
    Some(scores)
}

/// The first node, in graph order, that yields a value that is not finite on these images.
pub(crate) fn first_non_finite(
    graph: &Graph,
    images: &[f32],
    shape: [usize; 3],
    options: &ForwardOptions,
) -> Option<NodeId> {
    let mut first: Option<NodeId> = None;
    infer_observed(graph, images, shape, options, &mut |node, _, value| {
        if first.is_none_or(|f| node < f) && value.to_vec().iter().any(|v| !v.is_finite()) {
            first = Some(node);
        }
    })?;
    first
}
