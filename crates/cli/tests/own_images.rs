//! The example in `examples/own-images`: its commands, as they stand there, on a folder made here.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::path::Path;

use polyveil_net::builders::{ConvSpec, GraphBuilder, PoolSpec};
use support::{ok, save};

/// Disks, crosses and stripes of varying place and colour; sizes differ, as photos do.
fn photos(directory: &Path) {
    let mut state = 7u32;
    let mut next = move |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % below
    };
    for class in ["cross", "disk", "stripes"] {
        let folder = directory.join("photos").join(class);
        std::fs::create_dir_all(&folder).unwrap();
        for index in 0..70 {
            let side = 36 + next(20);
            let (cx, cy) = (side / 2 + next(6), side / 2 + next(6));
            let ink = [120 + next(130), 120 + next(130), 120 + next(130)];
            let image = image::RgbImage::from_fn(side, side, |x, y| {
                let (dx, dy) = (x.abs_diff(cx), y.abs_diff(cy));
                let inside = match class {
                    "cross" => dx < 4 || dy < 4,
                    "disk" => dx * dx + dy * dy < side * side / 9,
                    _ => (x + y) % 12 < 6,
                };
                image::Rgb(ink.map(|v| if inside { v as u8 } else { (10 + next(40)) as u8 }))
            });
            image.save(folder.join(format!("{index}.png"))).unwrap();
        }
    }
}

fn network(directory: &Path) {
    let mut b = GraphBuilder::new("mine", &[3, 32, 32], 1);
    let x = b.input();
    let x = b.conv("c1", x, 8, ConvSpec::new(5).stride(2).pad(2));
    let x = b.relu("r1", x);
    let x = b.max_pool("p1", x, PoolSpec::new(2));
    let x = b.conv("c2", x, 12, ConvSpec::new(3).pad(1));
    let x = b.relu("r2", x);
    let x = b.max_pool("p2", x, PoolSpec::new(2));
    let x = b.flatten("flat", x);
    let x = b.linear("f", x, 3);
    save(&b.finish(x).unwrap(), &directory.join("mine.onnx"));
}

#[test]
fn the_commands_of_the_example_work() {
    let directory = tempfile::tempdir().unwrap();
    let d = directory.path();
    photos(d);
    network(d);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/own-images/README.md");
    let text = std::fs::read_to_string(path).unwrap();
    let commands: Vec<Vec<&str>> = text
        .lines()
        .filter_map(|l| l.strip_prefix("polyveil "))
        .map(|l| l.split_whitespace().collect())
        .collect();
    assert_eq!(commands.len(), 2);
    ok(d, &commands[0]);
    let outcome = ok(d, &commands[1]);
    let accuracy = |who: &str| outcome[who]["accuracy"].as_f64().unwrap();
    assert!(outcome["student"]["n"].as_u64().unwrap() >= 20, "{outcome}");
    assert!(accuracy("teacher") > 0.8 && accuracy("student") > 0.8, "{outcome}");
    let student = polyveil_net::onnx::from_path(&d.join("student.onnx")).unwrap();
    assert_eq!(student.is_he_friendly(), Ok(()));
}
