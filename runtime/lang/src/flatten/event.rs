//! What makes events and what happens at them: relations, when-clauses, `pre`, `sample` (Modelica 3.6, 8.3.5 and 3.7.5).

use std::collections::BTreeMap;

use super::expression::{Remedied as _, Value};
use super::instance::{BaseType, InstanceId};
use super::{Action, FlatEquation, Flattener, Guard, Kind, Lowered, Variable};
use crate::graph::{Binary, Id, Leaf, Node, Relation, Unary};
use crate::syntax::{Class, Equation, Expr, ExprKind, Span};
use crate::units::{Measure, Unit};

impl<'a> Flattener<'a> {
    /// The truth that a number other than 0 stands for.
    pub fn truth_of(&mut self, number: Id) -> Id {
        let zero = self.graph.constant(0.0);
        self.graph.relation(Relation::NotEqual, number, zero)
    }

    /// 1 for a truth that holds and 0 otherwise.
    pub fn number_of(&mut self, truth: Id) -> Id {
        if let Node::Relation(Relation::NotEqual, leaf, zero) = self.graph.node(truth) {
            let boolean = match self.graph.node(leaf) {
                Node::Leaf(Leaf::Variable(index) | Leaf::Pre(index)) => self.variables[index as usize].boolean,
                Node::Leaf(Leaf::Condition(_) | Leaf::Initial) => true,
                _ => false,
            };
            if boolean && self.graph.value(zero) == Some(0.0) {
                return leaf;
            }
        }
        let (one, zero) = (self.graph.constant(1.0), self.graph.constant(0.0));
        self.graph.select(truth, one, zero)
    }

    /// Booleans as 0 and 1; anything else as it is.
    pub fn as_numbers(&mut self, value: Value) -> Value {
        if !value.is_truth() {
            return value;
        }
        let items = value.items.iter().map(|item| self.number_of(*item)).collect();
        Value {
            items,
            base: BaseType::Integer,
            ..value
        }
    }

    /// Whether nodes change at events only.
    pub fn is_discrete(&self, items: &[Id]) -> bool {
        self.graph.leaves(items).into_iter().all(|leaf| match leaf {
            Leaf::Variable(index) => {
                let variable = &self.variables[index as usize];
                variable.discrete || matches!(variable.kind, Kind::Parameter | Kind::Dependent | Kind::Discrete)
            }
            Leaf::Pre(_) | Leaf::Condition(_) | Leaf::Initial => true,
            Leaf::Time | Leaf::Derivative(_) => false,
            Leaf::Slot(_) | Leaf::Loop(_) | Leaf::LoopRate(_) | Leaf::Seed(_) | Leaf::Word(_) => false,
        })
    }

    /// The value between events of a relation that changes with time.
    pub fn guarded(&mut self, left: Id, right: Id, relation: Id, span: Span) -> Id {
        let known = self.hybrid.guards.iter().position(|guard| guard.relation == relation);
        let number = known.unwrap_or_else(|| {
            let root = self.graph.sub(left, right);
            self.hybrid.guards.push(Guard { root, relation, span });
            self.hybrid.guards.len() - 1
        });
        let leaf = self.graph.leaf(Leaf::Condition(number as u32));
        self.truth_of(leaf)
    }

    /// A variable of the compiler's own.
    pub fn hidden(&mut self, name: &str, kind: Kind, boolean: bool, start: Option<Id>, span: Span) -> u32 {
        let index = self.variables.len() as u32;
        self.variables.push(Variable {
            name: format!("${name}{index}"),
            kind,
            output: false,
            unit_text: String::new(),
            unit: Unit::Any,
            description: String::new(),
            start,
            fixed: true,
            min: None,
            max: None,
            nominal: None,
            value: None,
            discrete: true,
            boolean,
            integer: false,
            span,
        });
        index
    }

