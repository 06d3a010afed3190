//! Products of `f32` matrices: tiles of 8 by 48 entries in registers. Operands are packed as for AVX2, in panels twice as
//! wide.
//!
//! Eight rows read a panel half as often as four: one of 48 columns does not stay in every first cache.

use super::super::avx2::matrix::{Packed, ROWS, Span, each_panel, pack_columns, pack_rows, products};
use super::super::matrix::{Left, Lines, Out, Start, scalar};
use std::arch::x86_64::*;

/// Columns of a panel.
const COLUMNS: usize = 48;

type V = __m512;

products!("avx512f,avx512dq,avx2,fma");

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
fn any(
    a: Left<'_>,
    k: usize,
    n: usize,
    start: Start<'_>,
    mut out: Out<'_>,
    pack: impl Fn(&mut [f32], Span, Span, usize),
) {
    each_panel(&a, k, n, [COLUMNS, 16], pack, |packed| {
        let start = if packed.terms.from == 0 { start } else { Start::Keep };
        match packed.columns.len.div_ceil(16) {
            1 => column::<1>(&packed, a.rows, start, &mut out),
            2 => column::<2>(&packed, a.rows, start, &mut out),
            _ => column::<3>(&packed, a.rows, start, &mut out),
        }
    });
}

/// All tiles of one panel, two beside each other as long as there are two.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
fn column<const N: usize>(packed: &Packed<'_>, rows: usize, start: Start<'_>, out: &mut Out<'_>) {
    let Packed { left, panel, terms, columns } = packed;
    let panel = &panel.as_chunks::<16>().0.as_chunks::<N>().0[..terms.len];
    let left = &left.as_chunks::<ROWS>().0[..rows.div_ceil(ROWS) * terms.len];
    for (index, pair) in left.chunks(2 * terms.len).enumerate() {
        let (upper, lower) = pair.split_at(terms.len);
        let place = 2 * ROWS * index..rows;
        if lower.is_empty() {
            write(&tile::<1, N>([upper], panel), place, *columns, start, out);
        } else {
            write(&tile::<2, N>([upper, lower], panel), place, *columns, start, out);
        }
    }
}

/// Adds the sums of tiles, from the first of `rows` on, to what they start from.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
fn write<const T: usize, const N: usize>(
    sums: &[[[V; N]; ROWS]; T],
    rows: std::ops::Range<usize>,
    columns: Span,
    start: Start<'_>,
    out: &mut Out<'_>,
) {
    for (row, sums) in rows.zip(sums.as_flattened()) {
        let place = &mut out.data[row * out.stride + columns.from..][..columns.len];
        let base = start.of(row);
        for (place, &sum) in place.chunks_mut(16).zip(sums) {
            let lanes = u16::MAX >> (16 - place.len());
            // SAFETY: the lanes that the mask names are those of `place`, borrowed for writing; no others are touched.
            unsafe {
                let there = match base {
                    Some(base) => _mm512_set1_ps(base),
                    None => _mm512_maskz_loadu_ps(lanes, place.as_ptr()),
                };
                _mm512_mask_storeu_ps(place.as_mut_ptr(), lanes, _mm512_add_ps(there, sum));
            }
        }
    }
}

/// The sums of tiles over one block of terms.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
fn tile<const T: usize, const N: usize>(
    left: [&[[f32; ROWS]]; T],
    panel: &[[[f32; 16]; N]],
) -> [[[V; N]; ROWS]; T] {
    let mut sums = [[[_mm512_setzero_ps(); N]; ROWS]; T];
    let left = left.map(|l| &l[..panel.len()]);
    for (p, right) in panel.iter().enumerate() {
        let mut b = [_mm512_setzero_ps(); N];
        for v in 0..N {
            b[v] = load(&right[v]);
        }
        for t in 0..T {
            for r in 0..ROWS {
                let a = _mm512_set1_ps(left[t][p][r]);
                for v in 0..N {
                    sums[t][r][v] = _mm512_fmadd_ps(a, b[v], sums[t][r][v]);
                }
            }
        }
    }
    sums
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(x: &[f32; 16]) -> V {
    // SAFETY: sixteen values are borrowed; the instruction needs no alignment.
    unsafe { _mm512_loadu_ps(x.as_ptr()) }
}
