//! Plain executor: what the network computes, in `f32` or `f64`.
//!
//! Operators have ONNX semantics. A convolution gathers windows into a matrix (im2col, in tiles of
//! bounded size) and multiplies; a fully connected layer multiplies a whole batch at once. Results
//! do not depend on the batch or on the number of threads.

mod element;
mod kernels;

use rayon::prelude::*;

use crate::{Graph, Node, Op, ShapeError, Tensor};
use element::Element;

/// Most images that one task of [`Executor::run_batch`] carries through the network together.
const MOST_AT_ONCE: usize = 16;

/// Values of all nodes together that a task carries at once: more images would push each other out of the
/// caches between one node and the next.
const VALUES_AT_ONCE: usize = 1 << 21;

/// Weights of fully connected layers from which a task carries [`MOST_AT_ONCE`] images whatever their size:
/// reading such weights once more costs more than the caches save.
const HEAVY: usize = 1 << 20;

/// Why a network gave no result.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
pub enum ExecError {
    /// The graph is not a network.
    #[error(transparent)]
    Graph(#[from] ShapeError),
    /// An input of another shape than the network's.
    #[error("input {image} has shape {found:?}, the network `{network}` takes {expected:?}")]
    InputShape {
        /// Name of the network.
        network: String,
        /// Position in the batch; 0 for a single input.
        image: usize,
        /// The network's input shape.
        expected: Vec<usize>,
        /// The shape given.
        found: Vec<usize>,
    },
    /// An input that holds NaN or an infinity.
    #[error("input {image} holds {value} at position {position}; inputs must be finite")]
    NonFiniteInput {
        /// Position in the batch; 0 for a single input.
        image: usize,
        /// Flat index of the value.
        position: usize,
        /// The value.
        value: f32,
    },
    /// A node whose value overflowed; the first in graph order.
    #[error(
        "node `{node}` ({op}) yields a value that is not finite for input {image}: its activations overflow"
    )]
    NonFinite {
        /// Name of the node.
        node: String,
        /// Its operator.
        op: &'static str,
        /// Position in the batch; 0 for a single input.
        image: usize,
    },
}

/// Runs `graph` on one sample. To run many, make an [`Executor`] once.
///
/// # Errors
/// Those of [`Executor::new`] and [`Executor::run`].
pub fn run(graph: &Graph, input: &Tensor) -> Result<Tensor, ExecError> {
    Executor::new(graph)?.run(input)
}

/// Runs `graph` on one sample in `f64` throughout: the reference for precision measurements.
///
/// # Errors
/// Those of [`Executor::new`] and [`Executor::run`].
pub fn run_f64(graph: &Graph, input: &Tensor) -> Result<Vec<f64>, ExecError> {
    Executor::new(graph)?.run_f64(input)
}

/// Runs `graph` on one sample and returns the value of every node, in node order.
///
/// # Errors
/// Those of [`Executor::new`] and [`Executor::run`].
pub fn run_all(graph: &Graph, input: &Tensor) -> Result<Vec<Tensor>, ExecError> {
    Executor::new(graph)?.run_all(input)
}

/// Runs `graph` on many samples, on all threads of the current rayon pool.
///
/// # Errors
/// Those of [`Executor::new`] and [`Executor::run`]; the first failing batch is reported.
pub fn run_batch(graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>, ExecError> {
    Executor::new(graph)?.run_batch(inputs)
}

/// A graph that has been checked and is ready to run.
#[derive(Clone, Debug)]
pub struct Executor<'g> {
    graph: &'g Graph,
    shapes: Vec<Vec<usize>>,
    /// The last node that reads each value; values are dropped after it.
    last_use: Vec<usize>,
    /// Images of one task.
    at_once: usize,
}

impl<'g> Executor<'g> {
    /// Checks the graph (see [`Graph::validate`]).
    ///
    /// # Errors
    /// [`ExecError::Graph`].
    pub fn new(graph: &'g Graph) -> Result<Self, ExecError> {
        graph.validate()?;
        let shapes = graph.infer_shapes()?;
        let mut last_use: Vec<usize> = (0..graph.nodes.len()).collect();
        for (i, node) in graph.nodes.iter().enumerate() {
            for &input in &node.inputs {
                last_use[input] = i;
            }
        }
        last_use[graph.output] = usize::MAX;
        let at_once = images_at_once(graph, &shapes);
        Ok(Self { graph, shapes, last_use, at_once })
    }

    /// The shape of every node's value for one sample.
    #[must_use]
    pub fn shapes(&self) -> &[Vec<usize>] {
        &self.shapes
    }

    /// The network's result for one sample.
    ///
    /// # Errors
    /// An input of the wrong shape or not finite; a value that overflows, by node name.
    pub fn run(&self, input: &Tensor) -> Result<Tensor, ExecError> {
        self.check_input(0, input)?;
        let values = self.forward(input.data().to_vec(), 1, 0, false)?;
        Ok(self.tensor(self.graph.output, values))
    }

    /// [`Executor::run`] in `f64` throughout.
    ///
    /// # Errors
    /// As [`Executor::run`].
    pub fn run_f64(&self, input: &Tensor) -> Result<Vec<f64>, ExecError> {
        self.check_input(0, input)?;
        let input = input.data().iter().map(|&x| f64::from(x)).collect();
        let mut values = self.forward(input, 1, 0, false)?;
        Ok(values.swap_remove(self.graph.output))
    }

