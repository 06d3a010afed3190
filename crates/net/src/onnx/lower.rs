//! From one ONNX node to what it becomes.

use std::rc::Rc;

use super::{
    advice,
    args::Args,
    attributes::Attributes,
    constant::{BATCH, Const, Data},
    fold::{self, axis_index},
    import::{self, Feature, Importer, Lowered, Refusal, Value, label},
    proto::NodeProto,
};
use crate::{BatchNorm, Conv, Linear, NodeId, Op, Pads, Pool, Tensor};

impl Importer {
    /// What the node's first output is.
    pub(super) fn lower(&mut self, node: &NodeProto) -> Lowered<Value> {
        let op = node.op_type.as_str();
        if !import::is_supported(node) {
            return Err(Refusal::Advice(advice::for_operator(op).to_owned()));
        }
        if op == "Constant" {
            return import::constant(node, &mut self.budget);
        }
        let inputs = self.inputs(node)?;
        if inputs.iter().flatten().any(|v| matches!(v, Value::Unknown)) {
            return Ok(Value::Unknown);
        }
        let constants: Vec<Option<&Const>> = inputs
            .iter()
            .map(|v| if let Some(Value::Const(c)) = v { Some(c.as_ref()) } else { None })
            .collect();
        let all_constant = inputs.iter().flatten().all(|v| matches!(v, Value::Const(_)));
        if all_constant {
            return match fold::fold(node, &constants, &mut self.budget) {
                Some(Ok(folded)) => Ok(Value::Const(Rc::new(folded))),
                Some(Err(reason)) => Err(Refusal::Invalid(reason)),
                None => Err(Refusal::Advice("it has no input that depends on the image".into())),
            };
        }
        let args = Args { node, inputs: &inputs, attributes: Attributes(node) };
        match op {
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Neg" | "Sum" => self.elementwise(&args),
            "Relu" => self.simple(&args, Op::Relu),
            "Clip" | "Max" => self.relu_by_another_name(&args),
            "GlobalAveragePool" => self.simple(&args, Op::GlobalAvgPool),
            "Conv" => self.conv(&args),
            "Gemm" => self.gemm(&args),
            "MatMul" => self.mat_mul(&args),
            "BatchNormalization" => self.batch_norm(&args),
            "AveragePool" | "MaxPool" => self.pool(&args),
            "ReduceMean" => self.reduce_mean(&args),
            "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" => self.reshape(&args),
            "Concat" => self.concat(&args),
            "Pad" => self.pad(&args),
            "Shape" => self.shape(&args),
            "Dropout" => self.dropout(&args),
            "Identity" => Ok(Value::Feature(args.feature(0)?)),
            "Cast" => args.cast(),
            "Softmax" | "LogSoftmax" => self.softmax(&args),
            "Transpose" => self.transpose(&args),
            _ => Err(Refusal::Advice(advice::for_operator(op).to_owned())),
        }
    }

    pub(super) fn node(&mut self, name: &str, op: Op, inputs: Vec<NodeId>) -> Lowered<Value> {
        Ok(Value::Feature(Feature::of(self.push(name, op, inputs)?)))
    }

    fn simple(&mut self, args: &Args<'_>, op: Op) -> Lowered<Value> {
        let x = self.node_of(args.feature(0)?)?;
        self.node(label(args.node), op, vec![x])
    }

    /// Clip from zero up, and Max with zero.
    fn relu_by_another_name(&mut self, args: &Args<'_>) -> Lowered<Value> {
        let number = |k: usize| match args.inputs.get(k) {
            Some(Some(Value::Const(c))) => c.scalar(),
            _ => None,
        };
        let unbounded = |v: f64| v >= f64::from(f32::MAX);
        let is_relu = match args.node.op_type.as_str() {
            "Max" => args.inputs.len() == 2 && (number(0) == Some(0.0) || number(1) == Some(0.0)),
            _ if self.opset < 11 => {
                args.attributes.float("min", f32::MIN) == 0.0
                    && unbounded(f64::from(args.attributes.float("max", f32::MAX)))
            }
            _ => number(1) == Some(0.0) && (!args.given(2) || number(2).is_some_and(unbounded)),
        };
        if !is_relu {
            return Err(Refusal::Advice(advice::for_operator(&args.node.op_type).to_owned()));
        }
        let feature = if args.feature(0).is_ok() { args.feature(0)? } else { args.feature(1)? };
        let x = self.node_of(feature)?;
        self.node(label(args.node), Op::Relu, vec![x])
    }

