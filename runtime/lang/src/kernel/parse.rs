//! Reads the text form of kernel functions.
//!
//! ```text
//! const NAME = 1.5;
//! fn name(ctx: i32, x: f64) -> f64 {
//!     let y = x * 2.0;                 // the type is that of the expression
//!     f64[ctx + 8] = y;                // memory; i32[…] and i64[…] likewise
//!     for i in 0..n { … }              // i32; `unroll i in 0..4 { … }` repeats the text
//!     if a < b { … } else { … }   while c { … }   break; continue; return y;
//! }
//! ```
//! `each i in 0..N` is `unroll` for few turns; of many, a loop does four at a time.
//! `1` is i32, `1L` is i64, `1.0` is f64; an i32 literal beside an i64 becomes one. Conditions on constants are
//! decided here, so that code for absent features disappears. The texts belong to the compiler: an error in one is a
//! defect of ours and is reported with its line.

mod expression;

use std::collections::HashMap;

use expression::sum;

use super::tokens::{Token, tokenize};
use super::{Binary, Expr, Function, Program, Stmt, Ty};

/// Reads `text` and defines its functions in `program`. `constants` are the names the text may use beside its own.
pub fn parse(program: &mut Program, text: &str, constants: &HashMap<String, Expr>) -> Result<(), String> {
    let tokens = tokenize(text)?;
    declare_all(program, &tokens)?;
    let mut parser = Parser {
        program,
        tokens,
        at: 0,
        constants: constants.clone(),
        scopes: Vec::new(),
        locals: Vec::new(),
    };
    while !parser.done() {
        if parser.eat("const") {
            let name = parser.name()?;
            parser.expect("=")?;
            let value = parser.expression()?;
            parser.expect(";")?;
            parser.constants.insert(name, value);
        } else {
            let function = parser.function()?;
            parser.program.define(function);
        }
    }
    Ok(())
}

/// Up to this many turns `each` repeats the text.
const FEW: i32 = 8;
/// This many turns of a longer `each` share one of the loop: its end costs as much as two operations.
const STRIDE: i32 = 4;

fn declare_all(program: &mut Program, tokens: &[(Token, u32)]) -> Result<(), String> {
    for (index, (token, _)) in tokens.iter().enumerate() {
        if *token != Token::Name("fn".to_string()) {
            continue;
        }
        let header: Vec<&Token> = tokens[index + 1..]
            .iter()
            .map(|(token, _)| token)
            .take_while(|token| **token != Token::Symbol("{"))
            .collect();
        let Some(Token::Name(name)) = header.first() else {
            return Err("a function without a name".to_string());
        };
        let mut parameters = Vec::new();
        let mut result = None;
        for pair in header.windows(2) {
            if let (Token::Symbol(symbol), Token::Name(ty)) = (pair[0], pair[1]) {
                match *symbol {
                    ":" => parameters.push(type_named(ty)?),
                    "->" => result = Some(type_named(ty)?),
                    _ => {}
                }
            }
        }
        program.declare(name, &parameters, result);
    }
    Ok(())
}

fn type_named(name: &str) -> Result<Ty, String> {
    match name {
        "i32" => Ok(Ty::I32),
        "i64" => Ok(Ty::I64),
        "f64" => Ok(Ty::F64),
        other => Err(format!("unknown type `{other}`")),
    }
}

struct Parser<'a> {
    program: &'a mut Program,
    tokens: Vec<(Token, u32)>,
    at: usize,
    constants: HashMap<String, Expr>,
    scopes: Vec<HashMap<String, Expr>>,
    locals: Vec<Ty>,
}

