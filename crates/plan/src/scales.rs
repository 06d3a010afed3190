//! Level and scale of every value, exact: the scale of a value is a number, not an approximation,
//! because every weight plaintext is encoded at the scale that brings its product to the wanted one.

use crate::PlanError;
use crate::canonical::{IrId, IrKind};
use crate::draft::{Draft, DraftWeighting, Work};
use crate::moduli::Moduli;

/// Headroom over the calibration ranges, for inputs that were not seen.
pub(crate) const HEADROOM: f64 = 4.0;

/// Levels and scales of all values of a draft.
#[derive(Clone, Debug)]
pub(crate) struct Scales {
    pub level: Vec<usize>,
    pub scale: Vec<f64>,
    /// Scale of the mask of a masked linear value.
    pub mask: Vec<Option<f64>>,
}

impl Scales {
    /// Assigns levels by depth and scales forward.
    ///
    /// # Errors
    /// [`PlanError::Overflow`] where a value with headroom does not fit the modulus at its level.
    pub fn assign(draft: &Draft<'_>, moduli: &Moduli) -> Result<Self, PlanError> {
        let top = draft.levels();
        let nominal = moduli.scale();
        let level: Vec<usize> = draft.nodes.iter().map(|n| top.saturating_sub(n.depth)).collect();
        let mut scales = Self { level, scale: Vec::new(), mask: vec![None; draft.nodes.len()] };
        for (id, node) in draft.nodes.iter().enumerate() {
            let scale = match &node.work {
                Work::Input => nominal,
                Work::Square(of) => {
                    let s: f64 = scales.scale[*of];
                    s * s / moduli.prime(scales.level[*of])
                }
                Work::Linear { diagonals, weighting, .. } => match weighting {
                    DraftWeighting::Constant(c) => {
                        let of = scales.inputs(draft, id)[0];
                        scales.scale[of] / c
                    }
                    DraftWeighting::Weighted { masked } => {
                        if *masked {
                            // Balance the rounding of one full-size mask against that of many weights.
                            let products = diagonals.products() as f64 / diagonals.outputs.len() as f64;
                            let period = diagonals.outputs.iter().flatten().map(|d| d.weights.len()).max();
                            let ratio = draft.slots as f64 / (period.unwrap_or(1) as f64 * products.max(1.0));
                            let half = moduli.scale().sqrt() * ratio.clamp(2f64.powi(-8), 2f64.powi(16)).sqrt();
                            scales.mask[id] = Some(half.max(2.0));
                        }
                        let limit = moduli.modulus(scales.level[id]) / (2.0 * HEADROOM * node.range.max(1e-30));
                        nominal.min(limit)
                    }
                },
            };
            let limit = moduli.modulus(scales.level[id]) / (2.0 * HEADROOM * scale);
            if node.range > limit * 1.000_001 {
                return Err(PlanError::Overflow {
                    layer: draft.ir.nodes[id].name.clone(),
                    found: node.range,
                    limit,
                });
            }
            scales.scale.push(scale);
        }
        Ok(scales)
    }

    /// The values that a linear node reads, term by term.
    pub fn inputs(&self, draft: &Draft<'_>, id: IrId) -> Vec<IrId> {
        match &draft.ir.nodes[id].kind {
            IrKind::Linear { terms, .. } => terms.iter().map(|t| t.value).collect(),
            _ => Vec::new(),
        }
    }

    /// Scale at which the weights on `value` are encoded in linear node `id`.
    pub fn weight_scale(&self, moduli: &Moduli, id: IrId, value: IrId) -> f64 {
        let prime = moduli.prime(self.level[id] + 1);
        self.scale[id] * prime / (self.scale[value] * self.mask[id].unwrap_or(1.0))
    }
}
