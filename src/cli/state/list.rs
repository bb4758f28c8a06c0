//! `tripline state list`: where each task stands, and how it would start.

use super::group::{Group, Task};
use super::{Failure, ListArgs, Marker, code, print, refused};
use crate::cli::Output;
use crate::cli::draw::{aligned, clean};
use crate::config::{Config, KeyedBy};
use crate::state::{StateDir, StoreError, TaskStore};
use crate::stream::group::Found;
use crate::stream::restore::DISCARD_AFTER_MS;
use serde_json::{Value, json};
use tripline_core::protocol::start::{self, Halt, Local, Metadata, Plan};

pub(super) fn run(args: &ListArgs, config: &Config) -> Result<u8, Failure> {
    let group = Group::connect(config)?;
    let tasks = group.tasks()?;
    let folder = Folder::look(config)?;
    let mut rows = Vec::new();
    for partition in 0..tasks {
        let task = Task::new(None, partition, config)?;
        rows.push(Row::of_task(&group, &task, tasks, folder.store(partition)?)?);
    }
    let routers = if config.input.keyed_by == KeyedBy::None { config.input.topics.as_slice() } else { &[] };
    for topic in routers {
        for partition in 0..group.partitions(topic)? {
            rows.push(Row::of_task(&group, &Task::new(Some(topic.clone()), partition, config)?, tasks, Store::NotItsOwn)?);
        }
    }
    match args.output {
        Output::Table => print(&table(&rows))?,
        Output::Json => print(&format!("{:#}\n", rows.iter().map(Row::json).collect::<Value>()))?,
    };
    Ok(if rows.iter().any(|row| row.start.is_err()) { code::FINDINGS } else { code::OK })
}

/// This machine's state folder.
enum Folder {
    Absent,
    InUse,
    Ours(StateDir),
}

impl Folder {
    fn look(config: &Config) -> Result<Folder, Failure> {
        match StateDir::existing(&config.state.dir) {
            Ok(Some(dir)) => Ok(Folder::Ours(dir)),
            Ok(None) => Ok(Folder::Absent),
            Err(StoreError::InUse { .. }) => Ok(Folder::InUse),
            Err(other) => Err(refused(other)),
        }
    }

    fn store(&self, partition: i32) -> Result<Store, Failure> {
        let Folder::Ours(dir) = self else {
            return Ok(if matches!(self, Folder::InUse) { Store::InUse } else { Store::Absent });
        };
        let Some(store) = TaskStore::open_read_only(&dir.task(partition)).map_err(refused)? else { return Ok(Store::Absent) };
        Ok(store.local().map_err(refused)?.map_or(Store::Absent, Store::At))
    }
}

/// What this machine has of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Store {
    /// No store, or an empty one.
    Absent,
    /// A worker has it.
    InUse,
    /// A store at this commit.
    At(Local),
    /// A router partition has no state.
    NotItsOwn,
}

impl Store {
    fn local(&self) -> Option<&Local> {
        if let Store::At(local) = self { Some(local) } else { None }
    }
}

/// One task.
#[derive(Debug)]
struct Row {
    task: String,
    /// The group's offset; metadata only if it is ours.
    offset: Option<i64>,
    metadata: Option<Metadata>,
    /// Offsets from there to the end.
    lag: i64,
    marker: Option<Marker>,
    store: Store,
    start: Result<String, Halt>,
}

impl Row {
    fn of_task(group: &Group<'_>, task: &Task, tasks: i32, store: Store) -> Result<Row, Failure> {
        // The marker first: what it belongs to is committed, so the offset that is read after it is of that commit or a later one. A
        // worker that goes on meanwhile would otherwise be told as offsets that were reset.
        let marker = group.newest_marker(task, tasks)?;
        let found = group.offset_of(task)?;
        let read = |(bytes, offset): (Vec<u8>, i64)| Marker::parse(&bytes).ok_or(Halt::UnreadableMarker { offset });
        let marker = marker.map(read).transpose();
        let (low, end) = group.ends(&task.topic, task.partition)?;
        let too_old_ms = jiff::Timestamp::now().as_millisecond() - DISCARD_AFTER_MS;
        let changelog = group.changelog(task)?;
        let start = start(&found, &marker, &store, too_old_ms, tasks, changelog);
        let lag = end - found.offset().unwrap_or(low).clamp(low, end);
        let (offset, metadata) = (found.offset(), found.metadata().cloned());
        Ok(Row { task: task.to_string(), offset, metadata, lag, marker: marker.ok().flatten(), store, start })
    }

