//! Ridge regressions in closed form.
//!
//! A row x of n values and what is wanted for it, r, give the weights `Δ = R·Xᵀ·(X·Xᵀ + λ·s·I)⁻¹`, X with a column a row, and s the sum of
//! squares of a value in the mean over the n. Where rows are fewer than values the same is had from products of rows with each other,
//! `Δ = R·(Xᵀ·X + λ·s·I)⁻¹·Xᵀ` (Saunders, Gammerman, Vovk, "Ridge regression learning algorithm in dual variables", 1998). An offset has no
//! ridge: it is what rows and residuals are in the mean.

use polyveil_math::simd::matrix::{Left, Lines, Out, Start, product};
use rayon::prelude::*;

/// Sums of squares below this are nothing.
const LEAST_SIZE: f64 = 1e-30;
/// Weight rows that are changed together.
const TOGETHER: usize = 32;

/// Normal equations, decomposed once (Cholesky): windows scaled to unit size in the mean, the same ridge on each, an
/// offset where there is a bias.
pub(super) struct System {
    factor: Vec<f64>,
    scales: Vec<f64>,
    order: usize,
    offset: bool,
}

impl System {
    pub(super) fn new(gram: &[f64], means: Option<(&[f64], f64)>, ridge: f64) -> Option<Self> {
        let taps = (gram.len() as f64).sqrt().round() as usize;
        let offset = means.is_some();
        let order = taps + usize::from(offset);
        // One size for all: with a ridge relative to its own size, a value that hardly varies could get a weight
        // that blows up the first image in which it does.
        let size = (0..taps).map(|i| gram[i * taps + i]).sum::<f64>() / taps.max(1) as f64;
        if size <= 0.0 {
            return None;
        }
        let mut scales = vec![size.sqrt().recip(); taps];
        let mut factor = vec![0.0; order * order];
        for i in 0..taps {
            for j in 0..=i {
                factor[i * order + j] = gram[i * taps + j] * scales[i] * scales[j];
            }
            factor[i * order + i] += ridge;
        }
        if let Some((sums, count)) = means {
            let scale = count.max(1.0).sqrt().recip();
            for j in 0..taps {
                factor[taps * order + j] = sums[j] * scales[j] * scale;
            }
            factor[taps * order + taps] = 1.0 + 1e-9;
            scales.push(scale);
        }
        for i in 0..order {
            for j in 0..=i {
                let (above, row) = factor.split_at_mut(i * order);
                let other = if i == j { None } else { Some(&above[j * order..j * order + j + 1]) };
                let dot = match other {
                    Some(other) => dot(&row[..j], &other[..j]),
                    None => dot(&row[..j], &row[..j]),
                };
                let value = row[j] - dot;
                row[j] = match other {
                    Some(other) => value / other[j],
                    None if value > 1e-12 => value.sqrt(),
                    None => return None,
                };
            }
        }
        Some(Self { factor, scales, order, offset })
    }

    pub(super) fn solve(&self, cross: &[f64], residual: f64) -> Vec<f64> {
        let n = self.order;
        let mut x: Vec<f64> = cross.to_vec();
        if self.offset {
            x.push(residual);
        }
        x.iter_mut().zip(&self.scales).for_each(|(x, s)| *x *= s);
        for i in 0..n {
            let done = dot(&self.factor[i * n..i * n + i], &x[..i]);
            x[i] = (x[i] - done) / self.factor[i * n + i];
        }
        for i in (0..n).rev() {
            x[i] /= self.factor[i * n + i];
            let value = x[i];
            let row = &self.factor[i * n..i * n + i];
            x[..i].iter_mut().zip(row).for_each(|(x, f)| *x -= f * value);
        }
        x.iter_mut().zip(&self.scales).for_each(|(x, s)| *x *= s);
        x
    }
}

/// In strands, so that it vectorises.
fn dot<T: Copy + Into<f64>>(x: &[T], y: &[T]) -> f64 {
    let product = |(&x, &y): (&T, &T)| x.into() * y.into();
    let mut strands = [0.0f64; 8];
    let (xs, ys) = (x.chunks_exact(8), y.chunks_exact(8));
    let rest: f64 = xs.remainder().iter().zip(ys.remainder()).map(product).sum();
    for (x, y) in xs.zip(ys) {
        for (strand, pair) in strands.iter_mut().zip(x.iter().zip(y)) {
            *strand += product(pair);
        }
    }
    strands.iter().sum::<f64>() + rest
}

