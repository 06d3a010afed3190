//! Every back end against its scalar twin, and the twin against sums in double precision.

use super::*;
use crate::sample::SeedStream;
use proptest::prelude::*;

fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut bytes = vec![0; 4 * len];
    SeedStream::new(&[9; 32], seed).bytes(&mut bytes);
    bytes.as_chunks::<4>().0.iter().map(|&b| i32::from_le_bytes(b) as f32 / 2f32.powi(31)).collect()
}

#[derive(Clone, Copy, Debug)]
struct Case {
    rows: usize,
    lines: usize,
    runs: usize,
    width: usize,
    gap: usize,
    left_transposed: bool,
    lines_are_columns: bool,
    start: usize,
}

fn run(case: Case, backend: Backend) -> Vec<f32> {
    let pitch = case.width + case.gap;
    let len = case.runs * case.width;
    let (k, n) = if case.lines_are_columns { (len, case.lines) } else { (case.lines, len) };
    // Lines overlap, as those of a convolution do, and the last one ends with the data.
    let starts: Vec<usize> = (0..case.lines).map(|p| p * 5 % (3 * case.lines)).collect();
    let span = starts.iter().max().map_or(0, |s| s + case.runs.max(1) * pitch - case.gap);
    let data = values(span, 1);
    let stride = if case.left_transposed { case.rows } else { k } + case.gap;
    let left = values(stride * if case.left_transposed { k } else { case.rows }, 2);
    let bias = values(case.rows, 3);
    let mut out = values(case.rows * (n + case.gap), 4);
    let a = Left { data: &left, rows: case.rows, stride, transposed: case.left_transposed };
    let b = Lines { data: &data, starts: &starts, runs: case.runs, width: case.width, pitch };
    let start = [Start::Zero, Start::Keep, Start::Rows(&bias)][case.start % 3];
    let place = Out { data: &mut out, stride: n + case.gap };
    if case.lines_are_columns {
        product_transposed_by(backend, a, b, start, place);
    } else {
        product_by(backend, a, b, start, place);
    }
    out
}

fn agree(case: Case) {
    let expected = run(case, Backend::Scalar);
    for backend in Backend::available() {
        let found = run(case, backend);
        let same = expected.iter().zip(&found).all(|(e, f)| e.to_bits() == f.to_bits());
        assert!(same, "{case:?} with {}", backend.name());
    }
}

proptest! {
    #[test]
    fn products_equal_their_scalar_twin(
        rows in 0usize..14, lines in 1usize..70, runs in 0usize..8, width in 1usize..40, gap in 0usize..4,
        left_transposed: bool, lines_are_columns: bool, start in 0usize..3,
    ) {
        agree(Case { rows, lines, runs, width, gap, left_transposed, lines_are_columns, start });
    }
}

#[test]
fn long_sums_and_edges_equal_their_scalar_twin() {
    for (lines, runs, width) in
        [(257, 1, 25), (600, 3, 13), (24, 40, 13), (31, 1, 1000), (1, 1, 1), (300, 9, 1)]
    {
        for flags in 0..12 {
            let (left_transposed, lines_are_columns) = (flags & 1 > 0, flags & 2 > 0);
            agree(Case {
                rows: 6,
                lines,
                runs,
                width,
                gap: 2,
                left_transposed,
                lines_are_columns,
                start: flags / 4,
            });
        }
    }
}

#[test]
fn the_twin_computes_products() {
    let (left, data) = (values(3 * 700, 5), values(700 * 4, 6));
    let starts: Vec<usize> = (0..700).map(|p| 4 * p).collect();
    let mut out = [1.0; 12];
    let a = Left { data: &left, rows: 3, stride: 700, transposed: false };
    let b = Lines { data: &data, starts: &starts, runs: 1, width: 4, pitch: 0 };
    product_by(Backend::Scalar, a, b, Start::Keep, Out { data: &mut out, stride: 4 });
    for (index, &found) in out.iter().enumerate() {
        let (i, j) = (index / 4, index % 4);
        let terms = (0..700).map(|p| f64::from(left[700 * i + p]) * f64::from(data[4 * p + j]));
        let exact = 1.0 + terms.sum::<f64>();
        assert!((f64::from(found) - exact).abs() < 1e-4, "{found} {exact}");
    }
}

#[test]
#[should_panic(expected = "beyond the data")]
fn lines_beyond_the_data_are_refused() {
    let a = Left { data: &[1.0], rows: 1, stride: 1, transposed: false };
    let b = Lines { data: &[1.0; 5], starts: &[3], runs: 1, width: 3, pitch: 0 };
    product(a, b, Start::Zero, Out { data: &mut [0.0; 3], stride: 3 });
}
