//! Connectors and `connect`: connection sets to equations (Modelica 3.6, 9.1 and 9.2).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::expression::Remedied as _;
use super::instance::{Declared, InstanceId, Member, subscripts_of};
use super::{FlatEquation, Flattener, Kind, Lowered};
use crate::diagnostic::Diagnostic;
use crate::graph::Leaf;
use crate::syntax::{Causality, ClassKind, Expr, ExprKind, Part, Span};

/// A scalar of a connector, seen from outside the component that has it (`inside` a connection's class) or from within.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Port {
    variable: u32,
    /// The connector belongs to the class that connects it, not to one of its components.
    outside: bool,
}

/// Everything connected so far.
#[derive(Debug, Default)]
pub struct Connections {
    /// Union-find over ports, in the order in which they were connected.
    ports: Vec<PortEntry>,
    places: HashMap<Port, usize>,
}

#[derive(Debug)]
struct PortEntry {
    port: Port,
    parent: usize,
    flow: bool,
    causality: Causality,
    /// The `connect` that first named it.
    span: Span,
}

impl Connections {
    fn place(&mut self, port: Port, end: &Primitive, span: Span) -> usize {
        let next = self.ports.len();
        let place = *self.places.entry(port).or_insert(next);
        if place == next {
            self.ports.push(PortEntry {
                port,
                parent: next,
                flow: end.flow,
                causality: end.causality,
                span,
            });
        }
        place
    }

    fn root(&mut self, mut place: usize) -> usize {
        while self.ports[place].parent != place {
            let above = self.ports[place].parent;
            self.ports[place].parent = self.ports[above].parent;
            place = above;
        }
        place
    }

    fn join(&mut self, left: usize, right: usize) {
        let (left, right) = (self.root(left), self.root(right));
        // The earlier one leads: sets come out in the order of the text.
        let (first, second) = (left.min(right), left.max(right));
        self.ports[second].parent = first;
    }

    /// The sets, each in the order of first mention.
    fn sets(&mut self) -> Vec<Vec<usize>> {
        let mut sets: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for place in 0..self.ports.len() {
            let root = self.root(place);
            sets.entry(root).or_default().push(place);
        }
        sets.into_values().collect()
    }
}

/// A connector as one side of a `connect` names it.
#[derive(Debug, Clone)]
enum End<'a> {
    Composite(InstanceId),
    /// An element of a variable whose type is a connector, such as `connector RealInput = input Real`.
    Simple {
        declared: Box<Declared<'a>>,
        variable: u32,
    },
}

/// Shape, elements, and whether they belong to the class that connects them.
type Side<'a> = (Vec<usize>, Vec<End<'a>>, bool);

/// A scalar variable of a connector.
#[derive(Debug, Clone)]
struct Primitive {
    /// Below the connector; empty for one that is a variable itself.
    name: String,
    variable: u32,
    flow: bool,
    causality: Causality,
}

impl<'a> Flattener<'a> {
    pub fn connect(&mut self, left: &'a Expr, right: &'a Expr, span: Span, id: InstanceId) -> Lowered<()> {
        // What names a component that its condition leaves out is left out too (4.4.5).
        let (Some(left_side), Some(right_side)) = (self.ends_of(left, id)?, self.ends_of(right, id)?) else {
            return Ok(());
        };
        let (left_shape, left_ends, left_outside) = left_side;
        let (right_shape, right_ends, right_outside) = right_side;
        if left_shape != right_shape {
            let message = format!("connectors of sizes {left_shape:?} and {right_shape:?} cannot be connected");
            return Err(self.error(span, "bad-size", message));
        }
        for (left_end, right_end) in left_ends.iter().zip(&right_ends) {
            let pairs = self.matched(left_end, right_end, (left, right), span)?;
            for (one, other) in pairs {
                self.check_pair(&one, &other, span)?;
                let one_port = Port {
                    variable: one.variable,
                    outside: left_outside,
                };
                let other_port = Port {
                    variable: other.variable,
                    outside: right_outside,
                };
                let first = self.connections.place(one_port, &one, span);
                let second = self.connections.place(other_port, &other, span);
                self.connections.join(first, second);
            }
        }
        Ok(())
    }

