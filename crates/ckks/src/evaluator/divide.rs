//! Division by a set of primes with rounding, c' = (c − [c]_D) / D with the centred residue: rescaling (D is what the lower level
//! lacks), the end of a key switch (D = P), and both at once, which saves a round of transforms. Where the lower level has primes
//! that the higher one lacks, c is multiplied with them first, which costs nothing: modulo these the product is 0.
//!
//! Cost a polynomial: one inverse transform a divisor, one forward transform a limb of the result.

use super::Evaluator;
use super::keyswitch::together;
use crate::parameters::Division;
use polyveil_math::{Limbs, Ntt, Poly, simd};

use crate::par;

impl Evaluator {
    /// Divides a polynomial of a level, whose extended limbs `limb` gives.
    pub(super) fn divide<'a>(
        &self,
        division: &Division,
        level: usize,
        limb: impl Fn(usize) -> &'a [u64] + Sync + Send,
    ) -> Poly<Ntt> {
        let n = self.params.degree();
        let divisors = &division.divisors;
        let mut residues = Limbs::unspecified(divisors.len(), n);
        par::for_each_limb(&mut residues, |j, out| {
            out.copy_from_slice(limb(divisors[j]));
            self.params.table(divisors[j], level).inverse(out);
        });
        let prepared = division.converter.prepare(&residues);
        let mut result = Poly::unspecified(n, division.targets.len());
        let (tables, together) = (self.params.tables(), together(divisors.len(), n));
        par::for_each(result.limbs_mut().chunks_mut(together).enumerate(), |(chunk, outs)| {
            let first = chunk * together;
            division.converter.combine(&prepared, (first..).zip(outs.iter_mut().map(|out| &mut out[..])));
            for (i, out) in (first..).zip(outs) {
                let target = &division.targets[i];
                let table = &tables[target.prime];
                table.forward(out);
                match target.limb {
                    Some(i) => simd::sub_from_scale(out, limb(i), target.factor, table.modulus()),
                    None => {
                        simd::neg_assign(out, table.modulus());
                        simd::scale_assign(out, target.factor, table.modulus());
                    }
                }
            }
        });
        result
    }
}
