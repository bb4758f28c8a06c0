//! Disks that are damaged, full or failing. What is damaged is rebuilt; what is full or fails ends the process with words that say
//! where to look, sets nothing aside and loses nothing.

use crate::line::{BINARY, Line, PATIENCE, Running, Setup, assert_equal, generated};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use tripline_testkit::{Worker, preload, wait_until};

/// Files of the task's store that hold tables, the log in front of them, or what names them.
fn files_of(line: &Line, worker: &str, ending: &str) -> Result<Vec<PathBuf>> {
    let folder = line.file(&format!("state-{worker}/task-0"));
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    found.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(ending)));
    ensure!(!found.is_empty(), "no file ends with {ending}");
    Ok(found)
}

/// Flips a bit in every block of these files, as a dying disk would.
fn flip(files: &[PathBuf]) -> Result<()> {
    for file in files {
        let mut bytes = std::fs::read(file)?;
        for at in (0..bytes.len()).step_by(512) {
            bytes[at] ^= 0x10;
        }
        std::fs::write(file, bytes)?;
    }
    Ok(())
}

/// Takes the second half away from these files, as a power cut would.
fn tear(files: &[PathBuf]) -> Result<()> {
    for file in files {
        let bytes = std::fs::read(file)?;
        std::fs::write(file, &bytes[..bytes.len() / 2])?;
    }
    Ok(())
}

fn set_aside(line: &Line, worker: &str) -> usize {
    std::fs::read_dir(line.file(&format!("state-{worker}/set-aside"))).map_or(0, Iterator::count)
}

/// What is done to a store between two starts.
type Damage = fn(&Line) -> Result<()>;

/// Whether the next start has to set the store aside. Tables that are flipped and a missing list of files are damage; from a torn
/// or flipped log RocksDB recovers by itself, up to the last whole record: the store is older then, and catches up.
const DAMAGES: [(&str, Damage, bool); 5] = [
    // The next start makes the log a table, so that there is one to damage.
    ("nothing", |_| Ok(()), false),
    ("tables flipped", |line| flip(&files_of(line, "one", ".sst")?), true),
    ("list of files missing", |line| Ok(std::fs::write(line.file("state-one/task-0/CURRENT"), "MANIFEST-999999\n")?), true),
    ("log torn", |line| tear(&files_of(line, "one", ".log")?), false),
    ("log flipped", |line| flip(&files_of(line, "one", ".log")?), false),
];

/// Found when the store is opened or when it is read, set aside, and the state rebuilt; or recovered by RocksDB, and caught up.
#[test]
fn a_damaged_store_is_set_aside_and_rebuilt() -> Result<()> {
    let line = Line::new(&Setup::keyed(1))?;
    let events = generated(55, 9_000)?;
    let lines: Vec<&str> = events.lines().collect();
    let often = [("TRIPLINE_STATE__WRITE_INTERVAL", "100ms"), ("TRIPLINE_STATE__CACHE_BYTES", "1MiB")];
    let mut parts = lines.chunks(lines.len().div_ceil(DAMAGES.len() + 1));
    let mut go_on = |line: &Line| -> Result<Running> {
        let mut running = line.start_with("one", "detect,sink", &often)?;
        running.worker.wait_ready(&running.admin, PATIENCE)?;
        line.produce(parts.next().context("a part of the events")?.iter().copied())?;
        line.settle()?;
        ensure!(running.worker.exit_status().is_none(), "the worker goes on:\n{}", running.worker.log_tail(20));
        Ok(running)
    };
    go_on(&line)?.stop()?;
    let mut aside = 0;
    for (what, damage, is_damage) in DAMAGES {
        damage(&line).context(what)?;
        let running = go_on(&line).context(what)?;
        let metrics = running.metrics()?;
        let (counted, restored) = (metrics.sum("tripline_state_set_aside_total", &[]), metrics.sum("tripline_restore_records_total", &[]));
        eprintln!("{what}: {counted} set aside, {restored} records applied");
        aside += usize::from(is_damage);
        ensure!(set_aside(&line, "one") == aside && (counted == 1.0) == is_damage, "{what}: {} set aside", set_aside(&line, "one"));
        ensure!((restored > 0.0) == (what != "nothing"), "{what}: {restored} records applied");
        running.stop()?;
    }
    assert_equal(&line.decisions()?, &line.replay(&events)?);
    Ok(())
}

/// Whether the input is read to its end, so that what comes next is a commit, and a write, of its own.
fn is_read(line: &Line) -> Result<bool> {
    let committed = line.kafka.committed_offsets(&line.app, &line.input)?;
    Ok(committed.get(&0).copied().unwrap_or(0) >= line.kafka.end_offsets(&line.input)?[&0])
}

