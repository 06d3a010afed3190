//! Lowering of what changes the shape of a value, and of means, which go with it.
//!
//! The graph has images and vectors only. A shape between the two, such as `[C, H·W]` before a mean
//! or `[C, 1]` halfway through two Squeezes, is kept as a view of the node until what follows makes
//! an image or a vector of it.

use super::{
    args::Args,
    constant::{BATCH, MAX_RANK},
    fold::axis_index,
    import::{Feature, Importer, Lowered, Refusal, Value, View, label},
};
use crate::{NodeId, Op, Pool};

impl Importer {
    /// Flatten, Reshape, Squeeze and Unsqueeze.
    pub(super) fn reshape(&mut self, args: &Args<'_>) -> Lowered<Value> {
        let feature = args.feature(0)?;
        let shape = self.shape_of(feature)?;
        let rank = shape.len() + 1;
        let target = match args.node.op_type.as_str() {
            "Flatten" => {
                let axis = axis_index(args.attributes.int("axis", 1), rank).map_err(Refusal::Invalid)?;
                if axis != 1 {
                    return Err(Refusal::Advice(format!("flatten from axis 1, not {axis}")));
                }
                vec![shape.iter().product()]
            }
            "Reshape" => {
                let wanted = args.constant(1, "the shape")?.as_ints().map(<[i64]>::to_vec);
                let wanted = wanted.ok_or_else(|| Refusal::Invalid("the shape must be integers".into()))?;
                self.sample_shape(&wanted, &shape).ok_or_else(|| {
                    Refusal::Advice(format!("shape {wanted:?} neither keeps {shape:?} nor flattens it"))
                })?
            }
            "Squeeze" => squeezed(&shape, args.axes(1))?,
            _ => unsqueezed(&shape, args.axes(1).unwrap_or_default())?,
        };
        if target == shape {
            return Ok(Value::Feature(feature));
        }
        let x = match feature.view {
            Some(_) => self.node_of(Feature { view: None, ..feature })?,
            None => self.node_of(feature)?,
        };
        Ok(Value::Feature(self.viewed(label(args.node), x, target)?))
    }

    /// Means over one or both axes of positions, and over positions as one axis.
    pub(super) fn reduce_mean(&mut self, args: &Args<'_>) -> Lowered<Value> {
        let feature = args.feature(0)?;
        let shape = self.shape_of(feature)?;
        let mut axes: Vec<usize> = Vec::new();
        for &axis in args.axes(1).unwrap_or_default() {
            axes.push(axis_index(axis, shape.len() + 1).map_err(Refusal::Invalid)?);
        }
        let reduced = |i: usize| axes.contains(&(i + 1));
        let x = self.node_of(Feature { view: None, ..feature })?;
        let &[channels, height, width] = self.shapes[x].as_slice() else {
            return Err(only_positions());
        };
        let all = shape.len() > 1 && shape[0] == channels && (0..shape.len()).all(|i| reduced(i) == (i > 0));
        let op = if all {
            Op::GlobalAvgPool
        } else {
            let kernel = match axes.as_slice() {
                [2] if feature.view.is_none() => [height, 1],
                [3] if feature.view.is_none() => [1, width],
                _ => return Err(only_positions()),
            };
            let (pads, ceil_mode, count_include_pad) = ([0; 4], false, false);
            Op::AvgPool(Pool { kernel, stride: [1, 1], pads, ceil_mode, count_include_pad })
        };
        let name = label(args.node);
        let mean = self.push(name, op, vec![x])?;
        let keep = args.attributes.int("keepdims", 1) != 0;
        let extent = |i: usize| if reduced(i) { keep.then_some(1) } else { Some(shape[i]) };
        let target = (0..shape.len()).filter_map(extent).collect();
        Ok(Value::Feature(self.viewed(&format!("{name}/flatten"), mean, target)?))
    }

