//! The plots of a conversion and of an encrypted run.

use polyveil_net::{Graph, Op, Quadratic, Tensor};
use polyveil_train::{History, Phase};

use super::svg::{Axes, Band, Series, bars, plot};
use crate::output::seconds;

/// Loss and accuracy by epoch; the phases of the conversion are shaded.
pub fn training(title: &str, history: &History) -> Vec<String> {
    let series = |name: &str, value: &dyn Fn(&polyveil_train::EpochRecord) -> f64| {
        Series::line(name, history.epochs.iter().map(|e| (e.epoch as f64, value(e))).collect())
    };
    let bands = phases(history);
    let accuracy = [
        series("validation", &|e| 100.0 * e.validation_accuracy),
        series("training", &|e| 100.0 * e.train_accuracy),
    ];
    let mut loss = vec![
        series("training loss", &|e| f64::from(e.loss)),
        series("validation", &|e| f64::from(e.validation_loss)),
    ];
    if history.epochs.iter().any(|e| e.teacher_distance > 0.0) {
        loss.push(series("divergence from the teacher, validation", &|e| f64::from(e.teacher_distance)));
    }
    let axes = |what: &'static str, log_y| (format!("{title}: {what}"), what, log_y);
    let mut plots = Vec::new();
    for ((title, y, log_y), series) in
        [axes("accuracy, %", false), axes("loss", true)].iter().zip([&accuracy[..], &loss[..]])
    {
        plots.push(plot(&Axes { title, x: "epoch", y, log_y: *log_y }, series, &bands));
    }
    if history.epochs.iter().any(|e| e.transition > 0.0) {
        let transition = [series("share of the quadratic", &|e| f64::from(e.transition))];
        let title = "transition from ReLU to quadratic";
        plots.push(plot(&Axes { title, x: "epoch", y: "t", log_y: false }, &transition, &bands));
    }
    plots
}

/// How the coefficients and input ranges of every activation went.
pub fn activations_over_time(history: &History) -> Vec<String> {
    let names: Vec<&str> =
        history.epochs.last().map_or(Vec::new(), |e| e.activations.iter().map(|a| a.node.as_str()).collect());
    let course = |value: &dyn Fn(&polyveil_train::ActivationRecord) -> f64| -> Vec<Series> {
        let of = |name: &str| {
            let point = |e: &polyveil_train::EpochRecord| {
                e.activations.iter().find(|a| a.node == name).map(|a| (e.epoch as f64, value(a)))
            };
            Series::line(name, history.epochs.iter().filter_map(point).collect())
        };
        names.iter().map(|name| of(name)).collect()
    };
    if names.is_empty() {
        return Vec::new();
    }
    let bands = phases(history);
    let axes = |title, y, log_y| Axes { title, x: "epoch", y, log_y };
    vec![
        plot(&axes("mean coefficient of x²", "a", false), &course(&|a| f64::from(a.a)), &bands),
        plot(
            &axes("largest |x| entering each activation", "|x|", true),
            &course(&|a| f64::from(a.max_abs_input)),
            &bands,
        ),
    ]
}

/// Every activation of the network, averaged over its channels, against ReLU.
pub fn shapes(graph: &Graph) -> Option<String> {
    let grid = |f: &dyn Fn(f64) -> f64| (-40..=40).map(|i| f64::from(i) / 10.0).map(|x| (x, f(x))).collect();
    let mean = |t: &Tensor| f64::from(t.data().iter().sum::<f32>()) / t.len().max(1) as f64;
    let mut series = vec![Series::line("ReLU", grid(&|x| x.max(0.0)))];
    for node in &graph.nodes {
        if let Op::Quadratic(Quadratic { a, b, c }) = &node.op {
            let (a, b, c) = (mean(a), mean(b), mean(c));
            series.push(Series::line(&node.name, grid(&|x| (a * x + b) * x + c)));
        }
    }
    let axes = Axes { title: "activations (mean over channels) against ReLU", x: "x", y: "y", log_y: false };
    (series.len() > 1).then(|| plot(&axes, &series, &[]))
}

/// Encrypted against plain scores, and the error between them.
pub fn logits(pairs: &[(f64, f64)]) -> Vec<String> {
    let low = pairs.iter().map(|p| p.0).fold(f64::INFINITY, f64::min);
    let high = pairs.iter().map(|p| p.0).fold(f64::NEG_INFINITY, f64::max);
    let agreement =
        [Series::line("equal", vec![(low, low), (high, high)]), Series::dots("encrypted", pairs.to_vec())];
    let error = [Series::dots("error", pairs.iter().map(|p| (p.0, (p.1 - p.0).abs())).collect())];
    let axes = |title, y, log_y| Axes { title, x: "plain score", y, log_y };
    vec![
        plot(&axes("encrypted against plain scores", "decrypted score", false), &agreement, &[]),
        plot(&axes("|decrypted − plain|", "error", true), &error, &[]),
    ]
}

/// Time by layer.
pub fn layer_times(rows: &[(String, f64)]) -> String {
    let rows: Vec<_> = rows.iter().map(|(name, t)| (name.clone(), *t, seconds(*t))).collect();
    bars("encrypted time by layer, one image", &rows)
}

/// Largest magnitudes by layer.
pub fn ranges(rows: &[(String, f64)]) -> String {
    let rows: Vec<_> = rows.iter().map(|(name, v)| (name.clone(), *v, format!("{v:.2}"))).collect();
    bars("largest |x| entering each activation (training images)", &rows)
}

fn phases(history: &History) -> Vec<Band> {
    let mut bands: Vec<(Phase, Band)> = Vec::new();
    for e in &history.epochs {
        let at = e.epoch as f64;
        match bands.last_mut() {
            Some((phase, band)) if *phase == e.phase => band.to = at,
            _ => {
                let from = bands.last().map_or(at, |(_, band)| band.to);
                bands.push((e.phase, Band { name: e.phase.to_string(), from, to: at }));
            }
        }
    }
    // Only the transition is shaded: it is what the other curves are read against.
    bands.into_iter().filter(|(phase, _)| *phase == Phase::Transition).map(|(_, band)| band).collect()
}
