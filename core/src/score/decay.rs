//! Powers of two without floating point: the same on every machine.

use super::Milli;

/// `2^(-i/64)` in 2^32nds, rounded. A test holds it against floating point.
#[rustfmt::skip]
const TABLE: [u64; 65] = [
    0x100000000, 0x0fd3e0c0d, 0x0fa83b2db, 0x0f7d0df73, 0x0f5257d15,
    0x0f281773c, 0x0efe4b99c, 0x0ed4f301f, 0x0eac0c6e8, 0x0e8396a50,
    0x0e5b906e7, 0x0e33f8973, 0x0e0ccdeec, 0x0de60f482, 0x0dbfbb798,
    0x0d99d15c2, 0x0d744fccb, 0x0d4f35aac, 0x0d2a81d92, 0x0d06333db,
    0x0ce248c15, 0x0cbec14ff, 0x0c9b9bd86, 0x0c78d74c9, 0x0c5672a11,
    0x0c346ccda, 0x0c12c4cca, 0x0bf1799b6, 0x0bd08a39f, 0x0baff5ab2,
    0x0b8fbaf47, 0x0b6fd91e3, 0x0b504f334, 0x0b311c413, 0x0b123f582,
    0x0af3b78ad, 0x0ad583eea, 0x0ab7a39b6, 0x0a9a15ab5, 0x0a7cd93b5,
    0x0a5fed6aa, 0x0a43515ae, 0x0a2704303, 0x0a0b05110, 0x09ef53261,
    0x09d3ed9a7, 0x09b8d39ba, 0x099e04593, 0x09837f052, 0x096942d37,
    0x094f4efa9, 0x0935a2b2f, 0x091c3d374, 0x09031dc43, 0x08ea4398b,
    0x08d1adf5b, 0x08b95c1e4, 0x08a14d575, 0x088980e81, 0x0871f6197,
    0x085aac368, 0x0843a28c4, 0x082cd8699, 0x08164d1f4, 0x080000000,
];

/// After this many half-lives nothing of 100 points is left that counts (100 / 2^8 < 0.5).
pub const GONE_AFTER_HALF_LIVES: i64 = 8;

/// What is left of `milli` at an age: `milli × 2^(-age / half_life)`, rounded down; linear between the table's entries, which
/// is less than two thousandths of a point too much. Falls with age and never rises. An age below 0 is 0.
///
/// # Panics
/// When `half_life_ms` is not above 0: the loader lets none pass.
pub fn decayed(milli: Milli, age_ms: i64, half_life_ms: i64) -> Milli {
    assert!(half_life_ms > 0, "a half-life is above 0");
    let (age, half_life) = (age_ms.max(0) as u64, half_life_ms as u64);
    let (whole, rest) = (age / half_life, age % half_life);
    if whole >= 32 {
        return Milli::ZERO;
    }
    let step = u128::from(rest) * 64;
    let (index, part) = ((step / u128::from(half_life)) as usize, step % u128::from(half_life));
    let (from, to) = (u128::from(TABLE[index]), u128::from(TABLE[index + 1]));
    let factor = from - (from - to) * part / u128::from(half_life);
    Milli::saturating(((u128::from(milli.thousandths()) * factor) >> (32 + whole)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_table_holds_the_powers() {
        for (i, entry) in TABLE.iter().enumerate() {
            let exact = 2f64.powf(32.0 - i as f64 / 64.0);
            assert!((*entry as f64 - exact).abs() <= 1.0, "{i}");
        }
    }

    proptest! {
        #[test]
        fn it_is_close_to_the_exact_value_and_never_rises(
            milli in 0..=100_000u64, age in 0..=400 * 86_400_000i64, half_life in 1..=366 * 86_400_000i64, more in 0..=86_400_000i64,
        ) {
            let given = Milli::saturating(milli);
            let left = decayed(given, age, half_life);
            let exact = milli as f64 * 2f64.powf(-(age as f64) / half_life as f64);
            prop_assert!((f64::from(left.thousandths()) - exact).abs() <= 3.0, "{} instead of {}", left.thousandths(), exact);
            prop_assert!(decayed(given, age + more, half_life) <= left);
            prop_assert!(decayed(given, half_life.saturating_mul(GONE_AFTER_HALF_LIVES), half_life) < Milli::LEAST);
            prop_assert_eq!(decayed(given, -more, half_life), given);
        }
    }
}
