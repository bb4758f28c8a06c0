//! Apache Kafka as a child process: Java and the jars that `testkit/kafka/jars.sh` fetches.

use super::Options;
use crate::client;
use crate::process::Process;
use crate::worker::tail;
use anyhow::{Context, Result, bail, ensure};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const READY_WITHIN: Duration = Duration::from_secs(60);
/// A port that was free can be taken before the broker binds it.
const ATTEMPTS: usize = 3;
const FOLDER_PREFIX: &str = "tripline-kafka-";
/// Locked as long as the folder's broker is ours. A lock and no process id: containers may share the file system, not the ids.
const OWNER: &str = "owner.lock";
/// Memory is the fastest disk, if there is plenty.
const SHARED_MEMORY: &str = "/dev/shm";
const SHARED_MEMORY_BYTES: u64 = 2 << 30;

/// A broker that runs as our child. Its data go with it.
#[derive(Debug)]
pub(super) struct LocalBroker {
    // Dropped in this order: the process ends before its folder goes.
    process: Process,
    bootstrap: String,
    log: PathBuf,
    _owner: File,
    _data: TempDir,
}

impl LocalBroker {
    pub(super) fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }
}

/// Starts a broker and waits until a client can list its metadata.
pub(super) fn start(options: &Options) -> Result<LocalBroker> {
    check_java()?;
    let jars = jars()?;
    remove_left_overs();
    let log = std::env::temp_dir().join(format!("{}.log", crate::unique("tripline-kafka")));
    for attempt in 1.. {
        let (broker, controller) = two_free_addresses()?;
        match start_on(options, &jars, broker, controller, &log) {
            Ok(started) => return Ok(started),
            Err(_) if attempt < ATTEMPTS && tail(&log, 200).contains("BindException") => (),
            Err(why) => return Err(why),
        }
    }
    bail!("no attempt was made")
}

fn start_on(options: &Options, jars: &Path, broker: SocketAddr, controller: SocketAddr, log: &Path) -> Result<LocalBroker> {
    let data =
        tempfile::Builder::new().prefix(FOLDER_PREFIX).tempdir_in(data_home()).context("could not make a folder for the broker's data")?;
    let owner = File::create(data.path().join(OWNER))?;
    owner.try_lock().context("could not lock the folder of the broker's data")?;
    let properties = data.path().join("server.properties");
    let log4j = data.path().join("log4j2.xml");
    fs::write(&properties, server_properties(options, broker, controller, data.path()))?;
    fs::write(&log4j, LOG4J)?;
    let log_file = File::create(log).with_context(|| format!("could not open {}", log.display()))?;

    let java = |main: &str, flags: &[&str], args: &[&str]| -> Result<Command> {
        let mut command = Command::new("java");
        command.arg(format!("-Xmx{}", options.heap)).args(["-Xms64m", "-XX:+UseSerialGC"]).args(flags);
        command.arg(format!("-Dlog4j2.configurationFile={}", log4j.display()));
        command.arg("-cp").arg(format!("{}/*", jars.display())).arg(main).args(args);
        command.arg(&properties).stdin(Stdio::null()).stdout(log_file.try_clone()?).stderr(log_file.try_clone()?);
        Ok(command)
    };
    let failed = |what: &str| format!("{what}; last lines of {}:\n{}", log.display(), tail(log, 15));

    let format = ["format", "--standalone", "--cluster-id", "dHJpcGxpbmUtdGVzdGtpdA", "--config"];
    let mut formatting = Process::spawn("Kafka's storage tool", java("kafka.tools.StorageTool", &["-XX:TieredStopAtLevel=1"], &format)?)?;
    let status = formatting.wait(READY_WITHIN)?;
    ensure!(status.success(), failed("could not format the broker's storage"));

    let mut process = Process::spawn("Kafka", java("kafka.Kafka", &[], &[])?)?;
    let bootstrap = broker.to_string();
    let deadline = Instant::now() + READY_WITHIN;
    while client::wait_for_metadata(&bootstrap, Duration::from_secs(1)).is_err() {
        if let Some(status) = process.exit_status() {
            bail!(failed(&format!("Kafka ended while it was starting ({status})")));
        }
        ensure!(Instant::now() < deadline, failed(&format!("Kafka was not ready within {READY_WITHIN:?}")));
    }
    Ok(LocalBroker { process, bootstrap, log: log.to_owned(), _owner: owner, _data: data })
}

/// Warnings, and which transaction markers were written: a lost marker explains many a strange test.
const LOG4J: &str = r#"<Configuration><Appenders><Console name="out"><PatternLayout pattern="%d %p %c{1} %m%n"/></Console></Appenders>
<Loggers><Logger name="kafka.coordinator.transaction.TransactionMarkerChannelManager" level="info"/>
<Root level="warn"><AppenderRef ref="out"/></Root></Loggers></Configuration>
"#;

