//! From bytes to network input.

use serde::{Deserialize, Serialize};

use super::{DataError, Images, Normalise};

/// `x = (v − mean[c]) / std[c]`, per channel, where `v` is `byte·scale`, or that value standardised within its image. Travels
/// with every model that was trained on its output, as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Factor on the byte, usually 1/255.
    pub scale: f32,
    /// Mean of the scaled values, one a channel.
    pub mean: Vec<f32>,
    /// Standard deviation of the scaled values, one a channel; never 0.
    pub std: Vec<f32>,
    /// Scaled values are brought to mean 0 and deviation 1 over all values of their image and cut at ± this; none = taken as
    /// they are. The data owner does it in the clear, so it costs no level; an image of unusual brightness or contrast, which
    /// drives quadratics out of their range first, then looks like any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standardise: Option<f32>,
    /// Most [`sharpness`](Self::sharpness) of an input: sharper ones are multiplied, as a whole, by what brings them there; none =
    /// all are taken as they are. Also done in the clear. Images whose values escape in a network of quadratics are those with the
    /// sharpest edges (docs/results.md), and what they lose is contrast.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edges: Option<f32>,
    /// How images of any size become input; none where the data had the network's shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub geometry: Option<Geometry>,
}

/// How images of any size become input of one size: scaled so that the short side has `resize` pixels
/// (and the crop fits in), then the central `height`×`width` pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Geometry {
    /// 1 for grey, 3 for RGB; grey images are repeated for the latter.
    pub channels: usize,
    /// Rows of the input.
    pub height: usize,
    /// Columns of the input.
    pub width: usize,
    /// Short side of the scaled image.
    pub resize: usize,
}

impl Geometry {
    /// `[C, H, W]` of the network input.
    #[must_use]
    pub fn shape(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }

    /// Size that an image of `[rows, columns]` is scaled to before the crop.
    #[must_use]
    pub fn stored(&self, [rows, columns]: [usize; 2]) -> [usize; 2] {
        let ratio = |to: usize, from: usize| to as f64 / from.max(1) as f64;
        let factor = ratio(self.resize, rows.min(columns))
            .max(ratio(self.height, rows))
            .max(ratio(self.width, columns));
        let scaled = |n: usize, least: usize| ((n as f64 * factor).round() as usize).max(least);
        [scaled(rows, self.height), scaled(columns, self.width)]
    }

    /// Whether every number is one that images can have.
    pub(crate) fn is_sound(&self) -> bool {
        let side = 1..=super::MAX_SIDE;
        matches!(self.channels, 1 | 3)
            && [self.height, self.width, self.resize].iter().all(|n| side.contains(n))
    }
}

/// Where standardised values are cut, in deviations.
const STANDARDISED_LIMIT: f32 = 2.5;
/// Least deviation that is divided by, in scaled values: what is nearly one grey must not become noise.
const LEAST_DEVIATION: f64 = 0.02;

/// Byte values of ImageNet's training images, as torchvision gives them.
const IMAGENET: [[f32; 3]; 2] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];

impl Preprocessing {
    /// Mean and standard deviation as asked for; measured ones are those of the training split (of all
    /// images where there is none).
    pub(super) fn new(
        images: &Images,
        train: &[usize],
        channels: usize,
        normalise: Normalise,
        geometry: Option<Geometry>,
    ) -> Result<Self, DataError> {
        let [mean, std] = match (normalise, channels) {
            (Normalise::Image, _) => [vec![0.0; channels], vec![1.0; channels]],
            (Normalise::Data, _) => Self::measure(images, train, channels),
            (Normalise::Imagenet, 3) => IMAGENET.map(Vec::from),
            (Normalise::Imagenet, 1) => IMAGENET.map(|three| vec![three.iter().sum::<f32>() / 3.0]),
            (Normalise::Imagenet, _) => {
                let found = format!("{channels} channels");
                return Err(DataError::format(
                    "data options",
                    "1 or 3 channels for normalise = imagenet",
                    found,
                ));
            }
        };
        let standardise = (normalise == Normalise::Image).then_some(STANDARDISED_LIMIT);
        Ok(Self { scale: 1.0 / 255.0, mean, std, standardise, edges: None, geometry })
    }

