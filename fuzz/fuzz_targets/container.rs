//! The container and the codecs of all kinds.
//!
//! Checksums would stop nearly every mutated file at once. So the first byte chooses: read the bytes as
//! they are, or put them as payload into a container with right checksums and read that.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use polyveil_ckks::{Ciphertext, Parameters, ParametersLiteral, RingKind, SeededCiphertext};
use polyveil_format::{
    CiphertextReader, Count, Header, Kind, Reader, Stored, Writer, read_client_plan, read_evaluation_keys,
    read_server_plan, write_record,
};

const PLAN: [u8; 32] = [8; 32];
const KEY: [u8; 16] = [9; 16];

static PARAMS: LazyLock<Parameters> = LazyLock::new(|| {
    let literal = ParametersLiteral::generate(RingKind::ConjugateInvariant, 4, &[30, 25, 25], &[31], 1);
    Parameters::new_insecure(literal.expect("the sizes are fixed")).expect("the parameters are fixed")
});

fuzz_target!(|bytes: &[u8]| {
    let Some((&mode, bytes)) = bytes.split_first() else { return };
    let file = match mode {
        1 => with_payload(Kind::ServerPlan, &[("plan", bytes)]),
        2 => with_payload(Kind::ClientPlan, &[("plan", bytes)]),
        3 => {
            let (index, keys) = bytes.split_at(bytes.len().min(8));
            with_payload(Kind::EvaluationKeys, &[("index", index), ("relin", keys), ("rotation/1", keys)])
        }
        4 => with_payload(Kind::Ciphertexts, &[("index", &count()), ("0/0", bytes)]),
        5 => with_payload(Kind::Results, &[("index", &count()), ("0/0", bytes)]),
        6 => {
            // Sections as they are, behind a right header.
            let mut file = with_payload(Kind::Results, &[]);
            file.truncate(polyveil_format::HEADER_BYTES);
            file.extend_from_slice(bytes);
            file
        }
        _ => bytes.to_vec(),
    };
    if let Ok(mut reader) = Reader::open(file.as_slice()) {
        while let Ok(Some(_)) = reader.next_section() {}
    }
    let _ = read_server_plan(file.as_slice());
    let _ = read_client_plan(file.as_slice());
    let _ = read_evaluation_keys(file.as_slice(), &PARAMS, &PLAN);
    read_images::<SeededCiphertext>(&file);
    read_images::<Ciphertext>(&file);
});

fn read_images<C: Stored>(file: &[u8]) {
    if let Ok(mut reader) = CiphertextReader::<_, C>::open(file, &PARAMS, &PLAN) {
        while let Ok(Some(_)) = reader.next_batch() {}
    }
}

fn count() -> Vec<u8> {
    let count = Count { images: 1, batch: 1, per_batch: 1 };
    let mut writer = writer(Kind::Results);
    write_record(&mut writer, "index", &count).expect("memory takes everything");
    let mut reader = writer.finish().expect("memory takes everything");
    // Header, then name length, name, length, check: the record lies behind.
    let start = polyveil_format::HEADER_BYTES + 1 + 5 + 8 + 16;
    reader.truncate(reader.len() - 41 - 32);
    reader.split_off(start)
}

fn writer(kind: Kind) -> Writer<Vec<u8>> {
    let header = Header::new(kind, PARAMS.fingerprint()).with_plan(PLAN).with_key(KEY);
    Writer::new(Vec::new(), header).expect("memory takes everything")
}

fn with_payload(kind: Kind, sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = writer(kind);
    if !matches!(kind, Kind::ServerPlan | Kind::ClientPlan) {
        write_record(&mut writer, "parameters", PARAMS.literal()).expect("memory takes everything");
    }
    for (name, bytes) in sections {
        // Too large a payload is refused here already.
        let _ = writer.section(name, bytes);
    }
    writer.finish().expect("memory takes everything")
}
