//! Expressions of the text form.

use super::super::{Binary, Expr, Ty, Unary};
use super::{Parser, Token, type_named};

impl Parser<'_> {
    pub(super) fn expression(&mut self) -> Result<Expr, String> {
        self.binary(0)
    }

    fn binary(&mut self, level: usize) -> Result<Expr, String> {
        const LEVELS: [&[(&str, Binary)]; 8] = [
            &[("||", Binary::Or)],
            &[("&&", Binary::And)],
            &[
                ("==", Binary::Eq),
                ("!=", Binary::Ne),
                ("<=", Binary::Le),
                (">=", Binary::Ge),
                ("<", Binary::Lt),
                (">", Binary::Gt),
            ],
            &[("|", Binary::Or)],
            &[("^", Binary::Xor)],
            &[("&", Binary::And)],
            &[(">>>", Binary::ShrU), ("<<", Binary::Shl), (">>", Binary::ShrS)],
            &[("+", Binary::Add), ("-", Binary::Sub)],
        ];
        if level == LEVELS.len() {
            return self.product();
        }
        let mut left = self.binary(level + 1)?;
        while let Some((_, op)) = LEVELS[level].iter().find(|(symbol, _)| self.is(symbol)) {
            self.at += 1;
            let right = self.binary(level + 1)?;
            left = self.combine(*op, left, right)?;
        }
        Ok(left)
    }

    fn product(&mut self) -> Result<Expr, String> {
        let mut left = self.prefix()?;
        while let Some((_, op)) = [("*", Binary::Mul), ("/", Binary::Div), ("%", Binary::Rem)]
            .iter()
            .find(|(symbol, _)| self.is(symbol))
        {
            self.at += 1;
            let right = self.prefix()?;
            left = self.combine(*op, left, right)?;
        }
        Ok(left)
    }

    pub(super) fn coerce(&self, value: Expr, ty: Option<Ty>) -> Expr {
        match (value, ty) {
            (Expr::I32(value), Some(Ty::I64)) => Expr::I64(i64::from(value)),
            (value, _) => value,
        }
    }

    pub(super) fn combine(&self, op: Binary, left: Expr, right: Expr) -> Result<Expr, String> {
        let left = self.coerce(left, right.ty());
        let right = self.coerce(right, left.ty());
        if let (Expr::I32(a), Expr::I32(b)) = (&left, &right)
            && let Some(value) = fold(op, *a, *b)
        {
            return Ok(Expr::I32(value));
        }
        // 8 · (i + 1) as 8 · i + 8: the constant becomes part of an address.
        if let (Binary::Mul, Expr::I32(factor), Expr::Binary(Binary::Add, Ty::I32, index, more)) = (op, &left, &right)
            && let Expr::I32(more) = **more
            && let Some(offset) = factor.checked_mul(more)
        {
            let scaled = Expr::binary(Binary::Mul, Ty::I32, left, (**index).clone());
            return Ok(sum(scaled, offset));
        }
        let Some(ty) = left.ty() else {
            return self.error("a value without a type");
        };
        if right.ty() != Some(ty) {
            return self.error(&format!("operands of {op:?} differ in type"));
        }
        if op == Binary::And && ty == Ty::I32 && (left == Expr::I32(0) || right == Expr::I32(0)) {
            return Ok(Expr::I32(0));
        }
        Ok(Expr::binary(op, ty, left, right))
    }

    fn prefix(&mut self) -> Result<Expr, String> {
        if self.eat("-") {
            return match self.prefix()? {
                Expr::F64(value) => Ok(Expr::F64(-value)),
                Expr::I32(value) => Ok(Expr::I32(-value)),
                Expr::I64(value) => Ok(Expr::I64(-value)),
                operand => match operand.ty() {
                    Some(Ty::I32) => self.combine(Binary::Sub, Expr::I32(0), operand),
                    Some(Ty::I64) => self.combine(Binary::Sub, Expr::I64(0), operand),
                    _ => Ok(Expr::unary(Unary::Neg, operand)),
                },
            };
        }
        if self.eat("!") {
            return match self.prefix()? {
                Expr::I32(value) => Ok(Expr::I32(i32::from(value == 0))),
                operand => Ok(Expr::unary(Unary::Not, operand)),
            };
        }
        self.primary()
    }

    fn primary(&mut self) -> Result<Expr, String> {
        let Some(token) = self.peek().cloned() else {
            return self.error("expected an expression");
        };
        self.at += 1;
        match token {
            Token::F64(value) => Ok(Expr::F64(value)),
            Token::I32(value) => Ok(Expr::I32(value)),
            Token::I64(value) => Ok(Expr::I64(value)),
            Token::Symbol("(") => {
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Name(name) if self.is("[") => {
                let ty = type_named(&name)?;
                self.expect("[")?;
                let address = self.expression()?;
                self.expect("]")?;
                let (base, offset) = address.split_address();
                Ok(Expr::Load(ty, Box::new(base), offset))
            }
            Token::Name(name) if self.is("(") => self.call(&name),
            Token::Name(name) => {
                let local = self.scopes.iter().rev().find_map(|scope| scope.get(&name));
                match local.or_else(|| self.constants.get(&name)) {
                    Some(value) => Ok(value.clone()),
                    None => self.error(&format!("unknown name `{name}`")),
                }
            }
            Token::Symbol(_) => self.error("expected an expression"),
        }
    }

    pub(super) fn call(&mut self, name: &str) -> Result<Expr, String> {
        self.expect("(")?;
        let mut arguments = Vec::new();
        while !self.eat(")") {
            arguments.push(self.expression()?);
            self.eat(",");
        }
        let unary = match name {
            "abs" => Some(Unary::Abs),
            "sqrt" => Some(Unary::Sqrt),
            "floor" => Some(Unary::Floor),
            "ceil" => Some(Unary::Ceil),
            "trunc" => Some(Unary::Trunc),
            "nearest" => Some(Unary::Nearest),
            "bits" => Some(Unary::Bits),
            "from_bits" => Some(Unary::FromBits),
            "wrap" => Some(Unary::Wrap),
            "extend" => Some(Unary::Extend),
            "f64_of" => Some(Unary::FromI32),
            "f64_of_long" => Some(Unary::FromI64),
            "long_of" => Some(Unary::ToI64),
            _ => None,
        };
        if let (Some(op), [_]) = (unary, arguments.as_slice()) {
            let value = Expr::unary(op, arguments.swap_remove(0));
            return if value.ty().is_some() {
                Ok(value)
            } else {
                self.error(&format!("bad operand of {name}"))
            };
        }
        let binary = match name {
            "min" => Some(Binary::Min),
            "max" => Some(Binary::Max),
            "copysign" => Some(Binary::CopySign),
            _ => None,
        };
        if let (Some(op), 2) = (binary, arguments.len()) {
            let right = arguments.swap_remove(1);
            return self.combine(op, arguments.swap_remove(0), right);
        }
        if name == "select" && arguments.len() == 3 {
            let second = arguments.swap_remove(2);
            let first = arguments.swap_remove(1);
            let second = self.coerce(second, first.ty());
            let condition = arguments.swap_remove(0);
            let Some(ty) = first
                .ty()
                .filter(|ty| second.ty() == Some(*ty) && condition.ty() == Some(Ty::I32))
            else {
                return self.error("bad operands of select");
            };
            return Ok(Expr::Select(ty, Box::new([condition, first, second])));
        }
        let Some(index) = self.program.index(name) else {
            return self.error(&format!("unknown function `{name}`"));
        };
        let signature = self.program.signature(index);
        let fits = signature.parameters.len() == arguments.len()
            && signature
                .parameters
                .iter()
                .zip(&arguments)
                .all(|(ty, argument)| argument.ty() == Some(*ty));
        if !fits {
            return self.error(&format!("`{name}` takes {:?}", signature.parameters));
        }
        Ok(Expr::Call(index, signature.result, arguments))
    }
}

pub(super) fn sum(value: Expr, more: i32) -> Expr {
    match more {
        0 => value,
        more => Expr::binary(Binary::Add, Ty::I32, value, Expr::I32(more)),
    }
}

fn fold(op: Binary, a: i32, b: i32) -> Option<i32> {
    Some(match op {
        Binary::Add => a.checked_add(b)?,
        Binary::Sub => a.checked_sub(b)?,
        Binary::Mul => a.checked_mul(b)?,
        Binary::Div => a.checked_div(b)?,
        Binary::Rem => a.checked_rem(b)?,
        Binary::Eq => i32::from(a == b),
        Binary::Ne => i32::from(a != b),
        Binary::Lt => i32::from(a < b),
        Binary::Le => i32::from(a <= b),
        Binary::Gt => i32::from(a > b),
        Binary::Ge => i32::from(a >= b),
        Binary::And => a & b,
        Binary::Or => a | b,
        Binary::Xor => a ^ b,
        Binary::Min | Binary::Max | Binary::CopySign | Binary::Shl | Binary::ShrS | Binary::ShrU => return None,
    })
}
