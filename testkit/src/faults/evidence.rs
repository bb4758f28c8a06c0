//! What a line was given, what it wrote, and what it had to write: the same lists for the checker.

use super::checker::{Item, Violation, compare};
use super::input;
use super::oracle::{self, Caused, Decided, Epochs, Log, Routed, Written};
use super::pack::Pack;
use crate::client::OwnedRecord;
use crate::line::Line;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use tripline_core::cloud_event::{self, CloudEvent};
use tripline_core::dead_letter::{DIGEST, is_own};
use tripline_core::decision::EntityRef;
use tripline_core::engine::Made;
use tripline_core::hash;
use tripline_core::rejection::{Reason, Rejection};
use tripline_core::time::format_rfc3339_ms;

/// What tells the auditor about a commit, and differs from try to try.
const COMMIT_HEADER: &str = "tripline-commit";
/// The topics of outputs, and the event store.
const OBSERVATIONS: &str = "internal.observations";
const STORE: &str = "event store";

/// What came of a check.
#[derive(Debug, Default)]
pub struct Checked {
    /// Every difference.
    pub violations: Vec<Violation>,
    /// Records that were compared, by topic.
    pub compared: BTreeMap<&'static str, u64>,
    /// Input records.
    pub events: u64,
    /// Records that were dead-lettered because evaluating them was made to panic.
    pub panicked: u64,
    /// Different pairs of rules and flags that decided.
    pub epochs: usize,
}

/// Everything that was read from a line at rest.
struct Read<'l> {
    line: &'l Line,
    inputs: BTreeMap<i32, Vec<OwnedRecord>>,
    input_partitions: i32,
    /// Empty in keyed mode.
    observations: BTreeMap<i32, Vec<OwnedRecord>>,
    dead_letters: Vec<OwnedRecord>,
    epochs: Epochs,
}

/// Found and expected records, by topic.
type Lists = BTreeMap<&'static str, (Vec<Item>, Vec<Item>)>;

/// Compares everything that a line wrote with the oracle. No process of the line may run but the sink, and the input has to be
/// routed to its end.
pub fn check(line: &Line, pack: &Pack) -> Result<Checked> {
    let read = Read::of(line)?;
    let (routed, decided) = (read.routed(pack)?, read.decided(pack)?);
    let mut lists = Lists::new();
    if !line.keyed {
        let found = read.observations.values().flatten().filter(|r| !tripline_core::tick::Tick::is_tick(r.key.as_deref()));
        let found = found.map(|record| observation_found(record, &line.topic(OBSERVATIONS))).collect::<Result<_>>()?;
        let expected = routed.values().flat_map(|routed| &routed.observations).map(|o| observation_expected(&o.made)).collect();
        lists.insert(OBSERVATIONS, (found, expected));
    }
    let late = decided.values().flat_map(|decided| &decided.late).map(|o| observation_expected(&o.made)).collect();
    let found = line.read("late")?.iter().map(|record| observation_found(record, &line.topic("late"))).collect::<Result<_>>()?;
    lists.insert("late", (found, late));
    lists.insert("dead-letters", (read.dead_letters_found(), read.dead_letters_expected(&routed, &decided)));
    made(line, &decided, &mut lists)?;
    event_store(line, &decided, &mut lists)?;
    let mut checked = Checked {
        events: read.inputs.values().map(|records| records.len() as u64).sum(),
        panicked: read.panicked().values().map(|offsets| offsets.len() as u64).sum(),
        epochs: read.epochs.distinct(),
        ..Checked::default()
    };
    for (topic, (found, expected)) in &lists {
        checked.violations.extend(compare(topic, found, expected));
        checked.compared.insert(topic, expected.len() as u64);
    }
    Ok(checked)
}

