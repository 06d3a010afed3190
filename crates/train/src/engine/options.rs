//! How a pass differs from the frozen network.

use polyveil_net::NodeId;

use super::activation::Course;

/// How a pass differs from the frozen network.
#[derive(Clone, Debug, Default)]
pub(crate) struct ForwardOptions {
    /// Share of the quadratic in every quadratic node, by node; 1 where the list ends.
    pub(crate) transition: Vec<f32>,
    /// Size of one unit of every quadratic's input, by node; 1 where the list ends.
    pub(crate) units: Vec<f32>,
    /// Inputs of quadratics are clamped to ± this many units.
    pub(crate) clamp: Option<f32>,
    /// Inputs of quadratics beyond ± this many units are penalised.
    pub(crate) bound: Option<f32>,
    /// Batch norm uses the statistics of the batch.
    pub(crate) batch_statistics: bool,
}

impl ForwardOptions {
    /// How the quadratic at this node runs.
    pub(super) fn course(&self, node: NodeId) -> Course {
        let unit = self.units.get(node).copied().unwrap_or(1.0);
        let limit = |units: Option<f32>| units.map_or(f32::INFINITY, |u| u * unit);
        Course {
            share: self.transition.get(node).copied().unwrap_or(1.0).clamp(0.0, 1.0),
            unit,
            clamp: limit(self.clamp),
            bound: limit(self.bound),
        }
    }
}
