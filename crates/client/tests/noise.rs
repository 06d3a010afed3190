//! Measured noise against the formulas of `polyveil_ckks::noise`: between 0.3 and 1.05 times the prediction.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod common;

use common::{Context, KINDS, SCALE, literal};
use polyveil_ckks::{KeySpec, noise};
use polyveil_client::{encrypt_public_with, generate_public_key_with};

const SEEDS: u64 = 24;

/// Root mean square over slots and seeds, held against the prediction.
#[track_caller]
fn check(what: &str, errors: &[f64], predicted: f64) {
    let measured = (errors.iter().map(|e| e * e).sum::<f64>() / errors.len() as f64).sqrt();
    let ratio = measured / predicted;
    println!("{what}: measured {measured:.3e}, predicted {predicted:.3e}, ratio {ratio:.3}");
    assert!((0.3..=1.05).contains(&ratio), "{what}: {measured:e} against {predicted:e}");
}

fn difference<'a>(found: &'a [f64], expected: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
    found.iter().zip(expected).map(|(x, y)| x - y)
}

#[test]
fn measured_noise_keeps_to_its_formulas() {
    for kind in KINDS {
        let spec = KeySpec { relin_level: Some(5), rotations: vec![(1, 5)] };
        let mut c = Context::new(literal(kind), &spec);
        let params = c.params.clone();
        let slots = params.slots();
        let pk = generate_public_key_with(&c.sk, &mut c.randomness).unwrap();
        let weight_scale = 4096.0;
        let mut errors: [Vec<f64>; 9] = Default::default();
        for seed in 0..SEEDS {
            let (x, y) = (c.values(seed), c.values(1000 + seed));
            let plain = c.encoder.encode(&x, 5, SCALE).unwrap();
            let exact = c.encoder.decode(&plain).unwrap();
            errors[0].extend(difference(&exact, &x));

            let ct = c.encrypt_plain(&plain);
            let fresh = c.decrypt(&ct);
            errors[1].extend(difference(&fresh, &exact));

            let public = encrypt_public_with(&params, &pk, &plain, &mut c.randomness).unwrap();
            errors[2].extend(difference(&c.decrypt(&public), &exact));

            // Key switch: two lower levels as well would change the digits, so each level has its own figure.
            let rotated = c.decrypt(&c.evaluator.rotate(&ct, 1).unwrap());
            let moved: Vec<f64> = (0..slots).map(|j| fresh[(j + 1) % slots]).collect();
            errors[3].extend(difference(&rotated, &moved));

            let weights = c.encoder.encode(&y, 5, weight_scale).unwrap();
            let product = c.evaluator.mul_plain(&public, &weights).unwrap();
            let expected: Vec<f64> = x.iter().zip(&y).map(|(a, b)| a * b).collect();
            errors[4].extend(difference(&c.decrypt(&product), &expected));

            // Rescale alone: a scale that is only just above the prime makes its rounding visible.
            let mut small = ct.clone();
            small.set_scale(SCALE * 4.0).unwrap();
            let before = c.decrypt(&small);
            let rescaled = c.evaluator.rescale(&small).unwrap();
            errors[5].extend(difference(&c.decrypt(&rescaled), &before));

            let other =
                encrypt_public_with(&params, &pk, &weights_at_scale(&c, &y), &mut c.randomness).unwrap();
            let lazy = c.evaluator.mul_lazy(&public, &other).unwrap();
            errors[6].extend(difference(&c.decrypt(&lazy), &expected));
            let squared: Vec<f64> = x.iter().map(|a| a * a).collect();
            let square = c.evaluator.square_lazy(&public).unwrap();
            errors[7].extend(difference(&c.decrypt(&square), &squared));

            let period = &y[..16];
            let periodic = c.encoder.encode_periodic(period, 2, SCALE).unwrap();
            let decoded = c.encoder.decode(&periodic.to_full(&params).unwrap()).unwrap();
            errors[8].extend(decoded.iter().enumerate().map(|(j, v)| v - period[j % 16]));
        }
        let rms = (1.0f64 / 3.0).sqrt();
        let encoding = noise::encode_rounding(&params, SCALE);
        let public = noise::root_of_squares(&[noise::fresh_public(&params, SCALE), encoding]);
        let weights = noise::encode_rounding(&params, weight_scale);
        check("encode", &errors[0], encoding);
        check("fresh, secret key", &errors[1], noise::fresh_symmetric(&params, SCALE));
        check("fresh, public key", &errors[2], noise::fresh_public(&params, SCALE));
        check("key switch", &errors[3], noise::key_switch(&params, 5, SCALE));
        check("plaintext product", &errors[4], noise::plain_product(public, rms, weights, rms));
        check("rescale", &errors[5], noise::rescale(&params, SCALE * 4.0 / params.q()[5] as f64));
        check("product", &errors[6], noise::multiply(public, rms, public, rms));
        check("square", &errors[7], noise::square(public, rms));
        check("encode, periodic", &errors[8], noise::encode_periodic_rounding(&params, 16, SCALE));
    }
}

fn weights_at_scale(c: &Context, y: &[f64]) -> polyveil_ckks::Plaintext {
    c.encoder.encode(y, 5, SCALE).unwrap()
}