/// Adds to weights, `n` an output, and to their offsets, what brings the outputs nearest to `residuals`, all outputs of one of the `rows` of n values
/// after those of another. For fewer rows than values; outputs for which no finite weights are found stay as they are.
pub(super) fn fit_rows(
    n: usize,
    weights: &mut [f32],
    offsets: Option<&mut [f32]>,
    mut rows: Vec<f32>,
    residuals: &[f32],
    ridge: f64,
) {
    let (count, outputs) = (rows.len() / n.max(1), weights.len() / n.max(1));
    if count * outputs == 0 || residuals.len() != count * outputs {
        return;
    }
    let size = rows.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / n as f64;
    let [mut means, mut wanted] = [vec![0.0; n], vec![0.0; outputs]];
    if offsets.is_some() {
        means = mean_row(&rows, n);
        wanted = mean_row(residuals, outputs);
        rows.par_chunks_mut(n).for_each(|row| {
            row.iter_mut().zip(&means).for_each(|(v, m)| *v = (f64::from(*v) - m) as f32);
        });
    }
    let mut gram = vec![0.0; count * count];
    gram.par_chunks_mut(count).zip(rows.par_chunks(n)).enumerate().for_each(|(i, (line, row))| {
        let others = rows.chunks(n).take(i + 1);
        line.iter_mut().zip(others).for_each(|(sum, other)| *sum = dot(row, other));
    });
    let own = (0..count).map(|i| gram[i * count + i]).sum::<f64>() / count as f64;
    if own <= LEAST_SIZE {
        return;
    }
    let Some(system) = System::new(&gram, None, ridge * size / own) else { return };
    // Shares of the rows in the weights of each output.
    let mut shares = vec![0.0f32; outputs * count];
    let lean: Vec<f64> =
        rows.par_chunks(n).map(|row| row.iter().zip(&means).map(|(&v, m)| f64::from(v) * m).sum()).collect();
    let shifts: Vec<f64> = shares
        .par_chunks_mut(count)
        .enumerate()
        .map(|(output, shares)| {
            let column: Vec<f64> =
                (0..count).map(|i| f64::from(residuals[i * outputs + output]) - wanted[output]).collect();
            let solution = system.solve(&column, 0.0);
            if solution.iter().any(|&v| !(v as f32).is_finite()) {
                return 0.0;
            }
            shares.iter_mut().zip(&solution).for_each(|(share, &v)| *share = v as f32);
            wanted[output] - dot(&solution, &lean)
        })
        .collect();
    let starts: Vec<usize> = (0..count).map(|row| row * n).collect();
    let lines = Lines { data: &rows, starts: &starts, runs: 1, width: n, pitch: 0 };
    weights.par_chunks_mut(TOGETHER * n).zip(shares.par_chunks(TOGETHER * count)).for_each(
        |(data, shares)| {
            let left = Left { data: shares, rows: shares.len() / count, stride: count, transposed: false };
            product(left, lines, Start::Keep, Out { data, stride: n });
        },
    );
    for (offset, shift) in offsets.into_iter().flatten().zip(shifts) {
        *offset += shift as f32;
    }
}

