//! Nanoseconds a step in the sandbox beside the same algorithm written by hand in Rust, in one run, and the time from
//! text to a module.
//!
//! `cargo bench -p orrery-lang --bench solve`. The throughput is in steps, so the time per element is that of one step.

use std::hint::black_box;

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use orrery_lang::abi::{self, CONTEXT_BASE, Initialise, InputMode, InputTable, Layout, Method, Plan};
use orrery_lang::{Compiled, Options, compile};
use wasmtime::{Engine, Instance, Module, Store, TypedFunc};

const LOTKA_VOLTERRA: &str = include_str!("../tests/models/lotka_volterra.mo");
const TCLAB: &str = include_str!("../../../deploy/models/tclab.mo");
const ROBERTSON: &str = include_str!("../../../deploy/models/robertson.mo");
const VAN_DER_POL: &str = include_str!("../../../deploy/models/van_der_pol.mo");
const SPM: &str = include_str!("../../../deploy/models/spm.mo");
const STEPS: u32 = 10_000;

struct Machine {
    store: Store<()>,
    solve: TypedFunc<u32, u32>,
    instance: Instance,
    compiled: Compiled,
}

impl Machine {
    fn new(source: &str, plan: &Plan) -> Machine {
        let compiled = compile(source, "bench.mo", &Options::default()).expect("a valid model");
        let engine = Engine::default();
        let module = Module::new(&engine, &compiled.wasm).expect("a valid module");
        let mut store = Store::new(&engine, ());
        let instance = Instance::new(&mut store, &module, &[]).expect("no imports");
        let memory = instance.get_memory(&mut store, abi::MEMORY).expect("memory");
        let solve = instance.get_typed_func(&mut store, abi::SOLVE).expect("solve");
        let wanted = Layout::for_plan(&compiled.meta, plan).pages(CONTEXT_BASE);
        let present = memory.size(&store);
        memory.grow(&mut store, wanted.saturating_sub(present)).expect("memory");
        abi::write_plan(memory.data_mut(&mut store), CONTEXT_BASE, &compiled.meta, plan).expect("a good plan");
        Machine {
            store,
            solve,
            instance,
            compiled,
        }
    }

    fn steps(&mut self) -> u64 {
        assert_eq!(self.solve.call(&mut self.store, CONTEXT_BASE).expect("no trap"), 0);
        let memory = self.instance.get_memory(&mut self.store, abi::MEMORY).expect("memory");
        let status = abi::read_status(memory.data(&self.store), CONTEXT_BASE, &self.compiled.meta);
        status.steps + status.rejected
    }
}

fn one_tick(seconds: i64, method: Method) -> Plan {
    Plan {
        tick_nanos: seconds * 1_000_000_000,
        ticks: 1,
        method,
        rtol: 1e-8,
        atol: 1e-8,
        initialise: Some(Initialise::default()),
        ..Plan::default()
    }
}

fn measure(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, source: &str, plan: &Plan) {
    let mut machine = Machine::new(source, plan);
    group.throughput(Throughput::Elements(machine.steps()));
    group.bench_function(name, |bencher| bencher.iter(|| black_box(machine.steps())));
}

/// The classical method by hand, as one would write it without a compiler for models.
fn rk4<const N: usize>(mut y: [f64; N], h: f64, steps: u32, f: impl Fn(&[f64; N]) -> [f64; N]) -> [f64; N] {
    let along = |y: &[f64; N], k: &[f64; N], h: f64| std::array::from_fn(|i| y[i] + h * k[i]);
    for _ in 0..steps {
        let k1 = f(&y);
        let k2 = f(&along(&y, &k1, 0.5 * h));
        let k3 = f(&along(&y, &k2, 0.5 * h));
        let k4 = f(&along(&y, &k3, h));
        y = std::array::from_fn(|i| y[i] + h / 6.0 * (k1[i] + 2.0 * k2[i] + 2.0 * k3[i] + k4[i]));
    }
    y
}

