//! Plain, simulated and encrypted runs of whole networks against the plain f32 executor.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::ops::ControlFlow;
use std::sync::Arc;

use polyveil_ckks::{Encoder, Parameters};
use polyveil_client::{SecretKey, decrypt, encrypt_symmetric, generate_evaluation_keys};
use polyveil_exec::{Control, Program};
use polyveil_net::builders::{ConvSpec, GraphBuilder, PoolSpec};
use polyveil_net::{Graph, Tensor};
use polyveil_plan::{CompileOptions, Compiled, compile, compile_insecure_for_tests};

fn lenet_like() -> Graph {
    let mut b = GraphBuilder::new("lenet", &[1, 12, 12], 7);
    let x = b.input();
    let x = b.conv("conv1", x, 3, ConvSpec::new(3).pad(1));
    let x = b.quadratic("act1", x, [0.2, 0.5, 0.1]);
    let x = b.avg_pool("pool1", x, PoolSpec::new(2));
    let x = b.conv("conv2", x, 5, ConvSpec::new(3));
    let x = b.quadratic("act2", x, [0.1, 0.5, 0.2]);
    let x = b.avg_pool("pool2", x, PoolSpec::new(2));
    let x = b.flatten("flat", x);
    let x = b.linear("fc1", x, 12);
    let x = b.quadratic("act3", x, [0.1, 0.5, 0.2]);
    let x = b.linear("fc2", x, 4);
    b.finish(x).unwrap()
}

fn image(shape: &[usize], seed: u32) -> Tensor {
    let n: usize = shape.iter().product();
    let data = (0..n as u32).map(|i| {
        ((i.wrapping_mul(2_654_435_761).wrapping_add(seed.wrapping_mul(97_003)) >> 8) % 1000) as f32 / 1000.0
    });
    Tensor::new(shape.to_vec(), data.collect()).unwrap()
}

/// Largest error of the plain, the simulated and the encrypted run of a batch against f32, relative to the range.
fn errors(graph: &Graph, compiled: &Compiled, parameters: &Parameters) -> [f64; 3] {
    let images: Vec<Tensor> =
        (0..compiled.client.batch() as u32).map(|k| image(&compiled.client.input_shape, 3 + k)).collect();
    let expected: Vec<Tensor> = images.iter().map(|x| polyveil_net::exec::run(graph, x).unwrap()).collect();
    let range = expected.iter().flat_map(Tensor::data).fold(0.0f64, |m, &v| m.max(f64::from(v.abs())));
    let slots = compiled.client.pack_batch(&images.iter().collect::<Vec<_>>()).unwrap();
    let program = Program::load(compiled.server.clone()).unwrap();
    let error = |scores: &[Vec<f64>]| {
        let found = compiled.client.unpack_batch(scores).concat();
        let expected: Vec<f64> = expected.iter().flat_map(Tensor::data).map(|&v| f64::from(v)).collect();
        assert_eq!(found.len(), expected.len());
        found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / range
    };
    let plain = error(&program.run_plain(&slots).unwrap());
    let simulated = error(&program.run_simulated(parameters, &slots, 1).unwrap());

    let encoder = Encoder::new(parameters);
    let key = SecretKey::generate(parameters).unwrap();
    let keys =
        generate_evaluation_keys(&key, &compiled.client.keys, &mut |_, _| ControlFlow::Continue(())).unwrap();
    let inputs = slots
        .iter()
        .map(|s| {
            let plain = encoder.encode(s, compiled.client.input.level, compiled.client.input.scale).unwrap();
            encrypt_symmetric(&key, &plain).unwrap().expand(parameters).unwrap()
        })
        .collect();
    let output = program.run_encrypted(parameters, Arc::new(keys), inputs, &Control::default()).unwrap();
    let scores: Vec<Vec<f64>> =
        output.ciphertexts.iter().map(|c| encoder.decode(&decrypt(&key, c).unwrap()).unwrap()).collect();
    [plain, simulated, error(&scores)]
}

#[test]
fn small_network_in_an_insecure_ring() {
    let graph = lenet_like();
    for log_n in [10, 11, 12] {
        let compiled = compile_insecure_for_tests(&graph, &CompileOptions::default(), log_n).unwrap();
        let parameters = Parameters::new_insecure(compiled.server.parameters.clone()).unwrap();
        let [plain, simulated, encrypted] = errors(&graph, &compiled, &parameters);
        let promised = compiled.server.precision.max_error / compiled.server.precision.output_range;
        eprintln!(
            "N=2^{log_n}: plain {plain:e}, simulated {simulated:e}, encrypted {encrypted:e}, promised {promised:e}"
        );
        assert!(plain < 1e-5, "plain {plain}");
        assert!(simulated < 1e-3 && encrypted < 1e-3, "simulated {simulated}, encrypted {encrypted}");
        assert!(encrypted < promised * 2.0, "encrypted {encrypted}, promised {promised}");
    }
}

