//! The pure core of Tripline.
//!
//! Same observations, same rules, same flags: same decisions, byte for byte. Nothing in here reads a clock, draws a
//! random number, does I/O or depends on the order of a hash map; time and order are arguments.
//!
//! Where to start reading: [`engine`] is the only door (used by `run`, `replay` and the tests alike); an [`event`] comes
//! in addressed to an [`entity`], [`rule`]s look at it through [`expr`]essions and [`detectors`] that live in the
//! [`state`] of that entity, what they say adds up to a [`score`], a [`policy`] makes of it what is to be done, and a
//! [`decision`] comes out. [`protocol`] is the commit protocol as a state machine.

pub mod address;
pub mod alert;
pub mod audit;
pub mod cloud_event;
pub mod dead_letter;
pub mod decision;
pub mod detectors;
pub mod diagnostic;
pub mod engine;
pub mod entity;
pub mod event;
pub mod expr;
pub mod firing;
pub mod flags;
pub mod hash;
pub mod lint;
pub mod mask;
pub mod observation;
pub mod policy;
pub mod protocol;
pub mod rejection;
pub mod resource;
pub mod rule;
pub mod schema;
pub mod score;
pub mod standing;
pub mod state;
pub mod stream_time;
pub mod tick;
pub mod time;
pub mod trial;
pub mod value;
