//! From classes to flat variables and equations over an expression graph.
//!
//! [`instance`] builds the tree of instances with their modifications, [`structural`] evaluates what must be known when
//! compiling (sizes, ranges, Integer and Boolean parameters), [`expression`] lowers expressions and checks their units,
//! [`equation`] lowers equations.

mod algorithm;
mod arrays;
mod attribute;
mod builtin;
mod conditional;
mod connect;
mod equation;
mod event;
mod expression;
mod function;
mod instance;
mod modification;
mod operator;
mod rounding;
mod scope;
mod structural;
mod types;
mod vectorise;

use std::collections::{BTreeMap, HashMap};

use crate::diagnostic::{Diagnostic, line_column};
use crate::graph::{Graph, Id};
use crate::syntax::{Causality, Class, ClassKind, Element, Expr, Span};
use crate::units::Unit;

/// At most this many scalar variables and equations: a limit on what a small text can unfold into.
pub const MAX_SCALARS: usize = 20_000;
/// At most this many nodes.
pub const MAX_NODES: usize = 2_000_000;

/// At most this many expressions are lowered, those of loops and functions counted as often as they run.
pub const MAX_WORK: u64 = 5_000_000;

/// What a flat variable is before causality is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A Real parameter with its own value.
    Parameter,
    /// A Real parameter or constant defined by others: its value is a node over parameters.
    Dependent,
    Input,
    /// Changes with time and is determined by equations.
    Unknown,
    /// Assigned in when-clauses: keeps its value between events.
    Discrete,
}

/// One scalar variable.
#[derive(Debug, Clone)]
pub struct Variable {
    pub name: String,
    pub kind: Kind,
    pub output: bool,
    pub unit_text: String,
    pub unit: Unit,
    pub description: String,
    /// Start value, a node over parameters.
    pub start: Option<Id>,
    pub fixed: bool,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub nominal: Option<f64>,
    /// Value of a parameter.
    pub value: Option<Id>,
    /// Boolean or Integer: changes at events only. Booleans are kept as 0 and 1.
    pub discrete: bool,
    pub boolean: bool,
    pub integer: bool,
    pub span: Span,
}

/// A relation that makes events: `Leaf::Condition` of its number stands for its value between events.
#[derive(Debug, Clone)]
pub struct Guard {
    /// Changes sign where the relation changes.
    pub root: Id,
    pub relation: Id,
    pub span: Span,
}

/// One branch of a when-clause: what happens at the instant when `fires` holds.
#[derive(Debug, Clone)]
pub struct Action {
    pub fires: Id,
    /// The variable that gets a value; a continuous state where it is reinitialised.
    pub variable: u32,
    pub value: Id,
    pub reinit: bool,
    pub span: Span,
}

/// What happens at events.
#[derive(Debug, Clone, Default)]
pub struct Hybrid {
    pub guards: Vec<Guard>,
    pub actions: Vec<Action>,
    /// Discrete-time variables whose value before the event is read.
    pub remembered: std::collections::BTreeSet<u32>,
}

/// One scalar equation `left = right`.
#[derive(Debug, Clone)]
pub struct FlatEquation {
    pub left: Id,
    pub right: Id,
    pub span: Span,
}

/// A condition that must hold, and what to say when it does not.
#[derive(Debug, Clone)]
pub struct Assertion {
    pub condition: Id,
    pub message: String,
    pub span: Span,
}

/// A flat model.
#[derive(Debug)]
pub struct Flat {
    pub name: String,
    pub description: String,
    pub graph: Graph,
    pub variables: Vec<Variable>,
    pub equations: Vec<FlatEquation>,
    pub initial_equations: Vec<FlatEquation>,
    pub hybrid: Hybrid,
    pub assertions: Vec<Assertion>,
}

