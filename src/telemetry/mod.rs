//! What the process says about itself: the log and the one table of metrics.

pub mod log;
pub mod metrics;
pub mod table;
pub mod tally;
