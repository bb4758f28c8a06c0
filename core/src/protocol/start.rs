//! Where a task starts: committed metadata, the local store and the changelog, compared before the first record.
//!
//! The order matters: `init_transactions` first, then the committed offset and metadata, then the high watermark of the
//! changelog, then its records from the stored marker on. The marker whose history and commit id equal the metadata's
//! decides. Offsets and end-of-file events decide nothing; the high watermark only bounds the search.

use super::CommitId;
use crate::stream_time::SourceTimes;
use serde::{Deserialize, Serialize};

/// What a task's offset commit carries, as JSON under 1 KiB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Layout of this metadata: 1.
    pub v: u32,
    /// One life of the state: changes when it is adopted or started anew.
    pub history: String,
    /// Number of the commit.
    pub seq: u64,
    /// The attempt, 32 hexadecimal digits.
    pub commit_id: String,
    /// Transactional id of the owner that wrote it.
    pub owner: String,
    /// Partitions of the keyed topic when it was written.
    pub partitions: i32,
    /// Fingerprint of the last processed record, 16 hexadecimal digits; empty before the first.
    pub fingerprint: String,
    /// The input topic's id, by which a topic that was made anew under the same name is known; `None` when it was not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
    /// Where the task's changelog partition may begin: above 0 only if an operator took its word although its beginning was gone,
    /// or if this life began in it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub changelog_low: i64,
}

/// Layout of metadata and markers. A field that an older binary may leave out, and whose absence a newer one understands,
/// does not change it: an older binary refuses what it would misread, not what it can do without.
pub const LAYOUT: u32 = 1;

/// The last record of a task's commit in the changelog.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Layout of this marker: 1.
    pub v: u32,
    /// `app.id`.
    pub app: String,
    /// As in [`Metadata`].
    pub history: String,
    /// As in [`Metadata`].
    pub seq: u64,
    /// As in [`Metadata`].
    pub commit_id: String,
    /// The next input offset.
    pub next_offset: i64,
    /// The newest record time seen by the task, milliseconds.
    pub stream_time_ms: i64,
    /// Partitions of the keyed topic.
    pub partitions: i32,
    /// Digest of the rules.
    pub rules: String,
    /// Digest of the flags.
    pub flags: String,
    /// State records in this commit.
    pub states: u64,
    /// Decisions in this commit.
    pub decisions: u64,
    /// What the commit did, for the [audit](crate::audit). A binary before it leaves the field out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<Work>,
    /// `state repartition` wrote it: the number of partitions of the keyed topic for which the one before it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_from: Option<i32>,
}

/// What one commit of a task did: which input records it took and how many outputs of each kind it wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// The first input offset that it may have taken: the next offset of the commit before it, unless an operator moved it.
    pub first_offset: i64,
    /// How many outputs.
    #[serde(flatten)]
    pub outputs: OutputCounts,
}

/// Records written by one commit of a task, by kind. What is 0 is left out of the marker: most commits write few kinds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutputCounts {
    /// Decisions.
    #[serde(skip_serializing_if = "is_zero")]
    pub decisions: u64,
    /// Decisions of rules that only watch.
    #[serde(skip_serializing_if = "is_zero")]
    pub shadow: u64,
    /// Records of alerts.
    #[serde(skip_serializing_if = "is_zero")]
    pub alerts: u64,
    /// Standings, tombstones included.
    #[serde(skip_serializing_if = "is_zero")]
    pub standing: u64,
    /// Observations that were too late to count.
    #[serde(skip_serializing_if = "is_zero")]
    pub late: u64,
    /// Dead letters.
    #[serde(skip_serializing_if = "is_zero")]
    pub dead_letters: u64,
    /// Observations of a router partition; ticks are none.
    #[serde(skip_serializing_if = "is_zero")]
    pub observations: u64,
}

fn is_zero<N: Default + PartialEq>(number: &N) -> bool {
    *number == N::default()
}

impl OutputCounts {
    /// The counts in the order of the fields.
    pub fn all(&self) -> [u64; 7] {
        [self.decisions, self.shadow, self.alerts, self.standing, self.late, self.dead_letters, self.observations]
    }

    /// Takes in what was written between two looks at the same counters.
    pub fn add(&mut self, before: &OutputCounts, after: &OutputCounts) {
        self.decisions += after.decisions - before.decisions;
        self.shadow += after.shadow - before.shadow;
        self.alerts += after.alerts - before.alerts;
        self.standing += after.standing - before.standing;
        self.late += after.late - before.late;
        self.dead_letters += after.dead_letters - before.dead_letters;
        self.observations += after.observations - before.observations;
    }
}

