//! Products of `f32` matrices: tiles of 4 by 24 entries in registers, a panel of 24 columns in the first cache, the
//! left-hand block in the second.
//!
//! Four rows fit the channel counts of networks, which are multiples of four and often small; twelve accumulators hide
//! the latency of the multiply-add. Columns beyond the last panel take narrower tiles of 16 or 8.

use super::super::matrix::{Left, Lines, Out, Start, depth, scalar};
use std::arch::x86_64::*;
use std::cell::RefCell;

/// Rows of a tile.
pub(in crate::simd) const ROWS: usize = 4;
/// Columns of a panel.
const COLUMNS: usize = 24;

type V = __m256;

thread_local! {
    /// The packed left-hand block and one packed panel.
    static PACKED: RefCell<[Vec<f32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// `product` and `product_transposed` of a back end with these features, from its `any`.
macro_rules! products {
    ($features:tt) => {
        #[target_feature(enable = $features)]
        pub(in crate::simd) fn product(a: Left<'_>, b: Lines<'_>, start: Start<'_>, out: Out<'_>) {
            let (k, n) = (b.starts.len(), b.runs * b.width);
            if k == 0 || n == 0 || a.rows == 0 {
                return scalar::product(a, b, start, out);
            }
            any(a, k, n, start, out, |panel, terms, columns, vectors| {
                pack_rows(panel, &b, terms, columns, vectors)
            });
        }

        #[target_feature(enable = $features)]
        pub(in crate::simd) fn product_transposed(a: Left<'_>, b: Lines<'_>, start: Start<'_>, out: Out<'_>) {
            let (k, n) = (b.runs * b.width, b.starts.len());
            if k == 0 || n == 0 || a.rows == 0 {
                return scalar::product_transposed(a, b, start, out);
            }
            any(a, k, n, start, out, |panel, terms, columns, vectors| {
                pack_columns(panel, &b, terms, columns, vectors)
            });
        }
    };
}
pub(in crate::simd) use products;

products!("avx2,fma");

#[inline]
#[target_feature(enable = "avx2,fma")]
fn any(
    a: Left<'_>,
    k: usize,
    n: usize,
    start: Start<'_>,
    out: Out<'_>,
    pack: impl Fn(&mut [f32], Span, Span, usize),
) {
    each_panel(&a, k, n, [COLUMNS, 8], pack, |Packed { left, panel, terms, columns }| {
        let start = if terms.from == 0 { start } else { Start::Keep };
        match columns.len.div_ceil(8) {
            1 => column::<1>(left, panel, a.rows, terms, columns, start, out.data, out.stride),
            2 => column::<2>(left, panel, a.rows, terms, columns, start, out.data, out.stride),
            _ => column::<3>(left, panel, a.rows, terms, columns, start, out.data, out.stride),
        }
    });
}

/// Both operands, packed: the left-hand matrix in tiles of four rows, and some columns of the other.
pub(in crate::simd) struct Packed<'a> {
    pub(in crate::simd) left: &'a [f32],
    pub(in crate::simd) panel: &'a [f32],
    pub(in crate::simd) terms: Span,
    pub(in crate::simd) columns: Span,
}

/// Packs panels of at most `most` columns, one after another, and calls `tiles` for each.
/// `pack(panel, terms, columns, vectors)` writes one, term by term, as so many vectors of eight: `columns` rounded up to
/// `lanes`. Lanes beyond the columns hold anything.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(in crate::simd) fn each_panel(
    a: &Left<'_>,
    k: usize,
    n: usize,
    [most, lanes]: [usize; 2],
    pack: impl Fn(&mut [f32], Span, Span, usize),
    mut tiles: impl FnMut(Packed<'_>),
) {
    PACKED.with_borrow_mut(|[left, panel]| {
        let depth = depth(k);
        let left = aligned(left, a.rows.next_multiple_of(ROWS) * depth);
        let panel = aligned(panel, most * depth);
        for from in (0..k).step_by(depth) {
            let terms = Span { from, len: depth.min(k - from) };
            pack_left(left, a, terms);
            for from in (0..n).step_by(most) {
                let columns = Span { from, len: most.min(n - from) };
                pack(panel, terms, columns, columns.len.next_multiple_of(lanes) / 8);
                tiles(Packed { left, panel, terms, columns });
            }
        }
    });
}

#[derive(Clone, Copy)]
pub(in crate::simd) struct Span {
    pub(in crate::simd) from: usize,
    pub(in crate::simd) len: usize,
}

/// At least `len` values of `buffer` from a multiple of 64 bytes on.
fn aligned(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len + 16 {
        *buffer = vec![0.0; len + 16];
    }
    let offset = buffer.as_ptr().align_offset(64).min(16);
    &mut buffer[offset..offset + len]
}

/// All tiles of one panel.
#[inline]
#[target_feature(enable = "avx2,fma")]
#[expect(clippy::too_many_arguments, reason = "what a tile needs")]
fn column<const N: usize>(
    left: &[f32],
    panel: &[f32],
    rows: usize,
    terms: Span,
    columns: Span,
    start: Start<'_>,
    out: &mut [f32],
    stride: usize,
) {
    let panel = &panel.as_chunks::<8>().0.as_chunks::<N>().0[..terms.len];
    for (index, left) in left.as_chunks::<ROWS>().0.chunks_exact(terms.len).enumerate() {
        let first = index * ROWS;
        if first >= rows {
            break;
        }
        let sums = if N == COLUMNS / 8 { widest_tile(left, panel) } else { tile::<N>(left, panel) };
        for (row, sums) in (first..rows).zip(&sums) {
            let place = &mut out[row * stride + columns.from..][..columns.len];
            let (whole, rest) = place.as_chunks_mut::<8>();
            let base = start.of(row);
            if let (Ok(whole), true) = (<&mut [[f32; 8]; N]>::try_from(&mut *whole), rest.is_empty()) {
                for v in 0..N {
                    let there = base.map_or_else(|| load(&whole[v]), |b| _mm256_set1_ps(b));
                    store(&mut whole[v], _mm256_add_ps(there, sums[v]));
                }
                continue;
            }
            let mut all = [[0.0; 8]; N];
            for v in 0..N {
                store(&mut all[v], sums[v]);
            }
            for (place, &sum) in whole.as_flattened_mut().iter_mut().chain(rest).zip(all.as_flattened()) {
                *place = base.unwrap_or(*place) + sum;
            }
        }
    }
}

/// The sums of a tile over one block of terms.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn tile<const N: usize>(left: &[[f32; ROWS]], panel: &[[[f32; 8]; N]]) -> [[V; N]; ROWS] {
    let mut sums = [[_mm256_setzero_ps(); N]; ROWS];
    for (left, right) in left.iter().zip(panel) {
        let mut b = [_mm256_setzero_ps(); N];
        for v in 0..N {
            b[v] = load(&right[v]);
        }
        for r in 0..ROWS {
            let a = _mm256_set1_ps(left[r]);
            for v in 0..N {
                sums[r][v] = _mm256_fmadd_ps(a, b[v], sums[r][v]);
            }
        }
    }
    sums
}

