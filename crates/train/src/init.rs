//! Fresh weights.

use polyveil_net::{Graph, Op};

use crate::random::{generator, normal};

/// Gives every convolution and linear layer normal weights of variance `2 / fan-in` (He, Zhang, Ren,
/// Sun 2015) and zero bias, and every batch norm the identity. Quadratics and fixed nodes are left alone.
pub fn initialise(graph: &mut Graph, seed: u64) {
    let fixed: Vec<bool> = graph.nodes.iter().map(|n| graph.is_fixed(&n.name)).collect();
    for (index, node) in graph.nodes.iter_mut().enumerate() {
        if fixed[index] {
            continue;
        }
        let mut rng = generator(seed, "weights", index as u64, 0);
        match &mut node.op {
            Op::Conv(conv) => {
                fill_he(&mut conv.weight, &mut rng);
                conv.bias.iter_mut().for_each(|b| b.data_mut().fill(0.0));
            }
            Op::Linear(linear) => {
                fill_he(&mut linear.weight, &mut rng);
                linear.bias.iter_mut().for_each(|b| b.data_mut().fill(0.0));
            }
            _ => {}
        }
    }
    reset_batch_norm(graph);
}

/// Makes every batch norm the identity.
pub(crate) fn reset_batch_norm(graph: &mut Graph) {
    for node in &mut graph.nodes {
        if let Op::BatchNorm(norm) = &mut node.op {
            norm.gamma.data_mut().fill(1.0);
            norm.beta.data_mut().fill(0.0);
            norm.mean.data_mut().fill(0.0);
            norm.var.data_mut().fill(1.0);
        }
    }
}

fn fill_he(weight: &mut polyveil_net::Tensor, rng: &mut rand_chacha::ChaCha8Rng) {
    let fan_in: usize = weight.shape().iter().skip(1).product();
    let deviation = (2.0 / fan_in.max(1) as f32).sqrt();
    weight.data_mut().iter_mut().for_each(|w| *w = deviation * normal(rng));
}
