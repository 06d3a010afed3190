//! From the messages of a model to a graph: the walk over nodes, names, and the clean-up.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    rc::Rc,
};

use prost::Message;

use super::{
    OnnxError, Unsupported, UnsupportedNode, advice,
    attributes::Attributes,
    constant::{Budget, Const, Data},
    poly::Poly,
    proto::{GraphProto, Model, NodeProto, TensorProto, ValueInfo, element},
    scan,
};
use crate::{Graph, Node, NodeId, Op, Pads, Quadratic, ShapeError, Tensor, shape::output_shape};

/// Metadata key under which import notes an operator that it dropped from the end of the model.
pub const DROPPED_KEY: &str = "polyveil.onnx.dropped";

/// Operator sets read: 7 brought today's broadcasting.
const OPSETS: [i64; 2] = [7, 28];

pub(super) fn import(bytes: &[u8]) -> Result<Graph, OnnxError> {
    scan::check(bytes)?;
    let model = Model::decode(bytes).map_err(|e| OnnxError::Format(e.to_string()))?;
    let opset = opset(&model)?;
    let Some(graph) = model.graph else {
        return Err(OnnxError::Format("it holds no graph".into()));
    };
    let metadata = model.metadata.into_iter().map(|e| (e.key, e.value)).collect();
    Importer::new(&graph, opset, metadata, Budget::new(bytes.len()))?.run(&graph)
}

fn opset(model: &Model) -> Result<i64, OnnxError> {
    let own = |domain: &str| matches!(domain, "" | "ai.onnx");
    let found = model.opset_import.iter().find(|o| own(&o.domain)).map_or(0, |o| o.version);
    let [min, max] = OPSETS;
    if !(min..=max).contains(&found) {
        return Err(OnnxError::Opset { found, min, max });
    }
    Ok(found)
}

/// A named value of the model as import sees it.
#[derive(Clone)]
pub(super) enum Value {
    Const(Rc<Const>),
    Feature(Feature),
    /// Comes from an unsupported node, which has been noted.
    Unknown,
}

/// A value that depends on the input.
#[derive(Clone, Copy)]
pub(super) struct Feature {
    pub source: Source,
    /// Zero padding around it that waits for the convolution or pool that takes it in.
    pub pads: Pads,
    /// Another shape than its own, which waits for what makes an image or a vector of it: an index
    /// into [`Importer::views`].
    pub view: Option<usize>,
}

/// A shape that the graph does not have, and the node of the model that gave it.
pub(super) struct View {
    pub name: String,
    pub shape: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The value of a node.
    Node(NodeId),
    /// Arithmetic that is no node yet: an index into [`Importer::polys`].
    Poly(usize),
}

/// Arithmetic, and the node it became once something read it.
pub(super) struct Pending {
    poly: Poly,
    name: String,
    node: Option<NodeId>,
}

/// Why a node was not lowered.
pub(super) enum Refusal {
    /// Not supported; noted, and import goes on to find more.
    Advice(String),
    /// The model is broken.
    Fatal(OnnxError),
    /// The node breaks its operator's rules.
    Invalid(String),
}

impl From<ShapeError> for Refusal {
    fn from(error: ShapeError) -> Self {
        Self::Fatal(error.into())
    }
}

impl From<OnnxError> for Refusal {
    fn from(error: OnnxError) -> Self {
        Self::Fatal(error)
    }
}

pub(super) type Lowered<T> = Result<T, Refusal>;

pub(super) struct Importer {
    pub graph: Graph,
    /// Shapes of the nodes' values for one sample.
    pub shapes: Vec<Vec<usize>>,
    pub opset: i64,
    /// The batch extent, where the model fixes it.
    pub batch: Option<i64>,
    pub budget: Budget,
    values: HashMap<String, Value>,
    polys: Vec<Pending>,
    pub views: Vec<View>,
    /// How many nodes read each named value, the model's output counting as one.
    uses: HashMap<String, usize>,
    /// How many named values are the value of each node.
    aliases: HashMap<NodeId, usize>,
    names: HashSet<String>,
    pub output: String,
    unsupported: Vec<UnsupportedNode>,
}

