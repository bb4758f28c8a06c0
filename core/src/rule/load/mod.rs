//! Files of a pack to a [`RuleSet`]: strict keys, every problem reported at once with file, line, column and the way out.
//!
//! Start at [`load`]. YAML becomes a tree that knows its places ([`tree`]), the settings are put into it ([`settings`]),
//! and each kind of document is read by its module: [`pack`] for what rules lean on, [`rule`] and [`detect`] for rules.
//! Readers report into [`report`] and go on; the pack loads whole or not at all. The format is in `docs/rules.md`.

pub mod cases;
pub mod codes;
mod detect;
pub(crate) mod fields;
pub mod outline;
mod pack;
pub(crate) mod policy;
pub(crate) mod report;
pub(crate) mod rule;
#[cfg(test)]
mod schema;
mod settings;
#[cfg(test)]
mod tests;
pub(crate) mod tree;

use super::{FlagDecl, Rule, RuleSet};
use crate::diagnostic::Diagnostic;
use crate::expr::Scope;
use crate::hash;
use crate::lint::cost;
use crate::policy::{Decide, Policy};
use outline::Outline;
use report::{Place, Report};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use tree::{Node, Tree};

/// The largest file.
pub const MAX_FILE_BYTES: usize = 1 << 20;
/// The most files of a pack.
pub const MAX_FILES: usize = 1_000;
/// The most rules of a pack.
pub const MAX_RULES: usize = 1_000;

/// One file of a pack, as read by the caller (the core does no I/O).
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Its name as the user knows it.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// What a document is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rule,
    Lists,
    Profiles,
    Flags,
    Policy,
    Settings,
    Predicates,
}

const KINDS: [(&str, Kind); 7] = [
    ("rule", Kind::Rule),
    ("lists", Kind::Lists),
    ("profiles", Kind::Profiles),
    ("flags", Kind::Flags),
    ("policy", Kind::Policy),
    ("settings", Kind::Settings),
    ("predicates", Kind::Predicates),
];

/// Loads a pack. `settings` override the pack's own settings document (`ANOMALY_*`), by name.
pub fn load(files: &[SourceFile], settings: &Map<String, Value>) -> Result<RuleSet, Vec<Diagnostic>> {
    let mut files = files.to_vec();
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let mut report = Report::new(&files);
    let mut documents: Vec<(Kind, Node)> = readable(&mut report)
        .into_iter()
        .flat_map(|file| tree::documents(file, &mut report))
        .collect::<Vec<_>>()
        .into_iter()
        .filter_map(|document| kind(&document, &mut report).map(|kind| (kind, document)))
        .collect();
    let declared: Vec<Node> = documents.extract_if(.., |(kind, _)| *kind == Kind::Settings).map(|(_, document)| document).collect();
    let values = settings::read(&declared, settings, &mut report);
    for (_, document) in &mut documents {
        settings::substitute(document, &values, &mut report);
    }
    let set = assemble(&documents, digest(&files, settings), &mut report);
    if report.is_empty() {
        for (kind, bytes) in cost::of(&set).kinds.iter().filter(|(_, bytes)| **bytes > cost::MAX_ENTITY_BYTES) {
            let message = format!("the rules may remember {bytes} bytes of one {kind}, at most {} are allowed", cost::MAX_ENTITY_BYTES);
            report.global(
                codes::LIMIT,
                "rules",
                message,
                Some("lower `per_max` or thresholds; `tripline check` lists every rule's bytes".into()),
            );
        }
    }
    match report.finish() {
        Some(problems) => Err(problems),
        None => Ok(set),
    }
}

/// The files within bounds, by index.
fn readable(report: &mut Report<'_>) -> Vec<usize> {
    let files = report.files();
    if files.len() > MAX_FILES {
        report.global(codes::LIMIT, "rules", format!("{} files, at most {MAX_FILES} are allowed", files.len()), None);
        return Vec::new();
    }
    let mut indices = Vec::new();
    for (index, file) in files.iter().enumerate() {
        if file.text.len() > MAX_FILE_BYTES {
            let message = format!("the file has {} bytes, at most {MAX_FILE_BYTES} are allowed", file.text.len());
            report.problem(codes::LIMIT, Place { file: index, line: 0, column: 0 }, message, None);
        } else {
            indices.push(index);
        }
    }
    indices
}

/// The kind of a document; reports a kind or a schema that is not known.
fn kind(document: &Node, report: &mut Report<'_>) -> Option<Kind> {
    let Tree::Map(entries) = &document.value else {
        fields::wrong_type(document, "a document", "a map", report);
        return None;
    };
    let get = |key: &str| entries.iter().find(|e| e.key == key);
    match get("schema").map(|e| (&e.value.value, e.value.at)) {
        Some((Tree::Int(1), _)) => {}
        None => report.problem(codes::MISSING_KEY, document.at, "`schema` is missing", Some("write `schema: 1`".into())),
        Some((_, at)) => report.problem(codes::SCHEMA, at, "`schema` is not one that this version reads", Some("write `schema: 1`".into())),
    }
    let Some(entry) = get("kind") else { return Some(Kind::Rule) };
    if matches!(&entry.value.value, Tree::Text(given) if given == "calibration") {
        fields::not_yet(entry.value.at, "this kind of document", report);
        return None;
    }
    fields::word(&entry.value, "`kind`", &KINDS, report)
}

