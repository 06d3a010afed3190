//! Settings of training and conversion. Every part of the method has its own switch, so that an
//! ablation is a change of configuration. The defaults suit LeNet-sized networks on small images.

use serde::{Deserialize, Serialize};

use crate::error::TrainError;

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
    /// Start from fresh random weights (He et al. 2015) instead of those in the graph.
    pub initialise: bool,
    /// Share of the target probability spread over all classes.
    pub label_smoothing: f32,
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
            initialise: true,
            label_smoothing: 0.0,
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
        in_range("label_smoothing", self.label_smoothing, 0.0, 0.5, "0 to 0.5")?;
        self.optimiser.check()?;
        self.augmentation.check()
    }
}

/// Settings of a conversion from ReLU to quadratic activations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConvertConfig {
    /// Fixes order and augmentation.
    pub seed: u64,
    /// Passes over the training split, all phases together.
    pub epochs: usize,
    /// Images a step.
    pub batch: usize,
    /// The new activations.
    pub activation: ActivationConfig,
    /// How ReLU turns into a quadratic.
    pub transition: Transition,
    /// What the teacher contributes to the loss.
    pub distillation: Distillation,
    /// Keeping activations small.
    pub range: RangeControl,
    /// Bringing the teacher's values to unit size first.
    pub normalise: NormaliseConfig,
    /// Step sizes.
    pub optimiser: OptimiserConfig,
    /// Changes made to training images.
    pub augmentation: Augmentation,
    /// What to do when values are not finite.
    pub guard: GuardConfig,
}

impl Default for ConvertConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            epochs: 36,
            batch: 50,
            activation: ActivationConfig::default(),
            transition: Transition::default(),
            distillation: Distillation::default(),
            range: RangeControl::default(),
            normalise: NormaliseConfig::default(),
            optimiser: OptimiserConfig::default(),
            augmentation: Augmentation::default(),
            guard: GuardConfig::default(),
        }
    }
}

impl ConvertConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`TrainError::Config`] naming the first setting outside its range.
    pub fn check(&self) -> Result<(), TrainError> {
        at_least_one("epochs", self.epochs)?;
        at_least_one("batch", self.batch)?;
        let before_settling = self.transition.recover_epochs + self.transition.epochs;
        if before_settling >= self.epochs {
            return Err(TrainError::Config {
                key: "epochs",
                value: self.epochs.to_string(),
                expected: "more than transition.recover_epochs + transition.epochs",
            });
        }
        in_range("activation.range", self.activation.range, 0.1, 1e3, "0.1 to 1000")?;
        in_range("activation.min_a", self.activation.min_a, 1e-6, 1.0, "1e-6 to 1")?;
        in_range("activation.max_shift", self.activation.max_shift, 1.0, 1e4, "1 to 10000")?;
        in_range("activation.rate_factor", self.activation.rate_factor, 0.0, 100.0, "0 to 100")?;
        in_range("distillation.alpha", self.distillation.alpha, 0.0, 1.0, "0 to 1")?;
        in_range("distillation.temperature", self.distillation.temperature, 0.1, 100.0, "0.1 to 100")?;
        in_range("range.bound", self.range.bound, 0.1, 1e6, "0.1 to 1e6")?;
        in_range("range.penalty", self.range.penalty, 0.0, 1e3, "0 to 1000")?;
        in_range("range.clamp", self.range.clamp, 0.0, 1e6, "0 (off) to 1e6")?;
        in_range("range.clamp_fraction", self.range.clamp_fraction, 0.0, 1.0, "0 to 1")?;
        in_range("normalise.freeze_from", self.normalise.freeze_from, 0.0, 1.0, "0 to 1")?;
        self.optimiser.check()?;
        self.augmentation.check()
    }
}

/// The quadratics that take the place of ReLU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ActivationConfig {
    /// One triple of coefficients a channel or a layer.
    pub per: Granularity,
    /// Coefficients to begin with.
    pub start: StartCoefficients,
    /// `R`: half-width of the interval on which `small_a` is bounded, in units of the rescaled input.
    pub range: f32,
    /// Learning rate of coefficients over that of weights; 0 keeps them fixed.
    pub rate_factor: f32,
    /// `|a|` is kept at or above this.
    pub min_a: f32,
    /// `|b / 2a|` is kept at or below this: the compiler completes the square, and a large shift
    /// costs precision.
    pub max_shift: f32,
}

impl Default for ActivationConfig {
    fn default() -> Self {
        Self {
            per: Granularity::Channel,
            start: StartCoefficients::Auto,
            range: 8.0,
            rate_factor: 1.0,
            min_a: 5e-3,
            max_shift: 16.0,
        }
    }
}

/// How many triples of coefficients a layer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// One for each channel.
    Channel,
    /// One for the layer.
    Layer,
}

/// Where the coefficients start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartCoefficients {
    /// Least squares up to eight activations, `small_a` beyond.
    Auto,
    /// Fit of ReLU under a unit normal: 0.1995·x² + 0.5·x + 0.1995 (AESPA).
    Hermite,
    /// `a = 0.5/R, b = 0.5, c = R/16`: a parabola that stays bounded on `[−R, R]`.
    SmallA,
    /// Least-squares fit of ReLU to the values that the layer sees.
    LeastSquares,
    /// `a = 0, b = 1, c = 0` (then `a` is lifted to its bound).
    Identity,
}

