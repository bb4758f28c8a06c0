//! Whether an input topic is still the one that was read so far.

use super::{Job, Metadata, OutOfRange, RestoreError, access, changelog, fingerprint, format_fingerprint};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use std::time::{Duration, Instant};
use tracing::warn;
use tripline_core::protocol::start::{self, Halt};

impl Job<'_> {
    /// The topic's id, if it is the one that was read so far and still has the committed offset. A client that begins to read where
    /// there is nothing says so, but not of which partition, and has to be made anew.
    pub(super) fn same_topic(&self, offset: i64, metadata: Option<&Metadata>) -> Result<Option<String>, RestoreError> {
        let ends = self.ends(self.topic(), self.task.partition)?;
        if let Some(metadata) = metadata {
            self.check_fingerprint(offset, metadata, ends)?;
        }
        let topic_id = self.topic_id(metadata)?;
        OutOfRange::check(self.topic(), self.task.partition, offset, ends)?;
        Ok(topic_id)
    }

    /// A topic that was deleted and created again is read on at the old offset without any error by Kafka. The record before
    /// the committed offset tells: if it is still there it must be the one that was processed.
    fn check_fingerprint(&self, next_offset: i64, metadata: &Metadata, (low, high): (i64, i64)) -> Result<(), RestoreError> {
        if metadata.fingerprint.is_empty() || next_offset == 0 {
            return Ok(());
        }
        if high < next_offset {
            return Err(self.halt(Halt::Recreated { next_offset }));
        }
        if next_offset - 1 < low {
            return Ok(());
        }
        let client = &self.clients.committed;
        changelog::point(client, self.topic(), self.task.partition, next_offset - 1).map_err(|e| self.kafka(e))?;
        let deadline = Instant::now() + Duration::from_secs(5);
        // Not compared is not the same as equal.
        let mut verdict = Err(self.kafka(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut)));
        while Instant::now() < deadline && !self.is_needless() {
            match client.poll(Duration::from_millis(100)) {
                Some(Ok(record)) if record.offset() == next_offset - 1 => {
                    let is_equal = format_fingerprint(fingerprint(&record)) == metadata.fingerprint;
                    verdict = if is_equal { Ok(()) } else { Err(self.halt(Halt::Recreated { next_offset })) };
                    break;
                }
                // Compacted away, or already at the end: nothing to compare with.
                Some(Ok(_)) | Some(Err(KafkaError::PartitionEOF(_))) => {
                    verdict = Ok(());
                    break;
                }
                Some(Err(source)) if access::is_refusal(&source) => {
                    verdict = Err(self.kafka(source));
                    break;
                }
                Some(Err(_)) | None => {}
            }
        }
        let _ = client.unassign();
        verdict
    }

    /// The topic's id, which has to be the one that was read so far: the fingerprint alone misses a topic that was made anew under a
    /// worker, whose client reads on where it was.
    pub(super) fn topic_id(&self, metadata: Option<&Metadata>) -> Result<Option<String>, RestoreError> {
        let ids = access::topic_ids(self.clients.ends.client(), &[self.topic()], Duration::from_secs(5));
        let ids = ids.inspect_err(|why| warn!(topic = self.topic(), why, "the topic's id could not be asked for"));
        // Not compared is not the same as equal.
        let ids = ids.map_err(|_| self.kafka(KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut)))?;
        let written = metadata.and_then(|m| m.topic_id.clone());
        start::same_topic(written, ids.get(self.topic()).cloned()).map_err(|halt| self.halt(halt))
    }
}
