//! Symbolic affine expressions over canonical values, and how operators act on them.

use polyveil_net::Pool;

use crate::canonical::{IrId, IrNode, IrTerm};
use crate::linop::ConvOp;

/// A value not yet computed: an affine function of canonical values.
#[derive(Clone, Debug)]
pub(crate) struct Expr {
    form: Form,
    /// `[C]` or `[C, H, W]`.
    pub bias: Vec<f64>,
    /// Channels, rows, columns.
    pub shape: [usize; 3],
    /// The graph sees it as a vector.
    pub flat: bool,
}

#[derive(Clone, Debug)]
enum Form {
    /// Sum of values, each scaled per channel and placed at a channel offset.
    Diagonal(Vec<Part>),
    /// Sum of convolutions that no value holds yet.
    Pending(Vec<IrTerm>),
}

/// A value scaled per channel; its channel 0 is channel `offset` of the expression.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub value: IrId,
    pub offset: usize,
    pub scale: Vec<f64>,
}

impl Expr {
    pub fn identity(value: IrId, shape: [usize; 3], flat: bool) -> Self {
        let part = Part { value, offset: 0, scale: vec![1.0; shape[0]] };
        Self { form: Form::Diagonal(vec![part]), bias: vec![0.0; shape[0]], shape, flat }
    }

    pub fn diagonal(parts: Vec<Part>, bias: Vec<f64>, shape: [usize; 3], flat: bool) -> Self {
        Self { form: Form::Diagonal(parts), bias, shape, flat }
    }

    pub fn pending(terms: Vec<IrTerm>, bias: Vec<f64>, shape: [usize; 3], flat: bool) -> Self {
        Self { form: Form::Pending(terms), bias, shape, flat }
    }

    /// The same values, seen as a vector.
    pub fn flattened(self) -> Self {
        Self { flat: true, ..self }
    }

    pub fn is_pending(&self) -> bool {
        matches!(self.form, Form::Pending(_))
    }

    /// The parts of a per-channel expression; none of a pending one.
    pub fn parts(&self) -> Vec<Part> {
        match &self.form {
            Form::Diagonal(parts) => parts.clone(),
            Form::Pending(_) => Vec::new(),
        }
    }

    /// The value that this expression is, where it is one unchanged.
    pub fn as_value(&self) -> Option<IrId> {
        match &self.form {
            Form::Diagonal(parts) => match parts.as_slice() {
                [p] if p.scale.len() == self.shape[0]
                    && p.scale.iter().all(|&s| s == 1.0)
                    && self.bias.iter().all(|&b| b == 0.0) =>
                {
                    Some(p.value)
                }
                _ => None,
            },
            Form::Pending(_) => None,
        }
    }

    pub fn into_terms(self, nodes: &[IrNode]) -> Vec<IrTerm> {
        match self.form {
            Form::Pending(terms) => terms,
            Form::Diagonal(parts) => parts
                .into_iter()
                .filter(|p| p.scale.iter().any(|&s| s != 0.0))
                .map(|p| {
                    let scale = p.scale.iter().map(|&s| s as f32).collect();
                    IrTerm {
                        value: p.value,
                        offset: p.offset,
                        op: ConvOp::diagonal(nodes[p.value].shape, scale),
                    }
                })
                .collect(),
        }
    }

    /// Multiplies channel `c` by `factor[c]` (or all by `factor[0]`).
    pub fn scaled(mut self, factor: &[f64]) -> Self {
        let at = |c: usize| factor[if factor.len() == 1 { 0 } else { c }];
        match &mut self.form {
            Form::Diagonal(parts) => {
                for p in parts {
                    for (i, s) in p.scale.iter_mut().enumerate() {
                        *s *= at(p.offset + i);
                    }
                }
            }
            Form::Pending(terms) => {
                for t in terms {
                    let row = t.op.weight.len() / t.op.output[0];
                    for (o, weights) in t.op.weight.chunks_mut(row).enumerate() {
                        for w in weights {
                            *w = (f64::from(*w) * at(t.offset + o)) as f32;
                        }
                    }
                }
            }
        }
        let per = self.bias.len() / self.shape[0];
        for (i, b) in self.bias.iter_mut().enumerate() {
            *b *= at(i / per);
        }
        self
    }

