//! Time in a lane: router partitions send ticks, tasks fire what is due.

use super::*;
use crate::state::Hint;
use crate::stream::probe::{Answer, Prober, Question};
use crate::stream::process::{Fired, Firing};
use rdkafka::Timestamp;
use std::collections::HashSet;
use tripline_core::observation::MAX_AHEAD_MS;
use tripline_core::protocol::start::Halt;
use tripline_core::stream_time::{Appended, SourceTimes, reached_by};
use tripline_core::tick::Tick;

/// A tick waits this long for the answer whether its partition is read to the end; then it does without.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Time between two looks whether the topics are still the same.
const TOPICS_EVERY: Duration = Duration::from_secs(5);
/// Hints of one task that failed are passed over, so many at most.
const STUCK_AT_MOST: usize = 1_000;

/// When the lane's next ticks are due, and who answers what they say.
#[derive(Debug)]
pub(super) struct Ticking {
    next: Instant,
    prober: Prober,
    asked: u64,
    /// When it was last asked whether every partition has an owner.
    owners: Instant,
    /// When it was last asked whether the topics are still the same.
    topics: Instant,
}

impl Ticking {
    pub(super) fn new(prober: Prober) -> Ticking {
        Ticking { next: Instant::now(), prober, asked: 0, owners: Instant::now(), topics: Instant::now() }
    }
}

/// What is known of whether a router partition is read to its end, since its last tick.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum End {
    #[default]
    Unasked,
    Asked(u64, Instant),
    Reached,
    NotReached,
}

/// What a router partition has to say in its next tick. A tick that was not committed was not said.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Heard {
    /// The greatest time routed, open transaction included; and as committed.
    through_ms: Option<i64>,
    committed_ms: Option<i64>,
    /// Something came since the last tick.
    busy: bool,
    /// The open transaction has a tick.
    ticking: bool,
    /// When the last tick was committed.
    ticked: Option<Instant>,
    end: End,
}

impl Heard {
    /// A record was routed. A producer's clock (CreateTime) that is ahead of ours says nothing about time.
    pub(super) fn routed(&mut self, timestamp: Timestamp, needs_time: bool) {
        self.busy = true;
        if !needs_time {
            return;
        }
        let time_ms = match timestamp {
            Timestamp::LogAppendTime(ms) => Some(ms),
            Timestamp::CreateTime(ms) if Some(ms) <= self.through_ms => None,
            Timestamp::CreateTime(ms) => Some(ms).filter(|ms| *ms <= jiff::Timestamp::now().as_millisecond() + MAX_AHEAD_MS),
            Timestamp::NotAvailable => None,
        };
        self.through_ms = self.through_ms.max(time_ms);
    }

    pub(super) fn commit(&mut self) {
        self.committed_ms = self.through_ms;
        if std::mem::take(&mut self.ticking) {
            (self.ticked, self.end) = (Some(Instant::now()), End::Unasked);
        }
    }

    pub(super) fn abort(&mut self) {
        self.through_ms = self.committed_ms;
        self.busy |= std::mem::take(&mut self.ticking);
    }

    /// Nothing came since the last tick, and after it nothing was there.
    fn is_idle(&self) -> bool {
        !self.busy && self.ticked.is_some() && self.end == End::Reached
    }

    fn may_ask(&self, now: Instant, interval: Duration) -> bool {
        // A busy partition is not worth a question: half an interval of silence is.
        let quiet = self.ticked.is_some_and(|ticked| now.duration_since(ticked) >= interval / 2);
        quiet && !self.busy && !self.ticking && self.end == End::Unasked
    }

    fn waits_for_answer(&self, now: Instant) -> bool {
        !self.busy && matches!(self.end, End::Asked(_, since) if now.duration_since(since) < ANSWER_WITHIN)
    }
}

/// What a record of the keyed topic says about time, beside what it is.
pub(super) enum Arrival {
    /// An observation, or a keyed record.
    Record,
    /// A tick, and the sources with it.
    Tick(Option<SourceTimes>),
}

