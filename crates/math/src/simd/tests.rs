//! Every back end against its scalar twin.

use super::*;
use crate::ntt::NttTable;
use crate::packed::PackedPolys;
use crate::poly::Poly;
use crate::prime::ntt_primes;
use crate::ring::{GaloisPermutation, RingKind};
use crate::sample::SeedStream;

/// All back ends but the reference.
fn vectors() -> Vec<Backend> {
    let mut all = Backend::available();
    all.retain(|&b| b != Backend::Scalar);
    println!("against scalar: {:?}", all.iter().map(|b| b.name()).collect::<Vec<_>>());
    all
}

fn moduli() -> Vec<Modulus> {
    let two = |log: u32, less: u64| (1 << log) - less;
    let large = [two(40, 87), two(45, 55), two(48, 59), two(49, 81), two(50, 27)];
    [37, 61, 97, 65_537, 1_048_583].into_iter().chain(large).map(|q| Modulus::new(q).unwrap()).collect()
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
    vectors().into_iter().for_each(transforms);
}

fn transforms(backend: Backend) {
    for log_n in 1..=17 {
        for bits in [20, 42, 45, 46, 48, 49, 50].into_iter().filter(|&b| b > log_n + 4) {
            let prime = ntt_primes(bits, log_n, 1, &[]).unwrap()[0];
            let table = NttTable::new(RingKind::ConjugateInvariant, log_n, prime).unwrap();
            let (m, n) = (*table.modulus(), table.degree());
            let alternating = (0..n).map(|i| (i as u64 & 1) * (prime - 1)).collect();
            let halves = (0..n).map(|i| if i < n / 2 { prime - 1 } else { 1 }).collect();
            for input in [values(&m, n, 1), vec![prime - 1; n], vec![prime / 2; n], alternating, halves] {
                table.with_tables(|forward, inverse, scale, last, iota| {
                    let check = |scalar: &dyn Fn(&mut [u64]), vector: &dyn Fn(&mut [u64])| {
                        let (mut a, mut b) = (input.clone(), input.clone());
                        scalar(&mut a);
                        vector(&mut b);
                        assert!(a == b, "2^{log_n}, {bits} bits");
                    };
                    check(
                        &|x| scalar::ntt_forward(x, forward, &m),
                        &|x| dispatch!(backend => ntt_forward(x, forward, &m)),
                    );
                    check(&|x| scalar::ntt_inverse(x, inverse, scale, last, &m), &|x| {
                        dispatch!(backend => ntt_inverse(x, inverse, scale, last, &m));
                    });
                    check(
                        &|x| scalar::ntt_forward_folded(x, iota, forward, &m),
                        &|x| dispatch!(backend => ntt_forward_folded(x, iota, forward, &m)),
                    );
                    check(&|x| scalar::ntt_inverse_unfolded(x, iota, inverse, scale, last, &m), &|x| {
                        dispatch!(backend => ntt_inverse_unfolded(x, iota, inverse, scale, last, &m));
                    });
                    check(&|x| scalar::fold(x, iota, &m), &|x| dispatch!(backend => fold(x, iota, &m)));
                    check(&|x| scalar::unfold(x, iota, &m), &|x| dispatch!(backend => unfold(x, iota, &m)));
                });
            }
        }
    }
}

#[test]
fn pointwise_kernels_equal_their_scalar_twins() {
    vectors().into_iter().for_each(pointwise_kernels);
}

fn pointwise_kernels(backend: Backend) {
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
            check(&|o| scalar::add_assign(o, &y, &m), &|o| dispatch!(backend => add_assign(o, &y, &m)));
            check(&|o| scalar::sub_assign(o, &y, &m), &|o| dispatch!(backend => sub_assign(o, &y, &m)));
            check(&|o| scalar::neg_assign(o, &m), &|o| dispatch!(backend => neg_assign(o, &m)));
            check(&|o| scalar::mul(o, &x, &y, &m), &|o| dispatch!(backend => mul(o, &x, &y, &m)));
            check(&|o| scalar::mul_assign(o, &y, &m), &|o| dispatch!(backend => mul_assign(o, &y, &m)));
            check(&|o| scalar::scale_assign(o, w, &m), &|o| dispatch!(backend => scale_assign(o, w, &m)));
            check(
                &|o| scalar::sub_from_scale(o, &y, w, &m),
                &|o| dispatch!(backend => sub_from_scale(o, &y, w, &m)),
            );
            check(
                &|o| scalar::reduce_signed(o, &signed, &m),
                &|o| dispatch!(backend => reduce_signed(o, &signed, &m)),
            );
        }
    }
}