    /// `pre(v)`, `edge(b)` or `change(v)`.
    pub fn before_event(&mut self, name: &str, argument: &'a Expr, id: InstanceId) -> Lowered<Value> {
        let value = self.expression(argument, id)?;
        let truth = value.is_truth();
        let numbers = self.as_numbers(value.clone());
        let mut before = Vec::new();
        for item in &numbers.items {
            let Node::Leaf(Leaf::Variable(index)) = self.graph.node(*item) else {
                let error = self.error(argument.span, "type", format!("`{name}` is taken of a variable"));
                return Err(error.into_remedy("give the expression a name of its own"));
            };
            let variable = &self.variables[index as usize];
            if matches!(variable.kind, Kind::Parameter | Kind::Dependent) {
                before.push(*item);
            } else if variable.discrete || variable.kind == Kind::Discrete {
                self.hybrid.remembered.insert(index);
                before.push(self.graph.leaf(Leaf::Pre(index)));
            } else if self.in_when && name == "pre" {
                // The limit from the left: what a when-clause reads before it changes anything.
                before.push(*item);
            } else {
                let message = format!("`{name}({})` of a continuous variable", variable.name);
                let error = self.error(argument.span, "unsupported", message);
                return Err(error.into_remedy("it is defined for discrete variables, and in a when-clause"));
            }
        }
        let items: Vec<Id> = match name {
            "pre" if truth => before.iter().map(|item| self.truth_of(*item)).collect(),
            "pre" => before,
            _ => {
                let mut items = Vec::new();
                for (now, before) in numbers.items.iter().zip(before) {
                    items.push(if name == "edge" {
                        let (now, before) = (self.truth_of(*now), self.truth_of(before));
                        let fell = self.graph.not(before);
                        self.graph.and(now, fell)
                    } else {
                        self.graph.relation(Relation::NotEqual, *now, before)
                    });
                }
                items
            }
        };
        let is_truth = truth || name != "pre";
        if name == "edge" && !truth {
            return Err(self.error(argument.span, "type", "`edge` takes a Boolean"));
        }
        Ok(Value {
            items,
            base: if is_truth { BaseType::Boolean } else { value.base },
            unit: if is_truth { Unit::Any } else { value.unit.clone() },
            number: None,
            ..value
        })
    }

    /// `sample(start, interval)`: true at the instants start + i·interval and at no other time.
    pub fn sample(&mut self, arguments: &'a [Expr], expr: &'a Expr, id: InstanceId) -> Lowered<Value> {
        let mut numbers = Vec::new();
        for argument in arguments {
            let value = self.parameter_expression(argument, id)?;
            if value.is_truth() || !value.shape.is_empty() {
                return Err(self.error(argument.span, "type", "`sample` takes two times"));
            }
            self.check_fits(&value.unit, &Unit::Known(Measure::second()), argument.span, "a time")?;
            numbers.push(value.items[0]);
        }
        if self.default_value(numbers[1]).is_some_and(|interval| interval <= 0.0) {
            return Err(self.error(
                arguments[1].span,
                "bad-attribute",
                "the interval of `sample` must be positive",
            ));
        }
        let fires = self.ticks(numbers[0], numbers[1], expr.span);
        Ok(Value::boolean(fires))
    }

    /// True at start + i·interval. What is kept is i: a sum of intervals would drift away from these instants, and two
    /// samples from each other.
    fn ticks(&mut self, start: Id, interval: Id, span: Span) -> Id {
        let zero = self.graph.constant(0.0);
        let one = self.graph.constant(1.0);
        let number = self.hidden("tick", Kind::Discrete, false, Some(zero), span);
        let time = self.graph.leaf(Leaf::Time);
        let next = self.graph.leaf(Leaf::Variable(number));
        let due = self.tick(start, interval, next);
        let relation = self.graph.relation(Relation::LessEqual, due, time);
        let reached = self.guarded(time, due, relation, span);
        let initial = self.initial();
        let running = self.graph.not(initial);
        let fires = self.graph.and(reached, running);
        let before = self.graph.leaf(Leaf::Pre(number));
        // A run that starts later begins with the first instant that is not over, whichever way the quotient is rounded.
        let passed = self.graph.sub(time, start);
        let passed = self.graph.div(passed, interval);
        let first = self.graph.unary(Unary::Ceil, passed);
        let one_less = self.graph.sub(first, one);
        let earlier = self.tick(start, interval, one_less);
        let still = self.graph.relation(Relation::LessEqual, time, earlier);
        let first = self.graph.select(still, one_less, first);
        let first = self.graph.binary(Binary::Max, first, zero);
        let following = self.graph.add(before, one);
        for (fires, value) in [(fires, following), (initial, first)] {
            self.hybrid.actions.push(Action {
                fires,
                variable: number,
                value,
                reinit: false,
                span,
            });
        }
        fires
    }

