//! `polyveil inspect`: what is in a file of ours or in an ONNX file.

use std::path::{Path, PathBuf};

use clap::Args;
use polyveil_ckks::{Ciphertext, KeySpec, ParametersLiteral, Security, SeededCiphertext};
use polyveil_exec::Program;
use polyveil_format::{Header, Kind, Reader, Stored, read_parameters, read_record};
use polyveil_net::Graph;
use polyveil_plan::{Schedule, ServerPlan, StepKind};
use serde::Serialize;
use serde_json::{Value, json};

use super::hex;
use crate::error::CliError;
use crate::files;
use crate::output::{Table, bytes};
use crate::pipeline::server::refused;
use crate::pipeline::{models, store};
use crate::session::Session;

/// Arguments of `inspect`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  polyveil inspect server.plan\n  polyveil inspect model.onnx")]
pub struct InspectArgs {
    /// A plan, key, ciphertext or result file, or a network (ONNX).
    file: PathBuf,
}

/// Tells the kind of file and shows it.
pub fn run(args: &InspectArgs, session: &Session) -> Result<(), CliError> {
    let path = &args.file;
    if !files::is_ours(path) {
        let graph = models::load(path)?;
        let network = Network::new(&graph);
        return session.emit(&network, || network.text());
    }
    let header = store::header(path)?;
    let mut shown = Shown::new(&header, files::size(path));
    match header.kind {
        Kind::ServerPlan => shown.server_plan(store::load_server_plan(path)?)?,
        Kind::ClientPlan => {
            let plan = store::load_client_plan(path)?;
            shown.parameters(&plan.parameters);
            shown.line("network", plan.network.clone().into());
            shown.line("input_shape", json!(plan.input_shape));
            shown.line("class_names", json!(plan.class_names));
            shown.line("batch", json!(plan.batch()));
            shown.line("ciphertexts_per_image", json!(plan.input.layout.ciphertexts));
            shown.line("rotations", json!(plan.keys.rotations.len()));
            shown.line("precision_bits", json!(plan.precision.bits));
            shown.line("predicted_max_error", json!(plan.precision.max_error));
        }
        Kind::SecretKey => shown.parameters(&parameters(path)?.0),
        Kind::EvaluationKeys => {
            let (literal, spec): (_, KeySpec) = with_index(path)?;
            shown.parameters(&literal);
            shown.line("relinearisation_level", json!(spec.relin_level));
            shown.line("rotations", json!(spec.rotations.len()));
        }
        Kind::Ciphertexts => shown.ciphertexts::<SeededCiphertext>(path)?,
        Kind::Results => shown.ciphertexts::<Ciphertext>(path)?,
    }
    session.emit(&shown.json(), || shown.text())
}

/// What is shown of a file of ours: lines, then the layers of a server plan.
struct Shown {
    lines: Vec<(&'static str, Value)>,
    layers: Vec<Layer>,
}

/// One step of a plan.
#[derive(Serialize)]
struct Layer {
    name: String,
    kind: &'static str,
    shape: [usize; 3],
    level: usize,
    log_scale: f64,
    ciphertexts: usize,
    rotations: usize,
    products: usize,
    range: f64,
}

impl Shown {
    fn new(header: &Header, size: u64) -> Self {
        let mut shown = Self { lines: Vec::new(), layers: Vec::new() };
        shown.line("kind", header.kind.name().into());
        shown.line("format_version", json!(header.version));
        shown.line("bytes", json!(size));
        shown.line("parameter_fingerprint", hex(&header.parameters).into());
        if header.plan != [0; 32] {
            shown.line("plan_id", hex(&header.plan).into());
        }
        if header.key != [0; 16] {
            shown.line("key_id", hex(&header.key).into());
        }
        shown.line("holder", header.kind.info().holder.into());
        shown
    }

    fn line(&mut self, name: &'static str, value: Value) {
        self.lines.push((name, value));
    }

