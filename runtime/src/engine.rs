//! The sandbox: compiled models run here, and whatever they do comes back as a value.
//!
//! A module has no imports, a bounded memory, counted steps, and the host's deadline as a backstop. One call of
//! `solve` is one host call. Both engines give the same bits: relaxed SIMD and threads are off, and the compiler lets no bits
//! of a NaN show (`orrery_lang`'s printer and `abi`).

mod pair;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use orrery_lang::abi::{self, Code, Initialise, InputMode, InputTable};
use orrery_lang::{Compiled, Meta};
use wasmtime::{Instance, Memory, Module, Store, StoreLimits, StoreLimitsBuilder, Trap, TypedFunc};

use crate::config::EngineKind;
use crate::error::{Error, NodeError};
use crate::graph::Limits;
use crate::node::{Knots, Node, StartPlan, TickPlan};
pub(crate) use pair::PairNode;

/// How often the deadline is looked at.
const EPOCH: Duration = Duration::from_millis(10);
/// Making machine code takes time and memory in proportion to a module's size, and no deadline watches over it.
const MAX_MODULE: usize = 32 << 20;
/// Where the one context of a node's instance lies.
const CONTEXT: u32 = abi::CONTEXT_BASE;

/// Runs modules. Cheap to clone; its deadline thread ends with the last clone.
#[derive(Clone)]
pub struct Engine {
    inner: wasmtime::Engine,
    _ticker: Arc<Ticker>,
}

struct Ticker(Arc<AtomicBool>);

impl Drop for Ticker {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Engine {
    /// An engine of this kind.
    ///
    /// # Errors
    /// [`Error::Engine`] when the machine cannot run it.
    pub fn new(kind: EngineKind) -> Result<Self, Error> {
        let mut config = wasmtime::Config::new();
        config
            .epoch_interruption(true)
            .wasm_relaxed_simd(false)
            .wasm_multi_memory(false)
            .wasm_memory64(false)
            .memory_reservation_for_growth(1 << 20)
            .max_wasm_stack(512 * 1024);
        if kind == EngineKind::Pulley {
            config
                .target("pulley64")
                .map_err(|error| Error::Engine(error.to_string()))?;
        }
        let inner = wasmtime::Engine::new(&config).map_err(|error| Error::Engine(error.to_string()))?;
        let stop = Arc::new(AtomicBool::new(false));
        spawn_ticker(inner.weak(), Arc::downgrade(&stop))?;
        Ok(Self {
            inner,
            _ticker: Arc::new(Ticker(stop)),
        })
    }

    /// Compiles a module for this machine.
    ///
    /// # Errors
    /// [`NodeError::Abi`] when it is not a module of ours.
    pub fn load(&self, compiled: &Compiled) -> Result<Model, NodeError> {
        self.load_parts(&compiled.wasm, compiled.meta.clone(), compiled.digest)
    }

