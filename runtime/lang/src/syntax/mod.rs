//! The text of a model as a tree: every node knows its place in the source.

pub mod lexer;
pub mod parser;

/// Bytes of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

impl Span {
    pub fn to(self, other: Span) -> Span {
        Span {
            start: self.start.min(other.start),
            end: self.end.max(other.end),
        }
    }

    pub fn range(self) -> std::ops::Range<usize> {
        self.start..self.end
    }
}

/// A name with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Ident {
    pub text: String,
    pub span: Span,
}

/// What a class declaration declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClassKind {
    Model,
    Block,
    Connector,
    Function,
    Record,
    Package,
    /// `type Name = Real(...)`
    Type,
}

impl ClassKind {
    /// With its article, as a message names it.
    pub fn describe(self) -> &'static str {
        match self {
            ClassKind::Model => "a model",
            ClassKind::Block => "a block",
            ClassKind::Connector => "a connector",
            ClassKind::Function => "a function",
            ClassKind::Record => "a record",
            ClassKind::Package => "a package",
            ClassKind::Type => "a type",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Class {
    pub kind: ClassKind,
    pub name: Ident,
    pub description: String,
    pub elements: Vec<Element>,
    pub equations: Vec<Equation>,
    pub initial_equations: Vec<Equation>,
    /// One for every `algorithm` section.
    pub algorithms: Vec<Vec<Statement>>,
    /// For `type`: the type it abbreviates, with its modifications.
    pub alias: Option<(Ident, Vec<Modifier>)>,
    pub partial: bool,
    /// `connector RealInput = input Real`
    pub alias_causality: Causality,
    pub span: Span,
}

#[derive(Debug, Clone)]
pub enum Element {
    Component(Box<Component>),
    Extends { base: Ident, modifiers: Vec<Modifier> },
    Class(Box<Class>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Variability {
    #[default]
    Continuous,
    Discrete,
    Parameter,
    Constant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Causality {
    #[default]
    Local,
    Input,
    Output,
}

#[derive(Debug, Clone)]
pub struct Component {
    pub variability: Variability,
    pub causality: Causality,
    pub flow: bool,
    pub protected: bool,
    /// Not to be modified (7.2.6).
    pub is_final: bool,
    pub type_name: Ident,
    pub name: Ident,
    pub dimensions: Vec<Dimension>,
    pub modifiers: Vec<Modifier>,
    pub binding: Option<Expr>,
    /// `A a if condition`
    pub condition: Option<Expr>,
    pub description: String,
    pub span: Span,
}

#[derive(Debug, Clone)]
pub enum Dimension {
    Size(Expr),
    /// `:`, taken from the binding or the argument.
    Any,
}

/// `name = value` or `name(nested…)` inside a modification.
#[derive(Debug, Clone)]
pub struct Modifier {
    pub name: Ident,
    pub value: Option<Expr>,
    pub nested: Vec<Modifier>,
    /// Not to be modified again (7.2.6).
    pub is_final: bool,
    /// Applied to every element of an array instead of being split over them (7.2.5).
    pub each: bool,
}

#[derive(Debug, Clone)]
pub enum Equation {
    Equal {
        left: Expr,
        right: Expr,
        span: Span,
    },
    If {
        branches: Vec<(Expr, Vec<Equation>)>,
        otherwise: Vec<Equation>,
        span: Span,
    },
    For {
        index: Ident,
        range: Option<Expr>,
        body: Vec<Equation>,
        span: Span,
    },
    When {
        branches: Vec<(Expr, Vec<Equation>)>,
        span: Span,
    },
    Connect {
        left: Expr,
        right: Expr,
        span: Span,
    },
    /// `assert(…)`, `reinit(…)`, `terminate(…)`.
    Call {
        call: Expr,
    },
}

impl Equation {
    pub fn span(&self) -> Span {
        match self {
            Equation::Equal { span, .. }
            | Equation::If { span, .. }
            | Equation::For { span, .. }
            | Equation::When { span, .. }
            | Equation::Connect { span, .. } => *span,
            Equation::Call { call } => call.span,
        }
    }
}

#[derive(Debug, Clone)]
pub enum Statement {
    Assign {
        target: Expr,
        value: Expr,
        span: Span,
    },
    If {
        branches: Vec<(Expr, Vec<Statement>)>,
        otherwise: Vec<Statement>,
        span: Span,
    },
    For {
        index: Ident,
        range: Option<Expr>,
        body: Vec<Statement>,
        span: Span,
    },
    While {
        condition: Expr,
        body: Vec<Statement>,
        span: Span,
    },
    Return {
        span: Span,
    },
    Break {
        span: Span,
    },
    Call {
        call: Expr,
    },
}

impl Statement {
    pub fn span(&self) -> Span {
        match self {
            Statement::Assign { span, .. }
            | Statement::If { span, .. }
            | Statement::For { span, .. }
            | Statement::While { span, .. }
            | Statement::Return { span }
            | Statement::Break { span } => *span,
            Statement::Call { call } => call.span,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Expr {
    pub kind: ExprKind,
    pub span: Span,
}

#[derive(Debug, Clone)]
pub enum ExprKind {
    Number(f64),
    /// A number without point and exponent.
    Integer(f64),
    Text(String),
    Boolean(bool),
    /// `a.b[i].c`
    Reference(Vec<Part>),
    Call {
        function: Ident,
        arguments: Vec<Expr>,
        named: Vec<(Ident, Expr)>,
    },
    Unary(UnaryOp, Box<Expr>),
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
    If {
        branches: Vec<(Expr, Expr)>,
        otherwise: Box<Expr>,
    },
    Array(Vec<Expr>),
    /// `{expression for i in range}`
    Comprehension {
        body: Box<Expr>,
        index: Ident,
        range: Box<Expr>,
    },
    /// `[a, b; c, d]`
    Matrix(Vec<Vec<Expr>>),
    Range {
        from: Box<Expr>,
        step: Option<Box<Expr>>,
        to: Box<Expr>,
    },
    /// `(a, , b)` on the left of a call with several results.
    Tuple(Vec<Option<Expr>>),
    /// `:` as a subscript.
    All,
    /// `end` as a subscript.
    End,
}

#[derive(Debug, Clone)]
pub struct Part {
    pub name: Ident,
    pub subscripts: Vec<Expr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnaryOp {
    Minus,
    Plus,
    Not,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    ElementAdd,
    ElementSub,
    ElementMul,
    ElementDiv,
    ElementPow,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Equal,
    NotEqual,
    And,
    Or,
}

impl BinaryOp {
    pub fn symbol(self) -> &'static str {
        match self {
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::Pow => "^",
            BinaryOp::ElementAdd => ".+",
            BinaryOp::ElementSub => ".-",
            BinaryOp::ElementMul => ".*",
            BinaryOp::ElementDiv => "./",
            BinaryOp::ElementPow => ".^",
            BinaryOp::Less => "<",
            BinaryOp::LessEqual => "<=",
            BinaryOp::Greater => ">",
            BinaryOp::GreaterEqual => ">=",
            BinaryOp::Equal => "==",
            BinaryOp::NotEqual => "<>",
            BinaryOp::And => "and",
            BinaryOp::Or => "or",
        }
    }
}