/// What all parts of flattening share.
pub struct Flattener<'a> {
    pub source: &'a str,
    pub file: &'a str,
    pub classes: &'a [Class],
    pub set: HashMap<String, f64>,
    pub used_set: Vec<String>,
    pub graph: Graph,
    pub variables: Vec<Variable>,
    pub equations: Vec<FlatEquation>,
    pub initial_equations: Vec<FlatEquation>,
    pub instances: Vec<instance::Instance<'a>>,
    pub structural_depth: u32,
    /// Values of loop indices, innermost last.
    pub loops: Vec<(String, structural::Fixed)>,
    /// The names of the algorithm being executed.
    pub frame: Option<algorithm::Frame>,
    /// Loops of the algorithm around what is being executed.
    pub algorithm_loops: u32,
    /// Calls of functions around what is being executed.
    pub calls: u32,
    /// Constants of packages around what is being evaluated.
    pub constants: u32,
    /// Conditions under which what is being lowered counts.
    pub conditions: Vec<Id>,
    pub assertions: Vec<Assertion>,
    pub connections: connect::Connections,
    /// Values of modifications that are split over arrays of components, by where they are written.
    pub split_values: HashMap<(*const Expr, instance::InstanceId), std::rc::Rc<expression::Value>>,
    pub pseudo_instances: HashMap<(*const Class, Option<instance::InstanceId>), instance::InstanceId>,
    pub work: std::cell::Cell<u64>,
    /// What `end` means in the subscripts being read.
    pub ends: Vec<f64>,
    /// Inside `noEvent` or `smooth`.
    pub without_events: bool,
    /// In the body of a when-clause: relations there are evaluated at the event.
    pub in_when: bool,
    pub hybrid: Hybrid,
    /// What the when-clauses lowered so far determine, and where: true for `reinit`.
    pub determined: BTreeMap<(u32, bool), Span>,
    /// The same on the way through the when-clause that is being lowered.
    pub determined_here: BTreeMap<(u32, bool), Span>,
    pub errors: Vec<Diagnostic>,
}

/// The reasons an inner function can stop with.
pub type Lowered<T> = Result<T, Box<Diagnostic>>;

/// Flattens the model called `wanted` (the last model or block of the file otherwise).
pub fn flatten(
    source: &str,
    file: &str,
    classes: &[Class],
    wanted: Option<&str>,
    set: &[(String, f64)],
    graph: Graph,
) -> Result<Flat, Vec<Diagnostic>> {
    let chosen = choose(source, file, classes, wanted).map_err(|error| vec![*error])?;
    let class = chosen.class;
    let mut flattener = Flattener {
        source,
        file,
        classes,
        set: set.iter().cloned().collect(),
        used_set: Vec::new(),
        graph,
        variables: Vec::new(),
        equations: Vec::new(),
        initial_equations: Vec::new(),
        instances: Vec::new(),
        structural_depth: 0,
        loops: Vec::new(),
        frame: None,
        algorithm_loops: 0,
        calls: 0,
        constants: 0,
        conditions: Vec::new(),
        assertions: Vec::new(),
        connections: connect::Connections::default(),
        split_values: HashMap::new(),
        pseudo_instances: HashMap::new(),
        work: std::cell::Cell::new(0),
        ends: Vec::new(),
        without_events: false,
        in_when: false,
        hybrid: Hybrid::default(),
        determined: BTreeMap::new(),
        determined_here: BTreeMap::new(),
        errors: Vec::new(),
    };
    if let Err(error) = flattener.run(&chosen) {
        flattener.errors.push(*error);
    }
    if flattener.errors.is_empty() {
        return Ok(Flat {
            name: chosen.name,
            description: class.description.clone(),
            graph: flattener.graph,
            variables: flattener.variables,
            equations: flattener.equations,
            initial_equations: flattener.initial_equations,
            hybrid: flattener.hybrid,
            assertions: flattener.assertions,
        });
    }
    flattener.errors.sort_by_key(|error| (error.line, error.column));
    flattener.errors.dedup();
    flattener.errors.truncate(50);
    Err(flattener.errors)
}

/// A model of the file with the packages around it.
struct Chosen<'a> {
    class: &'a Class,
    packages: Vec<&'a Class>,
    name: String,
}

fn choose<'a>(source: &str, file: &str, classes: &'a [Class], wanted: Option<&str>) -> Lowered<Chosen<'a>> {
    let mut runnable = Vec::new();
    find_runnable(classes.iter(), &[], &mut runnable);
    let names: Vec<String> = runnable.iter().map(|chosen: &Chosen<'a>| chosen.name.clone()).collect();
    if let Some(wanted) = wanted {
        let found = runnable.into_iter().find(|chosen| chosen.name == wanted);
        return found.ok_or_else(|| {
            let message = format!("the file holds no model `{wanted}`");
            let error = Diagnostic::at(source, file, 0..0, "no-such-model", message);
            Box::new(error.remedy(format!("it holds: {}", names.join(", "))))
        });
    }
    runnable.pop().ok_or_else(|| {
        let error = Diagnostic::at(source, file, 0..0, "no-model", "the file holds no model or block");
        Box::new(error.remedy("write `model Name … end Name;`"))
    })
}

