//! Bad input: each gets a clear error with its exit code, and nothing is lost or left behind.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::path::Path;

use polyveil_net::builders::{GraphBuilder, lenet5_relu};
use support::{Fixture, image, names, npy, ok, refused, save};

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "\"{part}\" is missing in:\n{text}");
    }
}

fn encrypt_refused(name: &str, bytes: &[u8]) -> String {
    let d = Fixture::get().path();
    std::fs::write(d.join(name), bytes).unwrap();
    let out = format!("{name}.ct");
    let text = refused(d, &["encrypt", "a.client.plan", name, "--secret", "one.key", "--out", &out], 3);
    assert!(!d.join(out).exists(), "{name} left a file");
    text
}

#[test]
fn missing_and_corrupt_data_sets() {
    let directory = tempfile::tempdir().unwrap();
    let d = directory.path();
    let train = |data: &str| refused(d, &["train", "--data", data, "--out", "t.onnx"], 3);
    has(&train("nowhere.npz"), &["nowhere.npz", "no such file"]);
    std::fs::write(d.join("bad.npz"), b"PK\x03\x04 but not really").unwrap();
    has(&train("bad.npz"), &["bad.npz", "expected", "found"]);
    std::fs::create_dir(d.join("empty")).unwrap();
    has(&train("empty"), &["empty", "expected"]);
    assert!(!d.join("t.onnx").exists());
}

#[test]
fn kernels_that_nobody_has() {
    let directory = tempfile::tempdir().unwrap();
    let run = |value: &str, args: &[&str]| {
        support::polyveil(directory.path(), args).env("POLYVEIL_SIMD", value).output().unwrap()
    };
    let text = support::failed(&run("fast", &["doctor", "--json"]), &["doctor"], 2);
    has(&text, &["POLYVEIL_SIMD", "fast", "scalar", "avx2", "avx512"]);
    let scalar = run("scalar", &["doctor"]);
    assert!(scalar.status.success());
    has(&String::from_utf8(scalar.stdout).unwrap(), &["encrypted arithmetic", "scalar (available: scalar"]);
}

#[test]
fn images_of_the_wrong_size_with_nan_or_damaged() {
    has(
        &encrypt_refused("wide.npy", &npy(&[1, 6, 7], &[0.0; 42])),
        &["wide.npy", "[1, 6, 6] expected, found [1, 6, 7]"],
    );
    let mut values = image(1);
    values[8] = f32::NAN;
    has(&encrypt_refused("nan.npy", &npy(&[6, 6], &values)), &["nan.npy", "value 8 is NaN"]);
    values[8] = f32::INFINITY;
    has(&encrypt_refused("inf.npy", &npy(&[6, 6], &values)), &["inf.npy", "value 8 is inf"]);
    values[8] = 1e9;
    has(&encrypt_refused("huge.npy", &npy(&[6, 6], &values)), &["huge.npy", "range"]);
    has(&encrypt_refused("cut.npy", &npy(&[6, 6], &image(1))[..150]), &["cut.npy", "expected", "found"]);
    has(&encrypt_refused("text.png", b"hello"), &["text.png", "expected a PNG"]);
    let d = Fixture::get().path();
    let text =
        refused(d, &["encrypt", "a.client.plan", "none.png", "--secret", "one.key", "--out", "n.ct"], 3);
    has(&text, &["none.png", "no such file"]);
    let pixels = [0u8; 5 * 6];
    image::save_buffer(d.join("small.png"), &pixels, 5, 6, image::ColorType::L8).unwrap();
    let bytes = std::fs::read(d.join("small.png")).unwrap();
    has(&encrypt_refused("small.png", &bytes), &["small.png", "6×6 pixels expected, found 5×6"]);
}

/// A protobuf field of bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes.to_vec()].concat()
}

