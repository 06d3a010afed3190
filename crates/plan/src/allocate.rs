//! Bits of every prime and the scale of every value: as few bits as the error allows.
//!
//! The output's error is a sum of parts, each inversely proportional to some scale. Starting from large primes, one bit at a
//! time goes to the level where it adds least, so that in the end all levels that could be smaller add about alike (water
//! filling). A level at which values are squared takes the scale of its operands down with it; scales that no prime hangs on
//! follow where that lowers the error. Weights and masks need other sizes than ciphertexts do, and deep networks fit only
//! because no level has more than it needs.

use crate::PlanError;
use crate::canonical::IrId;
use crate::draft::{Draft, DraftWeighting, Work};
use crate::moduli::{MAX_PRIME_BITS, Moduli, Sizes};
use crate::predict::Predictor;
use crate::scales::Scales;

/// Bits of a scale to begin with; primes have as many as there are.
const START_BITS: u32 = 47;
/// Steps by which scales follow.
const STEP: f64 = 2.0;

/// A choice of bits and scales.
pub(crate) struct Allocation<'p, 'd, 'i> {
    predictor: &'p Predictor<'d, 'i>,
    moduli: Moduli,
    /// Fewest bits of a prime.
    least: u32,
    state: State,
    /// Of every level, the values (encrypted or weighted) whose scale its prime follows.
    followers: Vec<Vec<IrId>>,
    /// Values whose scale can be chosen.
    free: Vec<IrId>,
}

#[derive(Clone)]
struct State {
    bits: Vec<u32>,
    wanted: Vec<f64>,
    error: f64,
    worst: usize,
}

impl<'p, 'd, 'i> Allocation<'p, 'd, 'i> {
    /// Large primes. `moduli` stand in for the noise of operations; no prime gets fewer than `least` bits.
    ///
    /// # Errors
    /// [`PlanError::Overflow`] where not even these hold the values.
    pub fn start(predictor: &'p Predictor<'d, 'i>, moduli: Moduli, least: u32) -> Result<Self, PlanError> {
        let draft = predictor.draft;
        let levels = draft.node_levels();
        let mut followers = vec![Vec::new(); draft.levels() + 1];
        for node in &draft.nodes {
            if let Work::Square(of) = node.work {
                followers[levels[of]].push(source(draft, of));
            }
        }
        for list in &mut followers {
            list.sort_unstable();
            list.dedup();
        }
        let free = (0..draft.nodes.len()).filter(|&id| is_free(draft, id)).collect();
        let bits = vec![MAX_PRIME_BITS.max(least); draft.levels() + 1];
        let wanted = vec![f64::from(START_BITS).exp2(); draft.nodes.len()];
        let mut allocation = Self {
            predictor,
            moduli,
            least,
            state: State { bits, wanted, error: f64::INFINITY, worst: 0 },
            followers,
            free,
        };
        allocation.evaluate()?;
        allocation.follow();
        Ok(allocation)
    }

    /// Of the output, one standard deviation.
    pub fn error(&self) -> f64 {
        self.state.error
    }

    /// The value that adds most to it.
    pub fn worst(&self) -> usize {
        self.state.worst
    }

    /// Of the base prime, then of every level's.
    pub fn bits(&self) -> &[u32] {
        &self.state.bits
    }

    /// The scale of each value that is encrypted or multiplied by weights.
    pub fn wanted(&self) -> &[f64] {
        &self.state.wanted
    }

    /// Takes bits away while the error stays within `aim`: many at once while that is far.
    pub fn descend(&mut self, aim: f64) {
        let mut at_once = self.state.bits.len().div_ceil(2);
        while at_once > 0 {
            if !self.lower(aim, at_once) {
                at_once /= 2;
            }
        }
    }

    /// Takes bits away, whatever the error, until the moduli fit or nothing is left.
    pub fn fit(&mut self, log_n: u32, limit: u32) {
        while Sizes::cheapest(log_n, &self.state.bits, limit).is_none() && self.lower(f64::INFINITY, 1) {}
    }

    /// Takes a bit of each of `at_once` levels, where it costs least; false where that would go beyond `aim`.
    fn lower(&mut self, aim: f64, at_once: usize) -> bool {
        let before = self.state.clone();
        let mut costs = Vec::new();
        for level in 0..before.bits.len() {
            self.state.clone_from(&before);
            if self.take(level) && self.evaluate().is_ok() {
                costs.push((self.state.error, level));
            }
        }
        costs.sort_by(|a, b| a.0.total_cmp(&b.0));
        self.state.clone_from(&before);
        let mut taken = 0;
        for &(_, level) in costs.iter().take(at_once) {
            taken += usize::from(self.take(level));
        }
        if taken == at_once.min(costs.len()) && taken > 0 && self.evaluate().is_ok() {
            self.follow();
            if self.state.error <= aim {
                return true;
            }
        }
        self.state = before;
        false
    }

    /// Takes a bit of one level, and of the scales that follow it.
    fn take(&mut self, level: usize) -> bool {
        if self.state.bits[level] <= self.least {
            return false;
        }
        self.state.bits[level] -= 1;
        for &id in &self.followers[level] {
            self.state.wanted[id] /= 2.0;
        }
        true
    }

    /// Moves scales while that lowers the error: all of them, then each.
    ///
    /// Squares make two bits of one: a value at half the scale leaves the weights after its square four times as much, and its own
    /// weights half. With all values at once that is a gain; with one alone it would be an even trade.
    fn follow(&mut self) {
        let all = self.free.clone();
        self.shift(&all);
        for id in all {
            self.shift(&[id]);
        }
    }

    /// Moves the scales of `ids` together while that lowers the error.
    fn shift(&mut self, ids: &[IrId]) {
        for step in [STEP, 1.0 / STEP] {
            loop {
                let before = self.state.clone();
                ids.iter().for_each(|&id| self.state.wanted[id] *= step);
                if self.evaluate().is_err() || self.state.error >= before.error * (1.0 - 1e-6) {
                    self.state = before;
                    break;
                }
            }
        }
    }

    fn evaluate(&mut self) -> Result<(), PlanError> {
        self.moduli.set_bits(&self.state.bits);
        let scales = Scales::assign(self.predictor, &self.moduli, &self.state.wanted)?;
        let prediction = self.predictor.predict(&self.moduli, &scales);
        (self.state.error, self.state.worst) = (prediction.output, prediction.worst);
        Ok(())
    }
}

/// Whether a value has a scale of its own.
fn is_free(draft: &Draft<'_>, id: IrId) -> bool {
    match &draft.nodes[id].work {
        Work::Input => true,
        Work::Linear { weighting, .. } => matches!(weighting, DraftWeighting::Weighted(_)),
        Work::Square(_) => false,
    }
}

/// The value from which `id` has its scale.
fn source(draft: &Draft<'_>, mut id: IrId) -> IrId {
    while !is_free(draft, id) {
        id = match &draft.nodes[id].work {
            Work::Square(of) => *of,
            _ => match draft.inputs(id).first() {
                Some(&of) => of,
                None => return id,
            },
        };
    }
    id
}
