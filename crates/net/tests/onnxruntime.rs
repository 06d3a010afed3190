//! Exported networks elsewhere: the ONNX checker takes them and onnxruntime gives the same logits.
//!
//! Runs where `POLYVEIL_ORT_PYTHON` names a Python that has `onnx`, `onnxruntime` and `numpy`; `.ci/run`
//! installs them below `target/` where it can.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail loudly, as tests do")]

use std::path::Path;
use std::process::Command;

use polyveil_net::builders::{ARCHITECTURES, GraphBuilder, by_name};
use polyveil_net::{Graph, Op, Quadratic, Tensor, exec::Executor, onnx};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// Images a network is compared on, as one batch and as a batch of one.
const IMAGES: usize = 3;

/// Reads `model`, a batch of raw `f32` images, and their shape; writes raw scores. The first image is run
/// alone too: the batch axis must be free, and named as such.
const SCRIPT: &str = "
import sys
import numpy as np
import onnx
import onnxruntime as ort
for line in sys.stdin:
    stem, shape = line.split()
    images = np.fromfile(stem + '.in', dtype='<f4').reshape([-1] + [int(d) for d in shape.split(',')])
    model = onnx.load(stem + '.onnx')
    onnx.checker.check_model(model, full_check=True)
    [opset] = [o.version for o in model.opset_import if o.domain in ('', 'ai.onnx')]
    assert opset >= 17, (stem, opset)
    for value in [model.graph.input[0], model.graph.output[0]]:
        assert value.type.tensor_type.shape.dim[0].WhichOneof('value') == 'dim_param', (stem, value)
    session = ort.InferenceSession(stem + '.onnx', providers=['CPUExecutionProvider'])
    name = session.get_inputs()[0].name
    run = lambda x: session.run(None, {name: x})[0].reshape([len(x), -1])
    np.concatenate([run(images), run(images[:1])]).astype('<f4').tofile(stem + '.out')
";

fn uniform(rng: &mut ChaCha8Rng) -> f32 {
    (rng.next_u32() >> 8) as f32 / (1u32 << 24) as f32
}

/// A student as conversion leaves it: average pools, quadratics a layer or a channel, statistics and
/// coefficients that are not round.
fn student(mut graph: Graph, seed: u64) -> Graph {
    let shapes = graph.infer_shapes().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for (index, node) in graph.nodes.iter_mut().enumerate() {
        let channels = if index % 2 == 0 { 1 } else { shapes[index][0] };
        let mut drawn = |low: f32, high: f32| {
            let values = (0..channels).map(|_| low + (high - low) * uniform(&mut rng)).collect();
            Tensor::new(vec![channels], values).unwrap()
        };
        match &mut node.op {
            Op::MaxPool(pool) => node.op = Op::AvgPool(pool.clone()),
            Op::Relu => {
                let (a, b, c) = (drawn(-0.1, 0.1), drawn(0.7, 1.3), drawn(-0.3, 0.3));
                node.op = Op::Quadratic(Quadratic { a, b, c });
            }
            _ => perturb(&mut node.op, &mut rng),
        }
    }
    normalise(&mut graph);
    graph
}

/// Makes the values of every node with weights spread by one on the images. Drawn as they are, the values of a
/// deep network overflow or tend to what they are without an image, and then scores agree whatever is wrong.
fn normalise(graph: &mut Graph) {
    let images = images(graph.input_shape());
    for index in 0..graph.nodes.len() {
        let node = &graph.nodes[index];
        if node.op.weights().is_empty() {
            continue;
        }
        let nodes = graph.nodes[..=index].to_vec();
        let until = Graph { nodes, output: index, ..Graph::clone(graph) };
        let values = Executor::new(&until).unwrap().run_batch(&images).unwrap();
        let values: Vec<f32> = values.into_iter().flat_map(Tensor::into_data).collect();
        let n = values.len() as f32;
        let mean = values.iter().sum::<f32>() / n;
        let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n).sqrt();
        for (name, tensor) in graph.nodes[index].op.weights_mut() {
            if !name.starts_with("running") {
                tensor.data_mut().iter_mut().for_each(|v| *v /= deviation);
            }
        }
    }
}

