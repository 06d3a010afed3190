//! Import of what exporters write, built message by message.

use half::{bf16, f16};
use prost::Message;

use super::{
    DROPPED_KEY, OnnxError, from_bytes,
    proto::{
        Attribute, Dimension, Entry, GraphProto, Model, NodeProto, OperatorSet, TensorProto, TensorShape,
        TensorType, TypeProto, ValueInfo, element,
    },
};
use crate::{Graph, Op, Tensor, exec};

/// A model being written.
#[derive(Clone)]
struct Net {
    model: GraphProto,
    opset: i64,
}

impl Net {
    /// A model from `x` of this shape (0 for a variable extent) to `y`.
    fn new(input: &[i64]) -> Self {
        let info = |name: &str, dims: &[i64]| {
            let dim = |&d: &i64| match d {
                0 => Dimension { value: None, param: Some("N".into()) },
                d => Dimension { value: Some(d), param: None },
            };
            let shape = Some(TensorShape { dim: dims.iter().map(dim).collect() });
            let tensor = Some(TensorType { elem_type: element::FLOAT, shape });
            ValueInfo { name: name.into(), kind: Some(TypeProto { tensor }) }
        };
        let model = GraphProto {
            name: "net".into(),
            input: vec![info("x", input)],
            output: vec![info("y", &[])],
            ..GraphProto::default()
        };
        Self { model, opset: 13 }
    }

    fn opset(mut self, opset: i64) -> Self {
        self.opset = opset;
        self
    }

    fn floats(mut self, name: &str, dims: &[i64], data: &[f32]) -> Self {
        self.model.initializer.push(TensorProto {
            name: name.into(),
            dims: dims.to_vec(),
            data_type: element::FLOAT,
            float_data: data.to_vec(),
            ..TensorProto::default()
        });
        self
    }

    fn ints(mut self, name: &str, data: &[i64]) -> Self {
        self.model.initializer.push(TensorProto {
            name: name.into(),
            dims: vec![data.len() as i64],
            data_type: element::INT64,
            int64_data: data.to_vec(),
            ..TensorProto::default()
        });
        self
    }

    /// `"Conv x w -> c"`, with attributes.
    fn node(mut self, text: &str, attribute: Vec<Attribute>) -> Self {
        let (call, output) = text.split_once(" -> ").unwrap();
        let mut words = call.split(' ').map(str::to_owned);
        let op_type = words.next().unwrap();
        let input = words.map(|w| if w == "_" { String::new() } else { w }).collect();
        let output = vec![output.to_owned()];
        self.model.node.push(NodeProto { op_type, input, output, attribute, ..NodeProto::default() });
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let opset = OperatorSet { domain: String::new(), version: self.opset };
        let model = Model {
            ir_version: 8,
            graph: Some(self.model.clone()),
            opset_import: vec![opset],
            metadata: vec![Entry { key: "k".into(), value: "v".into() }],
            ..Model::default()
        };
        model.encode_to_vec()
    }

    fn import(&self) -> Graph {
        from_bytes(&self.bytes()).unwrap()
    }

    fn error(&self) -> String {
        from_bytes(&self.bytes()).unwrap_err().to_string()
    }
}

fn int(name: &str, i: i64) -> Attribute {
    Attribute { name: name.into(), i, kind: 2, ..Attribute::default() }
}

fn ints(name: &str, ints: &[i64]) -> Attribute {
    Attribute { name: name.into(), ints: ints.to_vec(), kind: 7, ..Attribute::default() }
}

fn float(name: &str, f: f32) -> Attribute {
    Attribute { name: name.into(), f, kind: 1, ..Attribute::default() }
}

fn text(name: &str, s: &str) -> Attribute {
    Attribute { name: name.into(), s: s.into(), kind: 3, ..Attribute::default() }
}

fn ops(graph: &Graph) -> Vec<&'static str> {
    graph.nodes.iter().map(|n| n.op.name()).collect()
}

fn ramp(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor::new(shape.to_vec(), (0..n).map(|i| i as f32 / 4.0 - 1.0).collect()).unwrap()
}

/// Coefficients of the only quadratic.
fn quadratic(graph: &Graph) -> [Vec<f32>; 3] {
    assert_eq!(ops(graph), ["Input", "Quadratic"], "{graph:?}");
    let Op::Quadratic(q) = &graph.nodes[1].op else { panic!() };
    [&q.a, &q.b, &q.c].map(|t| t.data().to_vec())
}

