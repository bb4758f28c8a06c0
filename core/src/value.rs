//! The value of a field or of an expression: borrowed from the event, never allocated.

/// What an expression sees. [`Value::Missing`] is a field that the event does not have: every comparison with it is
/// false, `has()` tells it apart, and nothing about it is ever an error at run time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// The field is absent or null.
    Missing,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a fraction.
    Float(f64),
    /// Text.
    Str(&'a str),
}

impl Value<'_> {
    /// Only the value `true` is true: missing and every other type are false.
    pub fn is_true(self) -> bool {
        matches!(self, Value::Bool(true))
    }

    /// The value as JSON, for the metadata of a decision.
    pub fn to_json(self) -> serde_json::Value {
        match self {
            Value::Missing => serde_json::Value::Null,
            Value::Bool(b) => b.into(),
            Value::Int(i) => i.into(),
            Value::Float(f) => f.into(),
            Value::Str(s) => s.into(),
        }
    }
}

/// The type of a field or of an expression, known when the rules are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Int,
    /// A number with a fraction.
    Float,
    /// Text.
    Str,
    /// `data.*`: whatever the app sent; a comparison with another type than it has is false.
    Any,
}

impl Type {
    /// The word used in messages and in the field table.
    pub fn name(self) -> &'static str {
        match self {
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Float => "float",
            Type::Str => "string",
            Type::Any => "any",
        }
    }
}
