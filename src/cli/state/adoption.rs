//! What an adoption writes, decided from the newest marker without a broker.

use super::{Found, Marker, Metadata};
use std::fmt::Write;
use std::str::FromStr;
use tripline_core::protocol::start::Halt;
use tripline_core::time::format_rfc3339_ms;

/// What stands as the owner in metadata written by this verb.
const OWNER: &str = "state adopt";

/// Where to read on, when the marker is not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetChoice {
    /// This offset.
    At(i64),
    /// The first one that is still there.
    Earliest,
    /// After the last one.
    Latest,
}

impl FromStr for OffsetChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<OffsetChoice, String> {
        match (text, text.parse()) {
            ("earliest", _) => Ok(OffsetChoice::Earliest),
            ("latest", _) => Ok(OffsetChoice::Latest),
            (_, Ok(offset @ 0..)) => Ok(OffsetChoice::At(offset)),
            _ => Err("write an offset, `earliest` or `latest`".to_owned()),
        }
    }
}

/// The newest marker, and where the task reads on with its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    /// The newest marker.
    pub marker: Marker,
    /// The next input offset.
    pub offset: i64,
    /// The first offset that is left of the changelog.
    pub changelog_low: i64,
}

impl Adoption {
    /// Decides what to write, or says why nothing can be. `tasks` are the partitions of the keyed topic (a router may have been away
    /// while they became more), `ends` the first offset of the task's input and the one after its last, `changelog_low` the first
    /// that is left of its changelog.
    pub fn new(
        marker: Option<&[u8]>,
        (tasks, is_router): (i32, bool),
        choice: Option<OffsetChoice>,
        ends: (i64, i64),
        changelog_low: i64,
    ) -> Result<Adoption, String> {
        let Some(marker) = marker else {
            return Err("the changelog has no marker of it: nothing to adopt; without the group's offset of that partition the task would begin anew".to_owned());
        };
        let Some(marker) = Marker::parse(marker) else {
            return Err("its newest marker is of a layout that this binary does not read".to_owned());
        };
        if marker.partitions > tasks || (marker.partitions < tasks && !is_router) {
            return Err(Halt::Partitions { written: marker.partitions, found: tasks }.to_string());
        }
        let (low, high) = ends;
        let offset = match choice {
            None => marker.next_offset,
            Some(OffsetChoice::At(offset)) => offset,
            Some(OffsetChoice::Earliest) => low,
            Some(OffsetChoice::Latest) => high,
        };
        if !(low..=high).contains(&offset) {
            let whose = if choice.is_some() { "" } else { "the marker's " };
            return Err(format!(
                "{whose}offset {offset} is not in the topic, which has {low} to {high}: choose one with --offset N|earliest|latest"
            ));
        }
        Ok(Adoption { marker, offset, changelog_low })
    }

    /// What goes with the offset. Without a fingerprint and the topic's id: it may be another topic than the one that was read.
    pub fn metadata(&self) -> Metadata {
        let Marker { v, history, seq, commit_id, partitions, .. } = self.marker.clone();
        let (owner, fingerprint, changelog_low) = (OWNER.to_owned(), String::new(), self.changelog_low);
        Metadata { v, history, seq, commit_id, owner, partitions, fingerprint, topic_id: None, changelog_low }
    }

