//! From a graph to the messages of a model.

use std::collections::HashSet;

use prost::Message;

use super::{
    OnnxError,
    proto::{
        Attribute, Dimension, Entry, GraphProto, Model, NodeProto, OperatorSet, TensorProto, TensorShape,
        TensorType, TypeProto, ValueInfo, element,
    },
    scan,
};
use crate::{Graph, Node, Op, Pool, Quadratic, Tensor};

/// Operator set and file version written: old enough for every runtime, new enough for all we use.
const OPSET: i64 = 17;
const IR_VERSION: i64 = 8;

pub(super) fn export(graph: &Graph) -> Result<Vec<u8>, OnnxError> {
    graph.validate()?;
    let shapes = graph.infer_shapes()?;
    let mut exporter = Exporter {
        taken: graph.nodes.iter().map(|n| n.name.clone()).collect(),
        nodes: Vec::new(),
        initializers: Vec::new(),
    };
    for (node, shape) in graph.nodes.iter().zip(&shapes) {
        let inputs: Vec<&str> = node.inputs.iter().map(|&i| graph.nodes[i].name.as_str()).collect();
        exporter.node(node, &inputs, shape);
    }
    let mut output = graph.nodes[graph.output].name.clone();
    if graph.output == 0 {
        // A model's output must be a value of its own.
        let copy = exporter.fresh("output");
        exporter.emit("Identity", &copy, &[&output], vec![]);
        output = copy;
    }
    let name = if graph.name.is_empty() { "network".to_owned() } else { graph.name.clone() };
    let model = Model {
        ir_version: IR_VERSION,
        producer_name: "polyveil".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(GraphProto {
            node: exporter.nodes,
            name,
            initializer: exporter.initializers,
            input: vec![value_info(&graph.nodes[0].name, &shapes[0])],
            output: vec![value_info(&output, &shapes[graph.output])],
            sparse_initializer: Vec::new(),
        }),
        opset_import: vec![OperatorSet { domain: String::new(), version: OPSET }],
        metadata: graph.metadata.iter().map(|(k, v)| Entry { key: k.clone(), value: v.clone() }).collect(),
    };
    scan::limit("bytes", model.encoded_len() as u64, scan::MAX_BYTES)?;
    Ok(model.encode_to_vec())
}

struct Exporter {
    /// Names of nodes and values so far; ONNX keeps both unique.
    taken: HashSet<String>,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
}

impl Exporter {
    fn node(&mut self, node: &Node, inputs: &[&str], shape: &[usize]) {
        let name = node.name.as_str();
        let mut with_weights = |op: &str, attributes| {
            let weights: Vec<String> = node
                .op
                .weights()
                .into_iter()
                .map(|(w, t)| self.weight(&format!("{name}.{w}"), t, t.shape()))
                .collect();
            let all: Vec<&str> = inputs.iter().copied().chain(weights.iter().map(String::as_str)).collect();
            self.emit(op, name, &all, attributes);
        };
        match &node.op {
            Op::Input { .. } => {}
            Op::Conv(conv) => with_weights(
                "Conv",
                vec![
                    ints("kernel_shape", &conv.weight.shape()[2..]),
                    ints("strides", &conv.stride),
                    ints("pads", &conv.pads),
                    ints("dilations", &conv.dilation),
                    int("group", conv.groups),
                ],
            ),
            Op::Linear(_) => with_weights("Gemm", vec![int("transB", 1)]),
            Op::BatchNorm(norm) => with_weights("BatchNormalization", vec![float("epsilon", norm.eps)]),
            Op::AvgPool(pool) => {
                let mut attributes = pool_attributes(pool);
                attributes.push(int("count_include_pad", usize::from(pool.count_include_pad)));
                self.emit("AveragePool", name, inputs, attributes);
            }
            Op::MaxPool(pool) => self.emit("MaxPool", name, inputs, pool_attributes(pool)),
            Op::GlobalAvgPool => self.emit("GlobalAveragePool", name, inputs, vec![]),
            Op::Relu => self.emit("Relu", name, inputs, vec![]),
            Op::Quadratic(q) => self.quadratic(name, q, inputs[0], shape),
            Op::Flatten => self.emit("Flatten", name, inputs, vec![int("axis", 1)]),
            Op::Add => self.emit("Add", name, inputs, vec![]),
            Op::Concat => self.emit("Concat", name, inputs, vec![int("axis", 1)]),
        }
    }

