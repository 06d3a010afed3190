//! Why a model was not imported.

use std::{fmt, io};

use crate::ShapeError;

/// Why an ONNX file was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The bytes are not an ONNX model, or the file is cut short.
    #[error("not a valid ONNX file: {0}")]
    Format(String),
    /// More of something than a model may have.
    #[error("the ONNX file has {found} {what}; at most {limit} are read")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many or how long.
        found: u64,
        /// The most allowed.
        limit: u64,
    },
    /// An operator set that is not read.
    #[error("the ONNX file uses operator set {found}; sets {min} to {max} are read")]
    Opset {
        /// The file's version.
        found: i64,
        /// First version read.
        min: i64,
        /// Last version read.
        max: i64,
    },
    /// The model's inputs or outputs are not those of an image classifier.
    #[error("{0}")]
    Interface(String),
    /// A tensor that cannot be used.
    #[error("tensor `{tensor}`: {reason}")]
    Tensor {
        /// Name of the tensor.
        tensor: String,
        /// Why.
        reason: String,
    },
    /// A node that breaks the rules of its operator.
    #[error("node `{node}` ({op}): {reason}")]
    Node {
        /// Name of the node.
        node: String,
        /// Its operator.
        op: String,
        /// Which rule.
        reason: String,
    },
    /// Operators that Polyveil does not take; all of them.
    #[error("{0}")]
    Unsupported(Unsupported),
    /// The operators are known, but the network they form is not valid.
    #[error(transparent)]
    Graph(#[from] ShapeError),
}

/// All nodes of a model that are not supported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported(pub Vec<UnsupportedNode>);

/// One node that is not supported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsupportedNode {
    /// Name of the node.
    pub name: String,
    /// Its ONNX operator.
    pub op: String,
    /// What to use instead.
    pub advice: String,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0.len();
        write!(
            f,
            "{n} {} of the model {} not supported:",
            if n == 1 { "node" } else { "nodes" },
            if n == 1 { "is" } else { "are" }
        )?;
        for UnsupportedNode { name, op, advice } in &self.0 {
            write!(f, "\n  {name} ({op}): {advice}")?;
        }
        Ok(())
    }
}
