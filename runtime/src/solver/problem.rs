//! A compiled model with the values it starts from.

use std::sync::{Arc, OnceLock};

use orrery_lang::{Compiled, Diagnostic, Meta, Options, Var};

use super::error::SolveError;
use super::options::{Limits, Values};
use crate::engine::{Engine, Model};
use crate::graph::nearest;

/// How to make a problem of a text.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ProblemOptions {
    /// The model to take where the text holds several; the last one otherwise.
    pub model: Option<String>,
    /// Values: `p` of a parameter or an input, `start(x)` of a state.
    pub set: Vec<(String, f64)>,
    /// What a run may cost.
    pub limits: Limits,
    /// Expressions over the model's variables, for losses that read them.
    pub expressions: Vec<String>,
    /// Expressions whose integrals over time are states of their own, for path costs.
    pub integrals: Vec<String>,
    /// Whether there will be second derivatives along directions; the module then takes longer to compile.
    pub second_derivatives: bool,
}

/// A model that can be solved.
#[derive(Clone)]
pub struct Problem {
    pub(super) compiled: Arc<Compiled>,
    pub(super) model: Model,
    pub(super) base: Values,
    pub(super) limits: Limits,
    extras: Vec<Extra>,
    /// What the module was compiled from, where that is known.
    source: Option<Arc<Source>>,
    /// The same model for two lanes, made when an ensemble is large enough for it.
    pub(super) lanes: Arc<OnceLock<Option<Model>>>,
}

/// A text with all that shapes its module.
struct Source {
    text: String,
    file: String,
    options: Options,
}

impl Problem {
    /// Compiles the text (called `file` in messages) for this engine.
    ///
    /// A value for a tunable parameter needs no other module; one for a structural or a dependent parameter is a
    /// modification of the model, compiled into it.
    ///
    /// # Errors
    /// [`SolveError`] with every diagnostic of the compiler, or the name or value that is wrong.
    pub fn compile(engine: &Engine, text: &str, file: &str, options: &ProblemOptions) -> Result<Self, SolveError> {
        let (mut compiled, mut modified) = compile(text, file, options)?;
        let mut options = options.clone();
        let mut text = text.to_owned();
        let extras = extras(&compiled.meta, &options)?;
        if !extras.is_empty() {
            let model = compiled.meta.model.clone();
            let name = format!("{}Extended", model.replace('.', "_"));
            let lines_before = text.matches('\n').count() as u32 + 1;
            text = format!("{text}\n{}", extension(&name, &model, &extras));
            options.model = Some(name.clone());
            let added = Added {
                name: &name,
                model: &model,
                extras: &extras,
                lines_before,
            };
            (compiled, modified) = compile(&text, file, &options).map_err(|error| added.explain(error))?;
            compiled.meta.model = model;
        }
        let set = options.set.iter().filter(|(name, _)| modified.contains(name));
        let source = Source {
            text,
            file: file.to_owned(),
            options: Options {
                model: options.model.clone(),
                set: set.cloned().collect(),
                second_derivatives: false,
                two_lanes: true,
            },
        };
        let problem = Self {
            extras,
            source: Some(Arc::new(source)),
            ..Self::load(engine, compiled, options.limits)?
        };
        let own: Vec<(String, f64)> = options
            .set
            .iter()
            .filter(|(name, _)| !modified.contains(name))
            .cloned()
            .collect();
        let base = problem.values(&own)?;
        Ok(Self { base, ..problem })
    }

    /// Compiles the text with every value in it, the tunable ones as new defaults: a module for other hosts.
    ///
    /// # Errors
    /// [`SolveError::Model`] with every diagnostic of the compiler.
    pub fn build(text: &str, file: &str, options: &ProblemOptions) -> Result<Compiled, SolveError> {
        let options = Options {
            model: options.model.clone(),
            set: options.set.clone(),
            second_derivatives: options.second_derivatives,
            two_lanes: false,
        };
        orrery_lang::compile(text, file, &options).map_err(SolveError::Model)
    }

    /// A problem of a compiled model.
    ///
    /// # Errors
    /// [`SolveError::Module`] when it is not a module of ours.
    pub fn load(engine: &Engine, compiled: Compiled, limits: Limits) -> Result<Self, SolveError> {
        let model = engine.load(&compiled)?;
        Ok(Self {
            compiled: Arc::new(compiled),
            model,
            base: Values::default(),
            limits,
            extras: Vec::new(),
            source: None,
            lanes: Arc::new(OnceLock::new()),
        })
    }

