//! From score to action.
//!
//! An action is *entered* when an axis has `at` points from enough families (or something certain), and it is *left* when the
//! score is below `leave`: no flapping. What may be done is asked first: [`enforce`] names the first thing that says no.

pub mod enforce;
#[cfg(test)]
mod tests;

use crate::entity::EntityKind;
use crate::expr::Expr;
use crate::rule::Mode;
use crate::score::Axis;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What may be done, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Tell a person.
    Alert,
    /// Allow less per time.
    Throttle,
    /// Ask the user to prove who they are.
    StepUp,
    /// Refuse.
    Block,
}

impl Action {
    /// Every action, the weakest first.
    pub const ALL: [Action; 4] = [Action::Alert, Action::Throttle, Action::StepUp, Action::Block];

    /// The action's word.
    pub fn name(self) -> &'static str {
        match self {
            Action::Alert => "alert",
            Action::Throttle => "throttle",
            Action::StepUp => "step_up",
            Action::Block => "block",
        }
    }

    /// The mode that a rule needs for it.
    pub fn needs(self) -> Mode {
        if self == Action::Alert { Mode::Alert } else { Mode::Enforce }
    }

    /// Who says that a mode is not enough for it, as decisions say it; `None` if it is.
    pub fn held_back_by(self, mode: Mode) -> Option<&'static str> {
        match mode {
            mode if mode >= self.needs() => None,
            Mode::Off | Mode::Shadow => Some("mode:shadow"),
            Mode::Alert => Some("mode:alert"),
            Mode::Signal | Mode::Enforce => Some("mode:signal"),
        }
    }

    /// Whether it may be done to entities of this kind. A tenant is many people, and `anon` is everybody who is nobody else:
    /// neither is challenged or refused because of some of them.
    pub fn is_for(self, kind: EntityKind) -> bool {
        let is_many = kind == EntityKind::ANON || kind == EntityKind::from(crate::entity::Part::Tenant);
        self <= Action::Throttle || !is_many
    }
}

/// How long an action with a lifetime lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sentence {
    /// The first time, milliseconds.
    pub ttl_ms: i64,
    /// So many times longer each further time, thousandths; 1 000 and above.
    pub grow: u32,
    /// The longest, milliseconds (besides the part that keeps returns from being timed).
    pub max_ttl_ms: i64,
    /// So long after the last one ended all of them are forgotten, milliseconds.
    pub forget_ms: i64,
}

impl Sentence {
    /// The lifetime after so many offences, milliseconds: `ttl × grow^offences`, at most `max_ttl`, and up to a tenth longer by
    /// `seed`, so that nobody can time a return.
    pub fn length_ms(&self, offences: u8, seed: u64) -> i64 {
        let mut length = self.ttl_ms.min(self.max_ttl_ms).max(1) as u64;
        let most = self.max_ttl_ms.max(1) as u64;
        for _ in 0..offences {
            length = (u128::from(length) * u128::from(self.grow) / 1_000).min(u128::from(most)) as u64;
        }
        let tenth = u128::from(length) * u128::from(seed % 1_001) / 10_000;
        i64::try_from(u128::from(length) + tenth).unwrap_or(i64::MAX)
    }
}

/// What is still allowed under `throttle`, as the time between two events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    /// At `at` points, microseconds between two events.
    pub from_us: i64,
    /// At 100 points, microseconds between two events; not below `from_us`.
    pub floor_us: i64,
}

impl Allowed {
    /// Milliseconds between two events at this score: the rate falls evenly from the one at `at` to the one at 100.
    pub fn interval_ms(&self, at: u8, points: u8) -> u64 {
        // Rates in events per 10^24 microseconds, so that slow ones keep their digits.
        const WHOLE: u128 = 1_000_000_000_000_000_000_000_000;
        let rate = |us: i64| WHOLE / u128::from(us.max(1).unsigned_abs());
        let (from, floor) = (rate(self.from_us), rate(self.floor_us.max(self.from_us)));
        let (way, whole) = (u128::from(points.saturating_sub(at)), u128::from(100 - at.min(100)));
        let less = ((from - floor) * way.min(whole)).checked_div(whole).unwrap_or(from - floor);
        let now = from - less;
        u64::try_from((WHOLE / now.max(1)).div_ceil(1_000)).unwrap_or(u64::MAX)
    }
}

/// One action of the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionRow {
    /// What to do.
    pub action: Action,
    /// From this score on.
    pub at: u8,
    /// Not below this score, once it is done; 1 to `at`.
    pub leave: u8,
    /// So many families must agree.
    pub families: u32,
    /// Unless something is certain.
    pub or_certain: bool,
    /// Index into [`crate::rule::RuleSet::flags`]; off means the action is held back.
    pub flag: Option<usize>,
    /// It lasts so long at least, milliseconds.
    pub hold_ms: i64,
    /// It has a lifetime, whatever the score does meanwhile.
    pub sentence: Option<Sentence>,
    /// What it still allows.
    pub allowed: Option<Allowed>,
}

impl ActionRow {
    /// `leave` unless the row says otherwise: four fifths of `at`.
    pub fn default_leave(at: u8) -> u8 {
        u8::try_from(u32::from(at) * 4 / 5).unwrap_or(at).max(1)
    }
}

/// Which signals make a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decide {
    /// One decision for an event and entity, by the entity's score.
    PerEvent,
    /// One decision per firing, score = the profile of its type.
    PerSignal,
}

/// Circumstances under which a firing weighs more or less.
#[derive(Debug)]
pub struct Context {
    /// Its name.
    pub id: String,
    /// Which events.
    pub when: Expr,
    /// So many times, thousandths.
    pub times: u32,
    /// Only for points of this axis.
    pub axis: Option<Axis>,
    /// Only for entities of this kind.
    pub kind: Option<EntityKind>,
}

/// The product of contexts is kept within these thousandths: a quarter and twice.
pub const CONTEXT_BOUNDS: (u32, u32) = (250, 2_000);

/// How alerts are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alerts {
    /// What happens within this time after an alert was told of is folded into its next record, milliseconds.
    pub once_per_ms: i64,
    /// `decide: per_signal`: an alert is over when its rule was quiet for so long, milliseconds.
    pub resolve_after_ms: i64,
}

/// From score to action.
#[derive(Debug)]
pub struct Policy {
    /// Its id.
    pub id: String,
    /// Bumped on any change.
    pub version: u32,
    /// Which signals make a decision.
    pub decide: Decide,
    /// Index of the master flag; off means: consume, store nothing, decide nothing.
    pub master_flag: Option<usize>,
    /// One row per action.
    pub actions: Vec<ActionRow>,
    /// Which action is named in `action_taken` when several hold, first wins.
    pub precedence: Vec<Action>,
    /// What weighs more or less.
    pub contexts: Vec<Context>,
    /// How alerts are told.
    pub alerts: Alerts,
    /// Lateness per entity; `None` for off (every event counts, in arrival order).
    pub allowed_lateness_ms: Option<i64>,
    /// How many recent event ids an entity remembers to recognise repeats; 0 for none.
    pub remember_ids: usize,
    /// Events of nobody in particular (neither user nor address) are counted as `anon`.
    pub counts_anon: bool,
    /// The client's address is the first value of `X-Forwarded-For` when present.
    pub trust_forwarded_for: bool,
}

impl Policy {
    /// The row of an action.
    pub fn row(&self, action: Action) -> Option<&ActionRow> {
        self.actions.iter().find(|row| row.action == action)
    }

    /// `id@version`.
    pub fn name(&self) -> String {
        format!("{}@{}", self.id, self.version)
    }
}
