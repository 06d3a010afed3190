//! The ReLU network whose features a student is drawn to: the teacher in the student's own structure and scale.

use std::collections::BTreeMap;

use polyveil_net::{BatchNorm, Graph, Op, Tensor};

use super::pools::norm_name;
use crate::engine::Pair;

/// The student before training with the teacher's activations and pools: it computes what the teacher does, and its
/// nodes stand for those of the student. Every activation is compared; `sizes` has the sum of squares of
/// what one yields for an image, by name.
pub(super) fn reference(
    student: &Graph,
    teacher: &Graph,
    sizes: &BTreeMap<String, f32>,
) -> (Graph, Vec<Pair>) {
    let mut graph = student.clone();
    let mut pairs = Vec::new();
    for (index, node) in graph.nodes.iter_mut().enumerate() {
        match &node.op {
            Op::Quadratic(_) => {
                node.op = Op::Relu;
                let size = sizes.get(&node.name).copied().unwrap_or(0.0);
                // One that yields nothing but zeros has no size to compare by.
                if size > 0.0 {
                    pairs.push(Pair { student: index, reference: index, weight: size.recip() });
                }
            }
            Op::AvgPool(_) => {
                if let Some((_, original)) = teacher.node(&node.name) {
                    node.op = original.op.clone();
                }
            }
            Op::BatchNorm(norm) if after_pool(teacher, &node.name) => node.op = Op::BatchNorm(identity(norm)),
            _ => {}
        }
    }
    let count = pairs.len() as f32;
    pairs.iter_mut().for_each(|p| p.weight /= count);
    (graph, pairs)
}

/// True for the batch norm that a pool of the teacher got behind it.
fn after_pool(teacher: &Graph, name: &str) -> bool {
    teacher.nodes.iter().any(|n| matches!(n.op, Op::MaxPool(_)) && norm_name(&n.name) == name)
}

fn identity(norm: &BatchNorm) -> BatchNorm {
    let all = |value: f32| Tensor::full(norm.gamma.shape().to_vec(), value);
    BatchNorm {
        gamma: all((1.0 + norm.eps).sqrt()),
        beta: all(0.0),
        mean: all(0.0),
        var: all(1.0),
        eps: norm.eps,
    }
}

#[cfg(test)]
mod tests {
    use polyveil_net::builders::{ConvSpec, GraphBuilder, PoolSpec};
    use polyveil_net::exec;

    use super::super::{ConvertConfig, prepare};
    use crate::config::{StartCoefficients, TransitionKind};
    use crate::data::{DataSet, Split};

    #[test]
    fn the_reference_computes_what_the_teacher_does() {
        let data = DataSet::open("mnist5k").unwrap();
        let [c, h, w] = data.shape();
        let mut b = GraphBuilder::new("t", &[c, h, w], 3);
        let mut x = b.input();
        for layer in 0..9 {
            x = b.conv(&format!("c{layer}"), x, 4, ConvSpec::new(3).pad(1));
            x = b.relu(&format!("r{layer}"), x);
            if layer < 2 {
                x = b.max_pool(&format!("p{layer}"), x, PoolSpec::new(2).stride(2));
            }
        }
        let x = b.global_avg_pool("g", x);
        let x = b.flatten("flat", x);
        let x = b.linear("f", x, 10);
        let teacher = b.finish(x).unwrap();
        let preprocessing = data.preprocessing().clone();
        let mut config = ConvertConfig::default();
        config.activation.start = StartCoefficients::SmallA;
        let prepared = prepare(&teacher, &data, &preprocessing, &config).unwrap();
        // Also where the student's own weights are no longer the teacher's.
        config.transition.kind = TransitionKind::AtOnce;
        config.transition.recover_epochs = 0;
        config.reconstruction.images = 8;
        let fitted = prepare(&teacher, &data, &preprocessing, &config).unwrap();
        assert_ne!(fitted.graph, prepared.graph);
        let (graph, pairs) = fitted.reference.unwrap();
        assert_eq!((&graph, &pairs), prepared.reference.as_ref().map(|(g, p)| (g, p)).unwrap());
        graph.validate().unwrap();
        assert_eq!(pairs.len(), 9);
        for &image in &data.indices(Split::Test)[..5] {
            let image = data.image_with(image, &preprocessing);
            let (expected, found) =
                (exec::run(&teacher, &image).unwrap(), exec::run(&graph, &image).unwrap());
            let size = expected.data().iter().fold(0.0f32, |m, v| m.max(v.abs()));
            for (e, f) in expected.data().iter().zip(found.data()) {
                assert!((e - f).abs() < 1e-3 * size, "{e} {f}");
            }
        }
    }
}
