//! `polyveil bench net`: the whole encrypted way in memory but for planning, timed and held against plain arithmetic.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use polyveil_ckks::{Ciphertext, KeySpec, PrecisionStats};
use polyveil_exec::{LayerTime, Output};
use polyveil_net::{Tensor, exec};
use polyveil_plan::{ClientPlan, LayerEstimate, ServerPlan};
use polyveil_train::data::npy;
use rayon::prelude::*;
use serde::Serialize;

use crate::error::{CliError, Exit};
use crate::files::{self, Access};
use crate::machine::Peaks;
use crate::output::{Table, bytes, seconds};
use crate::pipeline::client::{Client, Decrypted};
use crate::pipeline::planning::PlanArgs;
use crate::pipeline::server::Server;
use crate::pipeline::{child, images, models, planning, store};
use crate::session::Session;

/// Arguments of `bench net`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  polyveil bench net student.onnx --input X.npy --output Y.npy --json")]
pub struct NetArgs {
    /// The HE-friendly network (ONNX).
    model: PathBuf,
    /// One input, or as many as the batch has (.npy, floating point) [default: uniform noise in [0, 1)].
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Where the decrypted scores go (.npy), so that another runtime can be held against them.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Times the same encrypted input is run, one after the other; the time is the median, and the first one, which meets fresh
    /// memory, is given as well.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,
    /// Picks the noise of the default input.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    plan: PlanArgs,
}

#[derive(Serialize)]
struct Outcome {
    network: String,
    batch: usize,
    compile_s: f64,
    keygen_s: f64,
    encrypt_s: f64,
    runs: u16,
    run_s: f64,
    run_s_per_image: f64,
    first_run_s: f64,
    least_run_s: f64,
    most_run_s: f64,
    decrypt_s: f64,
    peak_rss_bytes: u64,
    eval_key_bytes: u64,
    input_bytes: u64,
    output_bytes: u64,
    max_abs_error: f64,
    rms_error: f64,
    min_bits: f64,
    mean_bits: f64,
    output_abs_max: f64,
    log_n: u32,
    log_qp: f64,
    levels: usize,
    security_bits: u32,
    rotations: usize,
    threads: usize,
    predicted_run_s: f64,
    predicted_memory_bytes: u64,
    predicted_max_error: f64,
    layers: Vec<Layer>,
}

/// One of the runs of the same input.
struct Run {
    run_s: f64,
    decrypt_s: f64,
    output: Output<Ciphertext>,
    scores: Vec<f64>,
}

/// One layer, measured (median of the runs) and predicted.
#[derive(Serialize)]
struct Layer {
    name: String,
    seconds: f64,
    predicted_s: f64,
    peak_rss_bytes: u64,
    predicted_memory_bytes: u64,
}

