//! The operators. Shapes are those that inference has checked.

use ndarray::{ArrayView2, ArrayViewMut2, linalg::general_mat_mul};

use super::element::Element;
use crate::{BatchNorm, Conv, Linear, Pool, Quadratic, Tensor};

/// Elements of one tile of gathered windows: small enough to stay in a second-level cache.
const TILE: usize = 1 << 17;

/// Convolution of `batch` images, `C·oh·ow·K` multiplications each.
pub(super) fn conv<T: Element>(conv: &Conv, x: &[T], shape: &[usize], out: &[usize], batch: usize) -> Vec<T> {
    let weight = T::weights(&conv.weight);
    let window = Window::new(conv, shape, out);
    let positions = window.out[0] * window.out[1];
    let (per_group, taps) = (out[0] / conv.groups, window.channels * window.kernel[0] * window.kernel[1]);
    let group_in = window.channels * window.size[0] * window.size[1];
    let mut y = match &conv.bias {
        Some(bias) => {
            let bias = T::weights(bias);
            (0..batch).flat_map(|_| bias.iter().flat_map(|&b| std::iter::repeat_n(b, positions))).collect()
        }
        None => vec![T::zero(); batch * out[0] * positions],
    };
    let rows_at_once = (TILE / (taps * window.out[1]).max(1)).clamp(1, window.out[0]);
    let mut tile = Vec::new();
    let groups = x.chunks(group_in).zip(y.chunks_mut(per_group * positions)).enumerate();
    for (g, (x, y)) in groups {
        let start = (g % conv.groups) * per_group * taps;
        let weight = &weight[start..start + per_group * taps];
        if window.is_pointwise() {
            accumulate(weight, [per_group, taps], x, positions, y, [positions, 0]);
            continue;
        }
        for row in (0..window.out[0]).step_by(rows_at_once) {
            let rows = rows_at_once.min(window.out[0] - row);
            let columns = rows * window.out[1];
            tile.resize(taps * columns, T::zero());
            window.gather(x, row, rows, &mut tile);
            accumulate(weight, [per_group, taps], &tile, columns, y, [positions, row * window.out[1]]);
        }
    }
    y
}

/// `Y = X·Wᵀ + b` for a batch of vectors.
pub(super) fn linear<T: Element>(linear: &Linear, x: &[T], batch: usize) -> Vec<T> {
    let weight = T::weights(&linear.weight);
    let (outputs, inputs) = (linear.weight.shape()[0], linear.weight.shape()[1]);
    let mut y = match &linear.bias {
        Some(bias) => T::weights(bias).repeat(batch),
        None => vec![T::zero(); batch * outputs],
    };
    let (x, w) = (view(x, [batch, inputs]), view(&weight, [outputs, inputs]));
    general_mat_mul(T::one(), &x, &w.t(), T::one(), &mut view_mut(&mut y, [batch, outputs]));
    y
}

pub(super) fn batch_norm<T: Element>(norm: &BatchNorm, x: &[T], shape: &[usize]) -> Vec<T> {
    let [gamma, beta, mean, var] = [&norm.gamma, &norm.beta, &norm.mean, &norm.var].map(T::weights);
    let eps = T::of(f64::from(norm.eps));
    let scale: Vec<T> = gamma.iter().zip(var.iter()).map(|(&g, &v)| g / (v + eps).root()).collect();
    per_channel(x, shape, |c, x| (x - mean[c]) * scale[c] + beta[c])
}

pub(super) fn quadratic<T: Element>(q: &Quadratic, x: &[T], shape: &[usize]) -> Vec<T> {
    let spread = |t: &Tensor| -> Vec<T> {
        let w = T::weights(t);
        (0..shape[0]).map(|c| w[if w.len() == 1 { 0 } else { c }]).collect()
    };
    let (a, b, c) = (spread(&q.a), spread(&q.b), spread(&q.c));
    per_channel(x, shape, |k, x| (a[k] * x + b[k]) * x + c[k])
}

