//! A state in words: which rule remembers what, what is held against the entity, and when it ends.

use crate::cli::draw::{aligned, clean};
use serde_json::{Map, Value, json};
use std::fmt::Write;
use tripline_core::rule::RuleSet;
use tripline_core::score::Axis;
use tripline_core::score::reasons::Reasons;
use tripline_core::score::tally::{self, Whose};
use tripline_core::state::{ActorState, Cell, Episode, Force, Held, Ledger, Memory, Ring, Slot};
use tripline_core::time::{format_duration_ms, format_rfc3339_ms};

/// For machines. Times are RFC 3339; what a rule counted is summed up, since the values behind hashes are not kept.
pub fn as_json(state: &ActorState, set: &RuleSet) -> Value {
    json!({
        "newest_event": state.newest_ms.map(format_rfc3339_ms),
        "expires": time(state.expire_at_ms),
        "may_be_deleted_after": time(state.delete_after_ms),
        "event_ids": state.seen_count(),
        "next_due": state.next_due_ms().and_then(time),
        "rules": state.slots().iter().map(|slot| of_slot(slot, set)).collect::<Vec<_>>(),
        "ledger": state.ledger().map(|ledger| of_ledger(ledger, set)),
    })
}

/// For people: the same.
pub fn text(told: &Value) -> String {
    let plain = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => clean(text),
        other => other.to_string(),
    };
    let mut text = String::new();
    for (name, value) in [("newest event", "newest_event"), ("expires", "expires"), ("next due", "next_due"), ("event ids", "event_ids")] {
        let _ = writeln!(text, "{name:<14} {}", plain(&told[value]));
    }
    if let Some(scores) = told["ledger"]["scores"].as_object() {
        let scores: Vec<String> = scores.iter().map(|(axis, score)| format!("{axis} {score}")).collect();
        let _ = writeln!(text, "{:<14} {} at {}", "scores", scores.join(", "), plain(&told["ledger"]["as_of"]));
    }
    let mut table = |title: &str, rows: &Value, columns: &[(&str, &str)]| {
        let Some(rows) = rows.as_array().filter(|rows| !rows.is_empty()) else { return };
        let mut lines = vec![columns.iter().map(|(head, _)| (*head).to_owned()).collect::<Vec<_>>()];
        lines.extend(rows.iter().map(|row| columns.iter().map(|(_, name)| plain(&row[*name])).collect()));
        let _ = write!(text, "\n{title}\n{}", aligned(&lines));
    };
    table(
        "remembered by rules",
        &told["rules"],
        &[
            ("RULE", "rule"),
            ("SUB-KEY", "sub_key"),
            ("ON", "on"),
            ("FIRED", "fired"),
            ("HELD BACK", "held_back"),
            ("ENDS", "ends"),
            ("MEMORY", "memory"),
        ],
    );
    let ledger = &told["ledger"];
    table(
        "held against it",
        &ledger["contributions"],
        &[("RULE", "rule"), ("TYPE", "type"), ("AXIS", "axis"), ("POINTS", "points"), ("LEFT", "left"), ("AT", "at")],
    );
    table(
        "actions",
        &ledger["actions"],
        &[("ACTION", "action"), ("ON", "on"), ("SINCE", "since"), ("UNTIL", "until"), ("OFFENCES", "offences")],
    );
    table(
        "open alerts",
        &ledger["alerts"],
        &[("ALERT", "alert_id"), ("RULE", "rule"), ("OPENED", "opened"), ("UNTIL", "until"), ("DECISIONS", "decisions")],
    );
    text
}

/// A time; none for the ends of time.
fn time(ms: i64) -> Option<String> {
    (ms > i64::MIN / 2 && ms < i64::MAX / 2).then(|| format_rfc3339_ms(ms))
}

fn rule(slot: u64, set: &RuleSet) -> String {
    set.rules.iter().find(|rule| rule.slot == slot).map_or_else(|| format!("{slot:016x} (no rule of the pack)"), |rule| rule.id.to_string())
}

fn of_slot(slot: &Slot, set: &RuleSet) -> Value {
    json!({
        "rule": rule(slot.rule, set),
        "sub_key": (slot.sub != 0).then(|| format!("{:016x}", slot.sub)),
        "on": slot.edge.on,
        "fired": time(slot.edge.fired_ms),
        "held_back": slot.edge.suppressed,
        "ends": time(slot.end_ms),
        "knows_all_from": time(slot.warm_ms),
        "memory": of_memory(&slot.memory),
    })
}

/// First, last and number of times that stand ascending.
fn span(times_ms: &[i64]) -> Value {
    json!({ "count": times_ms.len(), "first": times_ms.iter().min().copied().and_then(time), "last": times_ms.iter().max().copied().and_then(time) })
}

