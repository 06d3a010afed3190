//! Shape inference and validation.

use std::collections::HashSet;

use crate::{Conv, Graph, Hw, MAX_VALUES, Node, Op, Pool, Quadratic, ShapeError, Tensor};

impl Graph {
    /// Checks all that [`Graph::infer_shapes`] checks, and that every weight is finite and every
    /// batch-norm variance positive. Reads each weight once.
    ///
    /// # Errors
    /// The first fault in graph order, with the node's name.
    pub fn validate(&self) -> Result<(), ShapeError> {
        self.infer_shapes()?;
        self.nodes.iter().try_for_each(check_values)
    }

    /// The shape of every node's value for one sample, in node order. Checks structure (names,
    /// order, number of inputs) and that all weights fit; does not read weights.
    ///
    /// # Errors
    /// The first fault in graph order, with the node's name and both sides of a mismatch.
    pub fn infer_shapes(&self) -> Result<Vec<Vec<usize>>, ShapeError> {
        self.infer_shapes_for(self.input_shape())
    }

    /// The same for an input of another shape, such as a part of an image: a network without fully connected layers on maps
    /// takes any size that its windows fit.
    ///
    /// # Errors
    /// As [`Graph::infer_shapes`].
    pub fn infer_shapes_for(&self, input: &[usize]) -> Result<Vec<Vec<usize>>, ShapeError> {
        self.check_structure()?;
        let mut shapes: Vec<Vec<usize>> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let inputs: Vec<&[usize]> = node.inputs.iter().map(|&i| shapes[i].as_slice()).collect();
            let own = output_shape(node, &inputs)?;
            shapes.push(if matches!(node.op, Op::Input { .. }) { input.to_vec() } else { own });
        }
        Ok(shapes)
    }

    /// Multiplications by a weight that one sample takes in convolutions and fully connected
    /// layers (taps on padding counted, as is usual).
    ///
    /// # Errors
    /// As [`Graph::infer_shapes`].
    pub fn multiply_accumulates(&self) -> Result<u64, ShapeError> {
        let shapes = self.infer_shapes()?;
        let macs = self.nodes.iter().zip(&shapes).map(|(node, shape)| match &node.op {
            Op::Conv(c) => c.weight.len() as u64 * (shape[1] * shape[2]) as u64,
            Op::Linear(l) => l.weight.len() as u64,
            _ => 0,
        });
        Ok(macs.fold(0, u64::saturating_add))
    }

    fn check_structure(&self) -> Result<(), ShapeError> {
        if !matches!(self.nodes.first(), Some(Node { op: Op::Input { .. }, .. })) {
            return Err(ShapeError::NoInput);
        }
        let mut names = HashSet::new();
        for (index, node) in self.nodes.iter().enumerate() {
            if node.name.is_empty() {
                return Err(ShapeError::Unnamed { index });
            }
            if !names.insert(node.name.as_str()) {
                let first = self.nodes.iter().position(|n| n.name == node.name).unwrap_or(0);
                return Err(ShapeError::DuplicateName { node: node.name.clone(), first, second: index });
            }
            if index > 0 && matches!(node.op, Op::Input { .. }) {
                return Err(ShapeError::SecondInput { node: node.name.clone() });
            }
            let (expected, fits): (_, fn(usize) -> bool) = match node.op {
                Op::Input { .. } => ("no", |n| n == 0),
                Op::Add => ("2", |n| n == 2),
                Op::Concat => ("at least 1", |n| n >= 1),
                _ => ("1", |n| n == 1),
            };
            let found = node.inputs.len();
            if !fits(found) {
                return Err(ShapeError::InputCount {
                    node: node.name.clone(),
                    op: node.op.name(),
                    expected,
                    found,
                });
            }
            if let Some(&input) = node.inputs.iter().find(|&&i| i >= index) {
                return Err(ShapeError::Order { node: node.name.clone(), index, input });
            }
        }
        if self.output >= self.nodes.len() {
            return Err(ShapeError::Output { output: self.output, nodes: self.nodes.len() });
        }
        Ok(())
    }
}

/// Output extents of a pooling window, which must already be known to fit.
///
/// `floor((padded − window) / stride) + 1`; with `ceil_mode` rounded up, except that a last window
/// that would start beyond the input and its leading padding is dropped (ONNX `AveragePool`).
fn pooled(extent: usize, lead: usize, padded: usize, window: usize, stride: usize, ceil: bool) -> usize {
    let room = padded - window;
    if !ceil {
        return room / stride + 1;
    }
    let n = room.div_ceil(stride) + 1;
    if (n - 1) * stride >= extent + lead { n - 1 } else { n }
}

