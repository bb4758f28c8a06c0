//! The request events of the benchmark: about 485 bytes, actors chosen by a Zipf law, keyed by user.
//!
//! Not `tripline generate`: there attacks are labelled and ordinary actors stay below every threshold; here the busiest actor
//! makes a tenth of all events, so that state, cooldown and decisions are worked hard, as the reference jobs were.

use anyhow::{Context, Result};
use std::fmt::Write;
use tripline_testkit::Record;
use tripline_testkit::choices::{Choices, mix};

/// Exponent of the Zipf law: rank r is chosen in proportion to r^-1.05.
const EXPONENT: f64 = 1.05;

const AGENTS: [&str; 4] = [
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML) Chrome/126.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:128.0) Gecko/20100101 FF",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605",
    "okhttp/4.12.0 (Android 14; Pixel 8; build UQ1A.240205.004; app 7.3.1)",
];
const COUNTRIES: [&str; 8] = ["DE", "US", "FR", "BR", "IN", "GB", "JP", "ZA"];
const RESOURCES: [&str; 8] = ["orders", "carts", "products", "reviews", "messages", "tickets", "reports", "devices"];
const METHODS: [&str; 4] = ["GET", "GET", "POST", "PUT"];

/// A seeded source of events.
pub struct Events {
    choices: Choices,
    /// Cumulative probability by rank.
    ranks: Vec<f64>,
    made: u64,
}

impl Events {
    /// The events of this seed over so many actors.
    pub fn new(seed: u64, actors: usize) -> Events {
        let mut sum = 0.0;
        let mut ranks: Vec<f64> = (1..=actors.max(1))
            .map(|rank| {
                sum += (rank as f64).powf(-EXPONENT);
                sum
            })
            .collect();
        ranks.iter_mut().for_each(|at| *at /= sum);
        Events { choices: Choices::new(seed), ranks, made: 0 }
    }

    /// The next event, stamped with this time. Its id ends with its number, see [`number_in`].
    pub fn next(&mut self, time_ms: i64) -> Record {
        let draw = (self.choices.draw() >> 11) as f64 / (1u64 << 53) as f64;
        let actor = self.ranks.partition_point(|at| *at < draw).min(self.ranks.len() - 1) as u64;
        let traits = mix(actor + 1);
        let (method, path, route) = self.request();
        let status = match self.choices.below(1000) {
            0..=909 => 200,
            910..=949 => 404,
            950..=969 => 401,
            970..=979 => 403,
            980..=989 => 400,
            _ => 503,
        };
        let (id, request_id, took_ms) = (self.choices.draw(), self.choices.draw() >> 16, 3 + self.choices.below(400));
        let mut json = String::with_capacity(512);
        // Writing to a String cannot fail.
        let _ = write!(
            json,
            r#"{{"event_id":"{:08x}-{:04x}-4{:03x}-9{:03x}-{:012x}","event_time":{time_ms},"event_type":"http_request","tenant_id":"tenant-{:03}","user_id":"user-{actor:06}","session_id":"s-{:012x}","device_id":"d-{:08x}","ip_address":"{}.{}.{}.{}","method":"{method}","path":"{path}","route":"{route}","status_code":{status},"response_time_ms":{},"user_agent":"{}","request_id":"req-{:012x}","country":"{}"}}"#,
            id >> 32,
            id >> 16 & 0xffff,
            id >> 4 & 0xfff,
            id & 0xfff,
            self.made,
            actor % 50,
            traits >> 16,
            traits & 0xffff_ffff,
            11 + traits % 200,
            traits >> 8 & 255,
            traits >> 16 & 255,
            traits >> 24 & 255,
            took_ms,
            AGENTS[(traits % 4) as usize],
            request_id,
            COUNTRIES[(traits % 8) as usize],
        );
        self.made += 1;
        Record::new(format!("user-{actor:06}"), json).at_ms(time_ms)
    }

    /// Mostly plain routes, 4 % sign-ins, 1 % that a rule may look at.
    fn request(&mut self) -> (&'static str, String, String) {
        let fixed = |method, path: &str| (method, path.to_owned(), path.to_owned());
        match self.choices.below(1000) {
            0..=39 => fixed("POST", "/api/v1/auth/login"),
            40..=44 => fixed("GET", "/api/v1/users/export"),
            45..=47 => fixed("GET", "/admin/audit-log"),
            48..=49 => fixed("POST", "/admin/users/roles"),
            _ => {
                let what = RESOURCES[self.choices.below(8) as usize];
                let method = METHODS[self.choices.below(4) as usize];
                let (path, route) = match self.choices.below(3) {
                    0 => (format!("/api/v1/{what}/page/{:03}", self.choices.below(1000)), format!("/api/v1/{what}/page/{{n}}")),
                    1 => (format!("/api/v1/{what}/{:08}", self.choices.below(100_000_000)), format!("/api/v1/{what}/{{id}}")),
                    _ => (format!("/api/v1/{what}/{:06}/items", self.choices.below(1_000_000)), format!("/api/v1/{what}/{{id}}/items")),
                };
                (method, path, route)
            }
        }
    }
}

/// The number of the event with this id; none if the id is not one of ours.
pub fn number_of(event_id: &str) -> Option<u64> {
    u64::from_str_radix(event_id.rsplit_once('-')?.1, 16).ok()
}

/// The number of the event that a decision is about.
pub fn number_in(decision: &[u8]) -> Result<u64> {
    #[derive(serde::Deserialize)]
    struct EventId<'a> {
        event_id: &'a str,
    }
    let decision: EventId<'_> = serde_json::from_slice(decision).context("a decision is not JSON")?;
    number_of(decision.event_id).context("a decision names an event that was not sent")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_json_of_the_stated_size_and_know_their_number() {
        let mut events = Events::new(42, 1000);
        let mut bytes = 0;
        for number in 0..2000 {
            let record = events.next(1_767_225_600_000);
            let value = record.value.expect("a value");
            bytes += value.len();
            let json: serde_json::Value = serde_json::from_slice(&value).expect("JSON");
            assert_eq!(json["event_id"].as_str().and_then(number_of), Some(number));
            assert_eq!(record.key.as_deref(), json["user_id"].as_str().map(str::as_bytes));
        }
        let mean = bytes / 2000;
        assert!((470..=500).contains(&mean), "{mean}");
    }

    #[test]
    fn the_busiest_actor_is_far_busier_than_the_median_one() {
        let mut events = Events::new(42, 1000);
        let first = (0..10_000).filter(|_| events.next(0).key.as_deref() == Some(b"user-000000")).count();
        assert!((1000..2500).contains(&first), "{first}");
    }
}
