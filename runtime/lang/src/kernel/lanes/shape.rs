//! What is the same in both lanes, and where control may part.

use std::collections::HashSet;

use super::Lanes;
use crate::abi::status;
use crate::kernel::walk::each_node;
use crate::kernel::{Expr, Function, Stmt, Ty, Unary};

/// How a value differs between lanes, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shape {
    /// The address of the context itself: the plan behind it is the same for all lanes.
    Context,
    /// An i32 that is the same in both lanes.
    One,
    /// A value for each lane. An i32 is sign-extended to its lane; floats and i64 always are of this shape.
    Two,
}

/// The shapes of one function for given shapes of its parameters.
#[derive(Debug)]
pub struct Shapes {
    /// Of each local, parameters first.
    pub locals: Vec<Shape>,
    /// How many parted contexts lie around the declaration of each local.
    pub homes: Vec<u32>,
    /// Of the result.
    pub result: Shape,
}

/// Ways to leave a statement that only some lanes may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exits {
    pub breaks: bool,
    pub continues: bool,
    pub returns: bool,
}

impl Exits {
    pub fn any(self) -> bool {
        self.breaks || self.continues || self.returns
    }

    fn and(self, other: Exits) -> Exits {
        Exits {
            breaks: self.breaks || other.breaks,
            continues: self.continues || other.continues,
            returns: self.returns || other.returns,
        }
    }
}

impl Shapes {
    /// Finds the least shapes that hold.
    pub fn find(lanes: &mut Lanes<'_>, function: &Function, parameters: &[Shape]) -> Shapes {
        let all = function.parameters.iter().chain(&function.locals);
        let locals = all
            .enumerate()
            .map(|(index, ty)| match (parameters.get(index), ty) {
                (Some(shape), _) => *shape,
                (None, Ty::I32) => Shape::One,
                (None, _) => Shape::Two,
            })
            .collect::<Vec<_>>();
        let mut homes = vec![u32::MAX; locals.len()];
        homes[..parameters.len()].fill(0);
        let mut shapes = Shapes {
            locals,
            homes,
            result: if function.result == Some(Ty::I32) {
                Shape::One
            } else {
                Shape::Two
            },
        };
        let counters = counters(function);
        loop {
            // Contexts part as shapes grow, so homes are found anew.
            shapes.homes[parameters.len()..].fill(u32::MAX);
            let mut changed = false;
            shapes.list(lanes, &function.body, 0, &counters, &mut changed);
            if !changed {
                return shapes;
            }
        }
    }

    fn list(&mut self, lanes: &mut Lanes<'_>, list: &[Stmt], depth: u32, counters: &HashSet<u32>, changed: &mut bool) {
        for statement in list {
            match statement {
                Stmt::Set(local, value) => {
                    let at = *local as usize;
                    if self.homes[at] == u32::MAX {
                        self.homes[at] = depth;
                    }
                    let parted = depth > self.homes[at] && !counters.contains(local);
                    let shape = if parted {
                        Shape::Two
                    } else {
                        self.of(lanes, value).max(Shape::One)
                    };
                    if shape > self.locals[at] {
                        self.locals[at] = shape;
                        *changed = true;
                    }
                }
                Stmt::If(condition, first, second) => {
                    let inside = depth + u32::from(self.of(lanes, condition) == Shape::Two);
                    self.list(lanes, first, inside, counters, changed);
                    self.list(lanes, second, inside, counters, changed);
                }
                Stmt::While { condition, body, step } => {
                    let inside = depth + u32::from(self.parts(lanes, condition, body));
                    self.list(lanes, body, inside, counters, changed);
                    self.list(lanes, step, inside, counters, changed);
                }
                Stmt::Return(Some(value)) => {
                    let shape = if depth > 0 {
                        Shape::Two
                    } else {
                        self.of(lanes, value).max(Shape::One)
                    };
                    if shape > self.result {
                        self.result = shape;
                        *changed = true;
                    }
                }
                Stmt::Return(None) | Stmt::Store(..) | Stmt::Do(_) | Stmt::Break | Stmt::Continue => {}
            }
        }
    }

    /// Whether lanes may turn in a loop differently often.
    pub fn parts(&self, lanes: &mut Lanes<'_>, condition: &Expr, body: &[Stmt]) -> bool {
        self.of(lanes, condition) == Shape::Two || self.exits(lanes, body, false).any()
    }

    /// The exits in a list that only some lanes may take; `parted`: only some lanes may be here.
    pub fn exits(&self, lanes: &mut Lanes<'_>, list: &[Stmt], parted: bool) -> Exits {
        let mut all = Exits::default();
        for statement in list {
            all = all.and(self.exits_of(lanes, statement, parted));
        }
        all
    }

