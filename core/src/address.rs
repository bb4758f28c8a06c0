//! Whom an event concerns: decided once, at routing.
//!
//! Every kind of entity that the loaded rules count gets one observation. The actor is resolved here too, so that an
//! authenticated event is never counted as the actor of its address.

use crate::entity::{Entity, EntityKind, Part};
use crate::event::Event;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

/// Whether equal ids of two tenants are one entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// They are.
    #[default]
    Global,
    /// They are not: the tenant is part of every key.
    Tenant,
}

/// The most proxies in front of an app.
pub const MAX_TRUSTED_HOPS: usize = 16;

/// How events are addressed: the operator's settings, apart from the rules.
#[derive(Debug, Clone, Default)]
pub struct Addressing {
    /// Whether equal ids of two tenants are one entity.
    pub scope: Scope,
    /// Proxies of our own in front of the app, each of which appends to `X-Forwarded-For`; 0: the peer is the client.
    pub trusted_hops: usize,
    /// The key of session hashes; without one no event has a session.
    pub session_key: Option<SessionKey>,
}

/// The secret that session ids are hashed with.
#[derive(Clone)]
pub struct SessionKey(Hmac<Sha256>);

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(…)")
    }
}

impl SessionKey {
    /// A key of any length but 0.
    pub fn new(secret: &str) -> Option<SessionKey> {
        if secret.is_empty() {
            return None;
        }
        // HMAC takes keys of every length.
        Hmac::new_from_slice(secret.as_bytes()).ok().map(SessionKey)
    }

    /// HMAC-SHA-256 of a session id, its first 16 bytes in hexadecimal (RFC 2104; cut as its section 5 allows).
    fn hash(&self, session_id: &str) -> String {
        let mut mac = self.0.clone();
        mac.update(session_id.as_bytes());
        mac.finalize().into_bytes().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Which entities the rules count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kinds {
    /// Some rule counts the actor.
    pub actor: bool,
    /// Events of nobody in particular are counted, too.
    pub anon: bool,
    /// The other kinds, each once, in order.
    pub kinds: Vec<EntityKind>,
}

impl Addressing {
    /// Makes the event fit to be kept: the session id is hashed (or dropped, without a key), and behind trusted proxies
    /// `ip_address` becomes the client's.
    pub fn normalise(&self, event: &mut Event<'_>) {
        if let Some(session) = event.session_id.take() {
            event.session_id = self.session_key.as_ref().map(|key| Cow::Owned(key.hash(&session)));
        }
        if self.trusted_hops > 0
            && let Some(client) = forwarded_client(event.header("x-forwarded-for"), self.trusted_hops)
        {
            event.ip_address = Some(Cow::Owned(client));
        }
    }

    /// Whom a normalised event concerns, each with whether it is the actor. `client` is the client's address.
    pub fn entities(&self, event: &Event<'_>, client: Option<&str>, kinds: &Kinds, out: &mut Vec<(Entity<'static>, bool)>) {
        out.clear();
        if kinds.actor {
            let actor = Entity::actor(event.user_id.as_deref(), client);
            if kinds.anon || actor.kind != EntityKind::ANON {
                out.push((actor.into_owned(), true));
            }
        }
        for &kind in &kinds.kinds {
            let Some(entity) = entity(kind, event, client) else { continue };
            if out.iter().all(|(known, _)| *known != entity) {
                out.push((entity, false));
            }
        }
        if self.scope == Scope::Tenant {
            for (entity, _) in out {
                entity.tenant = Some(Cow::Owned(event.tenant_id.as_deref().unwrap_or_default().to_owned()));
            }
        }
    }
}

/// The entity of this kind; `None` when the event lacks a part.
fn entity(kind: EntityKind, event: &Event<'_>, client: Option<&str>) -> Option<Entity<'static>> {
    let part = |part: Part| -> Option<Cow<'_, str>> {
        match part {
            Part::User => event.user_id.as_deref().map(Cow::Borrowed),
            Part::Ip => client.map(Cow::Borrowed),
            Part::Net24 => client.and_then(network).map(Cow::Owned),
            Part::Device => event.device_id.as_deref().map(Cow::Borrowed),
            Part::Session => event.session_id.as_deref().map(Cow::Borrowed),
            Part::Tenant => event.tenant_id.as_deref().map(Cow::Borrowed),
        }
    };
    let ids: Vec<Cow<'_, str>> = kind.parts().map(part).collect::<Option<_>>()?;
    let ids: Vec<&str> = ids.iter().map(Cow::as_ref).collect();
    Some(Entity::composed(kind, &ids))
}

/// The client's address: counted from the right of `X-Forwarded-For`, because what stands on the left is the client's to
/// write. Each of `hops` proxies appended the address that it was called from. `None` when the list is shorter or what
/// stands there is no address: then the request did not come through them all, and the peer is who called.
fn forwarded_client(forwarded: Option<&str>, hops: usize) -> Option<String> {
    let client = forwarded?.rsplit(',').nth(hops.checked_sub(1)?)?.trim();
    let address = client.parse::<IpAddr>().ok().or_else(|| {
        // `203.0.113.9:4711` and `[2001:db8::1]:4711`, as some proxies write.
        client
            .parse::<std::net::SocketAddr>()
            .ok()
            .map(|socket| socket.ip())
            .or_else(|| client.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).and_then(|inside| inside.parse().ok()))
    })?;
    Some(address.to_canonical().to_string())
}

