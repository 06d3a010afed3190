//! The kernels that everything runs on, and the one place that chooses their back end.
//!
//! Every kernel takes and leaves fully reduced residues, so all back ends agree bit for bit; [`scalar`] is the reference
//! and is always built. The choice is made once, the fastest that the processor offers, and can be overridden by the
//! environment variable `POLYVEIL_SIMD` (`scalar`, `avx2`, `avx512`; unset or empty is no wish). A library has nobody to
//! tell about a value that it does not know or cannot obey, so it takes `scalar`; [`requested`] says what was asked for,
//! and a program refuses what it does not like.

#[cfg(target_arch = "x86_64")]
#[clippy::msrv = "1.95"]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
#[clippy::msrv = "1.95"]
pub mod avx512;
pub mod matrix;
mod product;
pub mod scalar;
mod tiles;
pub mod wide;

pub use product::{KeyProduct, PACKED_GROUP, PACKED_PADDING, PackedLimb, key_product, pack};
pub use tiles::{LOG_UNIT, TileProducts, TileSum, Tiles, tile_block};

use crate::buffer::Buffer;
use crate::modulus::{Modulus, Shoup};
use std::sync::OnceLock;

/// The environment variable that names the back end.
pub const VARIABLE: &str = "POLYVEIL_SIMD";

/// All names of back ends, slowest first, whatever this build and processor offer.
pub const NAMES: [&str; 3] = ["scalar", "avx2", "avx512"];

/// A set of kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Portable 64-bit code.
    Scalar,
    /// AVX2 with residues as doubles.
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    /// AVX-512 with 52-bit products.
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
}

/// A wish in `POLYVEIL_SIMD` that cannot be obeyed; the back end is then `scalar`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No back end has that name.
    #[error("{VARIABLE} is '{found}'; it may be {}", NAMES.join(", "))]
    Unknown {
        /// The value.
        found: String,
    },
    /// This build or processor has no such back end.
    #[error("{VARIABLE} is '{name}', which this machine does not offer; it may be {}", available.join(", "))]
    Unavailable {
        /// The value.
        name: &'static str,
        /// The names of those that can be had.
        available: Vec<&'static str>,
    },
}

impl Backend {
    /// Its name, as in `POLYVEIL_SIMD`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
        }
    }

    /// All that this processor can run, slowest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        let vectors = [avx2::Avx2::detect().map(Self::Avx2), avx512::Avx512::detect().map(Self::Avx512)];
        #[cfg(not(target_arch = "x86_64"))]
        let vectors = [None; 0];
        std::iter::once(Self::Scalar).chain(vectors.into_iter().flatten()).collect()
    }

    /// The one of that name; `None` for an empty one.
    fn named(name: &str) -> Result<Option<Self>, RequestError> {
        if name.is_empty() {
            return Ok(None);
        }
        let all = Self::available();
        if let Some(&backend) = all.iter().find(|b| b.name() == name) {
            return Ok(Some(backend));
        }
        Err(match NAMES.into_iter().find(|&known| known == name) {
            Some(name) => {
                RequestError::Unavailable { name, available: all.into_iter().map(Self::name).collect() }
            }
            None => RequestError::Unknown { found: name.to_owned() },
        })
    }
}

/// The back end in use: the one of [`requested`], `scalar` if the wish cannot be obeyed, the fastest if there is none.
#[must_use]
pub fn backend() -> Backend {
    static CHOICE: OnceLock<Backend> = OnceLock::new();
    *CHOICE.get_or_init(|| match requested() {
        Ok(wish) => wish.or_else(|| Backend::available().pop()).unwrap_or(Backend::Scalar),
        Err(_) => Backend::Scalar,
    })
}

/// The back end that `POLYVEIL_SIMD` asks for; `None` where it is unset or empty.
///
/// # Errors
/// [`RequestError`] if there is no back end of that name or none here.
pub fn requested() -> Result<Option<Backend>, RequestError> {
    std::env::var_os(VARIABLE).map_or(Ok(None), |name| Backend::named(&name.to_string_lossy()))
}

/// Calls a kernel of the back end in use, or of a given one.
macro_rules! dispatch {
    ($name:ident($($arg:expr),*)) => {
        dispatch!(backend() => $name($($arg),*))
    };
    ($backend:expr => $name:ident($($arg:expr),*)) => {
        match $backend {
            Backend::Scalar => scalar::$name($($arg),*),
            #[cfg(target_arch = "x86_64")]
            Backend::Avx2(token) => token.$name($($arg),*),
            #[cfg(target_arch = "x86_64")]
            Backend::Avx512(token) => token.$name($($arg),*),
        }
    };
}

