//! The npy reader: an error or an array whose data fills its shape.
#![no_main]

use libfuzzer_sys::fuzz_target;
use polyveil_train::data::npy;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(array) = npy::parse("fuzz", bytes) {
        assert_eq!(array.shape.iter().product::<usize>(), array.to_f32().len());
    }
});
