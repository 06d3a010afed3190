//! Whole runs on a small set of drawn patterns: learning, resuming, stopping, diverging, converting.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail loudly, as tests do")]

use std::sync::atomic::{AtomicBool, Ordering};

use polyveil_net::builders::{ConvSpec, GraphBuilder, PoolSpec};
use polyveil_net::{Graph, Op};
use polyveil_train::data::Parts;
use polyveil_train::{
    Ablation, BatchNormPolicy, ConvertConfig, DataOptions, DataSet, Event, Granularity, Keep, Method,
    Progress, Refusal, RunControl, Split, StartCoefficients, TrainConfig, TrainError, TransitionKind,
    Verdict, attempt_conversion, convert, evaluate, metadata, metrics, train_teacher,
};

const SIDE: usize = 8;

/// Three classes: horizontal bars, vertical bars, a filled corner; at varying places, with noise.
fn patterns() -> DataSet {
    let mut parts = Parts { name: "patterns".into(), shape: [1, SIDE, SIDE], ..Parts::default() };
    let mut state = 1u32;
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 24
    };
    for image in 0..180usize {
        let class = image % 3;
        let place = 2 + next() as usize % 4;
        for row in 0..SIDE {
            for column in 0..SIDE {
                let ink = match class {
                    0 => row == place || row == place + 1,
                    1 => column == place || column == place + 1,
                    _ => row < place && column < place,
                };
                parts.pixels.push(if ink { 200 } else { 20 } + (next() % 40) as u8);
            }
        }
        parts.labels.push(class as u32);
        // Thirds of one image a class stay together, so that every split has every class.
        match image / 3 % 6 {
            0..4 => parts.train.push(image),
            4 => parts.validation.push(image),
            _ => parts.test.push(image),
        }
    }
    parts.class_names = ["rows", "columns", "corner"].map(str::to_owned).to_vec();
    DataSet::new(parts).unwrap()
}

/// Two branches, concatenation, a residual sum, overlapping max-pool, batch norm.
fn network() -> Graph {
    let mut b = GraphBuilder::new("small", &[1, SIDE, SIDE], 5);
    let x = b.input();
    let x = b.conv("c1", x, 4, ConvSpec::new(3).pad(1));
    let x = b.batch_norm("n1", x);
    let x = b.relu("r1", x);
    let x = b.max_pool("p1", x, PoolSpec::new(3).stride(2).pad(1));
    let left = b.conv("c2", x, 4, ConvSpec::new(3).pad(1));
    let left = b.relu("r2", left);
    let sum = b.add("sum", left, x);
    let right = b.conv("c3", x, 2, ConvSpec::new(1));
    let right = b.relu("r3", right);
    let x = b.concat("cat", &[sum, right]);
    let x = b.avg_pool("p2", x, PoolSpec::new(2).stride(2));
    let x = b.flatten("flat", x);
    let x = b.linear("f1", x, 8);
    let x = b.relu("r4", x);
    let x = b.linear("f2", x, 3);
    b.finish(x).unwrap()
}

fn teacher_config() -> TrainConfig {
    let mut config = TrainConfig { epochs: 6, batch: 20, ..TrainConfig::default() };
    config.optimiser.learning_rate = 1e-2;
    config.augmentation.shift = 1.0;
    config
}

fn student_config() -> ConvertConfig {
    let mut config = ConvertConfig { epochs: 6, batch: 20, ..ConvertConfig::default() };
    config.transition.recover_epochs = 1;
    config.transition.epochs = 2;
    config.optimiser.learning_rate = 3e-3;
    config.augmentation.shift = 1.0;
    config
}

fn teacher(data: &DataSet) -> Graph {
    train_teacher(&network(), data, &teacher_config(), &RunControl::default()).unwrap().graph
}

