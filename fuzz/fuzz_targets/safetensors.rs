//! The safetensors loader: an error that leaves the network as it was, or a network that is valid
//! in shape (values may still be anything).
#![no_main]

use libfuzzer_sys::fuzz_target;
use polyveil_net::{Graph, builders::GraphBuilder, weights};

fn network() -> Graph {
    let mut b = GraphBuilder::new("tiny", &[4], 1);
    let x = b.input();
    let y = b.linear("fc", x, 2);
    b.finish(y).expect("the network is fixed")
}

fuzz_target!(|bytes: &[u8]| {
    let before = network();
    let mut after = before.clone();
    match weights::load(&mut after, bytes, weights::Naming::default()) {
        Ok(()) => assert!(after.infer_shapes().is_ok()),
        Err(_) => assert_eq!(before, after),
    }
});
