//! Matching features: what activations of the student yield is drawn to what those of a ReLU network of the same
//! structure and scale yield for the same image (FitNets: Romero et al., arXiv 1412.6550; here every activation).

use polyveil_net::{Graph, NodeId};

use super::pass::Tape;
use super::value::Value;
use super::wide::{sums, update2};

/// The network whose features are matched, and how much that counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Features<'a> {
    /// Takes the same input.
    pub(crate) reference: &'a Graph,
    /// Values that are compared.
    pub(crate) pairs: &'a [Pair],
    /// Factor on `Σ_pairs weight·Σ_elements (y − t)²`, a mean over images.
    pub(crate) weight: f32,
}

/// Two nodes with values of one shape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pair {
    /// Node of the student.
    pub(crate) student: NodeId,
    /// Node of the reference network.
    pub(crate) reference: NodeId,
    /// Brings the sum of squares of an image to size one, layer by layer.
    pub(crate) weight: f32,
}

impl Features<'_> {
    /// Adds the term's gradient at the value of `node`, if that is matched. `shares`: what each image counts for.
    pub(super) fn pull(
        &self,
        node: NodeId,
        value: &Value,
        targets: &Tape,
        shares: &[f32],
        grad: &mut Value,
    ) -> Option<()> {
        for pair in self.pairs.iter().filter(|p| p.student == node) {
            let target = targets.value(pair.reference)?;
            let image = value.image().max(1);
            let images =
                grad.data.chunks_mut(image).zip(value.data.chunks(image).zip(target.data.chunks(image)));
            for ((grad, (value, target)), share) in images.zip(shares) {
                let factor = 2.0 * self.weight * pair.weight * share;
                update2(grad, value, target, |g, y, t| g + factor * (y - t));
            }
        }
        Some(())
    }
}

/// `Σ_pairs weight·Σ_elements (y − t)²`, image by image. None where a value is missing.
pub(super) fn matching(pairs: &[Pair], student: &Tape, reference: &Tape) -> Option<Vec<f32>> {
    let mut distances = Vec::new();
    for pair in pairs {
        let (y, t) = (student.value(pair.student)?, reference.value(pair.reference)?);
        // Plane by plane: one long sum would lose digits.
        let planes = y.planes().zip(t.planes());
        let channels = y.channels.max(1);
        distances.resize(y.count, 0.0);
        for (plane, ((_, y), (_, t))) in planes.enumerate() {
            distances[plane / channels] += pair.weight * sums(y, t, |y, t| [(y - t) * (y - t)])[0];
        }
    }
    Some(distances)
}
