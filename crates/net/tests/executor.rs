//! Every operator of the executor against loops written from the ONNX definitions.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in helpers too")]

use polyveil_net::{
    Conv, Graph, Linear, Node, Op, Pool, ShapeError, Tensor,
    builders::{self, ConvSpec, GraphBuilder, PoolSpec},
    exec::{self, ExecError, Executor},
};
use proptest::prelude::*;

/// Reproducible values in −1 .. 1 that are no pattern of the position.
fn values(shape: &[usize], seed: u64) -> Tensor {
    let mut tensor = Tensor::full(shape.to_vec(), 0.0);
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    for v in tensor.data_mut() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *v = ((state >> 40) as f32 / (1u64 << 23) as f32) - 1.0;
    }
    tensor
}

/// `Input` and one operator on it.
fn single(shape: &[usize], op: Op) -> Graph {
    let node = |name: &str, op, inputs| Node { name: name.into(), op, inputs };
    let input = node("x", Op::Input { shape: shape.to_vec() }, vec![]);
    Graph {
        name: "single".into(),
        nodes: vec![input, node("y", op, vec![0])],
        output: 1,
        metadata: Default::default(),
    }
}

/// The value at a signed position, if it lies in the image.
fn at(x: &Tensor, c: usize, y: i64, z: i64) -> Option<f64> {
    let (h, w) = (x.shape()[1] as i64, x.shape()[2] as i64);
    let inside = (0..h).contains(&y) && (0..w).contains(&z);
    inside.then(|| f64::from(x.data()[((c as i64 * h + y) * w + z) as usize]))
}

fn naive_conv(conv: &Conv, x: &Tensor, out: &[usize]) -> Vec<f64> {
    let &[outputs, per_group, kh, kw] = conv.weight.shape() else { unreachable!() };
    let mut result = Vec::new();
    for o in 0..outputs {
        let group = o / (outputs / conv.groups);
        for oy in 0..out[1] {
            for ox in 0..out[2] {
                let mut sum = conv.bias.as_ref().map_or(0.0, |b| f64::from(b.data()[o]));
                for c in 0..per_group {
                    for ky in 0..kh {
                        for kx in 0..kw {
                            let y =
                                (oy * conv.stride[0] + ky * conv.dilation[0]) as i64 - conv.pads[0] as i64;
                            let z =
                                (ox * conv.stride[1] + kx * conv.dilation[1]) as i64 - conv.pads[1] as i64;
                            let w = conv.weight.data()[((o * per_group + c) * kh + ky) * kw + kx];
                            sum += at(x, group * per_group + c, y, z).unwrap_or(0.0) * f64::from(w);
                        }
                    }
                }
                result.push(sum);
            }
        }
    }
    result
}

/// Sum, maximum and counts of every window, by walking it tap by tap.
fn naive_pool(pool: &Pool, x: &Tensor, out: &[usize], average: bool) -> Vec<f64> {
    let mut result = Vec::new();
    let [top, left, bottom, right] = pool.pads.map(|p| p as i64);
    let (h, w) = (x.shape()[1] as i64, x.shape()[2] as i64);
    for c in 0..out[0] {
        for oy in 0..out[1] {
            for ox in 0..out[2] {
                let (mut sum, mut max, mut real, mut padded) = (0.0, f64::NEG_INFINITY, 0, 0);
                for ky in 0..pool.kernel[0] {
                    for kx in 0..pool.kernel[1] {
                        let y = (oy * pool.stride[0] + ky) as i64 - top;
                        let z = (ox * pool.stride[1] + kx) as i64 - left;
                        padded += i32::from(y < h + bottom && z < w + right);
                        if let Some(v) = at(x, c, y, z) {
                            (sum, max, real) = (sum + v, max.max(v), real + 1);
                        }
                    }
                }
                let count = if pool.count_include_pad { padded } else { real };
                result.push(if average { sum / f64::from(count) } else { max });
            }
        }
    }
    result
}

fn close(found: &[f32], expected: &[f64]) -> Result<(), TestCaseError> {
    prop_assert_eq!(found.len(), expected.len());
    for (i, (&f, &e)) in found.iter().zip(expected).enumerate() {
        prop_assert!((f64::from(f) - e).abs() <= 1e-5 * (1.0 + e.abs()), "at {}: {} against {}", i, f, e);
    }
    Ok(())
}

