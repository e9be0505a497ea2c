//! Algorithms, executed symbolically: every assignment replaces the node that a name stands for.
//!
//! An `if` whose condition is known when compiling executes one branch. Otherwise both are executed, each on its own
//! copy of the names, and every name that differs afterwards becomes a selection. `return` and `break` are truths that
//! later assignments select on. Loops run as often as their range says.

use std::collections::BTreeSet;

use super::expression::{Remedied as _, Value};
use super::instance::{BaseType, InstanceId};
use super::structural::Fixed;
use super::{Flattener, Lowered};
use crate::graph::{Id, Node};
use crate::syntax::{Expr, ExprKind, Part, Span, Statement};
use crate::units::Unit;

/// With more conditions than this it is not searched whether a name is assigned on every path.
const MAX_CONDITIONS: usize = 8;
/// Nor beyond this many nodes and steps.
const MAX_NODES: usize = 100;
const MAX_STEPS: u32 = 20_000;

/// A name that an algorithm may read and assign.
#[derive(Debug, Clone)]
pub struct Local {
    pub name: String,
    pub shape: Vec<usize>,
    pub base: BaseType,
    /// As declared.
    pub unit: Unit,
    /// Not to be assigned: an input or a constant of a function.
    pub read_only: bool,
    pub content: Content,
}

/// What a name stands for at one point of the algorithm.
#[derive(Debug, Clone)]
pub struct Content {
    pub items: Vec<Option<Id>>,
    /// Under which condition no value was assigned yet, an element each.
    pub missing: Vec<Id>,
    pub unit: Unit,
    pub number: Option<f64>,
}

/// The names of the algorithm being executed.
#[derive(Debug)]
pub struct Frame {
    /// The function, or the algorithm section of a model.
    pub function: Option<String>,
    pub locals: Vec<Local>,
    /// When the function has returned, and when the innermost loop was left.
    pub returned: Id,
    pub broken: Id,
}

struct State {
    contents: Vec<Content>,
    returned: Id,
    broken: Id,
}

impl Frame {
    pub fn find(&self, name: &str) -> Option<&Local> {
        self.locals.iter().find(|local| local.name == name)
    }

    fn state(&self) -> State {
        State {
            contents: self.locals.iter().map(|local| local.content.clone()).collect(),
            returned: self.returned,
            broken: self.broken,
        }
    }

    fn restore(&mut self, state: State) {
        for (local, content) in self.locals.iter_mut().zip(state.contents) {
            local.content = content;
        }
        (self.returned, self.broken) = (state.returned, state.broken);
    }
}

impl<'a> Flattener<'a> {
    /// A name of nothing yet.
    pub fn empty(&mut self, shape: &[usize]) -> Content {
        let count = shape.iter().product();
        let yes = self.graph.truth(true);
        Content {
            items: vec![None; count],
            missing: vec![yes; count],
            unit: Unit::Any,
            number: None,
        }
    }

    pub fn filled_content(&mut self, value: &Value) -> Content {
        let no = self.graph.truth(false);
        Content {
            items: value.items.iter().copied().map(Some).collect(),
            missing: vec![no; value.items.len()],
            unit: value.unit.clone(),
            number: value.number,
        }
    }

    /// The value of a name of the algorithm, if it is one.
    pub fn local(&mut self, part: &'a Part, id: InstanceId) -> Option<Lowered<Value>> {
        let local = self.frame.as_ref()?.find(&part.name.text)?.clone();
        Some(self.local_value(&local, &part.subscripts, part.name.span, id))
    }

