//! What a gradient is asked for, and how it is put together from what the reverse pass leaves.

use orrery_lang::abi::{self, Initialise, Rows, Seeds};
use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use super::error::SolveError;
use super::loss::{Evaluated, Loss};
use super::options::{SolveOptions, Values};
use super::problem::{Problem, start_of};
use super::recording::Recording;
use super::run::{MOST_STEPS, Session, check_finite, plan_of};
use super::schedule::{Output, Schedule};

/// Something a loss is differentiated by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wrt {
    /// A tunable parameter, by its place in the description.
    Parameter(usize),
    /// The start value of a state, by its place.
    Start(usize),
    /// The knots of an input, by its place.
    Input(usize),
    /// The scale of unknown noise, by its place among those of the loss.
    Noise(usize),
}

/// What the reverse pass leaves: derivatives by everything, in the order of the description.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sensitivities {
    /// By the tunable parameters, through dependent parameters and start expressions too.
    pub parameters: Vec<f64>,
    /// By the start values of the states.
    pub starts: Vec<f64>,
    /// By the values of the knots of each input.
    pub inputs: Vec<Vec<f64>>,
}

/// A loss with its derivatives by what was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradient {
    /// The loss.
    pub value: f64,
    /// Name and derivative, in the order asked for.
    pub by: Vec<(String, f64)>,
    /// Name and derivatives by the values of the knots, in the order asked for.
    pub by_knots: Vec<(String, Vec<f64>)>,
}

impl Problem {
    /// Names as [`Problem::values`] takes them, split at the commas between them: `p,start(x),a[1,2]`; `noise` lists the
    /// names of unknown scales.
    ///
    /// # Errors
    /// [`SolveError::Unknown`] for what the model does not have.
    pub fn wrt(&self, list: &str, noise: &[String]) -> Result<Vec<(String, Wrt)>, SolveError> {
        let mut all = Vec::new();
        for name in names_of(list) {
            let wrt = if let Some(at) = noise.iter().position(|known| known == name) {
                Wrt::Noise(at)
            } else if let Some(state) = start_of(name) {
                Wrt::Start(self.index("state", state, &self.meta().states)?)
            } else if let Some(input) = self.meta().input(name) {
                Wrt::Input(input)
            } else {
                Wrt::Parameter(self.index("tunable parameter", name, &self.meta().parameters)?)
            };
            let name = match wrt {
                Wrt::Start(state) => format!("start({})", self.meta().states[state].name),
                _ => name.to_owned(),
            };
            if all.iter().any(|(before, _)| *before == name) {
                return Err(SolveError::Value {
                    what: "wrt".to_owned(),
                    value: format!("`{list}`"),
                    remedy: format!("name `{name}` once"),
                });
            }
            all.push((name, wrt));
        }
        if all.is_empty() {
            return Err(SolveError::Value {
                what: "wrt".to_owned(),
                value: format!("`{list}`"),
                remedy: "name at least one parameter, input or start(state)".to_owned(),
            });
        }
        Ok(all)
    }
}

impl Problem {
    /// The loss of a run with the problem's own values, and its derivatives by the discrete adjoint of what was computed.
    /// The rows are those the loss looks at; `options.output` is not used.
    ///
    /// # Errors
    /// [`SolveError`] says what failed, where in the model and when, and where there is no derivative.
    pub fn gradient(&self, loss: &Loss, wrt: &[(String, Wrt)], options: &SolveOptions) -> Result<Gradient, SolveError> {
        self.session()?.gradient(loss, wrt, options, &Values::default())
    }

    /// Like [`Problem::gradient`] by forward sensitivities over the same steps.
    ///
    /// # Errors
    /// [`SolveError`] says what failed, where in the model and when, and where there is no derivative.
    pub fn gradient_forward(
        &self,
        loss: &Loss,
        wrt: &[(String, Wrt)],
        options: &SolveOptions,
    ) -> Result<Gradient, SolveError> {
        self.session()?.gradient_forward(loss, wrt, options, &Values::default())
    }
}

