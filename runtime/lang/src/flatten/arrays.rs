//! Arrays made of arrays: `cat`, `[ ]`, powers of matrices, and elements that are chosen while the model runs.

use super::expression::{Remedied as _, Value};
use super::instance::{BaseType, InstanceId};
use super::{Flattener, Lowered};
use crate::graph::{Id, Relation};
use crate::syntax::{Expr, ExprKind, Span};
use crate::units::{Measure, Unit};

/// A subscript of an element.
enum Subscript {
    /// Known when compiling; whether the dimension stays.
    Known(Vec<usize>, bool),
    /// An Integer that changes at events.
    Running(Id),
}

impl<'a> Flattener<'a> {
    /// `[a, b; c, d]`: the parts of a row side by side, the rows below each other (10.4.2.1).
    pub fn matrix(&mut self, rows: &'a [Vec<Expr>], expr: &'a Expr, id: InstanceId) -> Lowered<Value> {
        let mut lowered = Vec::new();
        for row in rows {
            let mut values = Vec::new();
            for item in row {
                let value = self.expression(item, id)?;
                values.push(self.as_matrix(value, item.span)?);
            }
            lowered.push(self.concatenated(1, values, expr.span)?);
        }
        self.concatenated(0, lowered, expr.span)
    }

    /// A scalar as one row and column, a vector as a column.
    fn as_matrix(&self, value: Value, span: Span) -> Lowered<Value> {
        let shape = match value.shape.as_slice() {
            [] => vec![1, 1],
            [rows] => vec![*rows, 1],
            [rows, columns] => vec![*rows, *columns],
            _ => return Err(self.error(span, "bad-size", "`[ ]` joins scalars, vectors and matrices")),
        };
        Ok(Value { shape, ..value })
    }

    /// Arrays joined along one dimension; the others agree (10.4.2).
    pub fn concatenated(&mut self, along: usize, values: Vec<Value>, span: Span) -> Lowered<Value> {
        let mut values = values.into_iter();
        let Some(mut whole) = values.next() else {
            return Err(self.error(span, "bad-size", "there is nothing to join"));
        };
        for value in values {
            let mut expected = whole.shape.clone();
            let fits = along < expected.len() && value.shape.len() == expected.len();
            if fits {
                expected[along] = value.shape[along];
            }
            let base = whole
                .base
                .joined(value.base)
                .filter(|_| fits && expected == value.shape);
            let Some(base) = base else {
                let message = format!(
                    "arrays of sizes {:?} and {:?} cannot be joined",
                    whole.shape, value.shape
                );
                return Err(self.error(span, "bad-size", message));
            };
            let unit = self.same_unit(&whole.unit, &value.unit, span, "an array of")?;
            // Rows of the outer dimensions, taken in turns.
            let inner = |shape: &[usize]| shape[along..].iter().product::<usize>();
            let (here, there) = (inner(&whole.shape), inner(&value.shape));
            let outer: usize = whole.shape[..along].iter().product();
            let mut items = Vec::with_capacity(whole.items.len() + value.items.len());
            for row in 0..outer {
                items.extend(&whole.items[row * here..(row + 1) * here]);
                items.extend(&value.items[row * there..(row + 1) * there]);
            }
            let mut shape = whole.shape;
            shape[along] += value.shape[along];
            whole = Value {
                shape,
                items,
                unit,
                base,
                number: None,
            };
        }
        self.check_size(span)?;
        Ok(whole)
    }

    /// `cat(k, a, b, …)`
    pub fn cat(&mut self, arguments: &'a [Expr], expr: &'a Expr, id: InstanceId) -> Lowered<Value> {
        let Some((dimension, rest)) = arguments.split_first() else {
            return Err(self.error(expr.span, "type", "`cat` takes a dimension and arrays"));
        };
        let number = self.structural_integer(dimension, id)?;
        let mut values = Vec::new();
        for argument in rest {
            values.push(self.expression(argument, id)?);
        }
        let dimensions = values.first().map_or(0, |value| value.shape.len());
        let along = usize::try_from(number - 1).ok().filter(|along| *along < dimensions);
        let along = along.ok_or_else(|| {
            self.error(
                dimension.span,
                "bad-subscript",
                format!("there is no dimension {number}"),
            )
        })?;
        self.concatenated(along, values, expr.span)
    }

    /// Changes of an array's dimensions alone, and products of vectors (10.3).
    pub fn reshaped(&mut self, name: &str, values: &[Value], expr: &Expr) -> Lowered<Value> {
        let value = values[0].clone();
        let ones = value.shape.iter().filter(|size| **size != 1).count();
        match (name, values.get(1)) {
            ("scalar", None) if ones == 0 => Ok(Value {
                shape: Vec::new(),
                ..value
            }),
            ("vector", None) if ones <= 1 => Ok(Value {
                shape: vec![value.items.len()],
                ..value
            }),
            ("matrix", None) if value.shape.len() <= 2 => self.as_matrix(value, expr.span),
            ("symmetric", None) if value.shape.len() == 2 && value.shape[0] == value.shape[1] => {
                let size = value.shape[0];
                let place = |row: usize, column: usize| row.min(column) * size + row.max(column);
                let items = (0..size * size)
                    .map(|at| value.items[place(at / size, at % size)])
                    .collect();
                Ok(Value { items, ..value })
            }
            ("skew", None) if value.shape == [3] => {
                let zero = self.graph.constant(0.0);
                let [x, y, z] = [value.items[0], value.items[1], value.items[2]];
                let [nx, ny, nz] = [x, y, z].map(|item| self.graph.neg(item));
                let items = vec![zero, nz, y, z, zero, nx, ny, x, zero];
                let shape = vec![3, 3];
                Ok(Value { items, shape, ..value })
            }
            ("outerProduct", Some(other)) if value.shape.len() == 1 && other.shape.len() == 1 => {
                let column = self.as_matrix(value, expr.span)?;
                let row = Value {
                    shape: vec![1, other.items.len()],
                    ..other.clone()
                };
                self.matrix_product(column, row, expr.span)
            }
            _ => Err(self.error(
                expr.span,
                "bad-size",
                format!("`{name}` does not take arrays of these sizes"),
            )),
        }
    }

