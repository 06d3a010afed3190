//! The same bits come out of any number of threads, also where they meet at keys whose uniform halves are not there yet.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod common;

use common::{Context, KINDS, SCALE, literal, values};
use polyveil_ckks::{Ciphertext, GiantStep, IntegerPlaintext, KeySpec, RotatedProduct};

/// Fresh keys, so that their uniform halves are made on the way, and operations that share them between parts.
fn results(threads: usize) -> Vec<Ciphertext> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let rotations = [1, 2, 3, 7, 40, 100].map(|r| (r, 5)).to_vec();
        let mut c = Context::new(literal(KINDS[0]), &KeySpec { relin_level: Some(5), rotations });
        let inputs: Vec<Ciphertext> =
            (0..3).map(|seed| c.encrypt(&values(c.params.slots(), seed), 5)).collect();
        let weights: Vec<IntegerPlaintext> =
            (0..6).map(|seed| c.encoder.encode_integer(&values(32, 9 + seed), SCALE).unwrap()).collect();
        let product =
            |k: usize| RotatedProduct { input: k % 3, rotation: [0, 1, 2][k % 3], weights: &weights[k % 6] };
        let giant = |rotation: usize| GiantStep { rotation, products: (0..6).map(product).collect() };
        // Every output turns its sums with the same keys.
        let outputs: Vec<Vec<GiantStep<'_>>> =
            (0..6).map(|_| [0, 3, 7, 40, 100].map(giant).to_vec()).collect();
        let inputs: Vec<&Ciphertext> = inputs.iter().collect();
        let mut results = c.evaluator.linear_transform(&inputs, &outputs, true).unwrap();
        results.extend(c.evaluator.rotate_hoisted(inputs[0], &[40, 0, 1, 7, 1]).unwrap());
        results.push(c.evaluator.relinearize_rescale(&c.evaluator.square_lazy(inputs[1]).unwrap()).unwrap());
        results
    })
}

#[test]
fn threads_change_no_bit_and_never_wait_for_themselves() {
    let alone = results(1);
    for threads in [2, 3, 5, 8] {
        for _ in 0..ROUNDS {
            for (found, expected) in results(threads).iter().zip(&alone) {
                assert_eq!(found, expected, "{threads} threads");
            }
        }
    }
}

/// Enough that five threads hung each time this was tried, while a key's halves were made in parallel: a thread that waited for
/// part of them went on with other work, which wanted them.
const ROUNDS: usize = 50;
