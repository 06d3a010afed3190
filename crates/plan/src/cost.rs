//! What a plan costs, before any key exists: counted operations, bytes, and with measured unit costs
//! seconds.

use polyveil_ckks::{ParametersLiteral, Security, transform_is_heavy, transform_round};
use serde::{Deserialize, Serialize};

use std::collections::BTreeSet;

use crate::bsgs::Counts;
use crate::diagonals::Diagonals;
use crate::plan::{LinearStep, ServerPlan, StepKind};
use crate::schedule::Schedule;

/// Seconds that a byte of keys in memory is worth to the planner. Key generation and transfer are paid once for many images: they
/// weigh little, not nothing; more where they have a limit that they would exceed.
pub(crate) const KEY_PRICE: f64 = 3e-10;

/// Nanoseconds of one operation on one limb (N coefficients), measured on the machine at hand.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitCosts {
    /// One transform, forward or inverse.
    pub ntt_ns: f64,
    /// Multiply-accumulate with a full-size plaintext.
    pub mac_full_ns: f64,
    /// Multiply-accumulate with a periodic plaintext.
    pub mac_periodic_ns: f64,
    /// Multiply-accumulate with one limb of a switching key, of weight 1 ([`key_weight`]), operand permuted.
    pub key_mac_ns: f64,
    /// One limb-to-limb term of a base conversion.
    pub convert_ns: f64,
    /// Embedding of one slot vector (before the transforms).
    pub embed_ns: f64,
    /// How many times faster the threads at hand are than one.
    pub speedup: f64,
}

/// Counted operations of one step, in limbs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepWork {
    /// Transforms.
    pub ntt: f64,
    /// Products with full-size plaintexts.
    pub mac_full: f64,
    /// Products with periodic plaintexts.
    pub mac_periodic: f64,
    /// Products with key limbs, by their weights ([`key_weight`]).
    pub key_mac: f64,
    /// Base conversion terms.
    pub convert: f64,
    /// Embeddings of full-size weight vectors.
    pub embed: f64,
    /// Key switches (rotations and relinearisations).
    pub switches: f64,
    /// Ciphertext-sized buffers alive at once (in limbs of two polynomials).
    pub live_limbs: f64,
}

/// Counted work of a plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// One a step, with its layer's name.
    pub steps: Vec<(String, StepWork)>,
    /// Rotation keys.
    pub rotations: usize,
    /// Bytes of all evaluation keys in memory.
    pub key_memory: u64,
    /// Bytes of all evaluation keys in a file.
    pub key_bytes: u64,
}

/// Everything a user wants to know before a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Images that are run together.
    pub batch: usize,
    /// Seconds of one encrypted inference, of all images of a batch together.
    pub seconds: f64,
    /// Peak memory of the server.
    pub server_memory_bytes: u64,
    /// Peak memory of the data owner (key generation).
    pub client_memory_bytes: u64,
    /// Evaluation keys to upload once.
    pub key_bytes: u64,
    /// Encrypted input of one batch.
    pub upload_bytes: u64,
    /// Encrypted scores of one batch.
    pub download_bytes: u64,
    /// Bits of security by the table.
    pub security_bits: u32,
    /// log2 of the ring degree.
    pub log_n: u32,
    /// Bits of all moduli, special primes included.
    pub log_qp: u32,
    /// Levels.
    pub levels: usize,
    /// Rotation keys.
    pub rotations: usize,
    /// Predicted largest error of a score.
    pub max_error: f64,
    /// Bits of a score that are right: log2(range / error).
    pub precision_bits: f64,
    /// Layer by layer.
    pub layers: Vec<LayerEstimate>,
}

/// One layer of an [`Estimate`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerEstimate {
    /// Its name.
    pub name: String,
    /// Seconds of one batch.
    pub seconds: f64,
    /// Peak memory of the server meanwhile, keys and everything else that it holds included.
    pub memory_bytes: u64,
}

