use super::super::super::scalar;
use super::*;
use crate::ntt::NttTable;
use crate::prime::is_prime;
use crate::ring::RingKind;

/// The bounds are tightest for the largest modulus of each kind and the first of the next, for the largest of all, and
/// where the quotient 2^52/q loses most, just above a fraction of 2^52.
#[test]
fn moduli_around_the_limits_equal_the_scalar_twin() {
    let Some(token) = super::super::Avx512::detect() else { return };
    for log_n in [9, 14, 17] {
        let step = 4u64 << log_n;
        let around = |limit: u64| {
            let last = limit / step * step + 1;
            let below = (0..).map(|i| last - i * step).find(|&q| q <= limit && is_prime(q));
            let above = (0..).map(|i| last + i * step).find(|&q| q > limit && is_prime(q));
            below.into_iter().chain(above.filter(|&q| q < 1 << 50))
        };
        let limits =
            [MAX_LEAN, 1 << 48, MAX_SPARSE_INVERSE, 1 << 49, MAX_SPARSE, (1 << 52) / 6, (1 << 52) / 5];
        for prime in limits.into_iter().chain([(1 << 50) - 1]).flat_map(around) {
            let table = NttTable::new(RingKind::ConjugateInvariant, log_n, prime).unwrap();
            let m = *table.modulus();
            let n = table.degree();
            let extreme = vec![prime - 1; n];
            let mixed = (0..n as u64).map(|i| [0, prime - 1, i % prime][i as usize % 3]).collect();
            for input in [extreme, mixed] {
                table.with_tables(|forward, inverse, scale, last, iota| {
                    let (mut a, mut b) = (input.clone(), input.clone());
                    scalar::fold(&mut a, iota, &m);
                    scalar::ntt_forward(&mut a, forward, &m);
                    token.ntt_forward_folded(&mut b, iota, forward, &m);
                    assert!(a == b, "forward, 2^{log_n}, {prime}");
                    token.ntt_inverse_unfolded(&mut b, iota, inverse, scale, last, &m);
                    assert!(b == input, "inverse, 2^{log_n}, {prime}");
                });
            }
        }
    }
}

/// A number between two multiples of q.
type Range = [i64; 2];

/// The levels of a pass of the inverse, as bounds.
struct Model<B> {
    /// How many q there are in 2^52.
    room: i64,
    bounds: std::marker::PhantomData<B>,
}

impl<B: Bounds> Model<B> {
    fn multiplied(&self, range: Range) {
        assert!(range[0] >= 0 && range[1] <= self.room, "{range:?} of {}", self.room);
    }

    fn reduced(&self, range: Range, to: i64) -> Range {
        self.multiplied(range);
        [to, to + 2]
    }

    fn butterfly(&self, x: Range, y: Range, to: i64) -> (Range, Range) {
        self.multiplied([x[0] - y[1], x[1] - y[0]]);
        let sum = [x[0] + y[0], x[1] + y[1]];
        (if B::STRICT { self.reduced(sum, to) } else { sum }, [to, to + 2])
    }

    /// A last sum, and whether it is one of products; `lift` as in the code.
    fn last(&self, sum: Range, products: bool, lift: i64) {
        if B::LEAN && products {
            assert!(sum[0] >= 0 && sum[1] <= 8, "{sum:?} next to the first row");
        } else if !B::STRICT {
            self.reduced([sum[0] + lift, sum[1] + lift], 0);
        }
    }

    fn check(&self) {
        let width = if B::LEAN { 8 } else { 2 };
        let rows = B::ROLES.map(|role| [role, role + width]);
        let lift = if B::LEAN { 16 } else { 0 };
        let [left, right] = [1, -1];
        // One level, and two.
        for pair in rows.as_chunks::<2>().0 {
            self.last(self.butterfly(pair[0], pair[1], 0).0, false, lift);
        }
        for four in rows.as_chunks::<4>().0 {
            let (a, b) = self.butterfly(four[0], four[1], left);
            let (c, d) = self.butterfly(four[2], four[3], right);
            self.last(self.butterfly(a, c, 0).0, false, lift);
            self.last(self.butterfly(b, d, 0).0, true, lift);
        }
        // Three.
        let mut v = rows;
        for k in 0..4 {
            (v[2 * k], v[2 * k + 1]) = self.butterfly(v[2 * k], v[2 * k + 1], B::PRODUCTS[k]);
        }
        for (k, role) in [(0, left), (4, right)] {
            (v[k], v[k + 2]) = self.butterfly(v[k], v[k + 2], role);
            (v[k + 1], v[k + 3]) = self.butterfly(v[k + 1], v[k + 3], role);
        }
        if !B::LEAN && !B::STRICT {
            v[4] = self.reduced(v[4], 0);
        }
        for k in 0..4 {
            self.last(self.butterfly(v[k], v[k + 4], 0).0, k > 0, 0);
        }
    }
}

/// The worst cases of the inverse, which no input that is known reaches.
#[test]
fn roles_keep_differences_positive_and_sums_within_52_bits() {
    fn model<B: Bounds>(largest: u64) -> Model<B> {
        Model { room: ((1 << 52) / largest) as i64, bounds: std::marker::PhantomData }
    }
    model::<Lean>(MAX_LEAN).check();
    model::<Sparse>(MAX_SPARSE_INVERSE).check();
    model::<Strict>((1 << 50) - 1).check();
}