/// x → Sigmoid → Softplus → y, as an ONNX file of opset 17.
fn unsupported_onnx() -> Vec<u8> {
    let node = |from: &str, to: &str, op: &str| {
        let name = format!("my_{}", op.to_lowercase());
        field(
            1,
            &[
                field(1, from.as_bytes()),
                field(2, to.as_bytes()),
                field(3, name.as_bytes()),
                field(4, op.as_bytes()),
            ]
            .concat(),
        )
    };
    let dimensions: Vec<u8> = [1u8, 1, 6, 6].iter().flat_map(|&d| field(1, &[8, d])).collect();
    let value = |name: &str| {
        let tensor = [vec![8, 1], field(2, &dimensions)].concat();
        [field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat()
    };
    let graph = [
        node("x", "s", "Sigmoid"),
        node("s", "y", "Softplus"),
        field(2, b"g"),
        field(11, &value("x")),
        field(12, &value("y")),
    ]
    .concat();
    [vec![8, 8], field(7, &graph), field(8, &[16, 17])].concat()
}

#[test]
fn unsupported_operators_are_listed_all_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let d = directory.path();
    std::fs::write(d.join("odd.onnx"), unsupported_onnx()).unwrap();
    let text = refused(d, &["compile", "odd.onnx"], 4);
    has(&text, &["odd.onnx", "2 nodes", "my_sigmoid (Sigmoid)", "my_softplus (Softplus)"]);
    has(&refused(d, &["inspect", "odd.onnx"], 4), &["my_sigmoid", "my_softplus"]);

    save(&lenet5_relu(&[1, 28, 28], 10, 1).unwrap(), &d.join("relu.onnx"));
    for args in
        [["compile", "relu.onnx"].as_slice(), &["estimate", "relu.onnx"], &["bench", "net", "relu.onnx"]]
    {
        let text = refused(d, args, 4);
        has(&text, &["6 nodes", "relu1 (Relu)", "pool2 (MaxPool)", "polyveil convert"]);
    }
    std::fs::write(d.join("junk.onnx"), [0xff; 40]).unwrap();
    has(&refused(d, &["compile", "junk.onnx"], 4), &["junk.onnx", "not a valid ONNX file"]);
    has(&refused(d, &["compile", "gone.onnx"], 4), &["gone.onnx", "no such file"]);
    assert_eq!(names(d), ["junk.onnx", "odd.onnx", "relu.onnx"]);
}

#[test]
fn a_network_too_deep_for_any_parameters() {
    let directory = tempfile::tempdir().unwrap();
    let mut b = GraphBuilder::new("deep", &[4], 1);
    let mut x = b.input();
    for layer in 0..60 {
        x = b.linear(&format!("fc{layer}"), x, 4);
        x = b.quadratic(&format!("act{layer}"), x, [0.01, 0.5, 0.0]);
    }
    save(&b.finish(x).unwrap(), &directory.path().join("deep.onnx"));
    let text = refused(directory.path(), &["compile", "deep.onnx"], 5);
    has(&text, &["levels", "128-bit", "act59"]);
    assert_eq!(names(directory.path()), ["deep.onnx"]);
}

#[test]
fn files_of_another_key() {
    let d = Fixture::get().path();
    let text = refused(
        d,
        &["run", "a.server.plan", "--keys", "two.keys", "--input", "one.ct", "--out", "k.scores"],
        7,
    );
    has(&text, &["one.ct", "made with key", "this is key"]);
    assert!(!d.join("k.scores").exists());
    let text = refused(d, &["decrypt", "a.client.plan", "one.scores", "--secret", "two.key"], 7);
    has(&text, &["one.scores", "made with key", "this is key"]);
}

#[test]
fn files_of_another_plan() {
    let d = Fixture::get().path();
    let text = refused(
        d,
        &["run", "b.server.plan", "--keys", "one.keys", "--input", "one.ct", "--out", "p.scores"],
        7,
    );
    has(&text, &["one.ct", "made for plan", "this is plan"]);
    let text = refused(d, &["decrypt", "b.client.plan", "one.scores", "--secret", "one.key"], 7);
    has(&text, &["one.scores", "made for plan", "this is plan"]);
    let text = refused(d, &["simulate", "a.server.plan", "b.client.plan", "--data", "mnist5k"], 7);
    has(&text, &["different plans"]);
}

