//! Ctrl-C: training leaves a checkpoint and goes on to the same result; a run leaves nothing.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![cfg(unix)]

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{Fixture, failed, image, names, npy, ok, polyveil};

const ARGS: [&str; 8] = ["train", "--data", "mnist5k", "--epochs", "8", "--seed", "3", "--out"];

fn start(directory: &Path, args: &[&str]) -> Child {
    polyveil(directory, args).arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn interrupt(child: &Child) {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
}

fn wait_for(what: &str, ready: impl Fn() -> bool) {
    let started = Instant::now();
    while !ready() {
        assert!(started.elapsed() < Duration::from_secs(120), "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn training_goes_on_from_its_checkpoint_to_the_same_network() {
    let directory = tempfile::tempdir().unwrap();
    let d = directory.path();
    let args = [&ARGS[..], &["cut.onnx"]].concat();
    let child = start(d, &args);
    let checkpoints = d.join("cut.onnx.checkpoint");
    wait_for("a checkpoint", || checkpoints.is_dir() && !names(&checkpoints).is_empty());
    interrupt(&child);
    let text = failed(&child.wait_with_output().unwrap(), &args, 130);
    assert!(text.contains("stopped in epoch") && text.contains("goes on from"), "{text}");
    assert!(!d.join("cut.onnx").exists());
    assert_eq!(names(&checkpoints), ["teacher.ckpt"]);

    ok(d, &args);
    assert!(!checkpoints.exists(), "the checkpoint stayed");
    ok(d, &[&ARGS[..], &["whole.onnx"]].concat());
    let read = |name: &str| std::fs::read(d.join(name)).unwrap();
    assert!(read("cut.onnx") == read("whole.onnx"), "the resumed network differs from the uninterrupted one");
}

#[test]
fn an_interrupted_run_leaves_nothing() {
    let d = Fixture::get().path();
    let many: Vec<f32> = (0..400).flat_map(image).collect();
    std::fs::write(d.join("many.npy"), npy(&[400, 6, 6], &many)).unwrap();
    ok(d, &["encrypt", "a.client.plan", "many.npy", "--secret", "one.key", "--out", "many.ct"]);
    let args = ["run", "a.server.plan", "--keys", "one.keys", "--input", "many.ct", "--out", "many.scores"];
    let child = start(d, &args);
    let part = format!(".many.scores.{}.part", child.id());
    wait_for("the run", || d.join(&part).exists());
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    failed(&output, &args, 130);
    assert!(!names(d).iter().any(|name| name.contains("many.scores")), "{:?}", names(d));
}