impl UnitCosts {
    /// Typical ones at degree `n`, for comparing plans on no machine in particular.
    fn typical(n: f64) -> Self {
        Self {
            ntt_ns: n * n.log2() * 0.15,
            mac_full_ns: n * 0.25,
            mac_periodic_ns: n * 0.12,
            key_mac_ns: n * 0.4,
            convert_ns: n * 0.14,
            embed_ns: n * n.log2() * 1.2,
            speedup: 1.0,
        }
    }
}

impl StepWork {
    fn add_decomposition(&mut self, s: &Shape) {
        self.ntt += s.limbs;
        self.add_extension(s, 1.0);
    }

    /// Of the digits of a decomposition to all primes, so many times.
    fn add_extension(&mut self, s: &Shape, times: f64) {
        self.ntt += times * (s.digits * (s.limbs + s.specials) - s.limbs);
        self.convert += times * s.limbs * (s.limbs + s.specials);
    }

    fn add_switch(&mut self, s: &Shape) {
        self.add_key_product(s);
        self.add_division(s, 2.0);
    }

    fn add_key_product(&mut self, s: &Shape) {
        self.switches += 1.0;
        self.key_mac += s.key_products();
    }

    /// Of so many polynomials by the special primes.
    fn add_division(&mut self, s: &Shape, polynomials: f64) {
        self.ntt += polynomials * (s.limbs + s.specials);
        self.convert += polynomials * s.specials * s.limbs;
    }

    fn add_rescale(&mut self, s: &Shape) {
        self.ntt += 2.0 * s.limbs;
    }

    fn seconds(&self, unit: &UnitCosts) -> f64 {
        let ns = self.ntt * unit.ntt_ns
            + self.mac_full * unit.mac_full_ns
            + self.mac_periodic * unit.mac_periodic_ns
            + self.key_mac * unit.key_mac_ns
            + self.convert * unit.convert_ns
            + self.embed * unit.embed_ns;
        ns * 1e-9 / unit.speedup.max(1.0)
    }
}

/// What the key of a limb of so many bits costs, against one of up to 30: keys are packed and come from memory, so it is their bits
/// that count. The rest of a key switch hardly depends on them (rotations at 2^16 with limbs of 30 to 50 bits, docs/engine.md).
#[must_use]
pub fn key_weight(bits: f64) -> f64 {
    bits.max(30.0) / 30.0
}

/// Limbs that an operation at one level touches.
struct Shape {
    limbs: f64,
    specials: f64,
    digits: f64,
    /// Weights of all limbs of one digit of a key.
    keys: f64,
}

impl Shape {
    fn at(parameters: &ParametersLiteral, level: usize) -> Self {
        let primes = parameters.primes(level);
        let all = primes.iter().map(|&i| parameters.q[i]).chain(parameters.p.iter().copied());
        Self {
            limbs: primes.len() as f64,
            specials: parameters.p.len() as f64,
            digits: parameters.digits(level) as f64,
            keys: all.map(|q| key_weight((q as f64).log2())).sum(),
        }
    }

    /// Products of one key.
    fn key_products(&self) -> f64 {
        2.0 * self.digits * self.keys
    }

    /// Words of a sum that waits for its division by the special primes.
    fn sum_words(&self, slots: usize) -> usize {
        2 * (self.limbs + self.specials) as usize * slots
    }
}

/// How the sums of a step are formed with double hoisting.
struct Rounds {
    count: f64,
    /// Sums, and numbers of their weights, that are in memory together at most.
    sums: usize,
    numbers: usize,
}

