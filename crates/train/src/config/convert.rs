//! Settings of a conversion, part by part.

use serde::{Deserialize, Serialize};

use super::{Augmentation, GuardConfig, Keep, Method, OptimiserConfig, at_least_one, head_passes, in_range};
use crate::error::TrainError;

/// Settings of a conversion from ReLU to quadratic activations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConvertConfig {
    /// The method whose preset these settings began with: a label, the settings below decide.
    pub method: Method,
    /// Fixes order, augmentation and fresh weights.
    pub seed: u64,
    /// Passes over the training split, all phases together.
    pub epochs: usize,
    /// Images a step.
    pub batch: usize,
    /// The run ends after this many epochs in a row without a better acceptable network, counted
    /// from the end of the transition; 0 = never.
    pub patience: usize,
    /// By what the epoch is chosen whose network is kept, among those that may be exported.
    pub keep: Keep,
    /// Passes over the training images on which the last layer is fitted by itself, as in training a ReLU network
    /// ([`TrainConfig::head_fit`](super::TrainConfig::head_fit)).
    pub head_fit: usize,
    /// Weights to begin with.
    pub weights: InitialWeights,
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
    /// The fit in closed form before training.
    pub reconstruction: Reconstruction,
    /// Changes made to training images.
    pub augmentation: Augmentation,
    /// What to do when values are not finite.
    pub guard: GuardConfig,
}

impl Default for ConvertConfig {
    fn default() -> Self {
        Self {
            method: Method::Ours,
            seed: 1,
            epochs: 36,
            batch: 50,
            patience: 0,
            keep: Keep::Accuracy,
            head_fit: 1,
            weights: InitialWeights::Teacher,
            activation: ActivationConfig::default(),
            transition: Transition::default(),
            distillation: Distillation::default(),
            range: RangeControl::default(),
            normalise: NormaliseConfig::default(),
            optimiser: OptimiserConfig::default(),
            reconstruction: Reconstruction::default(),
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
        if self.transition.before_settling() >= self.epochs {
            return Err(TrainError::Config {
                key: "epochs",
                value: self.epochs.to_string(),
                expected: "more than transition.recover_epochs + transition.epochs",
            });
        }
        let at_once = self.transition.kind == TransitionKind::AtOnce && self.transition.recover_epochs == 0;
        if self.activation.form == ActivationForm::Hermite && !at_once {
            return Err(TrainError::Config {
                key: "activation.form",
                value: "hermite".to_owned(),
                expected: "transition.kind = at_once and transition.recover_epochs = 0 with it: its basis has no ReLU \
                           to come from",
            });
        }
        let quadratic =
            self.weights == InitialWeights::Teacher && self.activation.form == ActivationForm::Quadratic;
        let jumps = self.transition.kind == TransitionKind::AtOnce;
        if self.reconstruction.images > 0 && !(jumps && quadratic) {
            return Err(TrainError::Config {
                key: "reconstruction.images",
                value: self.reconstruction.images.to_string(),
                expected: "0 unless transition.kind = at_once, weights = teacher and activation.form = quadratic: it \
                           begins where ReLU ends",
            });
        }
        if self.reconstruction.images > Reconstruction::MOST {
            return Err(TrainError::Config {
                key: "reconstruction.images",
                value: self.reconstruction.images.to_string(),
                expected: "at most 4096: all their values are held at once",
            });
        }
        head_passes(self.head_fit)?;
        in_range("reconstruction.ridge", self.reconstruction.ridge, 1e-9, 10.0, "1e-9 to 10")?;
        in_range("activation.range", self.activation.range, 0.1, 1e3, "0.1 to 1000")?;
        in_range("activation.min_a", self.activation.min_a, 1e-6, 1.0, "1e-6 to 1")?;
        in_range("activation.max_shift", self.activation.max_shift, 1.0, 1e6, "1 to 1e6")?;
        in_range("activation.rate_factor", self.activation.rate_factor, 0.0, 100.0, "0 to 100")?;
        in_range("distillation.alpha", self.distillation.alpha, 0.0, 1.0, "0 to 1")?;
        in_range("distillation.temperature", self.distillation.temperature, 0.1, 100.0, "0.1 to 100")?;
        in_range("distillation.features", self.distillation.features, 0.0, 1e4, "0 to 10000")?;
        in_range("distillation.feature_fraction", self.distillation.feature_fraction, 0.0, 1.0, "0 to 1")?;
        if self.distillation.features > 0.0 && !quadratic {
            return Err(TrainError::Config {
                key: "distillation.features",
                value: self.distillation.features.to_string(),
                expected: "0 unless weights = teacher and activation.form = quadratic: only then are there features \
                           to compare",
            });
        }
        in_range("range.bound", self.range.bound, 0.1, 1e6, "0.1 to 1e6")?;
        in_range("range.penalty", self.range.penalty, 0.0, 1e3, "0 to 1000")?;
        in_range("range.warmup", self.range.warmup, 0.0, 1.0, "0 to 1")?;
        in_range("range.clamp", self.range.clamp, 0.0, 1e6, "0 (off) to 1e6")?;
        in_range("range.clamp_fraction", self.range.clamp_fraction, 0.0, 1.0, "0 to 1")?;
        in_range("range.declared", self.range.declared, 0.0, 1e6, "0 (none) to 1e6")?;
        in_range("range.edges", self.range.edges, 0.0, 1.0, "0 (never) to 1")?;
        in_range("normalise.freeze_from", self.normalise.freeze_from, 0.0, 1.0, "0 to 1")?;
        self.optimiser.check()?;
        self.guard.check()?;
        self.augmentation.check()
    }
}

/// Weights that a student begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InitialWeights {
    /// Those of the trained ReLU network.
    Teacher,
    /// Random ones (He et al. 2015); the teacher gives the structure, and distils where asked to.
    Fresh,
}