/// [`tile`] of three vectors. It needs all sixteen registers, and the compiler keeps one accumulator in memory, which
/// halves the speed; so the loop is written out.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn widest_tile<const N: usize>(left: &[[f32; ROWS]], panel: &[[[f32; 8]; N]]) -> [[V; N]; ROWS] {
    const { assert!(ROWS == 4) };
    let mut sums = [[_mm256_setzero_ps(); N]; ROWS];
    let terms = left.len().min(panel.len());
    if N != 3 || terms == 0 {
        return tile(left, panel);
    }
    let mut s = [[_mm256_setzero_ps(); 3]; ROWS];
    // SAFETY: per term, the loop reads four values of `left` and three vectors of `panel`, and both have `terms` of
    // them. It writes nothing.
    unsafe {
        std::arch::asm!(
            "2:",
            "vmovups {b0}, [{b}]",
            "vmovups {b1}, [{b} + 32]",
            "vmovups {b2}, [{b} + 64]",
            "vbroadcastss {x}, [{a}]",
            "vfmadd231ps {s00}, {x}, {b0}",
            "vfmadd231ps {s01}, {x}, {b1}",
            "vfmadd231ps {s02}, {x}, {b2}",
            "vbroadcastss {x}, [{a} + 4]",
            "vfmadd231ps {s10}, {x}, {b0}",
            "vfmadd231ps {s11}, {x}, {b1}",
            "vfmadd231ps {s12}, {x}, {b2}",
            "vbroadcastss {x}, [{a} + 8]",
            "vfmadd231ps {s20}, {x}, {b0}",
            "vfmadd231ps {s21}, {x}, {b1}",
            "vfmadd231ps {s22}, {x}, {b2}",
            "vbroadcastss {x}, [{a} + 12]",
            "vfmadd231ps {s30}, {x}, {b0}",
            "vfmadd231ps {s31}, {x}, {b1}",
            "vfmadd231ps {s32}, {x}, {b2}",
            "add {a}, 16",
            "add {b}, 96",
            "dec {terms}",
            "jnz 2b",
            a = inout(reg) left.as_ptr() => _,
            b = inout(reg) panel.as_ptr() => _,
            terms = inout(reg) terms => _,
            b0 = out(ymm_reg) _,
            b1 = out(ymm_reg) _,
            b2 = out(ymm_reg) _,
            x = out(ymm_reg) _,
            s00 = inout(ymm_reg) s[0][0],
            s01 = inout(ymm_reg) s[0][1],
            s02 = inout(ymm_reg) s[0][2],
            s10 = inout(ymm_reg) s[1][0],
            s11 = inout(ymm_reg) s[1][1],
            s12 = inout(ymm_reg) s[1][2],
            s20 = inout(ymm_reg) s[2][0],
            s21 = inout(ymm_reg) s[2][1],
            s22 = inout(ymm_reg) s[2][2],
            s30 = inout(ymm_reg) s[3][0],
            s31 = inout(ymm_reg) s[3][1],
            s32 = inout(ymm_reg) s[3][2],
            options(readonly, nostack),
        );
    }
    for (to, from) in sums.iter_mut().zip(s) {
        to.copy_from_slice(&from);
    }
    sums
}