    pub(crate) fn load_parts(&self, wasm: &[u8], meta: Meta, digest: [u8; 32]) -> Result<Model, NodeError> {
        if meta.abi != abi::ABI {
            return Err(NodeError::Abi(format!(
                "it has layout {}, this version reads layout {}",
                meta.abi,
                abi::ABI
            )));
        }
        if wasm.len() > MAX_MODULE {
            return Err(NodeError::Abi(format!(
                "it has {} bytes, and no module has more than {MAX_MODULE}",
                wasm.len()
            )));
        }
        let module = Module::new(&self.inner, wasm).map_err(|error| NodeError::Abi(format!("{error:#}")))?;
        if let Some(import) = module.imports().next() {
            return Err(NodeError::Abi(format!(
                "it imports `{}.{}`, and models import nothing",
                import.module(),
                import.name()
            )));
        }
        Ok(Model {
            engine: self.clone(),
            module,
            meta: Arc::new(meta),
            digest,
        })
    }
}

/// The thread that moves the epoch; it counts sleeps and reads no clock.
fn spawn_ticker(engine: wasmtime::EngineWeak, stop: Weak<AtomicBool>) -> Result<(), Error> {
    let tick = move || {
        while stop.upgrade().is_some_and(|stop| !stop.load(Ordering::Relaxed)) {
            std::thread::sleep(EPOCH);
            let Some(engine) = engine.upgrade() else {
                return;
            };
            engine.increment_epoch();
        }
    };
    let thread = std::thread::Builder::new()
        .name("orrery-deadline".to_owned())
        .spawn(tick);
    thread
        .map(drop)
        .map_err(|error| Error::Engine(format!("its deadline thread does not start: {error}")))
}

/// A loaded model, ready for instances.
#[derive(Clone)]
pub struct Model {
    engine: Engine,
    module: Module,
    meta: Arc<Meta>,
    digest: [u8; 32],
}

impl Model {
    /// What the module says about itself.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The engine that it was loaded into.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// SHA-256 of the module.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// A fresh instance under these limits.
    ///
    /// # Errors
    /// [`NodeError`] when the module does not fit the limits or the ABI.
    pub fn node(&self, limits: Limits) -> Result<ModelNode, NodeError> {
        let (store, memory, solve) = self.instance(limits, 1)?;
        Ok(ModelNode {
            store,
            memory,
            solve,
            meta: Arc::clone(&self.meta),
            limits,
        })
    }

    /// An instance with this many lanes, of this much memory each.
    fn instance(&self, limits: Limits, lanes: u32) -> Result<Parts, NodeError> {
        if self.meta.lanes != lanes {
            return Err(NodeError::Abi(format!(
                "it has {} lanes where {lanes} are wanted",
                self.meta.lanes
            )));
        }
        let bytes = lanes as usize * ((limits.memory_mib as usize) << 20);
        let store_limits = StoreLimitsBuilder::new()
            .memory_size(bytes)
            .memories(1)
            .tables(1)
            .instances(1)
            .table_elements(4096)
            .build();
        let mut store = Store::new(&self.engine.inner, store_limits);
        store.limiter(|limits| limits);
        store.set_epoch_deadline(deadline_epochs(limits));
        let instance = Instance::new(&mut store, &self.module, &[]).map_err(|error| guest_error(&error, limits))?;
        let memory = instance
            .get_memory(&mut store, abi::MEMORY)
            .ok_or_else(|| NodeError::Abi(format!("it exports no memory `{}`", abi::MEMORY)))?;
        let solve = instance
            .get_typed_func::<i32, i32>(&mut store, abi::SOLVE)
            .map_err(|_| NodeError::Abi(format!("it exports no function `{}(i32) -> i32`", abi::SOLVE)))?;
        Ok((store, memory, solve))
    }
}

type Parts = (Store<StoreLimits>, Memory, TypedFunc<i32, i32>);

fn deadline_epochs(limits: Limits) -> u64 {
    let epoch_ms = EPOCH.as_millis() as u64;
    limits.deadline_ms.div_ceil(epoch_ms).max(1) + 1
}

/// One running instance of a model.
pub struct ModelNode {
    store: Store<StoreLimits>,
    memory: Memory,
    solve: TypedFunc<i32, i32>,
    meta: Arc<Meta>,
    limits: Limits,
}

impl ModelNode {
    fn run(&mut self, plan: &abi::Plan) -> Result<Vec<f64>, NodeError> {
        self.arm();
        let (status, rows) = self.solve(plan)?;
        match status.describe(&self.meta) {
            Some(message) => Err(NodeError::Numerical { message }),
            None => Ok(rows.values),
        }
    }

    /// Starts the time that the next solves may take together.
    pub(crate) fn arm(&mut self) {
        self.store.set_epoch_deadline(deadline_epochs(self.limits));
    }

    /// Runs a plan; what its status says went wrong is the caller's to judge, with the rows written before.
    pub(crate) fn solve(&mut self, plan: &abi::Plan) -> Result<(abi::Status, abi::Rows), NodeError> {
        let layout = abi::Layout::for_plan(&self.meta, plan);
        self.grow(layout.pages(CONTEXT))?;
        let layout =
            abi::write_plan(self.memory.data_mut(&mut self.store), CONTEXT, &self.meta, plan).map_err(wrong)?;
        self.call(plan, &layout)
    }

