//! The command line: one file per verb. Data on stdout, logs and progress on stderr.

pub mod generate;
pub mod topics;
