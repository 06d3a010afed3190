//! The recipe: graph → canonical form → layouts and rotations → moduli → plan.

use std::collections::BTreeMap;

use polyveil_ckks::{KeySpec, Parameters, ParametersLiteral};
use polyveil_net::{Graph, Op, Tensor};

use crate::PlanError;
use crate::allocate::Allocation;
use crate::arrange::coarse_grids;
use crate::canonical::{Ir, IrKind, canonicalise};
use crate::cost;
use crate::diagonals::{Diagonals, MAX_NUMBERS};
use crate::draft::{Draft, DraftWeighting, Masks, Work, least_levels};
use crate::moduli::{Moduli, Sizes, least_scale_bits, table_limit};
use crate::plan::{
    ClientPlan, Compiled, LinearStep, Precision, ServerPlan, Step, StepKind, Term, Value, Weighting,
};
use crate::predict::Predictor;
use crate::scales::{HEADROOM, Scales};

/// Rings that the planner considers, as log2 of the degree.
const RINGS: std::ops::RangeInclusive<u32> = 12..=16;
/// Bits of a level by which layouts are compared before ranges are known.
const TYPICAL_SCALE_BITS: u32 = 36;
/// How often moduli are looked for with a smaller error in mind.
const ATTEMPTS: usize = 4;
/// Standard deviations between a typical error and the largest that is promised. On 1,500 random
/// networks the largest error of a run was at most 9.2 predicted deviations: values that exceed the typical slot carry more noise than the prediction's averages.
const PEAK: f64 = 9.0;
/// The planner asks for this many times less error than the user allows.
const MARGIN: f64 = 2.0;

/// What a plan is made for.
#[derive(Clone, Debug)]
pub struct CompileOptions {
    /// Network inputs that show the range of every value, in the shape of the network's input and
    /// pre-processed as in use. Without any, uniform noise in [0, 1) stands in.
    pub calibration: Vec<Tensor>,
    /// Largest error of a score allowed, relative to the largest score.
    pub tolerance: f64,
}

impl Default for CompileOptions {
    fn default() -> Self {
        Self { calibration: Vec::new(), tolerance: 1e-3 }
    }
}

/// Plans `graph` for encrypted inference: chooses the smallest cost among the rings, masks and moduli
/// that keep 128-bit security and the error asked for.
///
/// # Errors
/// See [`PlanError`]; every error names the layer.
pub fn compile(graph: &Graph, options: &CompileOptions) -> Result<Compiled, PlanError> {
    let rings: Vec<Ring> =
        RINGS.map(|log_n| Ring { log_n, limit: table_limit(log_n), insecure: false }).collect();
    search(graph, options, &rings)
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
    search(graph, options, &[Ring { log_n, limit: u32::MAX, insecure: true }])
}

fn search(graph: &Graph, options: &CompileOptions, rings: &[Ring]) -> Result<Compiled, PlanError> {
    let ir = canonicalise(graph)?;
    let samples = calibration(graph, options)?;
    let mut failure: Option<PlanError> = None;
    // Masks everywhere cost precision and time, so they are drawn up only where nothing else works.
    for masks in [&[Masks::Margins, Masks::Never][..], &[Masks::Always]] {
        if let Some(plan) = cheapest(graph, &ir, &samples, options.tolerance, rings, masks, &mut failure) {
            return finish(graph, plan);
        }
    }
    let (least, deepest) = least_levels(&ir);
    Err(failure.unwrap_or_else(|| too_deep(least, deepest)))
}

