//! The headers of dead letters: their names, and what the headers of a record in the dead-letter topic say.
//!
//! Three kinds of records stand there. A *dead letter* has a reason. A *receipt* says that a dead letter of its partition was
//! redriven: no value, and [`REDRIVEN`]. Anything else was written by somebody else.

use std::fmt;
use std::str::FromStr;

/// Why: a name of [`crate::rejection::Reason`].
pub const REASON: &str = "tripline-reason";
/// Which field or position.
pub const DETAIL: &str = "tripline-detail";
/// Who refused it: [`Stage`].
pub const STAGE: &str = "tripline-stage";
/// Topic of the original record.
pub const SOURCE_TOPIC: &str = "tripline-source-topic";
/// Its partition.
pub const SOURCE_PARTITION: &str = "tripline-source-partition";
/// Its offset.
pub const SOURCE_OFFSET: &str = "tripline-source-offset";
/// Its timestamp, milliseconds; 0 when it had none.
pub const SOURCE_TIMESTAMP: &str = "tripline-source-timestamp";
/// The same as RFC 3339.
pub const TIME: &str = "tripline-time";
/// Length of a value that was too large to copy.
pub const TRUNCATED: &str = "tripline-truncated";
/// Digest of a value that was too large to copy.
pub const DIGEST: &str = "tripline-digest";
/// Bytes of the original's own headers, when they were too many to repeat.
pub const HEADERS_LEFT_OUT: &str = "tripline-headers-left-out";
/// Of a redriven record, and of its dead letter if it fails again: the dead letter it was redriven from, `partition/offset`.
pub const REDRIVEN_FROM: &str = "tripline-redriven-from";
/// Beside [`REDRIVEN_FROM`]: which attempt the record is, from 2.
pub const ATTEMPT: &str = "tripline-attempt";
/// Of a receipt: the offset of the dead letter, in the receipt's own partition, that was redriven.
pub const REDRIVEN: &str = "tripline-redriven";

/// The most bytes of a record's own headers that its dead letter repeats.
pub const MAX_OWN_HEADER_BYTES: usize = 16 * 1024;

/// Attempts are counted up to here; what a record claims beyond is not believed.
pub const MAX_ATTEMPT: u32 = 1_000;

/// Whether a dead letter repeats this header of its original: what the record says about itself as a CloudEvent.
pub fn is_own(header: &str) -> bool {
    header == "content-type" || header.starts_with("ce_")
}

/// Where a dead letter stands in the dead-letter topic: its name for people, `3/1042`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterId {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.offset)
    }
}

impl FromStr for LetterId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<LetterId, &'static str> {
        let parts = text.split_once('/').and_then(|(p, o)| Some((digits::<i32>(p)?, digits::<i64>(o)?)));
        parts.map(|(partition, offset)| LetterId { partition, offset }).ok_or("write PARTITION/OFFSET, as in `3/1042`")
    }
}

/// Who refused a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The router: it could not become an event.
    Router,
    /// The detector.
    Detector,
}

impl Stage {
    /// Its word in [`STAGE`].
    pub fn name(self) -> &'static str {
        match self {
            Stage::Router => "router",
            Stage::Detector => "detector",
        }
    }

    fn parse(word: &str) -> Option<Stage> {
        [Stage::Router, Stage::Detector].into_iter().find(|stage| stage.name() == word)
    }
}

/// What the headers of a dead letter say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told<'h> {
    /// Why; a newer binary may know more reasons than this one.
    pub reason: &'h str,
    /// Which field or position.
    pub detail: &'h str,
    /// Who refused it.
    pub stage: Stage,
    /// Topic of the original record.
    pub source_topic: &'h str,
    /// Its partition.
    pub source_partition: i32,
    /// Its offset.
    pub source_offset: i64,
    /// Its timestamp, milliseconds; 0 when it had none.
    pub source_timestamp_ms: i64,
    /// Length of a value that was too large to copy, in bytes.
    pub truncated: Option<u64>,
    /// Digest of a value that was too large to copy.
    pub digest: Option<&'h str>,
    /// Bytes of own headers that were too many to repeat.
    pub headers_left_out: Option<u64>,
    /// Which attempt the refused record was: 1 unless it had been redriven.
    pub attempt: u32,
    /// The dead letter that it had been redriven from.
    pub redriven_from: Option<LetterId>,
}

/// What a record in the dead-letter topic is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind<'h> {
    /// A dead letter.
    Letter(Told<'h>),
    /// A receipt for the dead letter at this offset of the same partition.
    Receipt(i64),
    /// Neither: somebody else wrote it.
    Foreign,
}

/// Sorts a record of the dead-letter topic by its headers. Of equal names the first counts: ours are written before what is
/// repeated of the original.
pub fn kind<'h>(headers: impl IntoIterator<Item = (&'h str, &'h [u8])>) -> Kind<'h> {
    let mut found = Found::default();
    for (name, value) in headers {
        if let (Some(place), Ok(text)) = (found.place(name), std::str::from_utf8(value)) {
            place.get_or_insert(text);
        }
    }
    if let Some(offset) = found.redriven.and_then(digits) {
        return Kind::Receipt(offset);
    }
    found.letter().map_or(Kind::Foreign, Kind::Letter)
}

