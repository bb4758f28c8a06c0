//! The fault harness: traffic flows, faults happen, and what a read_committed consumer sees is compared with what the pure
//! engine makes of the same records.
//!
//! Start with [`round::run`]: a fresh line, traffic from a [`traffic::Source`], the faults of a [`schedule::Schedule`] done by a
//! [`nemesis`], and at the end the [`checker`], which compares what was found with the [`oracle`]. Schedule, oracle and checker
//! are pure; a run's choices are a function of its seed, the moments at which they meet the worker are not.
//! `docs/faults.md` says how to run it and how to read its report.

pub mod checker;
pub mod clock;
pub mod evidence;
pub mod fleet;
pub mod input;
pub mod inspect;
pub mod nemesis;
pub mod oracle;
pub mod pack;
pub mod pauses;
pub mod report;
pub mod round;
pub mod schedule;
pub mod traffic;
pub mod watch;
pub mod wipes;
