//! Choice of a layout for every value of a network.
//!
//! Feature maps share one grid, that of the input image with enough zero columns and rows for the
//! widest padding; channels take the low slot bits (so that convolution weights are periodic), then
//! the gaps that strides leave (multiplexing), then further ciphertexts. Vectors repeat with the
//! least power-of-two period, so that weights between them are periodic too.

use crate::PlanError;
use crate::canonical::{Ir, IrKind, IrTerm};
use crate::layout::{Digit, Layout, Place};

/// Most elements of a value that the planner handles.
const MAX_ELEMENTS: usize = 1 << 24;
/// Most ciphertexts of a value.
const MAX_CIPHERTEXTS: usize = 1 << 10;

/// Layouts and what else the lowering wants to know about the values.
#[derive(Clone, Debug)]
pub(crate) struct Arrangement {
    /// One a canonical value.
    pub layouts: Vec<Layout>,
    /// Strides worth trying as baby-step sizes.
    pub strides: Vec<usize>,
    /// Values whose unused slots are worth zeroing, because a later window reads beyond the border.
    pub masked: Vec<bool>,
}

/// Where a value lies on the common grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grid {
    /// A feature map whose neighbours are this many grid steps apart (rows, columns).
    Map([usize; 2]),
    /// A vector.
    Vector,
}

