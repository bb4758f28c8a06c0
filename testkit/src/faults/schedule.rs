//! Which faults, in which order, with which random parts: a pure function of the seed.

use super::clock;
use crate::choices::Choices;

/// A fault. What a word means is in [`super::nemesis`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Fault {
    KillWorker,
    KillSink,
    FailPoint,
    Panic,
    Freeze,
    Zombie,
    Join,
    Leave,
    StopInRestore,
    LoseDisk,
    ChangeRules,
    PauseBroker,
    KillBroker,
    Delay,
    Partition,
    Cut,
    LoseCommit,
    LoseReply,
    LateCommit,
    FreezeSink,
    ClockJump,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Fault; 21] = [
        Fault::KillWorker,
        Fault::KillSink,
        Fault::FailPoint,
        Fault::Panic,
        Fault::Freeze,
        Fault::Zombie,
        Fault::Join,
        Fault::Leave,
        Fault::StopInRestore,
        Fault::LoseDisk,
        Fault::ChangeRules,
        Fault::PauseBroker,
        Fault::KillBroker,
        Fault::Delay,
        Fault::Partition,
        Fault::Cut,
        Fault::LoseCommit,
        Fault::LoseReply,
        Fault::LateCommit,
        Fault::FreezeSink,
        Fault::ClockJump,
    ];

    /// Its name on the command line and in the report.
    pub fn name(self) -> &'static str {
        match self {
            Fault::KillWorker => "kill-worker",
            Fault::KillSink => "kill-sink",
            Fault::FailPoint => "fail-point",
            Fault::Panic => "panic",
            Fault::Freeze => "freeze",
            Fault::Zombie => "zombie",
            Fault::Join => "join",
            Fault::Leave => "leave",
            Fault::StopInRestore => "stop-in-restore",
            Fault::LoseDisk => "lose-disk",
            Fault::ChangeRules => "change-rules",
            Fault::PauseBroker => "pause-broker",
            Fault::KillBroker => "kill-broker",
            Fault::Delay => "delay",
            Fault::Partition => "partition",
            Fault::Cut => "cut",
            Fault::LoseCommit => "lose-commit",
            Fault::LoseReply => "lose-reply",
            Fault::LateCommit => "late-commit",
            Fault::FreezeSink => "freeze-sink",
            Fault::ClockJump => "clock-jump",
        }
    }

    /// The fault of a name.
    pub fn named(name: &str) -> Option<Fault> {
        Fault::ALL.into_iter().find(|fault| fault.name() == name)
    }

    /// Why it cannot be done on this machine, with the way out; `None` when it can.
    pub fn obstacle(self) -> Option<&'static str> {
        if self == Fault::ClockJump { clock::obstacle() } else { None }
    }

    /// Whether it happens to one worker, or to who is one: the tasks that stay where they are should not notice.
    pub fn is_of_one_worker(self) -> bool {
        matches!(
            self,
            Fault::KillWorker | Fault::FailPoint | Fault::Zombie | Fault::Join | Fault::Leave | Fault::StopInRestore | Fault::LoseDisk
        )
    }

    /// Whether it happens on the wire: the workers then stand behind a proxy each.
    pub fn is_on_the_wire(self) -> bool {
        matches!(self, Fault::Delay | Fault::Partition | Fault::Cut | Fault::LoseCommit | Fault::LoseReply | Fault::LateCommit)
    }
}

/// The points of the commit protocol at which a process is killed, in the words of `TRIPLINE_FAILPOINTS`.
pub const POINTS: [&str; 16] = [
    "after_begin",
    "before_seal",
    "after_changelog",
    "after_drain",
    "after_send_offsets",
    "after_commit",
    "after_apply",
    "before_store_write",
    "after_store_write",
    "in_restore",
    "in_revoke",
    "after_revoke",
    "in_recover",
    "in_record",
    "in_firing",
    "after_sink_write",
];

/// One fault with its random parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What happens.
    pub fault: Fault,
    /// Which worker: this number modulo those that run.
    pub who: u64,
    /// How long after the worker is at work again, milliseconds.
    pub after_ms: u64,
    /// How long a pause lasts beyond what its kind asks for, milliseconds.
    pub extra_ms: u64,
    /// For [`Fault::FailPoint`]: the value of `TRIPLINE_FAILPOINTS`.
    pub point: String,
}