impl Session<'_> {
    /// Like [`Problem::gradient`], with these values on top of the problem's.
    ///
    /// # Errors
    /// [`SolveError`] says what failed, where in the model and when, and where there is no derivative.
    pub fn gradient(
        &mut self,
        loss: &Loss,
        wrt: &[(String, Wrt)],
        options: &SolveOptions,
        values: &Values,
    ) -> Result<Gradient, SolveError> {
        let values = self.with_knots(wrt.iter().map(|(_, wrt)| *wrt), options, values);
        let (evaluated, sensitivities) = self.differentiate(loss, options, &values)?;
        Ok(Gradient::pick(&evaluated, &sensitivities, wrt))
    }

    /// Like [`Session::gradient`] by forward sensitivities over the same steps: one sweep for each number asked for.
    ///
    /// # Errors
    /// [`SolveError`] says what failed, where in the model and when, and where there is no derivative.
    pub fn gradient_forward(
        &mut self,
        loss: &Loss,
        wrt: &[(String, Wrt)],
        options: &SolveOptions,
        values: &Values,
    ) -> Result<Gradient, SolveError> {
        let values = self.with_knots(wrt.iter().map(|(_, wrt)| *wrt), options, values);
        let (mut recording, evaluated) = self.taped(loss, options, &values)?;
        let still = self.still(&recording);
        let mut all = Sensitivities {
            parameters: still.parameters.clone(),
            starts: still.states.clone(),
            inputs: still.inputs.clone(),
        };
        let mut sweep = |direction: &abi::Gradient| -> Result<f64, SolveError> {
            let tangents = self.forward(&mut recording, direction)?;
            let pairs = evaluated.rows.values.iter().zip(tangents);
            Ok(pairs.map(|(cotangent, tangent)| cotangent * tangent).sum())
        };
        for (_, wrt) in wrt {
            let mut direction = still.clone();
            match *wrt {
                Wrt::Parameter(at) => {
                    direction.parameters[at] = 1.0;
                    all.parameters[at] = sweep(&direction)?;
                }
                Wrt::Start(at) => {
                    direction.states[at] = 1.0;
                    all.starts[at] = sweep(&direction)?;
                }
                Wrt::Input(at) => {
                    for knot in 0..still.inputs[at].len() {
                        direction.inputs[at] = still.inputs[at].clone();
                        direction.inputs[at][knot] = 1.0;
                        all.inputs[at][knot] = sweep(&direction)?;
                    }
                }
                Wrt::Noise(_) => {}
            }
        }
        Ok(Gradient::pick(&evaluated, &all, wrt))
    }

    /// The values of a run whose inputs have at least one knot where it is differentiated by them: the value they keep.
    pub(super) fn with_knots(&self, wrt: impl Iterator<Item = Wrt>, options: &SolveOptions, values: &Values) -> Values {
        let mut values = self.problem().base.with(values);
        for wrt in wrt {
            let Wrt::Input(at) = wrt else { continue };
            if let Some(var) = self.problem().meta().inputs.get(at) {
                let given = options.inputs.iter().any(|series| series.name == var.name);
                if !given && values.inputs.iter().all(|(known, _)| *known != at) {
                    values.inputs.push((at, var.default));
                }
            }
        }
        values
    }

    /// The loss and its derivatives by everything.
    ///
    /// # Errors
    /// [`SolveError`] says what failed, where in the model and when, and where there is no derivative.
    pub fn differentiate(
        &mut self,
        loss: &Loss,
        options: &SolveOptions,
        values: &Values,
    ) -> Result<(Evaluated, Sensitivities), SolveError> {
        let problem = self.problem().clone();
        let meta = problem.meta();
        let (mut recording, evaluated) = self.taped(loss, options, values)?;
        let seeds = Seeds {
            rows: evaluated.rows.values.clone(),
            last: Vec::new(),
        };
        let gradient = self.reverse(&mut recording, &seeds)?;
        let mut starts = gradient.states;
        starts.truncate(meta.states.len());
        let numbers = gradient
            .parameters
            .iter()
            .chain(&starts)
            .chain(gradient.inputs.iter().flatten());
        if !numbers.copied().all(f64::is_finite) {
            let message = format!("{}: the gradient is not a finite number", meta.model);
            return Err(SolveError::Numerical(message));
        }
        let sensitivities = Sensitivities {
            parameters: gradient.parameters,
            starts,
            inputs: gradient.inputs,
        };
        Ok((evaluated, sensitivities))
    }

    /// The direction in which nothing changes.
    pub(super) fn still(&self, recording: &Recording) -> abi::Gradient {
        let meta = self.problem().meta();
        let knots = |input: usize| recording.plan().inputs.get(input).map_or(0, |table| table.knots.len());
        abi::Gradient {
            parameters: vec![0.0; meta.parameters.len()],
            states: vec![0.0; meta.carried() as usize],
            inputs: (0..meta.inputs.len()).map(|input| vec![0.0; knots(input)]).collect(),
        }
    }

    /// A solved plan with its tape, and the loss of its rows.
    pub(super) fn taped(
        &mut self,
        loss: &Loss,
        options: &SolveOptions,
        values: &Values,
    ) -> Result<(Recording, Evaluated), SolveError> {
        let problem = self.problem().clone();
        let (recording, rows, _) = self.recorded(Output::At(loss.times()), options, values)?;
        let evaluated = loss.evaluate(&rows, &|of, integral| {
            if integral {
                problem.integral(of)
            } else {
                problem.column(of)
            }
        })?;
        Ok((recording, evaluated))
    }

    /// A solved plan with its tape, all its rows, and which of them were asked for.
    pub(super) fn recorded(
        &mut self,
        output: Output,
        options: &SolveOptions,
        values: &Values,
    ) -> Result<(Recording, Rows, Schedule), SolveError> {
        let problem = self.problem().clone();
        let (meta, values) = (problem.meta(), problem.base.with(values));
        let schedule = Schedule::new(options.from, options.until, &output, abi::row_bytes(meta))?;
        let [piece] = schedule.pieces.as_slice() else {
            return Err(SolveError::Value {
                what: "output".to_owned(),
                value: format!("{output:?}"),
                remedy: "a run that is differentiated is one piece: ask for fewer rows, or for listed times".to_owned(),
            });
        };
        let mut plan = plan_of(&problem, &schedule, piece, options, &values)?;
        plan.max_steps = problem.limits.max_steps.min(MOST_STEPS);
        plan.first_row = true;
        plan.initialise = Some(Initialise {
            parameters: values.parameters.clone(),
            states: values.states.clone(),
        });
        let (recording, rows) = self.record(plan)?;
        check_finite(&problem, &rows)?;
        Ok((recording, rows, schedule))
    }
}

