//! Expressions to nodes, with shapes, types and units checked at every operator.

use super::instance::{BaseType, Declared, InstanceId, Member};
use super::structural::Fixed;
use super::{Flattener, Kind, Lowered};
use crate::diagnostic::Diagnostic;
use crate::graph::{Id, Leaf, Node};
use crate::syntax::{Expr, ExprKind, Part, Span, Variability};
use crate::units::{Measure, Unit};

/// A lowered expression: one node an element, row by row.
#[derive(Debug, Clone)]
pub struct Value {
    pub shape: Vec<usize>,
    pub items: Vec<Id>,
    pub unit: Unit,
    pub base: BaseType,
    /// Set for numbers of the formula itself: they have no unit and may convert.
    pub number: Option<f64>,
}

impl Value {
    pub fn scalar(item: Id, unit: Unit) -> Value {
        Value {
            shape: Vec::new(),
            items: vec![item],
            unit,
            base: BaseType::Real,
            number: None,
        }
    }

    pub fn boolean(item: Id) -> Value {
        Value {
            base: BaseType::Boolean,
            ..Value::scalar(item, Unit::Any)
        }
    }
}

impl<'a> Flattener<'a> {
    /// An expression over parameters only (start values, bounds, bindings of parameters).
    pub fn parameter_expression(&mut self, expr: &'a Expr, id: InstanceId) -> Lowered<Value> {
        let value = self.expression(expr, id)?;
        for leaf in self.graph.leaves(&value.items) {
            let name = match leaf {
                Leaf::Variable(index) => {
                    let variable = &self.variables[index as usize];
                    if matches!(variable.kind, Kind::Parameter | Kind::Dependent) {
                        continue;
                    }
                    variable.name.clone()
                }
                Leaf::Time => "time".to_string(),
                Leaf::Pre(index) => format!("pre({})", self.variables[index as usize].name),
                Leaf::Condition(_) => "a relation".to_string(),
                Leaf::Initial => "initial()".to_string(),
                Leaf::Derivative(_)
                | Leaf::Slot(_)
                | Leaf::Loop(_)
                | Leaf::LoopRate(_)
                | Leaf::Seed(_)
                | Leaf::Word(_) => "a derivative".to_string(),
            };
            let error = self.error(
                expr.span,
                "not-a-parameter",
                format!("`{name}` changes with time and is used where a parameter is needed"),
            );
            return Err(Box::new(
                error.remedy("use numbers and parameters here, or write an equation"),
            ));
        }
        Ok(value)
    }

    /// Lowers `expr`, written in the names of instance `id`.
    pub fn expression(&mut self, expr: &'a Expr, id: InstanceId) -> Lowered<Value> {
        self.check_size(expr.span)?;
        match &expr.kind {
            ExprKind::Number(number) => self.fixed_value(&Fixed::Real(*number), expr.span),
            ExprKind::Integer(number) => self.fixed_value(&Fixed::Integer(*number), expr.span),
            ExprKind::Boolean(value) => self.fixed_value(&Fixed::Truth(*value), expr.span),
            ExprKind::Text(_) => Err(self.error(expr.span, "type", "a string cannot be computed with")),
            ExprKind::Reference(parts) => self.reference(parts, expr, id),
            ExprKind::Call {
                function,
                arguments,
                named,
            } => {
                if let Some(result) = self.function_call(function, arguments, named, expr, id) {
                    return result;
                }
                if let Some((name, _)) = named.first() {
                    let message = format!("`{}` takes no arguments by name", function.text);
                    return Err(self.unsupported(name.span, message));
                }
                self.call(function, arguments, expr, id)
            }
            ExprKind::Unary(op, operand) => {
                let value = self.expression(operand, id)?;
                self.unary_operator(*op, value, expr.span)
            }
            ExprKind::Binary(..) => self.chain(expr, id),
            ExprKind::If { branches, otherwise } => self.conditional(branches, otherwise, expr, id),
            ExprKind::Array(items) => self.array(items, expr, id),
            ExprKind::Comprehension { body, index, range } => {
                let mut values = Vec::new();
                for number in self.structural_range(range, id)? {
                    self.loops.push((index.text.clone(), number));
                    let value = self.expression(body, id);
                    self.loops.pop();
                    values.push(value?);
                }
                self.stack(values, expr.span)
            }
            ExprKind::Matrix(rows) => self.matrix(rows, expr, id),
            ExprKind::Range { .. } => {
                let numbers = self.structural_range(expr, id)?;
                self.fixed_value(&Fixed::Array(numbers), expr.span)
            }
            ExprKind::Tuple(_) => {
                let error = self.error(
                    expr.span,
                    "syntax",
                    "several results are only taken on the left of an equation",
                );
                Err(error.into_remedy("write `(a, b) = f(x);`"))
            }
            ExprKind::All | ExprKind::End => {
                Err(self.error(expr.span, "syntax", "this only has a meaning as a subscript"))
            }
        }
    }

