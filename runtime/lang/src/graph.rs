//! The expression graph: every equation as nodes of one arena, equal expressions only once.
//!
//! Constants are folded with the arithmetic of the emitted code ([`Math`]); nothing that can be tuned is folded.

use std::collections::HashMap;

use crate::kernel::{Binary as KernelBinary, Program, Unary as KernelUnary, interpret, parse};

/// A node's place in its graph; a node refers only to smaller ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub u32);

/// What a graph does not compute but is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Leaf {
    /// A flat variable, by its index.
    Variable(u32),
    /// The derivative of a flat variable.
    Derivative(u32),
    /// Time in seconds.
    Time,
    /// A value computed before and kept in the context.
    Slot(u32),
    /// The value a discrete-time variable had before the present event.
    Pre(u32),
    /// Whether the relation with this number holds, 1 or 0: fixed between events.
    Condition(u32),
    /// 1 while the model is initialised, 0 otherwise.
    Initial,
    /// An unknown of an algebraic loop, found by iteration.
    Loop(u32),
    /// The derivative of such an unknown along a direction.
    LoopRate(u32),
    /// A cotangent that a reverse pass starts from.
    Seed(u32),
    /// A word of the context.
    Word(u32),
}

/// Functions of one real.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unary {
    Neg,
    Abs,
    Sqrt,
    Floor,
    Ceil,
    Trunc,
    Exp,
    Log,
    Log10,
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Tanh,
}

/// Functions of two reals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
    Pow,
    Atan2,
    CopySign,
}

/// Relations; their value is a truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relation {
    Less,
    LessEqual,
    Equal,
    NotEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Node {
    /// The bits of an f64.
    Constant(u64),
    Truth(bool),
    Leaf(Leaf),
    Unary(Unary, Id),
    Binary(Binary, Id, Id),
    Relation(Relation, Id, Id),
    And(Id, Id),
    Or(Id, Id),
    Not(Id),
    /// Truth, value if true, value if false (both are evaluated).
    Select(Id, Id, Id),
}

/// The elementary functions as kernel code, shared by the folder and the printers.
#[derive(Debug, Clone)]
pub struct Math {
    pub program: Program,
}

impl Math {
    pub fn new() -> Result<Math, String> {
        let mut program = Program::default();
        parse::parse(&mut program, include_str!("kernel/elementary.kernel"), &HashMap::new())?;
        Ok(Math { program })
    }

    /// The value of a function at a constant, with the bits of the module.
    pub fn unary(&self, op: Unary, x: f64) -> Option<f64> {
        match unary_code(op) {
            Code::Op(op) => interpret::unary(op, x),
            Code::Function(name) => interpret::call(&self.program, self.program.index(name)?, &[x]),
        }
    }

    /// The value of a function at two constants, with the bits of the module.
    pub fn binary(&self, op: Binary, x: f64, y: f64) -> Option<f64> {
        match binary_code(op) {
            BinaryCode::Op(op) => interpret::binary(op, x, y),
            BinaryCode::Function(name) => interpret::call(&self.program, self.program.index(name)?, &[x, y]),
        }
    }
}

pub enum Code {
    Op(KernelUnary),
    Function(&'static str),
}

pub enum BinaryCode {
    Op(KernelBinary),
    Function(&'static str),
}

/// How a function of one real is computed in kernel code.
pub fn unary_code(op: Unary) -> Code {
    match op {
        Unary::Neg => Code::Op(KernelUnary::Neg),
        Unary::Abs => Code::Op(KernelUnary::Abs),
        Unary::Sqrt => Code::Op(KernelUnary::Sqrt),
        Unary::Floor => Code::Op(KernelUnary::Floor),
        Unary::Ceil => Code::Op(KernelUnary::Ceil),
        Unary::Trunc => Code::Op(KernelUnary::Trunc),
        Unary::Exp => Code::Function("exp"),
        Unary::Log => Code::Function("log"),
        Unary::Log10 => Code::Function("log10"),
        Unary::Sin => Code::Function("sin"),
        Unary::Cos => Code::Function("cos"),
        Unary::Tan => Code::Function("tan"),
        Unary::Asin => Code::Function("asin"),
        Unary::Acos => Code::Function("acos"),
        Unary::Atan => Code::Function("atan"),
        Unary::Sinh => Code::Function("sinh"),
        Unary::Cosh => Code::Function("cosh"),
        Unary::Tanh => Code::Function("tanh"),
    }
}

/// How a function of two reals is computed in kernel code.
pub fn binary_code(op: Binary) -> BinaryCode {
    match op {
        Binary::Add => BinaryCode::Op(KernelBinary::Add),
        Binary::Sub => BinaryCode::Op(KernelBinary::Sub),
        Binary::Mul => BinaryCode::Op(KernelBinary::Mul),
        Binary::Div => BinaryCode::Op(KernelBinary::Div),
        Binary::Min => BinaryCode::Op(KernelBinary::Min),
        Binary::Max => BinaryCode::Op(KernelBinary::Max),
        Binary::CopySign => BinaryCode::Op(KernelBinary::CopySign),
        Binary::Pow => BinaryCode::Function("pow"),
        Binary::Atan2 => BinaryCode::Function("atan2"),
    }
}

/// An arena of nodes.
#[derive(Debug, Clone)]
pub struct Graph {
    nodes: Vec<Node>,
    index: HashMap<Node, Id>,
    math: Math,
}

impl Graph {
    pub fn new(math: Math) -> Graph {
        Graph {
            nodes: Vec::new(),
            index: HashMap::new(),
            math,
        }
    }