impl<'l> Read<'l> {
    fn of(line: &'l Line) -> Result<Read<'l>> {
        let committed = |topic: &str| line.kafka.committed_offsets(&line.app, topic);
        let inputs = oracle::by_partition(line.kafka.read_committed(&line.input)?, Some(&committed(&line.input)?));
        let ends = line.kafka.end_offsets(&line.input)?;
        let (input_partitions, appended) = (ends.len() as i32, ends.values().sum::<i64>());
        let counted: usize = inputs.values().map(Vec::len).sum();
        ensure!(appended == counted as i64, "{counted} of {appended} input records are committed: the line is not at rest");
        let observations = if line.keyed {
            BTreeMap::new()
        } else {
            let ends = committed(&line.topic(OBSERVATIONS))?;
            oracle::by_partition(line.read(OBSERVATIONS)?, Some(&ends))
        };
        let epochs = Epochs::read(&line.read("internal.epochs")?)?;
        Ok(Read { line, inputs, input_partitions, observations, dead_letters: line.read("dead-letters")?, epochs })
    }

    fn routed(&self, pack: &Pack) -> Result<BTreeMap<i32, Routed>> {
        if self.line.keyed {
            return Ok(BTreeMap::new());
        }
        let engine = pack.router()?;
        Ok(self.inputs.iter().map(|(partition, records)| (*partition, oracle::route(&self.line.input, records, engine))).collect())
    }

    /// The keyed topic.
    fn log(&self) -> (String, &BTreeMap<i32, Vec<OwnedRecord>>) {
        if self.line.keyed { (self.line.input.clone(), &self.inputs) } else { (self.line.topic(OBSERVATIONS), &self.observations) }
    }

    fn decided(&self, pack: &Pack) -> Result<BTreeMap<i32, Decided>> {
        let (topic, partitions) = self.log();
        let (panicked, none) = (self.panicked(), BTreeSet::new());
        let keyed_partitions = self.line.keyed.then_some(self.input_partitions);
        let decide = |(partition, records): (&i32, &Vec<OwnedRecord>)| {
            let panicked = panicked.get(partition).unwrap_or(&none);
            let log = Log { topic: &topic, records, keyed_partitions, panicked };
            let decided = oracle::decide(&log, |offset| pack.engine(self.epochs.at(*partition, offset)?))?;
            Ok((*partition, decided))
        };
        partitions.iter().map(decide).collect()
    }

    /// Offsets of records that were given up because evaluating them panicked: which ones is the fault's choice, so the dead
    /// letters themselves say it.
    fn panicked(&self) -> BTreeMap<i32, BTreeSet<i64>> {
        let (topic, _) = self.log();
        let mut panicked: BTreeMap<i32, BTreeSet<i64>> = BTreeMap::new();
        for record in &self.dead_letters {
            if header(record, "tripline-reason") == Reason::Panicked.name() && header(record, "tripline-source-topic") == topic {
                let number = |name: &str| header(record, name).parse::<i64>().unwrap_or(-1);
                panicked.entry(number("tripline-source-partition") as i32).or_default().insert(number("tripline-source-offset"));
            }
        }
        panicked
    }

    fn dead_letters_found(&self) -> Vec<Item> {
        let found = |record: &OwnedRecord| {
            let source = format!("{}/{}", header(record, "tripline-source-topic"), header(record, "tripline-source-partition"));
            let (reason, mut detail) = (header(record, "tripline-reason"), header(record, "tripline-detail"));
            if reason == Reason::Panicked.name() {
                detail.clear();
            }
            let said = format!("{reason}: {detail} ({})", header(record, "tripline-stage"));
            let place = at(record, &self.line.topic("dead-letters"));
            dead_letter(&source, &header(record, "tripline-source-offset"), &said, &Original::repeated_by(record), place)
        };
        let mut found: Vec<(i64, Item)> = self.dead_letters.iter().map(|r| (r.offset, found(r))).collect();
        // One source's dead letters lie in several partitions, by their keys; only within each is there an order.
        found.sort_by_key(|(offset, _)| *offset);
        found.into_iter().map(|(_, item)| item).collect()
    }

    fn dead_letters_expected(&self, routed: &BTreeMap<i32, Routed>, decided: &BTreeMap<i32, Decided>) -> Vec<Item> {
        let mut items = Vec::new();
        let mut add = |topic: &str, records: &[OwnedRecord], rejected: &[Caused<Rejection>], stage: &str| {
            for Caused { offset, made } in rejected {
                let Some(record) = records.iter().find(|record| record.offset == *offset) else { continue };
                let said = format!("{}: {} ({stage})", made.reason.name(), made.detail);
                let source = format!("{topic}/{}", record.partition);
                items.push(dead_letter(&source, &offset.to_string(), &said, &Original::of(record), at(record, topic)));
            }
        };
        for (partition, routed) in routed {
            add(&self.line.input, &self.inputs[partition], &routed.rejected, "router");
        }
        let (topic, logs) = self.log();
        for (partition, decided) in decided {
            add(&topic, &logs[partition], &decided.rejected, "detector");
        }
        items
    }
}

fn header(record: &OwnedRecord, name: &str) -> String {
    String::from_utf8_lossy(record.header(name).unwrap_or_default()).into_owned()
}

fn at(record: &OwnedRecord, topic: &str) -> String {
    format!("{topic}/{}@{}", record.partition, record.offset)
}

/// What a dead letter repeats of its original: digests of key and value, and what it says about itself as a CloudEvent. Of a record
/// that is too large, the digest of the value alone.
struct Original {
    key: String,
    value: String,
    headers: String,
}

impl Original {
    const LEFT_OUT: &str = "left out";