#[test]
fn a_teacher_learns_and_a_student_keeps_it() {
    let data = patterns();
    let teacher = teacher(&data);
    let before = evaluate(&teacher, &data, Split::Test).unwrap();
    assert!(before.accuracy > 0.9, "{before:?}");

    let student = convert(&teacher, &data, &student_config(), &RunControl::default()).unwrap();
    let after = evaluate(&student.graph, &data, Split::Test).unwrap();
    assert!(after.accuracy > 0.9, "{after:?}");
    assert_eq!(student.graph.is_he_friendly(), Ok(()));
    assert_eq!(student.graph.input_shape(), teacher.input_shape());
    let shares: Vec<f32> = student.history.epochs.iter().map(|e| e.transition).collect();
    assert_eq!(shares, [0.0, 0.5, 1.0, 1.0, 1.0, 1.0]);

    let ranges = metadata::ranges(&student.graph).unwrap().unwrap();
    assert_eq!(ranges.keys().collect::<Vec<_>>(), ["f2", "r1", "r2", "r3", "r4"]);
    assert!(
        ranges.values().all(|r| r.min <= r.max && r.p999.is_finite() && !r.channels.is_empty()),
        "{ranges:?}"
    );
    assert_eq!(metadata::class_names(&student.graph).unwrap().unwrap(), data.class_names());
    assert_eq!(metadata::preprocessing(&student.graph).unwrap().unwrap(), *data.preprocessing());
    let provenance = &student.graph.metadata[metadata::PROVENANCE];
    assert!(
        provenance.contains(data.fingerprint()) && provenance.contains("\"kind\":\"student\""),
        "{provenance}"
    );

    let last = student.history.epochs.last().unwrap();
    assert_eq!(last.activations.len(), 4);
    for record in &last.activations {
        assert!(record.min_abs_a > 0.0 && record.max_shift.is_finite(), "{record:?}");
    }
}

#[test]
fn the_epoch_nearest_to_the_teacher_is_kept_where_that_is_asked_for() {
    let data = patterns();
    let teacher = teacher(&data);
    let mut config = student_config();
    (config.keep, config.epochs) = (Keep::Teacher, 12);
    config.optimiser.average = 0.0;
    let told = std::cell::RefCell::new(Vec::new());
    let watch = |p: &Progress| told.borrow_mut().extend(p.teacher_distance);
    let control = RunControl { progress: Some(&watch), ..RunControl::default() };
    let student = convert(&teacher, &data, &config, &control).unwrap();
    let epochs = &student.history.epochs;
    assert_eq!(*told.borrow(), epochs.iter().map(|e| e.teacher_distance).collect::<Vec<_>>());
    let settled = epochs.iter().filter(|e| e.transition >= 1.0);
    let nearest = settled.min_by(|a, b| a.teacher_distance.total_cmp(&b.teacher_distance)).unwrap();
    assert_eq!(student.history.best_epoch, Some(nearest.epoch), "{epochs:?}");
    assert!(epochs.iter().all(|e| e.teacher_distance > 0.0), "{epochs:?}");
    // The same run, another choice: nothing else differs.
    config.keep = Keep::Loss;
    let other = convert(&teacher, &data, &config, &RunControl::default()).unwrap();
    assert_eq!(other.history.epochs, *epochs);
    config.keep = Keep::Last;
    let other = convert(&teacher, &data, &config, &RunControl::default()).unwrap();
    assert_eq!(other.history.best_epoch, Some(12));
    let fitted = |e: &Event| matches!(e, Event::LastLayerFitted { .. });
    assert!(!other.history.events.iter().any(fitted), "{:?}", other.history.events);

    let refused = train_teacher(
        &network(),
        &data,
        &TrainConfig { keep: Keep::Teacher, ..teacher_config() },
        &RunControl::default(),
    );
    let message = refused.err().unwrap().to_string();
    assert!(message.contains("keep") && message.contains("has no teacher"), "{message}");
}

