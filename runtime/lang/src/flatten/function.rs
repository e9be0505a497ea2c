//! Calls of functions of the text: each call executes the function's algorithm on the nodes of its arguments.

use super::algorithm::{Frame, Local};
use super::expression::{Remedied as _, Value};
use super::instance::{BaseType, InstanceId};
use super::modification::Modification;
use super::vectorise::elements_of;
use super::{Flattener, Lowered};
use crate::graph::{Id, Node};
use crate::syntax::{
    Causality, Class, ClassKind, Component, Dimension, Element, Expr, ExprKind, Ident, Span, Variability,
};
use crate::units::{self, Unit};

/// The value that a call gives an input, and where it stands.
pub type Given = Option<(Value, Span)>;

/// How deep calls may nest.
const MAX_CALLS: u32 = 40;
/// Calls that a message about the inside of a function names, innermost first.
const SHOWN_CALLS: usize = 3;

/// What operates on a model and has no meaning in a function (12.2).
const NOT_IN_FUNCTIONS: [&str; 9] = [
    "der",
    "pre",
    "edge",
    "change",
    "sample",
    "initial",
    "terminal",
    "reinit",
    "terminate",
];

impl<'a> Flattener<'a> {
    /// Whether `function` names a function of the text.
    pub fn is_function(&mut self, function: &Ident, id: InstanceId) -> bool {
        self.lookup(id, &function.text)
            .is_some_and(|found| found.class.kind == ClassKind::Function)
    }

    /// A call of a function of the text: its first result; `None` if the text has no such function.
    pub fn function_call(
        &mut self,
        function: &'a Ident,
        arguments: &'a [Expr],
        named: &'a [(Ident, Expr)],
        expr: &'a Expr,
        id: InstanceId,
    ) -> Option<Lowered<Value>> {
        let in_function = self.frame.as_ref().is_some_and(|frame| frame.function.is_some());
        if in_function && NOT_IN_FUNCTIONS.contains(&function.text.as_str()) {
            let message = format!("`{}` has no meaning in a function", function.text);
            return Some(Err(self.error(expr.span, "type", message)));
        }
        let found = self.lookup(id, &function.text)?;
        if found.class.kind != ClassKind::Function {
            if matches!(found.class.kind, ClassKind::Record) {
                let message = format!(
                    "constructing a value of the record `{}` is outside the subset",
                    function.text
                );
                return Some(Err(self.unsupported(expr.span, message)));
            }
            return None;
        }
        let results = match self.call_function(function, arguments, named, expr, id) {
            Ok(results) => results,
            Err(error) => return Some(Err(error)),
        };
        let first = results.into_iter().next();
        Some(first.ok_or_else(|| self.error(expr.span, "type", format!("`{}` has no result", function.text))))
    }

    /// The results of a call on the right of `(a, b) = f(x)`, at least `wanted` of them.
    pub fn several_results(&mut self, call: &'a Expr, wanted: usize, id: InstanceId) -> Lowered<Vec<Value>> {
        let ExprKind::Call {
            function,
            arguments,
            named,
        } = &call.kind
        else {
            return Err(self.error(
                call.span,
                "type",
                "several variables get their values from a call of a function",
            ));
        };
        if !self.is_function(function, id) {
            let message = format!(
                "`{}` has no several results: it is no function of this file",
                function.text
            );
            return Err(self.error(function.span, "undefined-function", message));
        }
        let results = self.call_function(function, arguments, named, call, id)?;
        if results.len() < wanted {
            let message = format!(
                "`{}` has {} results and {wanted} are wanted",
                function.text,
                results.len()
            );
            return Err(self.error(call.span, "type", message));
        }
        Ok(results)
    }