impl Importer {
    fn new(
        graph: &GraphProto,
        opset: i64,
        metadata: BTreeMap<String, String>,
        mut budget: Budget,
    ) -> Result<Self, OnnxError> {
        let mut values = HashMap::new();
        if !graph.sparse_initializer.is_empty() {
            return Err(OnnxError::Format(
                "sparse weights are not read; save the model with dense weights".into(),
            ));
        }
        for tensor in &graph.initializer {
            values.insert(tensor.name.clone(), Value::Const(Rc::new(decode(tensor, &mut budget)?)));
        }
        let inputs: Vec<&ValueInfo> = graph.input.iter().filter(|i| !values.contains_key(&i.name)).collect();
        let &[input] = inputs.as_slice() else {
            let names: Vec<&str> = inputs.iter().map(|i| i.name.as_str()).collect();
            return Err(OnnxError::Interface(format!(
                "the model has inputs {names:?}; exactly one is supported"
            )));
        };
        let [output] = graph.output.as_slice() else {
            let names: Vec<&str> = graph.output.iter().map(|i| i.name.as_str()).collect();
            return Err(OnnxError::Interface(format!(
                "the model has outputs {names:?}; exactly one is supported"
            )));
        };
        let (batch, shape) = input_shape(input)?;
        let mut uses = HashMap::from([(output.name.clone(), 1)]);
        for name in graph.node.iter().flat_map(|n| &n.input) {
            *uses.entry(name.clone()).or_default() += 1;
        }
        let name = if graph.name.is_empty() { "network".to_owned() } else { graph.name.clone() };
        let mut importer = Self {
            graph: Graph { name, nodes: Vec::new(), output: 0, metadata },
            shapes: Vec::new(),
            opset,
            batch,
            budget,
            values,
            polys: Vec::new(),
            views: Vec::new(),
            uses,
            aliases: HashMap::new(),
            names: HashSet::new(),
            output: output.name.clone(),
            unsupported: Vec::new(),
        };
        let label = if input.name.is_empty() { "input" } else { &input.name };
        importer.push(label, Op::Input { shape }, vec![])?;
        importer.define(&input.name, Value::Feature(Feature::of(0)));
        Ok(importer)
    }

    fn run(mut self, graph: &GraphProto) -> Result<Graph, OnnxError> {
        for node in &graph.node {
            let value = match self.lower(node) {
                Ok(value) => value,
                Err(Refusal::Fatal(error)) => return Err(error),
                Err(Refusal::Invalid(reason)) => {
                    return Err(OnnxError::Node {
                        node: label(node).to_owned(),
                        op: node.op_type.clone(),
                        reason,
                    });
                }
                Err(Refusal::Advice(advice)) => {
                    let op = match node.domain.as_str() {
                        "" | "ai.onnx" => node.op_type.clone(),
                        domain => format!("{domain}::{}", node.op_type),
                    };
                    self.unsupported.push(UnsupportedNode { name: label(node).to_owned(), op, advice });
                    Value::Unknown
                }
            };
            // Only Dropout has further outputs here; what reads them is refused as undefined.
            if let Some(name) = node.output.first() {
                if self.values.contains_key(name) {
                    return Err(OnnxError::Interface(format!("the value `{name}` is defined twice")));
                }
                self.define(name, value);
            }
        }
        if !self.unsupported.is_empty() {
            return Err(OnnxError::Unsupported(Unsupported(self.unsupported)));
        }
        self.finish()
    }

    fn finish(mut self) -> Result<Graph, OnnxError> {
        let output = self.output.clone();
        let Some(Value::Feature(feature)) = self.values.get(&output).cloned() else {
            return Err(OnnxError::Interface(format!("the output `{output}` does not depend on the input")));
        };
        if feature.pads != [0; 4] {
            return Err(OnnxError::Interface(format!(
                "the output `{output}` is a Pad without a layer after it"
            )));
        }
        self.graph.output = match self.node_of(feature) {
            Ok(node) => node,
            Err(Refusal::Fatal(error)) => return Err(error),
            Err(Refusal::Advice(reason) | Refusal::Invalid(reason)) => {
                return Err(OnnxError::Interface(reason));
            }
        };
        let graph = without_dead_nodes(self.graph);
        graph.validate()?;
        Ok(graph)
    }

    fn define(&mut self, name: &str, value: Value) {
        if let Value::Feature(Feature { source: Source::Node(node), .. }) = value {
            *self.aliases.entry(node).or_default() += 1;
        }
        self.values.insert(name.to_owned(), value);
    }

    /// The inputs of a node; `None` for those left out.
    pub(super) fn inputs(&self, node: &NodeProto) -> Lowered<Vec<Option<Value>>> {
        let find = |name: &String| match self.values.get(name) {
            _ if name.is_empty() => Ok(None),
            Some(value) => Ok(Some(value.clone())),
            None => Err(Refusal::Invalid(format!("reads `{name}`, which nothing before it yields"))),
        };
        node.input.iter().map(find).collect()
    }