/// Noise around a level of its own in every image and channel, which pools do not average away.
fn images(shape: &[usize]) -> Vec<Tensor> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let plane: usize = shape[1..].iter().product();
    let mut image = || {
        let mut data = Vec::new();
        for _ in 0..shape[0] {
            let level = 2.0 * uniform(&mut rng) - 1.0;
            data.extend((0..plane).map(|_| level + uniform(&mut rng) - 0.5));
        }
        Tensor::new(shape.to_vec(), data).unwrap()
    };
    (0..IMAGES).map(|_| image()).collect()
}

fn perturb(op: &mut Op, rng: &mut ChaCha8Rng) {
    let norm = matches!(op, Op::BatchNorm(_));
    for (name, tensor) in op.weights_mut() {
        match name {
            "weight" if !norm => {}
            "running_var" => tensor.data_mut().iter_mut().for_each(|v| *v = 0.5 + uniform(rng)),
            _ => tensor.data_mut().iter_mut().for_each(|v| *v += 0.4 * uniform(rng) - 0.2),
        }
    }
}

/// Every kind of operator with odd geometry.
fn tangle() -> Graph {
    use polyveil_net::builders::{ConvSpec, PoolSpec};
    let mut b = GraphBuilder::new("tangle", &[4, 17, 13], 5);
    let x = b.input();
    let x = b.conv("c1", x, 8, ConvSpec::rect([3, 2]).pads([1, 0, 2, 1]).dilation(2).groups(2).stride(2));
    let left = b.avg_pool("p1", x, PoolSpec::new(3).stride(2).pad(1).ceil().exclude_pad());
    let right = b.avg_pool("p2", x, PoolSpec::new(3).stride(2).pad(1).ceil());
    let most = b.max_pool("p3", x, PoolSpec::new(3).stride(2).pad(1).ceil());
    let both = b.concat("cat", &[left, right, most]);
    let y = b.batch_norm("n", both);
    let y = b.relu("r", y);
    let z = b.quadratic("q", y, [0.1, 0.5, 0.2]);
    let y = b.add("sum", y, z);
    let y = b.global_avg_pool("gap", y);
    let y = b.flatten("flat", y);
    let y = b.linear("fc", y, 5);
    b.finish(y).unwrap()
}

fn cases() -> Vec<(String, Graph)> {
    let size = |name: &str| match name {
        "lenet5" => [1, 28, 28],
        "alexnet" => [3, 96, 96],
        "squeezenet1_1" => [3, 224, 224],
        _ => [3, 64, 64],
    };
    // The larger ones of one kind add time and no operator.
    let small = ARCHITECTURES.iter().filter(|name| !name.starts_with("vgg1") || **name == "vgg11_bn");
    let mut cases = vec![("tangle".to_owned(), tangle())];
    for (name, seed) in small.zip(1..) {
        let relu = by_name(name, &size(name), 4, seed).unwrap().unwrap();
        cases.push((format!("{name}-student"), student(relu.clone(), seed)));
        cases.push(((*name).to_owned(), relu));
    }
    cases
}