    pub fn math(&self) -> &Math {
        &self.math
    }

    pub fn node(&self, id: Id) -> Node {
        self.nodes[id.0 as usize]
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    fn intern(&mut self, node: Node) -> Id {
        if let Some(id) = self.index.get(&node) {
            return *id;
        }
        let id = Id(self.nodes.len() as u32);
        self.nodes.push(node);
        self.index.insert(node, id);
        id
    }

    pub fn constant(&mut self, value: f64) -> Id {
        let canonical = if value.is_nan() { f64::NAN } else { value };
        self.intern(Node::Constant(canonical.to_bits()))
    }

    pub fn truth(&mut self, value: bool) -> Id {
        self.intern(Node::Truth(value))
    }

    pub fn leaf(&mut self, leaf: Leaf) -> Id {
        self.intern(Node::Leaf(leaf))
    }

    /// The value of a constant node.
    pub fn value(&self, id: Id) -> Option<f64> {
        match self.node(id) {
            Node::Constant(bits) => Some(f64::from_bits(bits)),
            _ => None,
        }
    }

    /// Whether a node is a truth.
    pub fn is_truth(&self, id: Id) -> bool {
        match self.node(id) {
            Node::Truth(_) | Node::Relation(..) | Node::And(..) | Node::Or(..) | Node::Not(_) => true,
            Node::Select(_, first, _) => self.is_truth(first),
            Node::Constant(_) | Node::Leaf(_) | Node::Unary(..) | Node::Binary(..) => false,
        }
    }

    pub fn unary(&mut self, op: Unary, operand: Id) -> Id {
        if let Some(value) = self.value(operand).and_then(|x| self.math.unary(op, x)) {
            return self.constant(value);
        }
        if let (Unary::Neg, Node::Unary(Unary::Neg, inner)) = (op, self.node(operand)) {
            return inner;
        }
        self.intern(Node::Unary(op, operand))
    }

    pub fn neg(&mut self, operand: Id) -> Id {
        self.unary(Unary::Neg, operand)
    }

    pub fn add(&mut self, left: Id, right: Id) -> Id {
        self.binary(Binary::Add, left, right)
    }

    pub fn sub(&mut self, left: Id, right: Id) -> Id {
        self.binary(Binary::Sub, left, right)
    }

    pub fn mul(&mut self, left: Id, right: Id) -> Id {
        self.binary(Binary::Mul, left, right)
    }

    pub fn div(&mut self, left: Id, right: Id) -> Id {
        self.binary(Binary::Div, left, right)
    }

    pub fn binary(&mut self, op: Binary, left: Id, right: Id) -> Id {
        let (x, y) = (self.value(left), self.value(right));
        if let (Some(x), Some(y)) = (x, y)
            && let Some(value) = self.math.binary(op, x, y)
        {
            return self.constant(value);
        }
        if let Some(simple) = self.simplify(op, left, right, x, y) {
            return simple;
        }
        // Commutative exactly, so that both orders share a node.
        let commutes = matches!(op, Binary::Add | Binary::Mul);
        if commutes && right < left {
            self.intern(Node::Binary(op, right, left))
        } else {
            self.intern(Node::Binary(op, left, right))
        }
    }

    fn simplify(&mut self, op: Binary, left: Id, right: Id, x: Option<f64>, y: Option<f64>) -> Option<Id> {
        match op {
            Binary::Add if x == Some(0.0) => Some(right),
            Binary::Add | Binary::Sub if y == Some(0.0) => Some(left),
            Binary::Sub if x == Some(0.0) => Some(self.neg(right)),
            Binary::Mul if x == Some(0.0) || y == Some(0.0) => Some(self.constant(0.0)),
            Binary::Mul if x == Some(1.0) => Some(right),
            Binary::Mul | Binary::Div if y == Some(1.0) => Some(left),
            Binary::Mul if x == Some(-1.0) => Some(self.neg(right)),
            Binary::Mul if y == Some(-1.0) => Some(self.neg(left)),
            Binary::Div if x == Some(0.0) => Some(self.constant(0.0)),
            Binary::Add => match self.node(right) {
                Node::Unary(Unary::Neg, inner) => Some(self.sub(left, inner)),
                _ => match self.node(left) {
                    Node::Unary(Unary::Neg, inner) => Some(self.sub(right, inner)),
                    _ => None,
                },
            },
            Binary::Sub => match self.node(right) {
                Node::Unary(Unary::Neg, inner) => Some(self.add(left, inner)),
                _ => None,
            },
            Binary::Pow => self.power(left, y?),
            _ => None,
        }
    }

    /// Powers with small constant exponents as products and roots.
    fn power(&mut self, base: Id, exponent: f64) -> Option<Id> {
        if exponent == 0.0 {
            return Some(self.constant(1.0));
        }
        if exponent == 0.5 {
            return Some(self.unary(Unary::Sqrt, base));
        }
        if libm::trunc(exponent) != exponent || exponent.abs() > 16.0 {
            return None;
        }
        let mut remaining = exponent.abs() as u32;
        let mut square = base;
        let mut product: Option<Id> = None;
        while remaining > 0 {
            if remaining & 1 == 1 {
                product = Some(product.map_or(square, |product| self.mul(product, square)));
            }
            remaining >>= 1;
            if remaining > 0 {
                square = self.mul(square, square);
            }
        }
        let product = product?;
        if exponent > 0.0 {
            return Some(product);
        }
        let one = self.constant(1.0);
        Some(self.div(one, product))
    }

    pub fn relation(&mut self, relation: Relation, left: Id, right: Id) -> Id {
        if let (Some(x), Some(y)) = (self.value(left), self.value(right)) {
            return self.truth(match relation {
                Relation::Less => x < y,
                Relation::LessEqual => x <= y,
                Relation::Equal => x == y,
                Relation::NotEqual => x != y,
            });
        }
        // A truth that was made a number is that truth again.
        if let (Relation::NotEqual, Node::Select(condition, first, second), Some(0.0)) =
            (relation, self.node(left), self.value(right))
        {
            match (self.value(first), self.value(second)) {
                (Some(1.0), Some(0.0)) => return condition,
                (Some(0.0), Some(1.0)) => return self.not(condition),
                _ => {}
            }
        }
        self.intern(Node::Relation(relation, left, right))
    }

    pub fn and(&mut self, left: Id, right: Id) -> Id {
        match (self.node(left), self.node(right)) {
            (Node::Truth(false), _) | (_, Node::Truth(false)) => self.truth(false),
            (Node::Truth(true), _) => right,
            (_, Node::Truth(true)) => left,
            _ => self.intern(Node::And(left, right)),
        }
    }

    pub fn or(&mut self, left: Id, right: Id) -> Id {
        match (self.node(left), self.node(right)) {
            (Node::Truth(true), _) | (_, Node::Truth(true)) => self.truth(true),
            (Node::Truth(false), _) => right,
            (_, Node::Truth(false)) => left,
            _ => self.intern(Node::Or(left, right)),
        }
    }

    pub fn not(&mut self, operand: Id) -> Id {
        match self.node(operand) {
            Node::Truth(value) => self.truth(!value),
            Node::Not(inner) => inner,
            _ => self.intern(Node::Not(operand)),
        }
    }

    pub fn select(&mut self, condition: Id, first: Id, second: Id) -> Id {
        match self.node(condition) {
            Node::Truth(true) => first,
            Node::Truth(false) => second,
            _ if first == second => first,
            _ => self.intern(Node::Select(condition, first, second)),
        }
    }

    /// The operands of a node.
    pub fn operands(&self, id: Id) -> impl Iterator<Item = Id> {
        let (first, second, third) = match self.node(id) {
            Node::Constant(_) | Node::Truth(_) | Node::Leaf(_) => (None, None, None),
            Node::Unary(_, a) | Node::Not(a) => (Some(a), None, None),
            Node::Binary(_, a, b) | Node::Relation(_, a, b) | Node::And(a, b) | Node::Or(a, b) => {
                (Some(a), Some(b), None)
            }
            Node::Select(a, b, c) => (Some(a), Some(b), Some(c)),
        };
        [first, second, third].into_iter().flatten()
    }

    /// The nodes that `roots` need, in an order in which operands come first.
    pub fn cone(&self, roots: &[Id]) -> Vec<Id> {
        let mut seen = vec![false; self.nodes.len()];
        let mut open: Vec<Id> = roots.to_vec();
        while let Some(id) = open.pop() {
            if !std::mem::replace(&mut seen[id.0 as usize], true) {
                open.extend(self.operands(id));
            }
        }
        // Operands are always smaller.
        (0..self.nodes.len() as u32)
            .map(Id)
            .filter(|id| seen[id.0 as usize])
            .collect()
    }

    /// The leaves that `roots` depend on, in order.
    pub fn leaves(&self, roots: &[Id]) -> Vec<Leaf> {
        let mut leaves: Vec<Leaf> = self
            .cone(roots)
            .into_iter()
            .filter_map(|id| match self.node(id) {
                Node::Leaf(leaf) => Some(leaf),
                _ => None,
            })
            .collect();
        leaves.sort_unstable();
        leaves
    }

    /// The parts of `root` that jump: their derivatives are zero and say nothing of it.
    pub fn steps(&self, root: Id) -> Vec<Id> {
        let jumps = |id: &Id| {
            matches!(
                self.node(*id),
                Node::Relation(..) | Node::Unary(Unary::Floor | Unary::Ceil | Unary::Trunc, _)
            )
        };
        self.cone(&[root]).into_iter().filter(jumps).collect()
    }

    /// `roots` with leaves replaced; `replace` says by what (`None`: kept).
    pub fn substitute(&mut self, roots: &[Id], mut replace: impl FnMut(Leaf) -> Option<Id>) -> Vec<Id> {
        let mut map: HashMap<Id, Id> = HashMap::new();
        for id in self.cone(roots) {
            let new = match self.node(id) {
                Node::Leaf(leaf) => replace(leaf).unwrap_or(id),
                _ => self.rebuild(id, |operand| map.get(&operand).copied().unwrap_or(operand)),
            };
            if new != id {
                map.insert(id, new);
            }
        }
        roots
            .iter()
            .map(|root| map.get(root).copied().unwrap_or(*root))
            .collect()
    }

    /// The node `id` over other operands, folded anew.
    pub fn rebuild(&mut self, id: Id, get: impl Fn(Id) -> Id) -> Id {
        match self.node(id) {
            Node::Constant(_) | Node::Truth(_) | Node::Leaf(_) => id,
            Node::Unary(op, a) => self.unary(op, get(a)),
            Node::Not(a) => self.not(get(a)),
            Node::Binary(op, a, b) => self.binary(op, get(a), get(b)),
            Node::Relation(relation, a, b) => self.relation(relation, get(a), get(b)),
            Node::And(a, b) => self.and(get(a), get(b)),
            Node::Or(a, b) => self.or(get(a), get(b)),
            Node::Select(a, b, c) => self.select(get(a), get(b), get(c)),
        }
    }

    /// The value of a node for given leaves, with the module's arithmetic; `None` where a leaf is not given.
    pub fn evaluate(&mut self, root: Id, mut given: impl FnMut(Leaf) -> Option<f64>) -> Option<f64> {
        let replaced = self.leaves(&[root]);
        let mut constants = HashMap::new();
        for leaf in replaced {
            let value = given(leaf)?;
            constants.insert(leaf, self.constant(value));
        }
        let folded = self.substitute(&[root], |leaf| constants.get(&leaf).copied());
        match self.node(folded[0]) {
            Node::Truth(value) => Some(f64::from(u8::from(value))),
            _ => self.value(folded[0]),
        }
    }
}
