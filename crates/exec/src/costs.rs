//! Unit costs of the machine at hand, measured in about a second.
//!
//! Small parameters of the same ring degree stand in for the plan's: costs are per limb, so a few
//! limbs tell. Every thread of a run measures at the same time, each on its own data: memory is shared, and what one core does alone
//! with data that fit its caches says little about a run. Each figure is the median of several repetitions.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use polyveil_ckks::{
    Ciphertext, CkksError, Encoder, EvaluationKeys, Evaluator, GiantStep, IntegerPlaintext, KeyId, Ntt,
    Parameters, ParametersLiteral, Poly, RingKind, RotatedProduct, SwitchingKey,
};
use polyveil_plan::{UnitCosts, key_weight};

/// Limbs of the stand-in ciphertexts.
const LIMBS: usize = 6;
/// Special limbs, and limbs of a digit, of the stand-in keys.
const SPECIALS: usize = 2;
/// Rotations of the longer of two measurements.
const ROTATIONS: usize = 5;
/// Repetitions of each measurement at least, and the seconds that they take together at least: a machine that others use too may
/// stand still for longer than a single one takes.
const REPEATS: usize = 5;
const SECONDS: f64 = 0.1;
/// Ciphertexts of measured sums of products, and their limbs: more than a core's own caches hold, as in a run.
const TERMS: usize = 96;
const TERM_LIMBS: usize = 1;
/// Sums of the same ciphertexts, as a convolution has them.
const SUMS: usize = 48;
/// Numbers of a periodic weight vector.
const PERIOD: usize = 16;
/// How much of a run's work keeps all threads busy: steps are spread over them by ciphertext, sum and limb.
const SHARED: f64 = 0.9;

/// Measures the unit costs at ring degree `2^log_n`.
///
/// # Errors
/// Where no parameters exist at that degree.
pub fn measure_unit_costs(log_n: u32) -> Result<UnitCosts, CkksError> {
    let threads = rayon::current_num_threads();
    let speedup = 1.0 + (threads - 1) as f64 * SHARED;
    // Costs are those of one thread among several; pools of one keep the engine's own threads out.
    let alone = || match rayon::ThreadPoolBuilder::new().num_threads(1).build() {
        Ok(pool) => pool.install(|| measure(log_n, speedup)),
        Err(_) => measure(log_n, speedup),
    };
    let all: Vec<UnitCosts> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(alone)).collect();
        running.into_iter().filter_map(|thread| thread.join().ok()).collect::<Result<_, _>>()
    })?;
    match all.as_slice() {
        [] => alone(),
        all => Ok(mean(all)),
    }
}

fn mean(all: &[UnitCosts]) -> UnitCosts {
    let of = |part: fn(&UnitCosts) -> f64| all.iter().map(part).sum::<f64>() / all.len().max(1) as f64;
    UnitCosts {
        ntt_ns: of(|u| u.ntt_ns),
        mac_full_ns: of(|u| u.mac_full_ns),
        mac_periodic_ns: of(|u| u.mac_periodic_ns),
        key_mac_ns: of(|u| u.key_mac_ns),
        convert_ns: of(|u| u.convert_ns),
        embed_ns: of(|u| u.embed_ns),
        speedup: of(|u| u.speedup),
    }
}