    fn tick(&mut self, start: Id, interval: Id, number: Id) -> Id {
        let offset = self.graph.mul(number, interval);
        self.graph.add(start, offset)
    }

    pub fn initial(&mut self) -> Id {
        let leaf = self.graph.leaf(Leaf::Initial);
        self.truth_of(leaf)
    }

    pub fn when_equation(&mut self, branches: &'a [(Expr, Vec<Equation>)], id: InstanceId) -> Lowered<()> {
        if self.in_when {
            let span = branches
                .first()
                .map_or(Span::default(), |(condition, _)| condition.span);
            return Err(self.error(span, "syntax", "a when-clause cannot stand in another one"));
        }
        let mut earlier = self.graph.truth(false);
        let mut determined = BTreeMap::new();
        for (condition, body) in branches {
            let edge = self.rising(condition, id)?;
            let free = self.graph.not(earlier);
            let fires = self.graph.and(edge, free);
            earlier = self.graph.or(earlier, edge);
            let before = (self.in_when, self.without_events);
            (self.in_when, self.without_events) = (true, true);
            let result = body.iter().try_for_each(|equation| self.action(equation, fires, id));
            (self.in_when, self.without_events) = before;
            // Only one branch happens at an instant: they may determine the same.
            determined.append(&mut self.determined_here);
            result?;
        }
        for ((variable, reinit), span) in determined {
            if let Some(first) = self.determined.insert((variable, reinit), span) {
                return Err(self.determined_twice(variable, reinit, first, span));
            }
        }
        Ok(())
    }

    /// An event gives a variable one value: the single assignment rule (8.3.5.3), and that of `reinit` (8.3.6).
    fn determined_twice(&self, variable: u32, reinit: bool, first: Span, span: Span) -> Box<crate::Diagnostic> {
        let name = &self.variables[variable as usize].name;
        let message = if reinit {
            format!("`{name}` is reinitialised twice: which value counts if both happen at one instant?")
        } else {
            format!("`{name}` is assigned twice: which value counts if both happen at one instant?")
        };
        let error = self.error(span, "determined-twice", message);
        let error = error.note(self.source, first.start, "here it is determined first");
        Box::new(error.remedy("join the when-clauses with `elsewhen`, or the equations with `if`"))
    }

    /// Records that the when-clause being lowered determines `variable`.
    fn determine(&mut self, variable: u32, reinit: bool, span: Span) -> Lowered<()> {
        match self.determined_here.insert((variable, reinit), span) {
            None => Ok(()),
            Some(first) => Err(self.determined_twice(variable, reinit, first, span)),
        }
    }

    /// Whether one of the conditions of a when-clause becomes true at this instant.
    fn rising(&mut self, condition: &'a Expr, id: InstanceId) -> Lowered<Id> {
        let value = self.expression(condition, id)?;
        if !value.is_truth() || value.shape.len() > 1 {
            return Err(self
                .error(condition.span, "type", "the condition of a `when` must be a Boolean")
                .into_remedy("compare: `when x > 1 then`"));
        }
        if !self.is_discrete(&value.items) {
            let error = self.error(
                condition.span,
                "type",
                "the condition of a `when` must change at events only",
            );
            return Err(error.into_remedy("do not use `noEvent` in it"));
        }
        let initial = self.initial();
        let running = self.graph.not(initial);
        let mut fires = self.graph.truth(false);
        for item in value.items {
            let one = if item == initial {
                // The start is an event only where something is remembered (a state alone can be reinitialised).
                self.hidden("start", Kind::Discrete, true, None, condition.span);
                initial
            } else {
                let number = self.number_of(item);
                let held = self.hidden("when", Kind::Unknown, true, None, condition.span);
                self.hybrid.remembered.insert(held);
                let leaf = self.graph.leaf(Leaf::Variable(held));
                self.equations.push(FlatEquation {
                    left: leaf,
                    right: number,
                    span: condition.span,
                });
                let before = self.graph.leaf(Leaf::Pre(held));
                let (now, before) = (self.truth_of(leaf), self.truth_of(before));
                let was_false = self.graph.not(before);
                let rises = self.graph.and(now, was_false);
                self.graph.and(rises, running)
            };
            fires = self.graph.or(fires, one);
        }
        Ok(fires)
    }

