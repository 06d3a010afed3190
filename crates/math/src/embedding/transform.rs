//! The complex transform tree, both ways, compiled for the vectors of the processor.
//!
//! Two levels at a time: half the traffic, and the same operations on each value as one by one, whatever the vectors.

use crate::simd::wide::Loop;

/// Values of a node that is finished before the next one is begun, so that it stays in the first-level cache.
const BLOCK: usize = 1024;
/// Positions of a node, or smallest nodes, that are done at once.
const WIDTH: usize = 8;

/// Roots in tree order.
#[derive(Clone, Copy)]
pub(super) struct Roots<'a> {
    pub re: &'a [f64],
    pub im: &'a [f64],
}

/// Coefficients → values.
pub(super) struct Forward<'a> {
    pub roots: Roots<'a>,
    pub re: &'a mut [f64],
    pub im: &'a mut [f64],
}

/// Values → coefficients; only the real parts are divided by their number.
pub(super) struct Inverse<'a> {
    pub roots: Roots<'a>,
    pub re: &'a mut [f64],
    pub im: &'a mut [f64],
}

impl Loop for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { roots, re, im } = self;
        let n = re.len();
        let mut nodes = top(n);
        if nodes == 2 {
            halves(re, im, |x, y| forward_pair(x, y, roots.one(1)));
        }
        while n / nodes > BLOCK {
            levels::<Down>(roots, re, im, nodes, n / nodes);
            nodes *= 4;
        }
        let blocks = re.chunks_exact_mut(n / nodes).zip(im.chunks_exact_mut(n / nodes));
        for (mut index, (re, im)) in (nodes..).zip(blocks) {
            let mut size = re.len();
            while size > 1 {
                levels::<Down>(roots, re, im, index, size);
                (index, size) = (4 * index, size / 4);
            }
        }
    }
}

impl Loop for Inverse<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { roots, re, im } = self;
        let n = re.len();
        let top = top(n);
        let mut nodes = top;
        while n / nodes > BLOCK {
            nodes *= 4;
        }
        let blocks = re.chunks_exact_mut(n / nodes).zip(im.chunks_exact_mut(n / nodes));
        for (index, (re, im)) in (nodes..).zip(blocks) {
            let mut size = 1;
            while size < re.len() {
                size *= 4;
                levels::<Up>(roots, re, im, index * (re.len() / size), size);
            }
        }
        while nodes > top {
            nodes /= 4;
            levels::<Up>(roots, re, im, nodes, n / nodes);
        }
        if top == 2 {
            halves(re, im, |x, y| inverse_pair(x, y, roots.one(1)));
        }
        let scale = 1.0 / n as f64;
        for x in re {
            *x *= scale;
        }
    }
}

/// Nodes of the first level that is done together with the next one: where the number of levels is odd, one is done alone.
const fn top(n: usize) -> usize {
    1 << (n.trailing_zeros() % 2)
}

/// Real and imaginary parts of some values.
type Values<const L: usize> = ([f64; L], [f64; L]);

impl Roots<'_> {
    /// The one at a tree index, for all positions.
    #[inline(always)]
    fn one<const L: usize>(self, index: usize) -> Values<L> {
        ([self.re[index]; L], [self.im[index]; L])
    }

    /// That of a node and of its children, for all positions.
    #[inline(always)]
    fn of_node<const L: usize>(self, index: usize) -> [Values<L>; 3] {
        [self.one(index), self.one(2 * index), self.one(2 * index + 1)]
    }

    /// Those of `L` nodes and of their children, a node a position.
    #[inline(always)]
    fn of_nodes<const L: usize>(self, index: usize) -> [Values<L>; 3] {
        let (own, children) = (index..index + L, 2 * index..2 * (index + L));
        let pick = |part: &[f64], start: usize, step: usize| {
            let mut picked = [0.0; L];
            for l in 0..L {
                picked[l] = part[start + step * l];
            }
            picked
        };
        let of = |range: std::ops::Range<usize>, start: usize, step: usize| {
            (pick(&self.re[range.clone()], start, step), pick(&self.im[range], start, step))
        };
        [of(own, 0, 1), of(children.clone(), 0, 2), of(children, 1, 2)]
    }
}

/// Two levels of one direction; the factors are those of the upper node and of its children.
trait Direction {
    fn four<const L: usize>(values: [Values<L>; 4], w: [Values<L>; 3]) -> [Values<L>; 4];
}

/// Towards the leaves.
struct Down;

/// Towards the root.
struct Up;

impl Direction for Down {
    #[inline(always)]
    fn four<const L: usize>([a, b, c, d]: [Values<L>; 4], w: [Values<L>; 3]) -> [Values<L>; 4] {
        let ((a, c), (b, d)) = (forward_pair(a, c, w[0]), forward_pair(b, d, w[0]));
        let ((a, b), (c, d)) = (forward_pair(a, b, w[1]), forward_pair(c, d, w[2]));
        [a, b, c, d]
    }
}

impl Direction for Up {
    #[inline(always)]
    fn four<const L: usize>([a, b, c, d]: [Values<L>; 4], w: [Values<L>; 3]) -> [Values<L>; 4] {
        let ((a, b), (c, d)) = (inverse_pair(a, b, w[1]), inverse_pair(c, d, w[2]));
        let ((a, c), (b, d)) = (inverse_pair(a, c, w[0]), inverse_pair(b, d, w[0]));
        [a, b, c, d]
    }
}