    /// Appends a node of a name made unique.
    pub(super) fn push(&mut self, name: &str, op: Op, inputs: Vec<NodeId>) -> Result<NodeId, ShapeError> {
        let node = Node { name: self.unique(name), op, inputs };
        let shapes: Vec<&[usize]> = node.inputs.iter().map(|&i| self.shapes[i].as_slice()).collect();
        let shape = output_shape(&node, &shapes)?;
        self.shapes.push(shape);
        self.graph.nodes.push(node);
        Ok(self.graph.nodes.len() - 1)
    }

    fn unique(&mut self, name: &str) -> String {
        let mut found = if name.is_empty() { "node".to_owned() } else { name.to_owned() };
        let mut k = self.graph.nodes.len();
        while !self.names.insert(found.clone()) {
            found = format!("{name}_{k}");
            k += 1;
        }
        found
    }

    /// Refuses what waits for a node that takes it in, and met another.
    fn settled(&self, feature: Feature) -> Lowered<()> {
        if feature.pads != [0; 4] {
            return Err(waiting_pads());
        }
        let Some(view) = feature.view else { return Ok(()) };
        let View { name, shape } = &self.views[view];
        let own = self.shape_of(Feature { view: None, ..feature })?;
        let size: usize = own.iter().product();
        Err(Refusal::Advice(format!(
            "only flattening {own:?} to [{size}] is supported, not {shape:?} as `{name}` has it"
        )))
    }

    /// The node of a value, made now if it is still arithmetic.
    pub(super) fn node_of(&mut self, feature: Feature) -> Lowered<NodeId> {
        self.settled(feature)?;
        let index = match feature.source {
            Source::Node(node) => return Ok(node),
            Source::Poly(index) => index,
        };
        let Pending { poly, name, node } = &self.polys[index];
        if let Some(node) = node {
            return Ok(*node);
        }
        let (base, name) = (poly.base, name.clone());
        let node = if poly.is_identity() {
            base
        } else {
            let [a, b, c] = [&poly.a, &poly.b, &poly.c].map(|v| coefficients(v));
            self.push(&name, Op::Quadratic(Quadratic { a, b, c }), vec![base])?
        };
        self.polys[index].node = Some(node);
        Ok(node)
    }

    /// The value as a polynomial over a node.
    pub(super) fn poly_of(&self, feature: Feature) -> Lowered<Poly> {
        self.settled(feature)?;
        Ok(match feature.source {
            Source::Node(node) => Poly::identity(node),
            Source::Poly(index) => self.polys[index].poly.clone(),
        })
    }

    /// A value that is arithmetic so far, named after the node that finished it.
    ///
    /// A quadratic that is read more than once becomes a node at once: were its readers to go on
    /// from different bases, a quadratic of a quadratic would fall apart into its terms.
    pub(super) fn arithmetic(&mut self, node: &NodeProto, poly: Poly) -> Lowered<Value> {
        self.budget.charge(poly.len().saturating_mul(2))?;
        let shared = node.output.first().and_then(|o| self.uses.get(o)).is_some_and(|&n| n > 1);
        let at_once = shared && poly.degree() == 2;
        self.polys.push(Pending { poly, name: label(node).to_owned(), node: None });
        let feature = Feature { source: Source::Poly(self.polys.len() - 1), pads: [0; 4], view: None };
        Ok(Value::Feature(if at_once { Feature::of(self.node_of(feature)?) } else { feature }))
    }

    /// True where the value of this name is read once and the node behind it has no other name.
    pub(super) fn is_sole_use(&self, name: &str, node: NodeId) -> bool {
        self.uses.get(name) == Some(&1) && self.aliases.get(&node) == Some(&1)
    }

    /// True where the node's result is the model's output and nothing else reads it.
    pub(super) fn ends_model(&self, node: &NodeProto) -> bool {
        node.output.first().is_some_and(|o| *o == self.output && self.uses.get(o) == Some(&1))
    }

    /// Shape of one sample of a value.
    pub(super) fn shape_of(&self, feature: Feature) -> Lowered<Vec<usize>> {
        let base = match feature.source {
            Source::Node(node) => node,
            Source::Poly(index) => self.polys[index].poly.base,
        };
        if feature.pads != [0; 4] {
            return Err(waiting_pads());
        }
        Ok(feature.view.map_or_else(|| self.shapes[base].clone(), |v| self.views[v].shape.clone()))
    }
}

