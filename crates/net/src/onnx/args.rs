//! Reading the inputs and attributes of one node, with every condition checked.

use std::rc::Rc;

use super::{
    attributes::Attributes,
    constant::Const,
    import::{Feature, Lowered, Refusal, Value, label},
    proto::{NodeProto, element},
};
use crate::{Hw, Pads};

/// The inputs and attributes of a node that is being lowered.
pub(super) struct Args<'a> {
    pub node: &'a NodeProto,
    pub inputs: &'a [Option<Value>],
    pub attributes: Attributes<'a>,
}

impl Args<'_> {
    pub(super) fn given(&self, k: usize) -> bool {
        matches!(self.inputs.get(k), Some(Some(_)))
    }

    pub(super) fn feature(&self, k: usize) -> Lowered<Feature> {
        match self.inputs.get(k) {
            Some(Some(Value::Feature(feature))) => Ok(*feature),
            Some(Some(_)) => Err(Refusal::Advice(format!("input {k} must depend on the image"))),
            _ => Err(Refusal::Invalid(format!("input {k} is missing"))),
        }
    }

    pub(super) fn constant(&self, k: usize, what: &str) -> Lowered<&Rc<Const>> {
        match self.inputs.get(k) {
            Some(Some(Value::Const(constant))) => Ok(constant),
            Some(Some(_)) => Err(Refusal::Advice(format!("{what} must be constant"))),
            _ => Err(Refusal::Invalid(format!("{what} is missing"))),
        }
    }

    /// Axes as an attribute, or (in later operator sets) as input `k`.
    pub(super) fn axes(&self, k: usize) -> Option<&[i64]> {
        match self.inputs.get(k) {
            Some(Some(Value::Const(axes))) => axes.as_ints(),
            _ => self.attributes.ints("axes"),
        }
    }

    /// Two positive numbers; 1 and 1 where the attribute is absent.
    pub(super) fn pair(&self, name: &str) -> Lowered<Hw> {
        let values = self.attributes.ints(name).unwrap_or(&[1, 1]);
        let pair: Option<Vec<usize>> = values.iter().map(|&v| usize::try_from(v).ok()).collect();
        pair.and_then(|p| Hw::try_from(p).ok())
            .ok_or_else(|| Refusal::Invalid(format!("{name} must be two positive numbers, found {values:?}")))
    }

    /// The node's own padding, with `auto_pad` worked out for an image already padded by `extra`.
    pub(super) fn pads(&self, shape: &[usize], window: Hw, stride: Hw, extra: Pads) -> Lowered<Pads> {
        let auto = self.attributes.text("auto_pad", "NOTSET");
        match auto {
            "NOTSET" | "" => {
                let values = self.attributes.ints("pads").unwrap_or(&[0; 4]);
                let pads: Option<Vec<usize>> = values.iter().map(|&v| usize::try_from(v).ok()).collect();
                pads.and_then(|p| Pads::try_from(p).ok()).ok_or_else(|| {
                    Refusal::Invalid(format!("pads must be four numbers from 0 up, found {values:?}"))
                })
            }
            "VALID" => Ok([0; 4]),
            "SAME_UPPER" | "SAME_LOWER" => {
                let &[_, h, w] = shape else {
                    return Err(Refusal::Invalid(format!("takes an image, found {shape:?}")));
                };
                let mut pads = [0; 4];
                for (axis, extent) in [h, w].into_iter().enumerate() {
                    let extent = extent.saturating_add(extra[axis]).saturating_add(extra[axis + 2]);
                    let step = stride[axis].max(1);
                    let last = (extent.div_ceil(step).max(1) - 1).saturating_mul(step);
                    let total = last.saturating_add(window[axis]).saturating_sub(extent);
                    let (less, more) = (total / 2, total - total / 2);
                    (pads[axis], pads[axis + 2]) =
                        if auto == "SAME_UPPER" { (less, more) } else { (more, less) };
                }
                Ok(pads)
            }
            other => Err(Refusal::Invalid(format!("unknown auto_pad `{other}`"))),
        }
    }

    pub(super) fn cast(&self) -> Lowered<Value> {
        let to = i32::try_from(self.attributes.int("to", 0)).unwrap_or(0);
        if [element::FLOAT, element::FLOAT16, element::DOUBLE, element::BFLOAT16].contains(&to) {
            return Ok(Value::Feature(self.feature(0)?));
        }
        Err(Refusal::Advice("values that depend on the image must stay floating-point".into()))
    }

    /// The torchvision name where the weight carries it (`features.0.weight`), else the node's.
    pub(super) fn weight_name(&self) -> String {
        let weight = self.node.input.get(1).and_then(|w| w.strip_suffix(".weight"));
        weight.filter(|w| !w.is_empty()).unwrap_or_else(|| label(self.node)).to_owned()
    }
}
