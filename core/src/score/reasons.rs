//! Why an entity may have points: every reason that the rules of a pack can give, with its axis, family and numbers.
//!
//! A rule is one reason, whatever its sub-keys: firing for ten paths is still one reason. A rule that passes on what the app
//! reports is one reason for each anomaly type that has a profile, and one for all other types together, so that the
//! number of reasons is the pack's and not the app's.

use super::{Axis, Milli};
use crate::hash;
use crate::rule::{Mode, Profile, Rule, RuleSet, Severity, SignalType};
use std::collections::BTreeMap;

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Its key in ledgers.
    pub key: u64,
    /// Index of its rule.
    pub rule: usize,
    /// The anomaly type, if the app's word is one of the profiles'.
    pub ty: Option<String>,
    /// Its profile: severity, category, and the score that it gives alone.
    pub profile: Profile,
    /// What it speaks about.
    pub axis: Axis,
    /// The number of its family.
    pub family: usize,
    /// What a firing gives before context.
    pub points: Milli,
    /// What it can give at most.
    pub cap: Milli,
    /// Time after which half of it is left, milliseconds; above 0.
    pub half_life_ms: i64,
    /// A certain violation: it needs no second family.
    pub certain: bool,
    /// Its rule looks at the score itself.
    pub is_composite: bool,
    /// Its rule counts: it is neither off nor only watching.
    pub is_live: bool,
}

/// The reasons of a pack.
#[derive(Debug, Default)]
pub struct Reasons {
    rows: Vec<Reason>,
    families: Vec<String>,
    by_key: BTreeMap<u64, usize>,
    /// For each rule the index of its reason; for a rule that passes on, of the one for types without a profile.
    of_rule: Vec<usize>,
}

/// The highest points of a severity: a rule alone cannot give more.
pub fn band_top(severity: Severity) -> u8 {
    match severity {
        Severity::Low => 25,
        Severity::Medium => 50,
        Severity::High => 79,
        Severity::Critical => 100,
    }
}

/// The lowest points of a severity.
pub fn band_bottom(severity: Severity) -> u8 {
    match severity {
        Severity::Low => 0,
        Severity::Medium => 25,
        Severity::High => 50,
        Severity::Critical => 80,
    }
}

/// The severity of a score.
pub fn severity_of(points: u8) -> Severity {
    let bands = [Severity::Critical, Severity::High, Severity::Medium];
    bands.into_iter().find(|severity| points >= band_bottom(*severity)).unwrap_or(Severity::Low)
}

/// The half-life of a severity unless the rule says otherwise: 15 minutes, 1, 6 and 24 hours.
pub fn default_half_life_ms(severity: Severity) -> i64 {
    match severity {
        Severity::Low => 15 * 60_000,
        Severity::Medium => 3_600_000,
        Severity::High => 6 * 3_600_000,
        Severity::Critical => 24 * 3_600_000,
    }
}

/// The key of what a rule (its slot) passes on of one anomaly type.
fn reported_key(slot: u64, ty: &str) -> u64 {
    hash::short(&[&slot.to_le_bytes(), ty.as_bytes()].concat())
}

impl Reasons {
    /// The reasons of a pack.
    pub fn of(set: &RuleSet) -> Reasons {
        let mut reasons = Reasons::default();
        for (index, rule) in set.rules.iter().enumerate() {
            let first = reasons.rows.len();
            match &rule.signal.ty {
                SignalType::Named(ty) => reasons.add(set, index, rule.slot, Some(ty)),
                SignalType::Reported => {
                    reasons.add(set, index, rule.slot, None);
                    for ty in set.profiles.keys() {
                        reasons.add(set, index, reported_key(rule.slot, ty), Some(ty));
                    }
                }
            }
            reasons.of_rule.push(first);
        }
        reasons
    }

    fn add(&mut self, set: &RuleSet, index: usize, key: u64, ty: Option<&String>) {
        let rule = &set.rules[index];
        let given = ty.map_or(&set.default_profile, |ty| set.profiles.get(ty).unwrap_or(&set.default_profile));
        let signal = &rule.signal;
        let profile = signal.profile(given);
        let family = signal.family.clone().or_else(|| given.family.clone()).unwrap_or_else(|| profile.category.name().to_owned());
        let family = self.families.iter().position(|known| *known == family).unwrap_or_else(|| {
            self.families.push(family);
            self.families.len() - 1
        });
        let given_points = Milli::of_points(profile.risk_score);
        // A profile's score is given as such: its severity's band does not cut it.
        let cap = Milli::of_points(band_top(profile.severity));
        let cap = if signal.points.is_none() { cap.max(given_points) } else { cap };
        let points = signal.discounted(given_points);
        self.by_key.insert(key, self.rows.len());
        self.rows.push(Reason {
            key,
            rule: index,
            ty: ty.filter(|_| signal.ty == SignalType::Reported).cloned(),
            axis: signal.axis.or(given.axis).unwrap_or(Axis::Intrusion),
            family,
            points,
            cap,
            half_life_ms: signal.half_life_ms.or(given.half_life_ms).unwrap_or_else(|| default_half_life_ms(profile.severity)),
            certain: signal.certain,
            is_composite: rule.detector.is_composite(),
            is_live: rule.mode > Mode::Shadow,
            profile,
        });
    }

    /// The reason that a contribution in a ledger has; `None` if its rule is gone.
    pub fn get(&self, key: u64) -> Option<(usize, &Reason)> {
        let index = *self.by_key.get(&key)?;
        Some((index, &self.rows[index]))
    }

    /// The reason at an index.
    pub fn row(&self, index: usize) -> &Reason {
        &self.rows[index]
    }

    /// The index of the reason that a firing has; `reported` is the app's word.
    pub fn of_firing(&self, rule: usize, reported: Option<&str>) -> usize {
        let first = self.of_rule[rule];
        let named = reported.and_then(|ty| self.get(reported_key(self.rows[first].key, ty)));
        named.map_or(first, |(index, _)| index)
    }

    /// Every reason.
    pub fn rows(&self) -> &[Reason] {
        &self.rows
    }

    /// A family's name, by its number.
    pub fn family(&self, family: usize) -> &str {
        &self.families[family]
    }

    /// How many reasons a rule has: so many contributions it may have in a ledger.
    pub fn count(&self, rule: &Rule, set: &RuleSet) -> usize {
        if rule.signal.ty == SignalType::Reported { set.profiles.len() + 1 } else { 1 }
    }
}
