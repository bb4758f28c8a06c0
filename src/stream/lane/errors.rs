//! Why a lane ends before it was asked to, and what the consumer's errors mean.

use super::*;
use crate::state::StoreError;

/// Damaged stores that a lane rebuilds within [`SPOILED_WITHIN`]; more of them are no accident, and the disk is given up.
const SPOILED_LIMIT: usize = 10;
const SPOILED_WITHIN: Duration = Duration::from_secs(3_600);

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
    #[error(
        "the committed offset {offset} of {topic}/{partition} is outside what the topic has ({low}..{high}): records were deleted before they were read, or the topic was made anew; to go on with what is there, stop every worker and run `tripline state adopt --topic {topic} --partition {partition} --offset earliest`"
    )]
    OutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The committed offset.
        offset: i64,
        /// First offset there is.
        low: i64,
        /// End of the partition.
        high: i64,
    },
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
            KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset) => self.name_out_of_range(consumer),
            // The watch speaks of it, and the client goes on by itself.
            error if self.shared.access.refused(error) => {}
            // Brokers come and go, the client reconnects by itself: not a reason to stop.
            error => debug!(lane = self.number, %error, "consumer error"),
        }
    }

    /// The client does not say which partition's offset is out of range: compare every position with what there is.
    pub(super) fn name_out_of_range(&mut self, consumer: &BaseConsumer<Context>) {
        for (id, task) in &self.tasks {
            if task.seek.is_some() {
                continue;
            }
            let topic = self.shared.topic(*id);
            if let Ok((low, high)) = consumer.fetch_watermarks(topic, id.partition, Duration::from_secs(5))
                && (task.next < low || task.next > high)
            {
                self.fatal = Some(LaneError::OutOfRange { topic: topic.to_owned(), partition: id.partition, offset: task.next, low, high });
                return;
            }
        }
        // Every position is fine: the client lost its own. A seek in progress repairs that; otherwise only a new consumer does.
        if self.tasks.values().all(|task| task.seek.is_none()) && !self.is_restoring() {
            self.consumer_is_dead = true;
        }
    }

    /// The consumer is thrown away: nothing that it owns may become visible any more.
    pub(super) fn on_consumer_death(&mut self, consumer: &BaseConsumer<Context>) {
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
