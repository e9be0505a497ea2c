//! What type an expression has and where it may stand (Modelica 3.6, 6.6, 6.7 and 10.6): an Integer may stand where a
//! Real is wanted, nothing else is converted.

use super::expression::{Remedied as _, Value};
use super::instance::BaseType;
use super::structural::Fixed;
use super::{Flattener, Lowered, Variable};
use crate::syntax::Span;

impl BaseType {
    /// With its article, as a message names it.
    pub fn describe(self) -> &'static str {
        match self {
            BaseType::Real => "a Real",
            BaseType::Integer => "an Integer",
            BaseType::Boolean => "a Boolean",
            BaseType::String => "a String",
        }
    }

    /// The type that two values have in common: of branches, of elements of an array, of operands.
    pub fn joined(self, other: BaseType) -> Option<BaseType> {
        match (self, other) {
            (one, other) if one == other => Some(one),
            (BaseType::Real, BaseType::Integer) | (BaseType::Integer, BaseType::Real) => Some(BaseType::Real),
            _ => None,
        }
    }

    /// Whether a value of this type may stand where `wanted` is declared.
    pub fn fits(self, wanted: BaseType) -> bool {
        self.joined(wanted) == Some(wanted)
    }
}

impl Value {
    pub fn is_truth(&self) -> bool {
        self.base == BaseType::Boolean
    }
}

impl Variable {
    pub fn base(&self) -> BaseType {
        match (self.boolean, self.integer) {
            (true, _) => BaseType::Boolean,
            (false, true) => BaseType::Integer,
            (false, false) => BaseType::Real,
        }
    }
}

impl Fixed {
    /// The number, whether Real or Integer.
    pub fn number(&self) -> Option<f64> {
        match self {
            Fixed::Real(value) | Fixed::Integer(value) => Some(*value),
            Fixed::Truth(_) | Fixed::Text(_) | Fixed::Array(_) => None,
        }
    }

    /// The sizes of an array, after its first elements; none for a scalar.
    pub fn shape(&self) -> Vec<usize> {
        match self {
            Fixed::Array(items) => {
                let inner = items.first().map_or_else(Vec::new, Fixed::shape);
                std::iter::once(items.len()).chain(inner).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Adds every number, row by row.
    pub fn numbers(&self, all: &mut Vec<f64>) {
        match self {
            Fixed::Array(items) => items.iter().for_each(|item| item.numbers(all)),
            other => all.extend(other.number()),
        }
    }

    /// A number of the given type.
    pub fn of(value: f64, base: BaseType) -> Fixed {
        if base == BaseType::Integer {
            Fixed::Integer(value)
        } else {
            Fixed::Real(value)
        }
    }

    /// The type of a value, or of what an array holds; an empty array fits everything.
    pub fn base(&self) -> Option<BaseType> {
        match self {
            Fixed::Real(_) => Some(BaseType::Real),
            Fixed::Integer(_) => Some(BaseType::Integer),
            Fixed::Truth(_) => Some(BaseType::Boolean),
            Fixed::Text(_) => Some(BaseType::String),
            Fixed::Array(items) => {
                let mut bases = items.iter().filter_map(Fixed::base);
                let first = bases.next()?;
                Some(bases.fold(first, |all, base| all.joined(base).unwrap_or(base)))
            }
        }
    }
}

impl Flattener<'_> {
    /// Refuses a value of the type `given` where `name` takes `wanted`.
    pub fn check_type(&self, given: BaseType, wanted: BaseType, span: Span, name: &str) -> Lowered<()> {
        if given.fits(wanted) {
            return Ok(());
        }
        let message = format!("this is {} and `{name}` is {}", given.describe(), wanted.describe());
        let error = self.error(span, "type", message);
        Err(match (given, wanted) {
            (BaseType::Real, BaseType::Integer) => error.into_remedy(
                "`integer(x)` is the Integer below a Real, `div(a, b)` divides Integers; or declare a Real",
            ),
            (BaseType::Boolean, BaseType::Real | BaseType::Integer) => error.into_remedy("write `if b then 1 else 0`"),
            (_, BaseType::Boolean) => error.into_remedy("compare: `x > 0`"),
            _ => error,
        })
    }
}
