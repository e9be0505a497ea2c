//! One flat variable for every scalar that is declared, with its attributes and the values of parameters.

use std::collections::HashMap;

use super::instance::{BaseType, Declared, InstanceId, Member, subscripts_of};
use super::modification::Binding;
use super::structural::Fixed;
use super::{FlatEquation, Flattener, Kind, Lowered, Variable, is_interface};
use crate::graph::{Id, Leaf};
use crate::syntax::{Causality, ClassKind, Dimension, ExprKind, Span, Variability};
use crate::units::{self, Unit};

impl<'a> Flattener<'a> {
    /// Makes flat variables for everything declared below `id`, in order of declaration.
    pub fn create_variables(&mut self, id: InstanceId) -> Lowered<()> {
        for name in self.instances[id.0].order.clone() {
            match self.instances[id.0].members.get(&name).cloned() {
                Some(Member::Variable(declared)) => {
                    if let Err(error) = self.create(id, &name, *declared) {
                        self.errors.push(*error);
                    }
                }
                Some(Member::Instances { ids, .. }) => {
                    for inner in ids {
                        self.create_variables(inner)?;
                    }
                }
                None => {}
            }
        }
        if self.instances[id.0].depth == 0 && self.errors.is_empty() {
            self.attributes_of_all()?;
        }
        Ok(())
    }

    fn create(&mut self, id: InstanceId, name: &str, mut declared: Declared<'a>) -> Lowered<()> {
        let component = declared.component;
        if declared.binding.is_none() && component.dimensions.iter().any(|size| matches!(size, Dimension::Any)) {
            let message = format!("`{name}` has the size `:` and no value to take it from");
            let error = self.error(component.name.span, "bad-size", message);
            return Err(Box::new(error.remedy("give it a value written as an array, or a size")));
        }
        declared.shape = self.shape_of(id, &component.dimensions, declared.binding.as_ref())?;
        let interface = self.instances[id.0].interface;
        let in_function = self.instances[id.0].class.kind == ClassKind::Function;
        let constant = component.variability == Variability::Constant;
        let parameter = component.variability == Variability::Parameter;
        if declared.base != BaseType::Real && !in_function {
            if constant || parameter {
                // Structural: read with structural evaluation where it is used.
                let full = format!("{}{name}", self.instances[id.0].prefix);
                self.set_value(&declared, &full)?;
                self.check_structural(&declared, id)?;
                self.store(id, name, declared);
                return Ok(());
            }
            if declared.base == BaseType::String {
                let message = format!("`{name}` is a String that changes with time");
                return Err(self.unsupported(component.span, message));
            }
        }
        let changes = declared.base != BaseType::Real && !in_function;
        let free = parameter && self.is_free(&declared)?;
        let kind = if free {
            Kind::Unknown
        } else if constant || parameter {
            Kind::Parameter
        } else if declared.causality == Causality::Input && is_interface(declared.causality, interface) {
            Kind::Input
        } else {
            Kind::Unknown
        };
        let unit_text = self.text_attribute(&declared, "unit")?.unwrap_or_default();
        let unit = match units::parse(&unit_text) {
            Ok(unit) => unit,
            Err(message) => {
                let span = attribute(&declared, "unit").map_or(component.span, |value| value.expr.span);
                let error = self.error(span, "bad-unit", message);
                return Err(Box::new(error.remedy(
                    "write units like \"W/(m2.K)\", \"degC\", \"%\", \"1/s\"; \"1\" means none",
                )));
            }
        };
        let first = self.variables.len() as u32;
        let prefix = self.instances[id.0].prefix.clone();
        for subscripts in subscripts_of(&declared.shape) {
            self.variables.push(Variable {
                name: format!("{prefix}{name}{subscripts}"),
                kind,
                output: declared.causality == Causality::Output && is_interface(declared.causality, interface),
                unit_text: unit_text.clone(),
                unit: unit.clone(),
                description: component.description.clone(),
                start: None,
                fixed: false,
                min: None,
                max: None,
                nominal: None,
                value: None,
                discrete: changes || component.variability == Variability::Discrete,
                boolean: declared.base == BaseType::Boolean,
                integer: declared.base == BaseType::Integer,
                span: component.name.span,
            });
            self.check_size(component.span)?;
        }
        declared.first = Some(first);
        if free {
            self.keep(first, &declared)?;
        }
        self.store(id, name, declared);
        Ok(())
    }

