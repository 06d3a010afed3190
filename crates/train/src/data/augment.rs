//! Random changes of training images.

use rand_core::Rng;

use super::images::{Affine, View};
use super::picture::Picture;
use crate::config::Augmentation;
use crate::random::{below, uniform};

/// A changed view of an image, cut to `[height, width]`: numbers from 0 to 255, `[C, height, width]`.
/// What moves in from outside the crop are the image's own pixels, beyond those its border.
pub(super) fn augmented(
    view: View<'_>,
    sides: [usize; 2],
    settings: &Augmentation,
    rng: &mut impl Rng,
) -> Vec<f32> {
    // All draws happen whatever the settings, so that switching one part off leaves the others alone.
    let dx = uniform(rng, -1.0, 1.0) * settings.shift;
    let dy = uniform(rng, -1.0, 1.0) * settings.shift;
    let angle = uniform(rng, -1.0, 1.0) * settings.rotation.to_radians();
    let size = 1.0 + uniform(rng, -1.0, 1.0) * settings.scale;
    let mirror = settings.flip && rng.next_u32() & 1 == 1;
    let hard = uniform(rng, 0.0, 1.0) < settings.hard_cases;
    let away = [uniform(rng, -1.0, 1.0), uniform(rng, -1.0, 1.0)].map(|u| u * settings.crop);
    let brightness = uniform(rng, -1.0, 1.0) * settings.brightness;
    let contrast = 1.0 + uniform(rng, -1.0, 1.0) * settings.contrast;

    let moved = [dx, dy, angle, size - 1.0, away[0], away[1]].iter().any(|&v| v != 0.0) || mirror;
    let mut values = if moved {
        let corner = |axis: usize, shift: f32| {
            let margin = view.shape[axis + 1] as f32 - sides[axis] as f32;
            (margin / 2.0).floor() + away[axis] * margin.max(0.0) / 2.0 + shift
        };
        let map = Affine::plain([corner(0, dy), corner(1, dx)], sides).turned(angle, size, mirror);
        view.resample(sides, &map)
    } else {
        view.centre(sides)
    };
    let shape = [view.shape[0], sides[0], sides[1]];
    if hard {
        match below(rng, 3) {
            0 => border_strip(&mut values, shape, rng),
            1 => marks(&mut values, shape, rng),
            _ => {
                let factor = uniform(rng, 1.2, 1.8);
                let extremes = extremes(&values);
                stretch_contrast(&mut values, factor, extremes);
            }
        }
    }
    if settings.contrast > 0.0 {
        stretch_contrast(&mut values, contrast, (0.0, 255.0));
    }
    if settings.brightness > 0.0 {
        values.iter_mut().for_each(|v| *v = (*v + 255.0 * brightness).clamp(0.0, 255.0));
    }
    // No draw where this is off, so that it leaves all that is drawn later alone.
    if settings.compress > 0.0 && uniform(rng, 0.0, 1.0) < settings.compress {
        compress(&mut values, shape, QUALITIES[0] + below(rng, QUALITIES[1] - QUALITIES[0] + 1));
    }
    values
}

/// Least and best quality of images that are compressed.
const QUALITIES: [usize; 2] = [30, 95];

/// What is left of an image after it was stored as JPEG. One that cannot be (neither one nor three channels, or too large) stays as it is.
fn compress(values: &mut [f32], shape: [usize; 3], quality: usize) {
    let pixels = values.iter().map(|v| v.round().clamp(0.0, 255.0) as u8).collect();
    if let Some(stored) = (Picture { shape, pixels }).compressed(quality) {
        values.iter_mut().zip(stored.pixels).for_each(|(value, pixel)| *value = f32::from(pixel));
    }
}

/// Makes a pre-processed image larger or smaller as a whole.
pub(super) fn amplify(input: &mut [f32], settings: &Augmentation, rng: &mut impl Rng) {
    if settings.amplify > 0.0 {
        let factor = 1.0 + settings.amplify * uniform(rng, -0.5, 1.0);
        input.iter_mut().for_each(|v| *v *= factor);
    }
}

fn extremes(image: &[f32]) -> (f32, f32) {
    image.iter().fold((f32::MAX, f32::MIN), |(low, high), &v| (low.min(v), high.max(v)))
}

/// Cells of a mark, across and down.
const CELLS: [usize; 2] = [4, 5];

