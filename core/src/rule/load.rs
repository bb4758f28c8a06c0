//! Files of a pack to a [`RuleSet`]: strict keys, every problem reported at once with file, line, column and the way out.

use super::RuleSet;
use crate::diagnostic::Diagnostic;
use serde_json::{Map, Value};

/// One file of a pack, as read by the caller (the core does no I/O).
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Its name as the user knows it.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Loads a pack. `settings` override the pack's own settings document (`ANOMALY_*`), by name.
pub fn load(files: &[SourceFile], settings: &Map<String, Value>) -> Result<RuleSet, Vec<Diagnostic>> {
    let _ = (files, settings);
    Err(vec![])
}