impl Parser<'_> {
    fn done(&self) -> bool {
        self.at >= self.tokens.len()
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    fn error<T>(&self, message: &str) -> Result<T, String> {
        let line = self
            .tokens
            .get(self.at.min(self.tokens.len().saturating_sub(1)))
            .map_or(0, |(_, line)| *line);
        Err(format!("kernel line {line}: {message}, at {:?}", self.peek()))
    }

    fn is(&self, text: &str) -> bool {
        match self.peek() {
            Some(Token::Name(name)) => name == text,
            Some(Token::Symbol(symbol)) => *symbol == text,
            Some(Token::I32(0)) => text == "0",
            _ => false,
        }
    }

    fn eat(&mut self, text: &str) -> bool {
        let found = self.is(text);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, text: &str) -> Result<(), String> {
        if self.eat(text) {
            Ok(())
        } else {
            self.error(&format!("expected `{text}`"))
        }
    }

    fn name(&mut self) -> Result<String, String> {
        let Some(Token::Name(name)) = self.peek() else {
            return self.error("expected a name");
        };
        let name = name.clone();
        self.at += 1;
        Ok(name)
    }

    fn function(&mut self) -> Result<Function, String> {
        self.expect("fn")?;
        let name = self.name()?;
        self.scopes = vec![HashMap::new()];
        self.locals.clear();
        self.expect("(")?;
        let mut parameters = Vec::new();
        while !self.eat(")") {
            let parameter = self.name()?;
            self.expect(":")?;
            let ty = type_named(&self.name()?)?;
            self.bind(&parameter, ty);
            parameters.push(ty);
            self.eat(",");
        }
        let result = if self.eat("->") {
            Some(type_named(&self.name()?)?)
        } else {
            None
        };
        let body = self.block()?;
        let locals = self.locals.split_off(parameters.len());
        Ok(Function {
            name,
            parameters,
            result,
            locals,
            body,
        })
    }

    fn bind(&mut self, name: &str, ty: Ty) -> u32 {
        let local = self.locals.len() as u32;
        self.locals.push(ty);
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name.to_string(), Expr::Local(local, ty));
        }
        local
    }

    fn block(&mut self) -> Result<Vec<Stmt>, String> {
        self.expect("{")?;
        self.scopes.push(HashMap::new());
        let mut body = Vec::new();
        while !self.eat("}") {
            if self.done() {
                return self.error("a block without an end");
            }
            self.statement(&mut body)?;
        }
        self.scopes.pop();
        Ok(body)
    }

    fn statement(&mut self, body: &mut Vec<Stmt>) -> Result<(), String> {
        if self.eat("let") {
            let name = self.name()?;
            self.expect("=")?;
            let value = self.expression()?;
            let Some(ty) = value.ty() else {
                return self.error("a value without a type");
            };
            let local = self.bind(&name, ty);
            body.push(Stmt::Set(local, value));
            return self.expect(";");
        }
        if self.eat("if") {
            return self.conditional(body);
        }
        if self.eat("while") {
            let condition = self.expression()?;
            let inner = self.block()?;
            body.push(Stmt::While {
                condition,
                body: inner,
                step: Vec::new(),
            });
            return Ok(());
        }
        if self.eat("for") {
            return self.counted(body);
        }
        if self.eat("unroll") {
            return self.unrolled(body);
        }
        if self.eat("each") {
            return self.each(body);
        }
        if self.eat("break") {
            body.push(Stmt::Break);
            return self.expect(";");
        }
        if self.eat("continue") {
            body.push(Stmt::Continue);
            return self.expect(";");
        }
        if self.eat("return") {
            let value = if self.is(";") { None } else { Some(self.expression()?) };
            body.push(Stmt::Return(value));
            return self.expect(";");
        }
        self.assignment(body)
    }

    fn conditional(&mut self, body: &mut Vec<Stmt>) -> Result<(), String> {
        let condition = self.expression()?;
        let first = self.block()?;
        let mut second = Vec::new();
        if self.eat("else") {
            if self.eat("if") {
                self.conditional(&mut second)?;
            } else {
                second = self.block()?;
            }
        }
        match condition {
            Expr::I32(0) => body.extend(second),
            Expr::I32(_) => body.extend(first),
            condition => body.push(Stmt::If(condition, first, second)),
        }
        Ok(())
    }

    fn each(&mut self, body: &mut Vec<Stmt>) -> Result<(), String> {
        let (name, from, to) = self.range()?;
        let (Expr::I32(0), Expr::I32(count)) = (from, to) else {
            return self.error("`each` counts from 0 to a constant");
        };
        let strided = if count > FEW { count - count % STRIDE } else { 0 };
        if strided > 0 {
            let start = self.at;
            let local = self.counter();
            let counter = Expr::Local(local, Ty::I32);
            let mut inner = Vec::new();
            for turn in 0..STRIDE {
                self.at = start;
                inner.extend(self.turn(&name, sum(counter.clone(), turn))?);
            }
            self.at = start;
            body.push(Stmt::Set(local, Expr::I32(0)));
            body.push(Stmt::While {
                condition: Expr::binary(Binary::Lt, Ty::I32, counter.clone(), Expr::I32(strided)),
                body: inner,
                step: vec![Stmt::Set(local, sum(counter, STRIDE))],
            });
        }
        self.turns(&name, strided, count, body)
    }

    fn counted(&mut self, body: &mut Vec<Stmt>) -> Result<(), String> {
        let (name, from, to) = self.range()?;
        if let (Expr::I32(from), Expr::I32(to)) = (&from, &to)
            && from >= to
        {
            return self.turns(&name, *from, *to, body);
        }
        let local = self.counter();
        let counter = Expr::Local(local, Ty::I32);
        let inner = self.turn(&name, counter.clone())?;
        body.push(Stmt::Set(local, from));
        body.push(Stmt::While {
            condition: Expr::binary(Binary::Lt, Ty::I32, counter.clone(), to),
            body: inner,
            step: vec![Stmt::Set(local, sum(counter, 1))],
        });
        Ok(())
    }

    fn unrolled(&mut self, body: &mut Vec<Stmt>) -> Result<(), String> {
        let (name, from, to) = self.range()?;
        let (Expr::I32(from), Expr::I32(to)) = (from, to) else {
            return self.error("`unroll` needs constants");
        };
        self.turns(&name, from, to, body)
    }

    /// `name in from..to`
    fn range(&mut self) -> Result<(String, Expr, Expr), String> {
        let name = self.name()?;
        self.expect("in")?;
        let from = self.expression()?;
        self.expect("..")?;
        Ok((name, from, self.expression()?))
    }

    fn counter(&mut self) -> u32 {
        self.locals.push(Ty::I32);
        self.locals.len() as u32 - 1
    }

    /// The block that follows, once for each number; read over where there is none.
    fn turns(&mut self, name: &str, from: i32, to: i32, body: &mut Vec<Stmt>) -> Result<(), String> {
        let start = self.at;
        if from >= to {
            self.turn(name, Expr::I32(0))?;
        }
        for value in from..to {
            self.at = start;
            body.extend(self.turn(name, Expr::I32(value))?);
        }
        Ok(())
    }

    /// The block that follows, with a value for `name`.
    fn turn(&mut self, name: &str, value: Expr) -> Result<Vec<Stmt>, String> {
        self.scopes.push(HashMap::from([(name.to_string(), value)]));
        let block = self.block();
        self.scopes.pop();
        block
    }

    fn assignment(&mut self, body: &mut Vec<Stmt>) -> Result<(), String> {
        let target = self.expression()?;
        let operator = ["=", "+=", "-=", "*="].into_iter().find(|symbol| self.eat(symbol));
        let Some(operator) = operator else {
            body.push(Stmt::Do(target));
            return self.expect(";");
        };
        let value = self.expression()?;
        let value = match operator {
            "+=" => self.combine(Binary::Add, target.clone(), value)?,
            "-=" => self.combine(Binary::Sub, target.clone(), value)?,
            "*=" => self.combine(Binary::Mul, target.clone(), value)?,
            _ => self.coerce(value, target.ty()),
        };
        if value.ty() != target.ty() {
            return self.error("assignment of another type");
        }
        match target {
            Expr::Local(local, _) => body.push(Stmt::Set(local, value)),
            Expr::Load(ty, address, offset) => body.push(Stmt::Store(ty, *address, offset, value)),
            _ => return self.error("not a place"),
        }
        self.expect(";")
    }
}
