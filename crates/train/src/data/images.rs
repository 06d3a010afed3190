//! Decoded images in memory, and the views of them that become network input.

use super::picture::Picture;

/// Decoded images, one after another, each `[C, H, W]` bytes. Sizes may differ between images.
#[derive(Clone, Debug, Default)]
pub struct Images {
    pixels: Vec<u8>,
    places: Vec<Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    start: usize,
    shape: [usize; 3],
}

/// One image: bytes `[C, H, W]`.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// `[C, H, W]`.
    pub shape: [usize; 3],
    /// As many bytes as the shape says.
    pub pixels: &'a [u8],
}

impl Images {
    /// Images of one shape, `[C, H, W]`; what does not fill an image is left out.
    #[must_use]
    pub fn uniform(shape: [usize; 3], pixels: Vec<u8>) -> Self {
        let size: usize = shape.iter().product();
        let count = pixels.len().checked_div(size).unwrap_or(0);
        let places = (0..count).map(|i| Place { start: i * size, shape }).collect();
        Self { pixels, places }
    }

    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self { pixels: Vec::with_capacity(bytes), places: Vec::new() }
    }

    pub(super) fn push(&mut self, picture: &Picture) {
        self.put(picture.shape, &picture.pixels);
    }

    pub(super) fn put(&mut self, shape: [usize; 3], pixels: &[u8]) {
        self.places.push(Place { start: self.pixels.len(), shape });
        self.pixels.extend_from_slice(pixels);
    }

    /// Number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// No image at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// All pixels, in order.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.pixels
    }

    /// The image at `index`; none where there is none.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<View<'_>> {
        let Place { start, shape } = *self.places.get(index)?;
        let pixels = self.pixels.get(start..start + shape.iter().product::<usize>())?;
        Some(View { shape, pixels })
    }

    /// Every image in order.
    pub fn iter(&self) -> impl Iterator<Item = View<'_>> {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

impl View<'_> {
    /// The central `height`×`width` pixels as numbers from 0 to 255, `[C, height, width]`. Where the
    /// image is smaller, its border is repeated.
    pub(super) fn centre(&self, [height, width]: [usize; 2]) -> Vec<f32> {
        let [_, rows, columns] = self.shape;
        if rows < height || columns < width {
            let offset = |have: usize, want: usize| (have as f32 - want as f32) / 2.0;
            let corner = [offset(rows, height).floor(), offset(columns, width).floor()];
            return self.resample([height, width], &Affine::plain(corner, [height, width]));
        }
        let (top, left) = ((rows - height) / 2, (columns - width) / 2);
        let mut values = Vec::with_capacity(self.shape[0] * height * width);
        for plane in self.pixels.chunks_exact(rows * columns) {
            for row in plane.chunks_exact(columns).skip(top).take(height) {
                values.extend(row[left..left + width].iter().map(|&b| f32::from(b)));
            }
        }
        values
    }

    /// The view under `map`, bilinear, the border repeated outside; numbers from 0 to 255.
    pub(super) fn resample(&self, [height, width]: [usize; 2], map: &Affine) -> Vec<f32> {
        let [channels, rows, columns] = self.shape;
        let (plane, out) = (rows * columns, height * width);
        let mut values = vec![0.0; channels * out];
        let (centre_x, centre_y) = ((width as f32 - 1.0) / 2.0, (height as f32 - 1.0) / 2.0);
        let (last_x, last_y) = (columns as f32 - 1.0, rows as f32 - 1.0);
        for row in 0..height {
            for column in 0..width {
                let (x, y) = (column as f32 - centre_x, row as f32 - centre_y);
                let sx = (map.xx * x + map.xy * y + map.x).clamp(0.0, last_x);
                let sy = (map.yx * x + map.yy * y + map.y).clamp(0.0, last_y);
                let (left, top) = (sx as usize, sy as usize);
                let (right, bottom) = ((left + 1).min(columns - 1), (top + 1).min(rows - 1));
                let (fx, fy) = (sx - left as f32, sy - top as f32);
                for channel in 0..channels {
                    let source = &self.pixels[channel * plane..(channel + 1) * plane];
                    let at = |r: usize, c: usize| f32::from(source[r * columns + c]);
                    let upper = at(top, left) * (1.0 - fx) + at(top, right) * fx;
                    let lower = at(bottom, left) * (1.0 - fx) + at(bottom, right) * fx;
                    values[channel * out + row * width + column] = upper * (1.0 - fy) + lower * fy;
                }
            }
        }
        values
    }
}

