//! From bytes to network input.

use serde::{Deserialize, Serialize};

use super::Parts;

/// `x = (byte·scale − mean[c]) / std[c]`, per channel. Travels with every model that was trained
/// on its output, as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Factor on the byte, usually 1/255.
    pub scale: f32,
    /// Mean of the scaled values, one a channel.
    pub mean: Vec<f32>,
    /// Standard deviation of the scaled values, one a channel; never 0.
    pub std: Vec<f32>,
}

impl Preprocessing {
    /// Mean and standard deviation of the training split (of all images where there is none).
    pub(super) fn measure(parts: &Parts) -> Self {
        let [channels, height, width] = parts.shape;
        let plane = height * width;
        let all: Vec<usize>;
        let indices = if parts.train.is_empty() {
            all = (0..parts.labels.len()).collect();
            &all
        } else {
            &parts.train
        };
        let scale = 1.0 / 255.0f32;
        let (mut mean, mut std) = (Vec::new(), Vec::new());
        for channel in 0..channels {
            // Integer sums are exact, so the result does not depend on the order.
            let (mut sum, mut squares) = (0u64, 0u64);
            for &index in indices {
                let start = (index * channels + channel) * plane;
                for &byte in &parts.pixels[start..start + plane] {
                    sum += u64::from(byte);
                    squares += u64::from(byte) * u64::from(byte);
                }
            }
            let count = (indices.len() * plane) as f64;
            let average = sum as f64 / count;
            let variance = (squares as f64 / count - average * average).max(0.0);
            mean.push((average / 255.0) as f32);
            // A constant channel keeps its size instead of being blown up.
            let deviation = (variance.sqrt() / 255.0) as f32;
            std.push(if deviation < 1e-3 { 1.0 } else { deviation });
        }
        Self { scale, mean, std }
    }

    /// Fills `out` (`[C, H, W]`, flat) from the bytes of one image of the same layout. Where there
    /// are more channels than means, the last mean holds.
    pub fn apply(&self, pixels: &[u8], out: &mut [f32]) {
        let channels = self.mean.len().min(self.std.len()).max(1);
        let plane = (pixels.len() / channels).max(1);
        for ((i, &byte), value) in pixels.iter().enumerate().zip(out) {
            let channel = (i / plane).min(channels - 1);
            let mean = self.mean.get(channel).copied().unwrap_or(0.0);
            let std = self.std.get(channel).copied().unwrap_or(1.0);
            *value = (f32::from(byte) * self.scale - mean) / std;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn training_images_come_out_with_zero_mean_and_unit_variance() {
        let parts = Parts {
            shape: [2, 1, 2],
            pixels: vec![0, 100, 50, 70, 200, 100, 10, 30],
            labels: vec![0, 0],
            train: vec![0, 1],
            ..Parts::default()
        };
        let preprocessing = Preprocessing::measure(&parts);
        for channel in 0..2 {
            let mut values = Vec::new();
            for image in parts.pixels.chunks(4) {
                let mut out = [0.0; 4];
                preprocessing.apply(image, &mut out);
                values.extend_from_slice(&out[channel * 2..channel * 2 + 2]);
            }
            let mean = values.iter().sum::<f32>() / 4.0;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 4.0;
            assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-5, "{values:?}");
        }
    }

    #[test]
    fn a_constant_channel_stays_finite() {
        let parts = Parts {
            shape: [1, 1, 1],
            pixels: vec![9, 9],
            labels: vec![0, 0],
            train: vec![0, 1],
            ..Parts::default()
        };
        let mut out = [1.0];
        Preprocessing::measure(&parts).apply(&[9], &mut out);
        assert!(out[0].abs() < 1e-6);
    }
}
