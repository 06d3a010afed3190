//! ONNX files: round trips of random graphs, golden files, hostile bytes, nets of others.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in helpers too")]

use std::path::{Path, PathBuf};

use polyveil_net::{
    Graph, Op, Tensor,
    builders::{self, ConvSpec, GraphBuilder, PoolSpec},
    exec, onnx,
};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// A network of random operators, branches and coefficients.
fn random_graph(seed: u64) -> Graph {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut draw = |n: u64| (rng.next_u64() % n) as usize;
    let mut b = GraphBuilder::new("random", &[1 + draw(3), 6 + draw(5), 6 + draw(5)], seed);
    let mut x = b.input();
    for i in 0..2 + draw(7) {
        let name = format!("node.{i}");
        let shape = b.shape(x).to_vec();
        let image = shape.len() == 3 && shape[1] >= 3 && shape[2] >= 3;
        x = match draw(10) {
            0 | 1 if image => {
                let spec = ConvSpec::rect([1 + draw(3), 1 + draw(3)]).stride(1 + draw(2));
                let spec = spec.pads([draw(2), draw(3), draw(2), draw(2)]);
                b.conv(&name, x, 1 + draw(5), if draw(2) == 0 { spec.no_bias() } else { spec })
            }
            2 if image => b.conv(&name, x, 2 * shape[0], ConvSpec::new(1).groups(shape[0])),
            3 if image => {
                let mut spec = PoolSpec::new(2 + draw(2)).stride(1 + draw(3)).pad(draw(2));
                if draw(2) == 0 {
                    spec = spec.ceil();
                }
                if draw(2) == 0 {
                    spec = spec.exclude_pad();
                }
                if draw(2) == 0 { b.avg_pool(&name, x, spec) } else { b.max_pool(&name, x, spec) }
            }
            4 => b.relu(&name, x),
            5 => b.batch_norm(&name, x),
            6 => {
                let act = b.quadratic(&format!("{name}/act"), x, [0.25, 0.5, 0.125]);
                b.add(&name, x, act)
            }
            7 if image => {
                let left = b.conv(&format!("{name}/left"), x, 2, ConvSpec::new(1));
                let right = b.conv(&format!("{name}/right"), x, 3, ConvSpec::new(3).pad(1));
                b.concat(&name, &[left, right, left])
            }
            8 if shape.len() == 1 => b.linear(&name, x, 1 + draw(9)),
            9 if shape.len() == 3 && draw(3) == 0 => b.flatten(&name, x),
            _ => b.quadratic(&name, x, [0.25, 1.0, -0.5]),
        };
    }
    let x = if b.shape(x).len() == 3 { b.global_avg_pool("gap", x) } else { x };
    let x = b.flatten("flat", x);
    let y = b.linear("fc", x, 4);
    let mut graph = b.finish(y).unwrap();
    for node in &mut graph.nodes {
        for (name, tensor) in node.op.weights_mut() {
            for v in tensor.data_mut() {
                let noise = (draw(1000) as f32 - 500.0) / 2500.0;
                *v = if name == "running_var" { 1.0 + noise } else { *v + noise };
            }
        }
    }
    graph.metadata.insert("polyveil.classes".into(), "[\"a\", \"b\"]".into());
    graph
}

fn image(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    let data = (0..n).map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0).collect();
    Tensor::new(shape.to_vec(), data).unwrap()
}

