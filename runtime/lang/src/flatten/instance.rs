//! The tree of instances: components, inheritance, modifications; then one flat variable for every scalar.

use std::collections::{BTreeMap, HashMap};

use super::structural::Fixed;
use super::{Flattener, Kind, Lowered, Variable, is_interface};
use crate::graph::{Id, Leaf};
use crate::syntax::{
    Causality, Class, ClassKind, Component, Dimension, Element, Expr, ExprKind, Ident, Modifier, Span, Variability,
};
use crate::units::{self, Unit};

/// A place in the arena of instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InstanceId(pub usize);

/// How deep instances may contain instances: catches classes that contain themselves.
const MAX_DEPTH: usize = 30;

/// An instance of a class.
#[derive(Debug)]
pub struct Instance<'a> {
    pub class: &'a Class,
    /// Classes inherited from, innermost base first, then the class itself.
    pub lineage: Vec<&'a Class>,
    pub prefix: String,
    pub depth: usize,
    pub members: BTreeMap<String, Member<'a>>,
    /// Members in the order of declaration.
    pub order: Vec<String>,
    /// The instance whose class text surrounds this one's, for looking up classes.
    pub parent: Option<InstanceId>,
}

/// A modification with the instance in whose names its value is written.
#[derive(Debug, Clone)]
pub struct Modification<'a> {
    pub modifier: &'a Modifier,
    pub written_in: InstanceId,
}

/// A declared component.
#[derive(Debug, Clone)]
pub enum Member<'a> {
    /// Of a built-in type.
    Variable(Box<Declared<'a>>),
    /// Of a class: one instance an element.
    Instances { shape: Vec<usize>, ids: Vec<InstanceId> },
}

