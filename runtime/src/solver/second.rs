//! First and second derivatives along a line through the values of a run.
//!
//! With v as the direction and the mesh held, a row y has y' = ∂y·v and y'' = vᵀ(∂²y)v, both exact for what was computed,
//! through events too (their times move by the implicit function theorem, twice). A loss L has vᵀ(∂²L)v, and by polarisation
//! its Hessian.

use orrery_lang::abi::{self, Rows};
use serde::Serialize;

use super::error::SolveError;
use super::gradient::Wrt;
use super::loss::Loss;
use super::options::{SolveOptions, Values};
use super::problem::Problem;
use super::recording::Recording;
use super::run::Session;

/// A number along a line, at the point from which the line starts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Along {
    /// Its value.
    pub value: f64,
    /// Its first derivative by the length along the direction.
    pub first: f64,
    /// Its second derivative.
    pub second: f64,
}

/// The rows of a run along a line.
#[derive(Debug, Clone, PartialEq)]
pub struct RowsAlong {
    /// The names of the columns.
    pub names: Vec<String>,
    /// The rows.
    pub rows: Rows,
    /// Their first derivatives, row by row.
    pub first: Vec<f64>,
    /// Their second derivatives, row by row.
    pub second: Vec<f64>,
}

impl Problem {
    /// A direction of named components; of an input it moves every knot alike.
    ///
    /// # Errors
    /// [`SolveError`] names what the model does not have, and components that are not numbers.
    pub fn direction(&self, components: &[(String, f64)], noise: &[String]) -> Result<Vec<(Wrt, f64)>, SolveError> {
        let mut direction = Vec::new();
        for (name, component) in components {
            if !component.is_finite() {
                return Err(SolveError::value(name, *component, "a direction has finite components"));
            }
            let found = self.wrt(name, noise)?;
            direction.extend(found.into_iter().map(|(_, wrt)| (wrt, *component)));
        }
        if direction.is_empty() {
            return Err(SolveError::Value {
                what: "direction".to_owned(),
                value: "empty".to_owned(),
                remedy: "give at least one parameter, input or start(state) a component".to_owned(),
            });
        }
        Ok(direction)
    }

    /// The loss of a run with its first and second derivative along `direction`. The problem must have been compiled for
    /// [second derivatives](super::ProblemOptions::second_derivatives).
    ///
    /// # Errors
    /// [`SolveError`] says what failed, where in the model and when, and where there is no derivative.
    pub fn loss_along(
        &self,
        loss: &Loss,
        direction: &[(Wrt, f64)],
        options: &SolveOptions,
    ) -> Result<Along, SolveError> {
        self.session()?.loss_along(loss, direction, options, &Values::default())
    }

    /// The rows that `options` ask for with their first and second derivatives along `direction`.
    ///
    /// # Errors
    /// [`SolveError`] says what failed, where in the model and when, and where there is no derivative.
    pub fn rows_along(&self, direction: &[(Wrt, f64)], options: &SolveOptions) -> Result<RowsAlong, SolveError> {
        self.session()?.rows_along(direction, options, &Values::default())
    }

    /// The Hessian of the loss, row by row in the order of `wrt`: one sweep for each pair, by polarisation,
    /// 2·Hᵢⱼ = (eᵢ+eⱼ)ᵀH(eᵢ+eⱼ) − Hᵢᵢ − Hⱼⱼ. Each axis is first measured in units in which its own curvature is one, so that
    /// the difference does not lose what is small.
    ///
    /// # Errors
    /// [`SolveError`] says what failed, where in the model and when, and where there is no derivative.
    pub fn hessian(&self, loss: &Loss, wrt: &[Wrt], options: &SolveOptions) -> Result<Vec<Vec<f64>>, SolveError> {
        self.session()?.hessian(loss, wrt, options, &Values::default())
    }
}

