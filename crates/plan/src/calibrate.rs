//! Ranges of all slots, unused ones included, by running the plan's slots in the clear.
//!
//! This is also the reference meaning of a lowered step: `out[s] = Σ weight[s]·in[s + rotation]`,
//! without baby and giant steps; tests hold the interpreter against it.

use rayon::prelude::*;

use crate::diagonals::Diagonals;

/// `Σ weight ⊙ rotate(input)` and the folds, in `f64`, for every output ciphertext.
#[must_use]
pub fn apply(diagonals: &Diagonals, inputs: &[&[Vec<f64>]], slots: usize) -> Vec<Vec<f64>> {
    diagonals
        .outputs
        .par_iter()
        .map(|list| {
            let mut out = vec![0.0f64; slots];
            for d in list {
                let input = &inputs[d.term][d.ciphertext];
                let (tail, head) = input.split_at(d.rotation % slots);
                let rotated = head.iter().chain(tail);
                let weights = d.weights.iter().cycle();
                for ((o, x), &w) in out.iter_mut().zip(rotated).zip(weights) {
                    *o += x * f64::from(w);
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
