//! Choice of baby and giant steps for a whole network.
//!
//! What a rotation costs depends on the level, and so does the size of its key; and a key that a step at a higher level uses
//! costs a later step nothing. So the steps choose from the highest level down, each the split of least time and new keys.

use std::collections::BTreeSet;

use polyveil_ckks::ParametersLiteral;
use rayon::prelude::*;

use crate::bsgs::{Counts, Rotations, Split};
use crate::cost::{key_size, rotation_seconds};
use crate::draft::{Draft, DraftWeighting, Work};

/// What every split worth trying makes of every linear step of a draft.
pub(crate) struct Splits {
    candidates: Vec<Split>,
    /// From the highest level down.
    steps: Vec<StepSplits>,
}

struct StepSplits {
    id: usize,
    level: usize,
    weighted: bool,
    /// One a candidate.
    counts: Vec<Counts>,
}

impl Splits {
    pub fn of(draft: &Draft<'_>) -> Self {
        let slots = draft.slots;
        let candidates = Split::candidates(slots, &draft.strides, draft.block);
        let levels = draft.node_levels();
        let mut steps: Vec<StepSplits> = (0..draft.nodes.len())
            .into_par_iter()
            .filter_map(|id| {
                let Work::Linear { diagonals, weighting, .. } = &draft.nodes[id].work else { return None };
                let weighted = matches!(weighting, DraftWeighting::Weighted(_));
                let rotations = Rotations::of(diagonals);
                let counts = candidates.iter().map(|&split| rotations.counts(split, slots)).collect();
                Some(StepSplits { id, level: levels[id] + usize::from(weighted), weighted, counts })
            })
            .collect();
        steps.sort_by_key(|step| (std::cmp::Reverse(step.level), step.id));
        Self { candidates, steps }
    }

    /// Gives every linear step of `draft` its split, for moduli of these sizes, where a byte of keys in memory is worth `key_price`
    /// seconds.
    pub fn choose(&self, draft: &mut Draft<'_>, parameters: &ParametersLiteral, key_price: f64) {
        // Rotations that have a key already, at a level that is no lower.
        let mut keys: BTreeSet<usize> = BTreeSet::new();
        for step in &self.steps {
            let (new_key, _) = key_size(parameters, step.level);
            let cost = |counts: &Counts| {
                let missing = counts.rotations.iter().filter(|r| !keys.contains(r)).count();
                rotation_seconds(parameters, step.level, counts, step.weighted)
                    + missing as f64 * new_key as f64 * key_price
            };
            let costs: Vec<f64> = step.counts.iter().map(cost).collect();
            let Some(best) = (0..costs.len()).min_by(|&a, &b| costs[a].total_cmp(&costs[b])) else {
                continue;
            };
            keys.extend(&step.counts[best].rotations);
            if let Work::Linear { split, .. } = &mut draft.nodes[step.id].work {
                *split = self.candidates[best];
            }
        }
    }
}
