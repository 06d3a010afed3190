//! From a network graph to an alternation of linear operators and squares.
//!
//! Whatever is affine per channel (batch norm, the outer part of a quadratic, concatenation,
//! residual addition) is carried along symbolically and absorbed by the next operator, so that it
//! costs neither a level nor a product. A quadratic is a completed square,
//! `a·x² + b·x + c = a·(x + b/2a)² + (c − b²/4a)`: the inner shift joins the bias before it, the
//! outer factor the weights after it. Where `a` is too small for that, the next operator reads both
//! `x²` and `x` (same levels, twice the products for those channels).

use polyveil_net::{Graph, NodeId, Op};

use crate::PlanError;
use crate::affine::{Expr, bias_of_conv, conv_over_parts, densify, pool_bias, window_factors};
use crate::error::Unplannable;
use crate::linop::ConvOp;
use crate::merge::merged;

/// Index of a value of the canonical form.
pub type IrId = usize;

/// A network as linear operators and squares.
#[derive(Clone, Debug)]
pub struct Ir {
    /// In topological order; the first is the input.
    pub nodes: Vec<IrNode>,
    /// The node that yields the logits.
    pub output: IrId,
}

/// One value of the canonical form.
#[derive(Clone, Debug)]
pub struct IrNode {
    /// Name of the graph node it ends in.
    pub name: String,
    /// Channels, rows, columns.
    pub shape: [usize; 3],
    /// How it is made.
    pub kind: IrKind,
}

/// How a value is made.
#[derive(Clone, Debug)]
pub enum IrKind {
    /// The network's input.
    Input,
    /// Sum of linear operators of earlier values, plus a bias.
    Linear {
        /// The summands.
        terms: Vec<IrTerm>,
        /// `[C]` or `[C, H, W]`.
        bias: Vec<f64>,
    },
    /// Elementwise square.
    Square(IrId),
}

/// A linear operator applied to a value; its output channels start at `offset` of the sum.
#[derive(Clone, Debug)]
pub struct IrTerm {
    /// What it reads.
    pub value: IrId,
    /// First output channel it contributes to.
    pub offset: usize,
    /// The operator.
    pub op: ConvOp,
}

/// Beyond this `|b / 2a|` a square is not completed: shifting by it would cost too much range.
const MAX_SHIFT: f64 = 512.0;

/// Rewrites `graph` as linear operators and squares.
///
/// # Errors
/// [`PlanError::Graph`] where the graph is malformed, [`PlanError::Unplannable`] listing every node
/// that has no ciphertext form (ReLU and max-pool point to conversion).
pub fn canonicalise(graph: &Graph) -> Result<Ir, PlanError> {
    let shapes = graph.infer_shapes()?;
    refuse_unplannable(graph)?;
    let mut uses = vec![0usize; graph.nodes.len()];
    for node in &graph.nodes {
        for &input in &node.inputs {
            uses[input] += 1;
        }
    }
    uses[graph.output] += 1;

    let mut builder = Builder { nodes: Vec::new(), exprs: Vec::with_capacity(graph.nodes.len()) };
    for (id, node) in graph.nodes.iter().enumerate() {
        let mut expr = builder.lower(graph, id, &shapes)?;
        if uses[id] > 1 && expr.is_pending() {
            // Two readers: compute it once.
            let value = builder.materialise(&node.name, expr);
            expr = builder.identity(value, shapes[id].len() == 1);
        }
        builder.exprs.push(expr);
    }
    let output = builder.finish(graph);
    Ok(prune(builder.nodes, output))
}

