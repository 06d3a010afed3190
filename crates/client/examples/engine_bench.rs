//! Times the engine's operations: `cargo run --release -p polyveil-client --example engine_bench [log_n levels bits digit]`.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on should stop")]

use polyveil_ckks::{
    EncodedWeights, Encoder, Evaluator, GiantStep, KeySpec, Parameters, ParametersLiteral, RingKind,
    RotatedProduct,
};
use polyveil_client::{SecretKey, decrypt, encrypt_symmetric, generate_evaluation_keys};
use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

fn main() {
    let args: Vec<u32> = std::env::args().skip(1).map(|a| a.parse().unwrap()).collect();
    let [log_n, levels, bits, digit] = args.try_into().unwrap_or([15, 13, 42, 4]);
    let q: Vec<u32> = std::iter::once(50).chain(std::iter::repeat_n(bits, levels as usize)).collect();
    let p = vec![45; (8 + bits * digit).div_ceil(45) as usize];
    let literal =
        ParametersLiteral::generate(RingKind::ConjugateInvariant, log_n, &q, &p, digit as usize).unwrap();
    let params = Parameters::new(literal).unwrap();
    let top = levels as usize;
    println!("{params}; {} digits, {} special primes", params.digits(top), p.len());
    println!("kernels: {}", polyveil_math::simd::backend().name());
    println!(
        "key: {:.1} MB in memory, {:.1} MB stored",
        params.switching_key_bytes(top) as f64 / 1e6,
        params.switching_key_stored_bytes(top) as f64 / 1e6
    );
    let n = params.degree();
    let table = &params.tables()[1];
    let mut limb: Vec<u64> = (0..n as u64).collect();
    time("forward transform", || table.forward(&mut limb));
    time("inverse transform", || table.inverse(&mut limb));

    let sk = SecretKey::generate(&params).unwrap();
    let spec = KeySpec { relin_level: Some(top), rotations: (1..=8).map(|r| (r, top)).collect() };
    let start = Instant::now();
    let keys = generate_evaluation_keys(&sk, &spec, &mut |_, _| ControlFlow::Continue(())).unwrap();
    println!("{:28} {:9.3} ms a key", "key generation", start.elapsed().as_secs_f64() * 1e3 / 9.0);
    let start = Instant::now();
    keys.expand(&params);
    println!("{:28} {:9.3} ms a key", "key expansion", start.elapsed().as_secs_f64() * 1e3 / 9.0);
    let evaluator = Evaluator::with_keys(&params, Arc::new(keys)).unwrap();
    let encoder = Encoder::new(&params);
    let scale = f64::from(bits).exp2();
    let values: Vec<f64> = (0..params.slots()).map(|j| (j % 17) as f64 / 17.0).collect();

    time("encode", || encoder.encode(&values, top, scale).unwrap());
    time("encode, period 64", || encoder.encode_periodic(&values[..64], top, scale).unwrap());
    let plain = encoder.encode(&values, top, scale).unwrap();
    time("encrypt", || encrypt_symmetric(&sk, &plain).unwrap());
    let ct = encrypt_symmetric(&sk, &plain).unwrap().expand(&params).unwrap();
    time("decrypt and decode", || encoder.decode(&decrypt(&sk, &ct).unwrap()).unwrap());
    time("plaintext product, rescale", || {
        evaluator.rescale(&evaluator.mul_plain(&ct, &plain).unwrap()).unwrap()
    });
    let full = EncodedWeights::Full(plain.clone());
    let periodic = EncodedWeights::Periodic(encoder.encode_periodic(&values[..64], top, scale).unwrap());
    for (name, weights) in [("64 full products, summed", &full), ("64 periodic products, summed", &periodic)]
    {
        let terms = vec![(&ct, weights); 64];
        time(name, || evaluator.linear_combination(&terms).unwrap());
    }
    time("multiply, relin, rescale", || {
        evaluator.relinearize_rescale(&evaluator.mul_lazy(&ct, &ct).unwrap()).unwrap()
    });
    time("rotate", || evaluator.rotate(&ct, 1).unwrap());
    let rotations: Vec<usize> = (1..=8).collect();
    time("8 hoisted rotations", || evaluator.rotate_hoisted(&ct, &rotations).unwrap());
    let weights = encoder.encode_integer(&values[..64], scale).unwrap();
    let products: Vec<RotatedProduct<'_>> =
        (0..32).map(|r| RotatedProduct { input: 0, rotation: r % 9, weights: &weights }).collect();
    for count in [2, 9] {
        let giant = GiantStep { rotation: 0, products: products[..count].to_vec() };
        let outputs = [vec![giant]];
        time(&format!("{} rotations, weighted sum", count - 1), || {
            evaluator.linear_transform(&[&ct], &outputs, true).unwrap()
        });
    }
    let product = evaluator.mul_plain(&ct, &plain).unwrap();
    time("rescale", || evaluator.rescale(&product).unwrap());
    time("add", || evaluator.add(&ct, &ct).unwrap());
}

/// Prints the median over at least five runs and a third of a second: wall time, and processor time of all threads where
/// the system tells it (a busy machine spoils the first only).
fn time<T>(name: &str, mut f: impl FnMut() -> T) {
    let begin = Instant::now();
    let (mut wall, mut cpu) = (Vec::new(), Vec::new());
    while wall.len() < 5 || begin.elapsed().as_secs_f64() < 0.3 {
        let (start, cpu_start) = (Instant::now(), cpu_seconds());
        black_box(f());
        wall.push(start.elapsed().as_secs_f64());
        cpu.push(cpu_seconds() - cpu_start);
    }
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2] * 1e3
    };
    println!("{name:28} {:9.3} ms, processor {:9.3} ms", median(wall), median(cpu));
}

/// Processor time of all threads of this process, 0 where the system does not tell.
fn cpu_seconds() -> f64 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return 0.0 };
    let nanos = tasks.flatten().filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    nanos.sum::<f64>() * 1e-9
}
