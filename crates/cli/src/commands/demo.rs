//! `polyveil demo`: the whole way on real images, from a ReLU network to decrypted scores.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use polyveil_net::{Graph, Op};
use polyveil_plan::{ClientPlan, CompileOptions};
use polyveil_train::{
    ConvertConfig, ConvertOutcome, DataSet, History, Split, TrainConfig, TrainOutcome, metrics,
};
use serde::Serialize;

use super::demo_report;
use crate::error::{CliError, Exit};
use crate::files;
use crate::output::{Table, bytes, percent, seconds};
use crate::pipeline::figures::{Figures, argmax};
use crate::pipeline::server::Server;
use crate::pipeline::sides::{Played, Sides};
use crate::pipeline::{data, models, planning, simulation, store, training};
use crate::session::Session;

/// Arguments of `demo`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  polyveil demo\n  polyveil demo --data pneumoniamnist.npz --out chest\n\n\
    writes into OUT: teacher.onnx, student.onnx, report.html, and the files of the two sides in\n\
    client/ and server/, which share only what each may have."
)]
pub struct DemoArgs {
    /// Data set: `mnist5k` (embedded), an .npz file, or a directory of idx files.
    #[arg(long, default_value = "mnist5k")]
    data: String,
    /// Test images to encrypt, spread evenly over the test split.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    images: u32,
    /// Fixes weights, order and augmentation.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Settings of teacher training (TOML).
    #[arg(long, value_name = "FILE")]
    train_config: Option<PathBuf>,
    /// Settings of the conversion (TOML).
    #[arg(long, value_name = "FILE")]
    convert_config: Option<PathBuf>,
    /// Where all files go; the results of an earlier demonstration there are replaced.
    #[arg(long, value_name = "DIR", default_value = "polyveil-demo")]
    out: PathBuf,
}

/// A larger share of the logit range than this between encrypted and plain scores is a failure.
const TOLERANCE: f64 = 1e-3;
/// Marks a directory that a demonstration made, and may clear.
const MARK: &str = ".polyveil-demo";

/// What the demonstration found, in the `--json` form.
#[derive(Serialize)]
pub struct Outcome {
    /// Name of the data set.
    pub data: String,
    /// The ReLU network on the whole test split.
    pub teacher: Figures,
    /// The HE-friendly network on the whole test split.
    pub student: Figures,
    /// The plan with modelled noise on the whole test split.
    pub simulated: Figures,
    /// How near the modelled noise leaves the scores of the whole test split.
    pub simulated_distance: Distance,
    /// The encrypted images.
    pub encrypted: Encrypted,
    /// Security by the table.
    pub security_bits: u32,
    /// Largest memory of the server's process.
    pub peak_rss_bytes: u64,
    /// Largest memory of the processes of `keygen`, `encrypt` and `decrypt`.
    pub client_peak_rss_bytes: u64,
    /// Size of the evaluation keys.
    pub eval_key_bytes: u64,
    /// Size of one encrypted image.
    pub upload_bytes: u64,
    /// Size of one image's encrypted scores.
    pub download_bytes: u64,
    /// Time of teacher training.
    pub train_s: f64,
    /// Time of conversion.
    pub convert_s: f64,
    /// Time of planning.
    pub compile_s: f64,
    /// Time of key generation.
    pub keygen_s: f64,
    /// Time of everything.
    pub total_s: f64,
    /// Threads used.
    pub threads: usize,
    /// The report file.
    pub report: String,
}

/// How near scores are to those of the HE-friendly network in plain arithmetic.
#[derive(Serialize)]
pub struct Distance {
    /// Share of equal labels.
    pub agreement: f64,
    /// Largest difference of a score.
    pub max_logit_error: f64,
}

impl Distance {
    fn new(plain: &[Vec<f64>], scores: &[Vec<f64>]) -> Self {
        let pairs = || plain.iter().zip(scores);
        let same = pairs().filter(|(a, b)| argmax(a) == argmax(b)).count();
        let errors = pairs().flat_map(|(a, b)| a.iter().zip(b).map(|(x, y)| (x - y).abs()));
        Self {
            agreement: same as f64 / plain.len().max(1) as f64,
            max_logit_error: errors.fold(0.0, f64::max),
        }
    }
}

/// Figures of the encrypted images.
#[derive(Serialize)]
pub struct Encrypted {
    /// How many.
    pub images: usize,
    /// Share of right labels.
    pub accuracy: f64,
    /// Mean F1 over the classes.
    pub macro_f1: f64,
    /// Share of labels that the HE-friendly network gives in plain arithmetic too.
    pub agreement: f64,
    /// Largest difference of a score to plain arithmetic.
    pub max_logit_error: f64,
    /// Largest minus smallest plain score of these images.
    pub logit_range: f64,
    /// Encrypted inference, by the server.
    pub seconds_per_image: f64,
    /// `confusion[truth][prediction]`.
    pub confusion: Vec<Vec<usize>>,
}