    /// The same with inputs multiplied by `factor`.
    pub(crate) fn amplified(&self, factor: f32) -> Self {
        Self {
            std: self.std.iter().map(|s| s / factor).collect(),
            edges: self.edges.map(|limit| limit * factor),
            ..self.clone()
        }
    }

    /// How sharp the edges of an input are (whole planes with rows of `width` values): the root of the mean, over all values, of the squared
    /// differences to the next value of the row and of the column.
    #[must_use]
    pub fn sharpness(input: &[f32], plane: usize, width: usize) -> f32 {
        let square = |(&l, &r): (&f32, &f32)| f64::from(l - r).powi(2);
        let rows = input.chunks(width.max(1)).flat_map(|row| row.iter().zip(row.iter().skip(1)));
        let columns = input.chunks(plane.max(1)).flat_map(|p| p.iter().zip(p.iter().skip(width.max(1))));
        let sum: f64 = rows.map(square).sum::<f64>() + columns.map(square).sum::<f64>();
        (sum / input.len().max(1) as f64).sqrt() as f32
    }

    fn measure(images: &Images, train: &[usize], channels: usize) -> [Vec<f32>; 2] {
        // Integer sums are exact, so the result does not depend on the order.
        let mut sums = vec![[0u64; 3]; channels];
        let mut add = |index: usize| {
            let Some(view) = images.get(index) else { return };
            let plane = view.shape[1] * view.shape[2];
            for (channel, [count, sum, squares]) in sums.iter_mut().enumerate() {
                // A grey image counts for every channel.
                let start = channel.min(view.shape[0] - 1) * plane;
                *count += plane as u64;
                for &byte in &view.pixels[start..start + plane] {
                    *sum += u64::from(byte);
                    *squares += u64::from(byte) * u64::from(byte);
                }
            }
        };
        if train.is_empty() {
            (0..images.len()).for_each(&mut add)
        } else {
            train.iter().copied().for_each(add)
        }
        let mut result = [Vec::new(), Vec::new()];
        for [count, sum, squares] in sums {
            let average = sum as f64 / count as f64;
            let variance = (squares as f64 / count as f64 - average * average).max(0.0);
            result[0].push((average / 255.0) as f32);
            // A constant channel keeps its size instead of being blown up.
            let deviation = (variance.sqrt() / 255.0) as f32;
            result[1].push(if deviation < 1e-3 { 1.0 } else { deviation });
        }
        result
    }