    /// A weight as `f32`, paid for from the budget because it is copied.
    fn weight(&mut self, args: &Args<'_>, k: usize, what: &str) -> Lowered<Tensor> {
        let constant = args.constant(k, what)?;
        self.budget.charge(constant.len())?;
        match &constant.data {
            Data::Float(data) => Tensor::new(constant.dims.clone(), data.clone())
                .map_err(|e| Refusal::Invalid(format!("{what}: {e}"))),
            Data::Int(_) => Err(Refusal::Invalid(format!("{what} must be floating-point"))),
        }
    }

    fn conv(&mut self, args: &Args<'_>) -> Lowered<Value> {
        let weight = self.weight(args, 1, "the weight")?;
        let bias = if args.given(2) { Some(self.weight(args, 2, "the bias")?) } else { None };
        let &[_, _, kh, kw] = weight.shape() else {
            return Err(Refusal::Advice(format!(
                "only 2-D convolutions are supported; the weight has shape {:?}",
                weight.shape()
            )));
        };
        if let Some(kernel) = args.attributes.ints("kernel_shape")
            && kernel != [kh as i64, kw as i64]
        {
            return Err(Refusal::Invalid(format!(
                "kernel_shape {kernel:?}, but the weight has {:?}",
                [kh, kw]
            )));
        }
        let mut feature = args.feature(0)?;
        let extra = std::mem::take(&mut feature.pads);
        let shape = self.shape_of(feature)?;
        let (stride, dilation) = (args.pair("strides")?, args.pair("dilations")?);
        let window =
            |k: usize, axis: usize| k.saturating_sub(1).saturating_mul(dilation[axis]).saturating_add(1);
        let pads = args.pads(&shape, [window(kh, 0), window(kw, 1)], stride, extra)?;
        let groups = usize::try_from(args.attributes.int("group", 1)).unwrap_or(0);
        let x = self.node_of(feature)?;
        let name = args.weight_name();
        self.node(
            &name,
            Op::Conv(Conv { weight, bias, stride, pads: sum(pads, extra), dilation, groups }),
            vec![x],
        )
    }

    fn gemm(&mut self, args: &Args<'_>) -> Lowered<Value> {
        if args.attributes.int("transA", 0) != 0 {
            return Err(Refusal::Advice("transA mixes the images of a batch; export without it".into()));
        }
        let feature = args.feature(0)?;
        let transposed = args.attributes.int("transB", 0) != 0;
        let mut weight = self.weight(args, 1, "the weight matrix")?;
        if !transposed {
            weight = transpose(weight)?;
        }
        scale(&mut weight, args.attributes.float("alpha", 1.0));
        let mut bias = None;
        if args.given(2) {
            let mut given = self.weight(args, 2, "the bias")?;
            scale(&mut given, args.attributes.float("beta", 1.0));
            bias = Some(self.bias(given, weight.shape().first().copied().unwrap_or(0))?);
        }
        let x = self.node_of(feature)?;
        self.node(&args.weight_name(), Op::Linear(Linear { weight, bias }), vec![x])
    }

    /// A bias of Gemm, `[out]` after broadcasting.
    fn bias(&mut self, given: Tensor, out: usize) -> Lowered<Tensor> {
        let fits =
            matches!(given.shape(), [] | [1] | [1, 1]) || matches!(given.shape(), [n] | [1, n] if *n == out);
        if !fits {
            return Err(Refusal::Invalid(format!(
                "the bias has shape {:?}, expected [{out}]",
                given.shape()
            )));
        }
        self.budget.charge(out)?;
        let data = given.into_data();
        let data = if data.len() == out { data } else { vec![data[0]; out] };
        Tensor::new(vec![out], data).map_err(|e| Refusal::Invalid(e.to_string()))
    }

    fn mat_mul(&mut self, args: &Args<'_>) -> Lowered<Value> {
        let feature = args.feature(0)?;
        let weight = transpose(self.weight(args, 1, "the weight matrix")?)?;
        let x = self.node_of(feature)?;
        self.node(&args.weight_name(), Op::Linear(Linear { weight, bias: None }), vec![x])
    }

