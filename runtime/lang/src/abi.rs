//! The module's memory: how a host writes a plan and reads rows, status and snapshots.
//!
//! Everything is little-endian and relative to the context address `ctx` (a multiple of 16, at least
//! [`CONTEXT_BASE`]); addresses inside a plan are relative to `ctx` too, so a context can be moved.
//!
//! ```text
//! 0    plan        256 bytes, written by the host                    (offsets: mod plan)
//! 256  status      256 bytes, written by solve                       (offsets: mod status)
//! 512  persistent  what a snapshot holds: control, states, parameters, event memory
//!                  (behind them, what else a plan that paused goes on from: mod sweep)
//!      scratch     stages, hoisted values, start overrides
//! context_bytes    input descriptors, knots, rows, tape: placed by Layout::for_plan
//! ```
//! A row is `[time f64][column 0 f64][column 1 f64]…`, time in seconds from the origin.
//! An input descriptor is 16 bytes: mode u32 (0 hold, 1 linear), knots u32, address u32, zero u32;
//! a knot is 16 bytes: time i64 (clock units), value f64.

mod input;
pub mod lanes;
mod memory;
mod output;
mod sweep;

pub use input::{AbiError, Initialise, InputMode, InputTable, Layout, Method, Plan, row_bytes, write_plan};
use memory::{Context, bytes_of, put, read_f64, read_u32, read_u64};
pub use memory::{read_parameters, read_states, restore, set_parameter, set_state, snapshot};
pub use output::{Code, Rows, Status, read_outputs, read_status};
pub use sweep::{
    Gradient, Seeds, Segment, Sweep, checkpoint, read_gradient, read_second_tangents, read_tangents, resume,
    write_direction, write_seeds, write_sweep,
};

/// Version of this layout; a module and a host must agree on it.
pub const ABI: u32 = 2;
/// The least context address: what lies below belongs to the module (its stack, if it ever needs one).
pub const CONTEXT_BASE: u32 = 1024;
/// Implicit methods are built for models of at most this many states: their matrices are dense.
pub const MAX_IMPLICIT: usize = 400;
/// Bytes in a WebAssembly page.
pub const PAGE: u32 = 65536;
/// The export that runs a plan: `(ctx: i32) -> i32`, the status code.
pub const SOLVE: &str = "solve";
/// The exported memory.
pub const MEMORY: &str = "memory";
/// The custom section that holds [`Meta`] as JSON.
pub const SECTION: &str = "orrery.model";

/// Byte offsets in the plan, relative to the context address.
pub(crate) mod plan {
    pub const ORIGIN: u32 = 0;
    pub const TICK: u32 = 8;
    pub const FIRST_TICK: u32 = 16;
    pub const TICKS: u32 = 24;
    pub const FLAGS: u32 = 28;
    pub const METHOD: u32 = 32;
    pub const MAX_STEPS: u32 = 36;
    pub const RTOL: u32 = 40;
    pub const ATOL: u32 = 48;
    pub const CLOCK_HZ: u32 = 56;
    pub const INPUTS_AT: u32 = 64;
    pub const ROWS_AT: u32 = 68;
    pub const ROWS: u32 = 72;
    pub const ROWS_PER_TICK: u32 = 76;
    pub const STEPS_PER_TICK: u32 = 80;
    pub const TAPE_AT: u32 = 84;
    pub const TAPE_BYTES: u32 = 88;
    pub const FIRST_STEP: u32 = 96;
    pub const EVENT_ROWS: u32 = 104;
    pub const SEEDS_AT: u32 = 108;
    pub const GRADIENT_AT: u32 = 112;
    pub const GRADIENT: u32 = 116;
    pub const PAUSE_BYTES: u32 = 120;

    pub const FLAG_INITIALISE: u32 = 1;
    pub const FLAG_FIRST_ROW: u32 = 2;
    pub const FLAG_REVERSE: u32 = 4;
    pub const FLAG_FORWARD: u32 = 8;
    pub const FLAG_RESUME: u32 = 16;
    pub const FLAG_FOLLOWS: u32 = 32;
    pub const FLAG_MORE: u32 = 64;
}

/// Byte offsets in the status, relative to the context address.
pub(crate) mod status {
    pub const CODE: u32 = 256;
    pub const ROWS: u32 = 260;
    pub const EQUATION: u32 = 264;
    pub const VARIABLE: u32 = 268;
    pub const TIME: u32 = 272;
    pub const VALUE: u32 = 280;
    pub const STEPS: u32 = 288;
    pub const REJECTED: u32 = 296;
    pub const EVALUATIONS: u32 = 304;
    pub const EVENTS: u32 = 312;
    pub const TICKS: u32 = 320;
    pub const METHOD: u32 = 324;
    pub const TAPE_NEEDED: u32 = 328;
    pub const SWITCHED: u32 = 336;
    pub const SWITCHED_AT: u32 = 344;
    pub const END: u32 = 512;
}

/// Byte offsets of the first persistent words, relative to the context address; states and parameters follow.
pub(crate) mod persistent {
    pub const START: u32 = 512;
    /// u32: 1 once the context was initialised.
    pub const INITIALISED: u32 = 512;
    /// f64: the step the controller would like to take next, 0 before the first.
    pub const STEP: u32 = 520;
    /// f64: log2 of the error of the last accepted step, for the PI controller.
    pub const ERROR: u32 = 528;
    /// u32: 2 once an automatic choice has found the model stiff.
    pub const METHOD: u32 = 516;
    /// u32: steps that looked stiff.
    pub const STIFF: u32 = 536;
    /// u32: steps since that did not.
    pub const SMOOTH: u32 = 540;
    pub const STATES: u32 = 544;
}
