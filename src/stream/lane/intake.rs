//! Routed mode: a lane takes no new input while many of its tasks' observations wait.
//!
//! Router and detector of a lane read from one queue, in the order in which it was fetched. Under overload the input has always
//! more, so nearly all work would go into routing, and observations would age in their topic. The router partitions are paused
//! instead, as new ones are until they are restored, and resumed by the same seek; polling goes on, and so do ticks.
//!
//! What waits is counted by offsets: an age would say nothing, for under overload everything is old.

use super::*;
use rdkafka::bindings as rd;
use std::ffi::CString;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A task that got on with nothing for so long, while nothing but observations was taken, is not waited for until it does: what stands
/// there may be an open transaction of somebody else, or what an aborted one left.
const STALLED_AFTER: Duration = Duration::from_secs(1);

/// No hold lasts longer: time goes by what the least of all sources says, and a source that is held says nothing new.
const HELD_AT_MOST: Duration = Duration::from_secs(10);
/// So long input flows after a hold that was ended by that.
const FLOWS_FOR: Duration = Duration::from_millis(500);
/// What a task may seem to have before it that is none: the ends of transactions have offsets, too, those of other lanes not least.
const MARKERS: usize = 64;

/// Whether a lane takes input.
#[derive(Debug, Default)]
pub(super) struct Intake {
    held_since: Option<Instant>,
    flows_until: Option<Instant>,
    looked: Option<Instant>,
}

/// What a lane's tasks have before them.
#[derive(Debug, Clone, Copy, Default)]
struct Backlog {
    observations: i64,
    tasks: usize,
}

impl Intake {
    fn is_look_due(&mut self, now: Instant) -> bool {
        let is_due = self.looked.is_none_or(|looked| now.duration_since(looked) >= LOOK_EVERY);
        if is_due {
            self.looked = Some(now);
        }
        is_due
    }

    /// Whether input is held back now that so much waits. It begins at two full transactions and ends at half of one: every pause
    /// throws away what was fetched ahead, so there are to be few of them.
    fn weigh(&mut self, waiting: Backlog, max_records: usize, now: Instant) -> bool {
        let number = |records: usize| i64::try_from(records).unwrap_or(i64::MAX);
        let ends = MARKERS.saturating_mul(waiting.tasks);
        let (most, least) = (number(max_records.max(ends)).saturating_mul(2), number((max_records / 2).max(ends)));
        match self.held_since {
            Some(_) if waiting.observations <= least => self.held_since = None,
            Some(since) if now.duration_since(since) >= HELD_AT_MOST => (self.held_since, self.flows_until) = (None, Some(now + FLOWS_FOR)),
            None if waiting.observations > most && self.flows_until.is_none_or(|until| now >= until) => {
                self.held_since = Some(now);
            }
            Some(_) | None => {}
        }
        self.held_since.is_some()
    }
}

/// Whether a task gets on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    next: i64,
    /// Since when it stands at that offset, nothing else being taken.
    stands_since: Option<Instant>,
    has_stalled: bool,
}

impl Progress {
    /// Whether the task is to be waited for. While input flows, it may be the input that keeps it from getting on.
    fn is_expected(&mut self, next: i64, is_held: bool, now: Instant) -> bool {
        if self.next != next {
            *self = Progress { next, ..Progress::default() };
        } else if !is_held {
            self.stands_since = None;
        } else if now.duration_since(*self.stands_since.get_or_insert(now)) >= STALLED_AFTER {
            self.has_stalled = true;
        }
        !self.has_stalled
    }
}

impl Driver {
    /// Holds the lane's router partitions back, or lets them go on.
    pub(super) fn look_at_backlog(&mut self, consumer: &BaseConsumer<Context>, now: Instant) {
        if !self.shared.is_routed() || !self.intake.is_look_due(now) {
            return;
        }
        let waiting = self.waiting(consumer, now);
        let was_held = self.intake.held_since.is_some();
        let is_held = self.intake.weigh(waiting, self.shared.config.stream.max_records, now);
        if is_held && !was_held {
            self.shared.metrics.input_holds.inc();
        }
        if is_held != was_held {
            debug!(lane = self.number, ?waiting, is_held, "input waits for observations, or goes on");
        }
        if is_held {
            self.hold(consumer);
        } else {
            self.let_go();
        }
    }

