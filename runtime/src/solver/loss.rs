//! What is made of rows: one number, and how it changes with each value of each row.
//!
//! A loss knows nothing of the model. It is given rows and gives cotangents: ∂loss/∂(row, column). The reverse pass of
//! the module carries them on to parameters, starts and inputs.

use orrery_lang::abi::Rows;
use serde::Deserialize;

use super::error::SolveError;

/// A number made of rows.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Loss {
    /// The value of a variable or an expression at the end.
    Terminal(String),
    /// The integral of an expression over the run.
    Path(String),
    /// Σ w·(model − value)² over the series.
    LeastSquares(Vec<Series>),
    /// −log of the likelihood of the series with independent normal errors of variance scale²/w.
    Gaussian(Vec<Series>, Noise),
    /// −log of the likelihood of the series with independent Student-t errors: heavy tails, which forgive outliers.
    StudentT {
        /// What was measured.
        series: Vec<Series>,
        /// The scale of the errors; each is divided by the square root of its weight.
        noise: Noise,
        /// Degrees of freedom, positive; the smaller, the heavier the tails.
        degrees: f64,
    },
    /// A weighted sum of losses, such as a fit with a penalty or a terminal with a path cost.
    Sum(Vec<(f64, Loss)>),
}

/// A variable's measured values.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Series {
    /// The variable.
    pub of: String,
    /// Seconds.
    pub times: Vec<f64>,
    /// One value for each time.
    pub values: Vec<f64>,
    /// One weight for each time, not negative; empty for 1 everywhere. A gap is a weight of 0.
    #[serde(default)]
    pub weights: Vec<f64>,
}

/// The scale of measurement errors.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Noise {
    /// What it is called in a gradient, if it is unknown.
    #[serde(default)]
    pub name: Option<String>,
    /// Its value, positive, in the unit of the variables.
    pub scale: f64,
}

/// ∂loss/∂value for every row and column, laid out as the rows are.
#[derive(Debug, Clone, PartialEq)]
pub struct Cotangents {
    /// Row by row.
    pub values: Vec<f64>,
    /// Columns a row.
    pub columns: usize,
}

/// A loss with its derivatives.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    /// The number.
    pub value: f64,
    /// Its derivatives by the values of the rows.
    pub rows: Cotangents,
    /// Its derivatives by the scales of unknown noise.
    pub noise: Vec<(String, f64)>,
    /// Its second derivatives, which couple no two measurements.
    pub(super) bends: Vec<Bend>,
}

/// The second derivatives of what one measurement adds to a loss.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bend {
    /// The row and column, as a place among the values of the rows.
    place: usize,
    /// Which unknown scale.
    noise: Option<usize>,
    twice_by_value: f64,
    by_value_and_scale: f64,
    twice_by_scale: f64,
}

impl Evaluated {
    /// The first and the second derivative along a line: `first` and `second` are the tangents of the rows, `scales` how much
    /// of each unknown scale the direction has.
    pub(super) fn along(&self, first: &[f64], second: &[f64], scales: &[f64]) -> (f64, f64) {
        let dot = |tangents: &[f64]| -> f64 { self.rows.values.iter().zip(tangents).map(|(a, b)| a * b).sum() };
        let slope = self.noise.iter().zip(scales).map(|((_, by), scale)| by * scale);
        let bend = self.bends.iter().map(|bend| {
            let value = first.get(bend.place).copied().unwrap_or(0.0);
            let scale = bend.noise.and_then(|at| scales.get(at)).copied().unwrap_or(0.0);
            bend.twice_by_value * value * value
                + 2.0 * bend.by_value_and_scale * value * scale
                + bend.twice_by_scale * scale * scale
        });
        (dot(first) + slope.sum::<f64>(), dot(second) + bend.sum::<f64>())
    }
}

impl Loss {
    /// The times the loss looks at, besides the end.
    pub fn times(&self) -> Vec<f64> {
        let mut times: Vec<f64> = self
            .all_series()
            .iter()
            .flat_map(|series| series.times.iter().copied())
            .collect();
        times.sort_unstable_by(f64::total_cmp);
        times.dedup();
        times
    }