    fn parameters(&mut self, literal: &ParametersLiteral) {
        let security = Security::of(literal.log_n, literal.log_qp());
        self.line("ring", format!("{:?}", literal.ring).into());
        self.line("log_n", json!(literal.log_n));
        self.line("log_qp", json!((literal.log_qp() * 10.0).round() / 10.0));
        self.line("levels", json!(literal.max_level()));
        let bits = |primes: &[u64]| {
            primes.iter().map(|&q| ((q as f64).log2() * 10.0).round() / 10.0).collect::<Vec<_>>()
        };
        self.line("q_bits", json!(bits(&literal.q)));
        self.line("p_bits", json!(bits(&literal.p)));
        let top = literal.max_level();
        self.line("limbs", json!((0..=top).map(|level| literal.limbs(level)).collect::<Vec<_>>()));
        self.line("digits", json!(literal.digits(top)));
        self.line("security_bits", json!(security.bits()));
        self.line("security_table", Security::TABLE.into());
    }

    fn server_plan(&mut self, plan: ServerPlan) -> Result<(), CliError> {
        let program = Program::load(plan).map_err(refused)?;
        let plan = program.plan();
        self.parameters(&plan.parameters);
        self.line("network", plan.network.clone().into());
        self.line("batch", json!(plan.batch()));
        self.line("relinearisation_level", json!(plan.keys.relin_level));
        self.line("rotations", json!(plan.keys.rotations.len()));
        self.line("precision_bits", json!(plan.precision.bits));
        self.line("predicted_max_error", json!(plan.precision.max_error));
        let lowered = program.lowered();
        for (index, step) in plan.steps.iter().enumerate() {
            let value = &plan.values[index + 1];
            let (kind, rotations, products) = match (&step.kind, lowered.get(index).copied().flatten()) {
                (StepKind::Linear(linear), Some(diagonals)) => {
                    let schedule = Schedule::new(linear, diagonals, value.layout.slots);
                    let babies = schedule.babies.iter().filter(|b| b.2 != 0).count();
                    let giants = || schedule.outputs.iter().flat_map(|o| &o.giants);
                    let turning = giants().filter(|g| g.rotation != 0).count();
                    let folds = diagonals.folds.len() * schedule.outputs.len();
                    ("linear", babies + turning + folds, giants().map(|g| g.products.len()).sum())
                }
                (StepKind::Linear(_), None) => ("linear", 0, 0),
                (StepKind::Square { .. }, _) => ("square", 0, value.layout.ciphertexts),
            };
            self.layers.push(Layer {
                name: step.name.clone(),
                kind,
                shape: value.layout.shape,
                level: value.level,
                log_scale: value.scale.log2(),
                ciphertexts: value.layout.ciphertexts,
                rotations,
                products,
                range: value.range,
            });
        }
        Ok(())
    }

    fn ciphertexts<C: Stored>(&mut self, path: &Path) -> Result<(), CliError> {
        let (literal, mut reader) = parameters(path)?;
        let count = polyveil_format::read_count(&mut reader).map_err(|e| CliError::reading(path, e))?;
        self.parameters(&literal);
        self.line("images", json!(count.images));
        self.line("batch", json!(count.batch));
        self.line("ciphertexts_per_image", json!(count.per_batch));
        self.line("seeded", json!(C::KIND == Kind::Ciphertexts));
        Ok(())
    }

    fn json(&self) -> Value {
        let mut object: serde_json::Map<String, Value> =
            self.lines.iter().map(|(name, value)| ((*name).to_string(), value.clone())).collect();
        if !self.layers.is_empty() {
            object.insert("layers".into(), json!(self.layers));
        }
        Value::Object(object)
    }