/// Tsitouras 5(4) by hand, with the same controller.
fn tsit5<const N: usize>(
    mut y: [f64; N],
    end: f64,
    tolerance: f64,
    f: impl Fn(&[f64; N]) -> [f64; N],
) -> ([f64; N], u64) {
    const A: [&[f64]; 6] = [
        &[0.161],
        &[-0.008480655492356989, 0.335480655492357],
        &[2.8971530571054935, -6.359448489975075, 4.3622954328695815],
        &[
            5.325864828439257,
            -11.748883564062828,
            7.4955393428898365,
            -0.09249506636175525,
        ],
        &[
            5.86145544294642,
            -12.92096931784711,
            8.159367898576159,
            -0.071584973281401,
            -0.028269050394068383,
        ],
        &[
            0.09646076681806523,
            0.01,
            0.4798896504144996,
            1.379008574103742,
            -3.290069515436081,
            2.324710524099774,
        ],
    ];
    const E: [f64; 7] = [
        -0.001_780_011_052_225_777,
        -0.0008164344596567469,
        0.007880878010261995,
        -0.1447110071732629,
        0.5823571654525552,
        -0.45808210592918697,
        0.015151515151515152,
    ];
    let (mut t, mut h, mut old, mut steps) = (0.0_f64, 1e-3_f64, 1e-4_f64, 0);
    let mut k = [[0.0; N]; 7];
    k[0] = f(&y);
    while t < end {
        steps += 1;
        let step = h.min(end - t);
        let mut next = y;
        for (stage, row) in A.iter().enumerate() {
            next = std::array::from_fn(|i| y[i] + step * row.iter().zip(&k).map(|(a, k)| a * k[i]).sum::<f64>());
            k[stage + 1] = f(&next);
        }
        let mut sum = 0.0;
        for i in 0..N {
            let e = step * E.iter().zip(&k).map(|(e, k)| e * k[i]).sum::<f64>();
            sum += (e / (tolerance + tolerance * y[i].abs().max(next[i].abs()))).powi(2);
        }
        let error = (sum / N as f64).sqrt().max(1e-4);
        if error <= 1.0 {
            t += step;
            y = next;
            k[0] = k[6];
            h = step / (error.powf(0.17) * old.powf(-0.04) / 0.9).clamp(0.1, 5.0);
            old = error;
        } else {
            h = step / (error.powf(0.17) / 0.9).clamp(1.1, 5.0);
        }
    }
    (y, steps)
}

fn prey(y: &[f64; 2]) -> [f64; 2] {
    let [a, b, c, d] = black_box([1.5, 1.0, 1.0, 1.0]);
    [a * y[0] - b * y[0] * y[1], d * y[0] * y[1] - c * y[1]]
}

/// The equations of tclab.mo as one would write them by hand: the heaters' temperatures as states.
fn board(y: &[f64; 4], q: [f64; 2], ambient: f64) -> [f64; 4] {
    let fourth = |x: f64| (x * x) * (x * x);
    let radiation = 0.9 * 5.67e-8;
    let (k1, k2, k0) = (y[0] + 273.15, y[1] + 273.15, ambient + 273.15);
    let exchange = 3.0054e-3 * (y[1] - y[0]) + radiation * 2e-4 * (fourth(k2) - fourth(k1));
    let loss = |u: f64, heater: f64, k: f64| u * (heater - ambient) + radiation * 1e-3 * (fourth(k) - fourth(k0));
    [
        (6.7207e-3 * q[0] - loss(3.7134e-3, y[0], k1) + exchange) / 1.6024,
        (4.6143e-3 * q[1] - loss(6.6842e-3, y[1], k2) - exchange) / 1.5104,
        (y[0] - y[2]) / 44.486,
        (y[1] - y[3]) / 44.486,
    ]
}

fn lotka_volterra(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lotka-volterra rk4");
    measure(
        &mut group,
        "sandbox",
        LOTKA_VOLTERRA,
        &one_tick(100, Method::Rk4 { steps_per_tick: STEPS }),
    );
    group.throughput(Throughput::Elements(u64::from(STEPS)));
    group.bench_function("native", |bencher| {
        bencher.iter(|| rk4(black_box([1.0, 1.0]), 0.01, STEPS, prey))
    });
    group.finish();
    let mut group = criterion.benchmark_group("lotka-volterra tsit5 1e-8");
    measure(&mut group, "sandbox", LOTKA_VOLTERRA, &one_tick(100, Method::Tsit5));
    group.throughput(Throughput::Elements(tsit5([1.0, 1.0], 100.0, 1e-8, prey).1));
    group.bench_function("native", |bencher| {
        bencher.iter(|| tsit5(black_box([1.0, 1.0]), 100.0, 1e-8, prey))
    });
    group.finish();
}

fn tclab(criterion: &mut Criterion) {
    let hold = |value| InputTable {
        mode: InputMode::Hold,
        knots: vec![(0, value)],
    };
    let inputs = vec![hold(50.0), hold(30.0), hold(25.0)];
    let plan = Plan {
        inputs,
        ..one_tick(1000, Method::Rk4 { steps_per_tick: STEPS })
    };
    let mut group = criterion.benchmark_group("tclab rk4");
    measure(&mut group, "sandbox", TCLAB, &plan);
    group.bench_function("native", |bencher| {
        bencher.iter(|| {
            let (q, ambient) = black_box(([50.0, 30.0], 25.0));
            rk4(black_box([25.0; 4]), 0.1, STEPS, |y| board(y, q, ambient))
        })
    });
    group.finish();
}

