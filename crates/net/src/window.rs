//! Which inputs an output position of a convolution or of a pool sees.
//!
//! The plain executor and training share these, so that both mean the same by padding, dilation
//! and windows that hang over.

use std::ops::AddAssign;

use crate::{Conv, Hw, Pool};

/// Geometry of a convolution within one group of one image: its windows as a matrix of one line a
/// tap and one column an output position (im2col).
#[derive(Clone, Debug)]
pub struct Window {
    channels: usize,
    size: Hw,
    out: Hw,
    kernel: Hw,
    stride: Hw,
    dilation: Hw,
    /// Padding above and to the left.
    lead: Hw,
    padded: bool,
}

impl Window {
    /// Windows of `conv` on maps of `size`, giving maps of `out`.
    #[must_use]
    pub fn new(conv: &Conv, size: Hw, out: Hw) -> Self {
        let weight = conv.weight.shape();
        Self {
            channels: weight[1],
            size,
            out,
            kernel: [weight[2], weight[3]],
            stride: conv.stride,
            dilation: conv.dilation,
            lead: [conv.pads[0], conv.pads[1]],
            padded: conv.pads != [0; 4],
        }
    }

    /// Lines of the matrix: input channels of a group times taps.
    #[must_use]
    pub fn taps(&self) -> usize {
        self.channels * self.kernel[0] * self.kernel[1]
    }

    /// Values of one group of one image.
    #[must_use]
    pub fn group_len(&self) -> usize {
        self.channels * self.size[0] * self.size[1]
    }

    /// Rows and columns of the output.
    #[must_use]
    pub fn out(&self) -> Hw {
        self.out
    }

    /// The input is the matrix already.
    #[must_use]
    pub fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && !self.padded
    }

    /// Output rows whose windows fill at most `elements` values, one row at least.
    #[must_use]
    pub fn rows_within(&self, elements: usize) -> usize {
        (elements / (self.taps() * self.out[1]).max(1)).clamp(1, self.out[0].max(1))
    }

    /// Writes the windows of output rows `row .. row + rows` of `x`, one group of an image, as a
    /// matrix; taps on padding are zero.
    pub fn gather<T: Copy + Default>(&self, x: &[T], row: usize, rows: usize, tile: &mut [T]) {
        let mut lines = tile.chunks_mut(rows * self.out[1]);
        self.each_tap(|map, ky, span| {
            let (Some(x), Some(line)) = (self.map(x, map), lines.next()) else { return };
            for (oy, line) in line.chunks_mut(self.out[1]).enumerate() {
                let (Some(y), true) = (self.row(row + oy, ky), span.first < span.last) else {
                    line.fill(T::default());
                    continue;
                };
                line[..span.first].fill(T::default());
                line[span.last..].fill(T::default());
                let (taps, from) = (&mut line[span.first..span.last], &x[y * self.size[1] + span.from..]);
                if self.stride[1] == 1 {
                    taps.copy_from_slice(&from[..taps.len()]);
                } else {
                    taps.iter_mut().zip(from.iter().step_by(self.stride[1])).for_each(|(t, &v)| *t = v);
                }
            }
        });
    }

    /// The adjoint of [`Window::gather`]: adds every value of the matrix to where it came from;
    /// what belongs to padding is dropped.
    pub fn scatter<T: Copy + AddAssign>(&self, tile: &[T], row: usize, rows: usize, x: &mut [T]) {
        let mut lines = tile.chunks(rows * self.out[1]);
        let plane = self.size[0] * self.size[1];
        self.each_tap(|map, ky, span| {
            let (Some(x), Some(line)) = (x.chunks_mut(plane).nth(map), lines.next()) else { return };
            for (oy, line) in line.chunks(self.out[1]).enumerate() {
                let (Some(y), true) = (self.row(row + oy, ky), span.first < span.last) else { continue };
                let (taps, to) = (&line[span.first..span.last], &mut x[y * self.size[1] + span.from..]);
                if self.stride[1] == 1 {
                    to.iter_mut().zip(taps).for_each(|(t, &v)| *t += v);
                } else {
                    to.iter_mut().step_by(self.stride[1]).zip(taps).for_each(|(t, &v)| *t += v);
                }
            }
        });
    }

    /// Calls `f(map, ky, columns)` for every line of the matrix, in order.
    fn each_tap(&self, mut f: impl FnMut(usize, usize, Columns)) {
        let w = self.size[1];
        for map in 0..self.channels {
            for ky in 0..self.kernel[0] {
                for kx in 0..self.kernel[1] {
                    let shift = kx * self.dilation[1];
                    let first = self.lead[1].saturating_sub(shift).div_ceil(self.stride[1]).min(self.out[1]);
                    let last = (w + self.lead[1]).saturating_sub(shift).div_ceil(self.stride[1]);
                    let last = last.clamp(first, self.out[1]);
                    let from = (first * self.stride[1] + shift).saturating_sub(self.lead[1]);
                    f(map, ky, Columns { first, last, from });
                }
            }
        }
    }

    fn map<'a, T>(&self, x: &'a [T], map: usize) -> Option<&'a [T]> {
        x.chunks(self.size[0] * self.size[1]).nth(map)
    }

    /// The input row that tap row `ky` of output row `oy` reads; none on padding.
    fn row(&self, oy: usize, ky: usize) -> Option<usize> {
        let y = oy * self.stride[0] + ky * self.dilation[0];
        y.checked_sub(self.lead[0]).filter(|&y| y < self.size[0])
    }
}