impl Driver {
    /// While a rule needs time: asks about quiet partitions, and sends ticks when their time has come.
    pub(super) fn tick_sources(&mut self, consumer: &BaseConsumer<Context>, now: Instant) {
        self.take_answers();
        if !self.processor.needs_time || !self.shared.is_routed() || self.producer.is_none() || self.fatal.is_some() {
            return;
        }
        let interval = self.shared.config.stream.tick_interval.0;
        let ready: Vec<TaskId> = self
            .tasks
            .iter()
            .filter(|(id, task)| id.topic > 0 && task.seek.is_none() && (!task.paused || task.held) && self.protocol.is_running(**id))
            .map(|(id, _)| *id)
            .collect();
        for id in &ready {
            self.ask(*id, now, interval);
        }
        if now < self.ticking.next {
            return;
        }
        self.ticking.next = now + interval;
        self.ticking.prober.ask(Question::Layout);
        for id in ready {
            let waits = self.tasks.get(&id).is_none_or(|task| task.heard.waits_for_answer(now));
            if !waits && !self.send_tick(consumer, id) {
                // What was not said is said in the next transaction, not an interval later.
                self.ticking.next = now;
                return;
            }
        }
    }

    /// The least stream time of the lane's tasks.
    pub(super) fn stream_time(&self) -> Option<i64> {
        if !self.processor.needs_time {
            return None;
        }
        let routed = self.shared.is_routed();
        let times =
            self.tasks.iter().filter(|(id, _)| id.topic == 0).map(|(_, task)| {
                if routed { task.sources.as_ref().and_then(SourceTimes::now) } else { Some(reached_by(task.stream_time_ms)) }
            });
        times.min().flatten()
    }

    /// Now and then, lane 0 of each process asks whether every partition has an owner.
    pub(super) fn look_at_owners(&mut self, now: Instant) {
        if self.number == 0 && now.duration_since(self.ticking.owners) >= self.shared.config.stream.session_timeout.0 / 2 {
            self.ticking.owners = now;
            self.ticking.prober.ask(Question::Owners);
        }
    }

    /// Now and then each lane asks whether its topics are still those that it began with.
    pub(super) fn look_at_topics(&mut self, now: Instant) {
        if now.duration_since(self.ticking.topics) >= TOPICS_EVERY {
            self.ticking.topics = now;
            self.ticking.prober.ask(Question::Topics);
        }
    }

    /// A topic that was made anew under the client is read on at the old offset: what comes is other records than those that the
    /// offset speaks of. The commits until now name the former topic, so that nobody else goes on from them either.
    fn compare_topics(&mut self, ids: &BTreeMap<String, String>) {
        for (id, task) in &self.tasks {
            let topic = self.shared.topic(*id);
            if let (Some(written), Some(found)) = (&task.topic_id, ids.get(topic))
                && written != found
            {
                let source = Halt::AnotherTopic { written: written.clone(), found: found.clone() };
                let halted = RestoreError::Halt { topic: topic.to_owned(), partition: id.partition, source };
                self.fatal.get_or_insert(halted.into());
                return;
            }
        }
    }

    fn take_answers(&mut self) {
        while let Some(answer) = self.ticking.prober.answer() {
            match answer {
                Answer::IsAtEnd(asked, task, is_at_end) => {
                    if let Some(task) = self.tasks.get_mut(&task)
                        && matches!(task.heard.end, End::Asked(number, _) if number == asked)
                    {
                        task.heard.end = if is_at_end { End::Reached } else { End::NotReached };
                    }
                }
                Answer::Unowned => self.rejoins = true,
                Answer::Topics(ids) => self.compare_topics(&ids),
            }
        }
    }

