//! The rules and flags of a run, in variants that differ in nothing but what a rule in shadow says.

use anyhow::{Context, Result, anyhow};
use serde_json::{Map, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tripline_core::engine::{Emit, Engine};
use tripline_core::flags::FlagSnapshot;
use tripline_core::rule::load::{SourceFile, load};

const ROUTED: &str = include_str!("routed.yaml");
const KEYED: &str = include_str!("keyed.yaml");

/// The rules and flags that are taken in turns.
#[derive(Debug)]
pub struct Pack {
    keyed: bool,
    engines: BTreeMap<(String, String), Arc<Engine>>,
}

/// How many variants there are.
pub const VARIANTS: u64 = 4;

impl Pack {
    /// Every variant, loaded: whatever moment a worker reads the two files at, it has one of them.
    pub fn load(keyed: bool) -> Result<Pack> {
        let mut engines = BTreeMap::new();
        for variant in 0..VARIANTS {
            let engine = engine(&rules(keyed, variant), &flags(variant))?;
            engines.insert((engine.rules.digest.clone(), engine.flags_digest.clone()), Arc::new(engine));
        }
        Ok(Pack { keyed, engines })
    }

    /// The engine of these digests.
    pub fn engine(&self, digests: &(String, String)) -> Result<&Engine> {
        self.engines.get(digests).map(Arc::as_ref).with_context(|| format!("nobody wrote rules {} with flags {}", digests.0, digests.1))
    }

    /// An engine to route with: all variants address alike.
    pub fn router(&self) -> Result<&Engine> {
        self.engines.values().next().map(Arc::as_ref).context("a pack has variants")
    }

    /// Writes a variant as a running worker may find it: each file at once, by renaming.
    pub fn write(&self, variant: u64, rules_folder: &Path, flags_file: &Path) -> Result<()> {
        std::fs::create_dir_all(rules_folder)?;
        replace(&rules_folder.join("pack.yaml"), &rules(self.keyed, variant))?;
        replace(flags_file, &flags(variant))
    }
}

/// An engine of one file of rules and a flags file.
pub fn engine(rules: &str, flags: &str) -> Result<Engine> {
    let files = [SourceFile { name: "pack.yaml".into(), text: rules.into() }];
    let told = |problems: Vec<tripline_core::diagnostic::Diagnostic>| anyhow!(problems.iter().map(ToString::to_string).collect::<String>());
    let rules = load(&files, &Map::new()).map_err(told)?;
    let flags = FlagSnapshot::parse("flags.json", flags).map_err(told)?;
    Ok(Engine::new(Arc::new(rules), &flags, Emit::Fired))
}

fn rules(keyed: bool, variant: u64) -> String {
    let (version, watched) = if variant.is_multiple_of(2) { ("1", "404") } else { ("2", "403") };
    let text = if keyed { KEYED } else { ROUTED };
    text.replace("$VERSION", version).replace("$WATCHED", watched)
}

fn flags(variant: u64) -> String {
    json!({"BLOCKING": true, "WATCHING": variant % VARIANTS < VARIANTS / 2}).to_string()
}

fn replace(file: &Path, text: &str) -> Result<()> {
    let beside = PathBuf::from(format!("{}.new", file.display()));
    std::fs::write(&beside, text)?;
    std::fs::rename(beside, file).with_context(|| format!("could not replace {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_loads_and_differs_from_the_others() {
        for keyed in [false, true] {
            let pack = Pack::load(keyed).expect("the pack loads");
            assert_eq!(pack.engines.len() as u64, VARIANTS);
            let engine = pack.router().expect("an engine");
            assert!(engine.needs_time(), "something waits for time to pass");
            assert_eq!(engine.rules.policy.remember_ids, 0, "a repeat is not recognised by its id");
        }
    }
}
