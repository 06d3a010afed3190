//! The methods that are compared: ours and four from the literature, each a preset of the same settings.

use serde::{Deserialize, Serialize};

use super::{
    ActivationForm, BatchNormPolicy, ConvertConfig, Granularity, InitialWeights, StartCoefficients,
    TransitionKind,
};

/// A method of training an HE-friendly network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Trainable quadratics, transition, distillation, range control (after Baruch et al., arXiv 2111.03362).
    #[default]
    Ours,
    /// `x²` from fresh weights (CryptoNets: Gilad-Bachrach et al., ICML 2016).
    Square,
    /// `a·x² + b·x` with trained `a` and `b`, from fresh weights (CHET: Dathathri et al., PLDI 2019).
    Poly,
    /// Least-squares quadratics put into the trained network at once, then fine-tuning with the labels alone.
    Replace,
    /// Hermite basis with batch norm for each member, from fresh weights (AESPA: Park et al., arXiv 2201.06699).
    Hermite,
}

impl Method {
    /// All methods, ours first.
    pub const ALL: [Self; 5] = [Self::Ours, Self::Square, Self::Poly, Self::Replace, Self::Hermite];

    /// The name in settings and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Square => "square",
            Self::Poly => "poly",
            Self::Replace => "replace",
            Self::Hermite => "hermite",
        }
    }

    /// The settings of this method. Epochs, batch, optimiser, clipping and guard are the same for all;
    /// the rivals get batch norm before every activation, without which they diverge at once.
    #[must_use]
    pub fn preset(self) -> ConvertConfig {
        let mut config = ConvertConfig { method: self, ..ConvertConfig::default() };
        if self == Self::Ours {
            return config;
        }
        config.weights = InitialWeights::Fresh;
        config.transition.kind = TransitionKind::AtOnce;
        config.transition.recover_epochs = 0;
        config.distillation.alpha = 0.0;
        remove_range_control(&mut config);
        config.range.declared = 0.0;
        config.normalise.pools = false;
        config.normalise.batch_norm = BatchNormPolicy::Always;
        // The limits of the coefficients are a part of our range control.
        config.activation.per = Granularity::Layer;
        config.activation.min_a = 1e-6;
        config.activation.max_shift = 1e6;
        match self {
            Self::Ours => {}
            Self::Square => {
                config.activation.start = StartCoefficients::Square;
                config.activation.rate_factor = 0.0;
            }
            Self::Poly => {
                config.activation.start = StartCoefficients::Identity;
                config.activation.constant = false;
            }
            Self::Replace => {
                config.weights = InitialWeights::Teacher;
                config.activation.start = StartCoefficients::LeastSquares;
            }
            Self::Hermite => {
                config.activation.form = ActivationForm::Hermite;
                config.activation.per = Granularity::Channel;
                config.normalise.batch_norm = BatchNormPolicy::Never;
            }
        }
        config
    }
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One part of our method left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ablation {
    /// The loss is cross-entropy with the labels alone.
    Distillation,
    /// All activations turn quadratic at once.
    Transition,
    /// Coefficients keep their start values.
    Trainable,
    /// No rescaling, penalty, clamp, hard cases or frozen batch-norm statistics. The declared bound
    /// stays: it says which network may be exported.
    RangeControl,
    /// The last layer is trained by steps alone.
    LastLayer,
}

impl Ablation {
    /// All parts.
    pub const ALL: [Self; 5] =
        [Self::Distillation, Self::Transition, Self::Trainable, Self::RangeControl, Self::LastLayer];

    /// The name in settings and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Distillation => "distillation",
            Self::Transition => "transition",
            Self::Trainable => "trainable",
            Self::RangeControl => "range_control",
            Self::LastLayer => "last_layer",
        }
    }

    /// Takes the part out of `config`.
    pub fn apply(self, config: &mut ConvertConfig) {
        match self {
            Self::Distillation => config.distillation.alpha = 0.0,
            Self::Transition => config.transition.kind = TransitionKind::AtOnce,
            Self::Trainable => config.activation.rate_factor = 0.0,
            Self::RangeControl => remove_range_control(config),
            Self::LastLayer => config.head_fit = 0,
        }
    }
}

fn remove_range_control(config: &mut ConvertConfig) {
    config.range.penalty = 0.0;
    config.range.clamp = 0.0;
    config.range.edges = 0.0;
    config.normalise.rescale = false;
    config.normalise.freeze_from = 1.0;
    config.augmentation.hard_cases = 0.0;
    config.augmentation.amplify = 0.0;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_and_ablation_passes_the_check_and_is_told_apart() {
        let mut seen = vec![];
        for method in Method::ALL {
            let config = method.preset();
            config.check().unwrap();
            assert_eq!(config.method, method);
            assert_eq!((config.epochs, &config.optimiser), (36, &ConvertConfig::default().optimiser));
            seen.push(ConvertConfig { method: Method::Ours, ..config });
        }
        for ablation in Ablation::ALL {
            let mut config = ConvertConfig::default();
            ablation.apply(&mut config);
            config.check().unwrap();
            seen.push(config);
        }
        for (index, config) in seen.iter().enumerate() {
            assert!(!seen[..index].contains(config), "{index}");
        }
    }
}
