//! How long it takes to read and write a typical record: `cargo run --release -p tripline-core --example decode_speed`.

use serde_json::json;
use std::hint::black_box;
use std::time::Instant;
use tripline_core::entity::Entity;
use tripline_core::event::Event;
use tripline_core::event::cloud::ContentMode;
use tripline_core::event::mapping::Mapping;
use tripline_core::observation::{Observation, Position};

const RECORD: &str = r#"{"event_id":"3fa85f64-5717-4562-b3fc-2c963f66afa6","event_time":"2025-10-09T08:53:20.123Z","event_type":"http_request","tenant_id":"t-17","user_id":"u-1029384","session_id":"9f86d081884c7d659a2feaa0","device_id":"d-77","ip_address":"203.0.113.9","method":"POST","path":"/api/v1/orders/17/items","route":"/api/v1/orders/{id}/items","status_code":201,"response_time_ms":38,"user_agent":"Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/130.0","request_id":"req-5d41402abc4b","country":"DE","is_staff":false,"is_authenticated":true}"#;
const ROUNDS: u32 = 300_000;

fn measure(what: &str, bytes: usize, mut work: impl FnMut()) {
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            work();
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS));
    }
    println!("{what:<34} {bytes:>5} bytes {best:>7.0} ns");
}

fn main() {
    let with_more = RECORD.trim_end_matches('}').to_owned()
        + r#","headers":{"host":"shop.example","x-forwarded-for":"203.0.113.9, 10.0.0.1"},"data":{"form":{"kind":"login","attempt":3},"feature":"bulk"}}"#;
    let position = Position { topic: "app.requests".into(), partition: 3, offset: 1_234_567 };
    for (what, record) in [("flat", RECORD), ("with headers and data", &with_more)] {
        let bytes = record.as_bytes();
        measure(&format!("decode event, {what}"), bytes.len(), || {
            black_box(Event::decode(Some(black_box(bytes)))).ok();
        });
        let event = Event::decode(Some(bytes)).expect("the sample is valid");
        let mut out = Vec::with_capacity(2048);
        measure(&format!("encode event, {what}"), bytes.len(), || {
            out.clear();
            black_box(&event).encode(&mut out);
        });
        let observation = Observation::new(event, Entity::actor(Some("u-1029384"), None), &position, 1_760_000_000_500);
        let key = observation.entity.to_string();
        measure(&format!("encode observation, {what}"), bytes.len(), || {
            out.clear();
            black_box(&observation).encode(&mut out);
        });
        measure(&format!("decode observation, {what}"), out.len(), || {
            black_box(Observation::decode(Some(key.as_bytes()), Some(black_box(&out)))).ok();
        });
    }
    cloud();
    mapped();
}

/// The same event as the data of a CloudEvent.
fn cloud() {
    let mode = || {
        ContentMode::of_headers(
            [("ce_specversion", "1.0"), ("ce_id", "1"), ("ce_source", "/s"), ("ce_type", "t")].map(|(n, v)| (n, Some(v.as_bytes()))),
        )
    };
    measure("decode CloudEvent, binary", RECORD.len(), || {
        black_box(Event::decode_record(Some(black_box(RECORD.as_bytes())), mode(), None)).ok();
    });
    let envelope = format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{RECORD}}}"#);
    measure("decode CloudEvent, structured", envelope.len(), || {
        black_box(Event::decode_record(Some(black_box(envelope.as_bytes())), ContentMode::Structured, None)).ok();
    });
    measure("decode CloudEvent, no header", envelope.len(), || {
        black_box(Event::decode(Some(black_box(envelope.as_bytes())))).ok();
    });
}

/// The same event through a mapping that only adds to our own set, then the worked examples of the shipped sets.
fn mapped() {
    let own = json!({"set": "tripline", "fields": {"data.extra": "extra"}});
    let own = Mapping::compile(&own).expect("the sample is valid");
    let page = include_str!("../../docs/mapping.md");
    let example = |set: &str| page.split(&format!("\n## `{set}`\n")).nth(1)?.split("```json\n").nth(1)?.split("```").next();
    let sets = ["otel", "ecs", "nginx-json"].map(|set| (set, Mapping::shipped(set).expect(set), example(set).expect(set)));
    for (what, mapping, record) in std::iter::once(("own set", own, RECORD)).chain(sets) {
        let bytes = record.as_bytes();
        measure(&format!("decode mapped, {what}"), bytes.len(), || {
            black_box(Event::decode_mapped(Some(black_box(bytes)), &mapping)).ok();
        });
    }
}
