//! Predicted error of the scores, from the engine's noise formulas and the network's sensitivities.
//!
//! Errors are standard deviations of a slot in units of the value (not of the scaled integer). Each step adds its own: rounding
//! of weights, key switching, rescaling; how much of it reaches a score is what [`Sensitivity`] tells.

use polyveil_ckks::noise;
use rayon::prelude::*;

use crate::bsgs::{Baby, Split};
use crate::canonical::IrKind;
use crate::diagonals::Diagonals;
use crate::draft::{Draft, DraftWeighting, Work};
use crate::moduli::Moduli;
use crate::scales::Scales;
use crate::sensitivity::{Row, Sensitivity, TermReach};

/// Least scale of a mask.
const LEAST_MASK: f64 = 2.0;

/// Error of the scores.
pub(crate) struct Prediction {
    /// Standard deviation of the worst score's error.
    pub output: f64,
    /// Index of the value that adds most to it.
    pub worst: usize,
}

/// What moduli and scales do not change in the errors of a draft.
pub(crate) struct Predictor<'d, 'i> {
    pub draft: &'d Draft<'i>,
    sensitivity: &'d Sensitivity,
    /// One a linear value.
    gains: Vec<Option<Gains>>,
}

/// What a linear step does to errors.
pub(crate) struct Gains {
    /// One a term.
    pub terms: Vec<TermGain>,
    /// Giant steps of one output.
    turns: f64,
    /// Slots that the folds add up.
    folds: f64,
    pub weighted: bool,
}

/// What the weights of one input do to errors.
pub(crate) struct TermGain {
    /// What it reads.
    pub value: usize,
    /// Weights of the network that reach one output element.
    taps: f64,
    /// Products that reach one output ciphertext.
    pub products: f64,
    /// Longest period of a weight vector.
    pub period: usize,
    /// Largest weight.
    pub largest: f64,
    /// How many times an input is rotated: to a position, and within it.
    rotations: f64,
}

impl<'d, 'i> Predictor<'d, 'i> {
    pub fn new(draft: &'d Draft<'i>, sensitivity: &'d Sensitivity) -> Self {
        let gains = (0..draft.nodes.len())
            .into_par_iter()
            .map(|id| match &draft.nodes[id].work {
                Work::Linear { diagonals, split, weighting, .. } => {
                    let weighted = matches!(weighting, DraftWeighting::Weighted(_));
                    Some(Gains::new(draft, id, diagonals, *split, weighted))
                }
                _ => None,
            })
            .collect();
        Self { draft, sensitivity, gains }
    }

    /// Of a linear value.
    pub fn gains(&self, id: usize) -> Option<&Gains> {
        self.gains.get(id)?.as_ref()
    }

    pub fn predict(&self, moduli: &Moduli, scales: &Scales) -> Prediction {
        let own: Vec<Own> = (0..self.draft.nodes.len()).map(|id| self.own(moduli, scales, id)).collect();
        let (variance, worst) = self.sensitivity.worst(|id, row| own[id].reaching(row, id));
        Prediction { output: variance.sqrt(), worst }
    }

    /// The scale of the mask of a linear node whose products come out at scale `product`, which mask and weights share: where
    /// rounding of the mask reaches the scores with deviation α/m and that of the weights with β·m, m² = α/β is best.
    pub fn mask_scale(&self, moduli: &Moduli, id: usize, scale: &[f64], product: f64) -> f64 {
        let Some(gains) = &self.gains[id] else { return LEAST_MASK };
        let rounding = noise::encode_rounding(&moduli.parameters, 1.0) * self.draft.nodes[id].rms;
        let (mut mask, mut weights) = (0.0, 0.0);
        for row in &self.sensitivity.rows {
            mask += rounding.powi(2) * row.reach[id];
            for (term, reach) in gains.terms.iter().zip(&row.terms[id]) {
                let own = self.of_weights(moduli, term, gains.folds, product / scale[term.value]);
                weights += own.weights_reaching(row.reach[id], reach);
            }
        }
        (mask / weights.max(f64::MIN_POSITIVE)).powf(0.25).max(LEAST_MASK)
    }

    /// Rounding of the weights of a term at a scale.
    fn of_weights(&self, moduli: &Moduli, term: &TermGain, folds: f64, scale: f64) -> OwnOfTerm {
        let rounding = noise::encode_periodic_rounding(&moduli.parameters, term.period, scale).powi(2);
        OwnOfTerm {
            value: term.value,
            rotations: 0.0,
            weights: rounding * (term.products * folds / term.taps).max(1.0),
            products: rounding * term.products * folds * self.draft.nodes[term.value].rms.powi(2),
        }
    }

    /// What comes in with a value.
    fn own(&self, moduli: &Moduli, scales: &Scales, id: usize) -> Own {
        let parameters = &moduli.parameters;
        let scale = scales.scale[id];
        match (&self.draft.nodes[id].work, &self.gains[id]) {
            (Work::Input, _) => {
                let fresh = noise::fresh_symmetric(parameters, scale);
                Own::of(fresh.hypot(noise::encode_rounding(parameters, scale)).powi(2))
            }
            (Work::Square(of), _) => {
                let switch = moduli.key_switch(scales.level[*of], scales.scale[*of].powi(2));
                Own::of(switch.hypot(noise::rescale(parameters, scale)).powi(2))
            }
            (Work::Linear { .. }, Some(gains)) => self.of_linear(moduli, scales, id, gains),
            (Work::Linear { .. }, None) => Own::of(0.0),
        }
    }