#[test]
fn every_switch_of_the_conversion_yields_a_friendly_network() {
    let data = patterns();
    let teacher = teacher(&data);
    type Change = fn(&mut ConvertConfig);
    let changes: [(&str, Change); 7] = [
        ("layer coefficients", |c| c.activation.per = Granularity::Layer),
        ("bounded start, batch norm", |c| {
            c.activation.start = StartCoefficients::SmallA;
            c.normalise.batch_norm = BatchNormPolicy::Always;
        }),
        ("Hermite start, at once", |c| {
            c.activation.start = StartCoefficients::Hermite;
            c.transition.kind = TransitionKind::AtOnce;
        }),
        ("identity start, layer by layer", |c| {
            c.activation.start = StartCoefficients::Identity;
            c.transition.kind = TransitionKind::LayerByLayer;
        }),
        ("no distillation, fixed coefficients", |c| {
            c.distillation.alpha = 0.0;
            c.activation.rate_factor = 0.0;
        }),
        ("no rescaling", |c| c.normalise.rescale = false),
        ("no range control", |c| {
            c.range.penalty = 0.0;
            c.range.clamp = 0.0;
        }),
    ];
    for (name, change) in changes {
        let mut config = ConvertConfig { epochs: 4, ..student_config() };
        change(&mut config);
        let student = convert(&teacher, &data, &config, &RunControl::default())
            .unwrap_or_else(|e| panic!("{name}: {e}"))
            .graph;
        assert_eq!(student.is_he_friendly(), Ok(()), "{name}");
        let shapes = student.infer_shapes().unwrap();
        assert_eq!(shapes[student.output], [3], "{name}");
        for node in &student.nodes {
            if let Op::Quadratic(q) = &node.op {
                let layer = config.activation.per == Granularity::Layer;
                assert_eq!(q.a.len() == 1, layer, "{name}: {}", node.name);
                assert!(q.a.data().iter().all(|a| a.abs() > 0.0), "{name}: {}", node.name);
            }
        }
        assert!(evaluate(&student, &data, Split::Test).unwrap().accuracy > 0.5, "{name}");
    }
}

/// The small set's course laid over a method's preset.
fn method_config(method: Method) -> ConvertConfig {
    let mut config = method.preset();
    let own = student_config();
    (config.epochs, config.batch) = (12, own.batch);
    config.optimiser.learning_rate = own.optimiser.learning_rate;
    config.augmentation = own.augmentation;
    if method == Method::Ours {
        config.transition = own.transition;
    }
    config
}

#[test]
fn every_method_trains_a_network_of_quadratics_alone() {
    let data = patterns();
    let teacher = teacher(&data);
    for method in Method::ALL {
        let config = method_config(method);
        let outcome = convert(&teacher, &data, &config, &RunControl::default())
            .unwrap_or_else(|e| panic!("{method}: {e}"));
        assert_eq!(outcome.graph.is_he_friendly(), Ok(()), "{method}");
        for name in ["r1", "r2", "r3", "r4"] {
            let Some((_, polyveil_net::Node { op: Op::Quadratic(q), .. })) = outcome.graph.node(name) else {
                panic!("{method}: {name} is no quadratic")
            };
            let all = |t: &polyveil_net::Tensor, value: f32| t.data().iter().all(|&v| v == value);
            match method {
                Method::Square => assert!(all(&q.a, 1.0) && all(&q.b, 0.0) && all(&q.c, 0.0)),
                Method::Poly => assert!(all(&q.c, 0.0) && !all(&q.b, 1.0)),
                Method::Hermite => assert!(q.a.len() > 1 && outcome.graph.node("r1.square").is_none()),
                Method::Ours | Method::Replace => {}
            }
        }
        assert_eq!(outcome.history.epochs.last().unwrap().activations.len(), 4, "{method}");
        let accuracy = evaluate(&outcome.graph, &data, Split::Test).unwrap().accuracy;
        assert!(accuracy > 0.6, "{method}: {accuracy}");
        let frozen = evaluate(&outcome.graph, &data, Split::Validation).unwrap().accuracy;
        assert!((frozen - outcome.validation_accuracy).abs() < 0.04, "{method}");
        assert_eq!(outcome.ranges["r1"].bound.is_some(), method == Method::Ours);
    }
}

#[test]
fn parts_left_out_change_the_run() {
    let data = patterns();
    let teacher = teacher(&data);
    let run = |config: &ConvertConfig| {
        attempt_conversion(&teacher, &data, config, &RunControl::default()).unwrap().history
    };
    let config = ConvertConfig { epochs: 4, ..student_config() };
    let whole = run(&config);
    for part in Ablation::ALL {
        let mut without = config.clone();
        part.apply(&mut without);
        let history = run(&without);
        assert_ne!(history.epochs, whole.epochs, "{part:?}");
        if part == Ablation::Distillation {
            assert!(
                history.epochs.iter().all(|e| e.distillation == 0.0) && whole.epochs[0].distillation > 0.0
            );
        }
    }
}

