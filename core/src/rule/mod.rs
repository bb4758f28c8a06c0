//! Rules as data: what to look for, written in YAML, loaded whole or not at all.
//!
//! This module holds the compiled form. [`load`] reads a pack's files into it and reports every problem at once.

pub mod case;
pub mod load;

use crate::address::Kinds;
use crate::detectors::Detector;
use crate::entity::{EntityKind, Part};
use crate::event::Field;
use crate::expr::Expr;
use crate::firing::{Figure, Firing};
use crate::policy::Policy;
use crate::score::{Axis, Milli};
use case::Case;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How much a rule may do. A flag can only lower it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Not evaluated at all.
    Off,
    /// Evaluated and counted in metrics; no decision.
    Shadow,
    /// Decisions without any action.
    Signal,
    /// Decisions that may alert.
    Alert,
    /// Decisions that may do all that policy allows.
    Enforce,
}

/// Severity of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth a line in a list.
    Low,
    /// Worth a look.
    Medium,
    /// Worth a person's time today.
    High,
    /// Worth waking someone.
    Critical,
}

impl Severity {
    /// The severity's word.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Low => "low",
            Severity::Medium => "medium",
            Severity::High => "high",
            Severity::Critical => "critical",
        }
    }
}

/// What the behaviour is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// How requests are made.
    Request,
    /// Reaching for what is not allowed.
    Permission,
    /// Bending the business's rules.
    Business,
}

impl Category {
    /// The category's word.
    pub fn name(self) -> &'static str {
        match self {
            Category::Request => "request",
            Category::Permission => "permission",
            Category::Business => "business",
        }
    }
}

/// Score, severity and category of an anomaly type, and what its evidence is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// 0 to 100.
    pub risk_score: u8,
    /// Severity.
    pub severity: Severity,
    /// Category.
    pub category: Category,
    /// What it speaks about; `None`: intrusion.
    pub axis: Option<Axis>,
    /// The family of evidence; `None`: the category's word.
    pub family: Option<String>,
    /// Time after which half of it is left, milliseconds; `None`: the severity's.
    pub half_life_ms: Option<i64>,
}

/// When a rule fires while its condition is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rhythm {
    /// Once when the condition turns true; again only after it turned false, or `once_per` later.
    Edge,
    /// On every event for which it is met.
    Every,
}

/// Whom a rule counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The user if there is one, else the address, else nobody in particular.
    Actor,
    /// Entities of this kind.
    Kind(EntityKind),
}

/// What an exception spares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The event is not counted.
    Ignore,
    /// The event is counted; it makes no signal.
    CountOnly,
    /// The decision is made, and no action taken.
    NoAction,
}

/// Events that a rule does not hold against anyone.
#[derive(Debug)]
pub struct Exception {
    /// Its name within the rule.
    pub id: String,
    /// Which events.
    pub when: Expr,
    /// What is spared.
    pub effect: Effect,
    /// It holds for events with a reference time before this, milliseconds; `None` for ever.
    pub expires_ms: Option<i64>,
}

/// For people: who owns a rule, and why it is as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// The team that answers for it.
    pub owner: String,
    /// What it is meant to find.
    pub goal: String,
    /// Why its numbers are what they are.
    pub rationale: String,
    /// What it cannot see.
    pub blind_spots: Vec<String>,
    /// Who sets it off without meaning harm.
    pub false_positives: Vec<String>,
    /// What to do when it fires.
    pub runbook: String,
    /// ATT&CK and other tags.
    pub tags: Vec<String>,
    /// When it wants to be looked at again, `2027-06-30`.
    pub review_by: String,
}

/// A value recorded with a decision.
#[derive(Debug)]
pub enum Recorded {
    /// `$count`: the events in the window, this one included (at most `at_least` for a sliding window).
    Count,
    /// `$window_seconds`: the window's length.
    WindowSeconds,
    /// `$value`: the sum or the share that was reached.
    Value,
    /// An expression over the event.
    Expr(Expr),
}

/// Where a signal's anomaly type comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignalType {
    /// Named by the rule.
    Named(String),
    /// The event's own `anomaly_type`: the app reports it.
    Reported,
}

/// What a firing says.
#[derive(Debug)]
pub struct Signal {
    /// The anomaly type; its profile gives score, severity and category.
    pub ty: SignalType,
    /// Shown to the user who is blocked or challenged; safe to show.
    pub user_message: String,
    /// For the operator.
    pub internal_message: String,
    /// No second edge within this time; 0 for none. Keyed like the rule.
    pub once_per_ms: i64,
    /// The status to record instead of the event's own.
    pub status_code: Option<i64>,
    /// Record resource type and id read off the path.
    pub resource: bool,
    /// Metadata, by name, in the file's order; masked when recorded.
    pub metadata: Vec<(String, Recorded)>,
    /// Metadata is the event's `data` (masked), besides `metadata`.
    pub metadata_from_data: bool,
    /// Instead of the profile's.
    pub category: Option<Category>,
    /// Instead of the profile's.
    pub severity: Option<Severity>,
    /// Instead of the profile's score.
    pub points: Option<u8>,
    /// Instead of the profile's.
    pub axis: Option<Axis>,
    /// Instead of the profile's.
    pub family: Option<String>,
    /// Instead of the profile's, milliseconds.
    pub half_life_ms: Option<i64>,
    /// How sure the rule is, thousandths: shown in the receipt.
    pub confidence: Option<u32>,
    /// The points are multiplied by the confidence.
    pub discounts: bool,
    /// A certain violation: it needs no second family.
    pub certain: bool,
}