    /// The model for two lanes; `None` where its text is not known.
    pub(super) fn for_two_lanes(&self) -> Option<&Model> {
        let make = || {
            let source = self.source.as_ref()?;
            let compiled = orrery_lang::compile(&source.text, &source.file, &source.options).ok()?;
            self.model.engine().load(&compiled).ok()
        };
        self.lanes.get_or_init(make).as_ref()
    }

    /// What the module says about itself.
    pub fn meta(&self) -> &Meta {
        &self.compiled.meta
    }

    /// The module.
    pub fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    /// Values by name: `p` of a tunable parameter or an input, `start(x)` of a state.
    ///
    /// # Errors
    /// [`SolveError`] names what the model does not have, and what its bounds do not allow.
    pub fn values(&self, named: &[(String, f64)]) -> Result<Values, SolveError> {
        let mut values = Values::default();
        for (name, value) in named {
            let value = *value;
            if let Some(state) = start_of(name) {
                let index = self.index("state", state, &self.meta().states)?;
                values.states.push((index, finite(name, value)?));
            } else if let Some(index) = self.meta().input(name) {
                let value = within(&self.meta().inputs[index], value)?;
                values.inputs.push((index, value));
            } else {
                let index = self.index("tunable parameter", name, &self.meta().parameters)?;
                let value = within(&self.meta().parameters[index], value)?;
                values.parameters.push((index, value));
            }
        }
        Ok(values)
    }

    /// The place of a name in a list of the description.
    pub(super) fn index(&self, what: &'static str, name: &str, list: &[Var]) -> Result<usize, SolveError> {
        let found = list.iter().position(|var| var.name == name);
        found.ok_or_else(|| SolveError::Unknown {
            model: self.meta().model.clone(),
            what,
            name: name.to_owned(),
            hint: nearest(name, list.iter().map(|var| var.name.as_str())),
        })
    }

    /// The column of a variable, or of an expression that the problem was compiled with.
    pub(super) fn column(&self, name: &str) -> Result<usize, SolveError> {
        self.extra_or(name, false)
    }

    /// The column of an integral that the problem was compiled with.
    pub(super) fn integral(&self, expression: &str) -> Result<usize, SolveError> {
        self.extra_or(expression, true)
    }

    fn extra_or(&self, name: &str, integral: bool) -> Result<usize, SolveError> {
        let extra = self
            .extras
            .iter()
            .find(|extra| extra.integral == integral && extra.expression == name.trim());
        let name = extra.map_or(name.trim(), |extra| extra.name.as_str());
        self.index("variable", name, &self.meta().columns)
    }
}

/// A variable that is added to the model for a loss.
#[derive(Clone)]
struct Extra {
    name: String,
    expression: String,
    integral: bool,
}

impl Extra {
    /// The left side of its equation.
    fn left(&self) -> String {
        if self.integral {
            format!("der({})", self.name)
        } else {
            self.name.clone()
        }
    }
}

/// What the model has no variable for.
fn extras(meta: &Meta, options: &ProblemOptions) -> Result<Vec<Extra>, SolveError> {
    let kinds = [(&options.expressions, false), (&options.integrals, true)];
    let all = kinds
        .iter()
        .flat_map(|(list, integral)| list.iter().map(|text| (text.trim(), *integral)));
    let mut extras: Vec<Extra> = Vec::new();
    for (expression, integral) in all {
        let known = extras
            .iter()
            .any(|extra| extra.expression == expression && extra.integral == integral);
        if known || (!integral && meta.column(expression).is_some()) {
            continue;
        }
        if expression.is_empty()
            || expression.contains([';', '"', '\n'])
            || expression.contains("/*")
            || expression.contains("//")
        {
            return Err(SolveError::Value {
                what: "expression".to_owned(),
                value: format!("`{expression}`"),
                remedy: "write one expression over the model's variables, such as x^2 + y".to_owned(),
            });
        }
        extras.push(Extra {
            name: format!(
                "orrery_{}_{}",
                if integral { "integral" } else { "of" },
                extras.len() + 1
            ),
            expression: expression.to_owned(),
            integral,
        });
    }
    Ok(extras)
}

/// The lines of [`extension`] before its first equation, those that declare a variable not counted.
const LINES_BEFORE_EQUATIONS: u32 = 3;
/// What an equation of [`extension`] has around its left side before the expression begins: `  left = `.
const AROUND_LEFT: u32 = 5;

/// What [`extension`] added to a text.
struct Added<'a> {
    name: &'a str,
    model: &'a str,
    extras: &'a [Extra],
    lines_before: u32,
}