#[test]
fn onnxruntime_gives_the_same_logits() {
    let Some(python) = std::env::var_os("POLYVEIL_ORT_PYTHON") else {
        println!("skipped: POLYVEIL_ORT_PYTHON names no Python with onnx, onnxruntime and numpy");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let cases = cases();
    let mut lines = String::new();
    let mut expected = Vec::new();
    for (name, graph) in &cases {
        let stem = folder.path().join(name);
        onnx::to_path(graph, &stem.with_extension("onnx")).unwrap();
        let shape = graph.input_shape().to_vec();
        let images = images(&shape);
        let bytes: Vec<u8> = images.iter().flat_map(|t| t.data()).flat_map(|v| v.to_le_bytes()).collect();
        std::fs::write(stem.with_extension("in"), bytes).unwrap();
        let scores = Executor::new(graph).unwrap().run_batch(&images).unwrap();
        expected.push(scores.into_iter().map(Tensor::into_data).collect::<Vec<_>>());
        let extents: Vec<String> = shape.iter().map(ToString::to_string).collect();
        lines += &format!("{} {}\n", stem.display(), extents.join(","));
    }
    run(&python, &lines);
    for ((name, _), ours) in cases.iter().zip(&expected) {
        let theirs = read(&folder.path().join(name).with_extension("out"));
        let ours: Vec<f32> = ours.iter().chain(ours.first()).flatten().copied().collect();
        assert_eq!(theirs.len(), ours.len(), "{name}");
        let largest = ours.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let classes = ours.len() / (IMAGES + 1);
        // How far the scores of two images lie apart: what an error must be small beside.
        let spread = (0..classes).map(|c| (ours[c] - ours[classes + c]).abs()).fold(0.0, f32::max);
        let error = ours.iter().zip(&theirs).map(|(o, t)| (o - t).abs()).fold(0.0, f32::max);
        println!(
            "{name}: largest difference {error:.1e}, largest score {largest:.1e}, between images {spread:.1e}"
        );
        // Scores of trained networks are of this size; beyond it rounding grows with the score.
        assert!(error <= 1e-4 * (largest / 20.0).max(1.0), "{name}: {error} of {largest}");
        assert!(error <= 1e-2 * spread, "{name}: {error}, but images differ by {spread} only");
    }
}

/// Models as exporters write them, which `exporters.py` makes and runs, mean here what they mean there.
#[test]
fn models_of_exporters_mean_the_same() {
    let Some(python) = std::env::var_os("POLYVEIL_ORT_PYTHON") else {
        println!("skipped: POLYVEIL_ORT_PYTHON names no Python with onnx, onnxruntime and numpy");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/exporters.py");
    let made = Command::new(&python).arg(script).arg(folder.path()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut faults = Vec::new();
    let names = String::from_utf8(made.stdout).unwrap();
    for name in names.lines() {
        let stem = folder.path().join(name);
        let graph = match onnx::from_path(&stem.with_extension("onnx")) {
            Ok(graph) => graph,
            Err(error) => {
                faults.push(format!("{name}: {error}"));
                continue;
            }
        };
        let shape = graph.input_shape().to_vec();
        let images = read(&stem.with_extension("in"));
        let images: Vec<Tensor> = images
            .chunks(shape.iter().product())
            .map(|image| Tensor::new(shape.clone(), image.to_vec()).unwrap())
            .collect();
        let ours = Executor::new(&graph).unwrap().run_batch(&images).unwrap();
        let ours: Vec<f32> = ours.into_iter().flat_map(Tensor::into_data).collect();
        let theirs = read(&stem.with_extension("out"));
        let classes = ours.len() / images.len();
        let spread = (0..classes).map(|c| (ours[c] - ours[classes + c]).abs()).fold(0.0, f32::max);
        let error = ours.iter().zip(&theirs).map(|(o, t)| (o - t).abs()).fold(0.0, f32::max);
        println!("{name}: largest difference {error:.1e}, between images {spread:.1e}");
        let largest = ours.iter().fold(1.0f32, |m, v| m.max(v.abs()));
        if theirs.len() != ours.len() || error > 1e-4 * largest || error > 1e-2 * spread {
            faults.push(format!("{name}: {error}, images differ by {spread}: {ours:?} against {theirs:?}"));
        }
    }
    assert!(names.lines().count() > 20, "{names}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn run(python: &std::ffi::OsStr, lines: &str) {
    use std::io::Write;
    let mut child = Command::new(python)
        .args(["-c", SCRIPT])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{}: {e}", python.display()));
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(
        child.wait().unwrap().success(),
        "onnx or onnxruntime refused a network; its message stands above"
    );
}

fn read(path: &Path) -> Vec<f32> {
    std::fs::read(path).unwrap().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
}
