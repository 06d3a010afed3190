//! Which primes the levels share: few large ones instead of one for every level.
//!
//! The error asks for levels of 27 to 45 bits, kernels take primes of up to 50, and all work is counted in primes. So levels share them
//! (`polyveil_ckks::ParametersLiteral::shared`): all have some of a few *small* primes of assorted sizes and as many of the *large*
//! ones, which are alike, as together come closest to the modulus that the level wants. Sizes of the small ones are searched for,
//! by changes at random (from a fixed seed) that make a typical key switch at every level cheaper. All primes count for security,
//! also those that the highest level lacks, so they must fit the ring together with the special primes.

use crate::cost::key_weight;
use crate::moduli::{MAX_PRIME_BITS, MAX_SPECIALS};

/// How far the modulus of a level may be from what was asked for, in bits.
const TOLERANCE: f64 = 0.5;
/// Sizes of the large primes that are tried: transforms are fastest below 2^46, little slower at 48 bits, and slowest, but fewest, at 50.
const LARGE: [u32; 3] = [45, 48, 50];
/// Most small primes, and so many searches, each of so many steps, for every number of them.
const SMALL: usize = 7;
const STARTS: u64 = 4;
const STEPS: usize = 300;
/// More than any work.
const OUT_OF_REACH: f64 = 1e9;
/// What sums of products cost a limb, and both key products a limb and digit, in transforms.
const SUMS: f64 = 3.0;
const KEYS: f64 = 0.33;

/// Sizes of primes and the levels that have them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    /// Of every prime.
    pub bits: Vec<u32>,
    /// Indices of the primes of each level, ascending; empty for a nested chain, where level ℓ has the first ℓ + 1.
    pub levels: Vec<Vec<u8>>,
}

impl Chain {
    /// A prime for every level.
    pub fn nested(bits: &[u32]) -> Self {
        Self { bits: bits.to_vec(), levels: Vec::new() }
    }

    /// For each size of the large primes the cheapest that was found for levels of these sizes (the base first), with primes of at
    /// least `least` bits, and with special primes in at most `limit` bits. Few where the ring has little room, or none.
    pub fn shared(bits: &[u32], least: u32, limit: u32) -> Vec<Self> {
        let mut total = 0;
        let wanted: Vec<f64> = bits
            .iter()
            .map(|&b| {
                total += b;
                f64::from(total)
            })
            .collect();
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut best_of = |large: u32| {
            let mut best: (f64, Option<Self>) = (f64::INFINITY, None);
            for small in 1..=SMALL.min(bits.len()) {
                for _ in 0..STARTS {
                    let mut sizes: Vec<u32> =
                        (0..small).map(|_| random.between(least, MAX_PRIME_BITS)).collect();
                    // Level 0 wants exactly this.
                    sizes[0] = bits[0].clamp(least, MAX_PRIME_BITS);
                    let mut found = price(&sizes, large, &wanted, limit);
                    for _ in 0..STEPS {
                        let mut changed = sizes.clone();
                        for _ in 0..=random.between(0, 1) {
                            let k = random.between(0, small as u32 - 1) as usize;
                            changed[k] = random.between(least, MAX_PRIME_BITS);
                        }
                        let other = price(&changed, large, &wanted, limit);
                        if other.0 <= found.0 {
                            (sizes, found) = (changed, other);
                        }
                    }
                    if found.0 < best.0 {
                        best = found;
                    }
                }
            }
            best.1
        };
        LARGE.into_iter().filter_map(&mut best_of).collect()
    }

    /// How many levels there are.
    pub fn len(&self) -> usize {
        if self.levels.is_empty() { self.bits.len() } else { self.levels.len() }
    }

