//! Hashes that are stored or compared across processes. Their algorithms are frozen.

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// XXH3-64: sub-keys, event ids seen, slots of the actor state, fingerprints of records.
/// Source: xxHash specification 0.8 (frozen output).
pub fn short(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
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
