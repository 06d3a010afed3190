//! Transforms of both rings beside `tfhe-ntt`'s, forward and inverse, one thread.
//!
//! `cargo bench -p polyveil-math --bench ntt`. Groups are named by degree and size of the prime (50 bits, and 42 bits as in
//! level primes); within a group, `conjugate-invariant`, `standard` and `tfhe-ntt` transform the same values modulo the
//! same prime. Then a table of the three in turn: each round times three transforms of each, so that what else the machine
//! does meets all alike; `-- --table` prints it alone.
//!
//! What is compared: `tfhe-ntt` 0.7 takes its AVX-512 IFMA path on stable Rust for primes below 2^50 where the processor
//! has it (its `avx512` feature, on by default); it computes the negacyclic transform, which is the standard ring's. Its
//! inverse leaves out the factor 1/N, ours includes it, and ours of the conjugate-invariant ring includes the fold or
//! unfold. Both reduce fully. Buffers start at a multiple of 64 bytes.

use criterion::{BenchmarkId, Criterion, criterion_group};
use polyveil_math::ntt::NttTable;
use polyveil_math::prime::ntt_primes;
use polyveil_math::ring::RingKind;
use std::time::{Duration, Instant};

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

/// A direction's transforms by name.
type Transforms = Vec<(&'static str, Box<dyn Fn(&mut [u64])>)>;

const CASES: [(u32, u32); 12] = [
    (14, 50),
    (14, 49),
    (14, 48),
    (14, 42),
    (15, 50),
    (15, 49),
    (15, 48),
    (15, 42),
    (16, 50),
    (16, 49),
    (16, 48),
    (16, 42),
];
const DIRECTIONS: [&str; 2] = ["forward", "inverse"];

fn prime(log_n: u32, bits: u32) -> u64 {
    ntt_primes(bits, log_n, 1, &[]).expect("there is a prime of each size")[0]
}

fn transforms(log_n: u32, prime: u64, direction: &str) -> Transforms {
    let forward = direction == "forward";
    let mut all: Transforms = Vec::new();
    for (name, kind) in
        [("conjugate-invariant", RingKind::ConjugateInvariant), ("standard", RingKind::Standard)]
    {
        let table = NttTable::new(kind, log_n, prime).expect("the prime fits");
        all.push((name, Box::new(move |x| if forward { table.forward(x) } else { table.inverse(x) })));
    }
    let plan = tfhe_ntt::prime64::Plan::try_new(1 << log_n, prime).expect("the prime fits");
    all.push(("tfhe-ntt", Box::new(move |x| if forward { plan.fwd(x) } else { plan.inv(x) })));
    all
}

fn groups(criterion: &mut Criterion) {
    for (log_n, bits) in CASES {
        let prime = prime(log_n, bits);
        for direction in DIRECTIONS {
            let mut group = criterion.benchmark_group(format!("{direction}/2^{log_n}/{bits}-bit"));
            for (name, transform) in transforms(log_n, prime, direction) {
                group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
                    // Transforms in place of what is there: any residues will do.
                    let mut buffer = Buffer::new(1 << log_n, prime);
                    bencher.iter(|| transform(buffer.values()));
                });
            }
            group.finish();
        }
    }
}

/// Medians and least times of rounds, µs, and medians of the ratios within rounds.
fn table() {
    const ROUNDS: usize = 400;
    const REPEATS: u32 = 3;
    let median = |mut v: Vec<f64>| {
        v.sort_by(f64::total_cmp);
        (v[v.len() / 2], v[0])
    };
    println!(
        "\nµs, median (least) of {ROUNDS} rounds in turn; ratio: tfhe-ntt's time over ours, median of rounds"
    );
    println!(
        "| N, bits, direction | conjugate-invariant | ratio | standard | ratio | tfhe-ntt |\n|---|---|---|---|---|---|"
    );
    for (log_n, bits) in CASES {
        let prime = prime(log_n, bits);
        for direction in DIRECTIONS {
            let all = transforms(log_n, prime, direction);
            let mut buffer = Buffer::new(1 << log_n, prime);
            let mut times = vec![Vec::new(); all.len()];
            for _ in 0..ROUNDS {
                for ((_, transform), times) in all.iter().zip(&mut times) {
                    transform(buffer.values());
                    let start = Instant::now();
                    for _ in 0..REPEATS {
                        transform(buffer.values());
                    }
                    times.push(start.elapsed().as_secs_f64() * 1e6 / f64::from(REPEATS));
                }
            }
            print!("| 2^{log_n}, {bits}, {direction} |");
            let reference = &times[all.len() - 1];
            for (k, times) in times.iter().enumerate() {
                let (middle, least) = median(times.clone());
                print!(" {middle:.1} ({least:.1}) |");
                if k + 1 < all.len() {
                    let ratios = reference.iter().zip(times).map(|(r, t)| r / t).collect();
                    print!(" {:.2} |", median(ratios).0);
                }
            }
            println!();
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = groups
}

fn main() {
    let given = |name| std::env::args().any(|arg| arg == name);
    if !given("--table") {
        benches();
        Criterion::default().configure_from_args().final_summary();
    }
    if !given("--test") {
        table();
    }
}
