//! Another order of arrival: every event is held back by less than the allowed lateness, so that none is late.

use crate::hash;
use crate::rule::case::Arrival;

/// SplitMix64 (Steele, Lea, Flood 2014): small, seeded, good enough to deal cards.
struct Deal(u64);

impl Deal {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}

/// The events in the order of this round. Reference times move with the arrival, as a broker would stamp them.
pub fn arrivals(plain: &[Arrival], name: &str, round: u8, lateness_ms: i64) -> Vec<Arrival> {
    let mut deal = Deal(hash::short(format!("{name}#{round}").as_bytes()));
    let bound = lateness_ms.unsigned_abs();
    let mut shuffled: Vec<(i64, u64, Arrival)> = plain
        .iter()
        .map(|arrival| {
            let arrives_ms = arrival.arrives_ms.saturating_add(i64::try_from(deal.below(bound)).unwrap_or(0));
            (arrives_ms, deal.below(u64::MAX), Arrival { arrives_ms, ..arrival.clone() })
        })
        .collect();
    shuffled.sort_by_key(|(arrives_ms, tie, _)| (*arrives_ms, *tie));
    shuffled.into_iter().map(|(_, _, arrival)| arrival).collect()
}
