//! `polyveil decrypt`: turns encrypted results into scores and class names.

use std::path::PathBuf;

use clap::Args;
use polyveil_ckks::Ciphertext;
use polyveil_format::CiphertextReader;
use polyveil_train::data::npy;
use serde::Serialize;

use crate::error::CliError;
use crate::files::{self, Access};
use crate::output::Table;
use crate::pipeline::client::Client;
use crate::pipeline::figures::argmax;
use crate::pipeline::store;
use crate::session::Session;

/// Arguments of `decrypt`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  polyveil decrypt client.plan scores.ct\n\n\
    Scores are rounded to the precision that the plan declares. With --flooding, Gaussian noise that drowns the \
    error is added first: scores shared with somebody who also has the ciphertexts then say next to nothing \
    of the secret key, and lose BITS/2 + 2 bits of precision and more. See SECURITY.md.")]
pub struct DecryptArgs {
    /// The data owner's half of the plan.
    plan: PathBuf,
    /// The encrypted scores.
    #[arg(default_value = "scores.ct")]
    results: PathBuf,
    /// The secret key.
    #[arg(long, value_name = "FILE", default_value = "secret.key")]
    secret: PathBuf,
    /// Also write the scores as an array (.npy, one row an image).
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Add noise that drowns the error of the scores, for this many bits of statistical security
    /// [default: none].
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u32).range(1..=48))]
    flooding: Option<u32>,
    /// How many results under this secret key will be shared in all, those of other files included
    /// [default: the images of this file].
    #[arg(long, value_name = "N", requires = "flooding", value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    shared_results: Option<u64>,
}

#[derive(Serialize)]
struct Outcome {
    images: Vec<Row>,
    precision_bits: i32,
    noise_std: f64,
    peak_rss_bytes: u64,
}

#[derive(Serialize)]
struct Row {
    index: usize,
    class: usize,
    class_name: String,
    scores: Vec<f64>,
}

/// Most classes that the table shows all scores of.
const WIDE: usize = 12;

/// Reads plan, key and results, decrypts, prints.
pub fn run(args: &DecryptArgs, session: &Session) -> Result<(), CliError> {
    if let Some(out) = &args.out {
        files::check_target(out, Access::Shared)?;
    }
    let client = Client::new(store::load_client_plan(&args.plan)?)?;
    let fail = |e| CliError::reading(&args.results, e);
    let open = files::open(&args.results)?;
    let mut reader = CiphertextReader::<_, Ciphertext>::open(open, client.parameters(), &client.plan().id)
        .map_err(fail)?;
    let secret = store::load_secret(&args.secret, client.parameters())?;
    reader.header().expect_key(&secret.key_id().0).map_err(fail)?;
    store::require_batch(&args.results, reader.count(), client.plan().batch())?;

    let release = match args.flooding {
        None => client.rounding()?,
        Some(bits) => {
            let images = u64::from(reader.count().images).max(1);
            client.flooding(bits, args.shared_results.unwrap_or(images))?
        }
    };
    let mut images = Vec::new();
    let count = reader.count().images as usize;
    while let Some(result) = reader.next_batch().map_err(fail)? {
        session.check_cancel()?;
        let batch = client.decrypt(&secret, &result, &release).map_err(|e| e.at(&args.results))?;
        // The last batch may have places that no image took.
        for scores in batch.into_iter().take(count - images.len()) {
            let class = argmax(&scores);
            images.push(Row { index: images.len(), class, class_name: client.class_name(class), scores });
        }
    }
    if let Some(out) = &args.out {
        let classes = images.first().map_or(0, |row| row.scores.len());
        let flat: Vec<f32> = images.iter().flat_map(|row| row.scores.iter().map(|&s| s as f32)).collect();
        files::write_bytes(out, &npy::write_f32(&[images.len(), classes], &flat))?;
    }
    let outcome = Outcome {
        images,
        precision_bits: release.bits(),
        noise_std: release.noise_std(),
        peak_rss_bytes: crate::machine::peak_rss(),
    };
    session.emit(&outcome, || text(&outcome, &client))
}

fn text(outcome: &Outcome, client: &Client) -> String {
    let classes = outcome.images.first().map_or(0, |row| row.scores.len());
    let wide = classes <= WIDE;
    let mut heading = vec!["image".to_string(), "class".into(), "score".into()];
    if wide {
        heading.extend((0..classes).map(|c| client.class_name(c)));
    }
    let mut table = Table::new(heading);
    for row in &outcome.images {
        let best = row.scores.get(row.class).copied().unwrap_or(f64::NAN);
        let mut cells = vec![row.index.to_string(), row.class_name.clone(), format!("{best:.3}")];
        if wide {
            cells.extend(row.scores.iter().map(|s| format!("{s:.3}")));
        }
        table.row(cells);
    }
    if outcome.noise_std == 0.0 {
        return table.render();
    }
    let (std, bits) = (outcome.noise_std, outcome.precision_bits);
    format!("{}\nnoise of standard deviation {std:.2e} was added; rounded to {bits} bits\n", table.render())
}
