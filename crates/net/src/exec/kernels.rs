//! The operators. Shapes are those that inference has checked.

use ndarray::{ArrayView2, ArrayViewMut2, linalg::general_mat_mul};

use super::element::Element;
use crate::window::{Span, Window, spans};
use crate::{BatchNorm, Conv, Linear, Pool, Quadratic, Tensor};

/// Elements of one tile of gathered windows: small enough to stay in a second-level cache.
const TILE: usize = 1 << 17;

/// Convolution of `batch` images, `C·oh·ow·K` multiplications each.
pub(super) fn conv<T: Element>(conv: &Conv, x: &[T], shape: &[usize], out: &[usize], batch: usize) -> Vec<T> {
    let weight = T::weights(&conv.weight);
    let window = Window::new(conv, [shape[1], shape[2]], [out[1], out[2]]);
    let positions = out[1] * out[2];
    let (per_group, taps) = (out[0] / conv.groups, window.taps());
    let group_in = window.group_len();
    let mut y = match &conv.bias {
        Some(bias) => {
            let bias = T::weights(bias);
            (0..batch).flat_map(|_| bias.iter().flat_map(|&b| std::iter::repeat_n(b, positions))).collect()
        }
        None => vec![T::zero(); batch * out[0] * positions],
    };
    let rows_at_once = window.rows_within(TILE);
    let mut tile = Vec::new();
    let groups = x.chunks(group_in).zip(y.chunks_mut(per_group * positions)).enumerate();
    for (g, (x, y)) in groups {
        let start = (g % conv.groups) * per_group * taps;
        let weight = &weight[start..start + per_group * taps];
        if window.is_pointwise() {
            accumulate(weight, [per_group, taps], x, positions, y, [positions, 0]);
            continue;
        }
        for row in (0..out[1]).step_by(rows_at_once) {
            let rows = rows_at_once.min(out[1] - row);
            let columns = rows * out[2];
            tile.resize(taps * columns, T::zero());
            window.gather(x, row, rows, &mut tile);
            accumulate(weight, [per_group, taps], &tile, columns, y, [positions, row * out[2]]);
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
    let reduce = |line: &[T], rows: Span, columns: Span| {
        let sum = line.iter().fold(T::zero(), |s, &v| s + v);
        let count = if pool.count_include_pad {
            rows.counted * columns.counted
        } else {
            rows.inside() * columns.inside()
        };
        #[expect(clippy::cast_precision_loss, reason = "windows are far below 2^52 positions")]
        let count = count as f64;
        sum / T::of(count)
    };
    pooled(pool, x, shape, out, T::zero(), |s, v| s + v, reduce)
}

pub(super) fn max_pool<T: Element>(pool: &Pool, x: &[T], shape: &[usize], out: &[usize]) -> Vec<T> {
    let larger = |m: T, v: T| if v > m { v } else { m };
    let low = T::of(f64::NEG_INFINITY);
    pooled(pool, x, shape, out, low, larger, |line, _, _| line.iter().fold(low, |m, &v| larger(m, v)))
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

/// Joins the rows of every line of windows, which vectorises, and reduces each window's part of that.
fn pooled<T: Element>(
    pool: &Pool,
    x: &[T],
    shape: &[usize],
    out: &[usize],
    empty: T,
    join: impl Fn(T, T) -> T,
    reduce: impl Fn(&[T], Span, Span) -> T,
) -> Vec<T> {
    let (rows, columns) = (spans(pool, 0, shape[1], out[1]), spans(pool, 1, shape[2], out[2]));
    let (h, w) = (shape[1], shape[2]);
    let mut y = Vec::with_capacity(x.len() / (h * w) * rows.len() * columns.len());
    let mut line = vec![empty; w];
    for map in x.chunks(h * w) {
        for r in &rows {
            line.fill(empty);
            for row in map[r.start * w..r.end * w].chunks(w) {
                line.iter_mut().zip(row).for_each(|(l, &v)| *l = join(*l, v));
            }
            y.extend(columns.iter().map(|c| reduce(&line[c.start..c.end], *r, *c)));
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
