//! The whole way with separate commands and files: the data owner's and the server's steps run in two
//! directories that share only the files each may have.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::path::Path;

use polyveil_net::{Tensor, exec};
use serde_json::Value;
use support::{image, names, network, npy, ok, polyveil, save};

fn hand_over(from: &Path, to: &Path, name: &str) {
    std::fs::rename(from.join(name), to.join(name)).unwrap();
}

#[test]
fn step_by_step_in_two_directories() {
    let root = tempfile::tempdir().unwrap();
    let [owner, client, server] = ["owner", "client", "server"].map(|name| {
        let path = root.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    });

    // The model owner compiles, and gives each side its half.
    let graph = network(5);
    save(&graph, &owner.join("net.onnx"));
    let compiled = ok(&owner, &["compile", "net.onnx"]);
    assert_eq!(compiled["estimate"]["security_bits"], 128);
    let estimate = ok(&owner, &["estimate", "server.plan"]);
    for key in [
        "seconds",
        "server_memory_bytes",
        "client_memory_bytes",
        "key_bytes",
        "upload_bytes",
        "download_bytes",
    ] {
        assert!(estimate[key].as_f64().unwrap() > 0.0, "{key}");
    }
    hand_over(&owner, &client, "client.plan");
    hand_over(&owner, &server, "server.plan");

    // The data owner makes keys and encrypts two arrays and a picture.
    let keygen = ok(&client, &["keygen", "client.plan"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(client.join("secret.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let predicted = estimate["key_bytes"].as_f64().unwrap();
    let found = keygen["eval_key_bytes"].as_f64().unwrap();
    assert!((found / predicted - 1.0).abs() < 0.02, "{found} bytes of keys against {predicted} predicted");
    let pixels: Vec<u8> = (0..36).map(|i| (i * 7) as u8).collect();
    image::save_buffer(client.join("c.png"), &pixels, 6, 6, image::ColorType::L8).unwrap();
    std::fs::write(client.join("ab.npy"), npy(&[2, 6, 6], &[image(1), image(2)].concat())).unwrap();
    let encrypted = ok(&client, &["encrypt", "client.plan", "ab.npy", "c.png"]);
    assert_eq!(encrypted["images"], 3);
    hand_over(&client, &server, "evaluation.keys");
    hand_over(&client, &server, "images.ct");

    // The server runs, with nothing else at hand.
    assert_eq!(names(&server), ["evaluation.keys", "images.ct", "server.plan"]);
    let run = ok(&server, &["run", "server.plan"]);
    assert_eq!(run["images"], 3);
    assert!(run["peak_rss_bytes"].as_u64().unwrap() > 0);
    hand_over(&server, &client, "scores.ct");

    // The data owner decrypts; the scores are those of the plain network.
    assert_eq!(names(&client), ["ab.npy", "c.png", "client.plan", "scores.ct", "secret.key"]);
    let decrypted = ok(&client, &["decrypt", "client.plan", "--out", "y.npy"]);
    let bound = promised(&estimate, &decrypted);
    let picture: Vec<f32> = pixels.iter().map(|&b| f32::from(b) / 255.0).collect();
    for (index, values) in [image(1), image(2), picture].into_iter().enumerate() {
        let plain = exec::run(&graph, &Tensor::new(support::SHAPE.to_vec(), values).unwrap()).unwrap();
        let row = &decrypted["images"][index];
        for (class, expected) in plain.data().iter().enumerate() {
            let found = row["scores"][class].as_f64().unwrap() as f32;
            assert!(
                (found - expected).abs() <= bound,
                "image {index}: {found} against {expected}, {bound} promised"
            );
        }
        let best = plain.data().iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
        assert_eq!(row["class_name"], ["cat", "dog", "owl"][best]);
    }
    assert_eq!(std::fs::read(client.join("y.npy")).unwrap().len(), 128 + 9 * 4);
    let table =
        String::from_utf8(polyveil(&client, &["decrypt", "client.plan"]).output().unwrap().stdout).unwrap();
    assert!(table.contains("owl") && table.lines().count() == 5, "{table}");
}

/// The largest error of a score that the plan promises, with the rounding of decrypted scores.
fn promised(estimate: &Value, decrypted: &Value) -> f32 {
    let bits = decrypted["precision_bits"].as_i64().unwrap() as i32;
    let bound = (estimate["max_error"].as_f64().unwrap() + 2f64.powi(-bits - 1)) as f32;
    assert!(bound < 1e-2, "{bound}");
    bound
}

#[test]
fn an_image_whose_values_leave_the_range_has_no_result() {
    let root = tempfile::tempdir().unwrap();
    let d = root.path();
    let graph = network(5);
    save(&graph, &d.join("net.onnx"));
    ok(d, &["compile", "net.onnx"]);
    ok(d, &["keygen", "client.plan"]);
    // Squares of values nearly four times as large are beyond the room for four.
    let large: Vec<f32> = image(2).iter().map(|v| 3.9 * v).collect();
    std::fs::write(d.join("x.npy"), npy(&[3, 6, 6], &[image(1), large, image(3)].concat())).unwrap();
    ok(d, &["encrypt", "client.plan", "x.npy"]);
    ok(d, &["run", "server.plan"]);
    let args = ["decrypt", "client.plan", "--out", "y.npy"];
    let output = polyveil(d, &args).arg("--json").output().unwrap();
    assert_eq!(output.status.code(), Some(11));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains("scores.ct: no result for 1 of 3 images (1): ") && message.contains("help: "),
        "{message}"
    );
    let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = rows["images"].as_array().unwrap();
    let null = |index: usize| {
        let scores = rows[index]["scores"].as_array().unwrap();
        assert_eq!(scores.len(), 3);
        [
            rows[index]["class"].is_null(),
            rows[index]["class_name"].is_null(),
            scores.iter().all(Value::is_null),
        ]
    };
    assert_eq!([0, 1, 2].map(null), [[false; 3], [true; 3], [false; 3]]);
    // What there is is kept.
    let array = std::fs::read(d.join("y.npy")).unwrap();
    let values: Vec<f32> =
        array[128..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(
        values.iter().map(|v| v.is_nan()).collect::<Vec<_>>(),
        [[false; 3], [true; 3], [false; 3]].concat()
    );
    let output = polyveil(d, &args[..2]).output().unwrap();
    assert_eq!(output.status.code(), Some(11));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.lines().any(|line| line.starts_with("1") && line.contains("out of range")), "{table}");

    // Images of one batch share ciphertexts, so none of them has a result.
    ok(d, &["compile", "net.onnx", "--batch", "2", "--server", "s.plan", "--client", "c.plan"]);
    ok(d, &["keygen", "c.plan", "--secret", "s.key", "--keys", "e.keys"]);
    ok(d, &["encrypt", "c.plan", "x.npy", "--secret", "s.key", "--out", "b.ct"]);
    ok(d, &["run", "s.plan", "--keys", "e.keys", "--input", "b.ct", "--out", "r.ct"]);
    let output = polyveil(d, &["decrypt", "c.plan", "r.ct", "--secret", "s.key"]).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("no result for 2 of 3 images (0, 1): "), "{message}");
}

#[test]
fn simulation_tells_how_many_images_have_no_result() {
    let root = tempfile::tempdir().unwrap();
    let d = root.path();
    save(&network(5), &d.join("net.onnx"));
    // Nine images a class, each a dark one and the same made brighter.
    for (folder, factor) in [("dark", 0.27), ("bright", 1.0)] {
        for (class, name) in ["cat", "dog", "owl"].into_iter().enumerate() {
            std::fs::create_dir_all(d.join(folder).join(name)).unwrap();
            for index in 0..9 {
                let pixels: Vec<u8> =
                    image(3 * index + class).iter().map(|v| (255.0 * factor * v) as u8).collect();
                let path = d.join(folder).join(name).join(format!("{index}.png"));
                image::save_buffer(path, &pixels, 6, 6, image::ColorType::L8).unwrap();
            }
        }
    }
    ok(d, &["compile", "net.onnx", "--data", "dark"]);
    let simulate =
        |data| ok(d, &["simulate", "server.plan", "client.plan", "--data", data, "--split", "all"]);
    let (dark, bright) = (simulate("dark"), simulate("bright"));
    assert_eq!(dark["without_result"], 0, "{dark}");
    assert_eq!(dark["agreement"], 1.0);
    assert!(bright["without_result"].as_u64().unwrap() > 0, "{bright}");
    assert!(bright["agreement"].as_f64().unwrap() < 1.0, "{bright}");
}

#[test]
fn five_images_in_batches_of_four_come_back_in_order() {
    let root = tempfile::tempdir().unwrap();
    let d = root.path();
    let graph = network(3);
    save(&graph, &d.join("net.onnx"));
    let compiled = ok(d, &["compile", "net.onnx", "--batch", "4"]);
    let estimate = &compiled["estimate"];
    assert_eq!(estimate["batch"], 4);
    let [all, each] = ["seconds", "seconds_per_image"].map(|key| estimate[key].as_f64().unwrap());
    assert!((all / each - 4.0).abs() < 1e-9);
    assert_eq!(ok(d, &["estimate", "server.plan"])["batch"], 4);
    for half in ["server.plan", "client.plan"] {
        assert_eq!(ok(d, &["inspect", half])["batch"], 4, "{half}");
    }
    ok(d, &["keygen", "client.plan"]);
    let images: Vec<Vec<f32>> = (0..5).map(image).collect();
    std::fs::write(d.join("x.npy"), npy(&[5, 6, 6], &images.concat())).unwrap();
    let encrypted = ok(d, &["encrypt", "client.plan", "x.npy"]);
    assert_eq!((&encrypted["images"], &encrypted["batch"]), (&5.into(), &4.into()));
    let shown = ok(d, &["inspect", "images.ct"]);
    assert_eq!((&shown["images"], &shown["batch"]), (&5.into(), &4.into()));
    let run = ok(d, &["run", "server.plan"]);
    assert_eq!((&run["images"], &run["batch"]), (&5.into(), &4.into()));
    let [all, each] = ["run_s", "seconds_per_image"].map(|key| run[key].as_f64().unwrap());
    assert!((all / each - 5.0).abs() < 1e-9);
    let decrypted = ok(d, &["decrypt", "client.plan"]);
    let rows = decrypted["images"].as_array().unwrap();
    assert_eq!(rows.len(), 5);
    let bound = promised(estimate, &decrypted);
    for (index, (row, values)) in rows.iter().zip(images).enumerate() {
        assert_eq!(row["index"], index);
        let plain = exec::run(&graph, &Tensor::new(support::SHAPE.to_vec(), values).unwrap()).unwrap();
        for (class, expected) in plain.data().iter().enumerate() {
            let found = row["scores"][class].as_f64().unwrap() as f32;
            assert!(
                (found - expected).abs() <= bound,
                "image {index}: {found} against {expected}, {bound} promised"
            );
        }
    }
}

#[test]
fn flooding_adds_noise_and_says_so() {
    let d = support::Fixture::get().path();
    let args = ["decrypt", "a.client.plan", "one.scores", "--secret", "one.key"];
    let rounded = ok(d, &args);
    assert_eq!(rounded["noise_std"], 0.0);
    let flooded = |extra: &[&str]| ok(d, &[&args, extra].concat());
    let scores = |result: &Value| result["images"][0]["scores"].clone();
    let one = flooded(&["--flooding", "10"]);
    let std = one["noise_std"].as_f64().unwrap();
    let error = ok(d, &["inspect", "a.client.plan"])["predicted_max_error"].as_f64().unwrap();
    // One image, three scores.
    assert!((std / (6.0 * 32.0 * error) - 1.0).abs() < 1e-9, "{std} {error}");
    assert!(one["precision_bits"].as_i64().unwrap() < rounded["precision_bits"].as_i64().unwrap());
    // Rounded scores are alike in one pair of twenty-five.
    let again = || scores(&flooded(&["--flooding", "10"]));
    assert!((0..8).any(|_| again() != scores(&one)));
    let more = flooded(&["--flooding", "10", "--shared-results", "100"])["noise_std"].as_f64().unwrap();
    assert!((more / std - 10.0).abs() < 1e-9);
    for (found, expected) in scores(&one).as_array().unwrap().iter().zip(scores(&rounded).as_array().unwrap())
    {
        let difference = (found.as_f64().unwrap() - expected.as_f64().unwrap()).abs();
        assert!(difference < 10.0 * std, "{found} {expected}");
    }
}

#[test]
fn inspect_tells_every_kind_apart() {
    let d = support::Fixture::get().path();
    for (file, kind) in [
        ("a.server.plan", "server plan"),
        ("a.client.plan", "client plan"),
        ("one.key", "secret key"),
        ("one.keys", "evaluation keys"),
        ("one.ct", "ciphertexts"),
        ("one.scores", "results"),
        ("a.onnx", "network"),
    ] {
        let shown = ok(d, &["inspect", file]);
        assert_eq!(shown["kind"], kind);
        if kind != "network" {
            assert_eq!(shown["security_bits"], 128, "{file}");
            assert!(shown["security_table"].as_str().unwrap().contains("2024/463"));
        }
    }
    let layers = &ok(d, &["inspect", "a.server.plan"])["layers"];
    assert!(layers.as_array().unwrap().iter().any(|l| l["kind"] == "square"), "{layers}");
    // What the data owner and the server hold names neither the other's secrets nor weights.
    let client = std::fs::read(d.join("a.client.plan")).unwrap();
    assert!(client.len() < 4096, "the client plan has {} bytes: weights in it?", client.len());
    let server = std::fs::read(d.join("a.server.plan")).unwrap();
    assert!(!server.windows(3).any(|w| w == b"owl"), "the server plan names the classes");
}

#[test]
fn bench_net_has_the_promised_keys() {
    let d = support::Fixture::get().path();
    let result = ok(d, &["bench", "net", "a.onnx", "--input", "x.npy", "--output", "y.npy"]);
    // What a layer needed is in the whole.
    let peak = result["peak_rss_bytes"].as_u64().unwrap();
    let layers = result["layers"].as_array().unwrap();
    assert!(layers.len() > 1);
    for layer in layers {
        let number = |key: &str| layer[key].as_f64().unwrap_or_else(|| panic!("{key} of {layer}"));
        assert!(number("seconds") > 0.0 && number("predicted_s") >= 0.0, "{layer}");
        assert!(number("peak_rss_bytes") <= peak as f64 && number("peak_rss_bytes") > 0.0, "{layer}");
        assert!(
            number("predicted_memory_bytes") <= result["predicted_memory_bytes"].as_f64().unwrap(),
            "{layer}"
        );
    }
    for key in [
        "compile_s",
        "keygen_s",
        "encrypt_s",
        "run_s",
        "decrypt_s",
        "peak_rss_bytes",
        "eval_key_bytes",
        "input_bytes",
        "output_bytes",
        "max_abs_error",
        "output_abs_max",
        "log_n",
        "log_qp",
        "levels",
        "security_bits",
        "rotations",
        "threads",
    ] {
        assert!(result[key].is_number(), "{key} is missing");
    }
    assert_eq!(result["threads"], 2);
    let (error, range) =
        (result["max_abs_error"].as_f64().unwrap(), result["output_abs_max"].as_f64().unwrap());
    assert!(error <= 1e-3 * range, "{error} of {range}");
    assert!(d.join("y.npy").is_file());
    assert_eq!(result["batch"], 1);
    let times = |result: &Value| {
        ["least_run_s", "first_run_s", "run_s", "most_run_s"].map(|key| result[key].as_f64().unwrap())
    };
    assert_eq!((&result["runs"], times(&result)), (&1.into(), [result["run_s"].as_f64().unwrap(); 4]));
    // Every run of the same input is timed and checked, and each layer has a peak whatever the number of runs.
    let again = ok(d, &["bench", "net", "a.onnx", "--runs", "3"]);
    let [least, first, median, most] = times(&again);
    assert!(least <= median && median <= most && (least..=most).contains(&first), "{:?}", times(&again));
    assert_eq!((&again["runs"], again["layers"].as_array().unwrap().len()), (&3.into(), layers.len()));
    assert!(
        again["layers"].as_array().unwrap().iter().all(|layer| layer["peak_rss_bytes"].as_u64().unwrap() > 0)
    );
    let many = ok(d, &["bench", "net", "a.onnx", "--batch", "6"]);
    assert_eq!(many["batch"], 6);
    let [all, each] = ["run_s", "run_s_per_image"].map(|key| many[key].as_f64().unwrap());
    assert!((all / each - 6.0).abs() < 1e-9);
    let (error, range) = (many["max_abs_error"].as_f64().unwrap(), many["output_abs_max"].as_f64().unwrap());
    assert!(error <= 1e-3 * range, "{error} of {range}");
}

#[test]
fn bench_engine_has_the_promised_keys() {
    let root = tempfile::tempdir().unwrap();
    // The smallest secure ring, one level.
    let args = ["bench", "engine", "--log-n", "12", "--levels", "1", "--scale-bits", "26", "--reps", "2"];
    for ring in ["conjugate-invariant", "standard"] {
        let result = ok(root.path(), &[args.as_slice(), &["--ring", ring]].concat());
        for key in [
            "ntt_forward",
            "ntt_inverse",
            "encode",
            "encrypt",
            "decrypt_decode",
            "add",
            "mul_plain_rescale",
            "mac_full",
            "mac_periodic",
            "mul_relin_rescale",
            "rotate",
            "rotate_hoisted",
            "rotate_hoisted_sum",
            "rescale",
        ] {
            let [median, least] = ["median_us", "min_us"].map(|figure| result[key][figure].as_f64().unwrap());
            assert!(0.0 < least && least <= median, "{key}: {least} {median}");
        }
        for key in ["ciphertext_bytes", "rotation_key_bytes", "log_qp", "digits"] {
            assert!(result[key].as_f64().unwrap() > 0.0, "{key}");
        }
        assert_eq!((&result["ring"], &result["threads"]), (&ring.into(), &2.into()));
        assert_eq!((&result["security_bits"], &result["levels"]), (&128.into(), &1.into()));
    }
    let table = polyveil(root.path(), &args).output().unwrap();
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("rotate, one of 8 hoisted") && table.contains("128 bits"), "{table}");
}

#[test]
fn a_secret_key_serves_further_plans_of_its_parameters() {
    let d = support::Fixture::get().path();
    let args = ["keygen", "a.client.plan", "--secret", "one.key", "--keys", "again.keys", "--reuse-secret"];
    let key = ok(d, &args)["key_id"].clone();
    assert_eq!(key, ok(d, &["inspect", "one.key"])["key_id"]);
    ok(d, &["run", "a.server.plan", "--keys", "again.keys", "--input", "one.ct", "--out", "again.scores"]);
}

#[test]
fn every_command_has_help_with_an_example() {
    let root = tempfile::tempdir().unwrap();
    for command in [
        "demo",
        "doctor",
        "train",
        "convert",
        "eval",
        "experiment",
        "compile",
        "estimate",
        "simulate",
        "keygen",
        "encrypt",
        "run",
        "decrypt",
        "inspect",
        "bench",
    ] {
        let output = polyveil(root.path(), &[command, "--help"]).output().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains("Example"), "{command}");
    }
    assert!(ok(root.path(), &["doctor"])["memory_available_bytes"].as_u64().unwrap() > 0);
}
