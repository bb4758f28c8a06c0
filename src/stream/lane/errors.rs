//! Why a lane ends before it was asked to, and what the consumer's errors mean.

use super::*;
use crate::state::StoreError;

/// Damaged stores that a lane rebuilds within [`SPOILED_WITHIN`]; more of them are no accident, and the disk is given up.
const SPOILED_LIMIT: usize = 10;
const SPOILED_WITHIN: Duration = Duration::from_secs(3_600);
/// How long the ends of a lane's partitions are asked for, all together and each, and when again.
const RANGE_WITHIN: Duration = Duration::from_secs(3);
const RANGE_ASKED: Duration = Duration::from_millis(500);
const RANGE_AGAIN: Duration = Duration::from_secs(5);

/// Why a lane ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// A client could not be created: a property is wrong.
    #[error("cannot create the Kafka {what}: {source}; check kafka.properties")]
    Client {
        /// `consumer` or `producer`.
        what: &'static str,
        /// The client's words.
        #[source]
        source: KafkaError,
    },
    /// Kafka does not allow what a lane cannot do without.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Another process has our identity.
    #[error("fenced {FENCED_LIMIT} times within a minute: another process uses identity `{0}` (stream.identity, or a copied state folder)")]
    Fenced(String),
    /// A task does not start.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The thread that restores tasks is gone.
    #[error("the thread that restores tasks could not start or has ended: please report it with the log")]
    Restorer,
    /// A position is gone.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
}

impl Driver {
    pub(super) fn on_error(&mut self, consumer: &BaseConsumer<Context>, error: &KafkaError) {
        if consumer.client().fatal_error().is_some() || matches!(error, KafkaError::MessageConsumptionFatal(_)) {
            // One death is reported many times; it counts once.
            if !std::mem::replace(&mut self.consumer_is_dead, true) {
                warn!(lane = self.number, %error, "the consumer is fenced or dead: it is rebuilt");
                self.note_fenced();
            }
            return;
        }
        match error {
            // Said once, and the partition stands still.
            KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset) => self.look_at_range = Some(Instant::now()),
            // The watch speaks of it, and the client goes on by itself.
            error if self.shared.access.refused(error) => {}
            // Brokers come and go, the client reconnects by itself: not a reason to stop.
            error => debug!(lane = self.number, %error, "consumer error"),
        }
    }

    /// The client does not say which partition's offset is out of range: compare every position with what there is. The lane stands
    /// still meanwhile, so the questions take a few seconds together; where brokers do not answer, all are asked again later.
    pub(super) fn look_at_range(&mut self, consumer: &BaseConsumer<Context>, now: Instant) {
        if self.look_at_range.is_none_or(|at| now < at) {
            return;
        }
        let (mut all_answered, deadline) = (true, now + RANGE_WITHIN);
        for (id, task) in &self.tasks {
            let topic = self.shared.topic(*id);
            match consumer.fetch_watermarks(topic, id.partition, RANGE_ASKED) {
                Ok(ends) => {
                    if let Err(gone) = OutOfRange::check(topic, id.partition, task.next, ends) {
                        self.fatal = Some(gone.into());
                        return;
                    }
                }
                Err(error) => {
                    debug!(lane = self.number, topic, partition = id.partition, %error, "the ends of a partition are not known");
                    all_answered = false;
                }
            }
            if self.shared.is_stopping() || Instant::now() >= deadline {
                all_answered = false;
                break;
            }
        }
        // Every position is fine: the client lost its own, and only a new consumer finds it again. What is restored or sought meanwhile
        // may be what it lost, so those come first.
        let is_settled = self.tasks.values().all(|task| task.seek.is_none()) && !self.is_restoring();
        if all_answered && is_settled {
            self.consumer_is_dead = true;
        } else {
            self.look_at_range = Some(Instant::now() + RANGE_AGAIN);
        }
    }

    /// The consumer is thrown away: nothing that it owns may become visible any more.
    pub(super) fn on_consumer_death(&mut self, consumer: &BaseConsumer<Context>) {
        self.look_at_range = None;
        self.tell_touched();
        let tasks: Vec<TaskId> = self.protocol.tasks().collect();
        let effects = self.protocol.step(Input::Lost(tasks));
        self.perform(Some(consumer), effects);
    }

    /// A store that is damaged is set aside and made anew from the changelog, while the other tasks go on. Any other error of
    /// the disk ends the lane: it needs somebody.
    pub(super) fn on_store_error(&mut self, consumer: &BaseConsumer<Context>, id: TaskId, error: StoreError) {
        self.spoils.retain(|at| at.elapsed() < SPOILED_WITHIN);
        if !error.is_corruption() || self.spoils.len() >= SPOILED_LIMIT {
            self.fatal.get_or_insert(error.into());
        } else {
            self.spoils.push(Instant::now());
            error!(lane = self.number, partition = id.partition, %error, "the local state is damaged: it is set aside and rebuilt");
            self.spoiled.insert(id);
        }
        self.tell_touched();
        let input = if self.spoiled.contains(&id) { Input::Spoiled(id) } else { Input::Failed(Failure::Abortable) };
        let effects = self.protocol.step(input);
        self.perform(Some(consumer), effects);
    }

    pub(super) fn note_fenced(&mut self) {
        let now = Instant::now();
        self.fenced.push_back(now);
        while self.fenced.front().is_some_and(|t| now.duration_since(*t) > Duration::from_secs(60)) {
            self.fenced.pop_front();
        }
        if self.fenced.len() >= FENCED_LIMIT {
            self.fatal = Some(LaneError::Fenced(self.shared.identity.clone()));
        }
    }
}
