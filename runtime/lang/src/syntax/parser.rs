//! Recursive descent over tokens. What the grammar of the subset does not name is refused, by name where it is known
//! Modelica.

use super::lexer::{Token, tokenize};
use super::{
    BinaryOp, Causality, Class, ClassKind, Component, Dimension, Element, Equation, Expr, ExprKind, Ident, Modifier,
    Part, Span, Statement, UnaryOp, Variability,
};
use crate::diagnostic::Diagnostic;

/// How deep expressions, sections and modifications may nest: deep enough for any model, shallow enough for any stack.
const MAX_NESTING: u32 = 100;

/// Words that Modelica knows and that may not be names.
const KEYWORDS: [&str; 60] = [
    "algorithm",
    "and",
    "annotation",
    "assert",
    "block",
    "break",
    "class",
    "connect",
    "connector",
    "constant",
    "constrainedby",
    "der",
    "discrete",
    "each",
    "else",
    "elseif",
    "elsewhen",
    "encapsulated",
    "end",
    "enumeration",
    "equation",
    "expandable",
    "extends",
    "external",
    "false",
    "final",
    "flow",
    "for",
    "function",
    "if",
    "import",
    "impure",
    "in",
    "initial",
    "inner",
    "input",
    "loop",
    "model",
    "not",
    "operator",
    "or",
    "outer",
    "output",
    "package",
    "parameter",
    "partial",
    "protected",
    "public",
    "pure",
    "record",
    "redeclare",
    "replaceable",
    "return",
    "stream",
    "then",
    "true",
    "type",
    "when",
    "while",
    "within",
];

/// How many operators one chain such as `a + b + c + …` may have.
const MAX_CHAIN: u32 = 2000;

/// The classes of a file, in their order.
pub fn parse(source: &str, file: &str) -> Result<Vec<Class>, Diagnostic> {
    let tokens = tokenize(source, file)?;
    let mut parser = Parser {
        source,
        file,
        tokens,
        at: 0,
        nesting: 0,
    };
    let mut classes = Vec::new();
    if parser.eat("within") {
        while !parser.eat(";") {
            parser.bump()?;
        }
    }
    while *parser.peek() != Token::End {
        classes.push(parser.class()?);
        parser.expect(";", "after the end of a class")?;
    }
    if classes.is_empty() {
        return Err(parser
            .error_here("empty", "the file holds no model")
            .remedy("write `model Name … end Name;`"));
    }
    Ok(classes)
}

type Parsed<T> = Result<T, Diagnostic>;

