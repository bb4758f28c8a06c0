//! A wall clock of its own for one worker, which jumps while the worker runs: libfaketime between the process and its clock.
//!
//! The monotonic clock is left alone, as it is when an operator or NTP sets a machine's time.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Where distributions put the library, for programs with several threads. Debian and Ubuntu: package `faketime`.
const PLACES: [&str; 6] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/local/lib/faketime/libfaketimeMT.so.1",
    "/usr/local/lib64/faketime/libfaketimeMT.so.1",
];

/// The library, if it is installed.
pub fn library() -> Option<&'static str> {
    PLACES.into_iter().find(|place| Path::new(place).is_file())
}

/// What a worker's clock is ahead of the machine's.
#[derive(Debug)]
pub struct Clock {
    library: &'static str,
    file: PathBuf,
}

impl Clock {
    /// A clock that goes right; the file is what makes it jump.
    ///
    /// # Errors
    /// Without the library, and when the file cannot be written.
    pub fn new(file: PathBuf) -> Result<Clock> {
        let library = library().context("libfaketime is not installed: `apt-get install faketime`, or another scenario")?;
        let clock = Clock { library, file };
        clock.jump(0)?;
        Ok(clock)
    }

    /// The environment of a worker that goes by it.
    pub fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("LD_PRELOAD", self.library.to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            // The file is read again once a second.
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ]
    }

    /// Removes the shared memory that the library leaves behind for a process.
    pub fn tidy_up(process: u32) {
        for name in [format!("faketime_shm_{process}"), format!("sem.faketime_sem_{process}")] {
            let _ = std::fs::remove_file(Path::new("/dev/shm").join(name));
        }
    }

    /// From about now on, so many seconds ahead of the machine's clock; less than 0 is behind it.
    ///
    /// # Errors
    /// When the file cannot be replaced.
    pub fn jump(&self, seconds: i64) -> Result<()> {
        // At once: a worker may read it at any moment.
        let beside = self.file.with_extension("new");
        std::fs::write(&beside, format!("{seconds:+}\n"))?;
        std::fs::rename(beside, &self.file).with_context(|| format!("could not replace {}", self.file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_is_what_faketime_reads_as_relative() {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Clock { library: PLACES[0], file: folder.path().join("clock") };
        for (seconds, text) in [(0, "+0\n"), (3_600, "+3600\n"), (-3_600, "-3600\n")] {
            clock.jump(seconds).expect("a jump");
            assert_eq!(std::fs::read_to_string(&clock.file).expect("the file"), text);
        }
    }
}
