//! The canonical form in plain arithmetic: forwards on an image, and backwards from its scores.

use polyveil_net::Tensor;
use rayon::prelude::*;

use crate::canonical::{Ir, IrKind};
use crate::linop::ConvOp;

/// Every value for one input, channel by channel, row by row.
pub(crate) fn forwards(ir: &Ir, input: &Tensor) -> Vec<Vec<f64>> {
    let mut values: Vec<Vec<f64>> = Vec::with_capacity(ir.nodes.len());
    for node in &ir.nodes {
        let value = match &node.kind {
            IrKind::Input => input.data().iter().map(|&v| f64::from(v)).collect(),
            IrKind::Square(of) => values[*of].iter().map(|v| v * v).collect(),
            IrKind::Linear { terms, bias } => {
                let plane = node.shape[1] * node.shape[2];
                let mut out = vec![0.0; node.shape[0] * plane];
                let each = out.len() / bias.len().max(1);
                for (out, b) in out.chunks_mut(each.max(1)).zip(bias) {
                    out.fill(*b);
                }
                for term in terms {
                    let out = &mut out[term.offset * plane..][..term.op.output[0] * plane];
                    add_products(&term.op, &values[term.value], out);
                }
                out
            }
        };
        values.push(value);
    }
    values
}

/// The derivative of `Σ factor·score` by every value.
pub(crate) fn backwards(ir: &Ir, values: &[Vec<f64>], factors: Vec<f64>) -> Vec<Vec<f64>> {
    let mut derivatives: Vec<Vec<f64>> = values.iter().map(|v| vec![0.0; v.len()]).collect();
    derivatives[ir.output] = factors;
    for (id, node) in ir.nodes.iter().enumerate().rev() {
        let own = std::mem::take(&mut derivatives[id]);
        match &node.kind {
            IrKind::Input => {}
            IrKind::Square(of) => {
                for ((d, x), own) in derivatives[*of].iter_mut().zip(&values[*of]).zip(&own) {
                    *d += 2.0 * x * own;
                }
            }
            IrKind::Linear { terms, .. } => {
                let plane = node.shape[1] * node.shape[2];
                for term in terms {
                    let own = &own[term.offset * plane..][..term.op.output[0] * plane];
                    add_transposed(&term.op, own, &mut derivatives[term.value]);
                }
            }
        }
        derivatives[id] = own;
    }
    derivatives
}

/// Where the taps of one kernel position meet: rows of the output and of the input, and the columns of both.
struct Overlap {
    /// First output row, first input row, rows.
    rows: (usize, usize, usize),
    /// First output column, first input column, columns.
    columns: (usize, usize, usize),
}

/// The outputs whose tap `at` lies inside the input.
fn overlap(op: &ConvOp, at: [usize; 2]) -> Overlap {
    let axis = |axis: usize| {
        let (shift, pad, stride) = (at[axis] * op.dilation[axis], op.pads[axis], op.stride[axis]);
        let (outputs, inputs) = (op.output[axis + 1], op.input[axis + 1]);
        let first = pad.saturating_sub(shift).div_ceil(stride);
        let from = (first * stride + shift).saturating_sub(pad);
        let count = if from < inputs { (inputs - from).div_ceil(stride) } else { 0 };
        (first, from, count.min(outputs.saturating_sub(first)))
    };
    Overlap { rows: axis(0), columns: axis(1) }
}

impl Overlap {
    /// Calls `f(output elements, input elements)` for every row, as ranges of their planes; inputs lie `stride` apart.
    fn for_each_row(&self, op: &ConvOp, mut f: impl FnMut(std::ops::Range<usize>, std::ops::Range<usize>)) {
        let ((oy, iy, rows), (ox, ix, columns)) = (self.rows, self.columns);
        if columns == 0 {
            return;
        }
        for y in 0..rows {
            let out = (oy + y) * op.output[2] + ox;
            let input = (iy + y * op.stride[0]) * op.input[2] + ix;
            f(out..out + columns, input..input + (columns - 1) * op.stride[1] + 1);
        }
    }
}

/// The overlaps of all taps, in the order of the weights.
fn overlaps(op: &ConvOp) -> Vec<Overlap> {
    let [kh, kw] = op.kernel;
    (0..kh * kw).map(|at| overlap(op, [at / kw, at % kw])).collect()
}

/// The weights between output channel `o` and the `k`th input channel of its group.
fn weights(op: &ConvOp, o: usize, k: usize) -> impl Iterator<Item = f64> {
    let taps = op.kernel[0] * op.kernel[1];
    op.weight[(o * op.group_inputs() + k) * taps..][..taps].iter().map(|&w| f64::from(w))
}

/// The channels of the group that output channel `o` reads.
fn inputs_of(op: &ConvOp, o: usize) -> std::ops::Range<usize> {
    let first = o / (op.output[0] / op.groups) * op.group_inputs();
    first..first + op.group_inputs()
}

fn planes(op: &ConvOp) -> [usize; 2] {
    [op.output[1] * op.output[2], op.input[1] * op.input[2]]
}

/// `out += op(input)`.
fn add_products(op: &ConvOp, input: &[f64], out: &mut [f64]) {
    let ([out_plane, in_plane], overlaps) = (planes(op), overlaps(op));
    out.par_chunks_mut(out_plane).enumerate().for_each(|(o, out)| {
        let mut sums = vec![0.0; out_plane];
        for (k, i) in inputs_of(op, o).enumerate() {
            let input = &input[i * in_plane..][..in_plane];
            for (overlap, weight) in overlaps.iter().zip(weights(op, o, k)) {
                overlap.for_each_row(op, |out, from| {
                    add_row(&mut sums[out], &input[from], op.stride[1], weight);
                });
            }
        }
        for (at, (out, sum)) in out.iter_mut().zip(&sums).enumerate() {
            *out += sum * op.position_scale.as_ref().map_or(1.0, |s| f64::from(s[at]));
        }
    });
}

