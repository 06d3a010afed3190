//! In the steady state rotations and multiplications reuse buffers.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod common;

use common::{Context, SCALE};
use polyveil_ckks::{KeySpec, ParametersLiteral, RingKind, SharedChain};

/// N = 2^13: limbs are as long as the smallest buffer that is kept. A nested chain, and one whose levels share primes.
fn contexts() -> [Context; 2] {
    let nested =
        ParametersLiteral::generate(RingKind::ConjugateInvariant, 13, &[50, 40, 40, 40], &[46, 46], 2)
            .unwrap();
    let levels = vec![vec![0], vec![0, 1], vec![0, 2, 3], vec![0, 1, 2, 3]];
    let mut shared = nested.clone();
    shared.shared = Some(SharedChain { levels, digits: vec![0, 2] });
    let spec = KeySpec { relin_level: Some(3), rotations: vec![(1, 3), (5, 3)] };
    [nested, shared].map(|literal| Context::new(literal, &spec))
}

/// Runs after which the pool holds every size that is needed.
const WARM_UP: usize = 16;

/// Allocations of three runs after those that fill the pool: what set-up left there on its threads differs from time to
/// time, and a buffer that serves a smaller need first is missed later. Threads are rayon's business: handing work to another thread may
/// allocate, so one thread does it all here.
fn allocations(mut run: impl FnMut() + Send) -> u64 {
    let measure = || {
        (0..WARM_UP).for_each(|_| run());
        allocation_counter::measure(|| (0..3).for_each(|_| run())).count_total
    };
    #[cfg(feature = "parallel")]
    return rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(measure);
    #[cfg(not(feature = "parallel"))]
    return { measure }();
}

#[test]
fn rotations_and_products_allocate_nothing() {
    for mut c in contexts() {
        let (x, y) = (c.values(1), c.values(2));
        let [mut x, mut y] = [x, y].map(|values| c.encrypt(&values, 3));
        // Somewhat more than a level is worth, so that something is left of it after a rescale.
        for x in [&mut x, &mut y] {
            x.set_scale(4.0 * SCALE).unwrap();
        }
        c.evaluator.keys().unwrap().expand(&c.params);
        let e = &c.evaluator;
        assert_eq!(allocations(|| drop(e.rotate(&x, 1).unwrap())), 0, "rotation");
        assert_eq!(
            allocations(|| drop((e.rotate(&x, 1).unwrap(), e.rotate(&y, 5).unwrap()))),
            0,
            "two rotations"
        );
        assert_eq!(allocations(|| drop(e.mul(&x, &y).unwrap())), 0, "product");
        assert_eq!(
            allocations(|| drop(e.relinearize_rescale(&e.square_lazy(&x).unwrap()).unwrap())),
            0,
            "square, relinearised and rescaled"
        );
        assert_eq!(allocations(|| drop(e.rescale(&e.add(&x, &y).unwrap()).unwrap())), 0, "sum, rescaled");
    }
    assert!(allocations(|| drop(std::hint::black_box(vec![1u8; 100]))) >= 3, "the counter counts");
}
