//! Puts short straight-line functions in place of their calls, and what straight-line code has stored in place of loads.
//!
//! In a model of a few states most of a step's time is calls, and a slope that is stored only to be loaded again for the next
//! stage. Every store stays where it was and every operation keeps its operands, so no bit changes.

use super::walk::{each_call, each_call_in, each_expr, each_node};
use super::{Binary, Expr, Program, Stmt, Ty};

/// Functions of up to this many nodes are put in place wherever they are called …
const MOST_NODES: usize = 160;
/// … and those of up to this many where there is only one call: compile time grows faster than a function.
const MOST_NODES_ONCE: usize = 2400;

/// Rewrites every function of `program`.
pub fn inline(program: &mut Program) {
    let count = program.functions.len();
    let mut calls = vec![0; count];
    for function in program.functions.iter().flatten() {
        each_call(&function.body, &mut |callee| calls[callee] += 1);
    }
    let mut pass = Pass {
        calls,
        seen: vec![false; count],
        pure: vec![false; count],
        sizes: vec![None; count],
        program,
    };
    (0..count).for_each(|index| pass.visit(index));
}

struct Pass<'a> {
    program: &'a mut Program,
    /// How often each function is called in the text.
    calls: Vec<usize>,
    seen: Vec<bool>,
    /// Functions that neither read nor write memory.
    pure: Vec<bool>,
    /// The nodes of each function that is in its last form and has no loop.
    sizes: Vec<Option<usize>>,
}