impl Rounds {
    fn of(schedule: &Schedule<'_>, shape: &Shape, slots: usize) -> Self {
        let sizes: Vec<(usize, usize)> = schedule
            .outputs
            .iter()
            .map(|o| {
                let products = o.giants.iter().flat_map(|g| &g.products);
                (o.giants.len(), products.map(|p| p.diagonal.weights.len()).sum())
            })
            .collect();
        let mut all = Self { count: 0.0, sums: 0, numbers: 0 };
        let mut rest = &sizes[..];
        while !rest.is_empty() {
            let (round, later) = rest.split_at(transform_round(rest.iter().copied(), shape.sum_words(slots)));
            all.count += 1.0;
            all.sums = all.sums.max(round.iter().map(|r| r.0).sum());
            all.numbers = all.numbers.max(round.iter().map(|r| r.1).sum());
            rest = later;
        }
        all
    }
}

/// Memory of a linear step beside the values that it reads and makes, in limbs of two polynomials.
fn live_limbs(schedule: &Schedule<'_>, shape: &Shape, slots: usize, double: bool) -> f64 {
    let places: BTreeSet<_> = schedule.babies.iter().map(|b| (b.0, b.1, b.2)).collect();
    let inputs = places.len() as f64 * shape.limbs;
    if !double {
        let sums: usize = schedule.outputs.iter().map(|o| o.giants.len()).sum();
        return inputs + (schedule.babies.len() + sums) as f64 * shape.limbs;
    }
    let rounds = Rounds::of(schedule, shape, slots);
    // Integers of a round, and on each of two threads one limb of them, or of the rotated inputs.
    let integers = rounds.numbers as f64 / (2 * slots) as f64;
    let weights = if transform_is_heavy(schedule.babies.len(), rounds.numbers, slots) {
        integers + 2.0 * schedule.babies.len() as f64
    } else {
        3.0 * integers
    };
    let digits = places.len() as f64 * (shape.limbs + shape.digits) / 2.0;
    inputs + digits + weights + (rounds.sums as f64 + 4.0) * (shape.limbs + shape.specials)
}

/// Typical seconds of so many products at so many limbs with weight vectors of so many numbers in all: no step takes less.
pub(crate) fn product_seconds(slots: usize, products: usize, numbers: usize, limbs: usize) -> f64 {
    let unit = UnitCosts::typical(slots as f64);
    let vectors = numbers as f64 / slots as f64;
    let work = StepWork {
        mac_periodic: 2.0 * (products * limbs) as f64,
        embed: vectors,
        ntt: vectors * limbs as f64,
        ..StepWork::default()
    };
    work.seconds(&unit)
}

/// Typical seconds of the rotations of a linear step at `level`, doubly hoisted where that is faster.
pub(crate) fn rotation_seconds(
    parameters: &ParametersLiteral,
    level: usize,
    counts: &Counts,
    weighted: bool,
) -> f64 {
    let unit = UnitCosts::typical(parameters.ring.slots(1 << parameters.log_n) as f64);
    let shape = Shape::at(parameters, level);
    let seconds = |add: &dyn Fn(&mut StepWork)| {
        let mut work = StepWork::default();
        add(&mut work);
        work.seconds(&unit)
    };
    let decomposition = seconds(&|w| w.add_decomposition(&shape));
    let product = seconds(&|w| w.add_key_product(&shape));
    let division = seconds(&|w| w.add_division(&shape, 1.0));
    let again = seconds(&|w| w.add_extension(&shape, counts.baby_sources));
    let outputs = counts.outputs as usize;
    let each = (counts.sums / counts.outputs.max(1.0)).ceil() as usize;
    let words = shape.sum_words(parameters.ring.slots(1 << parameters.log_n));
    let round = transform_round(std::iter::repeat_n((each, 0), outputs), words);
    let more = outputs.div_ceil(round).saturating_sub(1) as f64;
    let always = counts.position_sources * decomposition
        + counts.positions * (product + 2.0 * division)
        + counts.baby_sources * decomposition
        + counts.babies * product
        + counts.giants * (decomposition + product);
    let hoisted = counts.babies * 2.0 * division + counts.giants * 2.0 * division;
    let double =
        counts.giants * division + counts.outputs * 2.0 * division + more * (again + counts.babies * product);
    always + if weighted { hoisted.min(double) } else { hoisted }
}

