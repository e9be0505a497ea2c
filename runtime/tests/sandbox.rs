//! Whatever a module does, the host gets a value back.
#![allow(clippy::unwrap_used)] // Helpers of tests; a failed unwrap is a failed test.

#[path = "support/hostile.rs"]
mod hostile;

use hostile::module;
use orrery_lang::Compiled;
use orrery_runtime::config::EngineKind;
use orrery_runtime::graph::Limits;
use orrery_runtime::node::{Knots, Node, TickPlan};
use orrery_runtime::{Engine, NodeError};
use wasm_encoder::Instruction as I;

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