struct Parser<'a> {
    source: &'a str,
    file: &'a str,
    tokens: Vec<(Token, Span)>,
    at: usize,
    nesting: u32,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        self.peek_at(0)
    }

    fn peek_at(&self, ahead: usize) -> &Token {
        self.tokens.get(self.at + ahead).map_or(&Token::End, |(token, _)| token)
    }

    fn span(&self) -> Span {
        self.tokens
            .get(self.at.min(self.tokens.len().saturating_sub(1)))
            .map_or(Span::default(), |(_, span)| *span)
    }

    fn last_span(&self) -> Span {
        self.tokens
            .get(self.at.saturating_sub(1))
            .map_or(Span::default(), |(_, span)| *span)
    }

    fn error(&self, span: Span, code: &str, message: impl Into<String>) -> Diagnostic {
        Diagnostic::at(self.source, self.file, span.range(), code, message)
    }

    fn error_here(&self, code: &str, message: impl Into<String>) -> Diagnostic {
        self.error(self.span(), code, message)
    }

    fn bump(&mut self) -> Parsed<Token> {
        if *self.peek() == Token::End {
            return Err(self.error_here("syntax", "the file ends in the middle of something"));
        }
        let token = self.peek().clone();
        self.at += 1;
        Ok(token)
    }

    fn is(&self, text: &str) -> bool {
        self.is_at(0, text)
    }

    fn is_at(&self, ahead: usize, text: &str) -> bool {
        match self.peek_at(ahead) {
            Token::Name(name) => name == text,
            Token::Symbol(symbol) => *symbol == text,
            _ => false,
        }
    }

    fn eat(&mut self, text: &str) -> bool {
        let found = self.is(text);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, text: &str, place: &str) -> Parsed<()> {
        if self.eat(text) {
            return Ok(());
        }
        let message = format!("expected `{text}` {place}, found {}", self.peek().describe());
        // A missing `;` is best shown where the line before stops.
        let span = if text == ";" {
            Span {
                start: self.last_span().end,
                end: self.last_span().end,
            }
        } else {
            self.span()
        };
        Err(self.error(span, "syntax", message).remedy(format!("put `{text}` here")))
    }

    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.nesting >= MAX_NESTING {
            return Err(self
                .error_here("too-deep", format!("this nests deeper than {MAX_NESTING} levels"))
                .remedy("name an inner part by a variable of its own"));
        }
        self.nesting += 1;
        let result = inner(self);
        self.nesting -= 1;
        result
    }

    fn ident(&mut self, what: &str) -> Parsed<Ident> {
        match self.peek() {
            Token::Name(name) if KEYWORDS.contains(&name.as_str()) => {
                let message = format!("expected {what}, found the keyword `{name}`");
                Err(self.error_here("syntax", message).remedy("a keyword cannot be a name"))
            }
            Token::Name(name) => {
                let ident = Ident {
                    text: name.clone(),
                    span: self.span(),
                };
                self.at += 1;
                Ok(ident)
            }
            other => Err(self.error_here("syntax", format!("expected {what}, found {}", other.describe()))),
        }
    }

    /// `A.B.C` as one name.
    fn type_name(&mut self) -> Parsed<Ident> {
        let mut name = self.ident("a type")?;
        while self.is(".") {
            self.at += 1;
            let part = self.ident("a name after `.`")?;
            name.text = format!("{}.{}", name.text, part.text);
            name.span = name.span.to(part.span);
        }
        Ok(name)
    }

    fn description(&mut self) -> Parsed<String> {
        let mut text = String::new();
        if let Token::Text(first) = self.peek() {
            text = first.clone();
            self.at += 1;
            while self.eat("+") {
                if let Token::Text(more) = self.peek() {
                    text.push_str(more);
                    self.at += 1;
                }
            }
        }
        self.annotation()?;
        Ok(text)
    }

    /// Annotations have no influence on what a model means: they are read over.
    fn annotation(&mut self) -> Parsed<()> {
        if !self.eat("annotation") {
            return Ok(());
        }
        let start = self.last_span();
        let mut depth = 0_i64;
        loop {
            match self.peek() {
                Token::Symbol("(" | "{" | "[") => depth += 1,
                Token::Symbol(")" | "}" | "]") => depth -= 1,
                Token::End => {
                    return Err(self.error(start, "syntax", "this annotation has no end"));
                }
                _ => {}
            }
            self.at += 1;
            if depth <= 0 {
                return Ok(());
            }
        }
    }

    fn class(&mut self) -> Parsed<Class> {
        self.deeper(Self::class_inner)
    }

    fn class_inner(&mut self) -> Parsed<Class> {
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
        while self.eat("partial") || self.eat("pure") || self.eat("final") {}
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
        let name = self.ident("the name of the class")?;
        let mut class = Class {
            kind,
            name,
            description: String::new(),
            elements: Vec::new(),
            equations: Vec::new(),
            initial_equations: Vec::new(),
            algorithm: Vec::new(),
            alias: None,
            span: start,
        };
        if self.eat("=") {
            if self.is("enumeration") {
                return Err(self.refuse("enumeration"));
            }
            while self.eat("input") || self.eat("output") {}
            let base = self.type_name()?;
            let modifiers = self.modification()?;
            class.alias = Some((base, modifiers));
            class.description = self.description()?;
            class.span = start.to(self.last_span());
            return Ok(class);
        }
        class.description = self.description()?;
        self.sections(&mut class)?;
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

    fn sections(&mut self, class: &mut Class) -> Parsed<()> {
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
            } else if self.is("initial") && self.is_at(1, "equation") {
                self.at += 2;
                self.equations(&mut class.initial_equations)?;
            } else if self.eat("algorithm") {
                let start = self.last_span();
                if class.kind != ClassKind::Function {
                    return Err(self
                        .error(
                            start,
                            "unsupported",
                            "algorithm sections are only read inside functions",
                        )
                        .remedy("write equations, or move the algorithm into a function"));
                }
                self.statements(&mut class.algorithm)?;
            } else {
                self.element(class, protected)?;
            }
        }
    }

    fn refuse(&self, word: &str) -> Diagnostic {
        let message = format!("`{word}` is outside the subset of Modelica that is read here");
        self.error_here("unsupported", message)
            .remedy("docs/guides/modelica-subset.md lists what is read")
    }

    fn element(&mut self, class: &mut Class, protected: bool) -> Parsed<()> {
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

    fn components(&mut self, class: &mut Class, protected: bool) -> Parsed<()> {
        let start = self.span();
        let mut variability = Variability::Continuous;
        let mut causality = Causality::Local;
        let mut flow = false;
        self.eat("final");
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
            let name = self.ident("the name of a variable")?;
            let mut dimensions = self.dimensions()?;
            dimensions.extend(shared.iter().cloned());
            let modifiers = self.modification()?;
            let binding = if self.eat("=") || self.eat(":=") {
                Some(self.expr()?)
            } else {
                None
            };
            if self.is("if") {
                return Err(self.error_here("unsupported", "conditional components are outside the subset"));
            }
            let description = self.description()?;
            let span = start.to(self.last_span());
            class.elements.push(Element::Component(Box::new(Component {
                variability,
                causality,
                flow,
                protected,
                type_name: type_name.clone(),
                name,
                dimensions,
                modifiers,
                binding,
                description,
                span,
            })));
            if !self.eat(",") {
                break;
            }
        }
        self.expect(";", "after a declaration")
    }

    fn dimensions(&mut self) -> Parsed<Vec<Dimension>> {
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

    fn modification(&mut self) -> Parsed<Vec<Modifier>> {
        if self.is("(") {
            self.deeper(Self::modification_inner)
        } else {
            Ok(Vec::new())
        }
    }

    fn modification_inner(&mut self) -> Parsed<Vec<Modifier>> {
        let mut modifiers = Vec::new();
        self.expect("(", "before modifications")?;
        while !self.eat(")") {
            for word in ["redeclare", "replaceable"] {
                if self.is(word) {
                    return Err(self.refuse(word));
                }
            }
            while self.eat("each") || self.eat("final") {}
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
                let innermost = Modifier { name, value, nested };
                let whole = names.fold(innermost, |inner, name| Modifier {
                    name,
                    value: None,
                    nested: vec![inner],
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

    fn section_ends(&self) -> bool {
        let words = [
            "end",
            "equation",
            "algorithm",
            "public",
            "protected",
            "annotation",
            "elseif",
            "else",
            "elsewhen",
        ];
        words.iter().any(|word| self.is(word))
            || (self.is("initial") && self.is_at(1, "equation"))
            || *self.peek() == Token::End
    }

    fn equations(&mut self, out: &mut Vec<Equation>) -> Parsed<()> {
        while !self.section_ends() {
            let equation = self.deeper(Self::equation)?;
            out.push(equation);
            self.description()?;
            self.expect(";", "after an equation")?;
        }
        Ok(())
    }

    fn equation(&mut self) -> Parsed<Equation> {
        let start = self.span();
        if self.eat("if") {
            let mut branches = Vec::new();
            let mut otherwise = Vec::new();
            loop {
                let condition = self.expr()?;
                self.expect("then", "after the condition")?;
                let mut body = Vec::new();
                self.equations(&mut body)?;
                branches.push((condition, body));
                if !self.eat("elseif") {
                    break;
                }
            }
            if self.eat("else") {
                self.equations(&mut otherwise)?;
            }
            self.close("if")?;
            return Ok(Equation::If {
                branches,
                otherwise,
                span: start.to(self.last_span()),
            });
        }
        if self.eat("when") {
            let mut branches = Vec::new();
            loop {
                let condition = self.expr()?;
                self.expect("then", "after the condition")?;
                let mut body = Vec::new();
                self.equations(&mut body)?;
                branches.push((condition, body));
                if !self.eat("elsewhen") {
                    break;
                }
            }
            self.close("when")?;
            return Ok(Equation::When {
                branches,
                span: start.to(self.last_span()),
            });
        }
        if self.eat("for") {
            let indices = self.for_indices()?;
            self.expect("loop", "after the range")?;
            let mut body = Vec::new();
            self.equations(&mut body)?;
            self.close("for")?;
            let span = start.to(self.last_span());
            let nested = indices.into_iter().rev().fold(body, |body, (index, range)| {
                vec![Equation::For {
                    index,
                    range,
                    body,
                    span,
                }]
            });
            return nested
                .into_iter()
                .next()
                .ok_or_else(|| self.error(span, "syntax", "a `for` needs an index"));
        }
        if self.eat("connect") {
            self.expect("(", "after `connect`")?;
            let left = self.expr()?;
            self.expect(",", "between the connectors")?;
            let right = self.expr()?;
            self.expect(")", "after the connectors")?;
            return Ok(Equation::Connect {
                left,
                right,
                span: start.to(self.last_span()),
            });
        }
        let left = self.expr()?;
        if self.is("=") {
            self.at += 1;
            let right = self.expr()?;
            return Ok(Equation::Equal {
                span: left.span.to(right.span),
                left,
                right,
            });
        }
        if matches!(left.kind, ExprKind::Call { .. }) {
            return Ok(Equation::Call { call: left });
        }
        let mut error = self.error_here(
            "syntax",
            format!("expected `=` in an equation, found {}", self.peek().describe()),
        );
        if self.is(":=") {
            error = error.remedy("an equation is written with `=`; `:=` assigns in a function's algorithm");
        } else if self.is("==") {
            error = error.remedy("an equation is written with `=`; `==` compares");
        }
        Err(error)
    }

    fn close(&mut self, word: &str) -> Parsed<()> {
        self.expect("end", &format!("at the end of `{word}`"))?;
        self.expect(word, "after `end`")
    }

    fn for_indices(&mut self) -> Parsed<Vec<(Ident, Option<Expr>)>> {
        let mut indices = Vec::new();
        loop {
            let index = self.ident("an index")?;
            let range = if self.eat("in") { Some(self.expr()?) } else { None };
            indices.push((index, range));
            if !self.eat(",") {
                return Ok(indices);
            }
        }
    }

    fn statements(&mut self, out: &mut Vec<Statement>) -> Parsed<()> {
        while !self.section_ends() {
            let statement = self.deeper(Self::statement)?;
            out.push(statement);
            self.description()?;
            self.expect(";", "after a statement")?;
        }
        Ok(())
    }

    fn statement(&mut self) -> Parsed<Statement> {
        let start = self.span();
        if self.eat("if") {
            let mut branches = Vec::new();
            let mut otherwise = Vec::new();
            loop {
                let condition = self.expr()?;
                self.expect("then", "after the condition")?;
                let mut body = Vec::new();
                self.statements(&mut body)?;
                branches.push((condition, body));
                if !self.eat("elseif") {
                    break;
                }
            }
            if self.eat("else") {
                self.statements(&mut otherwise)?;
            }
            self.close("if")?;
            return Ok(Statement::If {
                branches,
                otherwise,
                span: start.to(self.last_span()),
            });
        }
        if self.eat("for") {
            let indices = self.for_indices()?;
            self.expect("loop", "after the range")?;
            let mut body = Vec::new();
            self.statements(&mut body)?;
            self.close("for")?;
            let span = start.to(self.last_span());
            let nested = indices.into_iter().rev().fold(body, |body, (index, range)| {
                vec![Statement::For {
                    index,
                    range,
                    body,
                    span,
                }]
            });
            return nested
                .into_iter()
                .next()
                .ok_or_else(|| self.error(span, "syntax", "a `for` needs an index"));
        }
        if self.eat("while") {
            return Err(self
                .error(
                    start,
                    "unsupported",
                    "`while` loops are outside the subset: their length is not known when compiling",
                )
                .remedy("use `for` with a range of parameters"));
        }
        if self.eat("return") {
            return Ok(Statement::Return { span: start });
        }
        if self.eat("break") {
            return Ok(Statement::Break { span: start });
        }
        if self.eat("when") {
            return Err(self.error(start, "unsupported", "`when` is not allowed in a function"));
        }
        let target = self.expr()?;
        if self.eat(":=") {
            let value = self.expr()?;
            return Ok(Statement::Assign {
                span: target.span.to(value.span),
                target,
                value,
            });
        }
        if matches!(target.kind, ExprKind::Call { .. }) {
            return Ok(Statement::Call { call: target });
        }
        let error = self.error_here("syntax", format!("expected `:=`, found {}", self.peek().describe()));
        Err(error.remedy("a statement assigns with `:=`"))
    }

    fn expr(&mut self) -> Parsed<Expr> {
        self.deeper(Self::expr_inner)
    }

    fn expr_inner(&mut self) -> Parsed<Expr> {
        let start = self.span();
        if self.eat("if") {
            let mut branches = Vec::new();
            loop {
                let condition = self.expr()?;
                self.expect("then", "after the condition")?;
                branches.push((condition, self.expr()?));
                if !self.eat("elseif") {
                    break;
                }
            }
            self.expect("else", "in an if-expression")?;
            let otherwise = Box::new(self.expr()?);
            let span = start.to(otherwise.span);
            return Ok(Expr {
                kind: ExprKind::If { branches, otherwise },
                span,
            });
        }
        let first = self.operators(0)?;
        if !self.is(":") {
            return Ok(first);
        }
        self.at += 1;
        let second = self.operators(0)?;
        let (step, to) = if self.eat(":") {
            (Some(Box::new(second)), self.operators(0)?)
        } else {
            (None, second)
        };
        let span = first.span.to(to.span);
        Ok(Expr {
            kind: ExprKind::Range {
                from: Box::new(first),
                step,
                to: Box::new(to),
            },
            span,
        })
    }

    /// Binary operators by precedence climbing; `level` is the lowest that may be taken.
    fn operators(&mut self, level: u8) -> Parsed<Expr> {
        let start = self.span();
        let mut left = if level <= 2 && self.is("not") {
            self.at += 1;
            let operand = self.deeper(|parser| parser.operators(3))?;
            let span = start.to(operand.span);
            Expr {
                kind: ExprKind::Unary(UnaryOp::Not, Box::new(operand)),
                span,
            }
        } else if level <= 4 && (self.is("-") || self.is("+") || self.is(".-") || self.is(".+")) {
            let op = if self.is("-") || self.is(".-") {
                UnaryOp::Minus
            } else {
                UnaryOp::Plus
            };
            self.at += 1;
            let operand = self.deeper(|parser| parser.operators(5))?;
            let span = start.to(operand.span);
            Expr {
                kind: ExprKind::Unary(op, Box::new(operand)),
                span,
            }
        } else {
            self.primary()?
        };
        let mut links = 0;
        loop {
            let Some((op, precedence)) = self.operator() else {
                return Ok(left);
            };
            if precedence < level {
                return Ok(left);
            }
            links += 1;
            if links > MAX_CHAIN {
                let error = self.error_here("too-deep", format!("this chain has more than {MAX_CHAIN} operators"));
                return Err(error.remedy("name parts of it, or use `sum({…})`"));
            }
            self.at += 1;
            let right = self.deeper(|parser| parser.operators(precedence + 1))?;
            if precedence == 3 && self.operator().is_some_and(|(_, next)| next == 3) {
                return Err(self
                    .error_here("syntax", "comparisons cannot be chained")
                    .remedy("join two comparisons with `and`"));
            }
            if precedence == 6 && self.operator().is_some_and(|(_, next)| next == 6) {
                let error = self.error_here("syntax", "`^` cannot be chained: `a ^ b ^ c` is ambiguous");
                return Err(error.remedy("use parentheses"));
            }
            let span = left.span.to(right.span);
            left = Expr {
                kind: ExprKind::Binary(op, Box::new(left), Box::new(right)),
                span,
            };
        }
    }

    fn operator(&self) -> Option<(BinaryOp, u8)> {
        Some(match self.peek() {
            Token::Name(name) if name == "or" => (BinaryOp::Or, 0),
            Token::Name(name) if name == "and" => (BinaryOp::And, 1),
            Token::Symbol(symbol) => match *symbol {
                "<" => (BinaryOp::Less, 3),
                "<=" => (BinaryOp::LessEqual, 3),
                ">" => (BinaryOp::Greater, 3),
                ">=" => (BinaryOp::GreaterEqual, 3),
                "==" => (BinaryOp::Equal, 3),
                "<>" => (BinaryOp::NotEqual, 3),
                "+" => (BinaryOp::Add, 4),
                "-" => (BinaryOp::Sub, 4),
                ".+" => (BinaryOp::ElementAdd, 4),
                ".-" => (BinaryOp::ElementSub, 4),
                "*" => (BinaryOp::Mul, 5),
                "/" => (BinaryOp::Div, 5),
                ".*" => (BinaryOp::ElementMul, 5),
                "./" => (BinaryOp::ElementDiv, 5),
                "^" => (BinaryOp::Pow, 6),
                ".^" => (BinaryOp::ElementPow, 6),
                _ => return None,
            },
            _ => return None,
        })
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let start = self.span();
        let kind = match self.peek().clone() {
            Token::Number(value) => {
                self.at += 1;
                ExprKind::Number(value)
            }
            Token::Text(text) => {
                self.at += 1;
                ExprKind::Text(text)
            }
            Token::Symbol("(") => {
                self.at += 1;
                let inner = self.expr()?;
                if self.is(",") {
                    return Err(self.error_here("unsupported", "tuples of several results are outside the subset"));
                }
                self.expect(")", "to close this parenthesis")?;
                return Ok(Expr {
                    kind: inner.kind,
                    span: start.to(self.last_span()),
                });
            }
            Token::Symbol("{") => self.deeper(Self::array)?,
            Token::Symbol("[") => self.deeper(Self::matrix)?,
            Token::Name(name) if name == "true" || name == "false" => {
                self.at += 1;
                ExprKind::Boolean(name == "true")
            }
            Token::Name(name) if name == "end" => {
                self.at += 1;
                ExprKind::End
            }
            Token::Name(name) if ["der", "initial", "assert"].contains(&name.as_str()) && self.is_at(1, "(") => {
                self.at += 1;
                return self.call(Ident {
                    text: name,
                    span: start,
                });
            }
            Token::Name(_) | Token::Symbol(".") => return self.reference(),
            other => {
                let message = format!("expected an expression, found {}", other.describe());
                return Err(self.error_here("syntax", message));
            }
        };
        Ok(Expr {
            kind,
            span: start.to(self.last_span()),
        })
    }

    fn array(&mut self) -> Parsed<ExprKind> {
        self.at += 1;
        let mut items = Vec::new();
        while !self.eat("}") {
            items.push(self.expr()?);
            if items.len() == 1 && self.eat("for") {
                let mut indices = self.for_indices()?;
                self.expect("}", "after the range")?;
                let (Some((index, Some(range))), true) = (indices.pop(), indices.is_empty()) else {
                    return Err(self.error_here("unsupported", "an array constructor takes one index with its range"));
                };
                let body = Box::new(items.swap_remove(0));
                return Ok(ExprKind::Comprehension {
                    body,
                    index,
                    range: Box::new(range),
                });
            }
            if !self.eat(",") && !self.is("}") {
                return Err(self.error_here(
                    "syntax",
                    format!("expected `,` or `}}`, found {}", self.peek().describe()),
                ));
            }
        }
        Ok(ExprKind::Array(items))
    }

    fn matrix(&mut self) -> Parsed<ExprKind> {
        self.at += 1;
        let mut rows = vec![Vec::new()];
        loop {
            let item = self.expr()?;
            if let Some(row) = rows.last_mut() {
                row.push(item);
            }
            if self.eat(";") {
                rows.push(Vec::new());
            } else if self.eat("]") {
                return Ok(ExprKind::Matrix(rows));
            } else {
                self.expect(",", "between the elements of a matrix")?;
            }
        }
    }

    fn reference(&mut self) -> Parsed<Expr> {
        let start = self.span();
        self.eat(".");
        let mut parts = Vec::new();
        loop {
            let name = self.ident("an expression")?;
            if self.is("(") {
                let mut function = name;
                for part in parts.iter().rev() {
                    let part: &Part = part;
                    function.text = format!("{}.{}", part.name.text, function.text);
                }
                function.span = start.to(function.span);
                return self.call(function);
            }
            let subscripts = if self.is("[") {
                self.deeper(Self::subscripts)?
            } else {
                Vec::new()
            };
            parts.push(Part { name, subscripts });
            if !self.eat(".") {
                return Ok(Expr {
                    kind: ExprKind::Reference(parts),
                    span: start.to(self.last_span()),
                });
            }
        }
    }

    fn subscripts(&mut self) -> Parsed<Vec<Expr>> {
        self.at += 1;
        let mut subscripts = Vec::new();
        loop {
            if self.is(":") {
                let span = self.span();
                self.at += 1;
                subscripts.push(Expr {
                    kind: ExprKind::All,
                    span,
                });
            } else {
                subscripts.push(self.expr()?);
            }
            if self.eat("]") {
                return Ok(subscripts);
            }
            self.expect(",", "between subscripts")?;
        }
    }

    fn call(&mut self, function: Ident) -> Parsed<Expr> {
        self.deeper(|parser| parser.call_inner(function))
    }

    fn call_inner(&mut self, function: Ident) -> Parsed<Expr> {
        let start = function.span;
        self.expect("(", "before the arguments")?;
        let mut arguments = Vec::new();
        let mut named = Vec::new();
        while !self.eat(")") {
            if matches!(self.peek(), Token::Name(_)) && self.is_at(1, "=") {
                let name = self.ident("an argument")?;
                self.at += 1;
                named.push((name, self.expr()?));
            } else {
                arguments.push(self.expr()?);
                if arguments.len() == 1 && self.eat("for") {
                    let mut indices = self.for_indices()?;
                    let (Some((index, Some(range))), true) = (indices.pop(), indices.is_empty()) else {
                        return Err(self.error_here("unsupported", "a reduction takes one index with its range"));
                    };
                    let body = arguments.swap_remove(0);
                    let span = body.span.to(range.span);
                    let kind = ExprKind::Comprehension {
                        body: Box::new(body),
                        index,
                        range: Box::new(range),
                    };
                    arguments.push(Expr { kind, span });
                }
            }
            if !self.eat(",") && !self.is(")") {
                let message = format!(
                    "expected `,` or `)` after an argument, found {}",
                    self.peek().describe()
                );
                return Err(self.error_here("syntax", message));
            }
        }
        let span = start.to(self.last_span());
        Ok(Expr {
            kind: ExprKind::Call {
                function,
                arguments,
                named,
            },
            span,
        })
    }
}