pub(super) fn avg_pool<T: Element>(pool: &Pool, x: &[T], shape: &[usize], out: &[usize]) -> Vec<T> {
    let spans = [spans(pool, 0, shape[1], out[1]), spans(pool, 1, shape[2], out[2])];
    pooled(x, shape, &spans, |window, rows, columns| {
        let sum = window.fold(T::zero(), |s, row| row.iter().fold(s, |s, &v| s + v));
        let count =
            if pool.count_include_pad { rows.counted * columns.counted } else { rows.len() * columns.len() };
        #[expect(clippy::cast_precision_loss, reason = "windows are far below 2^52 positions")]
        let count = count as f64;
        sum / T::of(count)
    })
}

pub(super) fn max_pool<T: Element>(pool: &Pool, x: &[T], shape: &[usize], out: &[usize]) -> Vec<T> {
    let spans = [spans(pool, 0, shape[1], out[1]), spans(pool, 1, shape[2], out[2])];
    pooled(x, shape, &spans, |window, _, _| {
        let low = T::of(f64::NEG_INFINITY);
        window.fold(low, |m, row| row.iter().fold(m, |m, &v| if v > m { v } else { m }))
    })
}

pub(super) fn global_avg_pool<T: Element>(x: &[T], shape: &[usize]) -> Vec<T> {
    let positions = shape[1] * shape[2];
    #[expect(clippy::cast_precision_loss, reason = "maps are far below 2^52 positions")]
    let count = T::of(positions as f64);
    x.chunks(positions).map(|map| sum(map) / count).collect()
}

/// Concatenation along the first axis of each sample.
pub(super) fn concat<T: Element>(parts: &[&[T]], batch: usize) -> Vec<T> {
    let mut y = Vec::with_capacity(parts.iter().map(|p| p.len()).sum());
    for image in 0..batch {
        for part in parts {
            let size = part.len() / batch;
            y.extend_from_slice(&part[image * size..(image + 1) * size]);
        }
    }
    y
}

/// Geometry of a convolution within one group of one image.
struct Window {
    channels: usize,
    size: [usize; 2],
    out: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    /// Padding above and to the left.
    lead: [usize; 2],
    padded: bool,
}

impl Window {
    fn new(conv: &Conv, shape: &[usize], out: &[usize]) -> Self {
        let weight = conv.weight.shape();
        Self {
            channels: weight[1],
            size: [shape[1], shape[2]],
            out: [out[1], out[2]],
            kernel: [weight[2], weight[3]],
            stride: conv.stride,
            dilation: conv.dilation,
            lead: [conv.pads[0], conv.pads[1]],
            padded: conv.pads != [0; 4],
        }
    }

    /// The input is the matrix already.
    fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && !self.padded
    }

    /// Writes the windows of output rows `row .. row + rows` as a matrix, one line a tap and one
    /// column a position; taps on padding are zero.
    fn gather<T: Element>(&self, x: &[T], row: usize, rows: usize, tile: &mut [T]) {
        let [h, w] = self.size;
        let mut lines = tile.chunks_mut(rows * self.out[1]);
        for map in x.chunks(h * w) {
            for ky in 0..self.kernel[0] {
                for kx in 0..self.kernel[1] {
                    let Some(line) = lines.next() else { return };
                    // Columns whose tap lies in the image: `first .. last`.
                    let shift = kx * self.dilation[1];
                    let first = self.lead[1].saturating_sub(shift).div_ceil(self.stride[1]).min(self.out[1]);
                    let last = (w + self.lead[1]).saturating_sub(shift).div_ceil(self.stride[1]);
                    let last = last.clamp(first, self.out[1]);
                    for (oy, line) in line.chunks_mut(self.out[1]).enumerate() {
                        let y = (row + oy) * self.stride[0] + ky * self.dilation[0];
                        let y = y.checked_sub(self.lead[0]).filter(|&y| y < h);
                        let (Some(y), true) = (y, first < last) else {
                            line.fill(T::zero());
                            continue;
                        };
                        line[..first].fill(T::zero());
                        line[last..].fill(T::zero());
                        let from = y * w + first * self.stride[1] + shift - self.lead[1];
                        let taps = &mut line[first..last];
                        if self.stride[1] == 1 {
                            taps.copy_from_slice(&map[from..from + taps.len()]);
                        } else {
                            for (t, &v) in taps.iter_mut().zip(map[from..].iter().step_by(self.stride[1])) {
                                *t = v;
                            }
                        }
                    }
                }
            }
        }
    }
}