    /// The primes of a level.
    pub fn primes(&self, level: usize) -> impl Iterator<Item = usize> + '_ {
        let shared = self.levels.get(level).map(|primes| primes.iter().map(|&i| usize::from(i)));
        let nested = if shared.is_none() { 0..level + 1 } else { 0..0 };
        shared.into_iter().flatten().chain(nested)
    }

    /// As few digits as have no more than so many bits at any level, each as the index of its first prime, and the bits of the
    /// largest; none where a prime has more, or where a level has a digit without primes below one with primes, which the engine does
    /// not take.
    pub fn digits(&self, most: u32) -> Option<(Vec<u8>, u32)> {
        let levels: Vec<Vec<usize>> = (0..self.len()).map(|level| self.primes(level).collect()).collect();
        // Bits that the digit has at each level so far, and the digits that each level has.
        let (mut sums, mut have) = (vec![0; levels.len()], vec![0; levels.len()]);
        let (mut first, mut largest) = (vec![0u8], 0);
        for (prime, &bits) in self.bits.iter().enumerate() {
            let of: Vec<usize> = (0..levels.len()).filter(|&l| levels[l].contains(&prime)).collect();
            if bits > most {
                return None;
            }
            if of.iter().any(|&l| sums[l] + bits > most) {
                first.push(prime as u8);
                sums.fill(0);
            }
            for l in of {
                if sums[l] == 0 {
                    have[l] += 1;
                    if have[l] != first.len() {
                        return None;
                    }
                }
                sums[l] += bits;
                largest = largest.max(sums[l]);
            }
        }
        Some((first, largest))
    }

    /// Transforms of a key switch and of sums at every level, with the best digits that fit; none where none do.
    fn work(&self, limit: u32) -> Option<f64> {
        let total = self.bits.iter().sum::<u32>();
        let cost = |specials: u32| {
            let (first, largest) = self.digits(specials * MAX_PRIME_BITS - 1)?;
            if total + largest + 1 >= limit {
                return None;
            }
            let (special, special_key) =
                (f64::from(specials), f64::from(specials) * key_weight(f64::from(MAX_PRIME_BITS)));
            let of_level = |level: usize| {
                let limbs = self.primes(level).count() as f64;
                let keys: f64 = self.primes(level).map(|i| key_weight(f64::from(self.bits[i]))).sum();
                let last = self.primes(level).last().unwrap_or(0);
                let digits = first.partition_point(|&f| usize::from(f) <= last) as f64;
                (digits + 2.0) * (limbs + special) + KEYS * digits * (keys + special_key) + SUMS * limbs
            };
            Some((0..self.len()).map(of_level).sum::<f64>())
        };
        (1..=MAX_SPECIALS).filter_map(cost).min_by(f64::total_cmp)
    }
}

