//! `polyveil compile`: turns an HE-friendly network into the two halves of a plan.

use std::path::PathBuf;

use clap::Args;
use polyveil_train::Split;
use serde::Serialize;

use crate::commands::estimate::Costs;
use crate::error::CliError;
use crate::files::{self, Access};
use crate::output::bytes;
use crate::pipeline::data::DataArgs;
use crate::pipeline::planning::PlanArgs;
use crate::pipeline::server::Server;
use crate::pipeline::{data, images, models, planning, store};
use crate::session::Session;

/// Arguments of `compile`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  polyveil compile student.onnx --data mnist5k\n  \
    polyveil compile student.onnx --data mnist5k --batch 64\n  \
    polyveil compile student.onnx --data mnist5k --max-keys 100M\n\n\
    writes server.plan (with the weights, for the server) and client.plan (without, for the data owner).")]
pub struct CompileArgs {
    /// The HE-friendly network (ONNX).
    model: PathBuf,
    /// Data set whose training images show the range of every value; without any, uniform noise in
    /// [0, 1) stands in.
    #[arg(long, conflicts_with = "calibration")]
    data: Option<String>,
    /// Images that show the range of every value (.npy, .npz, PNG, JPEG).
    #[arg(long, value_name = "FILE")]
    calibration: Vec<PathBuf>,
    /// Where the server's half goes.
    #[arg(long, value_name = "FILE", default_value = "server.plan")]
    server: PathBuf,
    /// Where the data owner's half goes.
    #[arg(long, value_name = "FILE", default_value = "client.plan")]
    client: PathBuf,
    #[command(flatten)]
    plan: PlanArgs,
}

#[derive(Serialize)]
struct Outcome {
    server_plan: String,
    client_plan: String,
    plan_id: String,
    seconds: f64,
    server_plan_bytes: u64,
    client_plan_bytes: u64,
    estimate: Costs,
}

/// Loads the network, gathers calibration images, plans, writes both halves.
pub fn run(args: &CompileArgs, session: &Session) -> Result<(), CliError> {
    files::check_target(&args.server, Access::Shared)?;
    files::check_target(&args.client, Access::Shared)?;
    let graph = models::load(&args.model)?;
    models::require_he_friendly(&graph, &args.model)?;
    let preprocessing = models::preprocessing(&graph)?;
    let mut calibration = Vec::new();
    if let Some(spec) = &args.data {
        let data = data::open_for(spec, &graph, &DataArgs::default(), session)?;
        let chosen: Vec<usize> =
            data.indices(Split::Train).iter().copied().take(planning::CALIBRATION_IMAGES).collect();
        calibration = data::tensors(&data, &chosen, graph.input_shape(), preprocessing.as_ref())?;
    }
    for path in &args.calibration {
        calibration.extend(images::load(path, graph.input_shape(), preprocessing.as_ref())?);
    }
    if calibration.is_empty() {
        session.note("no calibration images: ranges are measured on uniform noise in [0, 1)");
    }

    let started = std::time::Instant::now();
    let compiled = planning::compile_batch(&graph, args.plan.options(calibration), session)?;
    let seconds = started.elapsed().as_secs_f64();
    session.check_cancel()?;
    let server = Server::new(compiled.server)?;
    let estimate = planning::estimate(server.program())?;
    store::save_server_plan(server.plan(), &args.server)?;
    store::save_client_plan(&compiled.client, &args.client)?;

    let outcome = Outcome {
        server_plan: args.server.display().to_string(),
        client_plan: args.client.display().to_string(),
        plan_id: super::hex(&server.plan().id),
        seconds,
        server_plan_bytes: files::size(&args.server),
        client_plan_bytes: files::size(&args.client),
        estimate: Costs::new(&estimate, session.threads()),
    };
    session.emit(&outcome, || {
        let (server, client) = (bytes(outcome.server_plan_bytes), bytes(outcome.client_plan_bytes));
        format!(
            "{}\nwrote {} ({server}, for the server) and {} ({client}, for the data owner)\n",
            outcome.estimate.text(),
            outcome.server_plan,
            outcome.client_plan
        )
    })
}
