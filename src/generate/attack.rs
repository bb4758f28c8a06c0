//! Attacks, one after the other: each is a campaign of one attacker with a fixed number of steps.
//!
//! A campaign always has enough steps inside the window of the rule that looks for it: a step follows its predecessor
//! within a second of event time (see [`Campaigns::next`]), and every plan below is shorter than its window.

use super::normal::{identity, request, tenant};
use super::rng::Rng;
use super::wire::Wire;
use serde_json::json;
use std::collections::BTreeMap;

/// What an attacker does; the word stands in the truth file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attack {
    /// Asks for admin pages, one of them again and again.
    PathProbing,
    /// Many writes to one sensitive endpoint.
    SensitiveBurst,
    /// Tries passwords: a series of 403 on the sign-in, from an address.
    CredentialGuessing,
    /// Tries inputs: a series of 400.
    ValidationProbing,
    /// Names another tenant in the header.
    CrossTenant,
    /// The app itself reports an anomaly.
    ReportedAnomaly,
}

impl Attack {
    /// All of them, in the order in which they take turns.
    pub const ALL: [Attack; 6] = [
        Attack::SensitiveBurst,
        Attack::PathProbing,
        Attack::CredentialGuessing,
        Attack::CrossTenant,
        Attack::ReportedAnomaly,
        Attack::ValidationProbing,
    ];

    /// The attack's word.
    pub fn name(self) -> &'static str {
        match self {
            Attack::PathProbing => "path_probing",
            Attack::SensitiveBurst => "sensitive_burst",
            Attack::CredentialGuessing => "credential_guessing",
            Attack::ValidationProbing => "validation_probing",
            Attack::CrossTenant => "cross_tenant",
            Attack::ReportedAnomaly => "reported_anomaly",
        }
    }

    /// How many events one campaign has.
    fn steps(self, rng: &mut Rng) -> u64 {
        match self {
            Attack::PathProbing => rng.between(24, 40),
            Attack::SensitiveBurst => rng.between(22, 45),
            Attack::CredentialGuessing => rng.between(8, 16),
            Attack::ValidationProbing => rng.between(7, 14),
            Attack::CrossTenant => rng.between(2, 5),
            Attack::ReportedAnomaly => rng.between(1, 3),
        }
    }
}

const SENSITIVE: [&str; 4] = ["/api/v1/payments/confirm", "/api/v1/account/password", "/api/v1/invoice/export", "/api/v1/users/import"];
const ADMIN: [&str; 6] = ["/admin/", "/admin/login", "/admin/users", "/admin/config.php", "/admin/backup.zip", "/admin/export"];
const REPORTED: [&str; 4] =
    ["invoice_amount_paid_tampering", "stock_underflow_attempt", "duplicate_submission_pattern", "custom_checkout_velocity"];

/// One attacker at work.
#[derive(Debug)]
struct Campaign {
    attack: Attack,
    attacker: Wire,
    /// The favourite path, or another choice that lasts for the whole campaign.
    choice: u64,
    steps_left: u64,
}

/// The campaigns of one run.
#[derive(Debug)]
pub struct Campaigns {
    /// The first number after the ordinary actors: attackers have identities of their own.
    next_attacker: u64,
    turn: usize,
    current: Option<Campaign>,
    /// Ordinary events until the next step.
    wait_events: u64,
    /// The longest wait between two steps: a second at most, and 20 events, so that a campaign also ends at a high rate.
    longest_gap_events: u64,
}

impl Campaigns {
    /// Campaigns beside this many ordinary actors at this many events per second.
    pub fn new(actors: u64, rate: u64) -> Campaigns {
        Campaigns { next_attacker: actors, turn: 0, current: None, wait_events: 40, longest_gap_events: rate.clamp(1, 20) }
    }

    /// The event of an attack, if it is an attacker's turn.
    pub fn next(&mut self, rng: &mut Rng) -> Option<(Attack, Wire)> {
        if self.wait_events > 0 {
            self.wait_events -= 1;
            return None;
        }
        let mut campaign = self.current.take().unwrap_or_else(|| self.begin(rng));
        let step = (campaign.attack, campaign.step(rng));
        campaign.steps_left -= 1;
        if campaign.steps_left > 0 {
            self.current = Some(campaign);
            self.wait_events = rng.below(self.longest_gap_events);
        } else {
            self.wait_events = rng.between(100, 400);
        }
        Some(step)
    }

    fn begin(&mut self, rng: &mut Rng) -> Campaign {
        let attack = Attack::ALL[self.turn % Attack::ALL.len()];
        let number = self.next_attacker;
        self.turn += 1;
        self.next_attacker += 1;
        let attacker = Wire { ip_address: Some(outside_address(number)), ..identity(number) };
        let attacker = match attack {
            // Nobody is signed in: the attacker is an address.
            Attack::CredentialGuessing => Wire { user_id: None, session_id: None, tenant_id: None, ..attacker },
            _ => attacker,
        };
        Campaign { attack, attacker, choice: rng.next_u64() >> 1, steps_left: attack.steps(rng) }
    }
}

/// An address of the shared address space 100.64.0.0/10, which is no real client's: unique for four million attackers.
fn outside_address(number: u64) -> String {
    format!("100.{}.{}.{}", 64 + (number >> 16 & 63), number >> 8 & 255, number & 255)
}

impl Campaign {
    fn step(&self, rng: &mut Rng) -> Wire {
        let mut wire = self.attacker.clone();
        wire.request_id = Some(format!("r-{:016x}", rng.next_u64()));
        wire.response_time_ms = Some(rng.between(2, 60));
        let chosen = |items: &[&'static str]| items[(self.choice % items.len() as u64) as usize];
        match self.attack {
            Attack::SensitiveBurst => {
                let path = chosen(&SENSITIVE);
                request(wire, "POST", path.to_owned(), path, 200)
            }
            Attack::PathProbing => {
                // Two of three steps ask for the favourite: at least 16 of 24, and 10 fire.
                let path = if self.steps_left.is_multiple_of(3) { rng.pick(&ADMIN) } else { chosen(&ADMIN) };
                request(wire, "GET", path.to_owned(), path, 404)
            }
            Attack::CredentialGuessing => request(wire, "POST", "/api/v1/auth/login".into(), "/api/v1/auth/login", 403),
            Attack::ValidationProbing => request(wire, "POST", "/api/v1/orders".into(), "/api/v1/orders", 400),
            Attack::CrossTenant => {
                let own = self.attacker.tenant_id.clone().unwrap_or_default();
                let other = (0..).map(|n| tenant(self.choice % 5 + n)).find(|name| *name != own).unwrap_or_default();
                wire.headers = BTreeMap::from([("X-Tenant", other)]);
                request(wire, "GET", format!("/api/v1/orders/{}", rng.below(100_000)), "/api/v1/orders/{id}", 200)
            }
            Attack::ReportedAnomaly => Wire {
                event_type: "anomaly.reported",
                anomaly_type: Some(chosen(&REPORTED)),
                data: BTreeMap::from([
                    ("form", json!("checkout")),
                    ("attempt_count", json!(rng.between(1, 9))),
                    ("access_token", json!(format!("tok-{:016x}", rng.next_u64()))),
                    ("payment", json!({"cvv": format!("{:03}", rng.below(1000)), "method": "card"})),
                ]),
                request_id: None,
                response_time_ms: None,
                user_agent: None,
                ..wire
            },
        }
    }
}
