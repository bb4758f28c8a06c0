//! Whom behaviour is attributed to.
//!
//! The text of an entity is its key on the wire and on disk, and frozen: `user:u1`, `ip:203.0.113.9`, `anon`; a composite
//! joins its kinds by `+` and its ids by `|` (`tenant+user:t1|u1`); under `entity.scope: tenant` the tenant stands before
//! it (`@t1|user:u1`). Inside composites and tenants `%` and `|` are written `%25` and `%7C`.

use std::borrow::Cow;
use std::fmt;

/// One thing that behaviour can be attributed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// A signed-in user: `user_id`.
    User,
    /// A network address: the client's.
    Ip,
    /// The client's network: the first 24 bits of an IPv4 address, the first 48 of an IPv6 one.
    Net24,
    /// A device: `device_id`.
    Device,
    /// A session: the keyed hash of `session_id`.
    Session,
    /// A tenant: `tenant_id`.
    Tenant,
}

/// Every part with its word.
pub const PARTS: [(&str, Part); 6] = [
    ("user", Part::User),
    ("ip", Part::Ip),
    ("net24", Part::Net24),
    ("device", Part::Device),
    ("session", Part::Session),
    ("tenant", Part::Tenant),
];

/// The most parts of a composite.
pub const MAX_PARTS: usize = 3;

/// What kind of entity: one part, a composite of several, or nobody in particular.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntityKind([Option<Part>; MAX_PARTS]);

impl Part {
    /// The part's word.
    pub fn name(self) -> &'static str {
        PARTS.iter().find(|(_, part)| *part == self).map_or("", |(name, _)| *name)
    }

    /// The part of this word.
    pub fn parse(word: &str) -> Option<Part> {
        PARTS.iter().find(|(name, _)| *name == word).map(|(_, part)| *part)
    }
}

impl From<Part> for EntityKind {
    fn from(part: Part) -> EntityKind {
        EntityKind([Some(part), None, None])
    }
}

impl EntityKind {
    /// Nobody in particular: neither user nor address is known.
    pub const ANON: EntityKind = EntityKind([None; MAX_PARTS]);

    /// A kind made of these parts, in this order; `None` for none, for too many and for one that stands twice.
    pub fn of(parts: &[Part]) -> Option<EntityKind> {
        let repeats = parts.iter().enumerate().any(|(at, part)| parts[..at].contains(part));
        if parts.is_empty() || parts.len() > MAX_PARTS || repeats {
            return None;
        }
        let mut kind = [None; MAX_PARTS];
        for (slot, part) in kind.iter_mut().zip(parts) {
            *slot = Some(*part);
        }
        Some(EntityKind(kind))
    }

    /// The kind of this word: `user`, `tenant+user`, `anon`.
    pub fn parse(word: &str) -> Option<EntityKind> {
        if word == "anon" {
            return Some(EntityKind::ANON);
        }
        let parts: Vec<Part> = word.split('+').map(Part::parse).collect::<Option<_>>()?;
        EntityKind::of(&parts)
    }

    /// What it is made of; nothing for `anon`.
    pub fn parts(self) -> impl Iterator<Item = Part> {
        self.0.into_iter().flatten()
    }

    fn is_composite(self) -> bool {
        self.0[1].is_some()
    }
}

impl fmt::Display for EntityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == EntityKind::ANON {
            return f.write_str("anon");
        }
        self.parts().enumerate().try_for_each(|(at, part)| {
            if at > 0 {
                f.write_str("+")?;
            }
            f.write_str(part.name())
        })
    }
}

/// One entity.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entity<'a> {
    /// The tenant that it lives in under `entity.scope: tenant`; `None` under the global scope. Empty when unknown.
    pub tenant: Option<Cow<'a, str>>,
    /// What kind of entity.
    pub kind: EntityKind,
    /// Its id; empty for `anon`. A composite's ids are joined by `|`, each escaped.
    pub id: Cow<'a, str>,
}

impl<'a> Entity<'a> {
    /// An entity of one part, in the global scope.
    pub fn new(part: Part, id: impl Into<Cow<'a, str>>) -> Entity<'a> {
        Entity { tenant: None, kind: part.into(), id: id.into() }
    }

    /// Nobody in particular.
    pub fn anon() -> Entity<'a> {
        Entity { tenant: None, kind: EntityKind::ANON, id: Cow::Borrowed("") }
    }

