//! `polyveil doctor`: what this machine offers and what will run how.

use clap::Args;
use serde::Serialize;

use crate::error::CliError;
use crate::machine;
use crate::output::{Table, bytes};
use crate::session::Session;

/// Arguments of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  polyveil doctor")]
pub struct DoctorArgs {}

#[derive(Serialize)]
struct Findings {
    version: &'static str,
    os: &'static str,
    arch: &'static str,
    cpu: String,
    threads: usize,
    cpu_features: std::collections::BTreeMap<&'static str, bool>,
    memory_total_bytes: u64,
    memory_available_bytes: u64,
}

/// Looks at the machine and prints the findings.
pub fn run(_: &DoctorArgs, session: &Session) -> Result<(), CliError> {
    let findings = Findings {
        version: env!("CARGO_PKG_VERSION"),
        os: std::env::consts::OS,
        arch: std::env::consts::ARCH,
        cpu: machine::cpu_name(),
        threads: session.threads(),
        cpu_features: machine::cpu_features().into_iter().collect(),
        memory_total_bytes: machine::total_memory(),
        memory_available_bytes: machine::available_memory(),
    };
    session.emit(&findings, || text(&findings))
}

fn text(f: &Findings) -> String {
    let mut table = Table::facts("machine", "");
    table.row(["polyveil".to_string(), f.version.to_string()]);
    table.row(["system".to_string(), format!("{} {}", f.os, f.arch)]);
    table.row(["processor".to_string(), f.cpu.clone()]);
    table.row(["threads".to_string(), f.threads.to_string()]);
    for (name, present) in &f.cpu_features {
        table.row([(*name).to_string(), if *present { "yes" } else { "no" }.to_string()]);
    }
    let memory = format!("{} of {}", bytes(f.memory_available_bytes), bytes(f.memory_total_bytes));
    table.row(["memory free".to_string(), memory]);
    table.render()
}
