//! Every back end against its scalar twin.

use super::*;
use crate::ntt::NttTable;
use crate::prime::ntt_primes;
use crate::ring::RingKind;
use crate::sample::SeedStream;

fn tokens() -> Option<avx512::Avx512> {
    let token = avx512::Avx512::detect();
    if token.is_none() {
        println!("skipped: this processor has no AVX-512 IFMA");
    }
    token
}

fn moduli() -> Vec<Modulus> {
    [37, 61, 97, 65_537, 1_048_583, (1 << 40) - 87, (1 << 49) - 81, (1 << 50) - 27]
        .map(|q| Modulus::new(q).unwrap())
        .to_vec()
}

/// Random residues with the largest ones in front.
fn values(m: &Modulus, n: usize, seed: u64) -> Vec<u64> {
    let mut out = vec![0; n];
    SeedStream::new(&[7; 32], seed).uniform(m, &mut out);
    out.iter_mut().take(24).for_each(|x| *x = m.value() - 1);
    out
}

#[test]
fn transforms_equal_their_scalar_twins() {
    let Some(token) = tokens() else { return };
    for log_n in 1..=17 {
        for bits in [20, 45, 46, 50].into_iter().filter(|&b| b > log_n + 4) {
            let prime = ntt_primes(bits, log_n, 1, &[]).unwrap()[0];
            let table = NttTable::new(RingKind::ConjugateInvariant, log_n, prime).unwrap();
            let (m, n) = (*table.modulus(), table.degree());
            for fill in 0..2 {
                let input = if fill == 0 { values(&m, n, 1) } else { vec![prime - 1; n] };
                table.with_tables(|forward, inverse, scale, last, iota| {
                    let check = |scalar: &dyn Fn(&mut [u64]), vector: &dyn Fn(&mut [u64])| {
                        let (mut a, mut b) = (input.clone(), input.clone());
                        scalar(&mut a);
                        vector(&mut b);
                        assert!(a == b, "2^{log_n}, {bits} bits");
                    };
                    check(&|x| scalar::ntt_forward(x, forward, &m), &|x| token.ntt_forward(x, forward, &m));
                    check(&|x| scalar::ntt_inverse(x, inverse, scale, last, &m), &|x| {
                        token.ntt_inverse(x, inverse, scale, last, &m);
                    });
                    check(
                        &|x| {
                            scalar::fold(x, iota, &m);
                            scalar::ntt_forward(x, forward, &m);
                        },
                        &|x| token.ntt_forward_folded(x, iota, forward, &m),
                    );
                    check(
                        &|x| {
                            scalar::ntt_inverse(x, inverse, scale, last, &m);
                            scalar::unfold(x, iota, &m);
                        },
                        &|x| token.ntt_inverse_unfolded(x, iota, inverse, scale, last, &m),
                    );
                    check(&|x| scalar::fold(x, iota, &m), &|x| token.fold(x, iota, &m));
                    check(&|x| scalar::unfold(x, iota, &m), &|x| token.unfold(x, iota, &m));
                });
            }
        }
    }
}

#[test]
fn pointwise_kernels_equal_their_scalar_twins() {
    let Some(token) = tokens() else { return };
    for m in moduli() {
        for n in [1, 7, 8, 64, 200, 1024] {
            let (x, y) = (values(&m, n, 1), values(&m, n, 2));
            let w = m.shoup(m.value() - 2);
            let signed: Vec<i64> = x
                .iter()
                .enumerate()
                .map(|(i, &v)| match i % 5 {
                    0 => (v as i64).wrapping_mul(i64::MAX / 7),
                    1 => -(v as i64),
                    2 => i64::MIN,
                    3 => (1 << 52) - 1 - (i as i64),
                    _ => 0,
                })
                .collect();
            let check = |scalar: &dyn Fn(&mut [u64]), vector: &dyn Fn(&mut [u64])| {
                let (mut a, mut b) = (x.clone(), x.clone());
                scalar(&mut a);
                vector(&mut b);
                assert_eq!(a, b, "modulo {}", m.value());
            };
            check(&|o| scalar::add_assign(o, &y, &m), &|o| token.add_assign(o, &y, &m));
            check(&|o| scalar::sub_assign(o, &y, &m), &|o| token.sub_assign(o, &y, &m));
            check(&|o| scalar::neg_assign(o, &m), &|o| token.neg_assign(o, &m));
            check(&|o| scalar::mul(o, &x, &y, &m), &|o| token.mul(o, &x, &y, &m));
            check(&|o| scalar::mul_assign(o, &y, &m), &|o| token.mul_assign(o, &y, &m));
            check(&|o| scalar::scale_assign(o, w, &m), &|o| token.scale_assign(o, w, &m));
            check(&|o| scalar::sub_from_scale(o, &y, w, &m), &|o| token.sub_from_scale(o, &y, w, &m));
            check(&|o| scalar::reduce_signed(o, &signed, &m), &|o| token.reduce_signed(o, &signed, &m));
        }
    }
}

#[test]
fn sums_of_products_equal_their_scalar_twins() {
    let Some(token) = tokens() else { return };
    for m in moduli() {
        for (n, count) in [(8, 3), (64, 1), (256, 5), (1024, 3), (64, 4100), (64, 9000)] {
            let (x, y) = (values(&m, n, 1), values(&m, n, 2));
            for log_blocks in 0..=n.ilog2() {
                let blocks = Weights::Blocks(&y[..1 << log_blocks]);
                let mut terms = vec![Term { values: &x, weights: Weights::Full(&y) }; count];
                terms[count / 2] = Term { values: &y, weights: blocks };
                let (mut a, mut b) = (vec![0; n], vec![0; n]);
                scalar::dot(&mut a, &terms, &m);
                token.dot(&mut b, &terms, &m);
                assert_eq!(a, b, "{count} terms modulo {}", m.value());
                scalar::mul_blocks(&mut a, &x, &y[..1 << log_blocks], &m);
                token.mul_blocks(&mut b, &x, &y[..1 << log_blocks], &m);
                assert_eq!(a, b);
                if count > 100 {
                    break;
                }
            }
        }
    }
}

#[test]
fn conversions_equal_their_scalar_twins() {
    let Some(token) = tokens() else { return };
    for count in [1, 2, 5, 16] {
        let from: Vec<Modulus> =
            ntt_primes(50, 5, count, &[]).unwrap().iter().map(|&q| Modulus::new(q).unwrap()).collect();
        for n in [5, 64, 512] {
            let limbs: Vec<u64> = from.iter().zip(1..).flat_map(|(m, i)| values(m, n, i)).collect();
            let factors: Vec<Shoup> = from.iter().map(|m| m.shoup(m.value() / 3)).collect();
            let (mut a, mut b) = (limbs.clone(), limbs.clone());
            let (mut va, mut vb) = (vec![0; n], vec![0; n]);
            scalar::convert_prepare(&mut a, &mut va, &factors, &from);
            token.convert_prepare(&mut b, &mut vb, &factors, &from);
            assert_eq!((&a, &va), (&b, &vb));
            for to in moduli() {
                let hats = values(&to, count, 9);
                let (mut x, mut y) = (vec![0; n], vec![0; n]);
                scalar::convert_combine(&mut x, &a, &va, &hats, to.value() - 1, &to);
                token.convert_combine(&mut y, &a, &va, &hats, to.value() - 1, &to);
                assert_eq!(x, y, "to {}", to.value());
            }
        }
    }
}