/// The cheapest plan with such masks; why there is none is left in `failure`.
fn cheapest(
    graph: &Graph,
    ir: &Ir,
    samples: &[Tensor],
    tolerance: f64,
    rings: &[Ring],
    masks: &[Masks],
    failure: &mut Option<PlanError>,
) -> Option<ServerPlan> {
    let (least, _) = least_levels(ir);
    let mut first_success = None;
    let mut best: Option<(f64, ServerPlan)> = None;
    for ring in rings.iter().filter(|r| fits(r.log_n, least, r.limit)) {
        // One ring beyond the first that works may be cheaper (fewer ciphertexts), two never.
        if first_success.is_some_and(|first| ring.log_n > first + 1) {
            break;
        }
        let mut drafts = drafts(graph, ir, *ring, masks, failure);
        drafts.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (guess, mut draft) in drafts {
            // A ring that does worse before it is calibrated does not get better.
            if best.as_ref().is_some_and(|(least, _)| guess > 1.5 * least) {
                break;
            }
            let sound = draft.calibrate(samples).and_then(|()| candidate(&draft, *ring, tolerance));
            match sound {
                Ok((moduli, scales, max_error)) => {
                    let plan = assemble(graph, &draft, &moduli, &scales, max_error);
                    let cost = cost::Work::count(&plan, &lowered(&draft)).relative_cost(draft.slots);
                    if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                        best = Some((cost, plan));
                    }
                    first_success.get_or_insert(ring.log_n);
                    break;
                }
                Err(error) => *failure = Some(error),
            }
        }
    }
    best.map(|(_, plan)| plan)
}

