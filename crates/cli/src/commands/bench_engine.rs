//! `polyveil bench engine`: the operations of the encrypted arithmetic, timed one by one.

use clap::{Args, ValueEnum};
use polyveil_ckks::{Parameters, RingKind};
use serde::Serialize;

use crate::error::{CliError, Exit};
use crate::machine;
use crate::output::{Table, bytes};
use crate::pipeline::engine::{self, Accuracy, Bench, Chain, Timings};
use crate::session::Session;

/// Arguments of `bench engine`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  polyveil bench engine --log-n 15 --levels 13 --scale-bits 42 --threads 1 \
    --json\n\nParameters have 128 bits of security or are refused. The base prime has 8 bits more than the \
    scale, at most 50.\nTimes are of one operation at the highest level; docs/json.md says what each is."
)]
pub struct EngineArgs {
    /// log2 of the ring degree.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(12..=17))]
    log_n: u32,
    /// Levels, that is, rescales.
    #[arg(long, default_value_t = 13, value_parser = clap::value_parser!(u32).range(1..=79))]
    levels: u32,
    /// Bits of the scale and of the primes of all levels.
    #[arg(long, default_value_t = 42, value_parser = clap::value_parser!(u32).range(20..=50))]
    scale_bits: u32,
    /// Digits of key switching [default: the fewest that 128 bits of security allow].
    #[arg(long, value_name = "D", value_parser = clap::value_parser!(u32).range(1..=80))]
    digits: Option<u32>,
    /// The ring: N real slots or N/2 complex ones.
    #[arg(long, value_enum, default_value_t = Ring::ConjugateInvariant)]
    ring: Ring,
    /// Samples of each operation; a sample lasts a millisecond at least.
    #[arg(long, default_value_t = 15, value_name = "R", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    reps: u32,
}

/// Measured errors may exceed the formulas, which are means over keys, by this factor.
const ERROR_ROOM: f64 = 1.25;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Ring {
    ConjugateInvariant,
    Standard,
}

#[derive(Serialize)]
struct Outcome {
    ring: RingKind,
    log_n: u32,
    levels: usize,
    scale_bits: u32,
    digits: usize,
    special_primes: usize,
    log_qp: f64,
    security_bits: u32,
    ciphertext_bytes: u64,
    rotation_key_bytes: u64,
    rotation_key_stored_bytes: u64,
    simd_backend: &'static str,
    cpu: String,
    threads: usize,
    reps: u32,
    period: usize,
    product_accuracy: Accuracy,
    rotation_accuracy: Accuracy,
    #[serde(flatten)]
    timings: Timings,
}

/// Finds parameters, makes keys and operands, times every operation, checks what came out.
pub fn run(args: &EngineArgs, session: &Session) -> Result<(), CliError> {
    let ring = match args.ring {
        Ring::ConjugateInvariant => RingKind::ConjugateInvariant,
        Ring::Standard => RingKind::Standard,
    };
    let chain = Chain { ring, log_n: args.log_n, levels: args.levels, scale_bits: args.scale_bits };
    let parameters = chain.parameters(args.digits)?;
    session.require_memory("this benchmark", engine::memory_bytes(&parameters))?;
    let bench = Bench::new(parameters, args.scale_bits, args.reps, session)?;
    let accuracy = [bench.product_accuracy()?, bench.rotation_accuracy()?];
    // On a thread of the pool, as in a network: from outside, every operation would wait to be woken.
    let timings = rayon::scope(|_| bench.time())?;
    let outcome = Outcome::new(args, bench.parameters(), session, accuracy, timings);
    session.emit(&outcome, || outcome.text())?;
    outcome.verify()
}

impl Outcome {
    fn new(
        args: &EngineArgs,
        parameters: &Parameters,
        session: &Session,
        [product_accuracy, rotation_accuracy]: [Accuracy; 2],
        timings: Timings,
    ) -> Self {
        let top = parameters.max_level();
        Self {
            ring: parameters.ring(),
            log_n: parameters.log_n(),
            levels: top,
            scale_bits: args.scale_bits,
            digits: parameters.digits(top),
            special_primes: parameters.p().len(),
            log_qp: parameters.log_qp(),
            security_bits: parameters.security().bits(),
            ciphertext_bytes: parameters.ciphertext_bytes(top),
            rotation_key_bytes: parameters.switching_key_bytes(top),
            rotation_key_stored_bytes: parameters.switching_key_stored_bytes(top),
            simd_backend: polyveil_math::simd::backend().name(),
            cpu: machine::cpu_name(),
            threads: session.threads(),
            reps: args.reps,
            period: engine::PERIOD,
            product_accuracy,
            rotation_accuracy,
            timings,
        }
    }

    /// Fast and wrong is a failure, with its own exit code.
    fn verify(&self) -> Result<(), CliError> {
        for (what, accuracy) in [("product", &self.product_accuracy), ("rotation", &self.rotation_accuracy)] {
            let (found, predicted) = (accuracy.rms_error, accuracy.predicted_rms_error);
            if !accuracy.max_error.is_finite() || found > ERROR_ROOM * predicted {
                let message =
                    format!("errors of a {what} are {found:.2e} (rms), {predicted:.2e} are predicted");
                return Err(CliError::new(Exit::Verification, message).help("report it with these arguments"));
            }
        }
        Ok(())
    }

    fn text(&self) -> String {
        let mut facts = Table::facts("engine", "");
        let ring = format!(
            "{:?} N = 2^{}, {} levels of {} bits, log2(QP) = {:.1}",
            self.ring, self.log_n, self.levels, self.scale_bits, self.log_qp
        );
        facts.row(["parameters".to_string(), ring]);
        facts.row(["security".into(), format!("{} bits", self.security_bits)]);
        let digits = format!("{} digits, {} special primes", self.digits, self.special_primes);
        facts.row(["key switching".into(), digits]);
        facts.row(["ciphertext".into(), bytes(self.ciphertext_bytes)]);
        let key = format!(
            "{}, {} in a file",
            bytes(self.rotation_key_bytes),
            bytes(self.rotation_key_stored_bytes)
        );
        facts.row(["rotation key".into(), key]);
        let machine = format!("{}, {} threads, kernels {}", self.cpu, self.threads, self.simd_backend);
        facts.row(["machine".into(), machine]);
        for (name, a) in
            [("product precision", &self.product_accuracy), ("rotation precision", &self.rotation_accuracy)]
        {
            let (rms, predicted) = (a.rms_error, a.predicted_rms_error);
            let text = format!(
                "{:.1} bits at least, {:.1} on average; error {rms:.1e} rms, {predicted:.1e} predicted",
                a.min_bits, a.mean_bits
            );
            facts.row([name.to_string(), text]);
        }
        let mut times = Table::new(["operation", "median µs", "least µs"]);
        for (name, timing) in self.timings.rows() {
            times.row([
                name.to_string(),
                format!("{:.1}", timing.median_us),
                format!("{:.1}", timing.min_us),
            ]);
        }
        format!("{}\n{}", facts.render(), times.render())
    }
}