/// The names of a list; commas inside brackets belong to a name.
pub fn names_of(list: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    let names = list.split(|character: char| {
        match character {
            '[' | '(' => depth += 1,
            ']' | ')' => depth -= 1,
            _ => {}
        }
        character == ',' && depth == 0
    });
    names.map(str::trim).filter(|name| !name.is_empty()).collect()
}

impl Gradient {
    /// Picks what was asked for.
    pub fn pick(loss: &Evaluated, all: &Sensitivities, wrt: &[(String, Wrt)]) -> Self {
        let mut gradient = Self {
            value: loss.value,
            by: Vec::new(),
            by_knots: Vec::new(),
        };
        for (name, wrt) in wrt {
            let number = match wrt {
                Wrt::Parameter(at) => all.parameters.get(*at).copied(),
                Wrt::Start(at) => all.starts.get(*at).copied(),
                Wrt::Noise(at) => loss.noise.get(*at).map(|(_, derivative)| *derivative),
                Wrt::Input(at) => {
                    let knots = all.inputs.get(*at).cloned().unwrap_or_default();
                    gradient.by_knots.push((name.clone(), knots));
                    continue;
                }
            };
            gradient.by.push((name.clone(), number.unwrap_or(0.0)));
        }
        gradient
    }
}

/// `{"value": v, "gradient": {"p": …, "u": […]}}`.
impl Serialize for Gradient {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Gradient", 2)?;
        object.serialize_field("value", &self.value)?;
        object.serialize_field("gradient", &By(self))?;
        object.end()
    }
}

struct By<'a>(&'a Gradient);

impl Serialize for By<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let mut map = serializer.serialize_map(Some(self.0.by.len() + self.0.by_knots.len()))?;
        for (name, derivative) in &self.0.by {
            map.serialize_entry(name, derivative)?;
        }
        for (name, derivatives) in &self.0.by_knots {
            match derivatives.as_slice() {
                [constant] => map.serialize_entry(name, constant)?,
                knots => map.serialize_entry(name, knots)?,
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solver::Cotangents;

    #[test]
    fn commas_inside_brackets_belong_to_the_name() {
        assert_eq!(
            names_of("p, start(x), a[1,2],start(b[2,1])"),
            ["p", "start(x)", "a[1,2]", "start(b[2,1])"]
        );
        assert!(names_of(" , ").is_empty());
    }

    #[test]
    fn a_gradient_holds_what_was_asked_for() {
        let loss = Evaluated {
            value: 2.5,
            rows: Cotangents {
                values: vec![],
                columns: 0,
            },
            noise: vec![("sigma".to_owned(), 0.5)],
            bends: vec![],
        };
        let all = Sensitivities {
            parameters: vec![1.0, 2.0],
            starts: vec![3.0],
            inputs: vec![vec![4.0, 5.0]],
        };
        let wrt = [
            ("q".to_owned(), Wrt::Parameter(1)),
            ("start(x)".to_owned(), Wrt::Start(0)),
            ("sigma".to_owned(), Wrt::Noise(0)),
            ("u".to_owned(), Wrt::Input(0)),
        ];
        let json = serde_json::to_string(&Gradient::pick(&loss, &all, &wrt)).unwrap();
        assert_eq!(
            json,
            r#"{"value":2.5,"gradient":{"q":2.0,"start(x)":3.0,"sigma":0.5,"u":[4.0,5.0]}}"#
        );
    }
}
