//! What an audit says.

use super::{Finding, Note, Role, Task, Window};

/// Which commits of a task were judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskCoverage {
    /// The task.
    pub task: Task,
    /// How many.
    pub commits: u64,
    /// The lowest number.
    pub first_seq: Option<u64>,
    /// The highest.
    pub last_seq: Option<u64>,
    /// From then on none is missing unnoticed, milliseconds.
    pub from_ms: i64,
    /// Append time of the newest, milliseconds.
    pub until_ms: Option<i64>,
    /// The task's whole life is covered.
    pub from_beginning: bool,
}

/// Which records of a kind were counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputCoverage {
    /// The kind.
    pub role: Role,
    /// How many were read.
    pub records: u64,
    /// For commits of every task from then on a missing one is noticed, milliseconds.
    pub from_ms: i64,
    /// For those of some tasks already from then on: their partitions of the topic go further back.
    pub earliest_ms: i64,
}

/// The result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What was asked for.
    pub window: Window,
    /// By task; those without a commit in the window are not in it.
    pub tasks: Vec<TaskCoverage>,
    /// By kind.
    pub outputs: [OutputCoverage; Role::ALL.len()],
    /// The first [`MAX_FINDINGS`](super::MAX_FINDINGS).
    pub findings: Vec<Finding>,
    /// All of them.
    pub total: u64,
    /// Remarks.
    pub notes: Vec<Note>,
}

impl Report {
    /// Commits that were judged.
    pub fn commits(&self) -> u64 {
        self.tasks.iter().map(|task| task.commits).sum()
    }

    /// Outputs that were read.
    pub fn records(&self) -> u64 {
        self.outputs.iter().map(|output| output.records).sum()
    }
}
