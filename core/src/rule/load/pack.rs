//! The documents that rules lean on: lists, predicates, flags and profiles.

use super::codes;
use super::detect::{Evidence, read_evidence};
use super::fields::{Fields, Keys, check_name, list, map, name, of_setting, points, shown, text, truth, word};
use super::report::{Report, did_you_mean};
use super::rule::expression_text;
use super::tree::{Node, Tree};
use crate::expr::{Scope, check_predicates};
use crate::rule::{Category, FlagDecl, Profile, Severity};
use std::collections::BTreeMap;

/// The most lists, flags and profiles a pack may have, each.
pub const MAX_NAMED: usize = 10_000;
/// The most values of one list.
pub const MAX_LIST_VALUES: usize = 100_000;

/// The keys of a `lists` document.
pub const LISTS: Keys = Keys { what: "a lists document", known: &["schema", "kind", "lists"], later: &[] };
/// The keys of a `predicates` document.
pub const PREDICATES: Keys = Keys { what: "a predicates document", known: &["schema", "kind", "predicates"], later: &[] };
/// The keys of a `flags` document.
pub const FLAGS: Keys = Keys { what: "a flags document", known: &["schema", "kind", "flags"], later: &[] };
/// The keys of one flag.
pub const FLAG: Keys = Keys { what: "a flag", known: &["name", "default", "description"], later: &[] };
/// The keys of a `profiles` document.
pub const PROFILES: Keys = Keys { what: "a profiles document", known: &["schema", "kind", "profiles", "default", "overrides"], later: &[] };
/// The keys of one profile.
pub const PROFILE: Keys =
    Keys { what: "a profile", known: &["risk_score", "severity", "category", "axis", "family", "half_life"], later: &[] };
/// Severities by their words.
pub const SEVERITIES: [(&str, Severity); 4] =
    [("low", Severity::Low), ("medium", Severity::Medium), ("high", Severity::High), ("critical", Severity::Critical)];
/// Categories by their words.
pub const CATEGORIES: [(&str, Category); 3] =
    [("request", Category::Request), ("permission", Category::Permission), ("business", Category::Business)];
/// The profile of a type that no document names, when no document gives a default: the package's.
pub const DEFAULT_PROFILE: Profile =
    Profile { risk_score: 30, severity: Severity::Medium, category: Category::Request, axis: None, family: None, half_life_ms: None };

/// Reads a `lists` document into `lists`.
pub fn read_lists(document: &Node, lists: &mut BTreeMap<String, Vec<String>>, report: &mut Report<'_>) {
    let Some(fields) = Fields::open(document, &LISTS, report) else { return };
    let Some(entries) = fields.need("lists", report).and_then(|n| map(n, "`lists`", report)) else { return };
    for entry in entries {
        if !check_name(&entry.key, entry.at, "a list", report) {
            continue;
        }
        let Some(items) = list(&entry.value, "a list", report) else { continue };
        if items.len() > MAX_LIST_VALUES {
            let message = format!("the list `{}` has {} values, at most {MAX_LIST_VALUES} are allowed", entry.key, items.len());
            report.problem(codes::LIMIT, entry.at, message, None);
            continue;
        }
        let value = |item: &Node| match item.value {
            Tree::Int(number) => Some(number.to_string()),
            _ => text(item, "a value of a list", report).map(str::to_owned),
        };
        let values = items.iter().filter_map(value).collect();
        if lists.insert(entry.key.clone(), values).is_some() {
            report.problem(codes::DUPLICATE, entry.at, format!("the list `{}` is declared twice", entry.key), None);
        }
        if lists.len() == MAX_NAMED + 1 {
            report.problem(codes::LIMIT, entry.at, format!("more than {MAX_NAMED} lists"), None);
        }
    }
}

/// Reads the `predicates` documents into the scope of every rule's expressions; answers whether all of them are good.
pub fn read_predicates(documents: &[&Node], scope: &mut Scope, report: &mut Report<'_>) -> bool {
    let mut places = BTreeMap::new();
    let mut good = true;
    for document in documents {
        let entries = Fields::open(document, &PREDICATES, report).and_then(|fields| fields.need("predicates", report));
        let Some(entries) = entries.and_then(|n| map(n, "`predicates`", report)) else {
            good = false;
            continue;
        };
        for entry in entries {
            let Some(source) = expression_text(&entry.value, "a predicate", report) else {
                good = false;
                continue;
            };
            if scope.lets.insert(entry.key.clone(), source).is_some() {
                report.problem(codes::DUPLICATE, entry.at, format!("the predicate `{}` is declared twice", shown(&entry.key)), None);
                good = false;
            }
            places.insert(entry.key.as_str(), entry);
            if scope.lets.len() == MAX_NAMED + 1 {
                report.problem(codes::LIMIT, entry.at, format!("more than {MAX_NAMED} predicates"), None);
                return false;
            }
        }
    }
    for (name, error) in check_predicates(scope) {
        let Some(entry) = places.get(name.as_str()) else { continue };
        let at = report.inside(entry.value.at, &scope.lets[&name], error.offset);
        report.problem(codes::EXPRESSION, at, format!("the predicate `{}`: {}", shown(&name), error.message), error.help);
        good = false;
    }
    good
}