    fn json(&self) -> Value {
        let commit = |seq: u64, id: &str, history: &str| json!({ "seq": seq, "commit_id": id, "history": history });
        json!({
            "task": self.task,
            "offset": self.offset,
            "lag": self.lag,
            "committed": self.metadata.as_ref().map(|m| commit(m.seq, &m.commit_id, &m.history)),
            "owner": self.metadata.as_ref().map(|m| m.owner.clone()),
            "marker": self.marker.as_ref().map(|m| commit(m.seq, &m.commit_id, &m.history)),
            "store": match &self.store {
                Store::At(local) => commit(local.seq, &local.commit_id, &local.history),
                Store::InUse => json!("in use"),
                Store::Absent | Store::NotItsOwn => Value::Null,
            },
            "starts": self.start.is_ok(),
            "start": self.said(),
        })
    }

    fn said(&self) -> String {
        self.start.as_ref().map_or_else(|halt| format!("does not start: {halt}"), Clone::clone)
    }
}

/// How a task would start here and now.
fn start(
    found: &Found,
    marker: &Result<Option<Marker>, Halt>,
    store: &Store,
    too_old_ms: i64,
    tasks: i32,
    (low, end): (i64, i64),
) -> Result<String, Halt> {
    if let Found::Newer(_, layout) = found {
        return Err(Halt::Newer { layout: *layout });
    }
    let (offset, metadata) = (found.offset(), found.metadata());
    let is_router = *store == Store::NotItsOwn;
    // A router has no keys that could have moved: it may have been away while the tasks became more.
    let tasks = metadata.filter(|_| is_router).map_or(tasks, |metadata| metadata.partitions.min(tasks));
    if let (Some(metadata), Ok(Some(marker))) = (metadata, marker) {
        start::marker_met(marker, metadata, metadata.partitions)?;
    }
    let plan = start::plan(offset, metadata, store.local(), too_old_ms, tasks)?;
    if let Some(metadata) = metadata.filter(|_| !is_router) {
        let is_gone = match plan {
            Plan::Ready(_) => store.local().is_some_and(|local| local.marker_offset >= end),
            // One that cannot be read is passed by on the way to ours.
            _ => matches!(marker, Ok(None)),
        };
        if is_gone {
            return Err(Halt::MarkerMissing { end, seq: metadata.seq });
        }
    }
    let keep = match metadata.map(|metadata| start::restore_from(None, low, metadata)) {
        Some(Err(_)) => format!("; the changelog begins at {low}: nothing else could rebuild it"),
        _ => String::new(),
    };
    Ok(match plan {
        _ if *store == Store::InUse => "a worker is at work on this machine".to_owned(),
        Plan::Ready(offset) => format!("at offset {offset}{keep}"),
        Plan::Restore(_) if is_router => format!("at offset {}", offset.unwrap_or_default()),
        Plan::Restore(from) => match metadata.map(|metadata| start::restore_from(from, low, metadata)).transpose()? {
            Some((from, false)) => format!("after the changelog from offset {from} on{keep}"),
            _ => "after the whole changelog".to_owned(),
        },
        Plan::SearchMarker | Plan::Fresh | Plan::AtOffset(_) => {
            match start::after_search(offset, marker.as_ref().map_err(Halt::clone)?.as_ref())? {
                Plan::AtOffset(offset) => format!("fresh, at offset {offset}"),
                _ => "fresh, at input.start".to_owned(),
            }
        }
    })
}

