//! Pools, forward and backward.

use polyveil_math::simd::wide::{Loop, wide};
use polyveil_net::window::{Span, spans};
use polyveil_net::{Hw, Pool};

use super::value::Value;
use super::wide::{any, sums, update};

/// What every output row and every output column sees.
struct Spans {
    rows: Vec<Span>,
    columns: Vec<Span>,
}

impl Spans {
    fn new(pool: &Pool, size: Hw, out: Hw) -> Self {
        Self { rows: spans(pool, 0, size[0], out[0]), columns: spans(pool, 1, size[1], out[1]) }
    }
}

/// One map, folded window by window: rows first, then columns, both of which vectorise.
struct Fold<'a, F> {
    spans: &'a Spans,
    /// Columns of a window that hangs over nowhere.
    kernel: usize,
    width: usize,
    map: &'a [f32],
    y: &'a mut [f32],
    /// Two rows of the map.
    lines: &'a mut [Vec<f32>; 2],
    f: F,
}

impl<F: Fn(f32, f32) -> f32> Loop for Fold<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { spans, kernel, width, map, y, lines: [line, windows], f } = self;
        for (r, y) in spans.rows.iter().zip(y.chunks_mut(spans.columns.len().max(1))) {
            let mut rows = map[r.start * width..r.end * width].chunks_exact(width);
            line.clear();
            line.extend_from_slice(rows.next().unwrap_or_default());
            for row in rows {
                line.iter_mut().zip(row).for_each(|(l, &v)| *l = f(*l, v));
            }
            windows.clear();
            windows.extend_from_slice(line);
            for shift in 1..kernel.min(width) {
                windows.iter_mut().zip(&line[shift..]).for_each(|(w, &v)| *w = f(*w, v));
            }
            for (c, y) in spans.columns.iter().zip(y) {
                *y = if c.end - c.start == kernel {
                    windows[c.start]
                } else {
                    let rest = line[c.start + 1..c.end].iter();
                    rest.fold(line[c.start], |l, &v| f(l, v))
                };
            }
        }
    }
}

/// Means of windows.
pub(super) fn avg_pool(pool: &Pool, x: &Value, out: Hw) -> Value {
    let spans = &Spans::new(pool, x.size, out);
    let mut y = Value::unset(x.count, x.channels, out);
    let (width, kernel) = (x.size[1], pool.kernel[1]);
    let mut lines = [Vec::new(), Vec::new()];
    let shares: Vec<f32> =
        spans.rows.iter().flat_map(|r| spans.columns.iter().map(move |c| share(pool, *r, *c))).collect();
    for (map, y) in x.data.chunks(x.plane()).zip(y.data.chunks_mut(out[0] * out[1])) {
        wide(Fold { spans, kernel, width, map, y: &mut *y, lines: &mut lines, f: |l, v| l + v });
        update(y, &shares, |y, share| y * share);
    }
    y
}

/// Every output gives each position of its window the same share of its gradient.
pub(super) fn avg_pool_backward(pool: &Pool, x: &Value, grad: &Value) -> Value {
    let spans = Spans::new(pool, x.size, grad.size);
    let mut dx = Value::zeros(x.count, x.channels, x.size);
    let (plane, width) = (x.plane(), x.size[1]);
    let mut line = vec![0.0f32; width];
    for (map, dy) in dx.data.chunks_mut(plane).zip(grad.data.chunks(grad.plane())) {
        for (r, dy) in spans.rows.iter().zip(dy.chunks(grad.size[1])) {
            line.fill(0.0);
            for (c, dy) in spans.columns.iter().zip(dy) {
                let part = dy * share(pool, *r, *c);
                line[c.start..c.end].iter_mut().for_each(|l| *l += part);
            }
            for row in map[r.start * width..r.end * width].chunks_mut(width) {
                row.iter_mut().zip(&line).for_each(|(d, l)| *d += l);
            }
        }
    }
    dx
}

/// Largest values of windows.
pub(super) fn max_pool(pool: &Pool, x: &Value, out: Hw) -> Value {
    let spans = &Spans::new(pool, x.size, out);
    let mut y = Value::unset(x.count, x.channels, out);
    let (width, kernel) = (x.size[1], pool.kernel[1]);
    let mut lines = [Vec::new(), Vec::new()];
    for (map, y) in x.data.chunks(x.plane()).zip(y.data.chunks_mut(out[0] * out[1])) {
        // NaN wins, so that it is not hidden; the test of each value for it would cost more than this one pass.
        if any(map, f32::is_nan) {
            each_maximum(spans, width, map, |position, at| y[position] = map[at]);
        } else {
            let f = |l: f32, v: f32| if v > l { v } else { l };
            wide(Fold { spans, kernel, width, map, y, lines: &mut lines, f });
        }
    }
    y
}

