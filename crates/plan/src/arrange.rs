//! Choice of a layout for every value of a network.
//!
//! Feature maps share one *coarse grid*: every `grid[axis]`-th row and column of the input image, with enough zero columns and
//! rows for the widest padding. What lies between coarse positions are *phases* (the image seen as space-to-depth); channels take the
//! low slot bits and phases come between channels and coarse positions, so that convolution weights are periodic. The phases that
//! a strided pool adds up are spread over ciphertexts: then its result is dense, without a mask. Maps coarser than the grid
//! leave gaps, which hold further channels (multiplexing). Vectors repeat with the least power-of-two period, so that weights
//! between them are periodic too.

use crate::PlanError;
use crate::canonical::{Ir, IrKind, IrTerm};
use crate::layout::{Digit, Layout, Place};

/// Most elements of a value that the planner handles.
const MAX_ELEMENTS: usize = 1 << 24;
/// Most ciphertexts of a value.
const MAX_CIPHERTEXTS: usize = 1 << 12;

/// Layouts and what else the lowering wants to know about the values.
#[derive(Clone, Debug)]
pub(crate) struct Arrangement {
    /// One a canonical value.
    pub layouts: Vec<Layout>,
    /// Strides worth trying as baby-step sizes.
    pub strides: Vec<usize>,
    /// Values whose unused slots are worth zeroing, because a later window reads beyond the border.
    pub masked: Vec<bool>,
    /// Values whose unused slots are worth zeroing by weights that are zero there, so that those of their reader repeat.
    pub zeroed: Vec<bool>,
    /// Slots between neighbouring coarse positions.
    pub block: usize,
}

/// Which gaps take channels beside those between columns that no pool leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filling {
    /// Those between rows, always.
    pub gaps: bool,
    /// Those that a pool leaves before a fully connected layer.
    pub packed: bool,
    /// Those between columns that any pool leaves.
    pub pools: bool,
}

impl Filling {
    /// Those that either fills.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            gaps: self.gaps || other.gaps,
            packed: self.packed || other.packed,
            pools: self.pools || other.pools,
        }
    }
}

/// Where a value lies on the common grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grid {
    /// A feature map whose neighbours are this many grid steps apart (rows, columns).
    Map([usize; 2]),
    /// A vector.
    Vector,
}

/// The coarse grids worth trying, in steps of the input image (rows, columns), finest first. Where `batch` images share the slots
/// coarser ones than any map has are worth it too, down to a single coarse position.
pub(crate) fn coarse_grids(ir: &Ir, batch: usize) -> Vec<[usize; 2]> {
    let grids = grids(ir);
    let mut all: Vec<[usize; 2]> = grids
        .iter()
        .filter_map(|g| if let Grid::Map(steps) = g { Some(*steps) } else { None })
        .chain([[1, 1]])
        .collect();
    all.sort_unstable();
    all.dedup();
    if let (true, Some(&(mut grid))) = (batch > 1, all.last()) {
        let last = [0, 1].map(|axis| last_positions(ir, &grids, axis).max().unwrap_or(0));
        while (0..2).any(|axis| grid[axis] <= last[axis]) {
            grid = [0, 1].map(|axis| if grid[axis] <= last[axis] { 2 * grid[axis] } else { grid[axis] });
            all.push(grid);
        }
    }
    all
}

/// Where the last row or column of every map lies, in steps of the input image.
fn last_positions<'a>(ir: &'a Ir, grids: &'a [Grid], axis: usize) -> impl Iterator<Item = usize> + 'a {
    ir.nodes.iter().zip(grids).filter_map(move |(node, grid)| match grid {
        Grid::Map(steps) => Some((node.shape[axis + 1] - 1) * steps[axis]),
        Grid::Vector => None,
    })
}

