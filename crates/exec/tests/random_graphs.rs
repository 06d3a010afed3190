//! Networks that nobody tuned for: random small graphs of all operators, planned for a small insecure
//! ring, must mean the same in slots as in f32, and a few of them on ciphertexts.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::ops::ControlFlow;
use std::sync::Arc;

use polyveil_ckks::{Encoder, Parameters};
use polyveil_client::{SecretKey, decrypt, encrypt_symmetric, generate_evaluation_keys};
use polyveil_exec::{Control, Program};
use polyveil_net::builders::{ConvSpec, GraphBuilder, PoolSpec};
use polyveil_net::{BatchNorm, Graph, NodeId, Op, Quadratic, Tensor, exec};
use polyveil_plan::{CompileOptions, Compiled, PlanError, compile_insecure_for_tests};
use proptest::prelude::*;

/// Draws numbers from a list that proptest shrinks.
struct Draw<'a>(std::iter::Cycle<std::slice::Iter<'a, u16>>);

impl Draw<'_> {
    fn below(&mut self, n: usize) -> usize {
        usize::from(*self.0.next().unwrap_or(&0)) % n
    }

    fn real(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.below(1000) as f32 / 1000.0
    }
}

fn random_graph(numbers: &[u16]) -> Graph {
    let mut draw = Draw(numbers.iter().cycle());
    // Mostly images; sometimes a signal of one row, sometimes a table's row.
    let rows = match draw.below(6) {
        0 => return tabular(&mut draw),
        1 => 1,
        _ => 5 + draw.below(5),
    };
    let shape = [1 + draw.below(3), rows, 5 + draw.below(6)];
    let mut b = GraphBuilder::new("random", &shape, 11);
    let mut x = b.input();
    let mut squares = 0;
    for layer in 0..2 + draw.below(4) {
        let name = |what: &str| format!("{what}{layer}");
        let here: Vec<usize> = b.shape(x).to_vec();
        let [c, h, w] = here[..] else { break };
        match draw.below(7) {
            0 | 1 => {
                let kernel = [1 + draw.below(3).min(h - 1), 1 + draw.below(3).min(w - 1)];
                let groups = if draw.below(3) == 0 { c } else { 1 };
                let out = groups * (1 + draw.below(4));
                let pads = std::array::from_fn(|side| draw.below(2).min(kernel[side % 2] - 1));
                // Windows stay within the map.
                let reach = |d: usize| kernel.iter().zip([h, w]).all(|(&k, n)| d * (k - 1) < n);
                let dilation = (1..=1 + draw.below(3)).rev().find(|&d| reach(d)).unwrap_or(1);
                let spec = ConvSpec::rect(kernel).stride(1 + draw.below(2)).pads(pads);
                let spec = spec.groups(groups).dilation(dilation);
                x = b.conv(&name("conv"), x, out, spec);
            }
            2 if squares < 2 => {
                squares += 1;
                x = quadratic(&mut b, &mut draw, &name("act"), x, c);
            }
            3 if h >= 3 && w >= 3 => {
                let mut spec = PoolSpec::new(2 + draw.below(2)).stride(1 + draw.below(2));
                if draw.below(2) == 0 {
                    spec = spec.pad(1);
                }
                if draw.below(2) == 0 {
                    spec = spec.ceil();
                }
                if draw.below(2) == 0 {
                    spec = spec.exclude_pad();
                }
                x = b.avg_pool(&name("pool"), x, spec);
            }
            4 => {
                let left = b.conv(&name("left"), x, 1 + draw.below(3), ConvSpec::new(1));
                let right =
                    b.conv(&name("right"), x, 1 + draw.below(3), ConvSpec::new(3.min(h).min(w)).pad(1));
                let same = b.shape(left)[1..] == b.shape(right)[1..];
                x = if same { b.concat(&name("cat"), &[left, right, left]) } else { left };
            }
            5 => {
                let branch = b.conv(&name("branch"), x, c, ConvSpec::new(1));
                x = b.add(&name("add"), x, branch);
            }
            _ => {
                let t = |v: Vec<f32>| Tensor::new(vec![c], v).unwrap();
                let mut values = |low, high| t((0..c).map(|_| draw.real(low, high)).collect());
                let bn = BatchNorm {
                    gamma: values(0.5, 1.5),
                    beta: values(-0.5, 0.5),
                    mean: values(-0.5, 0.5),
                    var: values(0.5, 2.0),
                    eps: 1e-5,
                };
                x = b.push(&name("bn"), Op::BatchNorm(bn), vec![x]);
            }
        }
    }
    if draw.below(3) == 0 {
        x = b.global_avg_pool("gap", x);
    }
    x = b.flatten("flat", x);
    if draw.below(3) > 0 {
        x = b.linear("fc", x, 1 + draw.below(9));
        if draw.below(2) == 0 {
            x = quadratic(&mut b, &mut draw, "last", x, 1);
            x = b.linear("fc2", x, 1 + draw.below(20));
        }
    }
    b.finish(x).unwrap()
}

