//! Experiments: every run a row, whatever happens in between.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use support::{names, ok, polyveil, refused};

const SUITE: &str = r#"
name = "tiny"
seeds = [1, 2]
[teacher]
epochs = 2
batch = 100
[student]
epochs = 3
batch = 100
patience = 0
[[network]]
name = "lenet5"
[[data]]
name = "digits"
path = "mnist5k"
[[method]]
name = "ours"
settings = { transition = { recover_epochs = 1, epochs = 1 } }
[[method]]
name = "square"
preset = "square"
learning_rates = [0.001, 0.003]
[[method]]
name = "declared-too-small"
settings = { transition = { recover_epochs = 1, epochs = 1 }, range = { declared = 0.1 } }
"#;

fn write(directory: &Path, text: &str) {
    std::fs::write(directory.join("suite.toml"), text).unwrap();
}

/// The rows without the columns that time decides.
fn rows(directory: &Path) -> Vec<Vec<String>> {
    let path = directory.join("tiny.results/rows.csv");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut lines = text.lines();
    let heading: Vec<&str> = lines.next().map_or(Vec::new(), |l| l.split(',').collect());
    let timed = ["seconds", "images_per_second", "teacher_seconds"];
    let keep: Vec<bool> = heading.iter().map(|name| !timed.contains(name)).collect();
    // No text of these rows holds a comma within quotes but the reason, which is compared as a whole.
    let fields = |line: &str| {
        let mut all = vec![String::new()];
        let mut quoted = false;
        for c in line.chars() {
            match c {
                '"' => quoted = !quoted,
                ',' if !quoted => all.push(String::new()),
                c => all.last_mut().unwrap().push(c),
            }
        }
        all
    };
    lines.map(|l| fields(l).into_iter().zip(&keep).filter(|(_, k)| **k).map(|(f, _)| f).collect()).collect()
}

fn column(directory: &Path, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(directory.join("tiny.results/rows.csv")).unwrap();
    let at = text.lines().next().unwrap().split(',').position(|n| n == name).unwrap();
    // Columns before the reason only: these never hold a comma.
    text.lines().skip(1).map(|l| l.split(',').nth(at).unwrap().to_owned()).collect()
}