#[test]
fn the_declared_bound_decides_what_may_be_exported() {
    let data = patterns();
    let teacher = teacher(&data);
    let mut config = ConvertConfig { epochs: 4, ..student_config() };
    config.range.declared = 0.5;
    let outcome = attempt_conversion(&teacher, &data, &config, &RunControl::default()).unwrap();
    let Verdict::NotAcceptable { refusal: Refusal::OutOfRange { layer, value, bound, .. } } =
        &outcome.verdict
    else {
        panic!("{:?}", outcome.verdict)
    };
    assert!(outcome.ranges.contains_key(layer) && value > bound, "{layer} {value} {bound}");
    let shares: Vec<_> = outcome.ranges.values().filter_map(|r| r.within).collect();
    assert_eq!(shares.len(), 4);
    for share in shares {
        let all = [share.train, share.validation, share.test].map(Option::unwrap);
        assert!(all.iter().all(|&s| (0.0..1.0).contains(&s)), "{all:?}");
    }
    // The best of the others is there all the same, and says what it is.
    assert!(outcome.history.best_epoch.is_some());
    assert!(outcome.graph.metadata[metadata::PROVENANCE].contains("out_of_range"));
    let error = convert(&teacher, &data, &config, &RunControl::default()).unwrap_err();
    assert!(matches!(error, TrainError::NotAcceptable { .. }), "{error}");
}

#[test]
fn a_run_without_progress_ends_early() {
    let data = patterns();
    let teacher = teacher(&data);
    let config = ConvertConfig { epochs: 60, patience: 3, ..student_config() };
    let history = convert(&teacher, &data, &config, &RunControl::default()).unwrap().history;
    assert_eq!(history.epochs.len(), history.best_epoch.unwrap() + 3);
    assert!(history.epochs.len() < 60);
}

/// Stops a run in the middle of `epoch` (from 1), then calls it again.
fn interrupted<T>(epoch: usize, call: impl Fn(&RunControl<'_>) -> Result<T, TrainError>) -> T {
    let folder = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let watch = |p: &Progress| {
        if p.epoch == epoch && p.step == 2 && p.steps > 1 {
            stop.store(true, Ordering::Relaxed);
        }
    };
    let control = RunControl {
        progress: Some(&watch),
        cancel: Some(&stop),
        checkpoint_dir: Some(folder.path().to_owned()),
        ..RunControl::default()
    };
    match call(&control) {
        Err(TrainError::Cancelled { epoch: stopped, checkpoint: Some(path), .. }) => {
            assert_eq!(stopped, epoch);
            assert!(path.is_file());
        }
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("the run was not stopped"),
    }
    let control = RunControl { checkpoint_dir: Some(folder.path().to_owned()), ..RunControl::default() };
    let outcome = call(&control).unwrap();
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "the checkpoint of a complete run stays"
    );
    outcome
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_one() {
    let data = patterns();
    let config = teacher_config();
    let whole = train_teacher(&network(), &data, &config, &RunControl::default()).unwrap();
    let resumed = interrupted(4, |control| train_teacher(&network(), &data, &config, control));
    assert_eq!(whole.graph, resumed.graph);
    assert_eq!(whole.history, resumed.history);

    let mut config = student_config();
    config.normalise.batch_norm = BatchNormPolicy::Always;
    let teacher = whole.graph;
    let whole = convert(&teacher, &data, &config, &RunControl::default()).unwrap();
    let resumed = interrupted(3, |control| convert(&teacher, &data, &config, control));
    assert_eq!(whole.graph, resumed.graph);
    assert_eq!(whole.history, resumed.history);
    assert_eq!(whole.ranges, resumed.ranges);
}

#[test]
fn a_reconstruction_follows_the_epochs_with_relu_and_survives_an_interruption() {
    let data = patterns();
    let teacher = teacher(&data);
    let mut config = student_config();
    config.transition.kind = TransitionKind::AtOnce;
    config.transition.recover_epochs = 2;
    config.reconstruction.images = 60;
    let whole = convert(&teacher, &data, &config, &RunControl::default()).unwrap();
    // Stopped in the very epoch that begins with it: it is done anew from the network before.
    let resumed = interrupted(3, |control| convert(&teacher, &data, &config, control));
    assert_eq!(whole.graph, resumed.graph);
    assert_eq!(whole.history, resumed.history);

    // What it is for: the first quadratics stand for ReLU better than without it.
    let loss = |config: &ConvertConfig| {
        let mut config = config.clone();
        config.epochs = 3;
        let history = convert(&teacher, &data, &config, &RunControl::default()).unwrap().history;
        history.epochs.last().unwrap().loss
    };
    let fitted = loss(&config);
    config.reconstruction.images = 0;
    config.activation.start = StartCoefficients::SmallA;
    assert!(fitted < loss(&config), "{fitted} {}", loss(&config));
}

#[test]
fn the_number_of_threads_does_not_change_the_result() {
    let data = patterns();
    let config = TrainConfig { epochs: 2, ..teacher_config() };
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| train_teacher(&network(), &data, &config, &RunControl::default())).unwrap().graph
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let data = patterns();
    let folder = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let watch = |p: &Progress| stop.store(p.epoch == 2, Ordering::Relaxed);
    let control = RunControl {
        progress: Some(&watch),
        cancel: Some(&stop),
        checkpoint_dir: Some(folder.path().to_owned()),
        ..RunControl::default()
    };
    train_teacher(&network(), &data, &teacher_config(), &control).unwrap_err();
    let control = RunControl { checkpoint_dir: Some(folder.path().to_owned()), ..RunControl::default() };
    let other = TrainConfig { seed: 2, ..teacher_config() };
    let message = train_teacher(&network(), &data, &other, &control).unwrap_err().to_string();
    assert!(message.contains("teacher.ckpt") && message.contains("another run"), "{message}");
}

