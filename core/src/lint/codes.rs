//! The codes of what a pack is warned about. They are frozen: a code is never used for something else. `docs/rules.md`
//! explains each.

/// No test in which the rule fires.
pub const NO_FIRING_TEST: &str = "W001";
/// No test in which the rule stays quiet.
pub const NO_QUIET_TEST: &str = "W002";
/// `meta` does not say who owns the rule, what it is for, what it cannot see or what to do.
pub const META: &str = "W003";
/// A tag in the name space of ATT&CK that is none of its ids.
pub const TAG: &str = "W004";
/// An exception that never ends.
pub const ENDLESS_EXCEPTION: &str = "W005";
/// An exception whose last day has passed: a problem.
pub const EXPIRED_EXCEPTION: &str = "W006";
/// A list, a predicate or a `let` that no expression names.
pub const UNUSED: &str = "W007";
/// A flag that neither a rule nor the policy names.
pub const UNUSED_FLAG: &str = "W008";
/// `review_by` is no day, or one that has passed.
pub const REVIEW: &str = "W009";
/// A rule looks back longer than observations are kept.
pub const RETENTION: &str = "W010";
/// What is remembered of one entity may exceed the budget.
pub const COST: &str = "W011";
/// A rule that cannot fire.
pub const CANNOT_FIRE: &str = "W012";

/// Points outside the band of their severity.
pub const BAND: &str = "W013";
/// An action at a level that the pack's rules cannot reach.
pub const UNREACHABLE: &str = "W014";
/// An action other than an alert that nothing switches on or off, or that is on unless switched off.
pub const NO_SWITCH: &str = "W015";

/// Every code.
pub const ALL: [&str; 15] = [
    NO_FIRING_TEST,
    NO_QUIET_TEST,
    META,
    TAG,
    ENDLESS_EXCEPTION,
    EXPIRED_EXCEPTION,
    UNUSED,
    UNUSED_FLAG,
    REVIEW,
    RETENTION,
    COST,
    CANNOT_FIRE,
    BAND,
    UNREACHABLE,
    NO_SWITCH,
];
