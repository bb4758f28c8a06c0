//! One event of a file, explained: the file is replayed up to it, and the engine asked what each rule does with it.
//!
//! A rule that waits decides later, and its decision names the event that opened it: while the pack has such a rule, the lines
//! after the event are replayed too.

use super::line::Lines;
use super::{Counts, Replay, TOPIC};
use std::io::{self, BufRead};
use tripline_core::decision::{Decision, EntityRef};
use tripline_core::engine::explain::Explanation;
use tripline_core::engine::{Engine, Made};
use tripline_core::event::mapping::Mapping;
use tripline_core::rule::Mode;
use tripline_core::time::format_rfc3339_ms;

/// How a file is read.
pub struct Reading<'a> {
    /// Longer lines are no events.
    pub max_line_bytes: usize,
    /// How lines of another shape become events; `None`: they are events.
    pub mapping: Option<&'a Mapping>,
    /// Stream time at the end, milliseconds.
    pub until_ms: Option<i64>,
    /// Told after each line how many bytes it had.
    pub progress: &'a mut dyn FnMut(u64),
}

/// An event that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Its line, from 1.
    pub line: u64,
    /// Its type.
    pub event_type: String,
    /// When it happened, RFC 3339.
    pub event_time: String,
    /// Whom it concerns, the actor first; nobody when no rule counts such entities.
    pub about: Vec<About>,
}

/// What came of an event for one entity.
#[derive(Debug, Clone, PartialEq)]
pub struct About {
    /// Whom.
    pub entity: EntityRef,
    /// Its key: `user:u1`.
    pub key: String,
    /// What each rule did.
    pub explanation: Explanation,
    /// What was decided because of it, at once or when a time had come; those of rules that only watch, too.
    pub decisions: Vec<Decision>,
}

/// Looks for the first event with an id. `None`: the file has none.
pub fn explain(input: impl BufRead, engine: &Engine, reading: Reading<'_>, event_id: &str) -> io::Result<(Option<Found>, Counts)> {
    let Reading { max_line_bytes, mapping, until_ms, progress } = reading;
    let waits = engine.rules.rules.iter().any(|rule| rule.mode != Mode::Off && rule.detector.due().is_some());
    let mut lines = Lines::new(input, max_line_bytes);
    let mut replay = Replay::new(engine, mapping);
    let (mut made, mut found) = (Made::default(), None);
    while let Some((line, bytes)) = lines.next_line()? {
        if let Some((event, reference_ms)) = replay.read(line) {
            let number = replay.counts.lines;
            let is_asked = match event.event_id.as_deref() {
                Some(id) => id == event_id,
                None => format!("{TOPIC}/0/{}", number - 1) == event_id,
            };
            if is_asked && found.is_none() {
                let event_type = event.event_type.to_string();
                let mut one = Found { line: number, event_type, event_time: format_rfc3339_ms(event.event_time_ms), about: Vec::new() };
                replay.see(
                    event,
                    reference_ms,
                    &mut made,
                    Some(&mut |observation, state| {
                        one.event_time = format_rfc3339_ms(observation.event.event_time_ms);
                        one.about.push(About {
                            entity: EntityRef::from(&observation.entity),
                            key: observation.entity.to_string(),
                            explanation: engine.explain(observation, state),
                            decisions: Vec::new(),
                        });
                    }),
                );
                found = Some(one);
            } else {
                replay.see(event, reference_ms, &mut made, None);
            }
        }
        keep(&mut made, event_id, &mut found);
        progress(bytes);
        if found.is_some() && !waits {
            return Ok((found, replay.counts));
        }
    }
    if let Some(until_ms) = until_ms {
        replay.fire(until_ms, &mut made);
        keep(&mut made, event_id, &mut found);
    }
    Ok((found, replay.counts))
}

/// Keeps the decisions because of the event, each with its entity; drops everything else.
fn keep(made: &mut Made, event_id: &str, found: &mut Option<Found>) {
    for decision in made.decisions.drain(..).filter(|decision| decision.event_id == event_id) {
        let about = found.as_mut().and_then(|found| found.about.iter_mut().find(|about| about.entity == decision.entity));
        // An event that is in the file twice is explained at its first line.
        if let Some(about) = about.filter(|about| about.decisions.iter().all(|known| known.decision_id != decision.decision_id)) {
            about.decisions.push(decision);
        }
    }
    made.clear();
}

#[cfg(test)]
mod tests;
