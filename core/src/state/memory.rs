//! What detectors remember.

/// Whether a slot's condition holds, and its firings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// The condition held at the newest event.
    pub on: bool,
    /// When it last fired; `i64::MIN` for never.
    pub fired_ms: i64,
    /// Firings held back since: by the edge, or by `once_per`.
    pub suppressed: u32,
}

impl Default for Edge {
    fn default() -> Edge {
        Edge { on: false, fired_ms: i64::MIN, suppressed: 0 }
    }
}

/// One bucket of a [`Ring`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// Its number: bucket 0 begins at the epoch.
    pub index: i64,
    /// What was added up: events, thousandths of a sum, hits.
    pub amount: i64,
    /// Events, where the amount is something else; 0 otherwise.
    pub total: i64,
}

/// A window in buckets, for what cannot be kept event by event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ring {
    /// Length of the window, milliseconds; a bucket is a sixtieth of it.
    pub within_ms: i64,
    /// Buckets that are not empty, ascending.
    pub cells: Vec<Cell>,
}

/// An event that moved a sequence, kept while another may still arrive before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// When it happened.
    pub at_ms: i64,
    /// What it matches, one bit each: bits 0 to 13 the steps; 14: the answer that `then_absent` waits for; 15: `cancel_on`.
    pub matches: u16,
    /// A sequence was completed with it.
    pub completed: bool,
}

/// How far a sequence came, for one value of its join fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Run {
    /// Hash of the join fields' values.
    pub join: u64,
    /// The newest event that moved it.
    pub newest_ms: i64,
    /// For each position that was reached (steps laid out `times` times): the latest start of a way there. Never ascending.
    pub starts_ms: Vec<i64>,
    /// Events not yet folded into `starts_ms`, ascending.
    pub recent: Vec<Step>,
}

/// Something that fires when a time has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Hash of the join fields' values.
    pub join: u64,
    /// When it was opened.
    pub opened_ms: i64,
    /// When it is due.
    pub due_ms: i64,
    /// The observation that opened it, masked, as [`crate::observation::Observation::opening`] writes it. Empty once it has
    /// fired: it is then kept for what it covers until that lies behind.
    pub opening: Box<[u8]>,
}

impl Pending {
    /// Whether it still waits for its time.
    pub fn waits(&self) -> bool {
        !self.opening.is_empty()
    }
}

/// The memory of a detector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Memory {
    /// Nothing but the edge.
    Nothing,
    /// `count` over a window that started with its first hit.
    Fixed {
        /// It is over at this time.
        end_ms: i64,
        /// Hits so far.
        count: u32,
    },
    /// `count`, `sum`, `ratio`: the newest times, ascending, for thresholds that are kept exactly; buckets for the others,
    /// in the order of the rule's windows.
    Window {
        /// Times of the newest events, ascending.
        times_ms: Vec<i64>,
        /// One for each window that is kept in buckets.
        rings: Vec<Ring>,
    },
    /// `distinct`: the values seen last, and when, ascending by time; behind them earlier times of some of them, ascending
    /// too. They begin where the time steps back.
    Distinct {
        /// Hashes of the values.
        values: Vec<u64>,
        /// When each was last seen.
        times_ms: Vec<i64>,
    },
    /// `rate`: the theoretical arrival time before `recent_ms`, and the events since.
    Rate {
        /// Microseconds.
        arrival_us: i64,
        /// An event before `recent_ms` was beyond the rate, and the bucket has not run empty since.
        exceeded: bool,
        /// Times of events that another may still arrive before, ascending.
        recent_ms: Vec<i64>,
    },
    /// `sequence`.
    Sequence {
        /// Sorted by join.
        runs: Vec<Run>,
        /// Waiting for an absence to be certain, ascending by due time; and those that fired and still cover something.
        pending: Vec<Pending>,
    },
    /// `first_seen`: the values known, and when each was last seen; ascending by time.
    FirstSeen {
        /// The first event of all.
        since_ms: i64,
        /// Values were forgotten for want of room: nothing is certainly new before this time. `i64::MIN` for never.
        diverse_until_ms: i64,
        /// Hashes of the values.
        values: Vec<u32>,
        /// When each was last seen.
        times_ms: Vec<i64>,
    },
}

impl Memory {
    /// The earliest time that something in it waits for.
    pub fn next_due_ms(&self) -> Option<i64> {
        match self {
            Memory::Sequence { pending, .. } => pending.iter().find(|p| p.waits()).map(|p| p.due_ms),
            _ => None,
        }
    }

    /// Takes out what waits for the earliest time.
    pub fn take_due(&mut self) -> Option<Pending> {
        match self {
            Memory::Sequence { pending, .. } => {
                let due = pending.iter_mut().find(|p| p.waits())?;
                let fired = Pending { opening: Box::default(), ..*due };
                Some(std::mem::replace(due, fired))
            }
            _ => None,
        }
    }

    /// How much would be lost with it.
    pub(super) fn weight(&self) -> u64 {
        match self {
            Memory::Nothing => 1,
            Memory::Fixed { count, .. } => u64::from(*count),
            Memory::Window { times_ms, rings } => {
                let counted = rings.iter().map(|r| r.cells.iter().map(|c| c.total.max(c.amount).unsigned_abs()).sum()).max().unwrap_or(0);
                counted.max(times_ms.len() as u64)
            }
            Memory::Distinct { values, .. } => values.len() as u64,
            Memory::Rate { recent_ms, .. } => recent_ms.len() as u64,
            Memory::Sequence { runs, .. } => runs.iter().map(|r| (r.starts_ms.len() + r.recent.len()) as u64).sum(),
            Memory::FirstSeen { values, .. } => values.len() as u64,
        }
    }

    /// Roughly the bytes that it holds apart from its own size.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Memory::Nothing | Memory::Fixed { .. } => 0,
            Memory::Window { times_ms, rings } => {
                times_ms.capacity() * 8 + rings.iter().map(|r| size_of::<Ring>() + r.cells.capacity() * size_of::<Cell>()).sum::<usize>()
            }
            Memory::Distinct { values, times_ms } => (values.capacity() + times_ms.capacity()) * 8,
            Memory::Rate { recent_ms, .. } => recent_ms.capacity() * 8,
            Memory::Sequence { runs, pending } => {
                let run = |r: &Run| size_of::<Run>() + r.starts_ms.capacity() * 8 + r.recent.capacity() * size_of::<Step>();
                runs.iter().map(run).sum::<usize>() + pending.iter().map(|p| size_of::<Pending>() + p.opening.len()).sum::<usize>()
            }
            Memory::FirstSeen { values, times_ms, .. } => values.capacity() * 4 + times_ms.capacity() * 8,
        }
    }
}
