//! States that were thrown away although the disk had them, from a worker's log.

use serde_json::Value;
use std::collections::BTreeMap;

/// What a worker says when it builds a state from nothing: its disk has none, or it throws away the one that is there.
const WIPED: &str = "rebuilt from the changelog";

/// How often a state was thrown away. A worker builds each task's state from nothing once, when it first gets the task; `excuses` are
/// the lengths of its log at which its disk was taken away or a rebuild was cut off, after which it may do so once more.
pub fn wiped(log: &str, excuses: &[usize]) -> usize {
    let mut excuses = excuses.iter().peekable();
    let (mut at, mut built, mut wiped) = (0, BTreeMap::<i64, usize>::new(), 0);
    for line in log.split_inclusive('\n') {
        while excuses.next_if(|excuse| **excuse <= at).is_some() {
            built.clear();
        }
        at += line.len();
        if line.contains(WIPED) {
            let partition = serde_json::from_str::<Value>(line).ok().and_then(|line| line["partition"].as_i64()).unwrap_or(-1);
            let times = built.entry(partition).or_default();
            *times += 1;
            wiped += usize::from(*times > 1);
        }
    }
    wiped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_built_from_nothing_once_unless_its_disk_was_taken_away() {
        let built = |partition: i64| format!("{{\"message\":\"x: {WIPED}\",\"partition\":{partition}}}\n");
        let log = [built(0), "{\"message\":\"other\"}\n".into(), built(1), built(0)].concat();
        let before_the_last = log.len() - built(0).len();
        assert_eq!(wiped(&log, &[]), 1);
        assert_eq!(wiped(&log, &[before_the_last]), 0);
        assert_eq!(wiped(&log, &[0, log.len()]), 1, "neither before everything nor after it");
        assert_eq!(wiped("", &[7]), 0);
    }
}
