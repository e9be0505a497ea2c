//! One run: pieces of a schedule, one after the other, over one context.

use orrery_lang::abi::{self, Code, Initialise, InputTable, Plan, Rows, Status};
use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use super::error::SolveError;
use super::options::{SolveOptions, Values};
use super::problem::Problem;
use super::schedule::{Piece, Schedule};
use crate::engine::ModelNode;
use crate::node::Node as _;

/// Rows of events: what is tried first, and memory for them in one piece.
pub(super) const FIRST_EVENT_ROWS: u32 = 64;
const EVENT_BYTES: u32 = 256 << 20;
/// The module counts steps in signed words.
pub(super) const MOST_STEPS: u32 = i32::MAX as u32;

/// What a run cost.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Statistics {
    /// Accepted steps.
    pub steps: u64,
    /// Rejected steps.
    pub rejected: u64,
    /// Evaluations of the derivatives.
    pub evaluations: u64,
    /// Events.
    pub events: u64,
    /// The method that ran.
    pub method: String,
    /// Why an automatic choice changed the method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Rows of a run with what they cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Solution {
    /// The names of the columns.
    pub names: Vec<String>,
    /// Times and values.
    pub rows: Rows,
    /// What it cost.
    pub statistics: Statistics,
}

impl Problem {
    /// Solves the model with its own values.
    ///
    /// # Errors
    /// [`SolveError`] says what failed, where in the model and when.
    pub fn solve(&self, options: &SolveOptions) -> Result<Solution, SolveError> {
        self.session()?.solve(options, &Values::default())
    }

    /// Solves the model and hands rows on in pieces of bounded size; what was handed on before a failure stays valid.
    ///
    /// # Errors
    /// [`SolveError`] says what failed, where in the model and when.
    pub fn stream(
        &self,
        options: &SolveOptions,
        sink: &mut dyn FnMut(&Rows) -> Result<(), SolveError>,
    ) -> Result<Statistics, SolveError> {
        self.session()?.stream(options, &Values::default(), sink)
    }

    /// An instance for many runs, one after the other.
    ///
    /// # Errors
    /// [`SolveError`] when the module does not fit its limits.
    pub fn session(&self) -> Result<Session<'_>, SolveError> {
        let node = self.model.node(self.limits.of_node())?;
        Ok(Session { problem: self, node })
    }

    /// The names of a row's columns.
    pub fn names(&self) -> Vec<String> {
        self.meta().columns.iter().map(|var| var.name.clone()).collect()
    }
}

/// An instance of a problem. Every run starts afresh: none knows of those before it.
pub struct Session<'a> {
    problem: &'a Problem,
    node: ModelNode,
}

impl Session<'_> {
    /// Solves with the problem's values and these on top.
    ///
    /// # Errors
    /// [`SolveError`] says what failed, where in the model and when.
    pub fn solve(&mut self, options: &SolveOptions, values: &Values) -> Result<Solution, SolveError> {
        let mut all = Rows {
            times: Vec::new(),
            values: Vec::new(),
            columns: self.problem.meta().columns.len(),
        };
        let statistics = self.stream(options, values, &mut |rows| {
            all.times.extend_from_slice(&rows.times);
            all.values.extend_from_slice(&rows.values);
            Ok(())
        })?;
        Ok(Solution {
            names: self.problem.names(),
            rows: all,
            statistics,
        })
    }

    /// Like [`Self::solve`], handing rows on as they come.
    ///
    /// # Errors
    /// [`SolveError`] says what failed, where in the model and when.
    pub fn stream(
        &mut self,
        options: &SolveOptions,
        values: &Values,
        sink: &mut dyn FnMut(&Rows) -> Result<(), SolveError>,
    ) -> Result<Statistics, SolveError> {
        let meta = self.problem.meta();
        let row_bytes = abi::row_bytes(meta);
        let schedule = Schedule::new(options.from, options.until, &options.output, row_bytes)?;
        let values = self.problem.base.with(values);
        let mut statistics = Statistics::default();
        self.node.arm();
        for (number, piece) in schedule.pieces.iter().enumerate() {
            let used = statistics.steps + statistics.rejected;
            let left = u64::from(self.problem.limits.max_steps).saturating_sub(used);
            let mut plan = plan_of(self.problem, &schedule, piece, options, &values)?;
            plan.max_steps = u32::try_from(left).unwrap_or(MOST_STEPS).min(MOST_STEPS);
            if number == 0 {
                plan.first_row = true;
                plan.initialise = Some(Initialise {
                    parameters: values.parameters.clone(),
                    states: values.states.clone(),
                });
            }
            let (status, rows) = self.with_event_rows(&mut plan)?;
            count(&mut statistics, &status);
            check_finite(self.problem, &rows)?;
            sink(&piece.select(schedule.base, rows))?;
            if let Some(message) = failure(self.problem, &status) {
                return Err(SolveError::Numerical(message));
            }
        }
        Ok(statistics)
    }
}

