//! What names mean where they are written: classes, and constants of packages and of enclosing classes (5.3).

use super::expression::Value;
use super::instance::{BaseType, InstanceId, Member, Resolved, builtin};
use super::modification::{Binding, Modification};
use super::{Flattener, Lowered};
use crate::syntax::{Causality, Class, ClassKind, Component, Element, Expr, Ident, Part, Variability};
use crate::units::Unit;

/// How often types may abbreviate types.
const MAX_ABBREVIATIONS: usize = 30;
/// How deep constants may depend on constants.
const MAX_CONSTANTS: u32 = 40;

/// A class with the place where it is written.
pub struct Found<'a> {
    pub class: &'a Class,
    /// The packages that its name leads through.
    packages: Vec<&'a Class>,
    /// Where the first name was found; `None` at the top of the file.
    root: Option<InstanceId>,
}

fn inner<'a>(class: &'a Class, name: &str) -> Option<&'a Class> {
    class.elements.iter().find_map(|element| match element {
        Element::Class(inner) if inner.name.text == name => Some(&**inner),
        _ => None,
    })
}

impl<'a> Flattener<'a> {
    /// The class called `name` as seen from instance `id`.
    pub fn lookup(&self, id: InstanceId, name: &str) -> Option<Found<'a>> {
        let mut parts = name.split('.');
        let first = parts.next().unwrap_or("");
        let mut found = match self.lookup_first(id, first) {
            Some((class, root)) => Found {
                class,
                packages: Vec::new(),
                root: Some(root),
            },
            None => Found {
                class: self.classes.iter().find(|class| class.name.text == first)?,
                packages: Vec::new(),
                root: None,
            },
        };
        for part in parts {
            if found.class.kind != ClassKind::Package {
                return None;
            }
            found.packages.push(found.class);
            found.class = inner(found.class, part)?;
        }
        Some(found)
    }

    fn lookup_first(&self, id: InstanceId, name: &str) -> Option<(&'a Class, InstanceId)> {
        let instance = &self.instances[id.0];
        let local = std::iter::once(instance.class).chain(instance.classes.iter().copied());
        if let Some(class) = local.into_iter().find_map(|class| inner(class, name)) {
            return Some((class, id));
        }
        instance.scopes.iter().find_map(|scope| self.lookup_first(*scope, name))
    }

    /// The same, with a message where there is none.
    pub fn find_class(&self, id: InstanceId, name: &Ident) -> Lowered<Found<'a>> {
        self.lookup(id, &name.text).ok_or_else(|| {
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

    /// The instance in whose names the text around `found` is written.
    pub fn scope_of(&mut self, found: &Found<'a>) -> Option<InstanceId> {
        let mut scope = found.root;
        for package in &found.packages {
            scope = Some(self.pseudo_instance(package, scope));
        }
        scope
    }

    /// Stands for the text of a class that has no instances: a package, a function, an abbreviation.
    pub fn pseudo_instance(&mut self, class: &'a Class, scope: Option<InstanceId>) -> InstanceId {
        let key = (std::ptr::from_ref(class), scope);
        if let Some(known) = self.pseudo_instances.get(&key) {
            return *known;
        }
        let id = self.reserve(class, String::new(), 1, false);
        self.instances[id.0].scopes.extend(scope);
        self.pseudo_instances.insert(key, id);
        id
    }

    /// Follows abbreviations down to a built-in type or a class.
    pub fn resolve_base(&mut self, id: InstanceId, name: &Ident) -> Lowered<Resolved<'a>> {
        let mut resolved = Resolved {
            base: builtin(&name.text),
            modifications: Vec::new(),
            class: None,
            scope: None,
            causality: Causality::Local,
            connector: false,
        };
        if resolved.base.is_some() {
            return Ok(resolved);
        }
        let mut found = self.find_class(id, name)?;
        for _ in 0..MAX_ABBREVIATIONS {
            let scope = self.scope_of(&found);
            let Some((base, modifiers)) = &found.class.alias else {
                (resolved.class, resolved.scope) = (Some(found.class), scope);
                return Ok(resolved);
            };
            let written_in = self.pseudo_instance(found.class, scope);
            let more = modifiers.iter().map(|modifier| Modification::new(modifier, written_in));
            resolved.modifications = more.chain(resolved.modifications).collect();
            resolved.connector |= found.class.kind == ClassKind::Connector;
            if resolved.causality == Causality::Local {
                resolved.causality = found.class.alias_causality;
            }
            resolved.base = builtin(&base.text);
            if resolved.base.is_some() {
                return Ok(resolved);
            }
            found = self.find_class(written_in, base)?;
        }
        let message = format!("the type `{}` abbreviates itself", name.text);
        Err(self.error(name.span, "too-deep", message))
    }

    /// The constant of a package or of an enclosing class that a name means, if it means one.
    pub fn constant(&mut self, parts: &'a [Part], expr: &'a Expr, id: InstanceId) -> Option<Lowered<Value>> {
        let (last, path) = parts.split_last()?;
        let first = parts.first()?;
        if self.instances[id.0].members.contains_key(&first.name.text)
            || path.iter().any(|part| !part.subscripts.is_empty())
        {
            return None;
        }
        if path.is_empty() {
            return self.enclosing_constant(last, expr, id, id);
        }
        let names: Vec<&str> = path.iter().map(|part| part.name.text.as_str()).collect();
        let found = self.lookup(id, &names.join("."))?;
        if found.class.kind != ClassKind::Package {
            return None;
        }
        let component = component(found.class, &last.name.text)?;
        if component.protected {
            return Some(Err(self.hidden_member(last, found.class)));
        }
        let scope = self.scope_of(&found);
        let scope = self.pseudo_instance(found.class, scope);
        Some(self.package_constant(component, scope, last, expr, id))
    }

    fn enclosing_constant(
        &mut self,
        part: &'a Part,
        expr: &'a Expr,
        here: InstanceId,
        id: InstanceId,
    ) -> Option<Lowered<Value>> {
        let class = self.instances[here.0].class;
        if here != id
            && let Some(Member::Variable(declared)) = self.instances[here.0].members.get(&part.name.text).cloned()
        {
            if declared.component.variability != Variability::Constant {
                let message = format!("`{}` of the enclosing class is not a constant", part.name.text);
                return Some(Err(self.error(part.name.span, "type", message)));
            }
            return Some(self.declared_value(&declared, here, expr, &part.subscripts, id));
        }
        if class.kind == ClassKind::Package
            && let Some(component) = component(class, &part.name.text)
        {
            return Some(self.package_constant(component, here, part, expr, id));
        }
        let scopes = self.instances[here.0].scopes.clone();
        scopes
            .into_iter()
            .find_map(|scope| self.enclosing_constant(part, expr, scope, id))
    }

    fn package_constant(
        &mut self,
        component: &'a Component,
        scope: InstanceId,
        part: &'a Part,
        expr: &'a Expr,
        id: InstanceId,
    ) -> Lowered<Value> {
        let name = &component.name.text;
        if component.variability != Variability::Constant {
            let message = format!("`{name}` of a package is not a constant");
            return Err(self.error(component.name.span, "type", message));
        }
        let Some(binding) = &component.binding else {
            return Err(self.error(
                component.name.span,
                "no-value",
                format!("the constant `{name}` has no value"),
            ));
        };
        if self.constants > MAX_CONSTANTS {
            return Err(self.error(component.name.span, "too-deep", format!("`{name}` depends on itself")));
        }
        let resolved = self.resolve_base(scope, &component.type_name)?;
        if !matches!(
            resolved.base,
            Some(BaseType::Real | BaseType::Integer | BaseType::Boolean)
        ) {
            return Err(self.unsupported(expr.span, format!("`{name}` is neither a number nor a Boolean")));
        }
        let own = component
            .modifiers
            .iter()
            .map(|modifier| Modification::new(modifier, scope));
        let modifications: Vec<Modification<'a>> = resolved.modifications.into_iter().chain(own).collect();
        let unit = self.unit_of(&modifications)?;
        let outer = (self.frame.take(), std::mem::take(&mut self.loops));
        self.constants += 1;
        let value = self.parameter_expression(binding, scope);
        let shape = self.shape_of(scope, &component.dimensions, Some(&Binding::new(binding, scope)));
        self.constants -= 1;
        (self.frame, self.loops) = outer;
        let (mut value, shape) = (value?, shape?);
        self.check_fits(&value.unit, &unit, binding.span, "the declared unit")?;
        let base = resolved.base.unwrap_or(BaseType::Real);
        self.check_type(value.base, base, binding.span, name)?;
        value.base = base;
        if value.shape != shape {
            let message = format!("a value of size {:?} for an array of size {shape:?}", value.shape);
            return Err(self.error(binding.span, "bad-size", message));
        }
        if unit != Unit::Any {
            (value.unit, value.number) = (unit, None);
        }
        self.subscripted(value, &part.subscripts, id)
    }
}

fn component<'a>(class: &'a Class, name: &str) -> Option<&'a Component> {
    class.elements.iter().find_map(|element| match element {
        Element::Component(component) if component.name.text == name => Some(&**component),
        _ => None,
    })
}
