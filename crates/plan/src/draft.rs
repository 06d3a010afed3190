//! A network laid out for one ring degree, before moduli are chosen: rotations, weight vectors, depths
//! and ranges.

use std::sync::Arc;

use rayon::prelude::*;

use crate::PlanError;
use crate::arrange::{Filling, arrange};
use crate::bsgs::Split;
use crate::calibrate::{apply, largest, rms};
use crate::canonical::{Ir, IrId, IrKind};
use crate::cost::product_seconds;
use crate::diagonals::{Diagonals, MAX_NUMBERS, Source, lower_within};
use crate::layout::{Layout, Place, SlotMap, ZERO};
use crate::plan::Unused;
use crate::sensitivity::Sensitivity;

/// A lowered network.
pub(crate) struct Draft<'a> {
    pub ir: &'a Ir,
    pub slots: usize,
    pub nodes: Vec<DraftNode>,
    /// The value sent back.
    pub output: IrId,
    /// Strides worth trying as baby-step sizes.
    pub strides: Vec<usize>,
    /// Slots between neighbouring coarse positions.
    pub block: usize,
}

/// What is known of one value.
pub(crate) struct DraftNode {
    pub layout: Layout,
    pub work: Work,
    /// Levels consumed on the deepest path to here.
    pub depth: usize,
    /// Largest magnitude of any slot on the calibration inputs.
    pub range: f64,
    /// Root mean square of the used slots.
    pub rms: f64,
}

/// How a value is computed.
pub(crate) enum Work {
    Input,
    Square(IrId),
    Linear { diagonals: Arc<Diagonals>, split: Split, bias: Vec<Vec<f64>>, weighting: DraftWeighting },
}

/// How a linear value multiplies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum DraftWeighting {
    Constant(f64),
    Weighted(Unused<()>),
}

impl<'a> Draft<'a> {
    /// Lowers every node of `ir`, `batch` images at a time, on a coarse grid; `masks` allows zeroing unused slots, such as those that
    /// a later window would read them. Ranges are not known yet. It stops where the budget is exceeded.
    pub fn new(
        ir: &'a Ir,
        (slots, batch): (usize, usize),
        Style { grid, masks, filling }: Style,
        budget: Budget,
        cache: &mut Cache,
    ) -> Result<Self, PlanError> {
        let arrangement = arrange(ir, slots, batch, grid, filling)?;
        let (strides, block) = (arrangement.strides.clone(), arrangement.block);
        let mut draft = Self { ir, slots, nodes: Vec::new(), output: ir.output, strides, block };
        let mut maps: Vec<Arc<SlotMap>> = Vec::new();
        let mut seconds = 0.0;
        for (id, node) in ir.nodes.iter().enumerate() {
            let layout = arrangement.layouts[id].clone();
            if !layout.is_sound() {
                return Err(PlanError::TooLarge {
                    layer: node.name.clone(),
                    what: "row length",
                    found: node.shape[2],
                    limit: slots,
                });
            }
            let (work, depth, map) = match &node.kind {
                IrKind::Input => (Work::Input, 0, Arc::new(layout.slot_map(ZERO))),
                IrKind::Square(of) => (Work::Square(*of), draft.nodes[*of].depth + 1, maps[*of].clone()),
                IrKind::Linear { terms, bias } => {
                    let sources: Vec<Source<'_>> = terms
                        .iter()
                        .map(|t| Source {
                            op: &t.op,
                            offset: t.offset,
                            layout: &draft.nodes[t.value].layout,
                            map: &maps[t.value],
                        })
                        .collect();
                    let deepest = terms.iter().map(|t| draft.nodes[t.value].depth).max().unwrap_or(0);
                    let limbs = (budget.levels + 1).saturating_sub(deepest).max(1);
                    let left = budget.numbers.saturating_sub(draft.numbers());
                    // As many as can be encoded in the time that is left.
                    let each = product_seconds(slots, 0, slots, limbs) / slots as f64;
                    let affordable = ((budget.seconds - seconds) / each).max(0.0) as usize;
                    let mut lower = |zeroed| {
                        let most = left.min(affordable);
                        cache.lower(id, &sources, (&layout, zeroed), most).ok_or_else(|| {
                            PlanError::TooLarge {
                                layer: node.name.clone(),
                                what: "size of all weight vectors",
                                found: most.saturating_add(1),
                                limit: if affordable < left { affordable } else { budget.numbers },
                            }
                        })
                    };
                    let mut diagonals = lower(false)?;
                    let one_source = terms.iter().all(|t| t.value == terms[0].value);
                    let wanted = match masks {
                        Masks::Never => false,
                        Masks::Margins => arrangement.masked[id],
                        Masks::Always => true,
                    };
                    let maskable = wanted && diagonals.folds.is_empty();
                    let constant = diagonals.constant().filter(|&c| c > 0.0 && one_source).map(f64::from);
                    let mut map = None;
                    let weighting = match constant {
                        // A mask costs a level here, so it must be needed.
                        Some(c) => {
                            let own = map.insert(Arc::new(diagonals.slot_map(&layout, &sources)));
                            if maskable && meets_margin(ir, id, &layout, own) {
                                map = None;
                                DraftWeighting::Weighted(Unused::Masked(()))
                            } else {
                                DraftWeighting::Constant(c)
                            }
                        }
                        None if arrangement.zeroed[id] && diagonals.folds.is_empty() => {
                            diagonals = lower(true)?;
                            DraftWeighting::Weighted(Unused::Zero)
                        }
                        None if maskable => DraftWeighting::Weighted(Unused::Masked(())),
                        None => DraftWeighting::Weighted(Unused::Any),
                    };
                    let masked = weighting == DraftWeighting::Weighted(Unused::Masked(()));
                    let map = map.unwrap_or_else(|| {
                        let slots = if masked {
                            layout.slot_map(ZERO)
                        } else {
                            diagonals.slot_map(&layout, &sources)
                        };
                        Arc::new(slots)
                    });
                    let bias = pack_bias(&layout, bias);
                    // Chosen when the sizes of the moduli are known.
                    let split = Split { step: 0, block: 0 };
                    let cost = usize::from(matches!(weighting, DraftWeighting::Weighted(_)));
                    seconds += product_seconds(slots, diagonals.products(), diagonals.numbers(), limbs);
                    if seconds > budget.seconds {
                        return Err(PlanError::TooLarge {
                            layer: node.name.clone(),
                            what: "time of all products, in microseconds,",
                            found: (seconds * 1e6) as usize,
                            limit: (budget.seconds * 1e6) as usize,
                        });
                    }
                    (Work::Linear { diagonals, split, bias, weighting }, deepest + cost, map)
                }
            };
            maps.push(map);
            draft.nodes.push(DraftNode { layout, work, depth, range: 1.0, rms: 1.0 });
        }
        Ok(draft)
    }