/// Reads every document; what is wrong is in the report, and the set is used only if nothing is.
fn assemble(documents: &[(Kind, Node)], digest: String, report: &mut Report<'_>) -> RuleSet {
    let of = |wanted: Kind| documents.iter().filter(move |(kind, _)| *kind == wanted).map(|(_, document)| document);
    let (mut flags, mut lists, mut profiles) = (Vec::new(), BTreeMap::new(), pack::Profiles::default());
    of(Kind::Flags).for_each(|document| pack::read_flags(document, &mut flags, report));
    of(Kind::Lists).for_each(|document| pack::read_lists(document, &mut lists, report));
    of(Kind::Profiles).for_each(|document| pack::read_profiles(document, &mut profiles, report));
    let policies: Vec<&Node> = of(Kind::Policy).collect();
    for second in policies.iter().skip(1) {
        report.problem(codes::DUPLICATE, second.at, "a pack has one policy, this is another", None);
    }
    let rule_documents: Vec<&Node> = of(Kind::Rule).collect();
    let mut scope = Scope { lists, lets: BTreeMap::new() };
    let good = pack::read_predicates(&of(Kind::Predicates).collect::<Vec<_>>(), &mut scope, report);
    // With a predicate that is wrong, every use of it would be reported as well.
    let policy = policies.first().filter(|_| good).and_then(|document| policy::read_policy(document, &flags, &scope, report));
    let policy = policy.unwrap_or_else(policy::default_policy);
    let rules = if good { read_rules(&rule_documents, &flags, &scope, report) } else { Vec::new() };
    check_composites(&rule_documents, &rules, policy.decide, report);
    profiles.named.append(&mut profiles.overrides);
    let outline = outline::read(documents.iter().map(|(_, document)| document), &rule_documents, report);
    set(digest, rules, profiles, flags, policy, outline)
}

fn read_rules(documents: &[&Node], flags: &[FlagDecl], scope: &Scope, report: &mut Report<'_>) -> Vec<Rule> {
    if documents.is_empty() && report.is_empty() {
        let file = report.files().first().map_or("rules", |file| file.name.as_str());
        report.global(codes::EMPTY, file, "the pack has no rule", Some("docs/rules.md shows one".into()));
    }
    if let Some(beyond) = documents.get(MAX_RULES) {
        report.problem(codes::LIMIT, beyond.at, format!("{} rules, at most {MAX_RULES} are allowed", documents.len()), None);
        return Vec::new();
    }
    let mut ids: BTreeMap<&str, Place> = BTreeMap::new();
    for document in documents {
        let Tree::Map(entries) = &document.value else { continue };
        let Some((id, at)) = entries.iter().find(|e| e.key == "id").and_then(|e| match &e.value.value {
            Tree::Text(id) => Some((id.as_str(), e.value.at)),
            _ => None,
        }) else {
            continue;
        };
        if let Some(first) = ids.insert(id, at) {
            let help = format!("the other one is in {}, line {}", report.files()[first.file].name, first.line);
            report.problem(codes::DUPLICATE, at, format!("two rules have the id `{}`", fields::shown(id)), Some(help));
        }
    }
    documents.iter().filter_map(|document| rule::read_rule(document, rule::Pack { flags, scope }, report)).collect()
}

/// A rule over the score needs one.
fn check_composites(documents: &[&Node], rules: &[Rule], decide: Decide, report: &mut Report<'_>) {
    // Where a rule could not be read, documents and rules do not stand side by side; there are problems enough then.
    if decide == Decide::PerEvent || documents.len() != rules.len() {
        return;
    }
    for (document, rule) in documents.iter().zip(rules).filter(|(_, rule)| rule.detector.is_composite()) {
        let help = "write `decide: per_event`, or leave the rule out".to_owned();
        let message = format!("{} looks at the score, and `decide: per_signal` has none", rule.id);
        report.problem(codes::CONTRADICTION, document.at, message, Some(help));
    }
}

fn set(digest: String, rules: Vec<Rule>, profiles: pack::Profiles, flags: Vec<FlagDecl>, policy: Policy, outline: Outline) -> RuleSet {
    let default_profile = profiles.default.unwrap_or(pack::DEFAULT_PROFILE);
    RuleSet { digest, rules, profiles: profiles.named, default_profile, flags, policy, outline }
}

/// The version of a pack: base names, texts and overrides. Where the files lie does not count.
fn digest(files: &[SourceFile], settings: &Map<String, Value>) -> String {
    let base = |name: &str| name.rsplit(['/', '\\']).next().unwrap_or_default().to_owned();
    let files: Vec<(String, &str)> = files.iter().map(|file| (base(&file.name), file.text.as_str())).collect();
    let settings: BTreeMap<&str, Value> = settings.iter().map(|(name, value)| (name.as_str(), sorted(value))).collect();
    hash::digest(serde_json::json!([files, settings]).to_string().as_bytes())
}

/// The value with the keys of its objects in order, whatever order the caller's map keeps.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let ordered: BTreeMap<&String, Value> = map.iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(ordered.into_iter().map(|(key, value)| (key.clone(), value)).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}
