//! The states of each commit: as many in the changelog as its marker counts.

use super::finding::Findings;
use super::{Kind, MAX_FINDINGS, Place, Stamp, Task, Window};
use std::collections::BTreeMap;

/// The states that each task wrote, counted from marker to marker.
#[derive(Debug, Default)]
pub(super) struct States {
    counting: BTreeMap<Task, Counting>,
    /// By append time of the marker before, milliseconds. The oldest leave first: those that compaction may explain.
    apart: BTreeMap<(i64, Task, Stamp), Apart>,
}

/// What stands behind a task's newest marker.
#[derive(Debug, Default)]
struct Counting {
    found: u64,
    /// That marker: its commit and its append time. Without one nobody knows where the next commit begins.
    before: Option<(Stamp, i64)>,
}

/// A commit whose marker counts another number of states than was found.
#[derive(Debug)]
struct Apart {
    partition: i32,
    offset: i64,
    at_ms: i64,
    counted: u64,
    found: u64,
}

impl States {
    pub(super) fn state(&mut self, task: &Task) {
        // What stands before the first marker that was read may have begun before.
        if let Some(counting) = self.counting.get_mut(task) {
            counting.found += 1;
        }
    }

    pub(super) fn marker(&mut self, task: &Task, stamp: Stamp, (partition, offset): (i32, i64), at_ms: i64, counted: u64) {
        let Some(counting) = self.counting.get_mut(task) else {
            self.counting.insert(task.clone(), Counting { found: 0, before: Some((stamp, at_ms)) });
            return;
        };
        let found = std::mem::take(&mut counting.found);
        let Some((before, before_ms)) = counting.before.replace((stamp, at_ms)) else { return };
        // One that stands twice is found as such, and its commit counts once.
        if found == counted || (before == stamp && found == 0) {
            return;
        }
        self.apart.insert((before_ms, task.clone(), stamp), Apart { partition, offset, at_ms, counted, found });
        if self.apart.len() > MAX_FINDINGS {
            self.apart.pop_first();
        }
    }

    /// Where the next commit of a task begins is not known.
    pub(super) fn unknown(&mut self, task: &Task) {
        self.counting.insert(task.clone(), Counting::default());
    }

    /// States that a later one of the same entity replaced may have been compacted away once they are older than
    /// `kept_from_ms`; all of a commit stand behind the marker before it.
    pub(super) fn judge(&self, window: Window, kept_from_ms: i64, changelog: &str, findings: &mut Findings) {
        for ((before_ms, task, stamp), Apart { partition, offset, at_ms, counted, found }) in &self.apart {
            if *before_ms < kept_from_ms || *at_ms < window.since_ms {
                continue;
            }
            let place = Place { topic: changelog, partition: *partition, offset: *offset };
            let (kind, detail) = if found < counted {
                (Kind::MissingStates, format!("{} changed states that its marker counts are not there", counted - found))
            } else {
                (Kind::SurplusStates, format!("{} changed states more than its marker counts", found - counted))
            };
            findings.push(kind, Some(task), Some(*stamp), place, detail);
        }
    }
}
