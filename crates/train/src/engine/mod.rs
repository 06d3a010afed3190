//! Interprets a graph with tensors that know their gradients.
//!
//! The graph stays the one owner of all parameters; each step copies them into the engine and
//! brings gradients back as plain vectors. That costs little beside a convolution, and in return
//! optimiser, clipping, checkpoints and roll-back are plain code on plain data, and no type of the
//! engine leaves this module.

mod forward;
mod infer;
mod observe;
mod parameters;
mod step;

pub(crate) use forward::ForwardOptions;
pub(crate) use infer::{Scores, first_non_finite, infer, infer_observed};
pub(crate) use observe::{ChannelStats, LayerStats};
pub(crate) use parameters::{Group, ParameterId, parameter, parameter_mut, parameters};
pub(crate) use step::{Batch, Soft, StepOutput, Terms, gradient_step, soft_targets};

use burn_tensor::{Device, Tensor, TensorData};

/// A batch of values of one node.
#[derive(Clone)]
pub(crate) enum Value {
    /// `[N, C, H, W]`.
    Map(Tensor<4>),
    /// `[N, F]`.
    Row(Tensor<2>),
}

impl Value {
    /// Largest `|x|`; infinite where a value is not finite.
    pub(crate) fn max_abs(&self) -> f32 {
        self.to_vec().iter().fold(0.0, |m, v| if v.is_finite() { m.max(v.abs()) } else { f32::INFINITY })
    }

    /// The values, flat, sample by sample.
    fn to_vec(&self) -> Vec<f32> {
        match self {
            Self::Map(t) => host(t.clone()),
            Self::Row(t) => host(t.clone()),
        }
    }
}

/// The device without gradients. Named explicitly: there is no safe default once features of other
/// crates are unified.
fn plain_device() -> Device {
    Device::flex()
}

fn gradient_device() -> Device {
    Device::flex().autodiff()
}

fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let data = tensor.inner().into_data();
    // The engine computes in f32 throughout; another type can only be a bug of the engine.
    data.try_to_vec::<f32>().unwrap_or_else(|_| data.iter::<f32>().collect())
}
