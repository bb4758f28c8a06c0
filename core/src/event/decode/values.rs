//! How the values of a record are read: nothing in here fails but broken JSON, so that a record's problems can be ranked.

use super::problems::{Names, Problems};
use crate::rejection::Reason;
use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value as Json};
use std::borrow::Cow;
use std::fmt;

/// Says what a visitor takes; never seen, because ours take everything.
macro_rules! expecting_anything {
    () => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("any value")
        }
    };
}

pub(super) use expecting_anything;

fn drain_seq<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<(), A::Error> {
    while seq.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

fn drain_map<'de, A: MapAccess<'de>>(mut map: A) -> Result<(), A::Error> {
    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(())
}

/// A key, borrowed where it has no escapes.
pub(super) struct NameSeed;

impl<'de> DeserializeSeed<'de> for NameSeed {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for NameSeed {
    type Value = Cow<'de, str>;

    expecting_anything!();

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// The value of a flat field. Objects and arrays are read to their end and are only known to have been there.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// Above `i64::MAX`.
    Unsigned(u64),
    Float(f64),
    Text(Cow<'a, str>),
    Nested,
}

pub(super) struct ScalarSeed;

impl<'de> DeserializeSeed<'de> for ScalarSeed {
    type Value = Scalar<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ScalarSeed {
    type Value = Scalar<'de>;

    expecting_anything!();

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Scalar::Int(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(number).map_or(Scalar::Unsigned(number), Scalar::Int))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Scalar::Float(number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        drain_seq(seq).map(|()| Scalar::Nested)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        drain_map(map).map(|()| Scalar::Nested)
    }
}

/// The visitor methods of a field that must be an object: null is absent, anything else has the wrong type.
macro_rules! only_an_object {
    ($empty:expr, $field:literal) => {
        expecting_anything!();

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok($empty)
        }

        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            self.0.note(Reason::WrongType, $field);
            Ok($empty)
        }

        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            self.0.note(Reason::WrongType, $field);
            Ok($empty)
        }

        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            self.0.note(Reason::WrongType, $field);
            Ok($empty)
        }

        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            self.0.note(Reason::WrongType, $field);
            Ok($empty)
        }

        fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
            self.0.note(Reason::WrongType, $field);
            Ok($empty)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
            self.0.note(Reason::WrongType, $field);
            drain_seq(seq).map(|()| $empty)
        }
    };
}

/// Headers: names in lower case, values as text.
pub(super) struct HeadersSeed<'p>(pub &'p mut Problems);

type Headers<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

impl<'de> DeserializeSeed<'de> for HeadersSeed<'_> {
    type Value = Headers<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for HeadersSeed<'_> {
    type Value = Headers<'de>;

    only_an_object!(Vec::new(), "headers");

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut headers = Vec::new();
        let mut names = Names::default();
        let mut folded = false;
        while let Some(name) = map.next_key_seed(NameSeed)? {
            self.0.refuse_nul(&name, "headers");
            let is_lower = !name.bytes().any(|b| b.is_ascii_uppercase());
            folded |= !is_lower;
            let lower = if is_lower { name.clone() } else { Cow::Owned(name.to_ascii_lowercase()) };
            if !names.insert(name) {
                self.0.note(Reason::DuplicateKey, "headers");
            }
            let value = match map.next_value_seed(ScalarSeed)? {
                Scalar::Null => continue,
                Scalar::Text(text) => text,
                Scalar::Bool(truth) => Cow::Borrowed(if truth { "true" } else { "false" }),
                Scalar::Int(number) => Cow::Owned(number.to_string()),
                Scalar::Unsigned(number) => Cow::Owned(number.to_string()),
                Scalar::Float(number) => Cow::Owned(Json::from(number).to_string()),
                Scalar::Nested => {
                    self.0.note(Reason::WrongType, "headers");
                    continue;
                }
            };
            self.0.refuse_nul(&value, "headers");
            headers.push((lower, value));
        }
        Ok(if folded { last_of_equal_names(headers) } else { headers })
    }
}

/// HTTP names differ by more than their case, JSON keys do not: of `Host` and `host` the last one stays.
pub(super) fn last_of_equal_names(headers: Headers<'_>) -> Headers<'_> {
    let mut names = Names::default();
    let mut kept: Headers<'_> = headers.into_iter().rev().filter(|(name, _)| names.insert(name.clone())).collect();
    kept.reverse();
    kept
}

/// The app's own fields: any JSON, no key twice in one object, no U+0000.
pub(super) struct DataSeed<'p>(pub &'p mut Problems);

impl<'de> DeserializeSeed<'de> for DataSeed<'_> {
    type Value = Map<String, Json>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for DataSeed<'_> {
    type Value = Map<String, Json>;

    only_an_object!(Map::new(), "data");

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        read_object(self.0, map)
    }
}

fn read_object<'de, A: MapAccess<'de>>(problems: &mut Problems, mut map: A) -> Result<Map<String, Json>, A::Error> {
    let mut object = Map::new();
    while let Some(name) = map.next_key_seed(NameSeed)? {
        problems.refuse_nul(&name, "data");
        let value = map.next_value_seed(JsonSeed(&mut *problems))?;
        if object.insert(name.into_owned(), value).is_some() {
            problems.note(Reason::DuplicateKey, "data");
        }
    }
    Ok(object)
}

pub(super) struct JsonSeed<'p>(pub &'p mut Problems);

impl<'de> DeserializeSeed<'de> for JsonSeed<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for JsonSeed<'_> {
    type Value = Json;

    expecting_anything!();

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Self::Value, E> {
        Ok(Json::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Json::from(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Json::from(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Number::from_f64(number).map_or(Json::Null, Json::Number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Json::String(text.to_owned()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        if text.contains('\0') {
            self.0.note(Reason::ControlCharacter, "data");
        }
        Ok(Json::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(JsonSeed(&mut *self.0))? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        read_object(self.0, map).map(Json::Object)
    }
}