/// Four rows side by side, term by term; zeros for rows that there are not.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn pack_left(packed: &mut [f32], a: &Left<'_>, terms: Span) {
    let tiles = packed.as_chunks_mut::<ROWS>().0.chunks_exact_mut(terms.len);
    for (first, tile) in (0..a.rows).step_by(ROWS).zip(tiles) {
        let rows = ROWS.min(a.rows - first);
        if a.transposed {
            for (p, place) in (terms.from..).zip(tile) {
                let values = &a.data[p * a.stride + first..][..rows];
                if let Some(values) = values.first_chunk() {
                    *place = *values;
                } else {
                    *place = [0.0; ROWS];
                    place[..rows].copy_from_slice(values);
                }
            }
            continue;
        }
        let empty = &a.data[..0];
        let mut lines = [empty; ROWS];
        for (r, line) in lines.iter_mut().enumerate().take(rows) {
            *line = &a.data[(first + r) * a.stride + terms.from..][..terms.len];
        }
        let mut done = 0;
        if rows == ROWS {
            let whole = lines.map(|l| l.as_chunks::<4>().0);
            let groups = tile.as_chunks_mut::<4>().0.iter_mut();
            let pairs = whole[0].iter().zip(whole[1]).zip(whole[2].iter().zip(whole[3]));
            for (place, ((a, b), (c, d))) in groups.zip(pairs) {
                *place = turn([a, b, c, d]);
            }
            done = terms.len / 4 * 4;
        }
        for (p, place) in tile.iter_mut().enumerate().skip(done) {
            for (value, line) in place.iter_mut().zip(lines) {
                *value = line.get(p).copied().unwrap_or(0.0);
            }
        }
    }
}

/// The transposed 4 by 4 matrix.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn turn(rows: [&[f32; 4]; 4]) -> [[f32; 4]; 4] {
    // SAFETY: four values are borrowed each; the instruction needs no alignment.
    let [a, b, c, d] = rows.map(|r| unsafe { _mm_loadu_ps(r.as_ptr()) });
    let (ab, cd) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
    let (ab_high, cd_high) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
    let mut out = [[0.0; 4]; 4];
    let columns = [
        _mm_movelh_ps(ab, cd),
        _mm_movehl_ps(cd, ab),
        _mm_movelh_ps(ab_high, cd_high),
        _mm_movehl_ps(cd_high, ab_high),
    ];
    for (place, v) in out.iter_mut().zip(columns) {
        // SAFETY: four values are borrowed for writing; the instruction needs no alignment.
        unsafe { _mm_storeu_ps(place.as_mut_ptr(), v) };
    }
    out
}

