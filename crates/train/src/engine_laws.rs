//! Laws of the loss that hold whatever the values: its gradient is what finite differences say.

use polyveil_net::builders::GraphBuilder;
use polyveil_net::{Graph, Op, Tensor};
use proptest::prelude::*;

use crate::engine::{
    Batch, Features, ForwardOptions, Pair, Soft, Terms, gradient_step, parameter_mut, parameters,
    soft_targets,
};

const FEATURES: usize = 4;
const CLASSES: usize = 3;
const IMAGES: usize = 3;

/// Linear, quadratic per feature, linear: what enters the activation is a parameter's doing too.
fn network(weights: &[f32]) -> Graph {
    let mut b = GraphBuilder::new("t", &[FEATURES], 1);
    let x = b.input();
    let x = b.linear("f1", x, FEATURES);
    let x = b.quadratic("q", x, [0.1, 0.5, 0.1]);
    let x = b.linear("f2", x, CLASSES);
    let mut graph = b.finish(x).unwrap();
    let mut values = weights.iter().copied().cycle();
    for node in &mut graph.nodes {
        if let Op::Quadratic(q) = &mut node.op {
            for t in [&mut q.a, &mut q.b, &mut q.c] {
                *t = Tensor::full(vec![FEATURES], 0.0);
            }
        }
        for (_, tensor) in node.op.weights_mut() {
            tensor.data_mut().iter_mut().for_each(|v| *v = values.next().unwrap_or(0.0));
        }
    }
    graph
}

/// True where no value enters the activation near a kink of ReLU or of the penalty.
fn smooth(graph: &Graph, batch: &Batch, kinks: &[f32]) -> bool {
    let Op::Linear(first) = &graph.nodes[1].op else { return false };
    let bias = first.bias.as_ref().map(|b| b.data().to_vec()).unwrap_or_default();
    batch.images.chunks(FEATURES).all(|image| {
        first.weight.data().chunks(FEATURES).zip(&bias).all(|(row, b)| {
            let x: f32 = row.iter().zip(image).map(|(w, v)| w * v).sum::<f32>() + b;
            kinks.iter().all(|k| (x.abs() - k).abs() > 0.06)
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_global_rejects: 100_000, ..ProptestConfig::default() })]

    /// Activation in transition, range penalty, distillation, smoothed cross-entropy, of images as they are and
    /// mixed: each alone and all together.
    #[test]
    fn gradients_are_what_finite_differences_say(
        weights in proptest::collection::vec(-0.8f32..0.8, 43),
        images in proptest::collection::vec(-1.5f32..1.5, FEATURES * IMAGES),
        teacher in proptest::collection::vec(-3.0f32..3.0, CLASSES * IMAGES),
        share in prop_oneof![Just(0.0f32), Just(1.0), 0.1f32..0.9],
        unit in 0.5f32..2.0,
        bound in 0.2f32..1.0,
        temperature in 1.0f32..8.0,
        part in 0usize..5,
        shares in proptest::collection::vec(0.0f32..0.5, IMAGES),
        mixed in any::<bool>(),
    ) {
        let mut graph = network(&weights);
        let labels = (0..IMAGES).map(|i| (i % CLASSES) as u32).collect();
        let mut batch = Batch { shape: [1, 1, FEATURES], images, labels, mixed: Vec::new() };
        if mixed {
            batch.mix(&shares);
        }
        prop_assume!(smooth(&graph, &batch, &[0.0, bound * unit]));
        // Another network of the same structure; it gives the soft targets too where features are matched.
        let reference = network(&weights.iter().rev().copied().collect::<Vec<_>>());
        let quadratic = graph.nodes.iter().position(|n| matches!(n.op, Op::Quadratic(_))).unwrap();
        let pairs = [Pair { student: quadratic, reference: quadratic, weight: 0.6 }];
        let features = (part == 4).then_some(Features { reference: &reference, pairs: &pairs, weight: 0.5 });
        let targets = (part != 4).then(|| soft_targets(&teacher, CLASSES, temperature));
        let soft = Soft { targets, temperature, weight: 0.7 };
        let terms = Terms {
            cross_entropy: if part == 1 || part == 2 { 0.0 } else { 0.5 },
            smoothing: 0.1,
            soft: (part == 1 || part >= 3).then_some(&soft),
            penalty: if part >= 2 { 0.3 } else { 0.0 },
            features,
            most: if part >= 2 { 0.4 } else { f32::INFINITY },
        };
        let options = ForwardOptions {
            transition: vec![share; 4],
            units: vec![unit; 4],
            bound: (part >= 2).then_some(bound),
            ..ForwardOptions::default()
        };
        let all = parameters(&graph);
        let output = gradient_step(&graph, &all, &batch, terms, &options).unwrap();
        for (&id, gradient) in all.iter().zip(&output.gradients) {
            for (entry, &exact) in gradient.iter().enumerate() {
                let mut loss_at = |delta: f32| {
                    parameter_mut(&mut graph, id).unwrap().data_mut()[entry] += delta;
                    let loss = gradient_step(&graph, &[], &batch, terms, &options).unwrap().loss;
                    parameter_mut(&mut graph, id).unwrap().data_mut()[entry] -= delta;
                    loss
                };
                let h = 1e-2;
                let numeric = (loss_at(h) - loss_at(-h)) / (2.0 * h);
                prop_assert!(
                    (numeric - exact).abs() < 4e-3 * (1.0 + exact.abs()),
                    "{:?}, entry {entry}: {numeric} by differences, {exact}", id
                );
            }
        }
    }

    /// The distillation term is zero exactly where both agree, and never negative.
    #[test]
    fn distillation_is_a_divergence(
        weights in proptest::collection::vec(-0.8f32..0.8, 43),
        images in proptest::collection::vec(-1.5f32..1.5, FEATURES * IMAGES),
        teacher in proptest::collection::vec(-3.0f32..3.0, CLASSES * IMAGES),
        temperature in 1.0f32..8.0,
    ) {
        let graph = network(&weights);
        let batch = Batch { shape: [1, 1, FEATURES], images, labels: vec![0; IMAGES], mixed: Vec::new() };
        let term = |scores: &[f32]| {
            let targets = Some(soft_targets(scores, CLASSES, temperature));
            let soft = Soft { targets, temperature, weight: 1.0 };
            let terms = Terms { soft: Some(&soft), ..Terms::NONE };
            gradient_step(&graph, &[], &batch, terms, &ForwardOptions::default()).unwrap().distillation
        };
        prop_assert!(term(&teacher) > -1e-4);
        let own = crate::engine::infer(&graph, &batch.images, batch.shape, &ForwardOptions::default()).unwrap();
        prop_assert!(term(&own.values).abs() < 1e-4);
    }
}