impl Pass<'_> {
    /// Callees first, so that what is put in place is in its last form.
    fn visit(&mut self, index: usize) {
        if std::mem::replace(&mut self.seen[index], true) {
            return;
        }
        let Some(mut function) = self.program.functions[index].take() else {
            return;
        };
        let mut callees = Vec::new();
        each_call(&function.body, &mut |callee| callees.push(callee));
        callees.into_iter().for_each(|callee| self.visit(callee));
        let mut scope = Scope {
            parameters: function.parameters.len() as u32,
            locals: std::mem::take(&mut function.locals),
        };
        let body = self.placed(std::mem::take(&mut function.body), &mut scope);
        function.body = self.forwarded(body, &mut scope, &mut Vec::new());
        function.locals = scope.locals;
        self.pure[index] = !touches_memory(&function.body, &self.pure);
        self.sizes[index] = is_straight(&function.body).then(|| nodes(&function.body));
        self.program.functions[index] = Some(function);
    }

    fn placed(&self, body: Vec<Stmt>, scope: &mut Scope) -> Vec<Stmt> {
        let mut out = Vec::with_capacity(body.len());
        for statement in body {
            match statement {
                Stmt::Do(Expr::Call(callee, None, arguments)) if self.fits(callee) => {
                    let arguments = self.values(arguments, scope, &mut out);
                    self.place(callee, arguments, None, scope, &mut out);
                }
                Stmt::Do(value) => {
                    let value = self.parts(value, scope, &mut out);
                    out.push(Stmt::Do(value));
                }
                Stmt::Set(local, value) => self.set(local, value, scope, &mut out),
                Stmt::Store(ty, address, offset, value) => {
                    let value = self.parts(value, scope, &mut out);
                    out.push(Stmt::Store(ty, address, offset, value));
                }
                Stmt::Return(Some(value)) => {
                    let value = self.value(value, scope, &mut out);
                    out.push(Stmt::Return(Some(value)));
                }
                Stmt::If(condition, first, second) => {
                    let condition = self.value(condition, scope, &mut out);
                    let first = self.placed(first, scope);
                    out.push(Stmt::If(condition, first, self.placed(second, scope)));
                }
                Stmt::While { condition, body, step } => out.push(Stmt::While {
                    condition,
                    body: self.placed(body, scope),
                    step,
                }),
                Stmt::Break | Stmt::Continue | Stmt::Return(None) => out.push(statement),
            }
        }
        out
    }

    fn set(&self, local: u32, value: Expr, scope: &mut Scope, out: &mut Vec<Stmt>) {
        match value {
            Expr::Call(callee, Some(_), arguments) if self.fits(callee) => {
                let arguments = self.values(arguments, scope, out);
                self.place(callee, arguments, Some(local), scope, out);
            }
            value => {
                let value = self.parts(value, scope, out);
                out.push(Stmt::Set(local, value));
            }
        }
    }

    /// `value`, or the local that a call put in place leaves it in.
    fn value(&self, value: Expr, scope: &mut Scope, out: &mut Vec<Stmt>) -> Expr {
        match value {
            Expr::Call(callee, Some(ty), _) if self.fits(callee) => {
                let (local, ty) = scope.fresh(ty);
                self.set(local, value, scope, out);
                Expr::Local(local, ty)
            }
            other => self.parts(other, scope, out),
        }
    }

    /// `expr` with the calls in it put in place before it, where these leave memory alone: the order does not matter then.
    fn parts(&self, expr: Expr, scope: &mut Scope, out: &mut Vec<Stmt>) -> Expr {
        match expr {
            Expr::Call(callee, ty, arguments) => {
                let call = Expr::Call(callee, ty, self.values(arguments, scope, out));
                if self.pure[callee] && ty.is_some() && self.fits(callee) {
                    return self.value(call, scope, out);
                }
                call
            }
            Expr::Unary(op, operand) => Expr::unary(op, self.parts(*operand, scope, out)),
            Expr::Binary(op, ty, left, right) => {
                let left = self.parts(*left, scope, out);
                Expr::binary(op, ty, left, self.parts(*right, scope, out))
            }
            Expr::Select(ty, parts) => Expr::Select(ty, Box::new(parts.map(|part| self.parts(part, scope, out)))),
            Expr::F64(_) | Expr::I64(_) | Expr::I32(_) | Expr::Local(..) | Expr::Load(..) => expr,
        }
    }

    fn values(&self, list: Vec<Expr>, scope: &mut Scope, out: &mut Vec<Stmt>) -> Vec<Expr> {
        list.into_iter().map(|value| self.parts(value, scope, out)).collect()
    }

    /// Whether `callee` has no loop and is short enough; one that is being rewritten (it calls itself) is not there.
    fn fits(&self, callee: usize) -> bool {
        let most = if self.calls[callee] == 1 {
            MOST_NODES_ONCE
        } else {
            MOST_NODES
        };
        self.sizes[callee].is_some_and(|size| size <= most)
    }

    fn place(&self, callee: usize, arguments: Vec<Expr>, result: Option<u32>, scope: &mut Scope, out: &mut Vec<Stmt>) {
        let Some(function) = self.program.function(callee) else {
            return;
        };
        let mut values = Vec::with_capacity(arguments.len() + function.locals.len());
        // A local belongs to the branch that sets it first (see lanes): one that several branches set is set before them.
        let first = result.filter(|_| function.body.iter().any(|statement| matches!(statement, Stmt::If(..))));
        for (parameter, argument) in arguments.into_iter().enumerate() {
            let lasts = !sets(&function.body, parameter as u32) && !first.is_some_and(|first| reads(&argument, first));
            if lasts && is_short(&argument) {
                values.push(argument);
            } else {
                let (local, ty) = scope.fresh(function.parameters[parameter]);
                out.push(Stmt::Set(local, argument));
                values.push(Expr::Local(local, ty));
            }
        }
        for ty in &function.locals {
            let (local, ty) = scope.fresh(*ty);
            values.push(Expr::Local(local, ty));
        }
        if let (Some(first), Some(ty)) = (first, function.result) {
            let zero = match ty {
                Ty::F64 => Expr::F64(0.0),
                Ty::I64 => Expr::I64(0),
                Ty::I32 => Expr::I32(0),
            };
            out.push(Stmt::Set(first, zero));
        }
        put(&function.body, &[], &values, result, out);
    }

    /// `known` is what memory holds before `body`, and after it what it holds then.
    fn forwarded(&self, body: Vec<Stmt>, scope: &mut Scope, known: &mut Vec<Word>) -> Vec<Stmt> {
        let mut out = Vec::with_capacity(body.len());
        for statement in body {
            match statement {
                Stmt::Set(local, mut value) => {
                    self.look_up(&mut value, known);
                    known.retain(|word| word.base != local && word.value != Expr::Local(local, word.ty));
                    out.push(Stmt::Set(local, value));
                }
                Stmt::Store(ty, mut address, offset, mut value) => {
                    self.look_up(&mut value, known);
                    self.look_up(&mut address, known);
                    if ty == Ty::F64 && matches!(address, Expr::Local(..)) && !is_short(&value) {
                        let (local, ty) = scope.fresh(ty);
                        out.push(Stmt::Set(local, value));
                        value = Expr::Local(local, ty);
                    }
                    remember(known, ty, &address, offset, &value);
                    out.push(Stmt::Store(ty, address, offset, value));
                }
                Stmt::If(mut condition, first, second) => {
                    self.look_up(&mut condition, known);
                    let (mut here, mut there) = (known.clone(), known.clone());
                    let first = self.forwarded(first, scope, &mut here);
                    let second = self.forwarded(second, scope, &mut there);
                    // A branch that leaves says nothing of what follows.
                    known.retain(|word| {
                        (leaves(&first) || here.contains(word)) && (leaves(&second) || there.contains(word))
                    });
                    out.push(Stmt::If(condition, first, second));
                }
                Stmt::While { condition, body, step } => {
                    known.clear();
                    let body = self.forwarded(body, scope, &mut Vec::new());
                    out.push(Stmt::While { condition, body, step });
                }
                Stmt::Do(mut value) => {
                    self.look_up(&mut value, known);
                    out.push(Stmt::Do(value));
                }
                Stmt::Return(Some(mut value)) => {
                    self.look_up(&mut value, known);
                    out.push(Stmt::Return(Some(value)));
                }
                Stmt::Break | Stmt::Continue | Stmt::Return(None) => out.push(statement),
            }
        }
        out
    }

    /// Replaces loads in `expr` by what is known to be there. A call that may write forgets everything first: whether it
    /// comes before or after a load of the same expression is not asked.
    fn look_up(&self, expr: &mut Expr, known: &mut Vec<Word>) {
        let mut writes = false;
        each_call_in(expr, &mut |callee| writes |= !self.pure[callee]);
        if writes {
            known.clear();
        }
        replace(expr, known);
    }
}