    fn text(&self) -> String {
        let mut table = Table::facts("file", "");
        for (name, value) in &self.lines {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(n) if *name == "bytes" => bytes(n.as_u64().unwrap_or(0)),
                other => other.to_string(),
            };
            table.row([name.replace('_', " "), text]);
        }
        if self.layers.is_empty() {
            return table.render();
        }
        let mut layers = Table::new([
            "layer",
            "kind",
            "shape",
            "level",
            "log2 scale",
            "ciphertexts",
            "rotations",
            "products",
            "range",
        ]);
        for l in &self.layers {
            let [c, h, w] = l.shape;
            layers.row([
                l.name.clone(),
                l.kind.into(),
                format!("{c}×{h}×{w}"),
                l.level.to_string(),
                format!("{:.1}", l.log_scale),
                l.ciphertexts.to_string(),
                l.rotations.to_string(),
                l.products.to_string(),
                format!("{:.3}", l.range),
            ]);
        }
        format!("{}\n{}", table.render(), layers.render())
    }
}

type FileReader = Reader<std::io::BufReader<std::fs::File>>;

fn parameters(path: &Path) -> Result<(ParametersLiteral, FileReader), CliError> {
    let fail = |e| CliError::reading(path, e);
    let mut reader = Reader::open(files::open(path)?).map_err(fail)?;
    Ok((read_parameters(&mut reader).map_err(fail)?, reader))
}

fn with_index<I: serde::de::DeserializeOwned>(path: &Path) -> Result<(ParametersLiteral, I), CliError> {
    let (literal, mut reader) = parameters(path)?;
    let index = read_record(&mut reader, "index").map_err(|e| CliError::reading(path, e))?;
    Ok((literal, index))
}

/// What is shown of a network.
#[derive(Serialize)]
struct Network {
    kind: &'static str,
    name: String,
    input_shape: Vec<usize>,
    output_shape: Vec<usize>,
    weights: u64,
    multiply_accumulates: u64,
    he_friendly: bool,
    /// What stands in the way, one line a node.
    obstacles: Vec<String>,
    metadata: Vec<String>,
    layers: Vec<NetworkLayer>,
}

#[derive(Serialize)]
struct NetworkLayer {
    name: String,
    op: &'static str,
    shape: Vec<usize>,
}

impl Network {
    fn new(graph: &Graph) -> Self {
        let shapes = graph.infer_shapes().unwrap_or_default();
        let shape = |index: usize| shapes.get(index).cloned().unwrap_or_default();
        let layer = |(index, node): (usize, &polyveil_net::Node)| NetworkLayer {
            name: node.name.clone(),
            op: node.op.name(),
            shape: shape(index),
        };
        let obstacles = graph.is_he_friendly().err().unwrap_or_default();
        Self {
            kind: "network",
            name: graph.name.clone(),
            input_shape: graph.input_shape().to_vec(),
            output_shape: shape(graph.output),
            weights: graph.parameters(),
            multiply_accumulates: graph.multiply_accumulates().unwrap_or(0),
            he_friendly: obstacles.is_empty(),
            obstacles: obstacles.iter().map(ToString::to_string).collect(),
            metadata: graph.metadata.keys().cloned().collect(),
            layers: graph.nodes.iter().enumerate().map(layer).collect(),
        }
    }

    fn text(&self) -> String {
        let mut table = Table::facts("network", &self.name);
        table.row(["input", &format!("{:?}", self.input_shape)]);
        table.row(["output", &format!("{:?}", self.output_shape)]);
        table.row(["weights", &self.weights.to_string()]);
        table.row(["multiply-accumulates", &self.multiply_accumulates.to_string()]);
        table.row(["metadata", &self.metadata.join(", ")]);
        table.row(["HE-friendly", if self.he_friendly { "yes" } else { "no" }]);
        let mut layers = Table::new(["node", "operator", "shape"]);
        for layer in &self.layers {
            layers.row([layer.name.as_str(), layer.op, &format!("{:?}", layer.shape)]);
        }
        let obstacles: String = self.obstacles.iter().map(|o| format!("  {o}\n")).collect();
        let obstacles =
            if obstacles.is_empty() { obstacles } else { format!("\nnot HE-friendly:\n{obstacles}") };
        format!("{}\n{}{obstacles}", table.render(), layers.render())
    }
}
