//! Where the states are folded: a folder of the system's for temporary files, so that no worker's `state.dir` is touched, whoever runs
//! the verb and wherever.

use super::RepartitionError;
use crate::state::{Budget, StateDir, StoreError};
use std::fs::{DirEntry, Metadata};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// Memory for blocks and write buffers while states are folded.
const ROCKSDB_BYTES: usize = 128 << 20;
/// How the folders' names begin.
const PREFIX: &str = "tripline-repartition-";
/// A folder is a leftover when nothing was made in it for so long: a younger one may not be locked yet.
const LEFT_SINCE: Duration = Duration::from_secs(60);

/// A folder that nobody else can read or guess. It goes with the run; what a killed run left goes with the next one.
pub struct Scratch {
    // In the order of their end: the lock is given back before the folder goes.
    dir: StateDir,
    budget: Budget,
    _folder: TempDir,
}

impl Scratch {
    /// Makes the folder.
    pub fn open() -> Result<Scratch, RepartitionError> {
        Scratch::within(&std::env::temp_dir(), LEFT_SINCE)
    }

    fn within(parent: &Path, left_since: Duration) -> Result<Scratch, RepartitionError> {
        clean(parent, left_since);
        let failed = |source| StoreError::Folder { path: parent.to_owned(), source };
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent).map_err(failed)?;
        Ok(Scratch { dir: StateDir::open(folder.path())?, budget: Budget::new(ROCKSDB_BYTES), _folder: folder })
    }

    /// The folder of a task.
    pub fn task(&self, partition: i32) -> PathBuf {
        self.dir.task(partition)
    }

    /// What all tasks share.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }
}

/// Removes the folders of runs that were killed: those that nobody has locked. One that cannot be removed is left to whoever can.
fn clean(parent: &Path, left_since: Duration) {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)));
    // What a link points to is nobody's leftover: this looks at the link itself.
    let is_left = |entry: &DirEntry| {
        let made = entry.metadata().ok().filter(Metadata::is_dir).and_then(|folder| folder.modified().ok());
        made.and_then(|made| made.elapsed().ok()).is_some_and(|age| age >= left_since)
    };
    for entry in ours.filter(is_left) {
        if let Ok(Some(_lock)) = StateDir::existing(&entry.path()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_run_left_goes_with_the_next_and_what_is_in_use_or_elsewhere_stays() {
        let parent = tempfile::tempdir().expect("a folder");
        let others = tempfile::tempdir().expect("a folder");
        let (left, foreign) = (parent.path().join(format!("{PREFIX}left")), parent.path().join("state"));
        for folder in [&left, &foreign, &others.path().join("state")] {
            drop(StateDir::open(folder).expect("made"));
        }
        std::os::unix::fs::symlink(others.path().join("state"), parent.path().join(format!("{PREFIX}link"))).expect("a link");
        let first = Scratch::within(parent.path(), LEFT_SINCE).expect("a folder");
        assert!(left.exists(), "it may have been made this moment");
        std::fs::create_dir(first.task(0)).expect("made");
        let second = Scratch::within(parent.path(), Duration::ZERO).expect("another");
        assert!(!left.exists() && foreign.exists() && others.path().join("state/LOCK").exists());
        assert!(first.task(0).exists(), "it is in use");
        drop((first, second));
        let names: Vec<_> = std::fs::read_dir(parent.path()).expect("readable").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }
}
