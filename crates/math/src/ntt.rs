//! Number-theoretic transform modulo X^N − c, one kernel for both rings.
//!
//! Node j of the tree level with m nodes splits X^(N/m) − w² into X^(N/2m) ∓ w. With ψ a primitive 4N-th root of unity,
//! w = ψ^((N/2m)·(1 + 4·brv(j))) and c = ι = ψ^N for the conjugate-invariant ring (elements are folded first,
//! b_i = a_i − ι·a_{N−i}); w = ψ^((N/m)·(1 + 2·brv(j))) and c = −1 for the standard ring. The first C twiddles are those
//! of degree C with root ψ^(N/C), so one table serves every subring of X^(N/C) as well.

use crate::buffer::Buffer;
use crate::error::MathError;
use crate::modulus::{Modulus, Shoup};
use crate::ring::RingKind;
use crate::simd::{self, Forms, Twiddles};

/// Smallest log2 of a degree.
pub const MIN_LOG_N: u32 = 1;
/// Largest log2 of a degree.
pub const MAX_LOG_N: u32 = 17;

/// Twiddle factors of one prime; 32·N bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NttTable {
    modulus: Modulus,
    kind: RingKind,
    log_n: u32,
    root: u64,
    iota: Shoup,
    forward: Table,
    inverse: Table,
    scale: Shoup,
    last: Shoup,
}

/// Factors in tree order in the forms that the back end reads.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Table {
    values: Buffer,
    quotients: Buffer,
    quotients52: Buffer,
    doubles: Buffer,
}

impl Table {
    fn new(values: Vec<u64>, modulus: &Modulus) -> Self {
        // Tests compare back ends on one table.
        let all = Forms { quotients: usize::MAX, quotients52: true, doubles: true };
        let forms = if cfg!(test) { all } else { simd::forms_read() };
        let some = |count: usize, form: &dyn Fn(u64) -> u64| {
            let all: Vec<u64> = values.iter().take(count).map(|&w| form(w)).collect();
            Buffer::from(&all[..])
        };
        let every = |wanted: bool| if wanted { values.len() } else { 0 };
        let double = |w: u64| {
            let negative = w > modulus.value() / 2;
            let (w, q) = (w as f64, modulus.value() as f64);
            if negative { w - q } else { w }.to_bits()
        };
        Self {
            quotients: some(forms.quotients, &|w| modulus.shoup(w).quotient),
            quotients52: some(every(forms.quotients52), &|w| modulus.shoup(w).quotient >> 12),
            doubles: some(every(forms.doubles), &double),
            values: Buffer::from(&values[..]),
        }
    }

    fn twiddles(&self) -> Twiddles<'_> {
        Twiddles {
            values: &self.values,
            quotients: &self.quotients,
            quotients52: &self.quotients52,
            doubles: &self.doubles,
        }
    }
}

impl NttTable {
    /// Builds the tables for degree 2^`log_n`. The prime must be 1 modulo 4N for either ring.
    ///
    /// # Errors
    /// [`MathError::BadModulus`], [`MathError::BadDegree`] or [`MathError::NotTransformFriendly`].
    pub fn new(kind: RingKind, log_n: u32, prime: u64) -> Result<Self, MathError> {
        if !(MIN_LOG_N..=MAX_LOG_N).contains(&log_n) {
            return Err(MathError::BadDegree { min: MIN_LOG_N, max: MAX_LOG_N, found: log_n });
        }
        let modulus = Modulus::new(prime)?;
        let n = 1usize << log_n;
        let step = 4 * n as u64;
        if prime % step != 1 {
            return Err(MathError::NotTransformFriendly { value: prime, step, degree: n });
        }
        let root = primitive_root(&modulus, step);
        // Powers of ψ in index order, then each tree entry picks its own.
        let mut powers = Vec::with_capacity(4 * n);
        let mut power = 1;
        for _ in 0..4 * n {
            powers.push(power);
            power = modulus.mul(power, root);
        }
        let (mut forward, mut inverse) = (vec![0; n], vec![0; n]);
        for log_m in 0..log_n {
            let m = 1usize << log_m;
            for j in 0..m {
                let exponent = kind.node_exponent(n, log_m, j);
                forward[m + j] = powers[exponent];
                inverse[m + j] = powers[(4 * n - exponent) % (4 * n)];
            }
        }
        // The conjugate-invariant unfolding expects halved values.
        let divisor = match kind {
            RingKind::ConjugateInvariant => 2 * n as u64,
            RingKind::Standard => n as u64,
        };
        let scale = modulus.inv(modulus.reduce(divisor));
        let last = modulus.mul(scale, inverse[1]);
        Ok(Self {
            modulus,
            kind,
            log_n,
            root,
            iota: modulus.shoup(powers[n]),
            forward: Table::new(forward, &modulus),
            inverse: Table::new(inverse, &modulus),
            scale: modulus.shoup(scale),
            last: modulus.shoup(last),
        })
    }

