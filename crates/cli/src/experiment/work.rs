//! One teacher, one run: each goes on where an earlier process stopped.

use std::path::Path;

use polyveil_net::{Graph, Op, onnx};
use polyveil_train::statistics::mcnemar;
use polyveil_train::{
    ConvertConfig, ConvertOutcome, DataSet, Evaluation, Split, Timing, TrainConfig, TrainError, Verdict,
    input_ranges,
};

use super::store::{
    Key, Row, Store, StudentRecord, TeacherRecord, fingerprint, make_parent, named, read_json,
};
use crate::error::{CliError, Exit};
use crate::pipeline::{models, training};
use crate::session::Session;

/// A teacher with its figures.
pub struct Teacher {
    /// The network.
    pub graph: Graph,
    /// Its figures.
    pub record: TeacherRecord,
    /// Fingerprint of its file.
    pub fingerprint: String,
}

/// The teacher of one network, data set and seed: from its file, else trained from `start`.
pub fn teacher(
    store: &Store,
    stem: &Path,
    start: &dyn Fn() -> Result<Graph, CliError>,
    data: &DataSet,
    config: &TrainConfig,
    label: &str,
    session: &Session,
) -> Result<Teacher, CliError> {
    let (model, record) = (named(stem, "onnx"), named(stem, "json"));
    let graph = start()?;
    let settings = encode(config)?;
    let first = onnx::to_bytes(&graph).map_err(|e| CliError::new(Exit::Model, e))?;
    let expected = fingerprint(&[&settings, data.fingerprint().as_bytes(), &first]);
    if model.exists()
        && let Some(record) = read_json::<TeacherRecord>(&record)?
    {
        if record.fingerprint != expected {
            return Err(changed("teacher").at(&model));
        }
        return finished(&model, record);
    }
    let checkpoints = store.checkpoints(stem);
    let (graph, history, timing) = if config.epochs == 0 {
        let mut graph = graph;
        polyveil_train::metadata::describe(&mut graph, data).map_err(training::refused)?;
        (graph, None, Timing::default())
    } else {
        make_parent(&checkpoints)?;
        let trained = afresh_where_stale(&checkpoints, session, || {
            training::attempt_teacher(&graph, data, config, &checkpoints, label, session)
        })?;
        (trained.graph, Some(trained.history), trained.timing)
    };
    make_parent(&model)?;
    models::save(&graph, &model)?;
    // What is scored is what was written.
    let graph = models::load(&model)?;
    let validation = evaluate(&graph, data, Split::Validation)?;
    let test = evaluate(&graph, data, Split::Test)?;
    let value = TeacherRecord { fingerprint: expected, history, timing, validation, test };
    store.write_json(&record, &value)?;
    clear(&checkpoints);
    finished(&model, value)
}

fn finished(model: &Path, record: TeacherRecord) -> Result<Teacher, CliError> {
    let bytes = std::fs::read(model).map_err(|e| CliError::io(model, &e, "read"))?;
    Ok(Teacher { graph: models::load(model)?, record, fingerprint: fingerprint(&[&bytes]) })
}

/// What one run needs.
pub struct Run<'a> {
    /// Name of the suite.
    pub suite: &'a str,
    /// Which run.
    pub key: Key,
    /// Its files, without ending.
    pub stem: &'a Path,
    /// The data set.
    pub data: &'a DataSet,
    /// The ReLU network.
    pub teacher: &'a Teacher,
    /// Settings.
    pub config: &'a ConvertConfig,
    /// What progress is shown as.
    pub label: &'a str,
}