/// Puts `body` and then `rest` with the callee's locals by their `values`. What follows an `if` that returns goes into its
/// other branch; the value that is returned goes to `result`.
fn put(body: &[Stmt], rest: &[Stmt], values: &[Expr], result: Option<u32>, out: &mut Vec<Stmt>) {
    let Some((statement, after)) = body.split_first() else {
        if !rest.is_empty() {
            put(rest, &[], values, result, out);
        }
        return;
    };
    match statement {
        Stmt::Set(local, value) => {
            if let Expr::Local(local, _) = values[*local as usize] {
                out.push(Stmt::Set(local, substituted(value, values)));
            }
        }
        Stmt::Store(ty, address, offset, value) => {
            let (address, more) = substituted(address, values).split_address();
            out.push(Stmt::Store(*ty, address, offset + more, substituted(value, values)));
        }
        Stmt::Do(value) => out.push(Stmt::Do(substituted(value, values))),
        Stmt::Return(value) => {
            if let (Some(value), Some(result)) = (value, result) {
                out.push(Stmt::Set(result, substituted(value, values)));
            }
            return;
        }
        Stmt::If(condition, first, second) => {
            let returns = leaves(first) || leaves(second);
            let follows = if returns { after } else { &[] };
            let branch = |list: &[Stmt]| {
                let mut branch = Vec::new();
                put(list, follows, values, result, &mut branch);
                branch
            };
            out.push(Stmt::If(substituted(condition, values), branch(first), branch(second)));
            if returns {
                return;
            }
        }
        Stmt::While { .. } | Stmt::Break | Stmt::Continue => {}
    }
    put(after, rest, values, result, out);
}

