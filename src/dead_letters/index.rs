//! Dead letters as they are read, and which of them have a receipt.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tripline_core::dead_letter::{Kind, LetterId, Stage, Told};
use tripline_core::tick::Tick;
use tripline_core::time::format_rfc3339_ms;

/// So many dead letters are remembered at most, some 250 bytes each. Of more than that, those leave that are redriven, then the oldest.
pub const MOST_LETTERS: usize = 200_000;

/// One dead letter, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Where it stands.
    pub id: LetterId,
    /// When it was appended, milliseconds of the broker's clock.
    pub at_ms: i64,
    /// Why.
    pub reason: Arc<str>,
    /// Which field or position.
    pub detail: Arc<str>,
    /// Who refused the record.
    pub stage: Stage,
    /// Topic of the original record.
    pub source_topic: Arc<str>,
    /// Its partition.
    pub source_partition: i32,
    /// Its offset.
    pub source_offset: i64,
    /// Its timestamp, milliseconds; 0 when it had none.
    pub source_timestamp_ms: i64,
    /// Its length in bytes, when it was too large to copy.
    pub truncated: Option<u64>,
    /// Bytes of its own headers, when they were too many to repeat.
    pub headers_left_out: Option<u64>,
    /// Which attempt it was, from 1.
    pub attempt: u32,
    /// The dead letter that it had been redriven from.
    pub redriven_from: Option<LetterId>,
    /// Bytes of key, value and headers.
    pub bytes: usize,
    /// The original has the key of a tick.
    pub is_tick: bool,
    /// It has a receipt.
    pub is_redriven: bool,
}

impl Letter {
    /// `open` or `redriven`.
    pub fn status(&self) -> &'static str {
        if self.is_redriven { "redriven" } else { "open" }
    }

    /// `topic/partition/offset` of the original record.
    pub fn source(&self) -> String {
        format!("{}/{}/{}", self.source_topic, self.source_partition, self.source_offset)
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let optional = [
            ("redriven_from", self.redriven_from.map(|id| json!(id.to_string()))),
            ("truncated_bytes", self.truncated.map(|bytes| json!(bytes))),
            ("headers_left_out_bytes", self.headers_left_out.map(|bytes| json!(bytes))),
        ];
        let mut value = json!({
            "letter": self.id.to_string(),
            "appended": format_rfc3339_ms(self.at_ms),
            "reason": &*self.reason,
            "detail": &*self.detail,
            "stage": self.stage.name(),
            "status": self.status(),
            "attempt": self.attempt,
            "source": {
                "topic": &*self.source_topic,
                "partition": self.source_partition,
                "offset": self.source_offset,
                "timestamp": format_rfc3339_ms(self.source_timestamp_ms),
            },
            "bytes": self.bytes,
        });
        for (name, found) in optional {
            if let Some(found) = found {
                value[name] = found;
            }
        }
        value
    }
}

/// Which dead letters are asked for; what is empty asks for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Exactly these.
    pub ids: BTreeSet<LetterId>,
    /// One of these reasons.
    pub reasons: BTreeSet<String>,
    /// From this source topic.
    pub topic: Option<String>,
    /// Refused here.
    pub stage: Option<Stage>,
    /// Appended at this time or later, milliseconds.
    pub since_ms: Option<i64>,
}

impl Filter {
    fn wants(&self, id: LetterId, at_ms: i64, told: &Told<'_>) -> bool {
        (self.ids.is_empty() || self.ids.contains(&id))
            && (self.reasons.is_empty() || self.reasons.contains(told.reason))
            && self.topic.as_deref().is_none_or(|topic| topic == told.source_topic)
            && self.stage.is_none_or(|stage| stage == told.stage)
            && self.since_ms.is_none_or(|since_ms| at_ms >= since_ms)
    }
}

/// The dead letters that a filter asks for, as they are read: each partition in the order of its offsets.
#[derive(Debug)]
pub struct Index {
    filter: Filter,
    most: usize,
    letters: BTreeMap<LetterId, Letter>,
    /// The same in the order in which they leave: redriven ones first, then by age.
    ranks: BTreeSet<Rank>,
    words: BTreeSet<Arc<str>>,
    left_out: LeftOut,
    foreign: u64,
}

