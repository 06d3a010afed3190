//! Word-size modular arithmetic, number-theoretic transform, embedding FFT, residue number system and samplers.
//!
//! This is the lowest crate of Polyveil and knows nothing of encryption. Everything works on *limbs*: `N` residues
//! modulo one prime of at most 50 bits, so that 52-bit vector multipliers apply.
//!
//! | module | holds |
//! |---|---|
//! | [`modulus`] | one prime with its Barrett constants, Shoup multiplication |
//! | [`prime`] | primality test and generation of transform-friendly primes |
//! | [`ring`] | the two ring kinds, slot order and Galois permutations |
//! | [`ntt`] | one transform kernel, modulo X^N − c, for both rings |
//! | [`embedding`] | the same tree over the complex numbers: slots ↔ real coefficients |
//! | [`poly`] | residue polynomials whose representation is part of their type |
//! | [`convert`] | exact base conversion between sets of primes |
//! | [`crt`] | residues → centred integers |
//! | [`buffer`], [`limbs`] | large buffers, used again; many of one length |
//! | [`sample`] | seeded uniform, ternary and error samplers |
//! | [`simd`] | the kernels behind all of it, and the choice of back end |
//!
//! What it does not promise: modular arithmetic here is free of secret-dependent branches by construction, but no claim
//! is made about the timing of the compiled code.
#![deny(unsafe_code)]

pub mod bits;
pub mod buffer;
pub mod convert;
pub mod crt;
pub mod embedding;
pub mod error;
pub mod limbs;
pub mod modulus;
pub mod ntt;
pub mod packed;
mod pages;
pub mod poly;
pub mod prime;
pub mod ring;
pub mod sample;
pub mod simd;

pub use convert::{BaseConverter, Prepared};
pub use crt::Reconstructor;
pub use embedding::{Complex, Embedding};
pub use error::MathError;
pub use limbs::Limbs;
pub use modulus::{MAX_MODULUS_BITS, Modulus, Shoup};
pub use ntt::NttTable;
pub use packed::PackedPolys;
pub use poly::{Coeff, Ntt, Poly, Representation};
pub use prime::{is_prime, ntt_primes};
pub use ring::{GaloisPermutation, RingKind};
pub use sample::{ERROR_STD, SeedStream};