/// Lays every value out in ciphertexts of `slots` slots.
pub(crate) fn arrange(ir: &Ir, slots: usize) -> Result<Arrangement, PlanError> {
    let grids = grids(ir);
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
    let frame = Frame::new(ir, &grids, slots);
    let mut layouts: Vec<Layout> = Vec::with_capacity(ir.nodes.len());
    for (id, node) in ir.nodes.iter().enumerate() {
        let layout = match (&node.kind, grids[id]) {
            (IrKind::Square(of), _) => layouts[*of].clone(),
            (_, Grid::Vector) => Layout::vector(node.shape[0], slots),
            (IrKind::Input, Grid::Map(steps)) => frame.layout(node.shape, steps, true),
            (IrKind::Linear { terms, .. }, Grid::Map(steps)) => match reduces_in_place(terms, node.shape) {
                Some(of) => {
                    // A reduction to one position keeps its channels where they were.
                    collapsed(&layouts[of], node.shape)
                }
                None => frame.layout(node.shape, steps, false),
            },
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
    Ok(Arrangement { strides: frame.strides(&grids), masked: masked(ir), layouts })
}

/// A depthwise operator onto a single position.
fn reduces_in_place(terms: &[IrTerm], shape: [usize; 3]) -> Option<usize> {
    match terms {
        [t] if shape[1] * shape[2] == 1 && t.op.groups == shape[0] && t.op.input[0] == shape[0] => {
            Some(t.value)
        }
        _ => None,
    }
}

/// `layout` with rows and columns reduced to one position, bands of rows included.
fn collapsed(layout: &Layout, shape: [usize; 3]) -> Layout {
    let bands: usize =
        layout.axes[1].iter().filter_map(|d| matches!(d.place, Place::Cipher(_)).then_some(d.size)).product();
    let channel = layout.axes[0]
        .iter()
        .map(|d| match d.place {
            Place::Cipher(stride) => Digit::cipher(d.size, stride / bands),
            Place::Slot(_) => *d,
        })
        .collect();
    Layout {
        shape,
        ciphertexts: layout.ciphertexts / bands,
        axes: [channel, vec![], vec![]],
        ..layout.clone()
    }
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
    /// Columns of the grid, margin included.
    pitch: usize,
    /// Rows of the grid that one ciphertext holds.
    rows: usize,
    /// Channels in the low slot bits.
    block: usize,
}

impl Frame {
    fn new(ir: &Ir, grids: &[Grid], slots: usize) -> Self {
        // Extent of the grid: the last element of any map, and beyond it the zeros its reader wants.
        let mut extent = [1usize; 2];
        let mut channels = 1;
        let mut reach = vec![[0usize; 2]; ir.nodes.len()];
        for node in &ir.nodes {
            if let IrKind::Linear { terms, .. } = &node.kind {
                for t in terms {
                    for (axis, reach) in reach[t.value].iter_mut().enumerate() {
                        let last = (t.op.output[axis + 1] - 1) * t.op.stride[axis]
                            + (t.op.kernel[axis] - 1) * t.op.dilation[axis];
                        let after = (last + 1).saturating_sub(t.op.input[axis + 1] + t.op.pads[axis]);
                        *reach = (*reach).max(t.op.pads[axis]).max(after);
                    }
                }
            }
        }
        for (id, node) in ir.nodes.iter().enumerate().rev() {
            if let IrKind::Square(of) = node.kind {
                let own = reach[id];
                for (reach, own) in reach[of].iter_mut().zip(own) {
                    *reach = (*reach).max(own);
                }
            }
        }
        for ((node, grid), reach) in ir.nodes.iter().zip(grids).zip(&reach) {
            if let Grid::Map(steps) = grid {
                for axis in 0..2 {
                    let last = (node.shape[axis + 1] - 1) * steps[axis];
                    extent[axis] = extent[axis].max(last + 1 + reach[axis] * steps[axis]);
                }
                channels = channels.max(node.shape[0]);
            }
        }
        let [mut rows, pitch] = extent;
        let pitch = pitch.min(slots);
        if rows * pitch > slots {
            // Rows spread over ciphertexts, in whole steps of the coarsest map where possible.
            let coarsest = grids
                .iter()
                .filter_map(|g| if let Grid::Map(s) = g { Some(s[0]) } else { None })
                .max()
                .unwrap_or(1);
            let fit = (slots / pitch).max(1);
            rows = if fit >= coarsest { fit / coarsest * coarsest } else { fit };
        }
        let fit = (slots / (rows * pitch)).max(1);
        let fit = if fit.is_power_of_two() { fit } else { fit.next_power_of_two() / 2 };
        Self { slots, pitch, rows, block: fit.min(channels.next_power_of_two()) }
    }

    fn strides(&self, grids: &[Grid]) -> Vec<usize> {
        let mut strides: Vec<usize> = grids
            .iter()
            .filter_map(|g| if let Grid::Map(s) = g { Some(s) } else { None })
            .flat_map(|s| [s[1] * self.block, s[0] * self.pitch * self.block])
            .collect();
        strides.sort_unstable();
        strides.dedup();
        strides
    }

    /// A map of `shape` whose neighbours are `steps` grid steps apart; `repeat` fills the channel
    /// block with copies (free for a value that the data owner encodes).
    fn layout(&self, shape: [usize; 3], steps: [usize; 2], repeat: bool) -> Layout {
        let (block, line) = (self.block, self.pitch * self.block);
        let mut left = shape[0];
        let mut channel = Vec::new();
        let low = block.min(left.next_power_of_two());
        let mut take = |left: &mut usize, size: usize, stride: usize| {
            if *left > 1 && size > 1 {
                channel.push(Digit::slot(size, stride));
                *left = left.div_ceil(size);
            }
        };
        take(&mut left, low, 1);
        take(&mut left, steps[1], block);
        take(&mut left, steps[0], line);

        let columns = if shape[2] > 1 { vec![Digit::slot(shape[2], steps[1] * block)] } else { vec![] };
        let per_ciphertext = (self.rows / steps[0]).max(1).min(shape[1]);
        let bands = shape[1].div_ceil(per_ciphertext);
        let mut rows = Vec::new();
        if per_ciphertext > 1 {
            rows.push(Digit::slot(per_ciphertext, steps[0] * line));
        }
        if bands > 1 {
            rows.push(Digit::cipher(bands, 1));
        }
        if left > 1 {
            channel.push(Digit::cipher(left, bands));
        }
        let repeats = if repeat && low < block { vec![Digit::slot(block / low, low)] } else { vec![] };
        Layout {
            shape,
            slots: self.slots,
            ciphertexts: left * bands,
            axes: [channel, rows, columns],
            repeats,
        }
    }
}