    fn call_function(
        &mut self,
        function: &'a Ident,
        arguments: &'a [Expr],
        named: &'a [(Ident, Expr)],
        call: &'a Expr,
        id: InstanceId,
    ) -> Lowered<Vec<Value>> {
        let Some(found) = self.lookup(id, &function.text) else {
            return Err(self.error(
                function.span,
                "undefined-function",
                format!("there is no function `{}`", function.text),
            ));
        };
        let class = found.class;
        self.check_function(class, function)?;
        if self.calls >= MAX_CALLS {
            let message = format!("calls nest deeper than {MAX_CALLS}: `{}` calls itself", function.text);
            let error = self.error(call.span, "too-deep", message);
            return Err(
                error.into_remedy("recursion ends where a condition known when compiling says so; otherwise use `for`")
            );
        }
        self.spend(10);
        let given = self.arguments(class, arguments, named, call, id)?;
        let scope = self.scope_of(&found);
        let scope = self.pseudo_instance(class, scope);
        match elements_of(class, &given) {
            None => self.execute_call(function, class, given, scope, call),
            Some(shape) => self.call_for_elements(&shape, function, class, &given, scope, call),
        }
    }

    /// Executes one call.
    pub fn execute_call(
        &mut self,
        function: &Ident,
        class: &'a Class,
        given: Vec<Given>,
        scope: InstanceId,
        call: &'a Expr,
    ) -> Lowered<Vec<Value>> {
        let no = self.graph.truth(false);
        let frame = Frame {
            function: Some(function.text.clone()),
            locals: Vec::new(),
            returned: no,
            broken: no,
        };
        let outer_frame = self.frame.replace(frame);
        let outer_loops = std::mem::take(&mut self.loops);
        let outer_ends = std::mem::take(&mut self.ends);
        let outer_events = std::mem::replace(&mut self.without_events, true);
        let outer_algorithm_loops = std::mem::take(&mut self.algorithm_loops);
        self.calls += 1;
        let results = self.run_function(class, given, scope, call.span);
        self.calls -= 1;
        self.algorithm_loops = outer_algorithm_loops;
        self.without_events = outer_events;
        self.ends = outer_ends;
        self.loops = outer_loops;
        self.frame = outer_frame;
        results.map_err(|error| {
            let here = error.line == self.line_of(call.span);
            if here || error.notes.len() >= SHOWN_CALLS {
                return error;
            }
            Box::new(error.note(
                self.source,
                call.span.start,
                format!("`{}` is called here", function.text),
            ))
        })
    }

    fn check_function(&self, class: &'a Class, function: &Ident) -> Lowered<()> {
        let name = &function.text;
        if class.alias.is_some() {
            return Err(self.unsupported(function.span, format!("`{name}` abbreviates another function")));
        }
        if class.partial {
            return Err(self.error(
                function.span,
                "type",
                format!("`{name}` is partial: it cannot be called"),
            ));
        }
        let extends = class.elements.iter().find_map(|element| match element {
            Element::Extends { base, .. } => Some(base.span),
            _ => None,
        });
        if let Some(span) = extends {
            return Err(self.unsupported(span, "`extends` in a function is outside the subset"));
        }
        let equation = class.equations.first().or_else(|| class.initial_equations.first());
        if let Some(equation) = equation {
            let error = self.error(
                equation.span(),
                "syntax",
                format!("the function `{name}` has an equation"),
            );
            return Err(error.into_remedy("functions are written with `algorithm` and `:=`"));
        }
        if class.algorithms.len() > 1 {
            return Err(self.error(
                class.name.span,
                "syntax",
                format!("`{name}` has two algorithm sections"),
            ));
        }
        Ok(())
    }

