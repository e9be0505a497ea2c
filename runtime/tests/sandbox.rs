//! Whatever a module does, the host gets a value back.
#![allow(clippy::unwrap_used)] // Helpers of tests; a failed unwrap is a failed test.

use orrery_lang::{Compiled, Meta, Var, abi};
use orrery_runtime::config::EngineKind;
use orrery_runtime::graph::Limits;
use orrery_runtime::node::{Knots, Node, TickPlan};
use orrery_runtime::{Engine, NodeError};
use wasm_encoder::{
    CodeSection, EntityType, ExportKind, ExportSection, Function, FunctionSection, ImportSection, Instruction as I,
    MemorySection, MemoryType, Module, TypeSection, ValType,
};

/// A module whose `solve` is this body.
fn module(body: &[I<'_>], import: bool) -> Compiled {
    let mut module = Module::new();
    let mut types = TypeSection::new();
    types.ty().function([ValType::I32], [ValType::I32]);
    module.section(&types);
    if import {
        let mut imports = ImportSection::new();
        imports.import("env", "launch", EntityType::Function(0));
        module.section(&imports);
    }
    let mut functions = FunctionSection::new();
    functions.function(0);
    module.section(&functions);
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: 1,
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
    let mut code = CodeSection::new();
    let mut function = Function::new([]);
    body.iter().for_each(|instruction| {
        function.instruction(instruction);
    });
    function.instruction(&I::End);
    code.function(&function);
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
        starts_at: 600,
        equations: vec![],
    };
    Compiled {
        wasm: module.finish(),
        digest: [0; 32],
        meta,
    }
}

fn run(compiled: &Compiled, kind: EngineKind, limits: Limits) -> Result<Vec<f64>, NodeError> {
    let engine = Engine::new(kind).unwrap();
    let mut node = engine.load(compiled)?.node(limits)?;
    node.advance(&TickPlan {
        origin_nanos: 0,
        first_tick: 0,
        ticks: 1,
        tick_nanos: 100_000_000,
        inputs: Vec::<Knots>::new(),
    })
}

const BOTH: [EngineKind; 2] = [EngineKind::Cranelift, EngineKind::Pulley];

#[test]
fn an_endless_loop_ends_at_the_deadline() {
    let endless = module(
        &[
            I::Loop(wasm_encoder::BlockType::Empty),
            I::Br(0),
            I::End,
            I::I32Const(0),
        ],
        false,
    );
    for kind in BOTH {
        let limits = Limits {
            deadline_ms: 50,
            ..Limits::default()
        };
        assert_eq!(
            run(&endless, kind, limits),
            Err(NodeError::Deadline { deadline_ms: 50 })
        );
    }
}

#[test]
fn memory_beyond_the_limit_is_not_given() {
    // Grows by 64 KiB until refused, then returns 7: growth fails inside the guest, the host stays whole.
    let hungry = module(
        &[
            I::Loop(wasm_encoder::BlockType::Empty),
            I::I32Const(1),
            I::MemoryGrow(0),
            I::I32Const(-1),
            I::I32Ne,
            I::BrIf(0),
            I::End,
            I::I32Const(7),
        ],
        false,
    );
    for kind in BOTH {
        let limits = Limits {
            memory_mib: 2,
            ..Limits::default()
        };
        assert!(matches!(run(&hungry, kind, limits), Err(NodeError::Numerical { .. })));
    }
}

#[test]
fn a_plan_that_needs_more_memory_than_granted_says_so() {
    let idle = module(&[I::I32Const(0)], false);
    let engine = Engine::new(EngineKind::Cranelift).unwrap();
    let mut node = engine
        .load(&idle)
        .unwrap()
        .node(Limits {
            memory_mib: 1,
            ..Limits::default()
        })
        .unwrap();
    let plan = TickPlan {
        origin_nanos: 0,
        first_tick: 0,
        ticks: 10_000_000,
        tick_nanos: 1_000_000,
        inputs: vec![],
    };
    assert_eq!(node.advance(&plan), Err(NodeError::Memory { limit_mib: 1 }));
}

#[test]
fn a_trap_an_import_and_a_lie_are_values() {
    let trap = module(&[I::Unreachable], false);
    let import = module(&[I::I32Const(0)], true);
    let lie = module(&[I::I32Const(0)], false);
    for kind in BOTH {
        assert!(matches!(run(&trap, kind, Limits::default()), Err(NodeError::Trap(_))));
        let error = run(&import, kind, Limits::default()).unwrap_err();
        assert!(error.to_string().contains("env.launch"), "{error}");
        let error = run(&lie, kind, Limits::default()).unwrap_err();
        assert!(error.to_string().contains("0 of 1 rows"), "{error}");
    }
}

#[test]
fn endless_recursion_is_a_trap() {
    let deep = module(&[I::LocalGet(0), I::Call(0)], false);
    for kind in BOTH {
        assert!(matches!(run(&deep, kind, Limits::default()), Err(NodeError::Trap(_))));
    }
}

#[test]
fn foreign_bytes_are_refused() {
    let mut broken = module(&[I::I32Const(0)], false);
    broken.wasm.truncate(20);
    assert!(matches!(
        run(&broken, EngineKind::Cranelift, Limits::default()),
        Err(NodeError::Abi(_))
    ));
    broken.meta.abi = 99;
    assert!(matches!(
        run(&broken, EngineKind::Cranelift, Limits::default()),
        Err(NodeError::Abi(_))
    ));
}
