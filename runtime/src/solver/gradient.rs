//! What a gradient is asked for, and how it is put together from what the reverse pass leaves.

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use super::error::SolveError;
use super::loss::Evaluated;
use super::problem::{Problem, start_of};

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
        for name in split(list) {
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

/// The names of a list; commas inside brackets belong to a name.
fn split(list: &str) -> Vec<&str> {
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
            map.serialize_entry(name, derivatives)?;
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
            split("p, start(x), a[1,2],start(b[2,1])"),
            ["p", "start(x)", "a[1,2]", "start(b[2,1])"]
        );
        assert!(split(" , ").is_empty());
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
