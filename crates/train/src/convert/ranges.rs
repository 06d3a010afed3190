//! Ranges of the frozen network, recorded in its metadata.

use std::collections::BTreeMap;

use polyveil_net::{Graph, Op};

use crate::data::{DataSet, Preprocessing, Split};
use crate::engine::{ForwardOptions, LayerStats, infer_observed};
use crate::error::TrainError;
use crate::metadata::{RangeRecord, Ranges, Within};
use crate::run::{PORTION, inputs, malformed};

/// Ranges of every quadratic's input and of the scores, on the training split, in inference mode; and
/// the share of each layer's values within `bounds` (by node name) on every split.
pub(super) fn measure(
    graph: &Graph,
    data: &DataSet,
    preprocessing: &Preprocessing,
    bounds: &BTreeMap<String, f32>,
) -> Result<Ranges, TrainError> {
    let train = observe(graph, data, preprocessing, Split::Train)?;
    let others = [Split::Validation, Split::Test].map(|split| {
        // Only for the shares.
        if bounds.is_empty() {
            Ok(vec![None; graph.nodes.len()])
        } else {
            observe(graph, data, preprocessing, split)
        }
    });
    let [validation, test] = others;
    let (validation, test) = (validation?, test?);
    let mut ranges = Ranges::new();
    for (index, (node, layer)) in graph.nodes.iter().zip(&train).enumerate() {
        let Some(layer) = layer else { continue };
        let whole = layer.whole();
        let bound = bounds.get(&node.name).copied();
        let share = |layer: &Option<LayerStats>| Some(layer.as_ref()?.whole().share_within(bound?));
        let within = bound.map(|_| Within {
            train: train.get(index).and_then(share),
            validation: validation.get(index).and_then(share),
            test: test.get(index).and_then(share),
        });
        let record = RangeRecord {
            min: whole.min,
            max: whole.max,
            p999: whole.abs_quantile(0.999),
            channels: layer.channels.iter().map(|c| c.max_abs()).collect(),
            bound,
            within,
        };
        ranges.insert(node.name.clone(), record);
    }
    Ok(ranges)
}

/// Statistics of every quadratic's input and of the scores on one split.
fn observe(
    graph: &Graph,
    data: &DataSet,
    preprocessing: &Preprocessing,
    split: Split,
) -> Result<Vec<Option<LayerStats>>, TrainError> {
    let mut layers: Vec<Option<LayerStats>> = vec![None; graph.nodes.len()];
    for portion in data.indices(split).chunks(PORTION) {
        let images = inputs(data, preprocessing, portion);
        infer_observed(
            graph,
            &images,
            data.shape(),
            &ForwardOptions::default(),
            &mut |node, input, value| {
                let quadratic = matches!(graph.nodes[node].op, Op::Quadratic(_));
                let observed = if quadratic { input } else { Some(value) };
                if let (true, Some(observed)) = (quadratic || node == graph.output, observed) {
                    layers[node].get_or_insert_default().add(observed);
                }
            },
        )
        .ok_or_else(|| malformed(graph))?;
    }
    Ok(layers)
}
