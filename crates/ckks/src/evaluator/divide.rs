//! Division by a set of primes with rounding, c' = (c − [c]_D) / D with the centred residue: rescaling (D = q_ℓ), the end
//! of a key switch (D = P), and both at once (D = P·q_ℓ), which saves a round of transforms.
//!
//! Cost a polynomial: one inverse transform a divisor, one forward transform a limb of the result.

use super::Evaluator;
use super::keyswitch::together;
use crate::parameters::Division;
use polyveil_math::{Ntt, NttTable, Poly, buffer, simd};

use crate::par;

impl Evaluator {
    /// Divides limbs modulo (result's primes, divisors): `divisor(j)` is the limb of divisor j with its table, `limb(i)` that
    /// of the result's prime i.
    pub(super) fn divide<'a>(
        &self,
        division: &Division,
        divisor: impl Fn(usize) -> (&'a [u64], &'a NttTable) + Sync + Send,
        limb: impl Fn(usize) -> &'a [u64] + Sync + Send,
    ) -> Poly<Ntt> {
        let n = self.params.degree();
        let level = division.inverses.len() - 1;
        let mut residues = buffer::take(division.divisors * n);
        par::for_each_chunk(&mut residues, n, |j, out| {
            let (values, table) = divisor(j);
            out.copy_from_slice(values);
            table.inverse(out);
        });
        let mut prepared = buffer::take((division.divisors + 1) * n);
        division.converter.prepare(&residues, &mut prepared);
        let mut result = Poly::unspecified(n, level + 1);
        let (tables, together) = (self.params.tables(level), together(division.divisors, n));
        par::for_each_chunk(result.raw_mut(), together * n, |chunk, outs| {
            let first = chunk * together;
            division.converter.combine(&prepared, (first..).zip(outs.chunks_exact_mut(n)));
            for (i, out) in (first..).zip(outs.chunks_exact_mut(n)) {
                tables[i].forward(out);
                simd::sub_from_scale(out, limb(i), division.inverses[i], tables[i].modulus());
            }
        });
        result
    }
}
