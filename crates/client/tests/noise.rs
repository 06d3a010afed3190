//! Measured noise against the formulas of `polyveil_ckks::noise`: over many keys between 0.9 and 1.1 times the prediction.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod common;

use common::{Context, SCALE, literals};
use polyveil_ckks::{GiantStep, KeySpec, Parameters, PrecisionStats, RotatedProduct, noise};
use polyveil_client::{encrypt_public_with, generate_public_key_with};
use std::collections::BTreeMap;

/// Each seed is another secret key, with its own evaluation keys.
const SEEDS: u8 = 40;
const WEIGHT_SCALE: f64 = 4096.0;
const TOP: usize = 5;

/// Errors by operation, over all seeds.
#[derive(Default)]
struct Errors(BTreeMap<&'static str, PrecisionStats>);

impl Errors {
    fn add(&mut self, what: &'static str, found: &[f64], expected: &[f64]) {
        self.0.entry(what).or_default().add(found, expected);
    }

    #[track_caller]
    fn check(&self, what: &str, predicted: f64) {
        let stats = &self.0[what];
        let ratio = stats.rms_error() / predicted;
        println!("{what}: {stats}, predicted {predicted:.3e}, ratio {ratio:.3}");
        assert!((0.9..=1.1).contains(&ratio), "{what}: {:e} against {predicted:e}", stats.rms_error());
        assert!(stats.mean_error().abs() < 0.1 * predicted, "{what}: biased by {:e}", stats.mean_error());
    }
}

fn rotated(values: &[f64], by: usize) -> Vec<f64> {
    let mut moved = values.to_vec();
    moved.rotate_left(by);
    moved
}

fn products(x: &[f64], y: &[f64]) -> Vec<f64> {
    x.iter().zip(y).map(|(a, b)| a * b).collect()
}

fn measure(errors: &mut Errors, c: &mut Context, seed: u64) {
    let params = c.params.clone();
    let (x, y) = (c.values(seed), c.values(1000 + seed));
    let plain = c.encoder.encode(&x, TOP, SCALE).unwrap();
    let exact = c.encoder.decode(&plain).unwrap();
    errors.add("encode", &exact, &x);
    let ct = c.encrypt_plain(&plain);
    let fresh = c.decrypt(&ct);
    errors.add("fresh, secret key", &fresh, &exact);

    let pk = generate_public_key_with(&c.sk, &mut c.randomness).unwrap();
    let public = encrypt_public_with(&params, &pk, &plain, &mut c.randomness).unwrap();
    errors.add("fresh, public key", &c.decrypt(&public), &exact);

    // The number of digits differs from level to level.
    for (name, level) in [("rotation, level 5", TOP), ("rotation, level 2", 2), ("rotation, level 0", 0)] {
        let mut low = ct.clone();
        c.evaluator.drop_to_level(&mut low, level).unwrap();
        let before = c.decrypt(&low);
        let found = c.decrypt(&c.evaluator.rotate(&low, 1).unwrap());
        errors.add(name, &found, &rotated(&before, 1));
    }
    let hoisted = c.evaluator.rotate_hoisted(&ct, &[1, 2]).unwrap();
    errors.add("hoisted rotation", &c.decrypt(&hoisted[1]), &rotated(&fresh, 2));

    let weights = c.encoder.encode(&y, TOP, WEIGHT_SCALE).unwrap();
    let product = c.evaluator.mul_plain(&public, &weights).unwrap();
    errors.add("plaintext product", &c.decrypt(&product), &products(&x, &y));

    // Rescale alone: a scale that is only just above the prime makes its rounding visible.
    let mut small = ct.clone();
    small.set_scale(SCALE * 4.0).unwrap();
    let rescaled = c.evaluator.rescale(&small).unwrap();
    errors.add("rescale", &c.decrypt(&rescaled), &c.decrypt(&small));

    let other = c.encoder.encode(&y, TOP, SCALE).unwrap();
    let other = encrypt_public_with(&params, &pk, &other, &mut c.randomness).unwrap();
    let lazy = c.evaluator.mul_lazy(&public, &other).unwrap();
    errors.add("product", &c.decrypt(&lazy), &products(&x, &y));
    let before = c.decrypt(&lazy);
    let relinearised = c.evaluator.relinearize_rescale(&lazy).unwrap();
    errors.add("relinearise and rescale", &c.decrypt(&relinearised), &before);
    let square = c.evaluator.square_lazy(&public).unwrap();
    errors.add("square", &c.decrypt(&square), &products(&x, &x));

    let periodic = c.encoder.encode_periodic(&y[..16], 2, SCALE).unwrap();
    let repeated: Vec<f64> = y[..16].iter().copied().cycle().take(x.len()).collect();
    let decoded = c.encoder.decode(&periodic.to_full(&params).unwrap()).unwrap();
    errors.add("encode, periodic", &decoded, &repeated);

    // Two weighted rotations, summed and rescaled; weights 1 are exact and leave the key switch and the rescale.
    let one = c.encoder.encode_integer(&[1.0], SCALE).unwrap();
    let turn = |rotation| RotatedProduct { input: 0, rotation, weights: &one };
    let sum = GiantStep { rotation: 0, products: vec![turn(1), turn(2)] };
    let found = c.evaluator.linear_transform(&[&ct], &[vec![sum]], true).unwrap();
    let expected: Vec<f64> = rotated(&fresh, 1).iter().zip(rotated(&fresh, 2)).map(|(a, b)| a + b).collect();
    errors.add("two rotations, rescaled", &c.decrypt(&found[0]), &expected);
}

#[test]
fn measured_noise_keeps_to_its_formulas() {
    for literal in literals() {
        let spec = KeySpec { relin_level: Some(TOP), rotations: vec![(1, TOP), (2, TOP)] };
        let mut errors = Errors::default();
        let mut params: Option<Parameters> = None;
        for seed in 0..SEEDS {
            let mut c = Context::with_seed(literal.clone(), &spec, seed);
            measure(&mut errors, &mut c, u64::from(seed));
            params = Some(c.params);
        }
        let params = &params.unwrap();
        let rms = (1.0f64 / 3.0).sqrt();
        let encoding = noise::encode_rounding(params, SCALE);
        let public = noise::root_of_squares(&[noise::fresh_public(params, SCALE), encoding]);
        let weights = noise::encode_rounding(params, WEIGHT_SCALE);
        let after = |scale: f64| scale / params.step(TOP);
        errors.check("encode", encoding);
        errors.check("encode, periodic", noise::encode_periodic_rounding(params, 16, SCALE));
        errors.check("fresh, secret key", noise::fresh_symmetric(params, SCALE));
        errors.check("fresh, public key", noise::fresh_public(params, SCALE));
        errors.check("rotation, level 5", noise::key_switch(params, TOP, SCALE));
        errors.check("rotation, level 2", noise::key_switch(params, 2, SCALE));
        errors.check("rotation, level 0", noise::key_switch(params, 0, SCALE));
        errors.check("hoisted rotation", noise::key_switch(params, TOP, SCALE));
        errors.check("plaintext product", noise::plain_product(public, rms, weights, rms));
        errors.check("rescale", noise::rescale(params, after(SCALE * 4.0)));
        errors.check("product", noise::multiply(public, rms, public, rms));
        errors.check("square", noise::square(public, rms));
        let squared = SCALE * SCALE;
        let relinearised = [noise::key_product(params, TOP, squared), noise::rescale(params, after(squared))];
        errors.check("relinearise and rescale", noise::root_of_squares(&relinearised));
        let one = noise::key_product(params, TOP, SCALE);
        let sum = [one, one, noise::rescale(params, after(squared))];
        errors.check("two rotations, rescaled", noise::root_of_squares(&sum));
    }
}