#[test]
fn sums_of_products_equal_their_scalar_twins() {
    vectors().into_iter().for_each(sums_of_products);
}

fn sums_of_products(backend: Backend) {
    for m in moduli() {
        let sizes =
            [(8, 3), (64, 1), (256, 4), (256, 5), (1024, 3), (64, 8), (64, 129), (64, 4100), (64, 9000)];
        for (n, count) in sizes {
            let (mut x, mut y) = (values(&m, n, 1), values(&m, n, 2));
            // The largest sums that there can be.
            for largest in [&mut x[n / 2..], &mut y[n / 2..]] {
                largest.fill(m.value() - 1);
            }
            for log_blocks in 0..=n.ilog2() {
                let blocks = Weights::Blocks(&y[..1 << log_blocks]);
                let mut terms = vec![Term { values: &x, weights: Weights::Full(&y) }; count];
                terms[count / 2] = Term { values: &y, weights: blocks };
                let (mut a, mut b) = (vec![0; n], vec![0; n]);
                scalar::dot(&mut a, &terms, &m);
                dispatch!(backend => dot(&mut b, &terms, &m));
                assert_eq!(a, b, "{count} terms modulo {}", m.value());
                scalar::mul_blocks(&mut a, &x, &y[..1 << log_blocks], &m);
                dispatch!(backend => mul_blocks(&mut b, &x, &y[..1 << log_blocks], &m));
                assert_eq!(a, b);
                if count > 100 {
                    break;
                }
            }
        }
    }
}

#[test]
fn sums_of_tiles_are_what_they_say_in_every_back_end() {
    Backend::available().into_iter().for_each(sums_of_tiles);
}

fn sums_of_tiles(backend: Backend) {
    const N: usize = 512;
    for m in moduli() {
        for (n, len, count) in
            [(16, 16, 7), (64, 64, 1), (64, 64, 4100), (N, 64, 30), (N, 128, 30), (N, 512, 12)]
        {
            let some: Vec<Vec<u64>> = (0..3).map(|i| values(&m, len, i)).collect();
            // For every length of a block some products, stored as the kernel wants them.
            let (mut weights, mut lists, mut vectors) = (Vec::new(), Vec::new(), Vec::new());
            for log_block in 0..=n.ilog2() {
                let (size, count) = (n >> log_block, count / (1 + log_block as usize));
                let list = TileProducts {
                    log_block,
                    weights: weights.len(),
                    values: (0..count as u32).map(|k| k % 3).collect(),
                };
                let own = values(&m, size * count, u64::from(log_block));
                let mut stored = vec![0; size * count];
                for (first, some) in own.chunks(5 * size).enumerate() {
                    list.set(&mut stored, some, size, 5 * first);
                }
                weights.extend(stored);
                vectors.push(own);
                if count > 0 {
                    lists.push(list);
                }
            }
            // Their number decides how long a block is, and whether all weights serve a whole one.
            let cases = [(3, 0), (100, 0), (3, 6), (100, 6), (200, 6)].into_iter();
            let cases = cases.flat_map(|case| [0, n - len].map(|start| (case, start)));
            for ((runs, least), start) in cases {
                let lists: Vec<TileProducts> =
                    lists.iter().filter(|list| list.log_block >= least).cloned().collect();
                let runs: Vec<&[u64]> = some.iter().map(Vec::as_slice).cycle().take(runs).collect();
                // Alone, and with others that are alike.
                for (add, times) in [(false, 1), (true, 1), (true, 7), (false, 2)] {
                    let before = values(&m, len * times, 9);
                    let mut out = before.clone();
                    let sum = |out| TileSum { out, products: &lists, add };
                    let mut sums: Vec<TileSum<'_>> = out.chunks_exact_mut(len).map(sum).collect();
                    let tiles = Tiles { values: &runs, weights: &weights, start };
                    dispatch!(backend => tile_sums(&mut sums, tiles, &m));
                    for (j, (found, before)) in out.iter().zip(before).enumerate() {
                        let j = j % len;
                        let mut sum = if add { before } else { 0 };
                        for list in &lists {
                            let (vectors, size) = (&vectors[list.log_block as usize], n >> list.log_block);
                            for (k, &run) in list.values.iter().enumerate() {
                                let weight = vectors[k * size + ((start + j) >> list.log_block)];
                                sum = m.add(sum, m.mul(runs[run as usize][j], weight));
                            }
                        }
                        assert_eq!(*found, sum, "{}: {j} of {len} at {start}", backend.name());
                    }
                }
            }
        }
    }
}

