//! The container: round trips, and what truncation, bit flips and mix-ups do.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use polyveil_format::{FormatError, Header, Kind, Reader, Section, Writer};
use proptest::prelude::*;

fn header(kind: Kind) -> Header {
    Header::new(kind, [7; 32]).with_plan([8; 32]).with_key([9; 16])
}

fn write(kind: Kind, sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), header(kind)).unwrap();
    for (name, bytes) in sections {
        writer.section(name, bytes).unwrap();
    }
    writer.finish().unwrap()
}

fn read_all(bytes: &[u8]) -> Result<Vec<Section>, FormatError> {
    let mut reader = Reader::open(bytes)?;
    let mut sections = Vec::new();
    while let Some(section) = reader.next_section()? {
        sections.push(section);
    }
    Ok(sections)
}

#[test]
fn round_trip_keeps_header_and_sections() {
    let bytes = write(Kind::Results, &[("a", b"first"), ("empty", b""), ("b/0", &[3; 1000])]);
    let reader = Reader::open_kind(bytes.as_slice(), Kind::Results).unwrap();
    assert_eq!(reader.header(), &header(Kind::Results));
    let sections = read_all(&bytes).unwrap();
    assert_eq!(sections.len(), 3);
    assert_eq!((sections[0].name.as_str(), sections[0].bytes.as_slice()), ("a", b"first".as_slice()));
    assert_eq!(sections[2].bytes, vec![3; 1000]);
}

#[test]
fn truncation_at_every_offset_is_refused() {
    let bytes = write(Kind::ClientPlan, &[("plan", &[1; 40]), ("extra", b"xyz")]);
    for end in 0..bytes.len() {
        let error = read_all(&bytes[..end]).expect_err("a truncated file was accepted");
        let expected = matches!(
            error,
            FormatError::NotOurs { .. } | FormatError::HeaderAltered { .. } | FormatError::Truncated { .. }
        );
        assert!(expected, "at {end}: {error}");
        if end >= polyveil_format::HEADER_BYTES {
            assert!(matches!(error, FormatError::Truncated { .. }), "at {end}: {error}");
        }
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let bytes = write(Kind::ClientPlan, &[("plan", &[1; 20]), ("extra", b"xyz")]);
    for bit in 0..bytes.len() * 8 {
        let mut altered = bytes.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(read_all(&altered).is_err(), "bit {bit} was flipped unseen");
    }
}

#[test]
fn sections_cannot_change_places() {
    let bytes = write(Kind::Results, &[("a", &[1; 8]), ("a", &[2; 8])]);
    let size = (bytes.len() - polyveil_format::HEADER_BYTES - 41) / 2;
    let (first, second) = (polyveil_format::HEADER_BYTES, polyveil_format::HEADER_BYTES + size);
    let mut swapped = bytes.clone();
    swapped[first..second].copy_from_slice(&bytes[second..second + size]);
    swapped[second..second + size].copy_from_slice(&bytes[first..second]);
    assert!(matches!(read_all(&swapped), Err(FormatError::Altered { .. })));
}

#[test]
fn a_huge_declared_length_allocates_nothing() {
    // The length is under the kind's limit and its prefix is consistent; the payload is missing.
    let header = header(Kind::ServerPlan);
    let mut writer = Writer::new(Vec::new(), header).unwrap();
    writer.section("plan", &[]).unwrap();
    let honest = writer.finish().unwrap();
    let at = polyveil_format::HEADER_BYTES;
    let header_digest = blake3::hash(&honest[..at - 16]);
    let mut hostile = honest[..at].to_vec();
    let mut prefix = vec![4u8];
    prefix.extend_from_slice(b"plan");
    prefix.extend_from_slice(&(8u64 << 30).to_le_bytes());
    let mut hasher = blake3::Hasher::new();
    hasher.update(header_digest.as_bytes()).update(&0u64.to_le_bytes()).update(&prefix);
    hostile.extend_from_slice(&prefix);
    hostile.extend_from_slice(&hasher.finalize().as_bytes()[..16]);
    hostile.extend_from_slice(&[0; 100]);
    let error = read_all(&hostile).unwrap_err();
    assert_eq!(error.to_string(), "server plan: the file is truncated, it ends inside section \"plan\"");
}

#[test]
fn mismatches_name_both_sides() {
    let bytes = write(Kind::Ciphertexts, &[("a", b"x")]);
    let error = Reader::open_kind(bytes.as_slice(), Kind::EvaluationKeys).err().unwrap();
    assert_eq!(error.to_string(), "expected a file of kind \"evaluation keys\", found \"ciphertexts\"");
    let header = Reader::open(bytes.as_slice()).unwrap().header().clone();
    let text = |r: Result<(), FormatError>| r.unwrap_err().to_string();
    assert_eq!(
        text(header.expect_plan(&[1; 32])),
        "ciphertexts: made for plan 0808080808080808, this is plan 0101010101010101"
    );
    assert_eq!(
        text(header.expect_key(&[1; 16])),
        "ciphertexts: made with key 0909090909090909, this is key 0101010101010101"
    );
    assert_eq!(
        text(header.expect_parameters(&[1; 32])),
        "ciphertexts: made for parameters 0707070707070707, these are parameters 0101010101010101"
    );
}

#[test]
fn wrong_versions_are_refused_by_name() {
    let mut bytes = write(Kind::Ciphertexts, &[]);
    bytes[8] = 2;
    let error = Reader::open(bytes.as_slice()).err().unwrap();
    assert_eq!(error.to_string(), "container version 2 is not supported (this release reads version 1)");

    let mut future = header(Kind::Ciphertexts);
    future.version = 9;
    let bytes = Writer::new(Vec::new(), future).unwrap().finish().unwrap();
    let error = Reader::open(bytes.as_slice()).err().unwrap();
    assert_eq!(
        error.to_string(),
        "ciphertexts: format version 9 is not supported (this release reads 1 to 3)"
    );
}

#[test]
fn other_files_are_named_as_such() {
    let error = Reader::open(b"\x89PNG\r\n\x1a\n....".as_slice()).err().unwrap();
    assert!(error.to_string().starts_with("not a Polyveil file: it starts with 89 50 4e 47"), "{error}");
    assert!(Reader::open([].as_slice()).err().unwrap().to_string().contains("it is empty"));
}

#[test]
fn limits_hold_on_both_sides() {
    let mut writer = Writer::new(std::io::sink(), header(Kind::SecretKey)).unwrap();
    let error = writer.section("key", &vec![0; (1 << 20) + 1]).unwrap_err();
    assert_eq!(error.to_string(), "secret key: section \"key\" has 1048577 bytes, the limit is 1048576");
    assert!(writer.section("key", &vec![0; 1 << 20]).is_ok());
    assert!(writer.section("more", &[0]).unwrap_err().to_string().contains("the file has 1048577 bytes"));
}

#[test]
fn trailing_data_is_refused() {
    let mut bytes = write(Kind::Results, &[("a", b"x")]);
    bytes.push(0);
    assert!(matches!(read_all(&bytes), Err(FormatError::TrailingData { kind: Kind::Results })));
}

proptest! {
    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read_all(&bytes);
        let mut ours = write(Kind::Results, &[]);
        ours.truncate(polyveil_format::HEADER_BYTES);
        ours.extend_from_slice(&bytes);
        prop_assert!(read_all(&ours).is_err());
    }
}
