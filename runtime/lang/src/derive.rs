//! Derivatives as nodes of the same graph.

use std::collections::HashMap;

use crate::graph::{Binary, Graph, Id, Leaf, Node, Relation, Unary};

/// The derivative of `roots` with respect to one leaf (others held), one node a root.
pub fn forward(graph: &mut Graph, roots: &[Id], wrt: Leaf) -> Vec<Id> {
    forward_seeded(graph, roots, |graph, leaf| (leaf == wrt).then(|| graph.constant(1.0)))
}

/// Directional derivative: `seed` gives each leaf's tangent (`None`: zero).
pub fn forward_seeded(
    graph: &mut Graph,
    roots: &[Id],
    mut seed: impl FnMut(&mut Graph, Leaf) -> Option<Id>,
) -> Vec<Id> {
    let mut tangents: HashMap<Id, Id> = HashMap::new();
    for id in graph.cone(roots) {
        let tangent = match graph.node(id) {
            Node::Leaf(leaf) => seed(graph, leaf),
            Node::Unary(op, a) => tangents.get(&a).copied().map(|ta| {
                let partial = unary_partial(graph, op, a, id);
                graph.mul(ta, partial)
            }),
            Node::Binary(op, a, b) => {
                let (ta, tb) = (tangents.get(&a).copied(), tangents.get(&b).copied());
                if ta.is_none() && tb.is_none() {
                    None
                } else {
                    let (pa, pb) = binary_partials(graph, op, a, b, id);
                    let left = ta.map(|ta| graph.mul(ta, pa));
                    let right = tb.map(|tb| graph.mul(tb, pb));
                    match (left, right) {
                        (Some(left), Some(right)) => Some(graph.add(left, right)),
                        (one, other) => one.or(other),
                    }
                }
            }
            Node::Select(condition, a, b) => {
                let (ta, tb) = (tangents.get(&a).copied(), tangents.get(&b).copied());
                if ta.is_none() && tb.is_none() {
                    None
                } else {
                    let zero = graph.constant(0.0);
                    Some(graph.select(condition, ta.unwrap_or(zero), tb.unwrap_or(zero)))
                }
            }
            Node::Constant(_) | Node::Truth(_) | Node::Relation(..) | Node::And(..) | Node::Or(..) | Node::Not(_) => {
                None
            }
        };
        if let Some(tangent) = tangent
            && graph.value(tangent) != Some(0.0)
        {
            tangents.insert(id, tangent);
        }
    }
    let zero = graph.constant(0.0);
    roots
        .iter()
        .map(|root| tangents.get(root).copied().unwrap_or(zero))
        .collect()
}

/// Σ cotangentᵢ · ∂rootᵢ/∂leaf for every leaf that the roots depend on.
pub fn reverse(graph: &mut Graph, roots: &[Id], cotangents: &[Id]) -> HashMap<Leaf, Id> {
    let cone = graph.cone(roots);
    let mut sums: HashMap<Id, Id> = HashMap::new();
    for (root, cotangent) in roots.iter().zip(cotangents) {
        accumulate(graph, &mut sums, *root, *cotangent);
    }
    let mut leaves = HashMap::new();
    for id in cone.into_iter().rev() {
        let Some(bar) = sums.get(&id).copied() else {
            continue;
        };
        match graph.node(id) {
            Node::Leaf(leaf) => {
                leaves.insert(leaf, bar);
            }
            Node::Unary(op, a) => {
                let partial = unary_partial(graph, op, a, id);
                let share = graph.mul(bar, partial);
                accumulate(graph, &mut sums, a, share);
            }
            Node::Binary(op, a, b) => {
                let (pa, pb) = binary_partials(graph, op, a, b, id);
                let share = share_of(graph, op, bar, pa, b, true);
                accumulate(graph, &mut sums, a, share);
                let share = share_of(graph, op, bar, pb, b, false);
                accumulate(graph, &mut sums, b, share);
            }
            Node::Select(condition, a, b) => {
                let zero = graph.constant(0.0);
                let first = graph.select(condition, bar, zero);
                accumulate(graph, &mut sums, a, first);
                let second = graph.select(condition, zero, bar);
                accumulate(graph, &mut sums, b, second);
            }
            Node::Constant(_) | Node::Truth(_) | Node::Relation(..) | Node::And(..) | Node::Or(..) | Node::Not(_) => {}
        }
    }
    leaves
}