impl Feature {
    pub(super) fn of(node: NodeId) -> Self {
        Self { source: Source::Node(node), pads: [0; 4], view: None }
    }
}

fn waiting_pads() -> Refusal {
    Refusal::Advice("put the padding into the convolution or pool that follows".into())
}

/// The name that messages and nodes get: the node's own, else that of its result.
pub(super) fn label(node: &NodeProto) -> &str {
    match (node.name.as_str(), node.output.first()) {
        ("", Some(output)) => output,
        ("", None) => &node.op_type,
        (name, _) => name,
    }
}

/// The constant of a `Constant` node.
pub(super) fn constant(node: &NodeProto, budget: &mut Budget) -> Lowered<Value> {
    let attributes = Attributes(node);
    let constant = if let Some(tensor) = attributes.tensor("value") {
        decode(tensor, budget)?
    } else if attributes.has("value_float") {
        Const::floats(vec![], vec![attributes.float("value_float", 0.0)])
    } else if let Some(values) = attributes.floats("value_floats") {
        Const::floats(vec![values.len()], values.to_vec())
    } else if attributes.has("value_int") {
        Const { dims: vec![], data: Data::Int(vec![attributes.int("value_int", 0)]) }
    } else if let Some(values) = attributes.ints("value_ints") {
        Const::ints(values.to_vec())
    } else {
        return Err(Refusal::Invalid("holds no dense number".into()));
    };
    Ok(Value::Const(Rc::new(constant)))
}

fn decode(tensor: &TensorProto, budget: &mut Budget) -> Result<Const, OnnxError> {
    let constant = Const::decode(tensor)?;
    if let Some(ints) = constant.as_ints() {
        // A byte of the file may have become eight.
        budget.charge(ints.len().saturating_mul(8))?;
    }
    Ok(constant)
}

/// Batch extent, if fixed, and the shape of one sample.
fn input_shape(input: &ValueInfo) -> Result<(Option<i64>, Vec<usize>), OnnxError> {
    let fail = |reason: &str| OnnxError::Interface(format!("the input `{}` {reason}", input.name));
    let tensor =
        input.kind.as_ref().and_then(|k| k.tensor.as_ref()).ok_or_else(|| fail("is not a tensor"))?;
    if ![element::FLOAT, element::FLOAT16, element::DOUBLE, element::BFLOAT16].contains(&tensor.elem_type) {
        return Err(fail("does not hold floating-point values; export the model with a float32 input"));
    }
    let dims =
        &tensor.shape.as_ref().ok_or_else(|| fail("has no shape; export the model with fixed sizes"))?.dim;
    if !matches!(dims.len(), 2 | 4) {
        return Err(fail(&format!(
            "has {} axes; batch, channels, height, width (or batch, features) are supported",
            dims.len()
        )));
    }
    let sample: Option<Vec<usize>> =
        dims[1..].iter().map(|d| d.value.and_then(|v| usize::try_from(v).ok()).filter(|&v| v > 0)).collect();
    let sample = sample
        .ok_or_else(|| fail("has a variable size beside the batch; export the model with fixed sizes"))?;
    Ok((dims[0].value.filter(|&n| n > 0), sample))
}

fn coefficients(values: &[f64]) -> Tensor {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "weights are f32; infinities are refused by validation"
    )]
    let data: Vec<f32> = values.iter().map(|&x| x as f32).collect();
    let first = data.first().copied().unwrap_or(0.0);
    let mut tensor = Tensor::full(vec![data.len()], first);
    tensor.data_mut().copy_from_slice(&data);
    tensor
}

/// The graph of the nodes that the output depends on, and the input.
fn without_dead_nodes(graph: Graph) -> Graph {
    let mut alive = vec![false; graph.nodes.len()];
    alive[0] = true;
    alive[graph.output] = true;
    for i in (0..graph.nodes.len()).rev() {
        if alive[i] {
            for &input in &graph.nodes[i].inputs {
                alive[input] = true;
            }
        }
    }
    let mut place = vec![0; graph.nodes.len()];
    let mut nodes = Vec::new();
    for (i, mut node) in graph.nodes.into_iter().enumerate() {
        if alive[i] {
            place[i] = nodes.len();
            for input in &mut node.inputs {
                *input = place[*input];
            }
            nodes.push(node);
        }
    }
    Graph { nodes, output: place[graph.output], ..graph }
}

/// True for an operator of the standard set that import knows.
pub(super) fn is_supported(node: &NodeProto) -> bool {
    matches!(node.domain.as_str(), "" | "ai.onnx") && advice::SUPPORTED.contains(&node.op_type.as_str())
}
