//! If-equations, equations with several results, and the algorithm sections of models.

use std::collections::BTreeSet;

use super::algorithm::{Frame, Local};
use super::expression::Remedied as _;
use super::instance::{InstanceId, Member};
use super::structural::Fixed;
use super::{FlatEquation, Flattener, Kind, Lowered};
use crate::graph::Leaf;
use crate::syntax::{Equation, Expr, ExprKind, Span, Statement, Variability};

type Branch = (Expr, Vec<Equation>);

impl<'a> Flattener<'a> {
    /// Branches that are known when compiling are chosen now, the others while the model runs (8.3.4).
    pub fn if_equation(
        &mut self,
        branches: &'a [Branch],
        otherwise: &'a [Equation],
        span: Span,
        id: InstanceId,
        initial: bool,
    ) -> Lowered<()> {
        let Some(((condition, body), rest)) = branches.split_first() else {
            return self.all(otherwise, id, initial);
        };
        match self.try_structural(condition, id) {
            Some(Fixed::Truth(true)) => return self.all(body, id, initial),
            Some(Fixed::Truth(false)) => return self.if_equation(rest, otherwise, span, id, initial),
            _ => {}
        }
        let holds = self.truth_expression(condition, id)?;
        let fails = self.graph.not(holds);
        let first = self.collected(holds, initial, |flattener| flattener.all(body, id, initial))?;
        let second = self.collected(fails, initial, |flattener| {
            flattener.if_equation(rest, otherwise, span, id, initial)
        })?;
        if first.len() != second.len() {
            let message = format!(
                "the branches of this `if` have {} and {} equations",
                first.len(),
                second.len()
            );
            let error = self.error(span, "unbalanced-if", message);
            let error = error.note(self.source, condition.span.start, "this condition changes with time");
            return Err(Box::new(
                error.remedy("write as many equations in each branch, also after `else`"),
            ));
        }
        let merged = self.paired(holds, first, second);
        if initial {
            self.initial_equations.extend(merged);
        } else {
            self.equations.extend(merged);
        }
        Ok(())
    }

    fn all(&mut self, equations: &'a [Equation], id: InstanceId, initial: bool) -> Lowered<()> {
        for equation in equations {
            if let (Equation::When { span, .. }, false) = (equation, self.conditions.is_empty()) {
                let error = self.error(
                    *span,
                    "unsupported",
                    "a `when` inside an `if` whose condition changes with time",
                );
                return Err(error.into_remedy("put the condition into the `when`: `when a and b then`"));
            }
            self.equation(equation, id, initial)?;
        }
        Ok(())
    }

    /// The equations that `lower` adds, taken out again.
    fn collected(
        &mut self,
        condition: crate::graph::Id,
        initial: bool,
        lower: impl FnOnce(&mut Self) -> Lowered<()>,
    ) -> Lowered<Vec<FlatEquation>> {
        let target = if initial {
            &mut self.initial_equations
        } else {
            &mut self.equations
        };
        let before = std::mem::take(target);
        self.conditions.push(condition);
        let result = lower(self);
        self.conditions.pop();
        let target = if initial {
            &mut self.initial_equations
        } else {
            &mut self.equations
        };
        let added = std::mem::replace(target, before);
        result.map(|()| added)
    }

    /// One equation for two: those with the same left side stay solved for it, the others join by their residuals.
    fn paired(
        &mut self,
        holds: crate::graph::Id,
        first: Vec<FlatEquation>,
        mut second: Vec<FlatEquation>,
    ) -> Vec<FlatEquation> {
        let mut merged = Vec::new();
        let mut unmatched = Vec::new();
        for one in first {
            let Some(place) = second.iter().position(|other| other.left == one.left) else {
                unmatched.push(one);
                continue;
            };
            let other = second.remove(place);
            merged.push(FlatEquation {
                left: one.left,
                right: self.graph.select(holds, one.right, other.right),
                span: one.span,
            });
        }
        for (one, other) in unmatched.into_iter().zip(second) {
            let first = self.graph.sub(one.left, one.right);
            let second = self.graph.sub(other.left, other.right);
            merged.push(FlatEquation {
                left: self.graph.constant(0.0),
                right: self.graph.select(holds, first, second),
                span: one.span,
            });
        }
        merged
    }