    fn batch_norm(&mut self, args: &Args<'_>) -> Lowered<Value> {
        if args.attributes.int("training_mode", 0) != 0 || args.attributes.int("spatial", 1) == 0 {
            return Err(Refusal::Advice(
                "export the model in evaluation mode, with statistics per channel".into(),
            ));
        }
        let gamma = self.weight(args, 1, "the scale")?;
        let beta = self.weight(args, 2, "the shift")?;
        let mean = self.weight(args, 3, "the mean")?;
        let var = self.weight(args, 4, "the variance")?;
        let eps = args.attributes.float("epsilon", 1e-5);
        let x = self.node_of(args.feature(0)?)?;
        self.node(&args.weight_name(), Op::BatchNorm(BatchNorm { gamma, beta, mean, var, eps }), vec![x])
    }

    fn pool(&mut self, args: &Args<'_>) -> Lowered<Value> {
        let average = args.node.op_type == "AveragePool";
        if args.attributes.int("storage_order", 0) != 0
            || args.node.output.iter().skip(1).any(|o| !o.is_empty())
        {
            return Err(Refusal::Advice("pool without returning indices".into()));
        }
        if args.pair("dilations")? != [1, 1] {
            return Err(Refusal::Advice("pool without dilation".into()));
        }
        if args.attributes.ints("kernel_shape").is_none_or(|k| k.len() != 2) {
            return Err(Refusal::Advice("only 2-D pooling is supported".into()));
        }
        let (kernel, stride) = (args.pair("kernel_shape")?, args.pair("strides")?);
        let mut feature = args.feature(0)?;
        let extra = std::mem::take(&mut feature.pads);
        let shape = self.shape_of(feature)?;
        let pads = args.pads(&shape, kernel, stride, extra)?;
        let x = self.node_of(feature)?;
        // A maximum has no count; it gets the value that builders give it.
        let mut count_include_pad = !average || args.attributes.int("count_include_pad", 0) != 0;
        if extra != [0; 4] {
            // Zeros of a Pad count as image, those of the pool do not, so they only mix where the
            // pool counts its own; for a maximum, a zero is no more than −∞ where nothing is negative.
            let harmless = if average {
                count_include_pad || pads == [0; 4]
            } else {
                matches!(self.graph.nodes[x].op, Op::Relu)
            };
            if !harmless {
                return Err(Refusal::Advice(
                    "put the padding into the pool itself instead of a Pad before it".into(),
                ));
            }
            count_include_pad = true;
        }
        let ceil_mode = args.attributes.int("ceil_mode", 0) != 0;
        let pool = Pool { kernel, stride, pads: sum(pads, extra), ceil_mode, count_include_pad };
        self.node(label(args.node), if average { Op::AvgPool(pool) } else { Op::MaxPool(pool) }, vec![x])
    }

    fn concat(&mut self, args: &Args<'_>) -> Lowered<Value> {
        let mut parts = Vec::new();
        for k in 0..args.inputs.len() {
            let feature = args.feature(k).map_err(|_| {
                Refusal::Advice("only values that depend on the image can be concatenated".into())
            })?;
            parts.push(self.node_of(feature)?);
        }
        let rank = parts.first().map_or(0, |&p| self.shapes[p].len() + 1);
        let axis = axis_index(args.attributes.int("axis", 1), rank).map_err(Refusal::Invalid)?;
        if axis != 1 {
            return Err(Refusal::Advice(format!(
                "only channels (axis 1) can be concatenated, not axis {axis}"
            )));
        }
        self.node(label(args.node), Op::Concat, parts)
    }