    /// `a + b + c + …` nests to the left: from the innermost outwards, without recursion.
    fn chain(&mut self, expr: &'a Expr, id: InstanceId) -> Lowered<Value> {
        let mut links = Vec::new();
        let mut innermost = expr;
        while let ExprKind::Binary(op, left, right) = &innermost.kind {
            links.push((*op, &**left, &**right));
            innermost = left;
        }
        let mut value = self.expression(innermost, id)?;
        for (op, left, right) in links.into_iter().rev() {
            let right_value = self.expression(right, id)?;
            value = self.binary_operator(op, value, right_value, left, right)?;
        }
        Ok(value)
    }

    pub fn undefined(&self, name: &str, span: Span, id: InstanceId, _expr: &Expr) -> Box<Diagnostic> {
        let instance = &self.instances[id.0];
        let message = format!("`{name}` is not declared in {}", instance.class.name.text);
        let error = self.error(span, "undefined-variable", message);
        if name == "Modelica" {
            return error.into_remedy("the Modelica Standard Library is not read: declare what is needed in this file");
        }
        let known = instance.order.iter().map(String::as_str).chain(["time"]);
        match crate::nearest(name, known) {
            Some(near) => Box::new(error.remedy(format!("did you mean `{near}`?"))),
            None => Box::new(error.remedy(format!("declare it: `Real {name};`"))),
        }
    }

    /// The message for a protected element that is named from outside its class (4.1).
    pub fn hidden_member(&self, part: &Part, class: &crate::syntax::Class) -> Box<Diagnostic> {
        let name = &part.name.text;
        let message = format!(
            "`{name}` is protected in `{}`: it cannot be read from outside",
            class.name.text
        );
        self.error(part.name.span, "protected", message)
            .into_remedy("declare it under `public`, or an output that equals it")
    }

    /// The message for a conditional component that an expression names (4.4.5).
    fn conditional_member(&self, part: &Part) -> Box<Diagnostic> {
        let message = format!(
            "`{}` is declared with a condition: only `connect` can name it",
            part.name.text
        );
        self.error(part.name.span, "type", message)
            .into_remedy("connect it to a connector that is always there, or declare it without `if`")
    }

    fn reference(&mut self, parts: &'a [Part], expr: &'a Expr, id: InstanceId) -> Lowered<Value> {
        if let [part] = parts {
            if let Some((_, number)) = self
                .loops
                .iter()
                .rev()
                .find(|(name, _)| *name == part.name.text)
                .cloned()
            {
                return self.fixed_value(&number, expr.span);
            }
            if let Some(value) = self.local(part, id) {
                return value;
            }
            if part.name.text == "time" {
                let item = self.graph.leaf(Leaf::Time);
                return Ok(Value::scalar(item, Unit::Known(Measure::time())));
            }
        }
        if let Some(value) = self.constant(parts, expr, id) {
            return value;
        }
        self.member(parts, expr, id, id)
    }