    fn action(&mut self, equation: &'a Equation, fires: Id, id: InstanceId) -> Lowered<()> {
        self.check_size(equation.span())?;
        match equation {
            Equation::Equal { left, right, span } => {
                let target = self.targets(left, id)?;
                let value = self.expression(right, id)?;
                let first = &self.variables[target.1[0] as usize];
                self.check_type(value.base, first.base(), right.span, &first.name)?;
                let unit = first.unit.clone();
                let value = self.as_numbers(value);
                self.check_fits(&value.unit, &unit, right.span, "the variable's unit")?;
                if value.shape != target.0 {
                    let message = format!("the sides have sizes {:?} and {:?}", target.0, value.shape);
                    return Err(self.error(*span, "bad-size", message));
                }
                for (variable, value) in target.1.into_iter().zip(value.items) {
                    self.determine(variable, false, *span)?;
                    self.hybrid.actions.push(Action {
                        fires,
                        variable,
                        value,
                        reinit: false,
                        span: *span,
                    });
                }
                Ok(())
            }
            Equation::For {
                index,
                range,
                body,
                span,
            } => {
                let Some(range) = range else {
                    return Err(self.unsupported(*span, "a `for` needs its range written out: `for i in 1:n loop`"));
                };
                for number in self.structural_range(range, id)? {
                    self.loops.push((index.text.clone(), number));
                    let result = body.iter().try_for_each(|inner| self.action(inner, fires, id));
                    self.loops.pop();
                    result?;
                }
                Ok(())
            }
            Equation::If {
                branches, otherwise, ..
            } => {
                let mut rest = fires;
                let before = self.determined_here.clone();
                let mut after = before.clone();
                for (condition, body) in branches {
                    let holds = self.truth_expression(condition, id)?;
                    let here = self.graph.and(rest, holds);
                    body.iter().try_for_each(|inner| self.action(inner, here, id))?;
                    let fails = self.graph.not(holds);
                    rest = self.graph.and(rest, fails);
                    let branch = std::mem::replace(&mut self.determined_here, before.clone());
                    after.extend(branch);
                }
                otherwise.iter().try_for_each(|inner| self.action(inner, rest, id))?;
                self.determined_here.extend(after);
                Ok(())
            }
            Equation::Call { call } if matches!(&call.kind, ExprKind::Call { function, .. } if function.text == "assert") => {
                self.assertion_at_event(call, fires, id)
            }
            Equation::Call { call } => self.reinit(call, fires, id),
            Equation::When { span, .. } | Equation::Connect { span, .. } => {
                Err(self.error(*span, "syntax", "this cannot stand in a when-clause"))
            }
        }
    }

    /// An assertion in a when-clause is about the instants at which that fires; what it finds is remembered, as assertions
    /// are looked at in rows and after steps.
    fn assertion_at_event(&mut self, call: &'a Expr, fires: Id, id: InstanceId) -> Lowered<()> {
        let (condition, message) = self.assertion_parts(call)?;
        let holds = self.truth_expression(condition, id)?;
        let fails = self.graph.not(holds);
        let (one, zero) = (self.graph.constant(1.0), self.graph.constant(0.0));
        let good = self.hidden("assert", Kind::Discrete, true, Some(one), call.span);
        self.hybrid.actions.push(Action {
            fires: self.graph.and(fires, fails),
            variable: good,
            value: zero,
            reinit: false,
            span: call.span,
        });
        let leaf = self.graph.leaf(Leaf::Variable(good));
        let condition = self.truth_of(leaf);
        self.assertions.push(super::Assertion {
            condition,
            message,
            span: call.span,
        });
        Ok(())
    }

    fn reinit(&mut self, call: &'a Expr, fires: Id, id: InstanceId) -> Lowered<()> {
        let ExprKind::Call {
            function, arguments, ..
        } = &call.kind
        else {
            return Err(self.error(call.span, "syntax", "an equation is needed here"));
        };
        let [state, value] = arguments.as_slice() else {
            return Err(self.unsupported(call.span, format!("`{}(…)` is no part of a when-clause", function.text)));
        };
        if function.text != "reinit" {
            return Err(self.unsupported(call.span, format!("`{}(…)` is no part of a when-clause", function.text)));
        }
        let target = self.targets(state, id)?;
        let new = self.expression(value, id)?;
        let unit = self.variables[target.1[0] as usize].unit.clone();
        self.check_fits(&new.unit, &unit, value.span, "the state's unit")?;
        if new.is_truth() || new.shape != target.0 {
            return Err(self.error(value.span, "bad-size", "the new value does not fit the state"));
        }
        for (variable, value) in target.1.into_iter().zip(new.items) {
            if self.variables[variable as usize].discrete {
                return Err(self.error(
                    state.span,
                    "type",
                    "`reinit` takes a state, a variable that `der` is applied to",
                ));
            }
            self.determine(variable, true, call.span)?;
            self.hybrid.actions.push(Action {
                fires,
                variable,
                value,
                reinit: true,
                span: call.span,
            });
        }
        Ok(())
    }

