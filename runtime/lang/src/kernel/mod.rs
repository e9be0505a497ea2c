//! The one intermediate form: typed functions over i32, i64 and f64 locals and a flat memory.
//!
//! Elementary functions and the integrators are written in a small text form of it (`*.kernel`, read by [`parse`]);
//! the model's own functions are built from its expression graph. [`wasm`] prints a program as a core module and
//! [`interpret`] evaluates its pure functions on the host, with the same bits. The form has structured control flow
//! and no undefined behaviour, so that another printer (CUDA C) is a walk over it.

pub mod inline;
pub mod interpret;
pub mod lanes;
pub mod parse;
mod tokens;
mod walk;
pub mod wasm;

use std::collections::HashMap;

/// A value type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ty {
    I32,
    I64,
    F64,
}

/// Operations on one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unary {
    Neg,
    Abs,
    Sqrt,
    Floor,
    Ceil,
    Trunc,
    Nearest,
    /// f64 → i64, the bits.
    Bits,
    /// i64 → f64, from bits.
    FromBits,
    /// i64 → i32, low half.
    Wrap,
    /// i32 → i64, sign extended.
    Extend,
    /// i32 → f64.
    FromI32,
    /// i64 → f64.
    FromI64,
    /// f64 → i64, saturating, NaN → 0.
    ToI64,
    /// i32 → i32, 1 if zero.
    Not,
}

/// Operations on two values of one type (the type is that of the operands).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    /// f64 division, or signed integer division (the caller guarantees a divisor that is neither 0 nor −1).
    Div,
    /// Signed integer remainder.
    Rem,
    Min,
    Max,
    CopySign,
    And,
    Or,
    Xor,
    Shl,
    ShrS,
    ShrU,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// An expression; every node has one type, known without context.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    F64(f64),
    I64(i64),
    I32(i32),
    Local(u32, Ty),
    Unary(Unary, Box<Expr>),
    Binary(Binary, Ty, Box<Expr>, Box<Expr>),
    /// `condition ? first : second`; both are evaluated.
    Select(Ty, Box<[Expr; 3]>),
    /// Memory at address + offset.
    Load(Ty, Box<Expr>, u32),
    Call(usize, Option<Ty>, Vec<Expr>),
}

/// A statement.
#[derive(Debug, Clone, PartialEq)]
pub enum Stmt {
    Set(u32, Expr),
    Store(Ty, Expr, u32, Expr),
    If(Expr, Vec<Stmt>, Vec<Stmt>),
    While {
        condition: Expr,
        body: Vec<Stmt>,
        step: Vec<Stmt>,
    },
    Break,
    Continue,
    Return(Option<Expr>),
    Do(Expr),
}

/// A function: parameters are the first locals.
#[derive(Debug, Clone, PartialEq)]
pub struct Function {
    pub name: String,
    pub parameters: Vec<Ty>,
    pub result: Option<Ty>,
    pub locals: Vec<Ty>,
    pub body: Vec<Stmt>,
}

/// Functions that call each other by index.
#[derive(Debug, Clone, Default)]
pub struct Program {
    functions: Vec<Option<Function>>,
    signatures: Vec<Signature>,
    by_name: HashMap<String, usize>,
}

/// What a caller needs to know of a function.
#[derive(Debug, Clone, PartialEq)]
pub struct Signature {
    pub name: String,
    pub parameters: Vec<Ty>,
    pub result: Option<Ty>,
}

impl Program {
    /// Announces a function, so that others can call it before it is defined.
    pub fn declare(&mut self, name: &str, parameters: &[Ty], result: Option<Ty>) -> usize {
        if let Some(index) = self.by_name.get(name) {
            return *index;
        }
        let index = self.functions.len();
        self.functions.push(None);
        self.signatures.push(Signature {
            name: name.to_string(),
            parameters: parameters.to_vec(),
            result,
        });
        self.by_name.insert(name.to_string(), index);
        index
    }

    /// Gives a declared (or new) function its body.
    pub fn define(&mut self, function: Function) -> usize {
        let index = self.declare(&function.name, &function.parameters, function.result);
        self.functions[index] = Some(function);
        index
    }

    pub fn index(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub fn signature(&self, index: usize) -> &Signature {
        &self.signatures[index]
    }

    pub fn function(&self, index: usize) -> Option<&Function> {
        self.functions.get(index).and_then(Option::as_ref)
    }
}

impl Expr {
    pub fn ty(&self) -> Option<Ty> {
        Some(match self {
            Expr::F64(_) => Ty::F64,
            Expr::I64(_) => Ty::I64,
            Expr::I32(_) => Ty::I32,
            Expr::Local(_, ty) | Expr::Select(ty, _) | Expr::Load(ty, _, _) => *ty,
            Expr::Unary(op, operand) => return op.result(operand.ty()?),
            Expr::Binary(op, ty, _, _) => op.result(*ty),
            Expr::Call(_, ty, _) => return *ty,
        })
    }

    pub fn unary(op: Unary, operand: Expr) -> Expr {
        Expr::Unary(op, Box::new(operand))
    }

    pub fn binary(op: Binary, ty: Ty, left: Expr, right: Expr) -> Expr {
        Expr::Binary(op, ty, Box::new(left), Box::new(right))
    }

    /// `address` split into what is known only at run time and a constant offset.
    pub fn split_address(self) -> (Expr, u32) {
        match self {
            Expr::Binary(Binary::Add, Ty::I32, left, right) => match (*left, *right) {
                (left, Expr::I32(offset)) if offset >= 0 => {
                    let (base, more) = left.split_address();
                    (base, more + offset as u32)
                }
                (Expr::I32(offset), right) if offset >= 0 => {
                    let (base, more) = right.split_address();
                    (base, more + offset as u32)
                }
                (left, right) => {
                    let (left, left_offset) = left.split_address();
                    let (right, right_offset) = right.split_address();
                    (
                        Expr::binary(Binary::Add, Ty::I32, left, right),
                        left_offset + right_offset,
                    )
                }
            },
            other => (other, 0),
        }
    }
}

impl Unary {
    fn result(self, operand: Ty) -> Option<Ty> {
        match self {
            Unary::Neg | Unary::Abs | Unary::Sqrt | Unary::Floor | Unary::Ceil | Unary::Trunc | Unary::Nearest => {
                (operand == Ty::F64).then_some(Ty::F64)
            }
            Unary::Bits | Unary::ToI64 => (operand == Ty::F64).then_some(Ty::I64),
            Unary::FromBits | Unary::FromI64 => (operand == Ty::I64).then_some(Ty::F64),
            Unary::Wrap => (operand == Ty::I64).then_some(Ty::I32),
            Unary::Extend => (operand == Ty::I32).then_some(Ty::I64),
            Unary::FromI32 => (operand == Ty::I32).then_some(Ty::F64),
            Unary::Not => (operand == Ty::I32).then_some(Ty::I32),
        }
    }
}

impl Binary {
    pub fn is_comparison(self) -> bool {
        matches!(
            self,
            Binary::Eq | Binary::Ne | Binary::Lt | Binary::Le | Binary::Gt | Binary::Ge
        )
    }

    fn result(self, operands: Ty) -> Ty {
        if self.is_comparison() { Ty::I32 } else { operands }
    }
}
