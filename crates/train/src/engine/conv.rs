//! Convolutions and fully connected layers, forward and backward, as matrix products.

use polyveil_net::window::Window;
use polyveil_net::{Conv, Hw, Linear};

use super::matrix::{Shape, dense, product, product_ta, product_tb, sums};
use super::value::{Buffer, Value};

/// Elements of one tile of gathered windows: small enough to stay in a second-level cache.
const TILE: usize = 1 << 16;

/// Where the gradients of weight and bias go; none for one that is not trained.
pub(super) struct Sinks<'a> {
    pub(super) weight: Option<&'a mut [f32]>,
    pub(super) bias: Option<&'a mut [f32]>,
}

/// Convolution of a batch; `out` is the size of its maps.
pub(super) fn conv(conv: &Conv, x: &Value, out: Hw) -> Value {
    let layer = Layer::new(conv, x.size, out);
    let mut y = Value::unset(x.count, conv.weight.shape()[0], out);
    spread_bias(conv.bias.as_ref().map(polyveil_net::Tensor::data), &mut y);
    let mut tile = Buffer::unset(layer.tile_len());
    let weight = conv.weight.data();
    layer.each_group(x.count, |group, x_at, y_at| {
        let weight = (&weight[layer.weight_range(group)], layer.weight());
        let (x, y) = (&x.data[x_at..], &mut y.data[y_at..]);
        layer.each_tile(|rows| {
            let (columns, shape) = layer.columns(x, &rows, &mut tile);
            product(weight, (columns, shape), 1.0, (y, layer.output(&rows)));
        });
    });
    y
}

/// Gradients of a convolution from that of its output; that of the input where it is wanted.
pub(super) fn conv_backward(
    conv: &Conv,
    x: &Value,
    grad: &Value,
    mut sinks: Sinks<'_>,
    wanted: bool,
) -> Option<Value> {
    let layer = Layer::new(conv, x.size, grad.size);
    let mut dx = wanted.then(|| Value::zeros(x.count, x.channels, x.size));
    let [mut tile, mut back] = [0, 1].map(|_| Buffer::unset(layer.tile_len()));
    let weight = conv.weight.data();
    layer.each_group(x.count, |group, x_at, y_at| {
        let range = layer.weight_range(group);
        let weight = (&weight[range.clone()], layer.weight());
        let (x, dy) = (&x.data[x_at..], &grad.data[y_at..]);
        layer.each_tile(|rows| {
            let dy = (dy, layer.output(&rows));
            if let Some(sink) = &mut sinks.weight {
                let columns = layer.columns(x, &rows, &mut tile);
                product_tb(dy, columns, 1.0, (&mut sink[range.clone()], layer.weight()));
            }
            let Some(dx) = dx.as_mut().map(|v| &mut v.data[x_at..x_at + layer.window.group_len()]) else {
                return;
            };
            if layer.window.is_pointwise() {
                product_ta(weight, dy, 0.0, (dx, layer.pixels(&rows)));
            } else {
                let shape = dense(layer.window.taps(), rows.len() * layer.window.out()[1]);
                product_ta(weight, dy, 0.0, (&mut back, shape));
                let len = shape.rows * shape.columns;
                layer.window.scatter(&back[..len], rows.start, rows.len(), dx);
            }
        });
    });
    if let Some(sink) = sinks.bias {
        grad.planes().for_each(|(channel, dy)| sink[channel] += sums(dy, dy, |d, _| [d])[0]);
    }
    dx
}

/// `Y = X·Wᵀ + b`.
pub(super) fn linear(linear: &Linear, x: &Value) -> Value {
    let (outputs, inputs) = (linear.weight.shape()[0], linear.weight.shape()[1]);
    let mut y = Value::unset(x.count, outputs, [1, 1]);
    spread_bias(linear.bias.as_ref().map(polyveil_net::Tensor::data), &mut y);
    let weight = (linear.weight.data(), dense(outputs, inputs));
    product_tb((&x.data, dense(x.count, inputs)), weight, 1.0, (&mut y.data, dense(x.count, outputs)));
    y
}