    pub fn local_value(&mut self, local: &Local, subscripts: &'a [Expr], span: Span, id: InstanceId) -> Lowered<Value> {
        let chosen = self.select_indices(&local.shape, subscripts, id, span);
        if chosen.as_ref().is_err_and(|error| error.code == "not-structural")
            && let Ok(whole) = self.local_value(local, &[], span, id)
            && let Some(chosen) = self.chosen_while_running(&whole, subscripts, id)
        {
            return chosen;
        }
        let (shape, chosen) = chosen?;
        let stopped = self.stopped();
        let runs = self.graph.not(stopped);
        let mut items = Vec::new();
        for index in chosen {
            let missing = local.content.missing.get(index).copied();
            let read_early = missing.map(|missing| self.graph.and(missing, runs));
            let item = local.content.items.get(index).copied().flatten();
            match (item, read_early) {
                (Some(item), Some(early)) if self.never(early) => items.push(item),
                _ => {
                    let message = format!("`{}` may be read here before it has a value", local.name);
                    let error = self.error(span, "no-value", message);
                    return Err(error.into_remedy("assign it on every path that leads here"));
                }
            }
        }
        Ok(Value {
            shape,
            items,
            unit: local.content.unit.clone(),
            base: local.base,
            number: local.content.number.filter(|_| local.shape.is_empty()),
        })
    }

    /// The value of a name of the algorithm where it is known when compiling.
    pub fn local_fixed(&mut self, part: &'a Part, expr: &'a Expr, id: InstanceId) -> Option<Lowered<Fixed>> {
        let value = match self.local(part, id)? {
            Ok(value) => value,
            Err(error) => return Some(Err(error)),
        };
        Some(self.fixed_of(&value).ok_or_else(|| {
            let message = format!("`{}` is not known when compiling", part.name.text);
            self.error(expr.span, "not-structural", message)
                .into_remedy("sizes, ranges and subscripts follow from numbers, sizes and Integer parameters")
        }))
    }

    /// The number, truth or array that a value without variables is.
    pub fn fixed_of(&self, value: &Value) -> Option<Fixed> {
        let mut flat = Vec::new();
        for item in &value.items {
            flat.push(match self.graph.node(*item) {
                Node::Truth(truth) if value.is_truth() => Fixed::Truth(truth),
                _ if value.is_truth() => return None,
                _ => Fixed::of(self.graph.value(*item)?, value.base),
            });
        }
        let mut flat = flat.into_iter();
        fn nest(shape: &[usize], flat: &mut impl Iterator<Item = Fixed>) -> Option<Fixed> {
            let Some((size, rest)) = shape.split_first() else {
                return flat.next();
            };
            (0..*size)
                .map(|_| nest(rest, flat))
                .collect::<Option<Vec<_>>>()
                .map(Fixed::Array)
        }
        nest(&value.shape, &mut flat)
    }

    /// The condition under which the statement now reached is skipped.
    fn stopped(&mut self) -> Id {
        let Some(frame) = &self.frame else {
            return self.graph.truth(false);
        };
        let (returned, broken) = (frame.returned, frame.broken);
        self.graph.or(returned, broken)
    }

    pub fn execute(&mut self, statements: &'a [Statement], id: InstanceId) -> Lowered<()> {
        for statement in statements {
            let stopped = self.stopped();
            if self.graph.node(stopped) == Node::Truth(true) {
                return Ok(());
            }
            self.statement(statement, id)?;
        }
        Ok(())
    }