/// Events in pieces, produced one after the other until the worker ends; the disk is its problem by then.
struct Feed<'e>(std::vec::IntoIter<Vec<&'e str>>);

impl<'e> Feed<'e> {
    fn of(events: &'e str, piece: usize) -> Feed<'e> {
        let lines: Vec<&str> = events.lines().collect();
        Feed(lines.chunks(piece).map(<[&str]>::to_vec).collect::<Vec<_>>().into_iter())
    }

    /// The worker ends with 4, names the folder and sets nothing aside.
    fn ends(&mut self, line: &Line, worker: &mut Worker, what: &str) -> Result<()> {
        wait_until(PATIENCE, what, || {
            let is_next = is_read(line).unwrap_or(false);
            worker.exit_status().is_some() || (is_next && self.0.next().is_some_and(|piece| line.produce(piece).is_err()))
        })
        .with_context(|| worker.log_tail(20))?;
        let log = worker.log_tail(20);
        ensure!(worker.exit_status().and_then(|s| s.code()) == Some(4), "{what}: exit code 4 expected:\n{log}");
        let folder = line.file("state-one");
        ensure!(log.contains("has room (state.dir)") && log.contains(&*folder.to_string_lossy()), "{what}: says what to look at:\n{log}");
        ensure!(!log.contains("set aside"), "{what}: is not damage:\n{log}");
        Ok(())
    }

    /// What is left.
    fn rest(self, line: &Line) -> Result<()> {
        line.produce(self.0.flatten())?;
        Ok(())
    }
}

/// Settings of the worker, with more of them.
fn settings(line: &Line, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let often = [("TRIPLINE_STATE__WRITE_INTERVAL", "50ms")];
    let more = often.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    line.settings("one").into_iter().chain(more).collect()
}

fn spawn(line: &Line, program: &str, args: &[&str], more: &[(&str, &str)]) -> Result<Worker> {
    let settings = settings(line, more);
    let args = [args, &["run", "--roles", "detect"]].concat();
    Worker::spawn(program, &args, settings.iter().map(|(key, value)| (key.as_str(), value.as_str())), line.file("failing.log"))
}

/// On a disk that works: everything is decided, once.
fn assert_nothing_is_lost(line: &Line, events: &str) -> Result<()> {
    let running = line.start("one")?;
    line.settle().with_context(|| running.worker.log_tail(20))?;
    assert_equal(&line.decisions()?, &line.replay(events)?);
    running.stop()
}

/// A quota: files of at most 16 KiB. (Without the trap the system would kill.)
#[test]
fn files_that_may_not_grow_end_the_process_and_nothing_is_lost() -> Result<()> {
    let line = Line::new(&Setup::keyed(1))?;
    let events = generated(57, 8_000)?;
    let mut feed = Feed::of(&events, 500);
    let mut full = spawn(&line, "/bin/sh", &["-c", "trap '' XFSZ; ulimit -f 32; exec \"$0\" \"$@\"", BINARY], &[])?;
    feed.ends(&line, &mut full, "a file may not grow")?;
    ensure!(set_aside(&line, "one") == 0, "a full disk is not a damaged one");
    feed.rest(&line)?;
    assert_nothing_is_lost(&line, &events)
}

/// A file system of half a MiB in the place of the worker's folder, which lasts as long as the process that has it; nobody else sees it.
struct SmallDisk {
    holder: Worker,
}

impl SmallDisk {
    /// `None` where users may not make file systems of their own.
    fn mount(line: &Line, folder: &Path) -> Result<Option<SmallDisk>> {
        std::fs::create_dir_all(folder)?;
        let shell = "mount -t tmpfs -o size=512k small \"$0\" && echo mounted && exec sleep 3600";
        let log = line.file("small.log");
        let mut holder = Worker::spawn("unshare", &["-rm", "sh", "-c", shell, &folder.to_string_lossy()], [], &log)?;
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        wait_until(PATIENCE, "the disk is there", || said().contains("mounted") || holder.exit_status().is_some())?;
        if holder.exit_status().is_some() {
            eprintln!("SKIPPED: no user namespaces here, so no small disk: {}", said().trim());
            return Ok(None);
        }
        Ok(Some(SmallDisk { holder }))
    }

    /// The way in: `nsenter` with these arguments.
    fn enter(&self) -> [String; 5] {
        ["-t".into(), self.holder.id().to_string(), "-U".into(), "--preserve-credentials".into(), "-m".into()]
    }

