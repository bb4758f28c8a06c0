//! Whom behaviour is attributed to.

use std::borrow::Cow;
use std::fmt;

/// The kinds of entity that have counters today. Their words are frozen: they are part of every key on the wire and on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EntityKind {
    /// A signed-in user.
    User,
    /// A network address.
    Ip,
    /// Nobody in particular: neither user nor address is known.
    Anon,
}

/// One entity: `user:u1`, `ip:203.0.113.9` or `anon`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entity<'a> {
    /// What kind of entity.
    pub kind: EntityKind,
    /// Its id; empty for [`EntityKind::Anon`].
    pub id: Cow<'a, str>,
}

impl EntityKind {
    /// The kind's word on the wire.
    pub fn name(self) -> &'static str {
        match self {
            EntityKind::User => "user",
            EntityKind::Ip => "ip",
            EntityKind::Anon => "anon",
        }
    }
}

impl<'a> Entity<'a> {
    /// The actor: the user if there is one, else the address, else `anon`.
    pub fn actor(user_id: Option<&'a str>, ip_address: Option<&'a str>) -> Entity<'a> {
        match (user_id, ip_address) {
            (Some(user), _) => Entity { kind: EntityKind::User, id: Cow::Borrowed(user) },
            (None, Some(ip)) => Entity { kind: EntityKind::Ip, id: Cow::Borrowed(ip) },
            (None, None) => Entity { kind: EntityKind::Anon, id: Cow::Borrowed("") },
        }
    }

    /// Reads a key as written by `Display`. `None` if the kind is unknown.
    pub fn parse(key: &'a str) -> Option<Entity<'a>> {
        if key == "anon" {
            return Some(Entity { kind: EntityKind::Anon, id: Cow::Borrowed("") });
        }
        let (kind, id) = key.split_once(':')?;
        let kind = match kind {
            "user" => EntityKind::User,
            "ip" => EntityKind::Ip,
            _ => return None,
        };
        Some(Entity { kind, id: Cow::Borrowed(id) })
    }

    /// Whether a record's key names this entity, with its kind (`user:u1`) or without (`u1`).
    pub fn is_named_by(&self, key: &[u8]) -> bool {
        if self.kind == EntityKind::Anon {
            return key == b"anon";
        }
        let id = self.id.as_bytes();
        let kind = self.kind.name().as_bytes();
        key == id || (key.len() == kind.len() + 1 + id.len() && key.starts_with(kind) && key[kind.len()] == b':' && key.ends_with(id))
    }

    /// Writes the key into `out` without allocating a string of its own.
    pub fn write_key(&self, out: &mut String) {
        out.push_str(self.kind.name());
        if self.kind != EntityKind::Anon {
            out.push(':');
            out.push_str(&self.id);
        }
    }
}

impl fmt::Display for Entity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            EntityKind::Anon => f.write_str("anon"),
            kind => write!(f, "{}:{}", kind.name(), self.id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
