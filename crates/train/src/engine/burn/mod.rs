//! The same passes on a device of Burn's, chosen by feature: `cuda`, `wgpu`, `tch` (libtorch), or `flex` (its own
//! processor back end, which serves to check the others and ours).
//!
//! The loss and its gradient at the scores are those of the native engine; the device walks on from there.

mod forward;

use burn_tensor::{Device, Tensor, TensorData};
use polyveil_net::{Graph, NodeId};

use super::infer::Scores;
use super::step::{Batch as Images, Loss, StepOutput, Terms};
use super::value::{Buffer, Value};
use super::{Features, ForwardOptions, ParameterId};
use forward::{Leaves, by_image, forward};

/// Images of one pass without gradients.
const AT_ONCE: usize = 64;

/// A batch of values of one node.
#[derive(Clone)]
enum Batch {
    /// `[N, C, H, W]`.
    Map(Tensor<4>),
    /// `[N, F]`.
    Row(Tensor<2>),
}

impl Batch {
    /// `Σ (self − other)²` of every image. None where one is a map and the other is not.
    fn distance(self, other: Self) -> Option<Tensor<1>> {
        match (self, other) {
            (Self::Map(l), Self::Map(r)) => Some(by_image((l - r).square())),
            (Self::Row(l), Self::Row(r)) => Some(by_image((l - r).square())),
            _ => None,
        }
    }

    fn to_value(&self) -> Value {
        let (dims, data) = match self {
            Self::Map(t) => (t.dims().to_vec(), host(t.clone())),
            Self::Row(t) => (t.dims().to_vec(), host(t.clone())),
        };
        let size = [dims.get(2), dims.get(3)].map(|d| d.copied().unwrap_or(1));
        Value { count: dims[0], channels: dims[1], size, data: data[..].into() }
    }
}

/// The device that the features name; named explicitly, since there is no safe default once features of other
/// crates are unified.
fn device() -> Device {
    #[cfg(feature = "cuda")]
    return Device::cuda(burn_tensor::DeviceIndex::Default);
    #[cfg(all(feature = "wgpu", not(feature = "cuda")))]
    return Device::wgpu(burn_tensor::DeviceKind::DefaultDevice);
    #[cfg(all(feature = "tch", not(any(feature = "cuda", feature = "wgpu"))))]
    return Device::libtorch();
    #[cfg(not(any(feature = "cuda", feature = "wgpu", feature = "tch")))]
    return Device::flex();
}

/// Loss and gradients of one batch, in one pass. None when the graph is not well formed.
pub(crate) fn gradient_step(
    graph: &Graph,
    trainable: &[ParameterId],
    batch: &Images,
    terms: Terms<'_>,
    options: &ForwardOptions,
) -> Option<StepOutput> {
    let device = device().autodiff();
    let (count, total) = (batch.labels.len(), batch.labels.len() as f32);
    let leaves = Leaves::new(graph, trainable, &device);
    let input = input(graph, &batch.images, count, batch.shape, &device);
    let reference = match terms.features {
        Some(features) => Some(taps(features, input.clone(), &device)?),
        None => None,
    };
    let mut own = Vec::new();
    let result = forward(graph, &leaves, input, options, &mut |node, _, value| {
        if terms.features.is_some_and(|f| f.pairs.iter().any(|p| p.student == node)) {
            own.push((node, value.clone()));
        }
    })?;
    let classes = result.logits.dims()[1];
    let known = reference.as_ref().map(|(scores, _)| &scores[..]);
    let mut scores = host(result.logits.clone());
    let mut output = StepOutput { statistics: result.statistics, ..StepOutput::default() };
    let own_losses = Loss { terms, total, classes }.apply(&mut scores, batch, 0, known, &mut output)?;
    let penalties = result.penalty.as_ref().map_or_else(Vec::new, |p| host(p.clone()));
    let mut distance: Option<Tensor<1>> = None;
    if let (Some(features), Some((_, targets))) = (terms.features, &reference) {
        let of =
            |list: &[(NodeId, Batch)], node| list.iter().find(|(n, _)| *n == node).map(|(_, v)| v.clone());
        for pair in features.pairs {
            let (y, t) = (of(&own, pair.student)?, of(targets, pair.reference)?);
            let one = y.distance(t)?.mul_scalar(pair.weight);
            distance = Some(match distance {
                Some(sum) => sum + one,
                None => one,
            });
        }
    }
    let distances = distance.as_ref().map_or_else(Vec::new, |d| host(d.clone()));
    let [shares, pulls] = terms.weigh(&own_losses, (&penalties, &distances), &mut scores, total, &mut output);
    // The gradient of Σ scores·g is g: the device need not know the loss. Weights of images are constants: what they stand for has the
    // gradient that they make.
    let mut loss = (result.logits * tensor(scores, [count, classes], &device)).sum();
    if let Some(penalty) = result.penalty {
        loss = loss + (penalty * tensor(pulls, [count], &device)).sum();
    }
    if let (Some(distance), Some(features)) = (distance, terms.features) {
        loss = loss + (distance * tensor(shares, [count], &device)).sum().mul_scalar(features.weight);
    }
    if loss.is_tracked() {
        let gradients = loss.backward();
        let gradient = |&id| Buffer::from(&leaves.gradient(graph, id, &gradients)[..]);
        output.gradients = trainable.iter().map(gradient).collect();
    }
    Some(output)
}