/// Drops what the output does not depend on (the square of a quadratic without one, say).
fn prune(nodes: Vec<IrNode>, output: IrId) -> Ir {
    let mut needed = vec![false; nodes.len()];
    needed[0] = true;
    needed[output] = true;
    for (id, node) in nodes.iter().enumerate().rev().filter(|&(id, _)| id <= output) {
        if needed[id] {
            match &node.kind {
                IrKind::Input => {}
                IrKind::Square(of) => needed[*of] = true,
                IrKind::Linear { terms, .. } => terms.iter().for_each(|t| needed[t.value] = true),
            }
        }
    }
    let mut index = vec![0; nodes.len()];
    let mut kept: Vec<IrNode> = Vec::with_capacity(nodes.len());
    for (id, mut node) in nodes.into_iter().enumerate().filter(|&(id, _)| needed[id]) {
        match &mut node.kind {
            IrKind::Input => {}
            IrKind::Square(of) => *of = index[*of],
            IrKind::Linear { terms, .. } => terms.iter_mut().for_each(|t| t.value = index[t.value]),
        }
        index[id] = kept.len();
        kept.push(node);
    }
    Ir { output: index[output], nodes: kept }
}

fn refuse_unplannable(graph: &Graph) -> Result<(), PlanError> {
    let bad: Vec<Unplannable> = graph
        .nodes
        .iter()
        .filter_map(|node| {
            let (op, advice) = match node.op {
                Op::Relu => {
                    ("Relu", "run `polyveil convert` to replace it by a trained quadratic activation")
                }
                Op::MaxPool(_) => ("MaxPool", "run `polyveil convert` to replace it by average pooling"),
                _ => return None,
            };
            Some(Unplannable { node: node.name.clone(), op: op.into(), advice: advice.into() })
        })
        .collect();
    if bad.is_empty() { Ok(()) } else { Err(PlanError::Unplannable(bad)) }
}

struct Builder {
    nodes: Vec<IrNode>,
    exprs: Vec<Expr>,
}

impl Builder {
    fn lower(&mut self, graph: &Graph, id: NodeId, shapes: &[Vec<usize>]) -> Result<Expr, PlanError> {
        let node = &graph.nodes[id];
        let name = &node.name;
        let input = |k: usize| self.exprs[node.inputs[k]].clone();
        Ok(match &node.op {
            Op::Input { shape } => {
                let physical = physical(shape);
                let value = self.push(name, physical, IrKind::Input);
                self.identity(value, shape.len() == 1)
            }
            Op::Conv(conv) => {
                let (out, w) = (physical(&shapes[id]), conv.weight.shape());
                let source = self.diagonal(name, input(0));
                let op = ConvOp {
                    output: out,
                    input: source.shape,
                    kernel: [w[2], w[3]],
                    stride: conv.stride,
                    pads: [conv.pads[0], conv.pads[1]],
                    dilation: conv.dilation,
                    groups: conv.groups,
                    weight: conv.weight.data().to_vec(),
                    position_scale: None,
                };
                let bias = conv.bias.as_ref().map(polyveil_net::Tensor::data);
                self.conv(source, op, bias, false)
            }
            Op::Linear(linear) => {
                let source = self.diagonal(name, input(0));
                let [c, h, w] = source.shape;
                let op = ConvOp {
                    output: [linear.weight.shape()[0], 1, 1],
                    input: [c, h, w],
                    kernel: [h, w],
                    stride: [1, 1],
                    pads: [0, 0],
                    dilation: [1, 1],
                    groups: 1,
                    weight: linear.weight.data().to_vec(),
                    position_scale: None,
                };
                let bias = linear.bias.as_ref().map(polyveil_net::Tensor::data);
                self.conv(source, op, bias, true)
            }
            Op::BatchNorm(bn) => {
                let n = bn.gamma.len();
                let factor: Vec<f64> = (0..n)
                    .map(|i| {
                        f64::from(bn.gamma.data()[i])
                            / (f64::from(bn.var.data()[i]) + f64::from(bn.eps)).sqrt()
                    })
                    .collect();
                let shift: Vec<f64> = (0..n)
                    .map(|i| f64::from(bn.beta.data()[i]) - f64::from(bn.mean.data()[i]) * factor[i])
                    .collect();
                self.per_channel(name, input(0), &factor, &shift)
            }
            Op::AvgPool(pool) => {
                let source = self.diagonal(name, input(0));
                let out = physical(&shapes[id]);
                let factors = window_factors(pool, source.shape, out);
                self.pool(name, source, out, pool.kernel, pool.stride, [pool.pads[0], pool.pads[1]], factors)
            }
            Op::GlobalAvgPool => {
                let source = self.diagonal(name, input(0));
                let [c, h, w] = source.shape;
                self.pool(name, source, [c, 1, 1], [h, w], [1, 1], [0, 0], None)
            }
            Op::Quadratic(q) => {
                let [a, b, c] = [&q.a, &q.b, &q.c].map(|t| t.data().iter().map(|&v| f64::from(v)).collect());
                self.quadratic(name, input(0), &[a, b, c])
            }
            Op::Flatten => self.diagonal(name, input(0)).flattened(),
            Op::Add => Expr::sum(input(0), input(1)),
            Op::Concat => {
                let parts: Vec<Expr> = (0..node.inputs.len()).map(input).collect();
                if parts.iter().any(|e| e.flat && e.shape[1] * e.shape[2] > 1) {
                    return Err(PlanError::Unplannable(vec![Unplannable {
                        node: name.clone(),
                        op: "Concat of flattened maps".into(),
                        advice: "concatenate before Flatten".into(),
                    }]));
                }
                Expr::concat(parts)
            }
            Op::Relu | Op::MaxPool(_) => {
                return Err(PlanError::Unplannable(vec![Unplannable {
                    node: name.clone(),
                    op: format!("{:?}", std::mem::discriminant(&node.op)),
                    advice: "run `polyveil convert`".into(),
                }]));
            }
        })
    }

