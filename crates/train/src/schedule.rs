//! Learning rate and transition as functions of the position in a run.

use polyveil_net::NodeId;

use crate::config::{OptimiserConfig, Transition, TransitionKind};
use crate::control::Phase;

/// Linear warm-up, then a half cosine down to the final rate. `position` and `epochs` in epochs.
pub(crate) fn learning_rate(config: &OptimiserConfig, position: f64, epochs: usize) -> f32 {
    let warmup = f64::from(config.warmup_epochs);
    let peak = f64::from(config.learning_rate);
    if position < warmup {
        return (peak * (position / warmup).max(1e-3)) as f32;
    }
    let share = ((position - warmup) / (epochs as f64 - warmup).max(1e-9)).clamp(0.0, 1.0);
    let low = peak * f64::from(config.final_rate_factor);
    (low + (peak - low) * 0.5 * (1.0 + (std::f64::consts::PI * share).cos())) as f32
}

/// Course of the transition over the quadratic nodes.
#[derive(Clone, Debug)]
pub(crate) struct TransitionPlan {
    settings: Transition,
    activations: Vec<NodeId>,
}

impl TransitionPlan {
    pub(crate) fn new(settings: Transition, activations: Vec<NodeId>) -> Self {
        Self { settings, activations }
    }

    /// Share of the transition done at a position in epochs.
    pub(crate) fn share(&self, position: f64) -> f32 {
        let after = position - self.settings.recover_epochs as f64;
        // A position is a sum of steps: the end of an epoch must count as the end.
        let length = self.length() as f64;
        if after >= length - 1e-9 && after >= -1e-9 {
            return 1.0;
        }
        (after / length).clamp(0.0, 1.0) as f32
    }

    /// `t` of every node, for a share of the transition.
    pub(crate) fn per_node(&self, share: f32, nodes: usize) -> Vec<f32> {
        let mut all = vec![1.0; nodes];
        let layers = self.activations.len() as f32;
        for (order, &node) in self.activations.iter().enumerate() {
            if let Some(t) = all.get_mut(node) {
                *t = match self.settings.kind {
                    TransitionKind::LayerByLayer => (share * layers - order as f32).clamp(0.0, 1.0),
                    TransitionKind::Smooth | TransitionKind::AtOnce => share,
                };
            }
        }
        all
    }

    /// What an epoch (from 0) is busy with.
    pub(crate) fn phase(&self, epoch: usize) -> Phase {
        if epoch < self.settings.recover_epochs {
            Phase::Recover
        } else if epoch < self.settings.recover_epochs + self.length() {
            Phase::Transition
        } else {
            Phase::Settle
        }
    }

    /// Epoch from which every activation is quadratic.
    pub(crate) fn settled(&self) -> usize {
        self.settings.recover_epochs + self.length()
    }

    fn length(&self) -> usize {
        if self.settings.kind == TransitionKind::AtOnce { 0 } else { self.settings.epochs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(kind: TransitionKind) -> TransitionPlan {
        TransitionPlan::new(Transition { kind, recover_epochs: 1, epochs: 2 }, vec![1, 3])
    }

    #[test]
    fn transitions_run_from_relu_to_quadratic() {
        let smooth = plan(TransitionKind::Smooth);
        let shares = [0.0, 1.0, 2.0, 3.0, 9.0].map(|p| smooth.share(p));
        assert_eq!(shares, [0.0, 0.0, 0.5, 1.0, 1.0]);
        assert_eq!(smooth.per_node(0.5, 5), [1.0, 0.5, 1.0, 0.5, 1.0]);
        assert_eq!(
            [0, 1, 2, 3].map(|e| smooth.phase(e)),
            [Phase::Recover, Phase::Transition, Phase::Transition, Phase::Settle]
        );
        let stepped = plan(TransitionKind::LayerByLayer);
        assert_eq!(stepped.per_node(0.25, 4), [1.0, 0.5, 1.0, 0.0]);
        assert_eq!(stepped.per_node(0.75, 4), [1.0, 1.0, 1.0, 0.5]);
        let once = plan(TransitionKind::AtOnce);
        assert_eq!([0.5, 1.0].map(|p| once.share(p)), [0.0, 1.0]);
    }

    #[test]
    fn the_rate_warms_up_and_decays() {
        let config = OptimiserConfig { learning_rate: 1.0, warmup_epochs: 1.0, ..OptimiserConfig::default() };
        let rates = [0.5, 1.0, 5.5, 10.0].map(|p| learning_rate(&config, p, 10));
        for (rate, expected) in rates.iter().zip([0.5, 1.0, 0.505, 0.01]) {
            assert!((rate - expected).abs() < 1e-4, "{rates:?}");
        }
        assert!(learning_rate(&config, 0.0, 10) > 0.0);
    }
}