    /// `a·x² + b·x + c`; the last Add bears the node's name.
    fn quadratic(&mut self, name: &str, q: &Quadratic, x: &str, shape: &[usize]) {
        let [a, b, c] = [("a", &q.a), ("b", &q.b), ("c", &q.c)].map(|(w, t)| {
            // One number a channel lines up with the channels, from the back.
            let dims: Vec<usize> =
                if t.len() == 1 { vec![1] } else { [&[t.len()][..], &vec![1; shape.len() - 1]].concat() };
            self.weight(&format!("{name}.{w}"), t, &dims)
        });
        let [square, ax2, bx, sum] =
            ["square", "ax2", "bx", "ax2_bx"].map(|part| self.fresh(&format!("{name}/{part}")));
        self.emit("Mul", &square, &[x, x], vec![]);
        self.emit("Mul", &ax2, &[&square, &a], vec![]);
        self.emit("Mul", &bx, &[x, &b], vec![]);
        self.emit("Add", &sum, &[&ax2, &bx], vec![]);
        self.emit("Add", name, &[&sum, &c], vec![]);
    }

    /// A node whose name is also that of its value.
    fn emit(&mut self, op: &str, name: &str, inputs: &[&str], attribute: Vec<Attribute>) {
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|&i| i.to_owned()).collect(),
            output: vec![name.to_owned()],
            name: name.to_owned(),
            op_type: op.to_owned(),
            attribute,
            domain: String::new(),
        });
    }

    fn weight(&mut self, name: &str, tensor: &Tensor, dims: &[usize]) -> String {
        let name = self.fresh(name);
        self.initializers.push(TensorProto {
            dims: dims.iter().map(|&d| d as i64).collect(),
            data_type: element::FLOAT,
            name: name.clone(),
            raw_data: tensor.data().iter().flat_map(|x| x.to_le_bytes()).collect(),
            ..TensorProto::default()
        });
        name
    }

    fn fresh(&mut self, name: &str) -> String {
        let mut found = name.to_owned();
        let mut k = 2;
        while !self.taken.insert(found.clone()) {
            found = format!("{name}_{k}");
            k += 1;
        }
        found
    }
}

fn pool_attributes(pool: &Pool) -> Vec<Attribute> {
    vec![
        ints("kernel_shape", &pool.kernel),
        ints("strides", &pool.stride),
        ints("pads", &pool.pads),
        int("ceil_mode", usize::from(pool.ceil_mode)),
    ]
}

fn int(name: &str, value: usize) -> Attribute {
    Attribute { name: name.to_owned(), i: value as i64, kind: 2, ..Attribute::default() }
}

fn ints(name: &str, values: &[usize]) -> Attribute {
    let ints = values.iter().map(|&v| v as i64).collect();
    Attribute { name: name.to_owned(), ints, kind: 7, ..Attribute::default() }
}

fn float(name: &str, f: f32) -> Attribute {
    Attribute { name: name.to_owned(), f, kind: 1, ..Attribute::default() }
}

/// A float tensor of batch extent `N`.
fn value_info(name: &str, shape: &[usize]) -> ValueInfo {
    let batch = Dimension { value: None, param: Some("N".to_owned()) };
    let fixed = shape.iter().map(|&d| Dimension { value: Some(d as i64), param: None });
    let shape = TensorShape { dim: std::iter::once(batch).chain(fixed).collect() };
    let tensor = TensorType { elem_type: element::FLOAT, shape: Some(shape) };
    ValueInfo { name: name.to_owned(), kind: Some(TypeProto { tensor: Some(tensor) }) }
}