#[test]
fn files_of_another_kind() {
    let d = Fixture::get().path();
    let text = refused(d, &["run", "a.client.plan", "--keys", "one.keys", "--input", "one.ct"], 6);
    has(&text, &["a.client.plan", "expected a file of kind \"server plan\", found \"client plan\""]);
    let text =
        refused(d, &["run", "a.server.plan", "--keys", "one.key", "--input", "one.ct", "--out", "o"], 6);
    has(&text, &["one.key", "expected a file of kind \"evaluation keys\", found \"secret key\""]);
    has(
        &refused(d, &["keygen", "x.npy", "--secret", "s", "--keys", "e"], 6),
        &["x.npy", "not a Polyveil file"],
    );
}

#[test]
fn truncated_and_altered_files() {
    let fixture = Fixture::get();
    let d = fixture.path();
    let run = |keys: &str, input: &str| {
        let text =
            refused(d, &["run", "a.server.plan", "--keys", keys, "--input", input, "--out", "t.scores"], 6);
        assert!(!d.join("t.scores").exists());
        text
    };
    fixture.changed("one.keys", "cut.keys", |bytes| bytes.truncate(bytes.len() * 2 / 3));
    has(&run("cut.keys", "one.ct"), &["cut.keys", "truncated", "rotation/"]);
    fixture.changed("one.keys", "bad.keys", |bytes| bytes[2000] ^= 4);
    has(&run("bad.keys", "one.ct"), &["bad.keys", "altered or damaged"]);
    fixture.changed("one.ct", "bad.ct", |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    has(&run("one.keys", "bad.ct"), &["bad.ct", "section \"0/0\"", "altered or damaged"]);
    fixture.changed("a.server.plan", "bad.plan", |bytes| bytes[300] ^= 1);
    has(&refused(d, &["inspect", "bad.plan"], 6), &["bad.plan", "altered or damaged"]);
    fixture.changed("one.key", "cut.key", |bytes| bytes.truncate(200));
    let text = refused(d, &["decrypt", "a.client.plan", "one.scores", "--secret", "cut.key"], 6);
    has(&text, &["cut.key", "truncated"]);
}

#[test]
fn work_that_does_not_fit_memory_is_refused_before_it_starts() {
    let d = Fixture::get().path();
    let run = ["run", "a.server.plan", "--keys", "one.keys", "--input", "one.ct", "--out", "m.scores"];
    let text = refused(d, &[&run[..], &["--max-memory", "10M"]].concat(), 8);
    has(&text, &["running the plan needs about", "10.0 MiB are allowed by --max-memory"]);
    let keygen = ["keygen", "a.client.plan", "--secret", "m.key", "--keys", "m.keys", "--max-memory", "1M"];
    has(&refused(d, &keygen, 8), &["making the keys needs about"]);
    has(&refused(d, &["bench", "net", "a.onnx", "--max-memory", "10M"], 8), &["needs about"]);
    assert!(!["m.scores", "m.key", "m.keys"].iter().any(|f| d.join(f).exists()));
}

#[test]
fn keys_that_are_larger_than_allowed() {
    let d = Fixture::get().path();
    let compile = |limit| {
        let limit = format!("--max-keys={limit}");
        let args = ["compile", "a.onnx", "--server", "k.server.plan", "--client", "k.client.plan", &limit];
        support::polyveil(d, &args).arg("--json").output().unwrap()
    };
    let output = compile("1K");
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let (message, help) =
        (found["error"]["message"].as_str().unwrap(), found["error"]["help"].as_str().unwrap());
    assert_eq!(output.status.code(), Some(5), "{message}");
    has(message, &["the evaluation keys take at least ", "at most 1024 are allowed"]);
    assert!(!d.join("k.server.plan").exists());
    // What is advised works, and the keys of that plan are as large as it says, but for seeds and an index.
    let least = help.strip_prefix("use `--max-keys ").and_then(|h| h.split_once('`')).unwrap().0;
    let outcome: serde_json::Value = serde_json::from_slice(&compile(least).stdout).unwrap();
    assert_eq!(outcome["estimate"]["key_bytes"].as_u64(), least.parse().ok());
    let keygen = ok(d, &["keygen", "k.client.plan", "--secret", "k.key", "--keys", "k.keys"]);
    let found = keygen["eval_key_bytes"].as_f64().unwrap() / least.parse::<f64>().unwrap();
    assert!((1.0..1.02).contains(&found), "{found}");
}

#[test]
fn batches_that_do_not_go_together() {
    let d = Fixture::get().path();
    fn compile<'a>(extra: &[&'a str]) -> Vec<&'a str> {
        [&["compile", "a.onnx", "--server", "m.server.plan", "--client", "m.client.plan"], extra].concat()
    }
    // No ring has more slots.
    has(
        &refused(d, &compile(&["--batch", "65537"]), 5),
        &["a batch of 65537 images; from 1 to 65536 go together", "--batch 65536"],
    );
    let output = support::polyveil(d, &compile(&["--batch", "0"])).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = refused(d, &compile(&["--batch", "4096", "--max-memory", "60M"]), 8);
    has(
        &text,
        &["a batch of 4096 images needs about", "60.0 MiB are allowed", "the largest batch that fits is "],
    );
    assert!(!d.join("m.server.plan").exists());
    // Encrypted one at a time.
    ok(d, &compile(&["--batch", "4"]));
    has(&refused(d, &["encrypt", "m.client.plan", "x.npy", "--secret", "one.key"], 7), &["one.key"]);
    let bench = ["bench", "net", "a.onnx", "--batch", "3", "--input", "three.npy"];
    std::fs::write(d.join("three.npy"), npy(&[2, 6, 6], &[0.5; 72])).unwrap();
    has(&refused(d, &bench, 3), &["one input or 3 expected, found 2"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk() {
    let d = Fixture::get().path();
    let full = |args: &[&str]| has(&refused(d, args, 9), &["/dev/full", "the disk is full"]);
    full(&["compile", "a.onnx", "--server", "/dev/full", "--client", "f.client.plan"]);
    full(&["keygen", "a.client.plan", "--secret", "f.key", "--keys", "/dev/full"]);
    full(&["encrypt", "a.client.plan", "x.npy", "--secret", "one.key", "--out", "/dev/full"]);
    full(&["run", "a.server.plan", "--keys", "one.keys", "--input", "one.ct", "--out", "/dev/full"]);
    let left: Vec<String> =
        names(d).into_iter().filter(|n| n.starts_with("f.") || n.contains(".part")).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// A write that the system cuts off in the middle of a regular file.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_fills_up_leaves_no_partial_file() {
    let Some(mount) = SmallDisk::new() else {
        eprintln!("skipped: this system lets nobody mount a small file system");
        return;
    };
    let d = Fixture::get().path();
    let keys = mount.path().join("f.keys");
    let secret = mount.path().join("f.key");
    let args =
        ["keygen", "a.client.plan", "--secret", secret.to_str().unwrap(), "--keys", keys.to_str().unwrap()];
    has(&refused(d, &args, 9), &["f.keys", "the disk is full"]);
    assert_eq!(names(mount.path()), Vec::<String>::new());
}

#[test]
fn a_secret_key_is_never_overwritten() {
    let d = Fixture::get().path();
    let before = std::fs::read(d.join("one.key")).unwrap();
    let text = refused(d, &["keygen", "a.client.plan", "--secret", "one.key", "--keys", "o.keys"], 9);
    has(&text, &["one.key", "never overwritten"]);
    assert_eq!(std::fs::read(d.join("one.key")).unwrap(), before);
    assert!(!d.join("o.keys").exists());
}

#[test]
fn targets_are_checked_before_work() {
    let d = Fixture::get().path();
    has(
        &refused(d, &["compile", "a.onnx", "--server", "no/such/dir.plan"], 9),
        &["its directory does not exist"],
    );
    has(&refused(d, &["train", "--data", "mnist5k", "--out", "."], 9), &["it is a directory"]);
}

#[test]
fn usage_errors_exit_with_two() {
    let d = Path::new(".");
    for args in [["frobnicate"].as_slice(), &["compile"], &["bench", "net", "a.onnx", "--tolerance", "7"]] {
        let output = support::polyveil(d, args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
    std::fs::write(Fixture::get().path().join("odd.toml"), "epoch = 3\n").unwrap();
    let args = ["train", "--data", "mnist5k", "--out", "t.onnx", "--config", "odd.toml"];
    has(&refused(Fixture::get().path(), &args, 2), &["odd.toml", "epoch"]);
}

/// A file system of 64 KiB in memory, for as long as the value lives.
#[cfg(target_os = "linux")]
struct SmallDisk(tempfile::TempDir);

#[cfg(target_os = "linux")]
impl SmallDisk {
    fn new() -> Option<Self> {
        let directory = tempfile::tempdir().ok()?;
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(directory.path());
        let done = mount.output().is_ok_and(|o| o.status.success());
        done.then(|| Self(directory))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).output();
    }
}

#[test]
fn benchmarks_of_insecure_parameters_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let bench = |extra: &[&str], code| refused(root.path(), &[&["bench", "engine"], extra].concat(), code);
    has(&bench(&["--log-n", "12", "--levels", "5"], 5), &["2^12", "limit is 106", "--log-n"]);
    has(&bench(&["--digits", "2"], 5), &["2^15", "limit is 868"]);
    has(&bench(&["--max-memory", "1M"], 8), &["this benchmark", "--max-memory"]);
}

/// Every wrong setting of a conversion is named with its full key, and what exists.
#[test]
fn wrong_settings_of_a_conversion() {
    let directory = tempfile::tempdir().unwrap();
    let d = directory.path();
    save(&lenet5_relu(&[1, 28, 28], 10, 1).unwrap(), &d.join("relu.onnx"));
    let mut seen = String::new();
    for text in [
        "[transition]\nepoch = 3",
        "[range]\npenalti = 0.1",
        "epochs = \"many\"",
        "method = \"magic\"",
        "[activation]\nstart = \"random\"",
        "transition = 3",
        "epochs = 4",
        "[distillation]\nalpha = 1.5",
        "[activation]\nform = \"hermite\"",
        "epochs = ",
    ] {
        std::fs::write(d.join("c.toml"), text).unwrap();
        let args = ["convert", "relu.onnx", "--data", "mnist5k", "--out", "s.onnx", "--config", "c.toml"];
        let message = refused(d, &args, 2);
        seen += &format!("{text}\n  {}\n", message.trim_end().replace('\n', "\n  "));
    }
    assert!(!d.join("s.onnx").exists());
    support::snapshot("convert_refusals", &seen);
    // The template that the messages name is a configuration.
    for command in ["convert", "experiment"] {
        let output = support::polyveil(d, &[command, "--template"]).output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with('#') && text.contains("[student]") == (command == "experiment"), "{text}");
    }
    // The settings that come with the source are read, and then there is no data.
    let deep = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/deep.toml");
    let deep = deep.to_str().unwrap();
    let args = ["convert", "relu.onnx", "--data", "nowhere", "--out", "s.onnx", "--config", deep];
    has(&refused(d, &args, 3), &["nowhere"]);
    let template = support::polyveil(d, &["experiment", "--template"]).output().unwrap().stdout;
    std::fs::write(d.join("suite.toml"), template).unwrap();
    // Read, checked, and nothing to show yet.
    has(&refused(d, &["experiment", "suite.toml", "--tables"], 6), &["no run is finished"]);
    // So are the suites that come with the source, their settings checked run by run.
    let suites = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
    for name in ["ablation", "alexnet", "resnet20", "rivals", "squeezenet"] {
        let suite = d.join("suite.toml");
        std::fs::copy(suites.join(name).with_extension("toml"), &suite).unwrap();
        has(&refused(d, &["experiment", "suite.toml", "--tables"], 6), &["no run is finished"]);
    }
}