/// `out[x] += weight·input[x·stride]`.
fn add_row(out: &mut [f64], input: &[f64], stride: usize, weight: f64) {
    if stride == 1 {
        out.iter_mut().zip(input).for_each(|(o, v)| *o += weight * v);
    } else {
        out.iter_mut().zip(input.iter().step_by(stride)).for_each(|(o, v)| *o += weight * v);
    }
}

/// Derivatives by the input from those by the output: `input += opᵀ(out)`.
fn add_transposed(op: &ConvOp, out: &[f64], input: &mut [f64]) {
    let ([out_plane, in_plane], overlaps) = (planes(op), overlaps(op));
    let out = scaled(op, out);
    let (per_group, outputs) = (op.group_inputs(), op.output[0] / op.groups);
    input.par_chunks_mut(in_plane).enumerate().for_each(|(i, input)| {
        let first = i / per_group * outputs;
        for o in first..first + outputs {
            let out = &out[o * out_plane..][..out_plane];
            for (overlap, weight) in overlaps.iter().zip(weights(op, o, i % per_group)) {
                overlap.for_each_row(op, |own, to| {
                    let to = input[to].iter_mut().step_by(op.stride[1]);
                    to.zip(&out[own]).for_each(|(to, d)| *to += weight * d);
                });
            }
        }
    });
}

/// With the factors of the positions.
fn scaled(op: &ConvOp, out: &[f64]) -> Vec<f64> {
    let plane = planes(op)[0];
    let factor = |at: usize| op.position_scale.as_ref().map_or(1.0, |s| f64::from(s[at % plane]));
    out.iter().enumerate().map(|(at, d)| d * factor(at)).collect()
}

/// Sum over all weights of the squared derivative by them: of `Σ d·input` over the positions where the weight is used.
pub(crate) fn weight_products(op: &ConvOp, input: &[f64], derivatives: &[f64]) -> f64 {
    let ([out_plane, in_plane], overlaps) = (planes(op), overlaps(op));
    let derivatives = scaled(op, derivatives);
    let of = |o: usize| {
        let own = &derivatives[o * out_plane..][..out_plane];
        let mut sum = 0.0;
        for i in inputs_of(op, o) {
            let input = &input[i * in_plane..][..in_plane];
            for overlap in &overlaps {
                let mut product = 0.0;
                overlap.for_each_row(op, |out, from| {
                    let input = input[from].iter().step_by(op.stride[1]);
                    product += own[out].iter().zip(input).map(|(d, v)| d * v).sum::<f64>();
                });
                sum += product * product;
            }
        }
        sum
    };
    (0..op.output[0]).into_par_iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A grouped, strided, dilated, padded operator with a factor a position.
    fn op(groups: usize, positions: bool) -> ConvOp {
        let (input, kernel, stride, pads, dilation) = ([4, 7, 6], [3, 2], [2, 1], [1, 0], [1, 2]);
        let output = [6, 4, 4];
        let count = 6 * (4 / groups) * 6;
        ConvOp {
            output,
            input,
            kernel,
            stride,
            pads,
            dilation,
            groups,
            weight: (0..count).map(|k| ((k * 7 % 13) as f32 - 6.0) / 5.0).collect(),
            position_scale: positions.then(|| (0..16).map(|k| 0.5 + k as f32 / 16.0).collect()),
        }
    }

    fn numbers(count: usize, seed: usize) -> Vec<f64> {
        (0..count).map(|k| ((k * 31 + seed * 17) % 23) as f64 / 11.0 - 1.0).collect()
    }

    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    fn product(op: &ConvOp, input: &[f64]) -> Vec<f64> {
        let mut out = vec![0.0; op.output.iter().product()];
        add_products(op, input, &mut out);
        out
    }

    #[test]
    fn products_are_those_of_all_taps() {
        for op in [op(1, false), op(2, true)] {
            let input = numbers(4 * 42, 1);
            let found = product(&op, &input);
            for (at, found) in found.iter().enumerate() {
                let (c, y, x) = (at / 16, at / 4 % 4, at % 4);
                let mut expected = 0.0;
                op.for_each_tap(c, y, x, |i, iy, ix, w| {
                    expected += f64::from(w) * input[(i * 7 + iy) * 6 + ix];
                });
                assert!((found - expected).abs() < 1e-6, "{at}: {found} {expected}");
            }
        }
    }

    #[test]
    fn the_transpose_and_the_products_of_weights_are_derivatives() {
        for op in [op(1, false), op(2, true)] {
            let (input, factors) = (numbers(4 * 42, 1), numbers(6 * 16, 2));
            let mut transposed = vec![0.0; input.len()];
            add_transposed(&op, &factors, &mut transposed);
            let other = numbers(input.len(), 3);
            assert!((dot(&factors, &product(&op, &other)) - dot(&transposed, &other)).abs() < 1e-9);

            // What the sum gains where one weight is one more.
            let whole = dot(&factors, &product(&op, &input));
            let gain = |k: usize| {
                let mut more = op.clone();
                more.weight[k] += 1.0;
                dot(&factors, &product(&more, &input)) - whole
            };
            let expected: f64 = (0..op.weight.len()).map(|k| gain(k).powi(2)).sum();
            let found = weight_products(&op, &input, &factors);
            assert!((found / expected - 1.0).abs() < 1e-4, "{found} {expected}");
        }
    }
}