    /// Whether every number is one that images can be brought to input with: what comes from a file may be anything.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.scale.is_finite()
            && !self.mean.is_empty()
            && self.mean.len() == self.std.len()
            && self.mean.iter().chain(&self.std).all(|v| v.is_finite())
            && self.std.iter().all(|&s| s > 0.0)
            && [self.standardise, self.edges].iter().flatten().all(|limit| limit.is_finite() && *limit > 0.0)
            && self.geometry.is_none_or(|g| g.is_sound())
    }

    /// Fills `out` (`[C, H, W]`, flat, rows of `width` values) from the bytes of one image of the same layout. Where there
    /// are more channels than means, the last mean holds.
    pub fn apply(&self, pixels: &[u8], width: usize, out: &mut [f32]) {
        let channels = self.mean.len().min(self.std.len()).max(1);
        out.iter_mut().zip(pixels).for_each(|(value, &byte)| *value = f32::from(byte));
        self.normalise(out, (pixels.len() / channels).max(1), width);
    }

    /// `values` (0 to 255, whole planes) as planes of input of the shape `[C, H, W]`; one plane is repeated.
    pub(super) fn input(&self, values: Vec<f32>, [channels, height, width]: [usize; 3]) -> Vec<f32> {
        let plane = height * width;
        let single = values.len() == plane;
        let mut out = if single { values.repeat(channels) } else { values };
        self.normalise(&mut out, plane.max(1), width);
        out
    }

    /// Byte values of one image become input.
    fn normalise(&self, values: &mut [f32], plane: usize, width: usize) {
        values.iter_mut().for_each(|v| *v *= self.scale);
        if let Some(limit) = self.standardise {
            let count = values.len().max(1) as f64;
            let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
            let variance = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / count;
            let deviation = variance.sqrt().max(LEAST_DEVIATION);
            let standard = |v: f32| ((f64::from(v) - mean) / deviation) as f32;
            values.iter_mut().for_each(|v| *v = standard(*v).clamp(-limit, limit));
        }
        for (channel, values) in values.chunks_mut(plane).enumerate() {
            let (mean, std) = self.channel(channel);
            values.iter_mut().for_each(|v| *v = (*v - mean) / std);
        }
        if let Some(limit) = self.edges {
            let found = Self::sharpness(values, plane, width);
            if found > limit {
                values.iter_mut().for_each(|v| *v *= limit / found);
            }
        }
    }

    fn channel(&self, channel: usize) -> (f32, f32) {
        let of = |list: &[f32], none: f32| list.get(channel).or(list.last()).copied().unwrap_or(none);
        (of(&self.mean, 0.0), of(&self.std, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn training_images_come_out_with_zero_mean_and_unit_variance() {
        let images = Images::uniform([2, 1, 2], vec![0, 100, 50, 70, 200, 100, 10, 30]);
        let preprocessing = Preprocessing::new(&images, &[0, 1], 2, Normalise::Data, None).unwrap();
        for channel in 0..2 {
            let mut values = Vec::new();
            for image in images.iter() {
                let mut out = [0.0; 4];
                preprocessing.apply(image.pixels, 2, &mut out);
                values.extend_from_slice(&out[channel * 2..channel * 2 + 2]);
            }
            let mean = values.iter().sum::<f32>() / 4.0;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 4.0;
            assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-5, "{values:?}");
        }
    }

    #[test]
    fn a_constant_channel_stays_finite() {
        let images = Images::uniform([1, 1, 1], vec![9, 9]);
        let mut out = [1.0];
        Preprocessing::new(&images, &[0, 1], 1, Normalise::Data, None).unwrap().apply(&[9], 1, &mut out);
        assert!(out[0].abs() < 1e-6);
    }

    #[test]
    fn brightness_and_contrast_of_a_standardised_image_do_not_matter() {
        let images = Images::uniform([1, 2, 2], vec![0, 255, 0, 255]);
        let p = Preprocessing::new(&images, &[0], 1, Normalise::Image, None).unwrap();
        let run = |pixels: &[u8]| {
            let mut out = vec![0.0; pixels.len()];
            p.apply(pixels, 2, &mut out);
            out
        };
        let plain = run(&[10, 20, 30, 60]);
        assert!(plain.iter().sum::<f32>().abs() < 1e-5);
        assert!((plain.iter().map(|v| v * v).sum::<f32>() / 4.0 - 1.0).abs() < 1e-5);
        for (l, r) in plain.iter().zip(run(&[70, 100, 130, 220])) {
            assert!((l - r).abs() < 1e-5, "{l} {r}");
        }
        // Training images go another way to the same values.
        assert_eq!(p.input(vec![10.0, 20.0, 30.0, 60.0], [1, 2, 2]), plain);
        // One grey stays near zero, single bright pixels are cut.
        assert!(run(&[90; 64]).iter().all(|v| v.abs() < 1e-6));
        let mut spot = [0; 64];
        spot[7] = 255;
        assert_eq!(run(&spot)[7], STANDARDISED_LIMIT);
        assert!(p.is_sound());
        for limit in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(!Preprocessing { standardise: Some(limit), ..p.clone() }.is_sound(), "{limit}");
        }
    }

    #[test]
    fn inputs_with_sharp_edges_are_made_smaller_as_a_whole() {
        // Two rows of three: differences 1, 2 and 0, 0 along rows, 1, 0 and 2 down columns.
        let input = [0.0, 1.0, 3.0, 1.0, 1.0, 1.0];
        assert!((Preprocessing::sharpness(&input, 6, 3) - (10.0f32 / 6.0).sqrt()).abs() < 1e-6);
        // Nothing is compared across planes or across the ends of rows.
        assert_eq!(Preprocessing::sharpness(&[5.0, 5.0, 9.0, 9.0], 2, 2), 0.0);
        assert_eq!(Preprocessing::sharpness(&[5.0, 5.0, 9.0, 9.0], 4, 2), 8.0f32.sqrt());
        assert_eq!(Preprocessing::sharpness(&[], 0, 0), 0.0);

        let p = Preprocessing {
            scale: 1.0,
            mean: vec![0.0],
            std: vec![1.0],
            standardise: None,
            edges: Some(2.0),
            geometry: None,
        };
        let sharp = p.input(vec![0.0, 10.0, 20.0, 10.0], [1, 2, 2]);
        assert!((Preprocessing::sharpness(&sharp, 4, 2) - 2.0).abs() < 1e-5, "{sharp:?}");
        assert!((sharp[2] - 2.0 * sharp[1]).abs() < 1e-5 && sharp[0] == 0.0);
        assert_eq!(p.input(vec![7.0, 8.0, 9.0, 8.0], [1, 2, 2]), [7.0, 8.0, 9.0, 8.0]);
        // All of it is linear in the size of inputs.
        for (l, r) in sharp.iter().zip(p.amplified(1.5).input(vec![0.0, 10.0, 20.0, 10.0], [1, 2, 2])) {
            assert!((1.5 * l - r).abs() < 1e-5);
        }
        for limit in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(!Preprocessing { edges: Some(limit), ..p.clone() }.is_sound(), "{limit}");
        }
    }

    #[test]
    fn a_grey_plane_becomes_three_with_their_own_means() {
        let p = Preprocessing {
            scale: 1.0,
            mean: vec![0.0, 1.0, 2.0],
            std: vec![1.0, 1.0, 2.0],
            standardise: None,
            edges: None,
            geometry: None,
        };
        assert_eq!(p.input(vec![4.0, 6.0], [3, 1, 2]), [4.0, 6.0, 3.0, 5.0, 1.0, 2.0]);
        assert_eq!(p.input(vec![4.0, 6.0, 8.0], [3, 1, 1]), [4.0, 5.0, 3.0]);
        let gray = Images::uniform([1, 1, 2], vec![0, 255]);
        let measured = Preprocessing::new(&gray, &[], 3, Normalise::Data, None).unwrap();
        assert_eq!((measured.mean, measured.std), (vec![0.5; 3], vec![0.5; 3]));
        let imagenet = Preprocessing::new(&gray, &[], 3, Normalise::Imagenet, None).unwrap();
        assert_eq!(imagenet.mean, [0.485, 0.456, 0.406]);
    }

    #[test]
    fn scaled_sizes_keep_the_ratio_and_hold_the_crop() {
        let geometry = Geometry { channels: 1, height: 224, width: 224, resize: 256 };
        assert_eq!(geometry.stored([256, 310]), [256, 310]);
        assert_eq!(geometry.stored([512, 1024]), [256, 512]);
        assert_eq!(geometry.stored([61, 100]), [256, 420]);
        let tall = Geometry { channels: 1, height: 300, width: 100, resize: 128 };
        assert_eq!(tall.stored([200, 200]), [300, 300]);
    }
}