impl Work {
    /// Counts the work of `plan`, whose steps lower to `lowered` (see [`ServerPlan::lowered`]).
    #[must_use]
    pub fn count(plan: &ServerPlan, lowered: &[Option<&Diagonals>]) -> Self {
        let slots = plan.values[0].layout.slots;
        let mut steps = Vec::with_capacity(plan.steps.len());
        for (k, step) in plan.steps.iter().enumerate() {
            let mut work = StepWork::default();
            let out = &plan.values[k + 1];
            match (&step.kind, lowered.get(k).copied().flatten()) {
                (StepKind::Linear(linear), Some(diagonals)) => {
                    let level = out.level + usize::from(linear.is_weighted());
                    let shape = Shape::at(&plan.parameters, level);
                    let schedule = Schedule::new(linear, diagonals, slots);
                    let double = double_hoisting_pays(plan, k, &schedule);
                    work = sums_of_rotations(linear, &schedule, &shape, slots, double);
                    for value in linear.terms.iter().map(|t| &plan.values[t.value]) {
                        if !plan.parameters.contains(value.level, level) {
                            let limbs = plan.parameters.limbs(value.level) as f64;
                            work.ntt += 2.0 * limbs * value.layout.ciphertexts as f64;
                        }
                    }
                    work.live_limbs = live_limbs(&schedule, &shape, slots, double);
                    // Masks and biases are encoded as one period.
                    let share = out.layout.period() as f64 / slots as f64;
                    for _ in &schedule.outputs {
                        if linear.weighting.mask_scale().is_some() {
                            work.mac_full += 2.0 * shape.limbs;
                            work.embed += share;
                            work.ntt += share * shape.limbs;
                        }
                        let after = Shape::at(&plan.parameters, out.level);
                        for _ in &diagonals.folds {
                            work.add_decomposition(&after);
                            work.add_switch(&after);
                        }
                        if !linear.bias.is_empty() {
                            work.embed += share;
                            work.ntt += share * after.limbs;
                        }
                    }
                }
                (StepKind::Square { input }, _) => {
                    let shape = Shape::at(&plan.parameters, plan.values[*input].level);
                    for _ in 0..out.layout.ciphertexts {
                        work.mac_full += 3.0 * shape.limbs;
                        work.add_decomposition(&shape);
                        work.add_switch(&shape);
                        work.add_rescale(&shape);
                    }
                    work.live_limbs = 4.0 * shape.limbs * out.layout.ciphertexts as f64;
                }
                (StepKind::Linear(_), None) => {}
            }
            steps.push((step.name.clone(), work));
        }
        let (key_memory, key_bytes) = key_sizes(plan);
        Self { steps, rotations: plan.keys.rotations.len(), key_memory, key_bytes }
    }

    /// A machine-independent cost for comparing plans: typical unit costs, plus keys at `key_price` seconds a byte in memory.
    #[must_use]
    pub fn relative_cost(&self, n: usize, key_price: f64) -> f64 {
        let unit = UnitCosts::typical(n as f64);
        self.seconds(&unit) + self.key_memory as f64 * key_price
    }

    /// Seconds of one inference.
    #[must_use]
    pub fn seconds(&self, unit: &UnitCosts) -> f64 {
        self.steps.iter().map(|(_, w)| w.seconds(unit)).sum()
    }
}

/// Whether step `k` of `plan` is done faster with double hoisting (sums modulo Q·P, one division an output) than with one
/// division a rotation. It saves transforms of baby steps and pays with longer sums and weights.
#[must_use]
pub fn double_hoisting_pays(plan: &ServerPlan, k: usize, schedule: &Schedule<'_>) -> bool {
    let (out, slots) = (&plan.values[k + 1], plan.values[0].layout.slots);
    let StepKind::Linear(linear) = &plan.steps[k].kind else { return false };
    if !linear.is_weighted() {
        return false;
    }
    // Sums of the same inputs that wait for no division are formed together.
    if schedule.is_still() {
        return true;
    }
    let shape = Shape::at(&plan.parameters, out.level + 1);
    let cost = |double| {
        let work = sums_of_rotations(linear, schedule, &shape, slots, double);
        work.seconds(&UnitCosts::typical(slots as f64))
    };
    cost(true) < cost(false)
}

