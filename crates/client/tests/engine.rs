//! Every operation of the engine on real ciphertexts, in both rings.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod common;

use common::{Context, SCALE, assert_close, literal, literals, shared, values};
use polyveil_ckks::{CkksError, EncodedWeights, Evaluator, KeySpec, Parameters, ParametersLiteral, RingKind};
use polyveil_client::{
    ClientError, Randomness, Release, SecretKey, decrypt_for_release, decrypt_to_precision,
    encrypt_public_with, generate_evaluation_keys_with, generate_public_key_with,
};
use std::ops::ControlFlow;
use std::sync::Arc;

fn spec(rotations: &[(usize, usize)], relin: usize) -> KeySpec {
    KeySpec { relin_level: Some(relin), rotations: rotations.to_vec() }
}

#[test]
fn both_kinds_of_encryption_decrypt() {
    for literal in literals() {
        let mut c = Context::new(literal.clone(), &KeySpec::default());
        for level in [0, 3, 5] {
            let x = c.values(level as u64);
            let ct = c.encrypt(&x, level);
            assert_close(&c.decrypt(&ct), &x, 1e-8);
            let pk = generate_public_key_with(&c.sk, &mut c.randomness).unwrap();
            let plain = c.encoder.encode(&x, level, SCALE).unwrap();
            let ct = encrypt_public_with(&c.params, &pk, &plain, &mut c.randomness).unwrap();
            assert_close(&c.decrypt(&ct), &x, 1e-7);
        }
    }
}

#[test]
fn sums_products_and_rescale() {
    for literal in literals() {
        let mut c = Context::new(literal.clone(), &spec(&[], 5));
        let (x, y) = (c.values(1), c.values(2));
        let (cx, cy) = (c.encrypt(&x, 5), c.encrypt(&y, 5));
        let zip = |f: fn(f64, f64) -> f64| -> Vec<f64> { x.iter().zip(&y).map(|(&a, &b)| f(a, b)).collect() };
        let e = c.evaluator.clone();
        assert_close(&c.decrypt(&e.add(&cx, &cy).unwrap()), &zip(|a, b| a + b), 1e-8);
        assert_close(&c.decrypt(&e.sub(&cx, &cy).unwrap()), &zip(|a, b| a - b), 1e-8);
        assert_close(&c.decrypt(&e.neg(&cx).unwrap()), &zip(|a, _| -a), 1e-8);

        let plain = c.encoder.encode(&y, 5, SCALE).unwrap();
        let mut sum = cx.clone();
        e.add_plain(&mut sum, &plain).unwrap();
        assert_close(&c.decrypt(&sum), &zip(|a, b| a + b), 1e-8);
        let product = e.rescale(&e.mul_plain(&cx, &plain).unwrap()).unwrap();
        assert_eq!(product.level(), 4);
        assert_close(&c.decrypt(&product), &zip(|a, b| a * b), 1e-8);

        let lazy = e.mul_lazy(&cx, &cy).unwrap();
        assert_eq!(lazy.parts().len(), 3);
        assert_close(&c.decrypt(&lazy), &zip(|a, b| a * b), 1e-8);
        let product = e.rescale(&e.mul(&cx, &cy).unwrap()).unwrap();
        assert_close(&c.decrypt(&product), &zip(|a, b| a * b), 1e-8);
        let square = e.rescale(&e.square(&cx).unwrap()).unwrap();
        assert_close(&c.decrypt(&square), &zip(|a, _| a * a), 1e-8);
        // A sum of lazy products relinearised once; a lazy product minus a short ciphertext.
        let sum = e.relinearize(&e.add(&lazy, &e.square_lazy(&cx).unwrap()).unwrap()).unwrap();
        assert_close(&c.decrypt(&sum), &zip(|a, b| a * b + a * a), 1e-8);
    }
}

#[test]
fn depth_down_to_level_zero() {
    for literal in literals() {
        let mut c = Context::new(literal.clone(), &spec(&[], 5));
        let mut x = c.values(3);
        let mut ct = c.encrypt(&x, 5);
        for level in (0..5).rev() {
            ct = c.evaluator.rescale(&c.evaluator.square(&ct).unwrap()).unwrap();
            x.iter_mut().for_each(|v| *v *= *v);
            assert_eq!(ct.level(), level);
            assert_close(&c.decrypt(&ct), &x, 1e-6);
        }
        assert!(c.evaluator.rescale(&ct).is_err());
    }
}

