//! Records that are not events, one kind per reason of `docs/bad-input.md` that a producer can cause by itself.
//!
//! `too_large` is left out because a broker with default settings refuses such a record, `misrouted` and `panicked`
//! because the record alone does not decide them.

use tripline_core::rejection::Reason;

/// The kinds, in the order in which they take turns. The first two have no line in a file.
const KINDS: [Reason; 12] = [
    Reason::NullValue,
    Reason::EmptyValue,
    Reason::InvalidJson,
    Reason::InvalidUtf8,
    Reason::TooDeep,
    Reason::DuplicateKey,
    Reason::WrongType,
    Reason::MissingField,
    Reason::BadTime,
    Reason::IdTooLong,
    Reason::ControlCharacter,
    Reason::InvalidJson,
];

/// The malformed record of this number and what is wrong with it. `lines`: only what one line of a file can hold.
pub fn record(number: u64, time: &str, lines: bool) -> (Reason, Option<Vec<u8>>) {
    let kinds = if lines { &KINDS[2..] } else { &KINDS[..] };
    let turn = number as usize % kinds.len();
    let reason = kinds[turn];
    let id = format!("malformed-{number}");
    let text = match reason {
        Reason::NullValue => return (reason, None),
        Reason::EmptyValue => String::new(),
        Reason::InvalidUtf8 => {
            let mut bytes = format!(r#"{{"event_id":"{id}","event_time":"{time}","event_type":"http_request","path":"/"#).into_bytes();
            bytes.extend_from_slice(b"\xff\xfe\"}");
            return (reason, Some(bytes));
        }
        // The last of the kinds is JSON, but no object.
        Reason::InvalidJson if turn + 1 == kinds.len() => format!(r#"["{id}"]"#),
        Reason::InvalidJson => format!(r#"{{"event_id":"{id}","event_time":"{time}","event_ty"#),
        Reason::TooDeep => {
            let depth = tripline_core::event::MAX_DEPTH + 1;
            let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            format!(r#"{{"event_id":"{id}","event_time":"{time}","event_type":"http_request","data":{{"a":{nested}}}}}"#)
        }
        Reason::DuplicateKey => {
            format!(r#"{{"event_id":"{id}","event_time":"{time}","event_type":"http_request","user_id":"a","user_id":"b"}}"#)
        }
        Reason::WrongType => format!(r#"{{"event_id":"{id}","event_time":"{time}","event_type":"http_request","status_code":"teapot"}}"#),
        Reason::MissingField => format!(r#"{{"event_id":"{id}","event_time":"{time}","path":"/"}}"#),
        Reason::BadTime => format!(r#"{{"event_id":"{id}","event_time":"yesterday","event_type":"http_request"}}"#),
        Reason::IdTooLong => {
            let long = "x".repeat(tripline_core::event::MAX_ID_BYTES + 1);
            format!(r#"{{"event_id":"{id}","event_time":"{time}","event_type":"http_request","user_id":"{long}"}}"#)
        }
        _ => format!(r#"{{"event_id":"{id}","event_time":"{time}","event_type":"http_request","user_id":"a\u0007b"}}"#),
    };
    (reason, Some(text.into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tripline_core::event::Event;

    #[test]
    fn every_malformed_record_is_rejected_for_its_own_reason() {
        for number in 0..KINDS.len() as u64 {
            let (reason, value) = record(number, "2026-01-01T00:00:00.000Z", false);
            let rejection = Event::decode(value.as_deref()).expect_err(reason.name());
            assert_eq!(rejection.reason, reason, "{rejection}");
        }
    }

    #[test]
    fn in_a_file_each_is_one_line_that_is_not_empty() {
        for number in 0..2 * KINDS.len() as u64 {
            let (reason, value) = record(number, "2026-01-01T00:00:00.000Z", true);
            let bytes = value.unwrap_or_default();
            assert!(!bytes.is_empty() && !bytes.contains(&b'\n'), "{}", reason.name());
        }
    }
}
