//! The examples of `docs/rules.md` do what the page says. An example is a `yaml` block with a rule, followed by a `text` block
//! with one event per line: when (`MM:SS`, `HH:MM:SS`, after `2d+` two days later), the event's fields (an `http_request` of
//! the user `u1` unless they say otherwise), and `fires: ` with the reason if the rule does. `time passes` instead of the
//! fields lets time pass.

mod support;

use serde_json::{Value, json};
use support::Line;
use tripline_core::decision::Decision;
use tripline_core::detectors::REGISTRY;
use tripline_core::rule::load::SourceFile;
use tripline_core::time::parse_rfc3339_ms;

const PAGE: &str = include_str!("../../docs/rules.md");

/// The blocks of the page, `(language, text)`.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let fenced = PAGE.split("```").skip(1).step_by(2);
    fenced.filter_map(|block| block.split_once('\n')).collect()
}

fn when_ms(text: &str) -> i64 {
    let part = |part: &str| match part.strip_suffix('d') {
        Some(days) => days.parse::<i64>().expect("days") * 86_400,
        None => part.split(':').fold(0, |sum, figure| sum * 60 + figure.parse::<i64>().expect("a figure")),
    };
    parse_rfc3339_ms("2026-01-05T10:00:00Z").expect("a time") + text.split('+').map(part).sum::<i64>() * 1_000
}

/// What the rule says on one line of an example.
fn says(pack: &mut Line, rule: &str, line: &str) -> Option<String> {
    let (when, rest) = line.split_once(' ').expect("a time and an event");
    let at_ms = when_ms(when);
    let made = match rest.rfind('}') {
        Some(end) => {
            let mut event: Value = serde_json::from_str(rest[..=end].trim()).unwrap_or_else(|e| panic!("{line}: {e}"));
            for (name, value) in [("event_type", json!("http_request")), ("user_id", json!("u1")), ("event_time", json!(at_ms))] {
                let fields = event.as_object_mut().expect("an object");
                fields.entry(name).or_insert(value);
            }
            pack.show(&event.to_string())
        }
        None => pack.pass(at_ms),
    };
    let own = |name: &&String| name.starts_with(&format!("{rule}@"));
    let why = |decision: &Decision| {
        let name = decision.fired.iter().find(own)?;
        decision.contributions.iter().find(|line| line.rule == *name).map(|line| line.why.clone())
    };
    made.decisions.iter().find_map(why)
}

#[test]
fn the_examples_do_what_the_page_says() {
    let blocks = blocks();
    let named = blocks.iter().enumerate().filter(|(_, (language, _))| *language == "yaml");
    let pack: Vec<SourceFile> = named.map(|(n, (_, text))| SourceFile { name: format!("{n}.yaml"), text: (*text).into() }).collect();
    let mut shown = Vec::new();
    for (rule, events) in blocks.iter().zip(&blocks[1..]).filter(|(a, b)| (a.0, b.0) == ("yaml", "text")) {
        let Some(id) = rule.1.lines().find_map(|line| line.strip_prefix("id: ")).map(|id| id.split(' ').next().unwrap_or(id)) else {
            continue;
        };
        let mut line = Line::new(&pack, "{}");
        let mut fired = 0;
        for text in events.1.lines() {
            let expected = text.split_once("fires: ").map(|(_, why)| why.to_owned());
            fired += u32::from(expected.is_some());
            assert_eq!(says(&mut line, id, text), expected, "{id}: {text}");
        }
        assert!(fired > 0, "{id}: an example in which nothing fires");
        shown.push(rule.1);
    }
    for row in REGISTRY {
        let detect = [format!("{}:", row.name), format!("{{{}:", row.name)];
        let uses = |rule: &&str| {
            rule.lines().any(|line| detect.iter().any(|key| line.trim_start().trim_start_matches("detect: ").starts_with(key)))
        };
        assert!(shown.iter().any(uses), "docs/rules.md has no example of `{}`", row.name);
    }
}
