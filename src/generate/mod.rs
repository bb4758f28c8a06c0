//! Seeded synthetic traffic: ordinary actors, labelled attacks, optionally malformed records.
//!
//! Promises: the same options give the same bytes; every record that is not meant to be malformed decodes; an unlabelled
//! event never makes the parity pack fire, and each attack has enough steps to do so. Start reading at [`traffic`].

mod attack;
pub mod kafka;
mod malformed;
mod normal;
pub mod rng;
#[cfg(test)]
mod tests;
mod wire;

pub use attack::Attack;
use rng::Rng;
use tripline_core::hash::derived_id;
use tripline_core::time::format_rfc3339_ms;

/// What traffic to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Everything random follows from it.
    pub seed: u64,
    /// Valid events.
    pub events: u64,
    /// Events per second of event time, at least 1.
    pub rate: u64,
    /// Whether there are attacks.
    pub attacks: bool,
    /// Ordinary actors, at least 1; attackers have identities of their own.
    pub actors: u64,
    /// Event time of the first event, milliseconds since the epoch.
    pub start_ms: i64,
    /// Malformed records, in addition to the events and spread evenly among them.
    pub malformed: u64,
    /// Leave out malformed records that no line of a file can hold (null and empty values).
    pub lines: bool,
    /// Where requests go.
    pub requests_topic: String,
    /// Where domain events go.
    pub events_topic: String,
    /// One topic whose key is the actor's id: everything goes to the requests topic.
    pub keyed: bool,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// Its topic.
    pub topic: String,
    /// Its key: the actor's id when keyed, else the request's id or none.
    pub key: Option<String>,
    /// Its value; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its event time, which is also the record's timestamp.
    pub time_ms: i64,
    /// What it is, if it is not ordinary.
    pub label: Option<Label>,
}

/// The truth about a record that is not ordinary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Label {
    /// A step of an attack.
    Attack {
        /// Which.
        attack: Attack,
        /// The event's id.
        event_id: String,
        /// The attacker's id.
        actor: String,
    },
    /// Rejected for this reason.
    Malformed(tripline_core::rejection::Reason),
}

/// The traffic of these options, in the order of event time.
pub fn traffic(options: Options) -> impl Iterator<Item = Generated> {
    let mut source = Source {
        rng: Rng::new(options.seed),
        population: normal::Population::new(options.actors.max(1)),
        campaigns: options.attacks.then(|| attack::Campaigns::new(options.actors.max(1), options.rate.max(1))),
        made_events: 0,
        made_malformed: 0,
        options,
    };
    std::iter::from_fn(move || source.next())
}

struct Source {
    rng: Rng,
    population: normal::Population,
    campaigns: Option<attack::Campaigns>,
    made_events: u64,
    made_malformed: u64,
    options: Options,
}

impl Source {
    fn next(&mut self) -> Option<Generated> {
        let events = u128::from(self.options.events);
        // Record k of the malformed ones stands before event k × events / malformed: with the same share everywhere.
        let place = u128::from(self.made_malformed) * events / u128::from(self.options.malformed.max(1));
        if self.made_malformed < self.options.malformed && u128::from(self.made_events) >= place {
            return Some(self.malformed());
        }
        (self.made_events < self.options.events).then(|| self.event())
    }

    fn now_ms(&self) -> i64 {
        self.options.start_ms.saturating_add((u128::from(self.made_events) * 1000 / u128::from(self.options.rate.max(1))) as i64)
    }

    fn malformed(&mut self) -> Generated {
        let time_ms = self.now_ms();
        let (reason, value) = malformed::record(self.made_malformed, &format_rfc3339_ms(time_ms), self.options.lines);
        self.made_malformed += 1;
        let topic = self.options.requests_topic.clone();
        Generated { topic, key: None, value, time_ms, label: Some(Label::Malformed(reason)) }
    }

    fn event(&mut self) -> Generated {
        let time_ms = self.now_ms();
        let attack = self.campaigns.as_mut().and_then(|campaigns| campaigns.next(&mut self.rng));
        let (attack, mut wire) = match attack {
            Some((attack, wire)) => (Some(attack), wire),
            None => (None, self.population.act(&mut self.rng, time_ms)),
        };
        // The start is part of the id: a second run with the same seed is new traffic, not a repeat that is recognised and dropped.
        let run = [self.options.seed.to_string(), self.options.start_ms.to_string(), self.made_events.to_string()];
        wire.event_id = derived_id(&["generate", &run[0], &run[1], &run[2]]).to_string();
        wire.event_time = format_rfc3339_ms(time_ms);
        self.made_events += 1;
        let label = attack.map(|attack| Label::Attack { attack, event_id: wire.event_id.clone(), actor: wire.actor_key() });
        let topic = if self.options.keyed || wire.is_request() { &self.options.requests_topic } else { &self.options.events_topic };
        let key = if self.options.keyed { Some(wire.actor_key()) } else { wire.request_id.clone() };
        // Plain strings, numbers and maps with text keys: writing them cannot fail.
        let value = serde_json::to_vec(&wire).expect("an event of our own making is writable as JSON");
        Generated { topic: topic.clone(), key, value: Some(value), time_ms, label }
    }
}
