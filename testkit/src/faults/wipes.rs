//! States that were thrown away although the disk had them, from a worker's log.
//!
//! The worker says after each write to a store which commit the store stands at, and at each start of a task which commit it
//! found there. A store that is found empty or at an earlier commit was wiped, unless its disk was taken away in between.
//! A rebuild that is cut off before its first commit leaves no such word behind, so the next one may begin from nothing.

use serde_json::Value;
use std::collections::BTreeMap;

/// The level at which a worker says what [`wipes`] needs.
pub const LEVEL: &str = "info,tripline::state=debug";
/// After a write.
pub const WRITTEN: &str = "a store was written";
/// At the start of a task.
const STARTS: &str = "a task starts";
/// A store that was of no use to the worker.
const SET_ASIDE: &str = "is set aside";

/// Every state that was thrown away, in words. `taken`: the lengths of the log at which the disk was taken away, ascending.
pub fn wipes(log: &str, taken: &[usize]) -> Vec<String> {
    let mut taken = taken.iter().peekable();
    let (mut at, mut held, mut wipes) = (0, BTreeMap::<i64, u64>::new(), Vec::new());
    for line in log.split_inclusive('\n') {
        while taken.next_if(|taken| **taken <= at).is_some() {
            held.clear();
        }
        at += line.len();
        // A line that a kill cut off is none.
        let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
        let message = line["message"].as_str().unwrap_or_default();
        if message == WRITTEN {
            if let (Some(partition), Some(seq)) = (partition_of_store(&line), line["seq"].as_u64()) {
                held.insert(partition, seq);
            }
        } else if let Some(partition) = line["partition"].as_i64() {
            if message.contains(SET_ASIDE) {
                held.remove(&partition);
                wipes.push(format!("partition {partition}: {message}: {}", line["why"].as_str().unwrap_or_default()));
            } else if message.starts_with(STARTS) {
                wipes.extend(lost(partition, held.get(&partition).copied(), line["stored"].as_u64()));
            }
        }
    }
    wipes
}

/// What a store has lost of what it held.
fn lost(partition: i64, held: Option<u64>, found: Option<u64>) -> Option<String> {
    let held = held?;
    match found {
        None => Some(format!("partition {partition}: the store held commit {held} and was found empty")),
        Some(found) if found < held => Some(format!("partition {partition}: the store held commit {held} and was found at {found}")),
        Some(_) => None,
    }
}

/// How often tasks started on this partition, as far as the log goes.
pub fn starts(log: &str, partition: i32) -> usize {
    let starts = |line: &&str| {
        let Ok(line) = serde_json::from_str::<Value>(line) else { return false };
        line["partition"] == partition && line["message"].as_str().is_some_and(|message| message.starts_with(STARTS))
    };
    log.lines().filter(|line| line.contains(STARTS)).filter(starts).count()
}

/// A store's folder ends in the number of its task.
fn partition_of_store(line: &Value) -> Option<i64> {
    line["store"].as_str()?.rsplit_once("task-")?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn written(partition: i32, seq: u64) -> String {
        format!("{}\n", json!({"message": WRITTEN, "store": format!("/tmp/x/state-one/task-{partition}"), "seq": seq}))
    }

    /// As a worker says it: `stored` is left out when there is nothing.
    fn starts_at(partition: i32, stored: Option<u64>) -> String {
        let mut line = json!({"message": format!("{STARTS} after the whole changelog"), "partition": partition, "committed": 99});
        if let Some(stored) = stored {
            line["stored"] = json!(stored);
        }
        format!("{line}\n")
    }

    fn check(lines: &[String], taken: &[usize], expected: &[&str]) {
        assert_eq!(wipes(&lines.concat(), taken), expected);
    }

    #[test]
    fn a_state_that_is_gone_at_the_first_restart_was_wiped() {
        let log = [starts_at(0, None), written(0, 7), starts_at(0, None)];
        check(&log, &[], &["partition 0: the store held commit 7 and was found empty"]);
    }

    #[test]
    fn a_store_that_went_back_was_wiped_in_part_and_one_that_stayed_or_went_on_was_not() {
        let log = [written(0, 7), written(0, 9), starts_at(0, Some(8))];
        check(&log, &[], &["partition 0: the store held commit 9 and was found at 8"]);
        check(&[written(0, 9), starts_at(0, Some(9)), starts_at(0, Some(12))], &[], &[]);
    }

    #[test]
    fn a_disk_that_never_had_the_task_may_be_empty_as_often_as_it_is_cut_off() {
        check(&[starts_at(0, None), starts_at(0, None), written(1, 4), starts_at(0, None)], &[], &[]);
    }

    #[test]
    fn what_a_rebuild_noted_on_its_way_has_to_be_there_when_it_goes_on() {
        let cut_off = [starts_at(0, None), written(0, 3)].concat();
        check(&[cut_off.clone(), starts_at(0, Some(3))], &[], &[]);
        check(&[cut_off, starts_at(0, None)], &[], &["partition 0: the store held commit 3 and was found empty"]);
    }

    #[test]
    fn a_disk_that_was_taken_away_is_excused_from_then_on_and_not_before() {
        let before = [written(0, 7), written(1, 5)].concat();
        let again = [starts_at(0, None), written(0, 8)].concat();
        let taken = before.len();
        check(&[before.clone(), again.clone()], &[taken], &[]);
        check(&[before.clone(), again.clone()], &[0], &["partition 0: the store held commit 7 and was found empty"]);
        check(&[before, again, starts_at(0, None)], &[taken], &["partition 0: the store held commit 8 and was found empty"]);
    }

    #[test]
    fn a_store_that_is_set_aside_was_wiped_once() {
        let aside = format!("{}\n", json!({"message": "the local state is set aside and rebuilt", "partition": 2, "why": "too old"}));
        let expected = ["partition 2: the local state is set aside and rebuilt: too old"];
        check(&[written(2, 7), aside, starts_at(2, None)], &[], &expected);
    }

    #[test]
    fn lines_that_are_cut_off_or_about_something_else_say_nothing() {
        check(&[written(0, 7), "{\"message\":\"a task sta".into(), "\n".into(), starts_at(1, None)], &[], &[]);
        assert_eq!(starts(&[starts_at(1, None), written(1, 2), starts_at(1, Some(2)), starts_at(3, None)].concat(), 1), 2);
    }
}