    /// The values of the inputs that the call gives, in the order of declaration.
    fn arguments(
        &mut self,
        class: &'a Class,
        arguments: &'a [Expr],
        named: &'a [(Ident, Expr)],
        call: &'a Expr,
        id: InstanceId,
    ) -> Lowered<Vec<Given>> {
        let inputs: Vec<&'a Component> = components(class).filter(|c| c.causality == Causality::Input).collect();
        if arguments.len() > inputs.len() {
            let message = format!(
                "`{}` takes {} arguments and {} are given",
                class.name.text,
                inputs.len(),
                arguments.len()
            );
            let error = self.error(call.span, "type", message);
            return Err(Box::new(error.note(
                self.source,
                class.name.span.start,
                "it is declared here",
            )));
        }
        let mut given = vec![None; inputs.len()];
        for (place, argument) in given.iter_mut().zip(arguments) {
            *place = Some((self.expression(argument, id)?, argument.span));
        }
        for (name, argument) in named {
            let Some(position) = inputs.iter().position(|input| input.name.text == name.text) else {
                let message = format!("`{}` has no input `{}`", class.name.text, name.text);
                let error = self.error(name.span, "no-such-member", message);
                return Err(
                    match crate::nearest(&name.text, inputs.iter().map(|input| input.name.text.as_str())) {
                        Some(near) => Box::new(error.remedy(format!("did you mean `{near}`?"))),
                        None => error,
                    },
                );
            };
            let value = self.expression(argument, id)?;
            if let Some(place) = given.get_mut(position) {
                if place.is_some() {
                    return Err(self.error(name.span, "duplicate", format!("`{}` is given twice", name.text)));
                }
                *place = Some((value, argument.span));
            }
        }
        Ok(given)
    }

    fn run_function(
        &mut self,
        class: &'a Class,
        given: Vec<Given>,
        scope: InstanceId,
        call: Span,
    ) -> Lowered<Vec<Value>> {
        let mut given = given.into_iter();
        // Inputs that the call gives come first: sizes and defaults may depend on any of them.
        let mut waiting = Vec::new();
        for component in components(class) {
            self.check_declaration(component, scope)?;
            let argument = if component.causality == Causality::Input {
                given.next().flatten()
            } else {
                None
            };
            match argument {
                Some((value, span)) => {
                    let local = self.declare_local(component, scope, value.shape.clone())?;
                    self.bind(local, value, span)?;
                }
                None => waiting.push(component),
            }
        }
        for component in waiting {
            let shape = self.local_shape(component, scope)?;
            let local = self.declare_local(component, scope, shape)?;
            match &component.binding {
                Some(binding) => {
                    let value = self.expression(binding, scope)?;
                    self.bind(local, value, binding.span)?;
                }
                None if component.causality == Causality::Input => {
                    let message = format!(
                        "`{}` needs a value for its input `{}`",
                        class.name.text, component.name.text
                    );
                    let error = self.error(call, "type", message);
                    let note = format!("`{}` is declared here", component.name.text);
                    return Err(Box::new(error.note(self.source, component.name.span.start, note)));
                }
                None => {
                    if let Some(frame) = &mut self.frame {
                        frame.locals.push(local);
                    }
                }
            }
        }
        for component in components(class).filter(|component| component.causality == Causality::Input) {
            self.check_given_size(component, scope, call)?;
        }
        for statements in &class.algorithms {
            self.execute(statements, scope)?;
        }
        self.results(class, scope)
    }

    fn results(&mut self, class: &'a Class, scope: InstanceId) -> Lowered<Vec<Value>> {
        let no = self.graph.truth(false);
        if let Some(frame) = &mut self.frame {
            (frame.returned, frame.broken) = (no, no);
        }
        let mut results = Vec::new();
        for component in components(class).filter(|component| component.causality == Causality::Output) {
            let name = &component.name;
            let Some(local) = self.frame.as_ref().and_then(|frame| frame.find(&name.text)).cloned() else {
                continue;
            };
            let value = self.local_value(&local, &[], name.span, scope).map_err(|error| {
                let message = format!(
                    "the result `{}` of `{}` has no value on some path",
                    name.text, class.name.text
                );
                let other = self.error(name.span, &error.code, message);
                other.into_remedy("assign it on every path, or give it a default: `output Real y = 0;`")
            })?;
            results.push(value);
        }
        Ok(results)
    }

