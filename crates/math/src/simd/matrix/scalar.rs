//! Portable products, the reference for the others: the order of operations, and nothing else.

use super::{Left, Lines, Out, Start, depth};

/// See [`super::product`].
pub fn product(a: Left<'_>, b: Lines<'_>, start: Start<'_>, out: Out<'_>) {
    let width = b.width.max(1);
    let entry = |p: usize, j: usize| b.data[b.starts[p] + j / width * b.pitch + j % width];
    any(a, b.starts.len(), b.len(), entry, start, out);
}

/// See [`super::product_transposed`].
pub fn product_transposed(a: Left<'_>, b: Lines<'_>, start: Start<'_>, out: Out<'_>) {
    let width = b.width.max(1);
    let entry = |p: usize, j: usize| b.data[b.starts[j] + p / width * b.pitch + p % width];
    any(a, b.len(), b.starts.len(), entry, start, out);
}

fn any(a: Left<'_>, k: usize, n: usize, b: impl Fn(usize, usize) -> f32, start: Start<'_>, out: Out<'_>) {
    let (down, across) = if a.transposed { (1, a.stride) } else { (a.stride, 1) };
    let depth = depth(k);
    let mut column = vec![0.0; k];
    for j in 0..n {
        column.iter_mut().enumerate().for_each(|(p, v)| *v = b(p, j));
        for i in 0..a.rows {
            let chain = |from: usize| {
                let terms = column.iter().enumerate().skip(from).take(depth);
                terms.fold(0.0f32, |sum, (p, &v)| a.data[i * down + p * across].mul_add(v, sum))
            };
            let place = &mut out.data[i * out.stride + j];
            let mut sum = start.of(i).unwrap_or(*place) + chain(0);
            (depth..k).step_by(depth).for_each(|from| sum += chain(from));
            *place = sum;
        }
    }
}