    /// A dotted name below instance `here`; subscripts are written in the names of `id`.
    fn member(&mut self, parts: &'a [Part], expr: &'a Expr, here: InstanceId, id: InstanceId) -> Lowered<Value> {
        let Some((part, rest)) = parts.split_first() else {
            return Err(self.error(expr.span, "syntax", "a name is missing"));
        };
        match self.instances[here.0].members.get(&part.name.text).cloned() {
            None if self.instances[here.0].absent.contains(&part.name.text) => Err(self.conditional_member(part)),
            None => Err(self.undefined(&part.name.text, part.name.span, here, expr)),
            Some(Member::Variable(declared)) => {
                if declared.component.protected && here != id {
                    return Err(self.hidden_member(part, self.instances[here.0].class));
                }
                if declared.component.condition.is_some() {
                    return Err(self.conditional_member(part));
                }
                if let Some(next) = rest.first() {
                    let message = format!("`{}` has no component `{}`", part.name.text, next.name.text);
                    return Err(self.error(next.name.span, "no-such-member", message));
                }
                self.declared_value(&declared, here, expr, &part.subscripts, id)
            }
            Some(Member::Instances {
                shape,
                ids,
                protected,
                conditional,
            }) => {
                if protected && here != id {
                    return Err(self.hidden_member(part, self.instances[here.0].class));
                }
                if conditional {
                    return Err(self.conditional_member(part));
                }
                if rest.is_empty() {
                    let message = format!("`{}` is a component; name one of its variables", part.name.text);
                    return Err(self.error(expr.span, "type", message));
                }
                let chosen = self.select_indices(&shape, &part.subscripts, id, part.name.span)?;
                let mut values = Vec::new();
                for index in chosen.1 {
                    values.push(self.member(rest, expr, ids[index], id)?);
                }
                if chosen.0.is_empty() {
                    return Ok(values.swap_remove(0));
                }
                let mut stacked = self.stack(values, expr.span)?;
                let inner = stacked.shape.split_off(1);
                stacked.shape = chosen.0.into_iter().chain(inner).collect();
                Ok(stacked)
            }
        }
    }

    /// The elements of a declared variable that `subscripts` (written in the names of `id`) choose.
    pub fn declared_value(
        &mut self,
        declared: &Declared<'a>,
        owner: InstanceId,
        expr: &'a Expr,
        subscripts: &'a [Expr],
        id: InstanceId,
    ) -> Lowered<Value> {
        if declared.base != BaseType::Real && declared.first.is_none() {
            let fixed = self.structural_declared(declared, owner, expr)?;
            let value = self.fixed_value(&fixed, expr.span)?;
            return self.subscripted(value, subscripts, id);
        }
        let Some(first) = declared.first else {
            // Only while sizes are still being found: the value is not there yet.
            return Err(self.error(
                expr.span,
                "not-structural",
                format!("`{}` is not known here", declared.component.name.text),
            ));
        };
        let unit = self
            .variables
            .get(first as usize)
            .map_or(Unit::Any, |variable| variable.unit.clone());
        let chosen = self.select_indices(&declared.shape, subscripts, id, expr.span);
        if chosen.as_ref().is_err_and(|error| error.code == "not-structural") {
            let whole = self.declared_value(declared, owner, expr, &[], id)?;
            if let Some(chosen) = self.chosen_while_running(&whole, subscripts, id) {
                return chosen;
            }
        }
        let (shape, chosen) = chosen?;
        let items: Vec<Id> = chosen
            .into_iter()
            .map(|offset| self.graph.leaf(Leaf::Variable(first + offset as u32)))
            .collect();
        if declared.base == BaseType::Boolean {
            let items = items.into_iter().map(|item| self.truth_of(item)).collect();
            return Ok(Value {
                shape,
                base: BaseType::Boolean,
                items,
                unit: Unit::Any,
                number: None,
            });
        }
        let binding = declared.binding.as_ref().map(|binding| &binding.expr.kind);
        let number = match (declared.component.variability, &unit, binding) {
            // A constant without a unit is as good as the number it names.
            (Variability::Constant, Unit::Any, Some(ExprKind::Number(number) | ExprKind::Integer(number))) => {
                Some(*number)
            }
            _ => None,
        };
        Ok(Value {
            shape,
            items,
            unit,
            base: declared.base,
            number,
        })
    }

