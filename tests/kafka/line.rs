//! One line per test; what it is stands in the test kit, which the fault harness shares.

pub use tripline_testkit::line::*;

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_tripline");
