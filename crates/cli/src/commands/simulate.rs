//! `polyveil simulate`: runs a plan on slots with modelled noise, before any key exists.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::error::{CliError, Exit};
use crate::pipeline::data::{Positions, SplitArg};
use crate::pipeline::figures::Figures;
use crate::pipeline::server::Server;
use crate::pipeline::{data, models, simulation, store};
use crate::session::Session;

/// Arguments of `simulate`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  polyveil simulate server.plan client.plan --data mnist5k")]
pub struct SimulateArgs {
    /// The server's half of the plan.
    server: PathBuf,
    /// The data owner's half of the plan.
    client: PathBuf,
    /// Data set: `mnist5k` (embedded), an .npz file, or a directory of idx files.
    #[arg(long)]
    data: String,
    /// Part of the data set.
    #[arg(long, value_enum, default_value = "test")]
    split: SplitArg,
    /// Which images of that part: for example 7, 0..20 or 3,8 [default: all].
    #[arg(long, value_parser = data::parse_positions)]
    index: Option<Positions>,
    /// Picks the noise.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Serialize)]
struct Outcome {
    #[serde(flatten)]
    figures: Figures,
    max_logit_error: f64,
    logit_range: f64,
    without_result: usize,
    agreement: f64,
}

/// Loads both halves and the images, simulates, measures.
pub fn run(args: &SimulateArgs, session: &Session) -> Result<(), CliError> {
    let plan = store::load_server_plan(&args.server)?;
    let client = store::load_client_plan(&args.client)?;
    if plan.id != client.id {
        let message = "the two halves belong to different plans";
        return Err(CliError::new(Exit::Mismatch, message).at(&args.client));
    }
    let preprocessing = models::parse_preprocessing(client.preprocessing.as_deref())?;
    let (shape, classes) = (&client.input_shape, &client.class_names);
    let data = data::open_for_plan(&args.data, shape, preprocessing.as_ref(), classes, session)?;
    let chosen = data::choose(&data, args.split, args.index.as_ref())?;
    let images = data::tensors(&data, &chosen, &client.input_shape, preprocessing.as_ref())?;
    let server = Server::new(plan)?;

    let display = session.progress("simulate", images.len() as u64);
    let simulated = simulation::run(&server, &client, &images, args.seed, session, &display)?;
    drop(display);
    let same = simulated.same_labels;
    let outcome = Outcome {
        figures: Figures::of_scores(&data, &chosen, &simulated.scores),
        max_logit_error: simulated.max_error,
        logit_range: simulated.range,
        without_result: simulated.without,
        agreement: same as f64 / images.len().max(1) as f64,
    };
    session.emit(&outcome, || {
        let mut text = format!(
            "simulated: {}\nlargest error {:.1e} of scores up to {:.2}; {} of {} labels as without noise\n",
            outcome.figures.line(),
            outcome.max_logit_error,
            outcome.logit_range,
            same,
            images.len()
        );
        if outcome.without_result > 0 {
            let (without, help) = (outcome.without_result, "counted as wrong; see `polyveil decrypt --help`");
            text.push_str(&format!(
                "{without} images without a result, their values leave the range of the plan: {help}\n"
            ));
        }
        text
    })
}
