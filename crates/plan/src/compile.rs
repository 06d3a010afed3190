//! The recipe: graph → canonical form → layouts and rotations → moduli → plan.

use std::collections::BTreeMap;

use polyveil_ckks::{KeySpec, ParametersLiteral};
use polyveil_net::{Graph, Op, Tensor};

use crate::PlanError;
use crate::canonical::{IrKind, canonicalise};
use crate::cost::KEY_PRICE;
use crate::diagonals::Diagonals;
use crate::draft::{Draft, DraftWeighting, Work};
use crate::moduli::table_limit;
use crate::plan::{
    ClientPlan, Compiled, LinearStep, Precision, ServerPlan, Step, StepKind, Term, Unused, Value, Weighting,
};
use crate::scales::{HEADROOM, Scales};
use crate::search::{RINGS, Ring, Search};
use crate::sensitivity::Sensitivity;
use crate::watch::{Stage, Watch};

/// What a plan is made for.
#[derive(Clone, Debug)]
pub struct CompileOptions {
    /// Network inputs that show the range of every value, in the shape of the network's input and
    /// pre-processed as in use. Without any, uniform noise in [0, 1) stands in.
    pub calibration: Vec<Tensor>,
    /// Largest error of a score allowed, relative to the largest score.
    pub tolerance: f64,
    /// Images that are run together, in one set of ciphertexts.
    pub batch: usize,
    /// Most bytes that all evaluation keys may have in a file, where there is a limit; without one keys weigh little against time.
    pub max_key_bytes: Option<u64>,
}

impl Default for CompileOptions {
    fn default() -> Self {
        Self { calibration: Vec::new(), tolerance: 1e-3, batch: 1, max_key_bytes: None }
    }
}

/// Plans `graph` for encrypted inference: chooses the smallest cost among the rings, masks and moduli
/// that keep 128-bit security, the error asked for and the limit of keys.
///
/// # Errors
/// See [`PlanError`]; every error names the layer.
pub fn compile(graph: &Graph, options: &CompileOptions) -> Result<Compiled, PlanError> {
    compile_watched(graph, options, &|_| true)
}

/// As [`compile`], which a deep network keeps busy for minutes: `watch` hears what is being done, and answers whether to go on.
///
/// # Errors
/// As [`compile`]; [`PlanError::Cancelled`] after an answer of no.
pub fn compile_watched(
    graph: &Graph,
    options: &CompileOptions,
    watch: &(dyn Fn(Stage) -> bool + Sync),
) -> Result<Compiled, PlanError> {
    let rings: Vec<Ring> =
        RINGS.map(|log_n| Ring { log_n, limit: table_limit(log_n), insecure: false }).collect();
    plan(graph, options, &rings, &Watch(watch))
}

/// As [`compile`], in one small ring without any security, for tests that want to be quick.
///
/// # Errors
/// As [`compile`].
pub fn compile_insecure_for_tests(
    graph: &Graph,
    options: &CompileOptions,
    log_n: u32,
) -> Result<Compiled, PlanError> {
    plan(graph, options, &[Ring { log_n, limit: u32::MAX, insecure: true }], &Watch(&|_| true))
}

fn plan(
    graph: &Graph,
    options: &CompileOptions,
    rings: &[Ring],
    watch: &Watch<'_>,
) -> Result<Compiled, PlanError> {
    let ir = canonicalise(graph)?;
    let samples = calibration(graph, options)?;
    let sensitivity = Sensitivity::measure(&ir, &samples, watch)?;
    let &CompileOptions { tolerance, batch, max_key_bytes, .. } = options;
    let (ir, sensitivity, key_price) = (&ir, &sensitivity, KEY_PRICE);
    let search = Search { graph, ir, sensitivity, tolerance, batch, key_price, rings, watch };
    finish(graph, search.run_within(max_key_bytes)?)
}

pub(crate) fn lowered<'d>(draft: &'d Draft<'_>) -> Vec<Option<&'d Diagonals>> {
    draft
        .nodes
        .iter()
        .skip(1)
        .map(|n| if let Work::Linear { diagonals, .. } = &n.work { Some(&**diagonals) } else { None })
        .collect()
}

pub(crate) fn assemble(
    graph: &Graph,
    draft: &Draft<'_>,
    parameters: &ParametersLiteral,
    scales: &Scales,
    (max_error, output_range): (f64, f64),
) -> ServerPlan {
    let values = draft
        .nodes
        .iter()
        .zip(&draft.ir.nodes)
        .enumerate()
        .map(|(id, (node, ir))| Value {
            name: ir.name.clone(),
            layout: node.layout.clone(),
            level: scales.level[id],
            scale: scales.scale[id],
            range: node.range * HEADROOM,
        })
        .collect::<Vec<_>>();
    let steps = draft.nodes.iter().enumerate().skip(1).map(|(id, _)| step(draft, scales, id)).collect();
    let mut plan = ServerPlan {
        id: [0; 32],
        network: graph.name.clone(),
        parameters: parameters.clone(),
        values,
        steps,
        output: draft.output,
        keys: KeySpec::default(),
        precision: Precision {
            max_error,
            output_range,
            // Rounding to this many fractional bits hides what lies below the predicted error.
            bits: (-max_error.max(f64::MIN_POSITIVE).log2()).floor() as i32 + 1,
        },
    };
    plan.keys = key_spec(&plan, draft);
    plan
}