/// `203.0.113.0/24` or `2001:db8:1::/48`.
fn network(address: &str) -> Option<String> {
    match address.parse::<IpAddr>().ok()?.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            Some(format!("{a}.{b}.{c}.0/24"))
        }
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            Some(format!("{}/48", std::net::Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(json: &str) -> Event<'_> {
        Event::decode(Some(json.as_bytes())).expect("an event")
    }

    fn addressed(json: &str, addressing: &Addressing, kinds: &Kinds) -> Vec<String> {
        let mut event = event(json);
        addressing.normalise(&mut event);
        let mut out = Vec::new();
        addressing.entities(&event, event.ip_address.as_deref(), kinds, &mut out);
        out.iter().map(|(entity, is_actor)| format!("{entity}{}", if *is_actor { " actor" } else { "" })).collect()
    }

    fn kinds(actor: bool, words: &[&str]) -> Kinds {
        Kinds { actor, anon: false, kinds: words.iter().map(|w| EntityKind::parse(w).expect("a kind")).collect() }
    }

    const FULL: &str = r#"{"event_time":1760000000000,"event_type":"t","user_id":"u1","tenant_id":"t1","device_id":"d1","session_id":"s3cret",
        "ip_address":"10.0.0.9","headers":{"X-Forwarded-For":"6.6.6.6, 203.0.113.77:4711, 10.0.0.7"}}"#;

    #[test]
    fn every_kind_that_rules_count_gets_one_entity() {
        let all = kinds(true, &["user", "ip", "net24", "device", "tenant", "tenant+user"]);
        assert_eq!(
            addressed(FULL, &Addressing::default(), &all),
            ["user:u1 actor", "ip:10.0.0.9", "net24:10.0.0.0/24", "device:d1", "tenant:t1", "tenant+user:t1|u1"]
        );
        let anonymous = r#"{"event_time":1760000000000,"event_type":"t","ip_address":"2001:db8:1:2::3"}"#;
        assert_eq!(addressed(anonymous, &Addressing::default(), &all), ["ip:2001:db8:1:2::3 actor", "net24:2001:db8:1::/48"]);
        let nobody = r#"{"event_time":1760000000000,"event_type":"t"}"#;
        assert_eq!(addressed(nobody, &Addressing::default(), &all), [] as [&str; 0]);
        assert_eq!(addressed(nobody, &Addressing::default(), &Kinds { anon: true, ..all }), ["anon actor"]);
    }

    #[test]
    fn the_client_is_counted_from_the_right_by_trusted_hops() {
        for (hops, expected) in [(0, "10.0.0.9"), (1, "10.0.0.7"), (2, "203.0.113.77"), (3, "6.6.6.6"), (4, "10.0.0.9")] {
            let addressing = Addressing { trusted_hops: hops, ..Addressing::default() };
            assert_eq!(addressed(FULL, &addressing, &kinds(false, &["ip"])), [format!("ip:{expected}")], "{hops} hops");
        }
        assert_eq!(forwarded_client(Some("not an address"), 1), None);
        assert_eq!(forwarded_client(Some("[2001:db8::1]:80"), 1).as_deref(), Some("2001:db8::1"));
        assert_eq!(forwarded_client(Some("::ffff:203.0.113.9"), 1).as_deref(), Some("203.0.113.9"));
    }

    #[test]
    fn the_tenant_is_part_of_every_key_under_its_scope() {
        let addressing = Addressing { scope: Scope::Tenant, ..Addressing::default() };
        assert_eq!(addressed(FULL, &addressing, &kinds(true, &["ip"])), ["@t1|user:u1 actor", "@t1|ip:10.0.0.9"]);
    }

    #[test]
    fn a_session_id_leaves_the_router_as_a_keyed_hash_or_not_at_all() {
        let mut plain = event(FULL);
        Addressing::default().normalise(&mut plain);
        assert_eq!(plain.session_id, None);
        let hashed = |secret| {
            let addressing = Addressing { session_key: SessionKey::new(secret), ..Addressing::default() };
            addressed(FULL, &addressing, &kinds(false, &["session"])).concat()
        };
        // HMAC-SHA-256("key", "s3cret"), as openssl computes it.
        assert_eq!(hashed("key"), "session:0574b240beed9f974397fa7ab464d416");
        assert_ne!(hashed("key"), hashed("other"));
        assert!(SessionKey::new("").is_none());
        assert!(!format!("{:?}", SessionKey::new("hunter2")).contains("hunter2"));
    }
}