/// What the report shows beside the outcome.
pub struct Story {
    /// Course of teacher training.
    pub teacher_history: History,
    /// Course of the conversion.
    pub student_history: History,
    /// The HE-friendly network.
    pub student: Graph,
    /// Largest |x| entering each activation.
    pub ranges: Vec<(String, f64)>,
    /// Plain and decrypted scores.
    pub logits: Vec<(f64, f64)>,
    /// Encrypted time by layer.
    pub layers: Vec<(String, f64)>,
}

/// Trains, converts, compiles, then plays data owner and server in two directories, and reports.
pub fn run(args: &DemoArgs, session: &Session) -> Result<(), CliError> {
    let started = Instant::now();
    let data = data::open(&args.data)?;
    let chosen = spread(data.indices(Split::Test).len(), args.images as usize)?;
    let (client_dir, server_dir) = prepare(&args.out)?;

    session.note("1/4 training a ReLU network with max-pool");
    let timer = Instant::now();
    let teacher = train(args, &data, session)?;
    let train_s = timer.elapsed().as_secs_f64();

    session.note("2/4 converting it to quadratic activations and average pools");
    let timer = Instant::now();
    let student = convert(args, &teacher.graph, &data, session)?;
    let convert_s = timer.elapsed().as_secs_f64();

    session.note("3/4 compiling it, and simulating the plan on all test images");
    let timer = Instant::now();
    let (server, client_plan) = compile(&student.graph, &data, session)?;
    let compile_s = timer.elapsed().as_secs_f64();
    let sizes = planning::sizes(server.program())?;
    session.require_memory("running the plan", sizes.server_memory_bytes)?;
    store::save_server_plan(server.plan(), &server_dir.join("server.plan"))?;
    store::save_client_plan(&client_plan, &client_dir.join("client.plan"))?;
    let (simulated, simulated_distance) = simulate(&server, &client_plan, &student.graph, &data, session)?;
    drop(server);

    session.note(&format!("4/4 data owner and server: {} encrypted images", chosen.len()));
    let sides = Sides { client: &client_dir, server: &server_dir, session };
    let played = sides.play(&args.data, &chosen)?;

    let test = data.indices(Split::Test);
    let encrypted_indices: Vec<usize> = chosen.iter().map(|&at| test[at]).collect();
    let plain = plain_scores(&student.graph, &data, &encrypted_indices)?;
    let logits = plain.iter().flatten().copied().zip(played.scores.iter().flatten().copied()).collect();
    let on_test = |graph: &Graph| -> Result<Figures, CliError> {
        Ok(Figures::new(&training::evaluate(graph, &data, Split::Test)?))
    };
    let outcome = Outcome {
        data: data.name().to_string(),
        teacher: on_test(&teacher.graph)?,
        student: on_test(&student.graph)?,
        simulated,
        simulated_distance,
        encrypted: compare(&data, &encrypted_indices, &plain, &played),
        security_bits: sizes.security_bits,
        peak_rss_bytes: played.server_peak,
        client_peak_rss_bytes: played.client_peak,
        eval_key_bytes: played.key_bytes,
        upload_bytes: sizes.upload_bytes,
        download_bytes: sizes.download_bytes,
        train_s,
        convert_s,
        compile_s,
        keygen_s: played.keygen_s,
        total_s: started.elapsed().as_secs_f64(),
        threads: session.threads(),
        report: args.out.join("report.html").display().to_string(),
    };
    let story = Story {
        ranges: activation_ranges(&student),
        teacher_history: teacher.history,
        student_history: student.history,
        student: student.graph,
        logits,
        layers: played.layers,
    };
    files::write_bytes(&args.out.join("report.html"), demo_report::render(&outcome, &story).as_bytes())?;
    session.emit(&outcome, || text(&outcome))?;
    verify(&outcome)
}