/// Seven layers: squaring a value seven times overflows `f32` from 2 on.
fn deep_network() -> Graph {
    let mut b = GraphBuilder::new("deep", &[1, SIDE, SIDE], 6);
    let x = b.input();
    let mut x = b.flatten("flat", x);
    for layer in 1..=7 {
        x = b.linear(&format!("f{layer}"), x, 16);
        x = b.relu(&format!("r{layer}"), x);
    }
    let x = b.linear("f8", x, 3);
    b.finish(x).unwrap()
}

/// Everything that keeps activations in check is off.
fn reckless_config() -> ConvertConfig {
    let mut config = student_config();
    config.head_fit = 0;
    config.optimiser.learning_rate = 1.0;
    config.optimiser.warmup_epochs = 0.0;
    config.optimiser.clip_norm = 0.0;
    config.range.clamp = 0.0;
    config.range.penalty = 0.0;
    config.transition.kind = TransitionKind::AtOnce;
    config.transition.recover_epochs = 0;
    config.guard.skips = 1;
    config
}

#[test]
fn divergence_rolls_back_then_gives_up_and_names_the_layer() {
    let data = patterns();
    let mut config = reckless_config();
    config.guard.retries = 1;
    match convert(&deep_network(), &data, &config, &RunControl::default()) {
        Err(TrainError::Diverged { layer, retries: 1, epoch: 1 }) => {
            assert!(layer == "gradient" || deep_network().node(&layer).is_some(), "{layer}");
        }
        other => panic!("{:?}", other.map(|o| o.history)),
    }
}

#[test]
fn divergence_that_smaller_steps_cure_ends_in_a_sound_network() {
    let data = patterns();
    let mut config = reckless_config();
    config.guard.retries = 30;
    config.range.declared = 0.0;
    let outcome = convert(&deep_network(), &data, &config, &RunControl::default()).unwrap();
    let halvings = outcome.history.events.iter().filter(|e| matches!(e, Event::RolledBack { .. })).count();
    assert!(halvings > 0, "{:?}", outcome.history.events);
    assert_eq!(evaluate(&outcome.graph, &data, Split::Train).unwrap().non_finite, 0);
}