    fn statement(&mut self, statement: &'a Statement, id: InstanceId) -> Lowered<()> {
        self.check_size(statement.span())?;
        match statement {
            Statement::Assign { target, value, .. } => {
                if let ExprKind::Tuple(places) = &target.kind {
                    let results = self.several_results(value, places.len(), id)?;
                    for (place, result) in places.iter().zip(results) {
                        if let Some(place) = place {
                            self.assign(place, result, value.span, id)?;
                        }
                    }
                    return Ok(());
                }
                let result = self.expression(value, id)?;
                self.assign(target, result, value.span, id)
            }
            Statement::If {
                branches, otherwise, ..
            } => self.branch(branches, otherwise, id),
            Statement::For {
                index,
                range,
                body,
                span,
            } => {
                let Some(range) = range else {
                    return Err(self.unsupported(*span, "a `for` needs its range written out: `for i in 1:n loop`"));
                };
                let numbers = self.structural_range(range, id)?;
                self.repeat(id, body, |_, turn| {
                    Ok(numbers
                        .get(turn)
                        .map(|number| Some((index.text.clone(), number.clone()))))
                })
            }
            Statement::While { condition, body, .. } => self.repeat(id, body, |flattener, _| {
                let holds = flattener.truth_expression(condition, id)?;
                match flattener.graph.node(holds) {
                    Node::Truth(true) => Ok(Some(None)),
                    Node::Truth(false) => Ok(None),
                    _ => {
                        let message = "how often this `while` runs is not known when compiling";
                        let error = flattener.error(condition.span, "unsupported", message);
                        Err(error.into_remedy("use `for` with a range, and an `if` inside it"))
                    }
                }
            }),
            Statement::Return { span } => {
                let Some(frame) = self.frame.as_mut().filter(|frame| frame.function.is_some()) else {
                    return Err(self.error(*span, "syntax", "`return` leaves a function, and this is none"));
                };
                let broken = frame.broken;
                let returned = frame.returned;
                let now = self.graph.not(broken);
                let returned = self.graph.or(returned, now);
                if let Some(frame) = &mut self.frame {
                    frame.returned = returned;
                }
                Ok(())
            }
            Statement::Break { span } => {
                if self.algorithm_loops == 0 {
                    return Err(self.error(*span, "syntax", "`break` leaves a loop, and this is none"));
                }
                let yes = self.graph.truth(true);
                if let Some(frame) = &mut self.frame {
                    frame.broken = yes;
                }
                Ok(())
            }
            Statement::Call { call } => self.call_statement(call, id),
        }
    }

    fn call_statement(&mut self, call: &'a Expr, id: InstanceId) -> Lowered<()> {
        let ExprKind::Call { function, .. } = &call.kind else {
            return Err(self.error(call.span, "syntax", "a statement is needed here"));
        };
        if function.text == "assert" {
            let stopped = self.stopped();
            let runs = self.graph.not(stopped);
            self.conditions.push(runs);
            let result = self.assertion(call, id);
            self.conditions.pop();
            return result;
        }
        if self.is_function(function, id) {
            // Its results are dropped; its assertions count.
            return self.several_results(call, 0, id).map(|_| ());
        }
        let known = super::builtin::REFUSED.iter().find(|(name, _)| *name == function.text);
        let message = known.map_or(
            format!("`{}(…)` is no statement of the subset", function.text),
            |(_, reason)| (*reason).to_string(),
        );
        Err(self.unsupported(call.span, message))
    }