/// Fully connected layers on a vector.
fn tabular(draw: &mut Draw<'_>) -> Graph {
    let mut b = GraphBuilder::new("tabular", &[1 + draw.below(40)], 11);
    let mut x = b.input();
    for layer in 0..1 + draw.below(2) {
        let width = 1 + draw.below(30);
        x = b.linear(&format!("fc{layer}"), x, width);
        x = quadratic(&mut b, draw, &format!("act{layer}"), x, width);
    }
    x = b.linear("last", x, 1 + draw.below(9));
    b.finish(x).unwrap()
}

fn quadratic(b: &mut GraphBuilder, draw: &mut Draw<'_>, name: &str, x: NodeId, channels: usize) -> NodeId {
    let n = if draw.below(2) == 0 { 1 } else { channels };
    // Some channels without any square, some with a tiny one.
    let a = (0..n).map(|_| [0.0, 1e-5, 0.3, -0.2, 0.1][draw.below(5)]).collect();
    // Without square and slope a network is a constant, which no plan computes.
    let b_ = (0..n).map(|_| draw.real(-1.0, 1.0)).map(|b| if b == 0.0 { 0.25 } else { b }).collect();
    let c = (0..n).map(|_| draw.real(-0.5, 0.5)).collect();
    let t = |v: Vec<f32>| Tensor::new(vec![n], v).unwrap();
    b.push(name, Op::Quadratic(Quadratic { a: t(a), b: t(b_), c: t(c) }), vec![x])
}

fn input(shape: &[usize], seed: usize) -> Tensor {
    let n: usize = shape.iter().product();
    let data = (0..n).map(|i| ((i * 7919 + seed * 104_729) % 997) as f32 / 997.0 - 0.3).collect();
    Tensor::new(shape.to_vec(), data).unwrap()
}

/// Fails the test but where the planner says that this small ring is not precise enough: about one graph in a hundred, where what
/// lies in unused slots grows from square to square. [`few`] bounds how often that is let pass.
fn compiled(graph: &Graph, tolerance: f64, batch: usize) -> Result<Compiled, TestCaseError> {
    match compile_insecure_for_tests(graph, &options(graph, tolerance, batch), 11) {
        Ok(compiled) => Ok(compiled),
        Err(error @ PlanError::Imprecise { .. }) => Err(TestCaseError::reject(error.to_string())),
        Err(error) => Err(TestCaseError::fail(error.to_string())),
    }
}

fn options(graph: &Graph, tolerance: f64, batch: usize) -> CompileOptions {
    let shape = graph.infer_shapes().unwrap()[0].clone();
    let calibration = (0..3).map(|s| input(&shape, s)).collect();
    CompileOptions { calibration, tolerance, batch, ..CompileOptions::default() }
}

/// The same network with nine tenths of the keys that `free` takes, where there is such a plan.
fn with_fewer_keys(graph: &Graph, tolerance: f64, free: Compiled) -> Result<Compiled, TestCaseError> {
    let parameters = Parameters::new_insecure(free.server.parameters.clone()).unwrap();
    // The limit does not count the seed of each key.
    let keys = free.client.keys.rotations.len() as u64 + u64::from(free.client.keys.relin_level.is_some());
    let limit = (free.client.keys.stored_bytes(&parameters) - 32 * keys) / 10 * 9;
    let options = CompileOptions { max_key_bytes: Some(limit), ..options(graph, tolerance, 1) };
    match compile_insecure_for_tests(graph, &options, 11) {
        Ok(compiled) => Ok(compiled),
        Err(PlanError::Keys { least, .. }) if least > limit => Ok(free),
        Err(error) => Err(TestCaseError::fail(error.to_string())),
    }
}

/// So many graphs; three, and one in twenty, may be refused for their precision.
fn few(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        max_global_rejects: 3 + cases / 20,
        ..ProptestConfig::default()
    }
}

fn largest_error(found: &[f64], expected: &Tensor) -> (f64, f64) {
    assert_eq!(found.len(), expected.len());
    let range = expected.data().iter().fold(1e-3f64, |m, &v| m.max(f64::from(v.abs())));
    let error = found.iter().zip(expected.data()).map(|(a, &b)| (a - f64::from(b)).abs()).fold(0.0, f64::max);
    (error, range)
}

