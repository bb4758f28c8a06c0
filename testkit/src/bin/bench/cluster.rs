//! What the benchmark asks the broker: topics, committed offsets, the last record of a partition, the size of a topic.

use anyhow::{Context, Result, ensure};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tripline_core::protocol::start::Metadata;
use tripline_testkit::Kafka;

const REQUEST: Duration = Duration::from_secs(20);

/// One offset per partition.
pub type Offsets = BTreeMap<i32, i64>;

/// A consumer that never joins its group: it asks for offsets and reads what it is pointed at.
pub struct Probe {
    consumer: BaseConsumer,
}

impl Probe {
    /// A probe of this group.
    pub fn new(kafka: &Kafka, group: &str) -> Result<Probe> {
        let mut config = kafka.client_config();
        config.set("group.id", group).set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        config.set("isolation.level", "read_committed").set("fetch.wait.max.ms", "10");
        Ok(Probe { consumer: config.create()? })
    }

    /// The partitions of a topic.
    fn partitions(&self, topic: &str) -> Result<Vec<i32>> {
        let metadata = self.consumer.fetch_metadata(Some(topic), REQUEST)?;
        let found =
            metadata.topics().first().filter(|found| found.error().is_none()).with_context(|| format!("there is no topic {topic}"))?;
        Ok(found.partitions().iter().map(|partition| partition.id()).collect())
    }

    /// Where each partition ends.
    pub fn ends(&self, topic: &str) -> Result<Offsets> {
        let end = |partition| Ok((partition, self.consumer.fetch_watermarks(topic, partition, REQUEST)?.1));
        self.partitions(topic)?.into_iter().map(end).collect()
    }

    /// What the group has committed for these partitions; 0 where it has not.
    pub fn committed(&self, topic: &str, partitions: &Offsets) -> Result<Offsets> {
        let mut asked = TopicPartitionList::new();
        for partition in partitions.keys() {
            asked.add_partition(topic, *partition);
        }
        let answer = self.consumer.committed_offsets(asked, REQUEST)?;
        Ok(answer.elements().iter().map(|e| (e.partition(), if let Offset::Offset(at) = e.offset() { at } else { 0 })).collect())
    }

    /// Who committed last for each partition of a topic: the transactional id in the metadata of the group's offsets.
    pub fn owners(&self, topic: &str) -> Result<BTreeMap<i32, String>> {
        let mut asked = TopicPartitionList::new();
        for partition in self.partitions(topic)? {
            asked.add_partition(topic, partition);
        }
        let answer = self.consumer.committed_offsets(asked, REQUEST)?;
        let mut owners = BTreeMap::new();
        for element in answer.elements() {
            let metadata = Metadata::parse(element.metadata()).context("offsets that tripline did not commit")?;
            owners.insert(element.partition(), metadata.owner);
        }
        Ok(owners)
    }

    /// The offset after the last record of each partition. Not its end: commit markers stand behind the last record, and nobody commits those.
    pub fn after_last_record(&self, topic: &str) -> Result<Offsets> {
        let mut after = Offsets::new();
        for (partition, end) in self.ends(topic)? {
            let mut back = 64;
            let found = loop {
                let from = (end - back).max(0);
                let mut last = None;
                self.read(topic, &BTreeMap::from([(partition, from)]), |offset, _, _| last = Some(offset + 1))?;
                if last.is_some() || from == 0 {
                    break last.unwrap_or(0);
                }
                back *= 8;
            };
            after.insert(partition, found);
        }
        Ok(after)
    }

    /// Records and bytes of keys and values of a topic.
    pub fn size(&self, topic: &str) -> Result<Size> {
        let from = self.partitions(topic)?.into_iter().map(|partition| (partition, 0)).collect();
        let mut size = Size::default();
        self.read(topic, &from, |_, key, value| {
            size.records += 1;
            size.bytes += (key + value) as u64;
        })?;
        Ok(size)
    }

    /// Reads from these offsets to the present ends; `each` gets offset, length of the key and length of the value.
    fn read(&self, topic: &str, from: &Offsets, mut each: impl FnMut(i64, usize, usize)) -> Result<()> {
        let mut start = TopicPartitionList::new();
        for (partition, offset) in from {
            start.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
        }
        self.consumer.assign(&start)?;
        let (mut at_end, mut quiet_since) = (0, Instant::now());
        while at_end < from.len() {
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    each(message.offset(), message.key_len(), message.payload_len());
                    quiet_since = Instant::now();
                }
                Some(Err(KafkaError::PartitionEOF(_))) => at_end += 1,
                Some(Err(error)) => return Err(error).with_context(|| format!("could not read {topic}")),
                None => ensure!(quiet_since.elapsed() < REQUEST, "{topic} does not come to an end"),
            }
        }
        self.consumer.unassign()?;
        Ok(())
    }
}

/// How much is in a topic.
#[derive(Debug, Clone, Copy, Default)]
pub struct Size {
    /// Records, commit markers left out.
    pub records: u64,
    /// Bytes of keys and values, uncompressed.
    pub bytes: u64,
}

/// Deletes every topic whose name starts with this.
pub fn delete_topics(kafka: &Kafka, prefix: &str) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = kafka.client_config().create()?;
    let metadata = admin.inner().fetch_metadata(None, REQUEST)?;
    let names: Vec<&str> = metadata.topics().iter().map(|topic| topic.name()).filter(|name| name.starts_with(prefix)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime
        .block_on(admin.delete_topics(&names, &AdminOptions::new().operation_timeout(Some(REQUEST))))
        .context("could not delete topics")?;
    Ok(())
}

/// Where a broker of our own keeps its logs: its command line names its properties, they name the folder.
pub fn data_folder(kafka: &Kafka) -> Option<PathBuf> {
    let command = std::fs::read(format!("/proc/{}/cmdline", kafka.broker_pid()?)).ok()?;
    let properties = String::from_utf8(command.split(|byte| *byte == 0).rfind(|arg| !arg.is_empty())?.to_vec()).ok()?;
    let text = std::fs::read_to_string(properties).ok()?;
    text.lines().rev().find_map(|line| line.strip_prefix("log.dirs=")).map(PathBuf::from)
}

/// Bytes of a topic's log segments, as compressed as they are.
pub fn segment_bytes(data: &Path, topic: &str) -> Result<u64> {
    let mut bytes = 0;
    for folder in std::fs::read_dir(data)? {
        let folder = folder?;
        let name = folder.file_name().to_string_lossy().into_owned();
        if name.rsplit_once('-').is_some_and(|(of, _)| of == topic) {
            for file in std::fs::read_dir(folder.path())? {
                let file = file?;
                if file.path().extension().is_some_and(|extension| extension == "log") {
                    bytes += file.metadata()?.len();
                }
            }
        }
    }
    Ok(bytes)
}
