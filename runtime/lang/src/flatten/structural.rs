//! What must be known when compiling: sizes, ranges, subscripts, conditions of structure.

use super::instance::{BaseType, Declared, InstanceId, Member};
use super::modification::Binding;
use super::{Flattener, Lowered};
use crate::graph::{Binary, Unary};
use crate::syntax::{BinaryOp, Expr, ExprKind, Part, UnaryOp, Variability};

/// A value known when compiling.
#[derive(Debug, Clone, PartialEq)]
pub enum Fixed {
    Real(f64),
    Integer(f64),
    Truth(bool),
    Text(String),
    Array(Vec<Fixed>),
}

const MAX_DEPTH: u32 = 100;

impl<'a> Flattener<'a> {
    pub fn structural_integer(&mut self, expr: &'a Expr, id: InstanceId) -> Lowered<i64> {
        match self.structural(expr, id)? {
            Fixed::Integer(value) if value.abs() < 1e15 => Ok(value as i64),
            other => Err(self.error(
                expr.span,
                "not-an-integer",
                format!("an Integer is needed here, not {}", describe(&other)),
            )),
        }
    }

    pub fn structural_truth(&mut self, expr: &'a Expr, id: InstanceId) -> Lowered<bool> {
        match self.structural(expr, id)? {
            Fixed::Truth(value) => Ok(value),
            other => Err(self.error(
                expr.span,
                "not-a-boolean",
                format!("a Boolean is needed here, not {}", describe(&other)),
            )),
        }
    }

    /// The numbers of a range expression.
    pub fn structural_range(&mut self, expr: &'a Expr, id: InstanceId) -> Lowered<Vec<Fixed>> {
        let Fixed::Array(items) = self.structural(expr, id)? else {
            return Err(self.error(expr.span, "not-a-range", "a range such as `1:n` is needed here"));
        };
        self.spend(items.len() as u64);
        items
            .into_iter()
            .map(|item| match item {
                number @ (Fixed::Real(_) | Fixed::Integer(_)) => Ok(number),
                other => Err(self.error(
                    expr.span,
                    "not-a-range",
                    format!("a range of numbers is needed, not {}", describe(&other)),
                )),
            })
            .collect()
    }

    /// Evaluates `expr`, written in the names of instance `id`.
    pub fn structural(&mut self, expr: &'a Expr, id: InstanceId) -> Lowered<Fixed> {
        if self.structural_depth > MAX_DEPTH {
            return Err(self.error(expr.span, "too-deep", "this depends on itself or nests too deep"));
        }
        self.structural_depth += 1;
        let result = self.structural_inner(expr, id);
        self.structural_depth -= 1;
        result
    }

    fn structural_inner(&mut self, expr: &'a Expr, id: InstanceId) -> Lowered<Fixed> {
        match &expr.kind {
            ExprKind::Number(value) => Ok(Fixed::Real(*value)),
            ExprKind::Integer(value) => Ok(Fixed::Integer(*value)),
            ExprKind::Text(text) => Ok(Fixed::Text(text.clone())),
            ExprKind::Boolean(value) => Ok(Fixed::Truth(*value)),
            ExprKind::Reference(parts) => self.structural_reference(parts, expr, id),
            ExprKind::Unary(op, operand) => match (op, self.structural(operand, id)?) {
                (UnaryOp::Minus, Fixed::Real(value)) => Ok(Fixed::Real(-value)),
                (UnaryOp::Minus, Fixed::Integer(value)) => Ok(Fixed::Integer(-value)),
                (UnaryOp::Plus, value @ (Fixed::Real(_) | Fixed::Integer(_))) => Ok(value),
                (UnaryOp::Not, Fixed::Truth(value)) => Ok(Fixed::Truth(!value)),
                (_, other) => Err(self.error(
                    expr.span,
                    "type",
                    format!("this operator cannot be applied to {}", describe(&other)),
                )),
            },
            ExprKind::Binary(op, left, right) => {
                let left = self.structural(left, id)?;
                let right = self.structural(right, id)?;
                self.structural_binary(*op, left, right, expr)
            }
            ExprKind::If { branches, otherwise } => {
                for (condition, value) in branches {
                    if self.structural_truth(condition, id)? {
                        return self.structural(value, id);
                    }
                }
                self.structural(otherwise, id)
            }
            ExprKind::Array(items) => Ok(Fixed::Array(
                items
                    .iter()
                    .map(|item| self.structural(item, id))
                    .collect::<Lowered<_>>()?,
            )),
            ExprKind::Range { from, step, to } => {
                let (from_value, first) = self.structural_number(from, id)?;
                let step = step.as_ref().map(|step| self.structural_number(step, id));
                let (step_value, second) = step.unwrap_or(Ok((1.0, BaseType::Integer)))?;
                let (to_value, third) = self.structural_number(to, id)?;
                let whole = [first, second, third].iter().all(|base| *base == BaseType::Integer);
                let base = if whole { BaseType::Integer } else { BaseType::Real };
                let count = libm::floor((to_value - from_value) / step_value + 1e-12) + 1.0;
                if step_value == 0.0 || count.is_nan() || count > super::MAX_SCALARS as f64 {
                    return Err(self.error(expr.span, "bad-size", "this range is too long"));
                }
                let count = count.max(0.0) as u32;
                Ok(Fixed::Array(
                    (0..count)
                        .map(|index| Fixed::of(from_value + f64::from(index) * step_value, base))
                        .collect(),
                ))
            }
            ExprKind::Call {
                function,
                arguments,
                named,
            } => {
                if let Some(value) = self.function_call(function, arguments, named, expr, id) {
                    let value = value?;
                    return self.fixed_of(&value).ok_or_else(|| self.not_structural(expr));
                }
                self.structural_call(&function.text, arguments, expr, id)
            }
            ExprKind::End => self
                .ends
                .last()
                .map(|end| Fixed::Integer(*end))
                .ok_or_else(|| self.error(expr.span, "syntax", "`end` only has a meaning in a subscript")),
            ExprKind::Comprehension { .. } | ExprKind::Tuple(_) | ExprKind::Matrix(_) | ExprKind::All => {
                Err(self.not_structural(expr))
            }
        }
    }

