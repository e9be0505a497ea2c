//! Prints a kernel program as one core WebAssembly module: no imports, one exported memory, no globals.
//!
//! The sign and payload of a NaN are the host's affair in WebAssembly. They can reach a value that is not a NaN only where
//! bits are read (`bits`, the sign of `copysign`), so a NaN is made canonical there and nowhere else: every host computes the
//! same without canonical NaNs after each operation, which would cost two to four times the arithmetic.

use std::collections::{BTreeMap, BTreeSet};

use wasm_encoder::{
    BlockType, CodeSection, CustomSection, ExportKind, ExportSection, Function as Code, FunctionSection, Ieee64,
    InstructionSink, MemArg, MemorySection, MemoryType, Module, NameMap, NameSection, TypeSection, ValType,
};

use super::walk::each_call;
use super::{Binary, Expr, Function, Program, Stmt, Ty, Unary};

/// The module with the functions `exports` and all they call; `section` becomes the custom section `name`.
///
/// Fails with the name of a function that is called and never defined, which is a defect of the compiler.
pub fn print(
    program: &Program,
    exports: &[(&str, usize)],
    pages: u64,
    name: &str,
    section: &[u8],
) -> Result<Vec<u8>, String> {
    let order = reachable(program, exports.iter().map(|(_, index)| *index))?;
    let places: BTreeMap<usize, u32> = order
        .iter()
        .enumerate()
        .map(|(place, index)| (*index, place as u32))
        .collect();
    let mut parts = Parts::default();
    for (place, index) in order.iter().enumerate() {
        let function = program
            .function(*index)
            .ok_or_else(|| program.signature(*index).name.clone())?;
        parts.types.ty().function(
            function.parameters.iter().map(|ty| val_type(*ty)),
            function.result.iter().map(|ty| val_type(*ty)),
        );
        parts.functions.function(place as u32);
        parts.code.function(&print_function(function, &places));
        parts.names.append(place as u32, &function.name);
    }
    let exports: Vec<(&str, u32)> = exports.iter().map(|(export, index)| (*export, places[index])).collect();
    Ok(parts.module(&exports, pages, name, section))
}

/// What printing functions one after the other gives.
#[derive(Default)]
pub struct Parts {
    pub types: TypeSection,
    pub functions: FunctionSection,
    pub code: CodeSection,
    pub names: NameMap,
}

impl Parts {
    /// The module of these functions with the memory and `exports`; `section` becomes the custom section `name`.
    pub fn module(&self, exports: &[(&str, u32)], pages: u64, name: &str, section: &[u8]) -> Vec<u8> {
        let mut memories = MemorySection::new();
        memories.memory(MemoryType {
            minimum: pages,
            maximum: None,
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
        let mut export_section = ExportSection::new();
        export_section.export(crate::abi::MEMORY, ExportKind::Memory, 0);
        for (export, place) in exports {
            export_section.export(export, ExportKind::Func, *place);
        }
        let mut names = NameSection::new();
        names.functions(&self.names);
        let mut module = Module::new();
        module.section(&self.types);
        module.section(&self.functions);
        module.section(&memories);
        module.section(&export_section);
        module.section(&self.code);
        module.section(&names);
        module.section(&CustomSection {
            name: name.into(),
            data: section.into(),
        });
        module.finish()
    }
}

fn reachable(program: &Program, roots: impl Iterator<Item = usize>) -> Result<Vec<usize>, String> {
    let mut found = BTreeSet::new();
    let mut open: Vec<usize> = roots.collect();
    while let Some(index) = open.pop() {
        if found.insert(index) {
            let function = program
                .function(index)
                .ok_or_else(|| program.signature(index).name.clone())?;
            each_call(&function.body, &mut |callee| open.push(callee));
        }
    }
    Ok(found.into_iter().collect())
}

fn val_type(ty: Ty) -> ValType {
    match ty {
        Ty::I32 => ValType::I32,
        Ty::I64 => ValType::I64,
        Ty::F64 => ValType::F64,
    }
}

fn print_function(function: &Function, places: &BTreeMap<usize, u32>) -> Code {
    let locals = function.locals.iter().chain(&[Ty::F64]);
    let mut code = Code::new_with_locals_types(locals.map(|ty| val_type(*ty)));
    let mut printer = Printer {
        sink: code.instructions(),
        places,
        scratch: (function.parameters.len() + function.locals.len()) as u32,
        depth: 0,
        loops: Vec::new(),
    };
    printer.statements(&function.body);
    if function.result.is_some() && !matches!(function.body.last(), Some(Stmt::Return(_))) {
        printer.sink.unreachable();
    }
    printer.sink.end();
    code
}

struct Printer<'a> {
    sink: InstructionSink<'a>,
    places: &'a BTreeMap<usize, u32>,
    /// The f64 local behind the function's own.
    scratch: u32,
    depth: u32,
    /// Depths of the labels to break to and to continue at, innermost last.
    loops: Vec<(u32, u32)>,
}

impl Printer<'_> {
    fn statements(&mut self, body: &[Stmt]) {
        for statement in body {
            self.statement(statement);
        }
    }

