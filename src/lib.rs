//! Tripline: abuse and anomaly detection on Kafka.
//!
//! Layers, each naming only what stands before it: [`tripline_core`] (pure: events, rules, decisions, the commit
//! protocol) ← [`config`], [`flags`], [`rules`], [`live`] (files into values) ← [`state`] (RocksDB) ← [`stream`] (Kafka: lanes,
//! transactions, restore), [`dead_letters`] (looked at and sent back) and [`sink`] (the event store) ← [`admin`], [`cli`].
//!
//! The path of one record starts in [`stream`].

pub mod admin;
pub mod cli;
pub mod config;
pub mod dead_letters;
pub mod flags;
pub mod generate;
pub mod live;
pub mod replay;
pub mod rules;
pub mod sink;
pub mod state;
pub mod stream;
pub mod telemetry;
