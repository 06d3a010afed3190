//! Networks with a plain chain of layers: LeNet-5, AlexNet, VGG, SqueezeNet. Names of nodes are those
//! of torchvision's modules, so its weights load as they are.

use super::{ConvSpec, GraphBuilder, PoolSpec};
use crate::{Graph, NodeId, ShapeError};

/// A LeNet-5-like ReLU network with max-pooling: `conv1` 6@5×5 (padding 2), `relu1`, `pool1` 2×2,
/// `conv2` 16@5×5, `relu2`, `pool2` 2×2, `flatten`, `fc1` 120, `relu3`, `fc2` 84, `relu4`, `fc3`.
///
/// # Errors
/// When `input` (`[C, H, W]`) is too small for the two convolutions, or `classes` is 0.
pub fn lenet5_relu(input: &[usize], classes: usize, seed: u64) -> Result<Graph, ShapeError> {
    let mut b = GraphBuilder::new("lenet5", input, seed);
    let mut x = b.input();
    x = b.conv("conv1", x, 6, ConvSpec::new(5).pad(2));
    x = b.relu("relu1", x);
    x = b.max_pool("pool1", x, PoolSpec::new(2));
    x = b.conv("conv2", x, 16, ConvSpec::new(5));
    x = b.relu("relu2", x);
    x = b.max_pool("pool2", x, PoolSpec::new(2));
    x = b.flatten("flatten", x);
    x = b.linear("fc1", x, 120);
    x = b.relu("relu3", x);
    x = b.linear("fc2", x, 84);
    x = b.relu("relu4", x);
    x = b.linear("fc3", x, classes);
    b.finish(x)
}

/// AlexNet in the form of torchvision (Krizhevsky 2014, arXiv 1404.5997), dropout left out. The pool
/// to 6×6 before the classifier is the identity at 224×224. At sizes where it is no pool of one window
/// it is left out, and `classifier.1` takes what the features yield: then torchvision's weights of
/// that layer do not fit.
///
/// # Errors
/// When `input` (`[C, H, W]`) is too small (sides below 63), or `classes` is 0.
pub fn alexnet(input: &[usize], classes: usize, seed: u64) -> Result<Graph, ShapeError> {
    let mut b = GraphBuilder::new("alexnet", input, seed);
    let mut x = b.input();
    x = b.conv("features.0", x, 64, ConvSpec::new(11).stride(4).pad(2));
    x = b.relu("features.1", x);
    x = b.max_pool("features.2", x, PoolSpec::new(3).stride(2));
    x = b.conv("features.3", x, 192, ConvSpec::new(5).pad(2));
    x = b.relu("features.4", x);
    x = b.max_pool("features.5", x, PoolSpec::new(3).stride(2));
    x = b.conv("features.6", x, 384, ConvSpec::new(3).pad(1));
    x = b.relu("features.7", x);
    x = b.conv("features.8", x, 256, ConvSpec::new(3).pad(1));
    x = b.relu("features.9", x);
    x = b.conv("features.10", x, 256, ConvSpec::new(3).pad(1));
    x = b.relu("features.11", x);
    x = b.max_pool("features.12", x, PoolSpec::new(3).stride(2));
    x = classifier_pool(&mut b, x, 6);
    x = b.linear("classifier.1", x, 4096);
    x = b.relu("classifier.2", x);
    x = b.linear("classifier.4", x, 4096);
    x = b.relu("classifier.5", x);
    x = b.linear("classifier.6", x, classes);
    b.finish(x)
}

/// Channels of VGG's convolutions; 0 is a pool (Simonyan, Zisserman, arXiv 1409.1556, table 1).
const VGG_11: &[usize] = &[64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0];
const VGG_16: &[usize] = &[64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0];

/// VGG-11 (configuration A), with or without batch normalisation, dropout left out. The pool to 7×7
/// before the classifier is the identity at 224×224; at other sizes as for [`alexnet`].
///
/// # Errors
/// When `input` (`[C, H, W]`) is too small (sides below 32), or `classes` is 0.
pub fn vgg11(input: &[usize], classes: usize, batch_norm: bool, seed: u64) -> Result<Graph, ShapeError> {
    vgg(if batch_norm { "vgg11_bn" } else { "vgg11" }, VGG_11, input, classes, batch_norm, seed)
}

/// VGG-16 (configuration D); otherwise as [`vgg11`].
///
/// # Errors
/// As [`vgg11`].
pub fn vgg16(input: &[usize], classes: usize, batch_norm: bool, seed: u64) -> Result<Graph, ShapeError> {
    vgg(if batch_norm { "vgg16_bn" } else { "vgg16" }, VGG_16, input, classes, batch_norm, seed)
}

