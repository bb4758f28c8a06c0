//! Why a record could not become an event. `docs/bad-input.md` has one row per reason.

use std::fmt;

/// The reasons, as they stand in the dead letter's `tripline-reason` header and in the metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The value is null (a tombstone).
    NullValue,
    /// The value has no bytes, or only white space.
    EmptyValue,
    /// The value is longer than `input.max_value_bytes`.
    TooLarge,
    /// The value is not UTF-8.
    InvalidUtf8,
    /// The value is not JSON, or not one JSON object.
    InvalidJson,
    /// Nested deeper than 64 levels.
    TooDeep,
    /// A CloudEvent of a version or in a form that is not read.
    Unsupported,
    /// The same key stands twice in one object.
    DuplicateKey,
    /// A known field has another JSON type than the schema says.
    WrongType,
    /// A required field is absent.
    MissingField,
    /// `event_time` is not a time, or outside 2000 to 2100.
    BadTime,
    /// An id is longer than 256 bytes.
    IdTooLong,
    /// An id or the event type has a control character, or a text field has U+0000.
    ControlCharacter,
    /// Keyed mode: the record's key is not its actor, or its partition is not its key's.
    Misrouted,
    /// Our own bug: evaluating the record panicked.
    Panicked,
}

impl Reason {
    /// All reasons, for tables and tests.
    pub const ALL: [Reason; 15] = [
        Reason::NullValue,
        Reason::EmptyValue,
        Reason::TooLarge,
        Reason::InvalidUtf8,
        Reason::InvalidJson,
        Reason::TooDeep,
        Reason::Unsupported,
        Reason::DuplicateKey,
        Reason::WrongType,
        Reason::MissingField,
        Reason::BadTime,
        Reason::IdTooLong,
        Reason::ControlCharacter,
        Reason::Misrouted,
        Reason::Panicked,
    ];

    /// The reason's word.
    pub fn name(self) -> &'static str {
        match self {
            Reason::NullValue => "null_value",
            Reason::EmptyValue => "empty_value",
            Reason::TooLarge => "too_large",
            Reason::InvalidUtf8 => "invalid_utf8",
            Reason::InvalidJson => "invalid_json",
            Reason::TooDeep => "too_deep",
            Reason::Unsupported => "unsupported",
            Reason::DuplicateKey => "duplicate_key",
            Reason::WrongType => "wrong_type",
            Reason::MissingField => "missing_field",
            Reason::BadTime => "bad_time",
            Reason::IdTooLong => "id_too_long",
            Reason::ControlCharacter => "control_character",
            Reason::Misrouted => "misrouted",
            Reason::Panicked => "panicked",
        }
    }
}

/// One rejection: the reason and where, never a value of the record (it may be personal).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The reason.
    pub reason: Reason,
    /// The field or the position, in the schema's words; never the record's content.
    pub detail: String,
}

impl Rejection {
    /// A rejection with a detail.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Rejection {
        Rejection { reason, detail: detail.into() }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() { f.write_str(self.reason.name()) } else { write!(f, "{}: {}", self.reason.name(), self.detail) }
    }
}
