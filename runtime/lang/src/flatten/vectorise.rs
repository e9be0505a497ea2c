//! Calls of functions with arrays where the function takes their elements (Modelica 3.6, 12.4.6).

use super::expression::Value;
use super::function::{Given, components};
use super::instance::InstanceId;
use super::{Flattener, Lowered};
use crate::syntax::{Causality, Class, Expr, Ident};

/// The dimensions that arguments have more than their inputs: the same for all that have any.
pub fn elements_of(class: &Class, given: &[Given]) -> Option<Vec<usize>> {
    let mut found: Option<&[usize]> = None;
    for (value, more) in spread(class, given) {
        let here = &value.shape[..more];
        if found.is_some_and(|before| before != here) {
            return None;
        }
        found = Some(here);
    }
    found.map(<[usize]>::to_vec)
}

/// The arguments that are larger than their inputs, and by how many dimensions.
fn spread<'g>(class: &'g Class, given: &'g [Given]) -> impl Iterator<Item = (&'g Value, usize)> {
    let inputs = components(class).filter(|component| component.causality == Causality::Input);
    inputs.zip(given).filter_map(|(input, given)| {
        let (value, _) = given.as_ref()?;
        let more = value.shape.len().checked_sub(input.dimensions.len())?;
        (more > 0).then_some((value, more))
    })
}

impl<'a> Flattener<'a> {
    /// The results of one call for every element, each as one array.
    pub fn call_for_elements(
        &mut self,
        shape: &[usize],
        function: &Ident,
        class: &'a Class,
        given: &[Given],
        scope: InstanceId,
        call: &'a Expr,
    ) -> Lowered<Vec<Value>> {
        let count: usize = shape.iter().product();
        if count == 0 {
            return Err(self.error(
                call.span,
                "bad-size",
                "a call for every element of an array that has none",
            ));
        }
        let mut results: Vec<Vec<Value>> = Vec::new();
        for index in 0..count {
            self.check_size(call.span)?;
            let element = element_of(class, given, shape, index);
            for (place, value) in self
                .execute_call(function, class, element, scope, call)?
                .into_iter()
                .enumerate()
            {
                match results.get_mut(place) {
                    Some(all) => all.push(value),
                    None => results.push(vec![value]),
                }
            }
        }
        let stacked = results.into_iter().map(|values| {
            let mut all = self.stack(values, call.span)?;
            let inner = all.shape.split_off(1);
            all.shape = shape.iter().copied().chain(inner).collect();
            Ok(all)
        });
        stacked.collect()
    }
}

/// The arguments of the call for one element.
fn element_of(class: &Class, given: &[Given], shape: &[usize], index: usize) -> Vec<Given> {
    let inputs = components(class).filter(|component| component.causality == Causality::Input);
    let each = inputs.zip(given).map(|(input, given)| {
        let (value, span) = given.as_ref()?;
        if value.shape.len() <= input.dimensions.len() {
            return Some((value.clone(), *span));
        }
        let inner = value.shape[shape.len()..].to_vec();
        let count: usize = inner.iter().product();
        let items = value.items[index * count..(index + 1) * count].to_vec();
        let element = Value {
            shape: inner,
            items,
            ..value.clone()
        };
        Some((element, *span))
    });
    each.collect()
}
