//! Where the memory of a process goes: `memory.budget`, shared out.
//!
//! Some of it is there whatever the load: the process, each lane's clients, each task's store. What is left bounds every
//! cache, queue and buffer, and a fifth of it stays with the allocator. A part that is set (`state.cache_bytes`) is taken as
//! it is; the others get what they cannot do without, and share the rest. When that is not possible nothing starts.

use super::Config;
use std::fmt;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The binary, its threads, the engine with a pack and its successor, HTTP, SQLite.
const PROCESS: usize = 64 * MIB;
/// Four clients of a lane with the buffers of their connections: consumer, producer and those that ask beside it.
const LANE: usize = 12 * MIB;
/// Two clients of a restore thread.
const RESTORER: usize = 4 * MIB;
/// An open RocksDB without its blocks and write buffers.
const TASK: usize = 512 * KIB;
/// The sink: records fetched ahead, the open batch, its rows, the database's pages.
const SINK: usize = 24 * MIB;

/// What the allocator keeps of freed memory, and what figures leave out: this part of what is shared out.
const OVERHEAD: (usize, usize) = (1, 4);

/// The least that a lane can work with.
const LEAST_FETCHED: usize = 8 * MIB;
const LEAST_PRODUCED: usize = 8 * MIB;
const LEAST_TRANSACTION: usize = MIB;
const LEAST_UNWRITTEN: usize = MIB;
const LEAST_RESTORING: usize = 4 * MIB;
/// The least that all lanes together can work with.
const LEAST_CACHE: usize = MIB;
const LEAST_ROCKSDB: usize = 8 * MIB;

/// A record in a queue takes its bytes four times: its key, headers and bookkeeping, and the request that carries it.
pub const QUEUE_FACTOR: usize = 4;

/// The parts of the budget, in bytes, all lanes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// `memory.budget`.
    pub budget: usize,
    /// What is there whatever the load.
    pub process: usize,
    /// Decoded actor states.
    pub cache: usize,
    /// Blocks and write buffers.
    pub rocksdb: usize,
    /// States that open transactions touch, decoded and encoded.
    pub transactions: usize,
    /// Committed encodings on their way to RocksDB.
    pub unwritten: usize,
    /// Records fetched ahead.
    pub fetched: usize,
    /// Records on their way out.
    pub produced: usize,
    /// Changelog records on their way in.
    pub restoring: usize,
    /// The sink.
    pub sink: usize,
    lanes: usize,
    /// Restore threads of a lane.
    restores: usize,
}

/// What one lane may use, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneShare {
    /// Decoded actor states of its tasks.
    pub cache: usize,
    /// Decoded states that a transaction touches: half of its part, for they are encoded beside that.
    pub max_changed: usize,
    /// Committed encodings: half of its part, for the batch that writes them is a copy.
    pub unwritten: usize,
    /// Records fetched ahead.
    pub fetched: usize,
    /// Records on their way out.
    pub produced: usize,
    /// Changelog records fetched ahead by one restore thread.
    pub restore_fetched: usize,
    /// Changelog records of one restore thread that wait for a batch.
    pub restore_unwritten: usize,
}

/// The budget is less than what its parts cannot do without.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is {}, and {} is the least: {parts}", Size(*budget), Size(*least))]
pub struct Shortage {
    /// `memory.budget`.
    pub budget: usize,
    /// What it has to be, in bytes, rounded up to MiB.
    pub least: usize,
    /// Each part with its least, in words.
    pub parts: String,
}

/// A part before the budget is shared out: set to something, or the least of it and its weight for the rest.
#[derive(Debug, Clone, Copy)]
enum Claim {
    Set(usize),
    Least(usize, usize),
}

impl Claim {
    fn least(self) -> usize {
        match self {
            Claim::Set(bytes) | Claim::Least(bytes, _) => bytes,
        }
    }

