//! Data owner and server as two directories between which only permitted files pass.

use std::path::Path;

use polyveil_format::Kind;
use serde_json::Value;

use crate::error::{CliError, Exit};
use crate::pipeline::{child, store};
use crate::session::Session;

/// The two sides, each a directory; commands run as processes of their own.
pub struct Sides<'a> {
    /// The data owner's directory, with `client.plan`.
    pub client: &'a Path,
    /// The server's directory, with `server.plan`.
    pub server: &'a Path,
    /// Options and cancellation.
    pub session: &'a Session,
}

/// What the two sides reported.
pub struct Played {
    /// Decrypted scores, one row an image.
    pub scores: Vec<Vec<f64>>,
    /// Time of the server.
    pub seconds_per_image: f64,
    /// Time of key generation.
    pub keygen_s: f64,
    /// Size of the evaluation keys.
    pub key_bytes: u64,
    /// Largest memory of the server's process.
    pub server_peak: u64,
    /// Largest memory of the data owner's processes.
    pub client_peak: u64,
    /// Encrypted time by layer, mean over the images.
    pub layers: Vec<(String, f64)>,
}

impl Sides<'_> {
    /// Makes keys, encrypts the test images at `positions` of the data set `spec`, runs, decrypts.
    pub fn play(&self, spec: &str, positions: &[usize]) -> Result<Played, CliError> {
        // The children run elsewhere, so a path must not depend on where.
        let spec = std::fs::canonicalize(spec).map_or_else(|_| spec.to_string(), |p| p.display().to_string());
        let list = positions.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let client = |args: &[&str]| child::run(self.client, args, self.session);
        let keygen = client(&["keygen", "client.plan"])?;
        let encrypt = client(&["encrypt", "client.plan", "--data", &spec, "--index", &list])?;
        send(self.client, self.server, "evaluation.keys")?;
        send(self.client, self.server, "images.ct")?;
        let run = child::run(self.server, &["run", "server.plan"], self.session)?;
        send(self.server, self.client, "scores.ct")?;
        let decrypt = client(&["decrypt", "client.plan"])?;

        let peak = |v: &Value| v["peak_rss_bytes"].as_u64().unwrap_or(0);
        let numbers =
            |v: &Value| v.as_array().into_iter().flatten().filter_map(Value::as_f64).collect::<Vec<_>>();
        let layer = |v: &Value| Some((v["name"].as_str()?.to_string(), v["seconds"].as_f64()?));
        Ok(Played {
            scores: decrypt["images"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|row| numbers(&row["scores"]))
                .collect(),
            seconds_per_image: run["seconds_per_image"].as_f64().unwrap_or(f64::NAN),
            keygen_s: keygen["seconds"].as_f64().unwrap_or(f64::NAN),
            key_bytes: keygen["eval_key_bytes"].as_u64().unwrap_or(0),
            server_peak: peak(&run),
            client_peak: [&keygen, &encrypt, &decrypt].into_iter().map(peak).max().unwrap_or(0),
            layers: run["layers"].as_array().into_iter().flatten().filter_map(layer).collect(),
        })
    }
}

/// Hands a file over; only kinds that both sides may hold.
fn send(from: &Path, to: &Path, name: &str) -> Result<(), CliError> {
    let (source, target) = (from.join(name), to.join(name));
    let kind = store::header(&source)?.kind;
    if matches!(kind, Kind::SecretKey | Kind::ServerPlan | Kind::ClientPlan) {
        return Err(CliError::new(Exit::Internal, format!("a {kind} must not change sides")).at(&source));
    }
    std::fs::rename(&source, &target).map_err(|e| CliError::io(&target, &e, "write"))
}