    /// Lets the plan that paused go on, from where it is or from a checkpoint of one of its pauses.
    pub(crate) fn resume(
        &mut self,
        plan: &abi::Plan,
        checkpoint: Option<&[u8]>,
    ) -> Result<(abi::Status, abi::Rows), NodeError> {
        let layout = abi::Layout::for_plan(&self.meta, plan);
        abi::resume(self.memory.data_mut(&mut self.store), CONTEXT, &self.meta, checkpoint).map_err(wrong)?;
        self.call(plan, &layout)
    }

    /// Everything that a plan which paused needs to go on from there.
    pub(crate) fn checkpoint(&mut self) -> Vec<u8> {
        abi::checkpoint(self.memory.data(&self.store), CONTEXT, &self.meta)
    }

    fn call(&mut self, plan: &abi::Plan, layout: &abi::Layout) -> Result<(abi::Status, abi::Rows), NodeError> {
        let code = self
            .solve
            .call(&mut self.store, CONTEXT as i32)
            .map_err(|error| guest_error(&error, self.limits))?;
        let memory = self.memory.data(&self.store);
        let status = abi::read_status(memory, CONTEXT, &self.meta);
        if abi::Code::from_raw(code as u32) != status.code {
            return Err(NodeError::Numerical {
                message: format!(
                    "{}: solve returned {code} where its status says {:?}",
                    self.meta.model, status.code
                ),
            });
        }
        if status.code == Code::Paused {
            // The rows so far are read with the last ones.
            let rows = abi::Rows {
                times: Vec::new(),
                values: Vec::new(),
                columns: self.meta.columns.len(),
            };
            return Ok((status, rows));
        }
        let rows = abi::read_outputs(memory, CONTEXT, &self.meta, layout);
        let due = (layout.rows - plan.event_rows.min(layout.rows)) as usize;
        if status.code == Code::Ok && rows.times.len() < due {
            return Err(NodeError::Abi(format!(
                "it wrote {} of {due} rows and reported success",
                rows.times.len()
            )));
        }
        Ok((status, rows))
    }

    /// Cotangents of the rows for reverse sweeps over the plan that was solved last, which had a tape.
    pub(crate) fn write_seeds(&mut self, plan: &abi::Plan, seeds: &abi::Seeds) -> Result<(), NodeError> {
        let layout = abi::Layout::for_plan(&self.meta, plan);
        let memory = self.memory.data_mut(&mut self.store);
        abi::write_seeds(memory, CONTEXT, &self.meta, &layout, seeds).map_err(wrong)
    }

    /// A direction for forward sweeps over the plan that was solved last, which had a tape.
    pub(crate) fn write_direction(&mut self, plan: &abi::Plan, direction: &abi::Gradient) -> Result<(), NodeError> {
        let layout = abi::Layout::for_plan(&self.meta, plan);
        let memory = self.memory.data_mut(&mut self.store);
        abi::write_direction(memory, CONTEXT, &self.meta, &layout, direction).map_err(wrong)
    }

    /// Sweeps over the segment of the plan that is on the tape.
    pub(crate) fn sweep(&mut self, sweep: abi::Sweep, segment: abi::Segment) -> Result<abi::Status, NodeError> {
        abi::write_sweep(self.memory.data_mut(&mut self.store), CONTEXT, sweep, segment);
        self.solve
            .call(&mut self.store, CONTEXT as i32)
            .map_err(|error| guest_error(&error, self.limits))?;
        Ok(abi::read_status(self.memory.data(&self.store), CONTEXT, &self.meta))
    }

    /// What the reverse sweeps left.
    pub(crate) fn read_gradient(&self, plan: &abi::Plan) -> abi::Gradient {
        let layout = abi::Layout::for_plan(&self.meta, plan);
        abi::read_gradient(self.memory.data(&self.store), CONTEXT, &self.meta, plan, &layout)
    }

