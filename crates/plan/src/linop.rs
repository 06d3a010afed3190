//! The one linear operator of a plan: a grouped convolution.
//!
//! Fully connected layers are convolutions whose kernel covers the whole input, average pools are
//! depthwise ones with equal weights, residual additions and concatenations are 1×1 depthwise ones.

use serde::{Deserialize, Serialize};

/// A grouped convolution on `[C, H, W]`, zero-padded at the top and left by `pads` and as far as
/// needed at the bottom and right (the output's extent is stated, not derived).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConvOp {
    /// Output channels, rows, columns.
    pub output: [usize; 3],
    /// Input channels, rows, columns.
    pub input: [usize; 3],
    /// Rows and columns of the kernel.
    pub kernel: [usize; 2],
    /// Step between output positions.
    pub stride: [usize; 2],
    /// Zero rows above and zero columns to the left of the input.
    pub pads: [usize; 2],
    /// Step between taps.
    pub dilation: [usize; 2],
    /// Channel groups; divides input and output channels.
    pub groups: usize,
    /// `[out, in / groups, kh, kw]`, row-major.
    pub weight: Vec<f32>,
    /// One factor an output position (`H·W`, row-major), where borders need another divisor.
    pub position_scale: Option<Vec<f32>>,
}

impl ConvOp {
    /// A 1×1 depthwise operator that multiplies channel `c` by `scale[c]`.
    #[must_use]
    pub fn diagonal(shape: [usize; 3], scale: Vec<f32>) -> Self {
        Self {
            output: shape,
            input: shape,
            kernel: [1, 1],
            stride: [1, 1],
            pads: [0, 0],
            dilation: [1, 1],
            groups: shape[0],
            weight: scale,
            position_scale: None,
        }
    }

    /// Input channels of a group.
    #[must_use]
    pub fn group_inputs(&self) -> usize {
        self.input[0] / self.groups
    }

    /// Whether the sizes fit each other. Files are checked with this before use.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        const LIMIT: usize = 1 << 30;
        let product =
            |v: &[usize]| v.iter().try_fold(1usize, |n, &d| n.checked_mul(d).filter(|&n| n <= LIMIT));
        let small = |v: &[usize]| v.iter().all(|&d| d <= 1 << 24);
        self.groups >= 1
            && small(&self.output)
            && small(&self.input)
            && small(&self.kernel)
            && small(&self.stride)
            && small(&self.pads)
            && small(&self.dilation)
            && self.output.iter().chain(&self.input).chain(&self.kernel).chain(&self.stride).all(|&d| d >= 1)
            && self.dilation.iter().all(|&d| d >= 1)
            && self.input[0].is_multiple_of(self.groups)
            && self.output[0].is_multiple_of(self.groups)
            && product(&[self.output[0], self.group_inputs(), self.kernel[0], self.kernel[1]])
                == Some(self.weight.len())
            && self.position_scale.as_ref().is_none_or(|s| Some(s.len()) == product(&self.output[1..]))
            && self.weight.iter().chain(self.position_scale.iter().flatten()).all(|w| w.is_finite())
    }

    /// Whether any tap of any output position falls outside the input.
    #[must_use]
    pub fn reads_outside(&self) -> bool {
        (0..2).any(|axis| {
            let last = (self.output[axis + 1] - 1) * self.stride[axis]
                + (self.kernel[axis] - 1) * self.dilation[axis];
            self.pads[axis] > 0 || last >= self.input[axis + 1] + self.pads[axis]
        })
    }

    /// Calls `f(input channel, input row, input column, weight)` for every tap of output element
    /// `(c, y, x)` that lies inside the input.
    pub fn for_each_tap(&self, c: usize, y: usize, x: usize, mut f: impl FnMut(usize, usize, usize, f32)) {
        let per_group = self.group_inputs();
        let first = c / (self.output[0] / self.groups) * per_group;
        let [kh, kw] = self.kernel;
        let scale = self.position_scale.as_ref().map_or(1.0, |s| s[y * self.output[2] + x]);
        for ky in 0..kh {
            let Some(iy) = (y * self.stride[0] + ky * self.dilation[0]).checked_sub(self.pads[0]) else {
                continue;
            };
            if iy >= self.input[1] {
                continue;
            }
            for kx in 0..kw {
                let Some(ix) = (x * self.stride[1] + kx * self.dilation[1]).checked_sub(self.pads[1]) else {
                    continue;
                };
                if ix >= self.input[2] {
                    continue;
                }
                for i in 0..per_group {
                    let w = self.weight[((c * per_group + i) * kh + ky) * kw + kx];
                    f(first + i, iy, ix, w * scale);
                }
            }
        }
    }
}