/// What the local store says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Local {
    /// As in [`Metadata`].
    pub history: String,
    /// As in [`Metadata`].
    pub seq: u64,
    /// As in [`Metadata`].
    pub commit_id: String,
    /// Offset of the newest marker that the store covers; the changelog is applied from the record after it.
    pub marker_offset: i64,
    /// Broker time of that marker, milliseconds.
    pub marker_time_ms: i64,
    /// Layout of the store's due index. A binary that knows none leaves the field out: the index is then made anew, so that a
    /// step back and forth between binaries loses no firing.
    #[serde(default)]
    pub due_index: u32,
    /// The newest record time seen by the task, milliseconds; 0 for none.
    #[serde(default)]
    pub stream_time_ms: i64,
    /// Routed mode, while rules need time: how far the task has heard from its sources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<SourceTimes>,
}

/// What to do with a task before its first record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Neither offset nor marker: resolve `input.start`, commit it with seq 0.
    Fresh,
    /// An operator set the group's offset and there is no marker: start there.
    AtOffset(i64),
    /// The store is where the metadata is: start at this offset.
    Ready(i64),
    /// Apply the changelog from this offset until the marker of the metadata. `None`: there is no local store, or it is of another
    /// life or too old: empty it, and apply the changelog from its beginning.
    Restore(Option<i64>),
    /// No metadata, but perhaps a changelog: look for a marker first, then decide by [`after_search`].
    SearchMarker,
}

/// Why a task does not start by itself; `state adopt` takes the changelog's word for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// The store is ahead of what is committed.
    #[error("local state has commit {local}, the group's offset has {committed}: offsets were reset or the state folder belongs elsewhere")]
    LocalAhead {
        /// The store's seq.
        local: u64,
        /// The metadata's seq.
        committed: u64,
    },
    /// A marker is ahead of what is committed.
    #[error("the changelog has commit {marker}, the group's offset has {committed}: the group's offsets were reset")]
    MarkerAhead {
        /// The marker's seq.
        marker: u64,
        /// The metadata's seq.
        committed: u64,
    },
    /// There is state but no offset of ours.
    #[error(
        "the changelog has state (commit {marker}) but the group's offset is missing or is not ours: it expired, was reset, or went with its topic"
    )]
    ForeignOffset {
        /// The newest marker's seq.
        marker: u64,
    },
    /// The partition count changed.
    #[error("the state was written for {written} partitions, the topic has {found}: {}", after_a_change(*written, *found))]
    Partitions {
        /// Partitions of the keyed topic when the state was written.
        written: i32,
        /// Partitions that the keyed topic has now.
        found: i32,
    },
    /// Offset and marker of one commit do not agree on the number of partitions.
    #[error(
        "the marker of commit {seq} says that its state was written for {marker} partitions, the group's offset of the same commit says {committed}: somebody wrote one of them by hand"
    )]
    MarkerPartitions {
        /// The commit.
        seq: u64,
        /// Partitions by its marker in the changelog.
        marker: i32,
        /// Partitions by its offset's metadata.
        committed: i32,
    },
    /// The changelog ends without the marker.
    #[error("the changelog ends at offset {end} without the marker of commit {seq}: records are missing from it")]
    MarkerMissing {
        /// The search ended here.
        end: i64,
        /// The metadata's seq.
        seq: u64,
    },
    /// The changelog lost what the task needs of it.
    #[error(
        "the task needs its changelog partition from offset {from} on, and that begins at {low}: records were deleted, which compaction does not do"
    )]
    ChangelogCut {
        /// The first offset that the local store lacks; 0 without one.
        from: i64,
        /// The first offset there is.
        low: i64,
    },
    /// The committed offset says what this binary does not know.
    #[error("the group's offset was written in layout {layout}, this binary reads {LAYOUT}: start the version that wrote it")]
    Newer {
        /// The layout.
        layout: u64,
    },
    /// The newest record under the marker's key is no marker that this binary reads.
    #[error(
        "the record at offset {offset} of the changelog should be the task's newest marker and is not one: a newer version wrote it, or somebody else"
    )]
    UnreadableMarker {
        /// Its place in the changelog.
        offset: i64,
    },
    /// The input topic is another one under the same name.
    #[error("the topic's id is {found}, and was {written} when it was read: it was deleted and created again")]
    AnotherTopic {
        /// With the offset.
        written: String,
        /// Now.
        found: String,
    },
    /// The input topic was deleted and created again.
    #[error("the record before offset {next_offset} is not the one that was processed: the topic was deleted and created again")]
    Recreated {
        /// The committed offset.
        next_offset: i64,
    },
}

