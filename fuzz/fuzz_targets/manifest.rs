//! The manifest reader: an error or rows whose files stay below the folder.
#![no_main]

use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use polyveil_train::data::manifest;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(rows) = manifest::parse("fuzz", bytes) {
        assert!(!rows.is_empty());
        for row in rows {
            let mut parts = Path::new(&row.file).components();
            assert!(parts.all(|c| matches!(c, Component::Normal(_) | Component::CurDir)));
            assert!(!row.label.is_empty());
        }
    }
});