fn server_properties(options: &Options, broker: SocketAddr, controller: SocketAddr, folder: &Path) -> String {
    let mut lines = String::new();
    let ours = super::common_properties().into_iter().map(|(name, value)| (name.to_owned(), value));
    let placed = [
        ("controller.quorum.bootstrap.servers".to_owned(), controller.to_string()),
        ("listeners".to_owned(), format!("PLAINTEXT://{broker},CONTROLLER://{controller}")),
        ("advertised.listeners".to_owned(), format!("PLAINTEXT://{broker}")),
        ("log.dirs".to_owned(), folder.join("data").display().to_string()),
    ];
    // Java takes the last of equal names, so the caller's lines win.
    for (name, value) in ours.chain(placed).chain(options.properties.iter().cloned()) {
        let _ = writeln!(lines, "{name}={value}");
    }
    lines
}

fn check_java() -> Result<()> {
    let output = Command::new("java").arg("-version").output().context("Java (java) was not found")?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let major = java_major(&text).with_context(|| format!("could not read Java's version from: {}", text.trim()))?;
    ensure!(major >= 17, "Java {major} is too old for Kafka {}: 17 or newer is needed", super::VERSION);
    Ok(())
}

/// `openjdk version "17.0.15" 2025-04-15` → 17; `java version "1.8.0_401"` → 1.
fn java_major(text: &str) -> Option<u32> {
    text.split_once('"')?.1.split(['.', '"', '-', '+']).next()?.parse().ok()
}

fn jars() -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("kafka/jars.sh");
    let output = Command::new("bash").arg(&script).output().context("could not run bash")?;
    ensure!(output.status.success(), "could not fetch Kafka's jars: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

fn two_free_addresses() -> Result<(SocketAddr, SocketAddr)> {
    // Both are held until both are known, so they differ.
    let (first, second) = (TcpListener::bind(("127.0.0.1", 0))?, TcpListener::bind(("127.0.0.1", 0))?);
    Ok((first.local_addr()?, second.local_addr()?))
}

/// Where the broker keeps its data.
fn data_home() -> PathBuf {
    let shared = Path::new(SHARED_MEMORY);
    if free_bytes(shared) >= SHARED_MEMORY_BYTES { shared.to_owned() } else { std::env::temp_dir() }
}

fn free_bytes(folder: &Path) -> u64 {
    let Ok(path) = std::ffi::CString::new(folder.as_os_str().as_encoded_bytes()) else { return 0 };
    // SAFETY: statvfs is a plain C struct, for which all zeros is a value.
    let mut space: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends with NUL and the struct is ours.
    if unsafe { libc::statvfs(path.as_ptr(), &raw mut space) } != 0 {
        return 0;
    }
    space.f_bavail as u64 * space.f_frsize as u64
}

/// A process that was killed with SIGKILL could not remove its broker's data: the next one does.
fn remove_left_overs() {
    for home in [Path::new(SHARED_MEMORY), &std::env::temp_dir()] {
        for entry in fs::read_dir(home).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(FOLDER_PREFIX)) && is_abandoned(&entry.path()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

fn is_abandoned(folder: &Path) -> bool {
    File::open(folder.join(OWNER)).is_ok_and(|owner| owner.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_versions_are_read() {
        assert_eq!(java_major("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime"), Some(17));
        assert_eq!(java_major("openjdk version \"21\" 2023-09-19"), Some(21));
        assert_eq!(java_major("openjdk version \"25-ea\" 2025-09-16"), Some(25));
        assert_eq!(java_major("java version \"1.8.0_401\""), Some(1));
        assert_eq!(java_major("no java here"), None);
    }

    #[test]
    fn a_folder_is_abandoned_when_nobody_holds_its_lock() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_abandoned(folder.path()), "a folder without a lock file is not ours");
        let owner = File::create(folder.path().join(OWNER)).unwrap();
        owner.try_lock().unwrap();
        assert!(!is_abandoned(folder.path()));
        drop(owner);
        assert!(is_abandoned(folder.path()));
    }

    #[test]
    fn the_callers_properties_come_last() {
        let options = Options { properties: vec![("num.io.threads".into(), "8".into())], ..Options::default() };
        let text = server_properties(&options, ([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into(), Path::new("/x"));
        assert!(text.contains("listeners=PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.1:2\n"));
        assert_eq!(text.lines().rfind(|line| line.starts_with("num.io.threads=")), Some("num.io.threads=8"));
    }
}
