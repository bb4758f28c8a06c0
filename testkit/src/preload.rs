//! Small C libraries between a process and the system (`LD_PRELOAD`): for clocks and disks that are not what they should be.

use anyhow::{Context, Result, ensure};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Compiles one.
///
/// # Errors
/// When there is no C compiler named `cc`, or it refuses the source.
pub fn compile(source: &str, library: &Path) -> Result<()> {
    let mut command = Command::new("cc");
    command.args(["-O2", "-shared", "-fPIC", "-xc", "-", "-ldl", "-o"]).arg(library).stdin(Stdio::piped());
    let mut cc = command.spawn().context("a C compiler (cc), which RocksDB needs, too")?;
    cc.stdin.take().context("a pipe was asked for")?.write_all(source.as_bytes())?;
    ensure!(cc.wait()?.success(), "cc could not compile {}", library.display());
    Ok(())
}