    fn of(record: &OwnedRecord) -> Original {
        let whole = Original::copied(record);
        if input::is_too_large(record) { Original::left_out(whole.value) } else { whole }
    }

    fn repeated_by(letter: &OwnedRecord) -> Original {
        match letter.header(DIGEST) {
            Some(digest) if letter.key.is_none() && letter.value.is_none() => {
                Original::left_out(String::from_utf8_lossy(digest).into_owned())
            }
            _ => Original::copied(letter),
        }
    }

    fn copied(record: &OwnedRecord) -> Original {
        let bytes = |bytes: &Option<Vec<u8>>| bytes.as_deref().map_or("none".to_owned(), hash::digest);
        let own = record.headers.iter().filter(|(name, _)| is_own(name));
        let headers = own.map(|(name, value)| format!(" {name}={}", hash::digest(value))).collect();
        Original { key: bytes(&record.key), value: bytes(&record.value), headers }
    }

    fn left_out(value: String) -> Original {
        Original { key: Original::LEFT_OUT.to_owned(), value, headers: String::new() }
    }
}

/// Dead letters of one source with one key stand in one partition, in the order of the source. (The traffic's large records have
/// one key, which they do not repeat.)
fn dead_letter(source: &str, offset: &str, said: &str, original: &Original, place: String) -> Item {
    let Original { key, value, headers } = original;
    let body = format!("{said} key {key} value {value}{headers}");
    Item { id: format!("{source}@{offset}"), about: format!("{source} {key}"), body, place }
}

/// Observations of one entity from one input partition stand in the order of the input.
fn observation_item(key: &str, value: &[u8], source: &str, offset: &str, place: String) -> Item {
    let body = format!("{key} {}", String::from_utf8_lossy(value));
    Item { id: format!("{source}@{offset} {key}"), about: format!("{key} from {source}"), body, place }
}

fn observation_found(record: &OwnedRecord, topic: &str) -> Result<Item> {
    let json = record.json()?;
    let source = format!("{}/{}", json["_topic"].as_str().unwrap_or_default(), json["_partition"]);
    let value = record.value.as_deref().unwrap_or_default();
    Ok(observation_item(&record.key_text(), value, &source, &json["_offset"].to_string(), at(record, topic)))
}

fn observation_expected(written: &Written) -> Item {
    let source = format!("{}/{}", written.source.topic, written.source.partition);
    let offset = written.source.offset.to_string();
    observation_item(&written.key, &written.value, &source, &offset, format!("{source}@{offset}"))
}

/// What an output record says, with the attributes of its CloudEvent.
fn output(headers: &[(String, Vec<u8>)], value: Option<&[u8]>) -> String {
    let own = headers.iter().filter(|(name, _)| name != COMMIT_HEADER);
    let headers: Vec<String> = own.map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value))).collect();
    format!("{} {}", value.map_or("none".into(), String::from_utf8_lossy), headers.join(" "))
}

fn output_found(record: &OwnedRecord, topic: &str) -> Item {
    let body = output(&record.headers, record.value.as_deref());
    Item { id: header(record, "ce_id"), about: record.key_text(), body, place: at(record, topic) }
}

fn output_expected(event: &CloudEvent<'_>, value: Option<Vec<u8>>, place: &str) -> Item {
    let headers: Vec<(String, Vec<u8>)> = event.headers().iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
    let body = output(&headers, value.as_deref());
    Item { id: event.id.to_owned(), about: event.subject.to_owned(), body, place: place.to_owned() }
}