impl Added<'_> {
    /// Errors about what was added, as errors about what was asked for: its own text, line and column.
    fn explain(&self, error: SolveError) -> SolveError {
        let SolveError::Model(errors) = error else {
            return error;
        };
        SolveError::Model(errors.into_iter().map(|error| self.explain_one(error)).collect())
    }

    fn explain_one(&self, mut error: Diagnostic) -> Diagnostic {
        let in_own_words = |text: &str| {
            let text = text.replace(self.name, self.model);
            let extras = self.extras.iter().rev();
            extras.fold(text, |text, extra| text.replace(&extra.name, extra.expression.as_str()))
        };
        error.remedy = error.remedy.as_deref().map(in_own_words);
        error.message = in_own_words(&error.message);
        let first = self.lines_before + LINES_BEFORE_EQUATIONS + self.extras.len() as u32 + 1;
        let place = error.line.checked_sub(first);
        let Some(extra) = place.and_then(|place| self.extras.get(place as usize)) else {
            return error;
        };
        let begin = extra.left().chars().count() as u32 + AROUND_LEFT;
        let characters = extra.expression.chars().count() as u32;
        // The whole equation, or its sign, stands for the whole expression.
        if error.column <= begin {
            (error.column, error.length) = (1, characters);
        } else {
            error.column -= begin;
            error.length = error.length.min((characters + 1).saturating_sub(error.column)).max(1);
        }
        error.file = "the expression".to_owned();
        error.line = 1;
        error.source_line.clone_from(&extra.expression);
        error
    }
}

/// A model that is the given one with variables added.
fn extension(name: &str, model: &str, extras: &[Extra]) -> String {
    let mut text = format!("model {name}\n  extends {model};\n");
    for extra in extras {
        let start = if extra.integral {
            "(start = 0, fixed = true)"
        } else {
            ""
        };
        text.push_str(&format!("  Real {}{start};\n", extra.name));
    }
    text.push_str("equation\n");
    for extra in extras {
        text.push_str(&format!("  {} = {};\n", extra.left(), extra.expression));
    }
    text.push_str(&format!("end {name};\n"));
    text
}

/// `x` of `start(x)`.
pub(super) fn start_of(name: &str) -> Option<&str> {
    name.trim().strip_prefix("start(")?.strip_suffix(')').map(str::trim)
}

/// The compiled model and the names whose values were compiled into it.
fn compile(text: &str, file: &str, options: &ProblemOptions) -> Result<(Compiled, Vec<String>), SolveError> {
    let compile = |set: Vec<(String, f64)>| {
        let options = Options {
            model: options.model.clone(),
            set,
            second_derivatives: options.second_derivatives,
            two_lanes: false,
        };
        orrery_lang::compile(text, file, &options).map_err(SolveError::Model)
    };
    let others = |meta: Option<&Meta>| -> Vec<(String, f64)> {
        let is_own = |name: &str| {
            start_of(name).is_some()
                || meta.is_some_and(|meta| meta.parameter(name).is_some() || meta.input(name).is_some())
        };
        options.set.iter().filter(|(name, _)| !is_own(name)).cloned().collect()
    };
    let names = |set: &[(String, f64)]| set.iter().map(|(name, _)| name.clone()).collect();
    match compile(Vec::new()) {
        Ok(plain) => {
            let others = others(Some(&plain.meta));
            if others.is_empty() {
                return Ok((plain, Vec::new()));
            }
            let modified = names(&others);
            Ok((compile(others)?, modified))
        }
        // The model may only be whole with the values given.
        Err(error) => {
            let others = others(None);
            if others.is_empty() {
                return Err(error);
            }
            let modified = names(&others);
            Ok((compile(others)?, modified))
        }
    }
}

fn finite(name: &str, value: f64) -> Result<f64, SolveError> {
    if value.is_finite() {
        Ok(value)
    } else {
        Err(SolveError::value(name, value, "it must be a finite number"))
    }
}

fn within(var: &Var, value: f64) -> Result<f64, SolveError> {
    let value = finite(&var.name, value)?;
    if var.min.is_none_or(|min| value >= min) && var.max.is_none_or(|max| value <= max) {
        return Ok(value);
    }
    let (min, max) = (var.min.unwrap_or(f64::NEG_INFINITY), var.max.unwrap_or(f64::INFINITY));
    let remedy = format!("the model bounds it to {min} … {max} {}", var.unit);
    Err(SolveError::value(&var.name, value, remedy.trim_end()))
}