/// More products than accumulators hold, beside sums that are alike.
#[test]
fn a_long_sum_of_tiles_among_short_ones_is_right() {
    const LEN: usize = 64;
    for m in moduli() {
        let run = values(&m, LEN, 1);
        let weights = values(&m, 9005, 2);
        let list =
            |weights: usize, count: usize| [TileProducts { log_block: 6, weights, values: vec![0; count] }];
        let mut lists = vec![list(0, 5); 8];
        lists[3] = list(5, 9000);
        let expected: Vec<u64> = lists
            .iter()
            .flatten()
            .flat_map(|list| {
                let own = &weights[list.weights..][..list.values.len()];
                let total = own.iter().fold(0, |total, &w| m.add(total, w));
                run.iter().map(move |&x| m.mul(x, total))
            })
            .collect();
        for backend in Backend::available() {
            let mut out = vec![0; LEN * lists.len()];
            let outs = out.chunks_exact_mut(LEN).zip(&lists);
            let mut sums: Vec<_> =
                outs.map(|(out, products)| TileSum { out, products, add: false }).collect();
            let tiles = Tiles { values: &[&run], weights: &weights, start: 0 };
            dispatch!(backend => tile_sums(&mut sums, tiles, &m));
            assert_eq!(out, expected, "{} modulo {}", backend.name(), m.value());
        }
    }
}

#[test]
fn conversions_equal_their_scalar_twins() {
    vectors().into_iter().for_each(conversions);
}

fn conversions(backend: Backend) {
    for (count, bits) in [(1, 50), (2, 50), (5, 50), (16, 50), (1, 42), (5, 47), (16, 45)] {
        let from: Vec<Modulus> =
            ntt_primes(bits, 5, count, &[]).unwrap().iter().map(|&q| Modulus::new(q).unwrap()).collect();
        for n in [5, 64, 200, 512] {
            // Whole groups lie before what is converted, or none.
            let start = if n % 64 == 0 { 64 } else { 0 };
            let limbs: Vec<Buffer> =
                from.iter().zip(1..).map(|(m, i)| values(m, start + n, i).into()).collect();
            let factors: Vec<Shoup> = from.iter().map(|m| m.shoup(m.value() / 3)).collect();
            let sources = Sources { limbs: &limbs, start, factors: &factors, moduli: &from };
            let (mut a, mut b) = (vec![0; (count + 1) * n], vec![0; (count + 1) * n]);
            // What stands between the halves is a back end's own.
            scalar::convert_prepare(&mut a, &sources);
            dispatch!(backend => convert_prepare(&mut b, &sources));
            for to in moduli() {
                // As of a product Q of the sources and other primes: each hat times its source is −correction.
                let hats = |to: &Modulus, product: u64| -> Vec<u64> {
                    from.iter().map(|q| to.mul(product, to.inv(to.reduce(q.value())))).collect()
                };
                let small = &moduli()[0];
                let (hats, others) = (hats(&to, 1), hats(small, small.value() - 2));
                let targets = [
                    Target { hats: &hats, correction: to.value() - 1, source_bits: bits, modulus: &to },
                    Target { hats: &others, correction: 2, source_bits: bits, modulus: small },
                ];
                let zero = || [vec![0; n], vec![0; n]];
                let (mut x, mut y, mut z) = (zero(), zero(), zero());
                for ((x, y), target) in x.iter_mut().zip(&mut y).zip(&targets) {
                    scalar::convert_combine(x, &a, target);
                    dispatch!(backend => convert_combine(y, &b, target));
                }
                let [first, second] = &mut z;
                let both = [&targets[0], &targets[1]];
                dispatch!(backend => convert_combine_two([first, second], &b, both));
                assert_eq!((&x, &x), (&y, &z), "{count} of {bits} bits to {}", to.value());
            }
        }
    }
}

#[test]
fn every_back_end_answers_to_its_name_and_others_are_refused() {
    for backend in Backend::available() {
        assert!(NAMES.contains(&backend.name()));
        assert_eq!(Backend::named(backend.name()), Ok(Some(backend)));
    }
    assert_eq!(Backend::named(""), Ok(None));
    let unknown = Backend::named("AVX2").unwrap_err();
    assert_eq!(unknown.to_string(), "POLYVEIL_SIMD is 'AVX2'; it may be scalar, avx2, avx512");
    let available: Vec<_> = Backend::available().into_iter().map(Backend::name).collect();
    for name in NAMES {
        let found = Backend::named(name);
        assert_eq!(found.is_ok(), available.contains(&name));
        if let Err(error) = found {
            assert_eq!(error, RequestError::Unavailable { name, available: available.clone() });
            assert!(error.to_string().contains("does not offer; it may be scalar"), "{error}");
        }
    }
}