    fn not_structural(&self, expr: &Expr) -> Box<crate::Diagnostic> {
        let error = self.error(
            expr.span,
            "not-structural",
            "this must be known when compiling, and changes while the model runs",
        );
        Box::new(error.remedy("use numbers, constants and Integer or Boolean parameters"))
    }

    fn structural_number(&mut self, expr: &'a Expr, id: InstanceId) -> Lowered<(f64, BaseType)> {
        match self.structural(expr, id)? {
            Fixed::Real(value) => Ok((value, BaseType::Real)),
            Fixed::Integer(value) => Ok((value, BaseType::Integer)),
            other => Err(self.error(
                expr.span,
                "type",
                format!("a number is needed here, not {}", describe(&other)),
            )),
        }
    }

    fn structural_reference(&mut self, parts: &'a [Part], expr: &'a Expr, id: InstanceId) -> Lowered<Fixed> {
        if let [part] = parts
            && let Some((_, value)) = self.loops.iter().rev().find(|(name, _)| *name == part.name.text)
        {
            return Ok(value.clone());
        }
        if let [part] = parts
            && let Some(value) = self.local_fixed(part, expr, id)
        {
            return value;
        }
        if matches!(parts, [part] if part.name.text == "time") {
            return Err(self.not_structural(expr));
        }
        if let Some(value) = self.constant(parts, expr, id) {
            let value = value?;
            return self.fixed_of(&value).ok_or_else(|| self.not_structural(expr));
        }
        let (declared, owner) = self.find_declared(parts, id, expr)?;
        let mut value = self.structural_declared(&declared, owner, expr)?;
        for subscript in parts.iter().rev().take(1).flat_map(|part| &part.subscripts) {
            if let Fixed::Array(items) = &value {
                self.ends.push(items.len() as f64);
            }
            let index = self.structural_integer(subscript, id);
            if matches!(value, Fixed::Array(_)) {
                self.ends.pop();
            }
            let index = index?;
            value = match value {
                Fixed::Array(items) if index >= 1 && (index as usize) <= items.len() => {
                    items[index as usize - 1].clone()
                }
                _ => {
                    return Err(self.error(subscript.span, "bad-subscript", format!("there is no element {index}")));
                }
            };
        }
        Ok(value)
    }

    /// The declaration that a dotted name means, seen from instance `id`.
    fn find_declared(&mut self, parts: &'a [Part], id: InstanceId, expr: &Expr) -> Lowered<(Declared<'a>, InstanceId)> {
        let mut here = id;
        for (position, part) in parts.iter().enumerate() {
            let last = position + 1 == parts.len();
            match self.instances[here.0].members.get(&part.name.text) {
                Some(Member::Variable(declared)) if last && declared.component.protected && position > 0 => {
                    return Err(self.hidden_member(part, self.instances[here.0].class));
                }
                Some(Member::Variable(declared)) if last => {
                    return Ok(((**declared).clone(), here));
                }
                Some(Member::Instances { protected: true, .. }) if position > 0 => {
                    return Err(self.hidden_member(part, self.instances[here.0].class));
                }
                Some(Member::Instances { shape, ids, .. }) if !last && shape.len() == part.subscripts.len() => {
                    let (shape, ids) = (shape.clone(), ids.clone());
                    let mut place = 0;
                    for (size, subscript) in shape.iter().zip(&part.subscripts) {
                        self.ends.push(*size as f64);
                        let index = self.structural_integer(subscript, id);
                        self.ends.pop();
                        let index = usize::try_from(index? - 1).ok().filter(|index| index < size);
                        let index = index
                            .ok_or_else(|| self.error(subscript.span, "bad-subscript", "there is no such element"))?;
                        place = place * size + index;
                    }
                    here = ids[place];
                }
                _ => return Err(self.undefined(&part.name.text, part.name.span, here, expr)),
            }
        }
        Err(self.not_structural(expr))
    }

