//! Weights as safetensors.
//!
//! The tensor of a weight is `<node name>.<weight name>` with the names of torchvision:
//! `features.0.weight`, `features.0.bias`, `bn1.running_mean`; a quadratic has `.a`, `.b`, `.c`.
//! 16-bit and 64-bit floats are converted. `num_batches_tracked` is ignored.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    path::Path,
};

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensorError, SafeTensors, tensor::TensorView};

use crate::{Graph, ShapeError, Tensor};

/// How a node's name becomes the first part of its tensors' names.
#[derive(Clone, Copy, Debug, Default)]
pub enum Naming<'a> {
    /// As it is.
    #[default]
    Node,
    /// With this in front, for example `module.`.
    Prefix(&'a str),
    /// As this map says; nodes that it lacks keep their name.
    Map(&'a BTreeMap<String, String>),
}

/// Why weights were not loaded or saved.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The bytes are not safetensors, or the file is cut short.
    #[error("not a valid safetensors file: {0}")]
    Format(#[from] SafeTensorError),
    /// The file's tensors are not the graph's.
    #[error("{0}")]
    Mismatch(Mismatches),
    /// The tensors fit, but the graph is not valid with them (for example NaN).
    #[error(transparent)]
    Graph(#[from] ShapeError),
}

/// Every difference between a weight file and a graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mismatches {
    /// Tensors that the graph needs and the file lacks.
    pub missing: Vec<String>,
    /// Tensors of the file that the graph has no place for.
    pub unexpected: Vec<String>,
    /// Tensors of another shape.
    pub shapes: Vec<ShapeMismatch>,
    /// Tensors that are not of a float type, with the type found.
    pub types: Vec<(String, String)>,
}

/// A tensor whose shape is not that of the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapeMismatch {
    /// Name of the tensor.
    pub tensor: String,
    /// The graph's shape.
    pub expected: Vec<usize>,
    /// The file's shape.
    pub found: Vec<usize>,
}

impl fmt::Display for Mismatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the weights do not fit the network:")?;
        for name in &self.missing {
            write!(f, "\n  missing: {name}")?;
        }
        for name in &self.unexpected {
            write!(f, "\n  unexpected: {name}")?;
        }
        for ShapeMismatch { tensor, expected, found } in &self.shapes {
            write!(f, "\n  {tensor}: expected shape {expected:?}, found {found:?}")?;
        }
        for (name, found) in &self.types {
            write!(f, "\n  {name}: expected floating-point values, found {found}")?;
        }
        Ok(())
    }
}

/// No weight file of more bytes is read.
const MAX_FILE: u64 = 4 << 30;

/// Replaces all weights of `graph` by those of a safetensors file.
///
/// # Errors
/// [`WeightsError::Io`], and those of [`load`].
pub fn load_path(graph: &mut Graph, path: &Path, naming: Naming<'_>) -> Result<(), WeightsError> {
    load(graph, &read(path)?, naming)
}

fn read(path: &Path) -> Result<Vec<u8>, WeightsError> {
    let size = fs::metadata(path).map_err(|source| io_error(path, source))?.len();
    if size > MAX_FILE {
        let reason = format!("{size} bytes, at most {MAX_FILE} are read");
        return Err(io_error(path, io::Error::new(io::ErrorKind::InvalidData, reason)));
    }
    fs::read(path).map_err(|source| io_error(path, source))
}

/// A classifier that kept the weights it had, because the file's is for another number of classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreshHead {
    /// The layer.
    pub node: String,
    /// Classes of the network.
    pub classes: usize,
    /// Classes of the file.
    pub found: usize,
}

/// [`load_path`], for a network that starts from weights made for other classes: where the last layer with
/// weights differs from the file's in its number of outputs only, it keeps the weights it has, and that
/// is returned.
///
/// # Errors
/// As [`load_path`].
pub fn load_pretrained(
    graph: &mut Graph,
    path: &Path,
    naming: Naming<'_>,
) -> Result<Option<FreshHead>, WeightsError> {
    load_keeping_head(graph, &read(path)?, naming)
}

