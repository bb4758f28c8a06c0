//! Values with a unit: `"50ms"`, `"64MiB"`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::time::Duration;

/// A length of time, written `"50ms"`, `"1s"`, `"5m"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

/// A length of time that may be `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(pub Option<Duration>);

/// A size that may be `auto`: its share of `memory.budget`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(pub Option<usize>);

/// A size, written `"512KiB"`, `"64MiB"`, `"1GiB"` or a number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub usize);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Span, D::Error> {
        let text = String::deserialize(d)?;
        tripline_core::time::parse_duration_ms(&text)
            .map(|ms| Span(Duration::from_millis(ms as u64)))
            .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not a length of time: write it like \"50ms\", \"1s\", \"5m\"")))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&tripline_core::time::format_duration_ms(self.0.as_millis() as i64))
    }
}

impl schemars::JsonSchema for Span {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Span".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$"})
    }
}

const UNITS: [(&str, usize); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Bytes, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u64),
            Text(String),
        }
        let text = match Form::deserialize(d)? {
            Form::Number(number) => number.to_string(),
            Form::Text(text) => text,
        };
        let (number, size) = UNITS.iter().find_map(|(unit, size)| text.strip_suffix(unit).map(|n| (n, *size))).unwrap_or((&text, 1));
        number
            .trim()
            .parse::<usize>()
            .ok()
            .and_then(|n| n.checked_mul(size))
            .map(Bytes)
            .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not a size: write it like \"64MiB\"")))
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let text = UNITS
            .iter()
            .find(|(_, size)| self.0 != 0 && self.0.is_multiple_of(*size))
            .map_or_else(|| self.0.to_string(), |(unit, size)| format!("{}{unit}", self.0 / size));
        s.serialize_str(&text)
    }
}

impl schemars::JsonSchema for Bytes {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Bytes".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": ["string", "integer"], "minimum": 0, "pattern": "^[0-9]+ ?(KiB|MiB|GiB)?$"})
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Limit, D::Error> {
        let text = String::deserialize(d)?;
        if text == "off" {
            return Ok(Limit(None));
        }
        Span::deserialize(serde::de::value::StringDeserializer::new(text)).map(|span| Limit(Some(span.0)))
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(time) => Span(time).serialize(s),
            None => s.serialize_str("off"),
        }
    }
}

impl schemars::JsonSchema for Limit {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Limit".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "pattern": "^(off|[0-9]+(ms|s|m|h|d))$"})
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Share, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u64),
            Text(String),
        }
        let text = match Form::deserialize(d)? {
            Form::Text(text) if text == "auto" => return Ok(Share(None)),
            Form::Text(text) => text,
            Form::Number(number) => number.to_string(),
        };
        Bytes::deserialize(serde::de::value::StringDeserializer::new(text)).map(|bytes| Share(Some(bytes.0)))
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(bytes) => Bytes(bytes).serialize(s),
            None => s.serialize_str("auto"),
        }
    }
}

impl schemars::JsonSchema for Share {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Share".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": ["string", "integer"], "minimum": 0, "pattern": "^(auto|[0-9]+ ?(KiB|MiB|GiB)?)$"})
    }
}

/// A list in a file, or a comma-separated string (environment).
pub fn list<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        List(Vec<String>),
        Text(String),
    }
    Ok(match Form::deserialize(d)? {
        Form::List(list) => list,
        Form::Text(text) => text.split(',').map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect(),
    })
}
