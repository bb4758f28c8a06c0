//! Which partition a key belongs to, as the two partitioners in the field see it.
//!
//! Tripline chooses the partition of every record it writes itself (murmur2), so that no client default can move an
//! entity away from its state. On a keyed input it recomputes the producer's choice to find misrouted records.

/// The partition of `key` by Java's default partitioner: murmur2 with the sign bit masked off, modulo partitions.
///
/// `partitions` comes from the broker's metadata and is at least 1; 0 or less counts as 1.
pub fn murmur2_partition(key: &[u8], partitions: i32) -> i32 {
    let positive = (murmur2(key) & 0x7fff_ffff) as i32;
    positive % partitions.max(1)
}

/// The partition of `key` by librdkafka's `consistent` (and, for keys that are not empty, `consistent_random`)
/// partitioner: CRC-32 modulo partitions.
pub fn crc32_partition(key: &[u8], partitions: i32) -> i32 {
    (crc32fast::hash(key) % partitions.max(1) as u32) as i32
}

/// MurmurHash2, 32 bit, with the seed that Kafka's Java client uses (0x9747b28c). Frozen: it decides where state lives.
fn murmur2(bytes: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    // Kafka hashes with the low 32 bits of the length, as Java's `int` has them.
    let mut hash = SEED ^ (bytes.len() as u32);
    let (words, tail) = bytes.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (at, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of Apache Kafka's own `UtilsTest.testMurmur2`.
    const MURMUR2: [(&str, i32); 6] = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ];

    #[test]
    fn murmur2_gives_the_answers_of_kafkas_java_client() {
        for (key, expected) in MURMUR2 {
            assert_eq!(murmur2(key.as_bytes()) as i32, expected, "{key}");
        }
    }

    #[test]
    fn murmur2_partition_masks_the_sign_instead_of_taking_the_absolute_value() {
        for (key, hash) in MURMUR2 {
            let expected = (i64::from(hash) & 0x7fff_ffff) % 12;
            assert_eq!(i64::from(murmur2_partition(key.as_bytes(), 12)), expected, "{key}");
        }
        assert_ne!(murmur2_partition(b"21", 12), 973_932_308 % 12, "the absolute value would be another partition");
    }

    #[test]
    fn crc32_partition_uses_the_zlib_polynomial() {
        // The check value of CRC-32/ISO-HDLC.
        assert_eq!(crc32fast::hash(b"123456789"), 0xCBF4_3926);
        assert_eq!(i64::from(crc32_partition(b"123456789", 7)), 0xCBF4_3926_i64 % 7);
    }

    #[test]
    fn every_key_has_a_partition_within_the_topic() {
        for partitions in [-1, 0, 1, 3, 64, i32::MAX] {
            for key in [&b""[..], b"u", b"u1", b"user:u1", &[0xff; 300]] {
                for partition in [murmur2_partition(key, partitions), crc32_partition(key, partitions)] {
                    assert!((0..partitions.max(1)).contains(&partition), "{partition} of {partitions}");
                }
            }
        }
    }
}