#[test]
fn batches_in_an_insecure_ring() {
    let graph = lenet_like();
    // From blocks with room for the whole image to one slot an image, where nothing is rotated.
    for (log_n, batch) in [(11, 4), (11, 100), (10, 1 << 10)] {
        let options = CompileOptions { batch, ..CompileOptions::default() };
        let compiled = compile_insecure_for_tests(&graph, &options, log_n).unwrap();
        assert_eq!(compiled.client.batch(), batch);
        assert_eq!(compiled.server.keys.rotations.is_empty(), batch == 1 << log_n);
        let parameters = Parameters::new_insecure(compiled.server.parameters.clone()).unwrap();
        let [plain, simulated, encrypted] = errors(&graph, &compiled, &parameters);
        eprintln!("batch {batch}: plain {plain:e}, simulated {simulated:e}, encrypted {encrypted:e}");
        assert!(plain < 1e-5 && simulated < 1e-3 && encrypted < 1e-3, "{plain} {simulated} {encrypted}");
    }
}

/// Images that the plan takes, but whose values grow beyond what it leaves room for.
#[test]
fn results_of_images_that_escape_are_not_credible() {
    let mut b = GraphBuilder::new("deep", &[16], 3);
    let mut x = b.input();
    for layer in 0..4 {
        x = b.linear(&format!("fc{layer}"), x, 8);
        x = b.quadratic(&format!("act{layer}"), x, [0.3, 0.5, 0.1]);
    }
    let x = b.linear("fc", x, 3);
    let graph = b.finish(x).unwrap();
    let calibration = (0..4).map(|seed| image(&[16], seed)).collect();
    let options = CompileOptions { calibration, ..CompileOptions::default() };
    let compiled = compile_insecure_for_tests(&graph, &options, 10).unwrap();
    let parameters = Parameters::new_insecure(compiled.server.parameters.clone()).unwrap();
    let (client, encoder) = (&compiled.client, Encoder::new(&parameters));
    let key = SecretKey::generate(&parameters).unwrap();
    let keys = generate_evaluation_keys(&key, &client.keys, &mut |_, _| ControlFlow::Continue(())).unwrap();
    let (keys, program) = (Arc::new(keys), Program::load(compiled.server.clone()).unwrap());
    let size = |values: &[f64]| values.iter().fold(0.0f64, |most, v| most.max(v.abs()));
    let [mut right, mut wrong, mut unseen] = [0; 3];
    for (seed, factor) in
        (0..4).flat_map(|seed| [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 3.9].map(|factor| (seed, factor)))
    {
        let mut image = image(&client.input_shape, seed);
        image.data_mut().iter_mut().for_each(|v| *v *= factor);
        let expected = polyveil_net::exec::run(&graph, &image).unwrap();
        let expected: Vec<f64> = expected.data().iter().map(|&v| f64::from(v)).collect();
        let encrypt = |slots: &Vec<f64>| {
            let plain = encoder.encode(slots, client.input.level, client.input.scale).unwrap();
            encrypt_symmetric(&key, &plain).unwrap().expand(&parameters).unwrap()
        };
        let packed = client.pack_batch(&[&image]).unwrap();
        let inputs = packed.iter().map(encrypt).collect();
        let output = program.run_encrypted(&parameters, keys.clone(), inputs, &Control::default()).unwrap();
        let slots: Vec<Vec<f64>> =
            output.ciphertexts.iter().map(|c| encoder.decode(&decrypt(&key, c).unwrap()).unwrap()).collect();
        let errors: Vec<f64> = client.unpack(&slots).iter().zip(&expected).map(|(f, e)| f - e).collect();
        let scale = compiled.server.precision.output_range.max(size(&expected));
        let (error, largest) = (size(&errors) / scale, size(&slots.concat()));
        eprintln!(
            "seed {seed}, {factor}: largest slot {largest:.1e} of {:.1e}, error {error:.1e}",
            client.credible()
        );
        let (told, off) = (largest > client.credible(), error > 1e-2);
        let simulated = size(&program.run_simulated(&parameters, &packed, 1).unwrap().concat());
        assert!(
            (0.3..3.0).contains(&(simulated / largest)),
            "seed {seed}, {factor}: {simulated} simulated, {largest} found"
        );
        assert!(!told || factor > 1.0, "an image like those of the plan has no result");
        assert!(told || size(&expected) < 100.0 * client.credible(), "what escapes for good must be seen");
        (right, wrong, unseen) = (
            right + usize::from(!told && !off),
            wrong + usize::from(off),
            unseen + usize::from(off && !told),
        );
    }
    // What wraps in the last layers alone may look like a score.
    assert!(
        right >= 8 && wrong >= 10 && unseen <= 2,
        "{right} right, {wrong} wrong, {unseen} of these not seen"
    );
}

#[test]
fn small_network_at_128_bits() {
    let graph = lenet_like();
    let compiled = compile(&graph, &CompileOptions::default()).unwrap();
    let parameters = compiled.server.parameters().unwrap();
    assert!(parameters.security().bits() >= 128);
    let [plain, simulated, encrypted] = errors(&graph, &compiled, &parameters);
    assert!(plain < 1e-5 && simulated < 1e-3 && encrypted < 1e-3, "{plain} {simulated} {encrypted}");
}