#[test]
fn networks_and_data_that_do_not_fit_are_refused_with_both_sides() {
    let data = patterns();
    let control = RunControl::default();
    let mut b = GraphBuilder::new("wide", &[1, 9, 9], 1);
    let x = b.input();
    let x = b.flatten("flat", x);
    let x = b.linear("f", x, 3);
    let wide = b.finish(x).unwrap();
    let message = train_teacher(&wide, &data, &teacher_config(), &control).unwrap_err().to_string();
    assert!(message.contains("[1, 9, 9]") && message.contains("[1, 8, 8]"), "{message}");

    let mut b = GraphBuilder::new("many", &[1, SIDE, SIDE], 1);
    let x = b.input();
    let x = b.flatten("flat", x);
    let x = b.linear("f", x, 7);
    let many = b.finish(x).unwrap();
    let message = evaluate(&many, &data, Split::Test).unwrap_err().to_string();
    assert!(message.contains('7') && message.contains("3 classes"), "{message}");

    let mut b = GraphBuilder::new("linear", &[1, SIDE, SIDE], 1);
    let x = b.input();
    let x = b.flatten("flat", x);
    let x = b.linear("f", x, 3);
    let linear = b.finish(x).unwrap();
    let message = convert(&linear, &data, &student_config(), &control).unwrap_err().to_string();
    assert!(message.contains("nothing to convert"), "{message}");
    assert!(metrics::logits(&linear, &data, &[10_000]).is_err());
}

#[test]
fn images_that_overflow_count_as_wrong() {
    let data = patterns();
    let mut b = GraphBuilder::new("overflow", &[1, SIDE, SIDE], 1);
    let x = b.input();
    let x = b.flatten("flat", x);
    let x = b.quadratic("q1", x, [1e20, 0.0, 0.0]);
    let x = b.quadratic("q2", x, [1e20, 0.0, 0.0]);
    let x = b.linear("f", x, 3);
    let graph = b.finish(x).unwrap();
    let m = evaluate(&graph, &data, Split::Test).unwrap();
    assert_eq!((m.non_finite, m.correct), (m.n, 0));
}

#[test]
fn the_medical_set_opens_with_its_own_splits() {
    let Some(folder) = std::env::var_os("POLYVEIL_DATA") else {
        println!("skipped: POLYVEIL_DATA is not set");
        return;
    };
    let path = std::path::Path::new(&folder).join("pneumoniamnist/pneumoniamnist.npz");
    if !path.is_file() {
        println!("skipped: {} is not there", path.display());
        return;
    }
    let data = DataSet::open(path.to_str().unwrap()).unwrap();
    assert_eq!(
        [Split::Train, Split::Validation, Split::Test].map(|s| data.indices(s).len()),
        [4708, 524, 468]
    );
    assert_eq!(
        (data.shape(), data.class_names()),
        ([1, 28, 28], ["normal", "pneumonia"].map(str::to_owned).as_slice())
    );
}

#[test]
fn students_learn_from_images_without_labels_and_nobody_else_does() {
    let few = patterns();
    let folder = tempfile::tempdir().unwrap();
    for shade in 0..40u8 {
        let side = SIDE as u32;
        let picture =
            image::GrayImage::from_fn(side, side, |x, y| image::Luma([if x == y { 220 } else { shade }]));
        picture.save(folder.path().join(format!("{shade}.png"))).unwrap();
    }
    let more = few.clone().with_unlabelled(folder.path().to_str().unwrap(), &DataOptions::default()).unwrap();
    assert_eq!(more.unlabelled().len(), 40);

    let teacher_of =
        |data| train_teacher(&network(), data, &teacher_config(), &RunControl::default()).unwrap();
    let (teacher, other) = (teacher_of(&few), teacher_of(&more));
    assert_eq!(teacher.graph, other.graph);
    assert_eq!(teacher.timing.images, other.timing.images);

    let student_of =
        |data, config: &ConvertConfig| convert(&teacher.graph, data, config, &RunControl::default()).unwrap();
    let (without, with) = (student_of(&few, &student_config()), student_of(&more, &student_config()));
    // 120 labelled images, in batches of 20, for 6 epochs.
    assert_eq!([without.timing.images, with.timing.images], [6 * 120, 6 * 160]);
    assert_ne!(without.graph.nodes, with.graph.nodes);
    assert!(with.graph.metadata[metadata::PROVENANCE].contains("\"unlabelled\":40"));
    assert!(evaluate(&with.graph, &more, Split::Test).unwrap().accuracy > 0.9);

    let mut alone = student_config();
    alone.distillation.alpha = 0.0;
    assert_eq!(student_of(&more, &alone).timing.images, 6 * 120);
}

