//! Which grid, masks, ring and moduli: the search for the cheapest plan that is precise enough.
//!
//! Layouts are compared before ranges are known, at moduli of a typical size: every grid is drawn up in the first ring that may
//! do, with masks where a window reads a margin; without masks only on the best of these grids. The cheapest draft whose moduli
//! can be found makes the plan. The next ring, where key switching may be cheaper, is tried with that same grid only.

use polyveil_ckks::{Parameters, ParametersLiteral};
use polyveil_net::Graph;

use crate::PlanError;
use crate::allocate::Allocation;
use crate::arrange::{Filling, arrange, coarse_grids};
use crate::canonical::{Ir, IrId};
use crate::compile::{assemble, lowered};
use crate::cost;
use crate::diagonals::MAX_NUMBERS;
use crate::draft::{Budget, Cache, Draft, DraftWeighting, Masks, Style, Work, least_levels};
use crate::layout::Layout;
use crate::moduli::{Moduli, Sizes, least_scale_bits, table_limit};
use crate::plan::{ServerPlan, Unused};
use crate::predict::Predictor;
use crate::scales::Scales;
use crate::sensitivity::Sensitivity;
use crate::splits::Splits;
use crate::watch::{Stage, Watch};

/// Rings that the planner considers, as log2 of the degree.
pub(crate) const RINGS: std::ops::RangeInclusive<u32> = 12..=16;
/// Bits of a level by which layouts are compared before ranges are known.
const TYPICAL_SCALE_BITS: u32 = 36;
/// How often moduli are looked for with a smaller error in mind.
const ATTEMPTS: usize = 4;
/// Standard deviations between the predicted error of a score and the largest that is promised. Of 16,491 images run through 600
/// random networks the largest error of an image was beyond 3.8 predicted deviations in one of a thousand, and 8.7 at most: values
/// that exceed the typical slot carry more noise than the prediction's averages.
const PEAK: f64 = 6.0;
/// Scores of an image in that, about: the largest error of more scores, or of more images, is the largest of as many times more.
const SCORES: f64 = 8.0;

/// How many times the error asked for a plan may promise for another layout to be worth a try: layouts differ in precision by a few
/// bits.
const HOPELESS: f64 = 1e6;

/// Ways to fill more gaps that are tried on the best layouts, one after the other.
const FILLINGS: [Filling; 3] = [
    Filling { gaps: true, packed: false, pools: false },
    PACKED,
    Filling { gaps: false, packed: false, pools: true },
];
/// The one with the fewest weights of fully connected layers.
const PACKED: Filling = Filling { gaps: false, packed: true, pools: false };
/// What the cost of such a layout is multiplied by before it is compared: costs are those at moduli of a typical size, and one that
/// takes a level more for its filling is dearer at the moduli that it gets.
const FILLED: f64 = 1.02;
/// How many times the cost of the cheapest layout another may cost for these to be tried on it.
const NEAR: f64 = 1.05;

/// What a byte of keys counts, by which power of so many times [`cost::KEY_PRICE`], where keys would exceed their limit otherwise. The
/// steps grow: one that is a little too much should cost little time, and one that is much too much few searches.
const DEARER: f64 = 1.2;
const POWERS: [i32; 6] = [0, 1, 3, 7, 15, 31];

/// Beyond the scale of any value.
const MAX_SCALE: f64 = (1u64 << 60) as f64;

/// What a plan is sought for.
pub(crate) struct Search<'a> {
    pub graph: &'a Graph,
    pub ir: &'a Ir,
    /// What the calibration inputs show.
    pub sensitivity: &'a Sensitivity,
    pub tolerance: f64,
    /// Images that share ciphertexts.
    pub batch: usize,
    /// Seconds that a byte of keys in memory is worth.
    pub key_price: f64,
    pub rings: &'a [Ring],
    pub watch: &'a Watch<'a>,
}