/// Lays every value out in ciphertexts of `slots` slots, feature maps on the coarse grid `grid`; for `batch` images in blocks
/// of a share of the slots each.
///
/// `gaps` allows channels in the gaps between rows also where an operator reads channels from such gaps: weights between the two
/// do not repeat, as a row is seldom a power of two long, but there are fewer ciphertexts. `packed` lets a pool fill the gaps that it
/// leaves with further channels where a fully connected layer reads it: that costs the pool a level, and the layer has fewer
/// ciphertexts to go through, in which all but the elements is zero and these are close together, so that its weights repeat. `pools` lets
/// every pool do so between columns, where weights still repeat.
pub(crate) fn arrange(
    ir: &Ir,
    slots: usize,
    batch: usize,
    grid: [usize; 2],
    Filling { gaps, packed, pools }: Filling,
) -> Result<Arrangement, PlanError> {
    let grids = grids(ir);
    // One image's layouts, as if its block were all there is.
    let limit = slots;
    let slots = slots / batch.next_power_of_two();
    if slots == 0 {
        let (layer, what) = (ir.nodes[ir.output].name.clone(), "number of images in a ciphertext");
        return Err(PlanError::TooLarge { layer, what, found: batch, limit });
    }
    for node in &ir.nodes {
        let elements = node.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).unwrap_or(usize::MAX);
        if elements > MAX_ELEMENTS {
            let what = "number of elements";
            return Err(PlanError::TooLarge {
                layer: node.name.clone(),
                what,
                found: elements,
                limit: MAX_ELEMENTS,
            });
        }
    }
    let frame = Frame::new(ir, &grids, slots, grid);
    let apart = apart(ir);
    let whole = if packed { read_whole(ir) } else { vec![false; ir.nodes.len()] };
    let mut zeroed = vec![false; ir.nodes.len()];
    let mut layouts: Vec<Layout> = Vec::with_capacity(ir.nodes.len());
    for (id, node) in ir.nodes.iter().enumerate() {
        let layout = match (&node.kind, grids[id]) {
            (IrKind::Square(of), _) => layouts[*of].clone(),
            (_, Grid::Vector) => {
                let mut layout = Layout::vector(node.shape[0], slots);
                // What is not encrypted so would have to be repeated across the border to the next image, which no rotation does.
                if batch > 1 && !matches!(node.kind, IrKind::Input) {
                    layout.repeats.clear();
                }
                layout
            }
            (IrKind::Input, Grid::Map(steps)) => frame.layout(node.shape, steps, apart[id], true, true),
            (IrKind::Linear { terms, .. }, Grid::Map(steps)) => {
                let pooled = |of: usize| match grids[of] {
                    Grid::Map(from) => Frame::pooled(&layouts[of], node.shape, from, steps),
                    Grid::Vector => None,
                };
                let pool = depthwise(terms, node.shape);
                // A pool, or another operator that keeps channels apart, whose channels take the gaps between columns.
                let spread = pools && pool.is_some() && !whole[id] && steps[1] > grid[1];
                let row_gap = gaps
                    || whole[id]
                    || !spread && !terms.iter().any(|t| frame.fills_row_gap(&layouts[t.value]));
                match pool {
                    // A reduction to one position keeps its channels where they were.
                    Some(of) if node.shape[1] * node.shape[2] == 1 => collapsed(&layouts[of], node.shape),
                    Some(_) if whole[id] => {
                        zeroed[id] = true;
                        frame.closed(node.shape, steps, apart[id])
                    }
                    Some(of) => pooled(of)
                        .filter(|_| !spread)
                        .unwrap_or_else(|| frame.layout(node.shape, steps, apart[id], false, row_gap)),
                    None => frame.layout(node.shape, steps, apart[id], false, row_gap),
                }
            }
        };
        if layout.ciphertexts > MAX_CIPHERTEXTS {
            return Err(PlanError::TooLarge {
                layer: node.name.clone(),
                what: "number of ciphertexts",
                found: layout.ciphertexts,
                limit: MAX_CIPHERTEXTS,
            });
        }
        layouts.push(layout);
    }
    let mut masked = masked(ir);
    for (masked, layout) in masked.iter_mut().zip(&layouts) {
        *masked &= !layout.is_full();
    }
    for (zeroed, layout) in zeroed.iter_mut().zip(&layouts) {
        *zeroed &= !layout.is_full();
    }
    let layouts = layouts.into_iter().map(|layout| layout.for_images(batch)).collect();
    Ok(Arrangement { strides: frame.strides(&grids), masked, zeroed, block: frame.block, layouts })
}

