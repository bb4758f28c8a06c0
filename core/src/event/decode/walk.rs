//! One walk through a record of another shape: what stands at the places of a mapping is kept, the rest is stepped over.
//!
//! Besides plain JSON it understands how OTLP writes attributes: a list of `{"key": …, "value": …}` stands for an object,
//! and `{"stringValue": …}` and its kin for what they wrap. A list stands for its first item that is not null.

use super::Dialect;
use super::cloud::MARK;
use super::otlp::{unwrapped, wraps_many, wraps_one};
use super::problems::Problems;
use super::values::{HeadersSeed, JsonSeed, NameSeed, Scalar, ScalarSeed, expecting_anything};
use crate::event::mapping::{MAX_PLACES, Node, ROOT, Tree};
use crate::rejection::Reason;
use serde::Deserializer;
use serde::de::{Deserialize, DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// What a walk has found so far.
pub(super) struct Walk<'t, 'de> {
    pub tree: &'t Tree,
    pub problems: Problems,
    /// By [`Node::scalar`].
    pub scalars: Vec<Scalar<'de>>,
    /// By [`Node::whole`].
    pub wholes: Vec<Json>,
    pub headers: Vec<(Cow<'de, str>, Cow<'de, str>)>,
    /// Places seen, one bit each: a value that stands twice has two meanings.
    seen: [u64; MAX_PLACES / 64],
    dialect: Dialect,
    /// The walk was ended, because the record is an envelope.
    pub is_envelope: bool,
}

impl<'t, 'de> Walk<'t, 'de> {
    pub fn new(tree: &'t Tree, dialect: Dialect) -> Walk<'t, 'de> {
        Walk {
            tree,
            problems: Problems::default(),
            scalars: std::iter::repeat_with(|| Scalar::Null).take(tree.scalars).collect(),
            wholes: vec![Json::Null; tree.wholes.len()],
            headers: Vec::new(),
            seen: [0; MAX_PLACES / 64],
            dialect,
            is_envelope: false,
        }
    }

    fn node(&self, node: usize) -> &'t Node {
        &self.tree.nodes[node]
    }

    /// The place of a key in the object at `node`, noted when it was there before.
    fn enter(&mut self, node: usize, key: &str) -> Option<usize> {
        let found = *self.node(node).below.get(key)?;
        let (word, bit) = (found / 64, 1_u64 << (found % 64));
        if self.seen[word] & bit != 0 {
            self.problems.note(Reason::DuplicateKey, "a mapped key");
        }
        self.seen[word] |= bit;
        Some(found)
    }

    /// Keeps a single value, if one is wanted here and none was found.
    fn keep(&mut self, node: usize, value: Scalar<'de>) {
        if let Some(scalar) = self.node(node).scalar
            && matches!(self.scalars[scalar], Scalar::Null | Scalar::Nested)
        {
            self.scalars[scalar] = value;
        }
    }

    /// An object or a list where a single value is wanted and nothing lies deeper: the type is wrong, unless another
    /// source has the value.
    fn keep_nested(&mut self, node: usize) {
        if self.node(node).below.is_empty() {
            self.keep(node, Scalar::Nested);
        }
    }

    /// A value that was stepped over when its meaning was not known yet.
    fn revisit(&mut self, raw: &'de RawValue, node: usize) {
        let again = &mut serde_json::Deserializer::from_str(raw.get());
        if (Value { walk: self, node, stands: Stands::AtPlace }).deserialize(again).is_err() {
            self.problems.note(Reason::InvalidJson, "inside a mapped value");
        }
    }

    /// A value that is wanted in more than one way: read once for each.
    fn in_every_way(&mut self, raw: &'de RawValue, node: usize) {
        let place = self.node(node);
        let mut is_sound = true;
        if place.scalar.is_some() || !place.below.is_empty() {
            let again = &mut serde_json::Deserializer::from_str(raw.get());
            is_sound &= again.deserialize_any(Value { walk: self, node, stands: Stands::AtPlace }).is_ok();
        }
        if place.headers {
            let again = &mut serde_json::Deserializer::from_str(raw.get());
            let headers = HeadersSeed(&mut self.problems).deserialize(again);
            is_sound &= headers.map(|headers| self.headers = headers).is_ok();
        }
        if let Some(whole) = place.whole {
            let again = &mut serde_json::Deserializer::from_str(raw.get());
            let value = JsonSeed(&mut self.problems).deserialize(again);
            is_sound &= value.map(|value| self.wholes[whole] = unwrapped(value, &mut self.problems)).is_ok();
        }
        if !is_sound {
            self.problems.note(Reason::InvalidJson, "inside a mapped value");
        }
    }
}

impl<'de> Visitor<'de> for &mut Walk<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        walk_object(self, ROOT, map)
    }
}

fn walk_object<'de, A: MapAccess<'de>>(walk: &mut Walk<'_, 'de>, node: usize, mut map: A) -> Result<(), A::Error> {
    let (mut is_empty, mut wrappers) = (true, 0);
    while let Some(name) = map.next_key_seed(NameSeed)? {
        is_empty = false;
        if node == ROOT && name == MARK && walk.dialect == Dialect::Event {
            let raw = map.next_value::<&'de RawValue>()?;
            if raw.get().starts_with('"') {
                walk.is_envelope = true;
                return Err(A::Error::custom("an envelope"));
            }
            if let Some(below) = walk.enter(node, &name) {
                walk.revisit(raw, below);
            }
        } else if let Some(below) = walk.enter(node, &name) {
            map.next_value_seed(Value { walk, node: below, stands: Stands::AtPlace })?;
        } else if node == ROOT {
            map.next_value::<IgnoredAny>()?;
        } else if read_wrapped(walk, node, &name, &mut map)? {
            wrappers += 1;
        }
    }
    match wrappers {
        0 if !is_empty => walk.keep_nested(node),
        0 | 1 => {}
        _ => walk.problems.note(Reason::DuplicateKey, "a mapped key"),
    }
    Ok(())
}

