//! Trains a ReLU LeNet, converts it, and prints figures: `train_and_convert [DATA] [SEEDS] [FIRST]`.
//!
//! `DATA` is `mnist5k` (the default), an `.npz`, or a directory of idx files; `SEEDS` runs are made,
//! with seeds from `FIRST` (both 1 by default).

use std::time::Instant;

use polyveil_net::builders::lenet5_relu;
use polyveil_train::{
    ConvertConfig, DataSet, RunControl, Split, TrainConfig, TrainError, convert, evaluate, train_teacher,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let spec = arguments.next().unwrap_or_else(|| "mnist5k".to_owned());
    let seeds: u64 = arguments.next().map_or(Ok(1), |s| s.parse())?;
    let first: u64 = arguments.next().map_or(Ok(1), |s| s.parse())?;
    let data = DataSet::open(&spec)?;
    for seed in first..first.saturating_add(seeds) {
        one_run(&data, seed)?;
    }
    Ok(())
}

fn one_run(data: &DataSet, seed: u64) -> Result<(), Box<dyn std::error::Error>> {
    let show = |p: &polyveil_train::Progress| {
        if let Some(accuracy) = p.validation_accuracy {
            eprintln!(
                "{} {:>3}/{} t {:.2} loss {:.4} validation {:.3} {:.1?}",
                p.phase, p.epoch, p.epochs, p.transition, p.loss, accuracy, p.elapsed
            );
        }
    };
    let control = RunControl { progress: Some(&show), ..RunControl::default() };
    let graph = lenet5_relu(&data.shape(), data.class_names().len(), seed)
        .map_err(|e| TrainError::Net(e.to_string()))?;

    let start = Instant::now();
    let teacher = train_teacher(&graph, data, &TrainConfig { seed, ..TrainConfig::default() }, &control)?;
    let teacher_time = start.elapsed();
    let start = Instant::now();
    let student =
        convert(&teacher.graph, data, &ConvertConfig { seed, ..ConvertConfig::default() }, &control)?;
    let student_time = start.elapsed();

    for (name, graph, time) in
        [("teacher", &teacher.graph, teacher_time), ("student", &student.graph, student_time)]
    {
        let m = evaluate(graph, data, Split::Test)?;
        println!(
            "seed {seed} {name}: accuracy {:.4} [{:.4}, {:.4}] macro F1 {:.4} in {time:.1?}",
            m.accuracy, m.interval[0], m.interval[1], m.macro_f1
        );
    }
    println!("events {:?} best epoch {:?}", student.history.events, student.history.best_epoch);
    for (node, range) in &student.ranges {
        println!("  {node}: {:.2} to {:.2}, 99.9 % within {:.2}", range.min, range.max, range.p999);
    }
    if let Some(last) = student.history.epochs.last() {
        for a in &last.activations {
            println!(
                "  {}: a {:.3} b {:.3} c {:.3} min|a| {:.4} max shift {:.1}",
                a.node, a.a, a.b, a.c, a.min_abs_a, a.max_shift
            );
        }
    }
    Ok(())
}
