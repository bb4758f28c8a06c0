//! How long a task made no commit while something happened to another one. Commits, not decisions: traffic makes them many times a
//! second, while for seconds there may be nothing to decide.

use super::schedule::{Fault, Step};
use super::watch::Watch;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often each task was started, by its number.
pub type Starts = BTreeMap<i32, usize>;

/// The longest pause of each task that nobody started between two looks: it stayed where it was. Empty for a fault that concerns
/// everybody, and where there was one worker only.
pub fn of_the_unaffected(step: &Step, workers: usize, (before, after): (&Starts, &Starts), watch: &Watch, from: Instant) -> Vec<Duration> {
    let is_measured = step.fault.is_of_one_worker() && (workers > 1 || step.fault == Fault::Join);
    let stayed = before.iter().filter(|(task, starts)| is_measured && after.get(task) == Some(starts));
    let to = Instant::now();
    stayed.map(|(task, _)| longest(&watch.commits_of(*task), from, to)).collect()
}

/// The longest time without a commit that ends between the two moments. It may have begun before the first; the last one is
/// cut short by the second. `commits` ascend.
fn longest(commits: &[Instant], from: Instant, to: Instant) -> Duration {
    let within = commits.partition_point(|at| *at <= from)..commits.partition_point(|at| *at < to);
    let mut since = within.start.checked_sub(1).map_or(from, |last| commits[last]);
    let mut longest = Duration::ZERO;
    for at in commits[within].iter().copied().chain([to]) {
        longest = longest.max(at.saturating_duration_since(since));
        since = at;
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Commits, and the moments in between, in milliseconds.
    fn check(commits: &[u64], (from, to): (u64, u64), expected: u64) {
        let began = Instant::now();
        let at = |ms: u64| began + Duration::from_millis(ms);
        let commits: Vec<Instant> = commits.iter().copied().map(at).collect();
        assert_eq!(longest(&commits, at(from), at(to)), Duration::from_millis(expected), "{commits:?}");
    }

    #[test]
    fn a_pause_lasts_from_one_commit_to_the_next() {
        check(&[100, 200, 900, 1_000], (150, 1_050), 700);
        check(&[100, 200, 300], (150, 310), 100);
    }

    #[test]
    fn a_pause_that_began_before_counts_whole_and_one_that_goes_on_counts_so_far() {
        check(&[100, 2_000], (900, 2_100), 1_900);
        check(&[100, 2_000], (900, 1_500), 1_400);
        check(&[], (200, 500), 300);
    }

    #[test]
    fn pauses_before_and_after_do_not_count() {
        check(&[0, 5_000, 5_100, 5_200, 9_000], (5_050, 5_250), 100);
    }
}
