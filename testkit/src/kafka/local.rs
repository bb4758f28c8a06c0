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

const READY_WITHIN: Duration = Duration::from_secs(180);
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
    listeners: Vec<(String, SocketAddr)>,
    java: Java,
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

    pub(super) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    pub(super) fn listener(&self, name: &str) -> Option<SocketAddr> {
        self.listeners.iter().find(|(listener, _)| listener == name).map(|(_, address)| *address)
    }

    /// Starts it again on the same data and the same ports; it must have ended.
    pub(super) fn restart(&mut self) -> Result<()> {
        ensure!(self.process.exit_status().is_some(), "the broker still runs");
        self.process = self.java.serve(&self.bootstrap)?;
        Ok(())
    }
}

/// How the broker's programs are run.
#[derive(Debug)]
struct Java {
    heap: String,
    jars: PathBuf,
    properties: PathBuf,
    log4j: PathBuf,
    log: PathBuf,
}

impl Java {
    fn command(&self, main: &str, flags: &[&str], args: &[&str]) -> Result<Command> {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("could not open {}", self.log.display()))?;
        let mut command = Command::new("java");
        command.arg(format!("-Xmx{}", self.heap)).args(["-Xms64m", "-XX:+UseSerialGC"]).args(flags);
        command.arg(format!("-Dlog4j2.configurationFile={}", self.log4j.display()));
        command.arg("-cp").arg(format!("{}/*", self.jars.display())).arg(main).args(args);
        command.arg(&self.properties).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }

    fn failed(&self, what: &str) -> String {
        format!("{what}; last lines of {}:\n{}", self.log.display(), tail(&self.log, 15))
    }

    /// Runs the broker and waits until a client can list its metadata.
    fn serve(&self, bootstrap: &str) -> Result<Process> {
        let mut process = Process::spawn("Kafka", self.command("kafka.Kafka", &[], &[])?)?;
        let deadline = Instant::now() + READY_WITHIN;
        while client::wait_for_metadata(bootstrap, Duration::from_secs(1)).is_err() {
            if let Some(status) = process.exit_status() {
                bail!(self.failed(&format!("Kafka ended while it was starting ({status})")));
            }
            ensure!(Instant::now() < deadline, self.failed(&format!("Kafka was not ready within {READY_WITHIN:?}")));
        }
        Ok(process)
    }
}

/// Starts a broker and waits until a client can list its metadata.
pub(super) fn start(options: &Options) -> Result<LocalBroker> {
    check_java()?;
    let jars = jars()?;
    remove_left_overs();
    let log = std::env::temp_dir().join(format!("{}.log", crate::unique("tripline-kafka")));
    for attempt in 1.. {
        match start_once(options, &jars, &log) {
            Ok(started) => return Ok(started),
            Err(_) if attempt < ATTEMPTS && tail(&log, 200).contains("BindException") => (),
            Err(why) => return Err(why),
        }
    }
    bail!("no attempt was made")
}

fn start_once(options: &Options, jars: &Path, log: &Path) -> Result<LocalBroker> {
    let data =
        tempfile::Builder::new().prefix(FOLDER_PREFIX).tempdir_in(data_home()).context("could not make a folder for the broker's data")?;
    let owner = File::create(data.path().join(OWNER))?;
    owner.try_lock().context("could not lock the folder of the broker's data")?;
    let doors = Doors::open(options)?;
    let in_folder = |name: &str| data.path().join(name);
    let (properties, log4j) = (in_folder("server.properties"), in_folder("log4j2.xml"));
    let java = Java { heap: options.heap.clone(), jars: jars.to_owned(), properties, log4j, log: log.to_owned() };
    fs::write(&java.properties, server_properties(options, &doors, data.path()))?;
    fs::write(&java.log4j, log4j_xml(&options.loggers))?;
    // An earlier attempt's words are not this one's.
    fs::write(log, [])?;

    let format = ["format", "--standalone", "--cluster-id", "dHJpcGxpbmUtdGVzdGtpdA", "--config"];
    let formatting = java.command("kafka.tools.StorageTool", &["-XX:TieredStopAtLevel=1"], &format)?;
    let status = Process::spawn("Kafka's storage tool", formatting)?.wait(READY_WITHIN)?;
    ensure!(status.success(), java.failed("could not format the broker's storage"));

    let bootstrap = doors.broker.to_string();
    let process = java.serve(&bootstrap)?;
    let listeners = options.listeners.iter().map(|l| l.name.clone()).zip(doors.more).collect();
    Ok(LocalBroker { process, bootstrap, listeners, java, log: log.to_owned(), _owner: owner, _data: data })
}

