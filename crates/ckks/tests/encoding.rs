//! Encoding: laws, precision, and what it refuses.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use polyveil_ckks::{
    CkksError, Encoder, Parameters, ParametersLiteral, PeriodicPlaintext, Plaintext, RingKind,
};
use polyveil_math::{Ntt, Poly, simd};
use proptest::prelude::*;

const KINDS: [RingKind; 2] = [RingKind::ConjugateInvariant, RingKind::Standard];
const SCALE: f64 = (1u64 << 35) as f64;

fn context(kind: RingKind) -> (Parameters, Encoder) {
    let literal = ParametersLiteral::generate(kind, 7, &[50, 40, 40], &[50], 1).unwrap();
    let params = Parameters::new_insecure(literal).unwrap();
    let encoder = Encoder::new(&params);
    (params, encoder)
}

/// Applies a limb operation to two plaintexts.
fn combine(params: &Parameters, a: &Plaintext, b: &Plaintext, product: bool) -> Plaintext {
    let mut data = a.poly().to_words();
    let n = params.degree();
    for ((limb, other), m) in
        data.chunks_exact_mut(n).zip(b.poly().to_words().chunks_exact(n)).zip(params.moduli(a.level()))
    {
        if product {
            simd::mul_assign(limb, other, m);
        } else {
            simd::add_assign(limb, other, m);
        }
    }
    let scale = if product { a.scale() * b.scale() } else { a.scale() };
    Plaintext::from_poly(a.level(), scale, Poly::<Ntt>::from_words(n, &data).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn encoding_is_a_homomorphism(
        pairs in prop::collection::vec((-8.0..8.0f64, -8.0..8.0f64), 64),
        standard: bool,
        level in 1usize..3,
    ) {
        let (params, encoder) = context(KINDS[usize::from(standard)]);
        let (x, y): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        let (a, b) = (encoder.encode(&x, level, SCALE).unwrap(), encoder.encode(&y, level, SCALE).unwrap());
        let sum = encoder.decode(&combine(&params, &a, &b, false)).unwrap();
        let product = encoder.decode(&combine(&params, &a, &b, true)).unwrap();
        for j in 0..64 {
            prop_assert!((sum[j] - x[j] - y[j]).abs() < 1e-8);
            prop_assert!((product[j] - x[j] * y[j]).abs() < 1e-7);
        }
    }

    #[test]
    fn large_scales_stay_exact(value in -1.0..1.0f64, log_scale in 1i32..120) {
        let (_, encoder) = context(RingKind::ConjugateInvariant);
        let scale = f64::from(log_scale).exp2();
        let plain = encoder.encode(&[value; 128], 2, scale).unwrap();
        let decoded = encoder.decode(&plain).unwrap();
        let tolerance = 8.0 / scale + 1e-13;
        prop_assert!(decoded.iter().all(|d| (d - value).abs() < tolerance));
    }
}

#[test]
fn missing_slots_are_zero_and_constants_fill_all() {
    for kind in KINDS {
        let (params, encoder) = context(kind);
        let decoded = encoder.decode(&encoder.encode(&[1.5, -2.0], 0, SCALE).unwrap()).unwrap();
        assert!((decoded[0] - 1.5).abs() < 1e-8 && (decoded[1] + 2.0).abs() < 1e-8);
        assert!(decoded[2..].iter().all(|v| v.abs() < 1e-8));
        let constant = encoder.encode_constant(0.25, 1, SCALE).unwrap().to_full(&params).unwrap();
        assert!(encoder.decode(&constant).unwrap().iter().all(|v| (v - 0.25).abs() < 1e-9));
    }
}

#[test]
fn periodic_and_full_encodings_agree() {
    for kind in KINDS {
        let (params, encoder) = context(kind);
        for log_c in 0..=params.slots().ilog2() {
            let period: Vec<f64> = (0..1 << log_c).map(|i| f64::from(i) / 3.0 - 1.0).collect();
            let full: Vec<f64> = (0..params.slots()).map(|j| period[j % period.len()]).collect();
            let periodic = encoder.encode_periodic(&period, 1, SCALE).unwrap();
            let (a, b) = (periodic.to_full(&params).unwrap(), encoder.encode(&full, 1, SCALE).unwrap());
            let (a, b) = (encoder.decode(&a).unwrap(), encoder.decode(&b).unwrap());
            assert!(a.iter().zip(&b).all(|(x, y)| (x - y).abs() < 1e-8));
            let again =
                PeriodicPlaintext::from_parts(&params, period.len(), 1, SCALE, periodic.raw().to_vec())
                    .unwrap();
            assert_eq!(again, periodic);
        }
    }
}

#[test]
fn what_cannot_be_encoded_is_named() {
    let (params, encoder) = context(RingKind::ConjugateInvariant);
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let error = encoder.encode(&[0.0, bad], 0, SCALE).unwrap_err();
        assert!(matches!(error, CkksError::NotFinite { slot: 1, .. }), "{error}");
        assert!(encoder.encode_constant(bad, 0, SCALE).is_err());
        assert!(matches!(encoder.encode(&[1.0], 0, bad), Err(CkksError::BadScale { .. })));
    }
    assert!(encoder.encode(&[1.0], 0, 0.5).is_err());
    let error = encoder.encode_constant(3.0e5, 0, SCALE).unwrap_err();
    assert!(matches!(error, CkksError::EncodeOverflow { value: 3.0e5, level: 0, .. }), "{error}");
    assert!(error.to_string().contains("level 0 holds up to"), "{error}");
    assert!(encoder.encode_constant(3.0e5, 1, SCALE).is_ok());
    // What overflows on the way leaves numbers that are none, which must not pass for small ones.
    for log in 0..7 {
        let signs: Vec<f64> =
            (0..128).map(|j| if j >> log & 1 == 0 { f64::MAX } else { -f64::MAX }).collect();
        assert!(matches!(encoder.encode(&signs, 2, SCALE), Err(CkksError::EncodeOverflow { .. })));
        assert!(matches!(encoder.encode_integer(&signs, SCALE), Err(CkksError::EncodeOverflow { .. })));
    }
    assert!(encoder.encode(&[f64::MAX; 128], 2, SCALE).is_err());
    assert!(encoder.encode(&[0.0; 129], 0, SCALE).is_err());
    assert!(encoder.encode(&[0.0], 3, SCALE).is_err());
    for count in [0, 3, 256] {
        assert!(matches!(
            encoder.encode_periodic(&vec![0.0; count], 0, SCALE),
            Err(CkksError::SlotCount { .. })
        ));
    }
    assert!(Plaintext::from_parts(&params, 0, SCALE, vec![0; 127]).is_err());
    assert!(Plaintext::from_parts(&params, 0, SCALE, vec![u64::MAX; 128]).is_err());
    assert!(PeriodicPlaintext::from_parts(&params, 3, 0, SCALE, vec![0; 3]).is_err());
}
