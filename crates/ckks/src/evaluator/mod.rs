//! Arithmetic on ciphertexts.
//!
//! | file | operations | levels |
//! |---|---|---|
//! | `linear.rs` | sums, products with plaintexts, linear combinations | 0 (rescale separately) |
//! | `multiply.rs` | products of ciphertexts, relinearisation | 0 (rescale separately) |
//! | `rescale.rs` | rescale, dropping levels | 1 a rescale |
//! | `rotate.rs` | rotations, one by one or hoisted | 0 |
//! | `transform.rs` | weighted sums of rotations, double hoisted | 0, or 1 with the rescale |
//! | `still.rs` | the same where nothing is rotated | 0, or 1 with the rescale |
//! | `sums.rs` | products and weights of both in the order in which the kernel takes them | 0 |
//! | `keyswitch.rs` | the steps that relinearisation and rotation share | 0 |
//! | `divide.rs` | the division by primes that rescaling and key switching share | 0 |

mod divide;
mod keyswitch;
mod linear;
mod multiply;
mod rescale;
mod rotate;
mod still;
mod sums;
mod transform;

pub use transform::{GiantStep, RotatedProduct, transform_is_heavy, transform_round};

use crate::ciphertext::Ciphertext;
use crate::error::CkksError;
use crate::keys::{EvaluationKeys, KeyId};
use crate::parameters::Parameters;
use polyveil_math::GaloisPermutation;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// Relative difference up to which two scales count as the same.
const SCALE_TOLERANCE: f64 = 1e-9;

/// Evaluates on ciphertexts; shareable between threads, cheap to clone.
#[derive(Debug, Clone)]
pub struct Evaluator {
    params: Parameters,
    keys: Option<Arc<EvaluationKeys>>,
    /// Permutation of each rotation that has a key, made at its first use (4·N bytes).
    permutations: Arc<BTreeMap<usize, OnceLock<GaloisPermutation>>>,
}

impl Evaluator {
    /// Without keys: sums and products with plaintexts only.
    #[must_use]
    pub fn new(params: &Parameters) -> Self {
        Self { params: params.clone(), keys: None, permutations: Arc::default() }
    }

    /// With keys; every ciphertext must belong to the same secret key.
    ///
    /// # Errors
    /// [`CkksError::ParameterMismatch`] if the keys were made with other parameters.
    pub fn with_keys(params: &Parameters, keys: Arc<EvaluationKeys>) -> Result<Self, CkksError> {
        params.check_fingerprint(keys.fingerprint())?;
        let permutations = keys.rotations().map(|(r, _)| (r, OnceLock::new())).collect();
        Ok(Self { params: params.clone(), keys: Some(keys), permutations: Arc::new(permutations) })
    }

    /// Its parameters.
    #[must_use]
    pub const fn params(&self) -> &Parameters {
        &self.params
    }

    /// Its keys.
    #[must_use]
    pub fn keys(&self) -> Option<&EvaluationKeys> {
        self.keys.as_deref()
    }

    /// Checks one operand: it must fit the parameters and belong to the evaluator's keys.
    fn check(&self, ct: &Ciphertext) -> Result<(), CkksError> {
        self.params.check_level(ct.level())?;
        let (limbs, n) = (self.params.limbs(ct.level()), self.params.degree());
        for part in &ct.parts {
            if part.degree() != n || part.limbs() != limbs {
                let (expected, found) = (n * limbs, part.words());
                return Err(polyveil_math::MathError::Length { expected, found }.into());
            }
        }
        self.keys.as_deref().map_or(Ok(()), |keys| same_key(ct.key_id, keys.key_id()))
    }

    /// Checks two operands that must share level and key.
    fn check_pair(&self, a: &Ciphertext, b: &Ciphertext) -> Result<(), CkksError> {
        self.check(a)?;
        self.check(b)?;
        same_key(a.key_id, b.key_id)?;
        if a.level() != b.level() {
            return Err(CkksError::LevelMismatch { left: a.level(), right: b.level() });
        }
        Ok(())
    }

    /// Checks that a product's scale fits the modulus.
    fn check_product_scale(&self, scale: f64, level: usize) -> Result<(), CkksError> {
        let (log_scale, log_q) = (scale.log2(), self.params.log_q(level));
        if log_scale >= log_q || !log_scale.is_finite() {
            return Err(CkksError::ScaleOverflow { log_scale, level, log_q });
        }
        Ok(())
    }
}

fn same_key(left: KeyId, right: KeyId) -> Result<(), CkksError> {
    if left == right { Ok(()) } else { Err(CkksError::KeyMismatch { left, right }) }
}

fn same_scale(left: f64, right: f64) -> Result<(), CkksError> {
    if (left - right).abs() <= SCALE_TOLERANCE * left.abs().max(right.abs()) {
        Ok(())
    } else {
        Err(CkksError::ScaleMismatch { left, right })
    }
}

fn two_parts(ct: &Ciphertext) -> Result<(), CkksError> {
    if ct.parts.len() == 2 { Ok(()) } else { Err(CkksError::Parts { found: ct.parts.len(), expected: 2 }) }
}

fn reaches(what: &'static str, available: usize, needed: usize) -> Result<(), CkksError> {
    if available >= needed { Ok(()) } else { Err(CkksError::LevelTooLow { what, available, needed }) }
}
