//! One RK4 step of a two-heater energy balance: in the sandbox, and as plain Rust beside it.
//!
//! `cargo bench -p orrery-runtime --bench step`. Both run 10,000 steps a call, so the figure per element is one step.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use orrery_lang::abi::{self, InputTable, Method, Plan};
use orrery_lang::{Options, compile};
use std::hint::black_box;

const STEPS: u32 = 10_000;
const TICK_NANOS: i64 = 100_000_000;

const MODEL: &str = r#"
model Board
  input Real q1(unit = "%", start = 0);
  input Real q2(unit = "%", start = 0);
  output Real h1(start = 296, fixed = true);
  output Real h2(start = 296, fixed = true);
  output Real s1(start = 296, fixed = true);
  output Real s2(start = 296, fixed = true);
equation
  der(h1) = (5.0 * (296.0 - h1) + 4.8e-11 * 1.0e1 * (296.0 ^ 4 - h1 ^ 4) + 2.4 * (h2 - h1) + 0.01 * 100.0 * q1) / 2000.0;
  der(h2) = (5.0 * (296.0 - h2) + 4.8e-11 * 1.0e1 * (296.0 ^ 4 - h2 ^ 4) + 2.4 * (h1 - h2) + 0.0075 * 100.0 * q2) / 2000.0;
  der(s1) = (h1 - s1) / 20.0;
  der(s2) = (h2 - s2) / 20.0;
end Board;
"#;

fn derivative(y: &[f64; 4], q1: f64, q2: f64) -> [f64; 4] {
    let fourth = |x: f64| (x * x) * (x * x);
    let [h1, h2, s1, s2] = *y;
    [
        (5.0 * (296.0 - h1) + 4.8e-11 * 1.0e1 * (fourth(296.0) - fourth(h1)) + 2.4 * (h2 - h1) + 0.01 * 100.0 * q1)
            / 2000.0,
        (5.0 * (296.0 - h2) + 4.8e-11 * 1.0e1 * (fourth(296.0) - fourth(h2)) + 2.4 * (h1 - h2) + 0.0075 * 100.0 * q2)
            / 2000.0,
        (h1 - s1) / 20.0,
        (h2 - s2) / 20.0,
    ]
}

/// As the module does: a row a step, so that both write the same amount of memory.
fn native(rows: &mut Vec<[f64; 4]>, q1: f64, q2: f64) -> [f64; 4] {
    let h = TICK_NANOS as f64 / 1e9;
    let mut y = [296.0; 4];
    rows.clear();
    for _ in 0..STEPS {
        let add = |k: &[f64; 4], c: f64| std::array::from_fn(|i| y[i] + c * k[i]);
        let k1 = derivative(&y, q1, q2);
        let k2 = derivative(&add(&k1, 0.5 * h), q1, q2);
        let k3 = derivative(&add(&k2, 0.5 * h), q1, q2);
        let k4 = derivative(&add(&k3, h), q1, q2);
        y = std::array::from_fn(|i| y[i] + h / 6.0 * (k1[i] + 2.0 * k2[i] + 2.0 * k3[i] + k4[i]));
        rows.push(y);
    }
    y
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("rk4_step");
    group.throughput(Throughput::Elements(u64::from(STEPS)));

    let mut rows = Vec::with_capacity(STEPS as usize);
    let expected = native(&mut rows, 40.0, 20.0);
    group.bench_function("native", |b| {
        b.iter(|| native(&mut rows, black_box(40.0), black_box(20.0)))
    });

    let compiled = compile(MODEL, "board.mo", &Options::default()).expect("the model above is valid");
    let meta = &compiled.meta;
    let hold = |value: f64| InputTable {
        mode: Default::default(),
        knots: vec![(0, value)],
    };
    let plan = Plan {
        tick_nanos: TICK_NANOS,
        ticks: STEPS,
        inputs: vec![hold(40.0), hold(20.0)],
        method: Method::Rk4 { steps_per_tick: 1 },
        initialise: Some(Default::default()),
        ..Plan::default()
    };
    let engine = wasmtime::Engine::default();
    let module = wasmtime::Module::new(&engine, &compiled.wasm).expect("the compiler emits valid modules");
    let mut store = wasmtime::Store::new(&engine, ());
    let instance = wasmtime::Instance::new(&mut store, &module, &[]).expect("no imports");
    let memory = instance.get_memory(&mut store, abi::MEMORY).expect("exported");
    let solve = instance
        .get_typed_func::<i32, i32>(&mut store, abi::SOLVE)
        .expect("exported");
    let context = abi::CONTEXT_BASE;
    let pages = abi::Layout::for_plan(meta, &plan).pages(context);
    memory.grow(&mut store, pages).expect("memory for one plan");
    let layout = abi::write_plan(memory.data_mut(&mut store), context, meta, &plan).expect("a plan that fits");
    assert_eq!(solve.call(&mut store, context as i32).expect("no trap"), 0);
    let rows = abi::read_outputs(memory.data(&store), context, meta, &layout);
    let last = rows.row(rows.times.len() - 1);
    for (name, expected) in ["h1", "h2", "s1", "s2"].iter().zip(expected) {
        let value = last[meta.column(name).expect("declared above")];
        assert!(
            (value - expected).abs() < 1e-9,
            "{name}: {value} in the sandbox, {expected} native"
        );
    }
    group.bench_function("wasm", |b| {
        b.iter(|| solve.call(&mut store, black_box(context as i32)).expect("no trap"))
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