fn vgg(
    name: &str,
    plan: &[usize],
    input: &[usize],
    classes: usize,
    batch_norm: bool,
    seed: u64,
) -> Result<Graph, ShapeError> {
    let mut b = GraphBuilder::new(name, input, seed);
    let mut x = b.input();
    let mut index = 0;
    let mut next = || {
        index += 1;
        format!("features.{}", index - 1)
    };
    for &channels in plan {
        if channels == 0 {
            x = b.max_pool(&next(), x, PoolSpec::new(2));
            continue;
        }
        x = b.conv(&next(), x, channels, ConvSpec::new(3).pad(1));
        if batch_norm {
            x = b.batch_norm(&next(), x);
        }
        x = b.relu(&next(), x);
    }
    x = classifier_pool(&mut b, x, 7);
    x = b.linear("classifier.0", x, 4096);
    x = b.relu("classifier.1", x);
    x = b.linear("classifier.3", x, 4096);
    x = b.relu("classifier.4", x);
    x = b.linear("classifier.6", x, classes);
    b.finish(x)
}

/// The adaptive average pool to `side`×`side` (where it is a pool of one window), and the flattening.
fn classifier_pool(b: &mut GraphBuilder, x: NodeId, side: usize) -> NodeId {
    let shape = b.shape(x).to_vec();
    let pooled = match shape[..] {
        [_, height, width] if [height, width] != [side; 2] => {
            match (uniform_windows(height, side), uniform_windows(width, side)) {
                (Some(rows), Some(columns)) => {
                    b.avg_pool("avgpool", x, PoolSpec::rect([rows.0, columns.0], [rows.1, columns.1]))
                }
                _ => x,
            }
        }
        _ => x,
    };
    b.flatten("flatten", pooled)
}

/// Window and step of an adaptive pool from `extent` to `out` positions: position `i` covers
/// `⌊i·extent/out⌋ .. ⌈(i+1)·extent/out⌉`. None where windows differ, or repeat.
fn uniform_windows(extent: usize, out: usize) -> Option<(usize, usize)> {
    if extent < out {
        return None;
    }
    let span = |i: usize| (i * extent / out, ((i + 1) * extent).div_ceil(out));
    let (first, second) = (span(0), span(1.min(out - 1)));
    let (window, step) = (first.1, (second.0 - first.0).max(1));
    let uniform = (0..out).all(|i| span(i) == (i * step, i * step + window));
    uniform.then_some((window, step))
}

/// SqueezeNet 1.1 in the form of torchvision (Iandola et al., arXiv 1602.07360), dropout left out:
/// pools round up, the classifier is a 1×1 convolution, ReLU, and the mean over all positions.
///
/// # Errors
/// When `input` (`[C, H, W]`) is too small (sides below 25), or `classes` is 0.
pub fn squeezenet1_1(input: &[usize], classes: usize, seed: u64) -> Result<Graph, ShapeError> {
    squeezenet("squeezenet1_1", input, classes, true, seed)
}

/// [`squeezenet1_1`] without the ReLU after the last convolution, so that scores may be negative: one
/// activation less, and better to fine-tune on few classes. The weights are the same.
///
/// # Errors
/// As [`squeezenet1_1`].
pub fn squeezenet1_1_linear(input: &[usize], classes: usize, seed: u64) -> Result<Graph, ShapeError> {
    squeezenet("squeezenet1_1_linear", input, classes, false, seed)
}

fn squeezenet(
    name: &str,
    input: &[usize],
    classes: usize,
    last_relu: bool,
    seed: u64,
) -> Result<Graph, ShapeError> {
    let pool = PoolSpec::new(3).stride(2).ceil();
    let mut b = GraphBuilder::new(name, input, seed);
    let mut x = b.input();
    x = b.conv("features.0", x, 64, ConvSpec::new(3).stride(2));
    x = b.relu("features.1", x);
    x = b.max_pool("features.2", x, pool);
    for (index, squeeze, expand) in [(3, 16, 64), (4, 16, 64)] {
        x = fire(&mut b, index, x, squeeze, expand);
    }
    x = b.max_pool("features.5", x, pool);
    for (index, squeeze, expand) in [(6, 32, 128), (7, 32, 128)] {
        x = fire(&mut b, index, x, squeeze, expand);
    }
    x = b.max_pool("features.8", x, pool);
    for (index, squeeze, expand) in [(9, 48, 192), (10, 48, 192), (11, 64, 256), (12, 64, 256)] {
        x = fire(&mut b, index, x, squeeze, expand);
    }
    x = b.conv("classifier.1", x, classes, ConvSpec::new(1));
    if last_relu {
        x = b.relu("classifier.2", x);
    }
    x = b.global_avg_pool("classifier.3", x);
    x = b.flatten("flatten", x);
    b.finish(x)
}

