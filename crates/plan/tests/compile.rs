//! What `compile` promises and refuses.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use polyveil_net::builders::{ConvSpec, GraphBuilder, PoolSpec};
use polyveil_net::{Graph, Op, Tensor};
use polyveil_plan::{
    CompileOptions, Compiled, PlanError, Source, Stage, StepKind, UnitCosts, Weighting, Work, ZERO, compile,
    compile_watched, estimate, lower_within,
};
use std::sync::atomic::Ordering::SeqCst;

fn network(activations: usize) -> Graph {
    let mut b = GraphBuilder::new("net", &[1, 8, 8], 3);
    let mut x = b.input();
    for k in 0..activations {
        x = b.conv(&format!("conv{k}"), x, 2, ConvSpec::new(3).pad(1));
        x = b.quadratic(&format!("act{k}"), x, [0.1, 0.5, 0.1]);
    }
    x = b.avg_pool("pool", x, PoolSpec::new(2));
    x = b.flatten("flat", x);
    x = b.linear("fc", x, 3);
    b.finish(x).unwrap()
}

#[test]
fn a_plan_keeps_its_promises() {
    let compiled = compile(&network(2), &CompileOptions::default()).unwrap();
    let plan = &compiled.server;
    plan.validate().unwrap();
    compiled.client.validate().unwrap();
    let parameters = plan.parameters().unwrap();
    assert!(parameters.security().bits() >= 128);
    assert_eq!(plan.id, compiled.client.id);
    assert!(plan.precision.max_error <= 1e-3 * plan.precision.output_range);
    assert_eq!(plan.values[plan.output].level, 0);
    // Two activations, two convolutions and one fully connected layer: the pool costs nothing.
    assert_eq!(plan.values[0].level, 5);
    let free = plan
        .steps
        .iter()
        .filter(|s| matches!(&s.kind, StepKind::Linear(l) if matches!(l.weighting, Weighting::Constant(_))));
    assert_eq!(free.count(), 1);
    // Every rotation that the steps use has a key, at a level that suffices, and no other has.
    let lowered = plan.lowered().unwrap();
    assert_eq!(lowered.len(), plan.steps.len());
    let work = Work::count(plan, &lowered.iter().map(Option::as_ref).collect::<Vec<_>>());
    assert_eq!(work.rotations, plan.keys.rotations.len());
    let unit = UnitCosts {
        ntt_ns: 1e5,
        mac_full_ns: 1e4,
        mac_periodic_ns: 1e4,
        key_mac_ns: 2e4,
        convert_ns: 2e4,
        embed_ns: 1e5,
        speedup: 1.0,
    };
    let estimate = estimate(plan, &work, &unit);
    assert!(estimate.seconds > 0.0 && estimate.security_bits >= 128 && estimate.levels == 5);
    assert!(estimate.upload_bytes < 1 << 20 && estimate.key_bytes > 0);
}

#[test]
fn keys_stay_within_their_limit_or_the_least_is_named() {
    let with = |max_key_bytes| compile(&network(1), &CompileOptions { max_key_bytes, ..Default::default() });
    let bytes = |compiled: Result<Compiled, PlanError>| {
        let plan = compiled.unwrap().server;
        plan.keys.stored_bytes(&plan.parameters().unwrap()) - 32 * (plan.keys.rotations.len() as u64 + 1)
    };
    let free = bytes(with(None));
    // A limit that is no obstacle changes nothing.
    assert_eq!(with(Some(free)).unwrap().server.id, with(None).unwrap().server.id);
    let Err(PlanError::Keys { limit: 1, least }) = with(Some(1)) else { unreachable!("a byte is no key") };
    assert!(least < free, "{least} of {free}");
    assert_eq!(bytes(with(Some(least))), least);
    assert!(bytes(with(Some(free - 1))) < free);
    assert!(matches!(with(Some(least - 1)), Err(PlanError::Keys { least: again, .. }) if again == least));
}

#[test]
fn lowering_stops_where_vectors_would_take_more_than_is_left() {
    let plan = compile(&network(1), &CompileOptions::default()).unwrap().server;
    let StepKind::Linear(first) = &plan.steps[0].kind else {
        unreachable!("the first step is a convolution")
    };
    let layout = &plan.values[0].layout;
    let map = layout.slot_map(ZERO);
    let sources = [Source { op: &first.terms[0].op, offset: first.terms[0].offset, layout, map: &map }];
    let whole = lower_within(&sources, &plan.values[1].layout, false, 1 << 24).unwrap();
    assert!(whole.numbers() > 8);
    assert!(lower_within(&sources, &plan.values[1].layout, false, 8).is_none());
}

