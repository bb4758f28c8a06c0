//! # count
//!
//! **What it detects.** At least K events within a time; with several windows, all of them at once (`all_of`) or any of them
//! (`any_of`). **Why it matters.** Guessing, scanning and bursts are many of something ordinary; a short and a long window
//! together tell a burst that goes on from one that is over. **Signals.** On the edge (once, when the K-th event comes; again
//! after the count fell below K, or `once_per` later while it stays), or on every event at and past the threshold.
//! **Tuning.** K from what normal actors do at their busiest (p99.9), the window from how slow an attacker can afford to be.
//! **Example.** `detect: { count: { at_least: 20, within: 60s } }`.
//!
//! Sliding windows are `(t - within, t]`: exact up to a threshold of 64, in [buckets](super::buckets) above it ([`sliding`]).
//! Fixed windows start with their first hit and run in arrival order, as anomaly-infra's counters do.

mod sliding;
#[cfg(test)]
mod tests;

use super::{Detector, Figure, Firing, Look, MAX_WITHIN_MS, Row, Seen};
use crate::expr::Scope;
use crate::rule::Rhythm;
use crate::rule::load::codes;
use crate::rule::load::fields::{Fields, Keys, duration, list, of_setting, points, whole, word};
use crate::rule::load::report::Report;
use crate::rule::load::tree::{Node, Tree};
use crate::state::{Memory, Room};
use crate::time::format_duration_ms;
use sliding::{Fit, MAX_EXACT, Sliding, Span};

/// The row of the registry.
pub const ROW: Row = Row { name: "count", keys: &KEYS, read };

const KEYS: Keys = Keys { what: "`count`", known: &["at_least", "within", "window", "firing", "all_of", "any_of"], later: &[] };
const ALL_OF: Keys = Keys { what: "a window of `all_of`", known: &["at_least", "within"], later: &[] };
const ANY_OF: Keys = Keys { what: "a window of `any_of`", known: &["at_least", "within", "points"], later: &[] };

/// Times kept beyond the threshold, so that a straggler does not push out one that still decides.
pub const SPARE: usize = 4;
/// The highest threshold.
pub const MAX_AT_LEAST: i64 = 1_000_000;
/// The most windows of one rule.
pub const MAX_WINDOWS: usize = 8;

#[derive(Debug)]
enum Window {
    /// `(t - within, t]`, one or several.
    Sliding(Sliding),
    /// Starts with the first hit and ends `within` later; the next hit starts a new one. In arrival order.
    Fixed(Span),
}

#[derive(Debug)]
struct Count {
    window: Window,
    rhythm: Rhythm,
    /// What each window of `any_of` gives, where they say so; the most first.
    points: Vec<(Span, u8)>,
}

fn read(node: &Node, _: Option<&Scope>, report: &mut Report<'_>) -> Option<Box<dyn Detector>> {
    let fields = Fields::open(node, &KEYS, report)?;
    let rhythm = fields
        .get("firing")
        .map_or(Some(Rhythm::Edge), |n| word(n, "`firing`", &[("edge", Rhythm::Edge), ("every", Rhythm::Every)], report));
    let mut points = Vec::new();
    let window = match (fields.get("all_of"), fields.get("any_of")) {
        (None, None) => one_window(&fields, report),
        (Some(windows), None) => several(&fields, windows, "all_of", &mut points, report),
        (None, Some(windows)) => several(&fields, windows, "any_of", &mut points, report),
        (Some(_), Some(_)) => {
            report.problem(codes::CONTRADICTION, fields.key_at("any_of"), "`all_of` and `any_of` exclude each other", None);
            None
        }
    };
    Some(Box::new(Count { window: window?, rhythm: rhythm?, points }))
}

/// `at_least`, `within` and perhaps `window`.
fn one_window(fields: &Fields<'_>, report: &mut Report<'_>) -> Option<Window> {
    let is_fixed = fields.get("window").map_or(Some(false), |n| word(n, "`window`", &[("sliding", false), ("fixed", true)], report));
    let span = span(fields, is_fixed == Some(true), report);
    Some(if is_fixed? { Window::Fixed(span?) } else { Window::Sliding(Sliding { windows: vec![span?], fit: Fit::All }) })
}

/// `all_of` or `any_of`.
fn several(fields: &Fields<'_>, node: &Node, key: &str, given: &mut Vec<(Span, u8)>, report: &mut Report<'_>) -> Option<Window> {
    for other in ["at_least", "within", "window"] {
        if fields.get(other).is_some() {
            let message = format!("`{other}` and `{key}` exclude each other");
            report.problem(codes::CONTRADICTION, fields.key_at(other), message, Some(format!("each window of `{key}` has its own")));
        }
    }
    let items = list(node, &format!("`{key}`"), report)?;
    if !(1..=MAX_WINDOWS).contains(&items.len()) {
        let message = format!("`{key}` has {} windows{}, it must have 1 to {MAX_WINDOWS}", items.len(), of_setting(node));
        report.problem(codes::RANGE, node.at, message, None);
        return None;
    }
    let (keys, fit) = if key == "all_of" { (&ALL_OF, Fit::All) } else { (&ANY_OF, Fit::Any) };
    let mut spans = Vec::new();
    let mut good = true;
    for item in items {
        let Some(fields) = Fields::open(item, keys, report) else {
            good = false;
            continue;
        };
        let span = span(&fields, false, report);
        let gives = fields.get("points").map_or(Some(None), |n| points(n, "`points`", report).map(Some));
        match span.zip(gives) {
            Some((span, gives)) => {
                given.extend(gives.map(|points| (span, points)));
                spans.push((span, gives));
            }
            None => good = false,
        }
    }
    // The first window that holds speaks for the rule: where they weigh differently, the heaviest.
    spans.sort_by_key(|(_, gives)| std::cmp::Reverse(*gives));
    given.sort_by_key(|(_, points)| std::cmp::Reverse(*points));
    let windows = spans.into_iter().map(|(span, _)| span).collect();
    good.then_some(Window::Sliding(Sliding { windows, fit }))
}