fn of_memory(memory: &Memory) -> Value {
    match memory {
        Memory::Nothing => Value::Null,
        Memory::Fixed { end_ms, count } => json!({ "count": count, "window_ends": time(*end_ms) }),
        Memory::Window { times_ms, rings } => {
            let ring = |ring: &Ring| {
                let sum = |part: fn(&Cell) -> i64| ring.cells.iter().map(part).fold(0, i64::saturating_add);
                json!({ "within": format_duration_ms(ring.within_ms), "buckets": ring.cells.len(), "amount": sum(|c| c.amount), "total": sum(|c| c.total) })
            };
            json!({ "events": span(times_ms), "windows_in_buckets": rings.iter().map(ring).collect::<Vec<_>>() })
        }
        Memory::Distinct { values, times_ms } => json!({ "values": values.len(), "seen": span(times_ms) }),
        Memory::Rate { exceeded, recent_ms, .. } => json!({ "exceeded": exceeded, "recent": span(recent_ms) }),
        Memory::Sequence { runs, pending } => {
            let runs = runs
                .iter()
                .map(|run| json!({ "join": format!("{:016x}", run.join), "reached": run.starts_ms.len(), "newest": time(run.newest_ms) }));
            let waiting = pending.iter().filter(|pending| pending.waits());
            let waiting = waiting.map(|pending| json!({ "opened": time(pending.opened_ms), "due": time(pending.due_ms) }));
            json!({ "runs": runs.collect::<Vec<_>>(), "waiting": waiting.collect::<Vec<_>>() })
        }
        Memory::FirstSeen { since_ms, values, .. } => json!({ "values": values.len(), "since": time(*since_ms) }),
    }
}

fn of_ledger(ledger: &Ledger, set: &RuleSet) -> Value {
    let reasons = Reasons::of(set);
    let scores = tally::at(&reasons, ledger, ledger.as_of_ms, Whose::All);
    let by_axis: Map<String, Value> =
        Axis::ALL.iter().map(|axis| (axis.name().to_owned(), json!(scores.of(*axis).score.points()))).collect();
    let contribution = |held: &Held| {
        let mut value = json!({ "points": held.points.points(), "at": time(held.at_ms) });
        match reasons.get(held.reason) {
            Some((_, reason)) => {
                value["rule"] = json!(set.rules[reason.rule].id.to_string());
                value["type"] = json!(reason.ty);
                value["axis"] = json!(reason.axis.name());
                value["left"] = json!(tally::left(held, reason, ledger.as_of_ms).points());
            }
            None => value["rule"] = json!(format!("{:016x} (no rule of the pack)", held.reason)),
        }
        value
    };
    let action = |force: &Force| json!({ "action": force.action, "on": force.on, "since": time(force.since_ms), "until": time(force.until_ms), "offences": force.offences });
    let alert = |episode: &Episode| {
        json!({
            "alert_id": episode.id.to_string(),
            "rule": if episode.key == 0 { "policy".to_owned() } else { rule(episode.key, set) },
            "opened": time(episode.opened_ms),
            "until": time(episode.until_ms),
            "decisions": episode.decisions,
            "severity": episode.severity,
            "action": episode.action,
        })
    };
    json!({
        "as_of": time(ledger.as_of_ms),
        "scores": by_axis,
        "risk_score": scores.risk(),
        "contributions": ledger.held.iter().map(contribution).collect::<Vec<_>>(),
        "actions": ledger.forces.iter().map(action).collect::<Vec<_>>(),
        "alerts": ledger.episodes.iter().map(alert).collect::<Vec<_>>(),
        "published": ledger.published,
        "next_due": ledger.due_ms.and_then(time),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tripline_core::state::Edge;

    #[test]
    fn what_a_rule_counted_is_told_by_its_name_and_what_is_unknown_by_its_key() {
        let pack = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/packs/starter");
        let set = crate::rules::load_pack(&pack, std::path::Path::new("")).expect("the starter pack loads");
        let known = &set.rules[0];
        let slot =
            |rule, memory| Slot { rule, sub: 0, end_ms: 60_000, window_ms: 60_000, warm_ms: i64::MIN, edge: Edge::default(), memory };
        let mut state = ActorState::default();
        state.note(5_000, 60_000);
        state.put(slot(known.slot, Memory::Window { times_ms: vec![1_000, 5_000], rings: Vec::new() }), 8);
        state.put(slot(7, Memory::Fixed { end_ms: 9_000, count: 3 }), 8);
        let told = as_json(&state, &set);
        let of = |name: &str| {
            told["rules"].as_array().expect("rules").iter().find(|r| r["rule"].as_str().unwrap_or_default().starts_with(name)).cloned()
        };
        let counted = of(&known.id).expect("by its name");
        assert_eq!(
            counted["memory"]["events"],
            json!({"count": 2, "first": "1970-01-01T00:00:01.000Z", "last": "1970-01-01T00:00:05.000Z"})
        );
        assert_eq!(of("0000000000000007").expect("by its key")["memory"]["count"], 3);
        assert!(told["ledger"].is_null() && told["next_due"].is_null());
        let text = text(&told);
        assert!(text.contains(&*known.id) && text.contains("remembered by rules") && !text.contains("held against"), "{text}");
    }
}
