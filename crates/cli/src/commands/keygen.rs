//! `polyveil keygen`: makes the data owner's secret key and the evaluation keys for the server.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::error::CliError;
use crate::files::{self, Access};
use crate::output::{bytes, seconds};
use crate::pipeline::client::{self, Client};
use crate::pipeline::store;
use crate::session::Session;

/// Arguments of `keygen`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  polyveil keygen client.plan\n\n\
    writes secret.key (stays here) and evaluation.keys (for the server).")]
pub struct KeygenArgs {
    /// The data owner's half of the plan.
    plan: PathBuf,
    /// Where the secret key goes; an existing file is never overwritten.
    #[arg(long, value_name = "FILE", default_value = "secret.key")]
    secret: PathBuf,
    /// Where the evaluation keys go.
    #[arg(long, value_name = "FILE", default_value = "evaluation.keys")]
    keys: PathBuf,
    /// Make evaluation keys for the secret key that exists already, for a further plan of the same
    /// parameters.
    #[arg(long)]
    reuse_secret: bool,
}

#[derive(Serialize)]
struct Outcome {
    secret_key: String,
    evaluation_keys: String,
    key_id: String,
    eval_key_bytes: u64,
    keys: usize,
    seconds: f64,
    security_bits: u32,
    peak_rss_bytes: u64,
}

/// Checks targets and memory, makes the secret key, then the evaluation keys one at a time.
pub fn run(args: &KeygenArgs, session: &Session) -> Result<(), CliError> {
    if !args.reuse_secret {
        files::check_target(&args.secret, Access::Secret)?;
    }
    files::check_target(&args.keys, Access::Shared)?;
    let client = Client::new(store::load_client_plan(&args.plan)?)?;
    session
        .require_memory("making the keys", client::memory_bytes(client.parameters(), &client.plan().keys))?;

    let started = std::time::Instant::now();
    let secret = if args.reuse_secret {
        store::load_secret(&args.secret, client.parameters())?
    } else {
        client.new_secret()?
    };
    // The secret key is written last, so that a failure leaves no key without its other half.
    store::make_evaluation_keys(&client, &secret, &args.keys, session)?;
    if !args.reuse_secret
        && let Err(error) = store::save_secret(&secret, &args.secret)
    {
        files::remove(&args.keys);
        return Err(error);
    }

    let outcome = Outcome {
        secret_key: args.secret.display().to_string(),
        evaluation_keys: args.keys.display().to_string(),
        key_id: secret.key_id().to_string(),
        eval_key_bytes: files::size(&args.keys),
        keys: client.plan().keys.count(),
        seconds: started.elapsed().as_secs_f64(),
        security_bits: client.parameters().security().bits(),
        peak_rss_bytes: crate::machine::peak_rss(),
    };
    session.emit(&outcome, || {
        format!(
            "wrote {} (keep it here) and {} ({}, {} keys, for the server) in {}\nsecurity: {}\n",
            outcome.secret_key,
            outcome.evaluation_keys,
            bytes(outcome.eval_key_bytes),
            outcome.keys,
            seconds(outcome.seconds),
            client.parameters().security(),
        )
    })
}
