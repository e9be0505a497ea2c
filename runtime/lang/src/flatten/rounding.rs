//! `floor`, `ceil`, `integer`, `div`, `mod` and `rem` of what changes between events: each change is an event (3.7.2).

use super::expression::Value;
use super::instance::BaseType;
use super::{Action, Flattener, Kind, Lowered};
use crate::graph::{Id, Leaf, Relation, Unary};
use crate::syntax::{Expr, Span};
use crate::units::{Measure, Unit};

impl Flattener<'_> {
    pub fn rounding(&mut self, name: &str, values: &[Value], expr: &Expr) -> Lowered<Value> {
        if values.iter().any(|value| !value.shape.is_empty()) {
            return Err(self.error(expr.span, "bad-size", format!("`{name}` takes scalars")));
        }
        let items: Vec<Id> = values.iter().map(|value| value.items[0]).collect();
        let item = match (name, items.as_slice()) {
            ("floor" | "integer", [x]) => self.whole(Unary::Floor, *x, expr.span),
            ("ceil", [x]) => self.whole(Unary::Ceil, *x, expr.span),
            ("div" | "rem" | "mod", [x, y]) => {
                let quotient = self.graph.div(*x, *y);
                let how = if name == "mod" { Unary::Floor } else { Unary::Trunc };
                let whole = self.whole(how, quotient, expr.span);
                if name == "div" {
                    whole
                } else {
                    let part = self.graph.mul(whole, *y);
                    self.graph.sub(*x, part)
                }
            }
            _ => {
                let message = format!("`{name}` does not take {} arguments", items.len());
                return Err(self.error(expr.span, "type", message));
            }
        };
        let unit = match (name, values) {
            ("div", _) => Unit::Known(Measure::one()),
            (_, [x, y]) => self.same_unit(&x.unit, &y.unit, expr.span, &format!("`{name}` of"))?,
            _ => values[0].unit.clone(),
        };
        // `integer` gives an Integer, `floor` and `ceil` a Real, the others what their arguments have in common.
        let base = match name {
            "integer" => Some(BaseType::Integer),
            "floor" | "ceil" => None,
            _ => values[0].base.joined(values[1].base),
        };
        let scalar = Value::scalar(item, unit);
        Ok(Value {
            base: base.unwrap_or(BaseType::Real),
            ..scalar
        })
    }

    /// A number rounded by `how`; where it changes between events, kept from one event to the next.
    fn whole(&mut self, how: Unary, x: Id, span: Span) -> Id {
        let rounded = self.graph.unary(how, x);
        if self.without_events || self.is_discrete(&[x]) {
            return rounded;
        }
        if how == Unary::Ceil {
            let negative = self.graph.neg(x);
            let floor = self.whole(Unary::Floor, negative, span);
            return self.graph.neg(floor);
        }
        let number = self.hidden("whole", Kind::Discrete, false, None, span);
        self.variables[number as usize].integer = true;
        let kept = self.graph.leaf(Leaf::Variable(number));
        let left = if how == Unary::Floor {
            self.left_floor(x, kept, span)
        } else {
            self.left_trunc(x, number, span)
        };
        let initial = self.initial();
        let fires = self.graph.or(initial, left);
        self.hybrid.actions.push(Action {
            fires,
            variable: number,
            value: rounded,
            reinit: false,
            span,
        });
        kept
    }

    /// Whether `kept` is not the floor of `x` any more.
    fn left_floor(&mut self, x: Id, kept: Id, span: Span) -> Id {
        let one = self.graph.constant(1.0);
        let above = self.graph.add(kept, one);
        let over = self.passed(Relation::LessEqual, above, x, span);
        let under = self.passed(Relation::Less, x, kept, span);
        self.graph.or(over, under)
    }

    /// Whether the number kept is not `x` rounded towards zero any more.
    fn left_trunc(&mut self, x: Id, number: u32, span: Span) -> Id {
        let kept = self.graph.leaf(Leaf::Variable(number));
        let before = self.graph.leaf(Leaf::Pre(number));
        let (zero, one) = (self.graph.constant(0.0), self.graph.constant(1.0));
        let (above, below) = (self.graph.add(kept, one), self.graph.sub(kept, one));
        let negative = self.graph.relation(Relation::Less, before, zero);
        let positive = self.graph.relation(Relation::Less, zero, before);
        let (not_negative, not_positive) = (self.graph.not(negative), self.graph.not(positive));
        let mut left = self.graph.truth(false);
        for (side, relation, x, y) in [
            (not_negative, Relation::LessEqual, above, x),
            (positive, Relation::Less, x, kept),
            (not_positive, Relation::LessEqual, x, below),
            (negative, Relation::Less, kept, x),
        ] {
            let passed = self.passed(relation, x, y, span);
            let here = self.graph.and(side, passed);
            left = self.graph.or(left, here);
        }
        left
    }

    fn passed(&mut self, relation: Relation, x: Id, y: Id, span: Span) -> Id {
        let node = self.graph.relation(relation, x, y);
        self.guarded(x, y, node, span)
    }
}
