//! Matrix products on plain slices, row by row.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, Axis, Slice};

/// A matrix in a slice: `rows` lines that are `stride` apart, of `columns` values each from column `from` on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) stride: usize,
    pub(super) from: usize,
    pub(super) columns: usize,
}

/// Lines that touch each other.
pub(super) fn dense(rows: usize, columns: usize) -> Shape {
    Shape { rows, stride: columns, from: 0, columns }
}

impl Shape {
    fn view<'a>(&self, data: &'a [f32]) -> ArrayView2<'a, f32> {
        let len = self.rows * self.stride;
        #[expect(clippy::expect_used, reason = "the engine sizes its own buffers by these shapes")]
        let mut view = ArrayView2::from_shape((self.rows, self.stride), &data[..len]).expect("matrix fits");
        view.slice_axis_inplace(Axis(1), Slice::from(self.from..self.from + self.columns));
        view
    }

    fn view_mut<'a>(&self, data: &'a mut [f32]) -> ArrayViewMut2<'a, f32> {
        let len = self.rows * self.stride;
        #[expect(clippy::expect_used, reason = "the engine sizes its own buffers by these shapes")]
        let mut view =
            ArrayViewMut2::from_shape((self.rows, self.stride), &mut data[..len]).expect("matrix fits");
        view.slice_axis_inplace(Axis(1), Slice::from(self.from..self.from + self.columns));
        view
    }
}

/// `C = A·B + keep·C`.
pub(super) fn product(a: (&[f32], Shape), b: (&[f32], Shape), keep: f32, c: (&mut [f32], Shape)) {
    general_mat_mul(1.0, &a.1.view(a.0), &b.1.view(b.0), keep, &mut c.1.view_mut(c.0));
}

/// `C = Aᵀ·B + keep·C`.
pub(super) fn product_ta(a: (&[f32], Shape), b: (&[f32], Shape), keep: f32, c: (&mut [f32], Shape)) {
    general_mat_mul(1.0, &a.1.view(a.0).reversed_axes(), &b.1.view(b.0), keep, &mut c.1.view_mut(c.0));
}

/// `C = A·Bᵀ + keep·C`.
pub(super) fn product_tb(a: (&[f32], Shape), b: (&[f32], Shape), keep: f32, c: (&mut [f32], Shape)) {
    general_mat_mul(1.0, &a.1.view(a.0), &b.1.view(b.0).reversed_axes(), keep, &mut c.1.view_mut(c.0));
}

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