    fn ask(&mut self, id: TaskId, now: Instant, interval: Duration) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        if task.heard.may_ask(now, interval) {
            self.ticking.asked += 1;
            if self.ticking.prober.ask(Question::IsAtEnd(self.ticking.asked, id, task.next)) {
                task.heard.end = End::Asked(self.ticking.asked, now);
            }
        }
    }

    /// One tick of a router partition to every task; whether the transaction goes on.
    fn send_tick(&mut self, consumer: &BaseConsumer<Context>, id: TaskId) -> bool {
        let Some((next, touched)) = self.tasks.get(&id).map(|t| (t.next, t.touched)) else { return true };
        if !touched && !self.touch(consumer, id, next) {
            return false;
        }
        let (Some(producer), Some(task)) = (&self.producer, self.tasks.get_mut(&id)) else { return false };
        let topic = self.shared.topic(id).to_owned();
        let mut layout = self.shared.layout();
        // The group hands out a new partition before anyone looked at the counts again.
        let count = layout.entry(topic.clone()).or_default();
        *count = (*count).max(id.partition + 1);
        let heard = &mut task.heard;
        let tick = Tick { topic, partition: id.partition, at_ms: heard.through_ms, idle: heard.is_idle(), layout };
        (heard.ticking, heard.busy) = (true, false);
        let (key, value) = (tick.key(), tick.encode());
        let timestamp_ms = jiff::Timestamp::now().as_millisecond();
        let sent = (0..self.shared.partitions).try_for_each(|partition| {
            producer.send(&Outgoing {
                topic: &self.shared.inputs[0],
                partition,
                key: Some(key.as_bytes()),
                value: Some(&value),
                timestamp_ms,
                headers: &[],
                tag: UNTAGGED,
            })
        });
        match sent {
            Ok(()) => true,
            Err(error) => {
                self.on_trouble(consumer, id, next, Trouble::Transaction(error.into()));
                false
            }
        }
    }

    /// What a record says about time, and up to when it lets fire.
    pub(super) fn arrival(&self, id: TaskId, record: &BorrowedMessage<'_>) -> Result<(Arrival, Option<i64>), Rejection> {
        let is_tick = self.shared.is_routed() && Tick::is_tick(record.key());
        let needs_time = self.processor.needs_time;
        let Some(task) = self.tasks.get(&id).filter(|_| is_tick || needs_time) else { return Ok((Arrival::Record, None)) };
        if !is_tick {
            // Observations say nothing that the next tick does not.
            let newest_ms = task.stream_time_ms.max(record.timestamp().to_millis().unwrap_or(-1));
            return Ok((Arrival::Record, (!self.shared.is_routed()).then(|| reached_by(newest_ms))));
        }
        let tick = Tick::decode(record.payload())?;
        if !needs_time {
            return Ok((Arrival::Tick(None), None));
        }
        let appended = match record.timestamp() {
            Timestamp::LogAppendTime(at_ms) => Appended { at_ms, by_broker: true },
            Timestamp::CreateTime(at_ms) => Appended { at_ms, by_broker: false },
            Timestamp::NotAvailable => Appended { at_ms: i64::MIN, by_broker: false },
        };
        let mut sources = task.sources.clone().unwrap_or_default();
        sources.tick(&tick, appended);
        let now = sources.now();
        Ok((Arrival::Tick(Some(sources)), now))
    }

    /// Fires what is due up to a time, before the record that brought the time. Whether all of it fired: a flood of it is spread
    /// over transactions, and the record comes again after each.
    pub(super) fn fire(&mut self, consumer: &BaseConsumer<Context>, id: TaskId, record: &BorrowedMessage<'_>, until_ms: i64) -> bool {
        let stream = &self.shared.config.stream;
        let most = stream.max_records.saturating_sub(self.records).max(1);
        let most_bytes = self.shared.memory.lane().max_changed.saturating_sub(self.changed_bytes).max(1);
        let timestamp_ms = record.timestamp().to_millis().unwrap_or(until_ms);
        let before = self.tally.written();
        let (Some(producer), Some(task)) = (&self.producer, self.tasks.get_mut(&id)) else { return false };
        let Some(state) = task.state.as_mut().filter(|state| state.may_be_due(until_ms)) else { return true };
        let firing = Firing { until_ms, timestamp_ms, most, most_bytes, stuck: &task.stuck };
        let (processor, engine, tally) = (&mut self.processor, &self.engine, &mut self.tally);
        let done = guarded(|| processor.fire(engine, firing, state, producer, tally, &task.commit));
        task.written.add(&before, &self.tally.written());
        match done {
            Ok(Fired { looked, changed, is_done }) => {
                self.records += looked;
                self.changed_bytes += changed;
                if !is_done {
                    self.seal(consumer);
                    // Unless the transaction was aborted and the task stands before the record anyway.
                    if let Some(task) = self.tasks.get_mut(&id).filter(|task| task.next == record.offset()) {
                        task.rewind(record.offset());
                    }
                }
                is_done
            }
            Err(Trouble::Hopeless(rejection)) => {
                self.pass_over(id, rejection);
                self.on_trouble(consumer, id, record.offset(), Trouble::Transaction(Failure::Abortable));
                false
            }
            Err(trouble) => {
                self.on_trouble(consumer, id, record.offset(), trouble);
                false
            }
        }
    }

    /// What is due for one entity cannot be fired, however often it is tried: the others go on without it.
    fn pass_over(&mut self, id: TaskId, rejection: Rejection) {
        let (topic, partition, reason) = (self.shared.topic(id), id.partition, rejection.reason.name());
        error!(
            lane = self.number,
            topic, partition, reason, "what is due for one entity cannot be fired and is passed over: please report it"
        );
        if let (Some(hint), Some(task)) = (self.processor.take_looking(), self.tasks.get_mut(&id)) {
            if task.stuck.len() >= STUCK_AT_MOST {
                task.stuck.clear();
            }
            task.stuck.insert(hint);
        }
    }
}

/// Hints of a task that failed.
pub(super) type Stuck = HashSet<Hint>;