/// Models and blocks that are not partial, also those in packages.
fn find_runnable<'a>(classes: impl Iterator<Item = &'a Class>, packages: &[&'a Class], found: &mut Vec<Chosen<'a>>) {
    for class in classes {
        if class.kind == ClassKind::Package {
            let inner = class.elements.iter().filter_map(|element| match element {
                Element::Class(class) => Some(&**class),
                _ => None,
            });
            let packages: Vec<&'a Class> = packages.iter().copied().chain([class]).collect();
            let inner: Vec<&'a Class> = inner.collect();
            find_runnable(inner.into_iter(), &packages, found);
        } else if matches!(class.kind, ClassKind::Model | ClassKind::Block) && class.alias.is_none() && !class.partial {
            let path = packages
                .iter()
                .copied()
                .chain([class])
                .map(|class| class.name.text.as_str());
            found.push(Chosen {
                class,
                packages: packages.to_vec(),
                name: path.collect::<Vec<_>>().join("."),
            });
        }
    }
}

impl<'a> Flattener<'a> {
    fn run(&mut self, chosen: &Chosen<'a>) -> Lowered<()> {
        let class = chosen.class;
        let mut scope = None;
        let root = self.reserve_root(class);
        for package in &chosen.packages {
            scope = Some(self.pseudo_instance(package, scope));
        }
        self.instantiate_root(root, scope)?;
        self.create_variables(root)?;
        let unknown: Vec<String> = self
            .set
            .keys()
            .filter(|name| !self.used_set.contains(name))
            .cloned()
            .collect();
        if let Some(name) = unknown.iter().min() {
            return Err(self.no_parameter(name, class));
        }
        if !self.errors.is_empty() {
            return Ok(());
        }
        self.lower_all(root)
    }

    /// The message for a name set from outside that is no parameter.
    fn no_parameter(&self, name: &str, class: &Class) -> Box<Diagnostic> {
        let message = format!("`{name}` is set from outside and the model has no such parameter");
        let error = self.error(class.name.span, "no-such-parameter", message);
        let is_parameter = |variable: &&Variable| matches!(variable.kind, Kind::Parameter | Kind::Dependent);
        let element = format!("{name}[");
        let parameters = || self.variables.iter().filter(is_parameter);
        let remedy = if self.variables.iter().any(|variable| variable.name == name) {
            format!("it is a variable that equations determine; `start({name})` is where it starts if it is a state")
        } else if let Some(first) = parameters().find(|variable| variable.name.starts_with(&element)) {
            format!("it is an array: set its elements, such as `{}`", first.name)
        } else if let Some(near) = crate::nearest(name, parameters().map(|variable| variable.name.as_str())) {
            format!("did you mean `{near}`?")
        } else {
            return error;
        };
        Box::new(error.remedy(remedy))
    }

    pub fn error(&self, span: Span, code: &str, message: impl Into<String>) -> Box<Diagnostic> {
        Box::new(Diagnostic::at(self.source, self.file, span.range(), code, message))
    }

    pub fn unsupported(&self, span: Span, message: impl Into<String>) -> Box<Diagnostic> {
        let error = self.error(span, "unsupported", message);
        Box::new(error.remedy("docs/guides/modelica-subset.md lists what is read"))
    }

    /// Stops models that unfold into more than any machine should hold.
    pub fn check_size(&self, span: Span) -> Lowered<()> {
        self.spend(1);
        if self.work.get() > MAX_WORK {
            let message = format!("the model has more than {MAX_WORK} expressions, loops and calls written out");
            let error = self.error(span, "too-large", message);
            return Err(Box::new(error.remedy("shorten the loops; does one of them never end?")));
        }
        let scalars = self.variables.len().max(self.equations.len());
        if scalars <= MAX_SCALARS && self.graph.len() <= MAX_NODES {
            return Ok(());
        }
        let message = format!("the model unfolds into more than {MAX_SCALARS} variables or {MAX_NODES} expressions");
        Err(self.error(span, "too-large", message))
    }

    /// Counts work against [`MAX_WORK`]; the next check of the size finds out.
    pub fn spend(&self, work: u64) {
        self.work.set(self.work.get().saturating_add(work));
    }

    pub fn line_of(&self, span: Span) -> u32 {
        line_column(self.source, span.start).0
    }
}

/// Whether a component of this causality in the top class, or in a connector of it, is an interface of the model.
pub fn is_interface(causality: Causality, interface: bool) -> bool {
    interface && causality != Causality::Local
}
