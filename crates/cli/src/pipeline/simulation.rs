//! A plan on slots with modelled noise.

use std::sync::atomic::{AtomicUsize, Ordering};

use polyveil_exec::ExecError;
use polyveil_net::Tensor;
use polyveil_plan::ClientPlan;
use rayon::prelude::*;

use crate::error::CliError;
use crate::pipeline::figures::argmax;
use crate::pipeline::planning;
use crate::pipeline::server::{self, Server};
use crate::progress::Progress;
use crate::session::Session;

/// Scores with modelled noise, and how far they are from those without.
pub struct Simulated {
    /// With noise, one row an image; NaN where `decrypt` would have no result.
    pub scores: Vec<Vec<f64>>,
    /// Images without a result.
    pub without: usize,
    /// Largest difference to the same plan without noise, of images with a result.
    pub max_error: f64,
    /// Largest score of these without noise.
    pub range: f64,
    /// Images whose label is the same with and without noise.
    pub same_labels: usize,
}

/// Scores with modelled noise alone; NaN where `decrypt` would have no result.
pub fn scores(
    server: &Server,
    client: &ClientPlan,
    images: &[Tensor],
    seed: u64,
    session: &Session,
    display: &Progress,
) -> Result<Vec<Vec<f64>>, CliError> {
    let done = AtomicUsize::new(0);
    let score = |(index, batch): (usize, &[Tensor])| {
        let seed = seed.wrapping_add(index as u64);
        let run = |slots: &[Vec<f64>]| server.program().run_simulated(server.parameters(), slots, seed);
        let noisy = unpacked(client, batch, session, client.credible(), run)?;
        display.set((done.fetch_add(batch.len(), Ordering::Relaxed) + batch.len()) as u64, "");
        Ok(noisy)
    };
    let batches = images.par_chunks(client.batch()).enumerate().map(score);
    Ok(batches.collect::<Result<Vec<_>, CliError>>()?.into_iter().flatten().collect())
}

/// Runs images with and without modelled noise.
pub fn run(
    server: &Server,
    client: &ClientPlan,
    images: &[Tensor],
    seed: u64,
    session: &Session,
    display: &Progress,
) -> Result<Simulated, CliError> {
    let noisy = scores(server, client, images, seed, session, display)?;
    let run = |slots: &[Vec<f64>]| server.program().run_plain(slots);
    let exact = |batch: &[Tensor]| unpacked(client, batch, session, f64::INFINITY, run);
    let exact = images.par_chunks(client.batch()).map(exact).collect::<Result<Vec<_>, CliError>>()?;
    let exact: Vec<Vec<f64>> = exact.into_iter().flatten().collect();
    let (mut without, mut max_error, mut range, mut same_labels) = (0, 0f64, 0f64, 0);
    for (noisy, exact) in noisy.iter().zip(&exact) {
        if noisy.iter().any(|v| v.is_nan()) {
            without += 1;
            continue;
        }
        max_error = noisy.iter().zip(exact).map(|(a, b)| (a - b).abs()).fold(max_error, f64::max);
        range = exact.iter().map(|v| v.abs()).fold(range, f64::max);
        same_labels += usize::from(argmax(noisy) == argmax(exact));
    }
    Ok(Simulated { scores: noisy, without, max_error, range, same_labels })
}

/// The scores of up to a batch of images, run as slots; NaN where a slot is beyond what is believed.
fn unpacked(
    client: &ClientPlan,
    images: &[Tensor],
    session: &Session,
    believed: f64,
    run: impl FnOnce(&[Vec<f64>]) -> Result<Vec<Vec<f64>>, ExecError>,
) -> Result<Vec<Vec<f64>>, CliError> {
    session.check_cancel()?;
    let slots = client.pack_batch(&images.iter().collect::<Vec<_>>()).map_err(planning::refused)?;
    let slots = run(&slots).map_err(server::refused)?;
    let mut scores = client.unpack_batch(&slots);
    if !slots.iter().flatten().all(|v| v.abs() <= believed) {
        scores.iter_mut().flatten().for_each(|score| *score = f64::NAN);
    }
    scores.truncate(images.len());
    Ok(scores)
}