    pub fn exits_of(&self, lanes: &mut Lanes<'_>, statement: &Stmt, parted: bool) -> Exits {
        match statement {
            Stmt::If(condition, first, second) => {
                let parted = parted || self.of(lanes, condition) == Shape::Two;
                let first = self.exits(lanes, first, parted);
                first.and(self.exits(lanes, second, parted))
            }
            Stmt::While { condition, body, .. } => {
                let parted = parted || self.parts(lanes, condition, body);
                Exits {
                    returns: self.exits(lanes, body, parted).returns,
                    ..Exits::default()
                }
            }
            Stmt::Break => Exits {
                breaks: parted,
                ..Exits::default()
            },
            Stmt::Continue => Exits {
                continues: parted,
                ..Exits::default()
            },
            Stmt::Return(_) => Exits {
                returns: parted,
                ..Exits::default()
            },
            Stmt::Set(..) | Stmt::Store(..) | Stmt::Do(_) => Exits::default(),
        }
    }

    /// The shape of an expression's value.
    pub fn of(&self, lanes: &mut Lanes<'_>, expr: &Expr) -> Shape {
        match expr {
            Expr::F64(_) | Expr::I64(_) => Shape::Two,
            Expr::I32(_) => Shape::One,
            Expr::Local(local, _) => self.locals[*local as usize],
            Expr::Unary(Unary::Not, operand) => self.of(lanes, operand).max(Shape::One),
            Expr::Unary(..) => Shape::Two,
            Expr::Binary(_, Ty::I32, left, right) => {
                let left = self.of(lanes, left).max(Shape::One);
                left.max(self.of(lanes, right))
            }
            Expr::Binary(..) => Shape::Two,
            Expr::Select(Ty::I32, parts) => {
                let shapes = parts.iter().map(|part| self.of(lanes, part));
                shapes.max().unwrap_or(Shape::One).max(Shape::One)
            }
            Expr::Select(..) => Shape::Two,
            Expr::Load(Ty::I32, address, offset) if *offset < status::CODE => match self.of(lanes, address) {
                Shape::Context => Shape::One,
                _ => Shape::Two,
            },
            Expr::Load(..) => Shape::Two,
            Expr::Call(function, Some(Ty::I32), arguments) => {
                let shapes: Vec<Shape> = arguments.iter().map(|argument| self.of(lanes, argument)).collect();
                lanes
                    .shapes(*function, &shapes)
                    .map_or(Shape::Two, |shapes| shapes.result)
            }
            Expr::Call(..) => Shape::Two,
        }
    }
}

/// Counters of `for` loops, which nothing outside their loop reads: they may go on for lanes that have left it.
fn counters(function: &Function) -> HashSet<u32> {
    let mut found = Vec::new();
    candidates(&function.body, &mut found);
    let mut everywhere = Vec::new();
    occurrences(&function.body, &mut everywhere);
    let count = |list: &[u32], local: u32| list.iter().filter(|other| **other == local).count();
    found
        .into_iter()
        .filter(|(local, inside)| count(&everywhere, *local) == *inside)
        .map(|(local, _)| local)
        .collect()
}

/// Locals set just before a loop and in its step, with how often they occur there.
fn candidates(list: &[Stmt], found: &mut Vec<(u32, usize)>) {
    for (at, statement) in list.iter().enumerate() {
        match statement {
            Stmt::If(_, first, second) => {
                candidates(first, found);
                candidates(second, found);
            }
            Stmt::While { body, step, .. } => {
                candidates(body, found);
                if let (Some(Stmt::Set(local, _)), [Stmt::Set(stepped, _)]) =
                    (at.checked_sub(1).and_then(|before| list.get(before)), step.as_slice())
                    && local == stepped
                {
                    let mut inside = Vec::new();
                    occurrences(&list[at - 1..=at], &mut inside);
                    found.push((*local, inside.iter().filter(|other| *other == local).count()));
                }
            }
            _ => {}
        }
    }
}

fn occurrences(list: &[Stmt], out: &mut Vec<u32>) {
    for statement in list {
        match statement {
            Stmt::Set(local, value) => {
                out.push(*local);
                reads(value, out);
            }
            Stmt::Store(_, address, _, value) => {
                reads(address, out);
                reads(value, out);
            }
            Stmt::If(condition, first, second) => {
                reads(condition, out);
                occurrences(first, out);
                occurrences(second, out);
            }
            Stmt::While { condition, body, step } => {
                reads(condition, out);
                occurrences(body, out);
                occurrences(step, out);
            }
            Stmt::Return(Some(value)) | Stmt::Do(value) => reads(value, out),
            Stmt::Return(None) | Stmt::Break | Stmt::Continue => {}
        }
    }
}

fn reads(expr: &Expr, out: &mut Vec<u32>) {
    each_node(expr, &mut |node| {
        if let Expr::Local(local, _) = node {
            out.push(*local);
        }
    });
}