    /// Finds the ranges of all slots by running `samples`, network inputs in element order, in the clear, as many at a time as there
    /// are images in a batch.
    pub fn calibrate(&mut self, sensitivity: &Sensitivity) -> Result<(), PlanError> {
        let samples = &sensitivity.extremes;
        let mut last_use: Vec<usize> = vec![usize::MAX; self.nodes.len()];
        for (id, node) in self.ir.nodes.iter().enumerate() {
            match &node.kind {
                IrKind::Input => {}
                IrKind::Square(of) => last_use[*of] = id,
                IrKind::Linear { terms, .. } => terms.iter().for_each(|t| last_use[t.value] = id),
            }
        }
        // values[node][sample] = slot vectors
        let mut values: Vec<Vec<Vec<Vec<f64>>>> = Vec::new();
        for (id, node) in self.ir.nodes.iter().enumerate() {
            let (layout, work) = (&self.nodes[id].layout, &self.nodes[id].work);
            let value: Vec<Vec<Vec<f64>>> = match (&node.kind, work) {
                (IrKind::Square(of), _) => values[*of]
                    .iter()
                    .map(|sample| sample.iter().map(|ct| ct.iter().map(|v| v * v).collect()).collect())
                    .collect(),
                (IrKind::Linear { terms, .. }, Work::Linear { diagonals, bias, weighting, .. }) => {
                    let masked = *weighting == DraftWeighting::Weighted(Unused::Masked(()));
                    let mask = masked.then(|| layout.pattern(&vec![1.0; layout.elements()]));
                    let one = |sample: usize| {
                        let inputs: Vec<&[Vec<f64>]> =
                            terms.iter().map(|t| values[t.value][sample].as_slice()).collect();
                        let mut out = apply(diagonals, &inputs, self.slots);
                        for (ct, slots) in out.iter_mut().enumerate() {
                            for (s, v) in slots.iter_mut().enumerate() {
                                if let Some(mask) = &mask {
                                    *v *= mask[ct][s % mask[ct].len()];
                                }
                                if let Some(bias) = bias.get(ct) {
                                    *v += bias[s % bias.len()];
                                }
                            }
                        }
                        out
                    };
                    (0..samples.len().div_ceil(layout.images())).into_par_iter().map(one).collect()
                }
                // Only the input is left.
                _ => {
                    let wide = |t: &polyveil_net::Tensor| t.data().iter().map(|&v| f64::from(v)).collect();
                    let wide: Vec<Vec<f64>> = samples.iter().map(wide).collect();
                    wide.chunks(layout.images()).map(|images| layout.pack(images)).collect()
                }
            };
            let range = value.iter().map(|v| largest(v)).fold(sensitivity.ranges[id], f64::max);
            let rms = value.iter().map(|v| rms(v)).fold(0.0, f64::max);
            if !range.is_finite() {
                return Err(PlanError::Overflow { layer: node.name.clone(), found: range, limit: f64::MAX });
            }
            (self.nodes[id].range, self.nodes[id].rms) = (range, rms);
            values.push(value);
            for (value, _) in values.iter_mut().zip(&last_use).filter(|&(_, &last)| last <= id) {
                value.clear();
            }
        }
        Ok(())
    }

