//! Codecs of keys and ciphertexts: round trips, hostile content, and the golden files.
//!
//! Objects here are made of arbitrary residues: a codec does not care whether they decrypt.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::io::Cursor;
use std::path::PathBuf;

use polyveil_ckks::{
    Ciphertext, EvaluationKeys, KeyId, KeySpec, Modulus, Parameters, ParametersLiteral, RingKind,
    SeededCiphertext, SharedChain, SwitchingKey,
};
use polyveil_format::{
    CiphertextReader, CiphertextWriter, Count, EvaluationKeyReader, EvaluationKeyWriter, FormatError, Header,
    Kind, Reader, Writer, bits, open_evaluation_keys, read_evaluation_keys, write_evaluation_keys,
    write_record,
};
use proptest::prelude::*;

const PLAN: [u8; 32] = [8; 32];
const KEY: KeyId = KeyId([9; 16]);

/// Far below any security: 16 coefficients.
fn params() -> Parameters {
    let literal =
        ParametersLiteral::generate(RingKind::ConjugateInvariant, 4, &[30, 25, 25], &[31], 1).unwrap();
    Parameters::new_insecure(literal).unwrap()
}

/// Alike, but the levels share primes: the keys of the highest level have all of them, its ciphertexts three.
fn shared() -> Parameters {
    let mut literal =
        ParametersLiteral::generate(RingKind::ConjugateInvariant, 4, &[30, 25, 27, 31], &[32], 1).unwrap();
    let levels = vec![vec![0], vec![0, 1], vec![0, 1, 2, 3]];
    literal.shared = Some(SharedChain { levels, digits: vec![0, 1, 2, 3] });
    Parameters::new_insecure(literal).unwrap()
}

/// Residues that differ from each other and are the same on every run.
fn residues(moduli: impl Iterator<Item = u64>, degree: usize, seed: u64) -> Vec<u64> {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 13
    };
    moduli.flat_map(|q| (0..degree).map(|_| next() % q).collect::<Vec<_>>()).collect()
}

fn switching_key(params: &Parameters, level: usize, seed: u64) -> SwitchingKey {
    let moduli = || params.key_moduli(level).iter().map(Modulus::value);
    let digits: Vec<_> =
        (0..params.key_digits(level)).map(|d| residues(moduli(), params.degree(), seed + d as u64)).collect();
    SwitchingKey::from_parts(params, level, [seed as u8; 32], &digits).unwrap()
}

fn keys(params: &Parameters) -> EvaluationKeys {
    let rotations = [(1, 2), (5, 0)].map(|(r, level)| (r, switching_key(params, level, r as u64)));
    EvaluationKeys::from_parts(params, KEY, Some(switching_key(params, 2, 77)), rotations.into()).unwrap()
}

fn key_file(params: &Parameters) -> Vec<u8> {
    write_evaluation_keys(Vec::new(), params, PLAN, &keys(params)).unwrap()
}

fn seeded(params: &Parameters, seed: u64) -> SeededCiphertext {
    let moduli = params.moduli(params.max_level()).iter().map(Modulus::value);
    let c0 = residues(moduli, params.degree(), seed);
    SeededCiphertext::from_parts(params, KEY, params.max_level(), 2f64.powi(25), c0, [seed as u8; 32])
        .unwrap()
}

fn result(params: &Parameters, seed: u64) -> Ciphertext {
    let part = |s| residues(params.moduli(1).iter().map(Modulus::value), params.degree(), s);
    Ciphertext::from_parts(params, KEY, 1, 1e7, vec![part(seed), part(seed + 1)]).unwrap()
}

fn input_file(params: &Parameters) -> Vec<u8> {
    let count = Count { images: 5, batch: 3, per_batch: 2 };
    let mut writer = CiphertextWriter::new(Vec::new(), params, PLAN, KEY, count).unwrap();
    writer.batch(&[seeded(params, 1), seeded(params, 2)]).unwrap();
    writer.batch(&[seeded(params, 3), seeded(params, 4)]).unwrap();
    writer.finish().unwrap()
}

