//! Child processes that never outlive us.
//!
//! Linux can kill a child when its parent dies (`PR_SET_PDEATHSIG`), but "parent" there means the *thread* that forked it.
//! So one thread that lives as long as the process does all forking. An orderly end is `Drop`: SIGTERM, wait, SIGKILL.

use anyhow::{Context, Result, bail};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// How long `Drop` waits after SIGTERM before it kills.
const DROP_GRACE: Duration = Duration::from_secs(5);
const POLL_EVERY: Duration = Duration::from_millis(10);

/// A running child process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
}

struct Order {
    command: Command,
    reply: mpsc::Sender<std::io::Result<Child>>,
}

/// The thread that forks every child.
fn forker() -> &'static Mutex<mpsc::Sender<Order>> {
    static FORKER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    FORKER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for mut order in inbox {
                // The asker waits for the reply; if it is gone there is no one to tell.
                let _ = order.reply.send(order.command.spawn());
            }
        });
        Mutex::new(orders)
    })
}

/// Makes the child die with us. Runs between fork and exec.
#[cfg(target_os = "linux")]
fn die_with_parent(parent: u32) -> std::io::Result<()> {
    // SAFETY: prctl with these arguments only sets a number in the kernel; it is async-signal-safe.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // We may have died before the line above: then nobody would ever signal the child.
    // SAFETY: getppid has no preconditions.
    if unsafe { libc::getppid() }.cast_unsigned() != parent {
        return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_parent: u32) -> std::io::Result<()> {
    Ok(())
}

impl Process {
    /// Starts a command in a process group of its own, so that Ctrl-C on a terminal reaches us alone and we stop it in order.
    pub fn spawn(name: &str, mut command: Command) -> Result<Process> {
        let parent = std::process::id();
        command.process_group(0);
        // SAFETY: `die_with_parent` makes two async-signal-safe calls and touches no memory that another thread may hold.
        unsafe { command.pre_exec(move || die_with_parent(parent)) };
        let (reply, answer) = mpsc::channel();
        if !forker().lock().is_ok_and(|orders| orders.send(Order { command, reply }).is_ok()) {
            bail!("could not start {name}: the forking thread is gone");
        }
        let child = answer
            .recv()
            .context("the forking thread went away")
            .and_then(|c| Ok(c?))
            .with_context(|| format!("could not start {name}"))?;
        Ok(Process { child, name: name.to_owned() })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended; `None` while it runs.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal; nothing happens if the process has ended.
    pub fn signal(&mut self, signal: libc::c_int) {
        if self.exit_status().is_none() {
            let pid = self.child.id().cast_signed();
            // SAFETY: the child is ours and not reaped (checked above), so the id is not reused.
            unsafe { libc::kill(pid, signal) };
        }
    }

    /// Waits for the end, at most this long.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.exit_status() {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("{} did not end within {limit:?}", self.name);
            }
            thread::sleep(POLL_EVERY);
        }
    }

    /// Asks it to stop (SIGTERM) and waits. One that does not stop in time is killed and reported as an error.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(libc::SIGTERM);
        let ended = self.wait(limit);
        if ended.is_err() {
            self.kill_9();
        }
        ended
    }

    /// Kills it without warning (SIGKILL) and reaps it.
    pub fn kill_9(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// User and system CPU time so far, in seconds; zero when the process is gone.
    pub fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.id()).unwrap_or(0.0)
    }

    /// Largest resident memory so far, in bytes; zero when the process is gone.
    pub fn peak_rss_bytes(&self) -> u64 {
        peak_rss_bytes(self.id()).unwrap_or(0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.terminate(DROP_GRACE);
    }
}

/// User and system CPU time of any process, from `/proc`.
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the name, may hold spaces: count from the bracket that closes it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    // SAFETY: sysconf has no preconditions.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Some(ticks / per_second as f64)
}

/// Largest resident memory of any process, from `/proc`.
pub fn peak_rss_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}

/// Whether a process of this id runs (a zombie does not).
pub fn is_running(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z')))
}