/// The network laid out in every way that is tried in one ring, with costs at moduli of a typical size.
fn drafts<'i>(
    graph: &Graph,
    ir: &'i Ir,
    ring: Ring,
    masks: &[Masks],
    failure: &mut Option<PlanError>,
) -> Vec<(f64, Draft<'i>)> {
    let mut drafts = Vec::new();
    let mut numbers = MAX_NUMBERS;
    for grid in coarse_grids(ir).into_iter().rev() {
        for &masks in masks {
            let masked = |(_, d): &(f64, Draft<'_>)| d.nodes.iter().any(|n| is_masked(&n.work));
            if masks == Masks::Never && !drafts.iter().any(masked) {
                continue;
            }
            let draft = match Draft::new(ir, 1 << ring.log_n, grid, masks, numbers) {
                Ok(draft) => draft,
                Err(error) => {
                    *failure = Some(error);
                    continue;
                }
            };
            let levels = draft.levels();
            let bits = TYPICAL_SCALE_BITS.max(least_scale_bits(ring.log_n));
            let sizes = Sizes::uniform(ring.log_n, levels, bits, bits + 8, ring.limit).or_else(|| {
                let bits = least_scale_bits(ring.log_n);
                Sizes::uniform(ring.log_n, levels, bits, bits, ring.limit)
            });
            let Some(sizes) = sizes else { continue };
            let moduli = sizes.literal().and_then(|l| Ok(Moduli::new(ring.parameters(l)?)));
            match moduli {
                Ok(moduli) => {
                    let plan = assemble(graph, &draft, &moduli, &Scales::nominal(&draft, &moduli), 1.0);
                    let cost = cost::Work::count(&plan, &lowered(&draft)).relative_cost(draft.slots);
                    // What takes many times the memory is not worth finishing.
                    numbers = numbers.min(8 * draft.numbers() + (1 << 22));
                    drafts.push((cost, draft));
                }
                Err(error) => *failure = Some(error),
            }
        }
    }
    drafts
}

fn lowered<'d>(draft: &'d Draft<'_>) -> Vec<Option<&'d Diagonals>> {
    draft
        .nodes
        .iter()
        .skip(1)
        .map(|n| if let Work::Linear { diagonals, .. } = &n.work { Some(diagonals) } else { None })
        .collect()
}

fn is_masked(work: &Work) -> bool {
    matches!(work, Work::Linear { weighting: DraftWeighting::Weighted { masked: true }, .. })
}

/// Whether `levels` of the least useful size fit the ring.
fn fits(log_n: u32, levels: usize, limit: u32) -> bool {
    let bits = least_scale_bits(log_n);
    Sizes::uniform(log_n, levels, bits, bits, limit).is_some()
}

fn too_deep(needed: usize, layer: String) -> PlanError {
    let max_log_n = *RINGS.end();
    let bits = least_scale_bits(max_log_n);
    // The base prime and at least one special prime as large.
    let total = (needed as u32 + 2) * bits + 1;
    PlanError::TooDeep { needed, bits, total, max_log_n, limit: table_limit(max_log_n), layer }
}

/// The smallest primes whose predicted error is small enough, with the cheapest digits that fit.
fn candidate(draft: &Draft<'_>, ring: Ring, tolerance: f64) -> Result<(Moduli, Scales, f64), PlanError> {
    let range = draft.nodes[draft.output].range.max(f64::MIN_POSITIVE);
    let wanted = range * tolerance / MARGIN;
    let predictor = Predictor::new(draft);
    let least = least_scale_bits(ring.log_n);
    let Some(sizes) = Sizes::uniform(ring.log_n, draft.levels(), least, least, ring.limit) else {
        return Err(too_deep(draft.levels(), draft.ir.nodes[draft.output].name.clone()));
    };
    let stand_in = Moduli::new(ring.parameters(sizes.literal()?)?);
    let imprecise = |error: f64, worst: usize| PlanError::Imprecise {
        max_log_n: ring.log_n,
        wanted: tolerance,
        best: error * PEAK * MARGIN / range,
        layer: draft.ir.nodes[worst].name.clone(),
    };
    let mut aim = wanted / PEAK;
    let mut failure = None;
    // What the stand-in does not know (the very primes, the digits) makes little difference, so few attempts do.
    for _ in 0..ATTEMPTS {
        let mut allocation = Allocation::start(&predictor, stand_in.clone(), least)?;
        allocation.descend(aim);
        if allocation.error() > aim {
            return Err(imprecise(allocation.error(), allocation.worst()));
        }
        let Some(sizes) = Sizes::cheapest(ring.log_n, allocation.bits(), ring.limit) else {
            allocation.fit(ring.log_n, ring.limit);
            return Err(imprecise(allocation.error(), allocation.worst()));
        };
        let moduli = Moduli::new(ring.parameters(sizes.literal()?)?);
        match Scales::assign(&predictor, &moduli, allocation.wanted()) {
            Ok(scales) => {
                let prediction = predictor.predict(&moduli, &scales);
                let max_error = prediction.output * PEAK;
                if max_error <= wanted {
                    return Ok((moduli, scales, max_error));
                }
                failure = Some(imprecise(prediction.output, prediction.worst));
                aim *= 0.9 * wanted / max_error;
            }
            Err(error) => {
                failure = Some(error);
                aim *= 0.5;
            }
        }
    }
    let levels = draft.levels();
    Err(failure.unwrap_or_else(|| too_deep(levels, draft.ir.nodes[draft.output].name.clone())))
}

/// A ring degree and the bits that its moduli may have.
#[derive(Clone, Copy)]
struct Ring {
    log_n: u32,
    limit: u32,
    insecure: bool,
}

impl Ring {
    fn parameters(self, literal: ParametersLiteral) -> Result<Parameters, PlanError> {
        let log_n = self.log_n;
        let checked =
            if self.insecure { Parameters::new_insecure(literal) } else { Parameters::new(literal) };
        checked.map_err(|source| PlanError::Parameters { log_n, source })
    }
}

fn assemble(
    graph: &Graph,
    draft: &Draft<'_>,
    moduli: &Moduli,
    scales: &Scales,
    max_error: f64,
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
    let output_range = draft.nodes[draft.output].range;
    let mut plan = ServerPlan {
        id: [0; 32],
        network: graph.name.clone(),
        parameters: moduli.parameters.literal().clone(),
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
                    DraftWeighting::Weighted { .. } => Weighting::Weighted { mask_scale: scales.mask[id] },
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