    /// What the forward sweeps left: of every row and column.
    pub(crate) fn read_tangents(&self, plan: &abi::Plan) -> Vec<f64> {
        let layout = abi::Layout::for_plan(&self.meta, plan);
        abi::read_tangents(self.memory.data(&self.store), CONTEXT, &self.meta, &layout)
    }

    /// What the sweeps of second derivatives left: first and second tangents of every row and column.
    pub(crate) fn read_second_tangents(&self, plan: &abi::Plan) -> [Vec<f64>; 2] {
        let layout = abi::Layout::for_plan(&self.meta, plan);
        abi::read_second_tangents(self.memory.data(&self.store), CONTEXT, &self.meta, &layout)
    }

    fn grow(&mut self, pages: u64) -> Result<(), NodeError> {
        let have = self.memory.size(&self.store);
        if pages <= have {
            return Ok(());
        }
        let grown = self.memory.grow(&mut self.store, pages - have);
        grown.map(drop).map_err(|_| NodeError::Memory {
            limit_mib: self.limits.memory_mib,
        })
    }
}

impl Node for ModelNode {
    fn start(&mut self, plan: &StartPlan) -> Result<Vec<f64>, NodeError> {
        let origin_nanos = plan.first_tick.saturating_mul(plan.tick_nanos);
        let hold = |value: &f64| InputTable {
            mode: InputMode::Hold,
            knots: vec![(origin_nanos, *value)],
        };
        self.run(&abi::Plan {
            origin_nanos,
            tick_nanos: plan.tick_nanos,
            first_tick: plan.first_tick,
            ticks: 0,
            inputs: plan.inputs.iter().map(hold).collect(),
            max_steps: self.limits.steps_per_tick,
            initialise: Some(Initialise {
                parameters: plan.parameters.clone(),
                states: plan.starts.clone(),
            }),
            first_row: true,
            ..abi::Plan::default()
        })
    }

    fn advance(&mut self, plan: &TickPlan) -> Result<Vec<f64>, NodeError> {
        let table = |knots: &Knots| InputTable {
            mode: if knots.linear {
                InputMode::Linear
            } else {
                InputMode::Hold
            },
            knots: knots.points.clone(),
        };
        self.run(&abi::Plan {
            origin_nanos: plan.origin_nanos,
            tick_nanos: plan.tick_nanos,
            first_tick: plan.first_tick,
            ticks: plan.ticks,
            inputs: plan.inputs.iter().map(table).collect(),
            max_steps: self.limits.steps_per_tick,
            ..abi::Plan::default()
        })
    }

    fn columns(&self) -> usize {
        self.meta.columns.len()
    }

    fn set_parameter(&mut self, index: usize, value: f64) -> Result<(), NodeError> {
        if !value.is_finite() || index >= self.meta.parameters.len() {
            return Err(NodeError::Numerical {
                message: format!("parameter {index} cannot be {value}"),
            });
        }
        abi::set_parameter(self.memory.data_mut(&mut self.store), CONTEXT, &self.meta, index, value);
        Ok(())
    }

    fn save(&mut self) -> Result<Vec<u8>, NodeError> {
        Ok(abi::snapshot(self.memory.data(&self.store), CONTEXT, &self.meta))
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), NodeError> {
        let end = u64::from(CONTEXT) + u64::from(self.meta.persistent.end);
        self.grow(end.div_ceil(u64::from(abi::PAGE)))?;
        abi::restore(self.memory.data_mut(&mut self.store), CONTEXT, &self.meta, state)
            .map_err(|error| NodeError::State(error.to_string()))
    }
}

fn wrong(error: abi::AbiError) -> NodeError {
    NodeError::Numerical {
        message: error.to_string(),
    }
}

fn guest_error(error: &wasmtime::Error, limits: Limits) -> NodeError {
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => NodeError::Deadline {
            deadline_ms: limits.deadline_ms,
        },
        Some(trap) => NodeError::Trap(trap.to_string()),
        None if format!("{error:#}").contains("memory") => NodeError::Memory {
            limit_mib: limits.memory_mib,
        },
        None => NodeError::Trap(format!("{error:#}")),
    }
}