#[test]
fn hostile_plans_are_refused_at_once() {
    let sound = compile(&network(1), &CompileOptions::default()).unwrap().server;
    let refused = |change: &dyn Fn(&mut polyveil_plan::ServerPlan)| {
        let mut plan = sound.clone();
        change(&mut plan);
        plan.validate().unwrap_err().to_string()
    };
    let linear = |plan: &mut polyveil_plan::ServerPlan, change: &dyn Fn(&mut polyveil_plan::LinearStep)| {
        let step = plan.steps.iter_mut().find_map(|s| match &mut s.kind {
            StepKind::Linear(linear) => Some(linear),
            StepKind::Square { .. } => None,
        });
        change(step.unwrap());
    };
    let message = refused(&|p| linear(p, &|l| l.terms[0].offset = usize::MAX));
    assert!(message.contains("at channel 18446744073709551615"), "{message}");
    let message = refused(&|p| linear(p, &|l| l.split.step = 1 << 40));
    assert!(message.contains("baby steps up to 1099511627776"), "{message}");
    let message = refused(&|p| p.keys.relin_level = Some(p.parameters.q.len()));
    assert!(message.contains("keys") && message.contains("level"), "{message}");
    let message = refused(&|p| p.keys.rotations = vec![(1, 0), (1, 0)]);
    assert!(message.contains("rotation 1 is listed twice"), "{message}");
    let message = refused(&|p| p.parameters.digit_size = 0);
    assert!(message.contains("digit"), "{message}");
    let message = refused(&|p| p.parameters.log_n = 200);
    assert!(message.contains("2^200"), "{message}");
    // As many copies as would fill no memory, were they listed.
    let message = refused(&|p| {
        let layout = &mut p.values[0].layout;
        layout.repeats = vec![polyveil_plan::Digit::slot(layout.slots, 1); 8];
    });
    assert!(message.contains("the layout overlaps"), "{message}");
    let message = refused(&|p| {
        let slots = p.values[0].layout.slots;
        let whole = polyveil_plan::Layout { ciphertexts: (1 << 26) / slots, ..p.values[0].layout.clone() };
        for value in &mut p.values {
            value.layout = whole.clone();
        }
        while p.values.len() < 6 {
            p.values.push(p.values[0].clone());
            p.steps.push(p.steps[0].clone());
        }
    });
    assert!(message.contains("more than 268435456 slots"), "{message}");
}

#[test]
fn convolution_weights_are_periodic() {
    let compiled = compile(&network(1), &CompileOptions::default()).unwrap();
    let lowered = compiled.server.lowered().unwrap();
    let first = lowered[0].as_ref().unwrap();
    let slots = compiled.server.values[0].layout.slots;
    // The image has zero margins, so border taps are free and every vector repeats by channel block.
    assert!(first.outputs.iter().flatten().all(|d| d.weights.len() <= 8), "of {slots} slots");
    assert_eq!(first.products(), 9);
}

