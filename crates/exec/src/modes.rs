//! Convenience: a program on each backend, with the checks that its inputs need.

use std::collections::BTreeMap;
use std::sync::Arc;

use polyveil_ckks::{Ciphertext, CkksError, EvaluationKeys, Parameters};
use polyveil_plan::ServerPlan;

use crate::ExecError;
use crate::encrypted::Encrypted;
use crate::plain::Plain;
use crate::program::{Control, Output, Program};
use crate::simulated::Simulated;

/// Checks that `keys` has every key the plan uses, at the level where it is used.
///
/// # Errors
/// [`ExecError::MissingKey`] naming the first that lacks.
pub fn check_keys(plan: &ServerPlan, keys: &EvaluationKeys) -> Result<(), ExecError> {
    let available = keys.spec();
    if let Some(level) = plan.keys.relin_level
        && available.relin_level.is_none_or(|reached| reached < level)
    {
        return Err(ExecError::MissingKey { key: "the relinearisation key".into(), level });
    }
    let rotations: BTreeMap<usize, usize> = available.rotations.into_iter().collect();
    for &(rotation, level) in &plan.keys.rotations {
        if rotations.get(&rotation).is_none_or(|&reached| reached < level) {
            return Err(ExecError::MissingKey { key: format!("the key for rotation {rotation}"), level });
        }
    }
    Ok(())
}

impl Program {
    /// Runs on slots in the clear: one vector a ciphertext in, one out.
    ///
    /// # Errors
    /// See [`Program::run`].
    pub fn run_plain(&self, slots: &[Vec<f64>]) -> Result<Vec<Vec<f64>>, ExecError> {
        Ok(self.run(&Plain, slots.to_vec(), &Control::default())?.ciphertexts)
    }

    /// Runs on slots with modelled noise; the seed picks the noise.
    ///
    /// # Errors
    /// See [`Program::run`].
    pub fn run_simulated(
        &self,
        parameters: &Parameters,
        slots: &[Vec<f64>],
        seed: u64,
    ) -> Result<Vec<Vec<f64>>, ExecError> {
        let backend = Simulated::new(parameters, seed);
        let input = self.plan().input();
        let ciphertexts = slots.iter().map(|s| backend.encrypt(s, input.level, input.scale)).collect();
        let output = self.run(&backend, ciphertexts, &Control::default())?;
        Ok(output.ciphertexts.into_iter().map(|c| c.slots).collect())
    }

    /// Runs on ciphertexts. Refuses, before any work, inputs at another level or scale, under another
    /// key than `keys`, and keys that lack what the plan uses.
    ///
    /// # Errors
    /// See [`Program::run`] and [`check_keys`].
    pub fn run_encrypted(
        &self,
        parameters: &Parameters,
        keys: Arc<EvaluationKeys>,
        inputs: Vec<Ciphertext>,
        control: &Control<'_>,
    ) -> Result<Output<Ciphertext>, ExecError> {
        check_keys(self.plan(), &keys)?;
        let input = self.plan().input();
        for ciphertext in &inputs {
            if ciphertext.level() != input.level {
                return Err(ExecError::Input {
                    what: "ciphertexts at level",
                    expected: input.level.to_string(),
                    found: ciphertext.level().to_string(),
                });
            }
            let at_input = |source| ExecError::Ckks { layer: input.name.clone(), source };
            if (ciphertext.scale() / input.scale - 1.0).abs() > 1e-9 {
                return Err(at_input(CkksError::ScaleMismatch {
                    left: ciphertext.scale(),
                    right: input.scale,
                }));
            }
            if ciphertext.key_id() != keys.key_id() {
                return Err(at_input(CkksError::KeyMismatch {
                    left: ciphertext.key_id(),
                    right: keys.key_id(),
                }));
            }
        }
        let backend = Encrypted::new(parameters, keys)
            .map_err(|source| ExecError::Ckks { layer: input.name.clone(), source })?;
        self.run(&backend, inputs, control)
    }
}
