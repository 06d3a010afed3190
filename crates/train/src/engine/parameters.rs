//! The trainable parameters of a graph, in a fixed order.

use polyveil_net::{Graph, NodeId, Op, Tensor};

/// Which rules apply to a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// Convolution and linear weights: decayed.
    Weight,
    /// Biases, batch-norm scale and shift: not decayed.
    Offset,
    /// Coefficients of quadratics: own learning rate, not decayed.
    Activation,
}

/// One parameter tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ParameterId {
    /// The node that owns it.
    pub(crate) node: NodeId,
    /// Its position in [`Op::weights`].
    pub(crate) slot: usize,
    /// Its rules.
    pub(crate) group: Group,
}

/// All parameters, in graph order. Batch-norm statistics are not among them.
pub(crate) fn parameters(graph: &Graph) -> Vec<ParameterId> {
    let mut all = Vec::new();
    for (node, n) in graph.nodes.iter().enumerate() {
        for (slot, (name, _)) in n.op.weights().iter().enumerate() {
            let group = match (&n.op, *name) {
                (Op::Quadratic(_), _) => Group::Activation,
                (_, "running_mean" | "running_var") => continue,
                (Op::Conv(_) | Op::Linear(_), "weight") => Group::Weight,
                _ => Group::Offset,
            };
            all.push(ParameterId { node, slot, group });
        }
    }
    all
}

/// The values of a parameter; none when the identifier is of another graph.
pub(crate) fn parameter(graph: &Graph, id: ParameterId) -> Option<&Tensor> {
    graph.nodes.get(id.node).and_then(|n| n.op.weights().get(id.slot).map(|(_, t)| *t))
}

/// The same, to be changed.
pub(crate) fn parameter_mut(graph: &mut Graph, id: ParameterId) -> Option<&mut Tensor> {
    graph.nodes.get_mut(id.node).and_then(|n| {
        let mut weights = n.op.weights_mut();
        (id.slot < weights.len()).then(|| weights.swap_remove(id.slot).1)
    })
}