/// Reads a `flags` document into `flags`.
pub fn read_flags(document: &Node, flags: &mut Vec<FlagDecl>, report: &mut Report<'_>) {
    let Some(fields) = Fields::open(document, &FLAGS, report) else { return };
    let Some(items) = fields.need("flags", report).and_then(|n| list(n, "`flags`", report)) else { return };
    for item in items {
        let Some(fields) = Fields::open(item, &FLAG, report) else { continue };
        let name = fields.need("name", report).and_then(|n| name(n, "a flag", report));
        let default = fields.get("default").map_or(Some(false), |n| truth(n, "`default` of a flag", report));
        let description = fields.get("description").map_or(Some(""), |n| text(n, "`description`", report));
        let (Some(name), Some(default), Some(description)) = (name, default, description) else { continue };
        if flags.iter().any(|f| f.name == name) {
            report.problem(codes::DUPLICATE, item.at, format!("the flag {name} is declared twice"), None);
            continue;
        }
        flags.push(FlagDecl { name: name.to_owned(), default, description: description.to_owned() });
        if flags.len() == MAX_NAMED + 1 {
            report.problem(codes::LIMIT, item.at, format!("more than {MAX_NAMED} flags"), None);
        }
    }
}

/// The index of the flag that a node names.
pub fn flag_index(node: &Node, flags: &[FlagDecl], report: &mut Report<'_>) -> Option<usize> {
    let name = text(node, "`flag`", report)?;
    let found = flags.iter().position(|f| f.name == name);
    if found.is_none() {
        let help =
            did_you_mean(name, flags.iter().map(|f| f.name.as_str())).or_else(|| Some("declare it in a document of `kind: flags`".into()));
        report.problem(codes::UNKNOWN_FLAG, node.at, format!("unknown flag `{}`{}", shown(name), of_setting(node)), help);
    }
    found
}

/// The profiles of a pack.
#[derive(Debug, Default)]
pub struct Profiles {
    /// As the documents have them.
    pub named: BTreeMap<String, Profile>,
    /// The operator's, which win.
    pub overrides: BTreeMap<String, Profile>,
    /// For types without one.
    pub default: Option<Profile>,
}

/// Reads a `profiles` document into `profiles`.
pub fn read_profiles(document: &Node, profiles: &mut Profiles, report: &mut Report<'_>) {
    let Some(fields) = Fields::open(document, &PROFILES, report) else { return };
    for (key, into) in [("profiles", &mut profiles.named), ("overrides", &mut profiles.overrides)] {
        let Some(entries) = fields.get(key).and_then(|n| map(n, &format!("`{key}`"), report)) else { continue };
        for entry in entries {
            let Some(profile) = read_profile(&entry.value, report) else { continue };
            if into.insert(entry.key.clone(), profile).is_some() {
                report.problem(codes::DUPLICATE, entry.at, format!("the profile `{}` is declared twice", shown(&entry.key)), None);
            }
            if into.len() == MAX_NAMED + 1 {
                report.problem(codes::LIMIT, entry.at, format!("more than {MAX_NAMED} profiles"), None);
            }
        }
    }
    if let Some(profile) = fields.get("default").and_then(|n| read_profile(n, report))
        && profiles.default.replace(profile).is_some()
    {
        report.problem(codes::DUPLICATE, fields.key_at("default"), "the default profile is declared twice", None);
    }
}

fn read_profile(node: &Node, report: &mut Report<'_>) -> Option<Profile> {
    let fields = Fields::open(node, &PROFILE, report)?;
    let risk_score = fields.need("risk_score", report).and_then(|n| points(n, "`risk_score`", report));
    let severity = fields.need("severity", report).and_then(|n| word(n, "`severity`", &SEVERITIES, report));
    let category = fields.need("category", report).and_then(|n| word(n, "`category`", &CATEGORIES, report));
    let Evidence { axis, family, half_life_ms } = read_evidence(&fields, report)?;
    Some(Profile { risk_score: risk_score?, severity: severity?, category: category?, axis, family, half_life_ms })
}
