//! Hybrid key switching (Han, Ki 2020), shared by relinearisation and rotations.
//!
//! 1. The polynomial is split into digits, each extended to all primes (ModUp) and multiplied with the key, modulo Q·P.
//!    `Evaluator::switch` goes by one limb or two, so that their extended digits stay in the cache and are never all in
//!    memory; for several keys `Evaluator::extend` keeps them (hoisting). An automorphism is applied to the digits while
//!    they are multiplied, so keys are read in order. Cost: an inverse transform a limb and digits × (limbs + special limbs) − limbs
//!    forward ones, once for any number of keys.
//! 2. `Evaluator::divide` by P.
//!
//! What is added to the result enters the products as one more term with factor P, so the second step serves it as well.

use super::Evaluator;
use crate::keys::SwitchingKey;
use crate::par;
use crate::parameters::{Digit, Parameters};
use arrayvec::ArrayVec;
use polyveil_math::buffer::{self, Buffer};
use polyveil_math::simd::{self, KeyProduct};
use polyveil_math::{GaloisPermutation, Limbs, Ntt, Poly, Prepared};
use std::cell::RefCell;
use std::ops::Range;
use std::thread::LocalKey;

/// What one key does to the digits.
#[derive(Clone, Copy)]
pub(super) struct Switch<'a> {
    pub key: &'a SwitchingKey,
    /// Applied to the digits and to what is added.
    pub permutation: Option<&'a GaloisPermutation>,
    /// Added to the two parts of the result.
    pub add: [Added<'a>; 2],
}