/// The locals of the function that is rewritten.
struct Scope {
    parameters: u32,
    locals: Vec<Ty>,
}

impl Scope {
    fn fresh(&mut self, ty: Ty) -> (u32, Ty) {
        self.locals.push(ty);
        (self.parameters + self.locals.len() as u32 - 1, ty)
    }
}

/// A word of memory and the local or constant that equals it.
#[derive(Clone, PartialEq)]
struct Word {
    base: u32,
    offset: u32,
    ty: Ty,
    value: Expr,
}

fn remember(known: &mut Vec<Word>, ty: Ty, address: &Expr, offset: u32, value: &Expr) {
    let Expr::Local(base, _) = *address else {
        known.clear();
        return;
    };
    // Words behind other bases may be the same one.
    known.retain(|word| word.base == base && (word.offset + 8 <= offset || offset + 8 <= word.offset));
    if ty == Ty::F64 && matches!(value, Expr::Local(..) | Expr::F64(_)) {
        known.push(Word {
            base,
            offset,
            ty,
            value: value.clone(),
        });
    }
}

fn replace(expr: &mut Expr, known: &[Word]) {
    match expr {
        Expr::Load(ty, address, offset) => {
            replace(address, known);
            if let Expr::Local(base, _) = **address {
                let found = known
                    .iter()
                    .find(|word| word.base == base && word.offset == *offset && word.ty == *ty);
                if let Some(word) = found {
                    *expr = word.value.clone();
                }
            }
        }
        Expr::Unary(_, operand) => replace(operand, known),
        Expr::Binary(_, _, left, right) => {
            replace(left, known);
            replace(right, known);
        }
        Expr::Select(_, parts) => parts.iter_mut().for_each(|part| replace(part, known)),
        Expr::Call(_, _, arguments) => arguments.iter_mut().for_each(|argument| replace(argument, known)),
        Expr::F64(_) | Expr::I64(_) | Expr::I32(_) | Expr::Local(..) => {}
    }
}

/// `expr` with the callee's locals by their values in the caller.
fn substituted(expr: &Expr, values: &[Expr]) -> Expr {
    match expr {
        Expr::Local(local, _) => values[*local as usize].clone(),
        Expr::Unary(op, operand) => Expr::unary(*op, substituted(operand, values)),
        Expr::Binary(op, ty, left, right) => {
            Expr::binary(*op, *ty, substituted(left, values), substituted(right, values))
        }
        Expr::Select(ty, parts) => Expr::Select(*ty, Box::new(parts.each_ref().map(|part| substituted(part, values)))),
        Expr::Load(ty, address, offset) => {
            let (address, more) = substituted(address, values).split_address();
            Expr::Load(*ty, Box::new(address), offset + more)
        }
        Expr::Call(callee, ty, arguments) => {
            let arguments = arguments.iter().map(|argument| substituted(argument, values));
            Expr::Call(*callee, *ty, arguments.collect())
        }
        Expr::F64(_) | Expr::I64(_) | Expr::I32(_) => expr.clone(),
    }
}

/// What costs nothing to be written twice: a constant, a local, and a place behind one.
fn is_short(expr: &Expr) -> bool {
    match expr {
        Expr::F64(_) | Expr::I64(_) | Expr::I32(_) | Expr::Local(..) => true,
        Expr::Binary(Binary::Add, Ty::I32, left, right) => is_short(left) && matches!(**right, Expr::I32(_)),
        _ => false,
    }
}

/// No loop, and an `if` that returns somewhere returns wherever one of its branches ends, with nothing else around.
fn is_straight(body: &[Stmt]) -> bool {
    body.iter().all(|statement| match statement {
        Stmt::While { .. } | Stmt::Break | Stmt::Continue => false,
        Stmt::If(_, first, second) => {
            let plain = |list: &[Stmt]| !returns(list);
            let whole = |list: &[Stmt]| leaves(list) && is_straight(list);
            (plain(first) || whole(first))
                && (plain(second) || whole(second))
                && is_straight(first)
                && is_straight(second)
        }
        _ => true,
    })
}

