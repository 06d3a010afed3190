//! The engine's operations on one set of parameters, timed. What is timed is the public interface of
//! the crates, with operands as a network has them: full slots, the highest level, fresh ciphertexts.

use std::cell::Cell;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use polyveil_ckks::{
    Ciphertext, CkksError, EncodedWeights, Encoder, Evaluator, GiantStep, IntegerPlaintext, KeySpec,
    ParameterError, Parameters, ParametersLiteral, Plaintext, PrecisionStats, RingKind, RotatedProduct,
    noise,
};
use polyveil_client::{
    ClientError, PublicKey, SecretKey, decrypt_values, encrypt_public, encrypt_symmetric,
    generate_evaluation_keys, generate_public_key,
};
use polyveil_math::SeedStream;
use serde::Serialize;

use crate::error::{CliError, Exit};
use crate::progress::Progress;
use crate::session::Session;

/// Most bits of a prime.
const MAX_PRIME_BITS: u32 = 50;
/// Bits of the base prime beyond the scale: results up to 2^7 fit.
const BASE_ROOM: u32 = 8;
/// Rotations that share a decomposition.
const HOISTED: usize = 8;
/// Ciphertexts and products of a timed sum of products.
const INPUTS: usize = 8;
const TERMS: usize = 32;
/// Period of the weights of the periodic sum of products: channels of a middle-sized layer.
pub const PERIOD: usize = 64;
/// Shortest sample; shorter operations are repeated within one.
const SAMPLE: Duration = Duration::from_millis(1);
/// What was asked for: a base prime, then one prime a level.
#[derive(Clone, Copy, Debug)]
pub struct Chain {
    /// The ring.
    pub ring: RingKind,
    /// log2 of the degree.
    pub log_n: u32,
    /// Rescales.
    pub levels: u32,
    /// Bits of scale and level primes.
    pub scale_bits: u32,
}

impl Chain {
    /// Checked parameters with this number of digits, or with the fewest that 128 bits of security
    /// allow; digits are the same size but for the last, so that fewer than asked for may do.
    pub fn parameters(&self, digits: Option<u32>) -> Result<Parameters, CliError> {
        let help = "take a larger --log-n, fewer --levels or fewer --scale-bits";
        let refused = |e: ParameterError| CliError::new(Exit::Parameters, e).help(help);
        let limbs = self.levels + 1;
        let counts = digits.map_or(1..=limbs, |d| d..=d);
        // Where none fits, the refusal of the last one, the smallest, names the limit.
        let mut refusal = CliError::new(Exit::Usage, "no digits");
        for count in counts {
            // Refused before any table is built.
            match self.literal(count.min(limbs)).and_then(Parameters::new) {
                Ok(parameters) => return Ok(parameters),
                Err(error) => refusal = refused(error),
            }
        }
        Err(refusal)
    }

    fn literal(&self, digits: u32) -> Result<ParametersLiteral, ParameterError> {
        let base = (self.scale_bits + BASE_ROOM).min(MAX_PRIME_BITS);
        let digit_size = (self.levels + 1).div_ceil(digits);
        // The special primes must outweigh the largest digit.
        let special = base + (digit_size - 1) * self.scale_bits + 1;
        let count = special.div_ceil(MAX_PRIME_BITS);
        let p = vec![special.div_ceil(count).min(MAX_PRIME_BITS); count as usize];
        let mut q = vec![base];
        q.resize(self.levels as usize + 1, self.scale_bits);
        ParametersLiteral::generate(self.ring, self.log_n, &q, &p, digit_size as usize)
    }
}

/// Memory that the operands take at their peak.
pub fn memory_bytes(parameters: &Parameters) -> u64 {
    const PROGRAM: u64 = 64 << 20;
    let top = parameters.max_level();
    let keys = (HOISTED as u64 + 2) * parameters.switching_key_bytes(top);
    let results = (INPUTS + HOISTED + 8) as u64 * parameters.ciphertext_bytes(top);
    let weights = TERMS as u64 * parameters.ciphertext_bytes(top) / 2;
    let primes = (parameters.q().len() + parameters.p().len()) as u64;
    PROGRAM + keys + results + weights + primes * 6 * 8 * parameters.degree() as u64
}

