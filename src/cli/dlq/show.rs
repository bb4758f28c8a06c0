//! `tripline dlq show`: one dead letter. What it holds is whatever somebody sent, so its content is shown only as far as it can
//! be masked; the bytes themselves only when they are asked for.

use super::{Output, ShowArgs, print};
use crate::cli::draw::clean;
use crate::cli::{Failure, code};
use crate::config::Config;
use crate::dead_letters::index::{Filter, Letter};
use crate::dead_letters::reader::{Original, Reader};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use tripline_core::{hash, mask};

pub(super) fn run(args: &ShowArgs, config: &Config) -> Result<u8, Failure> {
    let reader = Reader::connect(config)?;
    let index = reader.index(Filter { ids: [args.letter].into(), ..Filter::default() })?;
    let originals = reader.fetch(&[args.letter].into())?;
    let (Some(letter), Some(original)) = (index.letters().next(), originals.get(&args.letter)) else {
        return Err(Failure::new(
            code::FINDINGS,
            format!("there is no dead letter {}: it expired, or never stood there; look with `tripline dlq list`", args.letter),
        ));
    };
    match args.output {
        _ if args.raw => raw(original),
        Output::Table => print(&text(letter, original)),
        Output::Json => print(&format!("{:#}\n", as_json(letter, original))),
        Output::Ndjson => print(&format!("{}\n", as_json(letter, original))),
    }
}

/// The value's bytes: as they are into a file or a pipe, without control characters on a terminal.
fn raw(original: &Original) -> Result<u8, Failure> {
    eprintln!("warning: these are the original bytes, unmasked: they may hold secrets and personal data");
    let Some(value) = &original.value else {
        eprintln!("the value is null");
        return Ok(code::OK);
    };
    let mut out = io::stdout().lock();
    if out.is_terminal() {
        drop(out);
        return print(&format!("{}\n", clean(&String::from_utf8_lossy(value))));
    }
    match out.write_all(value).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(code::FINDINGS, format!("cannot write to stdout: {error}")))
        }
        _ => Ok(code::OK),
    }
}

/// The value as a masked object; `None` for anything else: masking goes by the names of members, and what has none could be a
/// secret as a whole.
fn masked(original: &Original) -> Option<Map<String, Value>> {
    serde_json::from_slice::<Map<String, Value>>(original.value.as_deref()?).ok().map(|object| mask::object(&object))
}

/// Length and digest: enough to find the same bytes again.
fn measure(bytes: Option<&[u8]>) -> Value {
    bytes.map_or(Value::Null, |bytes| json!({ "bytes": bytes.len(), "digest": hash::digest(bytes) }))
}

/// The original's own headers, those that sound like a secret masked.
fn headers(original: &Original) -> Vec<(String, String)> {
    let shown = |name: &str, value: &[u8]| match std::str::from_utf8(value) {
        _ if mask::is_sensitive(name) => mask::MASKED.to_owned(),
        Ok(text) => text.to_owned(),
        Err(_) => format!("{} bytes that are not UTF-8", value.len()),
    };
    original.headers.iter().map(|(name, value)| (name.clone(), shown(name, value))).collect()
}

fn as_json(letter: &Letter, original: &Original) -> Value {
    let mut value = letter.json();
    value["key"] = measure(original.key.as_deref());
    value["value"] = measure(original.value.as_deref());
    if let Some(object) = masked(original) {
        value["value"]["masked"] = Value::Object(object);
    }
    value["headers"] = headers(original).into_iter().map(|(name, text)| json!([name, text])).collect();
    value
}

fn text(letter: &Letter, original: &Original) -> String {
    let told = as_json(letter, original);
    let measured = |part: &Value| match part["bytes"].as_u64() {
        Some(bytes) => format!("{bytes} bytes, {}", part["digest"].as_str().unwrap_or_default()),
        None => "null".to_owned(),
    };
    let plain = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| told[name].as_u64().map(|n| format!("{n} bytes")).unwrap_or_default();
    let fields = [
        ("letter", plain("letter")),
        ("appended", plain("appended")),
        ("reason", plain("reason")),
        ("detail", plain("detail")),
        ("stage", plain("stage")),
        ("status", plain("status")),
        ("attempt", letter.attempt.to_string()),
        ("redriven from", plain("redriven_from")),
        ("source", format!("{} at {}", letter.source(), told["source"]["timestamp"].as_str().unwrap_or_default())),
        ("too large", number("truncated_bytes")),
        ("headers cut", number("headers_left_out_bytes")),
        ("key", measured(&told["key"])),
        ("value", measured(&told["value"])),
    ];
    let mut text = String::new();
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(text, "{name:<14} {}", clean(value));
    }
    for (name, value) in headers(original) {
        let _ = writeln!(text, "{:<14} {}: {}", "header", clean(&name), clean(&value));
    }
    match (masked(original), &original.value) {
        (Some(object), _) => {
            let _ = writeln!(text, "\nmasked value\n{}", multiline(&format!("{:#}", Value::Object(object))));
        }
        (None, Some(_)) => {
            text.push_str("\nThe value is no JSON object, so nothing of it can be masked and shown: --raw prints it as it is\n")
        }
        (None, None) => {}
    }
    text
}

fn multiline(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letters::index::Index;
    use tripline_core::dead_letter::{Kind, LetterId, Stage, Told};

    fn letter() -> Letter {
        let mut index = Index::new(Filter::default(), 1);
        let told = Told {
            reason: "missing_field",
            detail: "event_time",
            stage: Stage::Router,
            source_topic: "app.requests",
            source_partition: 0,
            source_offset: 41,
            source_timestamp_ms: 0,
            truncated: None,
            digest: None,
            headers_left_out: None,
            attempt: 2,
            redriven_from: Some(LetterId { partition: 3, offset: 7 }),
        };
        index.see(LetterId { partition: 3, offset: 9 }, 1_000, &Kind::Letter(told), 9, None);
        index.letters().next().expect("one").clone()
    }

    fn shown(value: &[u8]) -> [String; 2] {
        let original = Original {
            key: Some(b"user:secret-key".to_vec()),
            value: Some(value.to_vec()),
            headers: vec![("ce_type".to_owned(), b"login".to_vec()), ("ce_accesstoken".to_owned(), b"secret-header".to_vec())],
        };
        [text(&letter(), &original), as_json(&letter(), &original).to_string()]
    }

    #[test]
    fn an_object_is_shown_masked_at_any_depth() {
        let value = br#"{"user_id":"u1","headers":{"Authorization":"Bearer secret-1"},"data":{"card_number":"secret-2","items":[{"password":"secret-3"}]}}"#;
        for text in shown(value) {
            assert!(text.contains("u1") && text.contains("***") && text.contains("missing_field") && text.contains("3/7"), "{text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_masked_is_not_shown() {
        let hostile: [&[u8]; 7] = [
            b"password=secret",
            b"\"secret\"",
            b"[\"secret\"]",
            br#"[{"a":"secret"}]"#,
            br#"{"user_id":"secret""#,
            b"\xffsecret",
            br#"{"data":{"a":"secret"}} trailing"#,
        ];
        for value in hostile {
            for text in shown(value) {
                assert!(!text.contains("secret") && text.contains("sha256:"), "{text}");
            }
        }
    }

    #[test]
    fn nothing_in_it_can_rewrite_the_screen() {
        let [text, _] = shown("{\"path\":\"\\u001b[2J\u{202e}\"}".as_bytes());
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text}");
    }
}
