//! Events of a file through the engine, without a broker: the same decisions with the same ids as the worker's, when each
//! entity's events came from one partition in the file's order.
//!
//! One line is one record without headers: an event, or a CloudEvent in structured mode. Its reference time is `broker_time` when the line has one (RFC 3339, or integer milliseconds),
//! else its `event_time`; its position is topic `file`, partition 0, the line's number from 0. The state of every actor
//! that a rule looked at is kept in memory until the end: some hundred bytes each, bounded by the file only.
//!
//! A file is one source: its stream time is the greatest reference time read so far. What is due fires before the line that
//! brought the time; nothing fires past the last line's time unless [`Options::until_ms`] says how much later it is.

mod due;
pub mod explain;
mod line;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod time_tests;

use due::Due;
use hashbrown::HashMap;
use line::{Line, Lines};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::io::{self, BufRead, Write};
use tripline_core::engine::{Engine, Made, Outcome, Selection};
use tripline_core::event::Event;
use tripline_core::event::mapping::Mapping;
use tripline_core::observation::{Observation, Position};
use tripline_core::rejection::{Reason, Rejection};
use tripline_core::state::ActorState;
use tripline_core::stream_time::{reached_by, settle};
use tripline_core::time::{EARLIEST_MS, LATEST_MS, parse_rfc3339_ms};

/// The topic that lines of a file say they came from.
const TOPIC: &str = "file";

/// How many rejected lines are named in the summary.
const NAMED_REJECTIONS: usize = 5;

/// What became of every line, and of every observation made of one; each stage adds up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines read.
    pub lines: u64,
    /// Counted and evaluated.
    pub processed: u64,
    /// Older than their entity's newest event minus the allowed lateness.
    pub late: u64,
    /// Their event id was seen before.
    pub duplicate: u64,
    /// No events, by reason.
    pub rejected: BTreeMap<Reason, u64>,
    /// The first rejected lines, numbered from 1.
    pub first_rejected: Vec<(u64, Rejection)>,
    /// Events that concern someone whom the rules count.
    pub routed: u64,
    /// Events that concern nobody whom the rules count.
    pub unaddressed: u64,
    /// Decisions of rules that only watch, not written.
    pub shadow: u64,
    /// Decisions written.
    pub decisions: u64,
    /// Records of alerts.
    pub alerts: u64,
    /// Standings published or taken back.
    pub standings: u64,
    /// Entities whose state was kept.
    pub actors: u64,
}

impl Counts {
    /// Lines that were no events.
    pub fn rejections(&self) -> u64 {
        self.rejected.values().sum()
    }

    fn reject(&mut self, number: u64, rejection: Rejection) {
        *self.rejected.entry(rejection.reason).or_default() += 1;
        if self.first_rejected.len() < NAMED_REJECTIONS {
            self.first_rejected.push((number, rejection));
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { lines, routed, unaddressed, processed, late, duplicate, decisions, alerts, standings, actors, shadow, .. } = self;
        writeln!(f, "{lines} lines = {routed} routed + {unaddressed} unaddressed + {} rejected", self.rejections())?;
        let observations = processed + late + duplicate;
        writeln!(f, "{observations} observations = {processed} processed + {late} late + {duplicate} duplicate")?;
        for (reason, count) in &self.rejected {
            writeln!(f, "  rejected as {}: {count}", reason.name())?;
        }
        for (number, rejection) in &self.first_rejected {
            writeln!(f, "  line {number}: {rejection}")?;
        }
        if self.rejections() > self.first_rejected.len() as u64 {
            writeln!(f, "  … and {} lines more", self.rejections() - self.first_rejected.len() as u64)?;
        }
        if *shadow > 0 {
            writeln!(f, "{shadow} decisions of rules that only watch are left out (--shadow writes them)")?;
        }
        write!(f, "{decisions} decisions, {alerts} records of alerts, {standings} of standing; the state of {actors} entities")
    }
}

/// Bounds and observers of a replay.
pub struct Options<'a> {
    /// Longer lines are rejected as `too_large`.
    pub max_line_bytes: usize,
    /// Write decisions of rules that only watch, too.
    pub shadow: bool,
    /// How lines of another shape become events; `None`: they are events.
    pub mapping: Option<&'a Mapping>,
    /// Stream time at the end, milliseconds: what is due by then fires. An earlier one than the last line's changes nothing.
    pub until_ms: Option<i64>,
    /// Where alerts are written to, if anywhere.
    pub alerts: Option<&'a mut dyn Write>,
    /// Where standings are written to, if anywhere: `{"key": …, "value": …}`, without a value when one was taken back.
    pub standing: Option<&'a mut dyn Write>,
    /// Told after each line how many bytes it had.
    pub progress: &'a mut dyn FnMut(u64),
}

