//! Everything remembered about one entity, and its bytes.

/// Everything remembered about one entity.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ActorState {
    /// The newest event's time, milliseconds; 0 for none yet.
    pub newest_ms: i64,
}