#[test]
fn rotations_with_full_and_short_keys() {
    for literal in literals() {
        let slots = literal.ring.slots(512);
        let rotations = [(1, 5), (2, 3), (slots / 2, 2), (slots - 1, 0)];
        let mut c = Context::new(literal.clone(), &spec(&rotations, 4));
        let x = c.values(4);
        for (r, key_level) in rotations {
            for level in 0..=key_level {
                let ct = c.encrypt(&x, level);
                let expected: Vec<f64> = (0..slots).map(|j| x[(j + r) % slots]).collect();
                assert_close(&c.decrypt(&c.evaluator.rotate(&ct, r).unwrap()), &expected, 1e-7);
                assert_close(&c.decrypt(&c.evaluator.rotate(&ct, r + slots).unwrap()), &expected, 1e-7);
            }
        }
        // The relinearisation key is short as well.
        let (a, b) = (c.encrypt(&x, 4), c.encrypt(&x, 5));
        let expected: Vec<f64> = x.iter().map(|v| v * v).collect();
        assert_close(&c.decrypt(&c.evaluator.square(&a).unwrap()), &expected, 1e-7);
        let error = c.evaluator.square(&b).unwrap_err().to_string();
        assert!(error.contains("level 4") && error.contains("level 5"), "{error}");
        let error = c.evaluator.rotate(&b, 2).unwrap_err().to_string();
        assert!(error.contains("level 3") && error.contains("level 5"), "{error}");
        let error = c.evaluator.rotate(&b, 3).unwrap_err().to_string();
        assert!(error.contains("rotation 3"), "{error}");
    }
}

/// Limbs are converted to in twos where what they come from is large: here, in even and odd numbers.
#[test]
fn large_rings_rotate_and_multiply() {
    let (ring, primes) = (RingKind::ConjugateInvariant, [50, 40, 40, 40, 40, 40]);
    let literal = ParametersLiteral::generate(ring, 16, &primes, &[46, 46], 2).unwrap();
    let mut c = Context::new(literal, &spec(&[(1, 5), (1000, 5)], 5));
    let (x, slots) = (c.values(4), c.params.slots());
    for level in [4, 5] {
        let ct = c.encrypt(&x, level);
        let rotated = c.evaluator.rotate_hoisted(&ct, &[1, 1000]).unwrap();
        for (ct, r) in rotated.iter().zip([1, 1000]) {
            let expected: Vec<f64> = (0..slots).map(|j| x[(j + r) % slots]).collect();
            assert_close(&c.decrypt(ct), &expected, 1e-6);
        }
        assert_eq!(c.evaluator.rotate(&ct, 1000).unwrap().parts(), rotated[1].parts());
        let expected: Vec<f64> = x.iter().map(|v| v * v).collect();
        let square = c.evaluator.square(&ct).unwrap();
        assert_close(&c.decrypt(&c.evaluator.rescale(&square).unwrap()), &expected, 1e-6);
    }
}

#[test]
fn hoisted_rotations_are_the_single_ones_bit_for_bit() {
    for literal in literals() {
        let mut c = Context::new(literal.clone(), &spec(&[(1, 5), (7, 5), (100, 5)], 0));
        let x = c.values(5);
        let ct = c.encrypt(&x, 4);
        let hoisted = c.evaluator.rotate_hoisted(&ct, &[7, 0, 1, 100]).unwrap();
        for (r, rotated) in [7, 0, 1, 100].into_iter().zip(&hoisted) {
            assert_eq!(rotated, &c.evaluator.rotate(&ct, r).unwrap());
        }
        assert_eq!(hoisted[1], ct);
        assert!(c.evaluator.rotate_hoisted(&ct, &[1, 2]).is_err());
        assert!(c.evaluator.rotate_hoisted(&ct, &[]).unwrap().is_empty());
    }
}

#[test]
fn every_digit_size_and_uneven_digits() {
    for (digit_size, p) in [(1, vec![50]), (2, vec![50, 50]), (4, vec![50, 50, 50, 40]), (6, vec![50; 6])] {
        let literal = ParametersLiteral::generate(
            RingKind::ConjugateInvariant,
            8,
            &[50, 40, 40, 40, 40, 40],
            &p,
            digit_size,
        );
        let mut c = Context::new(literal.unwrap(), &spec(&[(3, 5)], 5));
        let x = c.values(6);
        for level in 0..=5 {
            let ct = c.encrypt(&x, level);
            let expected: Vec<f64> = (0..256).map(|j| x[(j + 3) % 256]).collect();
            assert_close(&c.decrypt(&c.evaluator.rotate(&ct, 3).unwrap()), &expected, 1e-7);
        }
    }
}

