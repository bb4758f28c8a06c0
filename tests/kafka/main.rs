//! The whole line on a real Kafka: the binary that ships, killed and restarted, compared with `replay`.

mod line;

mod bad_input;
mod cloud_events;
mod detectors;
mod example;
mod faults;
mod growth;
mod parity;
mod restore;
mod sharing;
mod time;
