//! Rules and flags while the process runs: one consistent [`Engine`], replaced whole when its files change.
//!
//! Promises: a lane that takes [`Live::current`] between transactions sees rules and flags that belong together; a broken
//! file changes nothing and is reported once; contents that mean the same do nothing. Change several files at once by
//! renaming a folder or swapping a link, as a mounted ConfigMap does: files that are written one after the other may be
//! taken up in between when that pack is valid too.

#[cfg(test)]
mod tests;
mod watch;

use crate::config::{Config, EmitWhat, KeyedBy};
use crate::flags;
use crate::rules::PackSources;
use arc_swap::ArcSwap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tracing::{info, warn};
use tripline_core::diagnostic::Diagnostic;
use tripline_core::engine::{Emit, Engine};
use tripline_core::flags::FlagSnapshot;
use tripline_core::hash;

/// The present rules and flags.
#[derive(Debug)]
pub struct Live {
    engine: ArcSwap<Engine>,
    paths: Paths,
    /// Digest of the files as last looked at, whether they were good or not.
    seen: Mutex<String>,
    reloads: AtomicU64,
    failures: AtomicU64,
}

/// What is read, and what every engine is built with.
#[derive(Debug, Clone)]
struct Paths {
    rules: PathBuf,
    settings: PathBuf,
    flags: PathBuf,
    emit: Emit,
    entity: crate::config::Entity,
    keyed_by: KeyedBy,
}

/// What looking at the files led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// Rules and flags mean what they meant.
    Unchanged,
    /// A new engine is in place.
    Replaced,
    /// The files are broken; the engine before them stays.
    Refused,
}

impl From<EmitWhat> for Emit {
    fn from(what: EmitWhat) -> Emit {
        match what {
            EmitWhat::Fired => Emit::Fired,
            EmitWhat::All => Emit::All,
        }
    }
}

impl Live {
    /// Loads rules and flags and watches them from now on, until the last `Arc` is dropped.
    pub fn start(config: &Config) -> Result<Arc<Live>, Vec<Diagnostic>> {
        let live = Arc::new(Live::load(config)?);
        watch::spawn(&live, live.paths.all());
        Ok(live)
    }

    /// Loads rules and flags without watching them.
    pub fn load(config: &Config) -> Result<Live, Vec<Diagnostic>> {
        let paths = Paths {
            rules: config.rules.path.clone(),
            settings: config.rules.settings.clone(),
            flags: config.flags.file.clone(),
            emit: config.decisions.emit.into(),
            entity: config.entity.clone(),
            keyed_by: config.input.keyed_by,
        };
        let read = paths.read();
        let seen = digest(&read);
        let engine = paths.build(&read?)?;
        if let Some(flag) = engine.switched_off_by() {
            warn!(flag, "nothing will be decided: the master flag is off; switch it on in the flags file (flags.file)");
        }
        info!(rules = engine.rules.digest, flags = engine.flags_digest, count = engine.rules.rules.len(), "rules loaded");
        Ok(Live {
            engine: ArcSwap::from_pointee(engine),
            paths,
            seen: Mutex::new(seen),
            reloads: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        })
    }

    /// The present engine. Take it between transactions and keep it for the whole of one.
    pub fn current(&self) -> Arc<Engine> {
        self.engine.load_full()
    }

    /// How often a new engine was put in place.
    pub fn reloads(&self) -> u64 {
        self.reloads.load(Ordering::Relaxed)
    }

    /// How often changed files were refused.
    pub fn reload_failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Looks at the files now.
    pub fn reload(&self) -> Reload {
        // Nothing panics while the lock is held that would leave half a text in it.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let read = self.paths.read();
        let contents = digest(&read);
        if *seen == contents {
            return Reload::Unchanged;
        }
        *seen = contents;
        match read.and_then(|contents| self.paths.build(&contents)) {
            Ok(engine) => self.replace(engine),
            Err(problems) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                let problems: String = problems.iter().map(ToString::to_string).collect();
                warn!(problems, "changed rules or flags refused: the ones before them stay in force");
                Reload::Refused
            }
        }
    }

    fn replace(&self, engine: Engine) -> Reload {
        let old = self.engine.load_full();
        if old.rules.digest == engine.rules.digest && old.flags_digest == engine.flags_digest {
            return Reload::Unchanged;
        }
        info!(
            rules_before = old.rules.digest,
            rules = engine.rules.digest,
            flags_before = old.flags_digest,
            flags = engine.flags_digest,
            "rules and flags replaced"
        );
        if let Some(flag) = engine.switched_off_by() {
            warn!(flag, "nothing will be decided from now on: the master flag is off");
        }
        self.engine.store(Arc::new(engine));
        self.reloads.fetch_add(1, Ordering::Relaxed);
        Reload::Replaced
    }
}

impl Paths {
    fn all(&self) -> Vec<PathBuf> {
        [&self.rules, &self.settings, &self.flags].into_iter().filter(|p| !p.as_os_str().is_empty()).cloned().collect()
    }

    fn read(&self) -> Result<Contents, Vec<Diagnostic>> {
        Ok(Contents { pack: PackSources::read(&self.rules, &self.settings)?, flags: flags::read(&self.flags)? })
    }

    fn build(&self, contents: &Contents) -> Result<Engine, Vec<Diagnostic>> {
        let flags = contents.flags.as_ref().map_or_else(|| Ok(FlagSnapshot::default()), |text| flags::parse(&self.flags, text));
        match (contents.pack.load(), flags) {
            (Ok(rules), Ok(flags)) => {
                let problems = crate::rules::unmet(&rules, &self.rules, self.keyed_by, &self.entity);
                if !problems.is_empty() {
                    return Err(problems);
                }
                Ok(Engine::new(Arc::new(rules), &flags, self.emit).addressing(self.entity.addressing()))
            }
            (rules, flags) => Err(rules.err().into_iter().chain(flags.err()).flatten().collect()),
        }
    }
}

/// The files as read; of what cannot be read, the problems.
struct Contents {
    pack: PackSources,
    flags: Option<String>,
}

fn digest(read: &Result<Contents, Vec<Diagnostic>>) -> String {
    let text = match read {
        Ok(contents) => format!("{:?} {:?}", contents.pack.texts().collect::<Vec<_>>(), contents.flags),
        Err(problems) => format!("{problems:?}"),
    };
    hash::digest(text.as_bytes())
}