/// What is added to one part of a product modulo Q·P.
#[derive(Clone, Copy)]
pub(super) enum Added<'a> {
    Nothing,
    /// A polynomial modulo Q times P, so that the division by P leaves the polynomial.
    Lifted(&'a Poly<Ntt>),
    /// One part of one output that still waits for the division.
    Waiting(&'a Products, usize, usize),
}

/// For each of several outputs two polynomials modulo Q·P: the limbs of the level, then the special ones.
pub(super) struct Products {
    level: usize,
    outputs: usize,
    /// Limb after limb the two parts of every output, so that limbs can be spread over threads.
    data: Limbs,
}

impl<'a> Added<'a> {
    /// Limb i and its factor; P modulo a special prime is 0.
    fn limb(self, i: usize, level: usize, params: &'a Parameters) -> Option<(&'a [u64], u64)> {
        match self {
            Self::Lifted(poly) if i < poly.limbs() => {
                Some((poly.limb(i), params.p_residues()[params.extended_index(i, level)]))
            }
            Self::Nothing | Self::Lifted(_) => None,
            Self::Waiting(products, output, part) => Some((products.limb(output, part, i), 1)),
        }
    }
}

impl Products {
    pub(super) fn zero(params: &Parameters, level: usize, outputs: usize) -> Self {
        let mut products = Self::unspecified(params, level, outputs);
        products.data.iter_mut().for_each(|limb| limb.fill(0));
        products
    }

    pub(super) fn unspecified(params: &Parameters, level: usize, outputs: usize) -> Self {
        let data = Limbs::unspecified(extended_limbs(params, level) * outputs * 2, params.degree());
        Self { level, outputs, data }
    }

    pub(super) const fn level(&self) -> usize {
        self.level
    }

    pub(super) fn limb(&self, output: usize, part: usize, index: usize) -> &[u64] {
        &self.data[(index * self.outputs + output) * 2 + part]
    }
}

/// The digits of a polynomial as coefficients, scaled for the extension.
pub(super) struct Digits {
    prepared: ArrayVec<Prepared, { Parameters::MAX_Q }>,
}

/// Digits modulo Q·P in transform order: limb after limb all digits.
pub(super) struct Extended {
    level: usize,
    data: Buffer,
}

/// Limbs modulo Q·P at a level.
pub(super) fn extended_limbs(params: &Parameters, level: usize) -> usize {
    params.limbs(level) + params.p().len()
}

/// Most limbs that are converted to together, so that what they are converted from is read once for all. That pays where it
/// comes from the third-level cache; else the larger working set costs more.
const TOGETHER: usize = 2;
/// Least words of sources for that, and most of a thread's extended digits.
const SOURCE_WORDS: usize = 128 << 10;
const DIGIT_WORDS: usize = 2 << 20;

/// How many limbs to convert to together from `sources` limbs of n values.
pub(super) const fn together(sources: usize, n: usize) -> usize {
    if sources * n >= SOURCE_WORDS { TOGETHER } else { 1 }
}

/// Words of the smallest buffer that asks for huge pages, and of tiles that are worth one.
const HUGE_WORDS: usize = 1 << 20;
const MANY_WORDS: usize = 64 << 10;

thread_local! {
    /// Working memory of this thread; holds public values only.
    static LIMBS: RefCell<Buffer> = RefCell::default();
    static TILES: RefCell<Buffer> = RefCell::default();
    static VECTORS: RefCell<Buffer> = RefCell::default();
}

impl Evaluator {
    /// Step 1 for one key, which must reach the level (callers check that): each limb's digits are extended, multiplied and
    /// forgotten. Added to the output of `onto`, if that is given.
    pub(super) fn switch(
        &self,
        poly: &Poly<Ntt>,
        level: usize,
        switch: &Switch<'_>,
        onto: Option<Products>,
    ) -> Products {
        let prepared = self.prepare_digits(poly, level);
        let adds = onto.is_some();
        let mut products = onto.unwrap_or_else(|| Products::unspecified(&self.params, level, 1));
        debug_assert_eq!((products.level, products.outputs), (level, 1));
        self.with_digits(&[(poly, &prepared)], &mut products, |i, digits, out| {
            self.multiply_limb(switch, (i, level), digits, out, adds);
        });
        products
    }

    /// The extended digits of a polynomial, limb after limb, for [`Evaluator::switch_extended`] with several keys.
    pub(super) fn extend(&self, poly: &Poly<Ntt>, level: usize, prepared: &Digits) -> Extended {
        let params = &self.params;
        let (n, count) = (params.degree(), params.digits(level));
        let mut data = buffer::take(extended_limbs(params, level) * count * n);
        let together = together(params.digit_size(level), n);
        par::for_each_chunk(&mut data, together * count * n, |chunk, digits| {
            self.extend_digits(&[(poly, prepared)], level, chunk * together, digits, count * n);
        });
        Extended { level, data }
    }

    /// Step 1 for one key on digits that were extended before.
    pub(super) fn switch_extended(&self, digits: &Extended, switch: &Switch<'_>) -> Products {
        let (params, level) = (&self.params, digits.level);
        let (n, count) = (params.degree(), params.digits(level));
        let mut products = Products::unspecified(params, level, 1);
        par::for_each(products.data.chunks_exact_mut(2).enumerate(), |(i, out)| {
            let digits = &digits.data[i * count * n..(i + 1) * count * n];
            self.multiply_limb(switch, (i, level), digits, out, false);
        });
        products
    }

    fn multiply_limb(
        &self,
        switch: &Switch<'_>,
        (i, level): (usize, usize),
        digits: &[u64],
        out: &mut [Buffer],
        onto: bool,
    ) {
        let n = self.params.degree();
        let [first, second] = out else { return };
        with_tiles(2 * (self.params.digits(level) + 1) * n, |scratch| {
            self.multiply(switch, (i, level), (digits, 0..n), scratch, [first, second], onto);
        });
    }

    /// Adds one output to the only output of `sum`.
    pub(super) fn add_products(&self, sum: &mut Products, products: &Products, output: usize) {
        let level = sum.level;
        par::for_each(sum.data.chunks_exact_mut(2).enumerate(), |(i, sum)| {
            let modulus = self.params.table(i, level).modulus();
            for (part, sum) in sum.iter_mut().enumerate() {
                simd::add_assign(sum, products.limb(output, part, i), modulus);
            }
        });
    }

    /// The values `range` of both parts of limb i of one key's product, added to what is there or not; `digits` are whole limbs,
    /// `scratch` has room for twice as many ranges as there are digits, and two more.
    pub(super) fn multiply(
        &self,
        switch: &Switch<'_>,
        (i, level): (usize, usize),
        (digits, range): (&[u64], Range<usize>),
        scratch: &mut [u64],
        out: [&mut [u64]; 2],
        onto: bool,
    ) {
        let params = &self.params;
        let n = params.degree();
        let modulus = params.table(i, level).modulus();
        let key_limb = params.key_limb(i, level, switch.key.level());
        let digits: ArrayVec<&[u64], { Parameters::MAX_Q }> = digits.chunks_exact(n).collect();
        let product = KeyProduct {
            digits: &digits,
            keys: [switch.key.b(), switch.key.a(params)].map(|half| half.limb(key_limb)),
            add: switch.add.map(|added| added.limb(i, level, params)),
            // Rings have at least 16 coefficients.
            permutation: switch.permutation.and_then(GaloisPermutation::table),
            onto,
        };
        simd::key_product(out, &product, range.start, scratch, modulus);
    }

    /// Step 2 for one part of one output, together with the step to the level below if `rescale`.
    pub(super) fn mod_down(
        &self,
        products: &Products,
        output: usize,
        part: usize,
        rescale: bool,
    ) -> Poly<Ntt> {
        let (params, level) = (&self.params, products.level);
        let division = rescale.then(|| params.rescale(level, true)).flatten();
        let division = division.unwrap_or_else(|| params.mod_down(level));
        self.divide(division, level, |i| products.limb(output, part, i))
    }

    /// Calls `work(limb, digits, out)` for every limb of `products`: `digits` holds the extended digits of all polynomials, one
    /// after the other, in transform order, `out` the two parts of every output.
    pub(super) fn with_digits(
        &self,
        polys: &[(&Poly<Ntt>, &Digits)],
        products: &mut Products,
        work: impl Fn(usize, &[u64], &mut [Buffer]) + Sync + Send,
    ) {
        let (params, level) = (&self.params, products.level);
        let n = params.degree();
        let count = params.digits(level);
        let (size, out_size) = (polys.len() * count * n, products.outputs * 2);
        let together = if TOGETHER * size <= DIGIT_WORDS { together(params.digit_size(level), n) } else { 1 };
        par::for_each(products.data.chunks_mut(together * out_size).enumerate(), |(chunk, outs)| {
            with_limbs(outs.len() / out_size * size, |digits| {
                self.extend_digits(polys, level, chunk * together, digits, size);
                for (k, out) in outs.chunks_exact_mut(out_size).enumerate() {
                    work(chunk * together + k, &digits[k * size..(k + 1) * size], out);
                }
            });
        });
    }

    /// All digits of polynomials of one level modulo extended primes `first` and the following, transformed; `out` has `size`
    /// values for each prime.
    fn extend_digits(
        &self,
        polys: &[(&Poly<Ntt>, &Digits)],
        level: usize,
        first: usize,
        out: &mut [u64],
        size: usize,
    ) {
        let (params, n) = (&self.params, self.params.degree());
        let level_digits = params.level_digits(level);
        let count = level_digits.len();
        for (p, (poly, digits)) in polys.iter().enumerate() {
            for (d, Digit { own, converter }) in level_digits.iter().enumerate() {
                let mut targets = ArrayVec::<_, TOGETHER>::new();
                for (i, limb) in (first..).zip(out.chunks_exact_mut(size)) {
                    let limb = &mut limb[(p * count + d) * n..][..n];
                    if own.contains(&i) {
                        limb.copy_from_slice(poly.limb(i));
                    } else {
                        targets.push((i, limb));
                    }
                }
                let outs = targets.iter_mut().map(|(i, out)| (params.extended_index(*i, level), &mut **out));
                converter.combine(&digits.prepared[d], outs);
                for (i, limb) in targets {
                    params.table(i, level).forward(limb);
                }
            }
        }
    }

    /// Coefficients of each digit, ready to be extended.
    pub(super) fn prepare_digits(&self, poly: &Poly<Ntt>, level: usize) -> Digits {
        let params = &self.params;
        let (n, digits) = (params.degree(), params.level_digits(level));
        let mut residues = Limbs::unspecified(poly.limbs(), n);
        par::for_each_limb(&mut residues, |i, limb| {
            limb.copy_from_slice(poly.limb(i));
            params.table(i, level).inverse(limb);
        });
        let mut prepared: ArrayVec<_, { Parameters::MAX_Q }> = digits.iter().map(|_| None).collect();
        par::for_each(prepared.iter_mut().zip(digits), |(prepared, Digit { own, converter })| {
            *prepared = Some(converter.prepare(&residues[own.clone()]));
        });
        Digits { prepared: prepared.into_iter().flatten().collect() }
    }
}

/// Runs `f` on this thread's working limbs, `len` values with unspecified contents.
pub(super) fn with_limbs<T>(len: usize, f: impl FnOnce(&mut [u64]) -> T) -> T {
    with_buffer(&LIMBS, len, f)
}

/// Runs `f` on this thread's small working buffer, `len` values with unspecified contents.
pub(super) fn with_tiles<T>(len: usize, f: impl FnOnce(&mut [u64]) -> T) -> T {
    // Where they are many they should lie in huge pages: tiles are read in turn, each on a page of its own otherwise.
    let whole = if len >= MANY_WORDS { len.max(HUGE_WORDS) } else { len };
    with_buffer(&TILES, whole, |tiles| f(&mut tiles[..len]))
}

/// Runs `f` on this thread's buffer for a few vectors, `len` values with unspecified contents.
pub(super) fn with_vectors<T>(len: usize, f: impl FnOnce(&mut [u64]) -> T) -> T {
    with_buffer(&VECTORS, len, f)
}

fn with_buffer<T>(
    cell: &'static LocalKey<RefCell<Buffer>>,
    len: usize,
    f: impl FnOnce(&mut [u64]) -> T,
) -> T {
    // The buffer is taken out while in use: should the thread run another such task meanwhile, that one gets its own.
    let mut buffer = cell.take();
    if buffer.len() < len {
        buffer = buffer::take(len);
    }
    let result = f(&mut buffer[..len]);
    cell.set(buffer);
    result
}
