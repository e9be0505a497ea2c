//! Modifications (Modelica 3.6, 7.2): what they give values to, and how values are split over arrays of components.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::expression::Value;
use super::instance::InstanceId;
use super::structural::Fixed;
use super::{Flattener, Lowered};
use crate::syntax::{Component, Expr, ExprKind, Modifier};

/// A modification with the instance in whose names its value is written.
#[derive(Debug, Clone)]
pub struct Modification<'a> {
    pub modifier: &'a Modifier,
    pub written_in: InstanceId,
    /// It, or a modification around it, is final.
    pub is_final: bool,
    /// The elements of the arrays of components around that it is for, outermost first: its values are split over them.
    pub places: Vec<Place>,
    /// Stands for every element of the array that it modifies.
    pub each: bool,
}

impl<'a> Modification<'a> {
    pub fn new(modifier: &'a Modifier, written_in: InstanceId) -> Modification<'a> {
        Modification {
            modifier,
            written_in,
            is_final: modifier.is_final,
            places: Vec::new(),
            each: modifier.each,
        }
    }

    /// The modifications in its parentheses.
    pub fn nested(&self) -> impl Iterator<Item = Modification<'a>> + use<'a> {
        let (modifier, written_in, outer) = (self.modifier, self.written_in, self.is_final);
        let places = self.places.clone();
        modifier.nested.iter().map(move |modifier| Modification {
            modifier,
            written_in,
            is_final: outer || modifier.is_final,
            places: if modifier.each { Vec::new() } else { places.clone() },
            each: modifier.each,
        })
    }

    /// The same for one element of an array of components.
    pub fn for_element(&self, subscripts: &[Place]) -> Modification<'a> {
        let mut one = self.clone();
        if !one.each {
            one.places.extend_from_slice(subscripts);
        }
        one
    }

    /// Its value, if it has one.
    pub fn binding(&self) -> Option<Binding<'a>> {
        self.modifier.value.as_ref().map(|expr| Binding {
            expr,
            written_in: self.written_in,
            places: self.places.clone(),
            each: self.each,
        })
    }
}

/// One subscript of an element, with the size of its dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub index: usize,
    pub size: usize,
}

/// The value of a declaration or modification.
#[derive(Debug, Clone)]
pub struct Binding<'a> {
    pub expr: &'a Expr,
    pub written_in: InstanceId,
    /// Which element of the value is meant: see [`Modification::places`].
    pub places: Vec<Place>,
    /// One value stands for every element.
    pub each: bool,
}

impl<'a> Binding<'a> {
    pub fn new(expr: &'a Expr, written_in: InstanceId) -> Binding<'a> {
        Binding {
            expr,
            written_in,
            places: Vec::new(),
            each: false,
        }
    }

    /// Elements that the text of the value shows are chosen there: the others need not be looked at.
    pub fn narrowed(mut self) -> Binding<'a> {
        while let (ExprKind::Array(items), Some(place)) = (&self.expr.kind, self.places.first()) {
            if items.len() != place.size {
                break;
            }
            self.expr = &items[place.index];
            self.places.remove(0);
        }
        self
    }
}

/// The subscripts of element `number` of a shape.
pub fn places_of(shape: &[usize], number: usize) -> Vec<Place> {
    let mut rest = number;
    let mut places: Vec<Place> = Vec::new();
    for size in shape.iter().rev() {
        places.push(Place {
            index: rest % size,
            size: *size,
        });
        rest /= size;
    }
    places.reverse();
    places
}

impl<'a> Flattener<'a> {
    /// The modifications of `component` from around instance `id`, the innermost first; refused where they may not be:
    /// from outside to what is protected (4.1), and to what is final (7.2.6).
    pub fn modifications_of(
        &self,
        id: InstanceId,
        component: &'a Component,
        outer: &[Modification<'a>],
    ) -> Lowered<Vec<Modification<'a>>> {
        let name = &component.name.text;
        let class = &self.instances[id.0].class.name.text;
        let mut found: Vec<Modification<'a>> = Vec::new();
        for modification in outer.iter().filter(|one| one.modifier.name.text == *name) {
            let place = modification.modifier.name.span;
            // A class that extends another one, also by a short definition, is no outside.
            let within =
                modification.written_in == id || self.instances[modification.written_in.0].class.alias.is_some();
            if component.protected && !within {
                let message = format!("`{name}` is protected in `{class}`: it cannot be modified from outside");
                let error = self.error(place, "protected", message);
                let error = error.note(self.source, component.name.span.start, "it is declared here");
                return Err(Box::new(error.remedy(
                    "declare it under `public`, or modify it in a class that extends this one",
                )));
            }
            let before = found.last().filter(|before| before.is_final);
            if component.is_final || before.is_some() {
                let message = format!("`{name}` is final in `{class}`: it cannot be modified");
                let first = before.map_or(component.name.span, |before| before.modifier.name.span);
                let error = self
                    .error(place, "final", message)
                    .note(self.source, first.start, "it is made final here");
                return Err(Box::new(error.remedy("leave the modification out, or remove `final`")));
            }
            found.push(modification.clone());
        }
        Ok(found)
    }

