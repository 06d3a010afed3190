//! Lowering of elementwise arithmetic: residual sums, biases and polynomials.

use super::{
    args::Args,
    constant::{Const, Data},
    import::{Feature, Importer, Lowered, Refusal, Source, Value, label},
};
use crate::{NodeId, Op, Tensor};

impl Importer {
    /// Add, Sub, Mul, Div, Pow, Neg and Sum with at least one input that depends on the image.
    pub(super) fn elementwise(&mut self, args: &Args<'_>) -> Lowered<Value> {
        let op = args.node.op_type.as_str();
        let operands: Vec<&Value> = args.inputs.iter().flatten().collect();
        match (op, operands.as_slice()) {
            ("Neg", [Value::Feature(x)]) => {
                let poly = self.poly_of(*x)?.scaled(&[-1.0], |p, k| p * k);
                self.arithmetic(args.node, poly)
            }
            ("Sum", [x]) => Ok((*x).clone()),
            ("Sum", all) => self.sum(args, all),
            (_, [Value::Feature(x), Value::Feature(y)]) => self.two_features(args, *x, *y),
            (_, [Value::Feature(x), Value::Const(c)]) => self.with_constant(args, *x, c, false, 0),
            (_, [Value::Const(c), Value::Feature(x)]) => self.with_constant(args, *x, c, true, 1),
            _ => Err(Refusal::Invalid(format!("takes 2 inputs, found {}", operands.len()))),
        }
    }

    fn sum(&mut self, args: &Args<'_>, all: &[&Value]) -> Lowered<Value> {
        let mut total: Option<NodeId> = None;
        for value in all {
            let Value::Feature(x) = value else {
                return Err(Refusal::Advice("write sums with constants as Add".into()));
            };
            let x = self.node_of(*x)?;
            total = Some(match total {
                None => x,
                Some(left) => self.push(label(args.node), Op::Add, vec![left, x])?,
            });
        }
        total
            .map(|node| Value::Feature(Feature::of(node)))
            .ok_or_else(|| Refusal::Invalid("takes inputs".into()))
    }

    fn two_features(&mut self, args: &Args<'_>, x: Feature, y: Feature) -> Lowered<Value> {
        let (p, q) = (self.poly_of(x)?, self.poly_of(y)?);
        let op = args.node.op_type.as_str();
        let combined = match op {
            "Add" => p.plus(&q, 1.0),
            "Sub" => p.plus(&q, -1.0),
            "Mul" => p.times(&q),
            _ => None,
        };
        if let Some(poly) = combined {
            return self.arithmetic(args.node, poly);
        }
        match op {
            "Add" | "Sub" => {
                let left = self.node_of(x)?;
                let right = if op == "Add" {
                    self.node_of(y)?
                } else {
                    let Value::Feature(negated) =
                        self.arithmetic(args.node, q.scaled(&[-1.0], |p, k| p * k))?
                    else {
                        return Err(Refusal::Invalid("takes values".into()));
                    };
                    self.node_of(negated)?
                };
                let sum = self.push(label(args.node), Op::Add, vec![left, right])?;
                Ok(Value::Feature(Feature::of(sum)))
            }
            // A power of a quadratic: square its value.
            "Mul" if x.source == y.source => {
                let base = self.node_of(x)?;
                let square = self.square(base)?;
                self.arithmetic(args.node, square)
            }
            "Mul" => Err(Refusal::Advice(
                "only a value times itself or a constant is supported, not two different values".into(),
            )),
            _ => Err(Refusal::Advice("only constants may divide or be exponents".into())),
        }
    }