fn step(draft: &Draft<'_>, scales: &Scales, id: usize) -> Step {
    let ir = &draft.ir.nodes[id];
    let kind = match (&ir.kind, &draft.nodes[id].work) {
        (IrKind::Linear { terms, bias }, Work::Linear { split, weighting, bias: packed, .. }) => {
            StepKind::Linear(LinearStep {
                terms: terms
                    .iter()
                    .map(|t| Term { value: t.value, offset: t.offset, op: t.op.clone() })
                    .collect(),
                bias: if packed.is_empty() { Vec::new() } else { bias.iter().map(|&b| b as f32).collect() },
                split: *split,
                weighting: match weighting {
                    DraftWeighting::Constant(c) => Weighting::Constant(*c),
                    DraftWeighting::Weighted(Unused::Zero) => Weighting::Weighted { unused: Unused::Zero },
                    DraftWeighting::Weighted(_) => {
                        let unused = scales.mask[id].map_or(Unused::Any, Unused::Masked);
                        Weighting::Weighted { unused }
                    }
                },
            })
        }
        (IrKind::Square(of), _) => StepKind::Square { input: *of },
        // The input comes first and only there; every other node is one of the two kinds above.
        _ => StepKind::Square { input: 0 },
    };
    Step { name: ir.name.clone(), kind }
}

/// The rotations that the interpreter will ask for, each at the highest level where it does.
fn key_spec(plan: &ServerPlan, draft: &Draft<'_>) -> KeySpec {
    let mut rotations: BTreeMap<usize, usize> = BTreeMap::new();
    let mut relin_level = None;
    for (k, step) in plan.steps.iter().enumerate() {
        match &step.kind {
            StepKind::Square { input } => {
                relin_level = relin_level.max(Some(plan.values[*input].level));
            }
            StepKind::Linear(linear) => {
                let Work::Linear { diagonals, .. } = &draft.nodes[k + 1].work else { continue };
                for (rotation, level) in crate::schedule::rotations(plan, k, linear, diagonals) {
                    let entry = rotations.entry(rotation).or_insert(level);
                    *entry = (*entry).max(level);
                }
            }
        }
    }
    KeySpec { relin_level, rotations: rotations.into_iter().collect() }
}

fn finish(graph: &Graph, mut server: ServerPlan) -> Result<Compiled, PlanError> {
    let bytes = postcard::to_allocvec(&server)
        .map_err(|e| PlanError::Unsound { place: "plan".into(), reason: e.to_string() })?;
    server.id = *blake3::hash(&bytes).as_bytes();
    let input_shape = match graph.nodes.first().map(|n| &n.op) {
        Some(Op::Input { shape }) => shape.clone(),
        _ => Vec::new(),
    };
    let class_names = graph
        .metadata
        .get("polyveil.classes")
        .and_then(|json| serde_json::from_str::<Vec<String>>(json).ok())
        .filter(|names| names.len() == server.values[server.output].layout.elements())
        .unwrap_or_default();
    let client = ClientPlan {
        id: server.id,
        network: server.network.clone(),
        parameters: server.parameters.clone(),
        input_shape,
        input: server.values[0].clone(),
        output: server.values[server.output].clone(),
        keys: server.keys.clone(),
        preprocessing: graph.metadata.get("polyveil.preprocessing").cloned(),
        class_names,
        precision: server.precision,
    };
    Ok(Compiled { server, client })
}

/// The calibration inputs, checked; noise where there are none.
fn calibration(graph: &Graph, options: &CompileOptions) -> Result<Vec<Tensor>, PlanError> {
    let Some(Op::Input { shape }) = graph.nodes.first().map(|n| &n.op) else {
        return Ok(Vec::new());
    };
    for (index, sample) in options.calibration.iter().enumerate() {
        if sample.shape() != shape {
            let reason = format!("shape {shape:?} expected, found {:?}", sample.shape());
            return Err(PlanError::Calibration { index, reason });
        }
        if let Some(at) = sample.data().iter().position(|v| !v.is_finite()) {
            let reason = format!("value {at} is {}", sample.data()[at]);
            return Err(PlanError::Calibration { index, reason });
        }
    }
    if options.calibration.is_empty() {
        return Ok((0..4).map(|seed| noise_image(shape, seed)).collect());
    }
    Ok(options.calibration.clone())
}

/// Uniform noise in [0, 1), the same on every machine.
fn noise_image(shape: &[usize], seed: u64) -> Tensor {
    let mut image = Tensor::full(shape.to_vec(), 0.0);
    let mut reader =
        blake3::Hasher::new().update(b"polyveil calibration").update(&seed.to_le_bytes()).finalize_xof();
    for v in image.data_mut() {
        let mut bytes = [0u8; 4];
        reader.fill(&mut bytes);
        *v = (u32::from_le_bytes(bytes) >> 8) as f32 / (1u32 << 24) as f32;
    }
    image
}