/// Scores of the reference network and the values of its nodes that are matched.
fn taps(features: Features<'_>, input: Batch, device: &Device) -> Option<(Vec<f32>, Vec<(NodeId, Batch)>)> {
    let leaves = Leaves::new(features.reference, &[], device);
    let mut values = Vec::new();
    let options = ForwardOptions::default();
    let result = forward(features.reference, &leaves, input, &options, &mut |node, _, value| {
        if features.pairs.iter().any(|p| p.reference == node) {
            values.push((node, value.clone()));
        }
    })?;
    Some((host(result.logits), values))
}

/// Scores of images (flat, pre-processed); `observe` sees node index, input and output of every node for every
/// pass.
pub(crate) fn infer_observed(
    graph: &Graph,
    images: &[f32],
    shape: [usize; 3],
    options: &ForwardOptions,
    observe: &mut dyn FnMut(NodeId, Option<&Value>, &Value),
) -> Option<Scores> {
    run(graph, images, shape, options, &mut |node, input, value| {
        observe(node, input.map(Batch::to_value).as_ref(), &value.to_value());
    })
}

/// The same, unobserved: nothing but scores leaves the device.
pub(crate) fn infer(
    graph: &Graph,
    images: &[f32],
    shape: [usize; 3],
    options: &ForwardOptions,
) -> Option<Scores> {
    run(graph, images, shape, options, &mut |_, _, _| {})
}

fn run(
    graph: &Graph,
    images: &[f32],
    shape: [usize; 3],
    options: &ForwardOptions,
    observe: &mut dyn FnMut(NodeId, Option<&Batch>, &Batch),
) -> Option<Scores> {
    let device = device();
    let leaves = Leaves::new(graph, &[], &device);
    let size: usize = shape.iter().product();
    let mut scores = Scores { values: Vec::new(), classes: 0 };
    for chunk in images.chunks((AT_ONCE * size).max(1)) {
        let input = input(graph, chunk, chunk.len() / size, shape, &device);
        let result = forward(graph, &leaves, input, options, observe)?;
        scores.classes = result.logits.dims()[1];
        scores.values.extend(host(result.logits));
    }
    Some(scores)
}

/// Images as the graph's input: maps, or rows where it takes vectors.
fn input(graph: &Graph, images: &[f32], count: usize, [c, h, w]: [usize; 3], device: &Device) -> Batch {
    if graph.input_shape().len() == 1 {
        return Batch::Row(tensor(images.to_vec(), [count, c * h * w], device));
    }
    Batch::Map(tensor(images.to_vec(), [count, c, h, w], device))
}

fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let data = tensor.inner().into_data();
    // The device computes in f32 throughout; another type can only be a bug of it.
    data.try_to_vec::<f32>().unwrap_or_else(|_| data.iter::<f32>().collect())
}