    /// Whether initial equations determine a parameter: `fixed = false` (8.6).
    fn is_free(&mut self, declared: &Declared<'a>) -> Lowered<bool> {
        let Some(fixed) = attribute(declared, "fixed").map(Binding::narrowed) else {
            return Ok(false);
        };
        let value = self.structural(fixed.expr, fixed.written_in)?;
        let mut all = Vec::new();
        self.truths(
            &self.fixed_for(value, &fixed, &declared.shape)?,
            fixed.expr.span,
            &mut all,
        )?;
        if all.iter().all(|fixed| *fixed) {
            return Ok(false);
        }
        if all.contains(&true) {
            let message = "some elements of this parameter are `fixed` and some are not";
            return Err(self.unsupported(fixed.expr.span, message));
        }
        match &declared.binding {
            None => Ok(true),
            Some(binding) => {
                let name = &declared.component.name.text;
                let message =
                    format!("`{name}` has a value, and with `fixed = false` an initial equation gives it one");
                let error = self.error(binding.expr.span, "type", message);
                Err(Box::new(error.remedy("write it as the first guess: `start = …`")))
            }
        }
    }

    /// What an initial equation determines and nothing changes afterwards: a state that stands still.
    fn keep(&mut self, first: u32, declared: &Declared<'a>) -> Lowered<()> {
        for offset in 0..declared.shape.iter().product::<usize>() as u32 {
            self.equations.push(FlatEquation {
                left: self.graph.leaf(Leaf::Derivative(first + offset)),
                right: self.graph.constant(0.0),
                span: declared.component.name.span,
            });
        }
        self.check_size(declared.component.span)
    }

    fn store(&mut self, id: InstanceId, name: &str, declared: Declared<'a>) {
        self.instances[id.0]
            .members
            .insert(name.to_string(), Member::Variable(Box::new(declared)));
    }

    fn text_attribute(&self, declared: &Declared<'a>, name: &str) -> Lowered<Option<String>> {
        let Some(value) = attribute(declared, name) else {
            return Ok(None);
        };
        let ExprKind::Text(text) = &value.expr.kind else {
            return Err(self.error(value.expr.span, "bad-attribute", format!("`{name}` must be a string")));
        };
        self.fixed_for(Fixed::Text(text.clone()), &value, &declared.shape)?;
        Ok(Some(text.clone()))
    }

    /// Attributes and parameter values, once every variable exists.
    fn attributes_of_all(&mut self) -> Lowered<()> {
        for index in 0..self.instances.len() {
            for name in self.instances[index].order.clone() {
                let Some(Member::Variable(declared)) = self.instances[index].members.get(&name).cloned() else {
                    continue;
                };
                if let Err(error) = self.attributes(&declared) {
                    self.errors.push(*error);
                }
            }
        }
        Ok(())
    }

    fn attributes(&mut self, declared: &Declared<'a>) -> Lowered<()> {
        const KNOWN: [&str; 11] = [
            "unit",
            "displayUnit",
            "start",
            "fixed",
            "min",
            "max",
            "nominal",
            "quantity",
            "stateSelect",
            "unbounded",
            "each",
        ];
        for modification in &declared.modifications {
            let name = &modification.modifier.name;
            if !KNOWN.contains(&name.text.as_str()) {
                let error = self.error(
                    name.span,
                    "bad-attribute",
                    format!("Real has no attribute `{}`", name.text),
                );
                return Err(match crate::nearest(&name.text, KNOWN.into_iter()) {
                    Some(near) => Box::new(error.remedy(format!("did you mean `{near}`?"))),
                    None => Box::new(
                        error.remedy("attributes are unit, start, fixed, min, max, nominal, quantity, displayUnit"),
                    ),
                });
            }
            if name.text == "stateSelect" {
                return Err(self.unsupported(
                    name.span,
                    "`stateSelect` is outside the subset: states are what `der` is applied to",
                ));
            }
        }
        let Some(first) = declared.first else {
            return Ok(());
        };
        let count: usize = declared.shape.iter().product();
        let range = first as usize..first as usize + count;
        let unit = self
            .variables
            .get(range.start)
            .map_or(Unit::Any, |variable| variable.unit.clone());
        if let Some(value) = attribute(declared, "start") {
            let start = self.attribute_values(&value, declared, &unit)?;
            for (variable, start) in self.variables[range.clone()].iter_mut().zip(start) {
                variable.start = Some(start);
            }
        }
        if let Some(value) = attribute(declared, "fixed") {
            let value = value.narrowed();
            let fixed = self.structural(value.expr, value.written_in)?;
            let fixed = self.fixed_for(fixed, &value, &declared.shape)?;
            let mut all = Vec::new();
            self.truths(&fixed, value.expr.span, &mut all)?;
            for (variable, fixed) in self.variables[range.clone()].iter_mut().zip(all) {
                variable.fixed = fixed;
            }
        }
        for (name, is_nominal) in [("min", false), ("max", false), ("nominal", true)] {
            let Some(given) = attribute(declared, name) else {
                continue;
            };
            let values = self.attribute_values(&given, declared, &unit)?;
            for (offset, value) in values.into_iter().enumerate() {
                // Bounds that depend on parameters are taken at the parameters' defaults.
                let number = self.default_value(value);
                if is_nominal && !number.is_none_or(|number| number.is_finite() && number != 0.0) {
                    let place = given.expr.span;
                    return Err(self.error(place, "bad-attribute", "`nominal` must be a number other than zero"));
                }
                let variable = &mut self.variables[range.start + offset];
                match name {
                    "min" => variable.min = number,
                    "max" => variable.max = number,
                    _ => variable.nominal = number.map(f64::abs),
                }
            }
        }
        self.parameter_values(declared, range)
    }

