//! Products of `f32` matrices in shapes of SqueezeNet at 224 pixels: best of many runs, in 10^9 multiply-adds a second.

use std::hint::black_box;
use std::time::Instant;

use polyveil_math::simd::matrix::{Left, Lines, Out, Start, product, product_transposed};

fn main() {
    for (name, outputs, channels, kernel, size, step) in [
        ("first", 64, 3, 3, 111, 2),
        ("squeeze", 16, 128, 1, 55, 1),
        ("expand1x1", 64, 16, 1, 55, 1),
        ("expand3x3", 64, 16, 3, 55, 1),
        ("expand3x3", 128, 32, 3, 27, 1),
        ("expand3x3", 256, 64, 3, 13, 1),
    ] {
        let line = (size + kernel - 1) * step;
        let starts: Vec<usize> = (0..channels * kernel * kernel)
            .map(|t| t / (kernel * kernel) * line * line + t / kernel % kernel * line + t % kernel)
            .collect();
        let (taps, positions) = (starts.len(), size * size);
        let data = vec![0.5f32; channels * line * line + line * step];
        let weight = vec![0.25f32; outputs * taps];
        let mut gradient = vec![0.0f32; outputs * taps];
        let mut y = vec![0.0f32; outputs * positions];
        let lines = if kernel == 1 {
            Lines { data: &data, starts: &starts, runs: 1, width: positions, pitch: 0 }
        } else {
            Lines { data: &data, starts: &starts, runs: size, width: size, pitch: line * step }
        };
        let forward = best(|| {
            let a = Left { data: black_box(&weight), rows: outputs, stride: taps, transposed: false };
            product(a, lines, Start::Zero, Out { data: &mut y, stride: positions });
        });
        let backward = best(|| {
            let a = Left { data: black_box(&y), rows: outputs, stride: positions, transposed: false };
            product_transposed(a, lines, Start::Keep, Out { data: &mut gradient, stride: taps });
        });
        let rate = |time: f64| (outputs * taps * positions) as f64 / time / 1e9;
        println!(
            "{name:<10} {outputs:>4} {channels:>4} {size:>4}: forward {:5.1}  weights {:5.1}",
            rate(forward),
            rate(backward)
        );
    }
}

fn best(mut f: impl FnMut()) -> f64 {
    let time = |_| {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64()
    };
    (0..60).map(time).fold(f64::INFINITY, f64::min)
}