/// The table of the four networks.
pub fn network_table(o: &Outcome) -> Table {
    let mut table =
        Table::new(["network", "images", "accuracy", "macro F1", "agreement", "largest logit error"]);
    let mut row = |name: &str, (n, accuracy, f1): (usize, f64, f64), distance: Option<(f64, f64)>| {
        let distance = distance.map(|(agreement, error)| [percent(agreement), format!("{error:.1e}")]);
        let [agreement, error] = distance.unwrap_or_else(|| ["–".into(), "–".into()]);
        table.row([name.to_string(), n.to_string(), percent(accuracy), percent(f1), agreement, error]);
    };
    let of = |f: &Figures| (f.n, f.accuracy, f.macro_f1);
    row("ReLU teacher, f32", of(&o.teacher), None);
    row("HE-friendly, f32", of(&o.student), None);
    let d = &o.simulated_distance;
    row("HE-friendly, simulated", of(&o.simulated), Some((d.agreement, d.max_logit_error)));
    let e = &o.encrypted;
    row("HE-friendly, encrypted", (e.images, e.accuracy, e.macro_f1), Some((e.agreement, e.max_logit_error)));
    table
}

/// The table of the encrypted run.
pub fn run_table(o: &Outcome) -> Table {
    let e = &o.encrypted;
    let mut table = Table::facts("encrypted run", "");
    let agreeing = (e.agreement * e.images as f64).round();
    table.row(["labels as in plain arithmetic", &format!("{agreeing} of {}", e.images)]);
    let share = e.max_logit_error / e.logit_range.max(f64::MIN_POSITIVE);
    table.row(["largest logit error", &format!("{:.1e} ({share:.1e} of the range)", e.max_logit_error)]);
    table.row(["time an image", &format!("{} ({} threads)", seconds(e.seconds_per_image), o.threads)]);
    table.row(["peak memory, server", &bytes(o.peak_rss_bytes)]);
    table.row(["peak memory, client", &bytes(o.client_peak_rss_bytes)]);
    table.row(["evaluation keys, once", &bytes(o.eval_key_bytes)]);
    table.row(["upload, one image", &bytes(o.upload_bytes)]);
    table.row(["download, one image", &bytes(o.download_bytes)]);
    table.row(["security", &format!("{} bits", o.security_bits)]);
    table
}

fn text(o: &Outcome) -> String {
    format!(
        "{}\n{}\nwrote {} ({} in all: training {}, conversion {})\n",
        network_table(o).render(),
        run_table(o).render(),
        o.report,
        seconds(o.total_s),
        seconds(o.train_s),
        seconds(o.convert_s)
    )
}

/// Makes the directories of the two sides; clears those of an earlier demonstration only.
fn prepare(out: &Path) -> Result<(PathBuf, PathBuf), CliError> {
    let fail = |path: &Path| {
        let path = path.to_path_buf();
        move |e: std::io::Error| CliError::io(&path, &e, "write")
    };
    let mark = out.join(MARK);
    let used = std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some());
    if used && !mark.exists() {
        let message = "the directory is not empty and was not made by `polyveil demo`";
        return Err(CliError::new(Exit::Storage, message).at(out).help("choose another --out"));
    }
    std::fs::create_dir_all(out).map_err(fail(out))?;
    std::fs::write(&mark, "").map_err(fail(&mark))?;
    let sides = (out.join("client"), out.join("server"));
    for side in [&sides.0, &sides.1] {
        if side.exists() {
            std::fs::remove_dir_all(side).map_err(fail(side))?;
        }
        std::fs::create_dir(side).map_err(fail(side))?;
    }
    Ok(sides)
}

/// Positions spread evenly over a split of `available` images.
fn spread(available: usize, count: usize) -> Result<Vec<usize>, CliError> {
    if count > available {
        let message = format!("the test split has {available} images, --images asks for {count}");
        return Err(CliError::new(Exit::Data, message));
    }
    Ok((0..count).map(|k| (2 * k + 1) * available / (2 * count)).collect())
}

/// Largest |x| entering each activation, in the order of the network.
fn activation_ranges(student: &ConvertOutcome) -> Vec<(String, f64)> {
    let activations = student.graph.nodes.iter().filter(|node| matches!(node.op, Op::Quadratic(_)));
    let range = |node: &polyveil_net::Node| {
        student.ranges.get(&node.name).map(|r| (node.name.clone(), f64::from(r.min.abs().max(r.max.abs()))))
    };
    activations.filter_map(range).collect()
}

fn train(args: &DemoArgs, data: &DataSet, session: &Session) -> Result<TrainOutcome, CliError> {
    let config = TrainConfig { seed: args.seed, ..training::config(args.train_config.as_deref())? };
    let graph = polyveil_net::builders::lenet5_relu(&data.shape(), data.class_names().len(), config.seed)
        .map_err(|e| CliError::new(Exit::Model, e))?;
    let file = args.out.join("teacher.onnx");
    let checkpoints = training::checkpoint_dir(None, &file)?;
    let trained = training::teacher(&graph, data, &config, Some(checkpoints.clone()), session)?;
    models::save(&trained.graph, &file)?;
    training::remove_checkpoint_dir(&checkpoints);
    Ok(trained)
}

