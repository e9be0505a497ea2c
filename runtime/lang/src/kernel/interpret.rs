//! Evaluates pure kernel functions on the host: the constant folder's arithmetic is the emitted code's.

use super::{Binary, Expr, Function, Program, Stmt, Ty, Unary};

/// A value of one of the three types.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    I32(i32),
    I64(i64),
    F64(f64),
}

/// Calls function `index` with f64 arguments; `None` if it touches memory, returns no f64, or runs too long.
pub fn call(program: &Program, index: usize, arguments: &[f64]) -> Option<f64> {
    let values: Vec<Value> = arguments.iter().map(|value| Value::F64(*value)).collect();
    let mut budget = 100_000;
    match invoke(program, index, &values, &mut budget)? {
        Value::F64(value) => Some(value),
        _ => None,
    }
}

/// One f64 operation as the module computes it; NaN is always the canonical one.
pub fn unary(op: Unary, x: f64) -> Option<f64> {
    match apply_unary(op, Value::F64(x))? {
        Value::F64(value) => Some(value),
        _ => None,
    }
}

/// One f64 operation as the module computes it; NaN is always the canonical one.
pub fn binary(op: Binary, x: f64, y: f64) -> Option<f64> {
    match apply_binary(op, Value::F64(x), Value::F64(y))? {
        Value::F64(value) => Some(value),
        _ => None,
    }
}

enum Flow {
    Next,
    Break,
    Continue,
    Return(Option<Value>),
}

fn invoke(program: &Program, index: usize, arguments: &[Value], budget: &mut u32) -> Option<Value> {
    let function: &Function = program.function(index)?;
    let mut locals = arguments.to_vec();
    locals.extend(function.locals.iter().map(|ty| match ty {
        Ty::I32 => Value::I32(0),
        Ty::I64 => Value::I64(0),
        Ty::F64 => Value::F64(0.0),
    }));
    match run(program, &function.body, &mut locals, budget)? {
        Flow::Return(value) => value,
        _ => None,
    }
}

fn run(program: &Program, body: &[Stmt], locals: &mut Vec<Value>, budget: &mut u32) -> Option<Flow> {
    for statement in body {
        *budget = budget.checked_sub(1)?;
        match statement {
            Stmt::Set(local, value) => {
                let value = evaluate(program, value, locals, budget)?;
                *locals.get_mut(*local as usize)? = value;
            }
            Stmt::If(condition, first, second) => {
                let branch = if evaluate(program, condition, locals, budget)? != Value::I32(0) {
                    first
                } else {
                    second
                };
                match run(program, branch, locals, budget)? {
                    Flow::Next => {}
                    other => return Some(other),
                }
            }
            Stmt::While { condition, body, step } => {
                while evaluate(program, condition, locals, budget)? != Value::I32(0) {
                    match run(program, body, locals, budget)? {
                        Flow::Break => break,
                        Flow::Return(value) => return Some(Flow::Return(value)),
                        Flow::Next | Flow::Continue => {}
                    }
                    run(program, step, locals, budget)?;
                    *budget = budget.checked_sub(1)?;
                }
            }
            Stmt::Break => return Some(Flow::Break),
            Stmt::Continue => return Some(Flow::Continue),
            Stmt::Return(None) => return Some(Flow::Return(None)),
            Stmt::Return(Some(value)) => {
                return Some(Flow::Return(Some(evaluate(program, value, locals, budget)?)));
            }
            Stmt::Store(..) | Stmt::Do(_) => return None,
        }
    }
    Some(Flow::Next)
}

fn evaluate(program: &Program, expr: &Expr, locals: &mut Vec<Value>, budget: &mut u32) -> Option<Value> {
    Some(match expr {
        Expr::F64(value) => Value::F64(*value),
        Expr::I64(value) => Value::I64(*value),
        Expr::I32(value) => Value::I32(*value),
        Expr::Local(local, _) => *locals.get(*local as usize)?,
        Expr::Unary(op, operand) => apply_unary(*op, evaluate(program, operand, locals, budget)?)?,
        Expr::Binary(op, _, left, right) => {
            let left = evaluate(program, left, locals, budget)?;
            apply_binary(*op, left, evaluate(program, right, locals, budget)?)?
        }
        Expr::Select(_, parts) => {
            let first = evaluate(program, &parts[1], locals, budget)?;
            let second = evaluate(program, &parts[2], locals, budget)?;
            if evaluate(program, &parts[0], locals, budget)? != Value::I32(0) {
                first
            } else {
                second
            }
        }
        Expr::Call(index, _, arguments) => {
            *budget = budget.checked_sub(1)?;
            let mut values = Vec::with_capacity(arguments.len());
            for argument in arguments {
                values.push(evaluate(program, argument, locals, budget)?);
            }
            invoke(program, *index, &values, budget)?
        }
        Expr::Load(..) => return None,
    })
}

fn canonical(value: f64) -> Value {
    Value::F64(nan_made_canonical(value))
}