/// The weighted sums of a linear step with their rescale; masks, folds and bias come on top.
fn sums_of_rotations(
    linear: &LinearStep,
    schedule: &Schedule<'_>,
    shape: &Shape,
    slots: usize,
    double: bool,
) -> StepWork {
    let mut work = StepWork::default();
    let double = double && !schedule.is_still();
    // Inputs that are rotated to other positions: one decomposition an input, a ciphertext each.
    let moved: BTreeSet<_> = schedule.babies.iter().filter(|b| b.2 != 0).map(|b| (b.0, b.1, b.2)).collect();
    let sources: BTreeSet<_> = moved.iter().map(|m| (m.0, m.1)).collect();
    sources.iter().for_each(|_| work.add_decomposition(shape));
    moved.iter().for_each(|_| work.add_switch(shape));
    let turning: Vec<_> = schedule.babies.iter().filter(|b| b.3 != 0).collect();
    let sources: BTreeSet<_> = turning.iter().map(|b| (b.0, b.1, b.2)).collect();
    sources.iter().for_each(|_| work.add_decomposition(shape));
    let limbs = if double { shape.limbs + shape.specials } else { shape.limbs };
    if double {
        // Every further round rotates the inputs anew.
        let more = (Rounds::of(schedule, shape, slots).count - 1.0).max(0.0);
        work.add_extension(shape, more * sources.len() as f64);
        turning.iter().for_each(|_| work.key_mac += more * shape.key_products());
    }
    for _ in &turning {
        work.add_key_product(shape);
        if !double {
            work.add_division(shape, 2.0);
        }
    }
    for output in &schedule.outputs {
        for _ in output.giants.iter().filter(|g| g.rotation != 0) {
            work.add_decomposition(shape);
            work.add_key_product(shape);
            // With double hoisting only the part that is decomposed is divided.
            work.add_division(shape, if double { 1.0 } else { 2.0 });
        }
        if linear.is_weighted() {
            for product in output.giants.iter().flat_map(|g| &g.products) {
                // A periodic vector is embedded and transformed as one period.
                let share = product.diagonal.weights.len() as f64 / slots as f64;
                work.embed += share;
                work.ntt += limbs * share;
                if share >= 1.0 / 16.0 {
                    work.mac_full += 2.0 * limbs;
                } else {
                    work.mac_periodic += 2.0 * limbs;
                }
            }
            if double {
                work.add_division(shape, 2.0);
            }
            // The division takes the rescale with it, unless a mask comes between.
            if !double || linear.weighting.mask_scale().is_some() {
                work.add_rescale(shape);
            }
        }
    }
    work
}