    fn parameter_values(&mut self, declared: &Declared<'a>, range: std::ops::Range<usize>) -> Lowered<()> {
        let component = declared.component;
        let is_value = matches!(component.variability, Variability::Parameter | Variability::Constant);
        let free = self
            .variables
            .get(range.start)
            .is_some_and(|one| one.kind == Kind::Unknown);
        if !is_value || free {
            return Ok(());
        }
        let unit = self
            .variables
            .get(range.start)
            .map_or(Unit::Any, |variable| variable.unit.clone());
        let values: Vec<Id> = match &declared.binding {
            Some(binding) => self.attribute_values(binding, declared, &unit)?,
            None => range
                .clone()
                .map(|index| self.variables[index].start)
                .collect::<Option<Vec<Id>>>()
                .unwrap_or_default(),
        };
        let bound = declared.binding.is_some();
        for (offset, index) in range.clone().enumerate() {
            let name = self.variables[index].name.clone();
            if let Some(value) = self.set_value(declared, &name)? {
                let constant = self.graph.constant(value);
                self.variables[index].value = Some(constant);
                continue;
            }
            let Some(value) = values.get(offset).copied() else {
                let error = self.error(
                    component.name.span,
                    "no-value",
                    format!("the parameter `{name}` has no value"),
                );
                return Err(Box::new(
                    error.remedy(format!("give it one: `{} = …`", component.name.text)),
                ));
            };
            let literal = self.graph.value(value);
            if let Some(number) = literal {
                self.check_bounds(&self.variables[index], number, declared)?;
            }
            let literal = literal.is_some();
            self.variables[index].value = Some(value);
            if component.variability == Variability::Constant || declared.is_final || (bound && !literal) {
                self.variables[index].kind = Kind::Dependent;
            }
        }
        Ok(())
    }

    /// The own value of a parameter lies within its bounds (4.8.5).
    fn check_bounds(&self, variable: &Variable, number: f64, declared: &Declared<'a>) -> Lowered<()> {
        let below = variable.min.filter(|min| number < *min).map(|min| ("min", min));
        let above = variable.max.filter(|max| number > *max).map(|max| ("max", max));
        let Some((bound, limit)) = below.or(above) else {
            return Ok(());
        };
        let span = declared.binding.as_ref().map_or(variable.span, |one| one.expr.span);
        let message = format!("{number} is outside the bounds of `{}`", variable.name);
        let error = self.error(span, "bad-value", message);
        Err(Box::new(error.remedy(format!("its `{bound}` is {limit}"))))
    }

    /// The value that the caller gives a parameter from outside, in the sense of a modification (7.2.6).
    pub fn set_value(&mut self, declared: &Declared<'a>, name: &str) -> Lowered<Option<f64>> {
        let Some(value) = self.set.get(name).copied() else {
            return Ok(None);
        };
        self.used_set.push(name.to_string());
        let component = declared.component;
        let refused = |message: String, remedy: String| {
            let error = self.error(component.name.span, "bad-value", message);
            Err(Box::new(error.remedy(remedy)))
        };
        if component.variability == Variability::Constant || declared.is_final {
            let what = if component.variability == Variability::Constant {
                "a constant"
            } else {
                "final"
            };
            let message = format!("`{name}` is {what}: it cannot be set from outside");
            return refused(message, "make it a parameter that is not final".to_string());
        }
        let fits = match declared.base {
            BaseType::Real => value.is_finite(),
            BaseType::Integer => value.is_finite() && libm::trunc(value) == value,
            BaseType::Boolean => value == 0.0 || value == 1.0,
            BaseType::String => false,
        };
        if !fits {
            let message = format!(
                "{value} is no value for `{name}`, which is {}",
                declared.base.describe()
            );
            let remedy = match declared.base {
                BaseType::Integer => "give a whole number",
                BaseType::Boolean => "1 stands for true and 0 for false",
                BaseType::Real => "give a finite number",
                BaseType::String => "a string is set in the text",
            };
            return refused(message, remedy.to_string());
        }
        for (bound, sign) in [("min", 1.0), ("max", -1.0)] {
            let limit = self.structural_bound(declared, bound);
            if let Some(limit) = limit.filter(|limit| sign * (value - limit) < 0.0) {
                let message = format!("{value} is outside the bounds of `{name}`");
                let error = self.error(component.name.span, "bad-value", message);
                return Err(Box::new(error.remedy(format!("its `{bound}` is {limit}"))));
            }
        }
        Ok(Some(value))
    }

