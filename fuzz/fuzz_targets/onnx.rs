//! The ONNX importer: an error or a graph that is valid, runs, and survives export and import.
#![no_main]

use libfuzzer_sys::fuzz_target;
use polyveil_net::{Graph, ShapeError, Tensor, exec, onnx};

fuzz_target!(|bytes: &[u8]| {
    let Ok(graph) = onnx::from_bytes(bytes) else { return };
    graph.validate().expect("an imported graph is valid");
    let exported = onnx::to_bytes(&graph).expect("an imported graph can be exported");
    match onnx::from_bytes(&exported) {
        // Import joins arithmetic: products of coefficients near the largest f32 may leave its range.
        Ok(_) | Err(onnx::OnnxError::Graph(ShapeError::NonFiniteWeight { .. })) => {}
        Err(error) => panic!("an exported graph can be imported: {error}"),
    }
    run(&graph);
});

/// Runs a graph that is small enough to run thousands of times a second.
fn run(graph: &Graph) {
    let shapes = graph.infer_shapes().expect("an imported graph is valid");
    let values: usize =
        shapes.iter().flat_map(|s| s.iter().copied().reduce(|a, b| a.saturating_mul(b))).sum();
    let macs = graph.multiply_accumulates().expect("an imported graph is valid");
    if values > 1 << 14 || macs > 1 << 16 || pool_taps(graph, &shapes) > 1 << 16 {
        return;
    }
    let input = Tensor::full(shapes[0].clone(), 0.5);
    match exec::run(graph, &input) {
        Ok(output) => assert_eq!(output.shape(), shapes[graph.output]),
        Err(exec::ExecError::NonFinite { .. }) => {}
        Err(error) => panic!("a valid graph runs on an input of its shape: {error}"),
    }
}

fn pool_taps(graph: &Graph, shapes: &[Vec<usize>]) -> usize {
    use polyveil_net::Op;
    let taps = |(node, shape): (&polyveil_net::Node, &Vec<usize>)| match &node.op {
        Op::AvgPool(p) | Op::MaxPool(p) => {
            shape.iter().chain(&p.kernel).fold(1usize, |n, &d| n.saturating_mul(d))
        }
        _ => 0,
    };
    graph.nodes.iter().zip(shapes).map(taps).fold(0, usize::saturating_add)
}