/// A value at a place.
struct Value<'w, 't, 'de> {
    walk: &'w mut Walk<'t, 'de>,
    node: usize,
    stands: Stands,
}

/// How a value stands at its place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stands {
    /// As itself.
    AtPlace,
    /// As an item of the list there.
    InList,
    /// Below `values` of the object there.
    InValues,
}

impl<'de> DeserializeSeed<'de> for Value<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.stands != Stands::AtPlace {
            return deserializer.deserialize_any(self);
        }
        let place = self.walk.node(self.node);
        let is_walked = place.scalar.is_some() || !place.below.is_empty();
        match (place.whole, place.headers, is_walked) {
            (None, false, _) => deserializer.deserialize_any(self),
            (Some(whole), false, false) => {
                let value = JsonSeed(&mut self.walk.problems).deserialize(deserializer)?;
                self.walk.wholes[whole] = unwrapped(value, &mut self.walk.problems);
                Ok(())
            }
            (None, true, false) => {
                self.walk.headers = HeadersSeed(&mut self.walk.problems).deserialize(deserializer)?;
                Ok(())
            }
            _ => {
                let raw = <&'de RawValue>::deserialize(deserializer)?;
                self.walk.in_every_way(raw, self.node);
                Ok(())
            }
        }
    }
}

impl<'de> Visitor<'de> for Value<'_, '_, 'de> {
    type Value = ();

    expecting_anything!();

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, truth: bool) -> Result<(), E> {
        self.walk.keep(self.node, Scalar::Bool(truth));
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.walk.keep(self.node, Scalar::Int(number));
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.walk.keep(self.node, i64::try_from(number).map_or(Scalar::Unsigned(number), Scalar::Int));
        Ok(())
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        self.walk.keep(self.node, Scalar::Float(number));
        Ok(())
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<(), E> {
        self.walk.keep(self.node, Scalar::Text(Cow::Borrowed(text)));
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        if self.walk.node(self.node).scalar.is_some() {
            self.walk.keep(self.node, Scalar::Text(Cow::Owned(text.to_owned())));
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Value { walk, node, stands } = self;
        if stands == Stands::InList {
            walk.keep_nested(node);
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        while seq.next_element_seed(Value { walk, node, stands: Stands::InList })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        match self.stands {
            Stands::AtPlace => walk_object(self.walk, self.node, map),
            Stands::InList => walk_item(self.walk, self.node, map),
            Stands::InValues => walk_values(self.walk, self.node, map),
        }
    }
}

/// `{"values": […]}`: what is listed stands at the place itself.
fn walk_values<'de, A: MapAccess<'de>>(walk: &mut Walk<'_, 'de>, node: usize, mut map: A) -> Result<(), A::Error> {
    while let Some(name) = map.next_key_seed(NameSeed)? {
        if name == "values" {
            map.next_value_seed(Value { walk, node, stands: Stands::AtPlace })?;
        } else {
            map.next_value::<IgnoredAny>()?;
        }
    }
    Ok(())
}

/// An object in a list: an attribute with its key, or a wrapped value.
fn walk_item<'de, A: MapAccess<'de>>(walk: &mut Walk<'_, 'de>, node: usize, mut map: A) -> Result<(), A::Error> {
    let (mut key, mut raw, mut has_value, mut is_wrapper) = (None, None, false, false);
    while let Some(name) = map.next_key_seed(NameSeed)? {
        let is_again = match name.as_ref() {
            "key" => key.is_some(),
            "value" => std::mem::replace(&mut has_value, true),
            _ => false,
        };
        if is_again {
            walk.problems.note(Reason::DuplicateKey, "a mapped key");
            map.next_value::<IgnoredAny>()?;
            continue;
        }
        match name.as_ref() {
            "key" => {
                key = Some(match map.next_value_seed(ScalarSeed)? {
                    Scalar::Text(key) => walk.enter(node, &key),
                    _ => None,
                });
            }
            "value" => match key {
                Some(Some(below)) => map.next_value_seed(Value { walk, node: below, stands: Stands::AtPlace })?,
                Some(None) => drop(map.next_value::<IgnoredAny>()?),
                // The value stands before its key.
                None => raw = Some(map.next_value::<&'de RawValue>()?),
            },
            name => is_wrapper |= read_wrapped(walk, node, name, &mut map)?,
        }
    }
    match (key, raw) {
        (Some(Some(below)), Some(raw)) => walk.revisit(raw, below),
        (None, _) if !is_wrapper => walk.keep_nested(node),
        _ => {}
    }
    Ok(())
}

/// Reads the value of a key that has no place of its own; answers whether it was one of OTLP's wrappers.
fn read_wrapped<'de, A: MapAccess<'de>>(walk: &mut Walk<'_, 'de>, node: usize, name: &str, map: &mut A) -> Result<bool, A::Error> {
    let is_wrapper = wraps_one(name) || wraps_many(name);
    if wraps_one(name) {
        map.next_value_seed(Value { walk, node, stands: Stands::AtPlace })?;
    } else if wraps_many(name) {
        map.next_value_seed(Value { walk, node, stands: Stands::InValues })?;
    } else {
        map.next_value::<IgnoredAny>()?;
    }
    Ok(is_wrapper)
}
