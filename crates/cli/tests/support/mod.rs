//! A tiny network and the real binary, for the tests of this folder.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use polyveil_net::builders::{ConvSpec, GraphBuilder};
use polyveil_net::{Graph, onnx};
use serde_json::Value;
use tempfile::TempDir;

/// Shape of the tiny network's images.
pub const SHAPE: [usize; 3] = [1, 6, 6];

/// Convolution, quadratic, fully connected: three levels or so.
pub fn network(seed: u64) -> Graph {
    let mut b = GraphBuilder::new("tiny", &SHAPE, seed);
    let mut x = b.input();
    x = b.conv("conv", x, 2, ConvSpec::new(3).pad(1));
    x = b.quadratic("act", x, [0.3, 0.5, 0.1]);
    x = b.flatten("flat", x);
    x = b.linear("fc", x, 3);
    let mut graph = b.finish(x).unwrap();
    let preprocessing = r#"{"scale":0.00392156862745098,"mean":[0.0],"std":[1.0]}"#;
    graph.metadata.insert("polyveil.preprocessing".into(), preprocessing.into());
    graph.metadata.insert("polyveil.classes".into(), r#"["cat","dog","owl"]"#.into());
    graph
}

/// Writes a network.
pub fn save(graph: &Graph, path: &Path) {
    std::fs::write(path, onnx::to_bytes(graph).unwrap()).unwrap();
}

/// An image in [0, 1] that differs by `seed`.
pub fn image(seed: usize) -> Vec<f32> {
    (0..36).map(|i| ((i * 7 + seed * 13) % 32) as f32 / 32.0).collect()
}

/// The command, in a directory, two threads, no progress.
pub fn polyveil(directory: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("polyveil"));
    command.current_dir(directory).args(args).args(["--quiet", "--threads", "2"]);
    command
}

/// Runs and requires success; the `--json` result.
pub fn ok(directory: &Path, args: &[&str]) -> Value {
    let output = polyveil(directory, args).arg("--json").output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs and requires failure with this exit code; the message, which also must be in the JSON.
pub fn refused(directory: &Path, args: &[&str], code: i32) -> String {
    let output = polyveil(directory, args).arg("--json").output().unwrap();
    failed(&output, args, code)
}

/// Requires failure with this exit code.
pub fn failed(output: &Output, args: &[&str], code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
    assert!(text.contains("error: ") && text.contains("help: "), "{text}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["error"]["code"], code, "{json}");
    let message = json["error"]["message"].as_str().unwrap();
    assert!(text.contains(message.lines().next().unwrap()), "{text}\n{message}");
    text
}

/// Names of the files in a directory.
pub fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Two plans, two keys of the first, encrypted images of each key: made once for all tests of a file.
pub struct Fixture {
    pub directory: TempDir,
}

impl Fixture {
    pub fn get() -> &'static Self {
        static FIXTURE: OnceLock<Fixture> = OnceLock::new();
        FIXTURE.get_or_init(|| {
            let directory = tempfile::tempdir().unwrap();
            let d = directory.path();
            for (name, seed) in [("a", 1), ("b", 2)] {
                save(&network(seed), &d.join(format!("{name}.onnx")));
                let (server, client) = (format!("{name}.server.plan"), format!("{name}.client.plan"));
                ok(d, &["compile", &format!("{name}.onnx"), "--server", &server, "--client", &client]);
            }
            std::fs::write(d.join("x.npy"), npy(&[1, 1, 6, 6], &image(1))).unwrap();
            for key in ["one", "two"] {
                let (secret, keys, out) = (format!("{key}.key"), format!("{key}.keys"), format!("{key}.ct"));
                ok(d, &["keygen", "a.client.plan", "--secret", &secret, "--keys", &keys]);
                ok(d, &["encrypt", "a.client.plan", "x.npy", "--secret", &secret, "--out", &out]);
            }
            ok(
                d,
                &["run", "a.server.plan", "--keys", "one.keys", "--input", "one.ct", "--out", "one.scores"],
            );
            Self { directory }
        })
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A copy of one of the files, changed.
    pub fn changed(&self, from: &str, to: &str, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
        let mut bytes = std::fs::read(self.path().join(from)).unwrap();
        change(&mut bytes);
        let path = self.path().join(to);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

/// The bytes of an `.npy` file of `f32`.
pub fn npy(shape: &[usize], values: &[f32]) -> Vec<u8> {
    polyveil_train::data::npy::write_f32(shape, values)
}

/// Compares text with the file of this name in `tests/snapshots`; with POLYVEIL_BLESS=1 writes it.
pub fn snapshot(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(format!("{name}.txt"));
    if std::env::var_os("POLYVEIL_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, text, "{}: run the test once with POLYVEIL_BLESS=1", path.display());
}