    /// Numbers in all weight vectors.
    pub fn numbers(&self) -> usize {
        let of = |node: &DraftNode| match &node.work {
            Work::Linear { diagonals, .. } => diagonals.numbers(),
            _ => 0,
        };
        self.nodes.iter().map(of).sum()
    }

    /// The values that a linear node reads, term by term; none of another node.
    pub fn inputs(&self, id: IrId) -> Vec<IrId> {
        match &self.ir.nodes[id].kind {
            IrKind::Linear { terms, .. } => terms.iter().map(|t| t.value).collect(),
            _ => Vec::new(),
        }
    }

    /// The level of every value: as high as its depth allows.
    pub fn node_levels(&self) -> Vec<usize> {
        self.nodes.iter().map(|n| self.levels().saturating_sub(n.depth)).collect()
    }

    /// Levels that the network consumes.
    pub fn levels(&self) -> usize {
        self.nodes[self.output].depth
    }
}

/// What a draft may take before it is given up.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Numbers in all weight vectors.
    pub numbers: usize,
    /// Typical seconds of all products.
    pub seconds: f64,
    /// Levels that the network has at least.
    pub levels: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { numbers: MAX_NUMBERS, seconds: f64::INFINITY, levels: 0 }
    }
}

/// Steps that have been lowered: the same operators between the same layouts lower alike, whatever grid the rest of the
/// network has. That spares the large fully connected layers, which have no grid.
#[derive(Default)]
pub struct Cache(Vec<Lowered>);

struct Lowered {
    id: IrId,
    inputs: Vec<(Layout, Arc<SlotMap>)>,
    /// And whether weights are zero in its unused slots.
    output: (Layout, bool),
    diagonals: Arc<Diagonals>,
}

impl Cache {
    /// The sources of node `id` lowered into `layout`, with weights that are zero in its unused slots if so, in no more than so
    /// many numbers.
    fn lower(
        &mut self,
        id: IrId,
        sources: &[Source<'_>],
        (layout, zeroed): (&Layout, bool),
        numbers: usize,
    ) -> Option<Arc<Diagonals>> {
        let same = |l: &&Lowered| {
            let input =
                |(own, s): (&(Layout, Arc<SlotMap>), &Source<'_>)| own.0 == *s.layout && *own.1 == *s.map;
            l.id == id
                && l.output.0 == *layout
                && l.output.1 == zeroed
                && l.inputs.iter().zip(sources).all(input)
        };
        if let Some(known) = self.0.iter().find(same) {
            return (known.diagonals.numbers() <= numbers).then(|| known.diagonals.clone());
        }
        let diagonals = Arc::new(lower_within(sources, layout, zeroed, numbers)?);
        // Steps between vectors are the ones that come again.
        if layout.shape[1] * layout.shape[2] == 1 {
            let inputs = sources.iter().map(|s| (s.layout.clone(), Arc::new(s.map.clone()))).collect();
            self.0.push(Lowered {
                id,
                inputs,
                output: (layout.clone(), zeroed),
                diagonals: diagonals.clone(),
            });
        }
        Some(diagonals)
    }
}

/// A way to lay a network out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    /// Steps of the input image between coarse positions.
    pub grid: [usize; 2],
    pub masks: Masks,
    /// Which gaps take channels (see [`arrange`]).
    pub filling: Filling,
}

/// Which weighted steps set unused slots to zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Masks {
    /// None.
    Never,
    /// Those whose margin a later window reads.
    Margins,
    /// All: what lies in unused slots can grow from square to square until no modulus holds it.
    Always,
}