/// [`load_pretrained`] from bytes.
///
/// # Errors
/// As [`load`].
pub fn load_keeping_head(
    graph: &mut Graph,
    bytes: &[u8],
    naming: Naming<'_>,
) -> Result<Option<FreshHead>, WeightsError> {
    let mismatches = match load(graph, bytes, naming) {
        Ok(()) => return Ok(None),
        Err(WeightsError::Mismatch(mismatches)) => mismatches,
        Err(other) => return Err(other),
    };
    let Some((at, head)) = graph.nodes.iter().enumerate().rfind(|(_, n)| !n.op.weights().is_empty()) else {
        return Err(WeightsError::Mismatch(mismatches));
    };
    let own: Vec<String> =
        head.op.weights().iter().map(|(w, _)| tensor_name(&head.name, w, naming)).collect();
    let only_outputs = |m: &ShapeMismatch| {
        own.contains(&m.tensor) && m.expected.get(1..) == m.found.get(1..) && !m.found.is_empty()
    };
    let others = Mismatches { shapes: Vec::new(), ..mismatches.clone() } != Mismatches::default();
    let (Some(first), false, true) =
        (mismatches.shapes.first(), others, mismatches.shapes.iter().all(only_outputs))
    else {
        return Err(WeightsError::Mismatch(mismatches));
    };
    let fresh = FreshHead { node: head.name.clone(), classes: first.expected[0], found: first.found[0] };
    load_where(graph, bytes, naming, |node| node != at)?;
    Ok(Some(fresh))
}

/// Replaces all weights of `graph` by those of safetensors bytes. On any error the graph is as
/// before.
///
/// # Errors
/// Bytes that are not safetensors; all missing, unexpected and unfitting tensors at once; weights
/// that are not finite.
pub fn load(graph: &mut Graph, bytes: &[u8], naming: Naming<'_>) -> Result<(), WeightsError> {
    load_where(graph, bytes, naming, |_| true)
}

/// [`load`] into the nodes that `wanted` holds for; the tensors of others are passed over.
fn load_where(
    graph: &mut Graph,
    bytes: &[u8],
    naming: Naming<'_>,
    wanted: impl Fn(usize) -> bool,
) -> Result<(), WeightsError> {
    let file = SafeTensors::deserialize(bytes)?;
    let mut unused: BTreeSet<&str> = file.names().into_iter().collect();
    let mut mismatches = Mismatches::default();
    let mut loaded = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        for (weight, current) in node.op.weights() {
            let name = tensor_name(&node.name, weight, naming);
            unused.remove(name.as_str());
            if !wanted(index) {
                loaded.push(current.clone());
                continue;
            }
            let Ok(view) = file.tensor(&name) else {
                if graph.is_fixed(&node.name) {
                    loaded.push(current.clone());
                } else {
                    mismatches.missing.push(name);
                }
                continue;
            };
            if view.shape() != current.shape() {
                let (expected, found) = (current.shape().to_vec(), view.shape().to_vec());
                mismatches.shapes.push(ShapeMismatch { tensor: name, expected, found });
                continue;
            }
            match decode(&view).map(|data| Tensor::new(view.shape().to_vec(), data)) {
                Some(Ok(tensor)) => loaded.push(tensor),
                _ => mismatches.types.push((name, format!("{:?}", view.dtype()))),
            }
        }
    }
    let ignored = |name: &&str| !name.ends_with(".num_batches_tracked");
    mismatches.unexpected = unused.into_iter().filter(ignored).map(str::to_owned).collect();
    if mismatches != Mismatches::default() {
        return Err(WeightsError::Mismatch(mismatches));
    }
    let mut candidate = graph.clone();
    let places = candidate.nodes.iter_mut().flat_map(|n| n.op.weights_mut());
    for ((_, place), tensor) in places.zip(loaded) {
        *place = tensor;
    }
    candidate.validate()?;
    *graph = candidate;
    Ok(())
}