/// Fixed factors of a transform: entry `m + j` serves node `j` of the tree level with `m` nodes.
#[derive(Debug, Clone, Copy)]
pub struct Twiddles<'a> {
    /// The factors.
    pub values: &'a [u64],
    /// ⌊value · 2^64 / q⌋ of each, as many as the back end reads.
    pub quotients: &'a [u64],
    /// ⌊value · 2^52 / q⌋ of each; empty unless the back end reads it.
    pub quotients52: &'a [u64],
    /// The same modulo q, at most q/2 in magnitude, as bits of doubles; empty unless the back end reads it.
    pub doubles: &'a [u64],
}

/// The weights of one term of a sum of products.
#[derive(Debug, Clone, Copy)]
pub enum Weights<'a> {
    /// One weight per value.
    Full(&'a [u64]),
    /// `n / len` consecutive values share a weight; the length is a power of two.
    Blocks(&'a [u64]),
}

/// One term of a sum of products.
#[derive(Debug, Clone, Copy)]
pub struct Term<'a> {
    /// The values.
    pub values: &'a [u64],
    /// What they are multiplied with.
    pub weights: Weights<'a>,
}

/// What transforms of a back end read of [`Twiddles`] beside the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forms {
    /// How many 64-bit quotients, if there are so many.
    pub quotients: usize,
    /// Whether 52-bit ones.
    pub quotients52: bool,
    /// Whether doubles.
    pub doubles: bool,
}

/// What those of the back end in use read.
#[must_use]
pub fn forms_read() -> Forms {
    match backend() {
        Backend::Scalar => Forms { quotients: usize::MAX, quotients52: false, doubles: false },
        // Short transforms are scalar ones.
        #[cfg(target_arch = "x86_64")]
        Backend::Avx2(_) => Forms { quotients: avx2::MIN_TRANSFORM, quotients52: false, doubles: true },
        #[cfg(target_arch = "x86_64")]
        Backend::Avx512(_) => Forms { quotients: 0, quotients52: true, doubles: false },
    }
}

/// Forward transform modulo X^n − c, natural order in, bit-reversed order out. n/2 · log2 n butterflies.
pub fn ntt_forward(values: &mut [u64], twiddles: Twiddles<'_>, modulus: &Modulus) {
    dispatch!(ntt_forward(values, twiddles, modulus));
}

/// Inverse of [`ntt_forward`] with inverted twiddles; `scale` (usually 1/n) multiplies everything, `last` is the root's
/// inverted twiddle times `scale`.
pub fn ntt_inverse(values: &mut [u64], twiddles: Twiddles<'_>, scale: Shoup, last: Shoup, modulus: &Modulus) {
    dispatch!(ntt_inverse(values, twiddles, scale, last, modulus));
}

/// [`fold`], then [`ntt_forward`].
pub fn ntt_forward_folded(values: &mut [u64], iota: Shoup, twiddles: Twiddles<'_>, modulus: &Modulus) {
    dispatch!(ntt_forward_folded(values, iota, twiddles, modulus));
}

/// [`ntt_inverse`], then [`unfold`]: `scale` is usually 1/2n.
pub fn ntt_inverse_unfolded(
    values: &mut [u64],
    iota: Shoup,
    twiddles: Twiddles<'_>,
    scale: Shoup,
    last: Shoup,
    modulus: &Modulus,
) {
    dispatch!(ntt_inverse_unfolded(values, iota, twiddles, scale, last, modulus));
}

/// b_i = a_i − ι·a_{n−i} for i ≥ 1, in place.
pub fn fold(values: &mut [u64], iota: Shoup, modulus: &Modulus) {
    dispatch!(fold(values, iota, modulus));
}

/// 2·a_i = b_i + ι·b_{n−i} for i ≥ 1 and 2·a_0 = 2·b_0, in place: the caller has halved the input.
pub fn unfold(values: &mut [u64], iota: Shoup, modulus: &Modulus) {
    dispatch!(unfold(values, iota, modulus));
}

/// `out += x`.
pub fn add_assign(out: &mut [u64], x: &[u64], modulus: &Modulus) {
    dispatch!(add_assign(out, x, modulus));
}

/// `out −= x`.
pub fn sub_assign(out: &mut [u64], x: &[u64], modulus: &Modulus) {
    dispatch!(sub_assign(out, x, modulus));
}

/// `out = −out`.
pub fn neg_assign(out: &mut [u64], modulus: &Modulus) {
    dispatch!(neg_assign(out, modulus));
}

/// `out = x · y`, value by value.
pub fn mul(out: &mut [u64], x: &[u64], y: &[u64], modulus: &Modulus) {
    dispatch!(mul(out, x, y, modulus));
}

/// `out *= x`, value by value.
pub fn mul_assign(out: &mut [u64], x: &[u64], modulus: &Modulus) {
    dispatch!(mul_assign(out, x, modulus));
}

/// Asks for values that are read soon, so that those of several places come from memory at a time. A hint.
pub fn prefetch(values: &[u64]) {
    dispatch!(prefetch(values));
}