fn text_to_module(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("text to module");
    for (name, source) in [("lotka-volterra", LOTKA_VOLTERRA), ("tclab", TCLAB)] {
        group.bench_function(format!("{name}, compile"), |bencher| {
            bencher.iter(|| {
                compile(black_box(source), "bench.mo", &Options::default()).map(|compiled| compiled.wasm.len())
            })
        });
        let compiled = compile(source, "bench.mo", &Options::default()).expect("a valid model");
        let engine = Engine::default();
        group.bench_function(format!("{name}, cranelift"), |bencher| {
            bencher.iter(|| Module::new(&engine, black_box(&compiled.wasm)).expect("a valid module"))
        });
    }
    group.finish();
}

/// A ring of `cells` with one parameter each: Lotka–Volterra's size for 10, that of a discretised cell for 1,000.
fn ring(cells: u32) -> String {
    format!(
        "model Ring parameter Real k[{cells}] = {{0.5 + 0.001*i for i in 1:{cells}}};\
         Real x[{cells}](start={{1.0 + 0.01*i for i in 1:{cells}}}, each fixed=true);\
         equation for i in 1:{cells} loop der(x[i]) = k[i]*(x[if i > 1 then i - 1 else {cells}] - x[i]) - 0.1*x[i]^2; end for; end Ring;"
    )
}

/// A solve alone, and a solve with its tape and the reverse pass.
fn gradient(criterion: &mut Criterion) {
    let (explicit, stiff) = ([Method::Tsit5], [Method::Rodas5p, Method::Esdirk]);
    let cases: [(&str, String, i64, &[Method]); 7] = [
        ("lotka-volterra", LOTKA_VOLTERRA.to_string(), 10, &explicit),
        ("ring of 10", ring(10), 10, &explicit),
        ("ring of 100", ring(100), 10, &explicit),
        ("ring of 1000", ring(1000), 10, &explicit),
        ("robertson", ROBERTSON.to_string(), 400_000, &stiff),
        ("van der pol", VAN_DER_POL.to_string(), 2000, &stiff),
        ("single particle", SPM.to_string(), 1200, &stiff),
    ];
    let runs = cases.iter().flat_map(|(name, source, seconds, methods)| {
        methods.iter().map(move |method| (name, source, *seconds, *method))
    });
    for (name, source, seconds, method) in runs {
        let mut group = criterion.benchmark_group(format!("{name}, {method:?} 1e-8"));
        group.sample_size(20);
        let plan = one_tick(seconds, method);
        let mut machine = Machine::new(source, &plan);
        group.bench_function("value", |bencher| bencher.iter(|| black_box(machine.steps())));
        let plan = Plan {
            tape_bytes: 1 << 26,
            ..plan
        };
        let mut machine = Machine::new(source, &plan);
        let meta = machine.compiled.meta.clone();
        let layout = Layout::for_plan(&meta, &plan);
        let seeds = abi::Seeds {
            rows: vec![1.0],
            last: Vec::new(),
        };
        group.bench_function("value and gradient", |bencher| {
            bencher.iter(|| {
                let memory = machine
                    .instance
                    .get_memory(&mut machine.store, abi::MEMORY)
                    .expect("memory");
                let data = memory.data_mut(&mut machine.store);
                abi::write_plan(data, CONTEXT_BASE, &meta, &plan).expect("a good plan");
                black_box(machine.steps());
                let data = memory.data_mut(&mut machine.store);
                abi::write_seeds(data, CONTEXT_BASE, &meta, &layout, &seeds).expect("seeds");
                assert_eq!(
                    machine.solve.call(&mut machine.store, CONTEXT_BASE).expect("no trap"),
                    0
                );
                abi::read_gradient(memory.data(&machine.store), CONTEXT_BASE, &meta, &plan, &layout)
            })
        });
        group.finish();
    }
    // An edit of a model until its first gradient: compiled, made machine code, solved, derived.
    let mut group = criterion.benchmark_group("text to gradient");
    for (name, source) in [("lotka-volterra", LOTKA_VOLTERRA), ("tclab", TCLAB)] {
        let plan = Plan {
            tape_bytes: 1 << 20,
            ..one_tick(10, Method::Tsit5)
        };
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut machine = Machine::new(black_box(source), &plan);
                machine.steps();
                let meta = machine.compiled.meta.clone();
                let layout = Layout::for_plan(&meta, &plan);
                let seeds = abi::Seeds {
                    rows: vec![1.0],
                    last: Vec::new(),
                };
                let memory = machine
                    .instance
                    .get_memory(&mut machine.store, abi::MEMORY)
                    .expect("memory");
                let data = memory.data_mut(&mut machine.store);
                abi::write_seeds(data, CONTEXT_BASE, &meta, &layout, &seeds).expect("seeds");
                assert_eq!(
                    machine.solve.call(&mut machine.store, CONTEXT_BASE).expect("no trap"),
                    0
                );
            })
        });
    }
    group.finish();
}

criterion_group!(benches, lotka_volterra, tclab, gradient, text_to_module);
criterion_main!(benches);