impl Search<'_> {
    /// The cheapest plan whose keys take no more than `limit` bytes in a file, where there is one.
    ///
    /// # Errors
    /// As [`Search::run`]; [`PlanError::Keys`] if the keys are larger at any price.
    pub fn run_within(&self, limit: Option<u64>) -> Result<ServerPlan, PlanError> {
        let limit = limit.unwrap_or(u64::MAX);
        let mut least: Option<u64> = None;
        for power in POWERS {
            if let Some(least) = least {
                self.watch.enter(Stage::Keys { least, limit })?;
            }
            let dearer = Self { key_price: self.key_price * DEARER.powi(power), ..*self };
            let plan = match dearer.run() {
                Ok(plan) => plan,
                // That there is a plan is known; at this price none was found.
                Err(error) if least.is_none() || matches!(error, PlanError::Cancelled) => return Err(error),
                Err(_) => break,
            };
            let (_, bytes) = cost::key_sizes(&plan);
            if bytes <= limit {
                return Ok(plan);
            }
            least = Some(least.map_or(bytes, |least| least.min(bytes)));
        }
        Err(PlanError::Keys { limit, least: least.unwrap_or(u64::MAX) })
    }

    /// The cheapest plan.
    ///
    /// # Errors
    /// What stood in the way of the last one tried.
    fn run(&self) -> Result<ServerPlan, PlanError> {
        if self.batch != 1 && !self.holds(self.batch) {
            let limit = (0..usize::BITS - 1).map(|k| 1 << k).take_while(|&n| self.holds(n)).last();
            return Err(PlanError::Batch { found: self.batch, limit: limit.unwrap_or(1) });
        }
        self.check_gain()?;
        let mut failure: Option<PlanError> = None;
        // Masks everywhere cost precision and time, so they are drawn up only where nothing else works.
        for masks in [Masks::Margins, Masks::Always] {
            if let Some(plan) = self.cheapest(masks, &mut failure)? {
                return Ok(plan);
            }
            if failure.as_ref().is_some_and(|error| self.is_hopeless(error)) {
                break;
            }
        }
        let (least, deepest) = least_levels(self.ir);
        Err(failure.unwrap_or_else(|| too_deep(least, deepest)))
    }

    /// Refuses a network whose scores answer to the least error of some value, before anything is laid out: rounding at a scale
    /// that no plan reaches would be too much.
    fn check_gain(&self) -> Result<(), PlanError> {
        let (gain, worst) = self.sensitivity.worst(|id, row| row.reach[id]);
        let max_log_n = self.rings.iter().map(|ring| ring.log_n).max().unwrap_or(0);
        let rounding = (f64::from(max_log_n).exp2() / 12.0).sqrt() / MAX_SCALE;
        let range = self.sensitivity.ranges[self.ir.output].max(f64::MIN_POSITIVE);
        let best = gain.sqrt() * rounding * self.peak() / range;
        if best <= self.tolerance {
            return Ok(());
        }
        let layer = self.ir.nodes[worst].name.clone();
        Err(PlanError::Imprecise { max_log_n, wanted: self.tolerance, best, layer })
    }

    /// Whether in the largest ring the error is so large that no other layout can help: values grow from layer to layer, and with
    /// them the least error of an early one.
    fn is_hopeless(&self, error: &PlanError) -> bool {
        let largest = self.rings.iter().map(|r| r.log_n).max();
        matches!(error, PlanError::Imprecise { max_log_n, wanted, best, .. }
            if Some(*max_log_n) == largest && best.is_finite() && *best > HOPELESS * wanted)
    }

    /// Standard deviations between a typical error and the largest of all scores of a batch: the largest of n normal deviates grows
    /// as the root of log n.
    fn peak(&self) -> f64 {
        let scores = self.ir.nodes[self.ir.output].shape.iter().product::<usize>() * self.batch;
        PEAK * (1.0 + (scores as f64 / SCORES).max(1.0).ln() / SCORES.ln()).sqrt()
    }

    /// Whether the layouts of some ring have room for so many images.
    fn holds(&self, batch: usize) -> bool {
        let (least, _) = least_levels(self.ir);
        let grids = coarse_grids(self.ir, batch);
        let fit = |ring: &Ring, grid: [usize; 2]| {
            arrange(self.ir, 1 << ring.log_n, batch, grid, Filling::default())
                .is_ok_and(|a| a.layouts.iter().all(Layout::is_sound))
        };
        let mut rings = self.rings.iter().filter(|r| batch <= 1 << r.log_n && fits(r.log_n, least, r.limit));
        batch > 0 && rings.any(|ring| grids.iter().any(|&grid| fit(ring, grid)))
    }

    /// The cheapest plan with such masks; why there is none is left in `failure`.
    fn cheapest(
        &self,
        masks: Masks,
        failure: &mut Option<PlanError>,
    ) -> Result<Option<ServerPlan>, PlanError> {
        let (least, _) = least_levels(self.ir);
        let mut best: Option<(f64, ServerPlan)> = None;
        // The style that proved best where nothing spoke against it.
        let mut focus: Option<Style> = None;
        let rings = self.rings.iter().filter(|r| self.batch <= 1 << r.log_n);
        for ring in rings.filter(|r| fits(r.log_n, least, r.limit)) {
            // One ring beyond the first that works may be cheaper, two never.
            let last = best.is_some();
            let most = best.as_ref().map_or(f64::INFINITY, |b| b.0);
            let drafts = match focus {
                None => self.drafts(*ring, masks, most, failure)?,
                Some(style) => self.again(*ring, style, most, failure)?,
            };
            for (rank, Drawn { guess, style, draft }) in drafts.into_iter().enumerate() {
                // A ring that does worse before it is calibrated does not get better.
                if guess > 1.5 * most {
                    break;
                }
                self.watch.enter(Stage::Moduli { log_n: ring.log_n })?;
                let again = || {
                    let budget = Budget::default();
                    let drawn = self.draft(*ring, style, budget, &mut Cache::default());
                    note(drawn, budget, failure)?.draft
                };
                let Some(mut draft) = draft.or_else(again) else { continue };
                let sound =
                    draft.calibrate(self.sensitivity).and_then(|()| candidate(self, &mut draft, *ring));
                match sound {
                    Ok((moduli, scales, max_error)) => {
                        let precision = (max_error, self.sensitivity.ranges[self.ir.output]);
                        let plan =
                            assemble(self.graph, &draft, moduli.parameters.literal(), &scales, precision);
                        let cost = self.relative_cost(&plan, &draft);
                        if cost < most {
                            best = Some((cost, plan));
                        }
                        focus = (rank == 0).then_some(style);
                        break;
                    }
                    Err(error) => {
                        let hopeless = self.is_hopeless(&error);
                        *failure = Some(error);
                        if hopeless {
                            break;
                        }
                    }
                }
            }
            if last {
                break;
            }
        }
        Ok(best.map(|(_, plan)| plan))
    }

    /// The network laid out in every way that is tried in one ring, cheapest first.
    fn drafts(
        &self,
        ring: Ring,
        masks: Masks,
        most: f64,
        failure: &mut Option<PlanError>,
    ) -> Result<Vec<Drawn<'_>>, PlanError> {
        let mut drafts: Vec<Drawn<'_>> = Vec::new();
        let mut cache = Cache::default();
        let mut least = most;
        let grids = coarse_grids(self.ir, self.batch);
        // Variants of the best ones follow.
        let all = grids.len() + FILLINGS.len() + 1;
        for (index, &grid) in grids.iter().enumerate() {
            self.watch.enter(Stage::Layout { log_n: ring.log_n, number: index + 1, of: all })?;
            // One that is tried for a second chance may cost somewhat more.
            let budget = Budget { seconds: 2.0 * least, ..Budget::default() };
            let style = Style { grid, masks, filling: Filling::default() };
            let drawn = self.draft_or_packed(ring, style, budget, &mut cache);
            drafts.extend(note(drawn, budget, failure));
            keep_cheapest(&mut drafts);
            least = drafts.first().map_or(most, |d| d.guess.min(most));
        }
        for (number, add) in (grids.len() + 1..).zip(FILLINGS) {
            let Some(least) = drafts.first().map(|d| d.guess) else { break };
            self.watch.enter(Stage::Layout { log_n: ring.log_n, number, of: all })?;
            let budget = Budget { seconds: least, ..Budget::default() };
            let near = drafts.iter().filter(|d| d.guess <= NEAR * least);
            let fill = |style: Style| Style { filling: style.filling.and(add), ..style };
            for style in near.map(|d| fill(d.style)).collect::<Vec<_>>() {
                if drafts.iter().all(|d| self.difference(ring, d.style, style).is_some()) {
                    let drawn = self.draft(ring, style, budget, &mut cache);
                    let drawn = note(drawn, budget, failure);
                    drafts.extend(drawn.map(|d| Drawn { guess: FILLED * d.guess, ..d }));
                    keep_cheapest(&mut drafts);
                }
            }
        }
        if let (Some(Drawn { guess: least, style, draft: Some(best) }), Masks::Margins) =
            (drafts.first(), masks)
        {
            // Without masks fewer vectors repeat. More of them than the masks cost are not worth drawing up.
            let limbs = best.levels() / 2 + 1;
            let spared = mask_seconds(best, limbs) + masked_pools(best) as f64 * least / limbs as f64;
            if spared > 0.0 {
                self.watch.enter(Stage::Layout { log_n: ring.log_n, number: all, of: all })?;
                let vector = cost::product_seconds(best.slots, 0, best.slots, limbs);
                let numbers = best.numbers() + (spared / vector * best.slots as f64) as usize;
                let budget = Budget { numbers: numbers.min(MAX_NUMBERS), seconds: *least, levels: 0 };
                let style = Style { masks: Masks::Never, ..*style };
                let drawn = self.draft(ring, style, budget, &mut cache);
                drafts.extend(note(drawn, budget, failure));
                keep_cheapest(&mut drafts);
            }
        }
        Ok(drafts)
    }

    /// In a further ring the grid that was best, and the next finer one: there are more slots.
    fn again(
        &self,
        ring: Ring,
        style: Style,
        most: f64,
        failure: &mut Option<PlanError>,
    ) -> Result<Vec<Drawn<'_>>, PlanError> {
        let grids = coarse_grids(self.ir, self.batch);
        let at = grids.iter().position(|&g| g == style.grid).unwrap_or(0);
        let mut cache = Cache::default();
        let budget = Budget { seconds: most, ..Budget::default() };
        let tried = &grids[at.saturating_sub(1)..=at];
        let mut drafts = Vec::new();
        for (index, &grid) in tried.iter().enumerate() {
            self.watch.enter(Stage::Layout { log_n: ring.log_n, number: index + 1, of: tried.len() })?;
            let drawn = self.draft_or_packed(ring, Style { grid, ..style }, budget, &mut cache);
            drafts.extend(note(drawn, budget, failure));
            keep_cheapest(&mut drafts);
        }
        Ok(drafts)
    }

    /// The first value that two styles lay out differently; none where there is none or a style leads nowhere.
    fn difference(&self, ring: Ring, one: Style, other: Style) -> Option<IrId> {
        if (one.grid, one.masks) != (other.grid, other.masks) {
            return Some(0);
        }
        let layouts = |style: Style| {
            let arranged = arrange(self.ir, 1 << ring.log_n, self.batch, style.grid, style.filling);
            Some(arranged.ok()?.layouts)
        };
        let (one, other) = (layouts(one)?, layouts(other)?);
        one.iter().zip(&other).position(|(one, other)| one != other)
    }

    /// The network laid out in one way. Where a layer has too many weights so, packed: it has fewer ciphertexts to go through then.
    fn draft_or_packed(
        &self,
        ring: Ring,
        style: Style,
        budget: Budget,
        cache: &mut Cache,
    ) -> Result<Drawn<'_>, PlanError> {
        self.draft(ring, style, budget, cache).or_else(|error| {
            let PlanError::TooLarge { layer, limit, .. } = &error else { return Err(error) };
            let packed = Style { filling: style.filling.and(PACKED), ..style };
            // Up to the first value that is laid out differently it would fail again.
            let failed = self.ir.nodes.iter().rposition(|node| node.name == *layer);
            let changed = self.difference(ring, style, packed).zip(failed).is_some_and(|(a, b)| a < b);
            if *limit == budget.numbers && changed {
                self.draft(ring, packed, budget, cache)
            } else {
                Err(error)
            }
        })
    }

    /// The network laid out in one way, with its cost at moduli of a typical size.
    ///
    /// # Errors
    /// Where it exceeds the budget, too.
    fn draft(
        &self,
        ring: Ring,
        style: Style,
        budget: Budget,
        cache: &mut Cache,
    ) -> Result<Drawn<'_>, PlanError> {
        let (levels, _) = least_levels(self.ir);
        let budget = Budget { levels, ..budget };
        let mut draft = Draft::new(self.ir, (1 << ring.log_n, self.batch), style, budget, cache)?;
        let levels = draft.levels();
        let bits = TYPICAL_SCALE_BITS.max(least_scale_bits(ring.log_n));
        let sizes = Sizes::uniform(ring.log_n, levels, bits, bits + 8, ring.limit).or_else(|| {
            let bits = least_scale_bits(ring.log_n);
            Sizes::uniform(ring.log_n, levels, bits, bits, ring.limit)
        });
        let name = || self.ir.nodes[draft.output].name.clone();
        let literal = sizes.ok_or_else(|| too_deep(levels, name()))?.literal()?;
        let splits = Splits::of(&draft);
        let guess = self.cost(&mut draft, &splits, &literal);
        Ok(Drawn { guess, style, draft: Some(draft) })
    }
}