/// The shape of `node`'s value. The structure has been checked.
pub(crate) fn output_shape(node: &Node, inputs: &[&[usize]]) -> Result<Vec<usize>, ShapeError> {
    let check = Check { node };
    let shape = match &node.op {
        Op::Input { shape } => {
            if !matches!(shape.len(), 1 | 3) {
                return Err(check.rank("[C, H, W] or [F]", shape));
            }
            shape.clone()
        }
        Op::Conv(conv) => check.conv(conv, inputs[0])?,
        Op::Linear(linear) => {
            let &[features] = inputs[0] else { return Err(check.rank("a vector [F]", inputs[0])) };
            let &[out, _] = linear.weight.shape() else {
                return Err(check.rank("a weight [out, in]", linear.weight.shape()));
            };
            check.same("weight", &[out, features], linear.weight.shape())?;
            if let Some(bias) = &linear.bias {
                check.same("bias", &[out], bias.shape())?;
            }
            vec![out]
        }
        Op::BatchNorm(norm) => {
            let channels = check.channels(inputs[0])?;
            for (name, t) in
                [("gamma", &norm.gamma), ("beta", &norm.beta), ("mean", &norm.mean), ("var", &norm.var)]
            {
                check.same(name, &[channels], t.shape())?;
            }
            inputs[0].to_vec()
        }
        Op::AvgPool(pool) | Op::MaxPool(pool) => check.pool(pool, inputs[0])?,
        Op::GlobalAvgPool => vec![check.image(inputs[0])?[0], 1, 1],
        Op::Relu => inputs[0].to_vec(),
        Op::Quadratic(q) => {
            check.quadratic(q, inputs[0])?;
            inputs[0].to_vec()
        }
        Op::Flatten => vec![inputs[0].iter().product()],
        Op::Add => {
            check.same("second input", inputs[0], inputs[1])?;
            inputs[0].to_vec()
        }
        Op::Concat => check.concat(inputs)?,
    };
    let size = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    match size {
        Some(1..=MAX_VALUES) => Ok(shape),
        Some(0) => Err(check.rank("extents of at least 1", &shape)),
        _ => Err(ShapeError::TooLarge { node: node.name.clone(), op: node.op.name(), shape }),
    }
}

/// Checks on behalf of one node, so that every error carries its name.
struct Check<'a> {
    node: &'a Node,
}

