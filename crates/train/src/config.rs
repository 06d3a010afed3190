//! Settings of training and conversion. Every part of the method has its own switch, so that an
//! ablation is a change of configuration. The defaults suit LeNet-sized networks on small images.

mod convert;
mod method;
mod settings;

use serde::{Deserialize, Serialize};

use crate::error::TrainError;

pub use convert::{
    ActivationConfig, ActivationForm, BatchNormPolicy, ConvertConfig, Distillation, Granularity,
    InitialWeights, NormaliseConfig, RangeControl, Reconstruction, StartCoefficients, Transition,
    TransitionKind,
};
pub use method::{Ablation, Method};
pub use settings::{SettingsError, merge, overlay};

/// Settings of teacher training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Fixes weights, order and augmentation.
    pub seed: u64,
    /// Passes over the training split.
    pub epochs: usize,
    /// Images a step.
    pub batch: usize,
    /// The run ends after this many epochs in a row without a better network; 0 = never.
    pub patience: usize,
    /// Start from fresh random weights (He et al. 2015) instead of those in the graph.
    pub initialise: bool,
    /// Share of the target probability spread over all classes.
    pub label_smoothing: f32,
    /// First epochs in which only the last layer with weights is trained: a fresh one would otherwise spoil the
    /// features of a network with given weights (Kumar et al., arXiv 2202.10054).
    pub head_epochs: usize,
    /// The learning rate of these epochs. That of the optimiser, warm-up included, begins after them.
    pub head_rate: f32,
    /// Passes over the training images on which the last layer is fitted by itself, before the first epoch where the
    /// network comes with weights and after the last one: in the first pass as they are, in others changed as in training.
    /// 0 = never. It takes place where it costs little, and is kept where the validation split gains.
    pub head_fit: usize,
    /// By what the epoch is chosen whose network is kept.
    pub keep: Keep,
    /// Step sizes.
    pub optimiser: OptimiserConfig,
    /// Changes made to training images.
    pub augmentation: Augmentation,
    /// What to do when values are not finite.
    pub guard: GuardConfig,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            epochs: 40,
            batch: 50,
            patience: 0,
            initialise: true,
            label_smoothing: 0.0,
            head_epochs: 0,
            head_rate: 1e-3,
            head_fit: 1,
            keep: Keep::Accuracy,
            optimiser: OptimiserConfig { learning_rate: 2e-3, ..OptimiserConfig::default() },
            augmentation: Augmentation::default(),
            guard: GuardConfig::default(),
        }
    }
}

impl TrainConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`TrainError::Config`] naming the first setting outside its range.
    pub fn check(&self) -> Result<(), TrainError> {
        at_least_one("epochs", self.epochs)?;
        at_least_one("batch", self.batch)?;
        if self.head_epochs >= self.epochs {
            return Err(TrainError::Config {
                key: "head_epochs",
                value: self.head_epochs.to_string(),
                expected: "less than epochs",
            });
        }
        in_range("head_rate", self.head_rate, 0.0, 10.0, "0 to 10")?;
        head_passes(self.head_fit)?;
        if self.keep == Keep::Teacher {
            return Err(TrainError::Config {
                key: "keep",
                value: "teacher".to_owned(),
                expected: "accuracy, loss or last: a network that is no student has no teacher",
            });
        }
        in_range("label_smoothing", self.label_smoothing, 0.0, 0.5, "0 to 0.5")?;
        self.optimiser.check()?;
        self.guard.check()?;
        self.augmentation.check()
    }
}

fn head_passes(passes: usize) -> Result<(), TrainError> {
    match passes {
        0..=64 => Ok(()),
        more => Err(TrainError::Config { key: "head_fit", value: more.to_string(), expected: "0 to 64" }),
    }
}

/// What is compared, on the validation split, to choose an epoch. Ties go by the loss, or else by accuracy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// Highest accuracy.
    Accuracy,
    /// Lowest cross-entropy: less noisy than accuracy where images are few.
    Loss,
    /// In a conversion: answers nearest to the teacher's, by mean Kullback-Leibler divergence. Labels do not count, so where
    /// validation images are few, or unlike those to come, nothing is chosen by the luck of theirs.
    Teacher,
    /// The last of them: as the learning rate falls, late epochs differ little from each other, and which of all has the least loss on
    /// few validation images is chance. A last layer that was fitted by itself would have to be chosen too, so it is not.
    /// In a conversion every acceptable epoch is run over the training images too, as each may be the one.
    Last,
}

