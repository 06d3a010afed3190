//! The reader of the embedded digits' table: an error or one label an image.
#![no_main]

use libfuzzer_sys::fuzz_target;
use polyveil_train::data::mnist5k;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(rows) = mnist5k::parse_csv("fuzz", bytes) {
        assert_eq!(rows.pixels.len(), 784 * rows.labels.len());
    }
});
