//! Calls: the built-in functions and operators of the subset; everything else is refused by name.

use super::expression::Value;
use super::instance::{BaseType, InstanceId};
use super::structural::{Fixed, UNARY};
use super::{Flattener, Kind, Lowered};
use crate::graph::{Binary, Id, Leaf, Node, Relation, Unary};
use crate::syntax::{Expr, Ident};
use crate::units::{Measure, Unit};

/// Known Modelica that is not read, with what to do instead.
pub const REFUSED: [(&str, &str); 10] = [
    (
        "terminal",
        "`terminal()` is outside the subset: a run can go on where it ended",
    ),
    ("terminate", "`terminate` is outside the subset"),
    (
        "delay",
        "`delay` is outside the subset: the history of a signal is not kept",
    ),
    ("spatialDistribution", "`spatialDistribution` is outside the subset"),
    (
        "semiLinear",
        "`semiLinear` is outside the subset: write `noEvent(if x >= 0 then a*x else b*x)`",
    ),
    (
        "homotopy",
        "`homotopy` is outside the subset: write the actual expression",
    ),
    ("cardinality", "`cardinality` is outside the subset"),
    ("inStream", "stream connectors are outside the subset"),
    ("actualStream", "stream connectors are outside the subset"),
    (
        "print",
        "`print` is outside the subset: a model has no output but its variables",
    ),
];

impl<'a> Flattener<'a> {
    pub fn call(
        &mut self,
        function: &'a Ident,
        arguments: &'a [Expr],
        expr: &'a Expr,
        id: InstanceId,
    ) -> Lowered<Value> {
        let name = function.text.as_str();
        match (name, arguments.len()) {
            ("der", 1) => return self.derivative(&arguments[0], id),
            ("noEvent", 1) => return self.without_event(&arguments[0], id),
            ("smooth", 2) => return self.without_event(&arguments[1], id),
            ("pre" | "edge" | "change", 1) => return self.before_event(name, &arguments[0], id),
            ("initial", 0) => {
                let item = self.graph.leaf(Leaf::Initial);
                let item = self.truth_of(item);
                return Ok(Value::boolean(item));
            }
            ("sample", 2) => return self.sample(arguments, expr, id),
            ("reinit", _) => {
                let error = self.error(expr.span, "unsupported", "`reinit` belongs into a when-clause");
                return Err(Box::new(
                    error.remedy("write `when condition then reinit(x, value); end when;`"),
                ));
            }
            ("size", 1 | 2) => return self.size(arguments, expr, id),
            ("identity", 1) => {
                let shape = self.shape_of_sizes(arguments, id)?;
                let one = Value::scalar(self.graph.constant(1.0), Unit::Any);
                if shape[0] * shape[0] > super::MAX_SCALARS {
                    return Err(self.error(expr.span, "too-large", "this matrix is too large"));
                }
                let ones = vec![one.items[0]; shape[0]];
                let base = BaseType::Integer;
                return Ok(self.diagonal(Value {
                    shape,
                    items: ones,
                    base,
                    ..one
                }));
            }
            ("fill" | "zeros" | "ones", _) => return self.filled(name, arguments, expr, id),
            ("linspace", 3) => return self.linspace(arguments, expr, id),
            ("cat", 2..) => return self.cat(arguments, expr, id),
            _ => {}
        }
        let mut values = Vec::new();
        for argument in arguments {
            let value = self.expression(argument, id)?;
            if value.is_truth() {
                return Err(self.error(argument.span, "type", format!("`{name}` takes numbers, not Booleans")));
            }
            values.push(value);
        }
        if let (Some((_, op)), [value]) = (UNARY.iter().find(|(known, _)| *known == name), values.as_slice())
            && name != "floor"
        {
            return self.function_of_one(name, *op, value.clone(), &arguments[0]);
        }
        match (name, values.as_slice()) {
            ("min" | "max" | "sum" | "product", [value]) => self.reduction(name, value.clone(), expr),
            ("min" | "max", [x, y]) => self.extreme(name, x.clone(), y.clone(), expr),
            ("atan2", [y, x]) => {
                self.same_unit(&y.unit, &x.unit, expr.span, "`atan2` of")?;
                self.pairwise(Binary::Atan2, y, x, Unit::Known(Measure::one()), expr)
            }
            ("sign", [value]) => self.sign(value.clone()),
            ("diagonal", [value]) if value.shape.len() == 1 => Ok(self.diagonal(value.clone())),
            ("ndims", [value]) => self.fixed_value(&Fixed::Integer(value.shape.len() as f64), expr.span),
            ("transpose", [value]) => self.transpose(value.clone(), expr),
            ("scalar" | "vector" | "matrix" | "symmetric" | "skew", [_]) | ("outerProduct", [_, _]) => {
                self.reshaped(name, &values, expr)
            }
            ("cross", [x, y]) => self.cross(x.clone(), y.clone(), expr),
            ("floor" | "ceil" | "integer", [_]) | ("div" | "mod" | "rem", [_, _]) => self.rounding(name, &values, expr),
            ("Real", [value]) => Ok(value.clone()),
            _ => Err(self.unknown_call(name, values.len(), function, expr)),
        }
    }

