//! Loops over values, with the vectors of the processor.

use polyveil_math::simd::wide::{Loop, wide};

struct Map<'a, F>(&'a mut [f32], &'a [f32], F);
struct Map2<'a, F>(&'a mut [f32], [&'a [f32]; 2], F);
struct Update2<'a, F>(&'a mut [f32], [&'a [f32]; 2], F);
struct Any<'a, F>(&'a [f32], F);
struct Sums<'a, F, const K: usize>(&'a [f32], &'a [f32], F);

impl<F: Fn(f32) -> f32> Loop for Map<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.0.iter_mut().zip(self.1).for_each(|(y, &x)| *y = (self.2)(x));
    }
}

impl<F: Fn(f32, f32) -> f32> Loop for Map2<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let [a, b] = self.1;
        self.0.iter_mut().zip(a.iter().zip(b)).for_each(|(y, (&a, &b))| *y = (self.2)(a, b));
    }
}

impl<F: Fn(f32, f32, f32) -> f32> Loop for Update2<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let [a, b] = self.1;
        self.0.iter_mut().zip(a.iter().zip(b)).for_each(|(y, (&a, &b))| *y = (self.2)(*y, a, b));
    }
}

impl<F: Fn(f32) -> bool> Loop for Any<'_, F> {
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let (whole, rest) = self.0.as_chunks::<64>();
        // No early end: it would keep the loop from being vectorised.
        let mut found = [0u32; 64];
        for x in whole {
            found.iter_mut().zip(x).for_each(|(f, &x)| *f |= u32::from((self.1)(x)));
        }
        found.iter().any(|&f| f > 0) || rest.iter().any(|&x| (self.1)(x))
    }
}

impl<F: Fn(f32, f32) -> [f32; K], const K: usize> Loop for Sums<'_, F, K> {
    type Output = [f32; K];

    #[inline(always)]
    fn run(self) -> [f32; K] {
        let Self(x, y, f) = self;
        let mut strands = [[0.0f32; 8]; K];
        let ((xs, x_rest), (ys, y_rest)) = (x.as_chunks::<8>(), y.as_chunks::<8>());
        for (x, y) in xs.iter().zip(ys) {
            for i in 0..8 {
                let terms = f(x[i], y[i]);
                for (strand, term) in strands.iter_mut().zip(terms) {
                    strand[i] += term;
                }
            }
        }
        let mut sums = strands.map(|s| s.iter().sum::<f32>());
        for (&x, &y) in x_rest.iter().zip(y_rest) {
            for (sum, term) in sums.iter_mut().zip(f(x, y)) {
                *sum += term;
            }
        }
        sums
    }
}

/// `y = f(x)`.
pub(super) fn map(y: &mut [f32], x: &[f32], f: impl Fn(f32) -> f32) {
    wide(Map(y, x, f));
}

/// `y = f(a, b)`.
pub(super) fn map2(y: &mut [f32], a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) {
    wide(Map2(y, [a, b], f));
}

/// `y = f(y, x)`.
pub(super) fn update(y: &mut [f32], x: &[f32], f: impl Fn(f32, f32) -> f32) {
    wide(Update2(y, [x, x], |y, x, _| f(y, x)));
}

/// `y = f(y, a, b)`.
pub(super) fn update2(y: &mut [f32], a: &[f32], b: &[f32], f: impl Fn(f32, f32, f32) -> f32) {
    wide(Update2(y, [a, b], f));
}

/// Does `f` hold for any value?
pub(super) fn any(x: &[f32], f: impl Fn(f32) -> bool) -> bool {
    wide(Any(x, f))
}

/// Sums of `f(x, y)` over two slices, in eight strands each: that vectorises, and rounds less than one long
/// chain.
pub(super) fn sums<const K: usize>(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> [f32; K]) -> [f32; K] {
    wide(Sums(x, y, f))
}
