//! What is done about a score, and what ends by itself.

use super::{Action, ActionRow, Policy};
use crate::decision::HeldBack;
use crate::entity::EntityKind;
use crate::rule::Mode;
use crate::score::tally::Scores;
use crate::state::{Force, Ledger};

/// What is asked when something fired.
pub struct Asked<'a> {
    /// The entity's time, milliseconds.
    pub at_ms: i64,
    /// The scores just before, by the passing of time alone.
    pub before: &'a Scores,
    /// The scores now, without what an exception spares.
    pub now: &'a Scores,
    /// The risk score that is shown, with it.
    pub shown: u8,
    /// The highest mode among the live reasons.
    pub mode: Mode,
    /// The exception that spares something of what fired.
    pub spared: Option<&'a str>,
    /// Something fired that no exception spares: without it no action is taken.
    pub counts: bool,
    /// Whom it is about.
    pub kind: EntityKind,
    /// Makes lifetimes uneven: a hash of the decision.
    pub seed: u64,
    /// The name of a flag that is off for the event's user, by its index.
    pub off: &'a dyn Fn(usize) -> Option<String>,
    /// Whether a flag is off for everybody.
    pub off_for_all: &'a dyn Fn(usize) -> bool,
}

impl Asked<'_> {
    /// Who says that an action may not be taken at all.
    fn denied(&self, row: &ActionRow) -> Option<String> {
        if let Some(flag) = row.flag.and_then(|flag| (self.off)(flag)) {
            return Some(format!("flag:{flag}"));
        }
        if let Some(mode) = row.action.held_back_by(self.mode) {
            return Some(mode.to_owned());
        }
        (!row.action.is_for(self.kind)).then(|| format!("entity:{}", self.kind))
    }
}

/// Whether an action is in force at a moment, given the risk score then.
pub fn is_in_force(row: &ActionRow, force: &Force, at_ms: i64, risk: u8) -> bool {
    match row.sentence {
        Some(_) => at_ms < force.until_ms,
        None => force.on && (at_ms < force.until_ms || risk >= row.leave),
    }
}

impl Policy {
    /// Takes, keeps and ends actions; says what was held back, and by whom.
    pub fn enforce(&self, asked: &Asked<'_>, ledger: &mut Ledger) -> Vec<HeldBack> {
        let mut held_back = Vec::new();
        for row in &self.actions {
            let was = ledger.force(row.action).copied();
            let (force, said) = step(row, was, asked);
            ledger.set_force(row.action, force);
            held_back.extend(said.map(|by| HeldBack { action: row.action.name().to_owned(), by }));
        }
        ledger.forces.retain(|force| self.row(force.action).is_some());
        held_back
    }

    /// The actions in force, the weakest first. Switching a flag off for everybody ends what it gates.
    pub fn in_force(&self, ledger: &Ledger, at_ms: i64, risk: u8, off_for_all: &dyn Fn(usize) -> bool) -> Vec<Action> {
        let holds = |force: &&Force| {
            let holds = |row: &ActionRow| is_in_force(row, force, at_ms, risk) && !row.flag.is_some_and(off_for_all);
            self.row(force.action).is_some_and(holds)
        };
        ledger.forces.iter().filter(holds).map(|force| force.action).collect()
    }

    /// Notes what the score has left by this moment, before something raises it again.
    pub fn leave(&self, ledger: &mut Ledger, at_ms: i64, risk: u8) {
        for force in &mut ledger.forces {
            let Some(row) = self.row(force.action) else { continue };
            *force = left(row, *force, at_ms, risk);
        }
    }

    /// Until when something must be remembered for the sake of actions.
    pub fn remembers_until_ms(&self, ledger: &Ledger) -> i64 {
        let until = |force: &Force| {
            let forget_ms = self.row(force.action).and_then(|row| row.sentence).map_or(0, |sentence| sentence.forget_ms);
            force.until_ms.saturating_add(forget_ms)
        };
        ledger.forces.iter().map(until).max().unwrap_or(i64::MIN)
    }
}

/// An action whose score was seen at this moment. What lasts as long as the score stays up is held up by `hold` besides; a
/// lifetime runs whatever the score does, and only a return after it asks whether the score has been below `leave`.
fn left(row: &ActionRow, force: Force, at_ms: i64, risk: u8) -> Force {
    let is_held = row.sentence.is_none() && is_in_force(row, &force, at_ms, risk);
    Force { on: force.on && (risk >= row.leave || is_held), ..force }
}

/// One action: what is remembered of it from now on, and who held it back.
///
/// What is in force stays, whatever else is found, until it ends or its flag is off for everybody. Whether it may be taken is
/// asked when it is.
fn step(row: &ActionRow, was: Option<Force>, asked: &Asked<'_>) -> (Option<Force>, Option<String>) {
    let at_ms = asked.at_ms;
    let before = asked.before.risk();
    // An action with a lifetime is remembered until it is forgotten, the others end without a trace.
    let remembered = |force: Force| {
        let is_kept = |forget_ms: i64| at_ms.saturating_sub(force.until_ms) < forget_ms;
        row.sentence.filter(|sentence| is_kept(sentence.forget_ms)).map(|_| Force {
            on: false,
            until_ms: force.until_ms.min(at_ms),
            ..force
        })
    };
    let ended = was.and_then(remembered);
    if was.is_some_and(|force| is_in_force(row, &force, at_ms, before)) {
        return match row.flag.filter(|flag| (asked.off_for_all)(*flag)) {
            Some(flag) => (ended, (asked.off)(flag).map(|flag| format!("flag:{flag}"))),
            None => (was.map(|force| left(row, force, at_ms, before)), None),
        };
    }
    // Left only below `leave`: new evidence between the two levels takes an action with a lifetime again.
    let returns = was.is_some_and(|force| force.on && before >= row.leave);
    if !asked.counts {
        let by = asked.spared.filter(|_| returns || asked.shown >= row.at);
        let still = if returns { was } else { ended };
        return (still, by.map(|exception| format!("exception:{exception}")));
    }
    if !returns && asked.now.risk() < row.at {
        let by = asked.spared.filter(|_| asked.shown >= row.at);
        return (ended, by.map(|exception| format!("exception:{exception}")));
    }
    if let Some(by) = asked.denied(row) {
        return (ended, Some(by));
    }
    if !returns && !asked.now.has(row.at, row.families, row.or_certain) {
        return (ended, Some("families".to_owned()));
    }
    let offences = ended.map_or(0, |force| force.offences);
    let lasts_ms = row.sentence.map_or(row.hold_ms, |sentence| sentence.length_ms(offences, asked.seed));
    let until_ms = at_ms.saturating_add(lasts_ms);
    (Some(Force { action: row.action, on: true, since_ms: at_ms, until_ms, offences: offences.saturating_add(1) }), None)
}