/// The way out for a topic that had this many partitions, and has so many now.
fn after_a_change(written: i32, found: i32) -> String {
    if found > written {
        format!("keys have moved; `tripline state repartition --to {found}` moves their state, too")
    } else {
        format!(
            "if `state repartition` ran while this process did, start it again; else the topic was made anew, for none loses a partition: make it with {written}, or begin with another app.id"
        )
    }
}

/// Decides from the committed offset, its metadata (if it is ours) and the local store. `discard_before_ms`: a store whose
/// last marker is older and whose commit differs from the metadata's is rebuilt (its expired entities may be ghosts).
pub fn plan(
    offset: Option<i64>,
    metadata: Option<&Metadata>,
    local: Option<&Local>,
    discard_before_ms: i64,
    partitions: i32,
) -> Result<Plan, Halt> {
    let (Some(offset), Some(metadata)) = (offset, metadata) else { return Ok(Plan::SearchMarker) };
    if metadata.partitions != partitions {
        return Err(Halt::Partitions { written: metadata.partitions, found: partitions });
    }
    let Some(local) = local else { return Ok(Plan::Restore(None)) };
    if local.history != metadata.history {
        return Ok(Plan::Restore(None));
    }
    if local.commit_id == metadata.commit_id {
        return Ok(Plan::Ready(offset));
    }
    if local.seq >= metadata.seq {
        return Err(Halt::LocalAhead { local: local.seq, committed: metadata.seq });
    }
    if local.marker_time_ms < discard_before_ms {
        return Ok(Plan::Restore(None));
    }
    Ok(Plan::Restore(Some(local.marker_offset + 1)))
}

/// Where the restore of a [`Plan::Restore`] begins to read a changelog that begins at `low`, and whether the local store is to be
/// emptied first. Compaction leaves the beginning where it is: what stood before it was deleted, and states in it would be missing
/// without a word.
pub fn restore_from(from: Option<i64>, low: i64, metadata: &Metadata) -> Result<(i64, bool), Halt> {
    match from {
        Some(from) if from >= low => Ok((from, false)),
        _ if low <= metadata.changelog_low => Ok((low, true)),
        from => Err(Halt::ChangelogCut { from: from.unwrap_or(0), low }),
    }
}

/// The id to go on with: the one that the brokers say, which has to be the one that was written, if both are known.
pub fn same_topic(written: Option<String>, found: Option<String>) -> Result<Option<String>, Halt> {
    match (written, found) {
        (Some(written), Some(found)) if written != found => Err(Halt::AnotherTopic { written, found }),
        (written, found) => Ok(found.or(written)),
    }
}

/// Decides when there is no metadata of ours and the changelog was searched for its newest marker.
pub fn after_search(offset: Option<i64>, newest: Option<&Marker>) -> Result<Plan, Halt> {
    match (offset, newest) {
        (_, Some(marker)) => Err(Halt::ForeignOffset { marker: marker.seq }),
        (Some(offset), None) => Ok(Plan::AtOffset(offset)),
        (None, None) => Ok(Plan::Fresh),
    }
}

/// What a marker of the task means while the changelog is applied. Earlier ones of the same life may be of the time before the
/// app grew: the commit that the metadata names is the one that has to fit. `partitions` are those of the metadata.
pub fn marker_met(marker: &Marker, metadata: &Metadata, partitions: i32) -> Result<bool, Halt> {
    if marker.history == metadata.history && marker.commit_id == metadata.commit_id {
        if marker.partitions != partitions {
            return Err(Halt::MarkerPartitions { seq: marker.seq, marker: marker.partitions, committed: partitions });
        }
        return Ok(true);
    }
    if marker.history == metadata.history && marker.seq > metadata.seq {
        return Err(Halt::MarkerAhead { marker: marker.seq, committed: metadata.seq });
    }
    Ok(false)
}

impl CommitId {
    /// 32 hexadecimal digits.
    pub fn to_hex(self) -> String {
        format!("{:032x}", self.0)
    }

    /// Reads [`CommitId::to_hex`].
    pub fn from_hex(text: &str) -> Option<CommitId> {
        u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32).map(CommitId)
    }
}

impl Marker {
    /// Reads the value of a record under a marker's key; `None` if it is no marker of this layout.
    pub fn parse(value: &[u8]) -> Option<Marker> {
        serde_json::from_slice::<Marker>(value).ok().filter(|marker| marker.v == LAYOUT)
    }
}