/// `out *= factor`.
pub fn scale_assign(out: &mut [u64], factor: Shoup, modulus: &Modulus) {
    dispatch!(scale_assign(out, factor, modulus));
}

/// `out = (x − out) · factor`.
pub fn sub_from_scale(out: &mut [u64], x: &[u64], factor: Shoup, modulus: &Modulus) {
    dispatch!(sub_from_scale(out, x, factor, modulus));
}

/// Block b of `out` (eight values each) is block `blocks[b] / 8` of `input` in the order `orders[blocks[b] % 8]`. Either half of an
/// order names places of one half of a block, as automorphisms do.
pub fn permute(out: &mut [u64], input: &[u64], blocks: &[u32], orders: &[[u64; 8]; 8]) {
    debug_assert!(keeps_halves(orders));
    dispatch!(permute(out, input, blocks, orders));
}

/// Whether [`permute`] may take the orders.
pub(crate) fn keeps_halves(orders: &[[u64; 8]; 8]) -> bool {
    orders.as_flattened().chunks_exact(4).all(|four| four.iter().all(|i| i >> 2 == four[0] >> 2))
}

/// Residues of signed integers.
pub fn reduce_signed(out: &mut [u64], x: &[i64], modulus: &Modulus) {
    dispatch!(reduce_signed(out, x, modulus));
}

/// `out = Σ values · weights` over any number of terms, reduced once per [`Modulus::lazy_products`] terms.
pub fn dot(out: &mut [u64], terms: &[Term<'_>], modulus: &Modulus) {
    dispatch!(dot(out, terms, modulus));
}

/// Many sums of products of the same values, a run of each.
pub fn tile_sums(sums: &mut [TileSum<'_>], tiles: Tiles<'_>, modulus: &Modulus) {
    dispatch!(tile_sums(sums, tiles, modulus));
}

/// `out = values · weights` for block weights.
pub fn mul_blocks(out: &mut [u64], values: &[u64], weights: &[u64], modulus: &Modulus) {
    dispatch!(mul_blocks(out, values, weights, modulus));
}

/// Values of a limb that stand together in a prepared conversion.
pub const CONVERT_GROUP: usize = 32;

/// What a base conversion starts from.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// A limb of coefficients a source prime.
    pub limbs: &'a [Buffer],
    /// The first value that is converted, a multiple of [`CONVERT_GROUP`].
    pub start: usize,
    /// What each limb is scaled by.
    pub factors: &'a [Shoup],
    /// The source primes.
    pub moduli: &'a [Modulus],
}

impl Sources<'_> {
    /// Words of a group.
    const fn group(&self) -> usize {
        (self.factors.len() + 1) * CONVERT_GROUP
    }

    /// Whether all groups of `out` are whole ones, as vector kernels need them; else both halves are the scalar twin.
    fn whole(&self, out: &[u64]) -> bool {
        out.len() % self.group() == 0
    }

    /// The groups of `out`, the last of which may be shorter, and their numbers in the limbs.
    fn groups<'o>(&self, out: &'o mut [u64]) -> impl Iterator<Item = (usize, &'o mut [u64])> {
        (self.start / CONVERT_GROUP..).zip(out.chunks_mut(self.group()))
    }
}

/// First half of a base conversion: as many values as `out` has room for, scaled, and ⌊Σ limb_i / q_i + 1/2⌋, summed in limb order in
/// `f64`. For every [`CONVERT_GROUP`] values (fewer at the end) `out` gets those of each limb and then the overflows: the
/// second half, which is done for many primes, reads it from front to back. What a back end leaves is for its own second half
/// alone: residues as words, or as doubles.
pub fn convert_prepare(out: &mut [u64], sources: &Sources<'_>) {
    debug_assert!(sources.start % CONVERT_GROUP == 0);
    dispatch!(convert_prepare(out, sources));
}

/// One target of a base conversion.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// (Q / q_i) modulo the target prime, one per source prime.
    pub hats: &'a [u64],
    /// −Q modulo the target prime.
    pub correction: u64,
    /// Bits of the largest source prime.
    pub source_bits: u32,
    /// The target prime.
    pub modulus: &'a Modulus,
}

/// Second half: `out = Σ limb_i · hats[i] + overflow · correction` modulo the target prime, from what
/// [`convert_prepare`] left.
pub fn convert_combine(out: &mut [u64], prepared: &[u64], target: &Target<'_>) {
    dispatch!(convert_combine(out, prepared, target));
}

/// [`convert_combine`] for two targets, whose sources are read once.
pub fn convert_combine_two(outs: [&mut [u64]; 2], prepared: &[u64], targets: [&Target<'_>; 2]) {
    dispatch!(convert_combine_two(outs, prepared, targets));
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests;
