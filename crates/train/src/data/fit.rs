//! Which geometry a set of images gets, and arrays brought into it.

use rayon::prelude::*;

use super::picture::{MAX_PIXELS, Picture};
use super::{Color, DataError, DataOptions, Geometry, Images, MAX_BYTES};

/// The geometry of images of these sizes. `files`: images of a folder, which get a margin around the
/// crop where none is asked for.
pub(super) fn resolve(
    name: &str,
    options: &DataOptions,
    sizes: &[[usize; 2]],
    gray: bool,
    files: bool,
) -> Result<Geometry, DataError> {
    let channels = match options.color {
        Color::Auto if gray => 1,
        Color::Gray => 1,
        Color::Auto | Color::Rgb => 3,
    };
    let first = sizes.first().copied().unwrap_or_default();
    let other = sizes.iter().find(|&&s| s != first);
    let show = |[rows, columns]: [usize; 2]| format!("{columns}×{rows}");
    let Some(size) = options.image_size else {
        return match other {
            None => {
                Ok(Geometry { channels, height: first[0], width: first[1], resize: first[0].min(first[1]) })
            }
            Some(&other) => Err(DataError::format(
                name,
                "images of one size, or an image size to bring them to (--image-size)",
                format!("{} and {}", show(first), show(other)),
            )),
        };
    };
    let [height, width] = size.sides();
    let short = height.min(width);
    let fits = other.is_none() && first == [height, width];
    let resize = options.resize.unwrap_or(if fits || !files { short } else { (8 * short + 3) / 7 });
    Ok(Geometry { channels, height, width, resize })
}

/// Arrays of one shape in another geometry; grey ones are not repeated here.
pub(super) fn scale(name: &str, images: &Images, geometry: Geometry) -> Result<Images, DataError> {
    let sizes: Vec<[usize; 3]> = images
        .iter()
        .map(|view| {
            let [rows, columns] = geometry.stored([view.shape[1], view.shape[2]]);
            [view.shape[0].min(geometry.channels), rows, columns]
        })
        .collect();
    let bytes = |s: &[usize; 3]| s.iter().map(|&d| d as u64).product::<u64>();
    let total: u64 = sizes.iter().map(bytes).sum();
    if total > MAX_BYTES || sizes.iter().any(|s| bytes(s) > 3 * MAX_PIXELS) {
        let expected = format!("at most {MAX_BYTES} bytes of scaled images");
        return Err(DataError::format(name, expected, total.to_string()));
    }
    let mut scaled = Images::with_capacity(usize::try_from(total).unwrap_or(0));
    let indices: Vec<usize> = (0..images.len()).collect();
    for chunk in indices.chunks(1024) {
        let pictures: Vec<Option<Picture>> = chunk
            .par_iter()
            .map(|&index| {
                let view = images.get(index)?;
                let picture = Picture { shape: view.shape, pixels: view.pixels.to_vec() };
                let picture = if geometry.channels == 1 { picture.luminance() } else { picture };
                Some(picture.scaled(geometry.stored([view.shape[1], view.shape[2]])))
            })
            .collect();
        pictures.iter().flatten().for_each(|picture| scaled.push(picture));
    }
    Ok(scaled)
}

#[cfg(test)]
mod tests {
    use super::super::ImageSize;
    use super::*;

    #[test]
    fn geometry_follows_sizes_and_options() {
        let sized = |image_size: Option<usize>, resize, color| DataOptions {
            image_size: image_size.map(ImageSize::Square),
            resize,
            color,
            ..DataOptions::default()
        };
        let of = |options: &DataOptions, sizes: &[[usize; 2]], gray, files| {
            resolve("t", options, sizes, gray, files).map(|g| (g.shape(), g.resize))
        };
        let mixed = [[256, 300], [256, 310]];
        let auto = sized(Some(224), None, Color::Auto);
        assert_eq!(of(&auto, &mixed, true, true).unwrap(), ([1, 224, 224], 256));
        assert_eq!(of(&auto, &mixed, false, false).unwrap(), ([3, 224, 224], 224));
        assert_eq!(of(&auto, &[[224, 224]; 2], true, true).unwrap(), ([1, 224, 224], 224));
        let rgb = sized(Some(96), Some(120), Color::Rgb);
        assert_eq!(of(&rgb, &mixed, true, true).unwrap(), ([3, 96, 96], 120));
        let plain = sized(None, None, Color::Gray);
        assert_eq!(of(&plain, &[[5, 9]; 3], false, true).unwrap(), ([1, 5, 9], 5));
        let message = of(&plain, &mixed, true, true).unwrap_err().to_string();
        assert!(message.contains("300×256 and 310×256") && message.contains("--image-size"), "{message}");
    }

    #[test]
    fn arrays_are_scaled_and_lose_colour_where_asked() {
        let images = Images::uniform([3, 2, 2], vec![10; 24]);
        let gray = Geometry { channels: 1, height: 4, width: 4, resize: 4 };
        let scaled = scale("t", &images, gray).unwrap();
        assert_eq!((scaled.len(), scaled.get(1).unwrap().shape), (2, [1, 4, 4]));
        assert!(scaled.get(1).unwrap().pixels.iter().all(|&b| (9..=10).contains(&b)));
    }
}