/// Time of one operation.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Timing {
    /// Median over the samples, microseconds.
    pub median_us: f64,
    /// The least sample, microseconds.
    pub min_us: f64,
}

macro_rules! timings {
    ($($key:ident $label:literal)*) => {
        /// Times of all operations, one thread pool, highest level.
        #[derive(Clone, Copy, Debug, Serialize)]
        pub struct Timings { $(#[doc = $label] pub $key: Timing),* }

        impl Timings {
            /// How many there are.
            pub const COUNT: usize = [$($label),*].len();

            /// Names for people, with their times.
            pub fn rows(&self) -> Vec<(&'static str, Timing)> {
                vec![$(($label, self.$key)),*]
            }
        }
    };
}

timings! {
    ntt_forward "transform, one limb"
    ntt_inverse "inverse transform, one limb"
    encode "encode, all slots"
    encode_periodic "encode, periodic"
    encrypt "encrypt (secret key, half size)"
    encrypt_public "encrypt (public key)"
    expand "expand a half-size ciphertext"
    decrypt_decode "decrypt and decode"
    add "add"
    mul_plain_rescale "plaintext product, rescale"
    mac_full "multiply-accumulate, all slots"
    mac_periodic "multiply-accumulate, periodic"
    mul_relin_rescale "multiply, relinearise, rescale"
    rotate "rotate"
    rotate_hoisted "rotate, one of 8 hoisted"
    rotate_hoisted_sum "rotate, one of 8 weighted, summed, rescaled"
    rescale "rescale"
    keygen "make a rotation key"
}

/// Errors of one operation on uniform values in [−1, 1], and what the noise formulas predict.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Accuracy {
    /// Precision of the worst slot, in bits.
    pub min_bits: f64,
    /// Mean precision.
    pub mean_bits: f64,
    /// The largest error.
    pub max_error: f64,
    /// Root of the mean squared error.
    pub rms_error: f64,
    /// What the formulas say of it.
    pub predicted_rms_error: f64,
}

impl Accuracy {
    fn new(found: &[f64], expected: &[f64], predicted_rms_error: f64) -> Self {
        let stats = PrecisionStats::of(found, expected);
        let (min_bits, mean_bits) = (stats.min_bits(), stats.mean_bits());
        let (max_error, rms_error) = (stats.max_error(), stats.rms_error());
        Self { min_bits, mean_bits, max_error, rms_error, predicted_rms_error }
    }
}

/// Parameters, keys and operands.
pub struct Bench<'a> {
    session: &'a Session,
    reps: usize,
    scale: f64,
    secret: SecretKey,
    public: PublicKey,
    encoder: Encoder,
    evaluator: Evaluator,
    values: Vec<f64>,
    plain: Plaintext,
    /// Distinct fresh encryptions, so that sums read memory as a network does.
    inputs: Vec<Ciphertext>,
    keygen: Timing,
}