/// The mean of rows of n values.
fn mean_row(rows: &[f32], n: usize) -> Vec<f64> {
    let mut means = vec![0.0; n];
    for row in rows.chunks(n) {
        means.iter_mut().zip(row).for_each(|(mean, &v)| *mean += f64::from(v));
    }
    let count = (rows.len() / n.max(1)).max(1) as f64;
    means.iter_mut().for_each(|mean| *mean /= count);
    means
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{generator, normal};

    #[test]
    fn equations_are_solved() {
        // (XᵀX) for X = [[1, 2], [3, 4], [5, 7]], with an offset.
        let rows = [[1.0, 2.0], [3.0, 4.0], [5.0, 7.0f64]];
        let sum = |f: &dyn Fn(&[f64; 2]) -> f64| rows.iter().map(f).sum::<f64>();
        let gram =
            [sum(&|r| r[0] * r[0]), sum(&|r| r[0] * r[1]), sum(&|r| r[0] * r[1]), sum(&|r| r[1] * r[1])];
        let sums = [sum(&|r| r[0]), sum(&|r| r[1])];
        let y = |r: &[f64; 2]| 2.0 * r[0] - 3.0 * r[1] + 0.5;
        let system = System::new(&gram, Some((&sums, 3.0)), 0.0).unwrap();
        let solution = system.solve(&[sum(&|r| y(r) * r[0]), sum(&|r| y(r) * r[1])], sum(&y));
        for (found, expected) in solution.iter().zip([2.0, -3.0, 0.5]) {
            assert!((found - expected).abs() < 1e-5, "{solution:?}");
        }
    }

    #[test]
    fn few_rows_give_what_the_normal_equations_give() {
        let (count, n, outputs, ridge) = (5, 9, 3, 1e-2);
        let mut rng = generator(5, "ridge", 0, 0);
        let mut draw = |len: usize| (0..len).map(|_| 0.3 + normal(&mut rng)).collect::<Vec<f32>>();
        let (rows, residuals, before) = (draw(count * n), draw(count * outputs), draw(outputs * n));
        for offset in [false, true] {
            let (mut weights, mut offsets) = (before.clone(), vec![0.5f32; outputs]);
            fit_rows(n, &mut weights, offset.then_some(&mut offsets[..]), rows.clone(), &residuals, ridge);

            let row = |i: usize| &rows[i * n..(i + 1) * n];
            let sum = |f: &dyn Fn(usize) -> f64| (0..count).map(f).sum::<f64>();
            let at = |i: usize, a: usize| f64::from(row(i)[a]);
            let gram: Vec<f64> = (0..n * n).map(|k| sum(&|i| at(i, k / n) * at(i, k % n))).collect();
            let sums: Vec<f64> = (0..n).map(|a| sum(&|i| at(i, a))).collect();
            let system = System::new(&gram, offset.then_some((&sums[..], count as f64)), ridge).unwrap();
            for output in 0..outputs {
                let wanted = |i: usize| f64::from(residuals[i * outputs + output]);
                let cross: Vec<f64> = (0..n).map(|a| sum(&|i| wanted(i) * at(i, a))).collect();
                let expected = system.solve(&cross, sum(&wanted));
                let found = &weights[output * n..(output + 1) * n];
                for ((found, before), expected) in found.iter().zip(&before[output * n..]).zip(&expected) {
                    assert!(
                        (f64::from(found - before) - expected).abs() < 1e-5,
                        "{found} {before} {expected}"
                    );
                }
                let shift = if offset { expected[n] } else { 0.0 };
                assert!((f64::from(offsets[output]) - 0.5 - shift).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn an_output_without_finite_residuals_stays_as_it_is() {
        let rows = vec![1.0, 2.0, 0.5, -1.0, 3.0, 0.25];
        let (mut weights, mut offsets) = (vec![0.5f32; 6], [0.0f32; 2]);
        fit_rows(3, &mut weights, Some(&mut offsets), rows, &[1.0, f32::NAN, -1.0, 0.0], 1e-3);
        assert!(weights[..3].iter().all(|&w| w != 0.5 && w.is_finite()), "{weights:?}");
        assert_eq!((&weights[3..], offsets[1]), (&[0.5f32; 3][..], 0.0));
    }

    #[test]
    fn rows_that_say_nothing_change_nothing() {
        let before = vec![1.0f32; 2 * 7];
        for rows in [vec![0.0f32; 3 * 7], vec![2.0; 3 * 7], vec![f32::NAN; 3 * 7], Vec::new()] {
            let (mut weights, mut offsets) = (before.clone(), [0.0f32; 2]);
            let residuals = vec![0.0f32; rows.len() / 7 * 2];
            fit_rows(7, &mut weights, Some(&mut offsets), rows, &residuals, 1e-2);
            assert_eq!((weights, offsets), (before.clone(), [0.0; 2]));
        }
    }
}