fn convert(
    args: &DemoArgs,
    teacher: &Graph,
    data: &DataSet,
    session: &Session,
) -> Result<ConvertOutcome, CliError> {
    let config =
        ConvertConfig { seed: args.seed, ..training::convert_config(args.convert_config.as_deref(), None)? };
    let file = args.out.join("student.onnx");
    let checkpoints = training::checkpoint_dir(None, &file)?;
    let converted = training::student(teacher, data, &config, Some(checkpoints.clone()), session)?;
    models::save(&converted.graph, &file)?;
    training::remove_checkpoint_dir(&checkpoints);
    Ok(converted)
}

fn compile(student: &Graph, data: &DataSet, session: &Session) -> Result<(Server, ClientPlan), CliError> {
    let preprocessing = models::preprocessing(student)?;
    let train = data.indices(Split::Train);
    let chosen = spread(train.len(), planning::CALIBRATION_IMAGES.min(train.len()))?;
    let indices: Vec<usize> = chosen.iter().map(|&at| train[at]).collect();
    let calibration = data::tensors(data, &indices, student.input_shape(), preprocessing.as_ref())?;
    let options = CompileOptions { calibration, tolerance: TOLERANCE, ..CompileOptions::default() };
    let compiled = planning::compile(student, &options, session)?;
    Ok((Server::new(compiled.server)?, compiled.client))
}

fn simulate(
    server: &Server,
    client: &ClientPlan,
    student: &Graph,
    data: &DataSet,
    session: &Session,
) -> Result<(Figures, Distance), CliError> {
    let test = data.indices(Split::Test);
    let preprocessing = models::parse_preprocessing(client.preprocessing.as_deref())?;
    let images = data::tensors(data, test, &client.input_shape, preprocessing.as_ref())?;
    let display = session.progress("simulate", images.len() as u64);
    let scores = simulation::scores(server, client, &images, 1, session, &display)?;
    let plain = plain_scores(student, data, test)?;
    Ok((Figures::of_scores(data, test, &scores), Distance::new(&plain, &scores)))
}

fn plain_scores(graph: &Graph, data: &DataSet, indices: &[usize]) -> Result<Vec<Vec<f64>>, CliError> {
    let rows = metrics::logits(graph, data, indices).map_err(training::refused)?;
    let finite = |row: Option<Vec<f32>>| {
        row.map(|scores| scores.into_iter().map(f64::from).collect()).ok_or_else(|| {
            CliError::new(Exit::Verification, "the HE-friendly network overflows on a test image")
        })
    };
    rows.into_iter().map(finite).collect()
}

fn compare(data: &DataSet, indices: &[usize], plain: &[Vec<f64>], played: &Played) -> Encrypted {
    let figures = Figures::of_scores(data, indices, &played.scores);
    let Distance { agreement, max_logit_error } = Distance::new(plain, &played.scores);
    let flat = || plain.iter().flatten().copied();
    Encrypted {
        images: plain.len(),
        accuracy: figures.accuracy,
        macro_f1: figures.macro_f1,
        agreement,
        max_logit_error,
        logit_range: flat().fold(f64::NEG_INFINITY, f64::max) - flat().fold(f64::INFINITY, f64::min),
        seconds_per_image: played.seconds_per_image,
        confusion: figures.confusion,
    }
}

/// A label that changed, or scores further off than promised, are a failure of their own.
fn verify(o: &Outcome) -> Result<(), CliError> {
    let e = &o.encrypted;
    let allowed = TOLERANCE * e.logit_range;
    if e.agreement >= 1.0 && e.max_logit_error <= allowed {
        return Ok(());
    }
    let message = format!(
        "agreement {} (all expected), largest logit error {:.2e} (at most {allowed:.2e} expected)",
        percent(e.agreement),
        e.max_logit_error
    );
    Err(CliError::new(Exit::Verification, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_spread_and_inside() {
        assert_eq!(spread(1000, 4).unwrap(), [125, 375, 625, 875]);
        assert_eq!(spread(3, 3).unwrap(), [0, 1, 2]);
        assert!(spread(3, 4).unwrap_err().message.contains("has 3 images, --images asks for 4"));
    }

    #[test]
    fn a_directory_of_somebody_else_is_not_touched() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("secret.key"), b"k").unwrap();
        assert_eq!(prepare(directory.path()).unwrap_err().exit, Exit::Storage);
        let own = directory.path().join("new");
        prepare(&own).unwrap();
        std::fs::write(own.join("client/secret.key"), b"k").unwrap();
        prepare(&own).unwrap();
        assert!(!own.join("client/secret.key").exists());
    }
}
