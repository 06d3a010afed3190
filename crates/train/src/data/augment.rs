//! Random changes of training images.

use rand_core::Rng;

use crate::config::Augmentation;
use crate::random::{below, uniform};

/// Changes `image` (`[C, H, W]`, flat, already pre-processed) in place. What moves in from outside
/// repeats the nearest border value.
pub(crate) fn augment(image: &mut [f32], shape: [usize; 3], settings: &Augmentation, rng: &mut impl Rng) {
    // All draws happen whatever the settings, so that switching one part off leaves the others alone.
    let dx = uniform(rng, -1.0, 1.0) * settings.shift;
    let dy = uniform(rng, -1.0, 1.0) * settings.shift;
    let angle = uniform(rng, -1.0, 1.0) * settings.rotation.to_radians();
    let size = 1.0 + uniform(rng, -1.0, 1.0) * settings.scale;
    let mirror = settings.flip && rng.next_u32() & 1 == 1;
    let hard = uniform(rng, 0.0, 1.0) < settings.hard_cases;
    if [dx, dy, angle, size - 1.0].iter().any(|&v| v != 0.0) || mirror {
        warp(image, shape, Affine::new(dx, dy, angle, size, mirror));
    }
    if hard {
        if rng.next_u32() & 1 == 1 { border_strip(image, shape, rng) } else { stretch_contrast(image, rng) }
    }
}

/// From a position in the result to one in the source, both relative to the centre.
struct Affine {
    xx: f32,
    xy: f32,
    yx: f32,
    yy: f32,
    dx: f32,
    dy: f32,
}

impl Affine {
    fn new(dx: f32, dy: f32, angle: f32, size: f32, mirror: bool) -> Self {
        let (sin, cos) = (angle.sin() / size, angle.cos() / size);
        let sign = if mirror { -1.0 } else { 1.0 };
        Self { xx: sign * cos, xy: sign * sin, yx: -sin, yy: cos, dx, dy }
    }
}

/// Bilinear resampling.
fn warp(image: &mut [f32], [channels, height, width]: [usize; 3], map: Affine) {
    let plane = height * width;
    let source = image.to_vec();
    let (centre_x, centre_y) = ((width as f32 - 1.0) / 2.0, (height as f32 - 1.0) / 2.0);
    for row in 0..height {
        for column in 0..width {
            let (x, y) = (column as f32 - centre_x, row as f32 - centre_y);
            let sx = (map.xx * x + map.xy * y + map.dx + centre_x).clamp(0.0, width as f32 - 1.0);
            let sy = (map.yx * x + map.yy * y + map.dy + centre_y).clamp(0.0, height as f32 - 1.0);
            let (left, top) = (sx as usize, sy as usize);
            let (right, bottom) = ((left + 1).min(width - 1), (top + 1).min(height - 1));
            let (fx, fy) = (sx - left as f32, sy - top as f32);
            for channel in 0..channels {
                let at = |r: usize, c: usize| source[channel * plane + r * width + c];
                let upper = at(top, left) * (1.0 - fx) + at(top, right) * fx;
                let lower = at(bottom, left) * (1.0 - fx) + at(bottom, right) * fx;
                image[channel * plane + row * width + column] = upper * (1.0 - fy) + lower * fy;
            }
        }
    }
}

fn extremes(image: &[f32]) -> (f32, f32) {
    image.iter().fold((f32::MAX, f32::MIN), |(low, high), &v| (low.min(v), high.max(v)))
}

/// A strip along one border, up to an eighth of the side, at the darkest or brightest value.
fn border_strip(image: &mut [f32], [channels, height, width]: [usize; 3], rng: &mut impl Rng) {
    let (low, high) = extremes(image);
    let value = if rng.next_u32() & 1 == 1 { high } else { low };
    let side = below(rng, 4);
    let extent = if side < 2 { height } else { width };
    let strip = 1 + below(rng, (extent / 8).max(1));
    for channel in 0..channels {
        for row in 0..height {
            for column in 0..width {
                let inside = match side {
                    0 => row < strip,
                    1 => row + strip >= height,
                    2 => column < strip,
                    _ => column + strip >= width,
                };
                if inside {
                    image[(channel * height + row) * width + column] = value;
                }
            }
        }
    }
}

/// Contrast 1.2 to 1.8 times around the mean, kept within the image's own extremes.
fn stretch_contrast(image: &mut [f32], rng: &mut impl Rng) {
    let (low, high) = extremes(image);
    let mean = image.iter().sum::<f32>() / image.len() as f32;
    let factor = uniform(rng, 1.2, 1.8);
    for value in image {
        *value = (mean + (*value - mean) * factor).clamp(low, high);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::generator;

    fn ramp() -> Vec<f32> {
        (0..2 * 5 * 4).map(|i| i as f32).collect()
    }

    #[test]
    fn nothing_asked_nothing_changed() {
        let mut image = ramp();
        augment(&mut image, [2, 5, 4], &Augmentation::none(), &mut generator(1, "t", 0, 0));
        assert_eq!(image, ramp());
    }

    #[test]
    fn a_whole_pixel_shift_moves_values_and_repeats_the_border() {
        let mut image = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        warp(&mut image, [1, 2, 3], Affine::new(1.0, 0.0, 0.0, 1.0, false));
        assert_eq!(image, [2.0, 3.0, 3.0, 5.0, 6.0, 6.0]);
    }

    #[test]
    fn a_mirror_and_a_quarter_turn_are_exact() {
        let mut image = vec![1.0, 2.0, 3.0, 4.0];
        warp(&mut image, [1, 2, 2], Affine::new(0.0, 0.0, 0.0, 1.0, true));
        assert_eq!(image, [2.0, 1.0, 4.0, 3.0]);
        let mut image = vec![1.0, 2.0, 3.0, 4.0];
        warp(&mut image, [1, 2, 2], Affine::new(0.0, 0.0, std::f32::consts::FRAC_PI_2, 1.0, false));
        for (value, expected) in image.iter().zip([3.0, 1.0, 4.0, 2.0]) {
            assert!((value - expected).abs() < 1e-4, "{image:?}");
        }
    }

    #[test]
    fn results_stay_within_the_extremes_and_repeat_by_seed() {
        let settings = Augmentation { hard_cases: 0.5, flip: true, ..Augmentation::default() };
        for minor in 0..50 {
            let run = || {
                let mut image = ramp();
                augment(&mut image, [2, 5, 4], &settings, &mut generator(3, "t", 1, minor));
                image
            };
            assert_eq!(run(), run());
            assert!(run().iter().all(|v| (-1e-3..=39.001).contains(v)), "{:?}", run());
        }
    }
}