    fn statement(&mut self, statement: &Stmt) {
        match statement {
            Stmt::Set(local, value) => {
                self.expr(value);
                self.sink.local_set(*local);
            }
            Stmt::Store(ty, address, offset, value) => {
                self.expr(address);
                self.expr(value);
                match ty {
                    Ty::I32 => self.sink.i32_store(memarg(*offset, 2)),
                    Ty::I64 => self.sink.i64_store(memarg(*offset, 3)),
                    Ty::F64 => self.sink.f64_store(memarg(*offset, 3)),
                };
            }
            Stmt::If(condition, first, second) => {
                self.expr(condition);
                self.sink.if_(BlockType::Empty);
                self.depth += 1;
                self.statements(first);
                if !second.is_empty() {
                    self.sink.else_();
                    self.statements(second);
                }
                self.depth -= 1;
                self.sink.end();
            }
            Stmt::While { condition, body, step } => self.repeat(condition, body, step),
            Stmt::Break => {
                if let Some((exit, _)) = self.loops.last() {
                    self.sink.br(self.depth - exit);
                }
            }
            Stmt::Continue => {
                if let Some((_, next)) = self.loops.last() {
                    self.sink.br(self.depth - next);
                }
            }
            Stmt::Return(value) => {
                if let Some(value) = value {
                    self.expr(value);
                }
                self.sink.return_();
            }
            Stmt::Do(value) => {
                self.expr(value);
                if value.ty().is_some() {
                    self.sink.drop();
                }
            }
        }
    }

    fn repeat(&mut self, condition: &Expr, body: &[Stmt], step: &[Stmt]) {
        self.sink.block(BlockType::Empty);
        self.sink.loop_(BlockType::Empty);
        self.depth += 2;
        let (exit, top) = (self.depth - 1, self.depth);
        self.expr(condition);
        self.sink.i32_eqz();
        self.sink.br_if(self.depth - exit);
        self.sink.block(BlockType::Empty);
        self.depth += 1;
        self.loops.push((exit, self.depth));
        self.statements(body);
        self.loops.pop();
        self.depth -= 1;
        self.sink.end();
        self.statements(step);
        self.sink.br(self.depth - top);
        self.sink.end();
        self.sink.end();
        self.depth -= 2;
    }

    fn expr(&mut self, expr: &Expr) {
        match expr {
            Expr::F64(value) => {
                self.sink.f64_const(Ieee64::new(value.to_bits()));
            }
            Expr::I64(value) => {
                self.sink.i64_const(*value);
            }
            Expr::I32(value) => {
                self.sink.i32_const(*value);
            }
            Expr::Local(local, _) => {
                self.sink.local_get(*local);
            }
            Expr::Unary(op, operand) => {
                self.expr(operand);
                self.unary(*op);
            }
            Expr::Binary(op, ty, left, right) => {
                self.expr(left);
                self.expr(right);
                match ty {
                    Ty::F64 => self.binary_f64(*op),
                    Ty::I64 => self.binary_i64(*op),
                    Ty::I32 => self.binary_i32(*op),
                }
            }
            Expr::Select(_, parts) => {
                self.expr(&parts[1]);
                self.expr(&parts[2]);
                self.expr(&parts[0]);
                self.sink.select();
            }
            Expr::Load(ty, address, offset) => {
                self.expr(address);
                match ty {
                    Ty::I32 => self.sink.i32_load(memarg(*offset, 2)),
                    Ty::I64 => self.sink.i64_load(memarg(*offset, 3)),
                    Ty::F64 => self.sink.f64_load(memarg(*offset, 3)),
                };
            }
            Expr::Call(index, _, arguments) => {
                for argument in arguments {
                    self.expr(argument);
                }
                self.sink.call(self.places[index]);
            }
        }
    }

    /// Replaces a NaN on the stack by the canonical one.
    fn canonical(&mut self) {
        self.sink.local_tee(self.scratch);
        self.sink.f64_const(Ieee64::new(f64::NAN.to_bits()));
        self.sink.local_get(self.scratch);
        self.sink.local_get(self.scratch);
        self.sink.f64_eq();
        self.sink.select();
    }

    fn unary(&mut self, op: Unary) {
        match op {
            Unary::Neg => self.sink.f64_neg(),
            Unary::Abs => self.sink.f64_abs(),
            Unary::Sqrt => self.sink.f64_sqrt(),
            Unary::Floor => self.sink.f64_floor(),
            Unary::Ceil => self.sink.f64_ceil(),
            Unary::Trunc => self.sink.f64_trunc(),
            Unary::Nearest => self.sink.f64_nearest(),
            Unary::Bits => {
                self.canonical();
                self.sink.i64_reinterpret_f64()
            }
            Unary::FromBits => self.sink.f64_reinterpret_i64(),
            Unary::Wrap => self.sink.i32_wrap_i64(),
            Unary::Extend => self.sink.i64_extend_i32_s(),
            Unary::FromI32 => self.sink.f64_convert_i32_s(),
            Unary::FromI64 => self.sink.f64_convert_i64_s(),
            Unary::ToI64 => self.sink.i64_trunc_sat_f64_s(),
            Unary::Not => self.sink.i32_eqz(),
        };
    }

