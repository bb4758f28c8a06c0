//! The thread that notices changed files.
//!
//! Notifications make it quick; looking at the contents every two seconds makes it sure, where notifications are missing
//! (network file systems) or blind (a link that leads elsewhere now).

use super::Live;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};
use tracing::{debug, warn};

/// Contents are looked at this often even when nothing was notified.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// An editor or a deployment makes several changes in a row: they are over when it was quiet for this long.
const QUIET: Duration = Duration::from_millis(200);
/// Changes that never end are looked at after this long all the same.
const AT_LATEST: Duration = Duration::from_secs(2);

/// Starts the thread. It ends by itself some seconds after the last owner of `live` has gone.
pub(super) fn spawn(live: &Arc<Live>, paths: Vec<PathBuf>) {
    let live = Arc::downgrade(live);
    let spawned = thread::Builder::new().name("tripline-watch".into()).spawn(move || {
        // One place is enough: what matters is that something changed.
        let (changed, changes) = sync_channel(1);
        let _watcher = watcher(changed, &paths);
        run(&live, &changes);
    });
    if let Err(error) = spawned {
        warn!(%error, "changes of rules and flags will not be noticed: the thread that watches them did not start");
    }
}

fn run(live: &Weak<Live>, changes: &Receiver<()>) {
    loop {
        match changes.recv_timeout(LOOK_EVERY) {
            Ok(()) => settle(changes),
            Err(RecvTimeoutError::Timeout) => {}
            // No watcher: only the clock is left.
            Err(RecvTimeoutError::Disconnected) => thread::sleep(LOOK_EVERY),
        }
        let Some(live) = live.upgrade() else { return };
        live.reload();
    }
}

/// Waits until changes have paused.
fn settle(changes: &Receiver<()>) {
    let deadline = Instant::now() + AT_LATEST;
    while Instant::now() < deadline && changes.recv_timeout(QUIET).is_ok() {}
}

/// Watches each path's folder too, so that a rename over the path is seen; `None` when the system cannot notify.
fn watcher(changed: SyncSender<()>, paths: &[PathBuf]) -> Option<RecommendedWatcher> {
    let handler = move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // Full: a change is waiting already.
            let _ = changed.try_send(());
        }
    };
    let mut watcher = match notify::recommended_watcher(handler) {
        Ok(watcher) => watcher,
        Err(error) => {
            debug!(%error, "no notifications of changed files: looking every two seconds");
            return None;
        }
    };
    let parents = paths.iter().map(|path| path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")));
    let folders: BTreeSet<&Path> = parents.chain(paths.iter().map(PathBuf::as_path).filter(|p| p.is_dir())).collect();
    for folder in folders {
        if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
            debug!(%error, folder = %folder.display(), "not notified of changes here: looking every two seconds");
        }
    }
    Some(watcher)
}