fn result_file(params: &Parameters) -> Vec<u8> {
    let count = Count { images: 1, batch: 1, per_batch: 1 };
    let mut writer = CiphertextWriter::new(Vec::new(), params, PLAN, KEY, count).unwrap();
    writer.batch(&[result(params, 5)]).unwrap();
    writer.finish().unwrap()
}

fn read_inputs(bytes: &[u8], params: &Parameters) -> Result<Vec<Vec<SeededCiphertext>>, FormatError> {
    let mut reader = CiphertextReader::open(bytes, params, &PLAN)?;
    let mut batches = Vec::new();
    while let Some(batch) = reader.next_batch()? {
        batches.push(batch);
    }
    Ok(batches)
}

fn same_key(a: &SwitchingKey, b: &SwitchingKey) -> bool {
    a.level() == b.level() && a.seed() == b.seed() && a.b() == b.b()
}

#[test]
fn evaluation_keys_come_back_bit_for_bit() {
    let params = params();
    let (wrote, bytes) = (keys(&params), key_file(&params));
    let read = read_evaluation_keys(bytes.as_slice(), &params, &PLAN).unwrap();
    assert_eq!(read.key_id(), KEY);
    assert_eq!(read.spec(), wrote.spec());
    assert!(same_key(read.relin().unwrap().unwrap(), wrote.relin().unwrap().unwrap()));
    for (r, _) in wrote.rotations() {
        let [wrote, read] = [&wrote, &read].map(|keys| keys.rotation(r).unwrap().unwrap());
        assert!(same_key(wrote, read), "rotation {r}");
    }
}

