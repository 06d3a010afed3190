//! Linear transforms against plain arithmetic, in both rings.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod common;

use common::{Context, KINDS, SCALE, assert_close, literal, literals, values};
use polyveil_ckks::{CkksError, GiantStep, IntegerPlaintext, KeySpec, RotatedProduct};

const ROTATIONS: [usize; 5] = [1, 2, 7, 40, 100];

fn context(literal: polyveil_ckks::ParametersLiteral) -> Context {
    let rotations = ROTATIONS.iter().map(|&r| (r, 4)).collect();
    Context::new(literal, &KeySpec { relin_level: None, rotations })
}

/// Giant steps of an output: (rotation, products as (input, rotation, period of the weights)).
type Output<'a> = &'a [(usize, &'a [(usize, usize, usize)])];

fn check(shape: &[Output<'_>], level: usize, rescale: bool) {
    for literal in literals() {
        let mut c = context(literal);
        let slots = c.params.slots();
        let inputs: Vec<Vec<f64>> = (0..3).map(|seed| c.values(seed)).collect();
        let encrypted: Vec<_> = inputs.iter().map(|x| c.encrypt(x, level)).collect();
        let encrypted: Vec<_> = encrypted.iter().collect();
        // Weights of every product, in order.
        let all = || shape.iter().flat_map(|output| output.iter().flat_map(|(_, products)| *products));
        let plain: Vec<Vec<f64>> =
            all().zip(20..).map(|(&(_, _, period), seed)| values(period, seed)).collect();
        let weights: Vec<IntegerPlaintext> =
            plain.iter().map(|w| c.encoder.encode_integer(w, SCALE).unwrap()).collect();
        let mut next = weights.iter();
        let outputs: Vec<Vec<GiantStep<'_>>> = shape
            .iter()
            .map(|output| {
                let giant = |&(rotation, products): &(usize, &[(usize, usize, usize)])| GiantStep {
                    rotation,
                    products: products
                        .iter()
                        .map(|&(input, rotation, _)| RotatedProduct {
                            input,
                            rotation,
                            weights: next.next().unwrap(),
                        })
                        .collect(),
                };
                output.iter().map(giant).collect()
            })
            .collect();
        let results = c.evaluator.linear_transform(&encrypted, &outputs, rescale).unwrap();
        assert_eq!(results.len(), shape.len());
        let mut next = plain.iter();
        for (result, output) in results.iter().zip(shape) {
            let mut expected = vec![0.0; slots];
            for &(giant, products) in *output {
                let mut sum = vec![0.0; slots];
                for &(input, rotation, period) in products {
                    let w = next.next().unwrap();
                    for (j, s) in sum.iter_mut().enumerate() {
                        *s += inputs[input][(j + rotation) % slots] * w[j % period];
                    }
                }
                expected.iter_mut().enumerate().for_each(|(j, e)| *e += sum[(j + giant) % slots]);
            }
            assert_eq!(result.level(), level - usize::from(rescale));
            assert_close(&c.decrypt(result), &expected, 1e-7);
        }
    }
}

#[test]
fn baby_steps_share_a_decomposition() {
    check(&[&[(0, &[(0, 1, 8), (0, 7, 16), (0, 0, 256), (0, 100, 1)])]], 4, true);
    check(&[&[(0, &[(0, 1, 128)])]], 2, false);
    check(&[&[(0, &[(0, 0, 2)])]], 3, true);
}

#[test]
fn giant_steps_inputs_and_outputs_combine() {
    let first: Output<'_> =
        &[(0, &[(0, 1, 8), (1, 1, 8)]), (40, &[(0, 2, 4), (2, 0, 64)]), (100, &[(1, 7, 256)])];
    let second: Output<'_> = &[(2, &[(2, 1, 16)])];
    let third: Output<'_> = &[(0, &[(2, 0, 1)]), (0, &[(1, 0, 1)])];
    for (level, rescale) in [(4, true), (4, false), (1, true)] {
        check(&[first, second, third], level, rescale);
    }
}

/// Sums of the same rotated inputs, of which some have weights that are fewer than most are, or more.
#[test]
fn weights_that_are_fewer_than_most_are_repeated() {
    let all: &[(usize, usize, usize)] = &[(0, 1, 16), (1, 7, 16), (2, 0, 16), (1, 1, 16), (0, 2, 16)];
    let fewer: &[(usize, usize, usize)] = &[(0, 1, 16), (1, 7, 2), (2, 0, 16), (1, 1, 1), (0, 2, 8)];
    let other: &[(usize, usize, usize)] = &[(0, 1, 8), (1, 7, 16), (2, 0, 16), (1, 1, 16), (0, 2, 128)];
    let step = |rotation, products| [(rotation, products)];
    let shape =
        [step(0, all), step(100, fewer), step(0, fewer), step(2, other), step(0, all), step(7, other)];
    let shape: Vec<Output<'_>> = shape.iter().map(|output| &output[..]).collect();
    check(&shape, 4, true);
    check(&shape[..2], 2, false);
}

/// So many weights that they are encoded a group at a time: more words than a limb of them may take.
#[test]
fn sums_of_very_many_products_are_right() {
    let degree = context(literal(KINDS[0])).params.degree();
    let count = (4 << 20) / degree + 70;
    let products: Vec<(usize, usize, usize)> =
        (0..count).map(|k| (k % 3, [0, 1, 2, 7, 40, 100][k % 5], degree / 2)).collect();
    let all = products.len() * degree / 2;
    assert!(!polyveil_ckks::transform_is_heavy(15, all, degree));
    let twice = [products.clone(), products].concat();
    assert!(polyveil_ckks::transform_is_heavy(15, 2 * all, degree));
    check(&[&[(0, &twice[..40]), (2, &twice[40..])], &[(7, &twice[..100])]], 1, true);
}

#[test]
fn sums_without_rotations() {
    let first: Output<'_> = &[(0, &[(0, 0, 1), (1, 0, 4), (2, 0, 256), (1, 0, 64)])];
    let second: Output<'_> = &[(0, &[(2, 0, 1)])];
    let third: Output<'_> = &[(0, &[(1, 0, 128), (0, 0, 2)])];
    for (level, rescale) in [(4, true), (3, false), (1, true)] {
        check(&[first, second, third], level, rescale);
    }
}

/// So many weights that those of all limbs are not in memory together, beside sums whose own are too many for that.
#[test]
fn sums_of_many_products_without_rotations() {
    let degree = context(literal(KINDS[0])).params.degree();
    // Words of all sums that are encoded together, and of the largest one among them (`still.rs`).
    let (round, largest) = (4 << 20, 1 << 20);
    let products = |words: usize| -> Vec<(usize, usize, usize)> {
        (0..words / (degree / 2)).map(|k| (k % 3, 0, degree / 2)).collect()
    };
    let (few, many) = (products(largest / 2), products(largest + degree));
    assert!(5 * few.len() * degree / 2 > round / 2);
    check(
        &[&[(0, &few)], &[(0, &few)], &[(0, &few)], &[(0, &few)], &[(0, &few)], &[(0, &many)], &[(0, &few)]],
        4,
        true,
    );
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    let mut c = context(literal(KINDS[0]));
    let x = c.values(1);
    let (x, low, high) = (c.encrypt(&x, 4), c.encrypt(&x, 3), c.encrypt(&x, 5));
    let w = c.encoder.encode_integer(&[0.5, 1.0], SCALE).unwrap();
    let other = c.encoder.encode_integer(&[0.5], SCALE * 2.0).unwrap();
    let run = |inputs: &[_], products: Vec<RotatedProduct<'_>>, rotation| {
        c.evaluator.linear_transform(inputs, &[vec![GiantStep { rotation, products }]], true).unwrap_err()
    };
    let product = |input, rotation, weights| RotatedProduct { input, rotation, weights };
    assert!(matches!(run(&[], vec![product(0, 1, &w)], 0), CkksError::NoTerms));
    assert!(matches!(run(&[&x], vec![], 0), CkksError::NoTerms));
    assert!(matches!(run(&[&x], vec![product(1, 1, &w)], 0), CkksError::NoTerms));
    assert!(matches!(run(&[&x, &low], vec![product(0, 1, &w)], 0), CkksError::LevelMismatch { .. }));
    assert!(matches!(
        run(&[&x], vec![product(0, 3, &w)], 0),
        CkksError::MissingRotationKey { rotation: 3, .. }
    ));
    assert!(matches!(
        run(&[&x], vec![product(0, 1, &w)], 5),
        CkksError::MissingRotationKey { rotation: 5, .. }
    ));
    assert!(matches!(run(&[&high], vec![product(0, 1, &w)], 0), CkksError::LevelTooLow { .. }));
    let mixed = vec![product(0, 1, &w), product(0, 2, &other)];
    assert!(matches!(run(&[&x], mixed, 0), CkksError::ScaleMismatch { .. }));
    assert!(matches!(c.encoder.encode_integer(&[1e10], 1e10), Err(CkksError::EncodeOverflow { .. })));
    assert!(matches!(c.encoder.encode_integer(&[f64::NAN], SCALE), Err(CkksError::NotFinite { .. })));
    assert!(matches!(c.encoder.encode_integer(&[1.0; 3], SCALE), Err(CkksError::SlotCount { .. })));
}
