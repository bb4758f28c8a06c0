//! Which field a key names.

use super::{Dialect, FIELDS};

/// A place in the event or the envelope. The first ones stand in the order of [`FIELDS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::event) enum Slot {
    EventId,
    EventTime,
    EventType,
    TenantId,
    TenantName,
    UserId,
    SessionId,
    DeviceId,
    IpAddress,
    Method,
    Path,
    Route,
    StatusCode,
    ResponseTimeMs,
    RequestBytes,
    ResponseBytes,
    UserAgent,
    RequestId,
    Country,
    Asn,
    Role,
    IsStaff,
    IsAuthenticated,
    Outcome,
    AnomalyType,
    BlockedBy,
    Headers,
    Data,
    Version,
    Topic,
    Partition,
    Offset,
    Reference,
    Actor,
    Own,
    Clamped,
    Unknown,
}

impl Slot {
    /// The slot of a key. Byte strings, because their match compiles to a tree over length and bytes.
    pub fn of(key: &str, dialect: Dialect) -> Slot {
        match key.as_bytes() {
            b"event_id" => Slot::EventId,
            b"event_time" => Slot::EventTime,
            b"event_type" => Slot::EventType,
            b"tenant_id" => Slot::TenantId,
            b"tenant_name" => Slot::TenantName,
            b"user_id" => Slot::UserId,
            b"session_id" => Slot::SessionId,
            b"device_id" => Slot::DeviceId,
            b"ip_address" => Slot::IpAddress,
            b"method" => Slot::Method,
            b"path" => Slot::Path,
            b"route" => Slot::Route,
            b"status_code" => Slot::StatusCode,
            b"response_time_ms" => Slot::ResponseTimeMs,
            b"request_bytes" => Slot::RequestBytes,
            b"response_bytes" => Slot::ResponseBytes,
            b"user_agent" => Slot::UserAgent,
            b"request_id" => Slot::RequestId,
            b"country" => Slot::Country,
            b"asn" => Slot::Asn,
            b"role" => Slot::Role,
            b"is_staff" => Slot::IsStaff,
            b"is_authenticated" => Slot::IsAuthenticated,
            b"outcome" => Slot::Outcome,
            b"anomaly_type" => Slot::AnomalyType,
            b"blocked_by" => Slot::BlockedBy,
            b"headers" => Slot::Headers,
            b"data" => Slot::Data,
            envelope if dialect == Dialect::Observation => match envelope {
                b"_v" => Slot::Version,
                b"_topic" => Slot::Topic,
                b"_partition" => Slot::Partition,
                b"_offset" => Slot::Offset,
                b"_at" => Slot::Reference,
                b"_actor" => Slot::Actor,
                b"_own" => Slot::Own,
                b"_clamped" => Slot::Clamped,
                _ => Slot::Unknown,
            },
            _ => Slot::Unknown,
        }
    }

    /// The key, for messages.
    pub fn name(self) -> &'static str {
        match self {
            Slot::Headers => "headers",
            Slot::Data => "data",
            Slot::Version => "observation version",
            Slot::Topic => "_topic",
            Slot::Partition => "_partition",
            Slot::Offset => "_offset",
            Slot::Reference => "_at",
            Slot::Actor => "_actor",
            Slot::Own => "_own",
            Slot::Clamped => "_clamped",
            Slot::Unknown => "an unknown field",
            field => FIELDS[field as usize].name,
        }
    }

    /// Its bit in a set of slots.
    pub fn bit(self) -> u64 {
        1 << self as u32
    }
}