    /// A square matrix to a whole power (10.6.7).
    pub fn matrix_power(&mut self, matrix: Value, exponent: &Value, span: Span) -> Lowered<Value> {
        let square = matrix.shape.len() == 2 && matrix.shape[0] == matrix.shape[1];
        let power = exponent.number.filter(|number| {
            exponent.base == BaseType::Integer && exponent.shape.is_empty() && (0.0..=100.0).contains(number)
        });
        let (true, Some(power)) = (square, power) else {
            let error = self.error(
                span,
                "unsupported",
                "`^` takes scalars, or a square matrix and a whole number",
            );
            return Err(error.into_remedy("`.^` works element by element"));
        };
        if !matches!(&matrix.unit, Unit::Any)
            && !matches!(&matrix.unit, Unit::Known(unit) if unit.fits(&Measure::one()))
        {
            return Err(self.error(span, "unit-clash", "the elements of a matrix with a power have no unit"));
        }
        let size = matrix.shape[0];
        let (zero, one) = (self.graph.constant(0.0), self.graph.constant(1.0));
        let items = (0..size * size).map(|at| if at % (size + 1) == 0 { one } else { zero });
        let mut result = Value {
            items: items.collect(),
            number: None,
            ..matrix.clone()
        };
        // By squares: the bits of the exponent from the lowest on.
        let (mut square, mut left) = (matrix, power as u32);
        while left > 0 {
            if left & 1 == 1 {
                result = self.matrix_product(result, square.clone(), span)?;
            }
            left >>= 1;
            if left > 0 {
                square = self.matrix_product(square.clone(), square, span)?;
            }
        }
        Ok(Value {
            base: BaseType::Real,
            ..result
        })
    }

    /// The elements that `subscripts` choose where one of them is an Integer that changes at events: `table[k]`. `None`
    /// where all are known when compiling.
    pub fn chosen_while_running(
        &mut self,
        whole: &Value,
        subscripts: &'a [Expr],
        id: InstanceId,
    ) -> Option<Lowered<Value>> {
        if subscripts.len() > whole.shape.len() {
            return None;
        }
        let mut parts = Vec::new();
        let mut running = false;
        for (subscript, size) in subscripts.iter().zip(&whole.shape) {
            if !matches!(subscript.kind, ExprKind::All) {
                self.ends.push(*size as f64);
                let known = self.try_structural(subscript, id).is_some();
                let value = (!known).then(|| self.expression(subscript, id));
                self.ends.pop();
                if let Some(Ok(value)) = value
                    && value.base == BaseType::Integer
                    && value.shape.is_empty()
                {
                    running = true;
                    if let Err(error) = self.assert_inside(value.items[0], *size, subscript.span) {
                        return Some(Err(error));
                    }
                    parts.push(Subscript::Running(value.items[0]));
                    continue;
                }
            }
            match self.known_subscript(subscript, *size, id) {
                Ok((chosen, keeps)) => parts.push(Subscript::Known(chosen, keeps)),
                Err(error) => return running.then_some(Err(error)),
            }
        }
        running.then(|| self.picked(whole.clone(), &parts, subscripts[0].span))
    }

    /// A subscript outside its dimension stops the run.
    fn assert_inside(&mut self, index: Id, size: usize, span: Span) -> Lowered<()> {
        let (one, last) = (self.graph.constant(1.0), self.graph.constant(size as f64));
        let first = self.graph.relation(Relation::LessEqual, one, index);
        let second = self.graph.relation(Relation::LessEqual, index, last);
        let holds = self.graph.and(first, second);
        self.assert_here(holds, format!("a subscript is outside 1 … {size}"), span)
    }

    fn picked(&mut self, whole: Value, parts: &[Subscript], span: Span) -> Lowered<Value> {
        let (Some((part, rest)), Some((size, inner))) = (parts.split_first(), whole.shape.split_first()) else {
            return Ok(whole);
        };
        let count: usize = inner.iter().product();
        let slice = |index: usize| Value {
            shape: inner.to_vec(),
            items: whole.items[index * count..(index + 1) * count].to_vec(),
            unit: whole.unit.clone(),
            base: whole.base,
            number: None,
        };
        match part {
            Subscript::Known(chosen, keeps) => {
                let mut values = Vec::new();
                for index in chosen {
                    values.push(self.picked(slice(*index), rest, span)?);
                }
                if *keeps || values.is_empty() {
                    return self.stack(values, span);
                }
                Ok(values.swap_remove(0))
            }
            Subscript::Running(index) => {
                if *size == 0 {
                    return Err(self.error(span, "bad-subscript", "this array has no elements"));
                }
                let mut result = self.picked(slice(size - 1), rest, span)?;
                for place in (0..size - 1).rev() {
                    let here = self.picked(slice(place), rest, span)?;
                    let number = self.graph.constant((place + 1) as f64);
                    let is_here = self.graph.relation(Relation::Equal, *index, number);
                    for (old, new) in result.items.iter_mut().zip(here.items) {
                        *old = self.graph.select(is_here, new, *old);
                    }
                }
                Ok(result)
            }
        }
    }
}