/// Takes images of any size.
fn convolutional() -> Graph {
    let mut b = GraphBuilder::new("conv", &[1, SIDE, SIDE], 5);
    let x = b.input();
    let x = b.conv("c1", x, 6, ConvSpec::new(3).pad(1));
    let x = b.relu("r1", x);
    let x = b.max_pool("p1", x, PoolSpec::new(2).stride(2));
    let x = b.conv("c2", x, 8, ConvSpec::new(3).pad(1));
    let x = b.relu("r2", x);
    let x = b.conv("c3", x, 3, ConvSpec::new(1));
    let x = b.global_avg_pool("p2", x);
    let x = b.flatten("flat", x);
    b.finish(x).unwrap()
}

#[test]
fn a_student_learns_from_parts_of_images_where_its_network_takes_them() {
    let data = patterns();
    let mut config = TrainConfig { epochs: 20, ..teacher_config() };
    let teacher = train_teacher(&convolutional(), &data, &config, &RunControl::default()).unwrap().graph;
    let accuracy = |graph: &Graph| evaluate(graph, &data, Split::Test).unwrap().accuracy;
    let mut parts = student_config();
    parts.epochs = 10;
    parts.augmentation.patch = 6;
    parts.augmentation.patch_fraction = 0.5;
    let student = convert(&teacher, &data, &parts, &RunControl::default()).unwrap();
    assert!(
        accuracy(&student.graph) >= accuracy(&teacher) - 0.1,
        "{} {}",
        accuracy(&student.graph),
        accuracy(&teacher)
    );
    assert_eq!(student.graph.input_shape(), [1, SIDE, SIDE]);

    // Parts of the same size as the image are the image.
    let mut whole = parts.clone();
    whole.augmentation.patch = SIDE;
    let mut none = parts.clone();
    none.augmentation.patch = 0;
    let graph = |config: &ConvertConfig| {
        convert(&teacher, &data, config, &RunControl::default()).unwrap().graph.nodes
    };
    assert_eq!(graph(&whole), graph(&none));
    assert_ne!(graph(&none), student.graph.nodes);

    let refusal = |error: TrainError| error.to_string();
    parts.augmentation.patch = SIDE + 1;
    let message = refusal(convert(&teacher, &data, &parts, &RunControl::default()).unwrap_err());
    assert!(message.contains("augmentation.patch") && message.contains('9'), "{message}");
    // A fully connected layer counts on every position.
    config.augmentation.patch = 6;
    let message = refusal(train_teacher(&network(), &data, &config, &RunControl::default()).unwrap_err());
    assert!(message.contains("augmentation.patch") && message.contains("fully connected"), "{message}");
}

