//! Ranges of the frozen network, recorded in its metadata.

use polyveil_net::{Graph, Op};

use crate::data::{DataSet, Preprocessing, Split};
use crate::engine::{ForwardOptions, LayerStats, infer_observed};
use crate::error::TrainError;
use crate::metadata::{RangeRecord, Ranges};
use crate::run::malformed;

/// Images taken at a time: the whole split as `f32` may be large.
const PORTION: usize = 512;

/// Ranges of every quadratic's input and of the scores, on the training split, in inference mode.
pub(super) fn measure(
    graph: &Graph,
    data: &DataSet,
    preprocessing: &Preprocessing,
) -> Result<Ranges, TrainError> {
    let mut layers: Vec<Option<LayerStats>> = vec![None; graph.nodes.len()];
    for portion in data.indices(Split::Train).chunks(PORTION) {
        let images: Vec<f32> =
            portion.iter().flat_map(|&i| data.image_with(i, preprocessing).into_data()).collect();
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
    let record = |layer: &LayerStats| {
        let whole = layer.whole();
        RangeRecord {
            min: whole.min,
            max: whole.max,
            p999: whole.abs_quantile(0.999),
            channels: layer.channels.iter().map(|c| c.max_abs()).collect(),
        }
    };
    let named =
        graph.nodes.iter().zip(&layers).filter_map(|(n, l)| Some((n.name.clone(), record(l.as_ref()?))));
    Ok(named.collect())
}
