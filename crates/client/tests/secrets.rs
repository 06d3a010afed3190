//! Nothing secret is left in the buffers that operations hand on to each other. One test only in this file: the pool
//! belongs to the process, and another test's buffers would come in between.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod common;

use common::{SCALE, values};
use polyveil_ckks::{Encoder, Parameters, ParametersLiteral, RingKind};
use polyveil_client::{Release, SecretKey, decrypt, decrypt_for_release, decrypt_values, encrypt_values};
use polyveil_math::buffer::{self, Buffer};

/// Contents of all pooled buffers that hold at least `len` words; they do not come back.
fn pooled(len: usize) -> Vec<Buffer> {
    let mut found = Vec::new();
    loop {
        let buffer = buffer::take(len);
        // A fresh buffer is zero.
        if buffer.iter().all(|&word| word == 0) {
            return found;
        }
        found.push(buffer);
    }
}

#[test]
fn the_pool_holds_no_messages() {
    let literal =
        ParametersLiteral::generate(RingKind::ConjugateInvariant, 12, &[50, 40, 40], &[50], 1).unwrap();
    let params = Parameters::new_insecure(literal).unwrap();
    let sk = SecretKey::from_seed_for_tests(&params, [1; 32]).unwrap();
    let x = values(params.slots(), 1);
    let expected = Encoder::new(&params).encode(&x, 2, SCALE).unwrap().poly().to_words();
    // The plaintext above went to the pool, which shows that the search finds what is there.
    let n = params.degree();
    let contains = |message: &[u64]| {
        let found = pooled(n);
        message.chunks_exact(n).any(|limb| found.iter().any(|b| b.starts_with(limb)))
    };
    assert!(contains(&expected));

    let seeded = encrypt_values(&sk, &x, 2, SCALE).unwrap();
    assert!(!contains(&expected), "the image is in the pool after encryption");

    let ciphertext = seeded.expand(&params).unwrap();
    let message = decrypt(&sk, &ciphertext).unwrap().poly().to_words();
    assert!(!contains(&message), "the decrypted message is in the pool");
    let decoded = decrypt(&sk, &ciphertext).unwrap().decode().unwrap();
    assert_eq!(decoded, decrypt_values(&sk, &ciphertext).unwrap());
    let release = Release::rounded(20).unwrap();
    let rounded = decrypt_for_release(&sk, &ciphertext, &release, 2.0).unwrap();
    assert!(rounded.iter().zip(&x).all(|(r, x)| (r - x).abs() < 1e-6));
    assert!(!contains(&message), "the decrypted message is in the pool after decoding");
}