proptest! {
    #![proptest_config(few(60))]

    #[test]
    fn slots_mean_what_the_network_means(
        numbers in prop::collection::vec(any::<u16>(), 120),
        limited in any::<bool>(),
    ) {
        let graph = random_graph(&numbers);
        let mut compiled = compiled(&graph, 1e-2, 1)?;
        if limited {
            compiled = with_fewer_keys(&graph, 1e-2, compiled)?;
        }
        compiled.server.validate().unwrap();
        compiled.client.validate().unwrap();
        let x = input(&compiled.client.input_shape, 9);
        let expected = exec::run(&graph, &x).unwrap();
        let program = Program::load(compiled.server.clone()).unwrap();
        let slots = compiled.client.pack(&x).unwrap();
        let (error, range) = largest_error(&compiled.client.unpack(&program.run_plain(&slots).unwrap()), &expected);
        // Cancellation may leave a result far below the values that it came from, whose rounding to f32 stays.
        prop_assert!(error <= 2e-5 * range + 1e-6, "error {} of range {}", error, range);
    }
}

/// A batch that differs from test to test, and images for it.
fn batch(compiled: &Compiled) -> Vec<Tensor> {
    (0..compiled.client.batch()).map(|k| input(&compiled.client.input_shape, 9 + 3 * k)).collect()
}

/// Scores of a batch on ciphertexts.
fn encrypted(compiled: &Compiled, images: &[Tensor]) -> Vec<Vec<f64>> {
    let parameters = Parameters::new_insecure(compiled.server.parameters.clone()).unwrap();
    let encoder = Encoder::new(&parameters);
    let key = SecretKey::generate(&parameters).unwrap();
    let keys =
        generate_evaluation_keys(&key, &compiled.client.keys, &mut |_, _| ControlFlow::Continue(())).unwrap();
    let at = &compiled.client.input;
    let slots = compiled.client.pack_batch(&images.iter().collect::<Vec<_>>()).unwrap();
    let inputs = slots
        .iter()
        .map(|s| encrypt_symmetric(&key, &encoder.encode(s, at.level, at.scale).unwrap()).unwrap())
        .map(|c| c.expand(&parameters).unwrap())
        .collect();
    let program = Program::load(compiled.server.clone()).unwrap();
    let output = program.run_encrypted(&parameters, Arc::new(keys), inputs, &Control::default()).unwrap();
    let scores: Vec<Vec<f64>> =
        output.ciphertexts.iter().map(|c| encoder.decode(&decrypt(&key, c).unwrap()).unwrap()).collect();
    compiled.client.unpack_batch(&scores)
}

/// Weights that are rounded once err alike at all positions, which the prediction takes as independent: averages after
/// them may keep more error than promised. 2 in 1,000 graphs of this size went beyond, by 1.7 at most.
fn as_promised(compiled: &Compiled, graph: &Graph, images: &[Tensor]) -> Result<(), TestCaseError> {
    let scores = encrypted(compiled, images);
    for (found, image) in scores.iter().zip(images) {
        let (error, range) = largest_error(found, &exec::run(graph, image).unwrap());
        let promised = compiled.client.precision.max_error;
        prop_assert!(error <= promised * 2.0 + 2e-5 * range, "error {} promised {}", error, promised);
    }
    Ok(())
}

proptest! {
    #![proptest_config(few(60))]

    #[test]
    fn every_image_of_a_batch_means_what_the_network_means(
        numbers in prop::collection::vec(any::<u16>(), 120),
        log in 1u32..12,
        odd in any::<bool>(),
    ) {
        let graph = random_graph(&numbers);
        let images = (1 << log) - usize::from(odd && log > 1);
        let compiled = compiled(&graph, 1e-2, images)?;
        compiled.server.validate().unwrap();
        compiled.client.validate().unwrap();
        let program = Program::load(compiled.server.clone()).unwrap();
        let images = batch(&compiled);
        let slots = compiled.client.pack_batch(&images.iter().collect::<Vec<_>>()).unwrap();
        let scores = compiled.client.unpack_batch(&program.run_plain(&slots).unwrap());
        prop_assert_eq!(scores.len(), images.len());
        // All of a large batch would take longer than it tells.
        for at in (0..images.len()).step_by(1.max(images.len() / 7)).chain([images.len() - 1]) {
            let (error, range) = largest_error(&scores[at], &exec::run(&graph, &images[at]).unwrap());
            prop_assert!(error <= 2e-5 * range + 1e-6, "image {}: error {} of range {}", at, error, range);
        }
    }
}

proptest! {
    #![proptest_config(few(8))]

    #[test]
    fn ciphertexts_stay_within_the_promised_error(numbers in prop::collection::vec(any::<u16>(), 120)) {
        let graph = random_graph(&numbers);
        let compiled = compiled(&graph, 1e-3, 1)?;
        as_promised(&compiled, &graph, &[input(&compiled.client.input_shape, 1)])?;
    }

    #[test]
    fn batches_stay_within_the_promised_error(numbers in prop::collection::vec(any::<u16>(), 120), log in 1u32..8) {
        let graph = random_graph(&numbers);
        let compiled = compiled(&graph, 1e-3, 1 << log)?;
        let images = batch(&compiled);
        as_promised(&compiled, &graph, &images)?;
        // A batch that is not full.
        as_promised(&compiled, &graph, &images[..images.len() / 2])?;
    }
}
