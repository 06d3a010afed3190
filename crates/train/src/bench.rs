//! Whole steps on random images, for `cargo bench -p polyveil-train --features bench`. No public interface.

use polyveil_net::builders::{alexnet, squeezenet1_1_linear};
use polyveil_net::{BatchNorm, Graph, Node, Op, Quadratic, Tensor};

use crate::engine::{
    Batch, Features, ForwardOptions, Pair, ParameterId, Soft, Terms, gradient_step, infer, parameters,
};
use crate::random::{generator, normal};

const CLASSES: usize = 3;
const SHAPE: [usize; 3] = [3, 224, 224];

/// A network with all that a step needs.
pub struct Case {
    /// What it is.
    pub name: &'static str,
    graph: Graph,
    reference: Option<(Graph, Vec<Pair>)>,
    trained: Vec<ParameterId>,
    batch: Batch,
    options: ForwardOptions,
    backward: bool,
}

impl Case {
    /// All of them, `images` a step.
    #[must_use]
    pub fn all(images: usize) -> Vec<Self> {
        let batch = batch(images);
        let frozen = ForwardOptions::default();
        let ranged = |graph: &Graph, batch_statistics| ForwardOptions {
            units: vec![1.0; graph.nodes.len()],
            clamp: Some(6.0),
            bound: Some(3.0),
            batch_statistics,
            ..ForwardOptions::default()
        };
        let mut cases = Vec::new();
        let mut add = |name, graph: Graph, reference, options, backward| {
            let trained = parameters(&graph);
            let batch = batch.clone();
            cases.push(Self { name, graph, reference, trained, batch, options, backward });
        };
        if let Ok(teacher) = squeezenet1_1_linear(&SHAPE, CLASSES, 1) {
            let (student, reference) = student(&teacher);
            let options = ranged(&student, true);
            add(
                "squeezenet student, batch statistics",
                student.clone(),
                Some(reference.clone()),
                options,
                true,
            );
            let options = ranged(&student, false);
            add("squeezenet student, frozen", student.clone(), Some(reference), options.clone(), true);
            add("squeezenet student, no features", student.clone(), None, options, true);
            add("squeezenet student, inference", student, None, frozen.clone(), false);
            add("squeezenet teacher", teacher, None, frozen.clone(), true);
        }
        if let Ok(teacher) = alexnet(&SHAPE, CLASSES, 1) {
            let (student, _) = student(&teacher);
            let options = ranged(&student, false);
            add("alexnet student, no features", student, None, options, true);
            add("alexnet teacher", teacher, None, frozen, true);
        }
        cases
    }

    /// One step; the loss, or the first score.
    #[must_use]
    pub fn run(&self) -> Option<f32> {
        if !self.backward {
            return infer(&self.graph, &self.batch.images, SHAPE, &self.options)?.values.first().copied();
        }
        let soft = Soft { targets: None, temperature: 4.0, weight: 0.5 };
        let features =
            self.reference.as_ref().map(|(reference, pairs)| Features { reference, pairs, weight: 0.5 });
        let terms = Terms {
            cross_entropy: 0.5,
            smoothing: 0.05,
            soft: features.is_some().then_some(&soft),
            penalty: if self.options.bound.is_some() { 0.01 } else { 0.0 },
            features,
            ..Terms::NONE
        };
        gradient_step(&self.graph, &self.trained, &self.batch, terms, &self.options).map(|o| o.loss)
    }
}

fn batch(images: usize) -> Batch {
    let mut rng = generator(1, "bench", 0, 0);
    let len = images * SHAPE.iter().product::<usize>();
    let labels = (0..images).map(|i| (i % CLASSES) as u32).collect();
    Batch { shape: SHAPE, images: (0..len).map(|_| normal(&mut rng)).collect(), labels }
}

/// Average pools, quadratics, batch norm before each; and the ReLU network of the same structure.
fn student(teacher: &Graph) -> (Graph, (Graph, Vec<Pair>)) {
    let shapes = teacher.infer_shapes().unwrap_or_default();
    let mut reference = Graph { nodes: Vec::new(), ..teacher.clone() };
    let (mut at, mut pairs) = (Vec::new(), Vec::new());
    for (index, node) in teacher.nodes.iter().enumerate() {
        let mut inputs: Vec<usize> = node.inputs.iter().map(|&i| at[i]).collect();
        if let (Op::Relu, [channels, _, _]) = (&node.op, &shapes[index][..]) {
            let full = |value| Tensor::full(vec![*channels], value);
            let [gamma, var, beta, mean] = [1.0, 1.0, 0.0, 0.0].map(full);
            let norm = Op::BatchNorm(BatchNorm { gamma, beta, mean, var, eps: 1e-5 });
            reference.nodes.push(Node { name: format!("{}.norm", node.name), op: norm, inputs });
            inputs = vec![reference.nodes.len() - 1];
            let weight = 1e-3;
            pairs.push(Pair { student: reference.nodes.len(), reference: reference.nodes.len(), weight });
        }
        at.push(reference.nodes.len());
        reference.nodes.push(Node { inputs, ..node.clone() });
    }
    reference.output = at[teacher.output];
    let mut graph = reference.clone();
    crate::replace_max_pools(&mut graph);
    let shapes = graph.infer_shapes().unwrap_or_default();
    for (node, shape) in graph.nodes.iter_mut().zip(&shapes) {
        if let Op::Relu = node.op {
            let [a, b, c] = [0.1, 0.5, 0.1].map(|v| Tensor::full(vec![shape[0]], v));
            node.op = Op::Quadratic(Quadratic { a, b, c });
        }
    }
    (graph, (reference, pairs))
}
