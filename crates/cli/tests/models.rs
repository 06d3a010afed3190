//! The networks in `models/`: each card's figures are those that `eval` prints.

mod support;

use std::path::{Path, PathBuf};

use support::ok;

/// Largest file of a network: it travels with the source.
const LARGEST: u64 = 5_000_000;

#[test]
fn every_network_has_a_card_and_keeps_what_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models").canonicalize().unwrap();
    let data = std::env::var_os("POLYVEIL_DATA").map(PathBuf::from);
    let entries = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path());
    let mut networks: Vec<PathBuf> = entries.filter(|p| p.extension().is_some_and(|e| e == "onnx")).collect();
    networks.sort();
    assert!(!networks.is_empty());
    for network in networks {
        let card = std::fs::read_to_string(network.with_extension("md")).unwrap();
        let field = |name: &str| {
            let row = card.lines().find_map(|l| l.strip_prefix(&format!("| {name} | ")));
            row.unwrap_or_else(|| panic!("{} has no row {name}", network.display()))
                .trim_end_matches([' ', '|'])
        };
        assert!(std::fs::metadata(&network).unwrap().len() <= LARGEST, "{}", network.display());
        let path = network.to_str().unwrap();
        assert_eq!(ok(&folder, &["inspect", path])["he_friendly"], true);
        let set = field("data");
        let Some(images) = data.as_ref().map(|root| root.join(set)).filter(|p| p.is_dir()) else {
            println!("skipped: POLYVEIL_DATA/{set} is not there");
            continue;
        };
        let found = ok(&folder, &["eval", path, "--data", images.to_str().unwrap(), "--split", "test"]);
        for (name, key) in [("test accuracy", "accuracy"), ("test macro F1", "macro_f1")] {
            let shown = format!("{:.2} %", 100.0 * found[key].as_f64().unwrap());
            assert_eq!(field(name), shown, "{path}: {name}");
        }
        assert_eq!(found["non_finite"], 0, "{path}");
    }
}
