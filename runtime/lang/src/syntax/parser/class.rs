//! Classes, declarations and modifications.

use std::collections::BTreeMap;

use super::{Parsed, Parser};
use crate::diagnostic::Diagnostic;
use crate::syntax::lexer::Token;
use crate::syntax::{Causality, Class, ClassKind, Component, Dimension, Element, Ident, Modifier, Variability};

impl Parser<'_> {
    pub(super) fn class(&mut self) -> Parsed<Class> {
        self.deeper(Self::class_inner)
    }

    pub(super) fn class_inner(&mut self) -> Parsed<Class> {
        let start = self.span();
        for word in [
            "encapsulated",
            "replaceable",
            "redeclare",
            "expandable",
            "operator",
            "impure",
        ] {
            if self.is(word) {
                return Err(self.refuse(word));
            }
        }
        let mut partial = false;
        while self.is("partial") || self.is("pure") || self.is("final") {
            partial |= self.is("partial");
            self.at += 1;
        }
        let kind = match self.peek() {
            Token::Name(name) => match name.as_str() {
                "model" | "class" => ClassKind::Model,
                "block" => ClassKind::Block,
                "connector" => ClassKind::Connector,
                "function" => ClassKind::Function,
                "record" => ClassKind::Record,
                "package" => ClassKind::Package,
                "type" => ClassKind::Type,
                other => {
                    let message = format!("expected `model`, found `{other}`");
                    return Err(self
                        .error_here("syntax", message)
                        .remedy("a file consists of `model Name … end Name;`"));
                }
            },
            other => {
                let message = format!("expected `model`, found {}", other.describe());
                return Err(self
                    .error_here("syntax", message)
                    .remedy("a file consists of `model Name … end Name;`"));
            }
        };
        self.at += 1;
        let name = self.new_name("the name of the class")?;
        let mut class = Class {
            kind,
            name,
            description: String::new(),
            elements: Vec::new(),
            equations: Vec::new(),
            initial_equations: Vec::new(),
            algorithms: Vec::new(),
            alias: None,
            partial,
            alias_causality: Causality::Local,
            span: start,
        };
        if self.eat("=") {
            if self.is("enumeration") {
                return Err(self.refuse("enumeration"));
            }
            if self.eat("input") {
                class.alias_causality = Causality::Input;
            } else if self.eat("output") {
                class.alias_causality = Causality::Output;
            }
            let base = self.type_name()?;
            if self.is("[") {
                let error = self.error_here("unsupported", "a type that abbreviates an array is outside the subset");
                return Err(error.remedy("write the size where the variable is declared: `Real x[3]`"));
            }
            let modifiers = self.modification()?;
            class.alias = Some((base, modifiers));
            class.description = self.description()?;
            class.span = start.to(self.last_span());
            return Ok(class);
        }
        class.description = self.strings()?;
        self.sections(&mut class)?;
        self.check_declared_once(class.elements.iter().filter_map(|element| match element {
            Element::Class(inner) => Some(&**inner),
            _ => None,
        }))?;
        self.expect("end", "at the end of the class")?;
        let end = self.ident("the name of the class after `end`")?;
        if end.text != class.name.text {
            let message = format!("`end {}` closes `{}`", end.text, class.name.text);
            return Err(self
                .error(end.span, "end-name", message)
                .note(self.source, class.name.span.start, "it begins here")
                .remedy(format!("write `end {}`", class.name.text)));
        }
        class.span = start.to(end.span);
        Ok(class)
    }

    pub(super) fn sections(&mut self, class: &mut Class) -> Parsed<()> {
        let mut protected = false;
        loop {
            if self.is("end") {
                return Ok(());
            }
            if self.is("annotation") {
                self.annotation()?;
                self.expect(";", "after an annotation")?;
            } else if self.eat("public") {
                protected = false;
            } else if self.eat("protected") {
                protected = true;
            } else if self.eat("equation") {
                self.equations(&mut class.equations)?;
            } else if self.is("initial") && self.is_at(1, "algorithm") {
                let error = self.error_here("unsupported", "`initial algorithm` is outside the subset");
                return Err(error.remedy("write an `initial equation`, or `start` values with `fixed = true`"));
            } else if self.is("initial") && self.is_at(1, "equation") {
                self.at += 2;
                self.equations(&mut class.initial_equations)?;
            } else if self.eat("algorithm") {
                let mut statements = Vec::new();
                self.statements(&mut statements)?;
                class.algorithms.push(statements);
            } else {
                self.element(class, protected)?;
            }
        }
    }

    pub(super) fn refuse(&self, word: &str) -> Diagnostic {
        let message = format!("`{word}` is outside the subset of Modelica that is read here");
        self.error_here("unsupported", message)
            .remedy("docs/guides/modelica-subset.md lists what is read")
    }

    pub(super) fn element(&mut self, class: &mut Class, protected: bool) -> Parsed<()> {
        for word in [
            "import",
            "replaceable",
            "redeclare",
            "inner",
            "outer",
            "stream",
            "external",
            "initial",
            "encapsulated",
        ] {
            if self.is(word) {
                return Err(self.refuse(word));
            }
        }
        if self.is("end") || *self.peek() == Token::End {
            return Err(self.error_here("syntax", "the class has no `end`"));
        }
        if self.eat("extends") {
            let base = self.type_name()?;
            let modifiers = self.modification()?;
            self.annotation()?;
            self.expect(";", "after `extends`")?;
            class.elements.push(Element::Extends { base, modifiers });
            return Ok(());
        }
        let opens_class = [
            "model",
            "block",
            "connector",
            "function",
            "record",
            "package",
            "type",
            "class",
            "partial",
            "pure",
        ]
        .iter()
        .any(|word| self.is(word));
        if opens_class {
            let inner = self.class()?;
            self.expect(";", "after the end of a class")?;
            class.elements.push(Element::Class(Box::new(inner)));
            return Ok(());
        }
        self.components(class, protected)
    }

    pub(super) fn components(&mut self, class: &mut Class, protected: bool) -> Parsed<()> {
        let start = self.span();
        let mut variability = Variability::Continuous;
        let mut causality = Causality::Local;
        let mut flow = false;
        let is_final = self.eat("final");
        loop {
            if self.eat("parameter") {
                variability = Variability::Parameter;
            } else if self.eat("constant") {
                variability = Variability::Constant;
            } else if self.eat("discrete") {
                variability = Variability::Discrete;
            } else if self.eat("input") {
                causality = Causality::Input;
            } else if self.eat("output") {
                causality = Causality::Output;
            } else if self.eat("flow") {
                flow = true;
            } else {
                break;
            }
        }
        let type_name = self.type_name()?;
        let shared = self.dimensions()?;
        loop {
            let name = self.new_name("the name of a variable")?;
            let mut dimensions = self.dimensions()?;
            dimensions.extend(shared.iter().cloned());
            let modifiers = self.modification()?;
            let binding = if self.eat("=") || self.eat(":=") {
                Some(self.expr()?)
            } else {
                None
            };
            let condition = if self.eat("if") { Some(self.expr()?) } else { None };
            let description = self.description()?;
            let span = start.to(self.last_span());
            class.elements.push(Element::Component(Box::new(Component {
                variability,
                causality,
                flow,
                protected,
                is_final,
                type_name: type_name.clone(),
                name,
                dimensions,
                modifiers,
                binding,
                condition,
                description,
                span,
            })));
            if !self.eat(",") {
                break;
            }
        }
        self.expect(";", "after a declaration")
    }

    /// A name that is declared here: those of the built-in types are taken (4.9).
    fn new_name(&mut self, what: &str) -> Parsed<Ident> {
        let name = self.ident(what)?;
        if !["Real", "Integer", "Boolean", "String"].contains(&name.text.as_str()) {
            return Ok(name);
        }
        let error = self.error(name.span, "duplicate", format!("`{}` is a built-in type", name.text));
        Err(error.remedy("choose another name"))
    }

    pub(super) fn dimensions(&mut self) -> Parsed<Vec<Dimension>> {
        let mut dimensions = Vec::new();
        if self.eat("[") {
            loop {
                dimensions.push(if self.eat(":") {
                    Dimension::Any
                } else {
                    Dimension::Size(self.expr()?)
                });
                if !self.eat(",") {
                    break;
                }
            }
            self.expect("]", "after dimensions")?;
        }
        Ok(dimensions)
    }

    pub(super) fn modification(&mut self) -> Parsed<Vec<Modifier>> {
        if !self.is("(") {
            return Ok(Vec::new());
        }
        let inside = std::mem::replace(&mut self.modifying, true);
        let modifiers = self.deeper(Self::modification_inner)?;
        self.modifying = inside;
        if !inside {
            self.check_modified_once(&modifiers)?;
        }
        Ok(modifiers)
    }

    pub(super) fn modification_inner(&mut self) -> Parsed<Vec<Modifier>> {
        let mut modifiers = Vec::new();
        self.expect("(", "before modifications")?;
        while !self.eat(")") {
            for word in ["redeclare", "replaceable"] {
                if self.is(word) {
                    return Err(self.refuse(word));
                }
            }
            let each = self.eat("each");
            let is_final = self.eat("final");
            let mut names = vec![self.ident("the name of an attribute")?];
            while self.eat(".") {
                names.push(self.ident("a name after `.`")?);
            }
            let nested = self.modification()?;
            let value = if self.eat("=") { Some(self.expr()?) } else { None };
            if let Token::Text(_) = self.peek() {
                self.at += 1;
            }
            let mut names = names.into_iter().rev();
            if let Some(name) = names.next() {
                let innermost = Modifier {
                    name,
                    value,
                    nested,
                    is_final,
                    each,
                };
                let whole = names.fold(innermost, |inner, name| Modifier {
                    name,
                    value: None,
                    nested: vec![inner],
                    is_final: false,
                    each,
                });
                modifiers.push(whole);
            }
            if !self.eat(",") && !self.is(")") {
                let message = format!(
                    "expected `,` or `)` in a modification, found {}",
                    self.peek().describe()
                );
                return Err(self.error_here("syntax", message));
            }
        }
        Ok(modifiers)
    }

    /// Two arguments of a modification shall not give the same thing a value (7.2.4).
    fn check_modified_once(&self, modifiers: &[Modifier]) -> Parsed<()> {
        let mut paths = BTreeMap::new();
        let mut open: Vec<(String, &Modifier)> = modifiers.iter().rev().map(|one| (String::new(), one)).collect();
        while let Some((around, modifier)) = open.pop() {
            let path = format!("{around}{}", modifier.name.text);
            let inner = modifier.nested.iter().rev();
            open.extend(inner.map(|one| (format!("{path}."), one)));
            if modifier.value.is_none() {
                continue;
            }
            if let Some(first) = paths.insert(path.clone(), modifier.name.span) {
                let error = self.error(modifier.name.span, "duplicate", format!("`{path}` is modified twice"));
                let error = error.note(self.source, first.start, "here it is modified first");
                return Err(error.remedy("remove one of the two"));
            }
        }
        Ok(())
    }

    /// Refuses a second class of one name.
    pub(super) fn check_declared_once<'c>(&self, classes: impl Iterator<Item = &'c Class>) -> Parsed<()> {
        let mut places = BTreeMap::new();
        for Class { name, .. } in classes {
            if let Some(first) = places.insert(name.text.as_str(), name.span) {
                let message = format!("the class `{}` is declared twice", name.text);
                let error = self.error(name.span, "duplicate", message);
                let error = error.note(self.source, first.start, "it is declared first here");
                return Err(error.remedy("rename one of them"));
            }
        }
        Ok(())
    }
}
