//! The formatter: one statement a line, two spaces a level, comments where they were.
//!
//! It works on tokens and on the comments between them, so it cannot change what a text means: the tokens come out as
//! they went in. Where an author breaks a statement into lines, the breaks stay and the lines after the first are
//! indented once more. Blank lines stay, at most one at a time.

use crate::diagnostic::Diagnostic;
use crate::syntax::Span;
use crate::syntax::lexer::{Token, tokenize};
use crate::syntax::parser::parse;

/// The text of `source` as it is usually written; formatting it again changes nothing. A text that is not valid is not
/// formatted.
pub fn format(source: &str, file: &str) -> Result<String, Diagnostic> {
    parse(source, file)?;
    let mut writer = Writer {
        pieces: pieces(source, file)?,
        at: 0,
        out: String::new(),
        line: String::new(),
        level: 0,
    };
    let mut blocks = Vec::new();
    while writer.at < writer.pieces.len() {
        statement(&mut writer, &mut blocks);
    }
    writer.end_line();
    let same = |left: &[(Token, Span)], right: &[(Token, Span)]| {
        left.iter()
            .map(|(token, _)| token)
            .eq(right.iter().map(|(token, _)| token))
    };
    if !same(&tokenize(source, file)?, &tokenize(&writer.out, file)?) {
        let message = "formatting would change this text";
        return Err(Diagnostic::at(source, file, 0..0, "compiler-defect", message).remedy("please report it"));
    }
    Ok(writer.out)
}

/// A token or a comment.
#[derive(Debug, Clone)]
struct Piece<'a> {
    text: &'a str,
    kind: Kind,
    /// Line breaks before it.
    breaks: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Name,
    Number,
    Text,
    Symbol,
    LineComment,
    BlockComment,
}

impl Piece<'_> {
    fn is_comment(&self) -> bool {
        matches!(self.kind, Kind::LineComment | Kind::BlockComment)
    }

    fn is(&self, text: &str) -> bool {
        self.text == text && matches!(self.kind, Kind::Name | Kind::Symbol)
    }
}

fn pieces<'a>(source: &'a str, file: &str) -> Result<Vec<Piece<'a>>, Diagnostic> {
    let mut found = Vec::new();
    let mut end = usize::from(source.starts_with('\u{feff}')) * 3;
    for (token, span) in tokenize(source, file)? {
        let mut breaks = comments(source.get(end..span.start).unwrap_or(""), &mut found);
        if found.is_empty() {
            breaks = 0;
        }
        let kind = match token {
            Token::Name(_) => Kind::Name,
            Token::Number(_) => Kind::Number,
            Token::Text(_) => Kind::Text,
            Token::Symbol(_) => Kind::Symbol,
            Token::End => break,
        };
        let text = source.get(span.range()).unwrap_or("");
        found.push(Piece { text, kind, breaks });
        end = span.end;
    }
    Ok(found)
}

/// The comments in the space between two tokens; returns the line breaks after the last one.
fn comments<'a>(gap: &'a str, found: &mut Vec<Piece<'a>>) -> usize {
    let mut rest = gap;
    loop {
        let trimmed = rest.trim_start();
        let blank = &rest[..rest.len() - trimmed.len()];
        let breaks = blank.matches('\n').count();
        if trimmed.is_empty() {
            return breaks;
        }
        let (kind, length) = if trimmed.starts_with("//") {
            (Kind::LineComment, trimmed.find('\n').unwrap_or(trimmed.len()))
        } else {
            (
                Kind::BlockComment,
                trimmed.find("*/").map_or(trimmed.len(), |end| end + 2),
            )
        };
        found.push(Piece {
            text: trimmed[..length].trim_end(),
            kind,
            breaks,
        });
        rest = &trimmed[length..];
    }
}

struct Writer<'a> {
    pieces: Vec<Piece<'a>>,
    at: usize,
    out: String,
    line: String,
    level: usize,
}

