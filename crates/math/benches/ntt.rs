//! Transforms of both rings beside `tfhe-ntt`'s, forward and inverse, one thread.
//!
//! `cargo bench -p polyveil-math --bench ntt`. Groups are named by degree and size of the prime (50 bits, and 42 bits as in
//! level primes); within a group, `conjugate-invariant`, `standard` and `tfhe-ntt` transform the same values modulo the
//! same prime.
//!
//! What is compared: `tfhe-ntt` 0.7 takes its AVX-512 IFMA path on stable Rust for primes below 2^50 where the processor
//! has it (its `avx512` feature, on by default); it computes the negacyclic transform, which is the standard ring's. Its
//! inverse leaves out the factor 1/N, ours includes it, and ours of the conjugate-invariant ring includes the fold or
//! unfold. Both reduce fully. Buffers start at a multiple of 64 bytes.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use polyveil_math::ntt::NttTable;
use polyveil_math::prime::ntt_primes;
use polyveil_math::ring::RingKind;
use std::time::Duration;

/// Values from a multiple of 64 bytes on.
struct Buffer {
    words: Vec<u64>,
    start: usize,
    len: usize,
}

impl Buffer {
    fn new(len: usize, prime: u64) -> Self {
        let mut words = vec![0; len + 8];
        let start = words.as_ptr().align_offset(64).min(8);
        for (i, x) in words[start..start + len].iter_mut().enumerate() {
            *x = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) % prime;
        }
        Self { words, start, len }
    }

    fn values(&mut self) -> &mut [u64] {
        &mut self.words[self.start..self.start + self.len]
    }
}

fn transforms(criterion: &mut Criterion) {
    for (log_n, bits) in [14, 15, 16].into_iter().flat_map(|log_n| [50, 42].map(|bits| (log_n, bits))) {
        let Some(&prime) = ntt_primes(bits, log_n, 1, &[]).ok().as_deref().and_then(<[u64]>::first) else {
            continue;
        };
        for direction in ["forward", "inverse"] {
            let mut group = criterion.benchmark_group(format!("{direction}/2^{log_n}/{bits}-bit"));
            let mut bench = |name: &str, transform: &dyn Fn(&mut [u64])| {
                let id = BenchmarkId::from_parameter(name);
                group.bench_function(id, |bencher| {
                    // Transforms in place of what is there: any residues will do.
                    let mut buffer = Buffer::new(1 << log_n, prime);
                    bencher.iter(|| transform(buffer.values()));
                });
            };
            for (name, kind) in
                [("conjugate-invariant", RingKind::ConjugateInvariant), ("standard", RingKind::Standard)]
            {
                if let Ok(table) = NttTable::new(kind, log_n, prime) {
                    bench(name, &|values| {
                        if direction == "forward" { table.forward(values) } else { table.inverse(values) }
                    });
                }
            }
            if let Some(plan) = tfhe_ntt::prime64::Plan::try_new(1 << log_n, prime) {
                bench("tfhe-ntt", &|values| {
                    if direction == "forward" { plan.fwd(values) } else { plan.inv(values) }
                });
            }
            group.finish();
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = transforms
}
criterion_main!(benches);