/// Columns of a panel whose lines are rows of the matrix: eight neighbours are a load where they lie in one piece, else
/// a masked load a piece.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(in crate::simd) fn pack_rows(
    panel: &mut [f32],
    b: &Lines<'_>,
    terms: Span,
    columns: Span,
    vectors: usize,
) {
    let starts = &b.starts[terms.from..terms.from + terms.len];
    let panel = panel.as_chunks_mut::<8>().0;
    for vector in 0..columns.len.div_ceil(8) {
        let from = columns.from + 8 * vector;
        let lanes = 8.min(columns.from + columns.len - from);
        let places = panel[vector..].iter_mut().step_by(vectors);
        let (run, at) = (from / b.width, from % b.width);
        if lanes == 8 && at + 8 <= b.width {
            let data = &b.data[run * b.pitch + at..];
            for (place, &start) in places.zip(starts) {
                // SAFETY: these eight values are of a line, and `check` saw that lines are within the data.
                unsafe { _mm256_storeu_ps(place.as_mut_ptr(), _mm256_loadu_ps(data.as_ptr().add(start))) };
            }
            continue;
        }
        // Where lane 0 would be if all lanes were of this piece, and which of them are.
        let mut pieces = [(0isize, _mm256_setzero_si256()); 8];
        let (mut count, mut lane, mut run, mut at) = (0, 0, run, at);
        while lane < lanes {
            let len = (b.width - at).min(lanes - lane);
            pieces[count] = ((run * b.pitch + at) as isize - lane as isize, mask(lane, len));
            (count, lane, run, at) = (count + 1, lane + len, run + 1, 0);
        }
        for (place, &start) in places.zip(starts) {
            let mut v = _mm256_setzero_ps();
            for &(offset, mask) in &pieces[..count] {
                let from = b.data.as_ptr().wrapping_add(start).wrapping_offset(offset);
                // SAFETY: the lanes that the mask names are of a line, and `check` saw that lines are within the data;
                // the others are not read.
                v = _mm256_or_ps(v, unsafe { _mm256_maskload_ps(from, mask) });
            }
            store(place, v);
        }
    }
}

/// Lanes `from .. from + len`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn mask(from: usize, len: usize) -> __m256i {
    let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let (from, end) = (_mm256_set1_epi32(from as i32), _mm256_set1_epi32((from + len) as i32));
    _mm256_andnot_si256(_mm256_cmpgt_epi32(from, lanes), _mm256_cmpgt_epi32(end, lanes))
}

/// Columns of a panel that are lines themselves: blocks of eight by eight are transposed.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(in crate::simd) fn pack_columns(
    panel: &mut [f32],
    b: &Lines<'_>,
    terms: Span,
    columns: Span,
    vectors: usize,
) {
    let starts = &b.starts[columns.from..columns.from + columns.len];
    let panel = panel.as_chunks_mut::<8>().0;
    for (vector, starts) in starts.chunks(8).enumerate() {
        let mut places = panel[vector..].iter_mut().step_by(vectors);
        let (mut run, mut at) = (terms.from / b.width, terms.from % b.width);
        let mut left = terms.len;
        while left > 0 {
            let len = 8.min(left).min(b.width - at);
            let offset = run * b.pitch + at;
            let mut rows = [_mm256_setzero_ps(); 8];
            if len == 8 {
                for (row, &start) in rows.iter_mut().zip(starts) {
                    // SAFETY: these eight values are of a line, and `check` saw that lines are within the data.
                    *row = unsafe { _mm256_loadu_ps(b.data.as_ptr().add(start + offset)) };
                }
            } else {
                let mask = mask(0, len);
                for (row, &start) in rows.iter_mut().zip(starts) {
                    // SAFETY: the lanes that the mask names are of a line, and `check` saw that lines are within the
                    // data; the others are not read.
                    *row = unsafe { _mm256_maskload_ps(b.data.as_ptr().add(start + offset), mask) };
                }
            }
            for (&v, place) in transposed(rows)[..len].iter().zip(places.by_ref()) {
                store(place, v);
            }
            (left, at) = (left - len, at + len);
            if at == b.width {
                (run, at) = (run + 1, 0);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn transposed(r: [V; 8]) -> [V; 8] {
    let low = |i: usize| _mm256_unpacklo_ps(r[i], r[i + 1]);
    let high = |i: usize| _mm256_unpackhi_ps(r[i], r[i + 1]);
    let (a, b) = ([low(0), high(0), low(4), high(4)], [low(2), high(2), low(6), high(6)]);
    // Entries 0 and 4, 1 and 5, 2 and 6, 3 and 7 of four rows.
    let first = |i: usize| _mm256_shuffle_ps::<0x44>(a[i], b[i]);
    let second = |i: usize| _mm256_shuffle_ps::<0xee>(a[i], b[i]);
    let (upper, lower) =
        ([first(0), second(0), first(1), second(1)], [first(2), second(2), first(3), second(3)]);
    let mut out = [_mm256_setzero_ps(); 8];
    for i in 0..4 {
        out[i] = _mm256_permute2f128_ps::<0x20>(upper[i], lower[i]);
        out[i + 4] = _mm256_permute2f128_ps::<0x31>(upper[i], lower[i]);
    }
    out
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load(x: &[f32; 8]) -> V {
    // SAFETY: eight values are borrowed; the instruction needs no alignment.
    unsafe { _mm256_loadu_ps(x.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn store(x: &mut [f32; 8], v: V) {
    // SAFETY: eight values are borrowed for writing; the instruction needs no alignment.
    unsafe { _mm256_storeu_ps(x.as_mut_ptr(), v) }
}
