//! The data owner's steps: keys, encryption, decryption. Nothing here sees a weight.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use polyveil_ckks::{
    Ciphertext, CkksError, EvaluationKeys, KeySpec, Parameters, SeededCiphertext, SwitchingKey,
};
use polyveil_client::{
    ClientError, Flooding, Release, SecretKey, decrypt_for_release, encrypt_values, generate_evaluation_keys,
};
use polyveil_net::Tensor;
use polyveil_plan::{ClientPlan, PlanError};

use crate::error::{CliError, Exit};
use crate::pipeline::planning;
use crate::session::Session;

/// The data owner's side of one plan.
pub struct Client {
    plan: ClientPlan,
    parameters: Parameters,
}

/// What a batch decrypts to.
pub enum Decrypted {
    /// One row of scores a place of the batch.
    Scores(Vec<Vec<f64>>),
    /// No scores, as values left the range of the plan on the way; the error says by how much.
    Escaped(ClientError),
}

impl Client {
    /// Builds the parameters of a plan.
    pub fn new(plan: ClientPlan) -> Result<Self, CliError> {
        let parameters = plan.parameters().map_err(planning::refused)?;
        Ok(Self { plan, parameters })
    }

    /// The plan's client half.
    pub fn plan(&self) -> &ClientPlan {
        &self.plan
    }

    /// The plan's parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// A new secret key.
    pub fn new_secret(&self) -> Result<SecretKey, CliError> {
        SecretKey::generate(&self.parameters).map_err(refused)
    }

    /// Makes the plan's evaluation keys one at a time and hands each to `take`, so that they never
    /// need to be in memory together.
    pub fn make_keys(
        &self,
        secret: &SecretKey,
        session: &Session,
        mut take: impl FnMut(Option<usize>, &SwitchingKey) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let spec = &self.plan.keys;
        let loading = |e: CkksError| refused(e.into());
        let display = session.progress("keygen", spec.count() as u64);
        let mut done = 0;
        let mut step = |name: &str| {
            done += 1;
            display.set(done, name);
            session.check_cancel()
        };
        let one = |spec: KeySpec| {
            generate_evaluation_keys(secret, &spec, &mut |_, _| ControlFlow::Continue(())).map_err(refused)
        };
        if let Some(level) = spec.relin_level {
            let keys = one(KeySpec { relin_level: Some(level), rotations: Vec::new() })?;
            keys.relin().map_err(loading)?.map_or(Ok(()), |key| take(None, key))?;
            step("relinearisation")?;
        }
        let mut rotations = spec.rotations.clone();
        rotations.sort_unstable();
        for (rotation, level) in rotations {
            let keys = one(KeySpec { relin_level: None, rotations: vec![(rotation, level)] })?;
            keys.rotation(rotation).map_err(loading)?.map_or(Ok(()), |key| take(Some(rotation), key))?;
            step(&format!("rotation {rotation}"))?;
        }
        Ok(())
    }

    /// All evaluation keys of the plan, in memory.
    pub fn evaluation_keys(&self, secret: &SecretKey, session: &Session) -> Result<EvaluationKeys, CliError> {
        let display = session.progress("keygen", self.plan.keys.count() as u64);
        let mut progress = |done: usize, _total: usize| {
            display.set(done as u64, "");
            if session.cancel().load(Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        generate_evaluation_keys(secret, &self.plan.keys, &mut progress).map_err(refused)
    }

    /// Encrypts pre-processed images together, up to a batch; messages name them.
    pub fn encrypt(
        &self,
        secret: &SecretKey,
        images: &[(String, Tensor)],
    ) -> Result<Vec<SeededCiphertext>, CliError> {
        let input = &self.plan.input;
        let tensors: Vec<&Tensor> = images.iter().map(|(_, image)| image).collect();
        let slots = self.plan.pack_batch(&tensors).map_err(|e| refused_image(e, images))?;
        let encrypt = |values: Vec<f64>| encrypt_values(secret, &values, input.level, input.scale);
        slots.into_iter().map(|values| encrypt(values).map_err(refused)).collect()
    }

    /// Rounding to the precision that the plan declares.
    pub fn rounding(&self) -> Result<Release, CliError> {
        Release::rounded(self.plan.precision.bits).map_err(refused)
    }

    /// Noise that drowns the predicted error of the scores with `security_bits` of statistical
    /// security, where `results` results are shared.
    pub fn flooding(&self, security_bits: u32, results: u64) -> Result<Release, CliError> {
        let error = self.plan.precision.max_error;
        let flooding = Flooding { security_bits, error, values: self.classes(), results };
        Release::flooded(&flooding).map_err(|e| CliError::new(Exit::Usage, e))
    }

    /// Decrypts the scores of a batch, as they may be shared.
    pub fn decrypt(
        &self,
        secret: &SecretKey,
        result: &[Ciphertext],
        release: &Release,
    ) -> Result<Decrypted, CliError> {
        let (expected, found) = (self.plan.output.layout.ciphertexts, result.len());
        if found != expected {
            let message = format!("the plan's scores take {expected} ciphertexts, found {found}");
            return Err(CliError::new(Exit::Mismatch, message));
        }
        let mut slots = Vec::new();
        for ciphertext in result {
            match decrypt_for_release(secret, ciphertext, release, self.plan.credible()) {
                Ok(values) => slots.push(values),
                Err(escaped @ ClientError::OutOfRange { .. }) => return Ok(Decrypted::Escaped(escaped)),
                Err(other) => return Err(refused(other)),
            }
        }
        Ok(Decrypted::Scores(self.plan.unpack_batch(&slots)))
    }

    /// Scores of an image.
    pub fn classes(&self) -> usize {
        self.plan.output.layout.shape.iter().product()
    }

    /// The name of a class.
    pub fn class_name(&self, class: usize) -> String {
        self.plan.class_names.get(class).cloned().unwrap_or_else(|| class.to_string())
    }
}

/// Memory that key generation takes at its peak: the tables, the secret key's transforms, and a few
/// copies of the largest key.
pub fn memory_bytes(parameters: &Parameters, keys: &KeySpec) -> u64 {
    const PROGRAM: u64 = 24 << 20;
    let limb = 8 * parameters.degree() as u64;
    let primes = (parameters.q().len() + parameters.p().len()) as u64;
    let largest = keys.relin_level.into_iter().chain(keys.rotations.iter().map(|r| r.1)).max().unwrap_or(0);
    PROGRAM + primes * limb * 6 + 2 * parameters.switching_key_bytes(largest)
}

/// A failure of the data owner's crate in the words of the command line.
pub fn refused(error: ClientError) -> CliError {
    let exit = match &error {
        ClientError::WrongKey { .. } => Exit::Mismatch,
        ClientError::BadSecretKey(_) => Exit::File,
        ClientError::Cancelled { .. } => Exit::Interrupted,
        ClientError::Ckks(_) => Exit::Mismatch,
        _ => Exit::Internal,
    };
    CliError::new(exit, error)
}

fn refused_image(error: PlanError, images: &[(String, Tensor)]) -> CliError {
    match error {
        PlanError::Calibration { reason, index } => {
            let mut error = CliError::new(Exit::Data, reason);
            error.place = images.get(index).map(|(name, _)| name.clone());
            error
        }
        other => planning::refused(other),
    }
}