/// Output columns `first .. last` have their tap in the image, the first of them at column `from`.
#[derive(Clone, Copy)]
struct Columns {
    first: usize,
    last: usize,
    from: usize,
}

/// The rows (or columns) of the input that one output position of a pool sees.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// First position.
    pub start: usize,
    /// One past the last.
    pub end: usize,
    /// Positions that count when padding is included.
    pub counted: usize,
}

impl Span {
    /// Positions within the input.
    #[must_use]
    pub fn inside(self) -> usize {
        self.end - self.start
    }
}

/// What each of `out` output positions along `axis` (0 rows, 1 columns) sees of `extent` positions.
#[must_use]
pub fn spans(pool: &Pool, axis: usize, extent: usize, out: usize) -> Vec<Span> {
    let (lead, trail) = (pool.pads[axis], pool.pads[axis + 2]);
    (0..out)
        .map(|o| {
            let first = o * pool.stride[axis];
            let last = first + pool.kernel[axis];
            Span {
                start: first.saturating_sub(lead),
                end: last.saturating_sub(lead).min(extent),
                counted: last.min(extent + lead + trail) - first,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;
    use proptest::prelude::*;

    proptest! {
        /// `⟨gather(x), t⟩ = ⟨x, scatter(t)⟩` for every geometry, in tiles of any height.
        #[test]
        fn scatter_is_the_adjoint_of_gather(
            channels in 1usize..3, kernel in [1usize..4, 1..4], stride in [1usize..4, 1..4], dilation in [1usize..3, 1..3],
            pads in [0usize..3, 0..3, 0..3, 0..3], size in [1usize..9, 1..9], rows in 1usize..4,
        ) {
            let span = |axis: usize| dilation[axis] * (kernel[axis] - 1) + 1;
            let padded = |axis: usize| size[axis] + pads[axis] + pads[axis + 2];
            prop_assume!(padded(0) >= span(0) && padded(1) >= span(1));
            let out = [0, 1].map(|axis| (padded(axis) - span(axis)) / stride[axis] + 1);
            let weight = Tensor::full(vec![1, channels, kernel[0], kernel[1]], 0.0);
            let conv = Conv { weight, bias: None, stride, pads, dilation, groups: 1 };
            let window = Window::new(&conv, size, out);
            let x: Vec<i64> = (0..window.group_len() as i64).map(|i| i * 7 % 31 - 9).collect();
            let (mut back, mut left, mut right) = (vec![0i64; x.len()], 0i64, 0i64);
            for row in (0..out[0]).step_by(rows) {
                let rows = rows.min(out[0] - row);
                let tile: Vec<i64> = (0..(window.taps() * rows * out[1]) as i64).map(|i| (i + row as i64) * 5 % 23 - 4).collect();
                let mut gathered = vec![-1i64; tile.len()];
                window.gather(&x, row, rows, &mut gathered);
                left += gathered.iter().zip(&tile).map(|(g, t)| g * t).sum::<i64>();
                window.scatter(&tile, row, rows, &mut back);
            }
            right += x.iter().zip(&back).map(|(x, b)| x * b).sum::<i64>();
            prop_assert_eq!(left, right);
        }
    }
}
