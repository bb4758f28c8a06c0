//! Reading the dead-letter topic: all of it into an index, or single records with their content.

use super::Error;
use super::index::{Filter, Index, MOST_LETTERS};
use crate::config::Config;
use crate::stream::changelog::{self, Isolation, Quiet, ReadError, Span};
use crate::stream::client::{self, ClientError};
use crate::stream::headers::headers_of_letter;
use crate::stream::restore::patience;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;
use tripline_core::dead_letter::{self, Kind, LetterId};

/// How long the cluster may take for one answer.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The content of a dead letter: the original record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Original {
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// What it said about itself as a CloudEvent.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// Reads the dead-letter topic of a configuration, committed records only.
pub struct Reader<'c> {
    config: &'c Config,
    committed: BaseConsumer<Quiet>,
    uncommitted: BaseConsumer<Quiet>,
}

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}

impl Reader<'_> {
    /// Connects; an error when no broker answers.
    pub fn connect(config: &Config) -> Result<Reader<'_>, Error> {
        client::reach(config, TIMEOUT)?;
        let base = client::base(config);
        let client = |isolation| {
            changelog::client(&base, &config.app.id, isolation, changelog::MANY).map_err(|e| Error::Client(ClientError::creating(e)))
        };
        Ok(Reader { config, committed: client(Isolation::Committed)?, uncommitted: client(Isolation::Uncommitted)? })
    }

    fn topic(&self) -> &str {
        &self.config.topics.dead_letters
    }

    /// Partitions of these topics; one that does not exist is left out.
    pub fn partitions(&self, names: &[String]) -> Result<BTreeMap<String, i32>, Error> {
        let metadata = self.uncommitted.fetch_metadata(None, TIMEOUT).map_err(Error::kafka("read the topics"))?;
        let found = metadata.topics().iter().filter(|topic| names.iter().any(|name| name == topic.name()));
        Ok(found.map(|t| (t.name().to_owned(), t.partitions().len() as i32)).filter(|(_, partitions)| *partitions > 0).collect())
    }

    /// Every dead letter that the filter asks for, and which of them have receipts: each partition up to its end, taken once.
    pub fn index(&self, filter: Filter) -> Result<Index, Error> {
        let topic = self.topic().to_owned();
        let partitions = self.partitions(std::slice::from_ref(&topic))?.get(&topic).copied().ok_or(Error::NoTopic(topic))?;
        let (since_ms, ids) = (filter.since_ms, filter.ids.clone());
        let mut index = Index::new(filter, MOST_LETTERS);
        for partition in (0..partitions).filter(|p| ids.is_empty() || ids.iter().any(|id| id.partition == *p)) {
            let (low, end) = self.ends(partition)?;
            let from = match (since_ms, ids.iter().find(|id| id.partition == partition)) {
                (_, Some(first)) => first.offset,
                (Some(since_ms), None) => self.offset_since(partition, since_ms)?.unwrap_or(end),
                (None, None) => low,
            };
            self.read(partition, from.max(low), end, |record| {
                let bytes = record.key_len() + record.payload_len();
                let headers: usize = headers_of_letter(record).map(|(name, value)| name.len() + value.len()).sum();
                let id = LetterId { partition, offset: record.offset() };
                let at_ms = record.timestamp().to_millis().unwrap_or(0);
                index.see(id, at_ms, &dead_letter::kind(headers_of_letter(record)), bytes + headers, record.key());
                false
            })?;
        }
        Ok(index)
    }

    /// Those of these dead letters that have receipts.
    pub fn redriven(&self, ids: BTreeSet<LetterId>) -> Result<BTreeSet<LetterId>, Error> {
        if ids.is_empty() {
            return Ok(BTreeSet::new());
        }
        let index = self.index(Filter { ids, ..Filter::default() })?;
        Ok(index.letters().filter(|letter| letter.is_redriven).map(|letter| letter.id).collect())
    }

    /// The content of these dead letters; what retention has deleted meanwhile is left out. The caller bounds how much it is.
    pub fn fetch(&self, ids: &BTreeSet<LetterId>) -> Result<BTreeMap<LetterId, Original>, Error> {
        let mut found = BTreeMap::new();
        let mut rest = ids.iter().copied().peekable();
        while let Some(first) = rest.next() {
            let mut last = first;
            while let Some(id) = rest.next_if(|id| id.partition == first.partition) {
                last = id;
            }
            let (low, end) = self.ends(first.partition)?;
            self.read(first.partition, first.offset.max(low), end.min(last.offset + 1), |record| {
                let id = LetterId { partition: first.partition, offset: record.offset() };
                if ids.contains(&id) && matches!(dead_letter::kind(headers_of_letter(record)), Kind::Letter(_)) {
                    found.insert(id, original(record));
                }
                id == last
            })?;
        }
        Ok(found)
    }

    fn ends(&self, partition: i32) -> Result<(i64, i64), Error> {
        let what = || format!("read the ends of {}/{partition}", self.topic());
        changelog::ends(&self.uncommitted, self.topic(), partition, || false).map_err(Error::kafka(what()))
    }

    /// The first offset of this time or later; `None` when there is none.
    fn offset_since(&self, partition: i32, since_ms: i64) -> Result<Option<i64>, Error> {
        let what = || format!("look up a time in {}/{partition}", self.topic());
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(self.topic(), partition, Offset::Offset(since_ms.max(0))).map_err(Error::kafka(what()))?;
        let found = self.uncommitted.offsets_for_times(list, TIMEOUT).map_err(Error::kafka(what()))?;
        let Some(element) = found.find_partition(self.topic(), partition) else { return Ok(None) };
        element.error().map_err(Error::kafka(what()))?;
        Ok(match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        })
    }

    fn read(&self, partition: i32, from: i64, end: i64, mut show: impl FnMut(&BorrowedMessage<'_>) -> bool) -> Result<(), Error> {
        let span = Span { topic: self.topic(), partition, from, end };
        let show = |record: &BorrowedMessage<'_>| Ok::<_, Infallible>(show(record));
        changelog::read_what_is_left(&self.committed, span, patience(self.config), show).map_err(|error| match error {
            ReadError::Open => Error::Open { topic: self.topic().to_owned(), partition, end },
            ReadError::Kafka(source) => Error::Kafka { what: format!("read {}/{partition}", self.topic()), source },
            ReadError::Shown(never) => match never {},
        })
    }
}

fn original(record: &BorrowedMessage<'_>) -> Original {
    let own = headers_of_letter(record).filter(|(name, _)| dead_letter::is_own(name));
    Original {
        key: record.key().map(<[u8]>::to_vec),
        value: record.payload().map(<[u8]>::to_vec),
        headers: own.map(|(name, value)| (name.to_owned(), value.to_vec())).collect(),
    }
}