/// A 1×1 convolution to few channels, then 1×1 and 3×3 convolutions side by side.
fn fire(b: &mut GraphBuilder, index: usize, x: NodeId, squeeze: usize, expand: usize) -> NodeId {
    let name = |part: &str| format!("features.{index}.{part}");
    let x = b.conv(&name("squeeze"), x, squeeze, ConvSpec::new(1));
    let x = b.relu(&name("squeeze_activation"), x);
    let one = b.conv(&name("expand1x1"), x, expand, ConvSpec::new(1));
    let one = b.relu(&name("expand1x1_activation"), one);
    let three = b.conv(&name("expand3x3"), x, expand, ConvSpec::new(3).pad(1));
    let three = b.relu(&name("expand3x3_activation"), three);
    b.concat(&name("concat"), &[one, three])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(graph: &Graph) -> usize {
        graph.nodes.iter().flat_map(|n| n.op.weights()).map(|(_, t)| t.len()).sum()
    }

    /// Without running statistics, which torchvision does not count as parameters.
    fn trainable(graph: &Graph) -> usize {
        let weights = graph.nodes.iter().flat_map(|n| n.op.weights());
        weights.filter(|(name, _)| !name.starts_with("running")).map(|(_, t)| t.len()).sum()
    }

    #[test]
    fn networks_have_as_many_parameters_as_published() {
        let image = [3, 224, 224];
        // torchvision's documentation of its weights.
        assert_eq!(parameters(&squeezenet1_1(&image, 1000, 1).unwrap()), 1_235_496);
        assert_eq!(parameters(&squeezenet1_1_linear(&image, 1000, 1).unwrap()), 1_235_496);
        assert_eq!(parameters(&alexnet(&image, 1000, 1).unwrap()), 61_100_840);
        assert_eq!(parameters(&vgg11(&image, 1000, false, 1).unwrap()), 132_863_336);
        assert_eq!(trainable(&vgg11(&image, 1000, true, 1).unwrap()), 132_868_840);
    }

    #[test]
    fn vgg16_has_the_published_features() {
        let graph = vgg16(&[3, 32, 32], 10, true, 1).unwrap();
        let names: Vec<&str> = graph.nodes.iter().map(|n| n.name.as_str()).collect();
        assert!(
            ["features.40", "features.41", "features.42", "features.43"].iter().all(|n| names.contains(n))
        );
        assert_eq!(graph.nodes.iter().filter(|n| n.op.name() == "Conv").count(), 13);
        // 1×1 features are no pool to 7×7: the classifier takes them as they are.
        assert!(graph.node("avgpool").is_none());
        let big = vgg11(&[3, 448, 224], 10, false, 1).unwrap();
        let (at, _) = big.node("avgpool").unwrap();
        assert_eq!(big.infer_shapes().unwrap()[at], [512, 7, 7]);
    }

    #[test]
    fn adaptive_pools_are_pools_where_their_windows_agree() {
        assert_eq!(uniform_windows(12, 6), Some((2, 2)));
        assert_eq!(uniform_windows(7, 6), Some((2, 1)));
        assert_eq!(uniform_windows(6, 6), Some((1, 1)));
        assert_eq!(uniform_windows(11, 6), None);
        assert_eq!(uniform_windows(5, 6), None);
        assert_eq!(uniform_windows(9, 1), Some((9, 1)));
    }

    #[test]
    fn small_images_are_refused_or_taken() {
        let size = |build: fn(&[usize], usize, u64) -> Result<Graph, ShapeError>, side: usize| {
            build(&[1, side, side], 2, 1).map(|g| g.infer_shapes().unwrap().pop().unwrap())
        };
        assert_eq!(size(alexnet, 96).unwrap(), [2]);
        assert_eq!(size(alexnet, 63).unwrap(), [2]);
        assert!(size(alexnet, 62).is_err());
        assert_eq!(size(squeezenet1_1, 25).unwrap(), [2]);
        assert!(size(squeezenet1_1, 24).is_err());
        assert!(lenet5_relu(&[1, 4, 4], 10, 1).is_err());
        assert!(alexnet(&[3, 224, 224], 0, 1).is_err());
    }
}