    fn check_declaration(&self, component: &'a Component, scope: InstanceId) -> Lowered<()> {
        if self
            .frame
            .as_ref()
            .is_some_and(|frame| frame.find(&component.name.text).is_some())
        {
            let error = self.error(
                component.name.span,
                "duplicate",
                format!("`{}` is declared twice", component.name.text),
            );
            return Err(error.into_remedy("rename one of them"));
        }
        let class = &self.instances[scope.0].class.name.text;
        let open = component.causality == Causality::Local && !component.protected;
        if open && !matches!(component.variability, Variability::Constant | Variability::Parameter) {
            let message = format!(
                "`{}` of the function `{class}` is neither input nor output",
                component.name.text
            );
            return Err(self
                .error(component.name.span, "syntax", message)
                .into_remedy("put `protected` before the variables that only the function uses"));
        }
        Ok(())
    }

    fn declare_local(&mut self, component: &'a Component, scope: InstanceId, shape: Vec<usize>) -> Lowered<Local> {
        let resolved = self.resolve_base(scope, &component.type_name)?;
        let base = match resolved.base {
            Some(base) if base != BaseType::String => base,
            _ => {
                let message = format!(
                    "`{}` is a {}: functions take Real, Integer and Boolean, and arrays of them",
                    component.name.text, component.type_name.text
                );
                return Err(self.unsupported(component.type_name.span, message));
            }
        };
        let own = component
            .modifiers
            .iter()
            .map(|modifier| Modification::new(modifier, scope));
        let modifications: Vec<Modification<'a>> = resolved.modifications.into_iter().chain(own).collect();
        let unit = self.unit_of(&modifications)?;
        let content = self.empty(&shape);
        let keeps = component.causality == Causality::Input
            || matches!(component.variability, Variability::Constant | Variability::Parameter);
        Ok(Local {
            name: component.name.text.clone(),
            shape,
            base,
            unit,
            read_only: keeps,
            content,
        })
    }