/// The broker's addresses.
#[derive(Debug)]
struct Doors {
    broker: SocketAddr,
    controller: SocketAddr,
    /// In the order of [`Options::listeners`].
    more: Vec<SocketAddr>,
}

impl Doors {
    fn open(options: &Options) -> Result<Doors> {
        // All are held until all are known, so they differ.
        let held: Vec<TcpListener> =
            (0..2 + options.listeners.len()).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect::<std::io::Result<_>>()?;
        let mut addresses = held.iter().map(TcpListener::local_addr).collect::<std::io::Result<Vec<_>>>()?;
        let more = addresses.split_off(2);
        Ok(Doors { broker: addresses[0], controller: addresses[1], more })
    }
}

/// Warnings, which transaction markers were written (a lost marker explains many a strange test), and what was asked for.
fn log4j_xml(loggers: &[(String, String)]) -> String {
    let markers = ("kafka.coordinator.transaction.TransactionMarkerChannelManager".to_owned(), "info".to_owned());
    let loggers = std::iter::once(&markers).chain(loggers).fold(String::new(), |mut text, (name, level)| {
        let _ = writeln!(text, r#"<Logger name="{name}" level="{level}"/>"#);
        text
    });
    format!(
        r#"<Configuration><Appenders><Console name="out"><PatternLayout pattern="%d %p %c{{1}} %m%n"/></Console></Appenders>
<Loggers>{loggers}<Root level="warn"><AppenderRef ref="out"/></Root></Loggers></Configuration>
"#
    )
}

fn server_properties(options: &Options, doors: &Doors, folder: &Path) -> String {
    let mut lines = String::new();
    let Doors { broker, controller, more } = doors;
    let (mut listeners, mut advertised) = (format!("PLAINTEXT://{broker},CONTROLLER://{controller}"), format!("PLAINTEXT://{broker}"));
    let mut protocols = "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT".to_owned();
    for (listener, address) in options.listeners.iter().zip(more) {
        let name = &listener.name;
        let _ = write!(listeners, ",{name}://{address}");
        let _ = write!(advertised, ",{name}://{}", listener.advertised.unwrap_or(*address));
        let _ = write!(protocols, ",{name}:{}", listener.protocol);
    }
    let ours = super::common_properties().into_iter().map(|(name, value)| (name.to_owned(), value));
    let placed = [
        ("controller.quorum.bootstrap.servers".to_owned(), controller.to_string()),
        ("listeners".to_owned(), listeners),
        ("advertised.listeners".to_owned(), advertised),
        ("listener.security.protocol.map".to_owned(), protocols),
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
    use crate::kafka::Listener;

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
        let slow = Listener { name: "SLOW".into(), protocol: "PLAINTEXT".into(), advertised: Some(([127, 0, 0, 1], 4).into()) };
        let options = Options { properties: vec![("num.io.threads".into(), "8".into())], listeners: vec![slow], ..Options::default() };
        let address = |port| ([127, 0, 0, 1], port).into();
        let doors = Doors { broker: address(1), controller: address(2), more: vec![address(3)] };
        let text = server_properties(&options, &doors, Path::new("/x"));
        assert!(text.contains("listeners=PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.1:2,SLOW://127.0.0.1:3\n"));
        assert!(text.contains("advertised.listeners=PLAINTEXT://127.0.0.1:1,SLOW://127.0.0.1:4\n"));
        assert_eq!(text.lines().rfind(|line| line.starts_with("num.io.threads=")), Some("num.io.threads=8"));
    }
}
