//! `polyveil run`: the server's step. Needs a server plan, evaluation keys and ciphertexts; nothing
//! here could decrypt.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use polyveil_ckks::SeededCiphertext;
use polyveil_format::{CiphertextReader, CiphertextWriter};
use serde::Serialize;

use crate::error::CliError;
use crate::files::{self, Access};
use crate::machine;
use crate::output::{Table, bytes, seconds};
use crate::pipeline::server::{Server, mean_times};
use crate::pipeline::{planning, store};
use crate::session::Session;

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  polyveil run server.plan --keys evaluation.keys --input images.ct --out scores.ct"
)]
pub struct RunArgs {
    /// The server's half of the plan.
    plan: PathBuf,
    /// The data owner's evaluation keys.
    #[arg(long, value_name = "FILE", default_value = "evaluation.keys")]
    keys: PathBuf,
    /// The encrypted images.
    #[arg(long, value_name = "FILE", default_value = "images.ct")]
    input: PathBuf,
    /// Where the encrypted scores go.
    #[arg(long, value_name = "FILE", default_value = "scores.ct")]
    out: PathBuf,
}

#[derive(Serialize)]
struct Outcome {
    results: String,
    images: usize,
    batch: usize,
    load_s: f64,
    run_s: f64,
    seconds_per_image: f64,
    output_bytes: u64,
    peak_rss_bytes: u64,
    threads: usize,
    layers: Vec<LayerCost>,
}

/// One layer.
#[derive(Serialize)]
struct LayerCost {
    name: String,
    seconds: f64,
}

/// Checks that all files belong together and that memory suffices, loads the keys, runs the images.
pub fn run(args: &RunArgs, session: &Session) -> Result<(), CliError> {
    files::check_target(&args.out, Access::Shared)?;
    let server = Server::new(store::load_server_plan(&args.plan)?)?;
    let (plan, params) = (server.plan(), server.parameters());
    let mut reader =
        CiphertextReader::<_, SeededCiphertext>::open(files::open(&args.input)?, params, &plan.id)
            .map_err(|e| CliError::reading(&args.input, e))?;
    let key_reader = store::open_evaluation_keys(&args.keys, params, &plan.id)?;
    store::require_batch(&args.input, reader.count(), plan.batch())?;
    store::require_key(&args.input, reader.header(), &key_reader.header().key)?;
    session.require_memory("running the plan", planning::sizes(server.program())?.server_memory_bytes)?;

    let started = std::time::Instant::now();
    let keys = Arc::new(store::load_evaluation_keys(key_reader, &args.keys, session)?);
    let load_s = started.elapsed().as_secs_f64();

    let started = std::time::Instant::now();
    let count = polyveil_format::Count {
        per_batch: u32::try_from(plan.values[plan.output].layout.ciphertexts).unwrap_or(u32::MAX),
        ..reader.count()
    };
    let images = count.images as usize;
    let display = session.progress("run", server.progress_total(count.batches() as usize));
    let mut traces = Vec::new();
    let fail = |e| CliError::writing(&args.out, e);
    files::write_atomically(&args.out, Access::Shared, |to| {
        let mut writer = CiphertextWriter::new(to, params, plan.id, reader.key_id(), count).map_err(fail)?;
        while let Some(batch) = reader.next_batch().map_err(|e| CliError::reading(&args.input, e))? {
            let output = server.run(&keys, &batch, traces.len(), &display, &|_| (), session)?;
            writer.batch(&output.ciphertexts).map_err(fail)?;
            traces.push(output.trace);
        }
        writer.finish().map(|_| ()).map_err(fail)
    })?;
    drop(display);
    let run_s = started.elapsed().as_secs_f64();

    let layers = mean_times(&traces).into_iter().map(|(name, seconds)| LayerCost { name, seconds });
    let outcome = Outcome {
        results: args.out.display().to_string(),
        images,
        batch: plan.batch(),
        load_s,
        run_s,
        seconds_per_image: run_s / images.max(1) as f64,
        output_bytes: files::size(&args.out),
        peak_rss_bytes: machine::peak_rss(),
        threads: session.threads(),
        layers: layers.collect(),
    };
    session.emit(&outcome, || text(&outcome))
}

fn text(o: &Outcome) -> String {
    let mut table = Table::new(["layer", "time"]);
    for layer in &o.layers {
        table.row([layer.name.clone(), seconds(layer.seconds)]);
    }
    format!(
        "{}\n{} images{} in {} ({} an image, {} threads), keys loaded in {}, peak memory {}\nwrote {} ({})\n",
        table.render(),
        o.images,
        if o.batch > 1 { format!(", {} at a time,", o.batch) } else { String::new() },
        seconds(o.run_s),
        seconds(o.seconds_per_image),
        o.threads,
        seconds(o.load_s),
        bytes(o.peak_rss_bytes),
        o.results,
        bytes(o.output_bytes)
    )
}
