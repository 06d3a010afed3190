//! How images become network input: what a user chooses when a data set is opened.

use serde::{Deserialize, Serialize};

use super::{DataError, Geometry};

/// Choices about a data set. The defaults take images as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataOptions {
    /// Size of the network input in pixels; that of the images where none is given, which then must
    /// all have the same.
    pub image_size: Option<ImageSize>,
    /// Images are scaled so that their short side has this many pixels, before the crop to
    /// `image_size`. By default 8/7 of the input (256 for 224), or the input itself where the images
    /// have that size already.
    pub resize: Option<usize>,
    /// Grey or colour input.
    pub color: Color,
    /// Where mean and deviation come from.
    pub normalise: Normalise,
    /// Seed and shares of splits that the data set does not bring along.
    pub split: SplitRule,
    /// Refuse data with the same image or patient in two splits instead of reporting it.
    pub strict: bool,
    /// Class names in the order of the network's scores, where a network says them; labels outside
    /// are refused.
    #[serde(skip)]
    pub classes: Option<Vec<String>>,
    /// Leave arrays (idx, npz, CIFAR, …) as they are: size and colour are for image files.
    #[serde(skip)]
    pub files_only: bool,
}

impl DataOptions {
    /// The options that reproduce the input that a network was trained on.
    #[must_use]
    pub fn for_network(geometry: Geometry, classes: Option<Vec<String>>) -> Self {
        Self {
            image_size: Some(ImageSize::Sides([geometry.height, geometry.width])),
            resize: Some(geometry.resize),
            color: if geometry.channels == 1 { Color::Gray } else { Color::Rgb },
            classes,
            ..Self::default()
        }
    }

    pub(super) fn check(&self) -> Result<(), DataError> {
        let refuse = |expected: &str, found: String| Err(DataError::format("data options", expected, found));
        let side = 1..=MAX_SIDE;
        if let Some(size) = self.image_size
            && !size.sides().iter().all(|s| side.contains(s))
        {
            return refuse(&format!("image_size from 1 to {MAX_SIDE}"), format!("{:?}", size.sides()));
        }
        if let Some(resize) = self.resize {
            if !side.contains(&resize) {
                return refuse(&format!("resize from 1 to {MAX_SIDE}"), resize.to_string());
            }
            if self.image_size.is_none() {
                return refuse("an image_size where resize is given", format!("resize {resize} alone"));
            }
        }
        let rule = &self.split;
        let shares = [rule.validation, rule.test];
        if shares.iter().any(|s| !(0.0..1.0).contains(s)) || shares.iter().sum::<f32>() >= 1.0 {
            return refuse("split shares from 0, below 1 together", format!("{shares:?}"));
        }
        Ok(())
    }
}

/// Largest side of a network input or of a stored image, in pixels.
pub const MAX_SIDE: usize = 16_384;

/// Size of the network input: `224`, or `[height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ImageSize {
    /// A square of this side.
    Square(usize),
    /// Height and width.
    Sides([usize; 2]),
}

impl ImageSize {
    /// Height and width.
    #[must_use]
    pub fn sides(self) -> [usize; 2] {
        match self {
            Self::Square(side) => [side; 2],
            Self::Sides(sides) => sides,
        }
    }
}

/// Channels of the network input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Color {
    /// As the images: one channel where all of them are grey, else three.
    #[default]
    Auto,
    /// One channel; colour images become their luminance.
    Gray,
    /// Three channels; grey images are repeated.
    Rgb,
}

/// Where mean and standard deviation of the input come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalise {
    /// Measured on the training split.
    #[default]
    Data,
    /// Those of ImageNet (0.485, 0.456, 0.406; 0.229, 0.224, 0.225), for networks that start from its
    /// weights. One channel takes their means.
    Imagenet,
    /// Each image is brought to mean 0 and deviation 1 by itself and cut at three deviations, which also suits weights from
    /// ImageNet: for images of many devices.
    Image,
}

/// How images without a split are shared out: by patient where patients are known, else image by
/// image, every class in proportion.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SplitRule {
    /// Share of validation images.
    pub validation: f32,
    /// Share of test images.
    pub test: f32,
    /// Fixes the choice.
    pub seed: u64,
}

impl Default for SplitRule {
    fn default() -> Self {
        Self { validation: 0.1, test: 0.2, seed: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_survive_toml_and_unknown_keys_are_named() {
        let options: DataOptions =
            toml::from_str("image_size = 224\ncolor = \"rgb\"\nnormalise = \"imagenet\"\n[split]\nseed = 3")
                .unwrap();
        assert_eq!(options.image_size.unwrap().sides(), [224, 224]);
        assert_eq!((options.color, options.split.seed), (Color::Rgb, 3));
        assert_eq!(toml::from_str::<DataOptions>(&toml::to_string(&options).unwrap()).unwrap(), options);
        let message = toml::from_str::<DataOptions>("image_siz = 3").unwrap_err().to_string();
        assert!(message.contains("image_siz"), "{message}");
    }

    #[test]
    fn values_out_of_range_are_named() {
        let cases: [(&str, &str); 4] = [
            ("image_size = 0", "image_size"),
            ("image_size = 8\nresize = 999999", "resize"),
            ("resize = 64", "an image_size"),
            ("[split]\nvalidation = 0.5\ntest = 0.6", "shares"),
        ];
        for (text, needle) in cases {
            let message = toml::from_str::<DataOptions>(text).unwrap().check().unwrap_err().to_string();
            assert!(message.contains(needle), "{message} lacks {needle}");
        }
    }
}