    fn spawn(&self, line: &Line) -> Result<Worker> {
        let enter = self.enter();
        let args: Vec<&str> = enter.iter().map(String::as_str).chain([BINARY]).collect();
        spawn(line, "nsenter", &args, &[])
    }

    /// What a command prints that runs where the disk is.
    fn run(&self, args: &[&str]) -> Result<String> {
        let done = Command::new("nsenter").args(self.enter()).args(args).output()?;
        ensure!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        Ok(String::from_utf8(done.stdout)?)
    }
}

/// No space left: the process says so and ends, and goes on with the same files when there is room.
#[test]
fn a_full_disk_ends_the_process_and_nothing_is_lost() -> Result<()> {
    let line = Line::new(&Setup::keyed(1))?;
    let folder = line.file("state-one");
    let Some(disk) = SmallDisk::mount(&line, &folder)? else { return Ok(()) };
    let events = generated(60, 16_000)?;
    let mut feed = Feed::of(&events, 100);
    let mut full = disk.spawn(&line)?;
    line.produce(feed.0.next().context("events are left")?)?;
    wait_until(PATIENCE, "the disk is used", || is_read(&line).unwrap_or(false))?;
    // Somebody else takes what is left.
    disk.run(&["sh", "-c", "dd if=/dev/zero of=\"$0/filler\" bs=1k 2>/dev/null; true", &folder.to_string_lossy()])?;
    feed.ends(&line, &mut full, "the disk is full")?;
    ensure!(full.log_tail(20).contains("No space left on device"), "the system's own words:\n{}", full.log_tail(20));
    // Full it stays, whatever is tried.
    let mut again = disk.spawn(&line)?;
    feed.ends(&line, &mut again, "the disk is still full")?;

    let folder = folder.to_string_lossy();
    disk.run(&["mount", "-o", "remount,size=256m", &folder])?;
    let mut roomy = disk.spawn(&line)?;
    feed.rest(&line)?;
    line.settle().with_context(|| roomy.log_tail(20))?;
    assert_equal(&line.decisions()?, &line.replay(&events)?);
    let files = disk.run(&["ls", &folder])?;
    ensure!(files.contains("task-0") && !files.contains("set-aside"), "the same files, and none was set aside: {files}");
    let log = std::fs::read_to_string(roomy.log())?;
    ensure!(!log.contains("after the whole changelog"), "the store was not emptied:\n{log}");
    let status = roomy.terminate(PATIENCE)?;
    ensure!(status.success(), "stopped with {status}:\n{}", roomy.log_tail(20));
    Ok(())
}

/// The system says that the disk does not answer: at the start and in the middle of it, for writing, syncing and reading.
#[test]
fn a_disk_that_fails_ends_the_process_and_nothing_is_lost() -> Result<()> {
    let line = Line::new(&Setup::keyed(1))?;
    let (library, folder) = (line.file("failing.so"), line.file("state-one"));
    preload::compile(include_str!("disk/failing.c"), &library)?;
    let library = library.display().to_string();
    std::fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?.display().to_string();
    let events = generated(61, 24_000)?;
    let mut feed = Feed::of(&events, 250);
    // Twice, so that there are tables to read: a start makes them of the log.
    for _ in 0..2 {
        let running = line.start("one")?;
        for piece in feed.0.by_ref().take(8) {
            line.produce(piece)?;
        }
        line.settle()?;
        running.stop()?;
    }
    for (call, after) in [("write", "0"), ("write", "60"), ("sync", "1"), ("read", "0"), ("read", "12")] {
        let broken = [("LD_PRELOAD", &*library), ("DISK_FOLDER", &*folder), ("DISK_CALL", call), ("DISK_AFTER", after)];
        let what = format!("{call} fails after {after} calls");
        let more = [&broken[..], &[("TRIPLINE_STATE__CACHE_BYTES", "1MiB"), ("TRIPLINE_STATE__ROCKSDB_BYTES", "8MiB")]].concat();
        let mut failing = spawn(&line, BINARY, &[], &more)?;
        feed.ends(&line, &mut failing, &what)?;
        let log = failing.log_tail(4);
        eprintln!("{what}: {}", log.lines().last().unwrap_or_default());
        ensure!(log.contains("Input/output error") || log.contains("os error 5"), "{what}: the system's own words:\n{log}");
        ensure!(set_aside(&line, "one") == 0, "{what}: is not damage");
    }
    feed.rest(&line)?;
    assert_nothing_is_lost(&line, &events)?;
    ensure!(set_aside(&line, "one") == 0, "nothing was damaged by it");
    Ok(())
}