impl Run<'_> {
    /// The row of this run: found, or made.
    pub fn row(&self, store: &mut Store, session: &Session) -> Result<Row, CliError> {
        let settings = encode(self.config)?;
        let mut parts =
            vec![&settings[..], self.data.fingerprint().as_bytes(), self.teacher.fingerprint.as_bytes()];
        if !self.data.unlabelled().is_empty() {
            parts.push(self.data.unlabelled_fingerprint().as_bytes());
        }
        let run_fingerprint = fingerprint(&parts);
        if let Some(row) = store.row(&self.key) {
            if row.run_fingerprint != run_fingerprint {
                return Err(changed("run").at(&named(self.stem, "onnx")));
            }
            return Ok(row.clone());
        }
        let checkpoints = store.checkpoints(self.stem);
        make_parent(&checkpoints)?;
        let outcome = afresh_where_stale(&checkpoints, session, || {
            training::attempt(&self.teacher.graph, self.data, self.config, &checkpoints, self.label, session)
        })?;
        let model = named(self.stem, "onnx");
        make_parent(&model)?;
        models::save(&outcome.graph, &model)?;
        let bytes = std::fs::read(&model).map_err(|e| CliError::io(&model, &e, "read"))?;
        let frozen = models::load(&model)?;
        let validation = evaluate(&frozen, self.data, Split::Validation)?;
        let test = evaluate(&frozen, self.data, Split::Test)?;
        let row = self.figures(&outcome, &validation, &test, fingerprint(&[&bytes]), run_fingerprint);
        let before = input_ranges(&self.teacher.graph, self.data).map_err(training::refused)?;
        let record = StudentRecord {
            verdict: outcome.verdict,
            history: outcome.history,
            ranges: outcome.ranges,
            ranges_before: before.into_iter().map(|(name, value)| (name, f64::from(value))).collect(),
            test,
        };
        store.write_json(&named(self.stem, "json"), &record)?;
        store.push(row.clone())?;
        clear(&checkpoints);
        Ok(row)
    }

    fn figures(
        &self,
        outcome: &ConvertOutcome,
        validation: &Evaluation,
        test: &Evaluation,
        student_fingerprint: String,
        run_fingerprint: String,
    ) -> Row {
        let teacher = &self.teacher.record;
        let pairs = || teacher.test.correct.iter().zip(&test.correct);
        let only_teacher = pairs().filter(|(t, s)| **t && !**s).count();
        let only_student = pairs().filter(|(t, s)| !**t && **s).count();
        let shares = outcome.ranges.iter().filter_map(|(name, r)| Some((name, r.within?.test?)));
        let within = shares.min_by(|l, r| l.1.total_cmp(&r.1));
        let quadratic =
            |name: &str| matches!(outcome.graph.node(name), Some((_, n)) if matches!(n.op, Op::Quadratic(_)));
        let largest = outcome.ranges.iter().filter(|(name, _)| quadratic(name));
        let largest = largest.map(|(_, r)| f64::from(r.max.abs().max(r.min.abs()))).fold(0.0, f64::max);
        let points = |t: f64, s: f64| 100.0 * (t - s);
        Row {
            suite: self.suite.to_owned(),
            network: self.key.network.clone(),
            data: self.key.data.clone(),
            method: self.key.method.clone(),
            seed: self.key.seed,
            learning_rate: self.key.learning_rate,
            verdict: match &outcome.verdict {
                Verdict::Accepted => "accepted",
                Verdict::NotAcceptable { .. } => "not_acceptable",
                Verdict::Diverged { .. } => "diverged",
            }
            .to_owned(),
            reason: match &outcome.verdict {
                Verdict::Accepted => String::new(),
                Verdict::NotAcceptable { refusal } => refusal.to_string(),
                Verdict::Diverged { layer, epoch, .. } => format!("epoch {epoch}, layer {layer}"),
            },
            epochs: outcome.history.epochs.len(),
            chosen_epoch: outcome.history.best_epoch,
            val_accuracy: outcome.validation_accuracy,
            val_accuracy_frozen: validation.whole.accuracy,
            test_accuracy: test.whole.accuracy,
            test_macro_f1: test.whole.macro_f1,
            test_auc: test.whole.auc,
            test_ece: test.whole.calibration_error,
            test_images: test.whole.n,
            non_finite: test.whole.non_finite,
            teacher_val_accuracy: teacher.validation.whole.accuracy,
            teacher_accuracy: teacher.test.whole.accuracy,
            teacher_macro_f1: teacher.test.whole.macro_f1,
            teacher_auc: teacher.test.whole.auc,
            teacher_ece: teacher.test.whole.calibration_error,
            gap: points(teacher.test.whole.accuracy, test.whole.accuracy),
            gap_macro_f1: points(teacher.test.whole.macro_f1, test.whole.macro_f1),
            only_teacher,
            only_student,
            mcnemar_p: mcnemar(only_teacher, only_student),
            within_bound: within.map(|(_, share)| share),
            within_bound_layer: within.map_or_else(String::new, |(name, _)| name.clone()),
            largest_input: largest,
            events: outcome.history.events.len(),
            seconds: outcome.timing.seconds,
            images_per_second: outcome.timing.images_per_second(),
            teacher_seconds: teacher.timing.seconds,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            data_fingerprint: self.data.fingerprint().to_owned(),
            teacher_fingerprint: self.teacher.fingerprint.clone(),
            student_fingerprint,
            run_fingerprint,
        }
    }
}

fn evaluate(graph: &Graph, data: &DataSet, split: Split) -> Result<Evaluation, CliError> {
    training::evaluate_by_source(graph, data, data.indices(split))
}

/// Runs `work`; once more from the beginning where a checkpoint is of another program version, or damaged.
fn afresh_where_stale<T>(
    checkpoints: &Path,
    session: &Session,
    work: impl Fn() -> Result<T, TrainError>,
) -> Result<T, CliError> {
    match work() {
        Err(TrainError::CheckpointMismatch { .. } | TrainError::CheckpointDamaged { .. }) => {
            session.note(&format!("{}: of another version or damaged, begun anew", checkpoints.display()));
            clear(checkpoints);
            work().map_err(training::refused)
        }
        other => other.map_err(training::refused),
    }
}

fn changed(what: &str) -> CliError {
    CliError::new(
        Exit::Usage,
        format!("this {what} was made with other settings, data or networks than the suite has now"),
    )
    .help("give what changed another name, or the suite another `out`")
}

fn clear(checkpoints: &Path) {
    // What is left over is found and removed by the next process.
    let _ = std::fs::remove_dir_all(checkpoints);
}

fn encode(config: &impl serde::Serialize) -> Result<Vec<u8>, CliError> {
    serde_json::to_vec(config).map_err(|e| CliError::new(Exit::Internal, e))
}