    fn binary_f64(&mut self, op: Binary) {
        match op {
            Binary::Add => self.sink.f64_add(),
            Binary::Sub => self.sink.f64_sub(),
            Binary::Mul => self.sink.f64_mul(),
            Binary::Div => self.sink.f64_div(),
            Binary::Min => self.sink.f64_min(),
            Binary::Max => self.sink.f64_max(),
            Binary::CopySign => {
                self.canonical();
                self.sink.f64_copysign()
            }
            Binary::Eq => self.sink.f64_eq(),
            Binary::Ne => self.sink.f64_ne(),
            Binary::Lt => self.sink.f64_lt(),
            Binary::Le => self.sink.f64_le(),
            Binary::Gt => self.sink.f64_gt(),
            Binary::Ge => self.sink.f64_ge(),
            // Not in the form for f64; the parser and the graph never make them.
            Binary::Rem | Binary::And | Binary::Or | Binary::Xor | Binary::Shl | Binary::ShrS | Binary::ShrU => {
                self.sink.unreachable()
            }
        };
    }

    fn binary_i64(&mut self, op: Binary) {
        match op {
            Binary::Add => self.sink.i64_add(),
            Binary::Sub => self.sink.i64_sub(),
            Binary::Mul => self.sink.i64_mul(),
            Binary::Div => self.sink.i64_div_s(),
            Binary::Rem => self.sink.i64_rem_s(),
            Binary::And => self.sink.i64_and(),
            Binary::Or => self.sink.i64_or(),
            Binary::Xor => self.sink.i64_xor(),
            Binary::Shl => self.sink.i64_shl(),
            Binary::ShrS => self.sink.i64_shr_s(),
            Binary::ShrU => self.sink.i64_shr_u(),
            Binary::Eq => self.sink.i64_eq(),
            Binary::Ne => self.sink.i64_ne(),
            Binary::Lt => self.sink.i64_lt_s(),
            Binary::Le => self.sink.i64_le_s(),
            Binary::Gt => self.sink.i64_gt_s(),
            Binary::Ge => self.sink.i64_ge_s(),
            Binary::Min | Binary::Max | Binary::CopySign => self.sink.unreachable(),
        };
    }

    fn binary_i32(&mut self, op: Binary) {
        match op {
            Binary::Add => self.sink.i32_add(),
            Binary::Sub => self.sink.i32_sub(),
            Binary::Mul => self.sink.i32_mul(),
            Binary::Div => self.sink.i32_div_s(),
            Binary::Rem => self.sink.i32_rem_s(),
            Binary::And => self.sink.i32_and(),
            Binary::Or => self.sink.i32_or(),
            Binary::Xor => self.sink.i32_xor(),
            Binary::Shl => self.sink.i32_shl(),
            Binary::ShrS => self.sink.i32_shr_s(),
            Binary::ShrU => self.sink.i32_shr_u(),
            Binary::Eq => self.sink.i32_eq(),
            Binary::Ne => self.sink.i32_ne(),
            Binary::Lt => self.sink.i32_lt_s(),
            Binary::Le => self.sink.i32_le_s(),
            Binary::Gt => self.sink.i32_gt_s(),
            Binary::Ge => self.sink.i32_ge_s(),
            Binary::Min | Binary::Max | Binary::CopySign => self.sink.unreachable(),
        };
    }
}

fn memarg(offset: u32, align: u32) -> MemArg {
    MemArg {
        offset: u64::from(offset),
        align,
        memory_index: 0,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::kernel::parse::parse;

    #[test]
    fn the_sign_of_a_nan_does_not_show() {
        let mut program = Program::default();
        let text = "fn sign(x: f64) -> f64 { return copysign(1.0, sqrt(x)); }\
                    fn high(x: f64) -> f64 { return f64_of_long(bits(sqrt(x)) >> 32); }";
        parse(&mut program, text, &HashMap::new()).unwrap();
        let names = ["sign", "high"];
        let exports = names.map(|name| (name, program.index(name).unwrap()));
        let wasm = print(&program, &exports, 1, "test", &[]).unwrap();
        let engine = wasmtime::Engine::default();
        let module = wasmtime::Module::new(&engine, &wasm).unwrap();
        let mut store = wasmtime::Store::new(&engine, ());
        let instance = wasmtime::Instance::new(&mut store, &module, &[]).unwrap();
        let mut call = |name: &str, x: f64| {
            let function = instance.get_typed_func::<f64, f64>(&mut store, name).unwrap();
            function.call(&mut store, x).unwrap()
        };
        // x86-64 makes a negative NaN of √−1, other hosts a positive one.
        for x in [-1.0, f64::NAN, -f64::NAN] {
            assert_eq!(call("sign", x), 1.0);
            assert_eq!(call("high", x), f64::from(0x7ff8_0000));
        }
        assert_eq!(call("sign", 4.0), 1.0);
        assert_eq!(call("high", 4.0), f64::from(0x4000_0000));
    }
}