    /// The unit that modifications give.
    pub fn unit_of(&self, modifications: &[Modification<'a>]) -> Lowered<Unit> {
        let value = modifications.iter().rev().find_map(|modification| {
            let value = modification.modifier.value.as_ref();
            value.filter(|_| modification.modifier.name.text == "unit")
        });
        match value {
            None => Ok(Unit::Any),
            Some(Expr {
                kind: ExprKind::Text(text),
                span,
            }) => units::parse(text).map_err(|message| self.error(*span, "bad-unit", message)),
            Some(other) => Err(self.error(other.span, "bad-attribute", "`unit` must be a string")),
        }
    }

    fn bind(&mut self, mut local: Local, value: Value, span: Span) -> Lowered<()> {
        self.check_assignable(&local, &local.shape, &value, span)?;
        local.content = self.filled_content(&value);
        if local.unit != Unit::Any {
            local.content.unit = local.unit.clone();
            local.content.number = None;
        }
        if let Some(frame) = &mut self.frame {
            frame.locals.push(local);
        }
        Ok(())
    }

    fn local_shape(&mut self, component: &'a Component, scope: InstanceId) -> Lowered<Vec<usize>> {
        let open = component.dimensions.iter().any(|size| matches!(size, Dimension::Any));
        if open {
            let message = format!("the size of `{}` is not known", component.name.text);
            let error = self.error(component.name.span, "bad-size", message);
            return Err(error.into_remedy("write it out: `Real y[size(x, 1)]`"));
        }
        self.shape_of(scope, &component.dimensions, None)
    }

    /// An argument's size against the declared one.
    fn check_given_size(&mut self, component: &'a Component, scope: InstanceId, call: Span) -> Lowered<()> {
        let name = &component.name.text;
        let Some(shape) = self
            .frame
            .as_ref()
            .and_then(|frame| frame.find(name))
            .map(|local| local.shape.clone())
        else {
            return Ok(());
        };
        let mut wanted = Vec::new();
        for dimension in &component.dimensions {
            wanted.push(match dimension {
                Dimension::Any => None,
                Dimension::Size(size) => Some(self.structural_integer(size, scope)?),
            });
        }
        let fits = wanted.len() == shape.len()
            && wanted
                .iter()
                .zip(&shape)
                .all(|(wanted, size)| wanted.is_none_or(|wanted| wanted == *size as i64));
        if fits {
            return Ok(());
        }
        let sizes: Vec<String> = wanted
            .iter()
            .map(|size| size.map_or(":".to_string(), |size| size.to_string()))
            .collect();
        let message = format!("an argument of size {shape:?} for `{name}[{}]`", sizes.join(", "));
        let error = self.error(call, "bad-size", message);
        let error = error.note(
            self.source,
            component.name.span.start,
            format!("`{name}` is declared here"),
        );
        Err(Box::new(
            error.remedy("call it for each element: `{f(x[i]) for i in 1:n}`"),
        ))
    }

    /// `assert(condition, message)`: kept as a condition that must hold (8.3.7).
    pub fn assertion(&mut self, call: &'a Expr, id: InstanceId) -> Lowered<()> {
        let (condition, message) = self.assertion_parts(call)?;
        let outer = std::mem::replace(&mut self.without_events, true);
        let holds = self.truth_expression(condition, id);
        self.without_events = outer;
        self.assert_here(holds?, message, call.span)
    }

    /// What must hold where the conditions around what is being lowered do.
    pub fn assert_here(&mut self, holds: Id, message: String, span: Span) -> Lowered<()> {
        let mut holds = holds;
        for given in self.conditions.clone() {
            let elsewhere = self.graph.not(given);
            holds = self.graph.or(holds, elsewhere);
        }
        match self.graph.node(holds) {
            Node::Truth(true) => {}
            Node::Truth(false) => {
                return Err(self.error(span, "assertion", format!("this assertion fails: {message}")));
            }
            _ => {
                let known = self
                    .assertions
                    .iter()
                    .any(|one| one.condition == holds && one.message == message);
                if !known {
                    self.assertions.push(super::Assertion {
                        condition: holds,
                        message,
                        span,
                    });
                }
            }
        }
        Ok(())
    }

    /// The condition of an `assert(…)` and what it says.
    pub fn assertion_parts(&self, call: &'a Expr) -> Lowered<(&'a Expr, String)> {
        let ExprKind::Call { arguments, named, .. } = &call.kind else {
            return Err(self.error(call.span, "syntax", "an assertion is needed here"));
        };
        let level = arguments.get(2).or_else(|| {
            let level = named.iter().find(|(name, _)| name.text == "level");
            level.map(|(_, value)| value)
        });
        if let Some(level) = level
            && self.source.get(level.span.range()) != Some("AssertionLevel.error")
        {
            let error = self.error(level.span, "unsupported", "only `AssertionLevel.error` is read");
            return Err(error.into_remedy("leave it out: an assertion that fails stops the run"));
        }
        let (Some(condition), Some(message)) = (arguments.first(), arguments.get(1)) else {
            let error = self.error(call.span, "type", "`assert` takes a condition and a message");
            return Err(error.into_remedy("write `assert(x > 0, \"x must be positive\");`"));
        };
        let Some(message) = text_of(message) else {
            let error = self.error(message.span, "unsupported", "the message of an assertion is a string");
            return Err(error.into_remedy("write it out: values in messages are outside the subset"));
        };
        Ok((condition, message))
    }
}

pub fn components(class: &Class) -> impl Iterator<Item = &Component> {
    class.elements.iter().filter_map(|element| match element {
        Element::Component(component) => Some(&**component),
        _ => None,
    })
}

/// A string, or strings joined by `+`.
fn text_of(expr: &Expr) -> Option<String> {
    match &expr.kind {
        ExprKind::Text(text) => Some(text.clone()),
        ExprKind::Binary(crate::syntax::BinaryOp::Add, left, right) => Some(text_of(left)? + &text_of(right)?),
        _ => None,
    }
}