/// From a position in the result, relative to its centre, to one in the image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Affine {
    pub(super) xx: f32,
    pub(super) xy: f32,
    pub(super) yx: f32,
    pub(super) yy: f32,
    /// Where the centre of the result lies in the image.
    pub(super) x: f32,
    pub(super) y: f32,
}

impl Affine {
    /// A crop whose upper left corner lies at `[row, column]`.
    pub(super) fn plain([top, left]: [f32; 2], [height, width]: [usize; 2]) -> Self {
        let centre = |from: f32, extent: usize| from + (extent as f32 - 1.0) / 2.0;
        Self { xx: 1.0, xy: 0.0, yx: 0.0, yy: 1.0, x: centre(left, width), y: centre(top, height) }
    }

    /// Turned by `angle` (radians), enlarged by `size`, mirrored left to right, around the centre.
    pub(super) fn turned(self, angle: f32, size: f32, mirror: bool) -> Self {
        let (sin, cos) = (angle.sin() / size, angle.cos() / size);
        let sign = if mirror { -1.0 } else { 1.0 };
        Self { xx: sign * cos, xy: sign * sin, yx: -sin, yy: cos, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TILE: [u8; 6] = [1, 2, 3, 4, 5, 6];

    fn view(shape: [usize; 3], pixels: &[u8]) -> View<'_> {
        View { shape, pixels }
    }

    #[test]
    fn images_of_different_size_come_back_as_they_went_in() {
        let mut images = Images::default();
        images.push(&Picture { shape: [1, 2, 3], pixels: TILE.to_vec() });
        images.push(&Picture { shape: [3, 1, 1], pixels: vec![7, 8, 9] });
        assert_eq!(images.get(1).unwrap().pixels, [7, 8, 9]);
        assert_eq!(images.get(0).unwrap().shape, [1, 2, 3]);
        assert!(images.get(2).is_none());
        assert_eq!(Images::uniform([1, 1, 2], TILE.to_vec()).len(), 3);
        assert!(Images::uniform([0, 1, 2], TILE.to_vec()).is_empty());
    }

    #[test]
    fn the_centre_is_cut_out_and_small_images_repeat_their_border() {
        let wide: Vec<u8> = (0..15).collect();
        assert_eq!(view([1, 3, 5], &wide).centre([1, 3]), [6.0, 7.0, 8.0]);
        assert_eq!(view([3, 1, 2], &TILE).centre([1, 2]), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(view([1, 1, 2], &[3, 9]).centre([3, 2]), [3.0, 9.0, 3.0, 9.0, 3.0, 9.0]);
    }

    #[test]
    fn a_plain_map_is_a_crop_and_moving_it_brings_in_real_pixels() {
        let wide: Vec<u8> = (0..15).collect();
        let view = view([1, 3, 5], &wide);
        assert_eq!(view.resample([2, 2], &Affine::plain([1.0, 3.0], [2, 2])), [8.0, 9.0, 13.0, 14.0]);
        assert_eq!(view.resample([1, 2], &Affine::plain([0.0, 0.5], [1, 2])), [0.5, 1.5]);
        assert_eq!(view.resample([1, 2], &Affine::plain([2.0, 4.0], [1, 2])), [14.0, 14.0]);
    }

    #[test]
    fn a_mirror_and_a_quarter_turn_are_exact() {
        let square = view([1, 2, 2], &[1, 2, 3, 4]);
        let plain = Affine::plain([0.0, 0.0], [2, 2]);
        assert_eq!(square.resample([2, 2], &plain.turned(0.0, 1.0, true)), [2.0, 1.0, 4.0, 3.0]);
        let turned = square.resample([2, 2], &plain.turned(std::f32::consts::FRAC_PI_2, 1.0, false));
        for (value, expected) in turned.iter().zip([3.0, 1.0, 4.0, 2.0]) {
            assert!((value - expected).abs() < 1e-4, "{turned:?}");
        }
    }
}