/// All weights of `graph` as safetensors bytes, in `f32`.
///
/// # Errors
/// Two weights whose names fall together under `naming`.
pub fn save(graph: &Graph, naming: Naming<'_>) -> Result<Vec<u8>, WeightsError> {
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for node in &graph.nodes {
        for (weight, tensor) in node.op.weights() {
            let data = tensor.data().iter().flat_map(|x| x.to_le_bytes()).collect();
            tensors.push((tensor_name(&node.name, weight, naming), tensor.shape().to_vec(), data));
        }
    }
    let mut names = BTreeSet::new();
    let doubled: Vec<String> = tensors.iter().filter(|t| !names.insert(&t.0)).map(|t| t.0.clone()).collect();
    if !doubled.is_empty() {
        return Err(WeightsError::Mismatch(Mismatches { unexpected: doubled, ..Mismatches::default() }));
    }
    let views: Result<Vec<_>, SafeTensorError> = tensors
        .iter()
        .map(|(name, shape, data)| Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), data)?)))
        .collect();
    Ok(safetensors::serialize(views?, None)?)
}

/// [`save`] to a file.
///
/// # Errors
/// [`WeightsError::Io`], and those of [`save`].
pub fn save_path(graph: &Graph, path: &Path, naming: Naming<'_>) -> Result<(), WeightsError> {
    fs::write(path, save(graph, naming)?).map_err(|source| io_error(path, source))
}

fn io_error(path: &Path, source: io::Error) -> WeightsError {
    WeightsError::Io { path: path.display().to_string(), source }
}

fn tensor_name(node: &str, weight: &str, naming: Naming<'_>) -> String {
    match naming {
        Naming::Node => format!("{node}.{weight}"),
        Naming::Prefix(prefix) => format!("{prefix}{node}.{weight}"),
        Naming::Map(map) => format!("{}.{weight}", map.get(node).map_or(node, String::as_str)),
    }
}