    fn all_series(&self) -> Vec<&Series> {
        match self {
            Self::Terminal(_) | Self::Path(_) => Vec::new(),
            Self::LeastSquares(series) | Self::Gaussian(series, _) | Self::StudentT { series, .. } => {
                series.iter().collect()
            }
            Self::Sum(parts) => parts.iter().flat_map(|(_, loss)| loss.all_series()).collect(),
        }
    }

    /// What a problem must be compiled with: the expressions read at rows, and those integrated.
    pub fn expressions(&self) -> (Vec<String>, Vec<String>) {
        match self {
            Self::Terminal(of) => (vec![of.clone()], Vec::new()),
            Self::Path(of) => (Vec::new(), vec![of.clone()]),
            Self::LeastSquares(series) | Self::Gaussian(series, _) | Self::StudentT { series, .. } => {
                (series.iter().map(|series| series.of.clone()).collect(), Vec::new())
            }
            Self::Sum(parts) => {
                let mut all = (Vec::new(), Vec::new());
                for (_, loss) in parts {
                    let (expressions, integrals) = loss.expressions();
                    all.0.extend(expressions);
                    all.1.extend(integrals);
                }
                all
            }
        }
    }

    /// The names of the unknown scales, in the order of [`Evaluated::noise`].
    pub fn noise(&self) -> Vec<String> {
        let mut names = Vec::new();
        match self {
            Self::Gaussian(_, noise) | Self::StudentT { noise, .. } => names.extend(noise.name.clone()),
            Self::Sum(parts) => {
                for name in parts.iter().flat_map(|(_, loss)| loss.noise()) {
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }
            }
            Self::Terminal(_) | Self::Path(_) | Self::LeastSquares(_) => {}
        }
        names
    }

    /// The loss of these rows. `column` finds the column of an expression, and of one's integral.
    ///
    /// # Errors
    /// [`SolveError`] names a series that makes no sense, a variable that is not there, and a time without a row.
    pub fn evaluate(&self, rows: &Rows, column: Columns<'_>) -> Result<Evaluated, SolveError> {
        let mut sum = Evaluated {
            value: 0.0,
            rows: Cotangents {
                values: vec![0.0; rows.values.len()],
                columns: rows.columns,
            },
            noise: Vec::new(),
            bends: Vec::new(),
        };
        self.add(1.0, rows, column, &mut sum)?;
        Ok(sum)
    }

    fn add(&self, factor: f64, rows: &Rows, column: Columns<'_>, sum: &mut Evaluated) -> Result<(), SolveError> {
        match self {
            Self::Terminal(of) | Self::Path(of) => {
                let integral = matches!(self, Self::Path(_));
                let (row, column) = (rows.times.len().saturating_sub(1), column(of, integral)?);
                let value = rows.row(row).get(column).copied().ok_or_else(no_rows)?;
                sum.value += factor * value;
                sum.rows.add(row, column, factor);
                Ok(())
            }
            Self::LeastSquares(series) => {
                let law = |residual: f64, weight: f64| Term {
                    value: weight * residual * residual,
                    by_residual: 2.0 * weight * residual,
                    twice_by_residual: 2.0 * weight,
                    ..NOTHING
                };
                series
                    .iter()
                    .try_for_each(|series| series.add(factor, rows, column, &law, sum).map(drop))
            }
            Self::Gaussian(series, noise) => {
                let scale = noise.checked()?;
                let law = |residual: f64, weight: f64| gaussian(residual, weight, scale);
                noise.add_all(series, factor, rows, column, &law, sum)
            }
            Self::StudentT { series, noise, degrees } => {
                let (scale, degrees) = (noise.checked()?, *degrees);
                if !(degrees.is_finite() && degrees > 0.0) {
                    return Err(SolveError::value("degrees of freedom", degrees, "it must be positive"));
                }
                let norm = libm::lgamma(0.5 * degrees) - libm::lgamma(0.5 * (degrees + 1.0))
                    + 0.5 * libm::log(degrees * std::f64::consts::PI);
                let law = |residual: f64, weight: f64| student(residual, weight, scale, degrees, norm);
                noise.add_all(series, factor, rows, column, &law, sum)
            }
            Self::Sum(parts) => parts
                .iter()
                .try_for_each(|(weight, loss)| loss.add(factor * weight, rows, column, sum)),
        }
    }
}

