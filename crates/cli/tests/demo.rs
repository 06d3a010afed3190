//! The demonstration on a small synthetic data set: its JSON, its files, its report.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::path::Path;

use support::{names, ok, refused};

const SIDE: usize = 12;

/// Three classes: a bright bar at the top, in the middle or at the bottom, with some noise.
fn write_data(directory: &Path) {
    for (part, count) in [("train", 240), ("t10k", 30)] {
        let mut images = vec![0, 0, 8, 3];
        let mut labels = vec![0, 0, 8, 1];
        for size in [count, SIDE, SIDE] {
            images.extend_from_slice(&u32::try_from(size).unwrap().to_be_bytes());
        }
        labels.extend_from_slice(&u32::try_from(count).unwrap().to_be_bytes());
        for index in 0..count {
            let class = index % 3;
            labels.push(class as u8);
            for pixel in 0..SIDE * SIDE {
                let noise = (pixel * 31 + index * 17 + pixel * index) % 50;
                let bar = pixel / SIDE / 4 == class;
                images.push((noise + if bar { 180 } else { 0 }) as u8);
            }
        }
        std::fs::write(directory.join(format!("{part}-images-idx3-ubyte")), images).unwrap();
        std::fs::write(directory.join(format!("{part}-labels-idx1-ubyte")), labels).unwrap();
    }
}

#[test]
fn demo_keeps_the_sides_apart_and_reports() {
    let root = tempfile::tempdir().unwrap();
    let d = root.path();
    std::fs::create_dir(d.join("bars")).unwrap();
    write_data(&d.join("bars"));
    std::fs::write(d.join("train.toml"), "epochs = 4\n").unwrap();
    let convert = "epochs = 5\n[transition]\nkind = \"smooth\"\nrecover_epochs = 1\nepochs = 2\n";
    std::fs::write(d.join("convert.toml"), convert).unwrap();
    let args = [
        "demo",
        "--data",
        "bars",
        "--images",
        "3",
        "--train-config",
        "train.toml",
        "--convert-config",
        "convert.toml",
        "--out",
        "shown",
    ];
    let result = ok(d, &args);

    for network in ["teacher", "student", "simulated"] {
        assert!(
            result[network]["accuracy"].is_number() && result[network]["macro_f1"].is_number(),
            "{network}"
        );
        assert_eq!(result[network]["n"], 30);
    }
    assert!(result["teacher"]["accuracy"].as_f64().unwrap() > 0.9, "{}", result["teacher"]);
    assert!(result["simulated_distance"]["agreement"].as_f64().unwrap() > 0.9, "{result}");
    let encrypted = &result["encrypted"];
    assert_eq!((&encrypted["images"], &encrypted["agreement"]), (&3.into(), &1.0.into()));
    let (error, range) =
        (encrypted["max_logit_error"].as_f64().unwrap(), encrypted["logit_range"].as_f64().unwrap());
    assert!(error > 0.0 && error <= 1e-3 * range, "{error} of {range}");
    for key in ["seconds_per_image", "accuracy"] {
        assert!(encrypted[key].is_number(), "{key}");
    }
    assert_eq!(result["security_bits"], 128);
    for key in ["peak_rss_bytes", "client_peak_rss_bytes", "eval_key_bytes", "upload_bytes", "download_bytes"]
    {
        assert!(result[key].as_u64().unwrap() > 0, "{key}");
    }

    let shown = d.join("shown");
    assert_eq!(names(&shown.join("client")), ["client.plan", "scores.ct", "secret.key"]);
    assert_eq!(names(&shown.join("server")), ["evaluation.keys", "images.ct", "server.plan"]);
    let page = std::fs::read_to_string(shown.join("report.html")).unwrap();
    for part in [
        "Confusion matrices",
        "against ReLU",
        "transition",
        "time by layer",
        "encrypted against plain scores",
    ] {
        assert!(page.contains(part), "the report lacks \"{part}\"");
    }
    assert!(!page.contains("NaN") && !page.contains("<script") && !page.contains("src="));

    // The networks it leaves serve the other commands.
    let eval = ok(d, &["eval", "shown/student.onnx", "--data", "bars"]);
    assert_eq!(eval["accuracy"], result["student"]["accuracy"]);
    // A line an image says the same.
    ok(d, &["eval", "shown/student.onnx", "--data", "bars", "--predictions", "lines.csv"]);
    let lines = std::fs::read_to_string(d.join("lines.csv")).unwrap();
    let mut lines = lines.lines();
    assert!(lines.next().unwrap().starts_with("index,image,class,predicted,score "));
    let right: Vec<bool> = lines
        .map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            cells[2] == cells[3]
        })
        .collect();
    assert_eq!(right.len() as u64, eval["n"].as_u64().unwrap());
    let share = right.iter().filter(|&&r| r).count() as f64 / right.len() as f64;
    assert!((share - eval["accuracy"].as_f64().unwrap()).abs() < 1e-9);
    // An image set of another shape is refused by every command that takes both.
    let text = refused(d, &["eval", "shown/student.onnx", "--data", "mnist5k"], 3);
    assert!(text.contains("[1, 28, 28]") && text.contains("[1, 12, 12]"), "{text}");

    // Again, into a directory that is somebody else's.
    let own = d.join("own");
    std::fs::create_dir(&own).unwrap();
    std::fs::write(own.join("secret.key"), "precious").unwrap();
    let text = refused(d, &[&args[..10], &["own"]].concat(), 9);
    assert!(text.contains("not empty"), "{text}");
    assert_eq!(std::fs::read_to_string(own.join("secret.key")).unwrap(), "precious");
}
