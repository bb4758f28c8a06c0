//! The whole line on a real Kafka: the binary that ships, killed and restarted, compared with `replay`.

mod line;

mod access;
mod audit;
mod bad_input;
mod cloud_events;
mod cut_off;
mod detectors;
mod disk;
mod dlq;
mod example;
mod faults;
mod growth;
mod hostile;
mod late;
mod overload;
mod parity;
mod restore;
mod sharing;
mod state_verify;
mod time;
mod wire;
