//! The windows of a convolution as lines of a matrix that is never written out.
//!
//! Within a map with its padding around it, what one tap sees at all output positions of a row lies side by side, or a
//! stride apart. A frame is such a padded copy, with the columns of a row sorted by their remainder modulo the stride, so
//! that a line of the matrix is a start and a distance of rows. Where there is neither padding nor stride, the
//! values are read where they are.

use polyveil_math::simd::matrix::Lines;
use polyveil_net::{Hw, Pads};

use super::value::Buffer;

/// Which windows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    pub(super) channels: usize,
    /// Rows and columns of a map.
    pub(super) size: Hw,
    pub(super) kernel: Hw,
    pub(super) stride: Hw,
    pub(super) dilation: Hw,
    pub(super) pads: Pads,
    /// Output positions.
    pub(super) out: Hw,
}

/// Where the windows of one group of an image are found; serves one image after the other.
pub(super) struct Frame {
    geometry: Geometry,
    starts: Vec<usize>,
    /// Values of a row with its padding.
    line: usize,
    /// Padded copy, and the place of every column in its row; none where images are read as they are.
    copy: Option<(Buffer, Vec<usize>)>,
}

impl Frame {
    pub(super) fn new(geometry: Geometry) -> Self {
        let Geometry { channels, size, kernel, stride, dilation, pads, .. } = geometry;
        let step = stride[1];
        let as_it_is = pads == [0; 4] && step == 1;
        let class = (size[1] + pads[1] + pads[3]).div_ceil(step);
        let line = class * step;
        let plane = (size[0] + pads[0] + pads[2]) * line;
        let place = |x: usize| x % step * class + x / step;
        let mut starts = Vec::with_capacity(channels * kernel[0] * kernel[1]);
        for channel in 0..channels {
            for ky in 0..kernel[0] {
                let row = channel * plane + ky * dilation[0] * line;
                starts.extend((0..kernel[1]).map(|kx| row + place(kx * dilation[1])));
            }
        }
        let copy = (!as_it_is).then(|| {
            let mut buffer = Buffer::unset(channels * plane);
            // Padding stays zero from image to image.
            buffer.fill(0.0);
            (buffer, (0..size[1]).map(|x| place(x + pads[1])).collect())
        });
        Self { geometry, starts, line, copy }
    }

    /// The windows of `x`, one group of an image: one line a tap, one column an output position.
    pub(super) fn lines<'a>(&'a mut self, x: &'a [f32]) -> Lines<'a> {
        let Geometry { size, stride, pads, out, .. } = self.geometry;
        let [height, width] = size;
        let line = self.line;
        let data: &[f32] = match &mut self.copy {
            None => x,
            Some((buffer, places)) => {
                let plane = (height + pads[0] + pads[2]) * line;
                for (map, copy) in x.chunks(height * width).zip(buffer.chunks_mut(plane)) {
                    let rows = copy.chunks_mut(line).skip(pads[0]);
                    for (row, copy) in map.chunks(width).zip(rows) {
                        if stride[1] == 1 {
                            copy[pads[1]..pads[1] + width].copy_from_slice(row);
                        } else {
                            row.iter().zip(&*places).for_each(|(&v, &at)| copy[at] = v);
                        }
                    }
                }
                buffer
            }
        };
        let pitch = stride[0] * line;
        let starts = &self.starts;
        if pitch == out[1] {
            Lines { data, starts, runs: 1, width: out[0] * out[1], pitch }
        } else {
            Lines { data, starts, runs: out[0], width: out[1], pitch }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use polyveil_net::window::Window;
    use polyveil_net::{Conv, Tensor};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lines_are_the_gathered_windows(
            channels in 1usize..3, kernel in [1usize..4, 1..4], stride in [1usize..4, 1..4], dilation in [1usize..3, 1..3],
            pads in [0usize..3, 0..3, 0..3, 0..3], size in [1usize..9, 1..9],
        ) {
            let span = |axis: usize| dilation[axis] * (kernel[axis] - 1) + 1;
            let padded = |axis: usize| size[axis] + pads[axis] + pads[axis + 2];
            prop_assume!(padded(0) >= span(0) && padded(1) >= span(1));
            let out = [0, 1].map(|axis| (padded(axis) - span(axis)) / stride[axis] + 1);
            let mut frame = Frame::new(Geometry { channels, size, kernel, stride, dilation, pads, out });
            let weight = Tensor::full(vec![1, channels, kernel[0], kernel[1]], 0.0);
            let conv = Conv { weight, bias: None, stride, pads, dilation, groups: 1 };
            let window = Window::new(&conv, size, out);
            for image in 0..2 {
                let x: Vec<f32> = (0..window.group_len()).map(|i| (i + image) as f32 + 1.0).collect();
                let mut expected = vec![0.0; window.taps() * out[0] * out[1]];
                window.gather(&x, 0, out[0], &mut expected);
                let lines = frame.lines(&x);
                let found: Vec<f32> = lines.starts.iter().flat_map(|&start| {
                    (0..lines.runs).flat_map(move |r| (0..lines.width).map(move |c| start + r * lines.pitch + c))
                }).map(|at| lines.data[at]).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