/// Gradients of a fully connected layer.
pub(super) fn linear_backward(
    linear: &Linear,
    x: &Value,
    grad: &Value,
    sinks: Sinks<'_>,
    wanted: bool,
) -> Option<Value> {
    let (outputs, inputs) = (linear.weight.shape()[0], linear.weight.shape()[1]);
    let dy = (&grad.data[..], dense(x.count, outputs));
    let shape = dense(x.count, inputs);
    if let Some(sink) = sinks.weight {
        product_ta(dy, (&x.data, shape), 1.0, (sink, dense(outputs, inputs)));
    }
    if let Some(sink) = sinks.bias {
        grad.data.chunks(outputs).for_each(|row| sink.iter_mut().zip(row).for_each(|(s, d)| *s += d));
    }
    wanted.then(|| {
        let mut dx = x.like();
        product(dy, (linear.weight.data(), dense(outputs, inputs)), 0.0, (&mut dx.data, shape));
        dx
    })
}

fn spread_bias(bias: Option<&[f32]>, y: &mut Value) {
    let (plane, channels) = (y.plane().max(1), y.channels.max(1));
    for (index, map) in y.data.chunks_mut(plane).enumerate() {
        map.fill(bias.map_or(0.0, |b| b[index % channels]));
    }
}

/// A convolution as products: per image and group, tile by tile of output rows.
struct Layer {
    window: Window,
    groups: usize,
    /// Output channels of a group.
    outputs: usize,
    rows_at_once: usize,
}

impl Layer {
    fn new(conv: &Conv, size: Hw, out: Hw) -> Self {
        let window = Window::new(conv, size, out);
        let rows_at_once = if window.is_pointwise() { out[0].max(1) } else { window.rows_within(TILE) };
        Self { outputs: conv.weight.shape()[0] / conv.groups, groups: conv.groups, window, rows_at_once }
    }

    fn tile_len(&self) -> usize {
        if self.window.is_pointwise() {
            0
        } else {
            self.window.taps() * self.rows_at_once * self.window.out()[1]
        }
    }

    fn weight(&self) -> Shape {
        dense(self.outputs, self.window.taps())
    }

    fn weight_range(&self, group: usize) -> std::ops::Range<usize> {
        let len = self.outputs * self.window.taps();
        group * len..(group + 1) * len
    }

    /// Calls `f(group, offset in x, offset in y)`.
    fn each_group(&self, count: usize, mut f: impl FnMut(usize, usize, usize)) {
        let (x_len, y_len) = (self.window.group_len(), self.outputs * self.positions());
        (0..count * self.groups).for_each(|i| f(i % self.groups, i * x_len, i * y_len));
    }

    fn each_tile(&self, mut f: impl FnMut(std::ops::Range<usize>)) {
        let height = self.window.out()[0];
        (0..height).step_by(self.rows_at_once).for_each(|r| f(r..(r + self.rows_at_once).min(height)));
    }

    fn positions(&self) -> usize {
        self.window.out()[0] * self.window.out()[1]
    }

    /// These rows of the output of one group.
    fn output(&self, rows: &std::ops::Range<usize>) -> Shape {
        let width = self.window.out()[1];
        let (from, columns) = (rows.start * width, rows.len() * width);
        Shape { rows: self.outputs, stride: self.positions(), from, columns }
    }

    /// The same of the input of a pointwise convolution.
    fn pixels(&self, rows: &std::ops::Range<usize>) -> Shape {
        Shape { rows: self.window.taps(), ..self.output(rows) }
    }

    /// The windows of these rows: the input itself for a pointwise convolution, else gathered into `tile`.
    fn columns<'a>(
        &self,
        x: &'a [f32],
        rows: &std::ops::Range<usize>,
        tile: &'a mut Buffer,
    ) -> (&'a [f32], Shape) {
        if self.window.is_pointwise() {
            return (x, self.pixels(rows));
        }
        let shape = dense(self.window.taps(), rows.len() * self.window.out()[1]);
        let tile = &mut tile[..shape.rows * shape.columns];
        self.window.gather(&x[..self.window.group_len()], rows.start, rows.len(), tile);
        (tile, shape)
    }
}
