//! Elementwise arithmetic as polynomials.
//!
//! ONNX has no quadratic activation: exporters write `a·x² + b·x + c` as some tree of Mul, Add,
//! Sub, Pow and constants. Instead of matching trees, import keeps every such value as a
//! polynomial of degree at most 2 over the last value that is not elementwise arithmetic, and
//! makes one node of it when something else reads it. Any writing of a quadratic becomes the same
//! node, whatever its shape.

use crate::NodeId;

/// Coefficients, one for the layer or one a channel.
type Coefficients = Vec<f64>;

/// `a·x² + b·x + c` over the value of node `base`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Poly {
    pub base: NodeId,
    pub a: Coefficients,
    pub b: Coefficients,
    pub c: Coefficients,
}

impl Poly {
    /// `x` itself.
    pub(super) fn identity(base: NodeId) -> Self {
        Self { base, a: vec![0.0], b: vec![1.0], c: vec![0.0] }
    }

    pub(super) fn is_identity(&self) -> bool {
        let all = |v: &[f64], x: f64| v.iter().all(|&y| y == x);
        all(&self.a, 0.0) && all(&self.b, 1.0) && all(&self.c, 0.0)
    }

    /// The sum; `None` over different values.
    pub(super) fn plus(&self, other: &Self, sign: f64) -> Option<Self> {
        if self.base != other.base {
            return None;
        }
        let sum = |x: &[f64], y: &[f64]| zip(x, y, |x, y| x + sign * y);
        Some(Self {
            base: self.base,
            a: sum(&self.a, &other.a),
            b: sum(&self.b, &other.b),
            c: sum(&self.c, &other.c),
        })
    }

    /// The product; `None` over different values or beyond degree 2.
    pub(super) fn times(&self, other: &Self) -> Option<Self> {
        if self.base != other.base || self.degree() + other.degree() > 2 {
            return None;
        }
        let product = |x: &[f64], y: &[f64]| zip(x, y, |x, y| x * y);
        let sum = |x: &[f64], y: &[f64]| zip(x, y, |x, y| x + y);
        let (ac, ca, bb) =
            (product(&self.a, &other.c), product(&self.c, &other.a), product(&self.b, &other.b));
        let (bc, cb) = (product(&self.b, &other.c), product(&self.c, &other.b));
        Some(Self {
            base: self.base,
            a: sum(&sum(&ac, &ca), &bb),
            b: sum(&bc, &cb),
            c: product(&self.c, &other.c),
        })
    }

    /// Every coefficient changed by the constant of its channel.
    pub(super) fn scaled(&self, by: &[f64], f: impl Fn(f64, f64) -> f64 + Copy) -> Self {
        let scale = |x: &[f64]| zip(x, by, f);
        Self { base: self.base, a: scale(&self.a), b: scale(&self.b), c: scale(&self.c) }
    }

    pub(super) fn shifted(&self, by: &[f64], sign: f64) -> Self {
        Self { c: zip(&self.c, by, |x, y| x + sign * y), ..self.clone() }
    }

    /// Number of coefficients stored.
    pub(super) fn len(&self) -> usize {
        self.a.len() + self.b.len() + self.c.len()
    }

    /// 0, 1 or 2.
    pub(super) fn degree(&self) -> u32 {
        let zero = |v: &[f64]| v.iter().all(|&x| x == 0.0);
        if !zero(&self.a) { 2 } else { u32::from(!zero(&self.b)) }
    }
}

fn zip(x: &[f64], y: &[f64], f: impl Fn(f64, f64) -> f64) -> Coefficients {
    let at = |v: &[f64], i: usize| v[if v.len() == 1 { 0 } else { i }];
    (0..x.len().max(y.len())).map(|i| f(at(x, i), at(y, i))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn horner_and_expanded_forms_agree() {
        let x = Poly::identity(3);
        let expanded = x.times(&x).unwrap().scaled(&[2.0, 4.0], |p, k| p * k);
        let expanded = expanded.plus(&x.scaled(&[3.0], |p, k| p * k), 1.0).unwrap().shifted(&[5.0], 1.0);
        let horner = x
            .scaled(&[2.0, 4.0], |p, k| p * k)
            .shifted(&[3.0], 1.0)
            .times(&x)
            .unwrap()
            .shifted(&[-5.0], -1.0);
        for (p, q) in [(&expanded.a, &horner.a), (&expanded.b, &horner.b), (&expanded.c, &horner.c)] {
            assert_eq!(zip(p, &[0.0, 0.0], |x, _| x), zip(q, &[0.0, 0.0], |x, _| x));
        }
        assert_eq!(expanded.a, [2.0, 4.0]);
    }

    #[test]
    fn degree_and_base_are_kept() {
        let x = Poly::identity(1);
        let square = x.times(&x).unwrap();
        assert_eq!(square.times(&x), None);
        assert_eq!(x.times(&Poly::identity(2)), None);
        assert_eq!(x.plus(&Poly::identity(2), 1.0), None);
        assert!(square.plus(&square, -1.0).unwrap().plus(&x, 1.0).unwrap().is_identity());
    }
}
