//! The ONNX importer: an error or a graph that is valid and survives export and import.
#![no_main]

use libfuzzer_sys::fuzz_target;
use polyveil_net::onnx;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(graph) = onnx::from_bytes(bytes) {
        graph.validate().expect("an imported graph is valid");
        let exported = onnx::to_bytes(&graph).expect("an imported graph can be exported");
        onnx::from_bytes(&exported).expect("an exported graph can be imported");
    }
});