    fn of_linear(&self, moduli: &Moduli, scales: &Scales, id: usize, gains: &Gains) -> Own {
        let node = &self.draft.nodes[id];
        let parameters = &moduli.parameters;
        let Gains { turns, folds, weighted, .. } = *gains;
        let (scale, level) = (scales.scale[id], scales.level[id] + usize::from(weighted));
        let mut own = Own::of(0.0);
        for term in &gains.terms {
            let value = term.value;
            let mut of = if weighted {
                self.of_weights(moduli, term, folds, scales.weight_scale(moduli, id, value))
            } else {
                OwnOfTerm { value, ..OwnOfTerm::default() }
            };
            of.rotations = term.rotations * moduli.key_switch(level, scales.scale[value]).powi(2)
                + noise::drop(parameters, scales.level[value], level, scales.scale[value]).powi(2);
            own.terms.push(of);
        }
        // Giant steps act on sums, before the rescaling.
        let before =
            if weighted { scale * moduli.prime(level) / scales.mask[id].unwrap_or(1.0) } else { scale };
        own.value += turns * folds * moduli.key_switch(level, before).powi(2);
        if let Some(mask) = scales.mask[id] {
            own.value += (noise::encode_rounding(parameters, mask) * node.rms).powi(2);
        }
        if weighted {
            own.value += folds * noise::rescale(parameters, scale).powi(2);
        }
        if folds > 1.0 {
            own.value += folds * moduli.key_switch(scales.level[id], scale).powi(2);
        }
        own.value += noise::encode_rounding(parameters, scale).powi(2);
        own
    }
}

/// Variances of the errors that come in with a value.
struct Own {
    /// Of every slot.
    value: f64,
    /// One a term of a linear value.
    terms: Vec<OwnOfTerm>,
}

/// Variances of the errors that come in with a term.
#[derive(Default)]
struct OwnOfTerm {
    value: usize,
    /// Of what it reads, by rotating it and by bringing it down to the level of the others.
    rotations: f64,
    /// Of a weight.
    weights: f64,
    /// Of all products that reach a slot, where weights err in each slot for itself.
    products: f64,
}

impl OwnOfTerm {
    /// Variance that a score has of the weights, where errors of the value they make reach it by `reach`.
    fn weights_reaching(&self, reach: f64, term: &TermReach) -> f64 {
        // A vector repeats its weights, and their errors with them, unless something else differs from position to position.
        (self.weights * term.weights).max(self.products * reach)
    }
}

impl Own {
    fn of(value: f64) -> Self {
        Self { value, terms: Vec::new() }
    }

    /// Variance that a score has of it.
    fn reaching(&self, row: &Row, id: usize) -> f64 {
        let mut sum = self.value * row.reach[id];
        for (own, reach) in self.terms.iter().zip(&row.terms[id]) {
            // One rotated copy of an input serves many outputs, so that its error may add up as the input's own does.
            sum += own.rotations * reach.inputs.max(row.reach[own.value]);
            sum += own.weights_reaching(row.reach[id], reach);
        }
        sum
    }
}

impl Gains {
    fn new(draft: &Draft<'_>, id: usize, diagonals: &Diagonals, split: Split, weighted: bool) -> Self {
        let inputs = draft.inputs(id);
        let (babies, giants) = split.counts(diagonals, draft.slots);
        let mut terms = term_gains(diagonals, &inputs);
        if let IrKind::Linear { terms: of, .. } = &draft.ir.nodes[id].kind {
            for (gain, term) in terms.iter_mut().zip(of) {
                gain.taps = (term.op.weight.len() as f64 / term.op.output[0] as f64).max(1.0);
            }
        }
        for (term, gain) in terms.iter_mut().enumerate() {
            let any = |part: fn(&Baby) -> usize| babies.iter().any(|b| b.0 == term && part(b) != 0);
            gain.rotations = f64::from(u8::from(any(|b| b.2)) + u8::from(any(|b| b.3)));
        }
        let turning = giants.iter().filter(|g| g.1 != 0).count() as f64;
        let turns = turning / diagonals.outputs.len().max(1) as f64;
        Self { terms, turns, folds: f64::from(1u32 << diagonals.folds.len()), weighted }
    }
}

fn term_gains(diagonals: &Diagonals, inputs: &[usize]) -> Vec<TermGain> {
    let none = |&value: &usize| TermGain {
        value,
        taps: 1.0,
        products: 0.0,
        period: 1,
        largest: 0.0,
        rotations: 0.0,
    };
    let mut gains: Vec<TermGain> = inputs.iter().map(none).collect();
    for list in &diagonals.outputs {
        for (term, gain) in gains.iter_mut().enumerate() {
            let own: Vec<_> = list.iter().filter(|d| d.term == term).collect();
            let period = own.iter().map(|d| d.weights.len()).max().unwrap_or(1);
            let all = own.iter().flat_map(|d| &d.weights);
            gain.largest = all.fold(gain.largest, |m, &w| m.max(f64::from(w.abs())));
            gain.products = gain.products.max(own.len() as f64);
            gain.period = gain.period.max(period);
        }
    }
    gains
}
