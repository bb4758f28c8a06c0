//! Hashes that are stored or compared across processes. Their algorithms are frozen.

use crate::value::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// XXH3-64: sub-keys, event ids seen, slots of the actor state, fingerprints of records.
/// Source: xxHash specification 0.8 (frozen output).
pub fn short(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// XXH3-64 of a value, with its type as the seed: 1 and "1" are different, 1 and 1.0 are the same. `None` for a missing one.
pub fn of_value(value: Value<'_>) -> Option<u64> {
    let seeded = |bytes: &[u8], seed: u64| Some(xxhash_rust::xxh3::xxh3_64_with_seed(bytes, seed));
    // Every float in this range that has no fraction is an i64.
    let whole = |f: f64| f.fract() == 0.0 && (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&f);
    match value {
        Value::Missing => None,
        Value::Bool(truth) => seeded(&[u8::from(truth)], 1),
        Value::Int(int) => seeded(&int.to_le_bytes(), 2),
        Value::Float(float) if whole(float) => seeded(&(float as i64).to_le_bytes(), 2),
        Value::Float(float) => seeded(&float.to_bits().to_le_bytes(), 3),
        Value::Str(text) => seeded(text.as_bytes(), 4),
    }
}

/// SHA-256 as `sha256:` and the first 16 hexadecimal digits: versions of rules and flags, oversized records.
pub fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let mut text = String::from("sha256:");
    for byte in &hash[..8] {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// The name space of every id that Tripline derives.
const NAMESPACE: Uuid = Uuid::from_u128(0x6ba5_4d1e_8f0b_5c3e_9a77_7472_6970_6c6e);

/// UUIDv5 over the parts, joined by a unit separator (U+001F), which no part contains: ids with control characters are rejected at decoding.
pub fn derived_id(parts: &[&str]) -> Uuid {
    Uuid::new_v5(&NAMESPACE, parts.join("\u{1f}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_value_depends_on_its_type_and_text() {
        let values =
            [Value::Str("1"), Value::Int(1), Value::Bool(true), Value::Float(1.5), Value::Str("2"), Value::Int(2), Value::Bool(false)];
        let mut hashes: Vec<u64> = values.into_iter().filter_map(of_value).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), values.len());
        assert_eq!(of_value(Value::Float(-3.0)), of_value(Value::Int(-3)));
        assert_eq!(of_value(Value::Float(-0.0)), of_value(Value::Int(0)));
        assert!(of_value(Value::Float(9_223_372_036_854_775_808.0)).is_some());
        assert_eq!(of_value(Value::Missing), None);
    }

    #[test]
    fn the_hash_of_a_value_is_frozen() {
        let expected = [4_528_915_962_198_085_657, 2_783_878_954_237_670_974, 6_663_966_866_564_686_770, 1_011_239_658_257_257_836];
        let hashes = [Value::Str("/admin"), Value::Int(42), Value::Float(0.5), Value::Bool(true)].map(of_value);
        assert_eq!(hashes, expected.map(Some));
    }
}