/// The quadratics that take the place of ReLU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ActivationConfig {
    /// What is trained in place of ReLU; a quadratic is exported in either case.
    pub form: ActivationForm,
    /// One triple of coefficients a channel or a layer.
    pub per: Granularity,
    /// Coefficients to begin with.
    pub start: StartCoefficients,
    /// `R`: half-width of the interval on which `small_a` and `bounded` stay bounded, in units of the rescaled input.
    pub range: f32,
    /// Learning rate of coefficients over that of weights; 0 keeps them fixed.
    pub rate_factor: f32,
    /// Whether `c` is trained; else it keeps its start value.
    pub constant: bool,
    /// `|a|` is kept at or above this.
    pub min_a: f32,
    /// `|b / 2a|` is kept at or below this: the compiler completes the square, and a large shift
    /// costs precision.
    pub max_shift: f32,
}

impl Default for ActivationConfig {
    fn default() -> Self {
        Self {
            form: ActivationForm::Quadratic,
            per: Granularity::Channel,
            start: StartCoefficients::Auto,
            range: 8.0,
            rate_factor: 1.0,
            constant: true,
            min_a: 5e-3,
            max_shift: 16.0,
        }
    }
}

/// What is trained in place of ReLU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivationForm {
    /// `a·x² + b·x + c`.
    Quadratic,
    /// Hermite basis with a batch norm for each member (AESPA, arXiv 2201.06699):
    /// `Σ_i γ_i·(h_i(x) − μ_i)/σ_i + β_i` over `h_1 = x`, `h_2 = (x² − 1)/√2`, the `γ_i` starting at the
    /// coefficients of ReLU. `start`, `per`, `rate_factor` and `constant` do not apply.
    Hermite,
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
    /// Least squares up to eight activations, `bounded` beyond.
    Auto,
    /// Fit of ReLU under a unit normal: 0.1995·x² + 0.5·x + 0.1995 (AESPA).
    Hermite,
    /// `a = 0.5/R, b = 0.5, c = R/16`: a parabola that stays bounded on `[−R, R]`.
    SmallA,
    /// Least-squares fit of ReLU to the values that the layer sees, with `a` at most `0.5/R`.
    Bounded,
    /// Least-squares fit of ReLU to the values that the layer sees.
    LeastSquares,
    /// `a = 0, b = 1, c = 0` (then `a` is lifted to its bound).
    Identity,
    /// `a = 1, b = 0, c = 0` (CryptoNets).
    Square,
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

