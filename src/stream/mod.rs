//! Kafka: lanes, transactions, restore.

pub mod client;
pub mod partition;
pub mod topics;
