//! Level and scale of every value, exact: the scale of a value is a number, not an approximation,
//! because every weight plaintext is encoded at the scale that brings its product to the wanted one.

use crate::PlanError;
use crate::canonical::{IrId, IrKind};
use crate::draft::{Draft, DraftWeighting, Work};
use crate::moduli::Moduli;
use crate::plan::Unused;
use crate::predict::{Predictor, TermGain};

/// Headroom over the calibration ranges, for inputs that were not seen.
pub(crate) const HEADROOM: f64 = 4.0;

/// Below this a scale holds nothing.
const LEAST_SCALE: f64 = 16.0;

/// Largest weight times its scale: encoded numbers beyond 2^53 would not be exact.
const MAX_WEIGHT: f64 = (1u64 << 50) as f64;

/// Levels and scales of all values of a draft.
#[derive(Clone, Debug)]
pub(crate) struct Scales {
    pub level: Vec<usize>,
    pub scale: Vec<f64>,
    /// Scale of the mask of a masked linear value.
    pub mask: Vec<Option<f64>>,
}

impl Scales {
    /// Assigns levels by depth and scales forward: what is encrypted or multiplied by weights has the `wanted` scale, or the
    /// largest that its modulus holds.
    ///
    /// # Errors
    /// [`PlanError::Overflow`] where a value with headroom does not fit the modulus at its level.
    pub fn assign(predictor: &Predictor<'_, '_>, moduli: &Moduli, wanted: &[f64]) -> Result<Self, PlanError> {
        let draft = predictor.draft;
        let level = draft.node_levels();
        let caps = Self::caps(draft, moduli, &level);
        let mut scales = Self { level, scale: Vec::new(), mask: vec![None; draft.nodes.len()] };
        for (id, node) in draft.nodes.iter().enumerate() {
            let scale = match &node.work {
                Work::Input => wanted[id].min(caps[id]),
                Work::Square(of) => {
                    let s: f64 = scales.scale[*of];
                    s * s / moduli.prime(scales.level[*of])
                }
                Work::Linear { weighting, .. } => match weighting {
                    DraftWeighting::Constant(c) => scales.scale[draft.inputs(id)[0]] / c,
                    DraftWeighting::Weighted(unused) => {
                        let prime = moduli.prime(scales.level[id] + 1);
                        // The product scale at which the weights of every term are as large as they may be.
                        let most = predictor.gains(id).map_or(f64::INFINITY, |gains| {
                            let of = |t: &TermGain| MAX_WEIGHT / t.largest.max(1e-9) * scales.scale[t.value];
                            gains.terms.iter().map(of).fold(f64::INFINITY, f64::min)
                        });
                        let mut scale = wanted[id].min(caps[id]);
                        if *unused == Unused::Masked(()) {
                            let mask = predictor.mask_scale(moduli, id, &scales.scale, scale * prime);
                            scales.mask[id] = Some(mask.max(scale * prime / most));
                        } else {
                            scale = scale.min(most / prime);
                        }
                        scale
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
    pub fn nominal(draft: &Draft<'_>, scale: f64) -> Self {
        let mask = |node: &crate::draft::DraftNode| match node.work {
            Work::Linear { weighting: DraftWeighting::Weighted(Unused::Masked(())), .. } => Some(2.0),
            _ => None,
        };
        Self {
            level: draft.node_levels(),
            scale: vec![scale; draft.nodes.len()],
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

    /// Scale at which the weights on `value` are encoded in linear node `id`.
    pub fn weight_scale(&self, moduli: &Moduli, id: IrId, value: IrId) -> f64 {
        let prime = moduli.prime(self.level[id] + 1);
        self.scale[id] * prime / (self.scale[value] * self.mask[id].unwrap_or(1.0))
    }
}
