//! Folding of whatever exporters compute from constants alone: shapes to flatten to, paddings,
//! transposed weights.

use std::collections::BTreeSet;

use super::{
    attributes::Attributes,
    constant::{BATCH, Budget, Const, Data, MAX_RANK, product, volume},
    proto::{NodeProto, element},
};

/// Evaluates a node whose inputs are all constant. `None` where the operator is not folded;
/// an error message where the inputs do not fit it.
pub(super) fn fold(
    node: &NodeProto,
    inputs: &[Option<&Const>],
    budget: &mut Budget,
) -> Option<Result<Const, String>> {
    let attributes = Attributes(node);
    let first = inputs.first().copied().flatten();
    let x = first?;
    let second = inputs.get(1).copied().flatten();
    let operands: Vec<&Const> = inputs.iter().flatten().copied().collect();
    Some(match node.op_type.as_str() {
        "Identity" | "Dropout" => copy(x, budget),
        "Add" => binary(&operands, budget, |x, y| x + y, i64::checked_add),
        "Sub" => binary(&operands, budget, |x, y| x - y, i64::checked_sub),
        "Mul" => binary(&operands, budget, |x, y| x * y, i64::checked_mul),
        "Div" => binary(&operands, budget, |x, y| x / y, i64::checked_div),
        "Pow" => binary(&operands, budget, f32::powf, |x, y| x.checked_pow(u32::try_from(y).ok()?)),
        "Sqrt" => unary(x, budget, f32::sqrt),
        "Reciprocal" => unary(x, budget, f32::recip),
        "Neg" => match &x.data {
            Data::Float(_) => unary(x, budget, |x| -x),
            Data::Int(_) => binary(&[&Const::ints(vec![0]), x], budget, |x, y| x - y, i64::checked_sub),
        },
        "Cast" => cast(x, attributes.int("to", i64::from(element::FLOAT)), budget),
        "Reshape" => second.ok_or("needs a shape".to_owned()).and_then(|s| reshape(x, s, budget)),
        "Flatten" => flatten(x, attributes.int("axis", 1), budget),
        "Squeeze" | "Unsqueeze" => {
            let axes = second.and_then(Const::as_ints).or_else(|| attributes.ints("axes"));
            axis_change(x, axes, node.op_type == "Unsqueeze", budget)
        }
        "Transpose" => transpose(x, attributes.ints("perm"), budget),
        "Concat" => concat(&operands, attributes.int("axis", 0), budget),
        "Gather" => second
            .ok_or("needs indices".to_owned())
            .and_then(|i| gather(x, i, attributes.int("axis", 0), budget)),
        "Slice" => slice(node, inputs, budget),
        "ConstantOfShape" => of_shape(x, &attributes, budget),
        "Expand" => second.ok_or("needs a shape".to_owned()).and_then(|s| expand(x, s, budget)),
        "Shape" => Ok(Const::ints(x.dims.iter().map(|&d| d as i64).collect())),
        _ => return None,
    })
}

type Folded = Result<Const, String>;

/// Number of elements of a result, charged to the budget at `width` each.
fn charge(dims: &[usize], width: usize, budget: &mut Budget) -> Result<usize, String> {
    if dims.len() > MAX_RANK {
        return Err(format!("{} axes; at most {MAX_RANK} are read", dims.len()));
    }
    let work = volume(dims).ok_or_else(|| format!("impossible shape {dims:?}"))?;
    budget.charge(work.saturating_mul(width)).map_err(|e| e.to_string())?;
    Ok(dims.iter().product())
}

fn copy(x: &Const, budget: &mut Budget) -> Folded {
    charge(&x.dims, x.width(), budget)?;
    Ok(x.clone())
}

fn unary(x: &Const, budget: &mut Budget, f: impl Fn(f32) -> f32) -> Folded {
    charge(&x.dims, x.width(), budget)?;
    match &x.data {
        Data::Float(d) => Ok(Const::floats(x.dims.clone(), d.iter().map(|&v| f(v)).collect())),
        Data::Int(_) => Err("takes floating-point values".into()),
    }
}

