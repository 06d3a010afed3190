//! `polyveil experiment`: compares methods of making networks HE-friendly, over networks, data and seeds.

use std::path::{Path, PathBuf};

use clap::Args;
use polyveil_train::{DataOptions, DataSet, Split};
use serde::Serialize;
use serde_json::json;

use super::train;
use crate::error::{CliError, Exit};
use crate::experiment::store::{Key, Row, Store};
use crate::experiment::suite::{Entry, Network, Source, Suite};
use crate::experiment::tables;
use crate::experiment::work::{self, Run, Teacher};
use crate::output::{self, percent};
use crate::pipeline::{data, models};
use crate::session::Session;

/// Arguments of `experiment`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  polyveil experiment --template > suite.toml\n  polyveil experiment suite.toml\n\n\
    It may be stopped in any way at any time: the same command goes on, to the same rows. A finished run is\n\
    a row of OUT/rows.csv; teachers and students are in OUT as ONNX; OUT/tables.md has means and intervals."
)]
pub struct ExperimentArgs {
    /// The suite (TOML): networks, data sets, methods, seeds.
    #[arg(required_unless_present = "template")]
    suite: Option<PathBuf>,
    /// Only write and print the tables of what is finished.
    #[arg(long)]
    tables: bool,
    /// Print a commented suite, and end.
    #[arg(long)]
    template: bool,
}

/// A suite with every part explained.
pub const TEMPLATE: &str = include_str!("experiment.toml");

#[derive(Serialize)]
struct Outcome {
    suite: String,
    out: String,
    rows: usize,
    made: usize,
    accepted: usize,
    tables: String,
    manifest: String,
}

/// Reads the suite, makes what is missing, writes tables and manifest.
pub fn run(args: &ExperimentArgs, session: &Session) -> Result<(), CliError> {
    let Some(path) = args.suite.as_ref().filter(|_| !args.template) else { return output::print(TEMPLATE) };
    let suite = Suite::read(path)?;
    let mut worker = if args.tables {
        Worker::new(&suite, Store::read(&suite.out)?, session)
    } else {
        Worker::new(&suite, Store::open(&suite.out)?, session)
    };
    if !args.tables {
        worker.work()?;
    }
    let store = &worker.store;
    if store.rows().is_empty() {
        return Err(CliError::new(Exit::File, "no run is finished").at(&suite.out));
    }
    let text = tables::markdown(&suite.name, store.rows());
    let (tables, manifest) = (store.path("tables.md"), store.path("manifest.json"));
    crate::files::write_bytes(&tables, text.as_bytes())?;
    store.write_json(&manifest, &worker.manifest(path)?)?;
    let outcome = Outcome {
        suite: suite.name.clone(),
        out: suite.out.display().to_string(),
        rows: store.rows().len(),
        made: worker.made,
        accepted: store.rows().iter().filter(|r| r.verdict == "accepted").count(),
        tables: tables.display().to_string(),
        manifest: manifest.display().to_string(),
    };
    session.emit(&outcome, || format!("{text}\nwrote {}\n", outcome.tables))
}

/// Goes through a suite, one run after another, each on all processors.
struct Worker<'a> {
    suite: &'a Suite,
    store: Store,
    session: &'a Session,
    /// The data set opened last: one is large, and runs on it follow each other.
    opened: Option<(Vec<String>, DataOptions, DataSet)>,
    done: usize,
    total: usize,
    made: usize,
}

impl<'a> Worker<'a> {
    fn new(suite: &'a Suite, store: Store, session: &'a Session) -> Self {
        let runs = |method: &Entry| suite.seeds.len() + Suite::rates(method).len() - 1;
        let pairs = suite.network.iter().flat_map(|n| suite.sources(n).map(move |s| (n, s)));
        let total = pairs.flat_map(|(n, s)| suite.methods(n, s)).map(runs).sum();
        Self { suite, store, session, opened: None, done: 0, total, made: 0 }
    }

    fn work(&mut self) -> Result<(), CliError> {
        for network in &self.suite.network {
            for source in self.suite.sources(network) {
                let data = self.open(network, source)?;
                for (index, &seed) in self.suite.seeds.iter().enumerate() {
                    let teacher = self.teacher(network, source, &data, seed)?;
                    for method in self.suite.methods(network, source) {
                        let rates = if index == 0 {
                            Suite::rates(method)
                        } else {
                            vec![self.chosen(network, source, method)]
                        };
                        for rate in rates {
                            self.run(network, source, method, &data, &teacher, seed, rate)?;
                        }
                    }
                }
                let options = self.suite.options(network, source)?;
                self.opened = Some((paths(source), options, data));
            }
        }
        Ok(())
    }

