//! Many sums of products of the same values with periodic weights, as in a convolution, one thread.
//!
//! `cargo bench -p polyveil-math --bench tiles`. Groups are named by the number of runs of values, of sums, and of products of
//! a sum; the time is that of one tile of all runs, and the throughput counts values of products.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use polyveil_math::Modulus;
use polyveil_math::buffer::{self, Buffer};
use polyveil_math::prime::ntt_primes;
use polyveil_math::simd::{TileProducts, TileSum, Tiles, tile_block, tile_sums};
use std::time::Duration;

/// log2 of neighbours that share a weight.
const LOG_BLOCK: u32 = 9;

fn sums(criterion: &mut Criterion) {
    let Some(modulus) = ntt_primes(42, 15, 1, &[]).ok().and_then(|p| Modulus::new(*p.first()?).ok()) else {
        return;
    };
    for (runs, tile, count, products, alike) in [
        (32, 2048, 8, 32, 1),
        (64, 1024, 64, 64, 1),
        (64, 1024, 64, 64, 4),
        (128, 512, 108, 106, 1),
        (128, 512, 108, 106, 4),
        (256, 256, 70, 148, 1),
        (256, 256, 70, 148, 4),
        (384, 128, 72, 334, 4),
    ] {
        let gap = tile + tile_block(runs);
        let residue = |i: usize| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) % modulus.value();
        // Buffers begin on a cache line.
        let values = Buffer::from((0..runs * gap).map(residue).collect::<Vec<_>>());
        let values: Vec<&[u64]> = values.chunks_exact(gap).map(|run| &run[..tile]).collect();
        let rows = (tile >> LOG_BLOCK).max(1);
        let weights: Vec<u64> = (0..count * products * rows).map(residue).collect();
        let lists: Vec<[TileProducts; 1]> = (0..count)
            .map(|sum| {
                let values =
                    (0..products).map(|k| ((k * runs / products + sum / alike) % runs) as u32).collect();
                [TileProducts { log_block: LOG_BLOCK, weights: sum * products * rows, values }]
            })
            .collect();
        let mut out = buffer::take(count * tile);
        let mut group = criterion.benchmark_group(format!("{runs} runs/{count} sums/{alike} alike"));
        group.throughput(Throughput::Elements((count * products * tile) as u64));
        group.bench_function(BenchmarkId::from_parameter(products), |bencher| {
            bencher.iter(|| {
                let mut sums: Vec<TileSum<'_>> = out
                    .chunks_exact_mut(tile)
                    .zip(&lists)
                    .map(|(out, products)| TileSum { out, products, add: false })
                    .collect();
                tile_sums(&mut sums, Tiles { values: &values, weights: &weights, start: 0 }, &modulus);
            });
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = sums
}
criterion_main!(benches);
