//! The kernels that everything runs on, and the one place that chooses their back end.
//!
//! Every kernel takes and leaves fully reduced residues, so all back ends agree bit for bit; [`scalar`] is the reference
//! and is always built. The choice is made once, from the processor's features, and can be overridden for tests by the
//! environment variable `POLYVEIL_SIMD` (`scalar`, `avx512`). A value that this build or processor does not offer falls
//! back to `scalar`.

#[cfg(target_arch = "x86_64")]
pub mod avx512;
pub mod scalar;

use crate::modulus::{Modulus, Shoup};
use std::sync::OnceLock;

/// A set of kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Portable 64-bit code.
    Scalar,
    /// AVX-512 with 52-bit products.
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
}

impl Backend {
    /// Its name, as in `POLYVEIL_SIMD`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
        }
    }

    /// All that this processor can run.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut all = vec![Self::Scalar];
        #[cfg(target_arch = "x86_64")]
        all.extend(avx512::Avx512::detect().map(Self::Avx512));
        all
    }
}

/// The back end in use.
#[must_use]
pub fn backend() -> Backend {
    static CHOICE: OnceLock<Backend> = OnceLock::new();
    *CHOICE.get_or_init(|| {
        let wanted = std::env::var("POLYVEIL_SIMD").ok();
        let available = Backend::available();
        let best = available.last().copied().unwrap_or(Backend::Scalar);
        wanted
            .map_or(best, |name| available.into_iter().find(|b| b.name() == name).unwrap_or(Backend::Scalar))
    })
}

macro_rules! dispatch {
    ($name:ident($($arg:expr),*)) => {
        match backend() {
            Backend::Scalar => scalar::$name($($arg),*),
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
    /// ⌊value · 2^64 / q⌋ of each; may be empty where the back end reads `quotients52`.
    pub quotients: &'a [u64],
    /// ⌊value · 2^52 / q⌋ of each; empty unless the back end reads it.
    pub quotients52: &'a [u64],
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

/// Whether transforms of the back end in use read 64-bit quotients, and 52-bit ones.
#[must_use]
pub fn quotients_read() -> (bool, bool) {
    #[cfg(target_arch = "x86_64")]
    if matches!(backend(), Backend::Avx512(_)) {
        return (false, true);
    }
    (true, false)
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
    #[cfg(target_arch = "x86_64")]
    if let Backend::Avx512(token) = backend() {
        return token.ntt_forward_folded(values, iota, twiddles, modulus);
    }
    fold(values, iota, modulus);
    ntt_forward(values, twiddles, modulus);
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
    #[cfg(target_arch = "x86_64")]
    if let Backend::Avx512(token) = backend() {
        return token.ntt_inverse_unfolded(values, iota, twiddles, scale, last, modulus);
    }
    ntt_inverse(values, twiddles, scale, last, modulus);
    unfold(values, iota, modulus);
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

/// `out *= factor`.
pub fn scale_assign(out: &mut [u64], factor: Shoup, modulus: &Modulus) {
    dispatch!(scale_assign(out, factor, modulus));
}

/// `out = (x − out) · factor`.
pub fn sub_from_scale(out: &mut [u64], x: &[u64], factor: Shoup, modulus: &Modulus) {
    dispatch!(sub_from_scale(out, x, factor, modulus));
}

/// Residues of signed integers.
pub fn reduce_signed(out: &mut [u64], x: &[i64], modulus: &Modulus) {
    dispatch!(reduce_signed(out, x, modulus));
}

/// `out = Σ values · weights` over any number of terms, reduced once per [`Modulus::lazy_products`] terms.
pub fn dot(out: &mut [u64], terms: &[Term<'_>], modulus: &Modulus) {
    dispatch!(dot(out, terms, modulus));
}

/// `out = values · weights` for block weights.
pub fn mul_blocks(out: &mut [u64], values: &[u64], weights: &[u64], modulus: &Modulus) {
    dispatch!(mul_blocks(out, values, weights, modulus));
}

/// First half of a base conversion: scales limb i of `limbs` (each `overflow.len()` values) by `factors[i]` in place and
/// sets `overflow` to ⌊Σ limb_i / q_i + 1/2⌋, summed in limb order in `f64`.
pub fn convert_prepare(limbs: &mut [u64], overflow: &mut [u64], factors: &[Shoup], moduli: &[Modulus]) {
    dispatch!(convert_prepare(limbs, overflow, factors, moduli));
}

/// Second half: `out = Σ limb_i · hats[i] + overflow · correction` modulo the target prime.
pub fn convert_combine(
    out: &mut [u64],
    limbs: &[u64],
    overflow: &[u64],
    hats: &[u64],
    correction: u64,
    modulus: &Modulus,
) {
    dispatch!(convert_combine(out, limbs, overflow, hats, correction, modulus));
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests;