    fn pad(&mut self, args: &Args<'_>) -> Lowered<Value> {
        let feature = args.feature(0)?;
        let mode = args.attributes.text("mode", "constant");
        let value = match args.inputs.get(2) {
            Some(Some(Value::Const(c))) => c.scalar(),
            Some(Some(_)) => None,
            _ => Some(f64::from(args.attributes.float("value", 0.0))),
        };
        if mode != "constant" || value != Some(0.0) {
            return Err(Refusal::Advice("only padding with zeros is supported".into()));
        }
        let amounts = if self.opset < 11 {
            args.attributes.ints("pads").unwrap_or_default()
        } else {
            args.constant(1, "the padding")?.as_ints().unwrap_or_default()
        };
        let rank = self.shape_of(Feature { pads: [0; 4], ..feature })?.len() + 1;
        let mut all = vec![0i64; 2 * rank];
        let axes: Vec<i64> = match args.axes(3) {
            Some(axes) => axes.to_vec(),
            None => (0..rank as i64).collect(),
        };
        if amounts.len() != 2 * axes.len() {
            return Err(Refusal::Invalid(format!("{} amounts for {} axes", amounts.len(), axes.len())));
        }
        for (k, &axis) in axes.iter().enumerate() {
            let axis = axis_index(axis, rank).map_err(Refusal::Invalid)?;
            all[axis] = amounts[k];
            all[axis + rank] = amounts[k + axes.len()];
        }
        if all.iter().all(|&p| p == 0) {
            return Ok(Value::Feature(feature));
        }
        let &[0, 0, top, left, 0, 0, bottom, right] = all.as_slice() else {
            return Err(Refusal::Advice("only height and width can be padded".into()));
        };
        let pads = [top, left, bottom, right].map(usize::try_from);
        let [Ok(top), Ok(left), Ok(bottom), Ok(right)] = pads else {
            return Err(Refusal::Advice("cropping by negative padding is not supported".into()));
        };
        // The arithmetic before the Pad must be a node of its own: its constant is not padded with.
        let unpadded = self.node_of(Feature { pads: [0; 4], ..feature })?;
        let pads = sum(feature.pads, [top, left, bottom, right]);
        Ok(Value::Feature(Feature { pads, ..Feature::of(unpadded) }))
    }

    fn shape(&mut self, args: &Args<'_>) -> Lowered<Value> {
        let sample = self.shape_of(args.feature(0)?)?;
        let dims: Vec<i64> = std::iter::once(BATCH).chain(sample.iter().map(|&d| d as i64)).collect();
        let rank = dims.len() as i64;
        let bound = |name, default| {
            let i = args.attributes.int(name, default);
            usize::try_from(if i < 0 { i.saturating_add(rank) } else { i }.clamp(0, rank)).unwrap_or(0)
        };
        let (start, end) = (bound("start", 0), bound("end", rank));
        Ok(Value::Const(Rc::new(Const::ints(dims.get(start..end).unwrap_or_default().to_vec()))))
    }

    fn dropout(&mut self, args: &Args<'_>) -> Lowered<Value> {
        if let Some(Some(Value::Const(training))) = args.inputs.get(2)
            && training.scalar() != Some(0.0)
        {
            return Err(Refusal::Advice("export the model in evaluation mode".into()));
        }
        Ok(Value::Feature(args.feature(0)?))
    }

    fn softmax(&mut self, args: &Args<'_>) -> Lowered<Value> {
        let feature = args.feature(0)?;
        let rank = self.shape_of(feature)?.len() + 1;
        let default = if self.opset < 13 { 1 } else { -1 };
        let axis = axis_index(args.attributes.int("axis", default), rank).map_err(Refusal::Invalid)?;
        if !self.ends_model(args.node) || axis != 1 {
            return Err(Refusal::Advice(
                "it is dropped only at the very end, over the classes; end the model at the logits".into(),
            ));
        }
        self.graph.metadata.insert(import::DROPPED_KEY.to_owned(), args.node.op_type.clone());
        Ok(Value::Feature(feature))
    }

    fn transpose(&mut self, args: &Args<'_>) -> Lowered<Value> {
        let feature = args.feature(0)?;
        let rank = self.shape_of(feature)?.len() + 1;
        let same = |perm: &[i64]| perm.iter().copied().eq(0..rank as i64);
        if args.attributes.ints("perm").is_some_and(same) {
            return Ok(Value::Feature(feature));
        }
        Err(Refusal::Advice("export the model with channels first (NCHW), without transposing images".into()))
    }
}

fn sum(x: Pads, y: Pads) -> Pads {
    std::array::from_fn(|i| x[i].saturating_add(y[i]))
}

fn scale(tensor: &mut Tensor, by: f32) {
    if by != 1.0 {
        tensor.data_mut().iter_mut().for_each(|x| *x *= by);
    }
}

fn transpose(tensor: Tensor) -> Lowered<Tensor> {
    let &[rows, columns] = tensor.shape() else {
        return Err(Refusal::Advice(format!(
            "the weight must be a matrix, found shape {:?}",
            tensor.shape()
        )));
    };
    let data = tensor.data();
    let turned = (0..columns).flat_map(|c| (0..rows).map(move |r| data[r * columns + c])).collect();
    Tensor::new(vec![columns, rows], turned).map_err(|e| Refusal::Invalid(e.to_string()))
}