    pub fn fixed_value(&mut self, fixed: &Fixed, span: Span) -> Lowered<Value> {
        match fixed {
            Fixed::Real(number) | Fixed::Integer(number) => {
                let item = self.graph.constant(*number);
                Ok(Value {
                    number: Some(*number),
                    base: fixed.base().unwrap_or(BaseType::Real),
                    ..Value::scalar(item, Unit::Any)
                })
            }
            Fixed::Truth(value) => Ok(Value::boolean(self.graph.truth(*value))),
            Fixed::Array(items) => {
                let values = items
                    .iter()
                    .map(|item| self.fixed_value(item, span))
                    .collect::<Lowered<Vec<Value>>>()?;
                self.stack(values, span)
            }
            Fixed::Text(_) => Err(self.error(span, "type", "a string cannot be computed with")),
        }
    }

    /// The shape that subscripts leave, and the flat indices they choose.
    pub fn select_indices(
        &mut self,
        shape: &[usize],
        subscripts: &'a [Expr],
        id: InstanceId,
        span: Span,
    ) -> Lowered<(Vec<usize>, Vec<usize>)> {
        if subscripts.len() > shape.len() {
            return Err(self.error(
                span,
                "bad-subscript",
                format!("{} subscripts for {} dimensions", subscripts.len(), shape.len()),
            ));
        }
        let mut left = Vec::new();
        let mut flat = vec![0_usize];
        for (dimension, size) in shape.iter().enumerate() {
            let (chosen, keeps) = match subscripts.get(dimension) {
                None => ((0..*size).collect::<Vec<_>>(), true),
                Some(subscript) => self.known_subscript(subscript, *size, id)?,
            };
            flat = flat
                .iter()
                .flat_map(|base| chosen.iter().map(move |index| base * size + index))
                .collect();
            if keeps {
                left.push(chosen.len());
            }
        }
        Ok((left, flat))
    }

    pub fn known_subscript(&mut self, subscript: &'a Expr, size: usize, id: InstanceId) -> Lowered<(Vec<usize>, bool)> {
        if matches!(subscript.kind, ExprKind::All) {
            return Ok(((0..size).collect(), true));
        }
        self.ends.push(size as f64);
        let fixed = self.structural(subscript, id);
        self.ends.pop();
        let (numbers, keeps) = match fixed? {
            Fixed::Integer(number) => (vec![number], false),
            Fixed::Array(items) if items.iter().all(|item| matches!(item, Fixed::Integer(_))) => {
                (items.iter().filter_map(Fixed::number).collect(), true)
            }
            other => {
                let message = format!("a subscript is an Integer, not {}", super::structural::describe(&other));
                return Err(self.error(subscript.span, "bad-subscript", message));
            }
        };
        let mut chosen = Vec::new();
        for number in numbers {
            if libm::trunc(number) != number || number < 1.0 || number > size as f64 {
                let message = format!("element {number} does not exist: there are {size}");
                return Err(self.error(subscript.span, "bad-subscript", message));
            }
            chosen.push(number as usize - 1);
        }
        Ok((chosen, keeps))
    }

    pub fn subscripted(&mut self, value: Value, subscripts: &'a [Expr], id: InstanceId) -> Lowered<Value> {
        let Some(first) = subscripts.first() else {
            return Ok(value);
        };
        let chosen = self.select_indices(&value.shape, subscripts, id, first.span);
        if chosen.as_ref().is_err_and(|error| error.code == "not-structural")
            && let Some(chosen) = self.chosen_while_running(&value, subscripts, id)
        {
            return chosen;
        }
        let (shape, chosen) = chosen?;
        let items = chosen.iter().map(|index| value.items[*index]).collect();
        Ok(Value { shape, items, ..value })
    }

    fn array(&mut self, items: &'a [Expr], expr: &'a Expr, id: InstanceId) -> Lowered<Value> {
        let values = items
            .iter()
            .map(|item| self.expression(item, id))
            .collect::<Lowered<Vec<Value>>>()?;
        self.stack(values, expr.span)
    }