/// Two levels of all nodes of `size` values, a power of four, the first of which has that tree index.
#[inline(always)]
fn levels<D: Direction>(roots: Roots<'_>, re: &mut [f64], im: &mut [f64], index: usize, size: usize) {
    if size == 4 {
        return smallest::<D>(roots, re, im, index);
    }
    for (index, (re, im)) in (index..).zip(re.chunks_exact_mut(size).zip(im.chunks_exact_mut(size))) {
        if size >= 4 * WIDTH {
            quarters::<D, WIDTH>(re, im, roots.of_node(index));
        } else {
            quarters::<D, 4>(re, im, roots.of_node(index));
        }
    }
}

/// Two levels of nodes of four values, some nodes at a time.
#[inline(always)]
fn smallest<D: Direction>(roots: Roots<'_>, re: &mut [f64], im: &mut [f64], index: usize) {
    let at_once = re.len() / (4 * WIDTH) * WIDTH;
    let ((re, re_rest), (im, im_rest)) = (re.split_at_mut(4 * at_once), im.split_at_mut(4 * at_once));
    let groups = re.chunks_exact_mut(4 * WIDTH).zip(im.chunks_exact_mut(4 * WIDTH));
    for (index, (re, im)) in (index..).step_by(WIDTH).zip(groups) {
        few::<D, WIDTH>(re, im, roots.of_nodes(index));
    }
    let rest = re_rest.chunks_exact_mut(4).zip(im_rest.chunks_exact_mut(4));
    for (index, (re, im)) in (index + at_once..).zip(rest) {
        few::<D, 1>(re, im, roots.of_nodes(index));
    }
}

/// Two levels of `L` nodes of four values.
#[inline(always)]
fn few<D: Direction, const L: usize>(re: &mut [f64], im: &mut [f64], w: [Values<L>; 3]) {
    let mut values = [([0.0; L], [0.0; L]); 4];
    for (k, v) in values.iter_mut().enumerate() {
        for l in 0..L {
            (v.0[l], v.1[l]) = (re[4 * l + k], im[4 * l + k]);
        }
    }
    for (k, v) in D::four(values, w).iter().enumerate() {
        for l in 0..L {
            (re[4 * l + k], im[4 * l + k]) = (v.0[l], v.1[l]);
        }
    }
}

/// Two levels of one node, whose quarters hold a multiple of `L` values.
#[inline(always)]
fn quarters<D: Direction, const L: usize>(re: &mut [f64], im: &mut [f64], w: [Values<L>; 3]) {
    let ([ra, rb, rc, rd], [ia, ib, ic, id]) = (parts(re), parts(im));
    let re = runs::<L>(ra).zip(runs::<L>(rb)).zip(runs::<L>(rc)).zip(runs::<L>(rd));
    let im = runs::<L>(ia).zip(runs::<L>(ib)).zip(runs::<L>(ic)).zip(runs::<L>(id));
    for ((((ra, rb), rc), rd), (((ia, ib), ic), id)) in re.zip(im) {
        let [a, b, c, d] = D::four([(*ra, *ia), (*rb, *ib), (*rc, *ic), (*rd, *id)], w);
        ((*ra, *ia), (*rb, *ib), (*rc, *ic), (*rd, *id)) = (a, b, c, d);
    }
}

/// Whole runs as arrays.
#[inline(always)]
fn runs<const L: usize>(x: &mut [f64]) -> impl Iterator<Item = &mut [f64; L]> {
    x.chunks_exact_mut(L).filter_map(|run| run.try_into().ok())
}

/// The quarters of a node.
#[inline(always)]
fn parts(node: &mut [f64]) -> [&mut [f64]; 4] {
    let quarter = node.len() / 4;
    let (ab, cd) = node.split_at_mut(2 * quarter);
    let ((a, b), (c, d)) = (ab.split_at_mut(quarter), cd.split_at_mut(quarter));
    [a, b, c, d]
}

/// The first level of all, where it is done alone.
#[inline(always)]
fn halves(re: &mut [f64], im: &mut [f64], pair: impl Fn(Values<1>, Values<1>) -> (Values<1>, Values<1>)) {
    let half = re.len() / 2;
    let ((xr, yr), (xi, yi)) = (re.split_at_mut(half), im.split_at_mut(half));
    for (((xr, yr), xi), yi) in xr.iter_mut().zip(yr).zip(xi).zip(yi) {
        let (x, y) = pair(([*xr], [*xi]), ([*yr], [*yi]));
        ([*xr], [*xi], [*yr], [*yi]) = (x.0, x.1, y.0, y.1);
    }
}

/// (x + w·y, x − w·y).
#[inline(always)]
fn forward_pair<const L: usize>(x: Values<L>, y: Values<L>, w: Values<L>) -> (Values<L>, Values<L>) {
    let (mut sum, mut difference) = (x, x);
    for l in 0..L {
        let (tr, ti) = (y.0[l] * w.0[l] - y.1[l] * w.1[l], y.0[l] * w.1[l] + y.1[l] * w.0[l]);
        (sum.0[l], sum.1[l]) = (x.0[l] + tr, x.1[l] + ti);
        (difference.0[l], difference.1[l]) = (x.0[l] - tr, x.1[l] - ti);
    }
    (sum, difference)
}

/// (x + y, (x − y)·conj(w)).
#[inline(always)]
fn inverse_pair<const L: usize>(x: Values<L>, y: Values<L>, w: Values<L>) -> (Values<L>, Values<L>) {
    let (mut sum, mut product) = (x, x);
    for l in 0..L {
        let (dr, di) = (x.0[l] - y.0[l], x.1[l] - y.1[l]);
        (sum.0[l], sum.1[l]) = (x.0[l] + y.0[l], x.1[l] + y.1[l]);
        (product.0[l], product.1[l]) = (dr * w.0[l] + di * w.1[l], di * w.0[l] - dr * w.1[l]);
    }
    (sum, product)
}