#[test]
fn periodic_products_equal_full_ones_bit_for_bit() {
    for literal in literals() {
        let mut c = Context::new(literal.clone(), &KeySpec::default());
        let slots = c.params.slots();
        // A higher level serves only where it has all primes of the lower one.
        let above = if literal.shared.is_none() { 4 } else { 3 };
        let (x, y) = (c.values(7), c.values(8));
        let (cx, cy) = (c.encrypt(&x, 3), c.encrypt(&y, 3));
        for log_c in 0..=slots.ilog2() {
            let period = values(1 << log_c, 9);
            let periodic = c.encoder.encode_periodic(&period, above, SCALE).unwrap();
            let full = periodic.to_full(&c.params).unwrap();
            let product = c.evaluator.mul_periodic(&cx, &periodic).unwrap();
            assert_eq!(product, c.evaluator.mul_plain(&cx, &full).unwrap());
            let expected: Vec<f64> = (0..slots).map(|j| x[j] * period[j % period.len()]).collect();
            assert_close(&c.decrypt(&product), &expected, 1e-8);

            let (mut a, mut b) = (cx.clone(), cx.clone());
            c.evaluator.add_periodic(&mut a, &periodic).unwrap();
            c.evaluator.add_plain(&mut b, &full).unwrap();
            assert_eq!(a, b);

            // Fused sums of both kinds of weights are the sums of the products.
            let dense = c.encoder.encode(&x, 3, SCALE).unwrap();
            let weights = [EncodedWeights::Periodic(periodic), EncodedWeights::Full(dense.clone())];
            let sum = c.evaluator.linear_combination(&[(&cx, &weights[0]), (&cy, &weights[1])]).unwrap();
            let second = c.evaluator.mul_plain(&cy, &dense).unwrap();
            assert_eq!(sum, c.evaluator.add(&product, &second).unwrap());
        }
    }
}

#[test]
fn many_terms_do_not_overflow() {
    let mut c = Context::new(literal(RingKind::ConjugateInvariant), &KeySpec::default());
    let x = c.values(10);
    let ct = c.encrypt(&x, 0);
    let ones = EncodedWeights::Periodic(c.encoder.encode_constant(1.0, 0, 2.0).unwrap());
    // More than the 4096 products that may be summed unreduced modulo a 50-bit prime.
    let terms = vec![(&ct, &ones); 9000];
    let sum = c.decrypt(&c.evaluator.linear_combination(&terms).unwrap());
    // 9000 · 2^41 does not fit the 50-bit base prime, so compare modulo it.
    let q = c.params.q()[0] as f64 / (2.0 * SCALE);
    let expected = c.decrypt(&ct);
    let coefficients = |v: &[f64]| c.params.embedding().encode(v).unwrap();
    for (s, e) in coefficients(&sum).iter().zip(coefficients(&expected)) {
        let difference = (s - 9000.0 * e) / q;
        assert!((difference - difference.round()).abs() < 1e-6, "{difference}");
    }
}

#[test]
fn mismatches_are_refused_by_name() {
    let mut c = Context::new(literal(RingKind::ConjugateInvariant), &spec(&[(1, 5)], 5));
    let x = c.values(11);
    let ct = c.encrypt(&x, 3);
    let other = SecretKey::from_seed_for_tests(&c.params, [9; 32]).unwrap();
    let mine = c.sk.key_id();
    c.sk = other;
    let foreign = c.encrypt(&x, 3);
    let error = c.evaluator.add(&ct, &foreign).unwrap_err().to_string();
    assert!(error.contains(&mine.to_string()) && error.contains(&c.sk.key_id().to_string()), "{error}");
    assert!(c.evaluator.rotate(&foreign, 1).is_err());
    let error = polyveil_client::decrypt(&c.sk, &ct).err().unwrap().to_string();
    assert!(error.contains(&mine.to_string()), "{error}");

    let e = &c.evaluator;
    let mut low = ct.clone();
    e.drop_to_level(&mut low, 2).unwrap();
    assert!(e.add(&ct, &low).unwrap_err().to_string().contains("3 and 2"));
    assert!(e.drop_to_level(&mut low, 3).is_err());
    let weights = c.encoder.encode_constant(2.0, 2, SCALE).unwrap();
    assert!(e.mul_periodic(&ct, &weights).unwrap_err().to_string().contains("level 2"));
    let product = e.mul_periodic(&low, &weights).unwrap();
    assert!(e.add(&low, &product).unwrap_err().to_string().contains("scales differ"));
    assert!(e.mul(&product, &product).unwrap_err().to_string().contains("does not fit"));
    assert!(e.linear_combination(&[]).is_err());

    let larger =
        ParametersLiteral::generate(RingKind::ConjugateInvariant, 10, &[50, 40, 40], &[50], 1).unwrap();
    let larger = Parameters::new_insecure(larger).unwrap();
    assert!(Evaluator::new(&larger).neg(&low).is_err());
    assert!(polyveil_ckks::Encoder::new(&larger).decode(&c.encoder.encode(&x, 1, SCALE).unwrap()).is_err());
    let keys = generate_evaluation_keys_with(
        &SecretKey::from_seed_for_tests(&larger, [3; 32]).unwrap(),
        &KeySpec::default(),
        &mut |_, _| ControlFlow::Continue(()),
        &mut Randomness::system(),
    );
    let error = Evaluator::with_keys(&c.params, Arc::new(keys.unwrap())).unwrap_err().to_string();
    assert!(error.contains("fingerprint"), "{error}");
}

