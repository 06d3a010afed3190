//! The budget of each object: held against real objects, and printed into docs/engine.md.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use polyveil_ckks::{Budget, Encoder, Parameters, ParametersLiteral, RingKind, SwitchingKey};

fn parameters(log_n: u32, q: &[u32], p: &[u32], digit_size: usize) -> Parameters {
    let literal = ParametersLiteral::generate(RingKind::ConjugateInvariant, log_n, q, p, digit_size).unwrap();
    Parameters::new_insecure(literal).unwrap()
}

#[test]
fn objects_have_their_budget() {
    let params = parameters(8, &[50, 40, 40], &[45, 46], 2);
    for level in 0..=2 {
        let budget = Budget::new(&params, level);
        let encoder = Encoder::new(&params);
        let plain = encoder.encode(&[1.0], level, 1e6).unwrap();
        assert_eq!(budget.plaintext, 8 * plain.poly().words() as u64);
        assert_eq!(budget.ciphertext, 2 * budget.plaintext);
        let limbs = level + 1 + params.p().len();
        let digits = vec![vec![0; limbs * params.degree()]; params.digits(level)];
        let key = SwitchingKey::from_parts(&params, level, [0; 32], &digits).unwrap();
        assert_eq!(budget.key, (key.b().bytes() + key.a(&params).bytes()) as u64);
    }
    assert_eq!(Budget::new(&params, 7), Budget::new(&params, 2));
}

/// The table of the document, for the two sets of parameters that it measures.
fn table() -> String {
    let chain = |base: u32, scale: u32, levels: usize| [vec![base], vec![scale; levels]].concat();
    let small = parameters(15, &chain(50, 42, 13), &[44; 5], 5);
    let large = parameters(16, &chain(50, 45, 24), &[46; 9], 9);
    let budgets = [&small, &large].map(|params| Budget::new(params, params.max_level()).rows());
    let mut text = String::from("| object, MiB | 2^15, 13 × 42 bits | 2^16, 24 × 45 bits |\n|---|---|---|\n");
    for ((name, small), (_, large)) in budgets[0].iter().zip(budgets[1]) {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        text += &format!("| {name} | {:.2} | {:.2} |\n", mib(*small), mib(large));
    }
    text
}

#[test]
fn the_document_has_the_table() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/engine.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once("<!-- budget -->\n").unwrap();
    let (found, after) = rest.split_once("<!-- end -->").unwrap();
    let expected = table();
    if std::env::var_os("POLYVEIL_BLESS").is_some() {
        std::fs::write(&path, format!("{before}<!-- budget -->\n{expected}<!-- end -->{after}")).unwrap();
    } else {
        assert_eq!(found, expected, "run the test once with POLYVEIL_BLESS=1");
    }
}
