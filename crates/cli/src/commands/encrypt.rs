//! `polyveil encrypt`: encrypts images for the server.

use std::path::PathBuf;

use clap::Args;
use polyveil_format::{CiphertextWriter, Count};
use polyveil_net::Tensor;
use serde::Serialize;

use crate::error::{CliError, Exit};
use crate::files::{self, Access};
use crate::output::{bytes, seconds};
use crate::pipeline::client::Client;
use crate::pipeline::data::{Positions, SplitArg};
use crate::pipeline::{data, images, models, store};
use crate::session::Session;

/// Arguments of `encrypt`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  polyveil encrypt client.plan scan1.png scan2.png --out images.ct\n  \
    polyveil encrypt client.plan --data mnist5k --index 0..20 --out images.ct\n\n\
    Images are numbered in the order given; the file holds neither names nor paths.")]
pub struct EncryptArgs {
    /// The data owner's half of the plan.
    plan: PathBuf,
    /// Images: PNG, JPEG, .npy, .npz or idx files. Bytes get the model's pre-processing,
    /// floating-point arrays are taken as they are.
    #[arg(required_unless_present = "data", conflicts_with = "data")]
    images: Vec<PathBuf>,
    /// Take the images from a data set.
    #[arg(long)]
    data: Option<String>,
    /// Part of the data set.
    #[arg(long, value_enum, default_value = "test")]
    split: SplitArg,
    /// Which images of that part: for example 7, 0..20 or 3,8.
    #[arg(long, value_parser = data::parse_positions)]
    index: Option<Positions>,
    /// The secret key.
    #[arg(long, value_name = "FILE", default_value = "secret.key")]
    secret: PathBuf,
    /// Where the ciphertexts go.
    #[arg(long, value_name = "FILE", default_value = "images.ct")]
    out: PathBuf,
}

#[derive(Serialize)]
struct Outcome {
    ciphertexts: String,
    images: usize,
    batch: usize,
    ciphertexts_per_image: usize,
    input_bytes: u64,
    seconds: f64,
    peak_rss_bytes: u64,
}

/// Reads plan, key and images, encrypts one batch after another into the file.
pub fn run(args: &EncryptArgs, session: &Session) -> Result<(), CliError> {
    files::check_target(&args.out, Access::Shared)?;
    let client = Client::new(store::load_client_plan(&args.plan)?)?;
    let images = load(args, &client, session)?;
    let secret = store::load_secret(&args.secret, client.parameters())?;

    let started = std::time::Instant::now();
    let (batch, per_batch) = (client.plan().batch(), client.plan().input.layout.ciphertexts);
    let count = Count { images: narrow(images.len())?, batch: narrow(batch)?, per_batch: narrow(per_batch)? };
    let display = session.progress("encrypt", images.len() as u64);
    let fail = |e| CliError::writing(&args.out, e);
    files::write_atomically(&args.out, Access::Shared, |to| {
        let mut writer =
            CiphertextWriter::new(to, client.parameters(), client.plan().id, secret.key_id(), count)
                .map_err(fail)?;
        let mut done = 0;
        for images in images.chunks(batch) {
            session.check_cancel()?;
            writer.batch(&client.encrypt(&secret, images)?).map_err(fail)?;
            done += images.len() as u64;
            display.set(done, images.last().map_or("", |(name, _)| name));
        }
        writer.finish().map(|_| ()).map_err(fail)
    })?;
    drop(display);

    let outcome = Outcome {
        ciphertexts: args.out.display().to_string(),
        images: images.len(),
        batch,
        ciphertexts_per_image: per_batch,
        input_bytes: files::size(&args.out),
        seconds: started.elapsed().as_secs_f64(),
        peak_rss_bytes: crate::machine::peak_rss(),
    };
    session.emit(&outcome, || {
        let (n, size, time) = (outcome.images, bytes(outcome.input_bytes), seconds(outcome.seconds));
        format!("wrote {} ({n} images, {size}) in {time}\n", outcome.ciphertexts)
    })
}

/// The images with the names that messages use.
fn load(args: &EncryptArgs, client: &Client, session: &Session) -> Result<Vec<(String, Tensor)>, CliError> {
    let shape = &client.plan().input_shape;
    let preprocessing = models::parse_preprocessing(client.plan().preprocessing.as_deref())?;
    if let Some(spec) = &args.data {
        let classes = &client.plan().class_names;
        let data = data::open_for_plan(spec, shape, preprocessing.as_ref(), classes, session)?;
        let chosen = data::choose(&data, args.split, args.index.as_ref())?;
        let tensors = data::tensors(&data, &chosen, shape, preprocessing.as_ref())?;
        return Ok(chosen.iter().map(|i| format!("{} image {i}", data.name())).zip(tensors).collect());
    }
    let mut all = Vec::new();
    for path in &args.images {
        let images = images::load(path, shape, preprocessing.as_ref())?;
        let single = images.len() == 1;
        for (index, image) in images.into_iter().enumerate() {
            let name = path.display().to_string();
            all.push((if single { name } else { format!("{name} image {index}") }, image));
        }
    }
    Ok(all)
}

fn narrow(count: usize) -> Result<u32, CliError> {
    u32::try_from(count).map_err(|_| CliError::new(Exit::Data, format!("{count} are too many for one file")))
}