impl<'a> Bench<'a> {
    /// Makes keys and operands; `reps` samples will be taken of each operation.
    pub fn new(
        parameters: Parameters,
        scale_bits: u32,
        reps: u32,
        session: &'a Session,
    ) -> Result<Self, CliError> {
        let (top, scale) = (parameters.max_level(), f64::from(scale_bits).exp2());
        let secret = SecretKey::generate(&parameters).map_err(client)?;
        let public = generate_public_key(&secret).map_err(client)?;
        let spec = KeySpec { relin_level: Some(top), rotations: (1..=HOISTED).map(|r| (r, top)).collect() };
        let (mut samples, mut last) = (Vec::new(), Instant::now());
        let mut progress = |_, _| {
            samples.push(last.elapsed().as_secs_f64() * 1e6);
            last = Instant::now();
            if session.check_cancel().is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let keys = generate_evaluation_keys(&secret, &spec, &mut progress).map_err(client)?;
        // Expanding seeds is work of loading keys.
        keys.expand(&parameters);
        let evaluator = Evaluator::with_keys(&parameters, keys.into()).map_err(engine)?;
        let encoder = Encoder::new(&parameters);
        let values = uniform(parameters.slots(), 1);
        let plain = encoder.encode(&values, top, scale).map_err(engine)?;
        let encrypt = |_| -> Result<_, CliError> {
            encrypt_symmetric(&secret, &plain).map_err(client)?.expand(&parameters).map_err(engine)
        };
        let inputs = (0..INPUTS).map(encrypt).collect::<Result<_, _>>()?;
        let (reps, keygen) = (reps as usize, Timing::of(samples));
        Ok(Self { session, reps, scale, secret, public, encoder, evaluator, values, plain, inputs, keygen })
    }

    /// Its parameters.
    pub fn parameters(&self) -> &Parameters {
        self.evaluator.params()
    }

    /// Errors of a product, relinearised and rescaled.
    pub fn product_accuracy(&self) -> Result<Accuracy, CliError> {
        let (params, level) = (self.parameters(), self.parameters().max_level());
        let product = self.mul_relin_rescale(&self.inputs[0], &self.inputs[1])?;
        let expected: Vec<f64> = self.values.iter().map(|v| v * v).collect();
        let (fresh, rms) = (self.fresh_noise(), (1.0f64 / 3.0).sqrt());
        // The two ciphertexts hold the same encoded values: their encoding errors are one.
        let encryption = noise::fresh_symmetric(params, self.scale);
        let contributions = [
            noise::multiply(encryption, rms, encryption, rms),
            2.0 * rms * (fresh * fresh - encryption * encryption).sqrt(),
            noise::key_product(params, level, self.scale * self.scale),
            noise::rescale(params, product.scale()),
        ];
        Ok(Accuracy::new(&self.decrypt(&product)?, &expected, noise::root_of_squares(&contributions)))
    }

    /// Errors of a rotation.
    pub fn rotation_accuracy(&self) -> Result<Accuracy, CliError> {
        let (params, level) = (self.parameters(), self.parameters().max_level());
        let rotated = self.evaluator.rotate(&self.inputs[0], 1).map_err(engine)?;
        let mut expected = self.values.clone();
        expected.rotate_left(1);
        let contributions = [self.fresh_noise(), noise::key_switch(params, level, self.scale)];
        Ok(Accuracy::new(&self.decrypt(&rotated)?, &expected, noise::root_of_squares(&contributions)))
    }

    fn fresh_noise(&self) -> f64 {
        let params = self.parameters();
        let (encryption, encoding) =
            (noise::fresh_symmetric(params, self.scale), noise::encode_rounding(params, self.scale));
        noise::root_of_squares(&[encryption, encoding])
    }

    fn decrypt(&self, ciphertext: &Ciphertext) -> Result<Vec<f64>, CliError> {
        decrypt_values(&self.secret, ciphertext).map_err(client)
    }

    /// Times every operation.
    pub fn time(&self) -> Result<Timings, CliError> {
        let (params, top) = (self.parameters(), self.parameters().max_level());
        let (encoder, evaluator, plain) = (&self.encoder, &self.evaluator, &self.plain);
        let (x, y) = (&self.inputs[0], &self.inputs[1]);
        let table = &params.tables()[0];
        let (mut values, mut transformed) = (x.parts()[0].limb(0).to_vec(), x.parts()[1].limb(0).to_vec());
        let seeded = encrypt_symmetric(&self.secret, plain).map_err(client)?;
        let product = evaluator.mul_plain(x, plain).map_err(engine)?;
        let rotations: Vec<usize> = (1..=HOISTED).collect();
        let period = self.values.get(..PERIOD).unwrap_or(&self.values);
        let weights = (0..HOISTED as u64).map(|seed| {
            let values = uniform(self.values.len(), seed);
            encoder.encode_integer(values.get(..PERIOD).unwrap_or(&values), self.scale).map_err(engine)
        });
        let weights = weights.collect::<Result<Vec<_>, _>>()?;
        let progress = self.session.progress("measure", Timings::COUNT as u64);
        let timer = Timer { reps: self.reps, session: self.session, progress, done: Cell::new(0) };
        Ok(Timings {
            ntt_forward: timer.time(|| {
                table.forward(black_box(&mut values));
                Ok(())
            })?,
            ntt_inverse: timer.time(|| {
                table.inverse(black_box(&mut transformed));
                Ok(())
            })?,
            encode: timer.time(|| encoder.encode(&self.values, top, self.scale).map_err(engine))?,
            encode_periodic: timer
                .time(|| encoder.encode_periodic(period, top, self.scale).map_err(engine))?,
            encrypt: timer.time(|| encrypt_symmetric(&self.secret, plain).map_err(client))?,
            encrypt_public: timer.time(|| encrypt_public(params, &self.public, plain).map_err(client))?,
            expand: timer.time(|| seeded.expand(params).map_err(engine))?,
            decrypt_decode: timer.time(|| self.decrypt(x))?,
            add: timer.time(|| evaluator.add(x, y).map_err(engine))?,
            mul_plain_rescale: timer.time(|| self.mul_plain_rescale(x))?,
            mac_full: self.time_products(&timer, |values| {
                Ok(EncodedWeights::Full(encoder.encode(values, top, self.scale)?))
            })?,
            mac_periodic: self.time_products(&timer, |values| {
                let period = values.get(..PERIOD).unwrap_or(values);
                Ok(EncodedWeights::Periodic(encoder.encode_periodic(period, top, self.scale)?))
            })?,
            mul_relin_rescale: timer.time(|| self.mul_relin_rescale(x, y))?,
            rotate: timer.time(|| evaluator.rotate(x, 1).map_err(engine))?,
            rotate_hoisted: timer
                .time(|| evaluator.rotate_hoisted(x, &rotations).map_err(engine))?
                .each_of(HOISTED),
            rotate_hoisted_sum: timer.time(|| self.rotate_hoisted_sum(x, &weights))?.each_of(HOISTED),
            rescale: timer.time(|| evaluator.rescale(&product).map_err(engine))?,
            keygen: self.keygen,
        })
    }

    fn mul_plain_rescale(&self, x: &Ciphertext) -> Result<Ciphertext, CliError> {
        let product = self.evaluator.mul_plain(x, &self.plain).map_err(engine)?;
        self.evaluator.rescale(&product).map_err(engine)
    }

    fn mul_relin_rescale(&self, x: &Ciphertext, y: &Ciphertext) -> Result<Ciphertext, CliError> {
        let product = self.evaluator.mul_lazy(x, y).map_err(engine)?;
        self.evaluator.relinearize_rescale(&product).map_err(engine)
    }

    /// Σ of rotations of one ciphertext, each with weights, rescaled: one step of a linear layer.
    fn rotate_hoisted_sum(&self, x: &Ciphertext, weights: &[IntegerPlaintext]) -> Result<(), CliError> {
        let product = |(k, weights)| RotatedProduct { input: 0, rotation: k + 1, weights };
        let sum = GiantStep { rotation: 0, products: weights.iter().enumerate().map(product).collect() };
        self.evaluator.linear_transform(&[x], &[vec![sum]], true).map(drop).map_err(engine)
    }

    /// One product of a sum of many, each with weights of its own that were encoded beforehand.
    fn time_products(
        &self,
        timer: &Timer<'_>,
        encode: impl Fn(&[f64]) -> Result<EncodedWeights, CkksError>,
    ) -> Result<Timing, CliError> {
        let one = |seed| encode(&uniform(self.values.len(), seed));
        let weights: Vec<EncodedWeights> =
            (0..TERMS as u64).map(one).collect::<Result<_, _>>().map_err(engine)?;
        let terms: Vec<_> = self.inputs.iter().cycle().zip(&weights).collect();
        let timing = timer.time(|| self.evaluator.linear_combination(&terms).map_err(engine))?;
        Ok(timing.each_of(TERMS))
    }
}

/// Takes samples.
struct Timer<'a> {
    reps: usize,
    session: &'a Session,
    progress: Progress,
    done: Cell<u64>,
}