/// The first largest position of each window takes the gradient.
pub(super) fn max_pool_backward(pool: &Pool, x: &Value, grad: &Value) -> Value {
    let spans = &Spans::new(pool, x.size, grad.size);
    let mut dx = Value::zeros(x.count, x.channels, x.size);
    let width = x.size[1];
    let mut phases = Phases::new(pool, width, grad.size[1]);
    let maps = x.data.chunks(x.plane()).zip(grad.data.chunks(grad.plane()));
    for (dx, (map, dy)) in dx.data.chunks_mut(x.plane()).zip(maps) {
        if any(map, |v| !v.is_finite()) {
            each_maximum(spans, width, map, |position, at| dx[at] += dy[position]);
        } else {
            wide(Winners { spans, width, map, dy, dx, phases: &mut phases });
        }
    }
    dx
}

/// Rows with their columns sorted by remainder modulo the stride: what one tap sees lies side by side.
struct Phases {
    kernel: Hw,
    stride: usize,
    /// Columns of one remainder.
    class: usize,
    /// Padding to the left.
    lead: usize,
    /// One row of values a tap row.
    x: Vec<Vec<f32>>,
    /// The gradients of one of them.
    dx: Vec<f32>,
    best: Vec<f32>,
    /// What each window has yet to give away.
    left: Vec<f32>,
}

impl Phases {
    fn new(pool: &Pool, width: usize, out: usize) -> Self {
        let (stride, lead) = (pool.stride[1], pool.pads[1]);
        let class = (width + lead).max((out - 1) * stride + pool.kernel[1]).div_ceil(stride);
        // What lies beside the map is smaller than all that is finite.
        let row = vec![f32::NEG_INFINITY; class * stride];
        Self {
            kernel: pool.kernel,
            stride,
            class,
            lead,
            dx: row.clone(),
            x: vec![row; pool.kernel[0]],
            best: vec![0.0; out],
            left: vec![0.0; out],
        }
    }
}

/// One map: values are compared with the largest of their window, tap by tap, for a row of windows at once.
struct Winners<'a> {
    spans: &'a Spans,
    width: usize,
    map: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
    phases: &'a mut Phases,
}

impl Loop for Winners<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { spans, width, map, dy, dx, phases } = self;
        let Phases { kernel, stride, class, lead, x, dx: back, best, left } = phases;
        let (stride, class, lead, out) = (*stride, *class, *lead, best.len());
        let tap = |kx: usize| kx % stride * class + kx / stride;
        for (r, dy) in spans.rows.iter().zip(dy.chunks(out)) {
            best.fill(f32::NEG_INFINITY);
            for (y, x) in (r.start..r.end).zip(x.iter_mut()) {
                sort(&map[y * width..(y + 1) * width], x, stride, class, lead);
                for kx in 0..kernel[1] {
                    let values = &x[tap(kx)..tap(kx) + out];
                    best.iter_mut().zip(values).for_each(|(b, &v)| *b = if v > *b { v } else { *b });
                }
            }
            left.copy_from_slice(dy);
            for (y, x) in (r.start..r.end).zip(x.iter()) {
                back.fill(0.0);
                for kx in 0..kernel[1] {
                    let values = &x[tap(kx)..tap(kx) + out];
                    let windows = left.iter_mut().zip(best.iter().zip(values));
                    for (back, (left, (&best, &v))) in back[tap(kx)..tap(kx) + out].iter_mut().zip(windows) {
                        let won = if v == best { *left } else { 0.0 };
                        *back += won;
                        *left = if v == best { 0.0 } else { *left };
                    }
                }
                add_sorted(&mut dx[y * width..(y + 1) * width], back, stride, class, lead);
            }
        }
    }
}

/// Sorts the columns of a row.
#[inline(always)]
fn sort(row: &[f32], to: &mut [f32], stride: usize, class: usize, lead: usize) {
    if stride == 2 && lead == 0 {
        let (even, odd) = to.split_at_mut(class);
        let (pairs, last) = row.as_chunks::<2>();
        pairs.iter().zip(even.iter_mut().zip(odd)).for_each(|(&[a, b], (e, o))| (*e, *o) = (a, b));
        even[pairs.len()..].iter_mut().zip(last).for_each(|(e, &v)| *e = v);
        return;
    }
    for (x, &v) in (lead..).zip(row) {
        to[x % stride * class + x / stride] = v;
    }
}

