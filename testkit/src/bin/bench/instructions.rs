//! Instructions of the worker, where the machine counts them: steadier than seconds on a shared host.

use std::process::{Child, Command, Stdio};

/// `perf stat` beside a process.
pub struct Counter {
    perf: Child,
}

impl Counter {
    /// Starts counting; none where there is no perf.
    pub fn start(pid: u32) -> Option<Counter> {
        let mut command = Command::new("perf");
        command.args(["stat", "-x", ",", "-e", "instructions:u", "-p", &pid.to_string()]);
        let perf = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().ok()?;
        Some(Counter { perf })
    }

    /// Stops counting. None where the machine does not count instructions (most virtual machines).
    pub fn stop(self) -> Option<u64> {
        let interrupted = Command::new("kill").args(["-INT", &self.perf.id().to_string()]).status().ok()?;
        let output = self.perf.wait_with_output().ok()?;
        interrupted.success().then_some(())?;
        String::from_utf8_lossy(&output.stderr).lines().find_map(|line| line.split(',').next()?.trim().parse().ok())
    }
}