    fn push(&mut self, name: &str, shape: [usize; 3], kind: IrKind) -> IrId {
        self.nodes.push(IrNode { name: name.to_owned(), shape, kind });
        self.nodes.len() - 1
    }

    fn identity(&self, value: IrId, flat: bool) -> Expr {
        Expr::identity(value, self.nodes[value].shape, flat)
    }

    /// The expression as a value of its own.
    fn materialise(&mut self, name: &str, expr: Expr) -> IrId {
        if let Some(value) = expr.as_value() {
            return value;
        }
        let shape = expr.shape;
        let bias = expr.bias.clone();
        let terms = merged(expr.into_terms(&self.nodes));
        self.push(name, shape, IrKind::Linear { terms, bias })
    }

    /// The expression in per-channel form; computes it where it is a pending convolution.
    fn diagonal(&mut self, name: &str, expr: Expr) -> Expr {
        if !expr.is_pending() {
            return expr;
        }
        let flat = expr.flat;
        let value = self.materialise(name, expr);
        self.identity(value, flat)
    }

    fn conv(&mut self, source: Expr, op: ConvOp, bias: Option<&[f32]>, flat: bool) -> Expr {
        let shape = op.output;
        let constant = bias_of_conv(&op, &source.bias, bias);
        let parts = source.parts();
        let op = if parts.len() > 1 { densify(op) } else { op };
        Expr::pending(conv_over_parts(&op, &parts), constant, shape, flat)
    }

    /// `factor[c]·x + shift[c]`, symbolically.
    fn per_channel(&mut self, name: &str, expr: Expr, factor: &[f64], shift: &[f64]) -> Expr {
        // Coefficients of a flattened map are per element, not per channel: give each its own value.
        let spatial = expr.shape[1] * expr.shape[2] > 1;
        let expr = if expr.flat && spatial && factor.len() > 1 { self.flatten(name, expr) } else { expr };
        expr.scaled(factor).shifted(shift)
    }

    /// A flattened map as a vector `[C·H·W, 1, 1]`: an element-to-element operator.
    fn flatten(&mut self, name: &str, expr: Expr) -> Expr {
        let [c, h, w] = expr.shape;
        let n = c * h * w;
        let mut weight = vec![0.0f32; n * n];
        for i in 0..n {
            weight[i * n + i] = 1.0;
        }
        let op = ConvOp {
            output: [n, 1, 1],
            input: [c, h, w],
            kernel: [h, w],
            stride: [1, 1],
            pads: [0, 0],
            dilation: [1, 1],
            groups: 1,
            weight,
            position_scale: None,
        };
        let source = self.diagonal(name, expr);
        self.conv(source, op, None, true)
    }