/// Adds sorted columns to a row.
#[inline(always)]
fn add_sorted(row: &mut [f32], from: &[f32], stride: usize, class: usize, lead: usize) {
    if stride == 2 && lead == 0 {
        let (even, odd) = from.split_at(class);
        let (pairs, last) = row.as_chunks_mut::<2>();
        let count = pairs.len();
        for ([a, b], (e, o)) in pairs.iter_mut().zip(even.iter().zip(odd)) {
            *a += e;
            *b += o;
        }
        last.iter_mut().zip(&even[count..]).for_each(|(a, e)| *a += e);
        return;
    }
    for (x, v) in (lead..).zip(row) {
        *v += from[x % stride * class + x / stride];
    }
}

/// Mean of each map.
pub(super) fn global_avg_pool(x: &Value) -> Value {
    let mut y = Value::unset(x.count, x.channels, [1, 1]);
    let plane = x.plane() as f32;
    for (y, (_, map)) in y.data.iter_mut().zip(x.planes()) {
        *y = sums(map, map, |v, _| [v])[0] / plane;
    }
    y
}

/// Spreads each gradient evenly over its map.
pub(super) fn global_avg_pool_backward(x: &Value, grad: &Value) -> Value {
    let mut dx = x.like();
    let plane = x.plane();
    for (map, dy) in dx.data.chunks_mut(plane).zip(grad.data.iter()) {
        map.fill(dy / plane as f32);
    }
    dx
}

fn share(pool: &Pool, rows: Span, columns: Span) -> f32 {
    let counted = if pool.count_include_pad {
        rows.counted * columns.counted
    } else {
        rows.inside() * columns.inside()
    };
    1.0 / counted as f32
}

/// Calls `f(index in y, index in the map of the first largest value)` for every window of a map.
fn each_maximum(spans: &Spans, width: usize, map: &[f32], mut f: impl FnMut(usize, usize)) {
    let mut position = 0;
    for r in &spans.rows {
        for c in &spans.columns {
            let mut at = r.start * width + c.start;
            let mut best = map[at];
            for y in r.start..r.end {
                let from = y * width + c.start;
                for (offset, &v) in map[from..from + c.end - c.start].iter().enumerate() {
                    // NaN wins, so that it is not hidden. No branch: which of them is largest cannot be foreseen.
                    let better = (v > best) | v.is_nan();
                    best = if better { v } else { best };
                    at = if better { from + offset } else { at };
                }
            }
            f(position, at);
            position += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a walk through every window, with many ties.
        #[test]
        fn the_first_largest_value_takes_the_gradient(
            kernel in [1usize..4, 1..4], stride in [1usize..4, 1..4], lead in [0usize..2, 0..2], size in [3usize..12, 3..12],
            values in proptest::collection::vec(-2i8..3, 288), odd in 0usize..600,
        ) {
            let pads = [lead[0].min(kernel[0] - 1), lead[1].min(kernel[1] - 1), 0, 0];
            let pool = Pool { kernel, stride, pads, ceil_mode: false, count_include_pad: false };
            let out = [0, 1].map(|a| (size[a] + pads[a] - kernel[a]) / stride[a] + 1);
            let mut x = Value::zeros(2, 1, size);
            x.data.iter_mut().zip(&values).for_each(|(x, &v)| *x = f32::from(v));
            if let Some(v) = x.data.get_mut(odd) {
                *v = f32::NAN;
            }
            let mut grad = Value::zeros(2, 1, out);
            grad.data.iter_mut().enumerate().for_each(|(i, g)| *g = (i + 1) as f32);
            let (y, dx) = (max_pool(&pool, &x, out), max_pool_backward(&pool, &x, &grad));
            let spans = Spans::new(&pool, size, out);
            let (plane, positions) = (x.plane(), grad.plane());
            let mut expected = vec![0.0f32; 2 * plane];
            for image in 0..2 {
                let map = &x.data[image * plane..][..plane];
                each_maximum(&spans, size[1], map, |position, at| {
                    expected[image * plane + at] += grad.data[image * positions + position];
                    assert_eq!(y.data[image * positions + position].to_bits(), map[at].to_bits());
                });
            }
            prop_assert_eq!(&dx.data[..], &expected[..]);
        }
    }
}