fn span(fields: &Fields<'_>, is_fixed: bool, report: &mut Report<'_>) -> Option<Span> {
    let within = fields.need("within", report);
    let within_ms = within.and_then(|n| duration(n, "`within`", MAX_WITHIN_MS, report));
    let at_least = fields.need("at_least", report).and_then(|n| at_least(n, report));
    let span = Span { at_least: at_least?, within_ms: within_ms? };
    if !is_fixed && span.is_big() && span.within_ms < Span::LEAST_BIG_MS {
        let (given, least) = (format_duration_ms(span.within_ms), format_duration_ms(Span::LEAST_BIG_MS));
        let message = format!("`within` is {given}, at least {least} are needed for a threshold above {MAX_EXACT}");
        report.problem(codes::RANGE, within?.at, message, Some("such a window is kept in 60 buckets of 1ms or more".into()));
        return None;
    }
    Some(span)
}

fn at_least(node: &Node, report: &mut Report<'_>) -> Option<u32> {
    match node.value {
        Tree::Int(given) if given < 1 => {
            let message = format!("`at_least` is {given}{}, it must be 1 to {MAX_AT_LEAST}", of_setting(node));
            report.problem(codes::RANGE, node.at, message, Some("1 fires on every event that passes `when`".into()));
            None
        }
        _ => whole(node, "`at_least`", 1..=MAX_AT_LEAST, report).and_then(|n| u32::try_from(n).ok()),
    }
}

/// Counts an event in a fixed window.
fn fixed(span: Span, at_ms: i64, memory: &mut Memory) -> Seen {
    let (now, end_ms) = match memory {
        Memory::Fixed { end_ms, count } if at_ms < *end_ms => {
            *count = count.saturating_add(1);
            (*count, *end_ms)
        }
        _ => {
            let end_ms = at_ms.saturating_add(span.within_ms);
            *memory = Memory::Fixed { end_ms, count: 1 };
            (1, end_ms)
        }
    };
    let met = now >= span.at_least;
    let firing = Firing { count: now.into(), within_ms: span.within_ms, figure: Figure::Events };
    Seen { lapsed: now <= span.at_least, firing: met.then_some(firing), holds: met, end_ms, room: Room::Free }
}

impl Detector for Count {
    fn name(&self) -> &'static str {
        ROW.name
    }

    fn memory(&self) -> Option<Memory> {
        Some(match &self.window {
            Window::Sliding(sliding) => sliding.memory(),
            // A window that is over: the first hit starts one.
            Window::Fixed(_) => Memory::Fixed { end_ms: i64::MIN, count: 0 },
        })
    }

    fn observe(&self, look: &Look<'_>, memory: &mut Memory) -> Seen {
        let sliding = match &self.window {
            Window::Fixed(span) => return fixed(*span, look.at_ms, memory),
            Window::Sliding(sliding) => sliding,
        };
        if !matches!(memory, Memory::Window { .. }) {
            *memory = sliding.memory();
        }
        let Memory::Window { times_ms, rings } = memory else { unreachable!("it was made a window") };
        sliding.observe(look, times_ms, rings)
    }

    fn rhythm(&self) -> Rhythm {
        self.rhythm
    }

    fn most_points(&self) -> Option<u8> {
        self.points.first().map(|(_, points)| *points)
    }

    fn progress(&self, at_ms: i64, memory: &Memory) -> Option<String> {
        match (&self.window, memory) {
            (Window::Fixed(span), Memory::Fixed { count, .. }) => Some(span.progress(i64::from(*count))),
            (Window::Sliding(sliding), Memory::Window { times_ms, rings }) => Some(sliding.progress(at_ms, times_ms, rings)),
            _ => None,
        }
    }

    fn points(&self, firing: &Firing) -> Option<u8> {
        let met = |span: &Span| span.within_ms == firing.within_ms && u64::from(span.at_least) <= firing.count;
        self.points.iter().find(|(span, _)| met(span)).map(|(_, points)| *points)
    }

    fn cools_down(&self) -> bool {
        matches!(self.window, Window::Sliding(_))
    }

    fn window_ms(&self) -> i64 {
        match &self.window {
            Window::Sliding(sliding) => sliding.longest_ms(),
            Window::Fixed(span) => span.within_ms,
        }
    }

    fn most_bytes(&self) -> usize {
        match &self.window {
            Window::Sliding(sliding) => sliding.most_bytes(),
            Window::Fixed(_) => 12,
        }
    }
}
