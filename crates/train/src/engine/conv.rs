//! Convolutions and fully connected layers, forward and backward, as matrix products.

use polyveil_math::simd::matrix::{Left, Lines, Out, Start, product, product_transposed};
use polyveil_net::window::Window;
use polyveil_net::{Conv, Hw, Linear, Tensor};

use super::frame::{Frame, Geometry};
use super::value::{Buffer, Value};
use super::wide::sums;

/// Elements of one tile of windows that are scattered: small enough to stay in a second-level cache.
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
    let mut frame = Frame::new(layer.geometry);
    let bias = conv.bias.as_ref().map(Tensor::data);
    layer.each_group(x.count, |group, x_at, y_at| {
        let rows = group * layer.outputs..(group + 1) * layer.outputs;
        let start = bias.map_or(Start::Zero, |b| Start::Rows(&b[rows]));
        let out = Out { data: &mut y.data[y_at..], stride: layer.positions() };
        product(layer.weight(conv, group), frame.lines(layer.group(x, x_at)), start, out);
    });
    y
}

/// Gradients of a convolution from that of its output; that of the input where it is wanted.
pub(super) fn conv_backward(
    conv: &Conv,
    x: &Value,
    grad: &Value,
    sinks: Sinks<'_>,
    wanted: bool,
) -> Option<Value> {
    let layer = Layer::new(conv, x.size, grad.size);
    if let Some(sink) = sinks.weight {
        let mut frame = Frame::new(layer.geometry);
        layer.each_group(x.count, |group, x_at, y_at| {
            let (positions, taps) = (layer.positions(), layer.taps());
            let dy =
                Left { data: &grad.data[y_at..], rows: layer.outputs, stride: positions, transposed: false };
            let out = Out { data: &mut sink[group * layer.outputs * taps..], stride: taps };
            product_transposed(dy, frame.lines(layer.group(x, x_at)), Start::Keep, out);
        });
    }
    if let Some(sink) = sinks.bias {
        grad.planes().for_each(|(channel, dy)| sink[channel] += sums(dy, dy, |d, _| [d])[0]);
    }
    wanted.then(|| match layer.adjoint() {
        Some(geometry) => correlate(conv, &layer, geometry, x, grad),
        None => scatter(conv, &layer, x, grad),
    })
}

/// Gradient of the input of a convolution without stride: a convolution with the turned kernel.
fn correlate(conv: &Conv, layer: &Layer, geometry: Geometry, x: &Value, grad: &Value) -> Value {
    let mut dx = Value::unset(x.count, x.channels, x.size);
    let mut frame = Frame::new(geometry);
    let (inputs, outputs, taps) = (layer.geometry.channels, layer.outputs, layer.taps());
    let kernel = taps / inputs;
    let mut turned = Buffer::unset(if kernel == 1 { 0 } else { conv.weight.len() });
    // `[group, input, output, turned tap]`.
    for (index, filter) in conv.weight.data().chunks(taps).enumerate().filter(|_| kernel > 1) {
        let (group, output) = (index / outputs, index % outputs);
        for (input, taps) in filter.chunks(kernel).enumerate() {
            let at = ((group * inputs + input) * outputs + output) * kernel;
            turned[at..at + kernel].iter_mut().rev().zip(taps).for_each(|(t, &w)| *t = w);
        }
    }
    layer.each_group(x.count, |group, x_at, y_at| {
        let left = if kernel == 1 {
            Left { transposed: true, rows: inputs, ..layer.weight(conv, group) }
        } else {
            let stride = outputs * kernel;
            Left { data: &turned[group * inputs * stride..], rows: inputs, stride, transposed: false }
        };
        let lines = frame.lines(&grad.data[y_at..y_at + outputs * layer.positions()]);
        let out = Out { data: &mut dx.data[x_at..], stride: x.plane() };
        product(left, lines, Start::Zero, out);
    });
    dx
}

/// Gradient of the input of any convolution: gradients of windows, added to where they came from.
fn scatter(conv: &Conv, layer: &Layer, x: &Value, grad: &Value) -> Value {
    let mut dx = Value::zeros(x.count, x.channels, x.size);
    let window = Window::new(conv, x.size, grad.size);
    let [height, width] = grad.size;
    let at_once = window.rows_within(TILE);
    let mut back = Buffer::unset(layer.taps() * at_once * width);
    layer.each_group(x.count, |group, x_at, y_at| {
        for row in (0..height).step_by(at_once) {
            let rows = at_once.min(height - row);
            let columns = rows * width;
            let starts: Vec<usize> =
                (0..layer.outputs).map(|o| y_at + o * layer.positions() + row * width).collect();
            let dy = Lines { data: &grad.data, starts: &starts, runs: 1, width: columns, pitch: 0 };
            let left = Left { transposed: true, rows: layer.taps(), ..layer.weight(conv, group) };
            let tile = &mut back[..layer.taps() * columns];
            product(left, dy, Start::Zero, Out { data: tile, stride: columns });
            window.scatter(tile, row, rows, &mut dx.data[x_at..x_at + window.group_len()]);
        }
    });
    dx
}