    /// A node's value in another shape of as many elements.
    fn viewed(&mut self, name: &str, node: NodeId, target: Vec<usize>) -> Lowered<Feature> {
        let base = match &self.graph.nodes[node] {
            flat if matches!(flat.op, Op::Flatten) => flat.inputs[0],
            _ => node,
        };
        for known in [node, base] {
            if self.shapes[known] == target {
                return Ok(Feature::of(known));
            }
        }
        if target == [self.shapes[base].iter().product::<usize>()] {
            return Ok(Feature::of(self.push(name, Op::Flatten, vec![base])?));
        }
        if target.len() >= MAX_RANK {
            return Err(Refusal::Advice(format!("{} axes; at most {MAX_RANK} are read", target.len() + 1)));
        }
        self.views.push(View { name: name.to_owned(), shape: target });
        Ok(Feature { view: Some(self.views.len() - 1), ..Feature::of(base) })
    }

    /// The shape of a sample after Reshape to `wanted`, if the batch stays the first axis.
    fn sample_shape(&self, wanted: &[i64], shape: &[usize]) -> Option<Vec<usize>> {
        let size: usize = shape.iter().product();
        let (&batch, rest) = wanted.split_first()?;
        let keeps_batch = matches!(batch, BATCH | 0 | 1) || Some(batch) == self.batch;
        let mut known = 1usize;
        let mut free = batch == -1;
        let mut dims = Vec::new();
        for (i, &d) in rest.iter().enumerate() {
            let extent = match d {
                0 => *shape.get(i)?,
                -1 if !free => {
                    free = true;
                    dims.push(0);
                    continue;
                }
                d => usize::try_from(d).ok()?,
            };
            known = known.checked_mul(extent)?;
            dims.push(extent);
        }
        if known == 0 || !size.is_multiple_of(known) || (batch != -1 && !keeps_batch) {
            return None;
        }
        for d in dims.iter_mut().filter(|d| **d == 0) {
            *d = size / known;
        }
        (dims.iter().product::<usize>() == size).then_some(dims)
    }
}

fn only_positions() -> Refusal {
    Refusal::Advice("only means over height and width are supported".into())
}

/// Without the axes named, or, where none are, without all of extent 1; the batch stays.
fn squeezed(shape: &[usize], axes: Option<&[i64]>) -> Lowered<Vec<usize>> {
    let Some(axes) = axes else { return Ok(shape.iter().copied().filter(|&d| d != 1).collect()) };
    let mut dropped = Vec::new();
    for &axis in axes {
        dropped.push(axis_index(axis, shape.len() + 1).map_err(Refusal::Invalid)?);
    }
    if dropped.contains(&0) || dropped.iter().any(|&a| shape[a - 1] != 1) {
        return Err(Refusal::Invalid(format!("axes {dropped:?} of {shape:?} are not all 1")));
    }
    Ok((0..shape.len()).filter(|i| !dropped.contains(&(i + 1))).map(|i| shape[i]).collect())
}

/// With axes of extent 1 at the places named, none of them before the batch.
fn unsqueezed(shape: &[usize], axes: &[i64]) -> Lowered<Vec<usize>> {
    let rank = shape.len() + 1 + axes.len();
    if rank > MAX_RANK {
        return Err(Refusal::Advice(format!("{rank} axes; at most {MAX_RANK} are read")));
    }
    let mut added = Vec::new();
    for &axis in axes {
        added.push(axis_index(axis, rank).map_err(Refusal::Invalid)?);
    }
    let mut rest = shape.iter();
    let extents = (1..rank).map(|i| if added.contains(&i) { Some(1) } else { rest.next().copied() });
    let target: Option<Vec<usize>> = extents.collect();
    target
        .filter(|t| !added.contains(&0) && t.iter().product::<usize>() == shape.iter().product::<usize>())
        .ok_or_else(|| {
            Refusal::Advice(format!("axes {axes:?} cannot be added to {shape:?} beside the batch"))
        })
}