    fn weight(self) -> usize {
        if let Claim::Least(_, weight) = self { weight } else { 0 }
    }

    fn of(set: Option<usize>, least: usize, weight: usize) -> Claim {
        set.map_or(Claim::Least(least, weight), Claim::Set)
    }
}

const NAMES: [&str; 7] = ["cache", "rocksdb", "transactions", "unwritten", "fetched", "produced", "restoring"];

/// What each part claims, in the order of [`NAMES`]. The weights are hundredths.
fn claims(config: &Config, lanes: usize) -> [Claim; 7] {
    let changed = config.stream.max_changed_bytes.0.map(|bytes| bytes.saturating_mul(2 * lanes));
    let produced = LEAST_PRODUCED.max(config.max_record_bytes().saturating_mul(QUEUE_FACTOR));
    let fetched = LEAST_FETCHED.max(config.input.max_value_bytes.0.saturating_mul(QUEUE_FACTOR));
    [
        Claim::of(config.state.cache_bytes.0, LEAST_CACHE, 30),
        Claim::of(config.state.rocksdb_bytes.0, LEAST_ROCKSDB, 25),
        Claim::of(changed, LEAST_TRANSACTION * lanes, 10),
        Claim::Least(LEAST_UNWRITTEN * lanes, 10),
        Claim::Least(fetched.saturating_mul(lanes), 10),
        Claim::Least(produced.saturating_mul(lanes), 10),
        Claim::Least(LEAST_RESTORING * lanes * config.stream.restores, 5),
    ]
}

impl Shares {
    /// Shares the budget out for so many tasks: all of them may come to this process.
    pub fn of(config: &Config, tasks: usize) -> Result<Shares, Shortage> {
        let (budget, lanes) = (config.memory.budget.0, config.stream.lanes.max(1));
        let process = PROCESS + (LANE + RESTORER * config.stream.restores) * lanes + TASK * tasks;
        let claims = claims(config, lanes);
        let least = claims.iter().fold(SINK, |sum, claim| sum.saturating_add(claim.least()));
        let with_overhead = least.saturating_add(least / OVERHEAD.1 * OVERHEAD.0).saturating_add(process);
        if with_overhead > budget {
            let parts = NAMES.into_iter().zip(claims).map(|(name, claim)| (name, claim.least()));
            let parts = [("process", process), ("sink", SINK)].into_iter().chain(parts).chain([("allocator", least / OVERHEAD.1)]);
            return Err(Shortage { budget, least: with_overhead.next_multiple_of(MIB), parts: listed(parts) });
        }
        let rest = (budget - process) / (OVERHEAD.0 + OVERHEAD.1) * OVERHEAD.1;
        let rest = rest.saturating_sub(least);
        let weights = claims.iter().map(|claim| claim.weight()).sum::<usize>().max(1);
        let [cache, rocksdb, transactions, unwritten, fetched, produced, restoring] =
            claims.map(|claim| claim.least() + rest / weights * claim.weight());
        Ok(Shares {
            budget,
            process,
            cache,
            rocksdb,
            transactions,
            unwritten,
            fetched,
            produced,
            restoring,
            sink: SINK,
            lanes,
            restores: config.stream.restores.max(1),
        })
    }