/// What was drawn; else why not is left in `failure`, unless it is merely too expensive, which says nothing about the network.
fn note<'a>(
    drawn: Result<Drawn<'a>, PlanError>,
    budget: Budget,
    failure: &mut Option<PlanError>,
) -> Option<Drawn<'a>> {
    let error = match drawn {
        Ok(drawn) => return Some(drawn),
        Err(error) => error,
    };
    let expensive = matches!(error, PlanError::TooLarge { limit, .. } if limit != MAX_NUMBERS);
    if !expensive || !budget.seconds.is_finite() {
        *failure = Some(error);
    }
    None
}

impl Search<'_> {
    /// What `draft` costs with these moduli, its steps split accordingly.
    fn cost(&self, draft: &mut Draft<'_>, splits: &Splits, literal: &ParametersLiteral) -> f64 {
        splits.choose(draft, literal, self.key_price);
        let scale = literal.q.last().map_or(1.0, |&q| q as f64);
        let plan = assemble(self.graph, draft, literal, &Scales::nominal(draft, scale), (1.0, 1.0));
        self.relative_cost(&plan, draft)
    }

    /// What `plan`, made of `draft`, costs.
    fn relative_cost(&self, plan: &ServerPlan, draft: &Draft<'_>) -> f64 {
        cost::Work::count(plan, &lowered(draft)).relative_cost(draft.slots, self.key_price)
    }

    /// Primes for levels of these sizes, one each or shared, with the number of digits at which the plan costs least; leaves the
    /// steps split for it.
    fn digits(
        &self,
        draft: &mut Draft<'_>,
        ring: Ring,
        bits: &[u32],
    ) -> Result<ParametersLiteral, PlanError> {
        let splits = Splits::of(draft);
        let mut best: Option<(f64, ParametersLiteral)> = None;
        let nested = Sizes::all(ring.log_n, bits, ring.limit);
        let mut failure = None;
        for sizes in Sizes::shared(ring.log_n, bits, ring.limit).into_iter().chain(nested) {
            let literal = match sizes.literal() {
                // Primes may be a little larger than their sizes.
                Ok(literal) if literal.log_qp() <= f64::from(ring.limit) => literal,
                Ok(_) => continue,
                Err(error) => {
                    failure = Some(error);
                    continue;
                }
            };
            let cost = self.cost(draft, &splits, &literal);
            if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                best = Some((cost, literal));
            }
        }
        let name = || draft.ir.nodes[draft.output].name.clone();
        let (_, literal) = best.ok_or_else(|| failure.unwrap_or_else(|| too_deep(draft.levels(), name())))?;
        splits.choose(draft, &literal, self.key_price);
        Ok(literal)
    }
}