/// Replays events, one per line, and writes decisions, one per line. Lines that are no events are counted, and the run
/// goes on; an error is the input's or the output's.
pub fn run(input: impl BufRead, engine: &Engine, options: Options<'_>, mut out: impl Write) -> io::Result<Counts> {
    let Options { max_line_bytes, mapping, shadow, until_ms, alerts, standing, progress } = options;
    let mut beside = Beside { alerts, standing };
    let mut lines = Lines::new(input, max_line_bytes);
    let mut replay = Replay::new(engine, mapping);
    let mut made = Made::default();
    while let Some((line, bytes)) = lines.next_line()? {
        replay.line(line, &mut made);
        replay.write(&mut made, shadow, &mut out, &mut beside)?;
        progress(bytes);
    }
    if let Some(until_ms) = until_ms {
        replay.fire(until_ms, &mut made);
        replay.write(&mut made, shadow, &mut out, &mut beside)?;
    }
    out.flush()?;
    for out in [beside.alerts, beside.standing].into_iter().flatten() {
        out.flush()?;
    }
    replay.counts.actors = replay.states.len() as u64;
    Ok(replay.counts)
}

struct Replay<'a> {
    engine: &'a Engine,
    mapping: Option<&'a Mapping>,
    needs_time: bool,
    stream_time_ms: i64,
    states: HashMap<String, ActorState, foldhash::fast::RandomState>,
    due: Due,
    /// Reused for every lookup.
    key: String,
    selection: Selection,
    counts: Counts,
}

