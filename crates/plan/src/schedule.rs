//! The order of work inside a linear step, shared by the planner (which keys, what cost) and the
//! interpreter (what to do).

use std::collections::{BTreeMap, BTreeSet};

use crate::bsgs::Baby;
use crate::diagonals::{Diagonal, Diagonals};
use crate::plan::{LinearStep, ServerPlan, Weighting};

/// One output ciphertext of a linear step.
#[derive(Clone, Debug)]
pub struct OutputSchedule<'a> {
    /// Sums of products, each to be rotated by its giant step; ordered by rotation.
    pub giants: Vec<Giant<'a>>,
}

/// A sum of products that shares one giant rotation.
#[derive(Clone, Debug)]
pub struct Giant<'a> {
    /// Rotation applied to the sum (0: none).
    pub rotation: usize,
    /// The products: a hoisted input rotation and its weights.
    pub products: Vec<Product<'a>>,
}

/// `rotate(input, baby) ⊙ weights`, the weights rotated back by the giant step.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    /// Which hoisted rotation, as an index into [`Schedule::babies`].
    pub baby: usize,
    /// The weights and where they belong.
    pub diagonal: &'a Diagonal,
}

/// A linear step, ready to be carried out.
#[derive(Clone, Debug)]
pub struct Schedule<'a> {
    /// Distinct rotations of the inputs, ordered.
    pub babies: Vec<Baby>,
    /// One an output ciphertext.
    pub outputs: Vec<OutputSchedule<'a>>,
}

impl<'a> Schedule<'a> {
    /// Splits the rotations of `diagonals` as `linear` says.
    #[must_use]
    pub fn new(linear: &LinearStep, diagonals: &'a Diagonals, slots: usize) -> Self {
        let (babies, _) = linear.split.counts(diagonals, slots);
        let babies: Vec<_> = babies.into_iter().collect();
        let index: BTreeMap<_, _> = babies.iter().enumerate().map(|(k, &b)| (b, k)).collect();
        let outputs = diagonals
            .outputs
            .iter()
            .map(|list| {
                let mut giants: BTreeMap<usize, Vec<Product<'a>>> = BTreeMap::new();
                for diagonal in list {
                    let parts = linear.split.apply(diagonal.rotation, slots);
                    let baby = (diagonal.term, diagonal.ciphertext, parts.position, parts.baby);
                    if let Some(&baby) = index.get(&baby) {
                        giants.entry(parts.giant).or_default().push(Product { baby, diagonal });
                    }
                }
                let giants =
                    giants.into_iter().map(|(rotation, products)| Giant { rotation, products }).collect();
                OutputSchedule { giants }
            })
            .collect();
        Self { babies, outputs }
    }

    /// Whether nothing is rotated.
    #[must_use]
    pub fn is_still(&self) -> bool {
        self.babies.iter().all(|b| (b.2, b.3) == (0, 0))
            && self.outputs.iter().flat_map(|o| &o.giants).all(|g| g.rotation == 0)
    }
}

impl Product<'_> {
    /// One period of the weights, rotated right by `giant` so that rotating the sum left restores them.
    #[must_use]
    pub fn weights(&self, giant: usize) -> Vec<f64> {
        let w = &self.diagonal.weights;
        let (first, last) = w.split_at(w.len() - giant % w.len());
        last.iter().chain(first).map(|&w| f64::from(w)).collect()
    }
}

/// Rotations of step `k` with the level at which each is done.
#[must_use]
pub fn rotations(
    plan: &ServerPlan,
    k: usize,
    linear: &LinearStep,
    diagonals: &Diagonals,
) -> Vec<(usize, usize)> {
    let slots = plan.values[0].layout.slots;
    let out = plan.values[k + 1].level;
    let level = out + usize::from(matches!(linear.weighting, Weighting::Weighted { .. }));
    let (babies, giants) = linear.split.counts(diagonals, slots);
    let distinct: BTreeSet<usize> =
        babies.into_iter().flat_map(|b| [b.2, b.3]).chain(giants.into_iter().map(|g| g.1)).collect();
    let steps = distinct.into_iter().map(|r| (r, level));
    // Folds come after the rescaling.
    steps.chain(diagonals.folds.iter().map(|&f| (f, out))).filter(|&(r, _)| r != 0).collect()
}
