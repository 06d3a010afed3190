//! Operators that read the same value, as one.
//!
//! Two branches that start from one value (a 1×1 and a 3×3 convolution whose results are concatenated, say) rotate it alike.
//! As one operator, the smaller kernel being the larger one with zeros around it, they share these rotations.

use crate::affine::densify;
use crate::canonical::IrTerm;
use crate::linop::ConvOp;

/// Most weights of a merged operator.
const MAX_WEIGHTS: usize = 1 << 24;

/// `terms` with those of one value merged where their windows step alike.
pub(crate) fn merged(terms: Vec<IrTerm>) -> Vec<IrTerm> {
    let mut kept: Vec<IrTerm> = Vec::with_capacity(terms.len());
    for term in terms {
        let same = kept.iter_mut().find(|k| k.value == term.value);
        match same.and_then(|k| pair(k, &term).map(|both| (k, both))) {
            Some((place, both)) => *place = both,
            None => kept.push(term),
        }
    }
    kept
}

/// The step between taps that both operators have; a kernel of one tap has any.
fn dilation(a: &ConvOp, b: &ConvOp, axis: usize) -> Option<usize> {
    match (a.kernel[axis], b.kernel[axis]) {
        (1, _) => Some(b.dilation[axis]),
        (_, 1) => Some(a.dilation[axis]),
        _ => (a.dilation[axis] == b.dilation[axis]).then_some(a.dilation[axis]),
    }
}

fn pair(a: &IrTerm, b: &IrTerm) -> Option<IrTerm> {
    let (x, y) = (&a.op, &b.op);
    if x.stride != y.stride
        || x.output[1..] != y.output[1..]
        || x.position_scale.is_some()
        || y.position_scale.is_some()
    {
        return None;
    }
    let dilation = [dilation(x, y, 0)?, dilation(x, y, 1)?];
    let mut kernel = [0; 2];
    let mut pads = [0; 2];
    // How many taps of the common kernel come before each operator's own.
    let mut lead = [[0; 2]; 2];
    for axis in 0..2 {
        pads[axis] = x.pads[axis].max(y.pads[axis]);
        for (op, lead) in [x, y].into_iter().zip(&mut lead) {
            let before = pads[axis] - op.pads[axis];
            if !before.is_multiple_of(dilation[axis]) {
                return None;
            }
            lead[axis] = before / dilation[axis];
            kernel[axis] = kernel[axis].max(lead[axis] + op.kernel[axis]);
        }
    }
    let offset = a.offset.min(b.offset);
    let channels = (a.offset + x.output[0]).max(b.offset + y.output[0]) - offset;
    let taps = kernel[0] * kernel[1];
    let size = channels.checked_mul(x.input[0])?.checked_mul(taps)?;
    if size > MAX_WEIGHTS {
        return None;
    }
    let mut weight = vec![0.0f32; size];
    for (term, lead) in [a, b].into_iter().zip(lead) {
        let op = densify(term.op.clone());
        let mut own = op.weight.iter();
        for o in 0..op.output[0] {
            for i in 0..op.input[0] {
                let first = ((term.offset - offset + o) * op.input[0] + i) * taps;
                for ky in 0..op.kernel[0] {
                    for kx in 0..op.kernel[1] {
                        let at = first + (lead[0] + ky) * kernel[1] + lead[1] + kx;
                        weight[at] += own.next().copied().unwrap_or(0.0);
                    }
                }
            }
        }
    }
    let output = [channels, x.output[1], x.output[2]];
    let op = ConvOp { output, kernel, pads, dilation, groups: 1, weight, ..x.clone() };
    Some(IrTerm { value: a.value, offset, op })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(offset: usize, kernel: usize, pad: usize, groups: usize, dilation: usize, seed: u32) -> IrTerm {
        let reach = dilation * (kernel - 1);
        let side = 6 + 2 * pad - reach;
        let count = 4 * (2 / groups) * kernel * kernel;
        let weight = (0..count as u32).map(|i| ((i * 7 + seed) % 11) as f32 - 5.0).collect();
        let op = ConvOp {
            output: [4, side, side],
            input: [2, 6, 6],
            kernel: [kernel; 2],
            stride: [1; 2],
            pads: [pad; 2],
            dilation: [dilation; 2],
            groups,
            weight,
            position_scale: None,
        };
        IrTerm { value: 0, offset, op }
    }

    fn apply(terms: &[IrTerm], channels: usize) -> Vec<f32> {
        let [_, h, w] = terms[0].op.output;
        let mut out = vec![0.0; channels * h * w];
        let input = |c: usize, y: usize, x: usize| ((c * 36 + y * 6 + x) * 5 % 17) as f32;
        for t in terms {
            for c in 0..t.op.output[0] {
                for y in 0..h {
                    for x in 0..w {
                        let at = ((t.offset + c) * h + y) * w + x;
                        t.op.for_each_tap(c, y, x, |i, iy, ix, weight| out[at] += weight * input(i, iy, ix));
                    }
                }
            }
        }
        out
    }

    #[test]
    fn a_merged_operator_computes_what_the_two_did() {
        for (a, b, channels) in [
            (term(0, 1, 0, 1, 1, 1), term(4, 3, 1, 1, 1, 2), 8),
            (term(4, 3, 1, 2, 1, 1), term(0, 1, 0, 1, 1, 5), 8),
            (term(0, 3, 2, 1, 2, 3), term(0, 1, 0, 2, 1, 4), 4),
            (term(2, 3, 1, 1, 1, 3), term(0, 5, 2, 1, 1, 4), 6),
        ] {
            let both = merged(vec![a.clone(), b.clone()]);
            assert_eq!(both.len(), 1);
            assert!(both[0].op.is_sound());
            assert_eq!(apply(&both, channels), apply(&[a, b], channels));
        }
    }

    #[test]
    fn windows_that_step_differently_stay_apart() {
        let (a, mut b) = (term(0, 3, 1, 1, 1, 1), term(4, 3, 2, 1, 2, 2));
        assert_eq!(merged(vec![a.clone(), b.clone()]).len(), 2);
        b = a.clone();
        b.value = 1;
        assert_eq!(merged(vec![a, b]).len(), 2);
    }
}
