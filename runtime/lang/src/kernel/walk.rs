//! Walks over statements and expressions.

use super::{Expr, Stmt};

/// The callee of every call.
pub fn each_call(body: &[Stmt], found: &mut impl FnMut(usize)) {
    each_expr(body, &mut |expr| each_call_in(expr, found));
}

/// The callee of every call in an expression.
pub fn each_call_in(expr: &Expr, found: &mut impl FnMut(usize)) {
    each_node(expr, &mut |node| {
        if let Expr::Call(callee, _, _) = node {
            found(*callee);
        }
    });
}

/// Every expression of the statements, whole.
pub fn each_expr(body: &[Stmt], found: &mut impl FnMut(&Expr)) {
    for statement in body {
        match statement {
            Stmt::Set(_, value) | Stmt::Do(value) | Stmt::Return(Some(value)) => found(value),
            Stmt::Store(_, address, _, value) => {
                found(address);
                found(value);
            }
            Stmt::If(condition, first, second) => {
                found(condition);
                each_expr(first, found);
                each_expr(second, found);
            }
            Stmt::While { condition, body, step } => {
                found(condition);
                each_expr(body, found);
                each_expr(step, found);
            }
            Stmt::Break | Stmt::Continue | Stmt::Return(None) => {}
        }
    }
}

/// An expression and all its parts.
pub fn each_node(expr: &Expr, found: &mut impl FnMut(&Expr)) {
    found(expr);
    match expr {
        Expr::Unary(_, operand) | Expr::Load(_, operand, _) => each_node(operand, found),
        Expr::Binary(_, _, left, right) => {
            each_node(left, found);
            each_node(right, found);
        }
        Expr::Select(_, parts) => parts.iter().for_each(|part| each_node(part, found)),
        Expr::Call(_, _, arguments) => arguments.iter().for_each(|argument| each_node(argument, found)),
        Expr::F64(_) | Expr::I64(_) | Expr::I32(_) | Expr::Local(..) => {}
    }
}