fn table(rows: &[Row]) -> String {
    let mut lines = vec![["TASK", "OFFSET", "LAG", "COMMIT", "MARKER", "STORE", "STARTS"].map(str::to_owned).to_vec()];
    let none = || "-".to_owned();
    let commit = |seq: u64, id: &str| format!("{seq} {}", id.get(..8).unwrap_or(id));
    lines.extend(rows.iter().map(|row| {
        let cells = [
            row.task.clone(),
            row.offset.map_or_else(none, |offset| offset.to_string()),
            row.lag.to_string(),
            row.metadata.as_ref().map_or_else(none, |m| commit(m.seq, &m.commit_id)),
            row.marker.as_ref().map_or_else(none, |m| commit(m.seq, &m.commit_id)),
            match &row.store {
                Store::At(local) => commit(local.seq, &local.commit_id),
                Store::InUse => "in use".to_owned(),
                Store::Absent | Store::NotItsOwn => none(),
            },
            row.said(),
        ];
        cells.map(|cell| clean(&cell)).to_vec()
    }));
    aligned(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(seq: u64) -> Metadata {
        Metadata {
            v: 1,
            history: "h".into(),
            seq,
            commit_id: format!("{seq:032x}"),
            owner: "o".into(),
            partitions: 4,
            fingerprint: String::new(),
            topic_id: None,
            changelog_low: 0,
        }
    }

    fn marker(seq: u64) -> Marker {
        let Metadata { v, history, commit_id, partitions, .. } = metadata(seq);
        let (app, rules, flags) = ("a".to_owned(), String::new(), String::new());
        Marker {
            v,
            app,
            history,
            seq,
            commit_id,
            next_offset: 9,
            stream_time_ms: 0,
            partitions,
            rules,
            flags,
            states: 0,
            decisions: 0,
            work: None,
            moved_from: None,
        }
    }

    fn store(seq: u64) -> Store {
        let Metadata { history, commit_id, .. } = metadata(seq);
        Store::At(Local { history, seq, commit_id, marker_offset: 41, marker_time_ms: 1_000, ..Local::default() })
    }

    #[test]
    fn a_start_is_foretold_as_the_worker_would_make_it() {
        let found = |offset: Option<i64>, committed: Option<u64>| match (offset, committed) {
            (None, _) => Found::Nothing,
            (Some(offset), None) => Found::Foreign(offset),
            (Some(offset), Some(seq)) => Found::Ours(offset, metadata(seq)),
        };
        let told = |offset, committed: Option<u64>, marked: Option<u64>, store: Store| {
            let said = start(&found(offset, committed), &Ok(marked.map(marker)), &store, 0, 4, (0, 60));
            said.unwrap_or_else(|halt| format!("halt: {halt}"))
        };
        assert_eq!(told(Some(9), Some(5), Some(5), store(5)), "at offset 9");
        assert_eq!(told(Some(9), Some(5), Some(5), store(3)), "after the changelog from offset 42 on");
        assert_eq!(told(Some(9), Some(5), Some(5), Store::Absent), "after the whole changelog");
        assert_eq!(told(Some(9), Some(5), Some(5), Store::InUse), "a worker is at work on this machine");
        assert_eq!(told(Some(9), Some(5), Some(5), Store::NotItsOwn), "at offset 9");
        assert_eq!(told(None, None, None, Store::Absent), "fresh, at input.start");
        assert_eq!(told(Some(7), None, None, Store::Absent), "fresh, at offset 7");
        assert!(told(Some(7), None, Some(5), Store::Absent).starts_with("halt: "));
        let (ours, mark) = (found(Some(9), Some(5)), Ok(Some(marker(5))));
        let grown = |store: Store| start(&ours, &mark, &store, 0, 8, (0, 60));
        assert!(grown(store(5)).is_err_and(|halt| halt.to_string().contains("repartition --to 8")));
        assert_eq!(grown(Store::NotItsOwn), Ok("at offset 9".to_owned()), "its topic was away while the app grew");
        let fewer = start(&ours, &mark, &Store::NotItsOwn, 0, 3, (0, 60));
        assert!(fewer.is_err_and(|halt| halt.to_string().contains("written for 4 partitions, the topic has 3")));
        let unreadable = |found: &Found, store: Store| start(found, &Err(Halt::UnreadableMarker { offset: 50 }), &store, 0, 4, (0, 60));
        assert_eq!(unreadable(&Found::Nothing, Store::Absent), Err(Halt::UnreadableMarker { offset: 50 }), "no fresh start beside a state");
        assert_eq!(unreadable(&ours, Store::Absent), Ok("after the whole changelog".to_owned()), "it is passed by");
        assert_eq!(start(&Found::Newer(9, 2), &mark, &store(5), 0, 4, (0, 60)), Err(Halt::Newer { layout: 2 }));
        let cut = |store: Store| start(&ours, &mark, &store, 0, 4, (50, 60));
        assert_eq!(cut(store(5)), Ok("at offset 9; the changelog begins at 50: nothing else could rebuild it".to_owned()));
        assert!(cut(store(3)).is_err() && cut(Store::Absent).is_err_and(|halt| halt.to_string().contains("begins at 50")));
        assert!(told(Some(9), Some(5), Some(6), Store::Absent).contains("commit 6"));
        assert!(told(Some(9), Some(5), None, Store::Absent).contains("without the marker of commit 5"), "made anew");
        assert!(told(Some(9), Some(5), Some(5), store(6)).contains("local state has commit 6"));
    }
}