    #[expect(clippy::too_many_arguments, reason = "the geometry of a window, used in two places")]
    fn pool(
        &mut self,
        name: &str,
        source: Expr,
        output: [usize; 3],
        kernel: [usize; 2],
        stride: [usize; 2],
        pads: [usize; 2],
        factors: Option<Vec<f32>>,
    ) -> Expr {
        let window = |shape: [usize; 3]| ConvOp {
            output: [shape[0], output[1], output[2]],
            input: shape,
            kernel,
            stride,
            pads,
            dilation: [1, 1],
            groups: shape[0],
            weight: vec![1.0 / (kernel[0] * kernel[1]) as f32; shape[0] * kernel[0] * kernel[1]],
            position_scale: factors.clone(),
        };
        let bias = pool_bias(&window(source.shape), &source.bias);
        // Pooling commutes with per-channel factors: pool the plain values with equal weights, which
        // costs no level, and keep the factors for the next operator.
        let parts = source
            .parts()
            .into_iter()
            .filter(|part| part.scale.iter().any(|&s| s != 0.0))
            .map(|mut part| {
                let op = window(self.nodes[part.value].shape);
                let (shape, of) = (op.output, part.value);
                let same = self.nodes.iter().position(|n| match &n.kind {
                    IrKind::Linear { terms, .. } => {
                        terms.len() == 1 && terms[0].value == of && terms[0].op == op
                    }
                    _ => false,
                });
                part.value = same.unwrap_or_else(|| {
                    let terms = vec![IrTerm { value: of, offset: 0, op }];
                    self.push(name, shape, IrKind::Linear { terms, bias: vec![0.0; shape[0]] })
                });
                part
            })
            .collect();
        Expr::diagonal(parts, bias, output, source.flat)
    }

    fn quadratic(&mut self, name: &str, expr: Expr, [a, b, c]: &[Vec<f64>; 3]) -> Expr {
        let n = [a, b, c].iter().map(|v| v.len()).max().unwrap_or(1);
        let at = |v: &Vec<f64>, i: usize| v[if v.len() == 1 { 0 } else { i }];
        let mut inner = vec![0.0; n];
        let (mut square, mut linear, mut constant) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
        for i in 0..n {
            let (ai, bi, ci) = (at(a, i), at(b, i), at(c, i));
            square[i] = ai;
            if ai != 0.0 && (bi / (2.0 * ai)).abs() <= MAX_SHIFT {
                inner[i] = bi / (2.0 * ai);
                constant[i] = ci - bi * bi / (4.0 * ai);
            } else {
                linear[i] = bi;
                constant[i] = ci;
            }
        }
        let shifted = self.per_channel(name, expr, &vec![1.0; n], &inner);
        let flat = shifted.flat;
        let z = self.materialise(name, shifted);
        let s = self.push(name, self.nodes[z].shape, IrKind::Square(z));
        let squared = self.identity(s, flat).scaled(&square);
        let result = if linear.iter().any(|&l| l != 0.0) {
            Expr::sum(squared, self.identity(z, flat).scaled(&linear))
        } else {
            squared
        };
        result.shifted(&constant)
    }

    fn finish(&mut self, graph: &Graph) -> IrId {
        let expr = self.exprs[graph.output].clone();
        let name = &graph.nodes[graph.output].name;
        self.materialise(name, expr)
    }
}

/// `[C, H, W]` of a sample's shape; vectors are `[F, 1, 1]`.
fn physical(shape: &[usize]) -> [usize; 3] {
    match shape {
        [c, h, w] => [*c, *h, *w],
        other => [other.iter().product(), 1, 1],
    }
}