    /// Values of one shape as one array with a dimension more.
    pub fn stack(&mut self, values: Vec<Value>, span: Span) -> Lowered<Value> {
        let Some(first) = values.first().cloned() else {
            return Ok(Value {
                shape: vec![0],
                items: Vec::new(),
                unit: Unit::Any,
                base: BaseType::Real,
                number: None,
            });
        };
        let mut unit = first.unit.clone();
        let mut base = first.base;
        let mut items = Vec::new();
        for value in &values {
            let joined = base.joined(value.base).filter(|_| value.shape == first.shape);
            base = joined
                .ok_or_else(|| self.error(span, "bad-size", "the elements of an array must have one size and type"))?;
            unit = self.same_unit(&unit, &value.unit, span, "an array of")?;
            items.extend(&value.items);
        }
        let shape = std::iter::once(values.len()).chain(first.shape).collect();
        Ok(Value {
            shape,
            items,
            unit,
            base,
            number: None,
        })
    }

    fn conditional(
        &mut self,
        branches: &'a [(Expr, Expr)],
        otherwise: &'a Expr,
        expr: &'a Expr,
        id: InstanceId,
    ) -> Lowered<Value> {
        let outer = self.conditions.len();
        let lowered = self.alternatives(branches, otherwise, id);
        self.conditions.truncate(outer);
        let (alternatives, mut result) = lowered?;
        for (truth, value) in alternatives.into_iter().rev() {
            let joined = value.base.joined(result.base).filter(|_| value.shape == result.shape);
            let base =
                joined.ok_or_else(|| self.error(expr.span, "bad-size", "both branches must have one size and type"))?;
            let unit = self.same_unit(&value.unit, &result.unit, expr.span, "`if` between")?;
            let pairs: Vec<(Id, Id)> = value.items.iter().copied().zip(result.items.iter().copied()).collect();
            let items = pairs
                .into_iter()
                .map(|(first, second)| self.graph.select(truth, first, second))
                .collect();
            result = Value {
                shape: value.shape,
                items,
                unit,
                base,
                number: None,
            };
        }
        Ok(result)
    }

    /// Conditions with their values in the order of the text, and the value where none holds.
    fn alternatives(
        &mut self,
        branches: &'a [(Expr, Expr)],
        otherwise: &'a Expr,
        id: InstanceId,
    ) -> Lowered<(Vec<(Id, Value)>, Value)> {
        let mut alternatives = Vec::new();
        for (condition, value) in branches {
            let truth = self.truth_expression(condition, id)?;
            // In an algorithm what is known not to be reached is not unfolded: so recursion ends.
            match (self.frame.is_some(), self.graph.node(truth)) {
                (true, Node::Truth(true)) => return Ok((alternatives, self.expression(value, id)?)),
                (true, Node::Truth(false)) => continue,
                _ => {}
            }
            self.conditions.push(truth);
            let value = self.expression(value, id);
            self.conditions.pop();
            alternatives.push((truth, value?));
            let fails = self.graph.not(truth);
            self.conditions.push(fails);
        }
        let last = self.expression(otherwise, id)?;
        Ok((alternatives, last))
    }

    /// A scalar truth.
    pub fn truth_expression(&mut self, expr: &'a Expr, id: InstanceId) -> Lowered<Id> {
        let value = self.expression(expr, id)?;
        if value.is_truth() && value.shape.is_empty() {
            return Ok(value.items[0]);
        }
        Err(self
            .error(expr.span, "type", "a condition must be a Boolean")
            .into_remedy("compare: `x > 0`"))
    }
}

/// A remedy on a boxed diagnostic.
pub trait Remedied {
    fn into_remedy(self, remedy: &str) -> Box<Diagnostic>;
}

impl Remedied for Box<Diagnostic> {
    fn into_remedy(self, remedy: &str) -> Box<Diagnostic> {
        Box::new(self.remedy(remedy))
    }
}
