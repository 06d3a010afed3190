//! Products of `f32` matrices, with convolutions as their special case.
//!
//! The right-hand matrix is a list of [`Lines`]: each is read from where it lies in a larger array, so the windows of a
//! convolution need not be written out (implicit im2col: Chetlur et al., "cuDNN", arXiv 1410.0759, section 3). Blocks and
//! packing follow Goto, van de Geijn, "Anatomy of high-performance matrix multiplication", 2008.
//!
//! **One order of operations.** The sum over k is cut into blocks of `depth` terms; a block is a chain of fused
//! multiply-adds from zero, in order, and its result is added to what is there. Every back end does just that for every
//! entry, so all agree bit for bit, whatever the shape, and results do not depend on how columns are grouped.

pub(in crate::simd) mod scalar;
#[cfg(test)]
mod tests;

use super::{Backend, backend};

/// Most terms of one chain: the block of the right-hand matrix that a kernel reads over and over stays in the first cache.
const DEPTH: usize = 256;

/// The left-hand matrix, of `rows` rows.
#[derive(Debug, Clone, Copy)]
pub struct Left<'a> {
    /// Its values.
    pub data: &'a [f32],
    /// Rows.
    pub rows: usize,
    /// Entry (i, p) is `data[i·stride + p]`, or `data[p·stride + i]` where it lies transposed.
    pub stride: usize,
    /// How it lies.
    pub transposed: bool,
}

/// Lines of `runs · width` values. Entry j of line p is `data[starts[p] + (j / width)·pitch + j % width]`.
#[derive(Debug, Clone, Copy)]
pub struct Lines<'a> {
    /// Where the values are.
    pub data: &'a [f32],
    /// First value of each line.
    pub starts: &'a [usize],
    /// Pieces of a line.
    pub runs: usize,
    /// Values of a piece.
    pub width: usize,
    /// Distance of pieces.
    pub pitch: usize,
}

impl Lines<'_> {
    fn len(&self) -> usize {
        self.runs * self.width
    }

    fn fits(&self) -> bool {
        let last = self.starts.iter().copied().max().unwrap_or(0);
        self.len() == 0
            || self.starts.is_empty()
            || last + (self.runs - 1) * self.pitch + self.width <= self.data.len()
    }
}

/// What a product is added to.
#[derive(Debug, Clone, Copy)]
pub enum Start<'a> {
    /// Nothing: what was there is overwritten.
    Zero,
    /// What is there.
    Keep,
    /// One value a row; what was there is overwritten.
    Rows(&'a [f32]),
}

impl Start<'_> {
    /// What the sums of one row are added to; none for what is there.
    pub(in crate::simd) fn of(self, row: usize) -> Option<f32> {
        match self {
            Self::Zero => Some(0.0),
            Self::Keep => None,
            Self::Rows(values) => Some(values[row]),
        }
    }
}

/// Where a product goes: entry (i, j) is `data[i·stride + j]`.
#[derive(Debug)]
pub struct Out<'a> {
    /// The values.
    pub data: &'a mut [f32],
    /// Distance of rows.
    pub stride: usize,
}

/// `out = start + A·B`; a line of B is a row of it.
///
/// # Panics
/// If an operand is shorter than its shape says.
pub fn product(a: Left<'_>, b: Lines<'_>, start: Start<'_>, out: Out<'_>) {
    product_by(backend(), a, b, start, out);
}

fn product_by(backend: Backend, a: Left<'_>, b: Lines<'_>, start: Start<'_>, out: Out<'_>) {
    check(&a, &b, start, &out, b.starts.len(), b.len());
    match backend {
        Backend::Scalar => scalar::product(a, b, start, out),
        #[cfg(target_arch = "x86_64")]
        Backend::Avx2(token) => token.product(a, b, start, out),
        #[cfg(target_arch = "x86_64")]
        Backend::Avx512(token) => token.product(a, b, start, out),
    }
}

/// `out = start + A·Bᵀ`; a line of B is a column of the transposed matrix.
///
/// # Panics
/// If an operand is shorter than its shape says.
pub fn product_transposed(a: Left<'_>, b: Lines<'_>, start: Start<'_>, out: Out<'_>) {
    product_transposed_by(backend(), a, b, start, out);
}

fn product_transposed_by(backend: Backend, a: Left<'_>, b: Lines<'_>, start: Start<'_>, out: Out<'_>) {
    check(&a, &b, start, &out, b.len(), b.starts.len());
    match backend {
        Backend::Scalar => scalar::product_transposed(a, b, start, out),
        #[cfg(target_arch = "x86_64")]
        Backend::Avx2(token) => token.product_transposed(a, b, start, out),
        #[cfg(target_arch = "x86_64")]
        Backend::Avx512(token) => token.product_transposed(a, b, start, out),
    }
}

/// Kernels rely on these.
fn check(a: &Left<'_>, b: &Lines<'_>, start: Start<'_>, out: &Out<'_>, k: usize, n: usize) {
    let span = |lines: usize, stride: usize, len: usize| match (lines, len) {
        (0, _) | (_, 0) => 0,
        _ => (lines - 1) * stride + len,
    };
    let left = if a.transposed { span(k, a.stride, a.rows) } else { span(a.rows, a.stride, k) };
    assert!(left <= a.data.len(), "the left-hand matrix is too short");
    assert!(b.fits(), "a line goes beyond the data");
    assert!(span(a.rows, out.stride, n) <= out.data.len(), "the product does not fit");
    assert!(out.stride >= n || a.rows <= 1, "rows of the product overlap");
    if let Start::Rows(values) = start {
        assert!(values.len() >= a.rows, "a row has no value to start from");
    }
}

/// Terms of one chain for sums of `k` terms: as equal as can be, none longer than 256.
pub(in crate::simd) fn depth(k: usize) -> usize {
    k.div_ceil(k.div_ceil(DEPTH).max(1)).max(1)
}