    /// Every part with its bytes; together they are the budget, or less when parts are set.
    pub fn parts(&self) -> [(&'static str, usize); 10] {
        let shared = [self.cache, self.rocksdb, self.transactions, self.unwritten, self.fetched, self.produced, self.restoring];
        let allocator = (shared.iter().sum::<usize>() + self.sink) / OVERHEAD.1 * OVERHEAD.0;
        let mut parts =
            [("process", self.process), ("sink", self.sink), ("allocator", allocator)].into_iter().chain(NAMES.into_iter().zip(shared));
        std::array::from_fn(|_| parts.next().unwrap_or(("", 0)))
    }

    /// What each lane may use.
    pub fn lane(&self) -> LaneShare {
        let of = |part: usize| part / self.lanes;
        LaneShare {
            cache: of(self.cache),
            max_changed: of(self.transactions) / 2,
            unwritten: of(self.unwritten) / 2,
            fetched: of(self.fetched),
            produced: of(self.produced),
            restore_fetched: of(self.restoring) / self.restores / 2,
            restore_unwritten: of(self.restoring) / self.restores / 4,
        }
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", Size(self.budget), listed(self.parts()))
    }
}

fn listed(parts: impl IntoIterator<Item = (&'static str, usize)>) -> String {
    parts.into_iter().map(|(name, bytes)| format!("{name} {}", Size(bytes))).collect::<Vec<_>>().join(", ")
}

/// Bytes in whole MiB, rounded up.
struct Size(usize);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}MiB", self.0.div_ceil(MIB))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::defaults;
    use crate::config::units::{Bytes, Share};

    fn config(budget_mib: usize, lanes: usize) -> Config {
        let mut config = defaults().config;
        (config.memory.budget, config.stream.lanes) = (Bytes(budget_mib * MIB), lanes);
        config
    }

    #[test]
    fn the_parts_are_the_budget_and_none_is_less_than_its_least() {
        for (budget_mib, lanes, tasks) in [(512, 1, 12), (512, 4, 12), (1024, 8, 256), (4096, 64, 64), (260, 1, 1)] {
            let Ok(shares) = Shares::of(&config(budget_mib, lanes), tasks) else { panic!("{budget_mib} MiB, {lanes} lanes") };
            let sum: usize = shares.parts().iter().map(|(_, bytes)| bytes).sum();
            assert!(sum <= shares.budget && sum + MIB > shares.budget, "{shares}");
            let lane = shares.lane();
            assert!(lane.fetched >= LEAST_FETCHED && lane.produced >= QUEUE_FACTOR * config(512, 1).max_record_bytes(), "{lane:?}");
            assert!(lane.max_changed >= LEAST_TRANSACTION / 2 && lane.unwritten >= LEAST_UNWRITTEN / 2, "{lane:?}");
        }
    }

    #[test]
    fn what_is_set_is_taken_as_it_is_and_the_others_share_the_rest() {
        let mut config = config(512, 2);
        config.state.cache_bytes = Share(Some(10 * MIB));
        config.stream.max_changed_bytes = Share(Some(5 * MIB));
        let before = Shares::of(&self::config(512, 2), 12).expect("fits");
        let shares = Shares::of(&config, 12).expect("fits");
        assert_eq!((shares.cache, shares.lane().cache, shares.lane().max_changed), (10 * MIB, 5 * MIB, 5 * MIB));
        assert!(shares.rocksdb > before.rocksdb && shares.fetched > before.fetched);
    }

    #[test]
    fn what_does_not_fit_names_the_parts_and_what_would_do() {
        let small = config(200, 4);
        let shortage = Shares::of(&small, 12).expect_err("too little");
        let text = shortage.to_string();
        assert!(text.starts_with("is 200MiB, and ") && text.contains("process 150MiB, sink 24MiB, cache 1MiB"), "{text}");
        let enough = config(shortage.least / MIB, 4);
        assert!(Shares::of(&enough, 12).is_ok());
        let short = config(shortage.least / MIB - 1, 4);
        assert!(Shares::of(&short, 12).is_err());
        let mut large = config(512, 1);
        large.state.cache_bytes = Share(Some(400 * MIB));
        assert!(Shares::of(&large, 12).expect_err("too much").parts.contains("cache 400MiB"));
    }

    #[test]
    fn large_values_and_many_tasks_cost_what_they_cost() {
        assert!(Shares::of(&config(512, 1), 1_000).is_err());
        let mut large = config(512, 1);
        large.input.max_value_bytes = Bytes(100 * MIB);
        assert!(Shares::of(&large, 12).is_err());
    }
}