/// `Y = X·Wᵀ + b`.
pub(super) fn linear(linear: &Linear, x: &Value) -> Value {
    let (outputs, inputs) = (linear.weight.shape()[0], linear.weight.shape()[1]);
    let mut y = Value::unset(x.count, outputs, [1, 1]);
    let bias = linear.bias.as_ref().map(Tensor::data);
    for row in y.data.chunks_mut(outputs.max(1)) {
        match bias {
            Some(bias) => row.copy_from_slice(bias),
            None => row.fill(0.0),
        }
    }
    let (x, starts) = (dense(&x.data, x.count, inputs), every(inputs, outputs));
    let weight = whole(linear.weight.data(), &starts, inputs);
    product_transposed(x, weight, Start::Keep, Out { data: &mut y.data, stride: outputs });
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
    if let Some(sink) = sinks.weight {
        let dy = Left { data: &grad.data, rows: outputs, stride: outputs, transposed: true };
        let starts = every(inputs, x.count);
        let out = Out { data: sink, stride: inputs };
        product(dy, whole(&x.data, &starts, inputs), Start::Keep, out);
    }
    if let Some(sink) = sinks.bias {
        grad.data.chunks(outputs).for_each(|row| sink.iter_mut().zip(row).for_each(|(s, d)| *s += d));
    }
    wanted.then(|| {
        let mut dx = x.like();
        let starts = every(inputs, outputs);
        let weight = whole(linear.weight.data(), &starts, inputs);
        let out = Out { data: &mut dx.data, stride: inputs };
        product(dense(&grad.data, x.count, outputs), weight, Start::Zero, out);
        dx
    })
}

/// Rows that touch each other.
fn dense(data: &[f32], rows: usize, stride: usize) -> Left<'_> {
    Left { data, rows, stride, transposed: false }
}

/// Starts of `count` lines that are `step` apart.
fn every(step: usize, count: usize) -> Vec<usize> {
    (0..count).map(|i| i * step).collect()
}

/// Lines in one piece.
fn whole<'a>(data: &'a [f32], starts: &'a [usize], width: usize) -> Lines<'a> {
    Lines { data, starts, runs: 1, width, pitch: width }
}

/// A convolution as products, one an image and group.
struct Layer {
    geometry: Geometry,
    groups: usize,
    /// Output channels of a group.
    outputs: usize,
}

impl Layer {
    fn new(conv: &Conv, size: Hw, out: Hw) -> Self {
        let shape = conv.weight.shape();
        let (stride, dilation, pads) = (conv.stride, conv.dilation, conv.pads);
        let (channels, kernel) = (shape[1], [shape[2], shape[3]]);
        let geometry = Geometry { channels, size, kernel, stride, dilation, pads, out };
        Self { geometry, groups: conv.groups, outputs: shape[0] / conv.groups }
    }

    fn taps(&self) -> usize {
        self.geometry.channels * self.geometry.kernel[0] * self.geometry.kernel[1]
    }

    fn positions(&self) -> usize {
        self.geometry.out[0] * self.geometry.out[1]
    }

    /// One line an output channel of the group.
    fn weight<'a>(&self, conv: &'a Conv, group: usize) -> Left<'a> {
        let taps = self.taps();
        let data = &conv.weight.data()[group * self.outputs * taps..];
        Left { data, rows: self.outputs, stride: taps, transposed: false }
    }

    /// Input maps of one group of an image.
    fn group<'a>(&self, x: &'a Value, at: usize) -> &'a [f32] {
        &x.data[at..at + self.geometry.channels * x.plane()]
    }

    /// Calls `f(group, offset in x, offset in y)`.
    fn each_group(&self, count: usize, mut f: impl FnMut(usize, usize, usize)) {
        let Geometry { channels, size, .. } = self.geometry;
        let (x_len, y_len) = (channels * size[0] * size[1], self.outputs * self.positions());
        (0..count * self.groups).for_each(|i| f(i % self.groups, i * x_len, i * y_len));
    }

    /// The convolution that takes the gradient of the output to that of the input; none where there is a stride, or
    /// more padding than the kernel reaches.
    fn adjoint(&self) -> Option<Geometry> {
        let Geometry { size, kernel, stride, dilation, pads, out, .. } = self.geometry;
        let reach = |axis: usize| dilation[axis] * (kernel[axis] - 1);
        let mut turned = [0; 4];
        for (side, pad) in turned.iter_mut().enumerate() {
            *pad = reach(side % 2).checked_sub(pads[side])?;
        }
        let geometry =
            Geometry { channels: self.outputs, size: out, pads: turned, out: size, ..self.geometry };
        (stride == [1, 1]).then_some(geometry)
    }
}