impl Metadata {
    /// Reads the metadata of an offset commit; `None` if it is not ours.
    pub fn parse(text: &str) -> Option<Metadata> {
        serde_json::from_str::<Metadata>(text).ok().filter(|m| m.v == LAYOUT && CommitId::from_hex(&m.commit_id).is_some())
    }

    /// [`Metadata::parse`], which does not take the words of a newer version for somebody else's: starting without the state
    /// that they speak of would lose it.
    pub fn read(text: &str) -> Result<Option<Metadata>, Halt> {
        let ours = Metadata::parse(text);
        let layout = || {
            let words: serde_json::Value = serde_json::from_str(text).ok()?;
            words.get("history").and_then(|_| words.get("v")?.as_u64()).filter(|v| *v > u64::from(LAYOUT))
        };
        match (ours, layout()) {
            (None, Some(layout)) => Err(Halt::Newer { layout }),
            (ours, _) => Ok(ours),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(seq: u64, commit_id: u128) -> Metadata {
        Metadata {
            v: 1,
            history: "h".into(),
            seq,
            commit_id: CommitId(commit_id).to_hex(),
            owner: "o".into(),
            partitions: 4,
            fingerprint: String::new(),
            topic_id: None,
            changelog_low: 0,
        }
    }

    fn local(seq: u64, commit_id: u128) -> Local {
        Local {
            history: "h".into(),
            seq,
            commit_id: CommitId(commit_id).to_hex(),
            marker_offset: 41,
            marker_time_ms: 1_000,
            due_index: 1,
            stream_time_ms: 0,
            sources: None,
        }
    }

    fn marker(seq: u64, commit_id: u128) -> Marker {
        Marker {
            v: 1,
            app: "a".into(),
            history: "h".into(),
            seq,
            commit_id: CommitId(commit_id).to_hex(),
            next_offset: 0,
            stream_time_ms: 0,
            partitions: 4,
            rules: String::new(),
            flags: String::new(),
            states: 0,
            decisions: 0,
            work: None,
            moved_from: None,
        }
    }

    #[test]
    fn the_store_starts_at_once_only_when_its_commit_is_the_committed_one() {
        assert_eq!(plan(Some(9), Some(&metadata(5, 1)), Some(&local(5, 1)), 0, 4), Ok(Plan::Ready(9)));
        assert_eq!(plan(Some(9), Some(&metadata(7, 2)), Some(&local(5, 1)), 0, 4), Ok(Plan::Restore(Some(42))));
        assert_eq!(plan(Some(9), Some(&metadata(7, 2)), None, 0, 4), Ok(Plan::Restore(None)));
    }

    #[test]
    fn another_number_of_partitions_stops_also_when_the_store_is_up_to_date() {
        assert_eq!(plan(Some(9), Some(&metadata(5, 1)), Some(&local(5, 1)), 0, 8), Err(Halt::Partitions { written: 4, found: 8 }));
        let told = |found| Halt::Partitions { written: 4, found }.to_string();
        assert!(
            told(8).ends_with("the topic has 8: keys have moved; `tripline state repartition --to 8` moves their state, too"),
            "{}",
            told(8)
        );
        assert!(
            told(3).ends_with("none loses a partition: make it with 4, or begin with another app.id"),
            "no repartition makes less: {}",
            told(3)
        );
    }

    #[test]
    fn a_store_ahead_of_the_commit_stops() {
        assert_eq!(plan(Some(9), Some(&metadata(5, 1)), Some(&local(6, 2)), 0, 4), Err(Halt::LocalAhead { local: 6, committed: 5 }));
        assert_eq!(
            plan(Some(9), Some(&metadata(5, 1)), Some(&local(5, 2)), 0, 4),
            Err(Halt::LocalAhead { local: 5, committed: 5 }),
            "same number, other attempt"
        );
    }

    #[test]
    fn another_life_or_an_old_store_is_rebuilt() {
        let other = Local { history: "x".into(), ..local(9, 1) };
        assert_eq!(plan(Some(9), Some(&metadata(5, 1)), Some(&other), 0, 4), Ok(Plan::Restore(None)));
        assert_eq!(plan(Some(9), Some(&metadata(7, 2)), Some(&local(5, 1)), 2_000, 4), Ok(Plan::Restore(None)));
    }

    #[test]
    fn a_changelog_without_its_beginning_restores_nothing_until_an_operator_says_so() {
        let cut = |from, low| Err(Halt::ChangelogCut { from, low });
        let whole = metadata(5, 1);
        assert_eq!(restore_from(Some(42), 0, &whole), Ok((42, false)));
        assert_eq!(restore_from(Some(42), 42, &whole), Ok((42, false)), "the store has what is gone");
        assert_eq!(restore_from(Some(42), 43, &whole), cut(42, 43));
        assert_eq!((restore_from(None, 0, &whole), restore_from(None, 1, &whole)), (Ok((0, true)), cut(0, 1)));
        let adopted = Metadata { changelog_low: 43, ..whole };
        assert_eq!((restore_from(None, 43, &adopted), restore_from(Some(42), 43, &adopted)), (Ok((43, true)), Ok((43, true))));
        assert_eq!((restore_from(Some(42), 42, &adopted), restore_from(None, 44, &adopted)), (Ok((42, false)), cut(0, 44)));
    }

    #[test]
    fn a_topics_id_is_compared_when_both_are_known_and_not_forgotten_when_one_is_not() {
        let id = |id: &str| Some(id.to_owned());
        assert_eq!((same_topic(None, None), same_topic(None, id("a"))), (Ok(None), Ok(id("a"))));
        assert_eq!((same_topic(id("a"), id("a")), same_topic(id("a"), None)), (Ok(id("a")), Ok(id("a"))));
        assert_eq!(same_topic(id("a"), id("b")), Err(Halt::AnotherTopic { written: "a".into(), found: "b".into() }));
    }

    #[test]
    fn without_an_offset_of_ours_a_marker_stops_and_nothing_starts_fresh() {
        assert_eq!(plan(None, None, None, 0, 4), Ok(Plan::SearchMarker));
        assert_eq!(after_search(None, None), Ok(Plan::Fresh));
        assert_eq!(after_search(Some(7), None), Ok(Plan::AtOffset(7)));
        assert_eq!(after_search(Some(7), Some(&marker(3, 1))), Err(Halt::ForeignOffset { marker: 3 }));
    }

    #[test]
    fn the_marker_of_the_committed_attempt_ends_the_restore() {
        assert_eq!(marker_met(&marker(5, 1), &metadata(5, 1), 4), Ok(true));
        assert_eq!(marker_met(&marker(4, 9), &metadata(5, 1), 4), Ok(false));
        assert_eq!(marker_met(&marker(6, 9), &metadata(5, 1), 4), Err(Halt::MarkerAhead { marker: 6, committed: 5 }));
        assert_eq!(marker_met(&marker(5, 1), &metadata(5, 1), 8), Err(Halt::MarkerPartitions { seq: 5, marker: 4, committed: 8 }));
        let grown = Metadata { partitions: 8, ..metadata(5, 1) };
        assert_eq!(marker_met(&marker(4, 9), &grown, 8), Ok(false), "of the time before the app grew");
    }

    #[test]
    fn what_a_store_said_before_it_had_a_due_index_is_still_read() {
        let text = r#"{"history":"h","seq":5,"commit_id":"00000000000000000000000000000001","marker_offset":41,"marker_time_ms":1000}"#;
        let old: Local = serde_json::from_str(text).expect("the layout of 0.1");
        assert_eq!(old, Local { due_index: 0, ..local(5, 1) });
    }

    #[test]
    fn a_marker_of_before_is_read_and_one_of_today_says_only_what_it_did() {
        let text = r#"{"v":1,"app":"a","history":"h","seq":5,"commit_id":"00000000000000000000000000000001","next_offset":0,"stream_time_ms":0,"partitions":4,"rules":"","flags":"","states":0,"decisions":0}"#;
        assert_eq!(serde_json::from_str::<Marker>(text).expect("the layout of before"), marker(5, 1));
        let outputs = OutputCounts { decisions: 2, late: 1, ..OutputCounts::default() };
        let today = Marker { work: Some(Work { first_offset: 7, outputs }), ..marker(5, 1) };
        let written = serde_json::to_string(&today).expect("plain struct");
        assert_eq!(written, format!("{}{}", text.trim_end_matches('}'), r#","work":{"first_offset":7,"decisions":2,"late":1}}"#));
        assert_eq!(serde_json::from_str::<Marker>(&written).expect("our own"), today);
    }

    #[test]
    fn metadata_of_others_is_not_ours() {
        assert_eq!(Metadata::parse(""), None);
        assert_eq!(Metadata::parse("{\"v\":2}"), None);
        assert_eq!(Metadata::read("{\"v\":2}"), Ok(None), "somebody else's");
        assert_eq!(Metadata::read("{\"v\":2,\"history\":\"h\"}"), Err(Halt::Newer { layout: 2 }));
        let ours = metadata(5, 1);
        let text = serde_json::to_string(&ours).expect("plain struct");
        assert!(text.len() < 1024);
        assert_eq!(Metadata::parse(&text), Some(ours));
    }
}
