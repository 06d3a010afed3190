//! Predicted error of every value, from the engine's noise formulas and the calibration ranges.
//!
//! Errors are standard deviations of a slot in units of the value (not of the scaled integer). Each
//! step passes its operands' errors on (through the norm of its weights, or twice the magnitude for a
//! square) and adds its own: rounding of weights, key switching, rescaling.

use polyveil_ckks::noise;
use rayon::prelude::*;

use crate::bsgs::{Baby, Split};
use crate::diagonals::Diagonals;
use crate::draft::{Draft, DraftWeighting, Work};
use crate::moduli::Moduli;
use crate::scales::Scales;

/// Errors of all values.
pub(crate) struct Prediction {
    /// Standard deviation of the output's error.
    pub output: f64,
    /// Index of the value that adds most, relative to its own magnitude.
    pub worst: usize,
}

/// What moduli and scales do not change in the errors of a draft.
pub(crate) struct Predictor<'d, 'i> {
    pub draft: &'d Draft<'i>,
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
    /// Euclidean norm of the weights that reach one output slot, at most.
    weight: f64,
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
    pub fn new(draft: &'d Draft<'i>) -> Self {
        let gains = (0..draft.nodes.len())
            .into_par_iter()
            .map(|id| match &draft.nodes[id].work {
                Work::Linear { diagonals, split, weighting, .. } => {
                    let weighted = matches!(weighting, DraftWeighting::Weighted { .. });
                    Some(Gains::new(draft, id, diagonals, *split, weighted))
                }
                _ => None,
            })
            .collect();
        Self { draft, gains }
    }

    /// Of a linear value.
    pub fn gains(&self, id: usize) -> Option<&Gains> {
        self.gains.get(id)?.as_ref()
    }

    pub fn predict(&self, moduli: &Moduli, scales: &Scales) -> Prediction {
        let draft = self.draft;
        let mut error: Vec<f64> = Vec::with_capacity(draft.nodes.len());
        let mut worst = (0.0, 0);
        for (id, node) in draft.nodes.iter().enumerate() {
            let (passed, own) = match &node.work {
                Work::Input => {
                    let (parameters, scale) = (&moduli.parameters, scales.scale[id]);
                    let fresh = noise::fresh_symmetric(parameters, scale);
                    (0.0, fresh.hypot(noise::encode_rounding(parameters, scale)))
                }
                Work::Square(of) => {
                    let operand = &draft.nodes[*of];
                    let own = moduli
                        .key_switch(scales.level[*of], scales.scale[*of].powi(2))
                        .hypot(noise::rescale(&moduli.parameters, scales.scale[id]));
                    // Between a typical slot and the largest one: errors matter where values are large.
                    let magnitude = operand.rms.max(operand.range / 4.0);
                    (noise::square(error[*of], magnitude), own)
                }
                Work::Linear { .. } => match &self.gains[id] {
                    Some(gains) => self.linear(moduli, scales, id, gains, &error),
                    None => (0.0, 0.0),
                },
            };
            let share = own / node.rms.max(f64::MIN_POSITIVE);
            if share > worst.0 {
                worst = (share, id);
            }
            error.push(passed.hypot(own));
        }
        Prediction { output: error[draft.output], worst: worst.1 }
    }

    /// Error passed on by, and added in, a linear node.
    fn linear(
        &self,
        moduli: &Moduli,
        scales: &Scales,
        id: usize,
        gains: &Gains,
        error: &[f64],
    ) -> (f64, f64) {
        let node = &self.draft.nodes[id];
        let parameters = &moduli.parameters;
        let Gains { turns, folds, weighted, .. } = *gains;
        let (scale, level) = (scales.scale[id], scales.level[id] + usize::from(weighted));
        let (mut passed, mut own) = (0.0, 0.0);
        for term in &gains.terms {
            let value = term.value;
            passed += (term.weight * error[value]).powi(2);
            own += term.rotations * (term.weight * moduli.key_switch(level, scales.scale[value])).powi(2);
            if weighted {
                let at = scales.weight_scale(moduli, id, value);
                let rounding = noise::encode_periodic_rounding(parameters, term.period, at);
                own += term.products * folds * (rounding * self.draft.nodes[value].rms).powi(2);
            }
        }
        // Giant steps act on sums, before the rescaling.
        let before =
            if weighted { scale * moduli.prime(level) / scales.mask[id].unwrap_or(1.0) } else { scale };
        own += turns * folds * moduli.key_switch(level, before).powi(2);
        if let Some(mask) = scales.mask[id] {
            own += (noise::encode_rounding(parameters, mask) * node.rms).powi(2);
        }
        if weighted {
            own += folds * noise::rescale(parameters, scale).powi(2);
        }
        if folds > 1.0 {
            own += folds * moduli.key_switch(scales.level[id], scale).powi(2);
        }
        own += noise::encode_rounding(parameters, scale).powi(2);
        (passed.sqrt(), own.sqrt())
    }
}

impl Gains {
    fn new(draft: &Draft<'_>, id: usize, diagonals: &Diagonals, split: Split, weighted: bool) -> Self {
        let inputs = draft.inputs(id);
        let (babies, giants) = split.counts(diagonals, draft.slots);
        let mut terms = term_gains(diagonals, &inputs);
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
    let folds: usize = 1 << diagonals.folds.len();
    let none = |&value: &usize| TermGain {
        value,
        weight: 0.0,
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
            let mut squares = vec![0.0f64; period];
            for d in &own {
                for block in squares.chunks_mut(d.weights.len()) {
                    for (q, &w) in block.iter_mut().zip(&d.weights) {
                        *q += f64::from(w).powi(2);
                    }
                }
            }
            // Folds add slots that lie apart: their sum is near the mean over the vector.
            let peak = squares.iter().copied().fold(0.0, f64::max);
            let mean = squares.iter().sum::<f64>() / period as f64;
            let sum = if folds > 1 { (mean * folds as f64).max(peak) } else { peak };
            gain.weight = gain.weight.max(sum.sqrt());
            gain.products = gain.products.max(own.len() as f64);
            gain.period = gain.period.max(period);
        }
    }
    gains
}