#[test]
fn decryption_to_a_precision_hides_the_noise() {
    let mut c = Context::new(literal(RingKind::ConjugateInvariant), &KeySpec::default());
    let x: Vec<f64> = c.values(12).iter().map(|v| (v * 64.0).round() / 64.0).collect();
    let ct = c.encrypt(&x, 2);
    assert_eq!(decrypt_to_precision(&c.sk, &ct, 12).unwrap(), x);
    assert!(decrypt_to_precision(&c.sk, &ct, 65).is_err());
    assert!(decrypt_to_precision(&c.sk, &ct, i32::MIN).is_err());
}

#[test]
fn values_without_room_are_no_result() {
    let mut c = Context::new(literals()[0].clone(), &spec(&[], 5));
    let release = Release::rounded(20).unwrap();
    let x = c.values(1);
    let largest = x.iter().fold(0.0f64, |most, v| most.max(v.abs()));
    let ct = c.encrypt(&x, 0);
    assert_close(&decrypt_for_release(&c.sk, &ct, &release, 1.001 * largest).unwrap(), &x, 1e-6);
    let found = decrypt_for_release(&c.sk, &ct, &release, 0.999 * largest).unwrap_err();
    let ClientError::OutOfRange { found, range } = found else { panic!("{found}") };
    assert!(
        found.log2().fract() == 0.0 && (largest..2.0 * largest).contains(&found),
        "{found} for {largest}"
    );
    assert_eq!(range, 0.999 * largest);

    // What is not told: a modulus holds coefficients up to its half, and a value just beyond comes back from the other side, within range.
    let room = c.params.log_q(0).exp2() / (2.0 * SCALE);
    let near = vec![0.99 * room; c.params.slots()];
    let [one, other] = [0, 1].map(|_| c.encrypt(&near, 0));
    let sum = c.evaluator.add(&one, &other).unwrap();
    let slots = decrypt_for_release(&c.sk, &sum, &release, room).unwrap();
    assert!(slots.iter().all(|v| (v + 0.02 * room).abs() < 1e-3 * room), "1.98 wraps to −0.02");
}

#[test]
fn levels_that_share_primes_drop_to_any_lower_one() {
    for literal in literals() {
        let mut c = Context::new(literal.clone(), &KeySpec::default());
        let x = c.values(11);
        for from in 0..=5 {
            let ct = c.encrypt(&x, from);
            for to in 0..=from {
                let mut low = ct.clone();
                c.evaluator.drop_to_level(&mut low, to).unwrap();
                assert_eq!((low.level(), low.scale()), (to, ct.scale()));
                assert_eq!(low.parts()[0].limbs(), c.params.limbs(to));
                assert_close(&c.decrypt(&low), &x, 1e-8);
            }
        }
    }
}

#[test]
fn a_plaintext_that_lacks_a_prime_is_refused() {
    let mut c = Context::new(shared(RingKind::ConjugateInvariant), &KeySpec::default());
    let x = c.values(12);
    let mut ct = c.encrypt(&x, 3);
    let plain = c.encoder.encode(&x, 4, SCALE).unwrap();
    for error in
        [c.evaluator.mul_plain(&ct, &plain).unwrap_err(), c.evaluator.add_plain(&mut ct, &plain).unwrap_err()]
    {
        assert!(matches!(error, CkksError::LevelMismatch { left: 3, right: 4 }), "{error}");
    }
    // One that has all of them serves a lower level.
    let plain = c.encoder.encode(&x, 5, SCALE).unwrap();
    let expected: Vec<f64> = x.iter().map(|v| v * v).collect();
    assert_close(&c.decrypt(&c.evaluator.mul_plain(&ct, &plain).unwrap()), &expected, 1e-8);
}