/// For every value, the stride with which a depthwise operator reads it (through squares), where one does.
fn apart(ir: &Ir) -> Vec<[usize; 2]> {
    let mut apart = vec![[1, 1]; ir.nodes.len()];
    for (id, node) in ir.nodes.iter().enumerate().rev() {
        match &node.kind {
            IrKind::Linear { terms, .. } if node.shape[1] * node.shape[2] > 1 => {
                if let Some(of) = depthwise(terms, node.shape) {
                    apart[of] = larger(apart[of], terms[0].op.stride);
                }
            }
            IrKind::Square(of) => apart[*of] = larger(apart[*of], apart[id]),
            _ => {}
        }
    }
    apart
}

/// Whether each value is read by an operator that mixes all of its elements.
fn read_whole(ir: &Ir) -> Vec<bool> {
    let mut whole = vec![false; ir.nodes.len()];
    for node in &ir.nodes {
        if let (IrKind::Linear { terms, .. }, [_, 1, 1]) = (&node.kind, node.shape) {
            terms.iter().filter(|t| t.op.groups == 1).for_each(|t| whole[t.value] = true);
        }
    }
    whole
}

fn larger(left: [usize; 2], right: [usize; 2]) -> [usize; 2] {
    [left[0].max(right[0]), left[1].max(right[1])]
}

/// What a single depthwise operator reads.
fn depthwise(terms: &[IrTerm], shape: [usize; 3]) -> Option<usize> {
    match terms {
        [t] if t.op.groups == shape[0] && t.op.input[0] == shape[0] => Some(t.value),
        _ => None,
    }
}

/// `layout` with rows and columns reduced to one position, their ciphertexts included.
fn collapsed(layout: &Layout, shape: [usize; 3]) -> Layout {
    let spread: usize = layout.axes[1..]
        .iter()
        .flatten()
        .filter_map(|d| matches!(d.place, Place::Cipher(_)).then_some(d.size))
        .product();
    Layout {
        shape,
        ciphertexts: layout.ciphertexts / spread,
        axes: [nearer(&layout.axes[0], spread), vec![], vec![]],
        ..layout.clone()
    }
}

/// Digits whose steps between ciphertexts are so many times shorter.
fn nearer(digits: &[Digit], times: usize) -> Vec<Digit> {
    let shorter = |d: &Digit| match d.place {
        Place::Cipher(stride) => Digit::cipher(d.size, stride / times),
        Place::Slot(_) => *d,
    };
    digits.iter().map(shorter).collect()
}

fn grids(ir: &Ir) -> Vec<Grid> {
    let mut grids: Vec<Grid> = Vec::with_capacity(ir.nodes.len());
    for node in &ir.nodes {
        let single = node.shape[1] * node.shape[2] == 1;
        let grid = match &node.kind {
            IrKind::Input if single => Grid::Vector,
            IrKind::Input => Grid::Map([1, 1]),
            IrKind::Square(of) => grids[*of],
            IrKind::Linear { terms, .. } => {
                let dense = terms.iter().any(|t| t.op.groups == 1 && t.op.output[0] > 1);
                match terms.first().map(|t| (t, grids[t.value])) {
                    Some((t, Grid::Map(steps))) if !(single && dense) => {
                        Grid::Map([steps[0] * t.op.stride[0], steps[1] * t.op.stride[1]])
                    }
                    _ => Grid::Vector,
                }
            }
        };
        grids.push(grid);
    }
    grids
}