#[test]
fn quadratics_are_recognised_however_written() {
    let base = || {
        Net::new(&[0, 2, 3, 3]).floats("a", &[], &[0.5]).floats("b", &[1], &[2.0]).floats(
            "c",
            &[1, 1, 1, 1],
            &[3.0],
        )
    };
    let two = |net: Net| net.floats("two", &[], &[2.0]);
    let forms = [
        base()
            .node("Mul x x -> s", vec![])
            .node("Mul s a -> t", vec![])
            .node("Mul b x -> u", vec![])
            .node("Add u t -> v", vec![])
            .node("Add v c -> y", vec![]),
        base()
            .node("Mul a x -> s", vec![])
            .node("Add s b -> t", vec![])
            .node("Mul x t -> u", vec![])
            .node("Add c u -> y", vec![]),
        base()
            .node("Mul a x -> s", vec![])
            .node("Mul s x -> t", vec![])
            .node("Neg x -> n", vec![])
            .node("Mul n b -> u", vec![])
            .node("Sub t u -> v", vec![])
            .node("Identity v -> w", vec![])
            .node("Add w c -> y", vec![]),
        // 0.5·((x + 2)² + 2): the completed square.
        two(base())
            .node("Add x b -> s", vec![])
            .node("Pow s two -> t", vec![])
            .node("Add t two -> u", vec![])
            .node("Div u two -> y", vec![]),
        two(base())
            .node("Pow x two -> s", vec![])
            .node("Mul s a -> t", vec![])
            .node("Mul x two -> u", vec![])
            .node("Sub u c -> v", vec![])
            .node("Sub v t -> w", vec![])
            .node("Sub x w -> z", vec![])
            .floats("three", &[], &[3.0])
            .node("Mul x three -> q", vec![])
            .node("Add z q -> y", vec![]),
    ];
    for (i, form) in forms.iter().enumerate() {
        let graph = form.import();
        assert_eq!(quadratic(&graph), [vec![0.5], vec![2.0], vec![3.0]], "form {i}");
        assert_eq!(graph.nodes[1].name, "y");
    }
}

#[test]
fn constants_may_differ_by_channel_but_not_by_position() {
    for dims in [vec![2, 1, 1], vec![1, 2, 1, 1]] {
        let net = Net::new(&[0, 2, 3, 3]).floats("k", &dims, &[2.0, 4.0]).node("Mul x k -> s", vec![]);
        assert_eq!(quadratic(&net.clone().node("Mul s s -> y", vec![]).import())[0], [4.0, 16.0]);
        assert_eq!(
            quadratic(&net.node("Div s k -> t", vec![]).node("Add t k -> y", vec![]).import())[2],
            [2.0, 4.0]
        );
    }
    let vector = Net::new(&[0, 2]).floats("k", &[2], &[2.0, 4.0]).node("Sub k x -> y", vec![]);
    assert_eq!(quadratic(&vector.import()), [vec![-0.0, 0.0], vec![-1.0, -1.0], vec![2.0, 4.0]].map(dedup));
    let position = Net::new(&[0, 2, 1, 2]).floats("k", &[2], &[2.0, 4.0]).node("Mul x k -> y", vec![]);
    assert!(position.error().contains("not between positions"), "{}", position.error());
    let whole =
        Net::new(&[0, 2, 1, 2]).floats("k", &[2, 1, 2], &[2.0, 2.0, 4.0, 4.0]).node("Mul x k -> y", vec![]);
    assert_eq!(quadratic(&whole.import())[1], [2.0, 4.0]);
    let bigger =
        Net::new(&[0, 2, 1, 1]).floats("k", &[3, 1, 1], &[2.0, 2.0, 2.0]).node("Mul x k -> y", vec![]);
    assert!(bigger.error().contains("does not fit"), "{}", bigger.error());
}

/// Coefficients equal in all channels are kept as one number.
fn dedup(v: Vec<f32>) -> Vec<f32> {
    if v.iter().all(|&x| x == v[0]) { vec![v[0]] } else { v }
}

#[test]
fn a_quadratic_of_a_quadratic_is_two_nodes() {
    let net = Net::new(&[0, 4])
        .floats("b", &[], &[3.0])
        .node("Mul x x -> s", vec![])
        .node("Mul s b -> u", vec![])
        .node("Mul s s -> t", vec![])
        .node("Add t u -> y", vec![]);
    let graph = net.import();
    assert_eq!(ops(&graph), ["Input", "Quadratic", "Quadratic"]);
    let y = exec::run(&graph, &Tensor::full(vec![4], 2.0)).unwrap();
    assert_eq!(y.data(), [28.0; 4]);
}

