//! The commit protocol as a state machine.
