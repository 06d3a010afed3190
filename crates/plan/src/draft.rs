//! A network laid out for one ring degree, before moduli are chosen: rotations, weight vectors, depths
//! and ranges.

use polyveil_net::Tensor;
use rayon::prelude::*;

use crate::PlanError;
use crate::arrange::arrange;
use crate::bsgs::{RotationCosts, Split};
use crate::calibrate::{apply, largest, rms};
use crate::canonical::{Ir, IrId, IrKind};
use crate::diagonals::{Diagonals, Source, lower};
use crate::layout::{Layout, SlotMap, ZERO};

/// A lowered network.
pub(crate) struct Draft<'a> {
    pub ir: &'a Ir,
    pub slots: usize,
    pub nodes: Vec<DraftNode>,
    /// The value sent back.
    pub output: IrId,
}

/// What is known of one value.
pub(crate) struct DraftNode {
    pub layout: Layout,
    pub work: Work,
    /// Levels consumed on the deepest path to here.
    pub depth: usize,
    /// Largest magnitude of any slot on the calibration inputs.
    pub range: f64,
    /// Root mean square of the used slots.
    pub rms: f64,
}

/// How a value is computed.
pub(crate) enum Work {
    Input,
    Square(IrId),
    Linear { diagonals: Diagonals, split: Split, bias: Vec<Vec<f64>>, weighting: DraftWeighting },
}

/// How a linear value multiplies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum DraftWeighting {
    Constant(f64),
    Weighted { masked: bool },
}

impl<'a> Draft<'a> {
    /// Lowers every node of `ir`; `masks` allows zeroing unused slots where a later window would read
    /// them. `samples` are network inputs in element order.
    pub fn new(ir: &'a Ir, slots: usize, masks: bool, samples: &[Tensor]) -> Result<Self, PlanError> {
        let arrangement = arrange(ir, slots)?;
        let mut draft = Self { ir, slots, nodes: Vec::new(), output: ir.output };
        let mut maps: Vec<SlotMap> = Vec::new();
        // values[node][sample] = slot vectors
        let mut values: Vec<Vec<Vec<Vec<f64>>>> = Vec::new();
        for (id, node) in ir.nodes.iter().enumerate() {
            let layout = arrangement.layouts[id].clone();
            if !layout.is_sound() {
                return Err(PlanError::TooLarge {
                    layer: node.name.clone(),
                    what: "row length",
                    found: node.shape[2],
                    limit: slots,
                });
            }
            let (work, depth, map, value) = match &node.kind {
                IrKind::Input => {
                    let value = samples
                        .iter()
                        .map(|t| layout.pack(&t.data().iter().map(|&v| f64::from(v)).collect::<Vec<_>>()))
                        .collect();
                    (Work::Input, 0, layout.slot_map(ZERO), value)
                }
                IrKind::Square(of) => {
                    let value = values[*of]
                        .iter()
                        .map(|sample| sample.iter().map(|ct| ct.iter().map(|v| v * v).collect()).collect())
                        .collect();
                    (Work::Square(*of), draft.nodes[*of].depth + 1, maps[*of].clone(), value)
                }
                IrKind::Linear { terms, bias } => {
                    let sources: Vec<Source<'_>> = terms
                        .iter()
                        .map(|t| Source {
                            op: &t.op,
                            offset: t.offset,
                            layout: &draft.nodes[t.value].layout,
                            map: &maps[t.value],
                        })
                        .collect();
                    let diagonals = lower(&sources, &layout);
                    let deepest = terms.iter().map(|t| draft.nodes[t.value].depth).max().unwrap_or(0);
                    let one_source = terms.iter().all(|t| t.value == terms[0].value);
                    let weighting = match diagonals.constant().filter(|&c| c > 0.0 && one_source) {
                        Some(c) => DraftWeighting::Constant(f64::from(c)),
                        None => DraftWeighting::Weighted {
                            masked: masks && arrangement.masked[id] && diagonals.folds.is_empty(),
                        },
                    };
                    let masked = weighting == DraftWeighting::Weighted { masked: true };
                    let map =
                        if masked { layout.slot_map(ZERO) } else { diagonals.slot_map(&layout, &sources) };
                    let bias = pack_bias(&layout, bias);
                    let mask = masked.then(|| layout.pack(&vec![1.0; layout.elements()]));
                    let value = (0..samples.len())
                        .into_par_iter()
                        .map(|sample| {
                            let inputs: Vec<&[Vec<f64>]> =
                                terms.iter().map(|t| values[t.value][sample].as_slice()).collect();
                            let mut out = apply(&diagonals, &inputs, slots);
                            for (ct, slots) in out.iter_mut().enumerate() {
                                for (s, v) in slots.iter_mut().enumerate() {
                                    if let Some(mask) = &mask {
                                        *v *= mask[ct][s];
                                    }
                                    if !bias.is_empty() {
                                        *v += bias[ct][s];
                                    }
                                }
                            }
                            out
                        })
                        .collect();
                    let split =
                        Split::cheapest(&diagonals, slots, &arrangement.strides, RotationCosts::default());
                    let cost = usize::from(matches!(weighting, DraftWeighting::Weighted { .. }));
                    (Work::Linear { diagonals, split, bias, weighting }, deepest + cost, map, value)
                }
            };
            let value: Vec<Vec<Vec<f64>>> = value;
            let range = value.iter().map(|v| largest(v)).fold(0.0, f64::max);
            let rms = value.iter().map(|v| rms(v)).fold(0.0, f64::max);
            if !range.is_finite() {
                return Err(PlanError::Overflow { layer: node.name.clone(), found: range, limit: f64::MAX });
            }
            maps.push(map);
            values.push(value);
            draft.nodes.push(DraftNode { layout, work, depth, range, rms });
        }
        Ok(draft)
    }

    /// Levels that the network consumes.
    pub fn levels(&self) -> usize {
        self.nodes[self.output].depth
    }
}

/// The bias as slot vectors: zero in unused slots; empty where there is none.
pub(crate) fn pack_bias(layout: &Layout, bias: &[f64]) -> Vec<Vec<f64>> {
    if bias.iter().all(|&b| b == 0.0) {
        return Vec::new();
    }
    let per = layout.elements() / bias.len();
    let values: Vec<f64> = bias.iter().flat_map(|&b| std::iter::repeat_n(b, per)).collect();
    layout.pack(&values)
}

/// Least number of levels of a network, whatever the layout: squares and operators with unequal
/// weights.
pub(crate) fn least_levels(ir: &Ir) -> (usize, String) {
    let mut depth: Vec<usize> = Vec::with_capacity(ir.nodes.len());
    for node in &ir.nodes {
        depth.push(match &node.kind {
            IrKind::Input => 0,
            IrKind::Square(of) => depth[*of] + 1,
            IrKind::Linear { terms, .. } => {
                let deepest = terms.iter().map(|t| depth[t.value]).max().unwrap_or(0);
                let equal = |w: &[f32]| w.iter().all(|&x| x == w[0] && x > 0.0);
                let constant = terms.len() == 1
                    && equal(&terms[0].op.weight)
                    && terms[0].op.position_scale.is_none()
                    && terms[0].op.group_inputs() == 1;
                deepest + usize::from(!constant)
            }
        });
    }
    (depth[ir.output], ir.nodes[ir.output].name.clone())
}