    /// The value of a structural variable: an outer setting, its binding, or its start.
    pub fn structural_declared(&mut self, declared: &Declared<'a>, owner: InstanceId, expr: &Expr) -> Lowered<Fixed> {
        let component = declared.component;
        let name = format!("{}{}", self.instances[owner.0].prefix, component.name.text);
        let fixed_value = matches!(component.variability, Variability::Parameter | Variability::Constant);
        let real_parameter = declared.base == BaseType::Real && component.variability == Variability::Parameter;
        if !fixed_value || real_parameter {
            let message = format!("`{name}` cannot decide the structure of the model");
            let error = self.error(expr.span, "not-structural", message);
            return Err(Box::new(error.remedy(
                "structure follows from numbers, constants and Integer or Boolean parameters",
            )));
        }
        if let Some(value) = self.set_value(declared, &name)? {
            return Ok(if declared.base == BaseType::Boolean {
                Fixed::Truth(value != 0.0)
            } else {
                Fixed::of(value, declared.base)
            });
        }
        let Some(binding) = declared.binding.clone().map(Binding::narrowed) else {
            let error = self.error(component.name.span, "no-value", format!("`{name}` has no value"));
            return Err(Box::new(
                error.remedy(format!("give it one: `{} = …`", component.name.text)),
            ));
        };
        let loops = std::mem::take(&mut self.loops);
        let value = self.structural(binding.expr, binding.written_in);
        self.loops = loops;
        let value = value?;
        if let Some(given) = value.base() {
            self.check_type(given, declared.base, binding.expr.span, &name)?;
        }
        let shape = self.shape_of(owner, &component.dimensions, Some(&binding))?;
        self.fixed_for(value, &binding, &shape)
    }

    fn structural_call(&mut self, name: &str, arguments: &'a [Expr], expr: &'a Expr, id: InstanceId) -> Lowered<Fixed> {
        if name == "size" {
            return self.structural_size(arguments, expr, id);
        }
        let mut values = Vec::new();
        let mut base = BaseType::Integer;
        for argument in arguments {
            let (value, given) = self.structural_number(argument, id)?;
            values.push(value);
            base = base.joined(given).unwrap_or(BaseType::Real);
        }
        let value = match (name, values.as_slice()) {
            ("integer", [x]) => return Ok(Fixed::Integer(libm::floor(*x))),
            ("floor", [x]) => return Ok(Fixed::Real(libm::floor(*x))),
            ("ceil", [x]) => return Ok(Fixed::Real(libm::ceil(*x))),
            ("sign", [x]) => {
                return Ok(Fixed::Integer(
                    f64::from(u8::from(*x > 0.0)) - f64::from(u8::from(*x < 0.0)),
                ));
            }
            ("sqrt", [x]) => return Ok(Fixed::Real(libm::sqrt(*x))),
            ("abs", [x]) => x.abs(),
            ("div", [x, y]) if *y != 0.0 => libm::trunc(x / y),
            ("mod", [x, y]) if *y != 0.0 => x - libm::floor(x / y) * y,
            ("rem", [x, y]) if *y != 0.0 => x - libm::trunc(x / y) * y,
            ("min", [x, y]) => x.min(*y),
            ("max", [x, y]) => x.max(*y),
            _ => return Err(self.not_structural(expr)),
        };
        Ok(Fixed::of(value, base))
    }

    fn structural_size(&mut self, arguments: &'a [Expr], expr: &'a Expr, id: InstanceId) -> Lowered<Fixed> {
        let (
            Some(Expr {
                kind: ExprKind::Reference(parts),
                ..
            }),
            true,
        ) = (arguments.first(), arguments.len() == 2)
        else {
            return Err(self.error(expr.span, "type", "`size` takes an array and a dimension: `size(x, 1)`"));
        };
        let dimension = self.structural_integer(&arguments[1], id)?;
        if let Some(local) = self.frame.as_ref().and_then(|frame| match parts.as_slice() {
            [part] => frame.find(&part.name.text),
            _ => None,
        }) {
            let size = usize::try_from(dimension - 1)
                .ok()
                .and_then(|place| local.shape.get(place).copied());
            let size = size
                .ok_or_else(|| self.error(expr.span, "bad-subscript", format!("there is no dimension {dimension}")))?;
            return Ok(Fixed::Integer(size as f64));
        }
        let (declared, owner) = self.find_declared(parts, id, expr)?;
        let shape = self.shape_of(owner, &declared.component.dimensions, declared.binding.as_ref())?;
        let size = usize::try_from(dimension - 1)
            .ok()
            .and_then(|dimension| shape.get(dimension).copied());
        let size =
            size.ok_or_else(|| self.error(expr.span, "bad-subscript", format!("there is no dimension {dimension}")))?;
        Ok(Fixed::Integer(size as f64))
    }

