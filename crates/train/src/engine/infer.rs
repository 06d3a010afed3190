//! Inference through the engine: no gradients, frozen statistics. Serves validation within a run; reported
//! figures come from the plain executor.

use polyveil_net::{Graph, NodeId};
use rayon::prelude::*;

use super::pass::{Network, Tape, forward};
use super::step::images_at_once;
use super::{ForwardOptions, Value};

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
    let network = Network::new(graph, &shape)?;
    let size: usize = shape.iter().product();
    let at_once = images_at_once(&network, images.len() / size.max(1), options);
    let chunks: Vec<&[f32]> = images.chunks((at_once * size).max(1)).collect();
    let rows: Option<Vec<Vec<f32>>> = chunks
        .into_par_iter()
        .map(|chunk| {
            let tape = forward(&network, network.input(chunk)?, options, |_| false)?;
            Some(tape.value(graph.output)?.data.to_vec())
        })
        .collect();
    Some(Scores { values: rows?.concat(), classes: network.classes() })
}

/// The same; `observe` sees node index, input and output of every node for every pass, in order.
pub(crate) fn infer_observed(
    graph: &Graph,
    images: &[f32],
    shape: [usize; 3],
    options: &ForwardOptions,
    observe: &mut dyn FnMut(NodeId, Option<&Value>, &Value),
) -> Option<Scores> {
    let network = Network::new(graph, &shape)?;
    let size: usize = shape.iter().product();
    let at_once = images_at_once(&network, images.len() / size.max(1), options);
    let chunks: Vec<&[f32]> = images.chunks((at_once * size).max(1)).collect();
    let mut scores = Scores { values: Vec::new(), classes: network.classes() };
    for wave in chunks.chunks(rayon::current_num_threads().max(1)) {
        let tapes: Vec<Option<Tape>> = wave
            .par_iter()
            .map(|chunk| forward(&network, network.input(chunk)?, options, |_| true))
            .collect();
        for tape in tapes {
            let tape = tape?;
            for (index, node) in graph.nodes.iter().enumerate() {
                observe(index, node.inputs.first().and_then(|&i| tape.value(i)), tape.value(index)?);
            }
            scores.values.extend_from_slice(&tape.value(graph.output)?.data);
        }
    }
    Some(scores)
}