#[test]
fn relu_and_max_pool_are_listed_at_once() {
    let mut b = GraphBuilder::new("relu", &[1, 8, 8], 3);
    let x = b.input();
    let x = b.conv("c", x, 2, ConvSpec::new(3));
    let x = b.relu("r1", x);
    let x = b.max_pool("m1", x, PoolSpec::new(2));
    let graph = b.finish(x).unwrap();
    let error = compile(&graph, &CompileOptions::default()).unwrap_err().to_string();
    for part in ["2 nodes", "r1 (Relu)", "m1 (MaxPool)", "polyveil convert"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_network_that_answers_to_the_least_error_is_refused_before_it_is_laid_out() {
    // Two branches that are the same, taken apart with weights of 1e14: nothing is left but what they err differently.
    let mut b = GraphBuilder::new("net", &[1, 8, 8], 3);
    let x = b.input();
    let branches = ["left", "right"].map(|name| {
        let fc = b.conv(name, x, 1, ConvSpec::new(8));
        b.quadratic(&format!("{name}_act"), fc, [0.1, 0.5, 0.1])
    });
    let both = b.concat("both", &branches);
    let flat = b.flatten("flat", both);
    let fc = b.linear("fc", flat, 1);
    let mut graph = b.finish(fc).unwrap();
    let left = graph.nodes.iter().find(|n| n.name == "left").unwrap().op.clone();
    for node in &mut graph.nodes {
        match (&mut node.op, node.name.as_str()) {
            (op, "right") => *op = left.clone(),
            (Op::Linear(linear), _) => {
                linear.weight.data_mut().copy_from_slice(&[1e14, -1e14]);
                linear.bias = Some(Tensor::full(vec![1], 1.0));
            }
            _ => {}
        }
    }
    let error = compile(&graph, &CompileOptions::default()).unwrap_err();
    assert!(
        matches!(&error, PlanError::Imprecise { best, layer, .. } if *best > 1e-3 && layer != "fc"),
        "{error}"
    );
}

#[test]
fn too_deep_a_network_is_refused_with_what_it_needs() {
    let error = compile(&network(40), &CompileOptions::default()).unwrap_err();
    let PlanError::TooDeep { needed, limit, .. } = &error else { panic!("{error}") };
    assert_eq!(*needed, 81);
    assert_eq!(*limit, 1747);
    assert!(error.to_string().contains("81 levels"), "{error}");
}

#[test]
fn calibration_inputs_are_checked() {
    let graph = network(1);
    let with = |t: Tensor| CompileOptions { calibration: vec![t], ..CompileOptions::default() };
    let wrong = Tensor::full(vec![1, 8, 9], 0.0);
    assert!(matches!(compile(&graph, &with(wrong)), Err(PlanError::Calibration { index: 0, .. })));
    let nan = Tensor::full(vec![1, 8, 8], f32::NAN);
    assert!(matches!(compile(&graph, &with(nan)), Err(PlanError::Calibration { index: 0, .. })));
}

#[test]
fn escaping_activations_are_refused_by_layer() {
    let mut b = GraphBuilder::new("escape", &[4], 3);
    let mut x = b.input();
    for k in 0..7 {
        x = b.quadratic(&format!("act{k}"), x, [1e6, 0.0, 0.0]);
    }
    let graph = b.finish(x).unwrap();
    let error = compile(&graph, &CompileOptions::default()).unwrap_err();
    assert!(error.to_string().contains("act"), "{error}");
}

#[test]
fn images_are_checked_before_they_are_packed() {
    let compiled = compile(&network(1), &CompileOptions::default()).unwrap();
    let pack = |t: &Tensor| compiled.client.pack(t).map(|_| ()).map_err(|e| e.to_string());
    assert!(pack(&Tensor::full(vec![1, 8, 8], 0.5)).is_ok());
    assert!(pack(&Tensor::full(vec![1, 8, 7], 0.5)).unwrap_err().contains("[1, 8, 8]"));
    assert!(pack(&Tensor::full(vec![1, 8, 8], f32::NAN)).unwrap_err().contains("NaN"));
    assert!(pack(&Tensor::full(vec![1, 8, 8], 1e4)).unwrap_err().contains("range"));
}

#[test]
fn a_plan_that_contradicts_itself_is_refused() {
    let good = compile(&network(1), &CompileOptions::default()).unwrap().server;
    let refused = |change: &dyn Fn(&mut polyveil_plan::ServerPlan)| {
        let mut plan = good.clone();
        change(&mut plan);
        assert!(plan.validate().is_err());
    };
    refused(&|p| p.output = 99);
    refused(&|p| p.values[1].scale = f64::NAN);
    refused(&|p| p.values[1].level = 99);
    refused(&|p| p.values[0].level = 0);
    refused(&|p| p.values[1].layout.slots *= 2);
    refused(&|p| p.values.truncate(1));
    refused(&|p| p.steps[1].kind = StepKind::Square { input: 5 });
    refused(&|p| {
        if let StepKind::Linear(l) = &mut p.steps[0].kind {
            l.terms[0].op.weight.pop();
        }
    });
    refused(&|p| {
        if let StepKind::Linear(l) = &mut p.steps[0].kind {
            l.bias = vec![f32::INFINITY; 2];
        }
    });
}

#[test]
fn whoever_waits_hears_every_stage_and_can_stop_at_each() {
    let heard = std::sync::Mutex::new(Vec::new());
    let note = |stage: Stage| {
        heard.lock().unwrap().push(stage);
        true
    };
    compile_watched(&network(1), &CompileOptions::default(), &note).unwrap();
    let heard = heard.into_inner().unwrap();
    let kind = |wanted: fn(&Stage) -> bool| heard.iter().filter(|s| wanted(s)).count();
    assert_eq!(kind(|s| matches!(s, Stage::Ranges { of: 4, .. })), 4);
    assert_eq!(kind(|s| matches!(s, Stage::Sensitivity)), 1);
    assert!(kind(|s| matches!(s, Stage::Layout { number, of, .. } if number <= of)) > 0);
    assert!(kind(|s| matches!(s, Stage::Moduli { .. })) > 0);
    for last in 0..heard.len() {
        let left = std::sync::atomic::AtomicUsize::new(last);
        let stop = |_| left.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok();
        let error = compile_watched(&network(1), &CompileOptions::default(), &stop).unwrap_err();
        assert!(matches!(error, PlanError::Cancelled), "stage {last}: {error}");
    }
    // Also where keys are too large for their limit, and each new search is named.
    let searches = std::sync::atomic::AtomicUsize::new(0);
    let tiny = CompileOptions { max_key_bytes: Some(1), ..CompileOptions::default() };
    let third = |stage: Stage| match stage {
        Stage::Keys { limit: 1, .. } => searches.fetch_add(1, SeqCst) < 2,
        _ => true,
    };
    assert!(matches!(compile_watched(&network(1), &tiny, &third), Err(PlanError::Cancelled)));
    assert_eq!(searches.into_inner(), 3);
}