/// The cotangent's share: for a quotient `bar / b` first, which is shorter than `bar · (1/b)` and as exact.
fn share_of(graph: &mut Graph, op: Binary, bar: Id, partial: Id, divisor: Id, left: bool) -> Id {
    if op == Binary::Div && left {
        graph.div(bar, divisor)
    } else {
        graph.mul(bar, partial)
    }
}

fn accumulate(graph: &mut Graph, sums: &mut HashMap<Id, Id>, id: Id, share: Id) {
    if graph.value(share) == Some(0.0) || graph.value(id).is_some() || graph.is_truth(id) {
        return;
    }
    let sum = match sums.get(&id).copied() {
        Some(sum) => graph.add(sum, share),
        None => share,
    };
    sums.insert(id, sum);
}

fn unary_partial(graph: &mut Graph, op: Unary, x: Id, value: Id) -> Id {
    let one = graph.constant(1.0);
    match op {
        Unary::Neg => graph.constant(-1.0),
        Unary::Abs => graph.binary(Binary::CopySign, one, x),
        Unary::Sqrt => {
            let half = graph.constant(0.5);
            graph.div(half, value)
        }
        Unary::Floor | Unary::Ceil | Unary::Trunc => graph.constant(0.0),
        Unary::Exp => value,
        Unary::Log => graph.div(one, x),
        Unary::Log10 => {
            let ln10 = graph.constant(std::f64::consts::LN_10);
            let scaled = graph.mul(x, ln10);
            graph.div(one, scaled)
        }
        Unary::Sin => graph.unary(Unary::Cos, x),
        Unary::Cos => {
            let sine = graph.unary(Unary::Sin, x);
            graph.neg(sine)
        }
        Unary::Tan => {
            let square = graph.mul(value, value);
            graph.add(one, square)
        }
        Unary::Asin | Unary::Acos => {
            // (1 − x)(1 + x) keeps its digits near ±1.
            let below = graph.sub(one, x);
            let above = graph.add(one, x);
            let product = graph.mul(below, above);
            let root = graph.unary(Unary::Sqrt, product);
            let sign = if op == Unary::Asin { one } else { graph.constant(-1.0) };
            graph.div(sign, root)
        }
        Unary::Atan => {
            let square = graph.mul(x, x);
            let sum = graph.add(one, square);
            graph.div(one, sum)
        }
        Unary::Sinh => graph.unary(Unary::Cosh, x),
        Unary::Cosh => graph.unary(Unary::Sinh, x),
        Unary::Tanh => {
            let below = graph.sub(one, value);
            let above = graph.add(one, value);
            graph.mul(below, above)
        }
    }
}

fn binary_partials(graph: &mut Graph, op: Binary, a: Id, b: Id, value: Id) -> (Id, Id) {
    let one = graph.constant(1.0);
    let zero = graph.constant(0.0);
    match op {
        Binary::Add => (one, one),
        Binary::Sub => (one, graph.constant(-1.0)),
        Binary::Mul => (b, a),
        Binary::Div => {
            let reciprocal = graph.div(one, b);
            let quotient = graph.div(value, b);
            (reciprocal, graph.neg(quotient))
        }
        Binary::Min | Binary::Max => {
            let first = if op == Binary::Min {
                graph.relation(Relation::LessEqual, a, b)
            } else {
                graph.relation(Relation::LessEqual, b, a)
            };
            (graph.select(first, one, zero), graph.select(first, zero, one))
        }
        Binary::Pow => {
            // b·a^(b−1), and a^b·ln a, which is 0 where a is 0.
            let less = graph.sub(b, one);
            let power = graph.binary(Binary::Pow, a, less);
            let by_base = graph.mul(b, power);
            let by_exponent = if graph.value(b).is_some() {
                zero
            } else {
                let logarithm = graph.unary(Unary::Log, a);
                let product = graph.mul(value, logarithm);
                let positive = graph.relation(Relation::Less, zero, a);
                graph.select(positive, product, zero)
            };
            (by_base, by_exponent)
        }
        Binary::Atan2 => {
            let aa = graph.mul(a, a);
            let bb = graph.mul(b, b);
            let norm = graph.add(aa, bb);
            let by_y = graph.div(b, norm);
            let by_x = graph.div(a, norm);
            (by_y, graph.neg(by_x))
        }
        Binary::CopySign => {
            let sign_a = graph.binary(Binary::CopySign, one, a);
            let sign_b = graph.binary(Binary::CopySign, one, b);
            (graph.mul(sign_a, sign_b), zero)
        }
    }
}