    /// No attribute is given a value after it was final.
    pub fn check_final(&self, modifications: &[Modification<'a>]) -> Lowered<()> {
        let mut finals: BTreeMap<&str, &Modifier> = BTreeMap::new();
        for one in modifications {
            let name = &one.modifier.name;
            if let Some(before) = finals.get(name.text.as_str()) {
                let error = self.error(
                    name.span,
                    "final",
                    format!("`{}` is final: it cannot be modified", name.text),
                );
                let error = error.note(self.source, before.name.span.start, "it is made final here");
                return Err(Box::new(error.remedy("leave the modification out, or remove `final`")));
            }
            if one.is_final {
                finals.insert(&name.text, one.modifier);
            }
        }
        Ok(())
    }

    /// The whole value of a modification, whose elements many components take: it is lowered once for all of them.
    pub fn whole_value(&mut self, binding: &Binding<'a>, changes: bool) -> Lowered<Rc<Value>> {
        let key = (std::ptr::from_ref(binding.expr), binding.written_in);
        if let Some(known) = self.split_values.get(&key).filter(|_| !binding.places.is_empty()) {
            return Ok(known.clone());
        }
        let value = if changes {
            self.expression(binding.expr, binding.written_in)?
        } else {
            self.parameter_expression(binding.expr, binding.written_in)?
        };
        let value = Rc::new(value);
        if !binding.places.is_empty() {
            self.split_values.insert(key, value.clone());
        }
        Ok(value)
    }

    /// What the element of an array of components that `binding` is for gets of its value, for a variable of `shape` (7.2.5).
    pub fn value_for(&self, whole: &Value, binding: &Binding<'a>, shape: &[usize]) -> Lowered<Value> {
        let (mut sizes, mut items) = (whole.shape.as_slice(), whole.items.as_slice());
        for place in &binding.places {
            let Some((_, rest)) = sizes.split_first().filter(|(size, _)| **size == place.size) else {
                return Err(self.not_split(binding, &whole.shape, shape));
            };
            let count: usize = rest.iter().product();
            (sizes, items) = (rest, &items[place.index * count..(place.index + 1) * count]);
        }
        let value = Value {
            shape: sizes.to_vec(),
            items: items.to_vec(),
            unit: whole.unit.clone(),
            base: whole.base,
            number: whole.number,
        };
        if value.shape == shape {
            return Ok(value);
        }
        if value.shape.is_empty() && binding.each {
            let items = vec![value.items[0]; shape.iter().product()];
            let shape = shape.to_vec();
            return Ok(Value { items, shape, ..value });
        }
        Err(self.not_split(binding, &whole.shape, shape))
    }

    /// The same for a value known when compiling.
    pub fn fixed_for(&self, value: Fixed, binding: &Binding<'a>, shape: &[usize]) -> Lowered<Fixed> {
        let mut value = value;
        for place in &binding.places {
            value = match value {
                Fixed::Array(mut items) if items.len() == place.size => items.swap_remove(place.index),
                other => return Err(self.not_split(binding, &other.shape(), shape)),
            };
        }
        if value.shape() == shape {
            return Ok(value);
        }
        if value.shape().is_empty() && binding.each {
            let filled = shape.iter().rev();
            return Ok(filled.fold(value, |inner, size| Fixed::Array(vec![inner; *size])));
        }
        Err(self.not_split(binding, &value.shape(), shape))
    }

    fn not_split(&self, binding: &Binding<'a>, given: &[usize], shape: &[usize]) -> Box<crate::Diagnostic> {
        let sizes = binding.places.iter().map(|place| place.size);
        let wanted: Vec<usize> = sizes.chain(shape.iter().copied()).collect();
        let message = if wanted.is_empty() {
            format!("an array of size {given:?} where one value is needed")
        } else {
            format!("a value of size {given:?} cannot fill an array of size {wanted:?}")
        };
        let error = self.error(binding.expr.span, "bad-size", message);
        if !given.is_empty() {
            return error;
        }
        Box::new(
            error.remedy(
                "one value for all elements: `each name = value` in a modification, `fill(value, n)` elsewhere",
            ),
        )
    }
}
