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
    /// The scores now.
    pub now: &'a Scores,
    /// The highest mode among the live reasons.
    pub mode: Mode,
    /// The exception that spared what fired, if nothing else did.
    pub spared: Option<&'a str>,
    /// Whom it is about.
    pub kind: EntityKind,
    /// Makes lifetimes uneven: a hash of the decision.
    pub seed: u64,
    /// The name of a flag that is off, by its index.
    pub off: &'a dyn Fn(usize) -> Option<String>,
}

impl Asked<'_> {
    /// Who says that an action may not be taken at all.
    fn denied(&self, row: &ActionRow) -> Option<String> {
        if let Some(flag) = row.flag.and_then(|flag| (self.off)(flag)) {
            return Some(format!("flag:{flag}"));
        }
        let needed = if row.action == Action::Alert { Mode::Alert } else { Mode::Enforce };
        if self.mode < needed {
            return Some(match (self.mode, self.spared) {
                (Mode::Alert, _) => "mode:alert".to_owned(),
                (_, Some(exception)) => format!("exception:{exception}"),
                (Mode::Off | Mode::Shadow, None) => "mode:shadow".to_owned(),
                _ => "mode:signal".to_owned(),
            });
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

    /// The actions in force, the weakest first.
    pub fn in_force(&self, ledger: &Ledger, at_ms: i64, risk: u8) -> Vec<Action> {
        let holds = |force: &&Force| self.row(force.action).is_some_and(|row| is_in_force(row, force, at_ms, risk));
        ledger.forces.iter().filter(holds).map(|force| force.action).collect()
    }

    /// Ends what is over at a moment, and forgets what is to be forgotten.
    pub fn lapse(&self, ledger: &mut Ledger, at_ms: i64, risk: u8) {
        ledger.forces.retain_mut(|force| {
            let Some(row) = self.row(force.action) else { return false };
            let holds = is_in_force(row, force, at_ms, risk);
            force.on &= holds || risk >= row.leave;
            holds || row.sentence.is_some_and(|sentence| at_ms.saturating_sub(force.until_ms) < sentence.forget_ms)
        });
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

/// One action: what is remembered of it from now on, and who held it back.
fn step(row: &ActionRow, was: Option<Force>, asked: &Asked<'_>) -> (Option<Force>, Option<String>) {
    let at_ms = asked.at_ms;
    let runs = was.is_some_and(|force| is_in_force(row, &force, at_ms, asked.before.risk()));
    // Left only below `leave`: new evidence between the two levels takes an action with a lifetime again.
    let returns = was.is_some_and(|force| force.on && asked.before.risk() >= row.leave);
    let ended = was.filter(|_| row.sentence.is_some()).map(|force| Force { on: false, until_ms: force.until_ms.min(at_ms), ..force });
    if !runs && !returns && asked.now.risk() < row.at {
        return (ended, None);
    }
    if let Some(by) = asked.denied(row) {
        return (ended, Some(by));
    }
    if runs {
        return (was, None);
    }
    if !returns && !asked.now.has(row.at, row.families, row.or_certain) {
        return (ended, Some("families".to_owned()));
    }
    let offences = match (was, row.sentence) {
        (Some(force), Some(sentence)) if at_ms.saturating_sub(force.until_ms) < sentence.forget_ms => force.offences,
        _ => 0,
    };
    let lasts_ms = row.sentence.map_or(row.hold_ms, |sentence| sentence.length_ms(offences, asked.seed));
    let until_ms = at_ms.saturating_add(lasts_ms);
    (Some(Force { action: row.action, on: true, since_ms: at_ms, until_ms, offences: offences.saturating_add(1) }), None)
}
