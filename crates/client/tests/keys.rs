//! Keys as things that are stored, checked and stopped half-way.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod common;

use common::{Context, assert_close, literal};
use polyveil_ckks::{Ciphertext, KeySpec, Parameters, RingKind, SeededCiphertext, SwitchingKey};
use polyveil_client::{ClientError, SecretKey, generate_evaluation_keys};
use std::ops::ControlFlow;

fn params() -> Parameters {
    Parameters::new_insecure(literal(RingKind::ConjugateInvariant)).unwrap()
}

#[test]
fn secret_keys_survive_their_bytes_and_refuse_damage() {
    let mut c = Context::new(literal(RingKind::ConjugateInvariant), &KeySpec::default());
    let x = c.values(1);
    let ct = c.encrypt(&x, 2);
    let bytes = c.sk.to_bytes();
    assert_eq!(bytes.len(), SecretKey::byte_len(&c.params));
    c.sk = SecretKey::from_bytes(&c.params, &bytes).unwrap();
    assert_close(&c.decrypt(&ct), &x, 1e-8);

    assert!(SecretKey::from_bytes(&c.params, &bytes[1..]).is_err());
    assert!(SecretKey::from_bytes(&c.params, &[]).is_err());
    let mut damaged = bytes.to_vec();
    damaged[20] |= 3;
    assert!(matches!(SecretKey::from_bytes(&c.params, &damaged), Err(ClientError::BadSecretKey(_))));
}

#[test]
fn generated_keys_differ() {
    let params = params();
    let (a, b) = (SecretKey::generate(&params).unwrap(), SecretKey::generate(&params).unwrap());
    assert_ne!(a.key_id(), b.key_id());
    assert_ne!(a.to_bytes()[16..], b.to_bytes()[16..]);
}

#[test]
fn generation_reports_stops_and_refuses() {
    let sk = SecretKey::from_seed_for_tests(&params(), [4; 32]).unwrap();
    let spec = KeySpec { relin_level: Some(1), rotations: vec![(1, 0), (2, 1), (4, 2)] };
    let mut seen = Vec::new();
    let keys = generate_evaluation_keys(&sk, &spec, &mut |done, total| {
        seen.push((done, total));
        ControlFlow::Continue(())
    });
    assert_eq!(seen, [(1, 4), (2, 4), (3, 4), (4, 4)]);
    assert_eq!(keys.unwrap().spec(), spec);
    let stop = &mut |done, _| if done == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let error = generate_evaluation_keys(&sk, &spec, stop).unwrap_err();
    assert_eq!(error, ClientError::Cancelled { done: 2, total: 4 });
    for (rotations, relin_level) in [
        (vec![(0, 1)], None),
        (vec![(512, 1)], None),
        (vec![(3, 1), (3, 1)], None),
        (vec![(1, 6)], None),
        (vec![], Some(9)),
    ] {
        let bad = KeySpec { relin_level, rotations };
        assert!(generate_evaluation_keys(&sk, &bad, &mut |_, _| ControlFlow::Continue(())).is_err());
    }
}

#[test]
fn raw_parts_come_back_and_damage_is_refused() {
    let mut c = Context::new(
        literal(RingKind::ConjugateInvariant),
        &KeySpec { relin_level: None, rotations: vec![(1, 3)] },
    );
    let (params, x) = (c.params.clone(), c.values(3));
    let key = c.evaluator.keys().unwrap().rotation(1).unwrap().unwrap();
    let digits: Vec<Vec<u64>> = (0..key.b().rows()).map(|d| key.b().get(d).to_words()).collect();
    assert_eq!(params.switching_key_bytes(3), (key.b().bytes() + key.a(&params).bytes()) as u64);
    let again = SwitchingKey::from_parts(&params, 3, *key.seed(), &digits).unwrap();
    assert_eq!(again.a(&params), key.a(&params));
    assert!(SwitchingKey::from_parts(&params, 4, *key.seed(), &digits).is_err());
    assert!(SwitchingKey::from_parts(&params, 5, *key.seed(), &digits).is_err());
    let mut damaged = digits;
    damaged[1][5 * 512] = u64::MAX;
    assert!(SwitchingKey::from_parts(&params, 3, *key.seed(), &damaged).is_err());

    let ct = c.encrypt(&x, 2);
    let raw: Vec<Vec<u64>> = ct.parts().iter().map(|p| p.to_words()).collect();
    let with = |level, scale, parts| Ciphertext::from_parts(&params, ct.key_id(), level, scale, parts);
    assert_eq!(with(2, ct.scale(), raw.clone()).unwrap(), ct);
    assert!(with(1, ct.scale(), raw.clone()).is_err());
    assert!(with(99, ct.scale(), raw.clone()).is_err());
    assert!(with(2, f64::NAN, raw.clone()).is_err());
    assert!(with(2, 0.0, raw.clone()).is_err());
    assert!(with(2, ct.scale(), raw[..1].to_vec()).is_err());
    let mut damaged = raw;
    damaged[0][0] = params.q()[0];
    assert!(with(2, ct.scale(), damaged).is_err());
    assert!(SeededCiphertext::from_parts(&params, ct.key_id(), 2, 1.0, vec![0; 7], [0; 32]).is_err());
}
