//! Ctrl-C and SIGTERM: noticed between two steps, so that everything is stopped in order.

use anyhow::{Result, bail};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};

static HAPPENED: AtomicBool = AtomicBool::new(false);

/// Listens from now on. A second signal ends the process at once; its children die with it.
pub fn listen() {
    std::thread::spawn(|| {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else { return };
            loop {
                tokio::select! { _ = int.recv() => (), _ = term.recv() => () }
                if HAPPENED.swap(true, Ordering::Relaxed) {
                    std::process::exit(130);
                }
                eprintln!("\nstopping …");
            }
        });
    });
}

/// Whether a signal came.
pub fn happened() -> bool {
    HAPPENED.load(Ordering::Relaxed)
}

/// An error when a signal came.
pub fn check() -> Result<()> {
    if happened() {
        bail!("interrupted");
    }
    Ok(())
}
