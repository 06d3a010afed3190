//! Unit costs of the machine at hand, measured in about a second.
//!
//! Small parameters of the same ring degree stand in for the plan's: costs are per limb, so a few
//! limbs tell. Each figure is the least of several repetitions, because other work on the machine can
//! only add to it.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use polyveil_ckks::{
    Ciphertext, CkksError, EncodedWeights, Encoder, EvaluationKeys, Evaluator, KeyId, Ntt, Parameters,
    ParametersLiteral, Poly, RingKind, SwitchingKey,
};
use polyveil_plan::UnitCosts;

/// Limbs of the stand-in ciphertexts.
const LIMBS: usize = 6;
/// Special limbs, and limbs of a digit, of the stand-in keys.
const SPECIALS: usize = 2;
/// Rotations of the longer of two measurements.
const ROTATIONS: usize = 5;
/// Repetitions of each measurement.
const REPEATS: usize = 5;
/// Terms of a measured sum of products.
const TERMS: usize = 8;

/// Measures the unit costs at ring degree `2^log_n`.
///
/// # Errors
/// Where no parameters exist at that degree.
pub fn measure_unit_costs(log_n: u32) -> Result<UnitCosts, CkksError> {
    let threads = rayon::current_num_threads() as f64;
    // Steps of a plan are spread over threads by ciphertext and sum; not all of it scales.
    let speedup = 1.0 + (threads - 1.0) * 0.8;
    // Costs are those of one thread; a pool of one keeps the engine's own threads out.
    match rayon::ThreadPoolBuilder::new().num_threads(1).build() {
        Ok(pool) => pool.install(|| measure(log_n, speedup)),
        Err(_) => measure(log_n, speedup),
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
    let encoder = Encoder::new(&parameters);
    let slots: Vec<f64> = (0..n).map(|i| (i % 7) as f64 / 7.0).collect();
    let body = key_body(&parameters, level);
    let keys = (1..=ROTATIONS)
        .map(|r| Ok((r, SwitchingKey::from_parts(&parameters, level, [r as u8; 32], body.clone())?)))
        .collect::<Result<BTreeMap<_, _>, CkksError>>()?;
    let keys = EvaluationKeys::from_parts(&parameters, KeyId([0; 16]), None, keys)?;
    keys.expand(&parameters);
    let evaluator = Evaluator::with_keys(&parameters, keys.into())?;
    let limbs = LIMBS as f64;

    let table = &parameters.tables(level)[0];
    let mut limb = ciphertext.parts()[0].limb(0).to_vec();
    let ntt_ns = least(|| {
        table.forward(black_box(&mut limb));
        Ok(())
    })?;
    let full = EncodedWeights::Full(encoder.encode(&slots, level, 2f64.powi(30))?);
    let periodic =
        EncodedWeights::Periodic(encoder.encode_periodic(&slots[..16.min(n)], level, 2f64.powi(30))?);
    let sum = |weights: &EncodedWeights| {
        let terms = vec![(&ciphertext, weights); TERMS];
        least(|| evaluator.linear_combination(black_box(&terms)).map(drop))
    };
    let mac_full_ns = sum(&full)? / (2.0 * limbs * TERMS as f64);
    let mac_periodic_ns = sum(&periodic)? / (2.0 * limbs * TERMS as f64);
    let encode_ns = least(|| encoder.encode(black_box(&slots), level, 2f64.powi(30)).map(drop))?;
    let embed_ns = (encode_ns - limbs * ntt_ns).max(0.0);

    // One decomposition and one key product each: the difference tells the two apart.
    let one = least(|| evaluator.rotate_hoisted(black_box(&ciphertext), &[1]).map(drop))?;
    let all: Vec<usize> = (1..=ROTATIONS).collect();
    let many = least(|| evaluator.rotate_hoisted(black_box(&ciphertext), &all).map(drop))?;
    let switch_ns = (many - one).max(0.0) / (ROTATIONS - 1) as f64;
    let decompose_ns = (one - switch_ns).max(0.0);
    // The planner's counts of both parts (see its cost model), solved for the unknown unit costs.
    let (digits, specials) = (parameters.digits(level) as f64, SPECIALS as f64);
    let (decompose_ntts, decompose_terms) = (digits * (limbs + specials), limbs * (limbs + specials));
    let convert_ns = ((decompose_ns - decompose_ntts * ntt_ns) / decompose_terms).max(0.0);
    let (switch_ntts, switch_terms) = (2.0 * (limbs + specials), 2.0 * specials * limbs);
    let rest = switch_ns - switch_ntts * ntt_ns - switch_terms * convert_ns;
    let key_mac_ns = (rest / (2.0 * digits * (limbs + specials))).max(0.0);
    Ok(UnitCosts { ntt_ns, mac_full_ns, mac_periodic_ns, key_mac_ns, convert_ns, embed_ns, speedup })
}

/// Nanoseconds of the quickest of several repetitions, after one to warm up.
fn least(mut work: impl FnMut() -> Result<(), CkksError>) -> Result<f64, CkksError> {
    work()?;
    let mut best = f64::INFINITY;
    for _ in 0..REPEATS {
        let started = Instant::now();
        work()?;
        best = best.min(started.elapsed().as_secs_f64() * 1e9);
    }
    Ok(best)
}

fn random_ciphertext(parameters: &Parameters, level: usize) -> Result<Ciphertext, CkksError> {
    let polys: Vec<Poly<Ntt>> = (0..2)
        .map(|k| {
            Poly::from_raw(parameters.degree(), residues(&parameters.q()[..=level], parameters.degree(), k))
        })
        .collect::<Result<_, _>>()?;
    let [c0, c1] = <[Poly<Ntt>; 2]>::try_from(polys).map_err(|_| CkksError::NoTerms)?;
    Ciphertext::from_polys(KeyId([0; 16]), 2f64.powi(35), c0, c1)
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