/// How ReLU turns into a quadratic: `y = (1 − t)·ReLU(x) + t·p(x)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Transition {
    /// Course of `t`.
    pub kind: TransitionKind,
    /// Epochs with average pools and ReLU before `t` leaves 0.
    pub recover_epochs: usize,
    /// Epochs over which `t` rises to 1; unused by `at_once`.
    pub epochs: usize,
}

impl Default for Transition {
    fn default() -> Self {
        Self { kind: TransitionKind::Smooth, recover_epochs: 2, epochs: 8 }
    }
}

/// Course of the transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransitionKind {
    /// All layers together, linear in the steps.
    Smooth,
    /// All layers at the end of the recovery.
    AtOnce,
    /// One layer after another, front to back.
    LayerByLayer,
}

/// `loss = (1 − α)·cross-entropy + α·T²·KL(teacher/T ‖ student/T)` (Hinton, Vinyals, Dean 2015).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Distillation {
    /// `α`; 0 trains without a teacher.
    pub alpha: f32,
    /// `T`.
    pub temperature: f32,
}

impl Default for Distillation {
    fn default() -> Self {
        Self { alpha: 0.7, temperature: 4.0 }
    }
}

/// Keeping activation inputs small, in units of the rescaled input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RangeControl {
    /// `B`: inputs beyond ±B are penalised.
    pub bound: f32,
    /// Weight of `Σ_layers Σ_elements relu(|x| − B)²`, a mean over images.
    pub penalty: f32,
    /// Inputs are clamped to ± this while training (never in the exported network); 0 = off. The
    /// penalty sees the values before clamping.
    pub clamp: f32,
    /// Share of the epochs in which clamping is on.
    pub clamp_fraction: f32,
}

impl Default for RangeControl {
    fn default() -> Self {
        Self { bound: 5.0, penalty: 0.02, clamp: 8.0, clamp_fraction: 0.6 }
    }
}

/// Bringing the teacher's values to unit size before the activations change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NormaliseConfig {
    /// Rescale pre-activation channels without changing the ReLU function.
    pub rescale: bool,
    /// Insert batch normalisation before the activations, calibrated to be the identity.
    pub batch_norm: BatchNormPolicy,
    /// Share of the epochs after which batch-norm statistics stand still.
    pub freeze_from: f32,
}

impl Default for NormaliseConfig {
    fn default() -> Self {
        Self { rescale: true, batch_norm: BatchNormPolicy::Auto, freeze_from: 0.35 }
    }
}

/// When batch normalisation is inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchNormPolicy {
    /// In networks of more than eight activations.
    Auto,
    /// Before every activation that does not follow one already.
    Always,
    /// Not at all.
    Never,
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
}

impl Default for OptimiserConfig {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            final_rate_factor: 0.01,
            warmup_epochs: 0.5,
            weight_decay: 1e-2,
            clip_norm: 5.0,
        }
    }
}

impl OptimiserConfig {
    fn check(&self) -> Result<(), TrainError> {
        in_range("optimiser.learning_rate", self.learning_rate, 1e-9, 10.0, "1e-9 to 10")?;
        in_range("optimiser.final_rate_factor", self.final_rate_factor, 0.0, 1.0, "0 to 1")?;
        in_range("optimiser.warmup_epochs", self.warmup_epochs, 0.0, 1e4, "0 to 10000")?;
        in_range("optimiser.weight_decay", self.weight_decay, 0.0, 1.0, "0 to 1")?;
        in_range("optimiser.clip_norm", self.clip_norm, 0.0, 1e6, "0 (off) to 1e6")
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
    /// Share of images given a border strip or a strong contrast: single odd images overflow first.
    pub hard_cases: f32,
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
        }
    }

    fn check(&self) -> Result<(), TrainError> {
        in_range("augmentation.shift", self.shift, 0.0, 1e3, "0 to 1000")?;
        in_range("augmentation.rotation", self.rotation, 0.0, 180.0, "0 to 180")?;
        in_range("augmentation.scale", self.scale, 0.0, 0.9, "0 to 0.9")?;
        in_range("augmentation.crop", self.crop, 0.0, 1.0, "0 to 1")?;
        in_range("augmentation.brightness", self.brightness, 0.0, 1.0, "0 to 1")?;
        in_range("augmentation.contrast", self.contrast, 0.0, 1.0, "0 to 1")?;
        in_range("augmentation.hard_cases", self.hard_cases, 0.0, 1.0, "0 to 1")
    }
}

/// What happens when values are not finite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuardConfig {
    /// Steps an epoch that may be left out before the epoch is rolled back.
    pub skips: u32,
    /// Roll-backs, each with half the learning rate, before the run gives up.
    pub retries: u32,
}

impl Default for GuardConfig {
    fn default() -> Self {
        Self { skips: 3, retries: 5 }
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
