//! A network for timing encrypted runs, without training: `quadratic SOURCE OUT.onnx [WEIGHTS.safetensors]`.
//!
//! `SOURCE` is an ONNX file or `ARCHITECTURE:CxHxW:CLASSES`; `alexnet@WIDTH` is AlexNet with as many times the channels and units,
//! its first stride fitted to the image, for seeing how cost grows. Max-pools become average pools. Every ReLU becomes the quadratic
//! `x²/2R + x/2 + R/8`, where `R` is the largest magnitude that reaches it on four images of noise in [0, 1); every quadratic
//! that is a mere square becomes `x²/R`, so that values neither vanish nor overflow however deep the network is. Its scores
//! mean nothing; depth, shapes and ranges are those of a converted network.

use std::error::Error;
use std::path::Path;

use polyveil_net::builders::{ConvSpec, GraphBuilder, PoolSpec};
use polyveil_net::weights::{Naming, load_path};
use polyveil_net::{Graph, Op, Quadratic, ShapeError, Tensor, builders, exec, onnx};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (source, out, weights) = match arguments.as_slice() {
        [source, out] => (source, out, None),
        [source, out, weights] => (source, out, Some(weights)),
        _ => return Err("quadratic SOURCE OUT.onnx [WEIGHTS.safetensors]".into()),
    };
    let mut graph = open(source)?;
    if let Some(weights) = weights {
        load_path(&mut graph, Path::new(weights), Naming::Node)?;
    }
    let images: Vec<Tensor> = (0..4).map(|seed| noise(graph.input_shape(), seed)).collect();
    for id in 0..graph.nodes.len() {
        let replaced = match &graph.nodes[id].op {
            Op::MaxPool(pool) => Op::AvgPool(pool.clone()),
            Op::Relu => {
                let range = reach(&graph, id, &images)?;
                coefficients(0.5 / range, 0.5, range / 8.0)
            }
            Op::Quadratic(q) if q.b.data().iter().chain(q.c.data()).all(|&v| v == 0.0) => {
                coefficients(1.0 / reach(&graph, id, &images)?, 0.0, 0.0)
            }
            _ => continue,
        };
        graph.nodes[id].op = replaced;
    }
    onnx::to_path(&graph, Path::new(out))?;
    Ok(())
}

fn open(source: &str) -> Result<Graph, Box<dyn Error>> {
    let parts: Vec<&str> = source.split(':').collect();
    let [architecture, shape, classes] = parts.as_slice() else {
        return Ok(onnx::from_path(Path::new(source))?);
    };
    let shape: Vec<usize> = shape.split('x').map(str::parse).collect::<Result<_, _>>()?;
    if let Some(width) = architecture.strip_prefix("alexnet@") {
        return Ok(alexnet_like(&shape, width.parse()?, classes.parse()?)?);
    }
    let graph = builders::by_name(architecture, &shape, classes.parse()?, 1);
    Ok(graph.ok_or_else(|| format!("no architecture `{architecture}`: {:?}", builders::ARCHITECTURES))??)
}

/// AlexNet (torchvision's) for images of any size from 32 on: the first stride is 4 at 224 pixels, 2 at 128, 1 below.
fn alexnet_like(input: &[usize], width: f64, classes: usize) -> Result<Graph, ShapeError> {
    let wide = |channels: usize| ((channels as f64 * width) as usize).max(1);
    let stride = (input.get(1).copied().unwrap_or(0) / 56).clamp(1, 4);
    let mut b = GraphBuilder::new("alexnet_like", input, 1);
    let mut x = b.input();
    x = b.conv("conv0", x, wide(64), ConvSpec::new(11).stride(stride).pad(2));
    x = b.relu("relu0", x);
    x = b.max_pool("pool0", x, PoolSpec::new(3).stride(2));
    x = b.conv("conv1", x, wide(192), ConvSpec::new(5).pad(2));
    x = b.relu("relu1", x);
    x = b.max_pool("pool1", x, PoolSpec::new(3).stride(2));
    for (k, channels) in [(2, 384), (3, 256), (4, 256)] {
        x = b.conv(&format!("conv{k}"), x, wide(channels), ConvSpec::new(3).pad(1));
        x = b.relu(&format!("relu{k}"), x);
    }
    x = b.max_pool("pool4", x, PoolSpec::new(3).stride(2));
    x = b.flatten("flat", x);
    for k in [5, 6] {
        x = b.linear(&format!("fc{k}"), x, wide(4096));
        x = b.relu(&format!("relu{k}"), x);
    }
    x = b.linear("fc7", x, classes);
    b.finish(x)
}

fn coefficients(a: f32, b: f32, c: f32) -> Op {
    let one = |v| Tensor::full(vec![1], v);
    Op::Quadratic(Quadratic { a: one(a), b: one(b), c: one(c) })
}

/// The largest magnitude of what node `id` reads.
fn reach(graph: &Graph, id: usize, images: &[Tensor]) -> Result<f32, Box<dyn Error>> {
    let mut before = graph.clone();
    before.output = graph.nodes[id].inputs[0];
    before.nodes.truncate(id);
    let values = exec::run_batch(&before, images)?;
    Ok(values.iter().flat_map(Tensor::data).fold(1e-6, |m: f32, v| m.max(v.abs())))
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn noise(shape: &[usize], seed: u64) -> Tensor {
    let mut tensor = Tensor::full(shape.to_vec(), 0.0);
    let mut state = seed;
    for value in tensor.data_mut() {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        *value = ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 24) as f32;
    }
    tensor
}
