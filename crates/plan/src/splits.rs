//! Choice of baby and giant steps for a whole network.
//!
//! What a rotation costs depends on the level, and so does the size of its key; and a key that a step at a higher level uses
//! costs a later step nothing. So the steps choose from the highest level down, each the split of least time and new keys.

use std::collections::BTreeMap;

use polyveil_ckks::ParametersLiteral;
use rayon::prelude::*;

use crate::bsgs::{Counts, Rotations, Split};
use crate::cost::{KEY_PRICE, key_size, rotation_seconds};
use crate::draft::{Draft, DraftWeighting, Work};

/// Gives every linear step of `draft` its split, for moduli of these sizes.
pub(crate) fn choose_splits(draft: &mut Draft<'_>, parameters: &ParametersLiteral) {
    let slots = draft.slots;
    let candidates = Split::candidates(slots, &draft.strides, draft.block);
    let levels = draft.node_levels();
    let mut steps: Vec<(usize, usize, bool, Vec<Counts>)> = (0..draft.nodes.len())
        .into_par_iter()
        .filter_map(|id| {
            let Work::Linear { diagonals, weighting, .. } = &draft.nodes[id].work else { return None };
            let weighted = matches!(weighting, DraftWeighting::Weighted { .. });
            let rotations = Rotations::of(diagonals);
            let counts = candidates.iter().map(|&split| rotations.counts(split, slots)).collect();
            Some((id, levels[id] + usize::from(weighted), weighted, counts))
        })
        .collect();
    steps.sort_by_key(|&(id, level, ..)| (std::cmp::Reverse(level), id));
    // Each key with the highest level that it has to reach.
    let mut keys: BTreeMap<usize, usize> = BTreeMap::new();
    for (id, level, weighted, counts) in steps {
        let (new_key, _) = key_size(parameters, level);
        let cost = |counts: &Counts| {
            let missing = counts.rotations.iter().filter(|r| !keys.contains_key(r)).count();
            rotation_seconds(parameters, level, counts, weighted)
                + missing as f64 * new_key as f64 * KEY_PRICE
        };
        let costs: Vec<f64> = counts.iter().map(cost).collect();
        let Some(best) = (0..costs.len()).min_by(|&a, &b| costs[a].total_cmp(&costs[b])) else { continue };
        for &rotation in &counts[best].rotations {
            keys.entry(rotation).or_insert(level);
        }
        if let Work::Linear { split, .. } = &mut draft.nodes[id].work {
            *split = candidates[best];
        }
    }
}