impl Check<'_> {
    fn name(&self) -> String {
        self.node.name.clone()
    }

    fn rank(&self, expected: &'static str, found: &[usize]) -> ShapeError {
        ShapeError::Rank { node: self.name(), op: self.node.op.name(), expected, found: found.to_vec() }
    }

    fn same(&self, what: &str, expected: &[usize], found: &[usize]) -> Result<(), ShapeError> {
        if expected == found {
            return Ok(());
        }
        Err(ShapeError::Mismatch {
            node: self.name(),
            op: self.node.op.name(),
            what: what.to_owned(),
            expected: expected.to_vec(),
            found: found.to_vec(),
        })
    }

    fn at_least_one(&self, what: &'static str, found: Hw) -> Result<(), ShapeError> {
        if found.contains(&0) {
            return Err(ShapeError::Zero { node: self.name(), op: self.node.op.name(), what, found });
        }
        Ok(())
    }

    fn image(&self, shape: &[usize]) -> Result<[usize; 3], ShapeError> {
        shape.try_into().map_err(|_| self.rank("an image [C, H, W]", shape))
    }

    fn channels(&self, shape: &[usize]) -> Result<usize, ShapeError> {
        shape.first().copied().ok_or_else(|| self.rank("[C, H, W] or [F]", shape))
    }

    /// Padded extent, checked to hold `window`.
    fn padded(&self, extent: usize, lead: usize, trail: usize, window: usize) -> Result<usize, ShapeError> {
        let padded = extent.saturating_add(lead).saturating_add(trail);
        if window > padded {
            return Err(ShapeError::EmptyOutput {
                node: self.name(),
                op: self.node.op.name(),
                window,
                padded,
            });
        }
        // Keeps every later sum and product of coordinates far from overflow.
        if padded > MAX_VALUES {
            return Err(ShapeError::TooLarge {
                node: self.name(),
                op: self.node.op.name(),
                shape: vec![padded],
            });
        }
        Ok(padded)
    }

    fn conv(&self, conv: &Conv, input: &[usize]) -> Result<Vec<usize>, ShapeError> {
        let [channels, h, w] = self.image(input)?;
        let &[out, per_group, kh, kw] = conv.weight.shape() else {
            return Err(self.rank("a weight [out, in / groups, kh, kw]", conv.weight.shape()));
        };
        if conv.groups == 0 || channels % conv.groups != 0 || out % conv.groups != 0 {
            return Err(ShapeError::Groups {
                node: self.name(),
                groups: conv.groups,
                inputs: channels,
                outputs: out,
            });
        }
        self.same("weight", &[out, channels / conv.groups, kh, kw], &[out, per_group, kh, kw])?;
        if let Some(bias) = &conv.bias {
            self.same("bias", &[out], bias.shape())?;
        }
        self.at_least_one("the kernel", [kh, kw])?;
        self.at_least_one("the stride", conv.stride)?;
        self.at_least_one("the dilation", conv.dilation)?;
        let [top, left, bottom, right] = conv.pads;
        let extent = |size, lead, trail, kernel: usize, axis: usize| {
            let window = (kernel - 1).saturating_mul(conv.dilation[axis]).saturating_add(1);
            let padded = self.padded(size, lead, trail, window)?;
            Ok((padded - window) / conv.stride[axis] + 1)
        };
        Ok(vec![out, extent(h, top, bottom, kh, 0)?, extent(w, left, right, kw, 1)?])
    }

    fn pool(&self, pool: &Pool, input: &[usize]) -> Result<Vec<usize>, ShapeError> {
        let [channels, h, w] = self.image(input)?;
        self.at_least_one("the window", pool.kernel)?;
        self.at_least_one("the stride", pool.stride)?;
        let [top, left, bottom, right] = pool.pads;
        let [kh, kw] = pool.kernel;
        if top >= kh || bottom >= kh || left >= kw || right >= kw {
            return Err(ShapeError::PoolPads {
                node: self.name(),
                op: self.node.op.name(),
                pads: pool.pads,
                kernel: pool.kernel,
            });
        }
        let rows = self.padded(h, top, bottom, kh)?;
        let columns = self.padded(w, left, right, kw)?;
        Ok(vec![
            channels,
            pooled(h, top, rows, kh, pool.stride[0], pool.ceil_mode),
            pooled(w, left, columns, kw, pool.stride[1], pool.ceil_mode),
        ])
    }

    fn quadratic(&self, q: &Quadratic, input: &[usize]) -> Result<(), ShapeError> {
        let channels = self.channels(input)?;
        for (name, t) in [("a", &q.a), ("b", &q.b), ("c", &q.c)] {
            if t.shape() != [1] {
                self.same(name, &[channels], t.shape())?;
            }
        }
        Ok(())
    }

    fn concat(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, ShapeError> {
        let mut shape = inputs[0].to_vec();
        self.channels(&shape)?;
        for (i, other) in inputs.iter().enumerate().skip(1) {
            let mut expected = shape.clone();
            expected[0] = self.channels(other)?;
            self.same(&format!("input {i}"), &expected, other)?;
            shape[0] = shape[0].saturating_add(other[0]);
        }
        Ok(shape)
    }
}

fn check_values(node: &Node) -> Result<(), ShapeError> {
    for (weight, tensor) in node.op.weights() {
        if let Some(position) = first_non_finite(tensor) {
            return Err(ShapeError::NonFiniteWeight {
                node: node.name.clone(),
                op: node.op.name(),
                weight,
                position,
                value: tensor.data()[position],
            });
        }
    }
    if let Op::BatchNorm(norm) = &node.op {
        let bad = norm
            .var
            .data()
            .iter()
            .map(|v| v + norm.eps)
            .enumerate()
            .find(|(_, v)| !(v.is_finite() && *v > 0.0));
        if let Some((channel, value)) = bad {
            return Err(ShapeError::Variance { node: node.name.clone(), channel, value });
        }
    }
    Ok(())
}

fn first_non_finite(tensor: &Tensor) -> Option<usize> {
    tensor.data().iter().position(|x| !x.is_finite())
}
