//! The `tripline` binary as a child process that tests can kill.

use crate::http;
use crate::process::Process;
use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

/// A running `tripline`.
#[derive(Debug)]
pub struct Worker {
    process: Process,
    log: PathBuf,
}

/// The `tripline` beside the running program: demo and benchmark stand beside it, tests in `deps` below it.
pub fn sibling_binary() -> Result<PathBuf> {
    let here = std::env::current_exe().context("could not find the running program")?;
    let folder = here.parent().context("the running program has no folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    let binary = folder.join("tripline");
    if !binary.is_file() {
        bail!("there is no tripline in {}: build it with `make build`", folder.display());
    }
    Ok(binary)
}

/// A command of the binary with these settings and no others: `TRIPLINE_*` of our own environment is not passed on.
pub fn command<'a>(binary: &Path, args: &[&str], settings: impl IntoIterator<Item = (&'a str, &'a str)>) -> Command {
    let mut command = Command::new(binary);
    command.args(args).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"TRIPLINE_") {
            command.env_remove(name);
        }
    }
    command.envs(settings.into_iter().map(|(name, value)| (OsStr::new(name), OsStr::new(value))));
    command
}

impl Worker {
    /// Starts `tripline ARGS…` with these settings in its environment; what it prints is appended to the log file.
    pub fn spawn<'a>(
        binary: impl AsRef<Path>,
        args: &[&str],
        settings: impl IntoIterator<Item = (&'a str, &'a str)>,
        log: impl Into<PathBuf>,
    ) -> Result<Worker> {
        let log = log.into();
        let file = File::options().create(true).append(true).open(&log).with_context(|| format!("could not open {}", log.display()))?;
        let mut command = command(binary.as_ref(), args, settings);
        command.stdout(file.try_clone()?).stderr(file);
        Ok(Worker { process: Process::spawn("tripline", command)?, log })
    }

    /// The process: signals, CPU seconds, memory.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// How it ended; `None` while it runs.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.process.exit_status()
    }

    /// Kills it without warning (SIGKILL).
    pub fn kill_9(&mut self) {
        self.process.kill_9();
    }

    /// Asks it to stop (SIGTERM) and waits at most this long; one that does not stop is killed and reported as an error.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.process.terminate(limit)
    }

    /// User and system CPU time so far, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        self.process.cpu_seconds()
    }

    /// Largest resident memory so far, in bytes.
    pub fn peak_rss_bytes(&self) -> u64 {
        self.process.peak_rss_bytes()
    }

    /// Whether `/readyz` on its admin address answers 200.
    pub fn is_ready(&self, admin_address: &str) -> bool {
        http::get(admin_address, "/readyz").is_ok_and(|(status, _)| status == 200)
    }

    /// Waits until it is ready; an error with its last log lines when it ends first or the time is up.
    pub fn wait_ready(&mut self, admin_address: &str, limit: Duration) -> Result<()> {
        let deadline = std::time::Instant::now() + limit;
        while !self.is_ready(admin_address) {
            if let Some(status) = self.exit_status() {
                bail!("tripline ended while it was starting ({status}):\n{}", self.log_tail(30));
            }
            if std::time::Instant::now() >= deadline {
                bail!("tripline was not ready within {limit:?}:\n{}", self.log_tail(30));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Where its log goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }
}

/// The last lines of a file; empty when it cannot be read.
pub fn tail(file: &Path, lines: usize) -> String {
    let bytes = std::fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