    fn unknown_call(&self, name: &str, count: usize, function: &Ident, expr: &Expr) -> Box<crate::Diagnostic> {
        if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
            let error = self.error(expr.span, "unsupported", *reason);
            return Box::new(error.remedy("docs/guides/modelica-subset.md lists what is read"));
        }
        let known = UNARY.iter().map(|(name, _)| *name).chain([
            "min",
            "max",
            "atan2",
            "sum",
            "product",
            "sign",
            "noEvent",
            "smooth",
            "der",
            "pre",
            "edge",
            "change",
            "sample",
            "initial",
            "size",
            "ndims",
            "identity",
            "diagonal",
            "transpose",
            "cross",
            "fill",
            "zeros",
            "ones",
            "linspace",
            "cat",
            "scalar",
            "vector",
            "matrix",
            "symmetric",
            "skew",
            "outerProduct",
            "floor",
            "ceil",
            "integer",
            "div",
            "mod",
            "rem",
        ]);
        if known.clone().any(|known| known == name) {
            return self.error(expr.span, "type", format!("`{name}` does not take {count} arguments"));
        }
        let error = self.error(
            function.span,
            "undefined-function",
            format!("there is no function `{name}`"),
        );
        Box::new(match crate::nearest(name, known) {
            Some(near) => error.remedy(format!("did you mean `{near}`?")),
            None => error.remedy("docs/guides/modelica-subset.md lists the functions"),
        })
    }

    fn without_event(&mut self, argument: &'a Expr, id: InstanceId) -> Lowered<Value> {
        let before = std::mem::replace(&mut self.without_events, true);
        let value = self.expression(argument, id);
        self.without_events = before;
        value
    }

    fn derivative(&mut self, argument: &'a Expr, id: InstanceId) -> Lowered<Value> {
        let value = self.expression(argument, id)?;
        let mut items = Vec::new();
        for item in &value.items {
            let Node::Leaf(Leaf::Variable(index)) = self.graph.node(*item) else {
                let error = self.error(argument.span, "unsupported", "`der` is only taken of a variable");
                return Err(Box::new(
                    error.remedy("give the expression a name of its own: `y = …;` and use `der(y)`"),
                ));
            };
            let variable = &self.variables[index as usize];
            match variable.kind {
                Kind::Unknown if !variable.discrete => items.push(self.graph.leaf(Leaf::Derivative(index))),
                Kind::Unknown | Kind::Discrete => {
                    let message = format!("`{}` changes at events only: it has no derivative", variable.name);
                    return Err(self.error(argument.span, "type", message));
                }
                Kind::Parameter | Kind::Dependent => items.push(self.graph.constant(0.0)),
                Kind::Input => {
                    let message = format!("the derivative of the input `{}` is not known", variable.name);
                    return Err(self.error(argument.span, "unsupported", message));
                }
            }
        }
        let unit = match &value.unit {
            Unit::Any => Unit::Any,
            Unit::Known(measure) => Unit::Known(measure.difference().times(&Measure::second(), -1)),
        };
        Ok(Value {
            items,
            unit,
            number: None,
            ..value
        })
    }

    fn function_of_one(&mut self, name: &str, op: Unary, value: Value, argument: &Expr) -> Lowered<Value> {
        let unit = match (&value.unit, op) {
            (Unit::Any, Unary::Abs | Unary::Sqrt) => Unit::Any,
            (Unit::Known(measure), Unary::Abs) => Unit::Known(measure.clone()),
            (Unit::Known(measure), Unary::Sqrt) => measure.difference().power(0.5).map_or(Unit::Any, Unit::Known),
            (Unit::Known(measure), _) if !measure.is_plain() => {
                let message = format!(
                    "the argument of `{name}` must be a plain number and is in {}",
                    measure.describe()
                );
                let error = self.error(argument.span, "unit-clash", message);
                return Err(Box::new(error.remedy("divide by a reference value first")));
            }
            (Unit::Any, _) if value.number.is_none() => Unit::Any,
            _ => Unit::Known(Measure::one()),
        };
        let items = self.apply_unary(op, &value);
        let base = if op == Unary::Abs { value.base } else { BaseType::Real };
        Ok(Value {
            shape: value.shape,
            items,
            unit,
            base,
            number: None,
        })
    }

    fn pairwise(&mut self, op: Binary, x: &Value, y: &Value, unit: Unit, expr: &Expr) -> Lowered<Value> {
        if !x.shape.is_empty() || !y.shape.is_empty() {
            return Err(self.error(expr.span, "bad-size", "this function takes two scalars"));
        }
        let item = self.graph.binary(op, x.items[0], y.items[0]);
        Ok(Value::scalar(item, unit))
    }

    fn extreme(&mut self, name: &str, x: Value, y: Value, expr: &Expr) -> Lowered<Value> {
        let unit = self.same_unit(&x.unit, &y.unit, expr.span, &format!("`{name}` of"))?;
        let op = if name == "min" { Binary::Min } else { Binary::Max };
        let base = x.base.joined(y.base).unwrap_or(BaseType::Real);
        let value = self.pairwise(op, &x, &y, unit, expr)?;
        Ok(Value { base, ..value })
    }

    fn reduction(&mut self, name: &str, value: Value, expr: &Expr) -> Lowered<Value> {
        let op = match name {
            "min" => Binary::Min,
            "max" => Binary::Max,
            "sum" => Binary::Add,
            _ => Binary::Mul,
        };
        let unit = match (&value.unit, op) {
            (Unit::Known(measure), Binary::Mul) => {
                measure.power(value.items.len() as f64).map_or(Unit::Any, Unit::Known)
            }
            (unit, _) => unit.clone(),
        };
        let base = value.base;
        let mut items = value.items.into_iter();
        let Some(first) = items.next() else {
            let neutral = match op {
                Binary::Add => 0.0,
                Binary::Mul => 1.0,
                _ => return Err(self.error(expr.span, "bad-size", format!("`{name}` of nothing"))),
            };
            let item = self.graph.constant(neutral);
            let scalar = Value::scalar(item, unit);
            return Ok(Value { base, ..scalar });
        };
        let item = items.fold(first, |sum, item| self.graph.binary(op, sum, item));
        let scalar = Value::scalar(item, unit);
        Ok(Value { base, ..scalar })
    }

    fn sign(&mut self, value: Value) -> Lowered<Value> {
        let (zero, one) = (self.graph.constant(0.0), self.graph.constant(1.0));
        let minus = self.graph.constant(-1.0);
        let mut items: Vec<Id> = Vec::new();
        for item in &value.items {
            let positive = self.graph.relation(Relation::Less, zero, *item);
            let negative = self.graph.relation(Relation::Less, *item, zero);
            let inner = self.graph.select(negative, minus, zero);
            items.push(self.graph.select(positive, one, inner));
        }
        Ok(Value {
            shape: value.shape,
            items,
            unit: Unit::Known(Measure::one()),
            base: BaseType::Integer,
            number: None,
        })
    }

    /// `size(a, i)`, or all sizes as a vector: `size(a)`.
    fn size(&mut self, arguments: &'a [Expr], expr: &'a Expr, id: InstanceId) -> Lowered<Value> {
        if let Some(size) = self.try_structural(expr, id) {
            return self.fixed_value(&size, expr.span);
        }
        let shape = self.expression(&arguments[0], id)?.shape;
        let sizes: Vec<Fixed> = shape.iter().map(|size| Fixed::Integer(*size as f64)).collect();
        let Some(dimension) = arguments.get(1) else {
            return self.fixed_value(&Fixed::Array(sizes), expr.span);
        };
        let place = self.structural_integer(dimension, id)?;
        let size = usize::try_from(place - 1).ok().and_then(|place| sizes.get(place));
        match size {
            Some(size) => self.fixed_value(size, expr.span),
            None => Err(self.error(expr.span, "bad-subscript", format!("there is no dimension {place}"))),
        }
    }

    /// A matrix with the elements of a vector in its diagonal and 0 elsewhere.
    fn diagonal(&mut self, value: Value) -> Value {
        let size = value.items.len();
        let zero = self.graph.constant(0.0);
        let mut items = vec![zero; size * size];
        for (place, item) in value.items.iter().enumerate() {
            items[place * (size + 1)] = *item;
        }
        Value {
            shape: vec![size, size],
            items,
            number: None,
            ..value
        }
    }

    fn transpose(&mut self, value: Value, expr: &Expr) -> Lowered<Value> {
        let [rows, columns] = value.shape.as_slice() else {
            return Err(self.error(expr.span, "bad-size", "`transpose` takes a matrix"));
        };
        let (rows, columns) = (*rows, *columns);
        let items = (0..columns)
            .flat_map(|column| (0..rows).map(move |row| row * columns + column))
            .map(|at| value.items[at])
            .collect();
        Ok(Value {
            shape: vec![columns, rows],
            items,
            ..value
        })
    }

    fn cross(&mut self, x: Value, y: Value, expr: &Expr) -> Lowered<Value> {
        if x.shape != [3] || y.shape != [3] {
            return Err(self.error(expr.span, "bad-size", "`cross` takes two vectors of three"));
        }
        let mut items = Vec::new();
        for (a, b) in [(1, 2), (2, 0), (0, 1)] {
            let first = self.graph.mul(x.items[a], y.items[b]);
            let second = self.graph.mul(x.items[b], y.items[a]);
            items.push(self.graph.sub(first, second));
        }
        Ok(Value {
            shape: vec![3],
            items,
            unit: Unit::Any,
            base: x.base.joined(y.base).unwrap_or(BaseType::Real),
            number: None,
        })
    }

    fn filled(&mut self, name: &str, arguments: &'a [Expr], expr: &'a Expr, id: InstanceId) -> Lowered<Value> {
        let (value, sizes) = if name == "fill" {
            let Some((first, sizes)) = arguments.split_first() else {
                return Err(self.error(expr.span, "type", "`fill` takes a value and sizes"));
            };
            (self.expression(first, id)?, sizes)
        } else {
            let item = self.graph.constant(if name == "ones" { 1.0 } else { 0.0 });
            let scalar = Value::scalar(item, Unit::Any);
            let base = BaseType::Integer;
            (Value { base, ..scalar }, arguments)
        };
        let shape = self.shape_of_sizes(sizes, id)?;
        let count: usize = shape.iter().product();
        if count > super::MAX_SCALARS || !value.shape.is_empty() {
            return Err(self.error(
                expr.span,
                "bad-size",
                format!(
                    "`{name}` makes an array of scalars, not larger than {}",
                    super::MAX_SCALARS
                ),
            ));
        }
        Ok(Value {
            shape,
            items: vec![value.items[0]; count],
            number: None,
            ..value
        })
    }

    fn shape_of_sizes(&mut self, sizes: &'a [Expr], id: InstanceId) -> Lowered<Vec<usize>> {
        let mut shape = Vec::new();
        for size in sizes {
            let number = self.structural_integer(size, id)?;
            let number = usize::try_from(number)
                .ok()
                .filter(|number| *number <= super::MAX_SCALARS);
            shape.push(number.ok_or_else(|| self.error(size.span, "bad-size", "this is no size"))?);
        }
        Ok(shape)
    }

    fn linspace(&mut self, arguments: &'a [Expr], expr: &'a Expr, id: InstanceId) -> Lowered<Value> {
        let from = self.expression(&arguments[0], id)?;
        let to = self.expression(&arguments[1], id)?;
        let count = self.structural_integer(&arguments[2], id)?;
        if !(2..=super::MAX_SCALARS as i64).contains(&count) || !from.shape.is_empty() || !to.shape.is_empty() {
            return Err(self.error(expr.span, "bad-size", "`linspace(a, b, n)` takes two scalars and n ≥ 2"));
        }
        let unit = self.same_unit(&from.unit, &to.unit, expr.span, "`linspace` of")?;
        let span = self.graph.sub(to.items[0], from.items[0]);
        let mut items = Vec::new();
        for index in 0..count {
            let share = self.graph.constant(index as f64 / (count - 1) as f64);
            let offset = self.graph.mul(span, share);
            items.push(self.graph.add(from.items[0], offset));
        }
        Ok(Value {
            shape: vec![count as usize],
            items,
            unit,
            base: BaseType::Real,
            number: None,
        })
    }
}