fn nan_made_canonical(value: f64) -> f64 {
    if value.is_nan() { f64::NAN } else { value }
}

fn apply_unary(op: Unary, operand: Value) -> Option<Value> {
    Some(match (op, operand) {
        (Unary::Neg, Value::F64(x)) => Value::F64(-x),
        (Unary::Abs, Value::F64(x)) => Value::F64(x.abs()),
        (Unary::Sqrt, Value::F64(x)) => canonical(libm::sqrt(x)),
        (Unary::Floor, Value::F64(x)) => canonical(libm::floor(x)),
        (Unary::Ceil, Value::F64(x)) => canonical(libm::ceil(x)),
        (Unary::Trunc, Value::F64(x)) => canonical(libm::trunc(x)),
        (Unary::Nearest, Value::F64(x)) => canonical(libm::rint(x)),
        (Unary::Bits, Value::F64(x)) => Value::I64(nan_made_canonical(x).to_bits() as i64),
        (Unary::FromBits, Value::I64(x)) => Value::F64(f64::from_bits(x as u64)),
        (Unary::Wrap, Value::I64(x)) => Value::I32(x as i32),
        (Unary::Extend, Value::I32(x)) => Value::I64(i64::from(x)),
        (Unary::FromI32, Value::I32(x)) => Value::F64(f64::from(x)),
        (Unary::FromI64, Value::I64(x)) => Value::F64(x as f64),
        (Unary::ToI64, Value::F64(x)) => Value::I64(x as i64),
        (Unary::Not, Value::I32(x)) => Value::I32(i32::from(x == 0)),
        _ => return None,
    })
}

fn apply_binary(op: Binary, left: Value, right: Value) -> Option<Value> {
    match (left, right) {
        (Value::F64(a), Value::F64(b)) => binary_f64(op, a, b),
        (Value::I64(a), Value::I64(b)) => {
            if let Some(order) = compare(op, a.cmp(&b)) {
                return Some(order);
            }
            Some(Value::I64(match op {
                Binary::Add => a.wrapping_add(b),
                Binary::Sub => a.wrapping_sub(b),
                Binary::Mul => a.wrapping_mul(b),
                Binary::Div => a.checked_div(b)?,
                Binary::Rem => a.checked_rem(b)?,
                Binary::And => a & b,
                Binary::Or => a | b,
                Binary::Xor => a ^ b,
                Binary::Shl => a.wrapping_shl(b as u32),
                Binary::ShrS => a.wrapping_shr(b as u32),
                Binary::ShrU => (a as u64).wrapping_shr(b as u32) as i64,
                _ => return None,
            }))
        }
        (Value::I32(a), Value::I32(b)) => {
            if let Some(order) = compare(op, a.cmp(&b)) {
                return Some(order);
            }
            Some(Value::I32(match op {
                Binary::Add => a.wrapping_add(b),
                Binary::Sub => a.wrapping_sub(b),
                Binary::Mul => a.wrapping_mul(b),
                Binary::Div => a.checked_div(b)?,
                Binary::Rem => a.checked_rem(b)?,
                Binary::And => a & b,
                Binary::Or => a | b,
                Binary::Xor => a ^ b,
                Binary::Shl => a.wrapping_shl(b as u32),
                Binary::ShrS => a.wrapping_shr(b as u32),
                Binary::ShrU => (a as u32).wrapping_shr(b as u32) as i32,
                _ => return None,
            }))
        }
        _ => None,
    }
}

fn compare(op: Binary, order: std::cmp::Ordering) -> Option<Value> {
    let holds = match op {
        Binary::Eq => order.is_eq(),
        Binary::Ne => order.is_ne(),
        Binary::Lt => order.is_lt(),
        Binary::Le => order.is_le(),
        Binary::Gt => order.is_gt(),
        Binary::Ge => order.is_ge(),
        _ => return None,
    };
    Some(Value::I32(i32::from(holds)))
}

fn binary_f64(op: Binary, a: f64, b: f64) -> Option<Value> {
    Some(match op {
        Binary::Add => canonical(a + b),
        Binary::Sub => canonical(a - b),
        Binary::Mul => canonical(a * b),
        Binary::Div => canonical(a / b),
        Binary::Min => canonical(minimum(a, b)),
        Binary::Max => canonical(-minimum(-a, -b)),
        Binary::CopySign => Value::F64(a.copysign(nan_made_canonical(b))),
        Binary::Eq => Value::I32(i32::from(a == b)),
        Binary::Ne => Value::I32(i32::from(a != b)),
        Binary::Lt => Value::I32(i32::from(a < b)),
        Binary::Le => Value::I32(i32::from(a <= b)),
        Binary::Gt => Value::I32(i32::from(a > b)),
        Binary::Ge => Value::I32(i32::from(a >= b)),
        _ => return None,
    })
}

/// WebAssembly's minimum: NaN if either is, and −0 below +0.
fn minimum(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == b {
        if a.is_sign_negative() { a } else { b }
    } else if a < b {
        a
    } else {
        b
    }
}