    /// The scalar variables that an expression on the left of a when-equation names, with their shape.
    fn targets(&mut self, left: &'a Expr, id: InstanceId) -> Lowered<(Vec<usize>, Vec<u32>)> {
        let value = self.expression(left, id)?;
        let value = self.as_numbers(value);
        let variables: Option<Vec<u32>> = value
            .items
            .iter()
            .map(|item| match self.graph.node(*item) {
                Node::Leaf(Leaf::Variable(index)) => Some(index),
                _ => None,
            })
            .collect();
        match variables.filter(|variables| !variables.is_empty()) {
            Some(variables) => Ok((value.shape, variables)),
            None => Err(self
                .error(left.span, "type", "in a when-clause the left side must be a variable")
                .into_remedy("write `variable = expression;`")),
        }
    }

    /// Marks what is assigned in when-clauses, before any equation is lowered.
    pub fn find_assigned(&mut self) -> Lowered<()> {
        for index in 0..self.instances.len() {
            let lineage: Vec<&'a Class> = self.instances[index].lineage.clone();
            for class in lineage {
                for equation in &class.equations {
                    self.assigned(equation, InstanceId(index), &mut None)?;
                }
            }
        }
        Ok(())
    }

    fn assigned(&mut self, equation: &'a Equation, id: InstanceId, body: &mut Option<Vec<u32>>) -> Lowered<()> {
        match equation {
            Equation::When { branches, .. } => {
                let mut clause: Vec<u32> = Vec::new();
                for (_, equations) in branches {
                    let mut found = Some(Vec::new());
                    for inner in equations {
                        self.assigned(inner, id, &mut found)?;
                    }
                    clause.extend(found.unwrap_or_default());
                }
                clause.sort_unstable();
                clause.dedup();
                for variable in clause {
                    let entry = &mut self.variables[variable as usize];
                    if matches!(entry.kind, Kind::Parameter | Kind::Dependent | Kind::Input) {
                        let message = format!("`{}` cannot be assigned: it is a parameter or an input", entry.name);
                        let error = self.error(equation.span(), "type", message);
                        return Err(error.into_remedy("use another variable"));
                    }
                    entry.kind = Kind::Discrete;
                    entry.discrete = true;
                }
                Ok(())
            }
            Equation::Equal { left, .. } => {
                let Some(found) = body else { return Ok(()) };
                let targets = self.targets(left, id)?.1;
                found.extend(targets);
                Ok(())
            }
            Equation::For {
                index,
                range,
                body: inner,
                ..
            } => {
                let Some(range) = range else { return Ok(()) };
                // Without a when-clause inside there is nothing to find, whatever the range.
                if body.is_none() && !inner.iter().any(has_when) {
                    return Ok(());
                }
                for number in self.structural_range(range, id)? {
                    self.loops.push((index.text.clone(), number));
                    let result = inner.iter().try_for_each(|equation| self.assigned(equation, id, body));
                    self.loops.pop();
                    result?;
                }
                Ok(())
            }
            Equation::If {
                branches, otherwise, ..
            } => {
                if body.is_none() && !has_when(equation) {
                    return Ok(());
                }
                let all = branches.iter().flat_map(|(_, body)| body).chain(otherwise);
                for inner in all {
                    self.assigned(inner, id, body)?;
                }
                Ok(())
            }
            Equation::Call { .. } | Equation::Connect { .. } => Ok(()),
        }
    }
}

fn has_when(equation: &Equation) -> bool {
    match equation {
        Equation::When { .. } => true,
        Equation::For { body, .. } => body.iter().any(has_when),
        Equation::If {
            branches, otherwise, ..
        } => branches
            .iter()
            .flat_map(|(_, body)| body)
            .chain(otherwise)
            .any(has_when),
        Equation::Equal { .. } | Equation::Call { .. } | Equation::Connect { .. } => false,
    }
}
