//! What only the data owner runs: secret keys, key generation, encryption and decryption.
//!
//! A server must never link this crate; that is what keeps decryption out of its reach.
//!
//! ```text
//! SecretKey ──┬─ encrypt_symmetric ─► SeededCiphertext ─► server
//!             ├─ generate_evaluation_keys ─► EvaluationKeys ─► server
//!             ├─ generate_public_key ─► PublicKey ─ encrypt_public ─► Ciphertext ─► server
//!             └─ decrypt_to_precision / decrypt_for_release ◄─ Ciphertext ◄─ server
//! ```
//!
//! Secrets are uniform ternary, errors centred binomial with σ = 3.24. Randomness comes from the operating system; what
//! takes a test seed says so in its name. Secrets, seeds, generator states, errors and decrypted messages are zeroed when
//! dropped and never enter the pool of `polyveil_math::buffer`; secrets have no `Debug`, `Clone` or `PartialEq`.
//! Values that leave the data owner must be rounded first (Li, Micciancio, Eurocrypt 2021): use
//! [`decrypt_to_precision`], or [`decrypt_for_release`] for rounding with noise flooding; [`Release`] has the details.
//!
//! What it does not promise: protection against an attacker on the same machine; constant time beyond the absence of
//! secret-dependent branches and look-ups in sampling and arithmetic.
#![forbid(unsafe_code)]

mod decrypt;
mod encrypt;
mod error;
mod keygen;
mod random;
mod release;
mod secret;

pub use decrypt::{Decrypted, decrypt, decrypt_for_release, decrypt_to_precision, decrypt_values};
pub use encrypt::{
    PublicKey, encrypt_public, encrypt_public_with, encrypt_symmetric, encrypt_symmetric_with,
    encrypt_values, generate_public_key, generate_public_key_with,
};
pub use error::ClientError;
pub use keygen::{Progress, generate_evaluation_keys, generate_evaluation_keys_with};
pub use random::Randomness;
pub use release::{Flooding, Release};
pub use secret::SecretKey;