fn measure(log_n: u32, speedup: f64) -> Result<UnitCosts, CkksError> {
    let literal = ParametersLiteral::generate(
        RingKind::ConjugateInvariant,
        log_n,
        &[40; LIMBS],
        &[45; SPECIALS],
        SPECIALS,
    )?;
    // Nothing is encrypted with these: they only have the right size.
    let parameters = Parameters::new_insecure(literal)?;
    let n = parameters.degree();
    let level = LIMBS - 1;
    let ciphertext = random_ciphertext(&parameters, level)?;
    let terms =
        (0..TERMS).map(|_| random_ciphertext(&parameters, TERM_LIMBS - 1)).collect::<Result<Vec<_>, _>>()?;
    let encoder = Encoder::new(&parameters);
    let slots: Vec<f64> = (0..n).map(|i| (i % 7) as f64 / 7.0).collect();
    let body = key_body(&parameters, level);
    let keys = (1..=ROTATIONS)
        .map(|r| Ok((r, SwitchingKey::from_parts(&parameters, level, [r as u8; 32], &body)?)))
        .collect::<Result<BTreeMap<_, _>, CkksError>>()?;
    let keys = EvaluationKeys::from_parts(&parameters, KeyId([0; 16]), None, keys)?;
    keys.expand(&parameters);
    let evaluator = Evaluator::with_keys(&parameters, keys.into())?;
    let limbs = LIMBS as f64;

    let tables = &parameters.tables()[..LIMBS];
    let mut polys: Vec<_> = terms.iter().map(|x| x.parts()[0].clone()).collect();
    let ntt_ns = median(|| {
        for limbs in &mut polys {
            let limbs = tables.iter().zip(limbs.limbs_mut());
            limbs.for_each(|(table, limb)| table.forward(black_box(limb)));
        }
        Ok(())
    })? / (TERMS * TERM_LIMBS) as f64;
    let scale = 2f64.powi(30);
    // Full-size weights come from memory, so every product has its own; periodic ones come from a cache.
    let full = (0..TERMS).map(|_| encoder.encode_integer(&slots, scale)).collect::<Result<Vec<_>, _>>()?;
    let periodic = [encoder.encode_integer(&slots[..PERIOD.min(n)], scale)?];
    // A product and a limb of one part, with what encoding its weights takes beside their transform.
    let inputs: Vec<&Ciphertext> = terms.iter().collect();
    let product = |weights: &[IntegerPlaintext], sums: usize| {
        let products = weights.iter().cycle().take(TERMS).enumerate();
        let products = products.map(|(input, weights)| RotatedProduct { input, rotation: 0, weights });
        let sum = GiantStep { rotation: 0, products: products.collect() };
        let outputs = vec![vec![sum]; sums];
        let ns = median(|| evaluator.linear_transform(black_box(&inputs), &outputs, false).map(drop))?;
        let transform = ntt_ns * weights[0].coefficients().len() as f64 / n as f64;
        Ok::<_, CkksError>((ns / (TERM_LIMBS * sums * TERMS) as f64 - transform).max(0.0) / 2.0)
    };
    let mac_full_ns = product(&full, 1)?;
    let mac_periodic_ns = product(&periodic, SUMS)?;
    let embed_ns = median(|| encoder.encode_integer(black_box(&slots), scale).map(drop))?;

    // One decomposition and one key product each: the difference tells the two apart.
    let one = median(|| evaluator.rotate_hoisted(black_box(&ciphertext), &[1]).map(drop))?;
    let all: Vec<usize> = (1..=ROTATIONS).collect();
    let many = median(|| evaluator.rotate_hoisted(black_box(&ciphertext), &all).map(drop))?;
    let switch_ns = (many - one).max(0.0) / (ROTATIONS - 1) as f64;
    let decompose_ns = (one - switch_ns).max(0.0);
    // The planner's counts of both parts (see its cost model), solved for the unknown unit costs.
    let (digits, specials) = (parameters.digits(level) as f64, SPECIALS as f64);
    let (decompose_ntts, decompose_terms) = (digits * (limbs + specials), limbs * (limbs + specials));
    let convert_ns = ((decompose_ns - decompose_ntts * ntt_ns) / decompose_terms).max(0.0);
    let (switch_ntts, switch_terms) = (2.0 * (limbs + specials), 2.0 * specials * limbs);
    let rest = switch_ns - switch_ntts * ntt_ns - switch_terms * convert_ns;
    let keys: f64 =
        parameters.literal().q.iter().chain(parameters.p()).map(|&q| key_weight((q as f64).log2())).sum();
    let key_mac_ns = (rest / (2.0 * digits * keys)).max(0.0);
    Ok(UnitCosts { ntt_ns, mac_full_ns, mac_periodic_ns, key_mac_ns, convert_ns, embed_ns, speedup })
}

/// Median nanoseconds of several repetitions, after one to warm up.
fn median(mut work: impl FnMut() -> Result<(), CkksError>) -> Result<f64, CkksError> {
    work()?;
    let begun = Instant::now();
    let mut times = Vec::with_capacity(REPEATS);
    while times.len() < REPEATS || begun.elapsed().as_secs_f64() < SECONDS {
        let started = Instant::now();
        work()?;
        times.push(started.elapsed().as_secs_f64() * 1e9);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn random_ciphertext(parameters: &Parameters, level: usize) -> Result<Ciphertext, CkksError> {
    let polys: Vec<Poly<Ntt>> = (0..2)
        .map(|k| {
            Poly::from_words(
                parameters.degree(),
                &residues(&parameters.q()[..=level], parameters.degree(), k),
            )
        })
        .collect::<Result<_, _>>()?;
    let [c0, c1] = <[Poly<Ntt>; 2]>::try_from(polys).map_err(|_| CkksError::NoTerms)?;
    // Small, so that products fit a single limb.
    Ciphertext::from_polys(KeyId([0; 16]), level, 2f64.powi(4), c0, c1)
}

fn key_body(parameters: &Parameters, level: usize) -> Vec<Vec<u64>> {
    let mut moduli = parameters.q()[..=level].to_vec();
    moduli.extend(parameters.p());
    (0..parameters.digits(level)).map(|k| residues(&moduli, parameters.degree(), k as u64)).collect()
}

/// Numbers below each modulus, spread over its range; timing does not depend on them.
fn residues(moduli: &[u64], n: usize, salt: u64) -> Vec<u64> {
    let step = 0x9e37_79b9_7f4a_7c15u64;
    moduli.iter().flat_map(|&q| (0..n as u64).map(move |i| (i + salt).wrapping_mul(step) % q)).collect()
}