/// Estimates time, memory and sizes of `plan` from counted `work` and measured `unit` costs.
#[must_use]
pub fn estimate(plan: &ServerPlan, work: &Work, unit: &UnitCosts) -> Estimate {
    let n = 1u64 << plan.parameters.log_n;
    let held = held_limbs(plan);
    // Two polynomials a limb.
    let busy =
        |((_, work), held): (&(String, StepWork), &u64)| (work.live_limbs + *held as f64) as u64 * 2 * n * 8;
    let busy: Vec<u64> = work.steps.iter().zip(&held).map(busy).collect();
    let busiest = busy.iter().copied().max().unwrap_or(0);
    let tables = (plan.parameters.q.len() + plan.parameters.p.len()) as u64 * n * 8 * 5;
    let base = 24 << 20;
    // Freed buffers are kept for their next use (`math::buffer`).
    let server_base = base + busiest.min(128 << 20);
    let weights: u64 = plan.steps.iter().map(|s| step_weights(&s.kind)).sum();
    let diagonals = work.steps.iter().map(|(_, w)| w.embed).sum::<f64>() as u64 * n * 4;
    let always = work.key_memory + tables + weights * 2 + diagonals + server_base;
    let input = &plan.values[0];
    let output = &plan.values[plan.output];
    let packed = |level: usize| {
        plan.parameters.primes(level).into_iter().map(|i| bits(plan.parameters.q[i])).sum::<u64>() * n / 8
    };
    Estimate {
        batch: plan.batch(),
        seconds: work.seconds(unit),
        server_memory_bytes: always + busiest,
        client_memory_bytes: work.key_memory + tables + base,
        key_bytes: work.key_bytes,
        upload_bytes: input.layout.ciphertexts as u64 * packed(input.level),
        download_bytes: output.layout.ciphertexts as u64 * 2 * packed(output.level),
        security_bits: Security::of(plan.parameters.log_n, plan.parameters.log_qp()).bits(),
        log_n: plan.parameters.log_n,
        log_qp: log_qp(plan),
        levels: plan.parameters.max_level(),
        rotations: work.rotations,
        max_error: plan.precision.max_error,
        precision_bits: (plan.precision.output_range / plan.precision.max_error.max(f64::MIN_POSITIVE))
            .log2(),
        layers: work
            .steps
            .iter()
            .zip(busy)
            .map(|((name, work), busy)| LayerEstimate {
                name: name.clone(),
                seconds: work.seconds(unit),
                memory_bytes: always + busy,
            })
            .collect(),
    }
}

/// Bits of all moduli.
#[must_use]
pub fn log_qp(plan: &ServerPlan) -> u32 {
    plan.parameters.log_qp().ceil() as u32
}

fn bits(q: u64) -> u64 {
    u64::from(64 - q.leading_zeros())
}

/// Limbs of all values held during each step: each from its making to its last reading.
fn held_limbs(plan: &ServerPlan) -> Vec<u64> {
    let mut last = vec![0usize; plan.values.len()];
    for (k, step) in plan.steps.iter().enumerate() {
        match &step.kind {
            StepKind::Square { input } => last[*input] = k,
            StepKind::Linear(l) => l.terms.iter().for_each(|t| last[t.value] = k),
        }
    }
    let size = |id: usize| {
        (plan.values[id].layout.ciphertexts * plan.parameters.limbs(plan.values[id].level)) as u64
    };
    (0..plan.steps.len())
        .map(|k| (0..=k + 1).filter(|&id| id == k + 1 || last[id] >= k).map(size).sum())
        .collect()
}

fn step_weights(kind: &StepKind) -> u64 {
    match kind {
        StepKind::Square { .. } => 0,
        StepKind::Linear(l) => l.terms.iter().map(|t| t.op.weight.len() as u64 * 4).sum(),
    }
}

/// Bytes of the evaluation keys in memory (both halves) and in a file (one half).
pub(crate) fn key_sizes(plan: &ServerPlan) -> (u64, u64) {
    plan.keys
        .rotations
        .iter()
        .map(|&(_, level)| level)
        .chain(plan.keys.relin_level)
        .map(|level| key_size(&plan.parameters, level))
        .fold((0, 0), |(m, f), (a, b)| (m + a, f + b))
}

/// Bytes of one key in memory, where residues take whole bytes, and in a file.
pub(crate) fn key_size(parameters: &ParametersLiteral, level: usize) -> (u64, u64) {
    let n = 1u64 << parameters.log_n;
    let own: Vec<u64> = parameters.key_primes(level).into_iter().map(|i| parameters.q[i]).collect();
    let primes = || own.iter().chain(&parameters.p).map(|&q| bits(q));
    let digits = parameters.key_digits(level) as u64;
    let bytes: u64 = primes().map(|b| b.div_ceil(8)).sum();
    (digits * 2 * bytes * n, digits * primes().sum::<u64>() * n / 8)
}