#[test]
fn inputs_are_made_smaller_where_values_would_be_out_of_range() {
    let data = patterns();
    let teacher = teacher(&data);
    let mut config = student_config();
    // Else the last layer is another one for smaller inputs.
    config.head_fit = 0;
    config.range.clamp = 0.0;
    config.range.declared = 1000.0;
    config.augmentation.amplify = 0.8;
    let attempt =
        |config: &ConvertConfig| attempt_conversion(&teacher, &data, config, &RunControl::default()).unwrap();
    let edges = |graph: &Graph| metadata::preprocessing(graph).unwrap().unwrap().edges;
    let free = attempt(&config);
    assert_eq!((free.verdict.clone(), edges(&free.graph)), (Verdict::Accepted, None));
    let units = |r: &metadata::RangeRecord| r.min.abs().max(r.max.abs()) / r.bound.unwrap() * 1000.0;
    let most = free.ranges.values().filter(|r| r.bound.is_some()).map(units).fold(0.0, f32::max);

    // A little less than what training images reach, and a little more, which leaves no room.
    for declared in [0.95 * most, 1.02 * most] {
        config.range.declared = declared;
        let tight = attempt(&config);
        assert_eq!(tight.verdict, Verdict::Accepted);
        assert_eq!(tight.graph.nodes, free.graph.nodes);
        let found = metadata::preprocessing(&tight.graph).unwrap().unwrap();
        let smaller = match tight.history.events.last() {
            Some(&Event::EdgesLimited { limit, .. }) => found.edges == Some(limit),
            Some(&Event::InputsReduced { factor }) => {
                let std = metadata::preprocessing(&free.graph).unwrap().unwrap().std[0];
                (found.std[0] * factor / std - 1.0).abs() < 1e-6
            }
            _ => false,
        };
        assert!(smaller, "{declared}: {:?}", tight.history.events);
        let within = tight.ranges.values().filter_map(|r| r.within);
        assert!(within.clone().count() > 0);
        assert!(within.clone().all(|w| w.train == Some(1.0) && w.validation == Some(1.0)));
        assert!(evaluate(&tight.graph, &data, Split::Test).unwrap().accuracy > 0.8);
        let reached = tight.ranges.values().filter(|r| r.bound.is_some());
        assert!(reached.map(|r| units(r) * declared / 1000.0).fold(0.0, f32::max) < declared / 1.09);
    }

    // Not where that was switched off, and not beyond what training has seen.
    config.range.edges = 0.0;
    let refused =
        |verdict: Verdict| matches!(verdict, Verdict::NotAcceptable { refusal: Refusal::OutOfRange { .. } });
    config.range.declared = 0.95 * most;
    assert!(refused(attempt(&config).verdict));
    config.range.edges = 1.0;
    config.range.declared = 0.2 * most;
    assert!(refused(attempt(&config).verdict));

    // And from the start, for the share that is asked for.
    config.range.edges = 0.5;
    config.range.declared = 1000.0;
    let limited = attempt(&config);
    let limit = edges(&limited.graph).expect("a limit");
    assert_ne!(limited.graph.nodes, free.graph.nodes);
    let [_, height, width] = data.shape();
    let unlimited = metadata::preprocessing(&free.graph).unwrap().unwrap();
    let sharper = data.indices(Split::Train).iter().filter(|&&image| {
        let image = data.image_with(image, &unlimited);
        polyveil_train::Preprocessing::sharpness(image.data(), height * width, width) > limit
    });
    let share = sharper.count() as f64 / data.indices(Split::Train).len() as f64;
    assert!((share - 0.5).abs() < 0.02, "{share}");
}

#[test]
fn a_last_layer_that_steps_leave_behind_is_fitted_by_itself() {
    let data = patterns();
    for (graph, last) in [(network(), "f2"), (convolutional(), "c3")] {
        let trained = train_teacher(&graph, &data, &teacher_config(), &RunControl::default()).unwrap().graph;
        let mut spoilt = trained.clone();
        let (node, _) = spoilt.node(last).unwrap();
        // One class whatever it sees.
        for (_, tensor) in spoilt.nodes[node].op.weights_mut() {
            tensor.data_mut().fill(0.0);
            tensor.data_mut()[0] = 1.0;
        }
        let mut config = TrainConfig { epochs: 1, initialise: false, head_fit: 2, ..teacher_config() };
        config.optimiser.learning_rate = 1e-7;
        let run =
            |config: &TrainConfig| train_teacher(&spoilt, &data, config, &RunControl::default()).unwrap();
        let fitted = run(&config);
        let test = |graph: &Graph| evaluate(graph, &data, Split::Test).unwrap().accuracy;
        assert!(
            test(&fitted.graph) > test(&trained) - 0.1,
            "{last} {} {}",
            test(&fitted.graph),
            test(&trained)
        );
        let frozen = evaluate(&fitted.graph, &data, Split::Validation).unwrap().accuracy;
        assert!((frozen - fitted.validation_accuracy).abs() < 1e-9);
        let Some(Event::LastLayerFitted { layer, before, after, .. }) = fitted.history.events.first() else {
            panic!("{:?}", fitted.history.events)
        };
        assert!(layer == last && after > before, "{layer} {before} {after}");

        config.head_fit = 0;
        let left = run(&config);
        assert_eq!(left.history.events, []);
        assert!(test(&left.graph) < 0.5, "{last} {}", test(&left.graph));

        // A student of few steps, with and without.
        let mut config = student_config();
        config.epochs = 5;
        let student = |head_fit: usize| {
            let config = ConvertConfig { head_fit, ..config.clone() };
            convert(&trained, &data, &config, &RunControl::default()).unwrap().validation_accuracy
        };
        assert!(student(1) >= student(0) - 0.05, "{last}: {} {}", student(1), student(0));
    }
}