/// Up to four marks, as people write letters, arrows and scores into medical images: boxes of black and white cells, at most a sixth of
/// the image's side, with the sharpest edges that there can be.
fn marks(image: &mut [f32], [channels, height, width]: [usize; 3], rng: &mut impl Rng) {
    for _ in 0..=below(rng, 4) {
        let cells = rng.next_u32();
        let largest = (height.min(width) / 6).max(1);
        let (high, wide) = (1 + below(rng, largest), 1 + below(rng, largest));
        let (top, left) =
            (below(rng, height + 1 - high.min(height)), below(rng, width + 1 - wide.min(width)));
        for channel in 0..channels {
            for row in 0..high.min(height) {
                for column in 0..wide.min(width) {
                    let cell = row * CELLS[1] / high * CELLS[0] + column * CELLS[0] / wide;
                    let value = if cells >> cell & 1 == 1 { 255.0 } else { 0.0 };
                    image[(channel * height + top + row) * width + left + column] = value;
                }
            }
        }
    }
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

/// Contrast `factor` times around the mean, kept within `low` and `high`.
fn stretch_contrast(image: &mut [f32], factor: f32, (low, high): (f32, f32)) {
    let mean = image.iter().sum::<f32>() / image.len() as f32;
    for value in image {
        *value = (mean + (*value - mean) * factor).clamp(low, high);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::generator;

    const SHAPE: [usize; 3] = [2, 7, 6];

    fn ramp() -> Vec<u8> {
        (0..SHAPE.iter().product::<usize>() as u8).collect()
    }

    fn change(settings: &Augmentation, minor: u64) -> Vec<f32> {
        let pixels = ramp();
        augmented(View { shape: SHAPE, pixels: &pixels }, [5, 4], settings, &mut generator(3, "t", 1, minor))
    }

    #[test]
    fn nothing_asked_nothing_changed() {
        let pixels = ramp();
        let centre = View { shape: SHAPE, pixels: &pixels }.centre([5, 4]);
        assert_eq!(change(&Augmentation::none(), 0), centre);
        assert_eq!(centre[..4], [7.0, 8.0, 9.0, 10.0]);
    }

    #[test]
    fn a_whole_pixel_shift_moves_values() {
        // 7 columns, crop of 5, shifted by exactly one pixel: the ramp moves by one.
        let pixels: Vec<u8> = (0..7).collect();
        let view = View { shape: [1, 1, 7], pixels: &pixels };
        let map = Affine::plain([0.0, 2.0], [1, 5]);
        assert_eq!(view.resample([1, 5], &map), [2.0, 3.0, 4.0, 5.0, 6.0]);
    }

    #[test]
    fn random_crops_stay_inside_and_reach_the_border() {
        let settings = Augmentation { crop: 1.0, ..Augmentation::none() };
        let firsts: Vec<f32> = (0..400).map(|i| change(&settings, i)[0]).collect();
        // The crop's corner moves over rows 0 to 2 and columns 0 to 2 of a ramp with 6 a row.
        let (low, high) = extremes(&firsts);
        assert!(low >= 0.0 && high <= 14.0 && low < 1.5 && high > 12.5, "{low} {high}");
    }

    #[test]
    fn brightness_and_contrast_stay_within_bytes() {
        for settings in [
            Augmentation { brightness: 0.9, ..Augmentation::none() },
            Augmentation { contrast: 0.9, ..Augmentation::none() },
        ] {
            let changed: Vec<Vec<f32>> = (0..40).map(|i| change(&settings, i)).collect();
            assert!(changed.iter().flatten().all(|v| (0.0..=255.0).contains(v)));
            assert!(changed.windows(2).any(|w| w[0] != w[1]));
        }
    }

    #[test]
    fn results_stay_within_the_extremes_and_repeat_by_seed() {
        let settings = Augmentation { hard_cases: 0.5, flip: true, ..Augmentation::default() };
        for minor in 0..50 {
            assert_eq!(change(&settings, minor), change(&settings, minor));
            assert!(change(&settings, minor).iter().all(|v| (-1e-3..=255.0).contains(v)));
        }
    }

    #[test]
    fn amplified_inputs_keep_their_shape_and_their_limits() {
        let settings = Augmentation { amplify: 0.5, ..Augmentation::none() };
        let factors: Vec<f32> = (0..200)
            .map(|minor| {
                let mut input = [1.0, -2.0];
                amplify(&mut input, &settings, &mut generator(1, "amplify", 0, minor));
                assert_eq!(input[1], -2.0 * input[0]);
                input[0]
            })
            .collect();
        let (low, high) = extremes(&factors);
        assert!((0.75..0.8).contains(&low) && (1.45..1.5).contains(&high), "{low} {high}");
        let mut input = [1.0];
        amplify(&mut input, &Augmentation::none(), &mut generator(1, "amplify", 0, 0));
        assert_eq!(input, [1.0]);
    }

    #[test]
    fn compressed_images_are_near_what_they_were_and_nearer_the_better_the_quality() {
        for channels in [1, 3] {
            let shape = [channels, 24, 20];
            let image: Vec<f32> = (0..shape.iter().product())
                .map(|i| if (i / 20 % 24 / 5 + i % 20 / 7) % 2 == 0 { 200.0 } else { 40.0 + (i % 3) as f32 })
                .collect();
            let error = |quality| {
                let mut changed = image.clone();
                compress(&mut changed, shape, quality);
                assert!(changed.iter().all(|v| (0.0..=255.0).contains(v)));
                changed.iter().zip(&image).map(|(c, v)| (c - v).abs()).sum::<f32>() / image.len() as f32
            };
            let (worst, best) = (error(QUALITIES[0]), error(QUALITIES[1]));
            assert!(best > 0.0 && best < 3.0 && worst > 1.5 * best && worst < 20.0, "{worst} {best}");
        }
        // Neither gray nor colour.
        let mut two = vec![7.5; 2 * 8 * 8];
        compress(&mut two, [2, 8, 8], 50);
        assert_eq!(two, vec![7.5; 2 * 8 * 8]);
    }

    #[test]
    fn marks_are_black_and_white_boxes_inside_the_image() {
        let shape = [2, 24, 30];
        for minor in 0..30 {
            let mut image = vec![100.0; shape.iter().product()];
            marks(&mut image, shape, &mut generator(3, "marks", 0, minor));
            let (first, second) = image.split_at(24 * 30);
            assert_eq!(first, second);
            let marked = first.iter().filter(|&&v| v != 100.0).count();
            assert!(first.iter().all(|v| [0.0, 100.0, 255.0].contains(v)));
            assert!((1..=4 * 16).contains(&marked), "{marked}");
        }
        // Smaller than a mark.
        marks(&mut [0.0], [1, 1, 1], &mut generator(3, "marks", 0, 0));
    }
}
