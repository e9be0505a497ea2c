//! Equations to scalar equations over the graph.

use super::builtin::REFUSED;
use super::expression::Remedied as _;
use super::instance::{BaseType, InstanceId, Member};
use super::modification::Binding;
use super::{FlatEquation, Flattener, Kind, Lowered};
use crate::graph::Leaf;
use crate::syntax::{Class, Equation, Expr, ExprKind, Span, Variability};

impl<'a> Flattener<'a> {
    /// Lowers the bindings and equations of every instance.
    pub fn lower_all(&mut self, root: InstanceId) -> Lowered<()> {
        debug_assert_eq!(root.0, 0);
        self.find_assigned()?;
        for index in 0..self.instances.len() {
            let id = InstanceId(index);
            self.bindings(id)?;
            let lineage: Vec<&'a Class> = self.instances[index].lineage.clone();
            for class in lineage {
                for equation in &class.equations {
                    if let Err(error) = self.equation(equation, id, false) {
                        self.errors.push(*error);
                    }
                }
                for equation in &class.initial_equations {
                    if let Err(error) = self.equation(equation, id, true) {
                        self.errors.push(*error);
                    }
                }
                for statements in &class.algorithms {
                    if let Err(error) = self.model_algorithm(statements, id) {
                        self.errors.push(*error);
                    }
                }
            }
        }
        self.finish_connections();
        Ok(())
    }

    /// `Real x = expression` is an equation.
    fn bindings(&mut self, id: InstanceId) -> Lowered<()> {
        for name in self.instances[id.0].order.clone() {
            let Some(Member::Variable(declared)) = self.instances[id.0].members.get(&name).cloned() else {
                continue;
            };
            let (Some(binding), Some(first)) = (&declared.binding, declared.first) else {
                continue;
            };
            if matches!(
                declared.component.variability,
                Variability::Parameter | Variability::Constant
            ) {
                continue;
            }
            if let Err(error) = self.binding(binding, first, &declared.shape, declared.component.name.span) {
                self.errors.push(*error);
            }
        }
        Ok(())
    }

    fn binding(&mut self, binding: &Binding<'a>, first: u32, shape: &[usize], name: Span) -> Lowered<()> {
        let binding = binding.clone().narrowed();
        let expr = binding.expr;
        let variable = &self.variables[first as usize];
        if variable.kind == Kind::Input {
            let error = self.error(
                expr.span,
                "unsupported",
                "an input of the model gets its values from outside",
            );
            return Err(error.into_remedy("give a `start` value instead; it holds where no values are supplied"));
        }
        let unit = variable.unit.clone();
        let whole = self.whole_value(&binding, true)?;
        let variable = &self.variables[first as usize];
        self.check_type(whole.base, variable.base(), expr.span, &variable.name)?;
        self.check_fits(&whole.unit, &unit, expr.span, "the declared unit")?;
        let value = self.value_for(&whole, &binding, shape)?;
        let value = self.as_numbers(value);
        for (offset, right) in value.items.into_iter().enumerate() {
            let left = self.graph.leaf(Leaf::Variable(first + offset as u32));
            self.equations.push(FlatEquation {
                left,
                right,
                span: name.to(expr.span),
            });
        }
        Ok(())
    }

    pub fn equation(&mut self, equation: &'a Equation, id: InstanceId, initial: bool) -> Lowered<()> {
        self.check_size(equation.span())?;
        match equation {
            Equation::Equal { left, right, span } if matches!(left.kind, ExprKind::Tuple(_)) => {
                self.several(left, right, *span, id, initial)
            }
            Equation::Equal { left, right, span } => self.equality(left, right, *span, id, initial),
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
                    let result = body.iter().try_for_each(|inner| self.equation(inner, id, initial));
                    self.loops.pop();
                    result?;
                }
                Ok(())
            }
            Equation::If {
                branches,
                otherwise,
                span,
            } => self.if_equation(branches, otherwise, *span, id, initial),
            Equation::When { branches, span } => {
                if initial || !self.conditions.is_empty() {
                    return Err(
                        self.unsupported(*span, "a `when` cannot be an initial equation or depend on a condition")
                    );
                }
                self.when_equation(branches, id)
            }
            Equation::Connect { left, right, span } => {
                if initial || !self.conditions.is_empty() {
                    let error = self.error(*span, "type", "what is connected cannot depend on time");
                    return Err(error.into_remedy("connect outside, or let a parameter decide"));
                }
                self.connect(left, right, *span, id)
            }
            Equation::Call { call } => {
                let name = match &call.kind {
                    ExprKind::Call { function, .. } => function.text.as_str(),
                    _ => "",
                };
                if name == "assert" {
                    return self.assertion(call, id);
                }
                let reason = REFUSED
                    .iter()
                    .find(|(refused, _)| *refused == name)
                    .map(|(_, reason)| (*reason).to_string());
                Err(self.unsupported(
                    call.span,
                    reason.unwrap_or_else(|| format!("`{name}(…)` is no equation of the subset")),
                ))
            }
        }
    }

    fn equality(&mut self, left: &'a Expr, right: &'a Expr, span: Span, id: InstanceId, initial: bool) -> Lowered<()> {
        let left_value = self.expression(left, id)?;
        let right_value = self.expression(right, id)?;
        let gap = Span {
            start: left.span.end,
            end: right.span.start,
        };
        let offset = self
            .source
            .get(gap.range())
            .and_then(|text| text.find('='))
            .unwrap_or(0);
        let place = Span {
            start: gap.start + offset,
            end: gap.start + offset + 1,
        };
        if left_value.base.joined(right_value.base).is_none() {
            return Err(self.error(place, "type", "a Boolean and a number cannot be equal"));
        }
        if left_value.base == BaseType::Integer && matches!(left.kind, ExprKind::Reference(_)) {
            let name = self.source.get(left.span.range()).unwrap_or("the left side");
            self.check_type(right_value.base, BaseType::Integer, right.span, name)?;
        }
        let (left_value, right_value) = (self.as_numbers(left_value), self.as_numbers(right_value));
        self.same_unit(&left_value.unit, &right_value.unit, place, "the sides are in")?;
        if left_value.shape != right_value.shape {
            let message = format!(
                "the sides have sizes {:?} and {:?}",
                left_value.shape, right_value.shape
            );
            return Err(self.error(place, "bad-size", message));
        }
        for (left, right) in left_value.items.into_iter().zip(right_value.items) {
            let equation = FlatEquation { left, right, span };
            if initial {
                self.initial_equations.push(equation);
            } else {
                self.equations.push(equation);
            }
        }
        Ok(())
    }
}