/// `Y[:, at .. at + columns] += W·X`, where `Y` has lines of `width`.
fn accumulate<T: Element>(
    weight: &[T],
    [outputs, taps]: [usize; 2],
    x: &[T],
    columns: usize,
    y: &mut [T],
    [width, at]: [usize; 2],
) {
    let y = view_mut(y, [outputs, width]);
    let (_, y) = y.split_at(ndarray::Axis(1), at);
    let (mut y, _) = y.split_at(ndarray::Axis(1), columns);
    general_mat_mul(T::one(), &view(weight, [outputs, taps]), &view(x, [taps, columns]), T::one(), &mut y);
}

/// The rows (or columns) of the input that one output position of a pool sees.
#[derive(Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
    /// Positions that count when padding is included.
    counted: usize,
}

impl Span {
    fn len(self) -> usize {
        self.end - self.start
    }
}

fn spans(pool: &Pool, axis: usize, extent: usize, out: usize) -> Vec<Span> {
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

/// Applies `reduce` to the rows of every window.
fn pooled<T: Element>(
    x: &[T],
    shape: &[usize],
    [rows, columns]: &[Vec<Span>; 2],
    reduce: impl Fn(&mut dyn Iterator<Item = &[T]>, Span, Span) -> T,
) -> Vec<T> {
    let (h, w) = (shape[1], shape[2]);
    let mut y = Vec::with_capacity(x.len() / (h * w) * rows.len() * columns.len());
    for map in x.chunks(h * w) {
        for r in rows {
            for c in columns {
                let mut window = map[r.start * w..r.end * w].chunks(w).map(|row| &row[c.start..c.end]);
                y.push(reduce(&mut window, *r, *c));
            }
        }
    }
    y
}

/// Applies `f(channel, x)`; the first axis of `shape` is the channel.
fn per_channel<T: Element>(x: &[T], shape: &[usize], f: impl Fn(usize, T) -> T) -> Vec<T> {
    let inner: usize = shape[1..].iter().product();
    let mut y = Vec::with_capacity(x.len());
    for (i, map) in x.chunks(inner).enumerate() {
        let channel = i % shape[0];
        y.extend(map.iter().map(|&v| f(channel, v)));
    }
    y
}

/// A sum in eight strands: vectorises, and rounds less than one long chain.
fn sum<T: Element>(values: &[T]) -> T {
    let mut strands = [T::zero(); 8];
    let blocks = values.chunks_exact(8);
    let rest = blocks.remainder().iter().fold(T::zero(), |s, &v| s + v);
    for block in blocks {
        for (s, &v) in strands.iter_mut().zip(block) {
            *s += v;
        }
    }
    strands.into_iter().fold(rest, |s, v| s + v)
}

fn view<T>(data: &[T], shape: [usize; 2]) -> ArrayView2<'_, T> {
    #[expect(clippy::expect_used, reason = "shape inference sized both; a mismatch is a bug of this file")]
    ArrayView2::from_shape(shape, data).expect("data fills the matrix")
}

fn view_mut<T>(data: &mut [T], shape: [usize; 2]) -> ArrayViewMut2<'_, T> {
    #[expect(clippy::expect_used, reason = "shape inference sized both; a mismatch is a bug of this file")]
    ArrayViewMut2::from_shape(shape, data).expect("data fills the matrix")
}