    /// Adds `shift[c]` to channel `c` (or `shift[0]` to all).
    pub fn shifted(mut self, shift: &[f64]) -> Self {
        let per = self.bias.len() / self.shape[0];
        for (i, b) in self.bias.iter_mut().enumerate() {
            *b += shift[if shift.len() == 1 { 0 } else { i / per }];
        }
        self
    }

    /// Sum of two expressions of one shape. Per-channel parts join pending convolutions as 1×1
    /// operators (made when the sum is computed).
    pub fn sum(a: Self, b: Self) -> Self {
        let (shape, flat) = (a.shape, a.flat);
        let bias = if a.bias.len() == b.bias.len() {
            a.bias.iter().zip(&b.bias).map(|(x, y)| x + y).collect()
        } else {
            let (x, y) = (full_bias(&a.bias, shape), full_bias(&b.bias, shape));
            x.iter().zip(&y).map(|(x, y)| x + y).collect()
        };
        let form = match (a.form, b.form) {
            (Form::Diagonal(mut p), Form::Diagonal(q)) => {
                p.extend(q);
                Form::Diagonal(p)
            }
            (Form::Pending(mut p), Form::Pending(q)) => {
                p.extend(q);
                Form::Pending(p)
            }
            (Form::Pending(mut terms), Form::Diagonal(parts))
            | (Form::Diagonal(parts), Form::Pending(mut terms)) => {
                terms.extend(parts.into_iter().map(|p| p.into_term(shape)));
                Form::Pending(terms)
            }
        };
        Self { form, bias, shape, flat }
    }

    /// Concatenation along the channels; pending where an item is.
    pub fn concat(items: Vec<Self>) -> Self {
        let flat = items.first().is_some_and(|e| e.flat);
        let mut shape = items.first().map_or([0, 1, 1], |e| e.shape);
        shape[0] = items.iter().map(|e| e.shape[0]).sum();
        let uniform = items.iter().all(|e| e.bias.len() == e.shape[0]);
        let pending = items.iter().any(Self::is_pending);
        let (mut parts, mut terms, mut bias, mut offset) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for item in items {
            let own = if uniform { item.bias.clone() } else { full_bias(&item.bias, item.shape) };
            bias.extend(own);
            let channels = item.shape[0];
            match item.form {
                Form::Pending(own) => {
                    terms.extend(own.into_iter().map(|t| IrTerm { offset: t.offset + offset, ..t }));
                }
                Form::Diagonal(own) => {
                    let own = own.into_iter().map(|p| Part { offset: p.offset + offset, ..p });
                    if pending {
                        terms.extend(own.map(|p| p.into_term(shape)));
                    } else {
                        parts.extend(own);
                    }
                }
            }
            offset += channels;
        }
        let form = if pending { Form::Pending(terms) } else { Form::Diagonal(parts) };
        Self { form, bias, shape, flat }
    }
}

impl Part {
    /// As a 1×1 operator into maps of `shape`.
    fn into_term(self, shape: [usize; 3]) -> IrTerm {
        let scale: Vec<f32> = self.scale.iter().map(|&s| s as f32).collect();
        let own = [scale.len(), shape[1], shape[2]];
        IrTerm { value: self.value, offset: self.offset, op: ConvOp::diagonal(own, scale) }
    }
}

/// A bias with one value an element.
pub(crate) fn full_bias(bias: &[f64], shape: [usize; 3]) -> Vec<f64> {
    let per = shape[1] * shape[2];
    if bias.len() == shape[0] * per {
        return bias.to_vec();
    }
    bias.iter().flat_map(|&b| std::iter::repeat_n(b, per)).collect()
}