/// Whether a window that reads value `id`, laid out so and holding `map`, would find something beyond the borders.
fn meets_margin(ir: &Ir, id: IrId, layout: &Layout, map: &SlotMap) -> bool {
    let readers = ir.nodes.iter().filter_map(|node| match &node.kind {
        IrKind::Linear { terms, .. } => Some(terms.iter().filter(|t| t.value == id)),
        _ => None,
    });
    let holds = |c: usize, y: i64, x: i64| {
        layout
            .beyond(c, y, x)
            .is_none_or(|(ct, slot)| map.ciphertexts.get(ct).is_none_or(|m| m[slot] != ZERO))
    };
    readers.flatten().any(|t| {
        let op = &t.op;
        let [before, after] = [0, 1].map(|side| {
            [0, 1].map(|axis| {
                let last =
                    (op.output[axis + 1] - 1) * op.stride[axis] + (op.kernel[axis] - 1) * op.dilation[axis];
                let own = op.input[axis + 1] + op.pads[axis];
                (if side == 0 { op.pads[axis] } else { (last + 1).saturating_sub(own) }) as i64
            })
        });
        // Along an axis that lies in ciphertexts only, no rotation leads out.
        let still = [1, 2].map(|axis| layout.axes[axis].iter().all(|d| matches!(d.place, Place::Cipher(_))));
        let [before, after] =
            [before, after].map(|reach| [0, 1].map(|k| if still[k] { 0 } else { reach[k] }));
        let [rows, columns] = [op.input[1] as i64, op.input[2] as i64];
        (0..op.input[0]).any(|c| {
            (-before[0]..rows + after[0]).any(|y| {
                (-before[1]..columns + after[1]).any(|x| {
                    let inside = (0..rows).contains(&y) && (0..columns).contains(&x);
                    !inside && holds(c, y, x)
                })
            })
        })
    })
}

/// The bias as slot vectors of one period: zero in unused slots; empty where there is none.
pub(crate) fn pack_bias(layout: &Layout, bias: &[f64]) -> Vec<Vec<f64>> {
    if bias.iter().all(|&b| b == 0.0) {
        return Vec::new();
    }
    let per = layout.elements() / bias.len();
    let values: Vec<f64> = bias.iter().flat_map(|&b| std::iter::repeat_n(b, per)).collect();
    layout.pattern(&values)
}

