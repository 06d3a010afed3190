//! What every operator can say of itself: its name and its weights.

use crate::{Graph, Node, NodeId, Op, Tensor};

/// Key of [`Graph::metadata`] with the names of fixed nodes, one a line.
pub const FIXED_KEY: &str = "polyveil.fixed";

impl Op {
    /// The operator's name as messages show it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Input { .. } => "Input",
            Self::Conv(_) => "Conv",
            Self::Linear(_) => "Linear",
            Self::BatchNorm(_) => "BatchNorm",
            Self::AvgPool(_) => "AvgPool",
            Self::MaxPool(_) => "MaxPool",
            Self::GlobalAvgPool => "GlobalAvgPool",
            Self::Relu => "Relu",
            Self::Quadratic(_) => "Quadratic",
            Self::Flatten => "Flatten",
            Self::Add => "Add",
            Self::Concat => "Concat",
        }
    }

    /// The operator's weights with the names that weight files give them (`weight`, `bias`,
    /// `running_mean`, ...; `a`, `b`, `c` for a quadratic).
    #[must_use]
    pub fn weights(&self) -> Vec<(&'static str, &Tensor)> {
        match self {
            Self::Conv(c) => with_bias(&c.weight, c.bias.as_ref()),
            Self::Linear(l) => with_bias(&l.weight, l.bias.as_ref()),
            Self::BatchNorm(n) => {
                vec![
                    ("weight", &n.gamma),
                    ("bias", &n.beta),
                    ("running_mean", &n.mean),
                    ("running_var", &n.var),
                ]
            }
            Self::Quadratic(q) => vec![("a", &q.a), ("b", &q.b), ("c", &q.c)],
            Self::Input { .. }
            | Self::AvgPool(_)
            | Self::MaxPool(_)
            | Self::GlobalAvgPool
            | Self::Relu
            | Self::Flatten
            | Self::Add
            | Self::Concat => Vec::new(),
        }
    }

    /// [`Op::weights`], mutable, in the same order.
    pub fn weights_mut(&mut self) -> Vec<(&'static str, &mut Tensor)> {
        match self {
            Self::Conv(c) => with_bias(&mut c.weight, c.bias.as_mut()),
            Self::Linear(l) => with_bias(&mut l.weight, l.bias.as_mut()),
            Self::BatchNorm(n) => vec![
                ("weight", &mut n.gamma),
                ("bias", &mut n.beta),
                ("running_mean", &mut n.mean),
                ("running_var", &mut n.var),
            ],
            Self::Quadratic(q) => vec![("a", &mut q.a), ("b", &mut q.b), ("c", &mut q.c)],
            Self::Input { .. }
            | Self::AvgPool(_)
            | Self::MaxPool(_)
            | Self::GlobalAvgPool
            | Self::Relu
            | Self::Flatten
            | Self::Add
            | Self::Concat => Vec::new(),
        }
    }
}

impl Graph {
    /// Shape of the input sample; empty when the graph has no input node (which
    /// [`Graph::validate`] refuses).
    #[must_use]
    pub fn input_shape(&self) -> &[usize] {
        match self.nodes.first() {
            Some(Node { op: Op::Input { shape }, .. }) => shape,
            _ => &[],
        }
    }

    /// The node of this name, with its index.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<(NodeId, &Node)> {
        self.nodes.iter().enumerate().find(|(_, n)| n.name == name)
    }

    /// Whether the weights of this node are part of the network's structure, as those of a shortcut that
    /// only moves values: training leaves them alone, and weight files may lack them.
    #[must_use]
    pub fn is_fixed(&self, node: &str) -> bool {
        self.metadata.get(FIXED_KEY).is_some_and(|names| names.lines().any(|n| n == node))
    }

    /// Makes [`Graph::is_fixed`] true of this node.
    pub fn fix(&mut self, node: &str) {
        let names = self.metadata.entry(FIXED_KEY.to_owned()).or_default();
        if !names.is_empty() {
            names.push('\n');
        }
        names.push_str(node);
    }

    /// Number of weight values, batch-norm statistics and activation coefficients included.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.nodes.iter().flat_map(|n| n.op.weights()).map(|(_, t)| t.len() as u64).sum()
    }
}

fn with_bias<T>(weight: T, bias: Option<T>) -> Vec<(&'static str, T)> {
    let mut all = vec![("weight", weight)];
    all.extend(bias.map(|b| ("bias", b)));
    all
}
