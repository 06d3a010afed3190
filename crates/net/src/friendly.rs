//! Which operators of a graph CKKS cannot evaluate.

use crate::{Graph, Op};

/// A node that has no exact form in additions and multiplications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFriendly {
    /// Name of the node.
    pub node: String,
    /// Its operator.
    pub op: &'static str,
    /// What to do about it.
    pub advice: &'static str,
}

impl std::fmt::Display for NotFriendly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}): {}", self.node, self.op, self.advice)
    }
}

impl Graph {
    /// Whether every operator can run on ciphertexts.
    ///
    /// # Errors
    /// Every node that cannot, in graph order, each with advice.
    pub fn is_he_friendly(&self) -> Result<(), Vec<NotFriendly>> {
        let bad: Vec<_> = self
            .nodes
            .iter()
            .filter_map(|n| {
                let advice = match n.op {
                    Op::Relu => "run `polyveil convert`: it trains a quadratic activation in place of ReLU",
                    Op::MaxPool(_) => "run `polyveil convert`: it trains the network with average pooling",
                    _ => return None,
                };
                Some(NotFriendly { node: n.name.clone(), op: n.op.name(), advice })
            })
            .collect();
        if bad.is_empty() { Ok(()) } else { Err(bad) }
    }
}

#[cfg(test)]
mod tests {
    use crate::builders;

    #[test]
    fn lists_every_obstacle_in_order() {
        let bad = builders::lenet5_relu(&[1, 28, 28], 10, 1).unwrap().is_he_friendly().unwrap_err();
        let names: Vec<_> = bad.iter().map(|b| b.node.as_str()).collect();
        assert_eq!(names, ["relu1", "pool1", "relu2", "pool2", "relu3", "relu4"]);
        assert!(bad.iter().all(|b| b.advice.contains("polyveil convert")));
    }
}