    /// The prime.
    #[inline]
    #[must_use]
    pub const fn modulus(&self) -> &Modulus {
        &self.modulus
    }

    /// The ring.
    #[must_use]
    pub const fn kind(&self) -> RingKind {
        self.kind
    }

    /// N.
    #[inline]
    #[must_use]
    pub const fn degree(&self) -> usize {
        1 << self.log_n
    }

    /// The primitive 4N-th root of unity ψ.
    #[must_use]
    pub const fn root(&self) -> u64 {
        self.root
    }

    /// Coefficients to values at the roots, in place. A shorter power-of-two length transforms the subring of that
    /// degree: values of an element of X^(N/C) repeat N/C times each in the full transform.
    ///
    /// Values must be residues. Lengths that are no power of two or above N are a caller's bug; the result is then
    /// unspecified.
    pub fn forward(&self, values: &mut [u64]) {
        debug_assert!(values.len().is_power_of_two() && values.len() <= self.degree());
        let twiddles = self.forward.twiddles();
        match self.kind {
            RingKind::ConjugateInvariant => {
                simd::ntt_forward_folded(values, self.iota, twiddles, &self.modulus);
            }
            RingKind::Standard => simd::ntt_forward(values, twiddles, &self.modulus),
        }
    }

    /// Inverse of [`NttTable::forward`] at full length N.
    pub fn inverse(&self, values: &mut [u64]) {
        debug_assert_eq!(values.len(), self.degree());
        let (twiddles, scale, last) = (self.inverse.twiddles(), self.scale, self.last);
        match self.kind {
            RingKind::ConjugateInvariant => {
                simd::ntt_inverse_unfolded(values, self.iota, twiddles, scale, last, &self.modulus);
            }
            RingKind::Standard => simd::ntt_inverse(values, twiddles, scale, last, &self.modulus),
        }
    }

    /// Everything that the kernels take, for their tests: forward and inverse twiddles, scale, last, ι.
    #[cfg(test)]
    pub(crate) fn with_tables(&self, f: impl Fn(Twiddles<'_>, Twiddles<'_>, Shoup, Shoup, Shoup)) {
        f(self.forward.twiddles(), self.inverse.twiddles(), self.scale, self.last, self.iota);
    }
}

