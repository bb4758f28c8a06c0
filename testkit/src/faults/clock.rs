//! A wall clock of its own for one worker, which is set while the worker runs: a small library of ours between the process and its
//! clock (`clock.c`).

use crate::preload;
use anyhow::{Context, Result};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const SOURCE: &str = include_str!("clock.c");

/// Why no clock can be made here, with the way out; `None` when one can.
pub fn obstacle() -> Option<&'static str> {
    let found = Command::new("cc").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let is_here = cfg!(target_os = "linux") && found.is_ok_and(|status| status.success());
    (!is_here).then_some("it takes Linux and a C compiler named cc")
}

/// What a worker's clock is ahead of the machine's.
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// A clock that goes right; the file is what sets it.
    ///
    /// # Errors
    /// When the library cannot be compiled, or the file cannot be written.
    pub fn new(file: PathBuf) -> Result<Clock> {
        let library = file.with_extension("so");
        if !library.exists() {
            preload::compile(SOURCE, &library)?;
        }
        // Never replaced: a worker that runs has it mapped.
        std::fs::OpenOptions::new().create(true).append(true).open(&file)?;
        let clock = Clock { library, file };
        clock.set(0)?;
        Ok(clock)
    }

    /// The environment of a worker that goes by it.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        [("LD_PRELOAD", self.library.display().to_string()), ("TRIPLINE_TEST_CLOCK", self.file.display().to_string())]
    }

    /// From now on, so many seconds ahead of the machine's clock; less than 0 is behind it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set(&self, seconds: i64) -> Result<()> {
        let file = std::fs::OpenOptions::new().write(true).open(&self.file)?;
        file.write_all_at(&(seconds * 1_000_000_000).to_ne_bytes(), 0).with_context(|| format!("could not write {}", self.file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn a_process_goes_by_its_own_clock_and_waits_as_long_as_before() {
        if let Some(why) = obstacle() {
            eprintln!("left out: {why}");
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Clock::new(folder.path().join("clock")).expect("a clock");
        let seconds = |clock: &Clock| {
            let date = Command::new("date").arg("+%s").envs(clock.environment()).output().expect("date runs");
            String::from_utf8_lossy(&date.stdout).trim().parse::<i64>().expect("a number")
        };
        for ahead in [0, 3_600, -3_600] {
            clock.set(ahead).expect("set");
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64;
            assert!((seconds(&clock) - now - ahead).abs() < 60, "{ahead} s ahead");
        }
    }
}