#[derive(Default)]
struct Found<'h> {
    reason: Option<&'h str>,
    detail: Option<&'h str>,
    stage: Option<&'h str>,
    topic: Option<&'h str>,
    partition: Option<&'h str>,
    offset: Option<&'h str>,
    timestamp: Option<&'h str>,
    truncated: Option<&'h str>,
    digest: Option<&'h str>,
    headers_left_out: Option<&'h str>,
    redriven_from: Option<&'h str>,
    attempt: Option<&'h str>,
    redriven: Option<&'h str>,
}

impl<'h> Found<'h> {
    fn place(&mut self, name: &str) -> Option<&mut Option<&'h str>> {
        Some(match name {
            REASON => &mut self.reason,
            DETAIL => &mut self.detail,
            STAGE => &mut self.stage,
            SOURCE_TOPIC => &mut self.topic,
            SOURCE_PARTITION => &mut self.partition,
            SOURCE_OFFSET => &mut self.offset,
            SOURCE_TIMESTAMP => &mut self.timestamp,
            TRUNCATED => &mut self.truncated,
            DIGEST => &mut self.digest,
            HEADERS_LEFT_OUT => &mut self.headers_left_out,
            REDRIVEN_FROM => &mut self.redriven_from,
            ATTEMPT => &mut self.attempt,
            REDRIVEN => &mut self.redriven,
            _ => return None,
        })
    }

    fn letter(&self) -> Option<Told<'h>> {
        let (redriven_from, attempt) = lineage(self.redriven_from, self.attempt).unzip();
        Some(Told {
            reason: self.reason?,
            detail: self.detail.unwrap_or_default(),
            stage: self.stage.and_then(Stage::parse)?,
            source_topic: self.topic?,
            source_partition: self.partition.and_then(digits)?,
            source_offset: self.offset.and_then(digits)?,
            source_timestamp_ms: self.timestamp?.parse().ok()?,
            truncated: self.truncated.and_then(digits),
            digest: self.digest,
            headers_left_out: self.headers_left_out.and_then(digits),
            attempt: attempt.unwrap_or(1),
            redriven_from,
        })
    }
}

/// What a record says of where it was redriven from, if it makes sense: anybody who may write to an input topic can claim it,
/// and the most that is gained by it is a dead letter that is not redriven without being asked for more attempts.
pub fn lineage_of<'h>(headers: impl IntoIterator<Item = (&'h str, &'h [u8])>) -> Option<(LetterId, u32)> {
    let mut found = Found::default();
    for (name, value) in headers {
        if let (REDRIVEN_FROM | ATTEMPT, Some(place), Ok(text)) = (name, found.place(name), std::str::from_utf8(value)) {
            place.get_or_insert(text);
        }
    }
    lineage(found.redriven_from, found.attempt)
}

fn lineage(from: Option<&str>, attempt: Option<&str>) -> Option<(LetterId, u32)> {
    let attempt = digits(attempt?).filter(|attempt| (2..=MAX_ATTEMPT).contains(attempt))?;
    Some((from?.parse().ok()?, attempt))
}

/// A number as it is written: no sign, no space.
fn digits<N: FromStr>(text: &str) -> Option<N> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LETTER: [(&str, &str); 8] = [
        (REASON, "bad_time"),
        (DETAIL, "event_time"),
        (STAGE, "router"),
        (SOURCE_TOPIC, "app.requests"),
        (SOURCE_PARTITION, "3"),
        (SOURCE_OFFSET, "1042"),
        (SOURCE_TIMESTAMP, "1770000000000"),
        (TIME, "2026-02-02T02:40:00Z"),
    ];

    fn sorted<'h>(headers: &[(&'h str, &'h str)]) -> Kind<'h> {
        kind(headers.iter().map(|(name, value)| (*name, value.as_bytes())))
    }

    #[test]
    fn a_letter_a_receipt_and_what_is_neither_are_told_apart() {
        let Kind::Letter(told) = sorted(&LETTER) else { panic!("a dead letter") };
        assert_eq!((told.reason, told.source_partition, told.source_offset, told.attempt), ("bad_time", 3, 1042, 1));
        assert_eq!(sorted(&[(REDRIVEN, "17")]), Kind::Receipt(17));
        for nonsense in ["", "-1", "+1", " 1", "x", "99999999999999999999"] {
            assert_eq!(sorted(&[(REDRIVEN, nonsense)]), Kind::Foreign, "{nonsense:?}");
        }
        for (missing, (name, _)) in LETTER.iter().enumerate().take(7) {
            let rest: Vec<_> = LETTER.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, header)| *header).collect();
            assert_eq!(sorted(&rest) == Kind::Foreign, missing != 1, "without {name}");
        }
    }

    #[test]
    fn what_the_original_repeats_cannot_stand_in_for_our_own_headers() {
        let twice = [&LETTER[..], &[(REASON, "panicked"), (SOURCE_TOPIC, "elsewhere")]].concat();
        assert_eq!(sorted(&twice), sorted(&LETTER));
    }

    #[test]
    fn attempts_are_believed_within_reason() {
        let claims = |from: &str, attempt: &str| lineage(Some(from), Some(attempt));
        assert_eq!(claims("3/7", "2"), Some((LetterId { partition: 3, offset: 7 }, 2)));
        for (from, attempt) in [("3/7", "1"), ("3/7", "1001"), ("3/7", "-2"), ("3", "2"), ("x/y", "2"), ("3/-7", "2")] {
            assert_eq!(claims(from, attempt), None, "{from} {attempt}");
        }
        assert_eq!(lineage(Some("3/7"), None), None);
    }
}
