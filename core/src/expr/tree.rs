//! The syntax tree: what was written, with its place, before names and types are looked at.

use super::ExprError;
use crate::value::Value;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

/// How deep one source may nest. Bounds every recursion over a tree, the one at run time included.
pub(super) const MAX_NESTING: usize = 64;

/// Bytes of the source, end not included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub start: usize,
    pub end: usize,
}

impl Span {
    /// From the start of this to the end of that.
    pub fn to(self, last: Span) -> Span {
        Span { start: self.start, end: last.end.max(self.start) }
    }

    /// An error about these bytes.
    pub fn error(self, message: impl Into<String>) -> ExprError {
        ExprError { message: message.into(), offset: self.start, length: self.end.saturating_sub(self.start).max(1), help: None }
    }
}

impl ExprError {
    /// Adds the way out.
    pub(super) fn or_try(mut self, help: impl Into<String>) -> ExprError {
        self.help = Some(help.into());
        self
    }
}

/// A value known when the rules are loaded.
#[derive(Debug, Clone)]
pub(super) enum Const {
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Box<str>),
}

impl Const {
    pub fn value(&self) -> Value<'_> {
        match self {
            Const::Bool(b) => Value::Bool(*b),
            Const::Int(i) => Value::Int(*i),
            Const::Float(f) => Value::Float(*f),
            Const::Str(s) => Value::Str(s),
        }
    }

    /// Its type, its bits and its text: equal only for what is the same in every use, which 0.0 and -0.0 are not.
    fn identity(&self) -> (u8, u64, &str) {
        match self {
            Const::Bool(b) => (0, u64::from(*b), ""),
            Const::Int(i) => (1, i.cast_unsigned(), ""),
            Const::Float(f) => (2, f.to_bits(), ""),
            Const::Str(s) => (3, 0, s),
        }
    }
}

impl PartialEq for Const {
    fn eq(&self, other: &Const) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Const {}

impl Hash for Const {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

/// `== != < <= > >=`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

impl Comparison {
    /// Whether it holds of two values in this order.
    pub fn accepts(self, order: Ordering) -> bool {
        match self {
            Comparison::Equal => order.is_eq(),
            Comparison::NotEqual => order.is_ne(),
            Comparison::Less => order.is_lt(),
            Comparison::AtMost => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::AtLeast => order.is_ge(),
        }
    }

    /// The same comparison with its sides exchanged.
    pub fn flipped(self) -> Comparison {
        match self {
            Comparison::Less => Comparison::Greater,
            Comparison::AtMost => Comparison::AtLeast,
            Comparison::Greater => Comparison::Less,
            Comparison::AtLeast => Comparison::AtMost,
            same => same,
        }
    }
}

/// `+ - * / %`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Arithmetic {
    /// The sign, for messages.
    pub fn sign(self) -> &'static str {
        match self {
            Arithmetic::Add => "+",
            Arithmetic::Subtract => "-",
            Arithmetic::Multiply => "*",
            Arithmetic::Divide => "/",
            Arithmetic::Remainder => "%",
        }
    }
}

/// An operator with two sides that are both always looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Binary {
    Compare(Comparison),
    In,
    Arithmetic(Arithmetic),
}

/// One node of what was written.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    pub kind: Kind,
    pub span: Span,
    depth: usize,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Literal(Const),
    List(Vec<Tree>),
    /// `status_code`, `headers["x-tenant"]`, `data.form.kind`, `lists.admins`, the name of a let.
    Path(Vec<String>),
    /// `has(x)`, or `x.contains(y)` when there is a receiver.
    Call {
        name: String,
        name_span: Span,
        receiver: Option<Box<Tree>>,
        arguments: Vec<Tree>,
    },
    Not(Box<Tree>),
    Negate(Box<Tree>),
    Binary(Binary, Box<Tree>, Box<Tree>),
    /// `a && b && c`: flat, so that a long chain is not deep.
    All(Vec<Tree>),
    /// `a || b || c`
    AnyOf(Vec<Tree>),
    /// Condition, then, else.
    Ternary(Box<[Tree; 3]>),
}

impl Tree {
    /// A node, unless it would be too deep.
    pub fn new(kind: Kind, span: Span) -> Result<Tree, ExprError> {
        let depth = 1 + match &kind {
            Kind::Literal(_) | Kind::Path(_) => 0,
            Kind::List(items) | Kind::All(items) | Kind::AnyOf(items) => deepest(items),
            Kind::Call { receiver, arguments, .. } => deepest(arguments).max(receiver.as_ref().map_or(0, |r| r.depth)),
            Kind::Not(inner) | Kind::Negate(inner) => inner.depth,
            Kind::Binary(_, left, right) => left.depth.max(right.depth),
            Kind::Ternary(parts) => deepest(parts.as_slice()),
        };
        if depth > MAX_NESTING {
            return Err(too_deep(span));
        }
        Ok(Tree { kind, span, depth })
    }

    /// The same in brackets. A path keeps its own place, so that an error can point at the first of its names.
    pub fn bracketed(self, span: Span) -> Tree {
        if matches!(self.kind, Kind::Path(_)) { self } else { Tree { span, ..self } }
    }
}

fn deepest(trees: &[Tree]) -> usize {
    trees.iter().map(|t| t.depth).max().unwrap_or(0)
}

/// The refusal of a source that nests too deeply.
pub(super) fn too_deep(span: Span) -> ExprError {
    span.error(format!("the expression nests more than {MAX_NESTING} deep")).or_try("name its parts with `let`")
}
