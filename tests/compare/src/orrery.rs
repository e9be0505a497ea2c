//! One compiled model in wasmtime, set up as the product sets it up (runtime/src/engine.rs).

use orrery_lang::abi::{self, CONTEXT_BASE, Gradient, Initialise, Layout, Method, Plan, Seeds, Status};
use orrery_lang::{Compiled, Options, compile};
use wasmtime::{Config, Engine, Instance, Memory, Module, Store, TypedFunc};

use crate::Failure;

/// An engine with the product's settings: deadlines by epochs.
pub fn engine() -> Result<Engine, Failure> {
    let mut config = Config::new();
    config.epoch_interruption(true).memory_reservation_for_growth(1 << 20);
    Ok(Engine::new(&config)?)
}

pub fn model(source: &str) -> Result<Compiled, Failure> {
    compile(source, "compare.mo", &Options::default()).map_err(|errors| {
        let texts: Vec<String> = errors.iter().map(orrery_lang::Diagnostic::render).collect();
        texts.concat().into()
    })
}

pub struct Machine {
    store: Store<()>,
    memory: Memory,
    solve: TypedFunc<u32, u32>,
    compiled: Compiled,
}

impl Machine {
    pub fn new(engine: &Engine, compiled: Compiled) -> Result<Machine, Failure> {
        let module = Module::new(engine, &compiled.wasm)?;
        let mut store = Store::new(engine, ());
        store.set_epoch_deadline(1 << 40);
        let instance = Instance::new(&mut store, &module, &[])?;
        let memory = instance.get_memory(&mut store, abi::MEMORY).ok_or("no memory")?;
        let solve = instance.get_typed_func(&mut store, abi::SOLVE)?;
        Ok(Machine {
            store,
            memory,
            solve,
            compiled,
        })
    }

    pub fn parameters(&self) -> usize {
        self.compiled.meta.parameters.len()
    }

    pub fn states(&self) -> usize {
        self.compiled.meta.states.len()
    }

    /// Solves the plan; the values of the columns at its end.
    pub fn value(&mut self, plan: &Plan) -> Result<Vec<f64>, Failure> {
        let layout = self.write(plan)?;
        self.call()?;
        let rows = abi::read_outputs(
            self.memory.data(&self.store),
            CONTEXT_BASE,
            &self.compiled.meta,
            &layout,
        );
        Ok(rows.row(rows.times.len() - 1).to_vec())
    }

    /// The same with a tape, and the gradient of the first column at the end.
    pub fn gradient(&mut self, plan: &Plan) -> Result<(f64, Gradient), Failure> {
        let layout = self.write(plan)?;
        self.call()?;
        let meta = &self.compiled.meta;
        let rows = abi::read_outputs(self.memory.data(&self.store), CONTEXT_BASE, meta, &layout);
        let mut seeds = vec![0.0; rows.values.len()];
        let last = (rows.times.len() - 1) * rows.columns;
        seeds[last] = 1.0;
        let value = rows.values[last];
        let seeds = Seeds {
            rows: seeds,
            last: Vec::new(),
        };
        abi::write_seeds(
            self.memory.data_mut(&mut self.store),
            CONTEXT_BASE,
            meta,
            &layout,
            &seeds,
        )?;
        self.call()?;
        let memory = self.memory.data(&self.store);
        let gradient = abi::read_gradient(memory, CONTEXT_BASE, &self.compiled.meta, plan, &layout);
        Ok((value, gradient))
    }

    pub fn status(&self) -> Status {
        abi::read_status(self.memory.data(&self.store), CONTEXT_BASE, &self.compiled.meta)
    }

    fn write(&mut self, plan: &Plan) -> Result<Layout, Failure> {
        let meta = &self.compiled.meta;
        let wanted = Layout::for_plan(meta, plan).pages(CONTEXT_BASE);
        let present = self.memory.size(&self.store);
        if wanted > present {
            self.memory.grow(&mut self.store, wanted - present)?;
        }
        Ok(abi::write_plan(
            self.memory.data_mut(&mut self.store),
            CONTEXT_BASE,
            meta,
            plan,
        )?)
    }

    fn call(&mut self) -> Result<(), Failure> {
        if self.solve.call(&mut self.store, CONTEXT_BASE)? == 0 {
            return Ok(());
        }
        let status = self.status();
        Err(status.describe(&self.compiled.meta).unwrap_or_default().into())
    }
}

/// From 0 to `seconds`, with the row at the end only.
pub fn until(seconds: f64, method: Method, rtol: f64, atol: f64) -> Plan {
    // A clock of milliseconds reaches 1e11 seconds.
    let clock_hz = if seconds > 1e6 { 1e3 } else { 1e9 };
    Plan {
        tick_nanos: (seconds * clock_hz).round() as i64,
        ticks: 1,
        clock_hz,
        method,
        rtol,
        atol,
        max_steps: 10_000_000,
        initialise: Some(Initialise::default()),
        ..Plan::default()
    }
}
