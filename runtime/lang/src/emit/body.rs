//! From expressions of the graph to the body of one kernel function.

use std::collections::HashMap;

use super::{Emitter, MAX_DEPTH};
use crate::graph::{BinaryCode, Code, Id, Node, Relation, binary_code, unary_code};
use crate::kernel::{Binary, Expr, Stmt, Ty};

pub(super) struct Body<'e, 'a> {
    pub(super) emitter: &'e Emitter<'a>,
    pub(super) chunk: usize,
    pub(super) chunk_of: &'e HashMap<Id, usize>,
    pub(super) spills: &'e HashMap<Id, u32>,
    pub(super) locals: HashMap<Id, Expr>,
    pub(super) types: Vec<Ty>,
    pub(super) out: Vec<Stmt>,
}

impl Body<'_, '_> {
    /// Puts everything used more than once, handed on, or deeply nested into a local; the rest is written in place.
    pub(super) fn operations(&mut self, ids: &[Id], roots: &[Id]) {
        let mut uses: HashMap<Id, u32> = HashMap::new();
        for id in ids {
            for operand in self.emitter.graph.operands(*id) {
                *uses.entry(operand).or_default() += 1;
            }
        }
        for root in roots {
            *uses.entry(*root).or_default() += 1;
        }
        let mut depth: HashMap<Id, u32> = HashMap::new();
        for id in ids {
            let below = self
                .emitter
                .graph
                .operands(*id)
                .filter_map(|operand| depth.get(&operand))
                .max()
                .copied()
                .unwrap_or(0);
            let shared = uses.get(id).copied().unwrap_or(0) > 1;
            let spill = self.spills.get(id).copied();
            if shared || spill.is_some() || below >= MAX_DEPTH {
                let value = self.build(*id, 0);
                let ty = if self.emitter.graph.is_truth(*id) {
                    Ty::I32
                } else {
                    Ty::F64
                };
                let local = 4 + self.types.len() as u32;
                self.types.push(ty);
                self.out.push(Stmt::Set(local, value));
                self.locals.insert(*id, Expr::Local(local, ty));
                if let Some(word) = spill {
                    let at = self.emitter.places.spill + 8 * word;
                    self.out
                        .push(Stmt::Store(ty, Expr::Local(0, Ty::I32), at, Expr::Local(local, ty)));
                }
                depth.insert(*id, 0);
            } else {
                depth.insert(*id, below + 1);
            }
        }
    }

    pub(super) fn value(&mut self, id: Id, depth: u32) -> Expr {
        if let Some(local) = self.locals.get(&id) {
            return local.clone();
        }
        if self.chunk_of.get(&id).is_some_and(|chunk| *chunk != self.chunk) {
            let word = self.spills.get(&id).copied().unwrap_or(0);
            let ty = if self.emitter.graph.is_truth(id) {
                Ty::I32
            } else {
                Ty::F64
            };
            return Expr::Load(
                ty,
                Box::new(Expr::Local(0, Ty::I32)),
                self.emitter.places.spill + 8 * word,
            );
        }
        self.build(id, depth)
    }

    fn build(&mut self, id: Id, depth: u32) -> Expr {
        let next = depth + 1;
        match self.emitter.graph.node(id) {
            Node::Constant(bits) => Expr::F64(f64::from_bits(bits)),
            Node::Truth(value) => Expr::I32(i32::from(value)),
            Node::Leaf(leaf) => self.emitter.leaf(leaf),
            Node::Unary(op, a) => {
                let a = self.value(a, next);
                match unary_code(op) {
                    Code::Op(op) => Expr::unary(op, a),
                    Code::Function(name) => self.call(name, vec![a]),
                }
            }
            Node::Binary(op, a, b) => {
                let (a, b) = (self.value(a, next), self.value(b, next));
                match binary_code(op) {
                    BinaryCode::Op(op) => Expr::binary(op, Ty::F64, a, b),
                    BinaryCode::Function(name) => self.call(name, vec![a, b]),
                }
            }
            Node::Relation(relation, a, b) => {
                let op = match relation {
                    Relation::Less => Binary::Lt,
                    Relation::LessEqual => Binary::Le,
                    Relation::Equal => Binary::Eq,
                    Relation::NotEqual => Binary::Ne,
                };
                let (a, b) = (self.value(a, next), self.value(b, next));
                Expr::binary(op, Ty::F64, a, b)
            }
            Node::And(a, b) => {
                let (a, b) = (self.value(a, next), self.value(b, next));
                Expr::binary(Binary::And, Ty::I32, a, b)
            }
            Node::Or(a, b) => {
                let (a, b) = (self.value(a, next), self.value(b, next));
                Expr::binary(Binary::Or, Ty::I32, a, b)
            }
            Node::Not(a) => {
                let a = self.value(a, next);
                Expr::unary(crate::kernel::Unary::Not, a)
            }
            Node::Select(condition, a, b) => {
                let ty = if self.emitter.graph.is_truth(a) {
                    Ty::I32
                } else {
                    Ty::F64
                };
                let (condition, a, b) = (self.value(condition, next), self.value(a, next), self.value(b, next));
                Expr::Select(ty, Box::new([condition, a, b]))
            }
        }
    }

    pub(super) fn call(&self, name: &str, arguments: Vec<Expr>) -> Expr {
        // The elementary functions are in the program before anything is emitted.
        self.emitter
            .program
            .index(name)
            .map_or(Expr::F64(f64::NAN), |index| Expr::Call(index, Some(Ty::F64), arguments))
    }
}