#[derive(Debug, Clone)]
pub struct Declared<'a> {
    pub component: &'a Component,
    pub base: BaseType,
    pub modifications: Vec<Modification<'a>>,
    pub binding: Option<(&'a Expr, InstanceId)>,
    pub owner: InstanceId,
    /// Set when the flat variables exist.
    pub shape: Vec<usize>,
    pub first: Option<u32>,
    /// For Integer, Boolean, String and constants: the value known when compiling.
    pub fixed: Option<Vec<Fixed>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BaseType {
    Real,
    Integer,
    Boolean,
    String,
}

fn builtin(name: &str) -> Option<BaseType> {
    match name {
        "Real" => Some(BaseType::Real),
        "Integer" => Some(BaseType::Integer),
        "Boolean" => Some(BaseType::Boolean),
        "String" => Some(BaseType::String),
        _ => None,
    }
}

impl<'a> Flattener<'a> {
    pub fn instantiate_root(&mut self, class: &'a Class) -> Lowered<InstanceId> {
        self.instantiate(class, String::new(), Vec::new(), None, 0, class.name.span)
    }

    fn instantiate(
        &mut self,
        class: &'a Class,
        prefix: String,
        modifications: Vec<Modification<'a>>,
        parent: Option<InstanceId>,
        depth: usize,
        span: Span,
    ) -> Lowered<InstanceId> {
        if depth > MAX_DEPTH || self.instances.len() > super::MAX_SCALARS {
            let message = format!(
                "`{}` nests deeper than {MAX_DEPTH} levels: does it contain itself?",
                class.name.text
            );
            return Err(self.error(span, "too-deep", message));
        }
        let id = InstanceId(self.instances.len());
        self.instances.push(Instance {
            class,
            lineage: Vec::new(),
            prefix,
            depth,
            members: BTreeMap::new(),
            order: Vec::new(),
            parent,
        });
        self.inherit(id, class, modifications, 0)?;
        Ok(id)
    }

    /// Adds the elements of `class` (and of its bases) to instance `id`.
    fn inherit(
        &mut self,
        id: InstanceId,
        class: &'a Class,
        modifications: Vec<Modification<'a>>,
        level: usize,
    ) -> Lowered<()> {
        if level > MAX_DEPTH {
            return Err(self.error(
                class.name.span,
                "too-deep",
                format!("`{}` inherits from itself", class.name.text),
            ));
        }
        for element in &class.elements {
            if let Element::Extends { base, modifiers } = element {
                let base_class = self.find_class(id, base)?;
                if base_class.alias.is_some() || builtin(&base.text).is_some() {
                    return Err(self.unsupported(base.span, "extending a built-in type is outside the subset"));
                }
                let mut all: Vec<Modification<'a>> = modifiers
                    .iter()
                    .map(|modifier| Modification {
                        modifier,
                        written_in: id,
                    })
                    .collect();
                all.extend(modifications.iter().cloned());
                self.inherit(id, base_class, all, level + 1)?;
            }
        }
        // Built-in variables first: sizes of the rest may depend on them.
        for element in &class.elements {
            if let Element::Component(component) = element {
                self.declare(id, component, &modifications)?;
            }
        }
        for element in &class.elements {
            if let Element::Component(component) = element {
                self.declare_instances(id, component, &modifications)?;
            }
        }
        self.instances[id.0].lineage.push(class);
        let own: Vec<&Modification<'a>> = modifications.iter().collect();
        for modification in own {
            let name = &modification.modifier.name;
            if !self.instances[id.0].members.contains_key(&name.text) && level == 0 {
                let class_name = self.instances[id.0].class.name.text.clone();
                let error = self.error(
                    name.span,
                    "no-such-member",
                    format!("`{class_name}` has no component `{}`", name.text),
                );
                let near = crate::nearest(&name.text, self.instances[id.0].order.iter().map(String::as_str));
                return Err(match near {
                    Some(near) => Box::new(error.remedy(format!("did you mean `{near}`?"))),
                    None => error,
                });
            }
        }
        Ok(())
    }

    /// The class called `name` as seen from instance `id`.
    pub fn find_class(&self, id: InstanceId, name: &Ident) -> Lowered<&'a Class> {
        let mut parts = name.text.split('.');
        let first = parts.next().unwrap_or("");
        let mut found = None;
        let mut at = Some(id);
        while let (None, Some(here)) = (found, at) {
            let instance = &self.instances[here.0];
            let local = std::iter::once(&instance.class).chain(&instance.lineage);
            found = local
                .flat_map(|class| &class.elements)
                .find_map(|element| match element {
                    Element::Class(class) if class.name.text == first => Some(&**class),
                    _ => None,
                });
            at = instance.parent;
        }
        let mut class = found.or_else(|| self.classes.iter().find(|class| class.name.text == first));
        for part in parts {
            class = class.and_then(|class| {
                class.elements.iter().find_map(|element| match element {
                    Element::Class(inner) if inner.name.text == part => Some(&**inner),
                    _ => None,
                })
            });
        }
        class.ok_or_else(|| {
            let error = self.error(name.span, "undefined-type", format!("there is no type `{}`", name.text));
            let known = ["Real", "Integer", "Boolean"]
                .into_iter()
                .chain(self.classes.iter().map(|class| class.name.text.as_str()));
            if name.text.starts_with("Modelica.") {
                return Box::new(error.remedy("the Modelica Standard Library is not read: write `Real x(unit=\"…\")`"));
            }
            match crate::nearest(&name.text, known) {
                Some(near) => Box::new(error.remedy(format!("did you mean `{near}`?"))),
                None => Box::new(error.remedy("types are Real, Integer, Boolean and the classes of this file")),
            }
        })
    }

    /// Follows `type` abbreviations down to a built-in type.
    fn resolve_base(
        &self,
        id: InstanceId,
        name: &Ident,
    ) -> Lowered<(Option<BaseType>, Vec<Modification<'a>>, Option<&'a Class>)> {
        if let Some(base) = builtin(&name.text) {
            return Ok((Some(base), Vec::new(), None));
        }
        let mut class = self.find_class(id, name)?;
        let mut modifications = Vec::new();
        for _ in 0..MAX_DEPTH {
            let Some((base, modifiers)) = &class.alias else {
                return Ok((None, modifications, Some(class)));
            };
            let more = modifiers.iter().map(|modifier| Modification {
                modifier,
                written_in: id,
            });
            modifications = more.chain(modifications).collect();
            if let Some(base) = builtin(&base.text) {
                return Ok((Some(base), modifications, None));
            }
            class = self.find_class(id, base)?;
        }
        Err(self.error(
            name.span,
            "too-deep",
            format!("the type `{}` abbreviates itself", name.text),
        ))
    }

    fn check_new(&self, id: InstanceId, component: &Component) -> Lowered<()> {
        let name = &component.name;
        if name.text == "time" {
            return Err(self.error(name.span, "duplicate", "`time` is built in and cannot be declared"));
        }
        match self.instances[id.0].members.get(&name.text) {
            None => Ok(()),
            Some(_) => {
                let error = self.error(name.span, "duplicate", format!("`{}` is declared twice", name.text));
                Err(Box::new(error.remedy("rename one of them")))
            }
        }
    }

    fn declare(&mut self, id: InstanceId, component: &'a Component, outer: &[Modification<'a>]) -> Lowered<()> {
        let (base, from_type, _) = self.resolve_base(id, &component.type_name)?;
        let Some(base) = base else { return Ok(()) };
        self.check_new(id, component)?;
        let mut modifications = from_type;
        modifications.extend(component.modifiers.iter().map(|modifier| Modification {
            modifier,
            written_in: id,
        }));
        let mut binding = component.binding.as_ref().map(|expr| (expr, id));
        for modification in outer
            .iter()
            .filter(|modification| modification.modifier.name.text == component.name.text)
        {
            if let Some(value) = &modification.modifier.value {
                binding = Some((value, modification.written_in));
            }
            let nested = modification.modifier.nested.iter();
            modifications.extend(nested.map(|modifier| Modification {
                modifier,
                written_in: modification.written_in,
            }));
        }
        let declared = Declared {
            component,
            base,
            modifications,
            binding,
            owner: id,
            shape: Vec::new(),
            first: None,
            fixed: None,
        };
        let name = component.name.text.clone();
        self.instances[id.0].order.push(name.clone());
        self.instances[id.0]
            .members
            .insert(name, Member::Variable(Box::new(declared)));
        Ok(())
    }

    fn declare_instances(
        &mut self,
        id: InstanceId,
        component: &'a Component,
        outer: &[Modification<'a>],
    ) -> Lowered<()> {
        let (base, _, class) = self.resolve_base(id, &component.type_name)?;
        let (None, Some(class)) = (base, class) else {
            return Ok(());
        };
        self.check_new(id, component)?;
        if matches!(class.kind, ClassKind::Function | ClassKind::Package) {
            let message =
                format!("`{}` is a {:?}, not a type of components", class.name.text, class.kind).to_lowercase();
            return Err(self.error(component.type_name.span, "undefined-type", message));
        }
        if let Some(binding) = &component.binding {
            return Err(self.unsupported(binding.span, "a binding for a whole component is outside the subset"));
        }
        let shape = self.shape_of(id, &component.dimensions, None)?;
        let mut modifications: Vec<Modification<'a>> = component
            .modifiers
            .iter()
            .map(|modifier| Modification {
                modifier,
                written_in: id,
            })
            .collect();
        for modification in outer
            .iter()
            .filter(|modification| modification.modifier.name.text == component.name.text)
        {
            let nested = modification.modifier.nested.iter();
            modifications.extend(nested.map(|modifier| Modification {
                modifier,
                written_in: modification.written_in,
            }));
        }
        let depth = self.instances[id.0].depth + 1;
        let prefix = self.instances[id.0].prefix.clone();
        let mut ids = Vec::new();
        for subscripts in subscripts_of(&shape) {
            let full = format!("{prefix}{}{subscripts}.", component.name.text);
            ids.push(self.instantiate(class, full, modifications.clone(), Some(id), depth, component.span)?);
        }
        let name = component.name.text.clone();
        self.instances[id.0].order.push(name.clone());
        self.instances[id.0]
            .members
            .insert(name, Member::Instances { shape, ids });
        Ok(())
    }

    /// Sizes of declared dimensions; `:` takes its size from `binding`.
    pub fn shape_of(
        &mut self,
        id: InstanceId,
        dimensions: &'a [Dimension],
        binding: Option<(&'a Expr, InstanceId)>,
    ) -> Lowered<Vec<usize>> {
        let mut shape = Vec::new();
        for (position, dimension) in dimensions.iter().enumerate() {
            let size = match dimension {
                Dimension::Size(expr) => {
                    let value = self.structural_integer(expr, id)?;
                    usize::try_from(value)
                        .ok()
                        .filter(|size| *size <= super::MAX_SCALARS)
                        .ok_or_else(|| {
                            self.error(expr.span, "bad-size", format!("an array cannot have {value} elements"))
                        })?
                }
                Dimension::Any => {
                    let sized = binding.and_then(|(expr, _)| literal_shape(expr).get(position).copied());
                    let span = binding.map_or(Span::default(), |(expr, _)| expr.span);
                    sized.ok_or_else(|| {
                        self.error(span, "bad-size", "the size `:` needs a binding written as an array")
                    })?
                }
            };
            shape.push(size);
            let scalars = shape
                .iter()
                .try_fold(1_usize, |product, size| product.checked_mul(*size));
            if scalars.is_none_or(|scalars| scalars > super::MAX_SCALARS) {
                let span = match dimension {
                    Dimension::Size(expr) => expr.span,
                    Dimension::Any => binding.map_or(Span::default(), |(expr, _)| expr.span),
                };
                let message = format!("an array has at most {} elements", super::MAX_SCALARS);
                return Err(self.error(span, "too-large", message));
            }
        }
        Ok(shape)
    }

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
        declared.shape = self.shape_of(id, &component.dimensions, declared.binding)?;
        let depth = self.instances[id.0].depth;
        let in_function = self.instances[id.0].class.kind == ClassKind::Function;
        let constant = component.variability == Variability::Constant;
        let parameter = component.variability == Variability::Parameter;
        if declared.base != BaseType::Real && !in_function {
            if constant || parameter {
                // Structural: read with structural evaluation where it is used.
                self.store(id, name, declared);
                return Ok(());
            }
            if declared.base == BaseType::String {
                let message = format!("`{name}` is a String that changes with time");
                return Err(self.unsupported(component.span, message));
            }
        }
        let changes = declared.base != BaseType::Real && !in_function;
        let kind = if constant || parameter {
            Kind::Parameter
        } else if component.causality == Causality::Input && is_interface(component.causality, depth) {
            Kind::Input
        } else {
            Kind::Unknown
        };
        let unit_text = self.text_attribute(&declared, "unit")?.unwrap_or_default();
        let unit = match units::parse(&unit_text) {
            Ok(unit) => unit,
            Err(message) => {
                let span = attribute(&declared, "unit").map_or(component.span, |(expr, _)| expr.span);
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
                output: component.causality == Causality::Output && is_interface(component.causality, depth),
                protected: component.protected,
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
                span: component.name.span,
            });
            self.check_size(component.span)?;
        }
        declared.first = Some(first);
        self.store(id, name, declared);
        Ok(())
    }

    fn store(&mut self, id: InstanceId, name: &str, declared: Declared<'a>) {
        self.instances[id.0]
            .members
            .insert(name.to_string(), Member::Variable(Box::new(declared)));
    }

    fn text_attribute(&self, declared: &Declared<'a>, name: &str) -> Lowered<Option<String>> {
        match attribute(declared, name) {
            None => Ok(None),
            Some((
                Expr {
                    kind: ExprKind::Text(text),
                    ..
                },
                _,
            )) => Ok(Some(text.clone())),
            Some((expr, _)) => Err(self.error(expr.span, "bad-attribute", format!("`{name}` must be a string"))),
        }
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
        if let Some((expr, written_in)) = attribute(declared, "start") {
            let start = self.attribute_values(expr, written_in, &declared.shape, Some(&unit))?;
            for (variable, start) in self.variables[range.clone()].iter_mut().zip(start) {
                variable.start = Some(start);
            }
        }
        if let Some((expr, written_in)) = attribute(declared, "fixed") {
            let fixed = self.structural_truth(expr, written_in)?;
            self.variables[range.clone()]
                .iter_mut()
                .for_each(|variable| variable.fixed = fixed);
        }
        for (name, is_nominal) in [("min", false), ("max", false), ("nominal", true)] {
            let Some((expr, written_in)) = attribute(declared, name) else {
                continue;
            };
            let values = self.attribute_values(expr, written_in, &declared.shape, Some(&unit))?;
            for (offset, value) in values.into_iter().enumerate() {
                // Bounds that depend on parameters are taken at the parameters' defaults.
                let number = self.default_value(value);
                if is_nominal && !number.is_none_or(|number| number.is_finite() && number != 0.0) {
                    return Err(self.error(expr.span, "bad-attribute", "`nominal` must be a number other than zero"));
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
        if !is_value {
            return Ok(());
        }
        let unit = self
            .variables
            .get(range.start)
            .map_or(Unit::Any, |variable| variable.unit.clone());
        let values: Vec<Id> = match declared.binding {
            Some((expr, written_in)) => self.attribute_values(expr, written_in, &declared.shape, Some(&unit))?,
            None => range
                .clone()
                .map(|index| self.variables[index].start)
                .collect::<Option<Vec<Id>>>()
                .unwrap_or_default(),
        };
        let bound = declared.binding.is_some();
        for (offset, index) in range.clone().enumerate() {
            let name = self.variables[index].name.clone();
            if let Some(value) = self.set.get(&name).copied() {
                self.used_set.push(name);
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
            let literal = self.graph.value(value).is_some();
            self.variables[index].value = Some(value);
            if component.variability == Variability::Constant || (bound && !literal) {
                self.variables[index].kind = Kind::Dependent;
            }
        }
        Ok(())
    }

    /// Values of an attribute or binding as nodes, one a scalar; a scalar stands for all elements (`each`).
    fn attribute_values(
        &mut self,
        expr: &'a Expr,
        written_in: InstanceId,
        shape: &[usize],
        unit: Option<&Unit>,
    ) -> Lowered<Vec<Id>> {
        let value = self.parameter_expression(expr, written_in)?;
        let value = self.as_numbers(value);
        if let Some(unit) = unit {
            self.check_fits(&value.unit, unit, expr.span, "the declared unit")?;
        }
        let count: usize = shape.iter().product();
        if value.shape == shape {
            return Ok(value.items);
        }
        if value.shape.is_empty() {
            return Ok(vec![value.items[0]; count]);
        }
        let message = format!(
            "a value of size {:?} cannot fill an array of size {shape:?}",
            value.shape
        );
        Err(self.error(expr.span, "bad-size", message))
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
fn attribute<'a>(declared: &Declared<'a>, name: &str) -> Option<(&'a Expr, InstanceId)> {
    declared.modifications.iter().rev().find_map(|modification| {
        let value = modification
            .modifier
            .value
            .as_ref()
            .filter(|_| modification.modifier.name.text == name);
        value.map(|value| (value, modification.written_in))
    })
}

/// `[1,2]`, `[1,3]`… for every element of a shape, the last subscript fastest; one empty text for a scalar.
pub fn subscripts_of(shape: &[usize]) -> Vec<String> {
    if shape.is_empty() {
        return vec![String::new()];
    }
    let mut all = vec![String::new()];
    for size in shape {
        let extend = |prefix: &String| (1..=*size).map(|index| format!("{prefix},{index}")).collect::<Vec<_>>();
        all = all.iter().flat_map(extend).collect();
    }
    all.into_iter()
        .map(|text| format!("[{}]", text.trim_start_matches(',')))
        .collect()
}

fn literal_shape(expr: &Expr) -> Vec<usize> {
    match &expr.kind {
        ExprKind::Array(items) => {
            let mut shape = vec![items.len()];
            shape.extend(items.first().map_or_else(Vec::new, literal_shape));
            shape
        }
        ExprKind::Matrix(rows) => vec![rows.len(), rows.first().map_or(0, Vec::len)],
        _ => Vec::new(),
    }
}
