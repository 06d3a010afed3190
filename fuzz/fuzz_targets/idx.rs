//! The idx reader, plain and gzipped: an error or an array whose data fills its shape.
#![no_main]

use libfuzzer_sys::fuzz_target;
use polyveil_train::data::idx;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(array) = idx::parse("fuzz", bytes) {
        assert_eq!(array.shape.iter().product::<usize>(), array.data.len());
    }
});
