//! ReLU, quadratics, and the control of what goes into them.

use polyveil_net::{Quadratic, Tensor};

use super::value::Value;
use super::wide::{map, map2, sums};

/// How a quadratic runs in one pass. Limits are in values, not in units.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    /// Share of the quadratic; the rest is ReLU.
    pub(super) share: f32,
    /// Size of one unit of the input.
    pub(super) unit: f32,
    /// Inputs are clamped to ± this; infinite where they are not.
    pub(super) clamp: f32,
    /// Inputs beyond ± this are penalised; infinite where none is.
    pub(super) bound: f32,
}

/// `max(x, 0)`; NaN stays NaN.
pub(super) fn relu(x: &Value) -> Value {
    let mut y = x.like();
    map(&mut y.data, &x.data, rectified);
    y
}

pub(super) fn relu_backward(x: &Value, grad: &Value) -> Value {
    let mut dx = x.like();
    map2(&mut dx.data, &x.data, &grad.data, |x, g| if x > 0.0 { g } else { 0.0 });
    dx
}

/// `(1 − t)·ReLU(x) + t·(a·x² + b·x + c)` of the clamped input, and the penalty `Σ relu(|x| − B)²` of
/// the one that is not, in square units, image by image.
pub(super) fn quadratic(q: &Quadratic, course: Course, x: &Value) -> (Value, Vec<f32>) {
    let mut y = x.like();
    let mut penalty = vec![0.0f32; x.count];
    let (share, limit, channels) = (course.share, course.clamp, x.channels.max(1));
    for (plane, (y, (channel, x))) in y.data.chunks_mut(x.plane()).zip(x.planes()).enumerate() {
        let [a, b, c] = coefficients(q, channel);
        if course.bound.is_finite() {
            penalty[plane / channels] += sums(x, x, |x, _| [excess(x, course.bound).powi(2)])[0];
        }
        // a·x² + b·x + c, never (w·x)²: that has no gradient at w = 0 and cannot turn negative.
        let polynomial = |x: f32| (a * x + b) * x + c;
        if share >= 1.0 {
            map(y, x, |x| polynomial(clamped(x, limit)));
        } else if share <= 0.0 {
            map(y, x, |x| rectified(clamped(x, limit)));
        } else {
            map(y, x, |x| {
                let x = clamped(x, limit);
                rectified(x) * (1.0 - share) + polynomial(x) * share
            });
        }
    }
    penalty.iter_mut().for_each(|p| *p /= course.unit * course.unit);
    (y, penalty)
}

/// Gradients of [`quadratic`]; `weights` are the factors of the images' penalties in the loss. Gradients of the
/// coefficients are added to `sinks`.
pub(super) fn quadratic_backward(
    q: &Quadratic,
    course: Course,
    weights: &[f32],
    x: &Value,
    grad: &Value,
    sinks: [Option<&mut [f32]>; 3],
) -> Value {
    let mut dx = x.like();
    let (share, limit, bound) = (course.share, course.clamp, course.bound);
    let channels = x.channels.max(1);
    let mut totals = vec![[0.0f32; 3]; x.channels];
    let planes = dx.data.chunks_mut(x.plane()).zip(x.planes().zip(grad.planes()));
    for (plane, (dx, ((channel, x), (_, dy)))) in planes.enumerate() {
        let weight = weights.get(plane / channels).copied().unwrap_or(0.0);
        let pull = 2.0 * weight / (course.unit * course.unit);
        let [a, b, _] = coefficients(q, channel);
        let terms = sums(x, dy, |x, dy| {
            let x = clamped(x, limit);
            [dy * x * x, dy * x, dy]
        });
        totals[channel].iter_mut().zip(terms).for_each(|(t, term)| *t += share * term);
        let slope = |x: f32| {
            let inside = clamped(x, limit);
            let step = if inside > 0.0 { 1.0 - share } else { 0.0 };
            (2.0 * a * inside + b) * share + step
        };
        // What is cut off has no gradient, whatever comes back.
        let passed = |x: f32, dy: f32| if x.abs() > limit { 0.0 } else { dy * slope(x) };
        if bound.is_finite() && pull != 0.0 {
            map2(dx, x, dy, |x, dy| passed(x, dy) + pull * excess(x, bound).copysign(x));
        } else {
            map2(dx, x, dy, passed);
        }
    }
    for (k, sink) in sinks.into_iter().enumerate() {
        let Some(sink) = sink else { continue };
        let shared = sink.len() == 1;
        totals.iter().enumerate().for_each(|(c, t)| sink[if shared { 0 } else { c }] += t[k]);
    }
    dx
}

fn coefficients(q: &Quadratic, channel: usize) -> [f32; 3] {
    let of = |t: &Tensor| t.data()[if t.len() == 1 { 0 } else { channel }];
    [of(&q.a), of(&q.b), of(&q.c)]
}

fn rectified(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// NaN stays NaN.
fn clamped(x: f32, limit: f32) -> f32 {
    let low = if x < -limit { -limit } else { x };
    if low > limit { limit } else { low }
}

fn excess(x: f32, bound: f32) -> f32 {
    (x.abs() - bound).max(0.0)
}
