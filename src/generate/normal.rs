//! Ordinary people and programs: they sign in, browse, call the API, make mistakes and cause domain events.
//!
//! An ordinary actor stays below the thresholds of the parity pack at any rate and for any length: each kind of
//! behaviour that a rule counts has a shortest time between two of its occurrences (the constants below), so what fires
//! is an attack, and the truth file is the whole truth.

use super::rng::Rng;
use super::wire::{REQUEST, Wire};
use serde_json::json;
use std::collections::BTreeMap;

/// Between two 400 answers, and between two 403: at most 4 in the 120 s in which 5 fire.
const ERROR_APART_MS: i64 = 40_000;
/// Between two writes below a sensitive prefix, sign-ins among them: at most 12 in the 60 s in which 20 fire.
const WRITE_APART_MS: i64 = 5_000;
/// Between two looks below `/api/v1/users/`, which the pack counts as probing: at most 5 in the 300 s in which 10 fire.
const LOOK_APART_MS: i64 = 60_000;

const AGENTS: [&str; 4] = [
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Mobile",
    "okhttp/4.12.0",
];
const COUNTRIES: [&str; 6] = ["DE", "US", "FR", "BR", "IN", "JP"];
const TENANTS: [&str; 5] = ["acme", "globex", "initech", "umbrella", "hooli"];

/// The tenant of this number.
pub fn tenant(number: u64) -> String {
    TENANTS[(number % TENANTS.len() as u64) as usize].to_owned()
}

/// What an actor did last, as far as a rule counts it.
#[derive(Debug, Clone)]
struct Actor {
    signed_in: bool,
    last_sign_in_ms: i64,
    last_bad_request_ms: i64,
    last_forbidden_ms: i64,
    last_write_ms: i64,
    last_look_ms: i64,
}

/// Everyone ordinary.
#[derive(Debug)]
pub struct Population {
    actors: Vec<Actor>,
}

