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
    /// Kernels of the encrypted arithmetic.
    simd_backend: &'static str,
    /// All that this processor can run.
    simd_backends: Vec<&'static str>,
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
        simd_backend: polyveil_math::simd::backend().name(),
        simd_backends: polyveil_math::simd::Backend::available().iter().map(|b| b.name()).collect(),
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
    let backends = format!("{} (available: {})", f.simd_backend, f.simd_backends.join(", "));
    table.row(["encrypted arithmetic".to_string(), backends]);
    table.row(["training".to_string(), "CPU (burn, flex)".to_string()]);
    for (name, present) in &f.cpu_features {
        table.row([(*name).to_string(), if *present { "yes" } else { "no" }.to_string()]);
    }
    let memory = format!("{} of {}", bytes(f.memory_available_bytes), bytes(f.memory_total_bytes));
    table.row(["memory free".to_string(), memory]);
    table.render()
}
