//! Files of an experiment's output folder:
//!
//! ```text
//! rows.csv                                   a row a finished run
//! tables.md, manifest.json                   written at the end, or with --tables
//! teachers/NETWORK/DATA/seed-N.onnx, .json
//! students/NETWORK/DATA/METHOD/seed-N.onnx, .json
//! checkpoints/...                            of what is under way
//! ```

use std::fs::File;
use std::path::{Path, PathBuf};

use polyveil_train::{Evaluation, History, Ranges, Timing, Verdict};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{CliError, Exit};
use crate::files::{self, Access};

/// Which run: everything that a row is found by.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// Name of the network.
    pub network: String,
    /// Name of the data set.
    pub data: String,
    /// Name of the method.
    pub method: String,
    /// Seed of teacher and student.
    pub seed: u64,
    /// Largest learning rate.
    pub learning_rate: f32,
}

/// A finished run. Shares are from 0 to 1, gaps in points (hundredths).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Name of the suite.
    pub suite: String,
    /// Name of the network.
    pub network: String,
    /// Name of the data set.
    pub data: String,
    /// Name of the method.
    pub method: String,
    /// Seed of teacher and student.
    pub seed: u64,
    /// Largest learning rate.
    pub learning_rate: f32,
    /// `accepted`, `not_acceptable` or `diverged`.
    pub verdict: String,
    /// Why it is not accepted; empty where it is.
    pub reason: String,
    /// Finished epochs.
    pub epochs: usize,
    /// Epoch (from 1) whose network was taken.
    pub chosen_epoch: Option<usize>,
    /// Accuracy on the validation split as the training engine saw it.
    pub val_accuracy: f64,
    /// The same of the exported network, in plain arithmetic.
    pub val_accuracy_frozen: f64,
    /// Accuracy on the test split, exported network, plain arithmetic; so are the following.
    pub test_accuracy: f64,
    /// Macro F1.
    pub test_macro_f1: f64,
    /// Macro area under the ROC.
    pub test_auc: Option<f64>,
    /// Expected calibration error; none without a finite score.
    pub test_ece: Option<f64>,
    /// Images of the test split.
    pub test_images: usize,
    /// Test images with a score that is not finite; they count as wrong.
    pub non_finite: usize,
    /// The ReLU teacher's accuracy on the validation split.
    pub teacher_val_accuracy: f64,
    /// The teacher on the test split.
    pub teacher_accuracy: f64,
    /// Macro F1 of the teacher.
    pub teacher_macro_f1: f64,
    /// Macro area under the ROC of the teacher.
    pub teacher_auc: Option<f64>,
    /// Expected calibration error of the teacher.
    pub teacher_ece: Option<f64>,
    /// Teacher's minus student's test accuracy, in points.
    pub gap: f64,
    /// Teacher's minus student's macro F1, in points.
    pub gap_macro_f1: f64,
    /// Test images that only the teacher gets right.
    pub only_teacher: usize,
    /// Test images that only the student gets right.
    pub only_student: usize,
    /// McNemar's exact test of these two counts.
    pub mcnemar_p: f64,
    /// Smallest share, over the layers, of test activations within the declared bound.
    pub within_bound: Option<f64>,
    /// The layer of that share.
    pub within_bound_layer: String,
    /// Largest `|x|` that enters an activation, on training images.
    pub largest_input: f64,
    /// Activations with a step left out or an epoch rolled back.
    pub events: usize,
    /// Time of the conversion.
    pub seconds: f64,
    /// Training images a second, validation not counted.
    pub images_per_second: f64,
    /// Time of teacher training.
    pub teacher_seconds: f64,
    /// Version of the program.
    pub version: String,
    /// Fingerprint of the data set.
    pub data_fingerprint: String,
    /// Fingerprint of the teacher's file.
    pub teacher_fingerprint: String,
    /// Fingerprint of the student's file.
    pub student_fingerprint: String,
    /// Fingerprint of settings, data and teacher: what the run is a function of.
    pub run_fingerprint: String,
}

impl Row {
    /// Whether the row is that of `key`.
    pub fn is(&self, key: &Key) -> bool {
        self.network == key.network
            && self.data == key.data
            && self.method == key.method
            && self.seed == key.seed
            && self.learning_rate == key.learning_rate
    }
}

/// What is kept of a teacher beside its file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TeacherRecord {
    /// Fingerprint of settings, data and first network.
    pub fingerprint: String,
    /// The course of its training; none where it was given.
    pub history: Option<History>,
    /// Time of its training.
    pub timing: Timing,
    /// On the validation split.
    pub validation: Evaluation,
    /// On the test split.
    pub test: Evaluation,
}

/// What is kept of a student beside its file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StudentRecord {
    /// How the run ended.
    pub verdict: Verdict,
    /// The course of the run.
    pub history: History,
    /// Ranges of the exported network.
    pub ranges: Ranges,
    /// Largest `|x|` of each activation's input in the ReLU teacher, by name.
    pub ranges_before: Vec<(String, f64)>,
    /// On the test split.
    pub test: Evaluation,
}