/// What one measurement adds to a loss.
struct Term {
    value: f64,
    by_residual: f64,
    by_scale: f64,
    twice_by_residual: f64,
    by_both: f64,
    twice_by_scale: f64,
}

const NOTHING: Term = Term {
    value: 0.0,
    by_residual: 0.0,
    by_scale: 0.0,
    twice_by_residual: 0.0,
    by_both: 0.0,
    twice_by_scale: 0.0,
};

fn gaussian(residual: f64, weight: f64, scale: f64) -> Term {
    if weight == 0.0 {
        return NOTHING;
    }
    let standard = residual / scale;
    let squared = weight * standard * standard;
    Term {
        value: 0.5 * squared + libm::log(scale) - 0.5 * libm::log(weight) + 0.5 * libm::log(2.0 * std::f64::consts::PI),
        by_residual: weight * standard / scale,
        by_scale: (1.0 - squared) / scale,
        twice_by_residual: weight / (scale * scale),
        by_both: -2.0 * weight * standard / (scale * scale),
        twice_by_scale: (3.0 * squared - 1.0) / (scale * scale),
    }
}

fn student(residual: f64, weight: f64, scale: f64, degrees: f64, norm: f64) -> Term {
    if weight == 0.0 {
        return NOTHING;
    }
    let standard = residual / scale;
    let squared = weight * standard * standard;
    // How much this measurement counts beside a normal one.
    let share = (degrees + 1.0) / (degrees + squared);
    let tail = squared / (degrees + squared);
    Term {
        value: norm + libm::log(scale) - 0.5 * libm::log(weight)
            + 0.5 * (degrees + 1.0) * libm::log1p(squared / degrees),
        by_residual: share * weight * standard / scale,
        by_scale: (1.0 - share * squared) / scale,
        twice_by_residual: share * weight * (1.0 - 2.0 * tail) / (scale * scale),
        by_both: -2.0 * share * weight * standard * (1.0 - tail) / (scale * scale),
        twice_by_scale: (share * squared * (3.0 - 2.0 * tail) - 1.0) / (scale * scale),
    }
}

/// The column of an expression (`false`) or of its integral (`true`).
type Columns<'a> = &'a dyn Fn(&str, bool) -> Result<usize, SolveError>;
type Law<'a> = &'a dyn Fn(f64, f64) -> Term;

impl Noise {
    fn checked(&self) -> Result<f64, SolveError> {
        if self.scale.is_finite() && self.scale > 0.0 {
            return Ok(self.scale);
        }
        let name = self.name.as_deref().unwrap_or("noise");
        Err(SolveError::value(
            name,
            self.scale,
            "the scale of noise must be positive",
        ))
    }

    fn add_all(
        &self,
        series: &[Series],
        factor: f64,
        rows: &Rows,
        column: Columns<'_>,
        law: Law<'_>,
        sum: &mut Evaluated,
    ) -> Result<(), SolveError> {
        let mut by_scale = 0.0;
        let from = sum.bends.len();
        for series in series {
            by_scale += series.add(factor, rows, column, law, sum)?;
        }
        let Some(name) = &self.name else {
            return Ok(());
        };
        let known = sum.noise.iter().position(|(known, _)| known == name);
        let at = known.unwrap_or_else(|| {
            sum.noise.push((name.clone(), 0.0));
            sum.noise.len() - 1
        });
        sum.noise[at].1 += by_scale;
        for bend in &mut sum.bends[from..] {
            bend.noise = Some(at);
        }
        Ok(())
    }
}

impl Series {
    /// Adds every measurement to the sum; returns the derivative by the scale.
    fn add(
        &self,
        factor: f64,
        rows: &Rows,
        column: Columns<'_>,
        law: Law<'_>,
        sum: &mut Evaluated,
    ) -> Result<f64, SolveError> {
        self.check()?;
        let column = column(&self.of, false)?;
        let mut by_scale = 0.0;
        for (at, (time, value)) in self.times.iter().zip(&self.values).enumerate() {
            let weight = self.weights.get(at).copied().unwrap_or(1.0);
            // The last row of an instant is the one after its events.
            let row = rows.times.partition_point(|row| row <= time).checked_sub(1);
            let row = row.filter(|row| rows.times.get(*row) == Some(time));
            let missing = || SolveError::value(&self.of, *time, "the run has no row at this time");
            let row = row.ok_or_else(missing)?;
            let model = rows.row(row).get(column).copied().ok_or_else(no_rows)?;
            let term = law(model - value, weight);
            sum.value += factor * term.value;
            sum.rows.add(row, column, factor * term.by_residual);
            by_scale += factor * term.by_scale;
            sum.bends.push(Bend {
                place: row * rows.columns + column,
                noise: None,
                twice_by_value: factor * term.twice_by_residual,
                by_value_and_scale: factor * term.by_both,
                twice_by_scale: factor * term.twice_by_scale,
            });
        }
        Ok(by_scale)
    }