#[test]
fn keys_are_read_when_they_are_needed() {
    let params = params();
    let (wrote, bytes) = (keys(&params), key_file(&params));
    let open = |bytes: Vec<u8>| open_evaluation_keys(Cursor::new(bytes), &params, &PLAN);
    let read = open(bytes.clone()).unwrap();
    assert_eq!((read.key_id(), read.spec(), read.loaded()), (KEY, wrote.spec(), 0));
    let (rotation, _) = wrote.rotations().last().unwrap();
    assert!(same_key(read.rotation(rotation).unwrap().unwrap(), wrote.rotation(rotation).unwrap().unwrap()));
    let _ = read.rotation(rotation).unwrap();
    assert_eq!(read.loaded(), 1);
    assert!(read.rotation(12345).unwrap().is_none());
    assert!(same_key(read.relin().unwrap().unwrap(), wrote.relin().unwrap().unwrap()));
    // What was read lazily writes the same file.
    assert_eq!(
        write_evaluation_keys(Vec::new(), &params, PLAN, &open(bytes.clone()).unwrap()).unwrap(),
        bytes
    );

    // A file cut anywhere does not open; an altered one does not open, or the altered key does not load.
    for at in (0..bytes.len()).step_by(bytes.len() / 97) {
        assert!(open(bytes[..at].to_vec()).is_err(), "cut at {at}");
        let mut altered = bytes.clone();
        altered[at] ^= 1;
        let Ok(keys) = open(altered) else { continue };
        let mut failures = usize::from(keys.relin().is_err());
        for (rotation, _) in keys.rotations() {
            failures += usize::from(keys.rotation(rotation).is_err());
        }
        assert_eq!(failures, 1, "altered at {at}");
        assert_eq!(keys.loaded(), keys.spec().count() - 1);
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(matches!(open(longer), Err(FormatError::TrailingData { .. })));
}

#[test]
fn a_key_file_is_about_as_long_as_predicted() {
    let params = params();
    let predicted = keys(&params).spec().stored_bytes(&params);
    let found = key_file(&params).len() as u64;
    assert!(found >= predicted && found < predicted + 800, "{found} bytes against {predicted}");
}

#[test]
fn keys_are_written_in_the_announced_order_only() {
    let params = params();
    let spec = KeySpec { relin_level: Some(2), rotations: vec![(3, 1)] };
    let writer = || EvaluationKeyWriter::new(Vec::new(), &params, PLAN, KEY, &spec).unwrap();
    let error = writer().key(&switching_key(&params, 1, 1)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("section \"relin\" is not valid: a key of level 2 expected, found one of 1")
    );
    let mut short = writer();
    short.key(&switching_key(&params, 2, 1)).unwrap();
    assert!(
        short.finish().unwrap_err().to_string().contains("\"rotation/3\" is not valid: the key is missing")
    );
}

#[test]
fn ciphertexts_and_results_come_back_bit_for_bit() {
    let params = params();
    let batches = read_inputs(&input_file(&params), &params).unwrap();
    assert_eq!(batches, [[seeded(&params, 1), seeded(&params, 2)], [seeded(&params, 3), seeded(&params, 4)]]);
    let bytes = result_file(&params);
    let mut reader = CiphertextReader::<_, Ciphertext>::open(bytes.as_slice(), &params, &PLAN).unwrap();
    assert_eq!(reader.key_id(), KEY);
    assert_eq!(reader.next_batch().unwrap(), Some(vec![result(&params, 5)]));
    assert_eq!(reader.next_batch().unwrap(), None);
}

#[test]
fn other_plans_parameters_and_kinds_are_refused_before_any_payload() {
    let params = params();
    let literal = ParametersLiteral::generate(RingKind::ConjugateInvariant, 4, &[30, 25], &[31], 1).unwrap();
    let other = Parameters::new_insecure(literal).unwrap();
    // Cut right behind the header: the refusal must not need more.
    let header = &input_file(&params)[..polyveil_format::HEADER_BYTES];
    let open = |params: &Parameters, plan| {
        CiphertextReader::<_, SeededCiphertext>::open(header, params, plan).err().unwrap()
    };
    assert!(matches!(open(&params, &[1; 32]), FormatError::WrongPlan { kind: Kind::Ciphertexts, .. }));
    assert!(matches!(open(&other, &PLAN), FormatError::WrongParameters { .. }));
    let error = EvaluationKeyReader::open(header, &params, &PLAN).err().unwrap();
    assert!(matches!(error, FormatError::WrongKind { expected: Kind::EvaluationKeys, .. }));
}

#[test]
fn insecure_parameters_are_marked() {
    let bytes = key_file(&params());
    assert!(Reader::open(bytes.as_slice()).unwrap().header().insecure);
}

#[test]
fn a_ciphertext_of_another_key_cannot_be_written() {
    let params = params();
    let count = Count { images: 1, batch: 1, per_batch: 1 };
    let mut writer = CiphertextWriter::new(Vec::new(), &params, PLAN, KeyId([1; 16]), count).unwrap();
    let error = writer.batch(&[result(&params, 5)]).unwrap_err();
    assert!(
        error.to_string().contains("key 01010101010101010101010101010101 expected, found 0909"),
        "{error}"
    );
}

/// A file with intact checksums whose content is hostile.
fn hostile(count: Count, payload: &[u8]) -> FormatError {
    let params = params();
    let header = Header::new(Kind::Ciphertexts, params.fingerprint()).with_plan(PLAN).with_key(KEY.0);
    let mut writer = Writer::new(Vec::new(), header).unwrap();
    write_record(&mut writer, "parameters", params.literal()).unwrap();
    write_record(&mut writer, "index", &count).unwrap();
    writer.section("0/0", payload).unwrap();
    read_inputs(&writer.finish().unwrap(), &params).unwrap_err()
}

#[test]
fn hostile_content_is_named() {
    let one = Count { images: 1, batch: 1, per_batch: 1 };
    let params = params();
    let payload = |level: u16, scale: f64, residue: u64| {
        let mut bytes = level.to_le_bytes().to_vec();
        bytes.extend_from_slice(&scale.to_le_bytes());
        bytes.extend_from_slice(&[0; 32]);
        for &q in &params.q()[..=usize::from(level.min(2))] {
            // Packs as if the modulus were the largest of its width.
            bits::pack(&[residue.min((1 << bits::width(q)) - 1); 16], 1 << bits::width(q), &mut bytes);
        }
        bytes
    };
    let message = |bytes: &[u8]| hostile(one, bytes).to_string();
    assert!(message(&payload(2, 1e6, u64::MAX)).contains("not below its modulus"));
    assert!(message(&payload(2, f64::NAN, 0)).contains("scale"), "{}", message(&payload(2, f64::NAN, 0)));
    assert!(message(&payload(700, 1e6, 0)).contains("700"));
    assert!(message(&payload(2, 1e6, 0)[..60]).contains("bytes of residues expected, found"));
    assert!(message(&[payload(2, 1e6, 0), vec![0]].concat()).contains("1 bytes too many"));
    let many = hostile(Count { images: u32::MAX, ..one }, &[]).to_string();
    assert!(many.contains("found 4294967295, 1 of them in 1"), "{many}");
    let none = hostile(Count { batch: 0, ..one }, &[]).to_string();
    assert!(none.contains("found 1, 0 of them in 1"), "{none}");
    let large = hostile(Count { batch: u32::MAX, ..one }, &[]).to_string();
    assert!(large.contains("4294967295 of them"), "{large}");
    assert!(
        hostile(Count { images: 3, batch: 2, per_batch: 1 }, &payload(2, 1e6, 0))
            .to_string()
            .contains("\"1/0\"")
    );
}

#[test]
fn truncation_of_key_files_at_every_offset_is_refused() {
    let params = params();
    let bytes = key_file(&params);
    for end in 0..bytes.len() {
        assert!(read_evaluation_keys(&bytes[..end], &params, &PLAN).is_err(), "cut at {end}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn altered_files_are_refused_and_never_panic(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let params = params();
        for original in [key_file(&params), input_file(&params)] {
            let mut bytes = original;
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(read_evaluation_keys(bytes.as_slice(), &params, &PLAN).is_err());
            prop_assert!(read_inputs(&bytes, &params).is_err());
        }
    }
}

/// Files of every released version stay readable. To add the files of a new version, run once with
/// POLYVEIL_BLESS set; an existing file is never replaced.
#[test]
fn golden_files_are_still_read() {
    let params = params();
    let golden = |name: &str, bytes: Vec<u8>| {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        if std::env::var_os("POLYVEIL_BLESS").is_some() && !path.exists() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, bytes).unwrap();
        }
        std::fs::read(&path).unwrap()
    };
    // Since the last versions levels may share primes.
    let shared = shared();
    for (version, params) in [(1, &params), (2, &shared)] {
        let file = golden(&format!("evaluation-keys-v{version}"), key_file(params));
        let read = read_evaluation_keys(file.as_slice(), params, &PLAN).unwrap();
        for (rotation, level) in [(1, 2), (5, 0)] {
            let key = read.rotation(rotation).unwrap().unwrap();
            assert!(same_key(key, &switching_key(params, level, rotation as u64)));
        }
    }
    let five = Count { images: 5, batch: 3, per_batch: 2 };
    for (version, params, count) in
        [(1, &params, Count { images: 2, batch: 1, per_batch: 2 }), (2, &params, five), (3, &shared, five)]
    {
        let file = golden(&format!("ciphertexts-v{version}"), input_file(params));
        let reader = CiphertextReader::<_, SeededCiphertext>::open(file.as_slice(), params, &PLAN).unwrap();
        assert_eq!((reader.header().version, reader.count()), (version, count));
        assert_eq!(read_inputs(&file, params).unwrap()[1][0], seeded(params, 3));
        let file = golden(&format!("results-v{version}"), result_file(params));
        let mut reader = CiphertextReader::<_, Ciphertext>::open(file.as_slice(), params, &PLAN).unwrap();
        assert_eq!(reader.count(), Count { images: 1, batch: 1, per_batch: 1 });
        assert_eq!(reader.next_batch().unwrap(), Some(vec![result(params, 5)]));
    }
}