/// Who an actor is: always the same for the same number.
pub fn identity(number: u64) -> Wire {
    let mut traits = Rng::new(number ^ 0x7472_6970_6c69_6e65);
    Wire {
        event_type: REQUEST,
        tenant_id: Some(tenant(number)),
        user_id: Some(format!("u-{number:06}")),
        session_id: Some(format!("s-{:012x}", traits.next_u64() >> 16)),
        device_id: Some(format!("d-{:08x}", traits.next_u64() >> 32)),
        // Unique below 16 million actors, so that two ordinary actors behind one address never add up.
        ip_address: Some(format!("10.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255)),
        user_agent: Some(traits.pick(&AGENTS)),
        country: Some(traits.pick(&COUNTRIES)),
        ..Wire::default()
    }
}

impl Population {
    /// So many actors, none of whom has done anything yet.
    pub fn new(actors: u64) -> Population {
        let never = i64::MIN / 2;
        let actor = Actor {
            signed_in: false,
            last_sign_in_ms: never,
            last_bad_request_ms: never,
            last_forbidden_ms: never,
            last_write_ms: never,
            last_look_ms: never,
        };
        Population { actors: vec![actor; actors as usize] }
    }

    /// What somebody does at this time.
    pub fn act(&mut self, rng: &mut Rng, now_ms: i64) -> Wire {
        if rng.chance(3) {
            return health_check();
        }
        // Few are busy, many are not: the smaller of two draws.
        let many = self.actors.len() as u64;
        let number = rng.below(many).min(rng.below(many));
        let actor = &mut self.actors[number as usize];
        let mut wire = identity(number);
        wire.response_time_ms = Some(rng.between(4, 420));
        wire.request_id = Some(format!("r-{:016x}", rng.next_u64()));
        if !actor.signed_in {
            actor.signed_in = true;
            actor.last_sign_in_ms = now_ms;
            return sign_in(wire);
        }
        match rng.below(1000) {
            0..=9 if now_ms - actor.last_sign_in_ms >= WRITE_APART_MS => {
                actor.signed_in = false;
                request(wire, "POST", "/api/v1/session/end".into(), "/api/v1/session/end", 204)
            }
            10..=59 => domain_event(wire, rng),
            60..=89 if now_ms - actor.last_write_ms >= WRITE_APART_MS => {
                actor.last_write_ms = now_ms;
                let invoice = rng.below(100_000);
                request(wire, "PUT", format!("/api/v1/invoice/{invoice}"), "/api/v1/invoice/{id}", 200)
            }
            90..=99 if now_ms - actor.last_look_ms >= LOOK_APART_MS => {
                actor.last_look_ms = now_ms;
                request(wire, "GET", format!("/api/v1/users/{number}"), "/api/v1/users/{id}", 200)
            }
            100..=114 if now_ms - actor.last_bad_request_ms >= ERROR_APART_MS => {
                actor.last_bad_request_ms = now_ms;
                request(wire, "POST", "/api/v1/orders".into(), "/api/v1/orders", 400)
            }
            115..=119 if now_ms - actor.last_forbidden_ms >= ERROR_APART_MS => {
                actor.last_forbidden_ms = now_ms;
                request(wire, "GET", "/api/v1/reports/finance".into(), "/api/v1/reports/{name}", 403)
            }
            120..=149 => request(wire, "GET", format!("/api/v1/products/{}", rng.below(1_000_000)), "/api/v1/products/{id}", 404),
            150..=154 => request(wire, "GET", "/api/v1/search".into(), "/api/v1/search", 500),
            _ => browse(wire, rng),
        }
    }
}

/// Fills in what makes an event a request.
pub fn request(wire: Wire, method: &'static str, path: String, route: &'static str, status: u16) -> Wire {
    Wire { event_type: REQUEST, method: Some(method), path: Some(path), route: Some(route), status_code: Some(status), ..wire }
}

/// Not signed in yet: the actor of a sign-in is the address.
fn sign_in(wire: Wire) -> Wire {
    let unknown = Wire { user_id: None, session_id: None, tenant_id: None, ..wire };
    request(unknown, "POST", "/api/v1/auth/login".into(), "/api/v1/auth/login", 200)
}

/// A load balancer asking whether the app is well: nobody's request.
fn health_check() -> Wire {
    let nobody = Wire { user_agent: Some("kube-probe/1.33"), response_time_ms: Some(1), ..Wire::default() };
    request(nobody, "GET", "/health".into(), "/health", 200)
}

fn browse(wire: Wire, rng: &mut Rng) -> Wire {
    match rng.below(6) {
        0 => request(wire, "GET", "/".into(), "/", 200),
        1 => request(wire, "GET", format!("/api/v1/products/{}", rng.below(5_000)), "/api/v1/products/{id}", 200),
        2 => request(wire, "GET", "/api/v1/search".into(), "/api/v1/search", 200),
        3 => request(wire, "GET", format!("/api/v1/orders/{}", rng.below(100_000)), "/api/v1/orders/{id}", 200),
        4 => request(wire, "POST", "/api/v1/carts".into(), "/api/v1/carts", 201),
        _ => {
            // Apps that send the tenant header send the right one.
            let tenant = wire.tenant_id.clone().unwrap_or_default();
            let wire = Wire { headers: BTreeMap::from([("X-Tenant", tenant)]), ..wire };
            request(wire, "GET", "/api/v1/dashboard".into(), "/api/v1/dashboard", 200)
        }
    }
}

fn domain_event(wire: Wire, rng: &mut Rng) -> Wire {
    let (event_type, data) = match rng.below(3) {
        0 => {
            let cents = rng.between(500, 90_000);
            let data = [("order_id", json!(rng.below(1_000_000))), ("amount_cents", json!(cents)), ("currency", json!("EUR"))];
            ("order.created", BTreeMap::from(data))
        }
        1 => ("invoice.paid", BTreeMap::from([("invoice_id", json!(rng.below(100_000))), ("card_number", json!("4111111111111111"))])),
        _ => ("user.invited", BTreeMap::from([("role", json!("viewer")), ("invites", json!(rng.between(1, 3)))])),
    };
    Wire { event_type, data, request_id: None, response_time_ms: None, user_agent: None, ..wire }
}