impl<'a> Writer<'a> {
    /// The next token, over comments.
    fn peek(&self) -> Option<&Piece<'a>> {
        self.pieces.iter().skip(self.at).find(|piece| !piece.is_comment())
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if !line.trim_end().is_empty() {
            self.out.push_str(line.trim_end());
            self.out.push('\n');
        }
    }

    /// Begins a line at `level`, after a blank one where the author left one.
    fn begin(&mut self, level: usize, breaks: usize) {
        self.end_line();
        if breaks > 1 && !self.out.is_empty() {
            self.out.push('\n');
        }
        self.line = "  ".repeat(level);
    }

    /// Comments before the next statement, each on a line of its own unless it follows something on its line.
    fn leading_comments(&mut self, level: usize) {
        while let Some(piece) = self.pieces.get(self.at).filter(|piece| piece.is_comment()).cloned() {
            if piece.breaks == 0 && !self.out.is_empty() && self.line.trim().is_empty() {
                // Behind the statement before: on its line.
                self.out.truncate(self.out.trim_end_matches('\n').len());
                self.out.push(' ');
                self.out.push_str(piece.text);
                self.out.push('\n');
            } else {
                self.begin(level, piece.breaks);
                self.line.push_str(piece.text);
                self.end_line();
            }
            self.at += 1;
        }
    }

    /// Writes pieces up to and with the first one that `stop` names, as one statement at `level`.
    fn write_until(&mut self, level: usize, mut stop: impl FnMut(&Piece<'a>, usize) -> bool) {
        self.leading_comments(level);
        let mut previous: Option<Piece<'a>> = None;
        let mut before_previous: Option<Piece<'a>> = None;
        let mut depth = 0_usize;
        while let Some(piece) = self.pieces.get(self.at).cloned() {
            self.at += 1;
            let first = previous.is_none();
            if first {
                self.begin(level, piece.breaks);
            } else if piece.breaks > 0 || previous.as_ref().is_some_and(|piece| piece.kind == Kind::LineComment) {
                self.begin(level + 1, 1);
            } else if spaced(before_previous.as_ref(), previous.as_ref(), &piece) {
                self.line.push(' ');
            }
            self.line.push_str(piece.text);
            if piece.is_comment() {
                previous = Some(piece);
                continue;
            }
            match piece.text {
                "(" | "[" | "{" if piece.kind == Kind::Symbol => depth += 1,
                ")" | "]" | "}" if piece.kind == Kind::Symbol => depth = depth.saturating_sub(1),
                _ => {}
            }
            let ends = stop(&piece, depth);
            before_previous = previous.replace(piece);
            if ends {
                break;
            }
        }
        self.end_line();
    }
}

/// What is open around a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Class,
    /// `if`, `for`, `when`, `while`.
    Compound,
}

const CLASSES: [&str; 9] = [
    "model",
    "block",
    "connector",
    "function",
    "record",
    "package",
    "type",
    "class",
    "operator",
];
const PREFIXES: [&str; 9] = [
    "partial",
    "encapsulated",
    "final",
    "replaceable",
    "redeclare",
    "pure",
    "impure",
    "expandable",
    "inner",
];

fn statement(writer: &mut Writer<'_>, blocks: &mut Vec<Block>) {
    let Some(first) = writer.peek().cloned() else {
        let level = writer.level;
        writer.leading_comments(level);
        return;
    };
    let level = writer.level;
    let is_name = first.kind == Kind::Name;
    match first.text {
        "end" if is_name => {
            let inner = level;
            writer.leading_comments(inner);
            writer.level = level.saturating_sub(1);
            blocks.pop();
            let level = writer.level;
            writer.write_until(level, |piece, _| piece.is(";"));
        }
        "equation" | "algorithm" | "public" | "protected" | "initial"
            if is_name && blocks.last() != Some(&Block::Compound) && section(writer) =>
        {
            writer.leading_comments(level);
            let level = level.saturating_sub(1);
            writer.write_until(level, |piece, _| !piece.is("initial"));
        }
        "else" if is_name => {
            writer.leading_comments(level);
            writer.write_until(level.saturating_sub(1), |_, _| true);
        }
        "if" | "when" | "elseif" | "elsewhen" if is_name => {
            let opens = matches!(first.text, "if" | "when");
            let mut waiting = 0_usize;
            if !opens {
                writer.leading_comments(level);
            }
            let level = if opens { level } else { level.saturating_sub(1) };
            // Each `if` in the condition has a `then` of its own.
            writer.write_until(level, |piece, _| {
                if ["if", "when", "elseif", "elsewhen"].iter().any(|word| piece.is(word)) {
                    waiting += 1;
                } else if piece.is("then") {
                    waiting = waiting.saturating_sub(1);
                    return waiting == 0;
                }
                false
            });
            if opens {
                blocks.push(Block::Compound);
                writer.level += 1;
            }
        }
        "for" | "while" if is_name => {
            writer.write_until(level, |piece, _| piece.is("loop"));
            blocks.push(Block::Compound);
            writer.level += 1;
        }
        _ if opens_class(writer) => {
            let mut words = 0;
            let header = header_length(writer);
            writer.write_until(level, |_, _| {
                words += 1;
                words == header
            });
            blocks.push(Block::Class);
            writer.level += 1;
        }
        _ => writer.write_until(level, |piece, depth| depth == 0 && piece.is(";")),
    }
}

