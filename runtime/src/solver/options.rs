//! What whoever solves may choose.

use orrery_lang::abi;

use super::error::SolveError;
use super::schedule::Output;
use crate::graph;

/// How to solve.
#[derive(Debug, Clone, PartialEq)]
pub struct SolveOptions {
    /// Where to start, in seconds.
    pub from: f64,
    /// Where to end, in seconds.
    pub until: f64,
    /// When rows are wanted.
    pub output: Output,
    /// The integration method.
    pub method: Method,
    /// Relative tolerance of adaptive methods.
    pub rtol: f64,
    /// Absolute tolerance, multiplied by each state's `nominal`.
    pub atol: f64,
    /// Inputs over time; the others keep their values.
    pub inputs: Vec<InputSeries>,
}

impl SolveOptions {
    /// From 0 to `until`, both ends, with the default method and tolerances.
    pub fn until(until: f64) -> Self {
        Self {
            from: 0.0,
            until,
            output: Output::Ends,
            method: Method::Auto,
            rtol: 1e-6,
            atol: 1e-9,
            inputs: Vec::new(),
        }
    }
}

/// An integration method.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Method {
    /// Tsit5, and Rodas5P from where the model turns out stiff.
    #[default]
    Auto,
    /// Tsitouras 5(4): adaptive, explicit.
    Tsit5,
    /// Rodas5P: adaptive, for stiff models.
    Rodas5p,
    /// ESDIRK5(4)7L[2]SA2: adaptive, for stiff models.
    Esdirk,
    /// The classical Runge–Kutta method with a fixed step.
    Rk4 {
        /// The step in seconds; it is shortened so that whole steps fill the span.
        step: f64,
    },
}

impl Method {
    /// The method as the module knows it, for a tick of this length.
    pub(crate) fn for_tick(self, tick_s: f64) -> Result<abi::Method, SolveError> {
        match self {
            Self::Auto => Ok(abi::Method::Auto),
            Self::Tsit5 => Ok(abi::Method::Tsit5),
            Self::Rodas5p => Ok(abi::Method::Rodas5p),
            Self::Esdirk => Ok(abi::Method::Esdirk),
            Self::Rk4 { step } => {
                let steps = (tick_s / step * (1.0 - 4.0 * f64::EPSILON)).ceil().max(1.0);
                if step.is_nan() || step <= 0.0 || steps > f64::from(i32::MAX) {
                    let remedy = "it must be positive and at least the 2,147,483,647th part of the span";
                    return Err(SolveError::value("step", step, remedy));
                }
                Ok(abi::Method::Rk4 {
                    steps_per_tick: steps as u32,
                })
            }
        }
    }
}

/// An input over time.
#[derive(Debug, Clone, PartialEq)]
pub struct InputSeries {
    /// The input's name.
    pub name: String,
    /// What holds between two knots.
    pub mode: abi::InputMode,
    /// Seconds, strictly increasing.
    pub times: Vec<f64>,
    /// One value for each time.
    pub values: Vec<f64>,
}

/// What a run may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Memory of the module.
    pub memory_mib: u32,
    /// Memory for what a gradient keeps of a run, in bytes: its tape, which is part of the module's memory, and checkpoints;
    /// at most half of `memory_mib` counts.
    /// A run that needs more is solved a second time in pieces; the numbers are the same.
    pub gradient_bytes: u64,
    /// Steps of a run, accepted and rejected.
    pub max_steps: u32,
    /// Real time of a run; none for whoever can stop it another way.
    pub deadline_ms: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_mib: 1024,
            gradient_bytes: 256 << 20,
            max_steps: 10_000_000,
            deadline_ms: None,
        }
    }
}

impl Limits {
    /// As the engine takes them; without a deadline, ten years.
    pub(crate) fn of_node(self) -> graph::Limits {
        const TEN_YEARS_MS: u64 = 10 * 366 * 86_400_000;
        graph::Limits {
            memory_mib: self.memory_mib,
            steps_per_tick: self.max_steps,
            deadline_ms: self.deadline_ms.unwrap_or(TEN_YEARS_MS),
        }
    }
}

/// What a member starts from, where it differs from the model: indices into [`orrery_lang::Meta`] with values.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Values {
    /// Tunable parameters.
    pub parameters: Vec<(usize, f64)>,
    /// Start values of states.
    pub states: Vec<(usize, f64)>,
    /// Inputs that stay constant.
    pub inputs: Vec<(usize, f64)>,
}

impl Values {
    /// These values with those of `over` on top.
    pub fn with(&self, over: &Self) -> Self {
        let join = |under: &[(usize, f64)], over: &[(usize, f64)]| {
            let mut all = under.to_vec();
            all.retain(|(index, _)| over.iter().all(|(other, _)| other != index));
            all.extend_from_slice(over);
            all
        };
        Self {
            parameters: join(&self.parameters, &over.parameters),
            states: join(&self.states, &over.states),
            inputs: join(&self.inputs, &over.inputs),
        }
    }
}