/// An endless list of faults.
#[derive(Debug, Clone)]
pub struct Schedule {
    choices: Choices,
    weights: Vec<(Fault, u64)>,
    /// If not empty: these in turn.
    order: Vec<Fault>,
    drawn: usize,
    points: usize,
    only: Option<&'static str>,
    /// At fail points processes die, and nothing else.
    kills_only: bool,
}

impl Schedule {
    /// Kills and nothing else, as fast as they come: workers at random moments and at fail points, now and then the sink.
    pub fn kills(seed: u64) -> Schedule {
        let weights = vec![(Fault::KillWorker, 50), (Fault::FailPoint, 40), (Fault::KillSink, 10)];
        Schedule { kills_only: true, ..Schedule::weighted(seed, weights) }
    }

    /// Everything that is asked for, every kind about as often.
    pub fn mixed(seed: u64, faults: &[Fault]) -> Schedule {
        Schedule::weighted(seed, faults.iter().map(|fault| (*fault, 1)).collect())
    }

    /// These, one after the other, and again from the first; only their random parts are drawn.
    pub fn in_turn(seed: u64, faults: &[Fault]) -> Schedule {
        Schedule { order: faults.to_vec(), ..Schedule::weighted(seed, Vec::new()) }
    }

    /// With fail points at this point alone, in the words of [`POINTS`].
    pub fn at_point(self, point: &'static str) -> Schedule {
        Schedule { only: Some(point), ..self }
    }

    fn weighted(seed: u64, weights: Vec<(Fault, u64)>) -> Schedule {
        Schedule { choices: Choices::new(seed), weights, order: Vec::new(), drawn: 0, points: 0, only: None, kills_only: false }
    }

    fn fault(&mut self) -> Option<Fault> {
        self.drawn += 1;
        if !self.order.is_empty() {
            return Some(self.order[(self.drawn - 1) % self.order.len()]);
        }
        let total: u64 = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.choices.below(total);
        self.weights.iter().find_map(|(fault, weight)| {
            let is_it = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            is_it.then_some(*fault)
        })
    }

    /// The points in turn, so that a short run reaches them all; what happens there and when is drawn.
    fn point(&mut self) -> String {
        let point = self.only.unwrap_or(POINTS[self.points % POINTS.len()]);
        self.points += 1;
        // What fails is tried again; a panic is a fault of its own, for it changes what has to come out.
        let may_abort = ["after_begin", "before_seal", "after_changelog", "after_drain", "after_send_offsets"].contains(&point);
        let may_be_in_doubt = may_abort || point == "after_commit";
        let what = match self.choices.below(4) {
            0 if may_abort && !self.kills_only => "abort",
            1 if may_be_in_doubt && !self.kills_only => "doubt",
            _ => "kill",
        };
        let at_most = match point {
            "in_record" => 200,
            "in_firing" => 20,
            "in_restore" => 10,
            "in_revoke" | "after_revoke" => 1,
            "before_store_write" | "after_store_write" | "after_sink_write" => 8,
            _ => 30,
        };
        let on = 1 + self.choices.below(at_most);
        match point {
            // A recovery needs a doubt before it.
            "in_recover" => format!("{point}=kill@1,after_drain=doubt@{on}"),
            _ => format!("{point}={what}@{on}"),
        }
    }
}

impl Iterator for Schedule {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let fault = self.fault()?;
        let (who, after_ms, extra_ms) = (self.choices.draw(), self.choices.below(400), self.choices.below(3_000));
        let point = if fault == Fault::FailPoint { self.point() } else { String::new() };
        Some(Step { fault, who, after_ms, extra_ms, point })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_schedule_is_a_function_of_its_seed() {
        let steps = |seed| Schedule::kills(seed).take(200).collect::<Vec<_>>();
        assert_eq!(steps(7), steps(7));
        assert_ne!(steps(7), steps(8));
    }

    #[test]
    fn a_short_run_reaches_every_fault_and_every_point() {
        let mixed: BTreeSet<Fault> = Schedule::mixed(1, &Fault::ALL).take(200).map(|step| step.fault).collect();
        assert_eq!(mixed.len(), Fault::ALL.len());
        let points: Vec<String> = Schedule::mixed(1, &[Fault::FailPoint]).take(POINTS.len()).map(|step| step.point).collect();
        assert!(POINTS.iter().zip(&points).all(|(point, armed)| armed.starts_with(&format!("{point}="))), "{points:?}");
    }

    #[test]
    fn every_fault_has_a_name_of_its_own() {
        for fault in Fault::ALL {
            assert_eq!(Fault::named(fault.name()), Some(fault));
        }
        assert_eq!(Fault::named("nothing"), None);
    }
}
