//! The tree of instances: components, inheritance, modifications; then one flat variable for every scalar.

use std::collections::{BTreeMap, BTreeSet};

use super::modification::{Binding, Modification, places_of};
use super::{Flattener, Lowered};
use crate::syntax::{Causality, Class, ClassKind, Component, Dimension, Element, Expr, ExprKind, Span};

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
    /// The classes whose text the names in this instance come from: its class and what that inherits from.
    pub classes: Vec<&'a Class>,
    /// The instances whose class text surrounds that of `classes`, for looking up classes and constants.
    pub scopes: Vec<InstanceId>,
    /// The model itself, or a connector of it.
    pub interface: bool,
    /// Declared final, or part of what is.
    pub is_final: bool,
    /// Conditional components whose condition does not hold.
    pub absent: BTreeSet<String>,
}

/// A declared component.
#[derive(Debug, Clone)]
pub enum Member<'a> {
    /// Of a built-in type.
    Variable(Box<Declared<'a>>),
    /// Of a class: one instance an element.
    Instances {
        shape: Vec<usize>,
        ids: Vec<InstanceId>,
        protected: bool,
        /// Declared with `if`: only named in modifications and `connect` (4.4.5).
        conditional: bool,
    },
}

#[derive(Debug, Clone)]
pub struct Declared<'a> {
    pub component: &'a Component,
    pub base: BaseType,
    pub modifications: Vec<Modification<'a>>,
    pub binding: Option<Binding<'a>>,
    /// No value from outside is taken.
    pub is_final: bool,
    /// Its own, or that of its type.
    pub causality: Causality,
    /// Its type is a connector: `connector RealInput = input Real`.
    pub connector: bool,
    /// Set when the flat variables exist.
    pub shape: Vec<usize>,
    pub first: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BaseType {
    Real,
    Integer,
    Boolean,
    String,
}

/// What the name of a type stands for.
pub struct Resolved<'a> {
    pub base: Option<BaseType>,
    /// Those of abbreviations on the way, outermost last.
    pub modifications: Vec<Modification<'a>>,
    pub class: Option<&'a Class>,
    /// Where `class` is written.
    pub scope: Option<InstanceId>,
    pub causality: Causality,
    pub connector: bool,
}

/// An instance to be.
struct Plan<'a> {
    class: &'a Class,
    prefix: String,
    modifications: Vec<Modification<'a>>,
    scope: Option<InstanceId>,
    depth: usize,
    interface: bool,
    is_final: bool,
    span: Span,
}

pub fn builtin(name: &str) -> Option<BaseType> {
    match name {
        "Real" => Some(BaseType::Real),
        "Integer" => Some(BaseType::Integer),
        "Boolean" => Some(BaseType::Boolean),
        "String" => Some(BaseType::String),
        _ => None,
    }
}

impl<'a> Flattener<'a> {
    /// The place of the model itself, the first of all instances.
    pub fn reserve_root(&mut self, class: &'a Class) -> InstanceId {
        self.reserve(class, String::new(), 0, true)
    }

    pub fn instantiate_root(&mut self, id: InstanceId, scope: Option<InstanceId>) -> Lowered<()> {
        let class = self.instances[id.0].class;
        self.instances[id.0].scopes.extend(scope);
        self.inherit(id, class, Vec::new(), 0)
    }

    pub fn reserve(&mut self, class: &'a Class, prefix: String, depth: usize, interface: bool) -> InstanceId {
        let id = InstanceId(self.instances.len());
        self.instances.push(Instance {
            class,
            lineage: Vec::new(),
            prefix,
            depth,
            members: BTreeMap::new(),
            order: Vec::new(),
            classes: Vec::new(),
            scopes: Vec::new(),
            interface,
            is_final: false,
            absent: BTreeSet::new(),
        });
        id
    }