/// The output folder, held by one process at a time.
pub struct Store {
    folder: PathBuf,
    rows: Vec<Row>,
    _lock: Option<File>,
}

impl Store {
    /// Opens the folder for a run; made where it does not exist.
    pub fn open(folder: &Path) -> Result<Self, CliError> {
        std::fs::create_dir_all(folder).map_err(|e| CliError::io(folder, &e, "write"))?;
        let path = folder.join(".lock");
        let lock = File::create(&path).map_err(|e| CliError::io(&path, &e, "write"))?;
        if lock.try_lock().is_err() {
            return Err(CliError::new(Exit::Storage, "another process works on this experiment")
                .at(folder)
                .help("wait for it, or give this suite another `out`"));
        }
        Ok(Self { rows: read_rows(folder)?, folder: folder.to_owned(), _lock: Some(lock) })
    }

    /// Opens the folder for reading.
    pub fn read(folder: &Path) -> Result<Self, CliError> {
        Ok(Self { rows: read_rows(folder)?, folder: folder.to_owned(), _lock: None })
    }

    /// All finished runs.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The row of a run.
    pub fn row(&self, key: &Key) -> Option<&Row> {
        self.rows.iter().find(|r| r.is(key))
    }

    /// Adds a row; the file is replaced as a whole.
    pub fn push(&mut self, row: Row) -> Result<(), CliError> {
        self.rows.push(row);
        let path = rows_path(&self.folder);
        let mut writer = csv::Writer::from_writer(Vec::new());
        let broken = |e: csv::Error| CliError::new(Exit::Internal, e);
        for row in &self.rows {
            writer.serialize(row).map_err(broken)?;
        }
        let bytes = writer.into_inner().map_err(|e| CliError::new(Exit::Internal, e))?;
        files::write_bytes(&path, &bytes)
    }

    /// A file of the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Files of a teacher, without ending.
    pub fn teacher(&self, network: &str, data: &str, seed: u64) -> PathBuf {
        self.folder.join("teachers").join(network).join(data).join(format!("seed-{seed}"))
    }

    /// Files of a student, without ending. `tuned` where the method chooses among learning rates.
    pub fn student(&self, key: &Key, tuned: bool) -> PathBuf {
        let folder = self.folder.join("students").join(&key.network).join(&key.data).join(&key.method);
        let rate = if tuned { format!("-lr-{}", key.learning_rate) } else { String::new() };
        folder.join(format!("seed-{}{rate}", key.seed))
    }

    /// Files of a row's student, without ending; none where there are none.
    pub fn student_of(&self, row: &Row) -> Option<PathBuf> {
        let key = Key {
            network: row.network.clone(),
            data: row.data.clone(),
            method: row.method.clone(),
            seed: row.seed,
            learning_rate: row.learning_rate,
        };
        [false, true].map(|tuned| self.student(&key, tuned)).into_iter().find(|s| named(s, "onnx").exists())
    }

    /// Where checkpoints of the teacher or student with these files go.
    pub fn checkpoints(&self, stem: &Path) -> PathBuf {
        self.folder.join("checkpoints").join(stem.strip_prefix(&self.folder).unwrap_or(stem))
    }

    /// Writes a JSON file.
    pub fn write_json(&self, path: &Path, value: &impl Serialize) -> Result<(), CliError> {
        make_parent(path)?;
        let text = serde_json::to_string(value).map_err(|e| CliError::new(Exit::Internal, e))?;
        files::write_atomically(path, Access::Shared, |to| {
            to.write_all(text.as_bytes()).map_err(|e| CliError::io(path, &e, "write"))
        })
    }
}

/// Reads a JSON file that [`Store::write_json`] wrote; none where there is none.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, CliError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(CliError::io(path, &e, "read")),
    };
    let value = serde_json::from_str(&text);
    value.map(Some).map_err(|e| CliError::new(Exit::File, format!("damaged: {e}")).at(path))
}

/// A file's name from its stem, which may hold dots, and its ending.
pub fn named(stem: &Path, ending: &str) -> PathBuf {
    let mut name = stem.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

/// Makes the folder that a file goes to.
pub fn make_parent(path: &Path) -> Result<(), CliError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(|e| CliError::io(parent, &e, "write"))
}

/// A value in hexadecimal that tells runs and files apart.
pub fn fingerprint(parts: &[&[u8]]) -> String {
    let mut hash = blake3::Hasher::new_derive_key("polyveil 2026 experiment");
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    hash.finalize().to_hex().chars().take(32).collect()
}

fn rows_path(folder: &Path) -> PathBuf {
    folder.join("rows.csv")
}

fn read_rows(folder: &Path) -> Result<Vec<Row>, CliError> {
    let path = rows_path(folder);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let damaged = |e: csv::Error| {
        CliError::new(Exit::File, format!("not the rows of an experiment: {e}"))
            .at(&path)
            .help("another version wrote it, or it was edited; choose another `out`")
    };
    csv::Reader::from_path(&path).map_err(damaged)?.deserialize().collect::<Result<_, _>>().map_err(damaged)
}