/// Whether a dead letter is open, when it was appended, and where it stands.
type Rank = (bool, i64, LetterId);

/// Dead letters that matched and found no room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// How many.
    pub count: u64,
    /// When the newest of them was appended, milliseconds.
    pub until_ms: i64,
}

impl Index {
    /// An empty index of at most `most` dead letters.
    pub fn new(filter: Filter, most: usize) -> Index {
        Index {
            filter,
            most,
            letters: BTreeMap::new(),
            ranks: BTreeSet::new(),
            words: BTreeSet::new(),
            left_out: LeftOut::default(),
            foreign: 0,
        }
    }

    /// Takes note of a record of the topic: where it stands, when it was appended, what its headers say, its bytes, its key.
    pub fn see(&mut self, id: LetterId, at_ms: i64, kind: &Kind<'_>, bytes: usize, key: Option<&[u8]>) {
        match kind {
            // A receipt comes after its dead letter.
            Kind::Receipt(offset) if *offset < id.offset => {
                if let Some(letter) = self.letters.get_mut(&LetterId { offset: *offset, ..id }) {
                    letter.is_redriven = true;
                    self.ranks.remove(&(true, letter.at_ms, letter.id));
                    self.ranks.insert((false, letter.at_ms, letter.id));
                }
            }
            Kind::Letter(told) if !self.filter.wants(id, at_ms, told) => {}
            Kind::Letter(told) => {
                let letter = Letter { is_tick: Tick::is_tick(key), ..self.letter(id, at_ms, told, bytes) };
                self.letters.insert(id, letter);
                self.ranks.insert((true, at_ms, id));
                self.make_room();
            }
            Kind::Receipt(_) | Kind::Foreign => self.foreign += 1,
        }
    }

    fn make_room(&mut self) {
        if self.letters.len() <= self.most {
            return;
        }
        if let Some((_, at_ms, id)) = self.ranks.pop_first() {
            self.letters.remove(&id);
            self.left_out = LeftOut { count: self.left_out.count + 1, until_ms: self.left_out.until_ms.max(at_ms) };
        }
    }

    fn letter(&mut self, id: LetterId, at_ms: i64, told: &Told<'_>, bytes: usize) -> Letter {
        Letter {
            id,
            at_ms,
            reason: self.word(told.reason),
            detail: self.word(told.detail),
            stage: told.stage,
            source_topic: self.word(told.source_topic),
            source_partition: told.source_partition,
            source_offset: told.source_offset,
            source_timestamp_ms: told.source_timestamp_ms,
            truncated: told.truncated,
            headers_left_out: told.headers_left_out,
            attempt: told.attempt,
            redriven_from: told.redriven_from,
            bytes,
            is_tick: false,
            is_redriven: false,
        }
    }

    /// A text that is kept once, however many dead letters say it.
    fn word(&mut self, text: &str) -> Arc<str> {
        if let Some(word) = self.words.get(text) {
            return word.clone();
        }
        let word: Arc<str> = text.into();
        self.words.insert(word.clone());
        word
    }

    /// Dead letters by where they stand.
    pub fn letters(&self) -> impl Iterator<Item = &Letter> {
        self.letters.values()
    }

    /// Whether it has this one.
    pub fn has(&self, id: LetterId) -> bool {
        self.letters.contains_key(&id)
    }

    /// Dead letters that matched and found no room.
    pub fn left_out(&self) -> LeftOut {
        self.left_out
    }

    /// Records that are neither dead letters nor receipts of any.
    pub fn foreign(&self) -> u64 {
        self.foreign
    }

    /// By reason: open ones, redriven ones.
    pub fn by_reason(&self) -> BTreeMap<&str, (usize, usize)> {
        let mut counts = BTreeMap::<&str, (usize, usize)>::new();
        for letter in self.letters() {
            let (open, redriven) = counts.entry(&letter.reason).or_default();
            *if letter.is_redriven { redriven } else { open } += 1;
        }
        counts
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn told(source_offset: i64) -> Told<'static> {
        Told {
            reason: "bad_time",
            detail: "event_time",
            stage: Stage::Router,
            source_topic: "app.requests",
            source_partition: 0,
            source_offset,
            source_timestamp_ms: source_offset * 1_000,
            truncated: None,
            digest: None,
            headers_left_out: None,
            attempt: 1,
            redriven_from: None,
        }
    }