/// Found by fuzzing: two affine nodes, each in range, whose product is not.
#[test]
fn coefficients_that_leave_the_range_when_joined_are_refused_by_name() {
    let mut b = crate::builders::GraphBuilder::new("n", &[2], 0);
    let x = b.quadratic("first", b.input(), [0.0, 1e30, 0.0]);
    let y = b.quadratic("second", x, [0.0, -1e30, 0.0]);
    let bytes = super::to_bytes(&b.finish(y).unwrap()).unwrap();
    let message = from_bytes(&bytes).unwrap_err().to_string();
    assert!(message.contains("second") && message.contains("-inf"), "{message}");
}

#[test]
fn products_of_different_values_are_refused() {
    let net = Net::new(&[0, 4]).node("Relu x -> r", vec![]).node("Mul r x -> y", vec![]);
    assert!(net.error().contains("not two different values"), "{}", net.error());
    let cube = Net::new(&[0, 4]).floats("k", &[], &[3.0]).node("Pow x k -> y", vec![]);
    assert!(cube.error().contains("only powers of 1 and 2"), "{}", cube.error());
    let inverse = Net::new(&[0, 4]).floats("k", &[], &[3.0]).node("Div k x -> y", vec![]);
    assert!(inverse.error().contains("may not divide"), "{}", inverse.error());
}

#[test]
fn residual_sums_and_differences() {
    let net = Net::new(&[0, 4])
        .node("Relu x -> r", vec![])
        .node("Sub x r -> d", vec![])
        .node("Sum d r x -> y", vec![]);
    let x = ramp(&[4]);
    let y = exec::run(&net.import(), &x).unwrap();
    assert_eq!(y.data(), x.data().iter().map(|v| 2.0 * v).collect::<Vec<_>>());
}

