//! The npz reader: an error or arrays whose data fills their shapes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use polyveil_train::data::npz;

fuzz_target!(|bytes: &[u8]| {
    for array in npz::parse("fuzz", bytes).into_iter().flat_map(std::collections::BTreeMap::into_values) {
        assert_eq!(array.shape.iter().product::<usize>(), array.to_f32().len());
    }
});