    fn instantiate(&mut self, plan: Plan<'a>) -> Lowered<InstanceId> {
        let class = plan.class;
        if plan.depth > MAX_DEPTH || self.instances.len() > super::MAX_SCALARS {
            let message = format!(
                "`{}` nests deeper than {MAX_DEPTH} levels: does it contain itself?",
                class.name.text
            );
            return Err(self.error(plan.span, "too-deep", message));
        }
        let id = self.reserve(class, plan.prefix, plan.depth, plan.interface);
        self.instances[id.0].is_final = plan.is_final;
        self.instances[id.0].scopes.extend(plan.scope);
        self.inherit(id, class, plan.modifications, 0)?;
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
        self.instances[id.0].classes.push(class);
        for element in &class.elements {
            if let Element::Extends { base, modifiers } = element {
                let found = self.find_class(id, base)?;
                let base_class = found.class;
                let scope = self.scope_of(&found).filter(|scope| *scope != id);
                self.instances[id.0].scopes.extend(scope);
                if base_class.alias.is_some() || builtin(&base.text).is_some() {
                    return Err(self.unsupported(base.span, "extending a built-in type is outside the subset"));
                }
                let mut all: Vec<Modification<'a>> = modifiers
                    .iter()
                    .map(|modifier| Modification::new(modifier, id))
                    .collect();
                all.extend(modifications.iter().cloned());
                self.inherit(id, base_class, all, level + 1)?;
            }
        }
        // Built-in variables first: sizes of the rest may depend on them.
        let components = || {
            class.elements.iter().filter_map(|element| match element {
                Element::Component(component) => Some(&**component),
                _ => None,
            })
        };
        // What conditions depend on before what they decide.
        for component in components().filter(|component| component.condition.is_none()) {
            self.declare(id, component, &modifications)?;
        }
        for component in components().filter(|component| component.condition.is_some()) {
            if self.is_present(id, component)? {
                self.declare(id, component, &modifications)?;
            }
        }
        for component in components() {
            if !self.instances[id.0].absent.contains(&component.name.text) {
                self.declare_instances(id, component, &modifications)?;
            }
        }
        self.instances[id.0].lineage.push(class);
        let own: Vec<&Modification<'a>> = modifications.iter().collect();
        for modification in own {
            let name = &modification.modifier.name;
            let instance = &self.instances[id.0];
            if !instance.members.contains_key(&name.text) && !instance.absent.contains(&name.text) && level == 0 {
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

    /// Whether the condition of a component holds; where it does not, nothing is declared (4.4.5).
    fn is_present(&mut self, id: InstanceId, component: &'a Component) -> Lowered<bool> {
        let Some(condition) = &component.condition else {
            return Ok(true);
        };
        let present = self.structural_truth(condition, id)?;
        if !present {
            self.check_new(id, component)?;
            self.instances[id.0].absent.insert(component.name.text.clone());
        }
        Ok(present)
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
        let resolved = self.resolve_base(id, &component.type_name)?;
        let Some(base) = resolved.base else { return Ok(()) };
        self.check_new(id, component)?;
        if component.flow && self.instances[id.0].class.kind != ClassKind::Connector {
            let message = format!("`{}` is a flow variable outside a connector", component.name.text);
            let error = self.error(component.span, "type", message);
            return Err(Box::new(error.remedy("flow variables are declared in a `connector`")));
        }
        let causality = match component.causality {
            Causality::Local => resolved.causality,
            own => own,
        };
        let mut modifications = resolved.modifications;
        // Those of a type are about each variable of the type.
        modifications
            .iter_mut()
            .for_each(|modification| modification.each = true);
        let own = component.modifiers.iter();
        modifications.extend(own.map(|modifier| Modification::new(modifier, id)));
        let mut binding = component.binding.as_ref().map(|expr| Binding::new(expr, id));
        let outer = self.modifications_of(id, component, outer)?;
        for modification in &outer {
            binding = modification.binding().or(binding);
            modifications.extend(modification.nested());
        }
        self.check_final(&modifications)?;
        let is_final = component.is_final || self.instances[id.0].is_final;
        let is_final = is_final || outer.iter().any(|modification| modification.is_final);
        let declared = Declared {
            component,
            base,
            modifications,
            binding,
            is_final,
            causality,
            connector: resolved.connector,
            shape: Vec::new(),
            first: None,
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
        let resolved = self.resolve_base(id, &component.type_name)?;
        let (None, Some(class)) = (resolved.base, resolved.class) else {
            return Ok(());
        };
        self.check_new(id, component)?;
        if class.partial {
            let message = format!("`{}` is partial: it has no instances", class.name.text);
            let error = self.error(component.type_name.span, "type", message);
            return Err(Box::new(error.remedy("use a class that extends it")));
        }
        if matches!(class.kind, ClassKind::Function | ClassKind::Package) {
            let message =
                format!("`{}` is a {:?}, not a type of components", class.name.text, class.kind).to_lowercase();
            return Err(self.error(component.type_name.span, "undefined-type", message));
        }
        if let Some(binding) = &component.binding {
            return Err(self.unsupported(binding.span, "a binding for a whole component is outside the subset"));
        }
        let shape = self.shape_of(id, &component.dimensions, None)?;
        let own = component
            .modifiers
            .iter()
            .map(|modifier| Modification::new(modifier, id));
        let mut modifications: Vec<Modification<'a>> = own.collect();
        let outer = self.modifications_of(id, component, outer)?;
        for modification in &outer {
            if let Some(value) = &modification.modifier.value {
                return Err(self.unsupported(value.span, "a binding for a whole component is outside the subset"));
            }
            modifications.extend(modification.nested());
        }
        let is_final = component.is_final || self.instances[id.0].is_final;
        let is_final = is_final || outer.iter().any(|modification| modification.is_final);
        let depth = self.instances[id.0].depth + 1;
        let interface = self.instances[id.0].interface && class.kind == ClassKind::Connector;
        let prefix = self.instances[id.0].prefix.clone();
        let mut ids = Vec::new();
        for (number, subscripts) in subscripts_of(&shape).into_iter().enumerate() {
            let full = format!("{prefix}{}{subscripts}.", component.name.text);
            let places = places_of(&shape, number);
            let split = modifications.iter().map(|one| one.for_element(&places));
            ids.push(self.instantiate(Plan {
                class,
                prefix: full,
                modifications: resolved.modifications.iter().cloned().chain(split).collect(),
                scope: resolved.scope,
                depth,
                interface,
                is_final,
                span: component.span,
            })?);
        }
        let name = component.name.text.clone();
        self.instances[id.0].order.push(name.clone());
        self.instances[id.0].members.insert(
            name,
            Member::Instances {
                shape,
                ids,
                protected: component.protected,
                conditional: component.condition.is_some(),
            },
        );
        Ok(())
    }

    /// Sizes of declared dimensions; `:` takes its size from `binding`.
    pub fn shape_of(
        &mut self,
        id: InstanceId,
        dimensions: &'a [Dimension],
        binding: Option<&Binding<'a>>,
    ) -> Lowered<Vec<usize>> {
        let binding = binding.cloned().map(Binding::narrowed);
        let span_of = |binding: &Option<Binding<'a>>| binding.as_ref().map_or(Span::default(), |one| one.expr.span);
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
                    let sized = binding.as_ref().and_then(|one| {
                        let shape = literal_shape(one.expr);
                        shape.get(one.places.len() + position).copied()
                    });
                    sized.ok_or_else(|| {
                        let message = "the size `:` needs a binding written as an array";
                        self.error(span_of(&binding), "bad-size", message)
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
                    Dimension::Any => span_of(&binding),
                };
                let message = format!("an array has at most {} elements", super::MAX_SCALARS);
                return Err(self.error(span, "too-large", message));
            }
        }
        Ok(shape)
    }
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