    fn open(&mut self, network: &Network, source: &Source) -> Result<DataSet, CliError> {
        let options = self.suite.options(network, source)?;
        match self.opened.take() {
            Some((opened, by, data)) if opened == paths(source) && by == options => Ok(data),
            _ => {
                let data = data::open_with(&source.path, &options, self.session)?;
                let data = data::with_unlabelled(data, &source.unlabelled, &options, self.session)?;
                for split in [Split::Train, Split::Validation, Split::Test] {
                    if data.indices(split).is_empty() {
                        let message = format!(
                            "data {}: the {split} split is empty; an experiment needs all three",
                            source.name
                        );
                        return Err(CliError::new(Exit::Data, message));
                    }
                }
                Ok(data)
            }
        }
    }

    fn teacher(
        &self,
        network: &Network,
        source: &Source,
        data: &DataSet,
        seed: u64,
    ) -> Result<Teacher, CliError> {
        self.session.check_cancel()?;
        let config = self.suite.teacher(network, source, seed)?;
        let start = || {
            let classes = data.class_names().len();
            let mut graph = train::network(&network.arch, &data.shape(), classes, seed)?;
            let whole = match &network.weights {
                Some(path) => models::load_weights(&mut graph, path, self.session)?,
                None => network.arch.ends_with(".onnx"),
            };
            if config.epochs == 0 && !whole {
                let message =
                    format!("network {}: without training it needs weights for all its layers", network.name);
                return Err(
                    CliError::new(Exit::Usage, message).help("give `weights`, or teacher.epochs above 0")
                );
            }
            data::require_shape(data, graph.input_shape())?;
            Ok(graph)
        };
        let stem = self.store.teacher(&network.name, &source.name, seed);
        let label =
            format!("[{}/{}] {} {} teacher {seed}", self.done + 1, self.total, network.name, source.name);
        work::teacher(&self.store, &stem, &start, data, &config, &label, self.session)
    }

    /// The learning rate that the first seed's runs chose; none where there was nothing to choose.
    fn chosen(&self, network: &Network, source: &Source, method: &Entry) -> Option<f32> {
        if method.learning_rates.is_empty() {
            return None;
        }
        let seed = self.suite.seeds[0];
        let of = |r: &&Row| {
            r.network == network.name && r.data == source.name && r.method == method.name && r.seed == seed
        };
        let rows: Vec<&Row> = self.store.rows().iter().filter(of).collect();
        tables::best_rate(&rows)
    }

    #[expect(clippy::too_many_arguments, reason = "the coordinates of a run")]
    fn run(
        &mut self,
        network: &Network,
        source: &Source,
        method: &Entry,
        data: &DataSet,
        teacher: &Teacher,
        seed: u64,
        rate: Option<f32>,
    ) -> Result<(), CliError> {
        self.session.check_cancel()?;
        self.done += 1;
        let config = self.suite.student(network, source, method, seed, rate)?;
        let key = Key {
            network: network.name.clone(),
            data: source.name.clone(),
            method: method.name.clone(),
            seed,
            learning_rate: config.optimiser.learning_rate,
        };
        let found = self.store.row(&key).is_some();
        let stem = self.store.student(&key, rate.is_some());
        let label =
            format!("[{}/{}] {} {} {} {seed}", self.done, self.total, key.network, key.data, key.method);
        let run =
            Run { suite: &self.suite.name, key, stem: &stem, data, teacher, config: &config, label: &label };
        let row = run.row(&mut self.store, self.session)?;
        if !found {
            self.made += 1;
            let (verdict, reason) = (&row.verdict, &row.reason);
            let dash = if reason.is_empty() { "" } else { ": " };
            self.session.note(&format!(
                "{label}: test {} (teacher {}), validation {}, {verdict}{dash}{reason}, {:.0} s",
                percent(row.test_accuracy),
                percent(row.teacher_accuracy),
                percent(row.val_accuracy),
                row.seconds
            ));
        }
        Ok(())
    }

    fn manifest(&self, path: &Path) -> Result<serde_json::Value, CliError> {
        let text = std::fs::read_to_string(path).map_err(|e| CliError::io(path, &e, "read"))?;
        let rows = self.store.rows();
        let mut data = std::collections::BTreeMap::new();
        for row in rows {
            data.insert(&row.data, (&row.data_fingerprint, row.test_images));
        }
        let data: Vec<_> = data
            .into_iter()
            .map(|(name, (fingerprint, images))| json!({ "name": name, "fingerprint": fingerprint, "test_images": images }))
            .collect();
        let mut versions: Vec<&str> = rows.iter().map(|r| r.version.as_str()).collect();
        versions.sort_unstable();
        versions.dedup();
        Ok(json!({
            "suite": self.suite.name,
            "versions": versions,
            "engine": polyveil_train::metadata::ENGINE,
            "seeds": self.suite.seeds,
            "runs": rows.len(),
            "runs_of_the_suite": self.total,
            "data": data,
            "suite_file": text,
        }))
    }
}

/// Everything that a data set is read from.
fn paths(source: &Source) -> Vec<String> {
    std::iter::once(&source.path).chain(&source.unlabelled).cloned().collect()
}
