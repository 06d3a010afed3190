//! Ranges of all slots, unused ones included, by running the plan's slots in the clear.
//!
//! This is also the reference meaning of a lowered step: `out[s] = Σ weight[s]·in[s + rotation]`,
//! without baby and giant steps; tests hold the interpreter against it.

use rayon::prelude::*;

use crate::diagonals::Diagonals;

/// Slots that are multiplied at once.
const ROW: usize = 256;

/// `Σ weight ⊙ rotate(input)` and the folds, in `f64`, for every output ciphertext.
#[must_use]
pub fn apply(diagonals: &Diagonals, inputs: &[&[Vec<f64>]], slots: usize) -> Vec<Vec<f64>> {
    // Twice over, so that rotations are slices.
    let doubled: Vec<Vec<Vec<f64>>> =
        inputs.iter().map(|cts| cts.iter().map(|ct| [ct.as_slice(), ct].concat()).collect()).collect();
    diagonals
        .outputs
        .par_iter()
        .map(|list| {
            let mut out = vec![0.0f64; slots];
            for d in list {
                let input = &doubled[d.term][d.ciphertext][d.rotation % slots..][..slots];
                // Several periods where they are short, so that there is something to multiply at once.
                let weights = d.weights.repeat(ROW.min(slots).div_ceil(d.weights.len()));
                for (out, input) in out.chunks_mut(weights.len()).zip(input.chunks(weights.len())) {
                    for ((o, x), &w) in out.iter_mut().zip(input).zip(&weights) {
                        *o += x * f64::from(w);
                    }
                }
            }
            for &fold in &diagonals.folds {
                let before = out.clone();
                for (s, o) in out.iter_mut().enumerate() {
                    *o += before[(s + fold) % slots];
                }
            }
            out
        })
        .collect()
}

/// Largest magnitude in any slot.
#[must_use]
pub fn largest(value: &[Vec<f64>]) -> f64 {
    value.iter().flatten().fold(0.0, |m, v| if v.is_nan() { f64::INFINITY } else { m.max(v.abs()) })
}

/// Root mean square over the slots that are not zero.
#[must_use]
pub fn rms(value: &[Vec<f64>]) -> f64 {
    let (sum, n) =
        value.iter().flatten().filter(|v| **v != 0.0).fold((0.0, 0usize), |(sum, n), v| (sum + v * v, n + 1));
    if n == 0 { 0.0 } else { (sum / n as f64).sqrt() }
}
