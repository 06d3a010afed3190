//! `polyveil decrypt`: turns encrypted results into scores and class names.

use std::path::PathBuf;

use clap::Args;
use polyveil_ckks::Ciphertext;
use polyveil_client::ClientError;
use polyveil_format::CiphertextReader;
use polyveil_train::data::npy;
use serde::Serialize;

use crate::error::{CliError, Exit};
use crate::files::{self, Access};
use crate::output::Table;
use crate::pipeline::client::{Client, Decrypted};
use crate::pipeline::figures::argmax;
use crate::pipeline::store;
use crate::session::Session;

/// Arguments of `decrypt`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  polyveil decrypt client.plan scores.ct\n\n\
    A result with values beyond the plan's range is none: its values wrapped around on the way, or its image is \
    unlike those that the plan was made with. Such images are listed without class and scores (null with --json, NaN \
    in the array), the others as usual, and the exit code is 11.\n\n\
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
    class: Option<usize>,
    class_name: Option<String>,
    /// NaN, which JSON has as null, where values left the plan's range.
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
    let mut images: Vec<Row> = Vec::new();
    let mut escaped = None;
    let count = reader.count().images as usize;
    while let Some(result) = reader.next_batch().map_err(fail)? {
        session.check_cancel()?;
        // The last batch may have places that no image took.
        let places = client.plan().batch().min(count - images.len());
        let batch = match client.decrypt(&secret, &result, &release).map_err(|e| e.at(&args.results))? {
            Decrypted::Scores(rows) => rows,
            Decrypted::Escaped(why) => {
                escaped.get_or_insert(why);
                vec![vec![f64::NAN; client.classes()]; places]
            }
        };
        for scores in batch.into_iter().take(places) {
            let class = scores.iter().all(|s| s.is_finite()).then(|| argmax(&scores));
            let class_name = class.map(|class| client.class_name(class));
            images.push(Row { index: images.len(), class, class_name, scores });
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
    session.emit(&outcome, || text(&outcome, &client))?;
    escaped.map_or(Ok(()), |why| Err(no_result(&outcome, &why).at(&args.results)))
}

/// What is to be said of images without a result.
fn no_result(outcome: &Outcome, why: &ClientError) -> CliError {
    let without = outcome.images.iter().filter(|row| row.class.is_none());
    let list: Vec<String> = without.map(|row| row.index.to_string()).collect();
    let message = format!(
        "no result for {} of {} images ({}): {why}",
        list.len(),
        outcome.images.len(),
        list.join(", ")
    );
    CliError::new(Exit::Verification, message).help(
        "look at these images, or at those encrypted with them: marks, borders or another device may drive values out of range. Where \
         such images are usual, compile with some of them among the data, or convert with augmentation.hard_cases",
    )
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
        let score = |value: Option<&f64>| match value {
            Some(value) if value.is_finite() => format!("{value:.3}"),
            _ => "–".into(),
        };
        let best = row.class.and_then(|class| row.scores.get(class));
        let class_name = row.class_name.clone().unwrap_or_else(|| "out of range".into());
        let mut cells = vec![row.index.to_string(), class_name, score(best)];
        if wide {
            cells.extend(row.scores.iter().map(|s| score(Some(s))));
        }
        table.row(cells);
    }
    if outcome.noise_std == 0.0 {
        return table.render();
    }
    let (std, bits) = (outcome.noise_std, outcome.precision_bits);
    format!("{}\nnoise of standard deviation {std:.2e} was added; rounded to {bits} bits\n", table.render())
}
