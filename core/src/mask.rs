//! Secrets are replaced before anything is stored.

use serde_json::{Map, Value};

/// What a masked value looks like.
pub const MASKED: &str = "***";

/// A key that contains one of these (case-insensitively, `-` read as `_`) has its whole value masked. anomaly-infra's list.
pub const FRAGMENTS: [&str; 14] = [
    "password",
    "token",
    "refresh",
    "access",
    "authorization",
    "secret",
    "api_key",
    "card",
    "cvv",
    "pin",
    "cookie",
    "session",
    "csrf",
    "set_cookie",
];

/// Whether a key's name likely holds a secret.
pub fn is_sensitive(key: &str) -> bool {
    if key.is_ascii() {
        return FRAGMENTS.iter().any(|fragment| contains_folded(key.as_bytes(), fragment.as_bytes()));
    }
    // Some letters outside ASCII have a lower case within it (the Kelvin sign is a `k`).
    let normal = key.to_lowercase().replace('-', "_");
    FRAGMENTS.iter().any(|fragment| normal.contains(fragment))
}

fn contains_folded(key: &[u8], fragment: &[u8]) -> bool {
    let fold = |b: &u8| if *b == b'-' { b'_' } else { b.to_ascii_lowercase() };
    key.windows(fragment.len()).any(|window| window.iter().map(fold).eq(fragment.iter().copied()))
}

/// A masked copy of a JSON object, all the way down.
pub fn object(data: &Map<String, Value>) -> Map<String, Value> {
    data.iter().map(|(key, value)| (key.clone(), if is_sensitive(key) { MASKED.into() } else { json(value) })).collect()
}

/// A masked copy of a JSON value: objects inside arrays are walked too.
pub fn json(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(object(map)),
        Value::Array(items) => Value::Array(items.iter().map(json).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_are_masked_by_the_name_of_their_key_at_any_depth() {
        let masked = json(
            &json!({"form": "x", "Access-Token": 1, "a": [{"PIN": {"b": 2}, "ok": null}], "shipping_address": "quirk of the package"}),
        );
        assert_eq!(masked, json!({"form": "x", "Access-Token": "***", "a": [{"PIN": "***", "ok": null}], "shipping_address": "***"}));
    }

    #[test]
    fn case_and_hyphens_hide_nothing() {
        for key in ["X-API-Key", "api_key", "Set-Cookie", "acceS\u{73}", "to\u{212a}en", "é-PIN"] {
            assert!(is_sensitive(key), "{key}");
        }
        for key in ["", "pi", "api key", "apikey", "name", "größe"] {
            assert!(!is_sensitive(key), "{key}");
        }
    }
}
