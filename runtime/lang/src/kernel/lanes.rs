//! Prints a kernel program as a module that runs two plans at once, one in each lane of a vector, each with the bits it
//! would have alone.
//!
//! The module's memory is that of two scalar modules, interleaved word by word: the eight bytes at address a of lane l lie
//! at 2a + 8l. Everything but an i32 that is the same for both lanes (the address of the context, constants, counters) is a
//! vector. Where a condition differs, both sides run, each with a mask of the lanes that are there (as in Pharr and Mark,
//! ispc: a SPMD compiler for high-performance CPU programming, 2012); a function is printed once for each pattern of shapes
//! that it is called with, and once more for calls that only one lane may make.

mod printer;
pub mod shape;

use std::collections::HashMap;
use std::rc::Rc;

use wasm_encoder::{Function as Code, ValType};

use super::wasm::Parts;
use super::{Expr, Function, Program, Stmt, Ty};
use printer::Printer;
use shape::{Shape, Shapes};

/// A function for given shapes of its parameters; `full`: both lanes are always there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    function: usize,
    parameters: Vec<Shape>,
    full: bool,
}

/// What printing has found so far.
pub struct Lanes<'a> {
    program: &'a Program,
    /// `None` while they are being found: a function that calls itself.
    shapes: HashMap<(usize, Vec<Shape>), Option<Rc<Shapes>>>,
    keys: Vec<Key>,
    places: HashMap<Key, u32>,
    /// Whether a function touches memory, itself or by what it calls.
    touches: HashMap<usize, bool>,
}

/// The module with the function `export`, which takes the context's address, and all that it calls; `section` becomes the
/// custom section `name`.
///
/// Fails with what it cannot print, which is a defect of the compiler.
pub fn print(
    program: &Program,
    export: (&str, usize),
    pages: u64,
    name: &str,
    section: &[u8],
) -> Result<Vec<u8>, String> {
    let mut lanes = Lanes {
        program,
        shapes: HashMap::new(),
        keys: Vec::new(),
        places: HashMap::new(),
        touches: HashMap::new(),
    };
    lanes.place(Key {
        function: export.1,
        parameters: vec![Shape::Context],
        full: true,
    });
    let mut parts = Parts::default();
    let mut next = 0;
    while let Some(key) = lanes.keys.get(next).cloned() {
        let function = lanes.function(key.function)?;
        let shapes = lanes.known(key.function, &key.parameters)?;
        let (parameters, result) = signature(function, &key, &shapes);
        parts.types.ty().function(parameters, result);
        parts.functions.function(next as u32);
        parts.names.append(next as u32, &function.name);
        let (locals, body) = Printer::print(&mut lanes, function, &key, shapes)?;
        let mut printed = Code::new_with_locals_types(locals);
        printed.raw(body);
        parts.code.function(&printed);
        next += 1;
    }
    // The entry gives the code of the first lane; the status of each lies in its memory.
    let result = lanes.known(export.1, &[Shape::Context])?.result;
    parts.types.ty().function([ValType::I32], [ValType::I32]);
    parts.functions.function(next as u32);
    let mut entry = Code::new([]);
    entry.instructions().local_get(0).call(0);
    if result == Shape::Two {
        entry.instructions().i64x2_extract_lane(0).i32_wrap_i64();
    }
    entry.instructions().end();
    parts.code.function(&entry);
    Ok(parts.module(&[(export.0, next as u32)], 2 * pages, name, section))
}

/// The Wasm types of a function; a mask of the lanes follows the parameters where not both need be there.
fn signature(function: &Function, key: &Key, shapes: &Shapes) -> (Vec<ValType>, Vec<ValType>) {
    let mut parameters: Vec<ValType> = key.parameters.iter().map(|shape| val_type(*shape)).collect();
    if !key.full {
        parameters.push(ValType::V128);
    }
    let result = function.result.map(|_| val_type(shapes.result));
    (parameters, result.into_iter().collect())
}

fn val_type(shape: Shape) -> ValType {
    match shape {
        Shape::Context | Shape::One => ValType::I32,
        Shape::Two => ValType::V128,
    }
}

impl<'a> Lanes<'a> {
    fn function(&self, index: usize) -> Result<&'a Function, String> {
        let missing = || format!("{} is not defined", self.program.signature(index).name);
        self.program.function(index).ok_or_else(missing)
    }

    /// The place of a function in the module, which it gets when it is first asked for.
    fn place(&mut self, key: Key) -> u32 {
        if let Some(place) = self.places.get(&key) {
            return *place;
        }
        let place = self.keys.len() as u32;
        self.keys.push(key.clone());
        self.places.insert(key, place);
        place
    }

    fn shapes(&mut self, function: usize, parameters: &[Shape]) -> Option<Rc<Shapes>> {
        let key = (function, parameters.to_vec());
        if let Some(known) = self.shapes.get(&key) {
            return known.clone();
        }
        self.shapes.insert(key.clone(), None);
        let body = self.function(function).ok()?;
        let found = Rc::new(Shapes::find(self, body, parameters));
        self.shapes.insert(key, Some(Rc::clone(&found)));
        Some(found)
    }

    fn known(&mut self, function: usize, parameters: &[Shape]) -> Result<Rc<Shapes>, String> {
        let missing = || format!("{} has no shapes", self.program.signature(function).name);
        self.shapes(function, parameters).ok_or_else(missing)
    }

    fn touches(&mut self, function: usize) -> bool {
        if let Some(known) = self.touches.get(&function) {
            return *known;
        }
        self.touches.insert(function, true);
        let touches = match self.program.function(function) {
            Some(function) => self.list_touches(&function.body),
            None => true,
        };
        self.touches.insert(function, touches);
        touches
    }

    fn list_touches(&mut self, list: &[Stmt]) -> bool {
        list.iter().any(|statement| match statement {
            Stmt::Store(..) => true,
            Stmt::Set(_, value) | Stmt::Do(value) | Stmt::Return(Some(value)) => self.expr_touches(value),
            Stmt::If(condition, first, second) => {
                self.expr_touches(condition) || self.list_touches(first) || self.list_touches(second)
            }
            Stmt::While { condition, body, step } => {
                self.expr_touches(condition) || self.list_touches(body) || self.list_touches(step)
            }
            Stmt::Return(None) | Stmt::Break | Stmt::Continue => false,
        })
    }

    fn expr_touches(&mut self, expr: &Expr) -> bool {
        match expr {
            Expr::Load(..) => true,
            Expr::Unary(_, operand) => self.expr_touches(operand),
            Expr::Binary(_, _, left, right) => self.expr_touches(left) || self.expr_touches(right),
            Expr::Select(_, parts) => parts.iter().any(|part| self.expr_touches(part)),
            Expr::Call(function, _, arguments) => {
                self.touches(*function) || arguments.iter().any(|argument| self.expr_touches(argument))
            }
            Expr::F64(_) | Expr::I64(_) | Expr::I32(_) | Expr::Local(..) => false,
        }
    }
}

/// Whether an i32 expression is 0 or 1 for certain.
fn is_truth(expr: &Expr) -> bool {
    match expr {
        Expr::Binary(op, ty, left, right) => {
            op.is_comparison()
                || (*ty == Ty::I32
                    && matches!(op, super::Binary::And | super::Binary::Or)
                    && is_truth(left)
                    && is_truth(right))
        }
        Expr::Unary(super::Unary::Not, _) => true,
        Expr::Select(Ty::I32, parts) => is_truth(&parts[1]) && is_truth(&parts[2]),
        Expr::I32(value) => (0..=1).contains(value),
        _ => false,
    }
}
