//! One partition: records and control markers, what is open in it, and what a read_committed reader sees.

use crate::workload::Output;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Bytes of a record. Outputs are not serialised: their JSON is not what is under test here.
#[derive(Debug, Clone)]
pub enum Value {
    /// An input, an observation, a state, a marker.
    Bytes(Rc<[u8]>),
    /// A decision, an alert or a standing, and the auditor's header with it.
    Output(Rc<Output>, Rc<str>),
    /// A dead letter: the offset of the record and the reason's name.
    DeadLetter(i64, &'static str),
    /// A deletion.
    Tombstone,
}

/// A record.
#[derive(Debug, Clone)]
pub struct Record {
    pub key: Rc<str>,
    pub value: Value,
    pub timestamp_ms: i64,
}

impl Record {
    /// The value, where it is bytes.
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.value {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open(usize),
    Committed,
    Aborted,
}

#[derive(Debug)]
struct Entry {
    /// `None` for a control marker.
    record: Option<Record>,
    fate: Fate,
    /// Removed by compaction. Only the checks still look at it.
    is_compacted: bool,
}

/// A partition. An offset is an index: nothing is ever taken out, compaction only hides.
#[derive(Debug, Default)]
pub struct Log {
    entries: Vec<Entry>,
    /// Open transactions: producer → epoch and first offset.
    open: BTreeMap<usize, (u32, i64)>,
}

impl Log {
    /// Appends outside of transactions.
    pub fn append(&mut self, record: Record) -> i64 {
        self.entries.push(Entry { record: Some(record), fate: Fate::Committed, is_compacted: false });
        self.entries.len() as i64 - 1
    }

    /// The epoch that has a transaction of this producer open here.
    pub fn open_epoch(&self, producer: usize) -> Option<u32> {
        self.open.get(&producer).map(|(epoch, _)| *epoch)
    }

    /// Appends as part of a transaction.
    pub fn append_open(&mut self, producer: usize, epoch: u32, record: Record) -> i64 {
        let offset = self.entries.len() as i64;
        self.open.entry(producer).or_insert((epoch, offset));
        self.entries.push(Entry { record: Some(record), fate: Fate::Open(producer), is_compacted: false });
        offset
    }

    /// A control marker: everything that the producer has open here is committed or aborted.
    pub fn end(&mut self, producer: usize, commit: bool) {
        let fate = if commit { Fate::Committed } else { Fate::Aborted };
        if let Some((_, first)) = self.open.remove(&producer) {
            for entry in self.entries[first as usize..].iter_mut().filter(|entry| entry.fate == Fate::Open(producer)) {
                entry.fate = fate;
            }
        }
        self.entries.push(Entry { record: None, fate, is_compacted: false });
    }

    /// The end, whatever is open below it.
    pub fn high_watermark(&self) -> i64 {
        self.entries.len() as i64
    }

    /// Up to here everything is decided.
    pub fn last_stable_offset(&self) -> i64 {
        self.open.values().map(|(_, first)| *first).min().unwrap_or(self.high_watermark())
    }

    /// The first committed record at or after an offset and below the last stable one.
    pub fn next(&self, from: i64) -> Option<(i64, &Record)> {
        self.committed_between(from, self.last_stable_offset())
            .find(|(_, _, is_compacted)| !is_compacted)
            .map(|(offset, record, _)| (offset, record))
    }

    /// Every committed record, those that were compacted or that something open hides from readers included: what the checks
    /// judge by.
    pub fn committed(&self) -> impl Iterator<Item = (i64, &Record)> {
        self.committed_between(0, self.high_watermark()).map(|(offset, record, _)| (offset, record))
    }

    fn committed_between(&self, from: i64, to: i64) -> impl Iterator<Item = (i64, &Record, bool)> {
        let to = to as usize;
        let from = (from.max(0) as usize).min(to);
        let committed = move |(at, entry): (usize, &'_ Entry)| (entry.fate == Fate::Committed).then_some(from + at);
        let record = |at: usize| Some((at as i64, self.entries[at].record.as_ref()?, self.entries[at].is_compacted));
        self.entries[from..to].iter().enumerate().filter_map(committed).filter_map(record)
    }

    /// Keeps only the newest record of each key below an offset. Tombstones stay: they are kept for days.
    pub fn compact(&mut self, below: i64) {
        let below = below.min(self.last_stable_offset()).max(0) as usize;
        let mut newest: BTreeMap<Rc<str>, usize> = BTreeMap::new();
        for at in 0..below.min(self.entries.len()) {
            let Entry { record: Some(record), fate: Fate::Committed, .. } = &self.entries[at] else { continue };
            if let Some(before) = newest.insert(record.key.clone(), at) {
                self.entries[before].is_compacted = true;
            }
        }
    }
}
