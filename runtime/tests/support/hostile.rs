//! Modules written by hand that do what no compiled model does.
#![allow(dead_code)]

use orrery_lang::{Compiled, Meta, Var, abi};
use wasm_encoder::{
    CodeSection, EntityType, ExportKind, ExportSection, Function, FunctionSection, ImportSection, Instruction as I,
    MemorySection, MemoryType, Module, StartSection, TypeSection, ValType,
};

/// A module whose `solve` is this body.
pub fn module(body: &[I<'_>], import: bool) -> Compiled {
    build(body, import, 1, false)
}

/// As [`module`], with this much memory from the start, and the body as a start function too.
pub fn build(body: &[I<'_>], import: bool, pages: u64, at_start: bool) -> Compiled {
    let mut module = Module::new();
    let mut types = TypeSection::new();
    types.ty().function([ValType::I32], [ValType::I32]);
    types.ty().function([], []);
    module.section(&types);
    if import {
        let mut imports = ImportSection::new();
        imports.import("env", "launch", EntityType::Function(0));
        module.section(&imports);
    }
    let mut functions = FunctionSection::new();
    functions.function(0);
    functions.function(1);
    module.section(&functions);
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: pages,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    module.section(&memories);
    let mut exports = ExportSection::new();
    exports.export(abi::MEMORY, ExportKind::Memory, 0);
    exports.export(abi::SOLVE, ExportKind::Func, u32::from(import));
    module.section(&exports);
    if at_start {
        module.section(&StartSection {
            function_index: 1 + u32::from(import),
        });
    }
    let mut code = CodeSection::new();
    let mut function = Function::new([]);
    body.iter().for_each(|instruction| {
        function.instruction(instruction);
    });
    function.instruction(&I::End);
    code.function(&function);
    let mut start = Function::new([]);
    start.instruction(&I::I32Const(0));
    start.instruction(&I::Call(u32::from(import)));
    start.instruction(&I::Drop);
    start.instruction(&I::End);
    code.function(&start);
    module.section(&code);
    let meta = Meta {
        abi: abi::ABI,
        compiler: "hand".into(),
        model: "Hostile".into(),
        description: String::new(),
        file: "hostile.mo".into(),
        lanes: 1,
        states: vec![],
        inputs: vec![],
        outputs: vec![],
        columns: vec![Var {
            name: "x".into(),
            ..Var::default()
        }],
        parameters: vec![],
        context_bytes: 1024,
        persistent: 512..600,
        second_derivatives: false,
        checkpoint: 512..600,
        memory: 0,
        starts_at: 600,
        equations: vec![],
    };
    Compiled {
        wasm: module.finish(),
        digest: [0; 32],
        meta,
    }
}
