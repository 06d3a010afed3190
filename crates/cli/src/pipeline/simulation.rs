//! A plan on slots with modelled noise.

use std::sync::atomic::{AtomicUsize, Ordering};

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
    /// With noise, one row an image.
    pub scores: Vec<Vec<f64>>,
    /// Largest difference to the same plan without noise.
    pub max_error: f64,
    /// Largest score without noise.
    pub range: f64,
    /// Images whose label is the same with and without noise.
    pub same_labels: usize,
}

/// Scores with modelled noise alone.
pub fn scores(
    server: &Server,
    client: &ClientPlan,
    images: &[Tensor],
    seed: u64,
    session: &Session,
    display: &Progress,
) -> Result<Vec<Vec<f64>>, CliError> {
    let done = AtomicUsize::new(0);
    let score = |(index, image): (usize, &Tensor)| {
        session.check_cancel()?;
        let slots = client.pack(image).map_err(planning::refused)?;
        let seed = seed.wrapping_add(index as u64);
        let noisy =
            server.program().run_simulated(server.parameters(), &slots, seed).map_err(server::refused)?;
        display.set(done.fetch_add(1, Ordering::Relaxed) as u64 + 1, "");
        Ok(client.unpack(&noisy))
    };
    images.par_iter().enumerate().map(score).collect()
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
    let exact = |image: &Tensor| {
        session.check_cancel()?;
        let slots = client.pack(image).map_err(planning::refused)?;
        Ok(client.unpack(&server.program().run_plain(&slots).map_err(server::refused)?))
    };
    let exact: Vec<Vec<f64>> = images.par_iter().map(exact).collect::<Result<_, CliError>>()?;
    let (mut max_error, mut range, mut same_labels) = (0f64, 0f64, 0);
    for (noisy, exact) in noisy.iter().zip(&exact) {
        max_error = noisy.iter().zip(exact).map(|(a, b)| (a - b).abs()).fold(max_error, f64::max);
        range = exact.iter().map(|v| v.abs()).fold(range, f64::max);
        same_labels += usize::from(argmax(noisy) == argmax(exact));
    }
    Ok(Simulated { scores: noisy, max_error, range, same_labels })
}