/// Told of an observation, and of its entity's state just before it is counted.
type Watch<'w> = &'w mut dyn FnMut(&Observation<'_>, &ActorState);

impl<'a> Replay<'a> {
    fn new(engine: &'a Engine, mapping: Option<&'a Mapping>) -> Replay<'a> {
        Replay {
            engine,
            mapping,
            needs_time: engine.needs_time(),
            stream_time_ms: i64::MIN,
            states: HashMap::default(),
            due: Due::default(),
            key: String::new(),
            selection: Selection::default(),
            counts: Counts::default(),
        }
    }

    fn line(&mut self, line: Line<'_>, made: &mut Made) {
        if let Some((event, reference_ms)) = self.read(line) {
            self.see(event, reference_ms, made, None);
        }
    }

    /// The event of the next line and its reference time, if it is one.
    fn read<'l>(&mut self, line: Line<'l>) -> Option<(Event<'l>, i64)> {
        self.counts.lines += 1;
        read(line, self.mapping).map_err(|rejection| self.counts.reject(self.counts.lines, rejection)).ok()
    }

    /// Counts the event of the line that was read last.
    fn see(&mut self, event: Event<'_>, reference_ms: i64, made: &mut Made, mut watch: Option<Watch<'_>>) {
        self.fire(reached_by(reference_ms), made);
        let position = Position { topic: TOPIC.to_owned(), partition: 0, offset: self.counts.lines as i64 - 1 };
        let addressed = self.engine.address(event, &position, reference_ms);
        if addressed.is_empty() {
            self.counts.unaddressed += 1;
            return;
        }
        self.counts.routed += 1;
        let Ok(()) = addressed.each(|observation| {
            match self.observe(observation, made, &mut watch) {
                Outcome::Processed => self.counts.processed += 1,
                Outcome::Late => self.counts.late += 1,
                Outcome::Duplicate => self.counts.duplicate += 1,
            }
            Ok::<(), Infallible>(())
        });
    }

    /// One of the entities that the event concerns counts it.
    fn observe(&mut self, observation: &Observation<'_>, made: &mut Made, watch: &mut Option<Watch<'_>>) -> Outcome {
        if !self.engine.select(observation, &mut self.selection) {
            if let Some(watch) = watch {
                watch(observation, &ActorState::default());
            }
            return Outcome::Processed;
        }
        self.key.clear();
        observation.entity.write_key(&mut self.key);
        let state = self.states.entry_ref(self.key.as_str()).or_default();
        let before = state.next_due_ms();
        if self.needs_time {
            settle(self.engine, observation, state, made);
        }
        if let Some(watch) = watch {
            watch(observation, state);
        }
        if !self.needs_time {
            return self.engine.apply(observation, &self.selection, state, made);
        }
        let outcome = self.engine.apply(observation, &self.selection, state, made);
        self.due.moved(&self.key, before, state.next_due_ms());
        outcome
    }

    /// Fires what is due at this stream time, in order of time and entity.
    fn fire(&mut self, reached_ms: i64, made: &mut Made) {
        if !self.needs_time {
            return;
        }
        // A line that is older than one before it turns no time back.
        self.stream_time_ms = self.stream_time_ms.max(reached_ms);
        let stream_time_ms = self.stream_time_ms;
        let (engine, states) = (self.engine, &mut self.states);
        self.due.take(stream_time_ms.saturating_sub(engine.lateness_ms()), |key, entity| {
            let state = states.get_mut(key)?;
            engine.fire_due(entity, stream_time_ms, state, made);
            state.next_due_ms()
        });
    }

    fn write(&mut self, made: &mut Made, shadow: bool, out: &mut impl Write, beside: &mut Beside<'_>) -> io::Result<()> {
        for alert in made.alerts.drain(..) {
            self.counts.alerts += 1;
            line_of(&mut beside.alerts, &alert)?;
        }
        for change in made.standings.drain(..) {
            self.counts.standings += 1;
            let mut key = String::new();
            change.entity.write_key(&mut key);
            line_of(&mut beside.standing, &serde_json::json!({"key": key, "value": change.standing}))?;
        }
        for decision in made.decisions.drain(..) {
            if decision.shadow && !shadow {
                self.counts.shadow += 1;
                continue;
            }
            serde_json::to_writer(&mut *out, &decision)?;
            out.write_all(b"\n")?;
            self.counts.decisions += 1;
        }
        Ok(())
    }
}

/// Where what is no decision goes.
struct Beside<'a> {
    alerts: Option<&'a mut dyn Write>,
    standing: Option<&'a mut dyn Write>,
}

/// Writes one line, if somebody wants it.
fn line_of(out: &mut Option<&mut dyn Write>, value: &impl serde::Serialize) -> io::Result<()> {
    let Some(out) = out else { return Ok(()) };
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

/// The event of a line and its reference time.
fn read<'l>(line: Line<'l>, mapping: Option<&Mapping>) -> Result<(Event<'l>, i64), Rejection> {
    let Line::Whole(bytes) = line else {
        return Err(Rejection::new(Reason::TooLarge, "the line is longer than input.max_value_bytes"));
    };
    let event = match mapping {
        Some(mapping) => Event::decode_mapped(Some(bytes), mapping)?,
        None => Event::decode(Some(bytes))?,
    };
    let reference_ms = match broker_time(bytes)? {
        Some(ms) => ms,
        None => event.event_time_ms,
    };
    Ok((event, reference_ms))
}

/// `broker_time` is no field of events: it is looked for only in lines that have the word.
fn broker_time(bytes: &[u8]) -> Result<Option<i64>, Rejection> {
    const NAME: &[u8] = b"\"broker_time\"";
    #[derive(Deserialize)]
    struct Times {
        #[serde(default)]
        broker_time: Option<serde_json::Value>,
    }
    if !bytes.windows(NAME.len()).any(|window| window == NAME) {
        return Ok(None);
    }
    let bad = || Rejection::new(Reason::BadTime, "broker_time");
    let times: Times = serde_json::from_slice(bytes).map_err(|_| bad())?;
    let Some(value) = times.broker_time else { return Ok(None) };
    let ms = value.as_str().map_or_else(|| value.as_i64(), parse_rfc3339_ms);
    ms.filter(|ms| (EARLIEST_MS..LATEST_MS).contains(ms)).map(Some).ok_or_else(bad)
}