/// Values read by a window that reaches beyond the border, through squares.
fn masked(ir: &Ir) -> Vec<bool> {
    let mut masked = vec![false; ir.nodes.len()];
    for node in ir.nodes.iter().rev() {
        if let IrKind::Linear { terms, .. } = &node.kind {
            for t in terms {
                masked[t.value] |= t.op.reads_outside();
            }
        }
    }
    // A square's unused slots are zero when its operand's are.
    for id in (0..ir.nodes.len()).rev() {
        if let (IrKind::Square(of), true) = (&ir.nodes[id].kind, masked[id]) {
            masked[*of] = true;
        }
    }
    masked
}

/// The common grid of all feature maps.
struct Frame {
    slots: usize,
    /// Steps of the input image between coarse positions (rows, columns).
    grid: [usize; 2],
    /// All steps that maps have, ascending (rows, columns).
    levels: [Vec<usize>; 2],
    /// Coarse columns, margin included.
    pitch: usize,
    /// Coarse rows that one ciphertext holds.
    rows: usize,
    /// Slots of one coarse position: channels and phases.
    block: usize,
}

/// Part of the phases of an axis, from steps of `from` to steps of `from · size`.
struct Phase {
    from: usize,
    size: usize,
    /// Whether a strided pool adds these phases up.
    apart: bool,
}

impl Frame {
    fn new(ir: &Ir, grids: &[Grid], slots: usize, grid: [usize; 2]) -> Self {
        // Extent of the grid: the last element of any map, and beyond it the zeros its reader wants.
        let mut extent = [1usize; 2];
        let mut width = 1;
        // Before and after the map, in its own steps.
        let mut reach = vec![[[0usize; 2]; 2]; ir.nodes.len()];
        for node in &ir.nodes {
            if let IrKind::Linear { terms, .. } = &node.kind {
                for t in terms {
                    for (axis, [before, after]) in reach[t.value].iter_mut().enumerate() {
                        let last = (t.op.output[axis + 1] - 1) * t.op.stride[axis]
                            + (t.op.kernel[axis] - 1) * t.op.dilation[axis];
                        *before = (*before).max(t.op.pads[axis]);
                        *after =
                            (*after).max((last + 1).saturating_sub(t.op.input[axis + 1] + t.op.pads[axis]));
                    }
                }
            }
        }
        for (id, node) in ir.nodes.iter().enumerate().rev() {
            if let IrKind::Square(of) = node.kind {
                let own = reach[id];
                for (reach, own) in reach[of].iter_mut().flatten().zip(own.iter().flatten()) {
                    *reach = (*reach).max(*own);
                }
            }
        }
        let mut levels = [vec![grid[0]], vec![grid[1]]];
        for ((node, own), reach) in ir.nodes.iter().zip(grids).zip(&reach) {
            if let Grid::Map(steps) = own {
                let mut phases = 1;
                for axis in 0..2 {
                    let last = (node.shape[axis + 1] - 1) * steps[axis];
                    let [before, after] = reach[axis].map(|r| r * steps[axis]);
                    // Zeros before a row are those after the row above.
                    let end =
                        (last / grid[axis] + before.div_ceil(grid[axis])).max((last + after) / grid[axis]);
                    extent[axis] = extent[axis].max(end + 1);
                    levels[axis].push(steps[axis]);
                    phases *= (grid[axis] / steps[axis]).max(1);
                }
                width = width.max(node.shape[0].next_power_of_two() * phases);
            }
        }
        for (axis, levels) in levels.iter_mut().enumerate() {
            levels.sort_unstable();
            levels.dedup();
            // Next to a single position there is nothing that a window could meet.
            if last_positions(ir, grids, axis).all(|last| last < grid[axis]) {
                extent[axis] = 1;
            }
        }
        let [mut rows, pitch] = extent;
        let pitch = pitch.min(slots);
        if rows * pitch > slots {
            // Rows spread over ciphertexts, in whole steps of the coarsest map where possible.
            let coarsest = (levels[0].last().copied().unwrap_or(1) / grid[0]).max(1);
            let fit = (slots / pitch).max(1);
            rows = if fit >= coarsest { fit / coarsest * coarsest } else { fit };
        }
        let fit = (slots / (rows * pitch)).max(1);
        let fit = if fit.is_power_of_two() { fit } else { fit.next_power_of_two() / 2 };
        Self { slots, grid, levels, pitch, rows, block: fit.min(width.next_power_of_two()) }
    }