/// The first primitive `order`-th root among g^((q−1)/order), g = 2, 3, ...; `order` is a power of two dividing q − 1.
fn primitive_root(modulus: &Modulus, order: u64) -> u64 {
    let q = modulus.value();
    let minus_one = q - 1;
    (2..q)
        .map(|g| modulus.pow(g, (q - 1) / order))
        .find(|&root| modulus.pow(root, order / 2) == minus_one)
        .unwrap_or(minus_one)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bits;
    use crate::prime::ntt_primes;
    use crate::sample::SeedStream;
    use proptest::prelude::*;

    const KINDS: [RingKind; 2] = [RingKind::ConjugateInvariant, RingKind::Standard];

    fn table(kind: RingKind, log_n: u32, bits: u32) -> NttTable {
        let prime = ntt_primes(bits, log_n, 1, &[]).unwrap()[0];
        NttTable::new(kind, log_n, prime).unwrap()
    }

    fn random(table: &NttTable, seed: u8) -> Vec<u64> {
        let mut values = vec![0; table.degree()];
        SeedStream::new(&[seed; 32], 0).uniform(table.modulus(), &mut values);
        values
    }

    /// Value of the element with these coefficients at ψ^exponent.
    fn evaluate(table: &NttTable, coefficients: &[u64], exponent: u64) -> u64 {
        let m = table.modulus();
        let x = m.pow(table.root(), exponent);
        let x_inverse = m.inv(x);
        let (mut sum, mut power, mut inverse_power) = (coefficients[0], x, x_inverse);
        for &a in &coefficients[1..] {
            let basis = match table.kind() {
                RingKind::ConjugateInvariant => m.add(power, inverse_power),
                RingKind::Standard => power,
            };
            sum = m.add(sum, m.mul(a, basis));
            power = m.mul(power, x);
            inverse_power = m.mul(inverse_power, x_inverse);
        }
        sum
    }

    #[test]
    fn transform_is_evaluation_at_the_stated_roots() {
        for kind in KINDS {
            for (log_n, bits) in [(1, 20), (2, 30), (4, 50), (6, 42)] {
                let table = table(kind, log_n, bits);
                let coefficients = random(&table, 7);
                let mut values = coefficients.clone();
                table.forward(&mut values);
                for (p, &value) in values.iter().enumerate() {
                    let brv = bits::reverse(p, log_n) as u64;
                    let exponent = match kind {
                        RingKind::ConjugateInvariant => 1 + 4 * brv,
                        RingKind::Standard => 2 * (1 + 2 * brv),
                    };
                    assert_eq!(value, evaluate(&table, &coefficients, exponent), "{kind:?} 2^{log_n} at {p}");
                }
            }
        }
    }

    #[test]
    fn inverse_undoes_forward_at_every_size() {
        for kind in KINDS {
            for log_n in 1..=MAX_LOG_N {
                let table = table(kind, log_n, 50);
                let mut coefficients = random(&table, log_n as u8);
                // The extreme residues stress the lazy bounds.
                coefficients[0] = table.modulus().value() - 1;
                coefficients[1] = table.modulus().value() - 1;
                let mut values = coefficients.clone();
                table.forward(&mut values);
                assert!(values.iter().all(|&v| v < table.modulus().value()));
                table.inverse(&mut values);
                assert_eq!(values, coefficients);
            }
        }
    }

    #[test]
    fn subring_elements_are_constant_on_blocks() {
        for kind in KINDS {
            let table = table(kind, 6, 40);
            let n = table.degree();
            for log_c in 0..=6 {
                let c = 1usize << log_c;
                let small = &random(&table, 3)[..c];
                let mut full = vec![0; n];
                for (i, &a) in small.iter().enumerate() {
                    full[i * n / c] = a;
                }
                table.forward(&mut full);
                let mut blocks = small.to_vec();
                table.forward(&mut blocks);
                let repeated: Vec<u64> = (0..n).map(|p| blocks[p * c / n]).collect();
                assert_eq!(full, repeated, "{kind:?} C = {c}");
            }
        }
    }

    /// Product in the ring, term by term.
    fn naive_product(table: &NttTable, a: &[u64], b: &[u64]) -> Vec<u64> {
        let (m, n) = (table.modulus(), table.degree());
        let order = 4 * n as i64;
        let mut out = vec![0; n];
        let mut add = |exponent: i64, value: u64| match table.kind() {
            // X^k + X^−k with X^2N = −1; at k = N the sum vanishes and −N..N covers everything else.
            RingKind::ConjugateInvariant => {
                let mut k = exponent.rem_euclid(order);
                let mut negative = false;
                if k >= order / 2 {
                    (k, negative) = (k - order / 2, true);
                }
                // Now 0 ≤ k < 2N; X^k + X^−k = −(X^(2N−k) + X^(k−2N)).
                if k > n as i64 {
                    (k, negative) = (2 * n as i64 - k, !negative);
                }
                if k == n as i64 {
                    return;
                }
                let value = if negative { m.neg(value) } else { value };
                // X^0 + X^0 counts twice.
                out[k as usize] = m.add(out[k as usize], if k == 0 { m.add(value, value) } else { value });
            }
            RingKind::Standard => {
                let k = exponent as usize;
                if k < n {
                    out[k] = m.add(out[k], value);
                } else {
                    out[k - n] = m.sub(out[k - n], value);
                }
            }
        };
        let half = m.inv(2);
        for (i, &x) in a.iter().enumerate() {
            for (j, &y) in b.iter().enumerate() {
                let xy = m.mul(x, y);
                match table.kind() {
                    RingKind::Standard => add((i + j) as i64, xy),
                    RingKind::ConjugateInvariant => {
                        // B_i = X^i + X^−i for i ≥ 1, B_0 = 1 = (X^0 + X^0)/2; B_i·B_j = B_{i+j} + B_{i−j}.
                        let factor = match (i, j) {
                            (0, 0) => m.mul(half, half),
                            (0, _) | (_, 0) => half,
                            _ => 1,
                        };
                        add((i + j) as i64, m.mul(xy, factor));
                        add(i as i64 - j as i64, m.mul(xy, factor));
                    }
                }
            }
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn transform_is_a_ring_homomorphism(seed: u8, log_n in 2u32..6, standard: bool) {
            let kind = KINDS[usize::from(standard)];
            let table = table(kind, log_n, 45);
            let (a, b) = (random(&table, seed), random(&table, seed.wrapping_add(1)));
            let (mut fa, mut fb) = (a.clone(), b.clone());
            table.forward(&mut fa);
            table.forward(&mut fb);
            let mut product = fa.clone();
            simd::mul_assign(&mut product, &fb, table.modulus());
            table.inverse(&mut product);
            prop_assert_eq!(product, naive_product(&table, &a, &b));
            simd::add_assign(&mut fa, &fb, table.modulus());
            table.inverse(&mut fa);
            let sum: Vec<u64> = a.iter().zip(&b).map(|(&x, &y)| table.modulus().add(x, y)).collect();
            prop_assert_eq!(fa, sum);
        }
    }
}
