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
mod causalise;
mod derive;
mod describe;
mod diagnostic;
mod emit;
mod flatten;
mod format;
mod graph;
mod kernel;
mod meta;
mod syntax;
mod units;
mod variability;

use sha2::{Digest as _, Sha256};

pub use abi::Plan;
pub use diagnostic::{Diagnostic, Note};
pub use format::format;
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
    /// A module for two plans at once, one in each lane ([`abi::lanes`]).
    pub two_lanes: bool,
    /// Whether the module can sweep second derivatives along a direction; it takes longer to compile.
    pub second_derivatives: bool,
}

/// Compiles one model of `source` (called `file` in messages) to a Wasm module and its description.
pub fn compile(source: &str, file: &str, options: &Options) -> Result<Compiled, Vec<Diagnostic>> {
    let internal = |message: String| vec![Diagnostic::at(source, file, 0..0, "compiler-defect", message)];
    let classes = syntax::parser::parse(source, file).map_err(|error| vec![error])?;
    let math = graph::Math::new().map_err(internal)?;
    let program = math.program.clone();
    let graph = graph::Graph::new(math);
    let flat = flatten::flatten(source, file, &classes, options.model.as_deref(), &options.set, graph)?;
    let (model, description) = (flat.name.clone(), flat.description.clone());
    let mut system = causalise::causalise(flat, &causalise::Text { source, file })?;
    variability::check(&system, source, file)?;
    let emitted = emit::emit(&system, program, options.second_derivatives).map_err(internal)?;
    let mut meta = describe::describe(
        &mut system,
        &emitted.places,
        describe::Names {
            source,
            file,
            model,
            description,
        },
        options.second_derivatives,
    );
    if options.two_lanes {
        meta.lanes = 2;
    }
    let section = serde_json::to_vec(&meta).map_err(|error| internal(error.to_string()))?;
    let wasm = emit::print(&emitted, &section, options.two_lanes).map_err(internal)?;
    let digest = Sha256::digest(&wasm).into();
    Ok(Compiled { wasm, digest, meta })
}

/// The known name most like `name`, if one is like it at all.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let limit = (name.chars().count() / 3).max(1);
    known
        .map(|other| (distance(name, other), other))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, other)| other.to_string())
}

/// Edit distance without regard to case, a swap of neighbours counting once; long names are cut, for a bound on time.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().take(64).flat_map(char::to_lowercase).collect();
    let right: Vec<char> = right.chars().take(64).flat_map(char::to_lowercase).collect();
    let mut before = vec![0; right.len() + 1];
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    for row in 1..=left.len() {
        let mut current = vec![row];
        for column in 1..=right.len() {
            let replace = previous[column - 1] + usize::from(left[row - 1] != right[column - 1]);
            let mut best = replace.min(previous[column] + 1).min(current[column - 1] + 1);
            let swapped =
                row > 1 && column > 1 && left[row - 1] == right[column - 2] && left[row - 2] == right[column - 1];
            if swapped {
                best = best.min(before[column - 2] + 1);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut previous, current);
    }
    previous[right.len()]
}