impl Timer<'_> {
    /// Times an operation, after runs that warm up and tell how many make a sample.
    fn time<T>(&self, mut operation: impl FnMut() -> Result<T, CliError>) -> Result<Timing, CliError> {
        let started = Instant::now();
        let mut repeats = 0u32;
        while repeats == 0 || started.elapsed() < SAMPLE {
            black_box(operation()?);
            repeats += 1;
        }
        let mut samples = Vec::with_capacity(self.reps);
        for _ in 0..self.reps {
            self.session.check_cancel()?;
            let started = Instant::now();
            for _ in 0..repeats {
                black_box(operation()?);
            }
            samples.push(started.elapsed().as_secs_f64() * 1e6 / f64::from(repeats));
        }
        self.done.set(self.done.get() + 1);
        self.progress.set(self.done.get(), "");
        Ok(Timing::of(samples))
    }
}

impl Timing {
    /// Of at least one sample, in microseconds.
    fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |index: usize| samples.get(index).copied().unwrap_or(f64::NAN);
        Self { median_us: at(samples.len() / 2), min_us: at(0) }
    }

    /// An equal share of an operation that does the same thing `count` times.
    fn each_of(self, count: usize) -> Self {
        Self { median_us: self.median_us / count as f64, min_us: self.min_us / count as f64 }
    }
}

