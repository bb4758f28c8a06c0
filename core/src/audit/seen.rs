//! Ids that were seen lately in one partition.

use hashbrown::HashMap;

/// Ids of one generation; two are kept. 2 × 524,288 ids take about 48 MB.
const GENERATION: usize = if cfg!(test) { 1024 } else { 512 * 1024 };

/// Where an id was seen: the commit as task and place in its chain, and the offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sighting {
    pub(super) commit: Option<(u32, u32)>,
    pub(super) offset: i64,
}

/// The last ids of a partition, at least [`GENERATION`] of them. Equal keys share a partition, so one partition's ids are enough.
#[derive(Debug, Default)]
pub(super) struct Seen {
    recent: HashMap<u64, Sighting>,
    older: HashMap<u64, Sighting>,
}

impl Seen {
    /// Notes an id by its hash; answers where it was seen before.
    pub(super) fn see(&mut self, id: u64, sighting: Sighting) -> Option<Sighting> {
        let before = self.recent.get(&id).or_else(|| self.older.get(&id)).copied();
        if self.recent.len() >= GENERATION {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(id, sighting);
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_the_last_ids_are_known() {
        let (mut seen, last) = (Seen::default(), 3 * GENERATION as u64);
        for id in 0..last {
            assert_eq!(seen.see(id, Sighting { commit: None, offset: id as i64 }), None);
        }
        assert!(seen.recent.len() + seen.older.len() <= 2 * GENERATION);
        let again = last - GENERATION as u64;
        assert_eq!(seen.see(again, Sighting { commit: None, offset: -1 }).map(|s| s.offset), Some(again as i64));
        assert_eq!(seen.see(0, Sighting { commit: None, offset: -1 }), None, "long ago");
    }
}