/// A way to lay the network out, with its cost at moduli of a typical size.
struct Drawn<'a> {
    guess: f64,
    style: Style,
    /// In memory for the cheapest only: its weight vectors may take gigabytes. Another that gets a second chance is laid out again.
    draft: Option<Draft<'a>>,
}

/// Sorts by cost and forgets all layouts but the first.
fn keep_cheapest(drawn: &mut [Drawn<'_>]) {
    drawn.sort_by(|a, b| a.guess.total_cmp(&b.guess));
    drawn.iter_mut().skip(1).for_each(|d| d.draft = None);
}

fn is_masked(work: &Work) -> bool {
    matches!(work, Work::Linear { weighting: DraftWeighting::Weighted(Unused::Masked(())), .. })
}

/// Typical seconds of all masks, each taken to be at so many limbs.
fn mask_seconds(draft: &Draft<'_>, limbs: usize) -> f64 {
    let masks =
        draft.nodes.iter().filter(|n| is_masked(&n.work)).map(|n| n.layout.ciphertexts).sum::<usize>();
    cost::product_seconds(draft.slots, masks, masks * draft.slots, limbs)
}

/// Pools that take a level for their mask.
fn masked_pools(draft: &Draft<'_>) -> usize {
    let pool = |n: &&crate::draft::DraftNode| matches!(&n.work, Work::Linear { diagonals, .. } if is_masked(&n.work) && diagonals.constant().is_some());
    draft.nodes.iter().filter(pool).count()
}

/// Whether `levels` of the least useful size fit the ring.
fn fits(log_n: u32, levels: usize, limit: u32) -> bool {
    let bits = least_scale_bits(log_n);
    Sizes::uniform(log_n, levels, bits, bits, limit).is_some()
}

fn too_deep(needed: usize, layer: String) -> PlanError {
    let max_log_n = *RINGS.end();
    let bits = least_scale_bits(max_log_n);
    // The base prime and at least one special prime as large.
    let total = (needed as u32 + 2) * bits + 1;
    PlanError::TooDeep { needed, bits, total, max_log_n, limit: table_limit(max_log_n), layer }
}

/// The smallest primes whose predicted error is small enough, with the cheapest digits that fit.
fn candidate(
    search: &Search<'_>,
    draft: &mut Draft<'_>,
    ring: Ring,
) -> Result<(Moduli, Scales, f64), PlanError> {
    let range = search.sensitivity.ranges[draft.output].max(f64::MIN_POSITIVE);
    let (tolerance, peak) = (search.tolerance, search.peak());
    let wanted = range * tolerance;
    let least = least_scale_bits(ring.log_n);
    let Some(sizes) = Sizes::uniform(ring.log_n, draft.levels(), least, least, ring.limit) else {
        return Err(too_deep(draft.levels(), draft.ir.nodes[draft.output].name.clone()));
    };
    let stand_in = Moduli::new(ring.parameters(sizes.literal()?)?);
    let ir = draft.ir;
    let imprecise = |error: f64, worst: usize| PlanError::Imprecise {
        max_log_n: ring.log_n,
        wanted: tolerance,
        best: error * peak / range,
        layer: ir.nodes[worst].name.clone(),
    };
    let mut aim = wanted / peak;
    let mut failure = None;
    // What the stand-in does not know (the very primes, the digits) makes little difference, so few attempts do.
    for _ in 0..ATTEMPTS {
        let predictor = Predictor::new(draft, search.sensitivity);
        let mut allocation = Allocation::start(&predictor, stand_in.clone(), least)?;
        allocation.descend(aim);
        if allocation.error() > aim {
            return Err(imprecise(allocation.error(), allocation.worst()));
        }
        let (bits, scales) = (allocation.bits().to_vec(), allocation.wanted().to_vec());
        if Sizes::cheapest(ring.log_n, &bits, ring.limit).is_none() {
            allocation.fit(ring.log_n, ring.limit);
            return Err(imprecise(allocation.error(), allocation.worst()));
        }
        let moduli = Moduli::new(ring.parameters(search.digits(draft, ring, &bits)?)?);
        let predictor = Predictor::new(draft, search.sensitivity);
        match Scales::assign(&predictor, &moduli, &scales) {
            Ok(scales) => {
                let prediction = predictor.predict(&moduli, &scales);
                let max_error = prediction.output * peak;
                if max_error <= wanted {
                    return Ok((moduli, scales, max_error));
                }
                failure = Some(imprecise(prediction.output, prediction.worst));
                aim *= 0.9 * wanted / max_error;
            }
            Err(error) => {
                failure = Some(error);
                aim *= 0.5;
            }
        }
    }
    let levels = draft.levels();
    Err(failure.unwrap_or_else(|| too_deep(levels, draft.ir.nodes[draft.output].name.clone())))
}

/// A ring degree and the bits that its moduli may have.
#[derive(Clone, Copy)]
pub(crate) struct Ring {
    pub log_n: u32,
    pub limit: u32,
    pub insecure: bool,
}

impl Ring {
    fn parameters(self, literal: ParametersLiteral) -> Result<Parameters, PlanError> {
        let log_n = self.log_n;
        let checked =
            if self.insecure { Parameters::new_insecure(literal) } else { Parameters::new(literal) };
        checked.map_err(|source| PlanError::Parameters { log_n, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical::canonicalise;
    use crate::draft::tests::pool_before_linear;
    use polyveil_net::Tensor;

    #[test]
    fn where_a_layer_has_too_many_weights_its_input_is_packed() {
        let graph = pool_before_linear(64);
        let ir = canonicalise(&graph).unwrap();
        let image = Tensor::new(vec![1, 16, 16], vec![0.5; 256]).unwrap();
        let watch = Watch(&|_| true);
        let sensitivity = Sensitivity::measure(&ir, &[image], &watch).unwrap();
        let ring = Ring { log_n: 10, limit: 400, insecure: true };
        let rings = [ring];
        let search = Search {
            graph: &graph,
            ir: &ir,
            sensitivity: &sensitivity,
            tolerance: 1.0,
            batch: 1,
            key_price: cost::KEY_PRICE,
            rings: &rings,
            watch: &watch,
        };
        let plain = Style { grid: [1, 1], masks: Masks::Margins, filling: Filling::default() };
        let packed = Style { filling: PACKED, ..plain };
        let draw = |style, numbers| {
            let budget = Budget { numbers, ..Budget::default() };
            search.draft_or_packed(ring, style, budget, &mut Cache::default())
        };
        let numbers = |style| draw(style, MAX_NUMBERS).unwrap().draft.unwrap().numbers();
        let (many, few) = (numbers(plain), numbers(packed));
        assert!(few < many, "{few} {many}");
        assert_eq!(draw(plain, many).unwrap().style, plain);
        assert_eq!(draw(plain, many - 1).unwrap().style, packed);
        // What fails before the pool fails in either way, and what even packing does not help is refused.
        assert!(matches!(draw(plain, 1), Err(PlanError::TooLarge { layer, .. }) if layer == "act"));
        assert!(matches!(draw(plain, few - 1), Err(PlanError::TooLarge { layer, .. }) if layer == "fc"));
    }
}