    fn check(&self) -> Result<(), SolveError> {
        let count = self.times.len();
        if self.values.len() != count || !(self.weights.is_empty() || self.weights.len() == count) {
            return Err(SolveError::Value {
                what: format!("series of `{}`", self.of),
                value: format!(
                    "{count} times, {} values, {} weights",
                    self.values.len(),
                    self.weights.len()
                ),
                remedy: "give one value for each time, and no weights or one for each".to_owned(),
            });
        }
        if let Some(value) = self.values.iter().find(|value| !value.is_finite()) {
            return Err(SolveError::value(
                &self.of,
                *value,
                "a gap is a weight of 0, not a value",
            ));
        }
        match self
            .weights
            .iter()
            .find(|weight| !(weight.is_finite() && **weight >= 0.0))
        {
            Some(weight) => Err(SolveError::value(&self.of, *weight, "a weight must not be negative")),
            None => Ok(()),
        }
    }
}

impl Cotangents {
    fn add(&mut self, row: usize, column: usize, value: f64) {
        if let Some(place) = self.values.get_mut(row * self.columns + column) {
            *place += value;
        }
    }
}

fn no_rows() -> SolveError {
    SolveError::Module("the run has no rows".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn column(name: &str, _: bool) -> Result<usize, SolveError> {
        match name {
            "x" => Ok(0),
            "y" => Ok(1),
            other => Err(SolveError::value(other, 0.0, "no such column")),
        }
    }

    fn rows(values: &[f64]) -> Rows {
        Rows {
            times: (0..values.len() / 2).map(|at| at as f64 * 0.5).collect(),
            values: values.to_vec(),
            columns: 2,
        }
    }

    fn series(of: &str, weights: &[f64]) -> Series {
        Series {
            of: of.to_owned(),
            times: vec![0.0, 1.0, 1.5],
            values: vec![0.3, -0.7, 2.0],
            weights: weights.to_vec(),
        }
    }

    fn losses(scale: f64) -> Vec<Loss> {
        let noise = || Noise {
            name: Some("sigma".to_owned()),
            scale,
        };
        let both = || vec![series("x", &[]), series("y", &[0.5, 0.0, 3.0])];
        let student = Loss::StudentT {
            series: both(),
            noise: noise(),
            degrees: 3.5,
        };
        vec![
            Loss::Terminal("y".to_owned()),
            Loss::LeastSquares(both()),
            Loss::Gaussian(both(), noise()),
            student.clone(),
            Loss::Sum(vec![
                (0.25, student),
                (-2.0, Loss::Terminal("x".to_owned())),
                (3.0, Loss::Gaussian(vec![series("y", &[])], noise())),
            ]),
        ]
    }

    proptest! {
        #[test]
        fn second_derivatives_are_those_of_the_first(
            values in proptest::collection::vec(-3.0..3.0_f64, 8),
            first in proptest::collection::vec(-1.0..1.0_f64, 8),
            second in proptest::collection::vec(-1.0..1.0_f64, 8),
            scale in 0.3..3.0_f64,
            along in -1.0..1.0_f64,
        ) {
            let h = 1e-5;
            for which in 0..losses(scale).len() {
                let at = |step: f64| {
                    let moved = |(value, (one, two)): (&f64, (&f64, &f64))| value + step * one + 0.5 * step * step * two;
                    let values: Vec<f64> = values.iter().zip(first.iter().zip(&second)).map(moved).collect();
                    let slopes: Vec<f64> = first.iter().zip(&second).map(|(one, two)| one + step * two).collect();
                    let loss = losses(scale + step * along)[which].evaluate(&rows(&values), &column).unwrap();
                    loss.along(&slopes, &second, &[along])
                };
                let difference = (at(h).0 - at(-h).0) / (2.0 * h);
                let exact = at(0.0).1;
                prop_assert!((difference - exact).abs() < 1e-4 * (1.0 + exact.abs()), "{which}: {difference} {exact}");
            }
        }

        #[test]
        fn derivatives_are_those_of_the_value(values in proptest::collection::vec(-3.0..3.0_f64, 8), scale in 0.2..3.0_f64) {
            let h = 1e-5;
            let at = |which: usize, values: &[f64], scale: f64| {
                losses(scale)[which].evaluate(&rows(values), &column).unwrap()
            };
            for which in 0..losses(scale).len() {
                let exact = at(which, &values, scale);
                for place in 0..values.len() {
                    let moved = |by: f64| {
                        let mut values = values.clone();
                        values[place] += by;
                        at(which, &values, scale).value
                    };
                    let difference = (moved(h) - moved(-h)) / (2.0 * h);
                    let derivative = exact.rows.values[place];
                    prop_assert!((difference - derivative).abs() < 1e-6 * (1.0 + derivative.abs()), "{which} {place}");
                }
                if let Some((_, derivative)) = exact.noise.first() {
                    let difference = (at(which, &values, scale + h).value - at(which, &values, scale - h).value) / (2.0 * h);
                    prop_assert!((difference - derivative).abs() < 1e-4 * (1.0 + derivative.abs()), "{which} scale");
                }
            }
        }
    }

    #[test]
    fn values_are_those_of_the_textbook() {
        let rows = rows(&[0.3, 0.0, 9.0, 9.0, -0.2, 0.0, 2.0, 0.0]);
        let known = Noise { name: None, scale: 2.0 };
        let one = vec![series("x", &[])];
        let squares = Loss::LeastSquares(one.clone()).evaluate(&rows, &column).unwrap();
        assert!((squares.value - 0.25).abs() < 1e-15);
        // Three normal densities with sd 2 at 0, 0.5, 0: 3·log(2·√(2π)) + 0.5·0.25/4.
        let normal = Loss::Gaussian(one.clone(), known.clone())
            .evaluate(&rows, &column)
            .unwrap();
        assert!((normal.value - (3.0 * (2.0 * (2.0 * std::f64::consts::PI).sqrt()).ln() + 0.03125)).abs() < 1e-14);
        assert!(normal.noise.is_empty());
        // One degree of freedom is Cauchy: log(π·2·(1 + (r/2)²)).
        let cauchy = Loss::StudentT {
            series: one,
            noise: known,
            degrees: 1.0,
        };
        let expected = 3.0 * (2.0 * std::f64::consts::PI).ln() + (1.0_f64 + 0.0625).ln();
        assert!((cauchy.evaluate(&rows, &column).unwrap().value - expected).abs() < 1e-14);
    }

    #[test]
    fn the_row_after_an_event_counts() {
        let mut two = rows(&[1.0, 0.0, 2.0, 0.0, 3.0, 0.0]);
        two.times = vec![0.0, 1.0, 1.0];
        let one = Series {
            of: "x".to_owned(),
            times: vec![1.0],
            values: vec![0.0],
            weights: vec![],
        };
        assert_eq!(
            Loss::LeastSquares(vec![one]).evaluate(&two, &column).unwrap().value,
            9.0
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let rows = rows(&[0.0; 8]);
        let refuse = |loss: Loss| assert!(loss.evaluate(&rows, &column).is_err(), "{loss:?}");
        refuse(Loss::Terminal("z".to_owned()));
        let mut bad = series("x", &[1.0]);
        refuse(Loss::LeastSquares(vec![bad.clone()]));
        bad.weights = vec![1.0, -1.0, 1.0];
        refuse(Loss::LeastSquares(vec![bad.clone()]));
        bad.weights.clear();
        bad.values[1] = f64::NAN;
        refuse(Loss::LeastSquares(vec![bad.clone()]));
        bad.values[1] = 0.0;
        bad.times[1] = 0.7;
        refuse(Loss::LeastSquares(vec![bad]));
        let zero = Noise { name: None, scale: 0.0 };
        refuse(Loss::Gaussian(vec![series("x", &[])], zero));
    }
}
