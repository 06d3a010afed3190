//! Sums over slices.

/// Sums of `f(x, y)` over two slices, in eight strands each: that vectorises, and rounds less than one long
/// chain.
pub(super) fn sums<const K: usize>(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> [f32; K]) -> [f32; K] {
    let mut strands = [[0.0f32; 8]; K];
    let (xs, ys) = (x.chunks_exact(8), y.chunks_exact(8));
    let rest = xs.remainder().iter().zip(ys.remainder());
    for (x, y) in xs.zip(ys) {
        for i in 0..8 {
            let terms = f(x[i], y[i]);
            for (strand, term) in strands.iter_mut().zip(terms) {
                strand[i] += term;
            }
        }
    }
    let mut sums = strands.map(|s| s.iter().sum::<f32>());
    for (&x, &y) in rest {
        for (sum, term) in sums.iter_mut().zip(f(x, y)) {
            *sum += term;
        }
    }
    sums
}