#[test]
fn permutations_equal_their_scalar_twin() {
    let input: Vec<u64> = (0..64).map(|i| i * i).collect();
    let blocks: Vec<u32> = (0..64).rev().collect();
    // Halves in either order, each in some order.
    let orders = std::array::from_fn(|i| {
        std::array::from_fn(|j| {
            let half = (i / 4 + j / 4) % 2;
            (4 * half + (3 * j + i) % 4) as u64
        })
    });
    assert!(keeps_halves(&orders));
    let (mut a, mut b) = (vec![0; 512], vec![0; 512]);
    scalar::permute(&mut a, &input, &blocks, &orders);
    for backend in vectors() {
        dispatch!(backend => permute(&mut b, &input, &blocks, &orders));
        assert_eq!(a, b);
    }
}

#[test]
fn packing_equals_its_scalar_twin() {
    for m in moduli() {
        let (bits, input) = (m.bits() as usize, values(&m, 200, 1));
        for place in [(1, 0), (3, 1)] {
            let bytes = place.0 * bits * 25;
            let (mut a, mut b) = (vec![u8::MAX; bytes], vec![u8::MAX; bytes]);
            scalar::pack(&mut a, &input, bits, place);
            pack(&mut b, &input, bits, place);
            assert_eq!(a, b);
            a.extend([0; PACKED_PADDING]);
            let mut out = vec![0; 192];
            PackedLimb { bytes: &a, rows: place.0, bits }.unpack(place.1, 8, &mut out);
            assert_eq!(out, input[8..], "modulo {}", m.value());
        }
    }
}

#[test]
fn key_products_equal_sums_of_permuted_digits() {
    vectors().into_iter().for_each(key_products);
}

fn halves(out: &mut [Vec<u64>; 2]) -> [&mut [u64]; 2] {
    out.each_mut().map(|half| &mut half[..])
}

fn key_products(backend: Backend) {
    let (n, start, len) = (256, 64, 128);
    let permutation = GaloisPermutation::rotation(RingKind::ConjugateInvariant, 8, 3);
    for m in moduli() {
        for count in [1, 3, 70] {
            let digits: Vec<Vec<u64>> = (0..count).map(|d| values(&m, n, d)).collect();
            let digits: Vec<&[u64]> = digits.iter().map(Vec::as_slice).collect();
            // One row more than there are digits.
            let rows = count as usize + 1;
            let mut keys = [PackedPolys::zero(n, rows, &[m]), PackedPolys::zero(n, rows, &[m])];
            for (half, key) in keys.iter_mut().enumerate() {
                for row in 0..rows {
                    let key_values = values(&m, n, (100 + 100 * half + row) as u64);
                    key.set(row, &Poly::from_words(n, &key_values).unwrap());
                }
            }
            let keys = [keys[0].limb(0), keys[1].limb(0)];
            for (add, permutation) in [
                ([None, None], None),
                ([Some((digits[0], m.value() - 1)), None], permutation.table()),
                ([Some((digits[0], 1)), Some((digits[0], m.value() / 2))], permutation.table()),
            ] {
                let onto = add[1].is_none();
                let product = KeyProduct { digits: &digits, keys, add, permutation, onto };
                let before = [values(&m, len, 7), values(&m, len, 8)];
                let [mut x, mut y] = [before.clone(), before.clone()];
                let mut scratch = vec![0; 2 * (digits.len() + 1) * len];
                product.by_parts(halves(&mut x), start, &mut scratch, &m);
                match backend {
                    Backend::Avx2(token) => token.key_product(halves(&mut y), &product, start, &m),
                    Backend::Avx512(token) => token.key_product(halves(&mut y), &product, start, &m),
                    Backend::Scalar => unreachable!("not among the vectors"),
                }
                assert_eq!(x, y, "{count} digits modulo {}", m.value());
                // What is added to is added.
                let [mut alone, mut sum] = [before.clone(), before.clone()];
                let alone_product = KeyProduct { onto: false, ..product };
                alone_product.by_parts(halves(&mut alone), start, &mut scratch, &m);
                if onto {
                    for (sum, alone) in sum.iter_mut().zip(&alone) {
                        scalar::add_assign(sum, alone, &m);
                    }
                } else {
                    sum = alone;
                }
                assert_eq!(x, sum);
            }
        }
    }
}
