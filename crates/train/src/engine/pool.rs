//! Pools, forward and backward.

use polyveil_net::window::{Span, spans};
use polyveil_net::{Hw, Pool};

use super::value::Value;

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

/// Means of windows: rows are added up first, which vectorises, then columns.
pub(super) fn avg_pool(pool: &Pool, x: &Value, out: Hw) -> Value {
    let spans = Spans::new(pool, x.size, out);
    let mut y = Value::unset(x.count, x.channels, out);
    let width = x.size[1];
    let mut column_sums = vec![0.0f32; width];
    for (map, y) in x.data.chunks(x.plane()).zip(y.data.chunks_mut(out[0] * out[1])) {
        for (r, y) in spans.rows.iter().zip(y.chunks_mut(out[1])) {
            column_sums.fill(0.0);
            for row in map[r.start * width..r.end * width].chunks(width) {
                column_sums.iter_mut().zip(row).for_each(|(s, v)| *s += v);
            }
            for (c, y) in spans.columns.iter().zip(y) {
                *y = column_sums[c.start..c.end].iter().sum::<f32>() * share(pool, *r, *c);
            }
        }
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
    let mut y = Value::unset(x.count, x.channels, out);
    let data = &x.data;
    each_maximum(pool, x, out, |position, at| y.data[position] = data[at]);
    y
}

/// The first largest position of each window takes the gradient.
pub(super) fn max_pool_backward(pool: &Pool, x: &Value, grad: &Value) -> Value {
    let mut dx = Value::zeros(x.count, x.channels, x.size);
    each_maximum(pool, x, grad.size, |position, at| dx.data[at] += grad.data[position]);
    dx
}

/// Mean of each map.
pub(super) fn global_avg_pool(x: &Value) -> Value {
    let mut y = Value::unset(x.count, x.channels, [1, 1]);
    let plane = x.plane() as f32;
    for (y, (_, map)) in y.data.iter_mut().zip(x.planes()) {
        *y = super::sums::sums(map, map, |v, _| [v])[0] / plane;
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

/// Calls `f(index in y, index in x of the first largest value)` for every window.
fn each_maximum(pool: &Pool, x: &Value, out: Hw, mut f: impl FnMut(usize, usize)) {
    let spans = Spans::new(pool, x.size, out);
    let (plane, width) = (x.plane(), x.size[1]);
    let mut position = 0;
    for (index, map) in x.data.chunks(plane).enumerate() {
        for r in &spans.rows {
            for c in &spans.columns {
                let mut best = r.start * width + c.start;
                for y in r.start..r.end {
                    for at in y * width + c.start..y * width + c.end {
                        // NaN wins, so that it is not hidden.
                        if map[at] > map[best] || map[at].is_nan() {
                            best = at;
                        }
                    }
                }
                f(position, index * plane + best);
                position += 1;
            }
        }
    }
}