/// The work of the chain of these small primes and of large ones, and the chain; where a level is out of reach or nothing fits,
/// how far it is from that, beyond any work, and none.
fn price(small: &[u32], large: u32, wanted: &[f64], limit: u32) -> (f64, Option<Chain>) {
    let choices: Vec<(u32, u32)> = (0..1u32 << small.len())
        .map(|set| (set, (0..small.len()).filter(|k| set >> k & 1 == 1).map(|k| small[k]).sum()))
        .collect();
    let mut picked: Vec<(u32, u32)> = Vec::with_capacity(wanted.len());
    let mut missed = 0.0;
    for &wanted in wanted {
        // The cheapest within reach, or the nearest.
        let mut best = (f64::INFINITY, f64::INFINITY, 0, 0);
        for &(set, sum) in &choices {
            let count = ((wanted - f64::from(sum)) / f64::from(large)).round().max(0.0);
            if set == 0 && count == 0.0 {
                continue;
            }
            let off = (f64::from(sum) + count * f64::from(large) - wanted).abs();
            let primes = f64::from(set.count_ones()) + count;
            let beyond = (off - TOLERANCE).max(0.0);
            let cost = primes + 0.3 * off;
            if (beyond, cost) < (best.0, best.1) {
                best = (beyond, cost, set, count as u32);
            }
        }
        missed += best.0;
        picked.push((best.2, best.3));
    }
    if missed > 0.0 {
        return (OUT_OF_REACH * (1.0 + missed), None);
    }
    let most = picked.iter().map(|p| p.1).max().unwrap_or(0) as usize;
    if small.len() + most > usize::from(u8::MAX) {
        return (f64::INFINITY, None);
    }
    // In the order of their first use, but for one large prime in front: no level may lack the first digit, and most have that one.
    let first = |k: usize| picked.iter().position(|p| p.0 >> k & 1 == 1);
    let mut order: Vec<usize> = (0..small.len()).collect();
    order.sort_by_key(|&k| first(k).unwrap_or(usize::MAX));
    let front = usize::from(most > 0);
    let bits: Vec<u32> = std::iter::repeat_n(large, front)
        .chain(order.iter().map(|&k| small[k]))
        .chain(std::iter::repeat_n(large, most - front))
        .collect();
    let level = |&(set, count): &(u32, u32)| {
        let count = count as usize;
        let small_ones =
            order.iter().enumerate().filter(|&(_, k)| set >> k & 1 == 1).map(|(at, _)| at + front);
        let rest = front + small.len()..small.len() + count.max(front);
        (0..count.min(front)).chain(small_ones).chain(rest).map(|i| i as u8).collect::<Vec<u8>>()
    };
    let chain = Chain { levels: picked.iter().map(level).collect(), bits };
    match chain.work(limit) {
        Some(work) => (work, Some(chain)),
        None => (OUT_OF_REACH / 2.0 + f64::from(chain.bits.iter().sum::<u32>()), None),
    }
}

/// Xorshift.
struct Random(u64);

impl Random {
    fn between(&mut self, least: u32, most: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        least + ((self.0 >> 33) % u64::from(most - least + 1)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(bits: &[u32], least: u32, limit: u32) -> Chain {
        let chains = Chain::shared(bits, least, limit);
        for chain in &chains {
            let mut total = 0;
            assert_eq!(chain.len(), bits.len());
            for (level, own) in bits.iter().enumerate() {
                total += own;
                let found: u32 = chain.primes(level).map(|i| chain.bits[i]).sum();
                assert!((f64::from(found) - f64::from(total)).abs() <= TOLERANCE, "level {level}");
            }
        }
        chains.last().cloned().unwrap()
    }

    #[test]
    fn small_levels_share_large_primes() {
        let bits = [[41].as_slice(), &[28; 36]].concat();
        let chain = shared(&bits, 28, 1747);
        let limbs = |chain: &Chain| (0..bits.len()).map(|level| chain.primes(level).count()).sum::<usize>();
        assert_eq!(limbs(&Chain::nested(&bits)), 703);
        assert!(limbs(&chain) < 450, "{}", limbs(&chain));
        assert!(chain.work(1747).unwrap() < Chain::nested(&bits).work(1747).unwrap());
    }

    #[test]
    fn what_does_not_fit_is_not_found() {
        assert_eq!(Chain::shared(&[40, 30, 30, 30], 26, 150), []);
    }

    #[test]
    fn digits_are_as_large_as_they_may_be_at_any_level() {
        // The third prime is never there with the second one.
        let levels = vec![vec![0], vec![0, 1], vec![0, 2, 3], vec![0, 1, 3, 4]];
        let chain = Chain { bits: vec![40, 30, 35, 50, 50], levels };
        assert_eq!(chain.digits(49), None);
        assert_eq!(chain.digits(80), Some((vec![0, 3, 4], 75)));
        assert_eq!(chain.digits(100), Some((vec![0, 3], 100)));
        // Level 1 has nothing of the second digit.
        let chain = Chain { bits: vec![40, 30, 35], levels: vec![vec![0], vec![0, 2], vec![0, 1, 2]] };
        assert_eq!(chain.digits(40), None);
        assert_eq!(chain.digits(70), Some((vec![0, 2], 70)));
    }
}