    fn check_pair(&self, one: &Primitive, other: &Primitive, span: Span) -> Lowered<()> {
        let (left, right) = (
            &self.variables[one.variable as usize],
            &self.variables[other.variable as usize],
        );
        if [left, right]
            .iter()
            .any(|variable| matches!(variable.kind, Kind::Parameter | Kind::Dependent))
        {
            let message = format!("`{}` is a parameter of a connector", left.name);
            return Err(self.unsupported(span, message));
        }
        self.same_unit(
            &left.unit,
            &right.unit,
            span,
            &format!("`{}` and `{}` are in", left.name, right.name),
        )
        .map_err(|error| {
            let error = error.note(
                self.source,
                left.span.start,
                format!("`{}` is declared here", left.name),
            );
            Box::new(error.note(
                self.source,
                right.span.start,
                format!("`{}` is declared here", right.name),
            ))
        })?;
        Ok(())
    }

    /// The connectors that one side of a `connect` names; none below a component that is not there.
    fn ends_of(&mut self, expr: &'a Expr, id: InstanceId) -> Lowered<Option<Side<'a>>> {
        let ExprKind::Reference(parts) = &expr.kind else {
            let error = self.error(expr.span, "type", "`connect` takes two connectors");
            return Err(error.into_remedy("name them: `connect(a.p, b.n)`"));
        };
        let mut shape = Vec::new();
        let mut here = vec![id];
        let mut outside = true;
        let mut ends = Vec::new();
        for (position, part) in parts.iter().enumerate() {
            let last = position + 1 == parts.len();
            let mut next = Vec::new();
            let mut dimensions = Vec::new();
            for owner in &here {
                match self.instances[owner.0].members.get(&part.name.text).cloned() {
                    None if self.instances[owner.0].absent.contains(&part.name.text) => return Ok(None),
                    None => return Err(self.undefined(&part.name.text, part.name.span, *owner, expr)),
                    Some(Member::Instances { protected: true, .. }) if position > 0 => {
                        return Err(self.hidden_member(part, self.instances[owner.0].class));
                    }
                    Some(Member::Variable(declared)) if declared.component.protected && position > 0 => {
                        return Err(self.hidden_member(part, self.instances[owner.0].class));
                    }
                    Some(Member::Instances { shape: sizes, ids, .. }) => {
                        let (left, chosen) = self.select_indices(&sizes, &part.subscripts, id, part.name.span)?;
                        dimensions = left;
                        next.extend(chosen.into_iter().filter_map(|index| ids.get(index).copied()));
                    }
                    Some(Member::Variable(declared)) => {
                        if !last || !declared.connector {
                            return Err(self.no_connector(part, Some(&declared)));
                        }
                        let Some(first) = declared.first else {
                            return Err(self.no_connector(part, Some(&declared)));
                        };
                        let (left, chosen) =
                            self.select_indices(&declared.shape, &part.subscripts, id, part.name.span)?;
                        dimensions = left;
                        ends.extend(chosen.into_iter().map(|offset| End::Simple {
                            declared: declared.clone(),
                            variable: first + offset as u32,
                        }));
                    }
                }
            }
            shape.extend(dimensions);
            if position == 0 {
                outside = next
                    .first()
                    .is_none_or(|first| self.instances[first.0].class.kind == ClassKind::Connector);
            }
            if last {
                if let Some(other) = next
                    .iter()
                    .find(|inner| self.instances[inner.0].class.kind != ClassKind::Connector)
                {
                    let class = self.instances[other.0].class;
                    let error = self.no_connector(part, None);
                    let note = format!("`{}` is declared here as {}", class.name.text, class.kind.describe());
                    return Err(Box::new(error.note(self.source, class.name.span.start, note)));
                }
                ends.extend(next.iter().map(|inner| End::Composite(*inner)));
            }
            here = next;
        }
        Ok(Some((shape, ends, outside)))
    }

    fn no_connector(&self, part: &Part, declared: Option<&Declared<'a>>) -> Box<Diagnostic> {
        let name = &part.name.text;
        let error = self.error(part.name.span, "no-connector", format!("`{name}` is not a connector"));
        let remedy = match declared.map(|declared| declared.causality) {
            Some(Causality::Input) => {
                "declare it with a connector: `connector RealInput = input Real;`, or write an equation"
            }
            Some(Causality::Output) => {
                "declare it with a connector: `connector RealOutput = output Real;`, or write an equation"
            }
            _ => "`connect` joins components whose class is a `connector`; anything else is joined by an equation",
        };
        Box::new(error.remedy(remedy))
    }

    /// The scalars of two connectors, matched by name.
    fn matched(
        &self,
        left: &End<'a>,
        right: &End<'a>,
        exprs: (&Expr, &Expr),
        span: Span,
    ) -> Lowered<Vec<(Primitive, Primitive)>> {
        let (left_all, right_all) = (self.primitives(left), self.primitives(right));
        let name = |expr: &Expr| self.source.get(expr.span.range()).unwrap_or("").to_string();
        let fail = |message: String| {
            let mut error = *self.error(span, "connector-mismatch", message);
            for end in [left, right] {
                let (place, text) = match end {
                    End::Composite(id) => {
                        let class = self.instances[id.0].class;
                        (class.name.span, class.name.text.clone())
                    }
                    End::Simple { declared, .. } => {
                        (declared.component.name.span, declared.component.name.text.clone())
                    }
                };
                error = error.note(self.source, place.start, format!("`{text}` is declared here"));
            }
            Box::new(error.remedy("connected connectors have the same variables, each of the same kind"))
        };
        let missing = |these: &[Primitive], those: &[Primitive]| {
            let found = these
                .iter()
                .find(|one| those.iter().all(|other| other.name != one.name));
            found.map(|primitive| primitive.name.clone())
        };
        for (these, those, has, lacks) in [
            (&left_all, &right_all, exprs.0, exprs.1),
            (&right_all, &left_all, exprs.1, exprs.0),
        ] {
            if let Some(variable) = missing(these, those) {
                let variable = if variable.is_empty() {
                    "a value of its own"
                } else {
                    &variable
                };
                return Err(fail(format!(
                    "`{}` has `{variable}` and `{}` has not",
                    name(has),
                    name(lacks)
                )));
            }
        }
        let mut pairs = Vec::new();
        for one in left_all {
            let Some(other) = right_all.iter().find(|other| other.name == one.name) else {
                continue;
            };
            let boolean = |primitive: &Primitive| self.variables[primitive.variable as usize].boolean;
            if one.flow != other.flow {
                let message = format!("`{}` is a flow variable on one side and not on the other", one.name);
                return Err(fail(message));
            }
            if boolean(&one) != boolean(other) {
                return Err(fail("a Boolean and a number cannot be connected".to_string()));
            }
            let other = other.clone();
            pairs.push((one, other));
        }
        Ok(pairs)
    }

    fn primitives(&self, end: &End<'a>) -> Vec<Primitive> {
        match end {
            End::Simple { declared, variable } => vec![Primitive {
                name: String::new(),
                variable: *variable,
                flow: false,
                causality: declared.causality,
            }],
            End::Composite(id) => {
                let mut found = Vec::new();
                self.gather(*id, "", &mut found);
                found
            }
        }
    }

    fn gather(&self, id: InstanceId, prefix: &str, found: &mut Vec<Primitive>) {
        for name in &self.instances[id.0].order {
            match self.instances[id.0].members.get(name) {
                Some(Member::Variable(declared)) => {
                    let Some(first) = declared.first else { continue };
                    for (offset, subscripts) in subscripts_of(&declared.shape).into_iter().enumerate() {
                        found.push(Primitive {
                            name: format!("{prefix}{name}{subscripts}"),
                            variable: first + offset as u32,
                            flow: declared.component.flow,
                            causality: declared.causality,
                        });
                    }
                }
                Some(Member::Instances { shape, ids, .. }) => {
                    for (inner, subscripts) in ids.iter().zip(subscripts_of(shape)) {
                        self.gather(*inner, &format!("{prefix}{name}{subscripts}."), found);
                    }
                }
                None => {}
            }
        }
    }

    /// The equations of all connection sets, once every `connect` is read.
    pub fn finish_connections(&mut self) {
        let mut connections = std::mem::take(&mut self.connections);
        for set in connections.sets() {
            let entries: Vec<&PortEntry> = set.iter().filter_map(|place| connections.ports.get(*place)).collect();
            if entries.first().is_some_and(|entry| entry.flow) {
                self.flow_set(&entries);
            } else if let Err(error) = self.potential_set(&entries) {
                self.errors.push(*error);
            }
        }
        // A flow variable that nothing is connected to from outside its component is 0 (9.2).
        let connected: BTreeSet<u32> = connections
            .ports
            .iter()
            .filter(|entry| entry.flow && !entry.port.outside)
            .map(|entry| entry.port.variable)
            .collect();
        for (variable, span) in self.flow_variables() {
            if !connected.contains(&variable) {
                let left = self.graph.leaf(Leaf::Variable(variable));
                let right = self.graph.constant(0.0);
                self.equations.push(FlatEquation { left, right, span });
            }
        }
    }

    fn flow_variables(&self) -> Vec<(u32, Span)> {
        let mut found = Vec::new();
        for instance in &self.instances {
            for name in &instance.order {
                let Some(Member::Variable(declared)) = instance.members.get(name) else {
                    continue;
                };
                let Some(first) = declared.first.filter(|_| declared.component.flow) else {
                    continue;
                };
                let count: usize = declared.shape.iter().product();
                found.extend((0..count as u32).map(|offset| (first + offset, declared.component.name.span)));
            }
        }
        found
    }

    /// What flows in equals what flows out: connectors of components count positive, those of the class itself negative.
    fn flow_set(&mut self, entries: &[&PortEntry]) {
        let span = entries.last().map_or(Span::default(), |entry| entry.span);
        let leaves: Vec<(crate::graph::Id, bool)> = entries
            .iter()
            .map(|entry| (self.graph.leaf(Leaf::Variable(entry.port.variable)), entry.port.outside))
            .collect();
        let (left, right) = if let [(one, one_outside), (other, other_outside)] = leaves.as_slice() {
            let right = if one_outside == other_outside {
                self.graph.neg(*other)
            } else {
                *other
            };
            (*one, right)
        } else {
            let mut sum = self.graph.constant(0.0);
            for (leaf, outside) in leaves {
                sum = if outside {
                    self.graph.sub(sum, leaf)
                } else {
                    self.graph.add(sum, leaf)
                };
            }
            (sum, self.graph.constant(0.0))
        };
        self.equations.push(FlatEquation { left, right, span });
    }

    /// All members are equal; at most one of them gives the value.
    fn potential_set(&mut self, entries: &[&PortEntry]) -> Lowered<()> {
        let gives = |entry: &PortEntry| match entry.causality {
            Causality::Output => !entry.port.outside,
            Causality::Input => entry.port.outside,
            Causality::Local => false,
        };
        let sources: Vec<&&PortEntry> = entries.iter().filter(|entry| gives(entry)).collect();
        if let [first, second, ..] = sources.as_slice() {
            let names = [first, second].map(|entry| &self.variables[entry.port.variable as usize]);
            let message = format!("`{}` and `{}` both give a value here", names[0].name, names[1].name);
            let mut error = *self.error(second.span, "two-sources", message);
            for variable in names {
                let note = format!("`{}` is declared here", variable.name);
                error = error.note(self.source, variable.span.start, note);
            }
            return Err(Box::new(error.remedy("an input is connected to one output")));
        }
        let source = entries.iter().position(|entry| gives(entry)).unwrap_or(0);
        let Some(leader) = entries.get(source) else {
            return Ok(());
        };
        let leader_leaf = self.graph.leaf(Leaf::Variable(leader.port.variable));
        for (place, entry) in entries.iter().enumerate() {
            if place == source {
                continue;
            }
            let left = self.graph.leaf(Leaf::Variable(entry.port.variable));
            let span = if place < source { leader.span } else { entry.span };
            self.equations.push(FlatEquation {
                left,
                right: leader_leaf,
                span,
            });
        }
        Ok(())
    }
}