#[test]
fn every_run_is_a_row_and_a_killed_experiment_goes_on_to_the_same_rows() {
    let whole = tempfile::tempdir().unwrap();
    write(whole.path(), SUITE);
    let outcome = ok(whole.path(), &["experiment", "suite.toml"]);
    // Two learning rates with the first seed, one with the second.
    assert_eq!((outcome["rows"].as_u64(), outcome["made"].as_u64()), (Some(7), Some(7)), "{outcome}");
    assert_eq!(outcome["accepted"], 5);
    let verdicts = column(whole.path(), "verdict");
    let methods = column(whole.path(), "method");
    for (method, verdict) in methods.iter().zip(&verdicts) {
        assert_eq!(verdict == "accepted", method != "declared-too-small", "{method} {verdict}");
    }
    let rates: Vec<String> = column(whole.path(), "learning_rate");
    assert_eq!(methods.iter().filter(|m| *m == "square").count(), 3, "{methods:?} {rates:?}");

    let out = whole.path().join("tiny.results");
    assert_eq!(
        names(&out),
        [".lock", "checkpoints", "manifest.json", "rows.csv", "students", "tables.md", "teachers"]
    );
    let tables = std::fs::read_to_string(out.join("tables.md")).unwrap();
    for part in [
        "lenet5 on digits",
        "| ReLU teacher | 2 |",
        "| square | 2 |",
        "| declared-too-small | 2 |",
        "0 of 2",
        "±",
    ] {
        assert!(tables.contains(part), "\"{part}\" is missing in\n{tables}");
    }
    let student = out.join("students/lenet5/digits/ours/seed-2.onnx");
    let scored = ok(whole.path(), &["eval", student.to_str().unwrap(), "--data", "mnist5k"]);
    let last = rows(whole.path()).into_iter().rfind(|r| r.contains(&"ours".to_owned())).unwrap();
    let accuracy = scored["accuracy"].as_f64().unwrap();
    assert!(last.iter().any(|f| f.parse() == Ok(accuracy)), "{accuracy} is not in {last:?}");

    // Nothing is made twice; the tables alone come out the same.
    assert_eq!(ok(whole.path(), &["experiment", "suite.toml"])["made"], 0);
    ok(whole.path(), &["experiment", "suite.toml", "--tables"]);
    assert_eq!(std::fs::read_to_string(out.join("tables.md")).unwrap(), tables);

    let page = ok(whole.path(), &["report", "tiny.results"]);
    assert_eq!(page["runs"], 7);
    let html = std::fs::read_to_string(out.join("report.html")).unwrap();
    for part in [
        "lenet5 on digits: square",
        "ReLU teacher",
        "may not be exported",
        "within the declared bound",
        "<svg",
    ] {
        assert!(html.contains(part), "\"{part}\" is missing");
    }
    assert!(!html.contains("<script") && !html.contains("http"), "the page needs something from elsewhere");
    let text = refused(whole.path(), &["report", "nowhere"], 6);
    assert!(text.contains("nowhere") && text.contains("no such folder"), "{text}");

    let cut = tempfile::tempdir().unwrap();
    write(cut.path(), SUITE);
    let started = Instant::now();
    let mut kills = 0;
    loop {
        let mut child = polyveil(cut.path(), &["experiment", "suite.toml"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // At ever later moments, so that every part of a run is hit and some progress is made.
        let patience = Duration::from_millis(700 + 170 * kills);
        let born = Instant::now();
        let ended = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if born.elapsed() > patience {
                child.kill().unwrap();
                child.wait().unwrap();
                break None;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        if let Some(status) = ended {
            assert!(status.success());
            break;
        }
        kills += 1;
        assert!(started.elapsed() < Duration::from_secs(300), "no end after {kills} kills");
    }
    assert!(kills >= 2, "killed {kills} times only");
    assert_eq!(rows(cut.path()), rows(whole.path()));
    for name in ["ours/seed-1.onnx", "declared-too-small/seed-2.onnx"] {
        let read =
            |d: &Path| std::fs::read(d.join("tiny.results/students/lenet5/digits").join(name)).unwrap();
        assert!(read(cut.path()) == read(whole.path()), "{name} differs");
    }
}

#[test]
fn a_suite_that_changed_is_not_mixed_with_old_rows() {
    let directory = tempfile::tempdir().unwrap();
    let d = directory.path();
    let small = SUITE.replace("seeds = [1, 2]", "seeds = [1]").replace("[0.001, 0.003]", "[0.001]");
    write(d, &small);
    ok(d, &["experiment", "suite.toml"]);
    write(d, &small.replace("declared = 0.1", "declared = 0.2"));
    let text = refused(d, &["experiment", "suite.toml"], 2);
    assert!(text.contains("declared-too-small") && text.contains("other settings"), "{text}");
    write(d, &small.replace("[teacher]\nepochs = 2", "[teacher]\nepochs = 1"));
    let text = refused(d, &["experiment", "suite.toml"], 2);
    assert!(text.contains("teacher was made with other settings"), "{text}");
    // What is new is made.
    write(d, &format!("{small}[[method]]\nname = \"poly\"\npreset = \"poly\"\n"));
    assert_eq!(ok(d, &["experiment", "suite.toml"])["made"], 1);
}

#[test]
fn suites_that_make_no_sense_are_refused_before_anything_runs() {
    let directory = tempfile::tempdir().unwrap();
    let d = directory.path();
    let mut seen = String::new();
    for (from, to) in [
        ("epochs = 3", "epoch = 3"),
        (
            "recover_epochs = 1, epochs = 1 } }\n[[method]]\nname = \"square\"",
            "recover = 1 } }\n[[method]]\nname = \"square\"",
        ),
        ("preset = \"square\"", "preset = \"cube\""),
        ("seeds = [1, 2]", "seeds = []"),
        ("seeds = [1, 2]", "seeds = [1, 1]"),
        ("name = \"digits\"", "name = \"../digits\""),
        ("name = \"digits\"", "name = \"digits\"\nnetworks = [\"lenet\"]"),
        ("name = \"square\"", "name = \"ours\""),
        ("path = \"mnist5k\"", "path = \"mnist5k\"\nimages = { size = 28 }"),
        ("epochs = 3", "epochs = \"three\""),
        ("learning_rates = [0.001, 0.003]", "learning_rates = [0.001, 300.0]"),
        ("[[network]]", "colour = 1\n[[network]]"),
    ] {
        assert!(SUITE.contains(from), "{from}");
        write(d, &SUITE.replacen(from, to, 1));
        let text = refused(d, &["experiment", "suite.toml"], 2);
        let message = text.split("error: ").nth(1).unwrap();
        seen += &format!("{to}\n  {}\n", message.trim_end().replace('\n', "\n  "));
    }
    assert!(!d.join("tiny.results").exists());
    support::snapshot("experiment_refusals", &seen);
}
