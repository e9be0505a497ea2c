//! Source text to tokens.

use super::Span;
use crate::diagnostic::Diagnostic;

/// The largest source that is read.
pub const MAX_SOURCE: usize = 4 << 20;

#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    Name(String),
    Number(f64),
    Text(String),
    Symbol(&'static str),
    End,
}

impl Token {
    /// The token as a message quotes it.
    pub fn describe(&self) -> String {
        match self {
            Token::Name(name) => format!("`{name}`"),
            Token::Number(value) => format!("the number {value}"),
            Token::Text(_) => "a string".to_string(),
            Token::Symbol(symbol) => format!("`{symbol}`"),
            Token::End => "the end of the file".to_string(),
        }
    }
}

const SYMBOLS: [&str; 29] = [
    ":=", "<=", ">=", "==", "<>", ".+", ".-", ".*", "./", ".^", "(", ")", "{", "}", "[", "]", ",", ";", ":", "=", "+",
    "-", "*", "/", "^", "<", ">", ".", "'",
];

/// The tokens of `source`, the last one [`Token::End`].
pub fn tokenize(source: &str, file: &str) -> Result<Vec<(Token, Span)>, Diagnostic> {
    if source.len() > MAX_SOURCE {
        let message = format!("the file has {} bytes and at most {MAX_SOURCE} are read", source.len());
        return Err(Diagnostic::at(source, file, 0..0, "too-large", message).remedy("split it into several models"));
    }
    let mut tokens = Vec::new();
    let mut at = usize::from(source.starts_with('\u{feff}')) * 3;
    while let Some(rest) = source.get(at..).filter(|rest| !rest.is_empty()) {
        let (token, length) = next(source, file, at, rest)?;
        if let Some(token) = token {
            tokens.push((
                token,
                Span {
                    start: at,
                    end: at + length,
                },
            ));
        }
        at += length;
    }
    tokens.push((
        Token::End,
        Span {
            start: source.len(),
            end: source.len(),
        },
    ));
    Ok(tokens)
}

fn next(source: &str, file: &str, at: usize, rest: &str) -> Result<(Option<Token>, usize), Diagnostic> {
    let blank = rest.len() - rest.trim_start().len();
    if blank > 0 {
        return Ok((None, blank));
    }
    if rest.starts_with("//") {
        return Ok((None, rest.find('\n').unwrap_or(rest.len())));
    }
    if rest.starts_with("/*") {
        let Some(end) = rest.find("*/") else {
            let error = Diagnostic::at(source, file, at..at + 2, "unclosed-comment", "this comment has no end");
            return Err(error.remedy("close it with `*/`"));
        };
        return Ok((None, end + 2));
    }
    if rest.starts_with('"') {
        return string(source, file, at, rest);
    }
    let bytes = rest.as_bytes();
    if bytes[0].is_ascii_alphabetic() || bytes[0] == b'_' {
        let length = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        return Ok((Some(Token::Name(rest[..length].to_string())), length));
    }
    if bytes[0].is_ascii_digit() || (bytes[0] == b'.' && bytes.get(1).is_some_and(u8::is_ascii_digit)) {
        return number(source, file, at, rest);
    }
    if bytes[0] == b'\''
        && let Some(length) = quoted_name(rest)
    {
        return Ok((Some(Token::Name(rest[..length].to_string())), length));
    }
    if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
        return Ok((Some(Token::Symbol(symbol)), symbol.len()));
    }
    let character = rest.chars().next().unwrap_or(' ');
    let message = format!("`{}` has no meaning here", character.escape_debug());
    let error = Diagnostic::at(
        source,
        file,
        at..at + character.len_utf8(),
        "unknown-character",
        message,
    );
    Err(error.remedy("names and operators are ASCII; other letters may stand in strings and comments"))
}

/// The length of a name in quotes, which ends on its line; a backslash keeps a quote from ending it (2.3.1).
fn quoted_name(rest: &str) -> Option<usize> {
    let mut escaped = false;
    for (index, character) in rest.char_indices().skip(1) {
        match character {
            '\n' => return None,
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\'' => return Some(index + 1),
            _ => {}
        }
    }
    None
}

fn string(source: &str, file: &str, at: usize, rest: &str) -> Result<(Option<Token>, usize), Diagnostic> {
    let mut text = String::new();
    let mut escaped = false;
    for (index, character) in rest.char_indices().skip(1) {
        match character {
            _ if escaped => {
                escaped = false;
                text.push(match character {
                    'n' => '\n',
                    't' => '\t',
                    other => other,
                });
            }
            '\\' => escaped = true,
            '"' => return Ok((Some(Token::Text(text)), index + 1)),
            other => text.push(other),
        }
    }
    Err(
        Diagnostic::at(source, file, at..at + 1, "unclosed-string", "this string has no end")
            .remedy("close it with `\"`"),
    )
}

fn number(source: &str, file: &str, at: usize, rest: &str) -> Result<(Option<Token>, usize), Diagnostic> {
    let bytes = rest.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut end = digits(0);
    // `1.*x` is `1 .* x`, `1.` is a number.
    let operator_follows = bytes.get(end + 1).is_some_and(|byte| b"+-*/^".contains(byte));
    if bytes.get(end) == Some(&b'.') && !operator_follows {
        end += 1 + digits(end + 1);
    }
    if bytes.get(end).is_some_and(|byte| byte.eq_ignore_ascii_case(&b'e')) {
        let sign = usize::from(bytes.get(end + 1).is_some_and(|byte| b"+-".contains(byte)));
        let exponent = digits((end + 1 + sign).min(bytes.len()));
        if exponent > 0 {
            end += 1 + sign + exponent;
        }
    }
    match rest[..end].parse::<f64>() {
        Ok(value) if value.is_finite() => Ok((Some(Token::Number(value)), end)),
        _ => Err(Diagnostic::at(
            source,
            file,
            at..at + end,
            "bad-number",
            "this number is outside the range of Real",
        )
        .remedy("the largest Real is about 1.8e308")),
    }
}
