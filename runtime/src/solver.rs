//! Solves models, alone and in ensembles, and differentiates what it solved.
//!
//! A [`Problem`] is a compiled model with the values it starts from. [`Problem::solve`] gives rows, [`Problem::stream`]
//! hands them on in pieces, [`Problem::solve_many`] runs members on threads. A [`Loss`] judges rows, and knows how its
//! value changes with each of them.
//!
//! Everything here is a function of the text, the values and the options: no clock is read and no thread shows in the
//! numbers.

mod ensemble;
mod error;
mod gradient;
mod loss;
mod options;
mod print;
mod problem;
mod recording;
mod routes;
mod run;
mod schedule;
mod second;
mod times;

pub use error::SolveError;
pub use gradient::{Gradient, Sensitivities, Wrt, names_of};
pub use loss::{Cotangents, Evaluated, Loss, Noise, Series};
pub use options::{InputSeries, Limits, Method, SolveOptions, Values};
pub use orrery_lang::abi::{InputMode, Rows};
pub use orrery_lang::format;
pub use print::{csv_header, csv_rows, number};
pub use problem::{Problem, ProblemOptions};
pub(crate) use routes::{openapi, routes};
pub use run::{Session, Solution, Statistics};
pub use schedule::Output;
pub use second::{Along, RowsAlong};