    fn with_constant(
        &mut self,
        args: &Args<'_>,
        x: Feature,
        constant: &Const,
        constant_first: bool,
        feature_at: usize,
    ) -> Lowered<Value> {
        let op = args.node.op_type.as_str();
        let poly = self.poly_of(x)?;
        let by = self.per_channel(x, constant)?;
        let result = match (op, constant_first) {
            ("Add", _) => {
                let name = args.node.input.get(feature_at).map_or("", String::as_str);
                if let Source::Node(node) = x.source
                    && self.is_sole_use(name, node)
                    && self.took_bias(node, &by)
                {
                    return Ok(Value::Feature(x));
                }
                poly.shifted(&by, 1.0)
            }
            ("Sub", false) => poly.shifted(&by, -1.0),
            ("Sub", true) => poly.scaled(&[-1.0], |p, k| p * k).shifted(&by, 1.0),
            ("Mul", _) => poly.scaled(&by, |p, k| p * k),
            ("Div", false) => poly.scaled(&by, |p, k| p / k),
            ("Pow", false) if by == [1.0] => poly,
            ("Pow", false) if by == [2.0] => match poly.times(&poly) {
                Some(square) => square,
                None => {
                    let base = self.node_of(x)?;
                    self.square(base)?
                }
            },
            ("Pow", false) => {
                return Err(Refusal::Advice(format!("only powers of 1 and 2 are supported, not {by:?}")));
            }
            _ => return Err(Refusal::Advice("the image may not divide or be an exponent".into())),
        };
        self.arithmetic(args.node, result)
    }

    fn square(&self, base: NodeId) -> Lowered<super::poly::Poly> {
        let x = self.poly_of(Feature::of(base))?;
        x.times(&x).ok_or_else(|| Refusal::Invalid("is of too high a degree".into()))
    }

    /// Gives a linear layer without bias this one; false where it has one or is no linear layer.
    fn took_bias(&mut self, node: NodeId, by: &[f64]) -> bool {
        let (slot, out) = match &mut self.graph.nodes[node].op {
            Op::Conv(conv) => (&mut conv.bias, conv.weight.shape()[0]),
            Op::Linear(linear) => (&mut linear.bias, linear.weight.shape()[0]),
            _ => return false,
        };
        if slot.is_some() {
            return false;
        }
        let mut bias = Tensor::full(vec![out], 0.0);
        for (i, value) in bias.data_mut().iter_mut().enumerate() {
            #[expect(clippy::cast_possible_truncation, reason = "it was f32 in the model")]
            let given = by[if by.len() == 1 { 0 } else { i }] as f32;
            *value = given;
        }
        *slot = Some(bias);
        true
    }

    /// A constant broadcast over a value, as one number a channel or one for all.
    fn per_channel(&mut self, x: Feature, constant: &Const) -> Lowered<Vec<f64>> {
        let shape = self.shape_of(x)?;
        let numbers: Option<Vec<f64>> = match &constant.data {
            Data::Float(d) => Some(d.iter().map(|&v| f64::from(v)).collect()),
            Data::Int(d) => (0..d.len()).map(|i| constant.number(i)).collect(),
        };
        let numbers =
            numbers.ok_or_else(|| Refusal::Advice("a constant depends on the batch size".into()))?;
        self.budget.charge(numbers.len().saturating_mul(2))?;
        let Some(&first) = numbers.first() else {
            return Err(Refusal::Invalid("has an empty constant".into()));
        };
        // Axes of the constant, lined up with batch and sample from the back.
        let rank = shape.len() + 1;
        let full: Vec<usize> = std::iter::once(1).chain(shape.iter().copied()).collect();
        let lead = rank.checked_sub(constant.dims.len());
        let fits =
            lead.is_some_and(|l| constant.dims.iter().zip(&full[l..]).all(|(&d, &f)| d == 1 || d == f));
        let Some(lead) = lead.filter(|_| fits) else {
            return Err(Refusal::Invalid(format!(
                "a constant of shape {:?} does not fit a value of {shape:?}",
                constant.dims
            )));
        };
        if numbers.iter().all(|&v| v == first) {
            return Ok(vec![first]);
        }
        let extent = |axis: usize| axis.checked_sub(lead).map_or(1, |k| constant.dims[k]);
        let inner: usize = (2..rank).map(extent).product();
        // NaN counts as equal: validation refuses it by name.
        let same = |v: f64, w: f64| v == w || v.is_nan();
        let uniform = numbers.chunks(inner).all(|block| block.iter().all(|&v| same(v, block[0])));
        if extent(1) == 1 || !uniform {
            return Err(Refusal::Advice(
                "a constant may differ between channels, not between positions".into(),
            ));
        }
        Ok(numbers.chunks(inner).map(|block| block[0]).collect())
    }
}
