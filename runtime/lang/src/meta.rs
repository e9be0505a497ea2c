//! The description of a compiled model: what the custom section `orrery.model` of its module says.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// A compiled model: the module, its digest, and its description.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The bytes of one core WebAssembly module; the same source and compiler give the same bytes.
    pub wasm: Vec<u8>,
    /// SHA-256 of `wasm` (which names the compiler's version in its custom section).
    pub digest: [u8; 32],
    /// What the custom section `orrery.model` of `wasm` says.
    pub meta: Meta,
}

/// Names, units and places of everything a host needs to drive the module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// Version of the memory layout, [`crate::abi::ABI`].
    pub abi: u32,
    /// The compiler that made the module.
    pub compiler: String,
    /// Name of the model.
    pub model: String,
    /// Its description string.
    pub description: String,
    /// File name of the source, as given to the compiler.
    pub file: String,
    /// Lanes per variable, 1 or 2: the layout is `[word][lane]` (see [`crate::abi::lanes`]).
    pub lanes: u32,
    /// Continuous states in context order; `offset` is relative to the context address.
    pub states: Vec<Var>,
    /// Inputs in the order of [`crate::abi::Plan::inputs`]; `default` holds where a plan gives no knots.
    pub inputs: Vec<Var>,
    /// Variables declared `output`: the first columns of a row; `offset` is relative to the row's address.
    pub outputs: Vec<Var>,
    /// Every column of a row after its time: the outputs, then the other variables that change with time.
    pub columns: Vec<Var>,
    /// Tunable parameters; `offset` is relative to the context address.
    pub parameters: Vec<Var>,
    /// Bytes of the context proper (plan, status, persistent and scratch parts), before tables, rows and tape.
    pub context_bytes: u32,
    /// The bytes, relative to the context address, that a snapshot holds.
    pub persistent: Range<u32>,
    /// The bytes, relative to the context address, that a plan which paused goes on from: the persistent ones and how far it
    /// has come.
    #[serde(default)]
    pub checkpoint: Range<u32>,
    /// Whether the module can sweep second derivatives along a direction.
    #[serde(default)]
    pub second_derivatives: bool,
    /// Words of discrete memory: what events changed, and what `pre` reads.
    #[serde(default)]
    pub memory: u32,
    /// The bytes, relative to the context address, of the start overrides, one f64 a state (NaN: none).
    pub starts_at: u32,
    /// The equations in the order that error records number them.
    pub equations: Vec<EquationInfo>,
}

/// One variable as a host sees it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Var {
    /// Full name, e.g. `cell.q[2]`.
    pub name: String,
    /// Unit string as written in the model; empty where none is given.
    #[serde(default)]
    pub unit: String,
    /// Default of a parameter, start value of a state or an input (evaluated with the default parameters).
    pub default: f64,
    /// Lower bound, where the model gives one.
    #[serde(default)]
    pub min: Option<f64>,
    /// Upper bound, where the model gives one.
    #[serde(default)]
    pub max: Option<f64>,
    /// Typical magnitude; scales the absolute tolerance.
    #[serde(default)]
    pub nominal: Option<f64>,
    /// Byte offset, relative to the context (states, parameters) or to a row's address (outputs, columns).
    pub offset: u32,
    /// Description string.
    #[serde(default)]
    pub description: String,
}

/// Where an equation of the module comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EquationInfo {
    /// The variable this equation was solved for.
    pub solves: String,
    /// Line in the source, from 1.
    pub line: u32,
    /// Column in the source, from 1.
    pub column: u32,
    /// The equation as written.
    pub text: String,
}

impl Meta {
    /// Words that are carried from one plan to the next and have derivatives: states, then discrete memory.
    pub fn carried(&self) -> u32 {
        self.states.len() as u32 + self.memory
    }

    /// Index of the parameter called `name`.
    pub fn parameter(&self, name: &str) -> Option<usize> {
        self.parameters.iter().position(|var| var.name == name)
    }

    /// Index of the state called `name`.
    pub fn state(&self, name: &str) -> Option<usize> {
        self.states.iter().position(|var| var.name == name)
    }

    /// Index of the input called `name`.
    pub fn input(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|var| var.name == name)
    }

    /// Index of the row column called `name`.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|var| var.name == name)
    }
}