/// The values as `f32`; `None` for types that are not floats.
fn decode(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let (two, four, eight) =
        (view.data().as_chunks::<2>(), view.data().as_chunks::<4>(), view.data().as_chunks::<8>());
    #[expect(clippy::cast_possible_truncation, reason = "weights are kept in f32")]
    Some(match view.dtype() {
        Dtype::F32 => four.0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        Dtype::F64 => eight.0.iter().map(|&b| f64::from_le_bytes(b) as f32).collect(),
        Dtype::F16 => two.0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
        Dtype::BF16 => two.0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{builders, exec};

    #[test]
    fn round_trip_restores_the_function() {
        let teacher = builders::lenet5_relu(&[1, 28, 28], 10, 1).unwrap();
        let mut other = builders::lenet5_relu(&[1, 28, 28], 10, 2).unwrap();
        let image = Tensor::full(vec![1, 28, 28], 0.3);
        assert_ne!(exec::run(&teacher, &image).unwrap(), exec::run(&other, &image).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.safetensors");
        save_path(&teacher, &path, Naming::Prefix("module.")).unwrap();
        load_path(&mut other, &path, Naming::Prefix("module.")).unwrap();
        assert_eq!(teacher, other);
    }

    #[test]
    fn every_difference_is_listed_at_once_and_nothing_changes() {
        let mut graph = builders::lenet5_relu(&[1, 28, 28], 10, 1).unwrap();
        let before = graph.clone();
        let other = builders::lenet5_relu(&[1, 28, 28], 7, 1).unwrap();
        let map: BTreeMap<_, _> = [("conv1".to_owned(), "stem".to_owned())].into();
        let bytes = save(&other, Naming::Map(&map)).unwrap();
        let error = load(&mut graph, &bytes, Naming::Node).unwrap_err();
        let WeightsError::Mismatch(found) = &error else { panic!("{error}") };
        assert_eq!(found.missing, ["conv1.weight", "conv1.bias"]);
        assert_eq!(found.unexpected, ["stem.bias", "stem.weight"]);
        assert_eq!(found.shapes.len(), 2);
        assert!(error.to_string().contains("fc3.weight: expected shape [10, 84], found [7, 84]"));
        assert_eq!(graph, before);
    }

    #[test]
    fn a_classifier_for_other_classes_is_kept_and_said_so() {
        let source = builders::resnet20(&[3, 32, 32], 10, 1).unwrap();
        let bytes = save(&source, Naming::Node).unwrap();
        let mut graph = builders::resnet20(&[3, 32, 32], 3, 2).unwrap();
        let before = graph.clone();
        let fresh = load_keeping_head(&mut graph, &bytes, Naming::Node).unwrap();
        assert_eq!(fresh, Some(FreshHead { node: "linear".into(), classes: 3, found: 10 }));
        for ((node, old), new) in graph.nodes.iter().zip(&before.nodes).zip(&source.nodes) {
            let expected = if node.name == "linear" { old } else { new };
            assert_eq!(node.op, expected.op, "{}", node.name);
        }
        let mut same = builders::resnet20(&[3, 32, 32], 10, 3).unwrap();
        assert_eq!(load_keeping_head(&mut same, &bytes, Naming::Node).unwrap(), None);
        assert_eq!(same, source);
        // Another difference anywhere is still refused.
        let mut other = builders::resnet20(&[1, 32, 32], 3, 3).unwrap();
        let error = load_keeping_head(&mut other, &bytes, Naming::Node).unwrap_err().to_string();
        assert!(error.contains("conv1.weight: expected shape [16, 1, 3, 3]"), "{error}");
    }

    #[test]
    fn fixed_weights_may_be_missing() {
        let source = builders::resnet20(&[3, 32, 32], 10, 1).unwrap();
        let mut stripped = source.clone();
        let fixed: Vec<String> =
            source.nodes.iter().map(|n| n.name.clone()).filter(|n| source.is_fixed(n)).collect();
        assert_eq!(fixed, ["layer2.0.shortcut", "layer3.0.shortcut"]);
        for node in &mut stripped.nodes {
            if fixed.contains(&node.name) {
                node.op = crate::Op::Flatten;
            }
        }
        let bytes = save(&stripped, Naming::Node).unwrap();
        let mut graph = builders::resnet20(&[3, 32, 32], 10, 2).unwrap();
        load(&mut graph, &bytes, Naming::Node).unwrap();
        assert_eq!(graph, source);
    }

    #[test]
    fn bad_bytes_and_values_are_refused() {
        let mut graph = builders::lenet5_relu(&[1, 28, 28], 10, 1).unwrap();
        let mut bytes = save(&graph, Naming::Node).unwrap();
        for n in [0, 4, 8, 20, bytes.len() - 1] {
            assert!(matches!(load(&mut graph, &bytes[..n], Naming::Node), Err(WeightsError::Format(_))));
        }
        let last = bytes.len() - 4;
        bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
        let error = load(&mut graph, &bytes, Naming::Node).unwrap_err();
        assert!(matches!(error, WeightsError::Graph(ShapeError::NonFiniteWeight { .. })), "{error}");
    }

    #[test]
    fn sixteen_and_sixty_four_bit_floats_are_converted() {
        let mut b = builders::GraphBuilder::new("n", &[2], 0);
        let y = b.linear("fc", b.input(), 2);
        let mut graph = b.finish(y).unwrap();
        let weight: Vec<u8> = [0.5f64, -1.25, 3.0, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let bias: Vec<u8> =
            [f16::from_f32(0.5), f16::from_f32(2.0)].iter().flat_map(|x| x.to_le_bytes()).collect();
        let bytes = safetensors::serialize(
            [
                ("fc.weight", TensorView::new(Dtype::F64, vec![2, 2], &weight).unwrap()),
                ("fc.bias", TensorView::new(Dtype::F16, vec![2], &bias).unwrap()),
            ],
            None,
        )
        .unwrap();
        load(&mut graph, &bytes, Naming::Node).unwrap();
        let found: Vec<_> = graph.nodes[1].op.weights().iter().flat_map(|w| w.1.data().to_vec()).collect();
        assert_eq!(found, [0.5, -1.25, 3.0, 4.0, 0.5, 2.0]);
    }
}
