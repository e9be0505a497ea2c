//! Expressions.

use super::{MAX_CHAIN, Parsed, Parser};
use crate::syntax::lexer::Token;
use crate::syntax::{BinaryOp, Expr, ExprKind, Ident, Part, Span, UnaryOp};

impl Parser<'_> {
    pub(super) fn expr(&mut self) -> Parsed<Expr> {
        self.deeper(Self::expr_inner)
    }

    pub(super) fn expr_inner(&mut self) -> Parsed<Expr> {
        let start = self.span();
        if self.eat("if") {
            let mut branches = Vec::new();
            loop {
                let condition = self.expr()?;
                self.expect("then", "after the condition")?;
                branches.push((condition, self.expr()?));
                self.check_branches(branches.len())?;
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
    pub(super) fn operators(&mut self, level: u8) -> Parsed<Expr> {
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

    pub(super) fn operator(&self) -> Option<(BinaryOp, u8)> {
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

    pub(super) fn primary(&mut self) -> Parsed<Expr> {
        let start = self.span();
        let kind = match self.peek().clone() {
            Token::Number(value) => {
                self.at += 1;
                let text = self.source.get(start.range()).unwrap_or("");
                if text.bytes().all(|byte| byte.is_ascii_digit()) {
                    ExprKind::Integer(value)
                } else {
                    ExprKind::Number(value)
                }
            }
            Token::Text(text) => {
                self.at += 1;
                ExprKind::Text(text)
            }
            Token::Symbol("(") => {
                self.at += 1;
                if self.is(",") {
                    return self.tuple(start, None);
                }
                let inner = self.expr()?;
                if self.is(",") {
                    return self.tuple(start, Some(inner));
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
            Token::Symbol("-" | "+") => {
                let error = self.error_here("syntax", "expected an expression, found a second operator");
                return Err(error.remedy("a sign after an operator needs parentheses: `2*(-3)`"));
            }
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

    /// `(a, , b)`, the left side of a call with several results; the first place is read.
    fn tuple(&mut self, start: Span, first: Option<Expr>) -> Parsed<Expr> {
        let mut places = vec![first];
        while self.eat(",") {
            let empty = self.is(",") || self.is(")");
            places.push(if empty { None } else { Some(self.expr()?) });
        }
        self.expect(")", "after the last result")?;
        Ok(Expr {
            kind: ExprKind::Tuple(places),
            span: start.to(self.last_span()),
        })
    }

    pub(super) fn array(&mut self) -> Parsed<ExprKind> {
        self.at += 1;
        let mut items = Vec::new();
        while !self.eat("}") {
            items.push(self.expr()?);
            if items.len() == 1 && self.eat("for") {
                let body = items.swap_remove(0);
                let whole = self.comprehension(body, "an array constructor")?;
                self.expect("}", "after the range")?;
                return Ok(whole.kind);
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

    /// The indices after `body for`. Several nest, the last one outermost (10.4.1.2): `{e for i in a, j in b}` stands for
    /// `{{e for i in a} for j in b}`.
    fn comprehension(&mut self, body: Expr, what: &str) -> Parsed<Expr> {
        let mut whole = body;
        for (index, range) in self.for_indices()? {
            let Some(range) = range else {
                let error = self.error(
                    index.span,
                    "unsupported",
                    format!("{what} needs the range of `{}`", index.text),
                );
                return Err(error.remedy(format!("write `{} in 1:n`", index.text)));
            };
            let span = whole.span.to(range.span);
            let kind = ExprKind::Comprehension {
                body: Box::new(whole),
                index,
                range: Box::new(range),
            };
            whole = Expr { kind, span };
        }
        Ok(whole)
    }

    pub(super) fn matrix(&mut self) -> Parsed<ExprKind> {
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

    pub(super) fn reference(&mut self) -> Parsed<Expr> {
        let start = self.span();
        if self.is(".") {
            let error = self.error_here("unsupported", "names that begin with `.` are outside the subset");
            return Err(error.remedy("name the thing from where it is visible"));
        }
        let mut parts = Vec::new();
        loop {
            let name = self.ident("an expression")?;
            if self.is("(") {
                if let Some(part) = parts.iter().find(|part: &&Part| !part.subscripts.is_empty()) {
                    let message = format!("`{}[…]` is no place where functions are", part.name.text);
                    return Err(self.error(part.name.span, "syntax", message));
                }
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

    pub(super) fn subscripts(&mut self) -> Parsed<Vec<Expr>> {
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

    pub(super) fn call(&mut self, function: Ident) -> Parsed<Expr> {
        self.deeper(|parser| parser.call_inner(function))
    }

    pub(super) fn call_inner(&mut self, function: Ident) -> Parsed<Expr> {
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
                    let body = arguments.swap_remove(0);
                    arguments.push(self.comprehension(body, "a reduction")?);
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
