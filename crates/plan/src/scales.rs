//! Level and scale of every value, exact: the scale of a value is a number, not an approximation,
//! because every weight plaintext is encoded at the scale that brings its product to the wanted one.

use crate::PlanError;
use crate::canonical::{IrId, IrKind};
use crate::diagonals::Diagonals;
use crate::draft::{Draft, DraftWeighting, Work};
use crate::moduli::Moduli;

/// Headroom over the calibration ranges, for inputs that were not seen.
pub(crate) const HEADROOM: f64 = 4.0;

/// Below this a scale holds nothing.
const LEAST_SCALE: f64 = 16.0;

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
        let caps = Self::caps(draft, moduli, &level);
        let mut scales = Self { level, scale: Vec::new(), mask: vec![None; draft.nodes.len()] };
        for (id, node) in draft.nodes.iter().enumerate() {
            let scale = match &node.work {
                Work::Input => nominal.min(caps[id]),
                Work::Square(of) => {
                    let s: f64 = scales.scale[*of];
                    s * s / moduli.prime(scales.level[*of])
                }
                Work::Linear { diagonals, weighting, .. } => match weighting {
                    DraftWeighting::Constant(c) => scales.scale[scales.inputs(draft, id)[0]] / c,
                    DraftWeighting::Weighted { masked } => {
                        if *masked {
                            scales.mask[id] = Some(mask_scale(diagonals, draft.slots, nominal));
                        }
                        nominal.min(caps[id])
                    }
                },
            };
            let limit = moduli.modulus(scales.level[id]) / (2.0 * HEADROOM * scale);
            if node.range > limit * (1.0 + 1e-9) || scale < LEAST_SCALE {
                return Err(PlanError::Overflow {
                    layer: draft.ir.nodes[id].name.clone(),
                    found: node.range,
                    limit: moduli.modulus(scales.level[id]) / (2.0 * HEADROOM * scale.max(LEAST_SCALE)),
                });
            }
            scales.scale.push(scale);
        }
        Ok(scales)
    }

    /// Levels by depth and one scale for all values, for comparing drafts whose ranges are not known.
    pub fn nominal(draft: &Draft<'_>, moduli: &Moduli) -> Self {
        let top = draft.levels();
        let mask = |node: &crate::draft::DraftNode| match node.work {
            Work::Linear { weighting: DraftWeighting::Weighted { masked: true }, .. } => Some(2.0),
            _ => None,
        };
        Self {
            level: draft.nodes.iter().map(|n| top.saturating_sub(n.depth)).collect(),
            scale: vec![moduli.scale(); draft.nodes.len()],
            mask: draft.nodes.iter().map(mask).collect(),
        }
    }

    // Ranges below 1 count as 1: a scale beyond the modulus is refused by the engine.
    /// The largest scale at which each value, and what squares and constant sums make of it, fits the
    /// modulus at its level.
    fn caps(draft: &Draft<'_>, moduli: &Moduli, level: &[usize]) -> Vec<f64> {
        let mut caps: Vec<f64> = draft
            .nodes
            .iter()
            .zip(level)
            .map(|(node, &level)| moduli.modulus(level) / (2.0 * HEADROOM * node.range.max(1.0)))
            .collect();
        for (id, node) in draft.nodes.iter().enumerate().rev() {
            match (&node.work, &draft.ir.nodes[id].kind) {
                (Work::Square(of), _) => {
                    caps[*of] = caps[*of].min((caps[id] * moduli.prime(level[*of])).sqrt());
                }
                (
                    Work::Linear { weighting: DraftWeighting::Constant(c), .. },
                    IrKind::Linear { terms, .. },
                ) => {
                    for term in terms {
                        caps[term.value] = caps[term.value].min(caps[id] * c);
                    }
                }
                _ => {}
            }
        }
        caps
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

/// Balances the rounding of one full-size mask against that of many weights.
fn mask_scale(diagonals: &Diagonals, slots: usize, nominal: f64) -> f64 {
    let products = diagonals.products() as f64 / diagonals.outputs.len().max(1) as f64;
    let period = diagonals.outputs.iter().flatten().map(|d| d.weights.len()).max().unwrap_or(1);
    let ratio = slots as f64 / (period as f64 * products.max(1.0));
    (nominal.sqrt() * ratio.clamp(2f64.powi(-8), 2f64.powi(16)).sqrt()).max(2.0)
}
