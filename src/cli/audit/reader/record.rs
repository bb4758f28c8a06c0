//! What one record says about its commit.

use crate::config::Config;
use crate::stream::headers::headers_of;
use crate::stream::outputs::{APP, COMMIT};
use crate::stream::restore::{MARKER_PREFIX, ROUTER_PREFIX};
use rdkafka::message::{BorrowedMessage, Message};
use tripline_core::audit::{Audit, Output, Place, Role, Stamp, Task};
use tripline_core::cloud_event;
use tripline_core::hash;
use tripline_core::observation::Observation;
use tripline_core::tick::Tick;

/// The header of an observation that was sent again from the dead letters: no router's commit wrote it. The dead letter of such a
/// record repeats it and is a task's all the same.
const REDRIVEN_FROM: &str = "tripline-redriven-from";
/// The header of the receipt among the dead letters that says so.
const REDRIVEN: &str = "tripline-redriven";

/// The task whose markers have this key.
pub(super) fn task_of_marker(key: Option<&[u8]>, keyed_topic: &str) -> Option<Task> {
    let key = std::str::from_utf8(key?).ok()?;
    let (topic, partition) = match key.strip_prefix(ROUTER_PREFIX) {
        Some(router) => router.rsplit_once('/')?,
        // What follows a further slash is something else about the task.
        None => (keyed_topic, key.strip_prefix(MARKER_PREFIX)?),
    };
    Some(Task { topic: topic.to_owned(), partition: partition.parse().ok()? })
}

/// Whether a record of the changelog with this key is an entity's state: no marker, and nothing else that a task says of itself.
pub(super) fn is_state(key: Option<&[u8]>) -> bool {
    key.is_some_and(|key| !key.starts_with(MARKER_PREFIX.as_bytes()) && !key.starts_with(ROUTER_PREFIX.as_bytes()))
}

/// Tells the records of one topic that the group wrote from others.
pub(super) struct Ours<'a> {
    role: Role,
    topic: &'a str,
    app: &'a str,
    source: String,
    keyed_topic: String,
}

/// The headers that matter here.
#[derive(Debug, Default)]
struct Said<'r> {
    commit: Option<&'r [u8]>,
    app: Option<&'r [u8]>,
    id: Option<&'r [u8]>,
    source: Option<&'r [u8]>,
    source_topic: Option<&'r [u8]>,
    source_partition: Option<&'r [u8]>,
    source_offset: Option<&'r [u8]>,
    redriven_from: Option<&'r [u8]>,
    redriven: Option<&'r [u8]>,
}

impl<'r> Said<'r> {
    fn by(record: &'r BorrowedMessage<'_>) -> Said<'r> {
        let mut said = Said::default();
        for (name, value) in headers_of(record) {
            let place = match name {
                COMMIT => &mut said.commit,
                APP => &mut said.app,
                "ce_id" => &mut said.id,
                "ce_source" => &mut said.source,
                "tripline-source-topic" => &mut said.source_topic,
                "tripline-source-partition" => &mut said.source_partition,
                "tripline-source-offset" => &mut said.source_offset,
                REDRIVEN_FROM => &mut said.redriven_from,
                REDRIVEN => &mut said.redriven,
                _ => continue,
            };
            // The first of a name: a dead letter repeats those of the original after its own.
            *place = place.or(value);
        }
        said
    }

    fn source_task(&self) -> Option<Task> {
        let text = |value: Option<&'r [u8]>| std::str::from_utf8(value?).ok();
        Some(Task { topic: text(self.source_topic)?.to_owned(), partition: text(self.source_partition)?.parse().ok()? })
    }

    fn source_id(&self) -> Option<u64> {
        let parts = [self.source_topic?, self.source_partition?, self.source_offset?];
        Some(hash::short(&parts.join(&b'/')))
    }
}

impl Ours<'_> {
    pub(super) fn new<'a>(config: &'a Config, role: Role, topic: &'a str) -> Ours<'a> {
        let app = config.app.id.as_str();
        Ours { role, topic, app, source: cloud_event::source(app), keyed_topic: config.keyed_topic() }
    }

    /// Hands a record on to the audit, if it is one of ours or claims to be nobody's.
    pub(super) fn show(&self, audit: &mut Audit, record: &BorrowedMessage<'_>, at_ms: i64) {
        let at = Place { topic: self.topic, partition: record.partition(), offset: record.offset() };
        let said = Said::by(record);
        if self.role == Role::DeadLetters && said.redriven.is_some() {
            return;
        }
        if self.role == Role::Observations {
            if !Tick::is_tick(record.key()) && said.redriven_from.is_none() {
                self.observation(audit, record, at, at_ms);
            }
            return;
        }
        // Groups may share topics of outputs; each is audited by its own settings.
        let (whose, we) = if self.is_cloud_event() { (said.source, self.source.as_str()) } else { (said.app, self.app) };
        if whose.is_some_and(|whose| whose != we.as_bytes()) {
            return;
        }
        let Some((partition, stamp)) = said.commit.and_then(Stamp::parse) else {
            audit.unstamped(self.role, at, at_ms);
            return;
        };
        let (task, id) = match self.role {
            Role::DeadLetters => (said.source_task(), said.source_id()),
            // A standing that time ended may be told twice, in the same words.
            Role::Standing | Role::Late | Role::Observations => (None, None),
            Role::Decisions | Role::Shadow | Role::Alerts => (None, said.id.map(hash::short)),
        };
        let task = task.unwrap_or_else(|| Task { topic: self.keyed_topic.clone(), partition });
        audit.output(&Output { role: self.role, at, at_ms, task: &task, stamp, id });
    }

    fn is_cloud_event(&self) -> bool {
        matches!(self.role, Role::Decisions | Role::Shadow | Role::Alerts | Role::Standing)
    }

    fn observation(&self, audit: &mut Audit, record: &BorrowedMessage<'_>, at: Place<'_>, at_ms: i64) {
        let Ok(observation) = Observation::decode(record.key(), record.payload()) else {
            audit.unstamped(self.role, at, at_ms);
            return;
        };
        let source = observation.source;
        // One record makes one observation for each entity: the key tells them apart.
        let id = format!("{}/{}/{}/", source.topic, source.partition, source.offset);
        let id = hash::short(&[id.as_bytes(), record.key().unwrap_or_default()].concat());
        let task = Task { topic: source.topic, partition: source.partition };
        audit.observation(at, at_ms, (&task, source.offset), id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::restore::{marker_key, time_key};

    #[test]
    fn keys_of_markers_name_their_task_and_other_keys_none() {
        let task = |topic: &str, partition| Some(Task { topic: topic.into(), partition });
        assert_eq!(task_of_marker(Some(marker_key(None, 3).as_bytes()), "keyed"), task("keyed", 3));
        assert_eq!(task_of_marker(Some(marker_key(Some("app.requests"), 12).as_bytes()), "keyed"), task("app.requests", 12));
        for (other, is_a_state) in [(time_key(3).as_str(), false), ("user:u1", true), ("task/", false), ("router/0", false), ("anon", true)]
        {
            assert_eq!((task_of_marker(Some(other.as_bytes()), "keyed"), is_state(Some(other.as_bytes()))), (None, is_a_state), "{other}");
        }
        assert_eq!((task_of_marker(None, "keyed"), is_state(None)), (None, false));
    }
}