fn same_function(left: &Graph, right: &Graph) -> Result<(), TestCaseError> {
    let x = image(left.input_shape());
    let (y, z) = (exec::run(left, &x).unwrap(), exec::run(right, &x).unwrap());
    let scale = y.data().iter().fold(1e-3f32, |m, v| m.max(v.abs()));
    prop_assert_eq!(y.shape(), z.shape());
    for (a, b) in y.data().iter().zip(z.data()) {
        prop_assert!((a - b).abs() <= 2e-5 * scale, "{:?} against {:?}", y, z);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn round_trip_keeps_the_function(seed in any::<u64>()) {
        let graph = random_graph(seed);
        let back = onnx::from_bytes(&onnx::to_bytes(&graph).unwrap()).unwrap();
        prop_assert_eq!(&back.metadata, &graph.metadata);
        prop_assert_eq!(&back.name, &graph.name);
        same_function(&graph, &back)?;
        // What import made is what it makes again.
        let again = onnx::from_bytes(&onnx::to_bytes(&back).unwrap()).unwrap();
        prop_assert!(again == back, "{} nodes against {}", again.nodes.len(), back.nodes.len());
    }

    #[test]
    fn altered_bytes_never_panic(seed in 0u64..20, changes in prop::collection::vec((any::<u32>(), any::<u8>()), 1..6)) {
        let mut bytes = onnx::to_bytes(&random_graph(seed)).unwrap();
        for (at, value) in changes {
            let at = at as usize % bytes.len();
            bytes[at] = value;
        }
        if let Ok(graph) = onnx::from_bytes(&bytes) {
            prop_assert_eq!(graph.validate(), Ok(()));
        }
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(onnx::from_bytes(&bytes).is_err());
    }
}

/// Per-channel coefficients and a residual, which random graphs lack.
fn tiny_residual() -> Graph {
    let mut b = GraphBuilder::new("tiny-residual", &[2, 5, 5], 9);
    let x = b.input();
    let stem = b.conv("stem", x, 3, ConvSpec::new(3).stride(2).pad(1).no_bias());
    let norm = b.batch_norm("bn", stem);
    let coefficients = |v: [f32; 3]| Tensor::new(vec![3], v.to_vec()).unwrap();
    let (a, bb, c) =
        (coefficients([0.1, 0.2, 0.3]), coefficients([1.0, 0.5, 0.25]), coefficients([0.0, -1.0, 2.0]));
    let act = b.push("act", Op::Quadratic(polyveil_net::Quadratic { a, b: bb, c }), vec![norm]);
    let branch = b.conv("branch", act, 3, ConvSpec::new(3).pad(1));
    let sum = b.add("sum", act, branch);
    let pool = b.avg_pool("pool", sum, PoolSpec::new(2).ceil().exclude_pad());
    let flat = b.flatten("flat", pool);
    let y = b.linear("fc", flat, 2);
    let mut graph = b.finish(y).unwrap();
    graph.metadata.insert("polyveil.note".into(), "golden".into());
    with_plain_weights(graph)
}

/// Weights that are the same on every machine, as logarithms of random numbers need not be.
fn with_plain_weights(mut graph: Graph) -> Graph {
    for (_, tensor) in graph.nodes.iter_mut().flat_map(|n| n.op.weights_mut()) {
        for (i, v) in tensor.data_mut().iter_mut().enumerate() {
            *v = ((i * 7) % 13) as f32 / 16.0 + 0.125;
        }
    }
    graph
}

fn tiny_lenet() -> Graph {
    let mut b = GraphBuilder::new("tiny-lenet", &[1, 8, 8], 4);
    let mut x = b.input();
    x = b.conv("conv1", x, 2, ConvSpec::new(3).pad(1));
    x = b.relu("relu1", x);
    x = b.max_pool("pool1", x, PoolSpec::new(2));
    x = b.quadratic("act2", x, [0.125, 0.5, 0.25]);
    x = b.flatten("flat", x);
    x = b.linear("fc", x, 3);
    with_plain_weights(b.finish(x).unwrap())
}

/// Files written by the first version must be read by every later one. `POLYVEIL_BLESS=1` writes
/// those that are absent.
#[test]
fn golden_files_are_read() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for (name, graph) in [("tiny-residual-v1.onnx", tiny_residual()), ("tiny-lenet-v1.onnx", tiny_lenet())] {
        let path = dir.join(name);
        if std::env::var_os("POLYVEIL_BLESS").is_some() && !path.exists() {
            onnx::to_path(&graph, &path).unwrap();
        }
        assert_eq!(onnx::from_path(&path).unwrap(), graph, "{name}");
    }
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = onnx::to_bytes(&tiny_residual()).unwrap();
    // The metadata stand last: without them the model is whole, so stop before they begin.
    let end = bytes.len() - 40;
    let whole = (0..end).filter(|&n| onnx::from_bytes(&bytes[..n]).is_ok()).count();
    assert_eq!(whole, 0);
}

#[test]
fn obstacles_survive_the_round_trip() {
    let back = onnx::from_bytes(&onnx::to_bytes(&tiny_lenet()).unwrap()).unwrap();
    let names: Vec<_> = back.is_he_friendly().unwrap_err().into_iter().map(|b| b.node).collect();
    assert_eq!(names, ["relu1", "pool1"]);
    let back = onnx::from_bytes(&onnx::to_bytes(&tiny_residual()).unwrap()).unwrap();
    assert_eq!(back.is_he_friendly(), Ok(()));
}

#[test]
fn a_network_of_nothing_round_trips() {
    let b = GraphBuilder::new("identity", &[3], 0);
    let x = b.input();
    let graph = b.finish(x).unwrap();
    assert_eq!(onnx::from_bytes(&onnx::to_bytes(&graph).unwrap()).unwrap(), graph);
}

#[test]
fn files_are_written_and_missing_ones_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lenet.onnx");
    let graph = builders::lenet5_relu(&[1, 28, 28], 10, 1).unwrap();
    onnx::to_path(&graph, &path).unwrap();
    assert!(onnx::from_path(&path).unwrap() == graph);
    let error = onnx::from_path(&dir.path().join("absent.onnx")).unwrap_err();
    assert!(error.to_string().contains("absent.onnx"), "{error}");
}

/// Networks from elsewhere: every `.onnx` in the folder that `POLYVEIL_NETS` names.
#[test]
fn nets_of_others_are_read() {
    let Some(dir) = std::env::var_os("POLYVEIL_NETS").map(PathBuf::from) else {
        println!("skipped: POLYVEIL_NETS is not set");
        return;
    };
    let mut read = 0;
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "onnx") {
            let graph = onnx::from_path(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let back = onnx::from_bytes(&onnx::to_bytes(&graph).unwrap()).unwrap();
            assert_eq!(back, graph, "{}", path.display());
            assert_eq!(graph.is_he_friendly(), Ok(()), "{}", path.display());
            read += 1;
        }
    }
    assert!(read > 0, "no .onnx in {}", dir.display());
}