/// The operator on each part's value: weights sliced to the part's channels and scaled.
pub(crate) fn conv_over_parts(op: &ConvOp, parts: &[Part]) -> Vec<IrTerm> {
    parts
        .iter()
        .filter(|p| p.scale.iter().any(|&s| s != 0.0))
        .map(|p| {
            let channels = p.scale.len();
            let (per_group, taps) = (op.group_inputs(), op.kernel[0] * op.kernel[1]);
            let group_outputs = op.output[0] / op.groups;
            // One part covers every channel, or the operator has one group (see `densify`).
            let kept = if channels == op.input[0] { per_group } else { channels };
            let mut weight = Vec::with_capacity(op.output[0] * kept * taps);
            for o in 0..op.output[0] {
                let first = o / group_outputs * per_group;
                for i in 0..kept {
                    let source = if kept == per_group { i } else { p.offset + i };
                    let scale = if kept == per_group { p.scale[first + i] } else { p.scale[i] };
                    let at = (o * per_group + source) * taps;
                    weight.extend(op.weight[at..at + taps].iter().map(|&w| (f64::from(w) * scale) as f32));
                }
            }
            let mut input = op.input;
            input[0] = channels;
            IrTerm { value: p.value, offset: 0, op: ConvOp { input, weight, ..op.clone() } }
        })
        .collect()
}

/// The same operator with one channel group.
pub(crate) fn densify(op: ConvOp) -> ConvOp {
    if op.groups == 1 {
        return op;
    }
    let (per_group, taps) = (op.group_inputs(), op.kernel[0] * op.kernel[1]);
    let group_outputs = op.output[0] / op.groups;
    let mut weight = vec![0.0; op.output[0] * op.input[0] * taps];
    for o in 0..op.output[0] {
        let first = o / group_outputs * per_group;
        let from = o * per_group * taps;
        let to = (o * op.input[0] + first) * taps;
        weight[to..to + per_group * taps].copy_from_slice(&op.weight[from..from + per_group * taps]);
    }
    ConvOp { groups: 1, weight, ..op }
}

/// Bias of a convolution over an input with constant part `inner`: position-dependent where the
/// window reads zero padding (the padding is a zero of the whole input, constant included).
pub(crate) fn bias_of_conv(op: &ConvOp, inner: &[f64], bias: Option<&[f32]>) -> Vec<f64> {
    let [channels, rows, columns] = op.output;
    let own = |c: usize| bias.map_or(0.0, |b| f64::from(b[c]));
    if inner.iter().all(|&b| b == 0.0) {
        return (0..channels).map(own).collect();
    }
    let [_, height, width] = op.input;
    let per = inner.len() / op.input[0];
    let varies = per > 1 || op.reads_outside() || op.position_scale.is_some();
    let (rows, columns) = if varies { (rows, columns) } else { (1, 1) };
    let mut out = Vec::with_capacity(channels * rows * columns);
    for c in 0..channels {
        for y in 0..rows {
            for x in 0..columns {
                let mut sum = own(c);
                op.for_each_tap(c, y, x, |i, iy, ix, w| {
                    let at = if per == 1 { i } else { (i * height + iy) * width + ix };
                    sum += f64::from(w) * inner[at];
                });
                out.push(sum);
            }
        }
    }
    out
}

/// Constant part of an average pool over an input with constant part `inner`.
pub(crate) fn pool_bias(op: &ConvOp, inner: &[f64]) -> Vec<f64> {
    bias_of_conv(op, inner, None)
}

/// Factor at each output position by which a pool's divisor differs from the whole window; `None`
/// where it never does.
pub(crate) fn window_factors(pool: &Pool, input: [usize; 3], output: [usize; 3]) -> Option<Vec<f32>> {
    let counted = |axis: usize, position: usize| {
        let (before, after) = (pool.pads[axis], pool.pads[axis + 2]);
        let start = position * pool.stride[axis];
        let (low, high) = if pool.count_include_pad {
            (0, input[axis + 1] + before + after)
        } else {
            (before, before + input[axis + 1])
        };
        (start..start + pool.kernel[axis]).filter(|&p| p >= low && p < high).count().max(1)
    };
    let window = pool.kernel[0] * pool.kernel[1];
    let factors: Vec<f32> = (0..output[1])
        .flat_map(|y| (0..output[2]).map(move |x| (y, x)))
        .map(|(y, x)| window as f32 / (counted(0, y) * counted(1, x)) as f32)
        .collect();
    factors.iter().any(|&f| f != 1.0).then_some(factors)
}
