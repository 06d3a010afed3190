//! Predicted error of every value, from the engine's noise formulas and the calibration ranges.
//!
//! Errors are standard deviations of a slot in units of the value (not of the scaled integer). Each
//! step passes its operands' errors on (through the norm of its weights, or twice the magnitude for a
//! square) and adds its own: rounding of weights, key switching, rescaling.

use polyveil_ckks::noise;

use crate::bsgs::Baby;
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

pub(crate) fn predict(draft: &Draft<'_>, moduli: &Moduli, scales: &Scales) -> Prediction {
    let mut error: Vec<f64> = Vec::with_capacity(draft.nodes.len());
    let mut worst = (0.0, 0);
    for (id, node) in draft.nodes.iter().enumerate() {
        let (passed, own) = match &node.work {
            Work::Input => (0.0, noise::root_of_squares(&input_noise(moduli, scales.scale[id]))),
            Work::Square(of) => {
                let operand = &draft.nodes[*of];
                let before = scales.scale[*of].powi(2);
                let own = [
                    noise::key_switch(&moduli.parameters, scales.level[*of], before),
                    noise::rescale(&moduli.parameters, scales.scale[id]),
                ];
                // Between a typical slot and the largest one: errors matter where values are large.
                let magnitude = operand.rms.max(operand.range / 4.0);
                (noise::square(error[*of], magnitude), noise::root_of_squares(&own))
            }
            Work::Linear { .. } => linear(draft, moduli, scales, id, &error),
        };
        let share = own / node.rms.max(f64::MIN_POSITIVE);
        if share > worst.0 {
            worst = (share, id);
        }
        error.push(passed.hypot(own));
    }
    Prediction { output: error[draft.output], worst: worst.1 }
}

fn input_noise(moduli: &Moduli, scale: f64) -> [f64; 2] {
    [noise::fresh_symmetric(&moduli.parameters, scale), noise::encode_rounding(&moduli.parameters, scale)]
}

/// Error passed on by, and added in, a linear node.
fn linear(draft: &Draft<'_>, moduli: &Moduli, scales: &Scales, id: usize, error: &[f64]) -> (f64, f64) {
    let node = &draft.nodes[id];
    let Work::Linear { diagonals, split, weighting, .. } = &node.work else { return (0.0, 0.0) };
    let parameters = &moduli.parameters;
    let weighted = matches!(weighting, DraftWeighting::Weighted { .. });
    let (scale, level) = (scales.scale[id], scales.level[id] + usize::from(weighted));
    let inputs = scales.inputs(draft, id);
    let norms = term_norms(diagonals, inputs.len());
    let (babies, giants) = split.counts(diagonals, draft.slots);
    let folds = f64::from(1u32 << diagonals.folds.len());
    let (mut passed, mut own) = (Vec::new(), Vec::new());
    for (term, (&value, norm)) in inputs.iter().zip(&norms).enumerate() {
        passed.push(norm.weight * error[value]);
        // An input may be rotated twice: to a position, and within it.
        for part in [|b: &Baby| b.2, |b: &Baby| b.3] {
            if babies.iter().any(|b| b.0 == term && part(b) != 0) {
                own.push(norm.weight * noise::key_switch(parameters, level, scales.scale[value]));
            }
        }
        if weighted {
            let at = scales.weight_scale(moduli, id, value);
            let rounding = noise::encode_periodic_rounding(parameters, norm.period, at);
            own.push(rounding * (norm.products * folds).sqrt() * draft.nodes[value].rms);
        }
    }
    // Giant steps act on sums, before the rescaling.
    let turns = giants.iter().filter(|g| g.1 != 0).count() as f64 / diagonals.outputs.len().max(1) as f64;
    let before = match weighting {
        DraftWeighting::Constant(_) => scale,
        DraftWeighting::Weighted { .. } => scale * moduli.prime(level) / scales.mask[id].unwrap_or(1.0),
    };
    own.push(noise::key_switch(parameters, level, before) * (turns * folds).sqrt());
    if let Some(mask) = scales.mask[id] {
        own.push(noise::encode_rounding(parameters, mask) * node.rms);
    }
    if weighted {
        own.push(noise::rescale(parameters, scale) * folds.sqrt());
    }
    if !diagonals.folds.is_empty() {
        own.push(noise::key_switch(parameters, scales.level[id], scale) * folds.sqrt());
    }
    own.push(noise::encode_rounding(parameters, scale));
    (noise::root_of_squares(&passed), noise::root_of_squares(&own))
}

/// What the weights of one input do to errors.
struct TermNorm {
    /// Euclidean norm of the weights that reach one output slot, at most.
    weight: f64,
    /// Products that reach one output ciphertext.
    products: f64,
    /// Longest period of a weight vector.
    period: usize,
}

fn term_norms(diagonals: &Diagonals, terms: usize) -> Vec<TermNorm> {
    let folds: usize = 1 << diagonals.folds.len();
    let mut norms: Vec<TermNorm> =
        (0..terms).map(|_| TermNorm { weight: 0.0, products: 0.0, period: 1 }).collect();
    for list in &diagonals.outputs {
        for (term, norm) in norms.iter_mut().enumerate() {
            let own: Vec<_> = list.iter().filter(|d| d.term == term).collect();
            let period = own.iter().map(|d| d.weights.len()).max().unwrap_or(1);
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
            norm.weight = norm.weight.max(sum.sqrt());
            norm.products = norm.products.max(own.len() as f64);
            norm.period = norm.period.max(period);
        }
    }
    norms
}
