//! The words of the kernels' text form.

#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    Name(String),
    Symbol(&'static str),
    I32(i32),
    I64(i64),
    F64(f64),
}

const SYMBOLS: [&str; 36] = [
    ">>>", "->", "..", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "+=", "-=", "*=", "(", ")", "{", "}", "[", "]",
    ",", ";", ":", "=", "+", "-", "*", "/", "%", "<", ">", "!", "&", "|", "^", "@",
];

/// The tokens of a kernel text with their lines.
pub fn tokenize(text: &str) -> Result<Vec<(Token, u32)>, String> {
    let mut tokens = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let number = index as u32 + 1;
        let mut rest = line.split("//").next().unwrap_or("").trim_start();
        while let Some(first) = rest.chars().next() {
            let (token, length) = if first.is_ascii_alphabetic() || first == '_' {
                let length = rest
                    .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                    .unwrap_or(rest.len());
                (Token::Name(rest[..length].to_string()), length)
            } else if first.is_ascii_digit() {
                literal(rest).ok_or_else(|| format!("line {number}: bad number at `{rest}`"))?
            } else {
                let symbol = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol));
                let symbol = symbol.ok_or_else(|| format!("line {number}: unknown character `{first}`"))?;
                (Token::Symbol(symbol), symbol.len())
            };
            tokens.push((token, number));
            rest = rest[length..].trim_start();
        }
    }
    Ok(tokens)
}

fn literal(rest: &str) -> Option<(Token, usize)> {
    if let Some(hex) = rest.strip_prefix("0x") {
        let digits = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
        let value = u64::from_str_radix(&hex[..digits], 16).ok()?;
        let long = hex[digits..].starts_with('L');
        let token = if long {
            Token::I64(value as i64)
        } else {
            Token::I32(value as u32 as i32)
        };
        return Some((token, 2 + digits + usize::from(long)));
    }
    let bytes = rest.as_bytes();
    let mut end = 0;
    let mut float = false;
    while let Some(byte) = bytes.get(end) {
        match byte {
            b'0'..=b'9' => {}
            b'.' if bytes.get(end + 1).is_some_and(u8::is_ascii_digit) => float = true,
            b'e' => float = true,
            b'-' | b'+' if end > 0 && bytes[end - 1] == b'e' => {}
            _ => break,
        }
        end += 1;
    }
    let digits = &rest[..end];
    if float {
        return Some((Token::F64(digits.parse().ok()?), end));
    }
    if bytes.get(end) == Some(&b'L') {
        return Some((Token::I64(digits.parse().ok()?), end + 1));
    }
    Some((Token::I32(digits.parse().ok()?), end))
}