#[test]
fn gemm_in_all_its_forms() {
    // W = [[1, 2], [3, 4], [5, 6]] as [out, in].
    let x = Tensor::new(vec![2], vec![1.0, 10.0]).unwrap();
    let run = |net: Net| exec::run(&net.import(), &x).unwrap().into_data();
    let net = || Net::new(&[0, 2]).floats("b", &[3], &[1.0, 2.0, 3.0]).floats("s", &[], &[7.0]);
    let upright = net().floats("w", &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let turned = net().floats("w", &[2, 3], &[1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
    assert_eq!(run(upright.clone().node("Gemm x w b -> y", vec![int("transB", 1)])), [22.0, 45.0, 68.0]);
    let scaled = vec![float("alpha", 2.0), float("beta", -1.0)];
    assert_eq!(run(turned.clone().node("Gemm x w b -> y", scaled)), [41.0, 84.0, 127.0]);
    assert_eq!(run(turned.clone().node("Gemm x w -> y", vec![])), [21.0, 43.0, 65.0]);
    assert_eq!(run(turned.clone().node("Gemm x w s -> y", vec![])), [28.0, 50.0, 72.0]);
    // MatMul with a bias after it is one layer; with a transposed weight too.
    for net in [
        turned.clone().node("MatMul x w -> m", vec![]).node("Add b m -> y", vec![]),
        upright
            .clone()
            .node("Transpose w -> t", vec![])
            .node("MatMul x t -> m", vec![])
            .node("Add m b -> y", vec![]),
    ] {
        assert_eq!(ops(&net.import()), ["Input", "Linear"]);
        assert_eq!(run(net), [22.0, 45.0, 68.0]);
    }
    // Read twice, the product without bias is still needed.
    let twice = turned
        .clone()
        .node("MatMul x w -> m", vec![])
        .node("Add m b -> n", vec![])
        .node("Mul n m -> y", vec![]);
    assert_eq!(run(twice), [22.0 * 21.0, 45.0 * 43.0, 68.0 * 65.0]);
    let refused = turned.node("Gemm x w -> y", vec![int("transA", 1)]);
    assert!(refused.error().contains("transA"), "{}", refused.error());
    let wrong = upright.node("Gemm x w b -> y", vec![]);
    assert!(wrong.error().contains("[3]"), "{}", wrong.error());
}

#[test]
fn flattening_in_all_its_forms() {
    let fixed = |dims: &[i64]| Net::new(&[1, 2, 3, 1]).ints("s", dims).node("Reshape x s -> y", vec![]);
    for dims in [&[1i64, 6][..], &[-1, 6], &[0, -1], &[1, -1], &[0, 6]] {
        assert_eq!(ops(&fixed(dims).import()), ["Input", "Flatten"], "{dims:?}");
    }
    assert_eq!(ops(&fixed(&[-1, 2, 3, 1]).import()), ["Input"]);
    for dims in [&[6i64, 1][..], &[2, 3], &[1, 3, 2], &[-1, -1], &[0, 0], &[1, 0, 0, 0, 0], &[1, -7]] {
        let error = fixed(dims).error();
        assert!(error.contains("neither keeps") || error.contains("only flattening"), "{dims:?}: {error}");
    }
    // `x.view(x.size(0), -1)`, and the same with every extent worked out.
    let dynamic = Net::new(&[0, 2, 3, 1])
        .node("Shape x -> s", vec![])
        .ints("zero", &[0])
        .ints("minus", &[-1])
        .node("Gather s zero -> n", vec![])
        .node("Concat n minus -> d", vec![int("axis", 0)])
        .node("Reshape x d -> y", vec![]);
    assert_eq!(ops(&dynamic.import()), ["Input", "Flatten"]);
    let sizes = Net::new(&[0, 2, 3, 1])
        .node("Shape x -> s", vec![])
        .ints("one", &[1])
        .ints("end", &[9])
        .ints("axis", &[0])
        .node("Slice s one end axis -> chw", vec![])
        .ints("i", &[0])
        .ints("j", &[1])
        .node("Gather chw i -> c", vec![])
        .node("Gather chw j -> h", vec![])
        .node("Mul c h -> f", vec![])
        .node("Gather s i -> n", vec![])
        .node("Concat n f -> d", vec![int("axis", 0)])
        .node("Reshape x d -> y", vec![]);
    assert_eq!(ops(&sizes.import()), ["Input", "Flatten"]);
    let batch = Net::new(&[0, 2])
        .node("Shape x -> s", vec![])
        .node("Mul s s -> d", vec![])
        .node("Reshape x d -> y", vec![]);
    assert!(batch.error().contains("depend on the batch size"), "{}", batch.error());
    let squeezed = Net::new(&[0, 3, 4, 4])
        .node("GlobalAveragePool x -> g", vec![])
        .ints("axes", &[2, -1])
        .node("Squeeze g axes -> y", vec![]);
    assert_eq!(ops(&squeezed.import()), ["Input", "GlobalAvgPool", "Flatten"]);
    let axis = Net::new(&[0, 3, 4, 4]).node("Flatten x -> y", vec![int("axis", 2)]);
    assert!(axis.error().contains("axis 1"), "{}", axis.error());
}

#[test]
fn means_over_positions() {
    let mean = |attributes| Net::new(&[0, 2, 2, 2]).node("ReduceMean x -> y", attributes);
    assert_eq!(ops(&mean(vec![ints("axes", &[2, 3])]).import()), ["Input", "GlobalAvgPool"]);
    let flat = mean(vec![ints("axes", &[-1, -2]), int("keepdims", 0)]).import();
    assert_eq!(ops(&flat), ["Input", "GlobalAvgPool", "Flatten"]);
    assert_eq!(exec::run(&flat, &ramp(&[2, 2, 2])).unwrap().data(), [-0.625, 0.375]);
    let as_input = Net::new(&[0, 2, 2, 2]).opset(18).ints("a", &[2, 3]).node("ReduceMean x a -> y", vec![]);
    assert_eq!(ops(&as_input.import()), ["Input", "GlobalAvgPool"]);
    assert!(mean(vec![ints("axes", &[1])]).error().contains("height and width"));
}

fn conv(attributes: Vec<Attribute>) -> Net {
    Net::new(&[0, 1, 5, 5])
        .floats("w", &[1, 1, 3, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])
        .node("Conv x w -> y", attributes)
}

fn pads_of(graph: &Graph) -> [usize; 4] {
    match &graph.nodes[1].op {
        Op::Conv(c) => c.pads,
        op => panic!("{op:?}"),
    }
}

#[test]
fn automatic_padding_is_worked_out() {
    let same = |auto: &str, stride: i64| vec![text("auto_pad", auto), ints("strides", &[stride, stride])];
    assert_eq!(pads_of(&conv(same("SAME_UPPER", 1)).import()), [1, 1, 1, 1]);
    assert_eq!(pads_of(&conv(same("SAME_UPPER", 2)).import()), [1, 1, 1, 1]);
    assert_eq!(pads_of(&conv(same("SAME_UPPER", 4)).import()), [1, 1, 1, 1]);
    assert_eq!(pads_of(&conv(same("SAME_UPPER", 3)).import()), [0, 0, 1, 1]);
    assert_eq!(pads_of(&conv(same("SAME_LOWER", 3)).import()), [1, 1, 0, 0]);
    assert_eq!(pads_of(&conv(same("VALID", 1)).import()), [0; 4]);
    assert!(conv(same("ODD", 1)).error().contains("auto_pad"));
    assert!(conv(vec![ints("pads", &[0, 0, -1, 0])]).error().contains("pads must be"));
    assert!(conv(vec![ints("strides", &[0, 1])]).error().contains("stride"));
    assert!(conv(vec![ints("kernel_shape", &[3, 2])]).error().contains("kernel_shape"));
    assert!(conv(vec![int("group", -1)]).error().contains("groups"));
}

#[test]
fn pads_are_taken_in_by_what_follows() {
    let padded = |amounts: &[i64], rest: fn(Net) -> Net| {
        rest(Net::new(&[0, 1, 5, 5]).ints("p", amounts).node("Pad x p -> z", vec![]))
    };
    let into_conv = |net: Net| {
        net.floats("w", &[1, 1, 3, 3], &[1.0; 9]).node("Conv z w -> y", vec![ints("pads", &[0, 0, 1, 1])])
    };
    let graph = padded(&[0, 0, 1, 2, 0, 0, 3, 4], into_conv).import();
    assert_eq!(pads_of(&graph), [1, 2, 4, 5]);
    assert_eq!(ops(&padded(&[0; 8], into_conv).import()), ["Input", "Conv"]);
    assert!(padded(&[0, 1, 0, 0, 0, 0, 0, 0], into_conv).error().contains("only height and width"));
    assert!(padded(&[0, 0, -1, 0, 0, 0, 0, 0], into_conv).error().contains("negative"));
    let kernel = || ints("kernel_shape", &[2, 2]);
    let ones = &[0, 0, 1, 1, 0, 0, 1, 1];
    // An average that did not count its own padding counts that of the Pad.
    let average =
        padded(ones, |n| n.node("AveragePool z -> y", vec![ints("kernel_shape", &[2, 2])])).import();
    assert!(matches!(&average.nodes[1].op, Op::AvgPool(p) if p.count_include_pad && p.pads == [1; 4]));
    let mixed = padded(ones, |n| {
        n.node("AveragePool z -> y", vec![ints("kernel_shape", &[3, 3]), ints("pads", &[1, 1, 1, 1])])
    });
    assert!(mixed.error().contains("pool itself"), "{}", mixed.error());
    // A maximum may take zeros for −∞ only where nothing is negative.
    let maximum = padded(ones, |n| n.node("MaxPool z -> y", vec![ints("kernel_shape", &[2, 2])]));
    assert!(maximum.error().contains("pool itself"), "{}", maximum.error());
    let after_relu = Net::new(&[0, 1, 5, 5])
        .ints("p", ones)
        .node("Relu x -> r", vec![])
        .node("Pad r p -> z", vec![])
        .node("MaxPool z -> y", vec![kernel()]);
    assert_eq!(ops(&after_relu.import()), ["Input", "Relu", "MaxPool"]);
    let into_relu = padded(ones, |n| n.node("Relu z -> y", vec![]));
    assert!(into_relu.error().contains("that follows"), "{}", into_relu.error());
    assert!(padded(ones, |n| n.node("Identity z -> y", vec![])).error().contains("without a layer"));
}

#[test]
fn the_tangle_of_torch_pad_is_folded() {
    // torch writes F.pad(x, [1, 2, 3, 4]) as constants shuffled into ONNX order.
    let net = Net::new(&[0, 1, 5, 5])
        .ints("given", &[1, 2, 3, 4])
        .ints("four", &[4])
        .node(
            "ConstantOfShape four -> zeros",
            vec![Attribute {
                name: "value".into(),
                t: Some(TensorProto {
                    dims: vec![1],
                    data_type: element::INT64,
                    raw_data: vec![0; 8],
                    ..TensorProto::default()
                }),
                kind: 4,
                ..Attribute::default()
            }],
        )
        .node("Concat given zeros -> all", vec![int("axis", 0)])
        .ints("pairs", &[-1, 2])
        .node("Reshape all pairs -> m", vec![])
        .ints("start", &[-1])
        .ints("end", &[i64::MIN + 1])
        .ints("axis", &[0])
        .ints("step", &[-1])
        .node("Slice m start end axis step -> r", vec![])
        .node("Transpose r -> t", vec![ints("perm", &[1, 0])])
        .ints("flat", &[-1])
        .node("Reshape t flat -> f", vec![])
        .node("Cast f -> p", vec![int("to", 7)])
        .node("Pad x p -> z", vec![text("mode", "constant")])
        .floats("w", &[1, 1, 3, 3], &[1.0; 9])
        .node("Conv z w -> y", vec![]);
    assert_eq!(pads_of(&net.import()), [3, 1, 4, 2]);
}

#[test]
fn what_does_nothing_is_dropped() {
    let net = Net::new(&[0, 4])
        .node("Dropout x -> d", vec![float("ratio", 0.5)])
        .node("Identity d -> i", vec![])
        .node("Cast i -> c", vec![int("to", 10)])
        .node("Relu c -> r", vec![])
        .node("Relu c -> unused", vec![])
        .node("Softmax r -> y", vec![int("axis", -1)]);
    let graph = net.import();
    assert_eq!(ops(&graph), ["Input", "Relu"]);
    assert_eq!(graph.metadata[DROPPED_KEY], "Softmax");
    assert_eq!(graph.metadata["k"], "v");
    let middle = Net::new(&[0, 4]).node("Softmax x -> s", vec![]).node("Relu s -> y", vec![]);
    assert!(middle.error().contains("only at the very end"), "{}", middle.error());
    let spatial = Net::new(&[0, 4, 2, 2]).node("LogSoftmax x -> y", vec![int("axis", 3)]);
    assert!(spatial.error().contains("over the classes"), "{}", spatial.error());
}

#[test]
fn shapes_between_image_and_vector_wait_for_what_follows() {
    let image =
        || Net::new(&[0, 2, 3, 3]).ints("chw", &[0, 2, 3, 3]).ints("rows", &[0, 2, -1]).ints("two", &[2]);
    let back = image().node("Flatten x -> f", vec![]).node("Reshape f chw -> g", vec![]);
    assert_eq!(ops(&back.node("Relu g -> y", vec![]).import()), ["Input", "Relu"]);
    let mean = image().node("Reshape x rows -> r", vec![]);
    let whole = mean.clone().node("ReduceMean r -> y", vec![ints("axes", &[2]), int("keepdims", 0)]).import();
    assert_eq!(ops(&whole), ["Input", "GlobalAvgPool", "Flatten"]);
    let refused = mean.node("Relu r -> y", vec![]).error();
    assert!(refused.contains("y (Relu): only flattening [2, 3, 3] to [18]"), "{refused}");
    assert!(refused.contains("not [2, 9] as `r` has it"), "{refused}");
    let channels = image().node("Reshape x rows -> r", vec![]);
    let channels = channels.node("ReduceMean r -> y", vec![ints("axes", &[1])]).error();
    assert!(channels.contains("height and width"), "{channels}");
    let there = image().node("Unsqueeze x two -> u", vec![]).node("Squeeze u two -> y", vec![]);
    assert_eq!(ops(&there.import()), ["Input"]);
    let batch = image().ints("zero", &[0]).node("Unsqueeze x zero -> y", vec![]).error();
    assert!(batch.contains("beside the batch"), "{batch}");
}

#[test]
fn only_clips_that_are_relu_are_taken() {
    let net = || Net::new(&[0, 4]).floats("zero", &[], &[0.0]).floats("six", &[], &[6.0]);
    for text in ["Clip x zero -> y", "Clip x zero _ -> y", "Max x zero -> y", "Max zero x -> y"] {
        assert_eq!(ops(&net().node(text, vec![]).import()), ["Input", "Relu"], "{text}");
    }
    let old = |max: f32| net().opset(10).node("Clip x -> y", vec![float("min", 0.0), float("max", max)]);
    assert_eq!(ops(&old(f32::MAX).import()), ["Input", "Relu"]);
    for refused in [
        old(6.0).error(),
        net().node("Clip x zero six -> y", vec![]).error(),
        net().node("Clip x -> y", vec![]).error(),
    ] {
        assert!(refused.contains("y (Clip): train with ReLU instead"), "{refused}");
    }
    let six = net().node("Max x six -> y", vec![]).error();
    assert!(six.contains("y (Max): it has no exact form"), "{six}");
}

#[test]
fn all_unsupported_nodes_are_listed_at_once() {
    let mut net = Net::new(&[0, 3, 8, 8])
        .node("LRN x -> a", vec![])
        .node("Sigmoid a -> b", vec![])
        .node("Relu b -> c", vec![])
        .node("GlobalMaxPool c -> d", vec![])
        .node("Frobnicate d -> y", vec![]);
    net.model.node[1].name = "gate".into();
    net.model.node[4].domain = "com.example".into();
    let error = from_bytes(&net.bytes()).unwrap_err();
    let OnnxError::Unsupported(list) = &error else { panic!("{error}") };
    let found: Vec<_> = list.0.iter().map(|n| (n.name.as_str(), n.op.as_str())).collect();
    let expected =
        [("a", "LRN"), ("gate", "Sigmoid"), ("d", "GlobalMaxPool"), ("y", "com.example::Frobnicate")];
    assert_eq!(found, expected);
    let text = error.to_string();
    assert!(text.starts_with("4 nodes of the model are not supported:\n  a (LRN): use batch"), "{text}");
    assert!(text.contains("gate (Sigmoid): train with ReLU instead; `polyveil convert`"), "{text}");
}

#[test]
fn every_float_type_is_converted() {
    let values = [0.5f32, -2.0, 4.0];
    let tensor = |data_type, raw_data| TensorProto {
        name: "k".into(),
        dims: vec![3],
        data_type,
        raw_data,
        ..TensorProto::default()
    };
    let with = |tensor| {
        let mut net = Net::new(&[0, 3]).node("Mul x k -> y", vec![]);
        net.model.initializer.push(tensor);
        quadratic(&net.import())[1].clone()
    };
    let half: Vec<f16> = values.iter().map(|&v| f16::from_f32(v)).collect();
    let brain: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
    assert_eq!(with(tensor(element::FLOAT, values.iter().flat_map(|v| v.to_le_bytes()).collect())), values);
    assert_eq!(
        with(tensor(element::DOUBLE, values.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect())),
        values
    );
    assert_eq!(with(tensor(element::FLOAT16, half.iter().flat_map(|v| v.to_le_bytes()).collect())), values);
    assert_eq!(with(tensor(element::BFLOAT16, brain.iter().flat_map(|v| v.to_le_bytes()).collect())), values);
    let bits = half.iter().map(|v| i32::from(v.to_bits())).collect();
    assert_eq!(with(TensorProto { int32_data: bits, ..tensor(element::FLOAT16, vec![]) }), values);
    let doubles = values.iter().map(|&v| f64::from(v)).collect();
    assert_eq!(with(TensorProto { double_data: doubles, ..tensor(element::DOUBLE, vec![]) }), values);
}

#[test]
fn bad_tensors_are_refused_by_name() {
    let with = |change: &dyn Fn(&mut TensorProto)| {
        let mut net = Net::new(&[0, 3]).floats("k", &[3], &[1.0, 2.0, 3.0]).node("Mul x k -> y", vec![]);
        change(&mut net.model.initializer[0]);
        net.error()
    };
    let external = with(&|t| t.data_location = 1);
    assert_eq!(
        external,
        "tensor `k`: its values lie in another file; save the model with all weights inside"
    );
    assert!(with(&|t| t.dims = vec![4]).contains("needs 4 values, found 3"));
    assert!(with(&|t| t.raw_data = vec![0; 11]).contains("found 11 bytes"));
    assert!(with(&|t| t.dims = vec![-1]).contains("impossible shape [-1]"));
    assert!(with(&|t| t.dims = vec![i64::MAX, i64::MAX]).contains("impossible shape"));
    assert!(with(&|t| t.dims = vec![i64::MAX, 0]).contains("more than"));
    assert!(with(&|t| t.dims = vec![1; 40]).contains("40 axes"));
    assert!(with(&|t| t.data_type = 8).contains("element type 8"));
    let nan = with(&|t| t.float_data[1] = f32::NAN);
    assert!(nan.contains("node `y`") && nan.contains("must be finite"), "{nan}");
}

#[test]
fn a_model_that_does_not_hold_together_is_refused() {
    assert!(
        Net::new(&[0, 3])
            .node("Relu q -> y", vec![])
            .error()
            .contains("reads `q`, which nothing before it yields")
    );
    assert!(Net::new(&[0, 3]).error().contains("output `y` does not depend"));
    assert!(Net::new(&[0, 3]).floats("y", &[1], &[1.0]).error().contains("output `y` does not depend"));
    assert!(Net::new(&[0, 3]).node("Relu x -> x", vec![]).error().contains("defined twice"));
    assert!(Net::new(&[0, 3, 4]).node("Relu x -> y", vec![]).error().contains("has 3 axes"));
    assert!(Net::new(&[0, 3, 0, 4]).node("Relu x -> y", vec![]).error().contains("variable size"));
    assert!(Net::new(&[0, 3, -4, 4]).node("Relu x -> y", vec![]).error().contains("variable size"));
    let old = Net::new(&[0, 3]).opset(6).node("Relu x -> y", vec![]);
    assert_eq!(old.error(), "the ONNX file uses operator set 6; sets 7 to 28 are read");
    let mut two = Net::new(&[0, 3]).node("Relu x -> y", vec![]);
    two.model.input.push(ValueInfo { name: "mask".into(), kind: None });
    assert!(two.error().contains("inputs [\"x\", \"mask\"]"), "{}", two.error());
    let mut none = two.clone();
    none.model.output.clear();
    none.model.input.pop();
    assert!(none.error().contains("outputs []"), "{}", none.error());
    assert!(matches!(from_bytes(&[]), Err(OnnxError::Opset { found: 0, .. })));
    assert!(from_bytes(b"not an ONNX file at all").is_err());
}

#[test]
fn small_files_that_would_grow_large_are_refused() {
    // A graph of a million empty nodes: two bytes each in the file, hundreds in memory.
    let mut graph: Vec<u8> = Vec::new();
    for _ in 0..(1 << 20) + 1 {
        graph.extend_from_slice(&[0x0a, 0x00]);
    }
    let mut bytes = vec![0x3a];
    prost::encoding::encode_varint(graph.len() as u64, &mut bytes);
    bytes.extend_from_slice(&graph);
    let error = from_bytes(&bytes).unwrap_err();
    assert!(matches!(error, OnnxError::Limit { what: "fields", .. }), "{error}");
    // Constants that double with every node.
    let mut net = Net::new(&[0, 3]).floats("c0", &[1024], &[0.0; 1024]);
    for i in 0..40 {
        net = net.node(&format!("Concat c{i} c{i} -> c{}", i + 1), vec![int("axis", 0)]);
    }
    assert!(net.error().contains("copied weights and folded constants"), "{}", net.error());
    let net = Net::new(&[0, 3]).ints("s", &[1 << 20, 1 << 20]).node("ConstantOfShape s -> c", vec![]);
    assert!(net.error().contains("copied weights and folded constants"), "{}", net.error());
    // Values that double with every node.
    let mut net = Net::new(&[0, 1, 64, 64]);
    for i in 0..40 {
        let from = if i == 0 { "x".to_owned() } else { format!("v{i}") };
        net = net.node(&format!("Concat {from} {from} -> v{}", i + 1), vec![]);
    }
    assert!(net.error().contains("more than 268435456 elements"), "{}", net.error());
}

#[test]
fn torch_names_come_from_the_weights() {
    let net = Net::new(&[0, 1, 3, 3])
        .floats("features.0.weight", &[2, 1, 1, 1], &[1.0, 2.0])
        .floats("features.0.bias", &[2], &[1.0, 2.0])
        .node("Conv x features.0.weight features.0.bias -> a", vec![])
        .node("Conv x features.0.weight -> b", vec![])
        .node("Concat a b -> y", vec![int("axis", -3)]);
    let names: Vec<String> = net.import().nodes.iter().map(|n| n.name.clone()).collect();
    assert_eq!(names, ["x", "features.0", "features.0_2", "y"]);
}

#[test]
fn odd_slices_of_constants() {
    let slice = |starts: &[i64], ends: &[i64], axes: &[i64], steps: &[i64]| {
        Net::new(&[0, 4])
            .floats("m", &[2, 3], &[0.0, 1.0, 2.0, 10.0, 11.0, 12.0])
            .ints("s", starts)
            .ints("e", ends)
            .ints("a", axes)
            .ints("t", steps)
            .node("Slice m s e a t -> c", vec![])
            .ints("shape", &[-1])
            .node("Reshape c shape -> f", vec![])
            .node("Add x f -> y", vec![])
    };
    let found = |net: Net| quadratic(&net.import())[2].clone();
    assert_eq!(found(slice(&[0, 1], &[2, 3], &[0, 1], &[1, 1])), [1.0, 2.0, 11.0, 12.0]);
    assert_eq!(found(slice(&[-1, 9], &[-9, 0], &[0, 1], &[-1, -1])), [12.0, 11.0, 2.0, 1.0]);
    assert!(slice(&[1, 1], &[2, 2], &[0, 0], &[1, 1]).error().contains("named twice"));
    assert!(slice(&[0], &[1], &[5], &[1]).error().contains("out of range"));
    assert!(slice(&[0], &[1], &[0], &[0]).error().contains("must not be zero"));
    let empty = slice(&[i64::MAX], &[i64::MIN], &[0], &[i64::MAX]);
    assert!(!empty.error().is_empty());
}