/// Compiles; makes keys, encrypts, runs and decrypts one batch in memory; compares every image of every run.
pub fn run(args: &NetArgs, session: &Session) -> Result<(), CliError> {
    if let Some(path) = &args.output {
        files::check_target(path, Access::Shared)?;
    }
    let graph = models::load(&args.model)?;
    models::require_he_friendly(&graph, &args.model)?;
    let noise = models::random_inputs(graph.input_shape(), args.plan.batch.max(4), args.seed);
    let images = match &args.input {
        Some(path) => inputs(path, graph.input_shape(), args.plan.batch)?,
        None => noise[..args.plan.batch].to_vec(),
    };
    let expected = images
        .par_iter()
        .map(|image| exec::run_f64(&graph, image))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| CliError::new(Exit::Model, e).at(&args.model))?;
    let expected: Vec<f64> = expected.concat();

    let calibration: Vec<_> = images.iter().take(planning::CALIBRATION_IMAGES).chain(&noise[..4]).collect();
    let (server, client, compile_s) = compile(args, &calibration, session)?;
    let server = Server::new(server)?;
    let estimate = planning::estimate(server.program())?;
    session.require_memory("running the plan", estimate.server_memory_bytes)?;
    let client = Client::new(client)?;
    drop(graph);
    let peaks = Peaks::start();

    let timer = Instant::now();
    let secret = client.new_secret()?;
    let keys = Arc::new(client.evaluation_keys(&secret, session)?);
    let keygen_s = timer.elapsed().as_secs_f64();

    let name = |(index, image)| (format!("input {index}"), image);
    let images: Vec<_> = images.into_iter().enumerate().map(name).collect();
    let timer = Instant::now();
    let encrypted = client.encrypt(&secret, &images)?;
    let encrypt_s = timer.elapsed().as_secs_f64();

    // Expanding the keys' seeds is work of loading keys, not of an inference.
    keys.expand(server.parameters());
    let display = session.progress("run", server.progress_total(usize::from(args.runs)));
    let rounding = client.rounding()?;
    let mut runs = Vec::new();
    for index in 0..args.runs.into() {
        let entered = |_| peaks.next();
        let timer = Instant::now();
        let output = server.run(&keys, &encrypted, index, &display, &entered, session)?;
        let run_s = timer.elapsed().as_secs_f64();
        peaks.next();
        let timer = Instant::now();
        let scores = match client.decrypt(&secret, &output.ciphertexts, &rounding)? {
            Decrypted::Scores(rows) => rows.concat(),
            // Further off than any tolerance.
            Decrypted::Escaped(_) => vec![f64::INFINITY; expected.len()],
        };
        let decrypt_s = timer.elapsed().as_secs_f64();
        runs.push(Run { run_s, decrypt_s, output, scores });
    }
    drop(display);
    let peaks = peaks.finish();
    let run_times = || runs.iter().map(|run| run.run_s);
    let run_s = median(run_times());
    if let Some(path) = &args.output {
        let values: Vec<f32> = runs[0].scores.iter().map(|&s| s as f32).collect();
        files::write_bytes(
            path,
            &npy::write_f32(&[args.plan.batch, values.len() / args.plan.batch], &values),
        )?;
    }

    let parameters = client.parameters();
    let spec: &KeySpec = &client.plan().keys;
    let stored = |level: usize, seeded| parameters.ciphertext_stored_bytes(level, seeded);
    // Of each run: before the first layer keys and input or the decryption of the run before, then the layers.
    let layers = runs[0].output.trace.iter().zip(&estimate.layers).enumerate();
    let phases = runs[0].output.trace.len() + 1;
    let layer = |(index, (first, estimate)): (usize, (&LayerTime, &LayerEstimate))| Layer {
        name: first.name.clone(),
        seconds: median(runs.iter().filter_map(|run| run.output.trace.get(index)).map(|l| l.seconds)),
        predicted_s: estimate.seconds,
        peak_rss_bytes: peaks.iter().skip(index + 1).step_by(phases).copied().max().unwrap_or(0),
        predicted_memory_bytes: estimate.memory_bytes,
    };
    let scores: Vec<f64> = runs.iter().flat_map(|run| run.scores.iter().copied()).collect();
    let precision = PrecisionStats::of(&scores, &expected.repeat(runs.len()));
    let outcome = Outcome {
        network: client.plan().network.clone(),
        batch: args.plan.batch,
        compile_s,
        keygen_s,
        encrypt_s,
        runs: args.runs,
        run_s,
        run_s_per_image: run_s / args.plan.batch as f64,
        first_run_s: runs[0].run_s,
        least_run_s: run_times().fold(f64::INFINITY, f64::min),
        most_run_s: run_times().fold(0.0, f64::max),
        decrypt_s: median(runs.iter().map(|run| run.decrypt_s)),
        peak_rss_bytes: peaks.iter().copied().max().unwrap_or(0),
        eval_key_bytes: spec.stored_bytes(parameters),
        input_bytes: encrypted.iter().map(|c| stored(c.level(), true)).sum(),
        output_bytes: runs[0].output.ciphertexts.iter().map(|c| stored(c.level(), false)).sum(),
        max_abs_error: precision.max_error(),
        rms_error: precision.rms_error(),
        min_bits: precision.min_bits(),
        mean_bits: precision.mean_bits(),
        output_abs_max: expected.iter().map(|v| v.abs()).fold(0.0, f64::max),
        log_n: parameters.log_n(),
        log_qp: parameters.log_qp(),
        levels: parameters.max_level(),
        security_bits: parameters.security().bits(),
        rotations: spec.rotations.len(),
        threads: session.threads(),
        predicted_run_s: estimate.seconds,
        predicted_memory_bytes: estimate.server_memory_bytes,
        predicted_max_error: estimate.max_error,
        layers: layers.map(layer).collect(),
    };
    session.emit(&outcome, || text(&outcome))?;
    verify(&outcome, args.plan.tolerance)
}

/// Both halves of the plan, and the seconds of `polyveil compile`. It is a process of its own, as it is in use: planning takes up to a
/// few times the memory of a run, and what it leaves behind in this process would be counted as memory of the run.
fn compile(
    args: &NetArgs,
    calibration: &[&Tensor],
    session: &Session,
) -> Result<(ServerPlan, ClientPlan, f64), CliError> {
    let failed = |e: std::io::Error| CliError::io(&std::env::temp_dir(), &e, "write");
    let folder = tempfile::tempdir().map_err(failed)?;
    let model = std::path::absolute(&args.model).map_err(|e| CliError::io(&args.model, &e, "read"))?;
    let shape = [&[calibration.len()], calibration[0].shape()].concat();
    let values: Vec<f32> = calibration.iter().flat_map(|image| image.data()).copied().collect();
    files::write_bytes(&folder.path().join("calibration.npy"), &npy::write_f32(&shape, &values))?;
    let model = model.to_str().ok_or_else(|| {
        let message = "the name of the file is no Unicode, which a command needs";
        CliError::new(Exit::Usage, message).at(&args.model)
    })?;
    let asked = args.plan.to_args();
    let mut compile = vec!["compile", model, "--calibration", "calibration.npy"];
    compile.extend(asked.iter().map(String::as_str));
    let outcome = child::run(folder.path(), &compile, session)?;
    let server = store::load_server_plan(&folder.path().join("server.plan"))?;
    let client = store::load_client_plan(&folder.path().join("client.plan"))?;
    let seconds = outcome["seconds"].as_f64();
    let seconds = seconds.ok_or_else(|| CliError::new(Exit::Internal, "`polyveil compile` took no time"))?;
    Ok((server, client, seconds))
}