/// AdamW (Loshchilov, Hutter 2019) with warm-up and cosine decay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimiserConfig {
    /// Largest learning rate.
    pub learning_rate: f32,
    /// Learning rate at the end over the largest.
    pub final_rate_factor: f32,
    /// Epochs of linear warm-up.
    pub warmup_epochs: f32,
    /// Decoupled decay of convolution and linear weights.
    pub weight_decay: f32,
    /// The gradient of all parameters together is scaled down to this norm; 0 = off.
    pub clip_norm: f32,
    /// Decay a step of the moving average of the weights, which is then the network that is validated and kept
    /// (Polyak, Juditsky 1992); 0 = off: the weights themselves. In a conversion it begins once every activation is
    /// quadratic.
    pub average: f32,
}

impl Default for OptimiserConfig {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            final_rate_factor: 0.01,
            warmup_epochs: 0.5,
            weight_decay: 1e-2,
            clip_norm: 5.0,
            average: 0.0,
        }
    }
}

impl OptimiserConfig {
    fn check(&self) -> Result<(), TrainError> {
        in_range("optimiser.learning_rate", self.learning_rate, 1e-9, 10.0, "1e-9 to 10")?;
        in_range("optimiser.final_rate_factor", self.final_rate_factor, 0.0, 1.0, "0 to 1")?;
        in_range("optimiser.warmup_epochs", self.warmup_epochs, 0.0, 1e4, "0 to 10000")?;
        in_range("optimiser.weight_decay", self.weight_decay, 0.0, 1.0, "0 to 1")?;
        in_range("optimiser.clip_norm", self.clip_norm, 0.0, 1e6, "0 (off) to 1e6")?;
        in_range("optimiser.average", self.average, 0.0, 0.999_99, "0 (off) to 0.99999")
    }
}

/// Random changes of training images. Each image is changed anew in every epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augmentation {
    /// Largest shift, in pixels, along each axis.
    pub shift: f32,
    /// Largest rotation, in degrees.
    pub rotation: f32,
    /// Largest relative change of size.
    pub scale: f32,
    /// Mirror left and right in half of the cases.
    pub flip: bool,
    /// How far the crop may move from the centre of an image that is stored larger than the network's
    /// input: 0 not at all, 1 to its border.
    pub crop: f32,
    /// Largest change of brightness, as a share of the range of a byte.
    pub brightness: f32,
    /// Largest relative change of contrast.
    pub contrast: f32,
    /// Share of images given a border strip, marks (letters, arrows) or a strong contrast: single odd images overflow first.
    pub hard_cases: f32,
    /// Share of images stored as JPEG and read again, with a quality from 30 to 95: what is sent in often is, and the teacher's answers
    /// on such images tell a student more than those on images that it learnt by heart. In a conversion the teacher sees the same.
    /// Images that are neither gray nor colour stay as they are.
    pub compress: f32,
    /// Inputs are made larger by up to this share, beyond what pre-processing lets through, or smaller by up to half of it: what
    /// stays in range for these does so with room to spare for images as they are. In a conversion the teacher sees the same.
    pub amplify: f32,
    /// Largest share of another image of the batch that is mixed into each one, with its label (mixup: Zhang et al.,
    /// arXiv 1710.09412). The share is uniform from 0 to this. In a conversion the teacher sees the same mixture, so it
    /// shows what it does between its training images (Beyer et al., arXiv 2106.05237).
    pub mix: f32,
    /// Side of a square cut from a random place of each image, in pixels of the network's input; 0 = none. A student then learns from
    /// parts of images, at a fraction of the time a step; for networks without fully connected layers on maps.
    pub patch: usize,
    /// Share of the epochs with such parts; whole images follow.
    pub patch_fraction: f32,
}

impl Default for Augmentation {
    fn default() -> Self {
        Self { shift: 2.0, rotation: 10.0, scale: 0.1, ..Self::none() }
    }
}

impl Augmentation {
    /// Images as they are.
    #[must_use]
    pub fn none() -> Self {
        Self {
            shift: 0.0,
            rotation: 0.0,
            scale: 0.0,
            flip: false,
            crop: 0.0,
            brightness: 0.0,
            contrast: 0.0,
            hard_cases: 0.0,
            compress: 0.0,
            amplify: 0.0,
            mix: 0.0,
            patch: 0,
            patch_fraction: 0.8,
        }
    }