    /// Observations that the lane's tasks have before them, as far as the consumer knows. Tasks that do not get on are left out.
    fn waiting(&mut self, consumer: &BaseConsumer<Context>, now: Instant) -> Backlog {
        let (shared, protocol, is_held) = (&self.shared, &self.protocol, self.intake.held_since.is_some());
        let mut waiting = Backlog::default();
        for (id, task) in self.tasks.iter_mut().filter(|(id, task)| id.topic == 0 && task.flows() && protocol.is_running(**id)) {
            if task.progress.is_expected(task.next, is_held, now)
                && let Some(end) = known_end(consumer, shared.topic(*id), id.partition)
            {
                waiting.observations = waiting.observations.saturating_add(end.saturating_sub(task.next).max(0));
                waiting.tasks += 1;
            }
        }
        waiting
    }

    /// Those, too, that came or were sought while the others are held already.
    fn hold(&mut self, consumer: &BaseConsumer<Context>) {
        let flowing = self.tasks.iter().filter(|(id, task)| id.topic > 0 && task.flows() && self.protocol.is_running(**id));
        let ids: Vec<TaskId> = flowing.map(|(id, _)| *id).collect();
        if ids.is_empty() {
            return;
        }
        if let Err(error) = consumer.pause(&self.list(ids.iter().copied())) {
            warn!(lane = self.number, %error, "pause failed");
            return;
        }
        for id in ids {
            if let Some(task) = self.tasks.get_mut(&id) {
                (task.paused, task.held) = (true, true);
            }
        }
    }

    /// What was fetched before the pause is gone: the seek goes back to it, and resumes.
    fn let_go(&mut self) {
        for task in self.tasks.values_mut().filter(|task| task.held) {
            (task.held, task.seek) = (false, Some(task.next));
        }
    }
}

/// The end of a partition as the last answer to a fetch told it; nobody is asked.
fn known_end(consumer: &BaseConsumer<Context>, topic: &str, partition: i32) -> Option<i64> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (0, 0);
    // SAFETY: the client lives as long as `consumer`, the name ends with a zero, and both places are ours.
    let code =
        unsafe { rd::rd_kafka_get_watermark_offsets(consumer.client().native_ptr(), topic.as_ptr(), partition, &mut low, &mut high) };
    (code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(observations: i64) -> Backlog {
        Backlog { observations, tasks: 4 }
    }

    #[test]
    fn input_is_held_from_two_transactions_on_until_half_of_one_is_left() {
        let (mut intake, now) = (Intake::default(), Instant::now());
        let weighed = [0, 20_000, 20_001, 19_000, 5_001, 5_000, 20_000, 20_001].map(|waiting| intake.weigh(of(waiting), 10_000, now));
        assert_eq!(weighed, [false, false, true, true, true, false, false, true]);
    }

    #[test]
    fn the_ends_of_transactions_alone_hold_nothing() {
        let (mut intake, now) = (Intake::default(), Instant::now());
        let weighed = [500, 513, 257, 256].map(|waiting| intake.weigh(of(waiting), 1, now));
        assert_eq!(weighed, [false, true, true, false]);
        assert!(!intake.weigh(Backlog::default(), 0, now));
    }

    #[test]
    fn no_hold_lasts_for_ever_and_input_flows_between_two() {
        let (mut intake, start) = (Intake::default(), Instant::now());
        let later = |ms| start + Duration::from_millis(ms);
        let weighed = [0, 9_999, 10_000, 10_499, 10_500, 20_499, 20_500].map(|ms| intake.weigh(of(1_000_000), 10_000, later(ms)));
        assert_eq!(weighed, [true, true, false, false, true, true, false]);
    }

    #[test]
    fn a_task_that_does_not_get_on_is_not_waited_for_until_it_does() {
        let (mut progress, start) = (Progress::default(), Instant::now());
        let mut expected = |next, is_held, ms| progress.is_expected(next, is_held, start + Duration::from_millis(ms));
        assert!(expected(7, true, 0) && expected(7, true, 500) && expected(7, true, 1_499));
        assert!(!expected(7, true, 1_500) && !expected(7, false, 1_600) && !expected(7, true, 1_700), "stalled");
        assert!(expected(8, true, 1_800) && expected(8, true, 1_900));
    }

    #[test]
    fn a_task_that_input_keeps_from_getting_on_is_waited_for() {
        let (mut progress, start) = (Progress::default(), Instant::now());
        let mut expected = |is_held, seconds| progress.is_expected(7, is_held, start + Duration::from_secs(seconds));
        assert!(expected(false, 0) && expected(false, 5) && expected(false, 60));
        assert!(expected(true, 60) && expected(false, 61) && expected(true, 62) && !expected(true, 63));
    }

    #[test]
    fn it_is_looked_at_in_intervals() {
        let (mut intake, start) = (Intake::default(), Instant::now());
        let later = |ms| start + Duration::from_millis(ms);
        assert_eq!([0, 49, 50, 99, 100].map(|ms| intake.is_look_due(later(ms))), [true, false, true, false, true]);
    }
}