    /// The actor: the user if there is one, else the address, else `anon`.
    pub fn actor(user_id: Option<&'a str>, ip_address: Option<&'a str>) -> Entity<'a> {
        match (user_id, ip_address) {
            (Some(user), _) => Entity::new(Part::User, user),
            (None, Some(ip)) => Entity::new(Part::Ip, ip),
            (None, None) => Entity::anon(),
        }
    }

    /// An entity of this kind with these ids, one for each of its parts.
    pub fn composed(kind: EntityKind, ids: &[&str]) -> Entity<'static> {
        let id = if kind.is_composite() {
            ids.iter().map(|id| escaped(id)).collect::<Vec<_>>().join("|")
        } else {
            ids.first().copied().unwrap_or_default().to_owned()
        };
        Entity { tenant: None, kind, id: id.into() }
    }

    /// The same without borrowing.
    pub fn into_owned(self) -> Entity<'static> {
        let owned = |text: Cow<'a, str>| Cow::Owned(text.into_owned());
        Entity { tenant: self.tenant.map(owned), kind: self.kind, id: owned(self.id) }
    }

    /// Reads a key as written by `Display`. `None` if it is none.
    pub fn parse(key: &'a str) -> Option<Entity<'a>> {
        let (tenant, rest) = match key.strip_prefix('@') {
            Some(scoped) => {
                let (tenant, rest) = scoped.split_once('|')?;
                (Some(unescaped(tenant)), rest)
            }
            None => (None, key),
        };
        if rest == "anon" {
            return Some(Entity { tenant, ..Entity::anon() });
        }
        let (kind, id) = rest.split_once(':')?;
        let kind = EntityKind::parse(kind).filter(|kind| *kind != EntityKind::ANON)?;
        Some(Entity { tenant, kind, id: Cow::Borrowed(id) })
    }

    /// Whether a record's key names this entity, with its kind (`user:u1`) or without (`u1`).
    pub fn is_named_by(&self, key: &[u8]) -> bool {
        if self.kind == EntityKind::ANON {
            return key == b"anon";
        }
        if key == self.id.as_bytes() {
            return true;
        }
        let kinds = self.kind.parts().next().map_or("", Part::name).as_bytes();
        let rest = key.strip_prefix(kinds).and_then(|rest| rest.strip_prefix(b":"));
        !self.kind.is_composite() && rest == Some(self.id.as_bytes())
    }

    /// Writes the key into `out` without allocating a string of its own.
    pub fn write_key(&self, out: &mut String) {
        if let Some(tenant) = &self.tenant {
            out.push('@');
            out.push_str(&escaped(tenant));
            out.push('|');
        }
        if self.kind == EntityKind::ANON {
            out.push_str("anon");
            return;
        }
        for (at, part) in self.kind.parts().enumerate() {
            if at > 0 {
                out.push('+');
            }
            out.push_str(part.name());
        }
        out.push(':');
        out.push_str(&self.id);
    }
}

impl fmt::Display for Entity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = String::new();
        self.write_key(&mut key);
        f.write_str(&key)
    }
}

fn escaped(id: &str) -> Cow<'_, str> {
    if id.contains(['%', '|']) { Cow::Owned(id.replace('%', "%25").replace('|', "%7C")) } else { Cow::Borrowed(id) }
}

fn unescaped(id: &str) -> Cow<'_, str> {
    if id.contains('%') { Cow::Owned(id.replace("%7C", "|").replace("%25", "%")) } else { Cow::Borrowed(id) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_actor_is_the_user_else_the_address_else_anon() {
        assert_eq!(Entity::actor(Some("u1"), Some("10.0.0.1")).to_string(), "user:u1");
        assert_eq!(Entity::actor(None, Some("10.0.0.1")).to_string(), "ip:10.0.0.1");
        assert_eq!(Entity::actor(None, None).to_string(), "anon");
    }

    #[test]
    fn a_key_names_an_entity_with_or_without_its_kind() {
        let user = Entity::actor(Some("u1"), None);
        assert!(user.is_named_by(b"u1") && user.is_named_by(b"user:u1"));
        assert!(!user.is_named_by(b"ip:u1") && !user.is_named_by(b"u2") && !user.is_named_by(b""));
        assert!(Entity::actor(None, None).is_named_by(b"anon"));
        assert_eq!(Entity::parse("user:a:b").map(|e| e.to_string()).as_deref(), Some("user:a:b"));
        assert_eq!(Entity::parse("cat:x"), None);
        assert_eq!(Entity::parse("user+user:x|y"), None);
    }

    #[test]
    fn keys_of_composites_and_tenants_are_frozen() {
        let kind = EntityKind::of(&[Part::Tenant, Part::User]).expect("two parts");
        assert_eq!(Entity::composed(kind, &["t|1%", "u1"]).to_string(), "tenant+user:t%7C1%25|u1");
        let scoped = Entity { tenant: Some("a|b%7C".into()), ..Entity::new(Part::Ip, "2001:db8::1") };
        assert_eq!(scoped.to_string(), "@a%7Cb%257C|ip:2001:db8::1");
    }

    proptest! {
        #[test]
        fn a_key_is_read_back_and_two_entities_never_share_one(a in "[|%:@a7C]{0,6}", b in "[|%:@a7C]{0,6}", tenant in proptest::option::of("[|%:@a7C]{0,6}")) {
            let kind = EntityKind::of(&[Part::Tenant, Part::User]).expect("two parts");
            for entity in [Entity::composed(kind, &[&a, &b]), Entity::composed(Part::User.into(), &[&a]), Entity::anon()] {
                let entity = Entity { tenant: tenant.clone().map(Cow::Owned), ..entity };
                let key = entity.to_string();
                prop_assert_eq!(Entity::parse(&key), Some(entity));
            }
            let (one, other) = (Entity::composed(kind, &[&a, &b]), Entity::composed(kind, &[&b, &a]));
            prop_assert_eq!(one == other, a == b);
        }
    }
}