/// Least number of levels of a network, whatever the layout: squares and operators with unequal
/// weights.
pub(crate) fn least_levels(ir: &Ir) -> (usize, String) {
    let mut depth: Vec<usize> = Vec::with_capacity(ir.nodes.len());
    for node in &ir.nodes {
        depth.push(match &node.kind {
            IrKind::Input => 0,
            IrKind::Square(of) => depth[*of] + 1,
            IrKind::Linear { terms, .. } => {
                let deepest = terms.iter().map(|t| depth[t.value]).max().unwrap_or(0);
                let equal = |w: &[f32]| w.iter().all(|&x| x == w[0] && x > 0.0);
                let constant = terms.len() == 1
                    && equal(&terms[0].op.weight)
                    && terms[0].op.position_scale.is_none()
                    && terms[0].op.group_inputs() == 1;
                deepest + usize::from(!constant)
            }
        });
    }
    (depth[ir.output], ir.nodes[ir.output].name.clone())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::canonical::canonicalise;
    use crate::watch::Watch;
    use polyveil_net::builders::{ConvSpec, GraphBuilder, PoolSpec};
    use polyveil_net::{Graph, Tensor, exec};

    /// Images of 1×16×16, a pool that leaves gaps, and a fully connected layer behind it.
    pub(crate) fn pool_before_linear(scores: usize) -> Graph {
        let mut b = GraphBuilder::new("net", &[1, 16, 16], 3);
        let mut x = b.input();
        x = b.conv("conv", x, 8, ConvSpec::new(3).pad(1));
        x = b.quadratic("act", x, [0.1, 0.5, 0.1]);
        x = b.avg_pool("pool", x, PoolSpec::new(3).stride(2));
        x = b.flatten("flat", x);
        x = b.linear("fc", x, scores);
        b.finish(x).unwrap()
    }

    #[test]
    fn a_pool_fills_its_gaps_where_a_fully_connected_layer_reads_it() {
        let graph = pool_before_linear(4);
        let ir = canonicalise(&graph).unwrap();
        let image =
            Tensor::new(vec![1, 16, 16], (0..256).map(|i| (i as f32 * 0.37).sin()).collect()).unwrap();
        let scores = exec::run(&graph, &image).unwrap();
        let expected = (scores.data().iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / 4.0).sqrt();
        let sensitivity = Sensitivity::measure(&ir, &[image], &Watch(&|_| true)).unwrap();
        let draft = |packed| {
            let filling = Filling { packed, ..Filling::default() };
            let style = Style { grid: [1, 1], masks: Masks::Margins, filling };
            let budget = Budget { levels: 4, ..Budget::default() };
            let mut draft = Draft::new(&ir, (1024, 1), style, budget, &mut Cache::default()).unwrap();
            draft.calibrate(&sensitivity).unwrap();
            draft
        };
        let (loose, packed) = (draft(false), draft(true));
        let pool = ir.nodes.iter().position(|node| node.name == "pool").unwrap();
        assert_eq!(loose.nodes[pool].layout.ciphertexts, 4);
        assert_eq!(packed.nodes[pool].layout.ciphertexts, 1);
        assert_eq!(packed.levels(), loose.levels() + 1);
        // The packed one is zero between its elements, with its rows and columns next to each other, so that the weights of the
        // layer behind it repeat as soon as all 8·7·7 of them have been.
        let linear = ir.nodes.iter().position(|node| node.name == "fc").unwrap();
        let weighting = |draft: &Draft<'_>| match &draft.nodes[pool].work {
            Work::Linear { weighting, .. } => *weighting,
            _ => unreachable!("a pool is linear"),
        };
        assert_eq!(weighting(&packed), DraftWeighting::Weighted(Unused::Zero));
        assert!(matches!(weighting(&loose), DraftWeighting::Constant(_)));
        let longest = |draft: &Draft<'_>| match &draft.nodes[linear].work {
            Work::Linear { diagonals, .. } => diagonals.outputs[0].iter().map(|d| d.weights.len()).max(),
            _ => None,
        };
        assert_eq!((longest(&loose), longest(&packed)), (Some(1024), Some(512)));
        // Both ways lead to the scores of the network, which all slots repeat.
        for draft in [&loose, &packed] {
            let found = draft.nodes[ir.output].rms;
            assert!((found / expected - 1.0).abs() < 1e-5, "{found} {expected}");
        }
    }

    #[test]
    fn a_pool_fills_its_gaps_between_columns_where_asked_to() {
        let mut b = GraphBuilder::new("net", &[1, 15, 13], 3);
        let mut x = b.input();
        x = b.conv("conv", x, 16, ConvSpec::new(3).pad(1));
        x = b.quadratic("act", x, [0.1, 0.5, 0.1]);
        x = b.avg_pool("pool", x, PoolSpec::new(3).stride(2));
        x = b.conv("last", x, 2, ConvSpec::new(3).pad(1));
        let graph = b.finish(x).unwrap();
        let ir = canonicalise(&graph).unwrap();
        let image =
            Tensor::new(vec![1, 15, 13], (0..195).map(|i| (i as f32 * 0.37).sin()).collect()).unwrap();
        let scores = exec::run(&graph, &image).unwrap();
        let squares: f64 = scores.data().iter().map(|v| f64::from(*v).powi(2)).sum();
        let expected = (squares / scores.data().len() as f64).sqrt();
        let sensitivity = Sensitivity::measure(&ir, &[image], &Watch(&|_| true)).unwrap();
        let pool = ir.nodes.iter().position(|node| node.name == "pool").unwrap();
        for (pools, ciphertexts) in [(false, 4), (true, 2)] {
            let filling = Filling { pools, ..Filling::default() };
            let style = Style { grid: [1, 1], masks: Masks::Always, filling };
            let budget = Budget { levels: 5, ..Budget::default() };
            let mut draft = Draft::new(&ir, (1024, 1), style, budget, &mut Cache::default()).unwrap();
            draft.calibrate(&sensitivity).unwrap();
            assert_eq!(draft.nodes[pool].layout.ciphertexts, ciphertexts);
            // All other slots of the output are zero.
            let found = draft.nodes[ir.output].rms;
            assert!((found / expected - 1.0).abs() < 1e-4, "{found} {expected}");
        }
    }
}
