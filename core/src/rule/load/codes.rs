//! The codes of a pack's problems. They are frozen: a code is never used for something else. `docs/rules.md` explains each.

/// Not readable as YAML, or a key stands twice.
pub const YAML: &str = "R001";
/// A key that is not known here.
pub const UNKNOWN_KEY: &str = "R002";
/// A key that is required and absent.
pub const MISSING_KEY: &str = "R003";
/// A value of the wrong type or shape.
pub const WRONG_TYPE: &str = "R004";
/// A number or a duration outside its range.
pub const RANGE: &str = "R005";
/// A word that is not one of those allowed.
pub const UNKNOWN_WORD: &str = "R006";
/// Part of the format, but not of this version of Tripline.
pub const NOT_YET: &str = "R007";
/// A `schema` that this version does not read.
pub const SCHEMA: &str = "R008";
/// A name that is not spelled as names are.
pub const NAME: &str = "R009";
/// Something that may stand once stands twice.
pub const DUPLICATE: &str = "R010";
/// A flag that no document declares.
pub const UNKNOWN_FLAG: &str = "R011";
/// An expression that does not compile.
pub const EXPRESSION: &str = "R012";
/// A setting that no document declares.
pub const UNKNOWN_SETTING: &str = "R013";
/// A setting with a value that it cannot have.
pub const SETTING_VALUE: &str = "R014";
/// A bound of the pack as a whole.
pub const LIMIT: &str = "R015";
/// Keys that contradict each other.
pub const CONTRADICTION: &str = "R016";
/// A pack without rules.
pub const EMPTY: &str = "R017";

/// Every code.
pub const ALL: [&str; 17] = [
    YAML,
    UNKNOWN_KEY,
    MISSING_KEY,
    WRONG_TYPE,
    RANGE,
    UNKNOWN_WORD,
    NOT_YET,
    SCHEMA,
    NAME,
    DUPLICATE,
    UNKNOWN_FLAG,
    EXPRESSION,
    UNKNOWN_SETTING,
    SETTING_VALUE,
    LIMIT,
    CONTRADICTION,
    EMPTY,
];