/// Uniform values in [−1, 1).
fn uniform(count: usize, seed: u64) -> Vec<f64> {
    let mut bytes = vec![0; 4 * count];
    SeedStream::new(&[0; 32], seed).bytes(&mut bytes);
    let value = |b: &[u8]| b.iter().fold(0.0, |v, &b| (v + f64::from(b)) / 256.0) * 2.0 - 1.0;
    bytes.chunks_exact(4).map(value).collect()
}

fn engine(error: CkksError) -> CliError {
    CliError::new(Exit::Internal, error)
}

fn client(error: ClientError) -> CliError {
    crate::pipeline::client::refused(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(log_n: u32, levels: u32, scale_bits: u32) -> Chain {
        Chain { ring: RingKind::ConjugateInvariant, log_n, levels, scale_bits }
    }

    #[test]
    fn the_fewest_digits_that_are_secure_are_taken() {
        for (chain, digits) in [(chain(15, 13, 42), 3), (chain(16, 24, 45), 2), (chain(12, 1, 26), 2)] {
            let params = chain.parameters(None).unwrap();
            assert_eq!(params.digits(params.max_level()), digits, "{chain:?}");
            let finer = chain.parameters(Some(digits as u32 + 1)).unwrap();
            assert!(finer.log_qp() <= params.log_qp(), "{chain:?}");
            if digits > 1 {
                let error = chain.parameters(Some(digits as u32 - 1)).unwrap_err();
                assert_eq!(error.exit, Exit::Parameters, "{}", error.message);
            }
        }
        let error = chain(12, 3, 40).parameters(None).unwrap_err();
        assert!(
            error.exit == Exit::Parameters && error.message.contains("limit is 106"),
            "{}",
            error.message
        );
    }

    #[test]
    fn timings_are_shared_out() {
        let timing = Timing::of(vec![8.0, 2.0, 4.0]).each_of(2);
        assert_eq!((timing.median_us, timing.min_us), (2.0, 1.0));
    }
}