    /// Runs `body` for every turn that `next` allows, with the loop index it gives.
    fn repeat(
        &mut self,
        id: InstanceId,
        body: &'a [Statement],
        mut next: impl FnMut(&mut Self, usize) -> Lowered<Option<Option<(String, Fixed)>>>,
    ) -> Lowered<()> {
        let outer = self.frame.as_ref().map(|frame| frame.broken);
        self.algorithm_loops += 1;
        let mut turn = 0;
        let result = loop {
            let index = match next(self, turn) {
                Ok(Some(index)) => index,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            let indexed = index.is_some();
            self.loops.extend(index);
            let result = self.execute(body, id);
            if indexed {
                self.loops.pop();
            }
            if result.is_err() {
                break result;
            }
            let stopped = self.stopped();
            if self.graph.node(stopped) == Node::Truth(true) {
                break Ok(());
            }
            self.spend(1);
            turn += 1;
        };
        self.algorithm_loops -= 1;
        if let (Some(frame), Some(outer)) = (&mut self.frame, outer) {
            frame.broken = outer;
        }
        result
    }

    fn branch(
        &mut self,
        branches: &'a [(Expr, Vec<Statement>)],
        otherwise: &'a [Statement],
        id: InstanceId,
    ) -> Lowered<()> {
        let Some(((condition, body), rest)) = branches.split_first() else {
            return self.execute(otherwise, id);
        };
        let holds = self.truth_expression(condition, id)?;
        match self.graph.node(holds) {
            Node::Truth(true) => return self.execute(body, id),
            Node::Truth(false) => return self.branch(rest, otherwise, id),
            _ => {}
        }
        let Some(before) = self.frame.as_ref().map(Frame::state) else {
            return Err(self.error(condition.span, "syntax", "an algorithm is needed here"));
        };
        self.conditions.push(holds);
        let result = self.execute(body, id);
        self.conditions.pop();
        result?;
        let Some(frame) = &mut self.frame else { return Ok(()) };
        let first = frame.state();
        frame.restore(before);
        let fails = self.graph.not(holds);
        self.conditions.push(fails);
        let result = self.branch(rest, otherwise, id);
        self.conditions.pop();
        result?;
        self.merge(holds, first, condition.span)
    }

    /// What the names stand for after an `if`: `first` where `holds`, else what they stand for now.
    fn merge(&mut self, holds: Id, first: State, span: Span) -> Lowered<()> {
        let Some(mut frame) = self.frame.take() else {
            return Ok(());
        };
        frame.returned = self.graph.select(holds, first.returned, frame.returned);
        frame.broken = self.graph.select(holds, first.broken, frame.broken);
        let mut result = Ok(());
        for (local, one) in frame.locals.iter_mut().zip(first.contents) {
            let other = &mut local.content;
            if one.items == other.items && one.missing == other.missing {
                continue;
            }
            match self.same_unit(&one.unit, &other.unit, span, &format!("`{}` is in", local.name)) {
                Ok(unit) => other.unit = unit,
                Err(error) => result = Err(error),
            }
            other.number = None;
            for (index, item) in other.items.iter_mut().enumerate() {
                let (Some(first_item), Some(first_missing)) = (one.items.get(index), one.missing.get(index)) else {
                    continue;
                };
                *item = match (*first_item, *item) {
                    (Some(first), Some(second)) => Some(self.graph.select(holds, first, second)),
                    (first, second) => first.or(second),
                };
                if let Some(missing) = other.missing.get_mut(index) {
                    *missing = self.graph.select(holds, *first_missing, *missing);
                    if self.never(*missing) {
                        *missing = self.graph.truth(false);
                    }
                }
            }
        }
        self.frame = Some(frame);
        result
    }

    pub fn assign(&mut self, target: &'a Expr, value: Value, value_span: Span, id: InstanceId) -> Lowered<()> {
        let ExprKind::Reference(parts) = &target.kind else {
            return Err(self.error(target.span, "syntax", "only a variable can be assigned"));
        };
        let [part] = parts.as_slice() else {
            return Err(self.unsupported(target.span, "assigning a variable of a component is outside the subset"));
        };
        let name = &part.name.text;
        let found = self
            .frame
            .as_ref()
            .and_then(|frame| frame.locals.iter().position(|local| local.name == *name));
        let Some((place, local)) = found.and_then(|place| {
            let local = self.frame.as_ref()?.locals.get(place)?.clone();
            Some((place, local))
        }) else {
            let names = self.frame.as_ref().map_or(Vec::new(), |frame| {
                frame.locals.iter().map(|local| local.name.clone()).collect()
            });
            let error = self.error(
                part.name.span,
                "undefined-variable",
                format!("`{name}` cannot be assigned here"),
            );
            return Err(match crate::nearest(name, names.iter().map(String::as_str)) {
                Some(near) => Box::new(error.remedy(format!("did you mean `{near}`?"))),
                None => error.into_remedy("outputs and protected variables are assigned"),
            });
        };
        if local.read_only {
            let error = self.error(
                part.name.span,
                "type",
                format!("`{name}` is an input or a constant: it keeps its value"),
            );
            return Err(error.into_remedy("assign to a protected variable of its own"));
        }
        let (shape, chosen) = self.select_indices(&local.shape, &part.subscripts, id, part.name.span)?;
        self.check_assignable(&local, &shape, &value, value_span)?;
        let stopped = self.stopped();
        let mut content = local.content;
        for (index, new) in chosen.into_iter().zip(value.items.iter().copied()) {
            if let (Some(item), Some(missing)) = (content.items.get_mut(index), content.missing.get_mut(index)) {
                *item = Some(match *item {
                    Some(old) => self.graph.select(stopped, old, new),
                    None => new,
                });
                *missing = self.graph.and(stopped, *missing);
                if self.never(*missing) {
                    *missing = self.graph.truth(false);
                }
            }
        }
        content.unit = match (&local.unit, part.subscripts.is_empty()) {
            (Unit::Known(_), _) => local.unit.clone(),
            (Unit::Any, true) => value.unit.clone(),
            (Unit::Any, false) => self.same_unit(&content.unit, &value.unit, value_span, "elements in")?,
        };
        content.number = value
            .number
            .filter(|_| local.unit == Unit::Any && local.shape.is_empty());
        if let Some(local) = self.frame.as_mut().and_then(|frame| frame.locals.get_mut(place)) {
            local.content = content;
        }
        Ok(())
    }

    /// Type, size and unit of a value for a name.
    pub fn check_assignable(&self, local: &Local, shape: &[usize], value: &Value, span: Span) -> Lowered<()> {
        let name = &local.name;
        self.check_type(value.base, local.base, span, name)?;
        if value.shape != shape {
            let message = format!("a value of size {:?} for `{name}` of size {shape:?}", value.shape);
            return Err(self.error(span, "bad-size", message));
        }
        self.check_fits(&value.unit, &local.unit, span, &format!("`{name}`"))
    }

    /// Whether a truth holds for no values of the conditions in it.
    fn never(&self, truth: Id) -> bool {
        match self.graph.node(truth) {
            Node::Truth(value) => return !value,
            Node::And(_, _) | Node::Or(_, _) | Node::Not(_) | Node::Select(_, _, _) => {}
            _ => return false,
        }
        let mut seen = BTreeSet::new();
        let mut conditions = Vec::new();
        self.conditions_in(truth, &mut seen, &mut conditions);
        let mut budget = MAX_STEPS;
        conditions.len() <= MAX_CONDITIONS
            && (0_u32..1 << conditions.len())
                .all(|chosen| self.holds(truth, &conditions, chosen, &mut budget) == Some(false))
    }

    fn conditions_in(&self, truth: Id, seen: &mut BTreeSet<Id>, found: &mut Vec<Id>) {
        if found.len() > MAX_CONDITIONS || seen.len() > MAX_NODES || !seen.insert(truth) {
            return;
        }
        match self.graph.node(truth) {
            Node::Truth(_) => {}
            Node::And(_, _) | Node::Or(_, _) | Node::Not(_) | Node::Select(_, _, _) => {
                for operand in self.graph.operands(truth) {
                    self.conditions_in(operand, seen, found);
                }
            }
            _ => found.push(truth),
        }
    }

    fn holds(&self, truth: Id, conditions: &[Id], chosen: u32, budget: &mut u32) -> Option<bool> {
        *budget = budget.checked_sub(1)?;
        match self.graph.node(truth) {
            Node::Truth(value) => Some(value),
            Node::And(a, b) => {
                Some(self.holds(a, conditions, chosen, budget)? && self.holds(b, conditions, chosen, budget)?)
            }
            Node::Or(a, b) => {
                Some(self.holds(a, conditions, chosen, budget)? || self.holds(b, conditions, chosen, budget)?)
            }
            Node::Not(a) => self.holds(a, conditions, chosen, budget).map(|value| !value),
            Node::Select(condition, a, b) => {
                let taken = if self.holds(condition, conditions, chosen, budget)? {
                    a
                } else {
                    b
                };
                self.holds(taken, conditions, chosen, budget)
            }
            _ => {
                let place = conditions.iter().position(|condition| *condition == truth)?;
                Some(chosen & (1 << place) != 0)
            }
        }
    }
}