fn binary(
    operands: &[&Const],
    budget: &mut Budget,
    float: impl Fn(f32, f32) -> f32,
    int: impl Fn(i64, i64) -> Option<i64>,
) -> Folded {
    let &[x, y] = operands else { return Err(format!("takes 2 inputs, found {}", operands.len())) };
    let dims = broadcast(&x.dims, &y.dims)
        .ok_or_else(|| format!("shapes {:?} and {:?} do not go together", x.dims, y.dims))?;
    charge(&dims, x.width(), budget)?;
    let left = positions(&dims, &broadcast_strides(&x.dims, &dims), 0);
    let right = positions(&dims, &broadcast_strides(&y.dims, &dims), 0);
    let pairs = left.zip(right);
    let data = match (&x.data, &y.data) {
        (Data::Float(a), Data::Float(b)) => Data::Float(pairs.map(|(i, j)| float(a[i], b[j])).collect()),
        (Data::Int(a), Data::Int(b)) => {
            let all: Option<Vec<i64>> = pairs
                .map(|(i, j)| if a[i] == BATCH || b[j] == BATCH { None } else { int(a[i], b[j]) })
                .collect();
            Data::Int(all.ok_or("integers overflow, divide by zero, or depend on the batch size")?)
        }
        // Pow may mix the two.
        (Data::Float(a), Data::Int(b)) =>
        {
            #[expect(clippy::cast_precision_loss, reason = "an exponent is small")]
            Data::Float(pairs.map(|(i, j)| float(a[i], b[j] as f32)).collect())
        }
        (Data::Int(_), Data::Float(_)) => return Err("mixes integers and floating-point values".into()),
    };
    Ok(Const { dims, data })
}

fn cast(x: &Const, to: i64, budget: &mut Budget) -> Folded {
    charge(&x.dims, 2, budget)?;
    let to = i32::try_from(to).unwrap_or(0);
    let float = matches!(to, element::FLOAT | element::DOUBLE | element::FLOAT16 | element::BFLOAT16);
    let data = match &x.data {
        Data::Int(d) if float => {
            if d.contains(&BATCH) {
                return Err("the value depends on the batch size".into());
            }
            #[expect(clippy::cast_precision_loss, reason = "weights are kept in f32")]
            Data::Float(d.iter().map(|&v| v as f32).collect())
        }
        #[expect(clippy::cast_possible_truncation, reason = "Cast truncates, and `as` saturates")]
        Data::Float(d) if !float => Data::Int(d.iter().map(|&v| v as i64).collect()),
        same => same.clone(),
    };
    Ok(Const { dims: x.dims.clone(), data })
}

fn reshape(x: &Const, shape: &Const, budget: &mut Budget) -> Folded {
    let wanted = shape.as_ints().ok_or("the shape must be integers")?;
    let mut dims = Vec::new();
    let mut free = None;
    for (i, &d) in wanted.iter().enumerate() {
        dims.push(match d {
            -1 if free.is_none() => {
                free = Some(i);
                1
            }
            0 => *x.dims.get(i).ok_or_else(|| format!("impossible shape {wanted:?}"))?,
            d => usize::try_from(d).map_err(|_| format!("impossible shape {wanted:?}"))?,
        });
    }
    if let Some(i) = free {
        let rest = product(&dims).filter(|&n| n > 0).ok_or_else(|| format!("impossible shape {wanted:?}"))?;
        dims[i] = x.len() / rest;
    }
    if product(&dims) != Some(x.len()) {
        return Err(format!("{} values do not fill shape {wanted:?}", x.len()));
    }
    charge(&dims, x.width(), budget)?;
    Ok(Const { dims, data: x.data.clone() })
}

fn flatten(x: &Const, axis: i64, budget: &mut Budget) -> Folded {
    let axis = axis_index(axis, x.dims.len() + 1)?;
    charge(&x.dims, x.width(), budget)?;
    let (front, back) = x.dims.split_at(axis);
    Ok(Const { dims: vec![front.iter().product(), back.iter().product()], data: x.data.clone() })
}

fn axis_change(x: &Const, axes: Option<&[i64]>, insert: bool, budget: &mut Budget) -> Folded {
    charge(&x.dims, x.width(), budget)?;
    let rank = x.dims.len() + if insert { axes.map_or(0, <[i64]>::len) } else { 0 };
    if rank > MAX_RANK {
        return Err(format!("{rank} axes; at most {MAX_RANK} are read"));
    }
    let chosen: Option<Vec<usize>> = match axes {
        Some(axes) => Some(axes.iter().map(|&a| axis_index(a, rank)).collect::<Result<_, _>>()?),
        None => None,
    };
    let is_chosen = |i: usize| chosen.as_ref().is_none_or(|c| c.contains(&i));
    let dims: Vec<usize> = if insert {
        let mut rest = x.dims.iter();
        (0..rank)
            .map(|i| if is_chosen(i) { Some(1) } else { rest.next().copied() })
            .collect::<Option<_>>()
            .ok_or("an axis is named twice")?
    } else {
        x.dims.iter().enumerate().filter(|&(i, &d)| d != 1 || !is_chosen(i)).map(|(_, &d)| d).collect()
    };
    if product(&dims) != Some(x.len()) {
        return Err(format!("axes {axes:?} do not fit shape {:?}", x.dims));
    }
    Ok(Const { dims, data: x.data.clone() })
}