/// As many as a batch has; a single one takes all places.
fn inputs(path: &std::path::Path, shape: &[usize], batch: usize) -> Result<Vec<Tensor>, CliError> {
    let images = images::load(path, shape, None)?;
    match images.as_slice() {
        [one] => Ok(vec![one.clone(); batch]),
        all if all.len() == batch => Ok(images),
        _ => {
            let wanted = if batch == 1 { "one input".into() } else { format!("one input or {batch}") };
            let message = format!("{wanted} expected, found {}", images.len());
            Err(CliError::new(Exit::Data, message).at(path))
        }
    }
}

fn median(seconds: impl Iterator<Item = f64>) -> f64 {
    let mut seconds: Vec<f64> = seconds.collect();
    seconds.sort_by(f64::total_cmp);
    let (low, high) = (seconds.len().saturating_sub(1) / 2, seconds.len() / 2);
    (seconds.get(low).unwrap_or(&0.0) + seconds.get(high).unwrap_or(&0.0)) / 2.0
}

/// A result further off than allowed is a failure, with its own exit code.
fn verify(outcome: &Outcome, tolerance: f64) -> Result<(), CliError> {
    let allowed = tolerance * outcome.output_abs_max;
    if outcome.max_abs_error <= allowed {
        return Ok(());
    }
    let message = format!(
        "the decrypted scores are off by {:.2e}, {allowed:.2e} is allowed ({tolerance} of the largest score)",
        outcome.max_abs_error
    );
    Err(CliError::new(Exit::Verification, message))
}

fn text(o: &Outcome) -> String {
    let mut table = Table::facts(&o.network, "");
    for (name, value) in
        [("compile", o.compile_s), ("keygen", o.keygen_s), ("encrypt", o.encrypt_s), ("decrypt", o.decrypt_s)]
    {
        table.row([name.to_string(), seconds(value)]);
    }
    table.row(["run".into(), format!("{} (predicted {})", seconds(o.run_s), seconds(o.predicted_run_s))]);
    if o.runs > 1 {
        let [first, least, most] = [o.first_run_s, o.least_run_s, o.most_run_s].map(seconds);
        let value = format!("median of {}; first {first}, least {least}, most {most}", o.runs);
        table.row(["runs".into(), value]);
    }
    if o.batch > 1 {
        let each = seconds(o.run_s_per_image);
        table.row([format!("of {} images, each", o.batch), each]);
    }
    let memory = format!("{} (predicted {})", bytes(o.peak_rss_bytes), bytes(o.predicted_memory_bytes));
    table.row(["peak memory".into(), memory]);
    table.row(["evaluation keys".into(), format!("{} ({} rotations)", bytes(o.eval_key_bytes), o.rotations)]);
    table.row(["upload, download".into(), format!("{}, {}", bytes(o.input_bytes), bytes(o.output_bytes))]);
    let ring = format!("N = 2^{}, {} levels, log2(QP) = {:.1}", o.log_n, o.levels, o.log_qp);
    table.row(["ring".into(), ring]);
    table.row(["security".into(), format!("{} bits", o.security_bits)]);
    let error = format!(
        "{:.2e} (predicted {:.2e}) of {:.3e}",
        o.max_abs_error, o.predicted_max_error, o.output_abs_max
    );
    table.row(["largest error".into(), error]);
    let precision = format!("{:.1} bits at least, {:.1} on average", o.min_bits, o.mean_bits);
    table.row(["precision".into(), precision]);
    table.row(["threads".into(), o.threads.to_string()]);
    let mut layers = Table::new(["layer", "time", "predicted", "peak memory", "predicted"]);
    for layer in &o.layers {
        let times = [layer.seconds, layer.predicted_s].map(seconds);
        let memory = [layer.peak_rss_bytes, layer.predicted_memory_bytes].map(bytes);
        layers.row([vec![layer.name.clone()], times.to_vec(), memory.to_vec()].concat());
    }
    format!("{}\n{}", table.render(), layers.render())
}
