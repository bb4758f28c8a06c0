//! Kafka in memory, as far as the commit protocol can tell: partitions, a transaction coordinator, a group coordinator, and
//! a network that may deliver a request late. Requests are atomic; what happens between them is the scheduler's choice.

pub mod group;
pub mod log;
pub mod transactions;

use group::{Group, Offsets};
use log::{Log, Record};
use std::collections::BTreeMap;
use transactions::{Refusal, Transactions};
use tripline_core::protocol::TaskId;

/// A topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Routed mode: what the router reads.
    Requests,
    /// What the tasks read; in routed mode the observations.
    Keyed,
    Changelog,
    /// Decisions, alerts and standings; here each has a partition and not a topic of its own.
    Outputs,
    DeadLetters,
}

/// A partition of a topic, or the partition that keeps the group's offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    Log(Topic, i32),
    Offsets,
}

/// A request that the client has given up waiting for, and that arrives some time.
#[derive(Debug, Clone)]
pub enum Late {
    /// The end of a transaction.
    End { producer: usize, epoch: u32, commit: bool },
    /// Offsets of a transaction.
    Offsets { producer: usize, epoch: u32, incarnation: u64, offsets: Offsets },
}

impl Late {
    /// What it is, in words.
    pub fn name(&self) -> String {
        match self {
            Late::End { producer, commit: true, .. } => format!("commit of p{producer}"),
            Late::End { producer, commit: false, .. } => format!("abort of p{producer}"),
            Late::Offsets { producer, .. } => format!("offsets of p{producer}"),
        }
    }
}

/// The cluster.
#[derive(Debug, Default)]
pub struct Kafka {
    logs: BTreeMap<(Topic, i32), Log>,
    pub transactions: Transactions,
    pub group: Group,
    /// Requests on their way.
    pub late: Vec<Late>,
}

impl Kafka {
    /// With empty partitions.
    pub fn new(partitions: impl IntoIterator<Item = (Topic, i32)>, tasks: Vec<TaskId>) -> Kafka {
        Kafka { logs: partitions.into_iter().map(|at| (at, Log::default())).collect(), group: Group::new(tasks), ..Kafka::default() }
    }

    /// A partition.
    pub fn log(&self, topic: Topic, partition: i32) -> &Log {
        &self.logs[&(topic, partition)]
    }

    /// A partition, to be changed.
    pub fn log_mut(&mut self, topic: Topic, partition: i32) -> &mut Log {
        self.logs.get_mut(&(topic, partition)).expect("every topic is made before the run")
    }

    /// All partitions.
    pub fn logs(&self) -> impl Iterator<Item = (&(Topic, i32), &Log)> {
        self.logs.iter()
    }

    /// Appends a transactional record. While the producer has something open in the partition its epoch is all that is looked
    /// at; otherwise the leader asks the coordinator whether the partition belongs to the transaction (KIP-890, part 1).
    pub fn produce(&mut self, producer: usize, epoch: u32, at: (Topic, i32), record: Record) -> Result<i64, Refusal> {
        let open = self.log(at.0, at.1).open_epoch(producer);
        match open {
            Some(open) if open > epoch => return Err(Refusal::Fenced),
            Some(_) => {}
            None => self.transactions.verify(producer, epoch, Place::Log(at.0, at.1))?,
        }
        Ok(self.log_mut(at.0, at.1).append_open(producer, epoch, record))
    }

    /// Takes a transaction's offsets, if the group knows the member and the transaction has the offsets' partition.
    pub fn commit_offsets(&mut self, producer: usize, epoch: u32, incarnation: u64, offsets: Offsets) -> Result<(), Refusal> {
        if !self.group.knows(producer, incarnation) {
            return Err(Refusal::UnknownMember);
        }
        self.transactions.verify(producer, epoch, Place::Offsets)?;
        self.group.pend(producer, offsets);
        Ok(())
    }

    /// Writes one marker of a transaction whose end is decided. Partition after partition: a reader may see one part of it
    /// before another. Answers whether there was one to write; `which` chooses among them.
    pub fn write_marker(&mut self, which: usize) -> bool {
        let Some((producer, place, commit)) = self.transactions.take_marker(which) else { return false };
        match place {
            Place::Log(topic, partition) => self.log_mut(topic, partition).end(producer, commit),
            Place::Offsets => self.group.end(producer, commit),
        }
        true
    }

    /// A late request arrives. Nobody waits for the answer.
    pub fn deliver_late(&mut self, which: usize) -> Option<Late> {
        if self.late.is_empty() {
            return None;
        }
        let late = self.late.remove(which % self.late.len());
        match late.clone() {
            Late::End { producer, epoch, commit } => {
                let _ = self.transactions.end(producer, epoch, commit);
            }
            Late::Offsets { producer, epoch, incarnation, offsets } => {
                let _ = self.commit_offsets(producer, epoch, incarnation, offsets);
            }
        }
        Some(late)
    }

    /// Whether every transaction has ended, markers included.
    pub fn is_settled(&self) -> bool {
        self.late.is_empty() && self.transactions.is_settled()
    }
}