fn transpose(x: &Const, perm: Option<&[i64]>, budget: &mut Budget) -> Folded {
    let rank = x.dims.len();
    let perm: Vec<usize> = match perm {
        Some(perm) => perm.iter().map(|&p| axis_index(p, rank)).collect::<Result<_, _>>()?,
        None => (0..rank).rev().collect(),
    };
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    if sorted != (0..rank).collect::<Vec<_>>() {
        return Err(format!("{perm:?} does not permute {rank} axes"));
    }
    charge(&x.dims, x.width(), budget)?;
    let strides = strides(&x.dims);
    let dims: Vec<usize> = perm.iter().map(|&p| x.dims[p]).collect();
    let strides: Vec<isize> = perm.iter().map(|&p| strides[p]).collect();
    let positions = positions(&dims, &strides, 0);
    Ok(x.pick(dims, positions))
}

fn concat(parts: &[&Const], axis: i64, budget: &mut Budget) -> Folded {
    let rank = parts[0].dims.len();
    let axis = axis_index(axis, rank)?;
    let mut dims = parts[0].dims.clone();
    dims[axis] = 0;
    for part in parts {
        let fits = part.dims.len() == rank && (0..rank).all(|i| i == axis || part.dims[i] == dims[i]);
        if !fits {
            return Err(format!("shapes {:?} and {:?} do not go together", parts[0].dims, part.dims));
        }
        dims[axis] += part.dims[axis];
    }
    charge(&dims, parts[0].width(), budget)?;
    let outer: usize = dims[..axis].iter().product();
    let inner = |p: &Const| p.dims[axis..].iter().product::<usize>();
    let ranges = (0..outer).flat_map(|o| parts.iter().map(move |p| (*p, o * inner(p)..(o + 1) * inner(p))));
    let mut floats = Vec::new();
    let mut ints = Vec::new();
    for (part, range) in ranges {
        match &part.data {
            Data::Float(d) => floats.extend_from_slice(&d[range]),
            Data::Int(d) => ints.extend_from_slice(&d[range]),
        }
    }
    match (floats.is_empty(), ints.is_empty()) {
        (false, false) => Err("mixes integers and floating-point values".into()),
        (false, true) => Ok(Const { dims, data: Data::Float(floats) }),
        (true, _) => Ok(Const { dims, data: Data::Int(ints) }),
    }
}

fn gather(x: &Const, indices: &Const, axis: i64, budget: &mut Budget) -> Folded {
    let axis = axis_index(axis, x.dims.len())?;
    let extent = x.dims[axis];
    let picks: Vec<usize> = indices
        .as_ints()
        .ok_or("indices must be integers")?
        .iter()
        .map(|&i| axis_index(i, extent))
        .collect::<Result<_, _>>()?;
    let (outer, inner) = (&x.dims[..axis], &x.dims[axis + 1..]);
    let dims = [outer, &indices.dims, inner].concat();
    charge(&dims, x.width(), budget)?;
    let (outer, inner): (usize, usize) = (outer.iter().product(), inner.iter().product());
    let place = |o: usize, p: usize| (o * extent + p) * inner;
    let positions =
        (0..outer).flat_map(|o| picks.iter().flat_map(move |&p| place(o, p)..place(o, p) + inner));
    Ok(x.pick(dims, positions))
}

fn slice(node: &NodeProto, inputs: &[Option<&Const>], budget: &mut Budget) -> Folded {
    let attributes = Attributes(node);
    let Some(&Some(x)) = inputs.first() else { return Err("needs an input".into()) };
    let list = |k: usize, name: &str| -> Option<Vec<i64>> {
        let given = inputs.get(k).copied().flatten().and_then(Const::as_ints);
        given.or_else(|| attributes.ints(name)).map(<[i64]>::to_vec)
    };
    let (Some(starts), Some(ends)) = (list(1, "starts"), list(2, "ends")) else {
        return Err("needs starts and ends".into());
    };
    let axes = list(3, "axes").unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = list(4, "steps").unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err("starts, ends, axes and steps differ in length".into());
    }
    let mut dims = x.dims.clone();
    let mut strides = strides(&x.dims);
    let mut offset = 0isize;
    let mut named = BTreeSet::new();
    for k in 0..starts.len() {
        let axis = axis_index(axes[k], dims.len())?;
        if !named.insert(axis) {
            return Err(format!("axis {axis} is named twice"));
        }
        let extent = x.dims[axis] as i64;
        let step = steps[k];
        if step == 0 || step == i64::MIN {
            return Err("a step must not be zero".into());
        }
        let wrap = |i: i64| if i < 0 { i.saturating_add(extent) } else { i };
        let (start, length) = if step > 0 {
            let (from, to) = (wrap(starts[k]).clamp(0, extent), wrap(ends[k]).clamp(0, extent));
            (from, (to - from).max(0).unsigned_abs().div_ceil(step.unsigned_abs()))
        } else {
            let (from, to) = (wrap(starts[k]).clamp(-1, extent - 1), wrap(ends[k]).clamp(-1, extent - 1));
            (from, (from - to).max(0).unsigned_abs().div_ceil(step.unsigned_abs()))
        };
        dims[axis] = usize::try_from(length).map_err(|e| e.to_string())?;
        if dims[axis] > 0 {
            offset += isize::try_from(start).map_err(|e| e.to_string())? * strides[axis];
        }
        strides[axis] = strides[axis].saturating_mul(isize::try_from(step).map_err(|e| e.to_string())?);
    }
    charge(&dims, x.width(), budget)?;
    let positions = positions(&dims, &strides, offset);
    Ok(x.pick(dims, positions))
}

