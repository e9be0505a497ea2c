//! Equations and the statements of algorithms.

use super::{Parsed, Parser};
use crate::syntax::lexer::Token;
use crate::syntax::{Equation, Expr, ExprKind, Ident, Span, Statement};

/// Reads what one section or branch holds.
type List<P, T> = fn(&mut P, &mut Vec<T>) -> Parsed<()>;

impl Parser<'_> {
    pub(super) fn section_ends(&self) -> bool {
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
            || (self.is("initial") && (self.is_at(1, "equation") || self.is_at(1, "algorithm")))
            || *self.peek() == Token::End
    }

    pub(super) fn equations(&mut self, out: &mut Vec<Equation>) -> Parsed<()> {
        while !self.section_ends() {
            let equation = self.deeper(Self::equation)?;
            out.push(equation);
            self.description()?;
            self.expect(";", "after an equation")?;
        }
        Ok(())
    }

    pub(super) fn equation(&mut self) -> Parsed<Equation> {
        let start = self.span();
        if self.eat("if") {
            let branches = self.branches("elseif", Self::equations)?;
            let mut otherwise = Vec::new();
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
            let branches = self.branches("elsewhen", Self::equations)?;
            self.close("when")?;
            return Ok(Equation::When {
                branches,
                span: start.to(self.last_span()),
            });
        }
        if self.eat("for") {
            return self.nested(start, Self::equations, |index, range, body, span| Equation::For {
                index,
                range,
                body,
                span,
            });
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

    /// `condition then …` and what follows each `again`.
    fn branches<T>(&mut self, again: &str, list: List<Self, T>) -> Parsed<Vec<(Expr, Vec<T>)>> {
        let mut branches = Vec::new();
        loop {
            let condition = self.expr()?;
            self.expect("then", "after the condition")?;
            let mut body = Vec::new();
            list(self, &mut body)?;
            branches.push((condition, body));
            self.check_branches(branches.len())?;
            if !self.eat(again) {
                return Ok(branches);
            }
        }
    }

    /// The rest of a `for`, one loop for each of its indices.
    fn nested<T>(
        &mut self,
        start: Span,
        list: List<Self, T>,
        make: impl Fn(Ident, Option<Expr>, Vec<T>, Span) -> T,
    ) -> Parsed<T> {
        let indices = self.for_indices()?;
        self.expect("loop", "after the range")?;
        let mut body = Vec::new();
        list(self, &mut body)?;
        self.close("for")?;
        let span = start.to(self.last_span());
        let all = indices.into_iter().rev();
        let nested = all.fold(body, |body, (index, range)| vec![make(index, range, body, span)]);
        nested
            .into_iter()
            .next()
            .ok_or_else(|| self.error(span, "syntax", "a `for` needs an index"))
    }

    pub(super) fn close(&mut self, word: &str) -> Parsed<()> {
        self.expect("end", &format!("at the end of `{word}`"))?;
        self.expect(word, "after `end`")
    }

    pub(super) fn for_indices(&mut self) -> Parsed<Vec<(Ident, Option<Expr>)>> {
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

    pub(super) fn statements(&mut self, out: &mut Vec<Statement>) -> Parsed<()> {
        while !self.section_ends() {
            let statement = self.deeper(Self::statement)?;
            out.push(statement);
            self.description()?;
            self.expect(";", "after a statement")?;
        }
        Ok(())
    }

    pub(super) fn statement(&mut self) -> Parsed<Statement> {
        let start = self.span();
        if self.eat("if") {
            let branches = self.branches("elseif", Self::statements)?;
            let mut otherwise = Vec::new();
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
            return self.nested(start, Self::statements, |index, range, body, span| Statement::For {
                index,
                range,
                body,
                span,
            });
        }
        if self.eat("while") {
            let condition = self.expr()?;
            self.expect("loop", "after the condition")?;
            let mut body = Vec::new();
            self.statements(&mut body)?;
            self.close("while")?;
            return Ok(Statement::While {
                condition,
                body,
                span: start.to(self.last_span()),
            });
        }
        if self.eat("return") {
            return Ok(Statement::Return { span: start });
        }
        if self.eat("break") {
            return Ok(Statement::Break { span: start });
        }
        if self.is("when") {
            let error = self.error(start, "unsupported", "`when` in an algorithm is outside the subset");
            return Err(error.remedy("write a when-clause in an `equation` section"));
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
}
