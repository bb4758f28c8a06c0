//! The transaction coordinator, as of EndTxn before KIP-890's second part (what librdkafka speaks): a transaction is known by
//! its producer's id and epoch only, and the epoch changes with `init_transactions` and with a timeout.

use super::Place;
use std::collections::{BTreeMap, BTreeSet};

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Another producer with this id, or a timeout, has taken over: fatal.
    Fenced,
    /// The transaction before is still being ended: asked again.
    Concurrent,
    /// Not in this state. Fatal as the answer to an end, and the end of the transaction as the answer to a record.
    InvalidState,
    /// The group has expelled the member, or another has its place.
    UnknownMember,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Empty,
    Ongoing(BTreeSet<Place>),
    /// The end is decided; these markers are still to be written.
    Ending {
        commit: bool,
        left: Vec<Place>,
    },
    Ended {
        commit: bool,
    },
}

#[derive(Debug)]
struct Transaction {
    epoch: u32,
    state: State,
}

/// The newest transaction of each producer.
#[derive(Debug, Default)]
pub struct Transactions {
    by_producer: BTreeMap<usize, Transaction>,
}

impl Transactions {
    /// `init_transactions`: a new epoch, once what was open is ended. [`Refusal::Concurrent`] until then.
    pub fn init(&mut self, producer: usize) -> Result<u32, Refusal> {
        let transaction = self.by_producer.entry(producer).or_insert(Transaction { epoch: 0, state: State::Empty });
        match transaction.state {
            State::Ending { .. } => Err(Refusal::Concurrent),
            State::Ongoing(_) => {
                transaction.abort();
                Err(Refusal::Concurrent)
            }
            State::Empty | State::Ended { .. } => {
                transaction.epoch += 1;
                transaction.state = State::Empty;
                Ok(transaction.epoch)
            }
        }
    }

    fn current(&mut self, producer: usize, epoch: u32) -> Result<&mut Transaction, Refusal> {
        self.by_producer.get_mut(&producer).filter(|t| t.epoch == epoch).ok_or(Refusal::Fenced)
    }

    /// Adds a partition; the first one begins the transaction.
    pub fn add(&mut self, producer: usize, epoch: u32, place: Place) -> Result<(), Refusal> {
        let transaction = self.current(producer, epoch)?;
        match &mut transaction.state {
            State::Ending { .. } => return Err(Refusal::Concurrent),
            State::Ongoing(places) => {
                places.insert(place);
            }
            State::Empty | State::Ended { .. } => transaction.state = State::Ongoing(BTreeSet::from([place])),
        }
        Ok(())
    }

    /// Whether a partition belongs to the open transaction of this epoch.
    pub fn verify(&self, producer: usize, epoch: u32, place: Place) -> Result<(), Refusal> {
        match self.by_producer.get(&producer) {
            Some(t) if t.epoch == epoch => match &t.state {
                State::Ongoing(places) if places.contains(&place) => Ok(()),
                _ => Err(Refusal::InvalidState),
            },
            _ => Err(Refusal::Fenced),
        }
    }

    /// EndTxn. Nothing in it says which transaction is meant: whichever is open under this epoch (KAFKA-17754).
    pub fn end(&mut self, producer: usize, epoch: u32, commit: bool) -> Result<(), Refusal> {
        let transaction = self.current(producer, epoch)?;
        match &transaction.state {
            State::Empty => Err(Refusal::InvalidState),
            State::Ended { commit: before } if *before == commit => Ok(()),
            State::Ended { .. } => Err(Refusal::InvalidState),
            State::Ending { commit: before, .. } if *before == commit => Err(Refusal::Concurrent),
            State::Ending { .. } => Err(Refusal::InvalidState),
            State::Ongoing(places) => {
                let left = places.iter().copied().collect();
                transaction.state = State::Ending { commit, left };
                Ok(())
            }
        }
    }

    /// Whether a producer of this id has a transaction open.
    pub fn has_open(&self, producer: usize) -> bool {
        self.by_producer.get(&producer).is_some_and(|t| matches!(t.state, State::Ongoing(_)))
    }

    /// A transaction that is open is given up by the coordinator, and its producer fenced. Answers whether there was one.
    pub fn time_out(&mut self, producer: usize) -> bool {
        match self.by_producer.get_mut(&producer) {
            Some(transaction) if matches!(transaction.state, State::Ongoing(_)) => {
                transaction.abort();
                true
            }
            _ => false,
        }
    }

    /// Takes one of the markers that are to be written.
    pub(super) fn take_marker(&mut self, which: usize) -> Option<(usize, Place, bool)> {
        let mut ending: Vec<_> = self.by_producer.iter_mut().filter(|(_, t)| matches!(t.state, State::Ending { .. })).collect();
        let count = ending.len();
        let (producer, transaction) = ending.get_mut(which % count.max(1))?;
        let State::Ending { commit, left } = &mut transaction.state else { return None };
        let (producer, commit) = (**producer, *commit);
        let place = (!left.is_empty()).then(|| left.remove((which / count) % left.len()))?;
        if left.is_empty() {
            transaction.state = State::Ended { commit };
        }
        Some((producer, place, commit))
    }

    pub(super) fn is_settled(&self) -> bool {
        self.by_producer.values().all(|t| matches!(t.state, State::Empty | State::Ended { .. }))
    }
}

impl Transaction {
    fn abort(&mut self) {
        if let State::Ongoing(places) = &self.state {
            self.epoch += 1;
            self.state = State::Ending { commit: false, left: places.iter().copied().collect() };
        }
    }
}