/// Decisions, shadow decisions, alerts and standings.
fn made(line: &Line, decided: &BTreeMap<i32, Decided>, lists: &mut Lists) -> Result<()> {
    const TOPICS: [&str; 4] = ["decisions", "shadow", "alerts", "standing"];
    for topic in TOPICS {
        let name = line.topic(topic);
        let found = line.read(topic)?.iter().map(|record| output_found(record, &name)).collect();
        lists.insert(topic, (found, Vec::new()));
    }
    let source = cloud_event::source(&line.app);
    for (partition, decided) in decided {
        for Caused { offset, made } in &decided.made {
            let place = format!("record {offset} of task {partition}");
            for (topic, item) in items_of(made, &source, &place)? {
                lists.entry(topic).or_default().1.push(item);
            }
        }
    }
    Ok(())
}

fn items_of(made: &Made, source: &str, place: &str) -> Result<Vec<(&'static str, Item)>> {
    let mut items = Vec::new();
    for decision in &made.decisions {
        let (topic, key) = (if decision.shadow { "shadow" } else { "decisions" }, key_of(&decision.entity));
        let value = serde_json::to_vec(decision)?;
        items.push((topic, output_expected(&CloudEvent::of_decision(decision, source, &key), Some(value), place)));
    }
    for alert in &made.alerts {
        let (key, id) = (key_of(&alert.entity), cloud_event::alert_record_id(alert));
        let value = serde_json::to_vec(alert)?;
        items.push(("alerts", output_expected(&CloudEvent::of_alert(alert, &id, source, &key), Some(value), place)));
    }
    for change in &made.standings {
        let key = key_of(&change.entity);
        let (id, at) = (cloud_event::standing_record_id(change, &key), format_rfc3339_ms(change.at_ms));
        let value = change.standing.as_ref().map(serde_json::to_vec).transpose()?;
        items.push(("standing", output_expected(&CloudEvent::of_standing(&id, &at, source, &key), value, place)));
    }
    Ok(items)
}

fn key_of(entity: &EntityRef) -> String {
    let mut key = String::new();
    entity.write_key(&mut key);
    key
}

/// Rows have no order: each is compared by itself.
fn row(id: &str, said: [&str; 5], place: String) -> Item {
    Item { id: id.to_owned(), about: id.to_owned(), body: said.join(" "), place }
}

/// The rows of the event store.
pub fn stored(line: &Line) -> Result<Vec<Value>> {
    let mut settings = line.settings("reader");
    settings.retain(|(key, _)| key != "TRIPLINE_ADMIN__LISTEN");
    let done = line.command(&["events", "list", "--limit", "10000000", "-o", "ndjson"], &settings)?;
    ensure!(done.status.success(), "events list: {}", String::from_utf8_lossy(&done.stderr));
    let text = String::from_utf8(done.stdout)?;
    text.lines().map(|line| serde_json::from_str(line).context("a row of the event store")).collect()
}

fn event_store(line: &Line, decided: &BTreeMap<i32, Decided>, lists: &mut Lists) -> Result<()> {
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let rows = stored(line)?;
    let found = rows.iter().map(|stored| {
        let said = ["anomaly_type", "event_id", "entity_kind", "entity_id", "flags"].map(|name| text(stored, name));
        row(&text(stored, "id"), said.each_ref().map(String::as_str), "a row".to_owned())
    });
    let decisions = decided.values().flat_map(|decided| &decided.made).flat_map(|made| &made.made.decisions);
    // An event that was sent again may decide again, under the same id: the first one keeps the row.
    let mut ids = BTreeSet::new();
    let live = decisions.filter(|decision| !decision.shadow && decision.anomaly_type.is_some());
    let rows = live.filter(|decision| ids.insert(decision.decision_id.as_str()));
    let expected = rows.map(|decision| {
        let (anomaly_type, entity) = (decision.anomaly_type.as_deref().unwrap_or_default(), &decision.entity);
        let said = [anomaly_type, &decision.event_id, &entity.kind, &entity.id, &decision.flags];
        row(&decision.decision_id, said, "a decision".to_owned())
    });
    lists.insert(STORE, (found.collect(), expected.collect()));
    Ok(())
}