/// Whether the statements end by leaving.
fn leaves(body: &[Stmt]) -> bool {
    matches!(body.last(), Some(Stmt::Return(_) | Stmt::Break | Stmt::Continue))
}

fn returns(body: &[Stmt]) -> bool {
    body.iter().any(|statement| match statement {
        Stmt::Return(_) => true,
        Stmt::If(_, first, second) => returns(first) || returns(second),
        Stmt::While { body, .. } => returns(body),
        _ => false,
    })
}

fn sets(body: &[Stmt], wanted: u32) -> bool {
    body.iter().any(|statement| match statement {
        Stmt::Set(local, _) => *local == wanted,
        Stmt::If(_, first, second) => sets(first, wanted) || sets(second, wanted),
        Stmt::While { body, step, .. } => sets(body, wanted) || sets(step, wanted),
        _ => false,
    })
}

fn reads(expr: &Expr, wanted: u32) -> bool {
    let mut found = false;
    each_node(expr, &mut |node| {
        found |= matches!(node, Expr::Local(local, _) if *local == wanted)
    });
    found
}

fn nodes(body: &[Stmt]) -> usize {
    let mut count = 0;
    each_expr(body, &mut |expr| each_node(expr, &mut |_| count += 1));
    count
}

fn touches_memory(body: &[Stmt], pure: &[bool]) -> bool {
    let mut touches = stores(body);
    each_expr(body, &mut |expr| {
        each_node(expr, &mut |node| {
            touches |= match node {
                Expr::Load(..) => true,
                Expr::Call(callee, _, _) => !pure[*callee],
                _ => false,
            }
        });
    });
    touches
}

fn stores(body: &[Stmt]) -> bool {
    body.iter().any(|statement| match statement {
        Stmt::Store(..) => true,
        Stmt::If(_, first, second) => stores(first) || stores(second),
        Stmt::While { body, step, .. } => stores(body) || stores(step),
        _ => false,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::kernel::parse::parse;
    use crate::kernel::wasm;

    const TEXT: &str = "
        fn twice(at: i32, x: f64) { f64[at + 8] = x + x; }
        fn bounded(at: i32, x: f64) -> f64 {
            if x < 0.0 { return 0.0; }
            f64[at] = x;
            if x > 10.0 {
                f64[at] = 10.0;
                if x > 100.0 { return -1.0; }
                return f64[at];
            }
            x = x + f64[at];
            return x;
        }
        fn run(x: f64) -> f64 {
            let at = 64;
            let sum = 0.0;
            for i in 0..3 {
                let y = bounded(at, x);
                twice(at + 16, y);
                y = bounded(at + 8, y);
                // The second may be the first's word, behind another name.
                let other = at + 8 * i;
                f64[other] = sum;
                sum += y + f64[at] + f64[at + 24] * f64[at + 8];
            }
            return sum;
        }";

    #[test]
    fn what_is_put_in_place_computes_the_same() {
        let mut program = Program::default();
        parse(&mut program, TEXT, &HashMap::new()).unwrap();
        let mut placed = program.clone();
        inline(&mut placed);
        let run = program.index("run").unwrap();
        let calls = |program: &Program| {
            let mut calls = 0;
            each_call(&program.function(run).unwrap().body, &mut |_| calls += 1);
            calls
        };
        assert_eq!((calls(&program), calls(&placed)), (3, 0));
        let engine = wasmtime::Engine::default();
        let results = [&program, &placed].map(|program| {
            let wasm = wasm::print(program, &[("run", run)], 1, "test", &[]).unwrap();
            let module = wasmtime::Module::new(&engine, &wasm).unwrap();
            let mut store = wasmtime::Store::new(&engine, ());
            let instance = wasmtime::Instance::new(&mut store, &module, &[]).unwrap();
            let function = instance.get_typed_func::<f64, f64>(&mut store, "run").unwrap();
            [-3.0, 0.0, 2.5, 7.0, 11.0, 101.0, 5e3].map(|x| function.call(&mut store, x).unwrap().to_bits())
        });
        assert_eq!(results[0], results[1]);
    }
}
