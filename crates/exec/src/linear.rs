//! Sums of rotations from single rotations and sums, for every mode.

use std::collections::BTreeMap;

use polyveil_ckks::{CkksError, par};

use crate::backend::{Backend, GiantSum, WeightedRotations};

/// Rotates all babies first (hoisted), then forms one giant step after the other.
pub(crate) fn step_by_step<B: Backend + ?Sized>(
    backend: &B,
    request: &WeightedRotations<'_, B::Cipher>,
) -> Result<Vec<Option<B::Cipher>>, CkksError> {
    let babies = rotations(backend, request.inputs, request.babies)?;
    let tasks: Vec<(usize, &GiantSum<'_>)> = request
        .outputs
        .iter()
        .enumerate()
        .flat_map(|(o, giants)| giants.iter().map(move |g| (o, g)))
        .collect();
    let giants: Vec<&GiantSum<'_>> = tasks.iter().map(|task| task.1).collect();
    let sums = backend.weighted_sums(&babies, &giants)?;
    drop(babies);
    let sums = par::try_map(sums.into_iter().zip(giants), |(sum, giant)| turn(backend, sum, giant.rotation))?;
    let mut outputs: Vec<Option<B::Cipher>> = vec![None; request.outputs.len()];
    for (sum, (o, _)) in sums.into_iter().zip(tasks) {
        match &mut outputs[o] {
            Some(total) => backend.add_assign(total, &sum)?,
            empty => *empty = Some(sum),
        }
    }
    let Some(scale) = request.rescale else { return Ok(outputs) };
    par::try_map(outputs, |x| x.map(|x| backend.rescale(&x, scale)).transpose())
}

/// The distinct rotations of inputs, in order: one decomposition an input.
pub(crate) fn rotations<B: Backend + ?Sized>(
    backend: &B,
    inputs: &[B::Cipher],
    babies: &[(usize, usize)],
) -> Result<Vec<B::Cipher>, CkksError> {
    let mut groups: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
    for (place, &(input, rotation)) in babies.iter().enumerate() {
        groups.entry(input).or_default().push((place, rotation));
    }
    let rotated = par::try_map(groups, |(input, wanted)| {
        let by: Vec<usize> = wanted.iter().map(|&(_, rotation)| rotation).collect();
        let rotated = backend.rotate_many(&inputs[input], &by)?;
        Ok::<_, CkksError>(wanted.into_iter().map(|(place, _)| place).zip(rotated))
    })?;
    let ordered: BTreeMap<usize, B::Cipher> = rotated.into_iter().flatten().collect();
    Ok(ordered.into_values().collect())
}

/// A single rotation; by 0 nothing happens.
pub(crate) fn turn<B: Backend + ?Sized>(
    backend: &B,
    x: B::Cipher,
    rotation: usize,
) -> Result<B::Cipher, CkksError> {
    if rotation == 0 {
        return Ok(x);
    }
    Ok(backend.rotate_many(&x, &[rotation])?.pop().unwrap_or(x))
}
