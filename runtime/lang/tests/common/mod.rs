//! Runs compiled modules under wasmtime.
#![allow(dead_code)]

pub mod jet;

use orrery_lang::abi::{self, Gradient, Initialise, Layout, Plan, Rows, Seeds, Status};
use orrery_lang::{Compiled, Diagnostic, Options, compile};
use wasmtime::{Config, Engine, Instance, Memory, Module, Store, TypedFunc};

pub const CTX: u32 = abi::CONTEXT_BASE;

pub fn build(source: &str) -> Compiled {
    build_with(source, &Options::default())
}

pub fn build_with(source: &str, options: &Options) -> Compiled {
    match compile(source, "test.mo", options) {
        Ok(compiled) => compiled,
        Err(errors) => panic!("{}", render(&errors)),
    }
}

pub fn errors(source: &str) -> Vec<Diagnostic> {
    match compile(source, "test.mo", &Options::default()) {
        Ok(_) => panic!("this compiles and should not:\n{source}"),
        Err(errors) => errors,
    }
}

pub fn render(errors: &[Diagnostic]) -> String {
    errors.iter().map(Diagnostic::render).collect()
}

pub fn cranelift() -> Engine {
    Engine::default()
}

pub fn pulley() -> Engine {
    let mut config = Config::new();
    config.target("pulley64").expect("pulley is built in");
    Engine::new(&config).expect("an engine")
}

pub struct Machine {
    pub compiled: Compiled,
    pub store: Store<()>,
    pub memory: Memory,
    pub instance: Instance,
    solve: TypedFunc<u32, u32>,
}

impl Machine {
    pub fn new(source: &str) -> Machine {
        Machine::on(&cranelift(), build(source))
    }

    pub fn on(engine: &Engine, compiled: Compiled) -> Machine {
        let module = Module::new(engine, &compiled.wasm).expect("a valid module");
        let mut store = Store::new(engine, ());
        let instance = Instance::new(&mut store, &module, &[]).expect("a module without imports");
        let memory = instance.get_memory(&mut store, abi::MEMORY).expect("the memory");
        let solve = instance.get_typed_func(&mut store, abi::SOLVE).expect("solve");
        Machine {
            compiled,
            store,
            memory,
            instance,
            solve,
        }
    }

    pub fn write(&mut self, plan: &Plan) -> Layout {
        let layout = Layout::for_plan(&self.compiled.meta, plan);
        let wanted = layout.pages(CTX);
        let present = self.memory.size(&self.store);
        if wanted > present {
            self.memory.grow(&mut self.store, wanted - present).expect("memory");
        }
        abi::write_plan(self.memory.data_mut(&mut self.store), CTX, &self.compiled.meta, plan).expect("a good plan")
    }

    pub fn run(&mut self, plan: &Plan) -> (Status, Rows) {
        let layout = self.write(plan);
        let code = self.solve.call(&mut self.store, CTX).expect("no trap");
        let data = self.memory.data(&self.store);
        let status = abi::read_status(data, CTX, &self.compiled.meta);
        assert_eq!(abi::Code::from_raw(code), status.code);
        (status, abi::read_outputs(data, CTX, &self.compiled.meta, &layout))
    }

    pub fn call(&mut self) {
        self.solve.call(&mut self.store, CTX).expect("no trap");
    }

    pub fn good(&mut self, plan: &Plan) -> Rows {
        let (status, rows) = self.run(plan);
        assert_eq!(status.code, abi::Code::Ok, "{:?}", status.describe(&self.compiled.meta));
        rows
    }

    pub fn snapshot(&self) -> Vec<u8> {
        abi::snapshot(self.memory.data(&self.store), CTX, &self.compiled.meta)
    }

    pub fn restore(&mut self, bytes: &[u8]) {
        abi::restore(self.memory.data_mut(&mut self.store), CTX, &self.compiled.meta, bytes)
            .expect("a snapshot of this model");
    }
}

/// From 0 to `seconds` in one tick with `rows` rows and the start.
pub fn until(seconds: f64, rows: u32) -> Plan {
    Plan {
        tick_nanos: (seconds * 1e9).round() as i64,
        ticks: 1,
        rows_per_tick: rows,
        first_row: true,
        initialise: Some(Initialise::default()),
        ..Plan::default()
    }
}

/// Bits of all rows, for equality without tolerance.
pub fn bits(rows: &Rows) -> Vec<u64> {
    rows.times
        .iter()
        .chain(&rows.values)
        .map(|value| value.to_bits())
        .collect()
}

/// The values at the end of a run from 0 to `seconds`, by name.
pub fn final_values(source: &str, seconds: f64) -> std::collections::BTreeMap<String, f64> {
    let mut machine = Machine::new(source);
    let plan = Plan {
        rtol: 1e-9,
        atol: 1e-12,
        ..until(seconds, 1)
    };
    let rows = machine.good(&plan);
    let names = machine.compiled.meta.columns.iter().map(|column| column.name.clone());
    let last = rows.row(rows.times.len() - 1);
    names.zip(last.iter().copied()).collect()
}