    /// Values of an attribute or binding as nodes, one a scalar; a scalar stands for all elements (`each`).
    fn attribute_values(&mut self, binding: &Binding<'a>, declared: &Declared<'a>, unit: &Unit) -> Lowered<Vec<Id>> {
        let binding = binding.clone().narrowed();
        let place = binding.expr.span;
        let whole = self.whole_value(&binding, false)?;
        self.check_type(whole.base, declared.base, place, &declared.component.name.text)?;
        self.check_fits(&whole.unit, unit, place, "the declared unit")?;
        let value = self.value_for(&whole, &binding, &declared.shape)?;
        Ok(self.as_numbers(value).items)
    }

    /// The truths of an attribute, one a scalar.
    fn truths(&self, value: &Fixed, span: Span, all: &mut Vec<bool>) -> Lowered<()> {
        match value {
            Fixed::Truth(truth) => all.push(*truth),
            Fixed::Array(items) => {
                for item in items {
                    self.truths(item, span, all)?;
                }
            }
            other => {
                let message = format!("a Boolean is needed here, not {}", super::structural::describe(other));
                return Err(self.error(span, "not-a-boolean", message));
            }
        }
        Ok(())
    }

    /// A bound that is known when compiling and the same for all elements.
    fn structural_bound(&mut self, declared: &Declared<'a>, bound: &str) -> Option<f64> {
        let value = attribute(declared, bound)?.narrowed();
        self.try_structural(value.expr, value.written_in)?.number()
    }

    /// The own value of an Integer or Boolean parameter fits its sizes and bounds, whether anything reads it or not.
    fn check_structural(&mut self, declared: &Declared<'a>, id: InstanceId) -> Lowered<()> {
        let Some(binding) = &declared.binding else {
            return Ok(());
        };
        let span = binding.expr.span;
        let value = self.structural_declared(declared, id, binding.expr)?;
        let mut numbers = Vec::new();
        value.numbers(&mut numbers);
        for (bound, sign) in [("min", 1.0), ("max", -1.0)] {
            let Some(limit) = self.structural_bound(declared, bound) else {
                continue;
            };
            if let Some(number) = numbers.iter().find(|number| sign * (**number - limit) < 0.0) {
                let message = format!("{number} is outside the bounds of `{}`", declared.component.name.text);
                let error = self.error(span, "bad-value", message);
                return Err(Box::new(error.remedy(format!("its `{bound}` is {limit}"))));
            }
        }
        Ok(())
    }

    /// The number a parameter expression has with the default parameters.
    pub fn default_value(&mut self, id: Id) -> Option<f64> {
        let values: HashMap<u32, Option<Id>> = self
            .variables
            .iter()
            .enumerate()
            .map(|(index, variable)| (index as u32, variable.value))
            .collect();
        evaluate_default(&mut self.graph, id, &values, 0)
    }
}

fn evaluate_default(
    graph: &mut crate::graph::Graph,
    id: Id,
    values: &HashMap<u32, Option<Id>>,
    depth: u32,
) -> Option<f64> {
    if depth > 50 {
        return None;
    }
    let mut known = HashMap::new();
    for leaf in graph.leaves(&[id]) {
        let Leaf::Variable(variable) = leaf else {
            return None;
        };
        let value = values.get(&variable).copied().flatten()?;
        known.insert(leaf, evaluate_default(graph, value, values, depth + 1)?);
    }
    graph.evaluate(id, |leaf| known.get(&leaf).copied())
}

/// The last modification of an attribute that has a value.
fn attribute<'a>(declared: &Declared<'a>, name: &str) -> Option<Binding<'a>> {
    let mut named = declared.modifications.iter().rev();
    named.find_map(|modification| {
        modification
            .binding()
            .filter(|_| modification.modifier.name.text == name)
    })
}