    fn strides(&self, grids: &[Grid]) -> Vec<usize> {
        let mut strides: Vec<usize> = grids
            .iter()
            .filter_map(|g| if let Grid::Map(s) = g { Some(s) } else { None })
            .flat_map(|s| {
                let gap = [0, 1].map(|axis| (s[axis] / self.grid[axis]).max(1));
                [gap[1] * self.block, gap[0] * self.pitch * self.block]
            })
            .collect();
        strides.sort_unstable();
        strides.dedup();
        strides
    }

    /// Whether channels lie in the gaps between rows, at a stride that is no power of two.
    fn fills_row_gap(&self, layout: &Layout) -> bool {
        let row = self.pitch * self.block;
        !row.is_power_of_two() && layout.axes[0].iter().any(|d| d.place == Place::Slot(row))
    }

    /// Phases of an axis of a map with that step, finest first; `stride` is that of a pool that reads it.
    fn phases(&self, axis: usize, step: usize, stride: usize) -> Vec<Phase> {
        let mut phases = Vec::new();
        let mut from = step;
        let pooled = step * stride;
        let stops =
            self.levels[axis].iter().copied().chain([pooled]).collect::<std::collections::BTreeSet<_>>();
        for to in stops {
            if to > from && to <= self.grid[axis] && to.is_multiple_of(from) {
                phases.push(Phase { from, size: to / from, apart: to <= pooled });
                from = to;
            }
        }
        if from < self.grid[axis] {
            phases.push(Phase { from, size: self.grid[axis].div_ceil(from), apart: false });
        }
        phases
    }

    /// A map of `shape` whose neighbours are `steps` steps of the image apart, read by a pool of stride `apart`; `repeat` fills the
    /// channel block with copies (free for a value that the data owner encodes), `row_gap` allows channels between rows.
    fn layout(
        &self,
        shape: [usize; 3],
        steps: [usize; 2],
        apart: [usize; 2],
        repeat: bool,
        row_gap: bool,
    ) -> Layout {
        let low = self.block.min(shape[0].next_power_of_two());
        let gap = [0, 1].map(|axis| (steps[axis] / self.grid[axis]).max(1));
        let phases = [0, 1].map(|axis| self.phases(axis, steps[axis], apart[axis]));
        // Coarse phases take the slots next to the positions, while channels leave some.
        let mut room = self.block;
        let mut order: Vec<(usize, usize)> =
            (0..2).flat_map(|axis| (0..phases[axis].len()).map(move |k| (axis, k))).collect();
        order.sort_by_key(|&(axis, k)| (std::cmp::Reverse(phases[axis][k].from), axis));
        let mut in_slots = phases.each_ref().map(|p| vec![(1usize, 0usize); p.len()]);
        for (axis, k) in order {
            let phase = &phases[axis][k];
            let mut take = 1;
            while !phase.apart && phase.size.is_multiple_of(2 * take) && room / (2 * take) >= low {
                take *= 2;
            }
            room /= take;
            in_slots[axis][k] = (take, room);
        }

        let mut ciphertexts = 1;
        let mut axes: [Vec<Digit>; 2] = [vec![], vec![]];
        for axis in 0..2 {
            let mut left = shape[axis + 1];
            let mut digit = |digit: Digit, left: &mut usize| {
                if digit.size > 1 {
                    *left = left.div_ceil(digit.size);
                    axes[axis].push(digit);
                }
            };
            for (phase, &(take, stride)) in phases[axis].iter().zip(&in_slots[axis]) {
                // The coarsest phases may be more than there are rows or columns.
                let outside = if take == 1 { phase.size.min(left) } else { phase.size / take };
                digit(Digit::cipher(outside, ciphertexts), &mut left);
                ciphertexts *= outside;
                digit(Digit::slot(take, stride), &mut left);
            }
            let line = if axis == 0 { self.pitch * self.block } else { self.block };
            let fit = if axis == 0 { (self.rows / gap[0]).max(1) } else { left };
            let inside = fit.min(left);
            digit(Digit::slot(inside, gap[axis] * line), &mut left);
            if left > 1 {
                // Bands of rows.
                let bands = left;
                digit(Digit::cipher(bands, ciphertexts), &mut left);
                ciphertexts *= bands;
            }
        }

        let mut left = shape[0];
        let mut channel = Vec::new();
        let mut take = |left: &mut usize, size: usize, stride: usize| {
            if *left > 1 && size > 1 {
                channel.push(Digit::slot(size, stride));
                *left = left.div_ceil(size);
            }
        };
        take(&mut left, low, 1);
        take(&mut left, gap[1], self.block);
        if row_gap || (self.pitch * self.block).is_power_of_two() {
            take(&mut left, gap[0], self.pitch * self.block);
        }
        if left > 1 {
            channel.push(Digit::cipher(left, ciphertexts));
            ciphertexts *= left;
        }
        let repeats = if repeat && low < room { vec![Digit::slot(room / low, low)] } else { vec![] };
        let [rows, columns] = axes;
        let batch = Digit::slot(1, self.slots);
        Layout { shape, slots: self.slots, ciphertexts, axes: [channel, rows, columns], repeats, batch }
    }