    fn check(&self) -> Result<(), TrainError> {
        in_range("augmentation.shift", self.shift, 0.0, 1e3, "0 to 1000")?;
        in_range("augmentation.rotation", self.rotation, 0.0, 180.0, "0 to 180")?;
        in_range("augmentation.scale", self.scale, 0.0, 0.9, "0 to 0.9")?;
        in_range("augmentation.crop", self.crop, 0.0, 1.0, "0 to 1")?;
        in_range("augmentation.brightness", self.brightness, 0.0, 1.0, "0 to 1")?;
        in_range("augmentation.contrast", self.contrast, 0.0, 1.0, "0 to 1")?;
        in_range("augmentation.hard_cases", self.hard_cases, 0.0, 1.0, "0 to 1")?;
        in_range("augmentation.compress", self.compress, 0.0, 1.0, "0 to 1")?;
        in_range("augmentation.amplify", self.amplify, 0.0, 1.0, "0 to 1")?;
        in_range("augmentation.mix", self.mix, 0.0, 0.5, "0 to 0.5")?;
        in_range("augmentation.patch_fraction", self.patch_fraction, 0.0, 1.0, "0 to 1")
    }
}

/// What happens when values are not finite, or explode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuardConfig {
    /// Steps an epoch that may be left out before the epoch is rolled back.
    pub skips: u32,
    /// Roll-backs, each with half the learning rate, before the run gives up.
    pub retries: u32,
    /// An activation input beyond this many units on a validation image, in inference mode, once all
    /// activations are quadratic and batch-norm statistics stand still, has exploded: batch statistics
    /// hide that while training.
    pub explosion: f32,
    /// Roll-backs because of explosions; after these the run goes on without.
    pub escapes: u32,
    /// Beyond this, the loss of an image (all terms, weighted) counts by its logarithm only, so that an image whose values escape
    /// does not outweigh all others of a step; 0 = off.
    pub image_loss: f32,
}

impl Default for GuardConfig {
    fn default() -> Self {
        Self { skips: 3, retries: 5, explosion: 1e3, escapes: 2, image_loss: 0.0 }
    }
}

impl GuardConfig {
    fn check(&self) -> Result<(), TrainError> {
        in_range("guard.image_loss", self.image_loss, 0.0, 1e30, "0 (off) to 1e30")?;
        in_range("guard.explosion", self.explosion, 1.0, 1e30, "1 to 1e30")
    }
}

fn at_least_one(key: &'static str, value: usize) -> Result<(), TrainError> {
    if value == 0 {
        return Err(TrainError::Config { key, value: value.to_string(), expected: "at least 1" });
    }
    Ok(())
}

fn in_range(
    key: &'static str,
    value: f32,
    low: f32,
    high: f32,
    expected: &'static str,
) -> Result<(), TrainError> {
    // Written so that NaN is refused.
    if value >= low && value <= high {
        return Ok(());
    }
    Err(TrainError::Config { key, value: value.to_string(), expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_pass_their_own_checks_and_survive_toml() {
        let (teacher, student) = (TrainConfig::default(), ConvertConfig::default());
        teacher.check().unwrap();
        student.check().unwrap();
        assert_eq!(toml::from_str::<TrainConfig>(&toml::to_string(&teacher).unwrap()).unwrap(), teacher);
        assert_eq!(toml::from_str::<ConvertConfig>(&toml::to_string(&student).unwrap()).unwrap(), student);
    }

    #[test]
    fn unknown_keys_and_values_out_of_range_are_named() {
        let unknown = toml::from_str::<ConvertConfig>("[transition]\nepoch = 3").unwrap_err().to_string();
        assert!(unknown.contains("epoch"), "{unknown}");
        let mut config = ConvertConfig::default();
        config.distillation.temperature = f32::NAN;
        let message = config.check().unwrap_err().to_string();
        assert!(message.contains("distillation.temperature = NaN"), "{message}");
        let short = ConvertConfig { epochs: 10, ..ConvertConfig::default() };
        assert!(short.check().unwrap_err().to_string().contains("epochs = 10"));
    }
}
