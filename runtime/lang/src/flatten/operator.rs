//! Operators on lowered expressions: sizes, types and units of what they join.

use super::expression::Value;
use super::instance::BaseType;
use super::{Flattener, Lowered};
use crate::graph::{Binary, Id, Relation, Unary};
use crate::syntax::{BinaryOp, Expr, Span, UnaryOp};
use crate::units::{Measure, Unit};

impl Flattener<'_> {
    pub fn unary_operator(&mut self, op: UnaryOp, value: Value, span: Span) -> Lowered<Value> {
        match op {
            UnaryOp::Not => {
                if !value.is_truth() {
                    return Err(self.error(span, "type", "`not` needs a Boolean"));
                }
                let items = value.items.iter().map(|item| self.graph.not(*item)).collect();
                Ok(Value { items, ..value })
            }
            UnaryOp::Plus | UnaryOp::Minus if value.is_truth() => {
                Err(self.error(span, "type", "a Boolean has no sign"))
            }
            UnaryOp::Plus => Ok(value),
            UnaryOp::Minus => {
                let items = value.items.iter().map(|item| self.graph.neg(*item)).collect();
                Ok(Value {
                    items,
                    number: value.number.map(|number| -number),
                    ..value
                })
            }
        }
    }

    pub fn binary_operator(
        &mut self,
        op: BinaryOp,
        left: Value,
        right: Value,
        left_expr: &Expr,
        right_expr: &Expr,
    ) -> Lowered<Value> {
        let span = left_expr.span.to(right_expr.span);
        // The operator itself is the place of a clash; it lies between the operands.
        let gap = Span {
            start: left_expr.span.end,
            end: right_expr.span.start,
        };
        let text = self.source.get(gap.range()).unwrap_or("");
        let offset = text.find(op.symbol()).unwrap_or(0);
        let place = Span {
            start: gap.start + offset,
            end: gap.start + offset + op.symbol().len(),
        };
        match op {
            BinaryOp::And | BinaryOp::Or => self.logical(op, left, right, place),
            BinaryOp::Less
            | BinaryOp::LessEqual
            | BinaryOp::Greater
            | BinaryOp::GreaterEqual
            | BinaryOp::Equal
            | BinaryOp::NotEqual => self.compare(op, left, right, place),
            _ if left.is_truth() || right.is_truth() => Err(self.error(
                place,
                "type",
                format!("`{}` cannot be applied to a Boolean", op.symbol()),
            )),
            BinaryOp::Add | BinaryOp::Sub | BinaryOp::ElementAdd | BinaryOp::ElementSub => {
                self.sum(op, left, right, place)
            }
            BinaryOp::Mul if !left.shape.is_empty() && !right.shape.is_empty() => {
                self.matrix_product(left, right, place)
            }
            BinaryOp::Mul | BinaryOp::ElementMul | BinaryOp::Div | BinaryOp::ElementDiv => {
                self.product(op, left, right, place)
            }
            BinaryOp::Pow | BinaryOp::ElementPow => self.power(op, left, right, span, place),
        }
    }

    fn logical(&mut self, op: BinaryOp, left: Value, right: Value, place: Span) -> Lowered<Value> {
        if !left.is_truth() || !right.is_truth() || !left.shape.is_empty() || !right.shape.is_empty() {
            return Err(self.error(place, "type", format!("`{}` joins Booleans", op.symbol())));
        }
        let (x, y) = (left.items[0], right.items[0]);
        let item = if op == BinaryOp::And {
            self.graph.and(x, y)
        } else {
            self.graph.or(x, y)
        };
        Ok(Value::boolean(item))
    }

    fn compare(&mut self, op: BinaryOp, left: Value, right: Value, place: Span) -> Lowered<Value> {
        let scalars = left.shape.is_empty() && right.shape.is_empty();
        if left.base.joined(right.base).is_none() || !scalars {
            let message = format!("`{}` compares two numbers or two Booleans", op.symbol());
            return Err(self.error(place, "type", message));
        }
        // false < true (3.5).
        let (left, right) = (self.as_numbers(left), self.as_numbers(right));
        self.same_unit(&left.unit, &right.unit, place, &format!("`{}` between", op.symbol()))?;
        let (x, y) = (left.items[0], right.items[0]);
        let makes_events = !self.without_events && !self.is_discrete(&[x, y]);
        if makes_events && matches!(op, BinaryOp::Equal | BinaryOp::NotEqual) {
            let message = format!("`{}` compares Reals that change with time", op.symbol());
            let error = self.error(place, "unsupported", message);
            return Err(Box::new(error.remedy(
                "Modelica does not define it: compare with `<` or `>=`, or compare Integers",
            )));
        }
        let item = match op {
            BinaryOp::Less => self.graph.relation(Relation::Less, x, y),
            BinaryOp::Greater => self.graph.relation(Relation::Less, y, x),
            BinaryOp::LessEqual => self.graph.relation(Relation::LessEqual, x, y),
            BinaryOp::GreaterEqual => self.graph.relation(Relation::LessEqual, y, x),
            BinaryOp::Equal => self.graph.relation(Relation::Equal, x, y),
            _ => self.graph.relation(Relation::NotEqual, x, y),
        };
        let item = if makes_events {
            self.guarded(x, y, item, place)
        } else {
            item
        };
        Ok(Value::boolean(item))
    }

    fn elementwise(&mut self, op: Binary, left: &Value, right: &Value, place: Span) -> Lowered<(Vec<usize>, Vec<Id>)> {
        let shape = if left.shape.is_empty() {
            right.shape.clone()
        } else {
            left.shape.clone()
        };
        if !left.shape.is_empty() && !right.shape.is_empty() && left.shape != right.shape {
            let message = format!("arrays of sizes {:?} and {:?} do not fit", left.shape, right.shape);
            return Err(self.error(place, "bad-size", message));
        }
        let count: usize = shape.iter().product();
        let at = |value: &Value, index: usize| {
            if value.shape.is_empty() {
                value.items[0]
            } else {
                value.items[index]
            }
        };
        let items = (0..count)
            .map(|index| self.graph.binary(op, at(left, index), at(right, index)))
            .collect();
        Ok((shape, items))
    }

    fn sum(&mut self, op: BinaryOp, left: Value, right: Value, place: Span) -> Lowered<Value> {
        let element = matches!(op, BinaryOp::ElementAdd | BinaryOp::ElementSub);
        let adds = matches!(op, BinaryOp::Add | BinaryOp::ElementAdd);
        if !element && left.shape != right.shape {
            let message = format!("arrays of sizes {:?} and {:?} cannot be added", left.shape, right.shape);
            return Err(self.error(place, "bad-size", message));
        }
        let unit = self.sum_unit(&left, &right, adds, place)?;
        let (shape, items) = self.elementwise(if adds { Binary::Add } else { Binary::Sub }, &left, &right, place)?;
        let number = match (left.number, right.number) {
            (Some(x), Some(y)) => Some(if adds { x + y } else { x - y }),
            _ => None,
        };
        Ok(Value {
            shape,
            items,
            unit,
            base: left.base.joined(right.base).unwrap_or(BaseType::Real),
            number,
        })
    }

    fn sum_unit(&mut self, left: &Value, right: &Value, adds: bool, place: Span) -> Lowered<Unit> {
        let (Unit::Known(x), Unit::Known(y)) = (&left.unit, &right.unit) else {
            let known = if left.unit == Unit::Any { right } else { left };
            let number = left.number.or(right.number);
            // T + 273.15 leads from Celsius to kelvin, T − 273.15 back.
            if let (Unit::Known(measure), Some(offset)) = (&known.unit, number)
                && (offset.abs() - 273.15).abs() < 1e-9
            {
                let to_kelvin = adds == (offset > 0.0);
                if let Some(converted) = measure
                    .celsius_point(!to_kelvin)
                    .filter(|_| measure.is_celsius() == to_kelvin)
                {
                    return Ok(Unit::Known(converted));
                }
            }
            let both = left.unit != Unit::Any || right.unit != Unit::Any;
            let plain = left.number.is_some() || right.number.is_some();
            return Ok(if both && plain { known.unit.clone() } else { Unit::Any });
        };
        let clash = || {
            let message = format!(
                "`{}` joins {} and {}",
                if adds { "+" } else { "-" },
                x.describe(),
                y.describe()
            );
            let error = self.error(place, "unit-clash", message);
            Box::new(error.remedy("convert one side, or correct the unit of a declaration"))
        };
        match (x.is_celsius(), y.is_celsius()) {
            (false, false) => {
                if x.fits(y) {
                    Ok(right.unit.clone())
                } else {
                    Err(clash())
                }
            }
            (true, false) if x.difference().fits(y) => Ok(left.unit.clone()),
            (false, true) if adds && x.fits(&y.difference()) => Ok(right.unit.clone()),
            (true, true) if !adds => Ok(Unit::Known(x.difference())),
            _ => Err(clash()),
        }
    }

    fn product(&mut self, op: BinaryOp, left: Value, right: Value, place: Span) -> Lowered<Value> {
        let multiplies = matches!(op, BinaryOp::Mul | BinaryOp::ElementMul);
        if op == BinaryOp::Div && !right.shape.is_empty() {
            return Err(self.error(
                place,
                "bad-size",
                "an array cannot divide; use `./` to divide element by element",
            ));
        }
        let unit = product_unit(&left, &right, multiplies);
        let (shape, items) =
            self.elementwise(if multiplies { Binary::Mul } else { Binary::Div }, &left, &right, place)?;
        let number = match (left.number, right.number) {
            (Some(x), Some(y)) => Some(if multiplies { x * y } else { x / y }),
            _ => None,
        };
        // A quotient is a Real, also that of Integers (10.6.5).
        let base = left.base.joined(right.base).filter(|_| multiplies);
        Ok(Value {
            shape,
            items,
            unit,
            base: base.unwrap_or(BaseType::Real),
            number,
        })
    }

    pub fn matrix_product(&mut self, left: Value, right: Value, place: Span) -> Lowered<Value> {
        let unit = product_unit(&left, &right, true);
        let (rows, inner) = match left.shape.as_slice() {
            [inner] => (None, *inner),
            [rows, inner] => (Some(*rows), *inner),
            _ => return Err(self.error(place, "bad-size", "`*` multiplies vectors and matrices")),
        };
        let (same, columns) = match right.shape.as_slice() {
            [same] => (*same, None),
            [same, columns] => (*same, Some(*columns)),
            _ => return Err(self.error(place, "bad-size", "`*` multiplies vectors and matrices")),
        };
        if inner != same {
            return Err(self.error(
                place,
                "bad-size",
                format!("sizes {:?} and {:?} cannot be multiplied", left.shape, right.shape),
            ));
        }
        self.spend((rows.unwrap_or(1) * inner * columns.unwrap_or(1)) as u64);
        self.check_size(place)?;
        let mut items = Vec::new();
        for row in 0..rows.unwrap_or(1) {
            for column in 0..columns.unwrap_or(1) {
                let mut sum = self.graph.constant(0.0);
                for index in 0..inner {
                    let x = left.items[row * inner + index];
                    let y = right.items[index * columns.unwrap_or(1) + column];
                    let product = self.graph.mul(x, y);
                    sum = self.graph.add(sum, product);
                }
                items.push(sum);
            }
        }
        Ok(Value {
            shape: rows.into_iter().chain(columns).collect(),
            items,
            unit,
            base: left.base.joined(right.base).unwrap_or(BaseType::Real),
            number: None,
        })
    }

    fn power(&mut self, op: BinaryOp, left: Value, right: Value, span: Span, place: Span) -> Lowered<Value> {
        if op == BinaryOp::Pow && !(left.shape.is_empty() && right.shape.is_empty()) {
            return self.matrix_power(left, &right, span);
        }
        if let Unit::Known(exponent) = &right.unit
            && !exponent.is_plain()
        {
            let message = format!(
                "an exponent must be a plain number and has the unit {}",
                exponent.describe()
            );
            return Err(self.error(place, "unit-clash", message));
        }
        let unit = match (&left.unit, right.number) {
            (Unit::Any, _) => Unit::Any,
            (Unit::Known(base), Some(number)) => base.difference().power(number).map_or(Unit::Any, Unit::Known),
            (Unit::Known(base), None) if base.fits(&Measure::one()) => Unit::Known(Measure::one()),
            (Unit::Known(base), None) => {
                let message = format!("{} cannot be raised to a power that is not a number", base.describe());
                let error = self.error(place, "unit-clash", message);
                return Err(Box::new(error.remedy("divide by a reference value first")));
            }
        };
        let (shape, items) = self.elementwise(Binary::Pow, &left, &right, place)?;
        Ok(Value {
            shape,
            items,
            unit,
            base: BaseType::Real,
            number: None,
        })
    }

    /// The common unit of two sides, or an error at `place`.
    pub fn same_unit(&self, left: &Unit, right: &Unit, place: Span, what: &str) -> Lowered<Unit> {
        match (left, right) {
            (Unit::Known(x), Unit::Known(y)) if !x.fits(y) => {
                let message = format!("{what} {} and {}", x.describe(), y.describe());
                let error = self.error(place, "unit-clash", message);
                Err(Box::new(
                    error.remedy("convert one side, or correct the unit of a declaration"),
                ))
            }
            (Unit::Known(_), _) => Ok(left.clone()),
            _ => Ok(right.clone()),
        }
    }

    pub fn check_fits(&self, given: &Unit, wanted: &Unit, place: Span, what: &str) -> Lowered<()> {
        match (given, wanted) {
            (Unit::Known(given), Unit::Known(wanted)) if !given.fits(wanted) => {
                let message = format!("this is in {}, {what} is {}", given.describe(), wanted.describe());
                let error = self.error(place, "unit-clash", message);
                Err(Box::new(
                    error.remedy("convert it, or correct the unit of a declaration"),
                ))
            }
            _ => Ok(()),
        }
    }

    pub fn apply_unary(&mut self, op: Unary, value: &Value) -> Vec<Id> {
        value.items.iter().map(|item| self.graph.unary(op, *item)).collect()
    }
}

fn product_unit(left: &Value, right: &Value, multiplies: bool) -> Unit {
    match (&left.unit, left.number, &right.unit, right.number) {
        (Unit::Known(x), _, Unit::Known(y), _) => {
            Unit::Known(x.difference().times(&y.difference(), if multiplies { 1 } else { -1 }))
        }
        (Unit::Known(x), _, Unit::Any, Some(number)) => {
            Unit::Known(x.times_number(if multiplies { number } else { 1.0 / number }))
        }
        (Unit::Any, Some(number), Unit::Known(y), _) => {
            let other = y.difference();
            let measure = if multiplies {
                other
            } else {
                Measure::one().times(&other, -1)
            };
            Unit::Known(measure.times_number(number))
        }
        _ => Unit::Any,
    }
}
