//! Residual networks (He et al. 2015, arXiv 1512.03385). Names of nodes are those of torchvision
//! (ResNet-18) and of github.com/akamaster/pytorch_resnet_cifar10 (ResNet-20, -32), so their weights
//! load as they are.

use super::{ConvSpec, GraphBuilder, PoolSpec};
use crate::{Conv, Graph, NodeId, Op, ShapeError, Tensor};

/// ResNet-18 in the form of torchvision.
///
/// # Errors
/// When `input` is not `[C, H, W]`, or `classes` is 0.
pub fn resnet18(input: &[usize], classes: usize, seed: u64) -> Result<Graph, ShapeError> {
    let mut b = GraphBuilder::new("resnet18", input, seed);
    let mut x = b.input();
    x = b.conv("conv1", x, 64, ConvSpec::new(7).stride(2).pad(3).no_bias());
    x = b.batch_norm("bn1", x);
    x = b.relu("relu", x);
    x = b.max_pool("maxpool", x, PoolSpec::new(3).stride(2).pad(1));
    for (stage, channels) in [(1, 64), (2, 128), (3, 256), (4, 512)] {
        for unit in 0..2 {
            let stride = if stage > 1 && unit == 0 { 2 } else { 1 };
            let name = format!("layer{stage}.{unit}");
            x = block(&mut b, &name, x, channels, stride, |b, from| {
                let spec = ConvSpec::new(1).stride(stride).no_bias();
                let y = b.conv(&format!("{name}.downsample.0"), from, channels, spec);
                b.batch_norm(&format!("{name}.downsample.1"), y)
            });
        }
    }
    x = b.global_avg_pool("avgpool", x);
    x = b.flatten("flatten", x);
    x = b.linear("fc", x, classes);
    b.finish(x)
}

/// ResNet-20 for small images. Shortcuts that change the shape are of kind A: every second row and
/// column, and channels of zeros before and after. They are 1×1 convolutions whose weights are fixed
/// (see [`Graph::is_fixed`]).
///
/// # Errors
/// When `input` is not `[C, H, W]`, or `classes` is 0.
pub fn resnet20(input: &[usize], classes: usize, seed: u64) -> Result<Graph, ShapeError> {
    small("resnet20", 3, input, classes, seed)
}

/// ResNet-32; otherwise as [`resnet20`].
///
/// # Errors
/// As [`resnet20`].
pub fn resnet32(input: &[usize], classes: usize, seed: u64) -> Result<Graph, ShapeError> {
    small("resnet32", 5, input, classes, seed)
}

fn small(name: &str, units: usize, input: &[usize], classes: usize, seed: u64) -> Result<Graph, ShapeError> {
    let mut b = GraphBuilder::new(name, input, seed);
    let mut x = b.input();
    x = b.conv("conv1", x, 16, ConvSpec::new(3).pad(1).no_bias());
    x = b.batch_norm("bn1", x);
    x = b.relu("relu", x);
    for (stage, channels) in [(1, 16), (2, 32), (3, 64)] {
        for unit in 0..units {
            let stride = if stage > 1 && unit == 0 { 2 } else { 1 };
            let name = format!("layer{stage}.{unit}");
            x = block(&mut b, &name, x, channels, stride, |b, from| {
                option_a(b, &format!("{name}.shortcut"), from, channels)
            });
        }
    }
    x = b.global_avg_pool("avgpool", x);
    x = b.flatten("flatten", x);
    x = b.linear("linear", x, classes);
    b.finish(x)
}

/// Two 3×3 convolutions and a shortcut, which is `project`ed where the shape changes.
fn block(
    b: &mut GraphBuilder,
    name: &str,
    x: NodeId,
    channels: usize,
    stride: usize,
    project: impl FnOnce(&mut GraphBuilder, NodeId) -> NodeId,
) -> NodeId {
    let part = |p: &str| format!("{name}.{p}");
    let changes = stride != 1 || b.shape(x).first() != Some(&channels);
    let y = b.conv(&part("conv1"), x, channels, ConvSpec::new(3).stride(stride).pad(1).no_bias());
    let y = b.batch_norm(&part("bn1"), y);
    let y = b.relu(&part("relu1"), y);
    let y = b.conv(&part("conv2"), y, channels, ConvSpec::new(3).pad(1).no_bias());
    let y = b.batch_norm(&part("bn2"), y);
    let shortcut = if changes { project(b, x) } else { x };
    let y = b.add(&part("add"), y, shortcut);
    b.relu(&part("relu2"), y)
}

fn option_a(b: &mut GraphBuilder, name: &str, from: NodeId, channels: usize) -> NodeId {
    let inputs = b.shape(from).first().copied().unwrap_or(1).min(channels);
    let first = (channels - inputs) / 2;
    let mut weight = Tensor::full(vec![channels, inputs, 1, 1], 0.0);
    for i in 0..inputs {
        weight.data_mut()[(first + i) * inputs + i] = 1.0;
    }
    let (stride, pads, dilation) = ([2; 2], [0; 4], [1; 2]);
    let conv = Conv { weight, bias: None, stride, pads, dilation, groups: 1 };
    b.push_fixed(name, Op::Conv(conv), vec![from])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec;

    #[test]
    fn networks_have_as_many_parameters_as_published() {
        let count = |graph: &Graph| -> usize {
            let own = graph.nodes.iter().filter(|n| !graph.is_fixed(&n.name)).flat_map(|n| n.op.weights());
            own.filter(|(name, _)| !name.starts_with("running")).map(|(_, t)| t.len()).sum()
        };
        assert_eq!(count(&resnet18(&[3, 224, 224], 1000, 1).unwrap()), 11_689_512);
        // 0.27 M and 0.46 M in the paper's table 6.
        assert_eq!(count(&resnet20(&[3, 32, 32], 10, 1).unwrap()), 269_722);
        assert_eq!(count(&resnet32(&[3, 32, 32], 10, 1).unwrap()), 464_154);
    }

    #[test]
    fn option_a_takes_every_second_pixel_between_channels_of_zeros() {
        let mut b = GraphBuilder::new("t", &[2, 3, 3], 1);
        let x = option_a(&mut b, "shortcut", 0, 4);
        let graph = b.finish(x).unwrap();
        assert!(graph.is_fixed("shortcut") && !graph.is_fixed("input"));
        let image = Tensor::new(vec![2, 3, 3], (0..18u8).map(f32::from).collect()).unwrap();
        let y = exec::run(&graph, &image).unwrap();
        assert_eq!(y.shape(), [4, 2, 2]);
        assert_eq!(y.data(), [0., 0., 0., 0., 0., 2., 6., 8., 9., 11., 15., 17., 0., 0., 0., 0.]);
    }

    #[test]
    fn strides_halve_the_maps() {
        let graph = resnet20(&[3, 32, 32], 10, 1).unwrap();
        let shapes = graph.infer_shapes().unwrap();
        let of = |name: &str| shapes[graph.node(name).unwrap().0].clone();
        assert_eq!((of("layer1.2.relu2"), of("layer3.2.relu2")), (vec![16, 32, 32], vec![64, 8, 8]));
        let graph = resnet18(&[3, 224, 224], 7, 1).unwrap();
        let shapes = graph.infer_shapes().unwrap();
        assert_eq!(shapes[graph.node("layer4.1.relu2").unwrap().0], [512, 7, 7]);
    }
}
