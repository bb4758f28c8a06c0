//! Time passing, as a record: what a router says about one source partition to every partition of the observations topic.
//!
//! While a loaded rule fires on time, each router partition sends a tick to every task every few seconds. So the passing of
//! time stands in the log that a task reads, between the observations it belongs to, and a second reading of the log comes
//! to the same times. What a task makes of ticks is in [`crate::stream_time`].

use crate::rejection::{Reason, Rejection};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The key of a tick begins with this; no entity's does, for a kind is a word.
pub const TICK_PREFIX: &str = "~tick/";
/// Version of the tick's JSON. A reader refuses every other.
pub const TICK_VERSION: i64 = 1;
/// Topics in a layout at most.
pub const MAX_TOPICS: usize = 1_000;
/// Partitions of one topic of a layout at most.
pub const MAX_PARTITIONS: i32 = 100_000;

/// The sources of a line: input topics and how many partitions each has.
pub type Layout = BTreeMap<String, i32>;

/// What a router says about one of its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tick {
    /// The input topic.
    pub topic: String,
    /// Its partition; below the layout's count for the topic.
    pub partition: i32,
    /// The greatest reference time that was routed, milliseconds; `None` while nothing was.
    pub at_ms: Option<i64>,
    /// Nothing was in the partition that had not been routed, at some moment after this router's tick before this one.
    pub idle: bool,
    /// Every source that the router knows.
    pub layout: Layout,
}

#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    _v: i64,
    #[serde(borrow)]
    _topic: std::borrow::Cow<'a, str>,
    _partition: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    _at: Option<i64>,
    _idle: bool,
    _layout: std::borrow::Cow<'a, Layout>,
}

impl Tick {
    /// Whether a record of the observations topic is a tick, by its key.
    pub fn is_tick(key: Option<&[u8]>) -> bool {
        key.is_some_and(|key| key.starts_with(TICK_PREFIX.as_bytes()))
    }

    /// The record's key.
    pub fn key(&self) -> String {
        format!("{TICK_PREFIX}{}/{}", self.topic, self.partition)
    }

    /// The record's value.
    pub fn encode(&self) -> Vec<u8> {
        let wire = Wire {
            _v: TICK_VERSION,
            _topic: self.topic.as_str().into(),
            _partition: self.partition,
            _at: self.at_ms,
            _idle: self.idle,
            _layout: std::borrow::Cow::Borrowed(&self.layout),
        };
        // Text keys and numbers always serialise.
        serde_json::to_vec(&wire).unwrap_or_default()
    }

    /// Reads a tick's value.
    pub fn decode(value: Option<&[u8]>) -> Result<Tick, Rejection> {
        let value = value.ok_or_else(|| Rejection::new(Reason::NullValue, "tick"))?;
        // The version first: another one may mean something else by the same words.
        #[derive(Deserialize)]
        struct Version {
            _v: i64,
        }
        let not_json = |_| Rejection::new(Reason::InvalidJson, "tick");
        let version: Version = serde_json::from_slice(value).map_err(not_json)?;
        if version._v != TICK_VERSION {
            return Err(Rejection::new(Reason::WrongType, "tick version"));
        }
        let wire: Wire<'_> = serde_json::from_slice(value).map_err(|_| Rejection::new(Reason::WrongType, "tick"))?;
        let tick = Tick {
            topic: wire._topic.into_owned(),
            partition: wire._partition,
            at_ms: wire._at,
            idle: wire._idle,
            layout: wire._layout.into_owned(),
        };
        let counts_hold = tick.layout.len() <= MAX_TOPICS && tick.layout.values().all(|n| (1..=MAX_PARTITIONS).contains(n));
        let has_place = tick.layout.get(&tick.topic).is_some_and(|n| (0..*n).contains(&tick.partition));
        if counts_hold && has_place { Ok(tick) } else { Err(Rejection::new(Reason::WrongType, "tick layout")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::Entity;

    fn tick() -> Tick {
        Tick { topic: "app.requests".into(), partition: 3, at_ms: Some(17), idle: true, layout: [("app.requests".into(), 4)].into() }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for tick in [tick(), Tick { at_ms: None, idle: false, ..tick() }] {
            assert_eq!(Tick::decode(Some(&tick.encode())), Ok(tick.clone()));
            assert!(Tick::is_tick(Some(tick.key().as_bytes())));
        }
        assert_eq!(
            String::from_utf8(tick().encode()).expect("text"),
            r#"{"_v":1,"_topic":"app.requests","_partition":3,"_at":17,"_idle":true,"_layout":{"app.requests":4}}"#
        );
    }

    #[test]
    fn no_entity_has_the_key_of_a_tick() {
        assert_eq!(Entity::parse(&tick().key()), None);
        for key in [Some(&b"user:~tick/a/0"[..]), Some(b"anon"), Some(b"~tick"), None] {
            assert!(!Tick::is_tick(key));
        }
    }

    #[test]
    fn what_no_router_writes_is_refused_with_its_reason() {
        let text = String::from_utf8(tick().encode()).expect("text");
        let refused = |value: &str| Tick::decode(Some(value.as_bytes())).expect_err("not a tick").to_string();
        assert_eq!(refused(&text.replace(r#""_v":1"#, r#""_v":2"#)), "wrong_type: tick version");
        assert_eq!(refused(&text.replace(r#""_partition":3"#, r#""_partition":4"#)), "wrong_type: tick layout");
        assert_eq!(refused(&text.replace(r#""_partition":3"#, r#""_partition":-1"#)), "wrong_type: tick layout");
        assert_eq!(refused(&text.replace(r#":4}"#, r#":2000000000}"#)), "wrong_type: tick layout");
        assert_eq!(refused(&text.replace(r#""_idle":true"#, r#""_idle":1"#)), "wrong_type: tick");
        assert_eq!(refused("{"), "invalid_json: tick");
        assert_eq!(Tick::decode(None).expect_err("a tombstone").to_string(), "null_value: tick");
    }
}