    /// What was, what the changelog says and what will be.
    pub fn describe(&self, task: &str, group: &str, found: &Found) -> String {
        let mut text = format!("task {task} of group {group}\n");
        let commit = |seq: u64, id: &str, history: &str| format!("commit {seq}, id {id}, history {history}");
        let _ = match found {
            Found::Nothing => writeln!(text, "  was      no offset"),
            Found::Foreign(offset) => writeln!(text, "  was      offset {offset}, without metadata of ours"),
            Found::Newer(offset, layout) => writeln!(text, "  was      offset {offset}, by a newer version (layout {layout})"),
            Found::Ours(offset, m) => {
                writeln!(text, "  was      offset {offset}, {}, by {}", commit(m.seq, &m.commit_id, &m.history), m.owner)
            }
        };
        let Marker { seq, commit_id, history, next_offset, stream_time_ms, .. } = &self.marker;
        let time = format_rfc3339_ms(*stream_time_ms);
        let commit = commit(*seq, commit_id, history);
        let _ = writeln!(text, "  marker   offset {next_offset}, {commit}, stream time {time}");
        let _ = writeln!(text, "  will be  offset {}, {commit}, by {OWNER}", self.offset);
        let apart = self.offset.abs_diff(*next_offset);
        if self.offset < *next_offset {
            let _ = writeln!(text, "{apart} offsets before the marker's are read again, on top of the marker's state");
        } else if apart > 0 {
            let _ = writeln!(text, "{apart} offsets after the marker's are never read");
        }
        if self.changelog_low > 0 {
            let _ = writeln!(
                text,
                "the changelog begins at offset {}: what stood before it, and not again after it, is forgotten",
                self.changelog_low
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tripline_core::protocol::start::{LAYOUT, Plan, marker_met, plan};

    fn marker() -> Marker {
        Marker {
            v: LAYOUT,
            app: "tripline".into(),
            history: "h".into(),
            seq: 7,
            commit_id: "00000000000000000000000000000abc".into(),
            next_offset: 40,
            stream_time_ms: 0,
            partitions: 6,
            rules: String::new(),
            flags: String::new(),
            states: 1,
            decisions: 2,
            work: None,
            moved_from: None,
        }
    }

    fn adopt(marker: &Marker, choice: Option<OffsetChoice>, ends: (i64, i64)) -> Result<Adoption, String> {
        Adoption::new(Some(&serde_json::to_vec(marker).expect("plain struct")), (6, false), choice, ends, 0)
    }

    #[test]
    fn the_ordinary_restore_accepts_what_is_written() {
        let adoption = adopt(&marker(), None, (0, 100)).expect("nothing is wrong");
        let text = serde_json::to_string(&adoption.metadata()).expect("plain struct");
        let metadata = Metadata::parse(&text).expect("metadata of ours");
        assert_eq!(plan(Some(adoption.offset), Some(&metadata), None, 0, metadata.partitions), Ok(Plan::Restore(None)));
        assert_eq!(marker_met(&marker(), &metadata, 6), Ok(true));
        assert_eq!((adoption.offset, metadata.fingerprint.as_str()), (40, ""));
    }

    #[test]
    fn the_operator_chooses_the_offset_and_the_state_stays_the_markers() {
        for (choice, offset) in [(OffsetChoice::Earliest, 5), (OffsetChoice::Latest, 100), (OffsetChoice::At(17), 17)] {
            let adoption = adopt(&marker(), Some(choice), (5, 100)).expect("in the topic");
            assert_eq!((adoption.offset, adoption.metadata().seq), (offset, 7));
        }
    }

    #[test]
    fn an_offset_outside_of_the_topic_is_refused() {
        // Deleted and created again, with fewer records; or retention was faster.
        let error = adopt(&marker(), None, (0, 39)).expect_err("40 is past the end");
        assert_eq!(error, "the marker's offset 40 is not in the topic, which has 0 to 39: choose one with --offset N|earliest|latest");
        assert!(adopt(&marker(), None, (41, 100)).is_err());
        assert!(adopt(&marker(), Some(OffsetChoice::At(101)), (0, 100)).is_err_and(|e| e.starts_with("offset 101 is not")));
        assert!(adopt(&marker(), None, (40, 40)).is_ok(), "all read, all deleted");
    }

    #[test]
    fn no_marker_another_layout_and_moved_keys_are_refused() {
        let none = Adoption::new(None, (6, false), None, (0, 9), 0).expect_err("no marker");
        assert!(none.ends_with("nothing to adopt; without the group's offset of that partition the task would begin anew"), "{none}");
        let newer = adopt(&Marker { v: LAYOUT + 1, ..marker() }, None, (0, 100)).expect_err("a layout of tomorrow");
        assert!(newer.contains("layout"), "{newer}");
        let moved = adopt(&Marker { partitions: 4, ..marker() }, None, (0, 100)).expect_err("4 are not 6");
        assert!(moved.contains("written for 4 partitions, the topic has 6"), "{moved}");
        let router = |partitions| {
            let marker = serde_json::to_vec(&Marker { partitions, ..marker() }).expect("plain struct");
            Adoption::new(Some(&marker), (6, true), None, (0, 100), 0).map(|adoption| adoption.metadata().partitions)
        };
        assert_eq!(router(4), Ok(4), "it has no state whose home could have moved");
        assert!(router(8).is_err_and(|why| why.contains("written for 8 partitions, the topic has 6")));
    }

    #[test]
    fn offsets_are_read_from_the_command_line() {
        assert_eq!("0".parse(), Ok(OffsetChoice::At(0)));
        assert_eq!("latest".parse(), Ok(OffsetChoice::Latest));
        assert!("-1".parse::<OffsetChoice>().is_err() && "end".parse::<OffsetChoice>().is_err());
    }

    #[test]
    fn what_was_and_what_will_be_are_told_and_foreign_metadata_is_not_repeated() {
        let adoption = adopt(&marker(), Some(OffsetChoice::At(30)), (0, 100)).expect("in the topic");
        let text = adoption.describe("t/0", "g", &Found::new(12, "u17@example.com"));
        assert!(text.contains("  was      offset 12, without metadata of ours\n") && !text.contains("u17"), "{text}");
        assert!(
            text.contains("  will be  offset 30, commit 7, id 00000000000000000000000000000abc, history h, by state adopt\n"),
            "{text}"
        );
    }
}