    /// The value of every node for one sample, in node order.
    ///
    /// # Errors
    /// As [`Executor::run`].
    pub fn run_all(&self, input: &Tensor) -> Result<Vec<Tensor>, ExecError> {
        self.check_input(0, input)?;
        let values = self.forward(input.data().to_vec(), 1, 0, true)?;
        Ok(values.into_iter().zip(&self.shapes).map(|(v, s)| element::tensor(s, v)).collect())
    }

    /// The network's results for many samples, on all threads of the current rayon pool.
    ///
    /// # Errors
    /// As [`Executor::run`], with the position of the input.
    pub fn run_batch(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, ExecError> {
        let shape = &self.shapes[self.graph.output];
        let size: usize = shape.iter().product();
        let chunks: Result<Vec<Vec<Tensor>>, ExecError> = inputs
            .par_chunks(self.at_once)
            .enumerate()
            .map(|(chunk, images)| {
                let first = chunk * self.at_once;
                let mut data = Vec::with_capacity(images.len() * images.first().map_or(0, Tensor::len));
                for (i, image) in images.iter().enumerate() {
                    self.check_input(first + i, image)?;
                    data.extend_from_slice(image.data());
                }
                let mut values: Vec<Vec<f32>> = self.forward(data, images.len(), first, false)?;
                let logits = values.swap_remove(self.graph.output);
                Ok(logits.chunks(size).map(|v| element::tensor(shape, v.to_vec())).collect())
            })
            .collect();
        Ok(chunks?.into_iter().flatten().collect())
    }

    fn check_input(&self, image: usize, input: &Tensor) -> Result<(), ExecError> {
        let expected = self.graph.input_shape();
        if input.shape() != expected {
            return Err(ExecError::InputShape {
                network: self.graph.name.clone(),
                image,
                expected: expected.to_vec(),
                found: input.shape().to_vec(),
            });
        }
        match input.data().iter().position(|x| !x.is_finite()) {
            Some(position) => {
                Err(ExecError::NonFiniteInput { image, position, value: input.data()[position] })
            }
            None => Ok(()),
        }
    }

    /// Every node's value for `batch` samples, one after the other in each value. Values that
    /// nothing reads any more are left empty unless `keep`.
    fn forward<T: Element>(
        &self,
        input: Vec<T>,
        batch: usize,
        first: usize,
        keep: bool,
    ) -> Result<Vec<Vec<T>>, ExecError> {
        let mut values: Vec<Vec<T>> = Vec::with_capacity(self.graph.nodes.len());
        values.push(input);
        for (i, node) in self.graph.nodes.iter().enumerate().skip(1) {
            let value = self.evaluate(i, node, &values, batch);
            if let Some(bad) = element::first_non_finite(&value) {
                let size: usize = self.shapes[i].iter().product();
                return Err(ExecError::NonFinite {
                    node: node.name.clone(),
                    op: node.op.name(),
                    image: first + bad / size,
                });
            }
            values.push(value);
            if !keep {
                for &input in &node.inputs {
                    if self.last_use[input] == i {
                        values[input] = Vec::new();
                    }
                }
                if self.last_use[i] == i {
                    values[i] = Vec::new();
                }
            }
        }
        Ok(values)
    }

    fn evaluate<T: Element>(&self, index: usize, node: &Node, values: &[Vec<T>], batch: usize) -> Vec<T> {
        let input = |k: usize| values[node.inputs[k]].as_slice();
        let shape = |k: usize| self.shapes[node.inputs[k]].as_slice();
        let out = self.shapes[index].as_slice();
        match &node.op {
            Op::Input { .. } => Vec::new(),
            Op::Conv(conv) => kernels::conv(conv, input(0), shape(0), out, batch),
            Op::Linear(linear) => kernels::linear(linear, input(0), batch),
            Op::BatchNorm(norm) => kernels::batch_norm(norm, input(0), shape(0)),
            Op::AvgPool(pool) => kernels::avg_pool(pool, input(0), shape(0), out),
            Op::MaxPool(pool) => kernels::max_pool(pool, input(0), shape(0), out),
            Op::GlobalAvgPool => kernels::global_avg_pool(input(0), shape(0)),
            Op::Relu => input(0).iter().map(|&x| if x < T::zero() { T::zero() } else { x }).collect(),
            Op::Quadratic(q) => kernels::quadratic(q, input(0), shape(0)),
            Op::Flatten => input(0).to_vec(),
            Op::Add => input(0).iter().zip(input(1)).map(|(&x, &y)| x + y).collect(),
            Op::Concat => {
                let parts: Vec<&[T]> = (0..node.inputs.len()).map(input).collect();
                kernels::concat(&parts, batch)
            }
        }
    }

    fn tensor(&self, node: usize, mut values: Vec<Vec<f32>>) -> Tensor {
        element::tensor(&self.shapes[node], values.swap_remove(node))
    }
}

fn images_at_once(graph: &Graph, shapes: &[Vec<usize>]) -> usize {
    let linear = graph.nodes.iter().map(|n| if let Op::Linear(l) = &n.op { l.weight.len() } else { 0 });
    if linear.fold(0usize, usize::saturating_add) > HEAVY {
        return MOST_AT_ONCE;
    }
    let values = shapes.iter().map(|s| s.iter().product()).fold(0usize, usize::saturating_add);
    (VALUES_AT_ONCE / values.max(1)).clamp(1, MOST_AT_ONCE)
}