fn conv_case() -> impl Strategy<Value = (Vec<usize>, Conv, u64)> {
    let geometry = ([1usize..4, 1..4], [1usize..3, 1..4], [1usize..3, 1..3], [0usize..3, 0..3, 0..3, 0..3]);
    let sizes = (1usize..4, 1usize..4, 1usize..4, 5usize..10, 5usize..10);
    (geometry, sizes, any::<bool>(), any::<u64>()).prop_map(
        |((kernel, stride, dilation, pads), sizes, bias, seed)| {
            let (groups, per_group, out_per_group, h, w) = sizes;
            let out = groups * out_per_group;
            let weight = values(&[out, per_group, kernel[0], kernel[1]], seed);
            let bias = bias.then(|| values(&[out], seed ^ 1));
            (vec![groups * per_group, h, w], Conv { weight, bias, stride, pads, dilation, groups }, seed)
        },
    )
}

fn pool_case() -> impl Strategy<Value = (Vec<usize>, Pool, u64)> {
    let flags = (any::<bool>(), any::<bool>());
    (
        [1usize..4, 1..5],
        [1usize..4, 1..4],
        any::<[u8; 4]>(),
        flags,
        (1usize..3, 4usize..10, 4usize..10),
        any::<u64>(),
    )
        .prop_map(|(kernel, stride, pads, (ceil_mode, count_include_pad), (c, h, w), seed)| {
            let pads = std::array::from_fn(|i| usize::from(pads[i]) % kernel[i % 2]);
            (vec![c, h, w], Pool { kernel, stride, pads, ceil_mode, count_include_pad }, seed)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn convolution((shape, conv, seed) in conv_case()) {
        let x = values(&shape, seed ^ 7);
        let graph = single(&shape, Op::Conv(conv.clone()));
        let y = exec::run(&graph, &x).unwrap();
        let expected = naive_conv(&conv, &x, y.shape());
        close(y.data(), &expected)?;
        let exact = exec::run_f64(&graph, &x).unwrap();
        for (f, e) in exact.iter().zip(&expected) {
            prop_assert!((f - e).abs() < 1e-12, "{} against {}", f, e);
        }
    }

    #[test]
    fn pools((shape, pool, seed) in pool_case()) {
        let x = values(&shape, seed);
        for (average, op) in [(true, Op::AvgPool(pool.clone())), (false, Op::MaxPool(pool.clone()))] {
            let y = exec::run(&single(&shape, op), &x).unwrap();
            close(y.data(), &naive_pool(&pool, &x, y.shape(), average))?;
        }
    }

    #[test]
    fn fully_connected(inputs in 1usize..70, outputs in 1usize..70, seed in any::<u64>()) {
        let (weight, bias) = (values(&[outputs, inputs], seed), values(&[outputs], seed ^ 1));
        let x = values(&[inputs], seed ^ 2);
        let expected: Vec<f64> = (0..outputs)
            .map(|o| {
                let row = &weight.data()[o * inputs..(o + 1) * inputs];
                let dot: f64 = row.iter().zip(x.data()).map(|(&w, &v)| f64::from(w) * f64::from(v)).sum();
                dot + f64::from(bias.data()[o])
            })
            .collect();
        let y = exec::run(&single(&[inputs], Op::Linear(Linear { weight, bias: Some(bias) })), &x).unwrap();
        close(y.data(), &expected)?;
    }
}

/// A graph with every operator, small enough to check by hand.
fn all_operators() -> Graph {
    let mut b = GraphBuilder::new("all", &[2, 6, 6], 3);
    let x = b.input();
    let c = b.conv("conv", x, 4, ConvSpec::new(3).pad(1));
    let n = b.batch_norm("bn", c);
    let r = b.relu("relu", n);
    let q = b.quadratic("act", n, [0.5, 1.0, -0.25]);
    let s = b.add("sum", r, q);
    let a = b.avg_pool("avg", s, PoolSpec::new(2));
    let m = b.max_pool("max", s, PoolSpec::new(2));
    let k = b.concat("cat", &[a, m]);
    let g = b.global_avg_pool("gap", k);
    let f = b.flatten("flat", g);
    let y = b.linear("fc", f, 3);
    b.finish(y).unwrap()
}

#[test]
fn elementwise_operators_and_joins() {
    let mut graph = all_operators();
    let Op::BatchNorm(norm) = &mut graph.nodes[2].op else { panic!() };
    norm.gamma.data_mut().copy_from_slice(&[1.0, 2.0, -1.0, 0.5]);
    norm.mean.data_mut().copy_from_slice(&[0.1, 0.2, 0.3, 0.4]);
    norm.var.data_mut().copy_from_slice(&[1.0, 4.0, 0.25, 2.0]);
    norm.beta.data_mut().copy_from_slice(&[0.0, 1.0, 2.0, 3.0]);
    let (gamma, var) = ([1.0f32, 2.0, -1.0, 0.5], [1.0f32, 4.0, 0.25, 2.0]);
    let (mean, beta) = ([0.1f32, 0.2, 0.3, 0.4], [0.0f32, 1.0, 2.0, 3.0]);
    let all = exec::run_all(&graph, &values(&[2, 6, 6], 1)).unwrap();
    let near = |x: f32, y: f32| assert!((x - y).abs() < 1e-5, "{x} against {y}");
    for (i, &v) in all[1].data().iter().enumerate() {
        let c = i / 36;
        let n = gamma[c] * (v - mean[c]) / (var[c] + 1e-5).sqrt() + beta[c];
        near(all[2].data()[i], n);
        near(all[3].data()[i], n.max(0.0));
        near(all[4].data()[i], 0.5 * n * n + n - 0.25);
        near(all[5].data()[i], n.max(0.0) + 0.5 * n * n + n - 0.25);
    }
    assert_eq!(all[8].data(), [all[6].data(), all[7].data()].concat());
    for (c, map) in all[8].data().chunks(9).enumerate() {
        near(all[9].data()[c], map.iter().sum::<f32>() / 9.0);
    }
    assert_eq!(all[10].shape(), [8]);
    assert_eq!(all.last().unwrap(), &exec::run(&graph, &values(&[2, 6, 6], 1)).unwrap());
}

#[test]
fn a_batch_gives_what_single_images_give() {
    let graph = builders::lenet5_relu(&[1, 28, 28], 10, 5).unwrap();
    let images: Vec<_> = (0..37).map(|i| values(&[1, 28, 28], i)).collect();
    let executor = Executor::new(&graph).unwrap();
    let batch = executor.run_batch(&images).unwrap();
    let single: Vec<_> = images.iter().map(|x| executor.run(x).unwrap()).collect();
    assert_eq!(batch, single);
    assert_eq!(executor.run_batch(&[]).unwrap(), []);
}

#[test]
fn bad_inputs_are_refused_by_position() {
    let graph = builders::lenet5_relu(&[1, 28, 28], 10, 5).unwrap();
    let good = values(&[1, 28, 28], 0);
    let wrong = values(&[1, 32, 32], 0);
    let error = exec::run_batch(&graph, &[good.clone(), wrong]).unwrap_err();
    assert_eq!(error.to_string(), "input 1 has shape [1, 32, 32], the network `lenet5` takes [1, 28, 28]");
    let mut nan = good;
    nan.data_mut()[5] = f32::NAN;
    let error = exec::run(&graph, &nan).unwrap_err();
    assert_eq!(error.to_string(), "input 0 holds NaN at position 5; inputs must be finite");
}

#[test]
fn overflow_names_the_first_node() {
    let mut b = GraphBuilder::new("deep", &[4], 0);
    let mut x = b.input();
    for i in 0..8 {
        x = b.quadratic(&format!("act{i}"), x, [1.0, 0.0, 0.0]);
    }
    // ReLU would turn −∞ into 0; the fault is reported all the same.
    let y = b.relu("relu", x);
    let graph = b.finish(y).unwrap();
    let error = exec::run(&graph, &Tensor::full(vec![4], 1e3)).unwrap_err();
    // 10^(3·2^k) passes the largest f32, about 3.4e38, at k = 4.
    assert_eq!(error, ExecError::NonFinite { node: "act3".into(), op: "Quadratic", image: 0 });
}

#[test]
fn faults_of_graphs_name_the_node() {
    let break_with = |f: &dyn Fn(&mut Graph)| {
        let mut graph = all_operators();
        f(&mut graph);
        graph.validate().unwrap_err()
    };
    let message = |f: &dyn Fn(&mut Graph)| break_with(f).to_string();
    assert_eq!(message(&|g| g.nodes.clear()), "the first node must be the input");
    assert_eq!(message(&|g| g.nodes[4].name = "bn".into()), "the name `bn` is used by nodes 2 and 4");
    assert_eq!(message(&|g| g.nodes[4].name.clear()), "node 4 has no name");
    assert_eq!(
        message(&|g| g.nodes[1].inputs = vec![5]),
        "node `conv` (index 1) reads value 5, which no earlier node yields"
    );
    assert_eq!(message(&|g| g.nodes[5].inputs = vec![3]), "node `sum` (Add) takes 2 inputs, found 1");
    assert_eq!(message(&|g| g.output = 99), "the output is node 99, but there are 12 nodes");
    assert_eq!(
        message(&|g| g.nodes[5].inputs = vec![3, 0]),
        "node `sum` (Add): second input should have shape [4, 6, 6], found [2, 6, 6]"
    );
    assert_eq!(
        message(&|g| g.nodes[8].inputs = vec![6, 5]),
        "node `cat` (Concat): input 1 should have shape [4, 3, 3], found [4, 6, 6]"
    );
    assert_eq!(
        message(&|g| g.nodes[11].inputs = vec![9]),
        "node `fc` (Linear) takes a vector [F], found shape [8, 1, 1]"
    );
    assert_eq!(
        message(&|g| g.nodes[0].op = Op::Input { shape: vec![3, 6, 6] }),
        "node `conv` (Conv): weight should have shape [4, 3, 3, 3], found [4, 2, 3, 3]"
    );
    assert_eq!(
        message(&|g| g.nodes[0].op = Op::Input { shape: vec![2, 1 << 20, 1 << 20] }),
        "node `x` (Input) would yield shape [2, 1048576, 1048576], more than 268435456 elements"
            .replace("`x`", "`input`")
    );
    let conv = |f: &dyn Fn(&mut Conv)| {
        break_with(&|g| {
            let Op::Conv(conv) = &mut g.nodes[1].op else { panic!() };
            f(conv);
        })
    };
    assert!(matches!(conv(&|c| c.groups = 3), ShapeError::Groups { groups: 3, inputs: 2, outputs: 4, .. }));
    assert!(matches!(conv(&|c| c.groups = 0), ShapeError::Groups { .. }));
    assert!(matches!(conv(&|c| c.stride = [1, 0]), ShapeError::Zero { found: [1, 0], .. }));
    assert!(matches!(conv(&|c| c.dilation = [9, 1]), ShapeError::EmptyOutput { window: 19, padded: 8, .. }));
    assert!(matches!(conv(&|c| c.dilation = [usize::MAX, 1]), ShapeError::EmptyOutput { .. }));
    assert!(matches!(conv(&|c| c.pads = [usize::MAX; 4]), ShapeError::TooLarge { .. }));
    assert_eq!(
        conv(&|c| c.weight.data_mut()[7] = f32::INFINITY).to_string(),
        "node `conv` (Conv): `weight` holds inf at position 7; weights must be finite"
    );
    let pool = break_with(&|g| {
        let Op::AvgPool(pool) = &mut g.nodes[6].op else { panic!() };
        pool.pads = [0, 2, 0, 0];
    });
    assert!(matches!(pool, ShapeError::PoolPads { pads: [0, 2, 0, 0], kernel: [2, 2], .. }));
    let variance = break_with(&|g| {
        let Op::BatchNorm(norm) = &mut g.nodes[2].op else { panic!() };
        norm.var.data_mut()[2] = -1.0;
    });
    assert!(matches!(variance, ShapeError::Variance { channel: 2, .. }));
}

#[test]
fn counts_of_lenet() {
    let graph = builders::lenet5_relu(&[1, 28, 28], 10, 5).unwrap();
    // 6·25+6 + 16·150+16 + 400·120+120 + 120·84+84 + 84·10+10.
    assert_eq!(graph.parameters(), 61_706);
    // 28²·6·25 + 10²·16·150 + 400·120 + 120·84 + 84·10.
    assert_eq!(graph.multiply_accumulates().unwrap(), 416_520);
    assert_eq!(graph.infer_shapes().unwrap().last().unwrap(), &[10]);
    assert!(builders::lenet5_relu(&[1, 4, 4], 10, 5).is_err());
    assert!(builders::lenet5_relu(&[1, 28, 28], 0, 5).is_err());
    assert_eq!(graph, builders::lenet5_relu(&[1, 28, 28], 10, 5).unwrap());
}
