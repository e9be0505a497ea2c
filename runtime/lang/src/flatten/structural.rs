//! What must be known when compiling: sizes, ranges, subscripts, conditions of structure.

use super::instance::{BaseType, Declared, InstanceId, Member};
use super::{Flattener, Lowered};
use crate::graph::{Binary, Unary};
use crate::syntax::{BinaryOp, Expr, ExprKind, Part, UnaryOp, Variability};

/// A value known when compiling.
#[derive(Debug, Clone, PartialEq)]
pub enum Fixed {
    Number(f64),
    Truth(bool),
    Text(String),
    Array(Vec<Fixed>),
}

const MAX_DEPTH: u32 = 100;

impl<'a> Flattener<'a> {
    pub fn structural_integer(&mut self, expr: &'a Expr, id: InstanceId) -> Lowered<i64> {
        match self.structural(expr, id)? {
            Fixed::Number(value) if libm::trunc(value) == value && value.abs() < 1e15 => Ok(value as i64),
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
    pub fn structural_range(&mut self, expr: &'a Expr, id: InstanceId) -> Lowered<Vec<f64>> {
        let Fixed::Array(items) = self.structural(expr, id)? else {
            return Err(self.error(expr.span, "not-a-range", "a range such as `1:n` is needed here"));
        };
        self.spend(items.len() as u64);
        items
            .into_iter()
            .map(|item| match item {
                Fixed::Number(value) => Ok(value),
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
            ExprKind::Number(value) => Ok(Fixed::Number(*value)),
            ExprKind::Text(text) => Ok(Fixed::Text(text.clone())),
            ExprKind::Boolean(value) => Ok(Fixed::Truth(*value)),
            ExprKind::Reference(parts) => self.structural_reference(parts, expr, id),
            ExprKind::Unary(op, operand) => match (op, self.structural(operand, id)?) {
                (UnaryOp::Minus, Fixed::Number(value)) => Ok(Fixed::Number(-value)),
                (UnaryOp::Plus, value @ Fixed::Number(_)) => Ok(value),
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
                let from_value = self.structural_number(from, id)?;
                let step_value = step.as_ref().map_or(Ok(1.0), |step| self.structural_number(step, id))?;
                let to_value = self.structural_number(to, id)?;
                let count = libm::floor((to_value - from_value) / step_value + 1e-12) + 1.0;
                if step_value == 0.0 || count.is_nan() || count > super::MAX_SCALARS as f64 {
                    return Err(self.error(expr.span, "bad-size", "this range is too long"));
                }
                let count = count.max(0.0) as u32;
                Ok(Fixed::Array(
                    (0..count)
                        .map(|index| Fixed::Number(from_value + f64::from(index) * step_value))
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
            ExprKind::Comprehension { .. }
            | ExprKind::Tuple(_)
            | ExprKind::Matrix(_)
            | ExprKind::All
            | ExprKind::End => Err(self.not_structural(expr)),
        }
    }

    fn not_structural(&self, expr: &Expr) -> Box<crate::Diagnostic> {
        let error = self.error(expr.span, "not-structural", "this must be known when compiling");
        Box::new(error.remedy("use numbers, constants and Integer or Boolean parameters"))
    }

    fn structural_number(&mut self, expr: &'a Expr, id: InstanceId) -> Lowered<f64> {
        match self.structural(expr, id)? {
            Fixed::Number(value) => Ok(value),
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
            return Ok(Fixed::Number(*value));
        }
        if let [part] = parts
            && let Some(value) = self.local_fixed(part, expr, id)
        {
            return value;
        }
        if let Some(value) = self.constant(parts, expr, id) {
            let value = value?;
            return self.fixed_of(&value).ok_or_else(|| self.not_structural(expr));
        }
        let (declared, owner) = self.find_declared(parts, id, expr)?;
        let mut value = self.structural_declared(&declared, owner, expr)?;
        for subscript in parts.iter().flat_map(|part| &part.subscripts) {
            let index = self.structural_integer(subscript, id)?;
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
                Some(Member::Variable(declared)) if last => {
                    return Ok(((**declared).clone(), here));
                }
                Some(Member::Instances { ids, .. }) if !last && ids.len() == 1 => here = ids[0],
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
        if let Some(value) = self.set.get(&name).copied() {
            self.used_set.push(name);
            return Ok(if declared.base == BaseType::Boolean {
                Fixed::Truth(value != 0.0)
            } else {
                Fixed::Number(value)
            });
        }
        let Some((binding, written_in)) = declared.binding else {
            let error = self.error(component.name.span, "no-value", format!("`{name}` has no value"));
            return Err(Box::new(
                error.remedy(format!("give it one: `{} = …`", component.name.text)),
            ));
        };
        let loops = std::mem::take(&mut self.loops);
        let value = self.structural(binding, written_in);
        self.loops = loops;
        let value = value?;
        let fits = match (&value, declared.base) {
            (Fixed::Number(number), BaseType::Integer) => libm::trunc(*number) == *number,
            (Fixed::Number(_), BaseType::Real)
            | (Fixed::Truth(_), BaseType::Boolean)
            | (Fixed::Text(_), BaseType::String) => true,
            (Fixed::Array(_), _) => true,
            _ => false,
        };
        if fits {
            return Ok(value);
        }
        let message = format!(
            "{} is not a value for the {:?} `{name}`",
            describe(&value),
            declared.base
        );
        Err(self.error(binding.span, "type", message))
    }

    fn structural_call(&mut self, name: &str, arguments: &'a [Expr], expr: &'a Expr, id: InstanceId) -> Lowered<Fixed> {
        if name == "size" {
            return self.structural_size(arguments, expr, id);
        }
        let mut values = Vec::new();
        for argument in arguments {
            match self.structural(argument, id)? {
                Fixed::Number(value) => values.push(value),
                other => {
                    return Err(self.error(
                        argument.span,
                        "type",
                        format!("a number is needed here, not {}", describe(&other)),
                    ));
                }
            }
        }
        let value = match (name, values.as_slice()) {
            ("integer" | "floor", [x]) => libm::floor(*x),
            ("ceil", [x]) => libm::ceil(*x),
            ("abs", [x]) => x.abs(),
            ("sign", [x]) => f64::from(u8::from(*x > 0.0)) - f64::from(u8::from(*x < 0.0)),
            ("sqrt", [x]) => libm::sqrt(*x),
            ("div", [x, y]) if *y != 0.0 => libm::trunc(x / y),
            ("mod", [x, y]) if *y != 0.0 => x - libm::floor(x / y) * y,
            ("rem", [x, y]) if *y != 0.0 => x - libm::trunc(x / y) * y,
            ("min", [x, y]) => x.min(*y),
            ("max", [x, y]) => x.max(*y),
            _ => return Err(self.not_structural(expr)),
        };
        Ok(Fixed::Number(value))
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
            return Ok(Fixed::Number(size as f64));
        }
        let (declared, owner) = self.find_declared(parts, id, expr)?;
        let shape = self.shape_of(owner, &declared.component.dimensions, declared.binding)?;
        let size = usize::try_from(dimension - 1)
            .ok()
            .and_then(|dimension| shape.get(dimension).copied());
        let size =
            size.ok_or_else(|| self.error(expr.span, "bad-subscript", format!("there is no dimension {dimension}")))?;
        Ok(Fixed::Number(size as f64))
    }

    fn structural_binary(&mut self, op: BinaryOp, left: Fixed, right: Fixed, expr: &Expr) -> Lowered<Fixed> {
        let math = self.graph.math();
        let value = match (op, &left, &right) {
            (BinaryOp::Add, Fixed::Number(x), Fixed::Number(y)) => Fixed::Number(x + y),
            (BinaryOp::Sub, Fixed::Number(x), Fixed::Number(y)) => Fixed::Number(x - y),
            (BinaryOp::Mul, Fixed::Number(x), Fixed::Number(y)) => Fixed::Number(x * y),
            (BinaryOp::Div, Fixed::Number(x), Fixed::Number(y)) => Fixed::Number(x / y),
            (BinaryOp::Pow, Fixed::Number(x), Fixed::Number(y)) => {
                Fixed::Number(math.binary(Binary::Pow, *x, *y).unwrap_or(f64::NAN))
            }
            (BinaryOp::Less, Fixed::Number(x), Fixed::Number(y)) => Fixed::Truth(x < y),
            (BinaryOp::LessEqual, Fixed::Number(x), Fixed::Number(y)) => Fixed::Truth(x <= y),
            (BinaryOp::Greater, Fixed::Number(x), Fixed::Number(y)) => Fixed::Truth(x > y),
            (BinaryOp::GreaterEqual, Fixed::Number(x), Fixed::Number(y)) => Fixed::Truth(x >= y),
            (BinaryOp::Equal, _, _) => Fixed::Truth(left == right),
            (BinaryOp::NotEqual, _, _) => Fixed::Truth(left != right),
            (BinaryOp::And, Fixed::Truth(x), Fixed::Truth(y)) => Fixed::Truth(*x && *y),
            (BinaryOp::Or, Fixed::Truth(x), Fixed::Truth(y)) => Fixed::Truth(*x || *y),
            _ => {
                let message = format!(
                    "`{}` cannot join {} and {}",
                    op.symbol(),
                    describe(&left),
                    describe(&right)
                );
                return Err(self.error(expr.span, "type", message));
            }
        };
        Ok(value)
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
        Fixed::Number(value) => format!("the number {value}"),
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
