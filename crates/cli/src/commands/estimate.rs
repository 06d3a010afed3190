//! `polyveil estimate`: time, memory and sizes of a plan, before any key exists.

use std::path::PathBuf;

use clap::Args;
use polyveil_plan::{Estimate, LayerEstimate, ServerPlan};
use serde::Serialize;

use crate::error::CliError;
use crate::output::{Table, bytes, seconds};
use crate::pipeline::planning::PlanArgs;
use crate::pipeline::server::Server;
use crate::pipeline::{models, planning, store};
use crate::session::Session;
use crate::{files, machine};

/// Arguments of `estimate`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  polyveil estimate server.plan\n  polyveil estimate student.onnx")]
pub struct EstimateArgs {
    /// A server plan, or a network (ONNX), which is planned on the fly; what follows is for a network.
    file: PathBuf,
    #[command(flatten)]
    plan: PlanArgs,
}

/// The `--json` form of an estimate.
#[derive(Clone, Debug, Serialize)]
pub struct Costs {
    /// Images that are run together.
    pub batch: usize,
    /// Encrypted inference of one batch on this machine.
    pub seconds: f64,
    /// The same, divided by the images.
    pub seconds_per_image: f64,
    /// Peak memory of `run`.
    pub server_memory_bytes: u64,
    /// Peak memory of `keygen`.
    pub client_memory_bytes: u64,
    /// Size of the evaluation keys, uploaded once.
    pub key_bytes: u64,
    /// Size of one encrypted batch.
    pub upload_bytes: u64,
    /// Size of one batch's encrypted scores.
    pub download_bytes: u64,
    /// Security by the table.
    pub security_bits: u32,
    /// log2 of the ring degree.
    pub log_n: u32,
    /// Bits of all moduli.
    pub log_qp: u32,
    /// Levels.
    pub levels: usize,
    /// Rotation keys.
    pub rotations: usize,
    /// Predicted largest error of a score.
    pub max_error: f64,
    /// log2 of the score range over that error.
    pub precision_bits: f64,
    /// Threads that the seconds hold for.
    pub threads: usize,
    /// Memory that this machine has free.
    pub memory_available_bytes: u64,
    /// Time and memory by layer.
    pub layers: Vec<LayerEstimate>,
}

/// Loads or makes the plan, estimates, prints.
pub fn run(args: &EstimateArgs, session: &Session) -> Result<(), CliError> {
    let server = Server::new(load(args, session)?)?;
    let costs = Costs::new(&planning::estimate(server.program())?, session.threads());
    session.emit(&costs, || costs.text())
}

fn load(EstimateArgs { file: path, plan }: &EstimateArgs, session: &Session) -> Result<ServerPlan, CliError> {
    if files::is_ours(path) {
        return store::load_server_plan(path);
    }
    let graph = models::load(path)?;
    models::require_he_friendly(&graph, path)?;
    // Says what a batch would take, also where there is no room for it.
    Ok(planning::compile(&graph, &plan.options(Vec::new()), session)?.server)
}

impl Costs {
    /// From an estimate made with this many threads.
    pub fn new(e: &Estimate, threads: usize) -> Self {
        Self {
            batch: e.batch,
            seconds: e.seconds,
            seconds_per_image: e.seconds / e.batch.max(1) as f64,
            server_memory_bytes: e.server_memory_bytes,
            client_memory_bytes: e.client_memory_bytes,
            key_bytes: e.key_bytes,
            upload_bytes: e.upload_bytes,
            download_bytes: e.download_bytes,
            security_bits: e.security_bits,
            log_n: e.log_n,
            log_qp: e.log_qp,
            levels: e.levels,
            rotations: e.rotations,
            max_error: e.max_error,
            precision_bits: e.precision_bits,
            threads,
            memory_available_bytes: machine::available_memory(),
            layers: e.layers.clone(),
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut table = Table::facts("estimate", "");
        let fits =
            if self.server_memory_bytes <= self.memory_available_bytes { "fits" } else { "DOES NOT FIT" };
        let available = bytes(self.memory_available_bytes);
        let (one, time) = match self.batch {
            1 => ("one image".into(), seconds(self.seconds)),
            n => {
                let each = seconds(self.seconds_per_image);
                (format!("{n} images"), format!("{}, {each} each", seconds(self.seconds)))
            }
        };
        table.row([format!("time, {one}"), format!("{time} ({} threads)", self.threads)]);
        table.row([
            "server memory".into(),
            format!("{} ({fits}: {available} free here)", bytes(self.server_memory_bytes)),
        ]);
        table.row(["client memory (keygen)".into(), bytes(self.client_memory_bytes)]);
        table.row(["evaluation keys, once".into(), bytes(self.key_bytes)]);
        table.row([format!("upload, {one}"), bytes(self.upload_bytes)]);
        table.row([format!("download, {one}"), bytes(self.download_bytes)]);
        table.row(["security".into(), format!("{} bits", self.security_bits)]);
        table.row(["ring".into(), format!("N = 2^{}, log2(QP) = {}", self.log_n, self.log_qp)]);
        table.row(["levels".into(), self.levels.to_string()]);
        table.row(["rotation keys".into(), self.rotations.to_string()]);
        table.row([
            "predicted error".into(),
            format!("{:.1e} ({:.1} bits)", self.max_error, self.precision_bits),
        ]);
        table.render()
    }
}