    /// `(a, , b) = f(x)`
    pub fn several(
        &mut self,
        left: &'a Expr,
        right: &'a Expr,
        span: Span,
        id: InstanceId,
        initial: bool,
    ) -> Lowered<()> {
        let ExprKind::Tuple(places) = &left.kind else {
            return Err(self.error(left.span, "syntax", "variables are needed here"));
        };
        let results = self.several_results(right, places.len(), id)?;
        for (place, result) in places.iter().zip(results) {
            let Some(place) = place else { continue };
            let variable = self.expression(place, id)?;
            self.same_unit(&variable.unit, &result.unit, place.span, "this and the result are in")?;
            if !result.base.fits(variable.base) || variable.shape != result.shape {
                return Err(self.error(place.span, "type", "this and the result have different types or sizes"));
            }
            let (variable, result) = (self.as_numbers(variable), self.as_numbers(result));
            for (left, right) in variable.items.into_iter().zip(result.items) {
                let equation = FlatEquation { left, right, span };
                if initial {
                    self.initial_equations.push(equation);
                } else {
                    self.equations.push(equation);
                }
            }
        }
        Ok(())
    }

    /// An algorithm section: an equation for every variable that it assigns (11.1.2).
    pub fn model_algorithm(&mut self, statements: &'a [Statement], id: InstanceId) -> Lowered<()> {
        let mut names = Vec::new();
        assigned(statements, &mut names);
        let mut seen = BTreeSet::new();
        names.retain(|(name, _)| seen.insert(name.clone()));
        let no = self.graph.truth(false);
        let mut locals = Vec::new();
        let mut places = Vec::new();
        for (name, span) in names {
            let Some(Member::Variable(declared)) = self.instances[id.0].members.get(&name).cloned() else {
                // Executing the algorithm says what is wrong with it.
                continue;
            };
            let keeps = matches!(
                declared.component.variability,
                Variability::Parameter | Variability::Constant
            );
            let Some(first) = declared.first.filter(|_| !keeps) else {
                return Err(self.error(span, "type", format!("`{name}` is a parameter: it cannot be assigned")));
            };
            let variable = self.variables[first as usize].clone();
            if variable.kind != Kind::Unknown {
                let error = self.error(span, "type", format!("`{name}` cannot be assigned in an algorithm"));
                return Err(error.into_remedy("inputs get their values from outside, discrete variables in a `when`"));
            }
            let mut content = self.empty(&declared.shape);
            // A continuous variable that is read first has its start value (11.1.2).
            if !variable.discrete {
                let zero = self.graph.constant(0.0);
                for (offset, (item, missing)) in content.items.iter_mut().zip(&mut content.missing).enumerate() {
                    *item = Some(self.variables[first as usize + offset].start.unwrap_or(zero));
                    *missing = no;
                }
            }
            content.unit = variable.unit.clone();
            locals.push(Local {
                name,
                shape: declared.shape.clone(),
                base: declared.base,
                unit: variable.unit,
                read_only: false,
                content,
            });
            places.push((first, span));
        }
        self.frame = Some(Frame {
            function: None,
            locals,
            returned: no,
            broken: no,
        });
        let result = self.execute(statements, id);
        let Some(frame) = self.frame.take() else { return result };
        result?;
        for (local, (first, span)) in frame.locals.iter().zip(places) {
            let value = self.local_value(local, &[], span, id)?;
            let value = self.as_numbers(value);
            for (offset, right) in value.items.into_iter().enumerate() {
                let left = self.graph.leaf(Leaf::Variable(first + offset as u32));
                self.equations.push(FlatEquation { left, right, span });
            }
        }
        Ok(())
    }
}

/// The names that statements assign, with the first place of each.
fn assigned(statements: &[Statement], names: &mut Vec<(String, Span)>) {
    for statement in statements {
        match statement {
            Statement::Assign { target, span, .. } => {
                let targets: Vec<&Expr> = match &target.kind {
                    ExprKind::Tuple(places) => places.iter().flatten().collect(),
                    _ => vec![target],
                };
                for target in targets {
                    if let ExprKind::Reference(parts) = &target.kind
                        && let [part] = parts.as_slice()
                    {
                        names.push((part.name.text.clone(), *span));
                    }
                }
            }
            Statement::If {
                branches, otherwise, ..
            } => {
                for (_, body) in branches {
                    assigned(body, names);
                }
                assigned(otherwise, names);
            }
            Statement::For { body, .. } | Statement::While { body, .. } => assigned(body, names),
            Statement::Return { .. } | Statement::Break { .. } | Statement::Call { .. } => {}
        }
    }
}