    pub(crate) fn id(partition: i32, offset: i64) -> LetterId {
        LetterId { partition, offset }
    }

    fn open(index: &Index) -> Vec<LetterId> {
        index.letters().filter(|letter| !letter.is_redriven).map(|letter| letter.id).collect()
    }

    #[test]
    fn a_receipt_closes_the_letter_of_its_own_partition_that_stands_before_it() {
        let mut index = Index::new(Filter::default(), 10);
        for at in [id(0, 3), id(0, 5), id(1, 3)] {
            index.see(at, 1, &Kind::Letter(told(1)), 10, None);
        }
        index.see(id(0, 6), 2, &Kind::Receipt(3), 0, None);
        index.see(id(0, 7), 2, &Kind::Receipt(3), 0, None);
        index.see(id(0, 4), 2, &Kind::Receipt(5), 0, None);
        index.see(id(1, 8), 2, &Kind::Receipt(4), 0, None);
        assert_eq!(open(&index), [id(0, 5), id(1, 3)]);
        assert_eq!(index.foreign(), 1, "a receipt for what comes after it is none of ours");
        assert_eq!(index.by_reason(), BTreeMap::from([("bad_time", (2, 1))]));
    }

    #[test]
    fn filters_hold_together_and_receipts_pass_all_of_them() {
        let other = Told { reason: "too_deep", stage: Stage::Detector, source_topic: "app.events", ..told(2) };
        let found = |filter: Filter| {
            let mut index = Index::new(filter, 10);
            index.see(id(0, 1), 100, &Kind::Letter(told(1)), 1, None);
            index.see(id(0, 2), 200, &Kind::Letter(other.clone()), 1, None);
            index.see(id(0, 3), 300, &Kind::Receipt(1), 0, None);
            index.letters().map(|letter| (letter.id.offset, letter.is_redriven)).collect::<Vec<_>>()
        };
        assert_eq!(found(Filter::default()), [(1, true), (2, false)]);
        assert_eq!(found(Filter { reasons: ["bad_time".to_owned()].into(), ..Filter::default() }), [(1, true)]);
        assert_eq!(found(Filter { topic: Some("app.events".to_owned()), ..Filter::default() }), [(2, false)]);
        assert_eq!(found(Filter { stage: Some(Stage::Router), ..Filter::default() }), [(1, true)]);
        assert_eq!(found(Filter { since_ms: Some(101), ..Filter::default() }), [(2, false)]);
        assert_eq!(found(Filter { ids: [id(0, 2), id(9, 9)].into(), ..Filter::default() }), [(2, false)]);
        assert_eq!(found(Filter { ids: [id(0, 2)].into(), stage: Some(Stage::Router), ..Filter::default() }), []);
    }

    #[test]
    fn redriven_ones_make_room_then_the_oldest_and_what_found_none_is_counted() {
        let mut index = Index::new(Filter::default(), 3);
        let mut see = |at: LetterId, at_ms, kind: &Kind<'_>| index.see(at, at_ms, kind, 1, None);
        for (offset, at_ms) in [(0, 10), (1, 20), (2, 30)] {
            see(id(0, offset), at_ms, &Kind::Letter(told(offset)));
        }
        see(id(0, 3), 31, &Kind::Receipt(2));
        // Partitions are read one after the other: the time of each decides, not its turn.
        for (offset, at_ms) in [(0, 15), (1, 5), (2, 40)] {
            see(id(1, offset), at_ms, &Kind::Letter(told(offset)));
        }
        assert_eq!(open(&index), [id(0, 1), id(1, 0), id(1, 2)]);
        assert_eq!(index.left_out(), LeftOut { count: 3, until_ms: 30 });
        index.see(id(0, 4), 50, &Kind::Receipt(0), 1, None);
        assert_eq!((open(&index).len(), index.foreign()), (3, 0), "a receipt of one that left is no stranger");
    }
}
