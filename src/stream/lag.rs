//! How long after its cause something is done: what the header `tripline-degraded` and the gauge of a lane say.
//!
//! The wall clock is read here, at the edge, at most once a millisecond: what is decided never depends on it.

use crate::config::Config;
use std::time::{Duration, Instant};

/// A lane that processed nothing for this long is behind with nothing that it knows of.
const FORGET_AFTER: Duration = Duration::from_secs(1);

/// The lag of one lane.
#[derive(Debug)]
pub struct Lag {
    /// From here on something is degraded, milliseconds; `None`: nothing ever is.
    limit_ms: Option<i64>,
    now_ms: i64,
    read: Option<Instant>,
    /// The greatest lag of an observation since the last report, milliseconds; `None`: there was none.
    greatest_ms: Option<i64>,
    reported_ms: i64,
    processed: Option<Instant>,
}

impl Lag {
    /// By the limit of the settings.
    pub fn new(config: &Config) -> Lag {
        let limit_ms = config.stream.degraded_after.0.map(|limit| limit.as_millis() as i64);
        Lag { limit_ms, now_ms: now_ms(), read: None, greatest_ms: None, reported_ms: 0, processed: None }
    }

    /// Looks at the clock, if it was not looked at within this millisecond.
    pub fn tick(&mut self, now: Instant) {
        if self.read.is_none_or(|read| now.duration_since(read) >= Duration::from_millis(1)) {
            (self.read, self.now_ms) = (Some(now), now_ms());
        }
    }

    /// Milliseconds since a time; 0 for one that is ahead of our clock.
    pub fn since(&self, at_ms: i64) -> i64 {
        self.now_ms.saturating_sub(at_ms).max(0)
    }

    /// How long ago its reference time was, milliseconds; the report will know of it.
    pub fn of_observation(&mut self, reference_ms: i64) -> i64 {
        let lag_ms = self.since(reference_ms);
        self.greatest_ms = self.greatest_ms.max(Some(lag_ms));
        lag_ms
    }

    /// The lag, if it is past the limit.
    pub fn degraded(&self, lag_ms: i64) -> Option<i64> {
        self.limit_ms.is_some_and(|limit_ms| lag_ms > limit_ms).then_some(lag_ms)
    }

    /// Seconds that the lane is behind.
    pub fn report(&mut self, now: Instant) -> f64 {
        match self.greatest_ms.take() {
            Some(lag_ms) => (self.reported_ms, self.processed) = (lag_ms, Some(now)),
            None if self.processed.is_none_or(|processed| now.duration_since(processed) >= FORGET_AFTER) => self.reported_ms = 0,
            None => {}
        }
        self.reported_ms as f64 / 1_000.0
    }
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lag(limit_ms: Option<i64>) -> Lag {
        Lag { limit_ms, now_ms: 100_000, read: None, greatest_ms: None, reported_ms: 0, processed: None }
    }

    #[test]
    fn past_the_limit_is_degraded_at_it_is_not_and_without_one_nothing_is() {
        let with = lag(Some(60_000));
        assert_eq!((with.degraded(60_000), with.degraded(60_001)), (None, Some(60_001)));
        assert_eq!(lag(None).degraded(i64::MAX), None);
    }

    #[test]
    fn a_time_ahead_of_our_clock_is_no_lag() {
        assert_eq!((lag(None).since(100_001), lag(None).since(99_000), lag(None).since(i64::MIN)), (0, 1_000, i64::MAX));
    }

    #[test]
    fn the_greatest_lag_is_reported_until_nothing_came_for_a_second() {
        let (mut lag, start) = (lag(None), Instant::now());
        let later = |ms| start + Duration::from_millis(ms);
        assert_eq!(lag.report(start), 0.0);
        lag.of_observation(98_000);
        lag.of_observation(99_500);
        assert_eq!(lag.report(later(50)), 2.0);
        assert_eq!(lag.report(later(1_000)), 2.0, "a pause between two batches");
        assert_eq!(lag.report(later(1_050)), 0.0);
    }

    #[test]
    fn the_clock_is_read_once_a_millisecond() {
        let (mut lag, start) = (lag(None), Instant::now());
        lag.tick(start);
        assert!(lag.now_ms > 1_700_000_000_000);
        lag.now_ms = 1;
        lag.tick(start + Duration::from_micros(999));
        assert_eq!(lag.now_ms, 1);
        lag.tick(start + Duration::from_millis(1));
        assert!(lag.now_ms > 1);
    }
}
