//! The CIFAR reader, plain and gzipped: an error or records that are whole, with labels in range.
#![no_main]

use libfuzzer_sys::fuzz_target;
use polyveil_train::data::cifar;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(records) = cifar::parse("fuzz", bytes) {
        assert_eq!(records.labels.len() * 3072, records.pixels.len());
        assert!(records.labels.iter().all(|&l| (l as usize) < records.classes));
    }
});