/// A value and its gradient by both sweeps.
pub struct Sweeps {
    pub value: f64,
    pub gradient: Gradient,
    /// Parameters, states and memory, knots: by the reverse sweep, then by the forward one.
    pub reverse: Vec<f64>,
    pub forward: Vec<f64>,
    pub status: Status,
}

/// `column` at the last row, with its gradient.
pub fn sweeps(machine: &mut Machine, plan: &Plan, column: &str) -> Sweeps {
    let mut plan = Plan {
        tape_bytes: 1 << 22,
        ..plan.clone()
    };
    let (mut status, mut rows) = machine.run(&plan);
    if status.code == abi::Code::TapeFull {
        plan.tape_bytes = u32::try_from(status.tape_needed).expect("a tape that fits");
        (status, rows) = machine.run(&plan);
    }
    let meta = machine.compiled.meta.clone();
    assert_eq!(status.code, abi::Code::Ok, "{:?}", status.describe(&meta));
    let column = meta.column(column).expect("a column");
    let layout = abi::Layout::for_plan(&meta, &plan);
    let mut seeds = vec![0.0; rows.values.len()];
    let last = rows.times.len() - 1;
    seeds[last * rows.columns + column] = 1.0;
    let seeds = Seeds {
        rows: seeds,
        last: Vec::new(),
    };
    abi::write_seeds(machine.memory.data_mut(&mut machine.store), CTX, &meta, &layout, &seeds).expect("seeds");
    machine.call();
    let data = machine.memory.data(&machine.store);
    let swept = abi::read_status(data, CTX, &meta);
    assert_eq!(swept.code, abi::Code::Ok, "{:?}", swept.describe(&meta));
    let gradient = abi::read_gradient(data, CTX, &meta, &plan, &layout);
    let inputs = gradient.inputs.iter().flatten();
    let reverse: Vec<f64> = gradient
        .parameters
        .iter()
        .chain(&gradient.states)
        .chain(inputs)
        .copied()
        .collect();
    let (parameters, carried) = (meta.parameters.len(), meta.carried() as usize);
    let mut forward = Vec::new();
    for chosen in 0..reverse.len() {
        let mut unit = vec![0.0; reverse.len()];
        unit[chosen] = 1.0;
        let mut inputs = unit.split_off(parameters + carried);
        let states = unit.split_off(parameters);
        let split = |table: &abi::InputTable| inputs.drain(..table.knots.len()).collect();
        let direction = Gradient {
            inputs: plan.inputs.iter().map(split).collect(),
            parameters: unit,
            states,
        };
        let data = machine.memory.data_mut(&mut machine.store);
        abi::write_direction(data, CTX, &meta, &layout, &direction).expect("a direction");
        machine.call();
        let tangents = abi::read_tangents(machine.memory.data(&machine.store), CTX, &meta, &layout);
        forward.push(tangents[last * rows.columns + column]);
    }
    Sweeps {
        value: rows.row(last)[column],
        gradient,
        reverse,
        forward,
        status,
    }
}

/// The value of `column` at the last row and its gradient by the reverse sweep, which the forward sweep must confirm.
pub fn gradient(machine: &mut Machine, plan: &Plan, column: &str) -> (f64, Gradient) {
    let sweeps = sweeps(machine, plan, column);
    for (chosen, (found, expected)) in sweeps.forward.iter().zip(&sweeps.reverse).enumerate() {
        close(*found, *expected, 1e-9, &format!("direction {chosen}"));
    }
    (sweeps.value, sweeps.gradient)
}

/// Values along a line with their first and second derivatives by its length.
pub struct Along {
    pub rows: Rows,
    pub first: Vec<f64>,
    pub second: Vec<f64>,
    pub status: Status,
}

/// All rows of a plan along a line; the module has second derivatives.
pub fn along(machine: &mut Machine, plan: &Plan, line: &Gradient) -> Along {
    let plan = Plan {
        tape_bytes: 1 << 25,
        ..plan.clone()
    };
    let (status, rows) = machine.run(&plan);
    let meta = machine.compiled.meta.clone();
    assert_eq!(status.code, abi::Code::Ok, "{:?}", status.describe(&meta));
    let layout = abi::Layout::for_plan(&meta, &plan);
    let data = machine.memory.data_mut(&mut machine.store);
    abi::write_direction(data, CTX, &meta, &layout, line).expect("a line");
    abi::write_sweep(data, CTX, abi::Sweep::Second, abi::Segment::default());
    machine.call();
    let data = machine.memory.data(&machine.store);
    let swept = abi::read_status(data, CTX, &meta);
    assert_eq!(swept.code, abi::Code::Ok, "{:?}", swept.describe(&meta));
    let [first, second] = abi::read_second_tangents(data, CTX, &meta, &layout);
    Along {
        rows,
        first,
        second,
        status,
    }
}

/// Within a relative tolerance, absolute below 1.
pub fn close(found: f64, expected: f64, tolerance: f64, what: &str) {
    let error = (found - expected).abs() / expected.abs().max(1.0);
    assert!(error <= tolerance, "{what}: {found} and not {expected} ({error:e})");
}