impl Signal {
    /// Points times the confidence, if the rule asks for that.
    pub fn discounted(&self, points: Milli) -> Milli {
        self.confidence.filter(|_| self.discounts).map_or(points, |confidence| points.times(confidence))
    }

    /// A profile with what the signal says instead.
    pub fn profile(&self, given: &Profile) -> Profile {
        Profile {
            risk_score: self.points.unwrap_or(given.risk_score),
            severity: self.severity.unwrap_or(given.severity),
            category: self.category.unwrap_or(given.category),
            ..given.clone()
        }
    }
}

/// One loaded rule.
#[derive(Debug)]
pub struct Rule {
    /// `area.name-with-dashes`.
    pub id: String,
    /// Bumped on any change of meaning.
    pub version: u32,
    /// What it looks for, in a few words.
    pub title: String,
    /// The highest effect allowed.
    pub mode: Mode,
    /// Index into [`RuleSet::flags`].
    pub flag: Option<usize>,
    /// The event type it looks at; `None` for any.
    pub on: Option<String>,
    /// The predicate; `None` for every event.
    pub when: Option<Expr>,
    /// Whom it counts.
    pub by: By,
    /// Events that it does not hold against anyone; the first that matches decides.
    pub exceptions: Vec<Exception>,
    /// Events that one of our own decisions refused count, too.
    pub include_own_blocks: bool,
    /// For people.
    pub meta: Meta,
    /// `per`: the sub-key inside the entity.
    pub per: Option<Expr>,
    /// Bound on sub-keys kept per entity.
    pub per_max: usize,
    /// The detector.
    pub detector: Box<dyn Detector>,
    /// What a firing says.
    pub signal: Signal,
    /// What it says to what happens, as its author has it.
    pub tests: Vec<Case>,
    /// Key of its slot in the actor state: [`crate::hash::short`] of `id#state`. Survives a change of version.
    pub slot: u64,
}

/// A flag that the pack uses, with its safe default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagDecl {
    /// Its name.
    pub name: String,
    /// Its value when no source knows it.
    pub default: bool,
    /// What it gates.
    pub description: String,
}

/// A loaded pack: rules, lists, profiles, flags and policy under one digest.
#[derive(Debug)]
pub struct RuleSet {
    /// Digest of the pack's files and settings: the version.
    pub digest: String,
    /// In the order of files (by name) and documents: decisions follow it.
    pub rules: Vec<Rule>,
    /// Profiles by anomaly type.
    pub profiles: BTreeMap<String, Profile>,
    /// The profile of a type without one.
    pub default_profile: Profile,
    /// The flags that rules and policy use.
    pub flags: Vec<FlagDecl>,
    /// The policy.
    pub policy: Policy,
    /// Where things stand in its files.
    pub outline: load::outline::Outline,
}

impl Rule {
    /// `id@version`.
    pub fn name(&self) -> String {
        format!("{}@{}", self.id, self.version)
    }

    /// How a firing of it is told of: what it passes on is the app's word, whatever its detector counted.
    pub fn told(&self, firing: Firing) -> Firing {
        match self.signal.ty {
            SignalType::Named(_) => firing,
            SignalType::Reported => Firing { figure: Figure::Reported, ..firing },
        }
    }

    /// Every expression of it.
    pub fn expressions(&self) -> impl Iterator<Item = &Expr> {
        let recorded = self.signal.metadata.iter().filter_map(|(_, recorded)| match recorded {
            Recorded::Expr(expr) => Some(expr),
            _ => None,
        });
        let exceptions = self.exceptions.iter().map(|exception| &exception.when);
        self.when.iter().chain(&self.per).chain(self.detector.expressions()).chain(exceptions).chain(recorded)
    }

    /// Whether it counts sessions, or looks at their ids.
    pub fn needs_sessions(&self) -> bool {
        let session = Field::named(&["session_id"]);
        matches!(self.by, By::Kind(kind) if kind.parts().any(|part| part == Part::Session))
            || self.expressions().any(|expr| expr.fields().iter().any(|field| Some(field) == session.as_ref()))
    }
}

impl RuleSet {
    /// Which entities the rules count.
    pub fn kinds(&self) -> Kinds {
        let mut kinds = Kinds { anon: self.policy.counts_anon, ..Kinds::default() };
        for rule in self.rules.iter().filter(|rule| rule.mode != Mode::Off) {
            match rule.by {
                By::Actor => kinds.actor = true,
                By::Kind(kind) => kinds.kinds.push(kind),
            }
        }
        kinds.kinds.sort_unstable();
        kinds.kinds.dedup();
        kinds
    }

    /// The profile of an anomaly type.
    pub fn profile(&self, ty: &str) -> &Profile {
        self.profiles.get(ty).unwrap_or(&self.default_profile)
    }
}
