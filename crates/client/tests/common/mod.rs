//! A small insecure context for tests that need secret and evaluation keys.
#![allow(dead_code, reason = "each test file uses its own part")]

use polyveil_ckks::{
    Ciphertext, Encoder, Evaluator, KeySpec, Parameters, ParametersLiteral, Plaintext, RingKind, SharedChain,
};
use polyveil_client::{
    Randomness, SecretKey, decrypt, encrypt_symmetric_with, generate_evaluation_keys_with,
};
use std::ops::ControlFlow;
use std::sync::Arc;

pub const KINDS: [RingKind; 2] = [RingKind::ConjugateInvariant, RingKind::Standard];
pub const SCALE: f64 = (1u64 << 40) as f64;

pub struct Context {
    pub params: Parameters,
    pub sk: SecretKey,
    pub encoder: Encoder,
    pub evaluator: Evaluator,
    pub randomness: Randomness,
}

impl Context {
    pub fn new(literal: ParametersLiteral, spec: &KeySpec) -> Self {
        Self::with_seed(literal, spec, 0)
    }

    pub fn with_seed(literal: ParametersLiteral, spec: &KeySpec, seed: u8) -> Self {
        let params = Parameters::new_insecure(literal).unwrap();
        let sk = SecretKey::from_seed_for_tests(&params, [2 * seed + 1; 32]).unwrap();
        let mut randomness = Randomness::from_seed_for_tests([2 * seed + 2; 32]);
        let mut progress = |_, _| ControlFlow::Continue(());
        let keys = generate_evaluation_keys_with(&sk, spec, &mut progress, &mut randomness).unwrap();
        let evaluator = Evaluator::with_keys(&params, Arc::new(keys)).unwrap();
        Self { encoder: Encoder::new(&params), params, sk, evaluator, randomness }
    }

    pub fn encrypt(&mut self, values: &[f64], level: usize) -> Ciphertext {
        let plain = self.encoder.encode(values, level, SCALE).unwrap();
        self.encrypt_plain(&plain)
    }

    pub fn encrypt_plain(&mut self, plain: &Plaintext) -> Ciphertext {
        let seeded = encrypt_symmetric_with(&self.sk, plain, &mut self.randomness).unwrap();
        seeded.expand(&self.params).unwrap()
    }

    pub fn decrypt(&self, ct: &Ciphertext) -> Vec<f64> {
        self.encoder.decode(&decrypt(&self.sk, ct).unwrap()).unwrap()
    }

    pub fn values(&self, seed: u64) -> Vec<f64> {
        values(self.params.slots(), seed)
    }
}

/// Five levels of 40 bits, digits of two primes.
pub fn literal(ring: RingKind) -> ParametersLiteral {
    ParametersLiteral::generate(ring, 9, &[50, 40, 40, 40, 40, 40], &[46, 46], 2).unwrap()
}

/// Alike, but levels share primes: those of 30, 40 and 50 bits that sum up to what the nested chain has at the level.
pub fn shared(ring: RingKind) -> ParametersLiteral {
    let q = [50, 40, 30, 30, 50, 50];
    let mut literal = ParametersLiteral::generate(ring, 9, &q, &[50, 50], 2).unwrap();
    let levels: [&[u8]; 6] =
        [&[0], &[0, 1], &[0, 2, 4], &[0, 1, 2, 4], &[0, 2, 3, 4, 5], &[0, 1, 2, 3, 4, 5]];
    let levels = levels.map(<[u8]>::to_vec).to_vec();
    literal.shared = Some(SharedChain { levels, digits: vec![0, 2, 4] });
    literal
}

/// Both chains in both rings.
pub fn literals() -> Vec<ParametersLiteral> {
    KINDS.into_iter().flat_map(|ring| [literal(ring), shared(ring)]).collect()
}

/// Uniform in [−1, 1].
pub fn values(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f64 / f64::from(1u32 << 30) - 1.0
        })
        .collect()
}

#[track_caller]
pub fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (j, (x, y)) in found.iter().zip(expected).enumerate() {
        assert!((x - y).abs() <= tolerance, "slot {j}: {x} instead of {y}");
    }
}
