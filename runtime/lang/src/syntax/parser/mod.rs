//! Recursive descent over tokens. What the grammar of the subset does not name is refused, by name where it is known
//! Modelica.

mod class;
mod equation;
mod expression;

use super::lexer::{Token, tokenize};
use super::{Class, Ident, Span};
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

/// How many branches one `if` or `when` may have.
const MAX_BRANCHES: usize = 200;

/// The classes of a file, in their order.
pub fn parse(source: &str, file: &str) -> Result<Vec<Class>, Diagnostic> {
    let tokens = tokenize(source, file)?;
    let mut parser = Parser {
        source,
        file,
        tokens,
        at: 0,
        nesting: 0,
        modifying: false,
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
    parser.check_declared_once(classes.iter())?;
    Ok(classes)
}

type Parsed<T> = Result<T, Diagnostic>;

struct Parser<'a> {
    source: &'a str,
    file: &'a str,
    tokens: Vec<(Token, Span)>,
    at: usize,
    nesting: u32,
    /// Inside the parentheses of a modification.
    modifying: bool,
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

    fn check_branches(&self, count: usize) -> Parsed<()> {
        if count <= MAX_BRANCHES {
            return Ok(());
        }
        let message = format!("this has more than {MAX_BRANCHES} branches");
        Err(self
            .error_here("too-deep", message)
            .remedy("split it, or choose by an index"))
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

    /// A description string with the annotation that may follow it.
    fn description(&mut self) -> Parsed<String> {
        let text = self.strings()?;
        self.annotation()?;
        Ok(text)
    }

    /// `"text" + "text"…`, or nothing.
    fn strings(&mut self) -> Parsed<String> {
        let mut text = String::new();
        let mut more = matches!(self.peek(), Token::Text(_));
        while more {
            let Token::Text(part) = self.bump()? else {
                self.at -= 1;
                return Err(self.error_here(
                    "syntax",
                    format!("expected a string after `+`, found {}", self.peek().describe()),
                ));
            };
            text.push_str(&part);
            more = self.eat("+");
        }
        Ok(text)
    }

    /// Annotations have no influence on what a model means: they are read over.
    fn annotation(&mut self) -> Parsed<()> {
        if !self.eat("annotation") {
            return Ok(());
        }
        let start = self.last_span();
        if !self.is("(") {
            return Err(self.error_here(
                "syntax",
                format!("expected `(` after `annotation`, found {}", self.peek().describe()),
            ));
        }
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
}