fn tokens<'w, 'a>(writer: &'w Writer<'a>) -> impl Iterator<Item = &'w Piece<'a>> {
    writer.pieces.iter().skip(writer.at).filter(|piece| !piece.is_comment())
}

/// Whether a section begins, and not a call such as `initial()`.
fn section(writer: &Writer<'_>) -> bool {
    let mut tokens = tokens(writer);
    match tokens.next() {
        Some(piece) if piece.is("initial") => tokens
            .next()
            .is_some_and(|next| next.is("equation") || next.is("algorithm")),
        _ => true,
    }
}

/// Whether a class with a body begins: not `type Name = …`.
fn opens_class(writer: &Writer<'_>) -> bool {
    let mut tokens = tokens(writer).skip_while(|piece| PREFIXES.iter().any(|word| piece.is(word)));
    let class = tokens
        .next()
        .is_some_and(|piece| CLASSES.iter().any(|word| piece.is(word)));
    class && {
        let _name = tokens.next();
        !tokens.next().is_some_and(|piece| piece.is("="))
    }
}

/// How many tokens the header of a class has: prefixes, kind, name and description.
fn header_length(writer: &Writer<'_>) -> usize {
    let mut count = 0;
    let mut tokens = tokens(writer).peekable();
    while tokens
        .peek()
        .is_some_and(|piece| PREFIXES.iter().any(|word| piece.is(word)))
    {
        tokens.next();
        count += 1;
    }
    tokens.next();
    tokens.next();
    count += 2;
    if tokens.peek().is_some_and(|piece| piece.kind == Kind::Text) {
        tokens.next();
        count += 1;
        while tokens.peek().is_some_and(|piece| piece.is("+")) {
            tokens.next();
            tokens.next();
            count += 2;
        }
    }
    count
}

/// Words after which a new operand begins.
const WORDS: [&str; 20] = [
    "and",
    "or",
    "not",
    "if",
    "then",
    "else",
    "elseif",
    "elsewhen",
    "when",
    "while",
    "for",
    "in",
    "loop",
    "return",
    "equation",
    "algorithm",
    "input",
    "output",
    "parameter",
    "constant",
];

/// Whether a space stands between two pieces of one line.
fn spaced(before: Option<&Piece<'_>>, previous: Option<&Piece<'_>>, next: &Piece<'_>) -> bool {
    let Some(previous) = previous else { return false };
    if previous.is_comment() || next.is_comment() {
        return true;
    }
    let is_word = |piece: &Piece<'_>| piece.kind == Kind::Name && WORDS.contains(&piece.text);
    let symbol = |piece: &Piece<'_>, all: &[&str]| piece.kind == Kind::Symbol && all.contains(&piece.text);
    if symbol(next, &[",", ";", ")", "]", "}"]) {
        return symbol(previous, &[","]);
    }
    if symbol(previous, &["(", "[", "{"]) {
        return false;
    }
    if symbol(previous, &[",", ";"]) {
        return true;
    }
    if symbol(next, &["(", "["]) {
        // A call, a subscript or a modification sticks to its name.
        let sticks = (previous.kind == Kind::Name && !is_word(previous)) || symbol(previous, &["]", ")"]);
        if sticks {
            return false;
        }
    }
    if symbol(next, &["."]) || symbol(previous, &["."]) {
        return false;
    }
    if previous.kind == Kind::Number && previous.text.ends_with('.') {
        // `2. *x` is not `2 .* x`.
        return true;
    }
    let tight = ["*", "/", "^", ":"];
    if symbol(previous, &["+", "-", ".+", ".-"]) && !is_operand(before) {
        return false;
    }
    !(symbol(next, &tight) || symbol(previous, &tight))
}

/// Whether an operator behind this piece joins two operands, rather than being a sign.
fn is_operand(piece: Option<&Piece<'_>>) -> bool {
    piece.is_some_and(|piece| match piece.kind {
        Kind::Number | Kind::Text => true,
        Kind::Name => !WORDS.contains(&piece.text),
        Kind::Symbol => [")", "]", "}"].contains(&piece.text),
        Kind::LineComment | Kind::BlockComment => false,
    })
}