impl Transition {
    /// Epochs before every activation is quadratic.
    pub(crate) fn before_settling(&self) -> usize {
        let rising = if self.kind == TransitionKind::AtOnce { 0 } else { self.epochs };
        self.recover_epochs.saturating_add(rising)
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
    /// Factor on the mean over activations of the relative squared distance between what an activation yields
    /// and what it yields in the ReLU network; 0 matches scores alone. For `weights = teacher`.
    pub features: f32,
    /// Share of the epochs over which that factor falls to zero, linearly.
    pub feature_fraction: f32,
}

impl Default for Distillation {
    fn default() -> Self {
        Self { alpha: 0.7, temperature: 4.0, features: 0.0, feature_fraction: 1.0 }
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
    /// Share of the epochs over which that weight rises to its value, geometrically from a hundredth of it: at full weight
    /// from the start it would outweigh all that keeps what the network computes.
    pub warmup: f32,
    /// Inputs are clamped to ± this while training (never in the exported network); 0 = off. The
    /// penalty sees the values before clamping.
    pub clamp: f32,
    /// Share of the epochs in which they are clamped to that; afterwards, to the declared bound.
    pub clamp_fraction: f32,
    /// The bound that the run declares: only a network whose activation inputs stay within ± this on
    /// all training and validation images, in inference mode, may be exported. 0 = none declared.
    pub declared: f32,
    /// Share of the training images whose edges are left as they are; sharper images are made smaller as a whole, by pre-processing,
    /// until their edges are no sharper (`Preprocessing::edges`), in training and ever after. 1 = none, as long as all values
    /// stay in range with room to spare; where they do not, more are in the end. 0 = never.
    pub edges: f32,
}

impl Default for RangeControl {
    fn default() -> Self {
        Self {
            bound: 5.0,
            penalty: 0.02,
            warmup: 0.0,
            clamp: 8.0,
            clamp_fraction: 0.6,
            declared: 16.0,
            edges: 1.0,
        }
    }
}

/// Weights and coefficients in closed form where ReLU ends, before training or after `transition.recover_epochs`: layer by layer,
/// front to back, least squares to what the ReLU network yields (after the reconstruction of channel pruning: He, Zhang, Sun, arXiv 1707.06168).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reconstruction {
    /// Training images, changed as in training, that are fitted to; 0 = off. All their values are held at once.
    pub images: usize,
    /// Ridge towards the present weights, relative to the mean square of a layer's inputs.
    pub ridge: f32,
}

impl Reconstruction {
    /// Most images.
    const MOST: usize = 4096;
}

impl Default for Reconstruction {
    fn default() -> Self {
        Self { images: 0, ridge: 1e-3 }
    }
}

/// Bringing the teacher's values to unit size before the activations change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NormaliseConfig {
    /// Rescale pre-activation channels without changing the ReLU function.
    pub rescale: bool,
    /// Give average-pools that take the place of max-pools the mean and variance of the maxima (a batch norm behind
    /// each); only with `weights = teacher`.
    pub pools: bool,
    /// Insert batch normalisation before the activations, calibrated to be the identity.
    pub batch_norm: BatchNormPolicy,
    /// Share of the epochs after which batch-norm statistics stand still.
    pub freeze_from: f32,
}

impl Default for NormaliseConfig {
    fn default() -> Self {
        Self { rescale: true, pools: true, batch_norm: BatchNormPolicy::Auto, freeze_from: 0.35 }
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