fn of_shape(shape: &Const, attributes: &Attributes<'_>, budget: &mut Budget) -> Folded {
    let dims = dims_of(shape)?;
    let value = match attributes.tensor("value") {
        Some(t) => Const::decode(t).map_err(|e| e.to_string())?,
        None => Const::floats(vec![1], vec![0.0]),
    };
    if value.len() != 1 {
        return Err("takes one value".into());
    }
    let count = charge(&dims, value.width(), budget)?;
    Ok(value.pick(dims, std::iter::repeat_n(0, count)))
}

fn expand(x: &Const, shape: &Const, budget: &mut Budget) -> Folded {
    let dims = dims_of(shape)?;
    let dims =
        broadcast(&x.dims, &dims).ok_or_else(|| format!("shape {:?} does not expand to {dims:?}", x.dims))?;
    charge(&dims, x.width(), budget)?;
    let positions = positions(&dims, &broadcast_strides(&x.dims, &dims), 0);
    Ok(x.pick(dims, positions))
}

fn dims_of(shape: &Const) -> Result<Vec<usize>, String> {
    let ints = shape.as_ints().ok_or("a shape must be integers")?;
    let dims: Option<Vec<usize>> = ints.iter().map(|&d| usize::try_from(d).ok()).collect();
    dims.ok_or_else(|| "the shape is negative or depends on the batch size".into())
}

/// An axis or index counted from the front; negative ones count from the back.
pub(super) fn axis_index(axis: i64, rank: usize) -> Result<usize, String> {
    let from_front = if axis < 0 { axis.checked_add_unsigned(rank as u64) } else { Some(axis) };
    from_front
        .and_then(|a| usize::try_from(a).ok())
        .filter(|&a| a < rank)
        .ok_or_else(|| format!("index {axis} is out of range for {rank}"))
}

fn broadcast(x: &[usize], y: &[usize]) -> Option<Vec<usize>> {
    let rank = x.len().max(y.len());
    let at = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |k| s[k]);
    (0..rank)
        .map(|i| match (at(x, i), at(y, i)) {
            (a, b) if a == b || b == 1 => Some(a),
            (1, b) => Some(b),
            _ => None,
        })
        .collect()
}

fn strides(dims: &[usize]) -> Vec<isize> {
    let mut strides = vec![1isize; dims.len()];
    for i in (1..dims.len()).rev() {
        strides[i - 1] = strides[i].saturating_mul(isize::try_from(dims[i]).unwrap_or(isize::MAX));
    }
    strides
}

/// Strides that read an array of `from` as if it were of `to`.
fn broadcast_strides(from: &[usize], to: &[usize]) -> Vec<isize> {
    let own = strides(from);
    let lead = to.len() - from.len();
    (0..to.len()).map(|i| if i < lead || from[i - lead] == 1 { 0 } else { own[i - lead] }).collect()
}

/// Flat position of every element of an array of `dims` that is read with `strides`.
fn positions(dims: &[usize], strides: &[isize], offset: isize) -> impl Iterator<Item = usize> + use<> {
    let (dims, strides) = (dims.to_vec(), strides.to_vec());
    let mut index = vec![0; dims.len()];
    let mut next = offset;
    (0..dims.iter().product()).map(move |_| {
        let here = next;
        for axis in (0..dims.len()).rev() {
            index[axis] += 1;
            // Wraps only on the step past the end of an axis, which is taken back at once.
            next = next.wrapping_add(strides[axis]);
            if index[axis] < dims[axis] {
                break;
            }
            next = next.wrapping_sub(strides[axis].wrapping_mul(dims[axis].cast_signed()));
            index[axis] = 0;
        }
        here.unsigned_abs()
    })
}