    fn structural_binary(&mut self, op: BinaryOp, left: Fixed, right: Fixed, expr: &Expr) -> Lowered<Fixed> {
        if let (Some(x), Some(y)) = (left.number(), right.number()) {
            let base = left
                .base()
                .and_then(|base| base.joined(right.base()?))
                .unwrap_or(BaseType::Real);
            // `/` and `^` always give a Real (10.6.5, 10.6.7).
            let value = match op {
                BinaryOp::Add | BinaryOp::ElementAdd => Fixed::of(x + y, base),
                BinaryOp::Sub | BinaryOp::ElementSub => Fixed::of(x - y, base),
                BinaryOp::Mul | BinaryOp::ElementMul => Fixed::of(x * y, base),
                BinaryOp::Div | BinaryOp::ElementDiv => Fixed::Real(x / y),
                BinaryOp::Pow | BinaryOp::ElementPow => {
                    Fixed::Real(self.graph.math().binary(Binary::Pow, x, y).unwrap_or(f64::NAN))
                }
                BinaryOp::Less => Fixed::Truth(x < y),
                BinaryOp::LessEqual => Fixed::Truth(x <= y),
                BinaryOp::Greater => Fixed::Truth(x > y),
                BinaryOp::GreaterEqual => Fixed::Truth(x >= y),
                BinaryOp::Equal => Fixed::Truth(x == y),
                BinaryOp::NotEqual => Fixed::Truth(x != y),
                BinaryOp::And | BinaryOp::Or => return Err(self.cannot_join(op, &left, &right, expr)),
            };
            return Ok(value);
        }
        if let (BinaryOp::Add, Fixed::Text(x), Fixed::Text(y)) = (op, &left, &right) {
            return Ok(Fixed::Text(format!("{x}{y}")));
        }
        let same = left.base() == right.base() && !matches!(left, Fixed::Array(_));
        let value = match (op, &left, &right) {
            (BinaryOp::Equal, _, _) if same => Fixed::Truth(left == right),
            (BinaryOp::NotEqual, _, _) if same => Fixed::Truth(left != right),
            (BinaryOp::And, Fixed::Truth(x), Fixed::Truth(y)) => Fixed::Truth(*x && *y),
            (BinaryOp::Or, Fixed::Truth(x), Fixed::Truth(y)) => Fixed::Truth(*x || *y),
            _ => return Err(self.cannot_join(op, &left, &right, expr)),
        };
        Ok(value)
    }

    fn cannot_join(&self, op: BinaryOp, left: &Fixed, right: &Fixed, expr: &Expr) -> Box<crate::Diagnostic> {
        let (left, right) = (describe(left), describe(right));
        self.error(
            expr.span,
            "type",
            format!("`{}` cannot join {left} and {right}", op.symbol()),
        )
    }

    /// Whether `expr` can be evaluated now, without reporting why not.
    pub fn try_structural(&mut self, expr: &'a Expr, id: InstanceId) -> Option<Fixed> {
        let used = self.used_set.len();
        let depth = self.structural_depth;
        let result = self.structural(expr, id).ok();
        self.structural_depth = depth;
        if result.is_none() {
            self.used_set.truncate(used);
        }
        result
    }
}

pub fn describe(value: &Fixed) -> String {
    match value {
        Fixed::Integer(value) => format!("the number {value}"),
        Fixed::Real(value) => format!("the Real {value}"),
        Fixed::Truth(value) => format!("the Boolean {value}"),
        Fixed::Text(_) => "a string".to_string(),
        Fixed::Array(_) => "an array".to_string(),
    }
}

/// Kernel names used by reductions; here so that both structural and lowered code agree on the functions of one argument.
pub const UNARY: [(&str, Unary); 15] = [
    ("abs", Unary::Abs),
    ("sqrt", Unary::Sqrt),
    ("exp", Unary::Exp),
    ("log", Unary::Log),
    ("log10", Unary::Log10),
    ("sin", Unary::Sin),
    ("cos", Unary::Cos),
    ("tan", Unary::Tan),
    ("asin", Unary::Asin),
    ("acos", Unary::Acos),
    ("atan", Unary::Atan),
    ("sinh", Unary::Sinh),
    ("cosh", Unary::Cosh),
    ("tanh", Unary::Tanh),
    ("floor", Unary::Floor),
];