impl Session<'_> {
    /// Solves with room for the rows of events: more of it, from the same state, until all fit.
    fn with_event_rows(&mut self, plan: &mut Plan) -> Result<(Status, Rows), SolveError> {
        let most = EVENT_BYTES / abi::row_bytes(self.problem.meta()).max(8);
        let before = match plan.initialise {
            Some(_) => None,
            None => Some(self.node.save()?),
        };
        plan.event_rows = FIRST_EVENT_ROWS.min(most);
        loop {
            let (status, rows) = self.node.solve(plan)?;
            if status.code != Code::RowsFull || plan.event_rows == most {
                return Ok((status, rows));
            }
            plan.event_rows = plan.event_rows.saturating_mul(16).min(most);
            if let Some(before) = &before {
                self.node.restore(before)?;
            }
        }
    }

    pub(super) fn problem(&self) -> &Problem {
        self.problem
    }

    pub(super) fn node(&mut self) -> &mut ModelNode {
        &mut self.node
    }
}

/// The plan of one piece, going on from the one before.
pub(super) fn plan_of(
    problem: &Problem,
    schedule: &Schedule,
    piece: &Piece,
    options: &SolveOptions,
    values: &Values,
) -> Result<Plan, SolveError> {
    let tick_s = schedule.base.seconds(piece.length);
    Ok(Plan {
        origin_nanos: piece.origin,
        tick_nanos: piece.length,
        ticks: 1,
        rows_per_tick: piece.rows,
        clock_hz: schedule.base.hz(),
        method: options.method.for_tick(tick_s)?,
        rtol: options.rtol,
        atol: options.atol,
        inputs: tables(problem, schedule, piece, options, values)?,
        ..Plan::default()
    })
}

fn tables(
    problem: &Problem,
    schedule: &Schedule,
    piece: &Piece,
    options: &SolveOptions,
    values: &Values,
) -> Result<Vec<InputTable>, SolveError> {
    let inputs = &problem.meta().inputs;
    let mut tables = vec![InputTable::default(); inputs.len()];
    for (index, value) in &values.inputs {
        // Before its first knot an input has that knot's value.
        tables[*index].knots = vec![(0, *value)];
    }
    for series in &options.inputs {
        let index = problem.index("input", &series.name, inputs)?;
        let mut knots = Vec::with_capacity(series.times.len());
        for (time, value) in series.times.iter().zip(&series.values) {
            let clock = schedule.base.clock(*time).ok_or_else(|| {
                SolveError::value(&series.name, *time, "the time of a knot lies too far beyond the run")
            })?;
            knots.push((clock.saturating_add(piece.origin), *value));
        }
        if series.times.len() != series.values.len() || knots.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Err(SolveError::Value {
                what: format!("input `{}`", series.name),
                value: format!("{} times with {} values", series.times.len(), series.values.len()),
                remedy: "give one value for each time, and strictly increasing times".to_owned(),
            });
        }
        tables[index] = InputTable {
            mode: series.mode,
            knots,
        };
    }
    Ok(tables)
}

pub(super) fn count(statistics: &mut Statistics, status: &Status) {
    statistics.steps = statistics.steps.saturating_add(status.steps);
    statistics.rejected = statistics.rejected.saturating_add(status.rejected);
    statistics.evaluations = statistics.evaluations.saturating_add(status.evaluations);
    statistics.events = statistics.events.saturating_add(status.events);
    status.method.clone_into(&mut statistics.method);
    if let Some(time) = status.switched_at {
        let reason = format!("rodas5p from {time} s on: the steps of tsit5 were held down by stability");
        statistics.reason.get_or_insert(reason);
    }
}

pub(super) fn failure(problem: &Problem, status: &Status) -> Option<String> {
    if status.code == Code::StepLimit {
        return Some(format!(
            "{}: the limit of {} steps was reached at time {} s: loosen the tolerance, choose another method, or raise \
             the limit",
            problem.meta().model,
            problem.limits.max_steps,
            status.time
        ));
    }
    status.describe(problem.meta())
}

/// Our own modules stop before they write such a row; a foreign one may not.
pub(super) fn check_finite(problem: &Problem, rows: &Rows) -> Result<(), SolveError> {
    let Some(at) = rows.values.iter().position(|value| !value.is_finite()) else {
        return Ok(());
    };
    let (row, column) = (at / rows.columns.max(1), at % rows.columns.max(1));
    let name = problem.meta().columns.get(column).map_or("", |var| var.name.as_str());
    Err(SolveError::Numerical(format!(
        "{}: `{name}` is not a finite number at time {} s",
        problem.meta().model,
        rows.times.get(row).copied().unwrap_or(f64::NAN)
    )))
}

/// `{"time": […], "series": {"<name>": […]}, "statistics": {…}}`.
impl Serialize for Solution {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Solution", 3)?;
        object.serialize_field("time", &self.rows.times)?;
        object.serialize_field("series", &SeriesOf(self))?;
        object.serialize_field("statistics", &self.statistics)?;
        object.end()
    }
}

struct SeriesOf<'a>(&'a Solution);

impl Serialize for SeriesOf<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let column = |(at, name)| (name, self.0.rows.column(at).collect::<Vec<f64>>());
        serializer.collect_map(self.0.names.iter().enumerate().map(column))
    }
}
