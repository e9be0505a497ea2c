//! Compiles a documented subset of Modelica to one core WebAssembly module that holds the model *and* its integrator.
//!
//! ```text
//! text ─ syntax ─▶ tree ─ flatten ─▶ variables and equations over an expression graph
//!      ─ causalise ─▶ explicit system ─ emit ─▶ kernel functions (one intermediate form) ─ wasm ─▶ module
//! ```
//!
//! The module has no imports, exports its memory, and does all its work relative to a context address. The only
//! integrator entry is `solve(ctx) -> status`; what it shall do is a [`Plan`] that the host writes into memory with
//! [`abi::write_plan`]. This crate runs nothing itself and needs no Wasm engine: a host writes bytes, calls `solve`,
//! and reads bytes.
//!
//! # Use
//! ```
//! use orrery_lang::{abi, compile, Options};
//! let source = "model Decay parameter Real k(unit=\"1/s\") = 2; output Real x(start=1, fixed=true);\
//!               equation der(x) = -k*x; end Decay;";
//! let compiled = compile(source, "decay.mo", &Options::default()).expect("a valid model");
//! assert_eq!(compiled.meta.states[0].name, "x");
//! let plan = abi::Plan { ticks: 10, initialise: Some(Default::default()), ..Default::default() };
//! let mut memory = vec![0u8; (abi::CONTEXT_BASE + abi::Layout::for_plan(&compiled.meta, &plan).bytes) as usize];
//! abi::write_plan(&mut memory, abi::CONTEXT_BASE, &compiled.meta, &plan).expect("a plan that fits");
//! ```

pub mod abi;
mod diagnostic;
mod meta;

pub use abi::Plan;
pub use diagnostic::{Diagnostic, Note};
pub use meta::{Compiled, EquationInfo, Meta, Var};

/// The version of the compiler; it is written into every module and so enters every digest.
pub const COMPILER: &str = concat!("orrery-lang ", env!("CARGO_PKG_VERSION"));

/// What the caller may choose about a compilation.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The model to compile, where the file holds several; the last one otherwise.
    pub model: Option<String>,
    /// Modifications `name = value` applied to parameters before anything else; the way to change a structural
    /// parameter or one that is defined by others.
    pub set: Vec<(String, f64)>,
}

/// Compiles one model of `source` (called `file` in messages) to a Wasm module and its description.
pub fn compile(source: &str, file: &str, options: &Options) -> Result<Compiled, Vec<Diagnostic>> {
    let _ = options;
    Err(vec![Diagnostic::at(
        source,
        file,
        0..0,
        "unfinished",
        "the compiler behind this interface is not in yet",
    )])
}