impl Session<'_> {
    /// Like [`Problem::loss_along`], with these values on top of the problem's.
    ///
    /// # Errors
    /// [`SolveError`] says what failed, where in the model and when, and where there is no derivative.
    pub fn loss_along(
        &mut self,
        loss: &Loss,
        direction: &[(Wrt, f64)],
        options: &SolveOptions,
        values: &Values,
    ) -> Result<Along, SolveError> {
        self.require_second()?;
        let values = self.with_knots(direction.iter().map(|(wrt, _)| *wrt), options, values);
        let (mut recording, evaluated) = self.taped(loss, options, &values)?;
        let [first, second] = self.sweep_along(&mut recording, direction)?;
        let (first, second) = evaluated.along(&first, &second, &scales(direction, evaluated.noise.len()));
        Ok(Along {
            value: evaluated.value,
            first,
            second,
        })
    }

    /// Like [`Problem::rows_along`], with these values on top of the problem's.
    ///
    /// # Errors
    /// [`SolveError`] says what failed, where in the model and when, and where there is no derivative.
    pub fn rows_along(
        &mut self,
        direction: &[(Wrt, f64)],
        options: &SolveOptions,
        values: &Values,
    ) -> Result<RowsAlong, SolveError> {
        self.require_second()?;
        let values = self.with_knots(direction.iter().map(|(wrt, _)| *wrt), options, values);
        let (mut recording, rows, schedule) = self.recorded(options.output.clone(), options, &values)?;
        let [first, second] = self.sweep_along(&mut recording, direction)?;
        let pick = |values: Vec<f64>| {
            let all = Rows {
                times: rows.times.clone(),
                columns: rows.columns,
                values,
            };
            match schedule.pieces.first() {
                Some(piece) => piece.select(schedule.base, all),
                None => all,
            }
        };
        Ok(RowsAlong {
            names: self.problem().names(),
            first: pick(first).values,
            second: pick(second).values,
            rows: pick(rows.values.clone()),
        })
    }

    /// Like [`Problem::hessian`], with these values on top of the problem's.
    ///
    /// # Errors
    /// [`SolveError`] says what failed, where in the model and when, and where there is no derivative.
    pub fn hessian(
        &mut self,
        loss: &Loss,
        wrt: &[Wrt],
        options: &SolveOptions,
        values: &Values,
    ) -> Result<Vec<Vec<f64>>, SolveError> {
        self.require_second()?;
        let values = self.with_knots(wrt.iter().copied(), options, values);
        let (mut recording, evaluated) = self.taped(loss, options, &values)?;
        let mut curvature = |direction: &[(Wrt, f64)]| -> Result<f64, SolveError> {
            let [first, second] = self.sweep_along(&mut recording, direction)?;
            let (_, second) = evaluated.along(&first, &second, &scales(direction, evaluated.noise.len()));
            Ok(second)
        };
        let diagonal: Result<Vec<f64>, SolveError> = wrt.iter().map(|wrt| curvature(&[(*wrt, 1.0)])).collect();
        let diagonal = diagonal?;
        let unit = |curvature: f64| {
            if curvature == 0.0 {
                1.0
            } else {
                1.0 / curvature.abs().sqrt()
            }
        };
        let mut hessian = vec![vec![0.0; wrt.len()]; wrt.len()];
        for (i, one) in wrt.iter().enumerate() {
            hessian[i][i] = diagonal[i];
            for (j, other) in wrt.iter().enumerate().take(i) {
                let (a, b) = (unit(diagonal[i]), unit(diagonal[j]));
                let both = curvature(&[(*one, a), (*other, b)])?;
                let mixed = 0.5 * (both - a * a * diagonal[i] - b * b * diagonal[j]) / (a * b);
                (hessian[i][j], hessian[j][i]) = (mixed, mixed);
            }
        }
        Ok(hessian)
    }

    fn sweep_along(
        &mut self,
        recording: &mut Recording,
        direction: &[(Wrt, f64)],
    ) -> Result<[Vec<f64>; 2], SolveError> {
        let mut line: abi::Gradient = self.still(recording);
        for (wrt, component) in direction {
            match *wrt {
                Wrt::Parameter(at) => line.parameters[at] += component,
                Wrt::Start(at) => line.states[at] += component,
                Wrt::Input(at) => line.inputs[at].iter_mut().for_each(|knot| *knot += component),
                Wrt::Noise(_) => {}
            }
        }
        let tangents = self.second(recording, &line)?;
        if tangents.iter().flatten().all(|number| number.is_finite()) {
            return Ok(tangents);
        }
        let model = &self.problem().meta().model;
        Err(SolveError::Numerical(format!(
            "{model}: a derivative along the direction is not a finite number"
        )))
    }

    fn require_second(&self) -> Result<(), SolveError> {
        if self.problem().meta().second_derivatives {
            return Ok(());
        }
        let remedy = "compile the problem with `second_derivatives`";
        Err(SolveError::Module(format!(
            "the module has no second derivatives: {remedy}"
        )))
    }
}

/// How much of each unknown scale of noise a direction has.
fn scales(direction: &[(Wrt, f64)], count: usize) -> Vec<f64> {
    let mut scales = vec![0.0; count];
    for (wrt, component) in direction {
        if let Wrt::Noise(at) = wrt
            && let Some(scale) = scales.get_mut(*at)
        {
            *scale += component;
        }
    }
    scales
}