    /// A map that is read whole, with its rows and columns moved together where that leaves it in fewer slots and in no more
    /// ciphertexts: the weights of its reader repeat with the least power of two that holds them all.
    fn closed(&self, shape: [usize; 3], steps: [usize; 2], apart: [usize; 2]) -> Layout {
        let mut best = (steps, self.layout(shape, steps, apart, false, true));
        loop {
            let (steps, layout) = &best;
            let nearer = (0..2).filter(|&axis| steps[axis] >= 2 * self.grid[axis]).map(|axis| {
                let mut steps = *steps;
                steps[axis] /= 2;
                (steps, self.layout(shape, steps, apart, false, true))
            });
            let better =
                nearer.filter(|(_, l)| l.ciphertexts <= layout.ciphertexts && l.span() < layout.span());
            match better.min_by_key(|(_, l)| l.span()) {
                Some(better) => best = better,
                None => return best.1,
            }
        }
    }

    /// The layout of what a strided depthwise operator makes of a map in `from`: without the ciphertexts of the phases that it
    /// adds up, or, beyond the coarse grid, with gaps.
    fn pooled(from: &Layout, shape: [usize; 3], steps: [usize; 2], to: [usize; 2]) -> Option<Layout> {
        if to == steps {
            return None;
        }
        let mut axes = from.axes.clone();
        for axis in 0..2 {
            let mut factor = to[axis] / steps[axis];
            let digits = &mut axes[axis + 1];
            while factor > 1 {
                let last = digits.len() == 1;
                let first = digits.first_mut()?;
                match first.place {
                    Place::Cipher(_) if !last && factor.is_multiple_of(first.size) => {
                        factor /= first.size;
                        digits.remove(0);
                    }
                    Place::Slot(stride) if last => {
                        *first = Digit::slot(first.size.div_ceil(factor), stride * factor);
                        factor = 1;
                    }
                    _ => return None,
                }
            }
            // As many coarse positions as the result has.
            let inner: usize = digits.iter().rev().skip(1).map(|d| d.size).product();
            if let Some(last) = digits.last_mut() {
                let needed = shape[axis + 1].div_ceil(inner);
                if needed > last.size {
                    return None;
                }
                last.size = needed;
            }
        }
        // Ciphertexts that are gone leave no holes in the numbers of the others.
        let mut ciphertexts = 1;
        for axis in [1, 2, 0] {
            for digit in &mut axes[axis] {
                if let Place::Cipher(_) = digit.place {
                    *digit = Digit::cipher(digit.size, ciphertexts);
                    ciphertexts *= digit.size;
                }
            }
        }
        Some(Layout { shape, ciphertexts, axes, ..from.clone() })
    }
}
